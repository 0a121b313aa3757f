//! The mirror: one device, DPDK's, under two drivers, ours and DPDK's.
//!
//! ```text
//!   CPU 0                                              CPU 1: dpdk-testpmd
//!   ours: vdpa::net over vdpa-vhost ──── socket ────▶  net_vhost, port 0
//!   dpdk-testpmd: virtio-user ────────── socket ────▶  net_vhost, port 1
//! ```
//! What the drivers do for a packet is not the same. To send one, ours copies the frame into a buffer of the ring's, all of
//! it; testpmd writes the headers into a buffer of its own, and the payload is what was there. To receive one, ours looks at
//! the first 64 bytes, and at all of every sixteenth; testpmd does not look. And testpmd's memory is of huge pages where there
//! are some, ours is not.

use std::io;

use super::args::Run;
use super::child::Peer as Child;
use super::ends::{self, DEVICE_CPU, DRIVER_CPU, End, SIZES, WAYS, Way};
use super::forecast::Cost;
use super::home::Home;
use super::report::{Peer, Report, Row, Target, Unit};
use super::testpmd::{self, Testpmd};

/// Ring formats, and virtio-user's words for them.
const MODES: [(&str, &str); 2] = [
    ("split", "packed_vq=0,mrg_rxbuf=1,in_order=0"),
    ("packed", "packed_vq=1,mrg_rxbuf=1,in_order=0"),
];

/// What ours is to be, times DPDK's.
const TARGET: Target = Target {
    floor: 1.0,
    goal: 1.0,
};

/// The directions and sizes that are wanted of a mode.
fn wanted(run: &Run, mode: &str) -> Vec<(Way, usize)> {
    let all = WAYS.into_iter().flat_map(|way| SIZES.map(|len| (way, len)));
    all.filter(|(way, len)| {
        // A row's name, as `--rows` picks it.
        run.wants_row(&format!("{mode}, {len} bytes, {}", way.name()))
    })
    .collect()
}

/// How long it takes.
pub(crate) fn cost(run: &Run) -> Cost {
    let rows = MODES.iter().map(|(mode, _)| wanted(run, mode).len());
    rows.filter(|rows| *rows != 0)
        .fold(Cost::NONE, |cost, rows| cost.and(rows * run.rounds * 2, 2))
}

/// Both formats, sizes and directions.
pub(crate) fn measure(run: &Run, home: &Home, report: &mut Report) -> Result<(), String> {
    if let Some(why) = testpmd::missing() {
        report.skip("mirror", "mirror", &why);
        return Ok(());
    }
    report.title(
        "packets between DPDK's net_vhost and two drivers: Mpps (Mpps a CPU second of the device) = ours times DPDK's virtio-user",
    );
    for (mode, words) in MODES {
        let wanted = wanted(run, mode);
        if !wanted.is_empty() {
            measure_mode(run, home, report, mode, words, &wanted)
                .map_err(|e| format!("mirror, {mode}: {e}"))?;
        }
    }
    Ok(())
}

fn measure_mode(
    run: &Run,
    home: &Home,
    report: &mut Report,
    mode: &str,
    words: &str,
    wanted: &[(Way, usize)],
) -> io::Result<()> {
    let sockets = ["ours", "dpdk"].map(|name| home.socket(name));
    let mut number = 0..;
    let vdevs = sockets.each_ref().map(|socket| {
        let number = number.next().unwrap_or(0);
        format!("net_vhost{number},iface={socket},queues=1")
    });
    let mut device = Testpmd::start(DEVICE_CPU, "device", &vdevs, None)?;
    let [ours, dpdk] = &sockets;
    let mut ours = Child::start("driver", DRIVER_CPU, &[ours, mode])?;
    let port = format!("net_virtio_user0,path={dpdk},queues=1,queue_size=1024,{words}");
    let mut dpdk = Testpmd::start(DRIVER_CPU, "driver", &[port], None)?;
    for &(way, len) in wanted {
        let peer = |name, target| Peer {
            name,
            samples: Vec::new(),
            target,
        };
        let mut row = Row {
            table: "mirror",
            facts: vec![
                ("mode", mode.into()),
                ("size", len.into()),
                ("direction", way.name().into()),
            ],
            unit: Unit::Packets,
            peers: vec![peer("ours", None), peer("dpdk", Some(TARGET))],
            wrong: Vec::new(),
        };
        for _ in 0..run.rounds {
            for (number, peer) in row.peers.iter_mut().enumerate() {
                let driver = match number {
                    0 => End::Child(&mut ours),
                    _ => End::Testpmd(&mut dpdk, 0),
                };
                let device = End::Testpmd(&mut device, number);
                let measured = ends::measure(driver, device, way, len, run.slice);
                let (sample, wrong) =
                    measured.map_err(|e| io::Error::other(format!("{}: {e}", peer.name)))?;
                peer.samples.push(sample);
                row.wrong
                    .extend(wrong.map(|wrong| format!("{}: {wrong}", peer.name)));
            }
        }
        report.row(&row);
    }
    Ok(())
}

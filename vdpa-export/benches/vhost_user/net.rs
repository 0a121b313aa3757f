//! Packets: one virtio-user driver, three devices.

use std::io;

use super::args::Run;
use super::child::Peer as Child;
use super::ends::{self, DEVICE_CPU, DRIVER_CPU, End, SIZES, WAYS, Way};
use super::forecast::Cost;
use super::home::Home;
use super::report::{Peer, Report, Row, Target, Unit};
use super::testpmd::{self, Testpmd};

/// How the ring is laid out and used.
struct Mode {
    name: &'static str,
    /// The words of DPDK's virtio-user.
    words: &'static str,
    /// Bits of the driver's vectors.
    simd: Option<u32>,
    /// What ours is to be, times DPDK's device.
    goal: f64,
}

const MODES: [Mode; 4] = [
    Mode {
        name: "split mrg",
        words: "packed_vq=0,mrg_rxbuf=1,in_order=0",
        simd: None,
        goal: 1.5,
    },
    Mode {
        name: "packed mrg",
        words: "packed_vq=1,mrg_rxbuf=1,in_order=0",
        simd: None,
        goal: 1.5,
    },
    Mode {
        name: "packed in-order mrg",
        words: "packed_vq=1,mrg_rxbuf=1,in_order=1",
        simd: None,
        goal: 1.3,
    },
    Mode {
        name: "packed vectorised",
        words: "packed_vq=1,mrg_rxbuf=0,in_order=1,vectorized=1",
        simd: Some(512),
        goal: 1.3,
    },
];

/// The same, times rust-vmm's.
const RUSTVMM: Target = Target {
    floor: 4.0,
    goal: 8.0,
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
    let rows = MODES.iter().map(|mode| wanted(run, mode.name).len());
    rows.filter(|rows| *rows != 0)
        .fold(Cost::NONE, |cost, rows| cost.and(rows * run.rounds * 3, 2))
}

/// All modes, sizes and directions.
pub(crate) fn measure(run: &Run, home: &Home, report: &mut Report) -> Result<(), String> {
    if let Some(why) = testpmd::missing() {
        report.skip("net", "net", &why);
        return Ok(());
    }
    report.title(
        "packets under one dpdk-testpmd virtio-user driver: Mpps (Mpps a CPU second of the device) = ours times theirs",
    );
    for mode in &MODES {
        let wanted = wanted(run, mode.name);
        if wanted.is_empty() {
            continue;
        }
        if mode.simd == Some(512) && !has_avx512() {
            report.skip(
                "net",
                &format!("net, {}", mode.name),
                "this CPU has no AVX-512 (f, bw, vl)",
            );
            continue;
        }
        measure_mode(run, home, report, mode, &wanted)
            .map_err(|e| format!("{}: {e}", mode.name))?;
    }
    Ok(())
}

fn has_avx512() -> bool {
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    ["avx512f", "avx512bw", "avx512vl"]
        .iter()
        .all(|flag| flags.contains(flag))
}

/// Ours, DPDK's, rust-vmm's.
struct Devices {
    ours: Child,
    dpdk: Testpmd,
    rustvmm: Child,
}

const NAMES: [&str; 3] = ["ours", "dpdk", "rustvmm"];

impl Devices {
    fn start(sockets: &[String; 3]) -> io::Result<Self> {
        let [ours, dpdk, rustvmm] = sockets;
        let vdev = format!("net_vhost0,iface={dpdk},queues=1");
        Ok(Self {
            ours: Child::start("ours", DEVICE_CPU, &[ours])?,
            dpdk: Testpmd::start(DEVICE_CPU, "device", &[vdev], None)?,
            rustvmm: Child::start("rustvmm", DEVICE_CPU, &[rustvmm])?,
        })
    }

    /// The device of one of [`NAMES`].
    fn end(&mut self, number: usize) -> End<'_> {
        match number {
            0 => End::Child(&mut self.ours),
            1 => End::Testpmd(&mut self.dpdk, 0),
            _ => End::Child(&mut self.rustvmm),
        }
    }
}

fn measure_mode(
    run: &Run,
    home: &Home,
    report: &mut Report,
    mode: &Mode,
    wanted: &[(Way, usize)],
) -> io::Result<()> {
    let sockets = NAMES.map(|name| home.socket(name));
    let mut devices = Devices::start(&sockets)?;
    let ports: Vec<String> = sockets
        .iter()
        .enumerate()
        .map(|(number, socket)| {
            let words = mode.words;
            format!("net_virtio_user{number},path={socket},queues=1,queue_size=1024,{words}")
        })
        .collect();
    let mut driver = Testpmd::start(DRIVER_CPU, "driver", &ports, mode.simd)?;
    let dpdk = Target {
        floor: 1.0,
        goal: mode.goal,
    };
    for &(way, len) in wanted {
        let mut row = Row {
            table: "net",
            facts: vec![
                ("mode", mode.name.into()),
                ("size", len.into()),
                ("direction", way.name().into()),
            ],
            unit: Unit::Packets,
            peers: NAMES
                .into_iter()
                .zip([None, Some(dpdk), Some(RUSTVMM)])
                .map(|(name, target)| Peer {
                    name,
                    samples: Vec::new(),
                    target,
                })
                .collect(),
            wrong: Vec::new(),
        };
        for _ in 0..run.rounds {
            for (number, peer) in row.peers.iter_mut().enumerate() {
                let (port, device) = (End::Testpmd(&mut driver, number), devices.end(number));
                let measured = ends::measure(port, device, way, len, run.slice);
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

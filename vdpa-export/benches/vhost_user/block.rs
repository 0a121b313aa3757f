//! Requests: one client, two disks with nothing behind them.
//!
//! ```text
//!   CPU 0: virtio-driver, one process a disk      CPU 1
//!          ───────── socket ─────────▶  ours: vdpa-export over vdpa-sim     (a child of this program)
//!          ───────── socket ─────────▶  qemu-storage-daemon's export of a null-co node, in an I/O thread
//! ```
//! What is verified: each request ends once, and well. There are no data.

use std::io;

use super::args::Run;
use super::blocks;
use super::child::Peer as Child;
use super::clock::Stretch;
use super::ends::{DEVICE_CPU, DRIVER_CPU, WARM};
use super::forecast::Cost;
use super::home::Home;
use super::pages;
use super::program::{self, Program};
use super::report::{Peer, Report, Row, Sample, Target, Unit};

const MODES: [&str; 2] = ["split", "packed"];

/// Requests at a time.
const DEPTHS: [usize; 3] = [1, 8, 32];

/// What ours is to be, times qemu-storage-daemon, a CPU second of the device.
const TARGET: Target = Target {
    floor: 3.0,
    goal: 10.0,
};

fn wanted(run: &Run, mode: &str) -> Vec<usize> {
    DEPTHS
        .into_iter()
        .filter(|depth| run.wants_row(&format!("{mode}, depth {depth}")))
        .collect()
}

/// Why qemu-storage-daemon is not measured, if it is not.
fn missing() -> Option<String> {
    program::missing("qemu-storage-daemon")
        .map(|what| format!("not installed: {what} (apt install qemu-utils)"))
}

/// How long it takes.
pub(crate) fn cost(run: &Run) -> Cost {
    MODES.iter().fold(Cost::NONE, |cost, mode| {
        let rows = wanted(run, mode).len() * run.rounds;
        match *mode == "split" && rows != 0 && missing().is_none() {
            true => cost.and(2 * rows, 1),
            false => cost.and(rows, 0),
        }
    })
}

/// Both formats, all depths.
pub(crate) fn measure(run: &Run, home: &Home, report: &mut Report) -> Result<(), String> {
    let missing = missing();
    if let Some(why) = &missing {
        report.skip("block", "block, qemu-storage-daemon", why);
    }
    report.title(
        "reads of 4096 bytes by one client of two null disks: M a second (M a CPU second of the device) = ours times theirs, a CPU second",
    );
    for mode in MODES {
        let wanted = wanted(run, mode);
        if !wanted.is_empty() {
            // qemu-storage-daemon has no packed rings.
            let is_alone = missing.is_some() || mode != "split";
            measure_mode(run, home, report, mode, &wanted, is_alone)
                .map_err(|e| format!("block, {mode}: {e}"))?;
        }
    }
    Ok(())
}

/// A disk, and the client in front of it.
struct Pair {
    name: &'static str,
    device: Disk,
    client: Child,
}

enum Disk {
    Ours(Child),
    Theirs(Program),
}

impl Pair {
    fn start(name: &'static str, device: Disk, socket: &str, mode: &str) -> io::Result<Self> {
        let client = Child::start("blocks", DRIVER_CPU, &[socket, mode, pages::word()])?;
        Ok(Self {
            name,
            device,
            client,
        })
    }

    fn read(&mut self, depth: usize, millis: u128) -> io::Result<[u64; 3]> {
        self.client.numbers(&format!("read {depth} {millis}"))
    }

    /// One round. Answers with what was wrong, too.
    fn measure(&mut self, run: &Run, depth: usize) -> io::Result<(Sample, Option<String>)> {
        self.read(depth, WARM.as_millis())?;
        let stretch = Stretch::begin(match &self.device {
            Disk::Ours(peer) => peer.pid(),
            Disk::Theirs(daemon) => daemon.pid(),
        });
        let [count, ns, bad] = self.read(depth, run.slice.as_millis())?;
        let (_, cpu) = stretch.end();
        let seconds = ns as f64 / 1e9;
        let wrong = match (count, bad) {
            (0, _) => Some(format!("{}: no request was answered", self.name)),
            (_, 0) => None,
            _ => Some(format!(
                "{}: {bad} of {count} requests ended badly",
                self.name
            )),
        };
        let sample = Sample {
            count,
            seconds,
            cpu,
        };
        Ok((sample, wrong))
    }
}

fn measure_mode(
    run: &Run,
    home: &Home,
    report: &mut Report,
    mode: &str,
    depths: &[usize],
    is_alone: bool,
) -> io::Result<()> {
    let socket = home.socket("ours");
    let ours = Disk::Ours(Child::start("disk", DEVICE_CPU, &[&socket])?);
    let mut pairs = vec![Pair::start("ours", ours, &socket, mode)?];
    if !is_alone {
        let socket = home.socket("qsd");
        let theirs = Disk::Theirs(daemon(&socket)?);
        pairs.push(Pair::start("qsd", theirs, &socket, mode)?);
    }
    for &depth in depths {
        let peer = |name, target| Peer {
            name,
            samples: Vec::new(),
            target,
        };
        let mut row = Row {
            table: "block",
            facts: vec![
                ("mode", mode.into()),
                ("size", blocks::BLOCK.into()),
                ("direction", "read".into()),
                ("depth", depth.into()),
            ],
            unit: Unit::Requests,
            peers: vec![peer("ours", None), peer("qsd", Some(TARGET))],
            wrong: Vec::new(),
        };
        for _ in 0..run.rounds {
            for (pair, peer) in pairs.iter_mut().zip(&mut row.peers) {
                let measured = pair.measure(run, depth);
                let (sample, wrong) =
                    measured.map_err(|e| io::Error::other(format!("{}: {e}", peer.name)))?;
                peer.samples.push(sample);
                row.wrong.extend(wrong);
            }
        }
        report.row(&row);
    }
    Ok(())
}

/// qemu-storage-daemon with a null disk at a socket.
fn daemon(socket: &str) -> io::Result<Program> {
    let words = [
        "qemu-storage-daemon".to_owned(),
        "--object".to_owned(),
        "iothread,id=thread".to_owned(),
        "--blockdev".to_owned(),
        format!(
            "driver=null-co,node-name=null,size={},latency-ns=0",
            blocks::DISK
        ),
        "--export".to_owned(),
        format!(
            "type=vhost-user-blk,id=disk,node-name=null,addr.type=unix,addr.path={socket},writable=on,num-queues=1,\
             iothread=thread"
        ),
    ];
    let mut daemon = Program::start("qemu-storage-daemon", DEVICE_CPU, &words, "")?;
    daemon.wait_for_file(socket)?;
    Ok(daemon)
}

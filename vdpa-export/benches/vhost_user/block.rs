//! Requests: one client, two disks with nothing behind them.
//!
//! ```text
//!   CPU 0: virtio-driver, one process a disk      CPU 1
//!          ───────── socket ─────────▶  ours: vdpa-export over vdpa-sim, split rings     (a child of this program)
//!          ───────── socket ─────────▶  the same, packed rings                           (another one)
//!          ───────── socket ─────────▶  qemu-storage-daemon's export of a null-co node, in an I/O thread: split rings
//! ```
//! qemu-storage-daemon has no packed rings: both of ours are compared with what it does with its split ones, in the same
//! rounds, so that the two formats can be compared, too.
//!
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
    let rows: usize = MODES.iter().map(|mode| wanted(run, mode).len()).sum();
    match (rows, missing()) {
        (0, _) => Cost::NONE,
        (_, Some(_)) => Cost::NONE.and(rows * run.rounds, 0),
        (_, None) => Cost::NONE.and((rows + depths(run).len()) * run.rounds, 1),
    }
}

/// The depths of which a row is wanted.
fn depths(run: &Run) -> Vec<usize> {
    let all = DEPTHS.into_iter();
    all.filter(|depth| MODES.iter().any(|mode| wanted(run, mode).contains(depth)))
        .collect()
}

/// Both formats, all depths.
pub(crate) fn measure(run: &Run, home: &Home, report: &mut Report) -> Result<(), String> {
    let missing = missing();
    if let Some(why) = &missing {
        report.skip("block", "block, qemu-storage-daemon", why);
    }
    report.title(
        "reads of 4096 bytes by one client of null disks: M a second (M a CPU second of the device) = ours times theirs, a CPU second",
    );
    measure_depths(run, home, report, missing.is_some()).map_err(|e| format!("block: {e}"))
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

fn measure_depths(run: &Run, home: &Home, report: &mut Report, is_alone: bool) -> io::Result<()> {
    let mut ours = Vec::new();
    for mode in MODES
        .into_iter()
        .filter(|mode| !wanted(run, mode).is_empty())
    {
        let socket = home.socket(mode);
        let device = Disk::Ours(Child::start("disk", DEVICE_CPU, &[&socket])?);
        ours.push((mode, Pair::start("ours", device, &socket, mode)?));
    }
    let mut theirs = None;
    if !is_alone {
        let socket = home.socket("qsd");
        let device = Disk::Theirs(daemon(&socket)?);
        theirs = Some(Pair::start("qsd", device, &socket, "split")?);
    }
    for depth in depths(run) {
        let mut rows: Vec<(&mut Pair, Row)> = ours
            .iter_mut()
            .filter(|(mode, _)| wanted(run, mode).contains(&depth))
            .map(|(mode, pair)| (pair, row(mode, depth)))
            .collect();
        for _ in 0..run.rounds {
            let measure = |pair: &mut Pair| {
                let measured = pair.measure(run, depth);
                measured.map_err(|e| io::Error::other(format!("{}: {e}", pair.name)))
            };
            let theirs = theirs.as_mut().map(measure).transpose()?;
            for (pair, row) in &mut rows {
                let ours = Some(measure(pair)?);
                for (peer, measured) in row.peers.iter_mut().zip([&ours, &theirs]) {
                    let Some((sample, wrong)) = measured else {
                        continue;
                    };
                    peer.samples.push(*sample);
                    row.wrong.extend(wrong.clone());
                }
            }
        }
        for (_, row) in &rows {
            report.row(row);
        }
    }
    Ok(())
}

/// A row without samples.
fn row(mode: &str, depth: usize) -> Row {
    let peer = |name, target| Peer {
        name,
        samples: Vec::new(),
        target,
    };
    Row {
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
    }
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

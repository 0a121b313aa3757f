//! Does a packet cost more where there is more of everything: devices, queue pairs, memory regions?
//!
//! Network cards whose ports loop back, each with a driver of ours, and one worker that serves all of them: a crew
//! without a thread, so that driver and worker take turns on one thread and nothing but the work is measured. Frames of 64
//! bytes go out in batches of 32 and come back, numbered; each is looked at. One of the devices is busy among others that
//! are open and idle, or all are: each gets a batch, and then all come back.

mod rig;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rig::clock::Stopwatch;
use rig::contest::{Contest, Measured, Whose};
use rig::{Run, wrong};
use vdpa::core::Asid;
use vdpa::net::{NetDriver, Setup};
use vdpa::sim::{Crew, Shift, SimMgmt};
use vdpa::{Iova, Registry};
use vdpa_mem::{Access, DmaMemory, IovaRange, Mapping, Region};

/// Frames that go out at once.
const BATCH: usize = 32;
/// Bytes of a frame.
const LEN: usize = 64;
/// Slots of each queue.
const SLOTS: u16 = 64;
/// Where regions are that nobody uses: far from what a driver maps.
const UNUSED: u64 = 1 << 45;

fn main() {
    let run = Run::from_args();
    // A tiny round need not open a thousand.
    let most = if run.smoke { 20 } else { 1000 };

    let mut contest = Contest::new(
        "devices that one worker serves, one of them busy, 64 B, batches of 32",
        "packet",
    );
    for count in [1, 10, 100, 1000_usize] {
        let mut fleet = Fleet::new(count.min(most), 1, 1).warm(&[(0, 0)]);
        contest.row(Whose::Ours, devices(count), move |slice| {
            fleet.measure(slice, &[(0, 0)])
        });
    }
    claim(contest, &run, [1, 10, 100, 1000].map(devices));

    let mut contest = Contest::new(
        "devices that one worker serves, all busy at once, 64 B, batches of 32",
        "packet",
    );
    for count in [1, 10, 100, 1000_usize] {
        let count = count.min(most);
        let all: Vec<_> = (0..count).map(|device| (device, 0)).collect();
        let mut fleet = Fleet::new(count, 1, 1).warm(&all);
        contest.row(Whose::Ours, devices(count), move |slice| {
            fleet.measure(slice, &all)
        });
        if count == most {
            break;
        }
    }
    let last = devices(most);
    claim(contest, &run, [devices(1), devices(10), last]);

    let mut contest = Contest::new(
        "queue pairs of one device, all busy at once, one worker, 64 B, batches of 32",
        "packet",
    );
    for pairs in [1, 16, 128_u16] {
        let all: Vec<_> = (0..pairs).map(|pair| (0, pair)).collect();
        let mut fleet = Fleet::new(1, pairs, 1).warm(&all);
        contest.row(Whose::Ours, pairs_name(pairs), move |slice| {
            fleet.measure(slice, &all)
        });
    }
    claim(contest, &run, [1, 16, 128].map(pairs_name));

    let mut contest = Contest::new(
        "queue pairs of one device, one of them busy, one worker, 64 B, batches of 32",
        "packet",
    );
    for pairs in [1, 16, 128_u16] {
        let mut fleet = Fleet::new(1, pairs, 1).warm(&[(0, 0)]);
        contest.row(Whose::Ours, pairs_name(pairs), move |slice| {
            fleet.measure(slice, &[(0, 0)])
        });
    }
    claim(contest, &run, [1, 16, 128].map(pairs_name));

    let mut contest = Contest::new(
        "memory regions that one device is shown, 64 B, batches of 32",
        "packet",
    );
    let regions = |count: u64| format!("{count} regions");
    for count in [1, 10, 100, 1000_u64] {
        let mut fleet = Fleet::new(1, 1, count).warm(&[(0, 0)]);
        contest.row(Whose::Ours, regions(count), move |slice| {
            fleet.measure(slice, &[(0, 0)])
        });
    }
    claim(contest, &run, [1, 10, 100, 1000].map(regions));
}

fn devices(count: usize) -> String {
    format!("{count} devices")
}

fn pairs_name(count: u16) -> String {
    format!("{count} pairs")
}

/// A packet of each row costs at most 1.1 times one of the first.
fn claim<const N: usize>(mut contest: Contest<'_>, run: &Run, rows: [String; N]) {
    let Some((first, others)) = rows.split_first() else {
        return;
    };
    contest.against(first);
    for row in others {
        contest.goal(row, first, 1.0 / 1.1);
    }
    contest.run(run);
}

/// Drivers of devices that share a thread.
struct Fleet {
    /// Before the drivers: what is not served is not waited for when they go.
    shift: Shift,
    drivers: Vec<NetDriver>,
    sent: u64,
    came: u64,
    _crew: Arc<Crew>,
}

impl Fleet {
    fn new(count: usize, pairs: u16, regions: u64) -> Self {
        let unused: Arc<dyn DmaMemory> = match Region::anonymous(4096) {
            Ok(region) => Arc::new(region),
            Err(e) => wrong(&e.to_string()),
        };
        let (crew, mut shift) = Crew::by_hand("scale").unwrap_or_else(|e| wrong(&e.to_string()));
        let sim = Arc::new(SimMgmt::new());
        sim.add_crew("scale", &crew);
        let mut registry = Registry::new();
        registry.add(sim);
        let start = |_| {
            let spec = format!("sim:net,crew=scale,queue_pairs={pairs}");
            let device = registry.open(&spec);
            let device = device.unwrap_or_else(|e| wrong(&e.to_string()));
            // The driver's own is one more.
            let maps = (1..regions).map(|i| {
                // With a gap behind each.
                let iova = IovaRange::new(Iova::new(UNUSED + i * 0x2000), 0x1000);
                Mapping {
                    iova: iova.unwrap_or_else(|e| wrong(&e.to_string())),
                    memory: Arc::clone(&unused),
                    offset: 0,
                    access: Access::Both,
                    dirty: None,
                }
            });
            let maps = maps.collect();
            let setup = Setup {
                pairs,
                queue_size: SLOTS,
                ..Setup::default()
            };
            let dma = device.dma(Asid::new(0)).map(|dma| dma.map(maps));
            match (dma, NetDriver::start(device, &setup)) {
                (Ok(Ok(())), Ok(driver)) => driver,
                (_, Err(e)) => wrong(&e.to_string()),
                (Err(e) | Ok(Err(e)), _) => wrong(&e.to_string()),
            }
        };
        // What is set up waits for the worker.
        let ready = AtomicBool::new(false);
        let drivers = std::thread::scope(|s| {
            s.spawn(|| {
                while !ready.load(Ordering::Acquire) {
                    if !shift.pass() {
                        std::thread::yield_now();
                    }
                }
            });
            let drivers = (0..count).map(start).collect();
            ready.store(true, Ordering::Release);
            drivers
        });
        Self {
            shift,
            drivers,
            sent: 0,
            came: 0,
            _crew: crew,
        }
    }

    /// The same, when each of `pairs` has done something: what is made at the first packet is there.
    fn warm(mut self, pairs: &[(usize, u16)]) -> Self {
        for _ in 0..2 {
            self.round(pairs);
        }
        // And come to rest.
        while self.shift.pass() {}
        self
    }

    /// Batches to each of `pairs` (device, queue pair), and back.
    fn measure(&mut self, slice: Duration, pairs: &[(usize, u16)]) -> Measured {
        let before = self.sent;
        let mut watch = Stopwatch::new();
        while watch.ns() < slice.as_nanos() as f64 {
            watch.time(|| {
                for _ in 0..64_usize.div_ceil(pairs.len()) {
                    self.round(pairs);
                }
            });
        }
        Measured::new(watch.ns(), self.sent - before)
    }

    /// A batch to each, then all of them back.
    fn round(&mut self, pairs: &[(usize, u16)]) {
        for pair in pairs {
            self.send(*pair);
        }
        for pair in pairs {
            self.receive(*pair);
        }
    }

    fn send(&mut self, (device, pair): (usize, u16)) {
        let driver = &mut self.drivers[device];
        let mut frame = [0x5a; LEN];
        if let Some(mac) = driver.ethernet().mac {
            frame[..6].copy_from_slice(&mac.octets());
        }
        for _ in 0..BATCH {
            frame[14..22].copy_from_slice(&self.sent.to_le_bytes());
            match driver.push(pair, &frame) {
                Ok(true) => self.sent += 1,
                Ok(false) => wrong("a queue is full"),
                Err(e) => wrong(&e.to_string()),
            }
        }
        let published = driver.publish(pair);
        published.unwrap_or_else(|e| wrong(&e.to_string()));
    }

    /// A batch, with passes as long as it is not there.
    fn receive(&mut self, (device, pair): (usize, u16)) {
        let driver = &mut self.drivers[device];
        let next = &mut self.came;
        let end = *next + BATCH as u64;
        let mut passes = 0;
        loop {
            let came = driver.receive(pair, |frame| {
                let mut number = [0; 8];
                frame.read(14, &mut number);
                if frame.len() != LEN || u64::from_le_bytes(number) != *next {
                    wrong(&format!(
                        "packet {next} of {device}.{pair} is not what came"
                    ));
                }
                *next += 1;
            });
            came.unwrap_or_else(|e| wrong(&e.to_string()));
            if *next == end {
                break;
            }
            self.shift.pass();
            passes += 1;
            if passes == 10_000 {
                wrong("packets were lost");
            }
        }
    }
}

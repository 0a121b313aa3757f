//! What does a slice cost over the device that it is of, and do slices share that alike?
//!
//! **Cost**: a simulated network card whose port loops back, by itself and shared in one slice, in sixteen, and two slices
//! that send to each other. Each card of a row sends a batch, then all come back, each frame is looked at. A slice has threads of its own between its driver and the device, so what is measured
//! is the CPU time of the whole process, with what its threads poll before they sleep. `again` is the first row a second
//! time: what it differs by is noise.
//!
//! **Sharing**: sixteen slices whose drivers keep their queues full, and a card at the other end of the wire, whose driver
//! takes what comes and is slower than they are. What came of each is set against the mean of all, in bytes: with frames of
//! one size, and with large frames from every second slice.

mod rig;

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use rig::contest::{Contest, Measured, Whose};
use rig::{Run, wrong};
use vdpa::net::{NetDriver, Setup};
use vdpa::{Deadline, Registry};

/// Frames that go out at once: no more than a slice that is asleep has room for, when another sends them.
const BATCH: usize = 64;
/// Slots of each queue.
const SLOTS: u16 = 256;
/// Bytes for a round of many slices that share a wire.
const SHARED: u64 = 1 << 20;
/// How many slices are many.
const MANY: usize = 16;
/// Bytes of frames.
const SMALL: usize = 64;
const LARGE: usize = 1514;

fn main() {
    let run = Run::from_args();
    for len in [SMALL, LARGE] {
        let title = format!("a slice over its device, {len} B, batches of {BATCH}");
        let mut contest = Contest::new(title, "packet");
        let of = "mdev:slice,of=sim:net";
        let rows = [
            ("the card itself", "sim:net", 1, To::Itself),
            ("again", "sim:net", 1, To::Itself),
            ("1 slice", of, 1, To::Wire),
            ("16 slices", of, MANY, To::Wire),
            ("slice to slice", of, 2, To::Sibling),
        ];
        for (name, spec, count, to) in rows {
            let mut cards = Cards::new(spec, count, len, to);
            // What is between a slice and its device is made on demand, by threads of its own, and kept: the last column
            // has how much still was, whichever row it was for.
            contest.row(Whose::Peer, name, move |slice| cards.measure(slice));
        }
        contest.against("the card itself");
        contest.against("1 slice");
        contest.run(&run);
    }
    sharing(&run, "64 B", &[SMALL]);
    sharing(&run, "64 B and 1514 B in turn", &[SMALL, LARGE]);
}

/// Who receives what a card sends.
#[derive(Clone, Copy)]
enum To {
    /// It does itself, by its own address.
    Itself,
    /// The wire, which gives it back.
    Wire,
    /// The next one.
    Sibling,
}

/// Cards with their drivers, which send and receive in turn.
struct Cards {
    drivers: Vec<NetDriver>,
    /// What each sends, but for the number in it.
    frames: Vec<Vec<u8>>,
    /// How many each has received, and its sender sent.
    count: u64,
    /// Goes last: devices are of it.
    _registry: Registry,
}

impl Cards {
    fn new(spec: &str, count: usize, len: usize, to: To) -> Self {
        let registry = vdpa::registry();
        let drivers = open(&registry, spec, count);
        if drivers.iter().any(|one| one.frames_in_flight(len) < BATCH) {
            wrong("there is no room for a batch");
        }
        let addresses: Vec<_> = drivers.iter().map(address).collect();
        let frame = |(at, from): (usize, &[u8; 6])| {
            let to = match to {
                To::Itself => *from,
                // Nobody's.
                To::Wire => [2, 0xff, 0xff, 0xff, 0xff, 0xff],
                To::Sibling => addresses[(at + 1) % count],
            };
            frame(to, *from, len)
        };
        let frames = addresses.iter().enumerate().map(frame).collect();
        Self {
            drivers,
            frames,
            count: 0,
            _registry: registry,
        }
    }

    fn measure(&mut self, slice: Duration) -> Measured {
        let (start, before) = (process_ns(), self.count);
        let end = start + slice.as_nanos() as u64;
        while process_ns() < end {
            self.round();
        }
        let frames = (self.count - before) * self.drivers.len() as u64;
        Measured::new((process_ns() - start) as f64, frames)
    }

    /// All out, then all back.
    fn round(&mut self) {
        for (driver, frame) in self.drivers.iter_mut().zip(&mut self.frames) {
            for number in (self.count..).take(BATCH) {
                frame[14..22].copy_from_slice(&number.to_le_bytes());
                match driver.push(0, frame) {
                    Ok(true) => {}
                    Ok(false) => wrong("a queue is full"),
                    Err(e) => wrong(&e.to_string()),
                }
            }
            let published = driver.publish(0);
            published.unwrap_or_else(|e| wrong(&e.to_string()));
        }
        let end = self.count + BATCH as u64;
        let len = self.frames[0].len();
        for driver in &mut self.drivers {
            let mut next = self.count;
            while next != end {
                let came = driver.receive(0, |frame| {
                    let mut number = [0; 8];
                    frame.read(14, &mut number);
                    if frame.len() != len || u64::from_le_bytes(number) != next {
                        wrong(&format!("packet {next} is not what came"));
                    }
                    next += 1;
                });
                match came {
                    Ok(0) => wait(driver),
                    Ok(_) => {}
                    Err(e) => wrong(&e.to_string()),
                }
            }
        }
        self.count = end;
    }
}

fn open(registry: &Registry, spec: &str, count: usize) -> Vec<NetDriver> {
    let setup = Setup {
        queue_size: SLOTS,
        ..Setup::default()
    };
    let start = |_| {
        let device = registry.open(spec);
        let device = device.unwrap_or_else(|e| wrong(&format!("{spec}: {e}")));
        NetDriver::start(device, &setup).unwrap_or_else(|e| wrong(&format!("{spec}: {e}")))
    };
    (0..count).map(start).collect()
}

fn address(driver: &NetDriver) -> [u8; 6] {
    match driver.ethernet().mac {
        Some(mac) => mac.octets(),
        None => wrong("a card has no address"),
    }
}

fn frame(to: [u8; 6], from: [u8; 6], len: usize) -> Vec<u8> {
    let mut frame = [&to[..], &from, &[0x88, 0xb5]].concat();
    frame.resize(len, 0x5a);
    frame
}

fn wait(driver: &mut NetDriver) {
    match driver.wait(0, Deadline::after(Duration::from_secs(20))) {
        Ok(true) => {}
        Ok(false) => wrong("packets were lost"),
        Err(e) => wrong(&e.to_string()),
    }
}

/// CPU time of all threads of this process, in nanoseconds.
fn process_ns() -> u64 {
    match clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID) {
        Ok(time) => time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64,
        Err(errno) => wrong(&format!("no CPU clock of the process: {errno}")),
    }
}

/// Prints the smallest and the largest share that one of many slices had of a wire that takes less than they have.
fn sharing(run: &Run, what: &str, lens: &[usize]) {
    let registry = vdpa::registry();
    let mut far = open(&registry, "sim:net,port=wire:far", 1);
    let drivers = open(&registry, "mdev:slice,of=sim:net;port=wire:far", MANY);
    let far = &mut far[0];
    let to = address(far);
    let senders = drivers.into_iter().zip(lens.iter().cycle());
    let mut senders: Vec<_> = senders
        .map(|(driver, len)| Sender {
            frame: frame(to, address(&driver), *len),
            driver,
            sent: 0,
            came: 0,
        })
        .collect();
    // What there is before all of them send is not counted.
    take(far, &mut senders, SHARED);
    let before: Vec<_> = senders.iter().map(Sender::bytes).collect();
    take(far, &mut senders, SHARED * run.rounds as u64);
    let bytes = senders.iter().zip(&before);
    let bytes: Vec<_> = bytes.map(|(one, before)| one.bytes() - before).collect();
    let mean = bytes.iter().sum::<u64>() as f64 / bytes.len() as f64;
    let share = |bytes: Option<&u64>| bytes.map_or(0.0, |bytes| *bytes as f64 / mean);
    let (least, most) = (share(bytes.iter().min()), share(bytes.iter().max()));
    println!("\n{MANY} slices that have more to send than the wire takes, {what}");
    println!("  of their mean of {mean:.0} bytes: least {least:.3}, most {most:.3}");
}

/// One of many that send to a wire.
struct Sender {
    driver: NetDriver,
    frame: Vec<u8>,
    sent: u64,
    /// At the other end of the wire.
    came: u64,
}

impl Sender {
    fn bytes(&self) -> u64 {
        self.came * self.frame.len() as u64
    }

    /// Fills its queue.
    fn fill(&mut self) {
        loop {
            self.frame[14..22].copy_from_slice(&self.sent.to_le_bytes());
            match self.driver.push(0, &self.frame) {
                Ok(true) => self.sent += 1,
                Ok(false) => break,
                Err(e) => wrong(&e.to_string()),
            }
        }
        let published = self.driver.publish(0);
        published.unwrap_or_else(|e| wrong(&e.to_string()));
    }
}

/// Takes about as many bytes from the wire, and keeps the queues of all senders full.
fn take(far: &mut NetDriver, senders: &mut [Sender], bytes: u64) {
    let mut left = bytes;
    while left > 0 {
        senders.iter_mut().for_each(Sender::fill);
        let came = far.receive(0, |frame| {
            let (mut from, mut number) = ([0; 6], [0; 8]);
            frame.read(6, &mut from);
            frame.read(14, &mut number);
            let of = |sender: &&mut Sender| sender.frame[6..12] == from;
            let Some(sender) = senders.iter_mut().find(of) else {
                wrong("a packet is nobody's")
            };
            if frame.len() != sender.frame.len() || u64::from_le_bytes(number) != sender.came {
                wrong(&format!("packet {} is not what came", sender.came));
            }
            sender.came += 1;
            left = left.saturating_sub(frame.len() as u64);
        });
        match came {
            Ok(0) => wait(far),
            Ok(_) => {}
            Err(e) => wrong(&e.to_string()),
        }
    }
}

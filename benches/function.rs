//! What does it cost that a device is a PCI function, driven by its registers?
//!
//! **Start-up**: the register accesses that [`VirtioPci`] makes from opening a function to DRIVER_OK, for network cards and
//! a disk of the simulator, laid out as QEMU does it. A network driver reads the status once more after that, which is
//! counted; doorbells are not. Counted, not timed: what an access takes is up to the hardware.
//!
//! **Doorbells**: a store to a register in a mapped page against a write to an eventfd. The page is memory of this machine,
//! a device's is not: what is measured is the way to it. After each slice the page holds what was stored last, and the
//! eventfd has counted every ring.
//!
//! **Packets**: the same simulated network card by itself and as a function, frames of 64 bytes in batches of 32 that loop
//! back, driver and worker in turn on one thread. Each frame is looked at. `again` is the first row a second time, in other
//! memory: what it differs by is noise. A worker that is busy asks for no kicks; one that comes to rest after each batch is
//! kicked for each.

mod rig;

use std::fs::File;
use std::hint::black_box;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::memfd::{MFdFlags, memfd_create};
use rig::clock::Stopwatch;
use rig::contest::{Contest, Measured, Whose};
use rig::{Run, wrong};
use vdpa::blk::{self, BlkDriver};
use vdpa::core::{Doorbell, Relay, Rung, VdpaDevice};
use vdpa::net::{NetDriver, Ring, Setup, Step};
use vdpa::pci::{PciParent, VirtioPci};
use vdpa::sim::{Crew, Shift, SimMgmt};
use vdpa::{Device, DeviceSpec, Registry};
use vdpa_mem::Registers;

/// Frames that go out at once.
const BATCH: usize = 32;
/// Bytes of a frame.
const LEN: usize = 64;
/// Slots of each queue.
const SLOTS: u16 = 256;
/// Bytes of the page with the doorbells, and where they are in it.
const PAGE: u64 = 4096;
const NAME_AT: u64 = 0x10;
const DATA_AT: u64 = 0x20;
/// What a doorbell names its queue by.
const NAME: u16 = 5;
/// Rings between two looks at the clock.
const RINGS: u32 = 4096;

fn main() {
    let run = Run::from_args();
    println!("\nregister accesses from open to a driver that runs, sim:...,as=pci,layout=qemu");
    println!("  {:34}  {:>5}  {:>6}", "", "reads", "writes");
    for pairs in [1, 4] {
        start_net(pairs);
    }
    start_blk();
    doorbells(&run);
    for rests in [false, true] {
        for ring in [Ring::Split, Ring::Packed] {
            packets(&run, ring, rests);
        }
    }
}

/// The reads and writes of registers so far.
fn counts(device: &VirtioPci) -> [u64; 2] {
    let Some(stats) = device.caps().stats else {
        wrong("a function does not count its registers");
    };
    let mut counts = [0; 2];
    let read = stats.read(&mut |name, value| match name {
        "registers.reads" => counts[0] = value,
        "registers.writes" => counts[1] = value,
        _ => {}
    });
    read.unwrap_or_else(|e| wrong(&e.to_string()));
    counts
}

fn show(what: &str, [reads, writes]: [u64; 2]) {
    if reads == 0 || writes == 0 {
        wrong(&format!(
            "{what}: a device was started without its registers"
        ));
    }
    println!("  {what:34}  {reads:>5}  {writes:>6}");
}

/// Opens a function of the simulator.
fn open(spec: &str) -> (Arc<VirtioPci>, Device) {
    let opened = spec.parse::<DeviceSpec>().map_err(|e| e.to_string());
    let opened = opened.and_then(|spec| {
        let access = SimMgmt::new().function(&spec).map_err(|e| e.to_string())?;
        let parent = Arc::new(VirtioPci::open(access).map_err(|e| e.to_string())?);
        let device = Device::new(parent.clone(), Relay::new()).map_err(|e| e.to_string())?;
        Ok((parent, device))
    });
    opened.unwrap_or_else(|e| wrong(&format!("{spec}: {e}")))
}

fn start_net(pairs: u16) {
    let (parent, device) = open(&format!("sim:net,as=pci,layout=qemu,queue_pairs={pairs}"));
    let plural = if pairs == 1 { "" } else { "s" };
    let name = format!("net, {pairs} pair{plural} and control");
    show(&format!("{name}: opened"), counts(&parent));
    let setup = Setup {
        pairs,
        queue_size: SLOTS,
        ..Setup::default()
    };
    let mut runs = [0; 2];
    let driver = NetDriver::start_watched(device, &setup, &mut |step| match step {
        Step::Live { queues, .. } if queues == 2 * pairs + 1 => runs = counts(&parent),
        Step::Live { queues, .. } => wrong(&format!("{name}: {queues} queues")),
        _ => {}
    });
    driver.unwrap_or_else(|e| wrong(&format!("{name}: {e}")));
    show(&format!("{name}: runs"), runs);
}

fn start_blk() {
    let (parent, device) = open("sim:blk,size=1M,as=pci,layout=qemu");
    show("block, 1 queue: opened", counts(&parent));
    let driver = BlkDriver::start(device, &blk::Setup::default());
    let _driver = driver.unwrap_or_else(|e| wrong(&e.to_string()));
    show("block, 1 queue: runs", counts(&parent));
}

fn doorbells(run: &Run) {
    let file = memfd_create("doorbells", MFdFlags::MFD_CLOEXEC).map_err(std::io::Error::from);
    let file = file
        .map(File::from)
        .and_then(|file| file.set_len(PAGE).map(|()| file));
    let file = file.unwrap_or_else(|e| wrong(&e.to_string()));
    let registers = Registers::map(file.as_fd(), 0, PAGE);
    let registers = Arc::new(registers.unwrap_or_else(|e| wrong(&e.to_string())));
    let register = |at, rung| {
        let doorbell = Doorbell::from_registers(Arc::clone(&registers), at, rung);
        doorbell.unwrap_or_else(|e| wrong(&e.to_string()))
    };
    let mut contest = Contest::new("a doorbell, rung again and again", "ring");
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    let event = EventFd::from_flags(flags).unwrap_or_else(|e| wrong(&e.to_string()));
    let kept = event.as_fd().try_clone_to_owned();
    let kept = Arc::new(kept.unwrap_or_else(|e| wrong(&e.to_string())));
    contest.row(
        Whose::Peer,
        "eventfd",
        ringing(Doorbell::from(kept as Arc<OwnedFd>), move |rings, _| {
            if event.read() != Ok(rings) {
                wrong("an eventfd did not count what it was rung");
            }
        }),
    );
    let name = register(NAME_AT, Rung::Name(NAME));
    let holds = |at, last: u32| {
        if word(&file, at) != last {
            wrong("a register does not hold what was stored last");
        }
    };
    let check = |_, _| holds(NAME_AT, NAME.into());
    contest.row(Whose::Ours, "mapped page, 16 bits", ringing(name, check));
    let data = register(DATA_AT, Rung::Data(NAME));
    let check = |_, last| holds(DATA_AT, last & 0xffff_0000 | u32::from(NAME));
    contest.row(Whose::Ours, "mapped page, 32 bits", ringing(data, check));
    contest.against("eventfd");
    contest.goal("mapped page, 16 bits", "eventfd", 1.0);
    contest.run(run);
}

fn word(file: &File, at: u64) -> u32 {
    let mut word = [0; 4];
    let read = file.read_exact_at(&mut word, at);
    read.unwrap_or_else(|e| wrong(&e.to_string()));
    u32::from_le_bytes(word)
}

/// Rings, and has `check` look at what came of it: how many there were, and what the last one was rung with.
fn ringing<'a>(
    doorbell: Doorbell,
    check: impl Fn(u64, u32) + 'a,
) -> impl FnMut(Duration) -> Measured + 'a {
    move |slice| {
        let mut watch = Stopwatch::new();
        let mut rings = 0;
        while watch.ns() < slice.as_nanos() as f64 {
            watch.time(|| {
                // An index of the ring in the upper half, as NOTIFICATION_DATA has it.
                for index in 0..RINGS {
                    // A driver comes back to its doorbell from elsewhere: nothing of it is kept in registers.
                    black_box(&doorbell).ring(index << 16);
                }
            });
            rings += u64::from(RINGS);
        }
        check(rings, (RINGS - 1) << 16);
        Measured::new(watch.ns(), rings)
    }
}

fn packets(run: &Run, ring: Ring, rests: bool) {
    let kicked = if rests { "a kick for each" } else { "no kicks" };
    let title = format!("packets, {ring}, {LEN} B, queue of {SLOTS}, batches of {BATCH}, {kicked}");
    let mut contest = Contest::new(title, "packet");
    for (name, shown) in [
        ("in process", "vdpa"),
        ("again", "vdpa"),
        ("virtio_pci", "pci"),
    ] {
        let spec = format!("sim:net,crew=function,poll_us=0,as={shown}");
        let mut card = Card::new(&spec, ring, rests);
        contest.row(Whose::Ours, name, move |slice| card.measure(slice));
    }
    contest.against("in process");
    // Nothing, within what two of the same differ by.
    contest.goal("virtio_pci", "in process", 0.95);
    contest.run(run);
}

/// A network card whose port loops back, its driver, and the worker that serves it, on one thread.
struct Card {
    /// Before the driver: what is not served is not waited for when that goes.
    shift: Shift,
    driver: NetDriver,
    /// Whether the worker comes to rest after each batch.
    rests: bool,
    sent: u64,
    came: u64,
    _crew: Arc<Crew>,
}

impl Card {
    fn new(spec: &str, ring: Ring, rests: bool) -> Self {
        let (crew, mut shift) = Crew::by_hand("function").unwrap_or_else(|e| wrong(&e.to_string()));
        let sim = Arc::new(SimMgmt::new());
        sim.add_crew("function", &crew);
        let mut registry = Registry::new();
        registry.add(sim);
        let setup = Setup {
            ring,
            queue_size: SLOTS,
            ..Setup::default()
        };
        let start = || {
            let device = registry.open(spec);
            let device = device.unwrap_or_else(|e| wrong(&e.to_string()));
            NetDriver::start(device, &setup).unwrap_or_else(|e| wrong(&e.to_string()))
        };
        // What is set up waits for the worker.
        let ready = AtomicBool::new(false);
        let driver = std::thread::scope(|s| {
            s.spawn(|| {
                while !ready.load(Ordering::Acquire) {
                    if !shift.pass() {
                        std::thread::yield_now();
                    }
                }
            });
            let driver = start();
            ready.store(true, Ordering::Release);
            driver
        });
        Self {
            shift,
            driver,
            rests,
            sent: 0,
            came: 0,
            _crew: crew,
        }
    }

    /// Batches, out and back.
    fn measure(&mut self, slice: Duration) -> Measured {
        let before = self.sent;
        let mut watch = Stopwatch::new();
        while watch.ns() < slice.as_nanos() as f64 {
            watch.time(|| {
                for _ in 0..64 {
                    self.send();
                    self.receive();
                    while self.rests && self.shift.pass() {}
                }
            });
        }
        Measured::new(watch.ns(), self.sent - before)
    }

    fn send(&mut self) {
        let mut frame = [0x5a; LEN];
        if let Some(mac) = self.driver.ethernet().mac {
            frame[..6].copy_from_slice(&mac.octets());
        }
        for _ in 0..BATCH {
            frame[14..22].copy_from_slice(&self.sent.to_le_bytes());
            match self.driver.push(0, &frame) {
                Ok(true) => self.sent += 1,
                Ok(false) => wrong("a queue is full"),
                Err(e) => wrong(&e.to_string()),
            }
        }
        let published = self.driver.publish(0);
        published.unwrap_or_else(|e| wrong(&e.to_string()));
    }

    /// A batch, with passes as long as it is not there.
    fn receive(&mut self) {
        let next = &mut self.came;
        let end = *next + BATCH as u64;
        let mut passes = 0;
        loop {
            let came = self.driver.receive(0, |frame| {
                let mut number = [0; 8];
                frame.read(14, &mut number);
                if frame.len() != LEN || u64::from_le_bytes(number) != *next {
                    wrong(&format!("packet {next} is not what came"));
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

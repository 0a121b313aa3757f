//! How many packets a second cross from one core to another?
//!
//! A driver's thread on one CPU and a device's thread on another, both busy: the driver numbers packets and adds them
//! in batches of 32, the device copies each out, checks its number and gives it back. By the wall clock, since
//! both threads always run. "Looking ahead", the device asks for all packets of a batch to be brought near before it
//! copies the first. Beside it, in the same rounds, a single-producer single-consumer ring (`rtrb`) of 64-byte
//! messages between the same two CPUs: in chunks of 32, and message by message.

mod rig;

use std::hint::{black_box, spin_loop};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use rig::contest::{Contest, Measured, Whose};
use rig::queue::{Arena, BATCH, DeviceHalf, DriverHalf, SLOTS, Shape};
use rig::traffic::{Receiver, Sender};
use rig::{Run, allocations, wrong};
use vdpa_ring::{Format, PackedDevice, PackedDriver, SplitDevice, SplitDriver};

fn main() {
    let run = Run::from_args();
    let Some(cpus) = two_cpus() else {
        println!("\ntwo cores: skipped: this process may use one CPU only");
        return;
    };
    let arena = Arena::new(32 << 20);
    let title = format!(
        "two cores ({} and {}), 64 B, queue of 256, batches of 32, a thread on each",
        cpus[0], cpus[1]
    );
    let mut contest = Contest::new(title, "packet");
    contest.row(Whose::Peer, "rtrb chunks", move |slice| {
        messages(cpus, slice, BATCH)
    });
    contest.row(Whose::Peer, "rtrb one by one", move |slice| {
        messages(cpus, slice, 1)
    });
    for ahead in [false, true] {
        for shape in Shape::ALL {
            let tail = if ahead { ", looking ahead" } else { "" };
            let (name, arena) = (format!("{}{tail}", shape.name()), &arena);
            match shape.format {
                Format::Split => {
                    let work = ours::<SplitDriver, SplitDevice>(arena, shape, cpus, ahead);
                    contest.row(Whose::Ours, name, work);
                }
                Format::Packed => {
                    let work = ours::<PackedDriver, PackedDevice>(arena, shape, cpus, ahead);
                    contest.row(Whose::Ours, name, work);
                }
            }
        }
    }
    contest.against("rtrb chunks");
    contest.against("rtrb one by one");
    contest.run(&run);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: f64 = load
        .split(' ')
        .next()
        .and_then(|l| l.parse().ok())
        .unwrap_or(0.0);
    // Two threads of our own are to be seen in it, once this has run for a while.
    if load > 2.5 {
        println!(
            "  the load average is {load}: with others on these CPUs only the smallest times mean anything"
        );
    }
}

/// The first two CPUs that this process may run on.
fn two_cpus() -> Option<[usize; 2]> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).ok()?;
    let mut cpus = (0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu).unwrap_or(false));
    Some([cpus.next()?, cpus.next()?])
}

/// Keeps the calling thread on one CPU.
fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    let pinned = set
        .set(cpu)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
    pinned.unwrap_or_else(|e| wrong(&format!("CPU {cpu}: {e}")));
}

/// Runs the two sides on their CPUs for about `slice`. Each is made on its own thread, before the clock starts.
///
/// `send` is told whether to send more and answers how many it sent, and whether all it sent has come back; `receive`
/// answers how many it received.
fn both<S, R>(
    cpus: [usize; 2],
    slice: Duration,
    make_send: impl FnOnce() -> S + Send,
    make_receive: impl FnOnce() -> R + Send,
) -> Measured
where
    S: FnMut(bool) -> (usize, bool),
    R: FnMut() -> usize,
{
    let (made, done) = (&Barrier::new(2), &AtomicBool::new(false));
    thread::scope(|scope| {
        let sender = scope.spawn(move || {
            pin(cpus[0]);
            let mut send = make_send();
            made.wait();
            let allocated = allocations::count();
            let start = Instant::now();
            let mut sent = 0;
            while start.elapsed() < slice {
                for _ in 0..256 {
                    match send(true) {
                        (0, _) => spin_loop(),
                        (n, _) => sent += n,
                    }
                }
            }
            while !send(false).1 {
                spin_loop();
            }
            let ns = start.elapsed().as_nanos() as f64;
            let allocations = Some(allocations::count() - allocated);
            done.store(true, Ordering::Release);
            Measured {
                ns,
                packets: sent as u64,
                allocations,
            }
        });
        let receiver = scope.spawn(move || {
            pin(cpus[1]);
            let mut receive = make_receive();
            made.wait();
            let mut received = 0;
            while !done.load(Ordering::Acquire) {
                match receive() {
                    0 => spin_loop(),
                    n => received += n as u64,
                }
            }
            received
        });
        let (Ok(measured), Ok(received)) = (sender.join(), receiver.join()) else {
            wrong("a thread panicked")
        };
        let sent = measured.packets;
        if sent != received {
            wrong(&format!("{sent} packets sent, {received} received"));
        }
        measured
    })
}

fn ours<'a, D: DriverHalf + 'a, E: DeviceHalf + 'a>(
    arena: &'a Arena,
    shape: Shape,
    cpus: [usize; 2],
    ahead: bool,
) -> impl FnMut(Duration) -> Measured + 'a {
    let place = arena.queue(shape.format);
    let buffers = arena.buffers();
    move |slice| {
        let buffers = buffers.clone();
        let make_send = || {
            let mut sender = Sender::<D>::with_buffers(arena, place, shape, 64, buffers);
            move |more| {
                let go = more && sender.ready() >= BATCH;
                let sent = if go { sender.send(BATCH) } else { 0 };
                sender.reclaim();
                (sent, sender.is_idle())
            }
        };
        let make_receive = || {
            let receiver = Receiver::<E>::new(shape, 64);
            let mut receiver = if ahead {
                receiver.look_ahead()
            } else {
                receiver
            };
            let mut reader = arena.space.reader();
            let mut spots = place.spots();
            move || receiver.receive_translated(&mut reader, &mut spots)
        };
        both(cpus, slice, make_send, make_receive)
    }
}

/// The same bytes by `rtrb`, `chunk` messages at a time.
fn messages(cpus: [usize; 2], slice: Duration, chunk: usize) -> Measured {
    let (mut to, mut from) = rtrb::RingBuffer::<[u64; 8]>::new(usize::from(SLOTS));
    let make_send = move || {
        let mut next = 0u64;
        move |more| {
            let mut sent = 0;
            if more && let Ok(places) = to.write_chunk_uninit(chunk) {
                sent = places.fill_from_iter((next..).map(|n| [n; 8]));
                next += sent as u64;
            }
            (sent, to.slots() == usize::from(SLOTS))
        }
    };
    let make_receive = move || {
        let mut next = 0u64;
        move || {
            let there = from.slots().min(chunk);
            if let (1.., Ok(messages)) = (there, from.read_chunk(there)) {
                for message in messages {
                    if black_box(message)[7] != next {
                        wrong(&format!("message {next} came as {}", message[7]));
                    }
                    next += 1;
                }
            }
            there
        }
    };
    both(cpus, slice, make_send, make_receive)
}

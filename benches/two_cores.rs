//! How many packets a second cross from one core to another?
//!
//! A driver's thread on one CPU and a device's thread on another, both busy: the driver numbers packets and adds them
//! in batches of up to 32, the device copies each out, checks its number and gives it back. By the wall clock, since
//! both threads always run. Beside it, in the same rounds, a single-producer single-consumer ring (`rtrb`) of 64-byte
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
        "two cores ({} and {}), 64 B, queue of 256, batches of up to 32, a thread on each",
        cpus[0], cpus[1]
    );
    let mut contest = Contest::new(title, "packet");
    contest.row(Whose::Peer, "rtrb chunks", move |slice| {
        messages(cpus, slice, BATCH)
    });
    contest.row(Whose::Peer, "rtrb one by one", move |slice| {
        messages(cpus, slice, 1)
    });
    for shape in Shape::ALL {
        let arena = &arena;
        match shape.format {
            Format::Split => contest.row(Whose::Ours, shape.name(), {
                ours::<SplitDriver, SplitDevice>(arena, shape, cpus)
            }),
            Format::Packed => contest.row(Whose::Ours, shape.name(), {
                ours::<PackedDriver, PackedDevice>(arena, shape, cpus)
            }),
        }
    }
    contest.against("rtrb chunks");
    contest.against("rtrb one by one");
    contest.run(&run);
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
) -> impl FnMut(Duration) -> Measured + 'a {
    let place = arena.queue(shape.format);
    let buffers = arena.buffers();
    move |slice| {
        let buffers = buffers.clone();
        let make_send = || {
            let mut sender = Sender::<D>::with_buffers(arena, place, shape, 64, buffers);
            move |more| {
                let sent = if more { sender.send(BATCH) } else { 0 };
                sender.reclaim();
                (sent, sender.is_idle())
            }
        };
        let make_receive = || {
            let mut receiver = Receiver::<E>::new(shape, 64);
            let mut reader = arena.space.reader();
            move || receiver.receive_translated(&mut reader, &place)
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
            let room = if more { to.slots().min(chunk) } else { 0 };
            if let (1.., Ok(places)) = (room, to.write_chunk_uninit(room)) {
                places.fill_from_iter((next..).map(|n| [n; 8]));
                next += room as u64;
            }
            (room, to.slots() == usize::from(SLOTS))
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

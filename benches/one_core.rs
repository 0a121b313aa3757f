//! What does a packet cost with both sides of the queue on one core?
//!
//! A hop: the driver numbers a packet in its buffer and adds it; the device takes it, copies it into memory of its own,
//! looks at the number and gives it back; the driver takes the buffer back. All in batches of 32, in turn, on one
//! thread. One copy a packet, made by the device; the driver sends what stands in its buffers, as DPDK's virtio-user
//! does. Beside it, in the same rounds, nothing but the copy: the same bytes from the same buffers, no ring.
//!
//! And without leaving the process: some packets in a child that the kernel kills at its first system call.

mod rig;

use std::hint::black_box;
use std::time::Duration;

use rig::Run;
use rig::clock::Stopwatch;
use rig::contest::{Contest, Measured, Whose};
use rig::queue::{Arena, BATCH, DeviceHalf, DriverHalf, SLOTS, STRIDE, Shape};
use rig::sealed;
use rig::traffic::{Receiver, Sender, check};
use vdpa_ring::{Format, PackedDevice, PackedDriver, SplitDevice, SplitDriver};

fn main() {
    let run = Run::from_args();
    for len in [64, 1500] {
        let arena = Arena::new(32 << 20);
        let title =
            format!("one core, both sides ours, {len} B, queue of 256, batches of 32, one thread");
        let mut contest = Contest::new(title, "hop");
        contest.row(Whose::Peer, "copy only", copy_only(&arena, len));
        for shape in Shape::ALL {
            let mut hop = either(&arena, shape, len);
            contest.row(Whose::Ours, shape.name(), move |slice| {
                let mut watch = Stopwatch::new();
                let mut packets = 0;
                while watch.ns() < slice.as_nanos() as f64 {
                    packets += watch.time(|| hop(64));
                }
                Measured::new(watch.ns(), packets)
            });
        }
        contest.against("copy only");
        contest.run(&run);
        if len == 64 {
            println!(
                "  foreign figure, not measured here: DPDK 22.11's best hop, 41-45 M/s (packed, AVX-512)"
            );
        }
    }
    println!(
        "\nsystem calls of ours (a child under seccomp's strict mode, which kills at the first one)"
    );
    for shape in Shape::ALL {
        let arena = Arena::new(4 << 20);
        let mut hop = either(&arena, shape, 64);
        hop(1);
        let turns = if run.smoke { 100 } else { 10_000 };
        let verdict = sealed::run(|| hop(turns));
        println!("  {:15}  {verdict}", shape.name());
    }
}

type Hop<'a> = Box<dyn FnMut(usize) -> u64 + 'a>;

fn either<'a>(arena: &'a Arena, shape: Shape, len: u32) -> Hop<'a> {
    match shape.format {
        Format::Split => Box::new(hop::<SplitDriver, SplitDevice>(arena, shape, len)),
        Format::Packed => Box::new(hop::<PackedDriver, PackedDevice>(arena, shape, len)),
    }
}

/// Some batches, out and back; how many packets.
fn hop<'a, D: DriverHalf + 'a, E: DeviceHalf + 'a>(
    arena: &'a Arena,
    shape: Shape,
    len: u32,
) -> impl FnMut(usize) -> u64 + 'a {
    let place = arena.queue(shape.format);
    let mut sender = Sender::<D>::new(arena, place, shape, len);
    let mut receiver = Receiver::<E>::new(shape, len);
    let mut reader = arena.space.reader();
    let mut spots = place.spots();
    move |batches| {
        let before = receiver.received();
        for _ in 0..batches {
            sender.send(BATCH);
            receiver.receive_translated(&mut reader, &mut spots);
            sender.reclaim();
        }
        receiver.received() - before
    }
}

/// The bytes of a hop without a ring: numbered, copied out, looked at.
fn copy_only(arena: &Arena, len: u32) -> impl FnMut(Duration) -> Measured + '_ {
    let base = arena.piece(u64::from(SLOTS) * STRIDE as u64) as usize;
    let memory = arena.window.bytes();
    let mut packets = vec![[0u8; STRIDE]; BATCH];
    let mut next = 0u64;
    move |slice| {
        let mut watch = Stopwatch::new();
        let before = next;
        while watch.ns() < slice.as_nanos() as f64 {
            watch.time(|| {
                for _ in 0..64 {
                    for i in 0..BATCH {
                        memory.write(base + i * STRIDE, &(next + i as u64).to_le_bytes());
                    }
                    for (i, packet) in packets.iter_mut().enumerate() {
                        let span = memory.slice(base + i * STRIDE, black_box(len as usize));
                        let got = span.map_or(0, |span| span.read(0, packet));
                        check(packet, got, len, next);
                        next += 1;
                    }
                }
            });
        }
        Measured::new(watch.ns(), next - before)
    }
}

//! How fast is the device half against rust-vmm's `virtio-queue`?
//!
//! The same driver (ours) fills a queue of 256 slots in the same guest memory under each row; only the device's work is
//! timed: take the chains, copy each packet into memory of its own, check its number, give the chains back, decide
//! whether to notify, all in batches of 32. Ours goes through an address space, as a device does; virtio-queue through
//! its `GuestMemoryMmap` of one region, in the two ways it has: descriptors from `iter` read with `read_slice`, and its
//! `Reader`.

mod rig;

use std::time::Duration;

use rig::clock::Stopwatch;
use rig::contest::{Contest, Measured, Whose};
use rig::queue::{Arena, BATCH, DeviceHalf, DriverHalf, Place, SLOTS, STRIDE, Shape};
use rig::traffic::{Receiver, Sender, check};
use rig::{Run, wrong};
use std::io::Read as _;
use vdpa_ring::{Format, PackedDevice, PackedDriver, SplitDevice, SplitDriver};
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestMemoryMmap};

fn main() {
    let run = Run::from_args();
    for len in [64, 1500] {
        let arena = Arena::new(32 << 20);
        let title = format!(
            "device half, {len} B copied out of each packet, queue of 256, batches of 32, one thread"
        );
        let mut contest = Contest::new(title, "packet");
        contest.row(
            Whose::Peer,
            "virtio-queue iter",
            theirs(&arena, len, Peer::iter),
        );
        contest.row(
            Whose::Peer,
            "virtio-queue Reader",
            theirs(&arena, len, Peer::reader),
        );
        for shape in Shape::ALL {
            let name = format!("ours {}", shape.name());
            match shape.format {
                Format::Split => {
                    let work = ours::<SplitDriver, SplitDevice>(&arena, shape, len);
                    contest.row(Whose::Ours, name, work);
                }
                Format::Packed => {
                    let work = ours::<PackedDriver, PackedDevice>(&arena, shape, len);
                    contest.row(Whose::Ours, name, work);
                }
            }
        }
        contest.against("virtio-queue iter");
        contest.against("virtio-queue Reader");
        if len == 64 {
            contest.goal("ours split", "virtio-queue iter", 5.0);
            contest.goal("ours split", "virtio-queue Reader", 8.0);
        }
        contest.run(&run);
    }
}

/// Fills the ring, times the device emptying it, takes all back; over and over.
fn drive<D: DriverHalf>(
    sender: &mut Sender<'_, D>,
    slice: Duration,
    mut device: impl FnMut() -> usize,
) -> Measured {
    let mut watch = Stopwatch::new();
    let before = sender.sent();
    while watch.ns() < slice.as_nanos() as f64 {
        let sent = sender.send(usize::from(SLOTS));
        let received = watch.time(|| {
            let mut received = 0;
            while received < sent {
                received += device();
            }
            received
        });
        if received != sent {
            wrong(&format!("{sent} packets sent, {received} received"));
        }
        sender.reclaim_all();
    }
    Measured::new(watch.ns(), sender.sent() - before)
}

fn ours<'a, D: DriverHalf + 'a, E: DeviceHalf + 'a>(
    arena: &'a Arena,
    shape: Shape,
    len: u32,
) -> impl FnMut(Duration) -> Measured + 'a {
    let place = arena.queue(shape.format);
    let mut sender = Sender::<D>::new(arena, place, shape, len);
    let mut receiver = Receiver::<E>::new(shape, len);
    let mut reader = arena.space.reader();
    let mut spots = place.spots();
    move |slice| {
        drive(&mut sender, slice, || {
            receiver.receive_translated(&mut reader, &mut spots)
        })
    }
}

fn theirs<'a>(
    arena: &'a Arena,
    len: u32,
    receive: fn(&mut Peer<'a>) -> usize,
) -> impl FnMut(Duration) -> Measured + 'a {
    let shape = Shape::new(Format::Split, false);
    let place = arena.queue(shape.format);
    let mut sender = Sender::<SplitDriver>::new(arena, place, shape, len);
    let mut peer = Peer::new(&arena.guest, &place, len);
    move |slice| drive(&mut sender, slice, || receive(&mut peer))
}

/// A device on `virtio-queue`: one look at the available index, and one notification decision, for each batch.
struct Peer<'m> {
    queue: Queue,
    memory: &'m GuestMemoryMmap<()>,
    heads: [u16; BATCH],
    packets: Vec<[u8; STRIDE]>,
    len: u32,
    next: u64,
}

impl<'m> Peer<'m> {
    fn new(memory: &'m GuestMemoryMmap<()>, place: &Place, len: u32) -> Self {
        let mut queue = Queue::new(SLOTS).unwrap_or_else(|e| wrong(&e.to_string()));
        queue.set_size(SLOTS);
        let halves = |(at, _): (u64, u32)| (Some(at as u32), Some((at >> 32) as u32));
        let (low, high) = halves(place.descriptor);
        queue.set_desc_table_address(low, high);
        let (low, high) = halves(place.driver);
        queue.set_avail_ring_address(low, high);
        let (low, high) = halves(place.device);
        queue.set_used_ring_address(low, high);
        queue.set_event_idx(true);
        queue.set_ready(true);
        if !queue.is_valid(memory) {
            wrong("virtio-queue does not take the queue");
        }
        Self {
            queue,
            memory,
            heads: [0; BATCH],
            packets: vec![[0; STRIDE]; BATCH],
            len,
            next: 0,
        }
    }

    fn iter(&mut self) -> usize {
        let chains = self.queue.iter(self.memory);
        let chains = chains.unwrap_or_else(|e| wrong(&e.to_string()));
        let mut taken = 0;
        for (packet, chain) in self.packets.iter_mut().zip(chains) {
            self.heads[taken] = chain.head_index();
            let mut at = 0;
            for descriptor in chain {
                let len = descriptor.len() as usize;
                let read = self
                    .memory
                    .read_slice(&mut packet[at..at + len], descriptor.addr());
                read.unwrap_or_else(|e| wrong(&e.to_string()));
                at += len;
            }
            check(packet, at, self.len, self.next);
            self.next += 1;
            taken += 1;
        }
        self.give_back(taken)
    }

    fn reader(&mut self) -> usize {
        let chains = self.queue.iter(self.memory);
        let chains = chains.unwrap_or_else(|e| wrong(&e.to_string()));
        let mut taken = 0;
        for (packet, chain) in self.packets.iter_mut().zip(chains) {
            self.heads[taken] = chain.head_index();
            let reader = chain.reader(self.memory);
            let mut reader = reader.unwrap_or_else(|e| wrong(&e.to_string()));
            let at = reader
                .read(packet)
                .unwrap_or_else(|e| wrong(&e.to_string()));
            check(packet, at, self.len, self.next);
            self.next += 1;
            taken += 1;
        }
        self.give_back(taken)
    }

    fn give_back(&mut self, taken: usize) -> usize {
        for &head in &self.heads[..taken] {
            let added = self.queue.add_used(self.memory, head, 0);
            added.unwrap_or_else(|e| wrong(&e.to_string()));
        }
        let call = self.queue.needs_notification(self.memory);
        std::hint::black_box(call.unwrap_or_else(|e| wrong(&e.to_string())));
        taken
    }
}

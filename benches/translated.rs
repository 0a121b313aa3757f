//! What does translation cost a device?
//!
//! The device half over an address space, with a read section for each batch, against the same device over memory that
//! needs no translation. The device's addresses are scattered: each mapping has a gap after it, so that no two are one
//! to the table, and the packets' buffers are dealt out over the mappings in turn (neighbours in the ring are in
//! different mappings, the worst case for a guess that remembers the last one) or in blocks (as drivers that fill one
//! pool after the other).

mod rig;

use std::sync::Arc;
use std::time::Duration;

use rig::clock::Stopwatch;
use rig::contest::{Contest, Measured, Whose};
use rig::queue::{Arena, BATCH, DeviceHalf, DriverHalf, SLOTS, Shape};
use rig::traffic::{Direct, Receiver, Sender};
use rig::{Run, wrong};
use vdpa_mem::{Access, AddressSpace, Iova, IovaRange, Mapping};
use vdpa_ring::{Format, PackedDevice, PackedDriver, SplitDevice, SplitDriver};

/// How buffers follow each other over the mappings.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    /// One after the other in each mapping.
    Blocks,
    /// One in each mapping in turn.
    InTurn,
}

fn main() {
    let run = Run::from_args();
    for shape in [
        Shape::new(Format::Split, false),
        Shape::new(Format::Packed, false),
    ] {
        let arena = Arena::new(64 << 20);
        let title = format!(
            "translated against direct, {}, device half, 64 B, queue of 256, batches of 32, one thread",
            shape.name()
        );
        let mut contest = Contest::new(title, "packet");
        let rows = [
            ("direct".into(), 0, Order::Blocks),
            ("1 mapping".into(), 1, Order::Blocks),
            ("16 mappings".into(), 16, Order::Blocks),
            ("1000 mappings".into(), 1000, Order::Blocks),
            ("16 mappings in turn".into(), 16, Order::InTurn),
            (String::from("1000 mappings in turn"), 1000, Order::InTurn),
        ];
        for (name, mappings, order) in rows {
            match shape.format {
                Format::Split => {
                    let work = device::<SplitDriver, SplitDevice>(&arena, shape, mappings, order);
                    contest.row(Whose::Ours, name, work);
                }
                Format::Packed => {
                    let work = device::<PackedDriver, PackedDevice>(&arena, shape, mappings, order);
                    contest.row(Whose::Ours, name, work);
                }
            }
        }
        contest.against("direct");
        for row in [
            "1 mapping",
            "16 mappings",
            "1000 mappings",
            "1000 mappings in turn",
        ] {
            contest.goal(row, "direct", 0.95);
        }
        contest.run(&run);
    }
}

/// Bytes of a buffer's page.
const PAGE: u64 = 4096;
/// Bytes from one mapping to the next: more than the largest of several has.
const PITCH: u64 = 2 << 20;
/// Where the device sees the first of them: far from the queue's own.
const FIRST: u64 = 1 << 40;

fn device<'a, D: DriverHalf + 'a, E: DeviceHalf + 'a>(
    arena: &'a Arena,
    shape: Shape,
    mappings: u64,
    order: Order,
) -> impl FnMut(Duration) -> Measured + 'a {
    let place = arena.queue(shape.format);
    let direct = Direct::new(arena, place);
    let space = AddressSpace::new();
    let buffers = u64::from(SLOTS);
    // A page for each buffer, whatever the mappings are, so that all rows move the same memory.
    let base = arena.piece(buffers * PAGE);
    // Pages of a mapping, how many mappings have buffers in them, and every how manyth of the table does.
    let pages = match mappings {
        0 | 1 => buffers,
        16 => buffers / 16,
        _ => 4,
    };
    let holders = buffers / pages;
    let every = (mappings / holders).max(1);
    let spots = (0..buffers).map(|i| {
        let (holder, page) = match order {
            Order::Blocks => (i / pages, i % pages),
            Order::InTurn => (i % holders, i / holders),
        };
        let number = holder * pages + page;
        // Not all at the same offset: their first lines would share a few sets of the cache.
        let skew = number % 32 * 64;
        let offset = base + number * PAGE + skew;
        let iova = match mappings {
            0 => offset,
            _ => FIRST + holder * every * PITCH + page * PAGE + skew,
        };
        (Iova::new(iova), offset as usize)
    });
    let spots = spots.collect();

    let map = |iova, offset, len| Mapping {
        iova: IovaRange::new(Iova::new(iova), len).unwrap_or_else(|e| wrong(&e.to_string())),
        memory: Arc::clone(arena.window.memory()),
        offset,
        access: Access::Both,
        dirty: None,
    };
    // The queue's own pages, one to one; then those that the packets are in.
    let mut table = vec![map(0, 0, base)];
    table.extend((0..mappings).map(|m| {
        let offset = base + m / every % holders * pages * PAGE;
        map(FIRST + m * PITCH, offset, pages * PAGE)
    }));
    space.map(table).unwrap_or_else(|e| wrong(&e.to_string()));
    let mut sender = Sender::<D>::with_buffers(arena, place, shape, 64, spots);
    let mut receiver = Receiver::<E>::new(shape, 64);
    let mut reader = space.reader();
    let mut spots = place.spots();
    move |slice| {
        let mut watch = Stopwatch::new();
        let before = sender.sent();
        while watch.ns() < slice.as_nanos() as f64 {
            let sent = sender.send(usize::from(SLOTS));
            watch.time(|| {
                for _ in 0..sent.div_ceil(BATCH) {
                    match mappings {
                        0 => receiver.receive(&direct),
                        _ => receiver.receive_translated(&mut reader, &mut spots),
                    };
                }
            });
            sender.reclaim_all();
        }
        if sender.sent() != receiver.received() {
            wrong("packets were lost");
        }
        Measured::new(watch.ns(), sender.sent() - before)
    }
}

//! The driver half on its own, with a device beside it that is no more than the statements need: it looks at what is
//! shown, gives it back, and asks for kicks. And what is asked of the driver half of either format.

use std::sync::atomic::{Ordering, fence};

use vdpa_core::Area;
use vdpa_ring::{Pos, layout};

use super::witness::{Side, orders};
use crate::checked::{ensure, fail};
use crate::hand::{AVAIL, Hand, INDIRECT, NEXT, USED, WRITE};
use crate::{Bench, Checked, Piece, Rig, Ring, Variant};

/// A descriptor as it stands in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Seen {
    pub(super) at: u64,
    pub(super) len: u32,
    pub(super) flags: u16,
}

/// What it takes to give a chain back.
#[derive(Clone, Copy)]
struct Next {
    id: u16,
    slots: u16,
}

/// The device's side of a ring that no device has.
pub(super) struct Peer {
    hand: Hand,
    variant: Variant,
    size: u16,
    avail: u16,
    used: u16,
    avail_pos: Pos,
    used_pos: Pos,
}

/// A rig with a queue of this size that is set up in memory, and started on no device.
pub(super) fn alone<'b>(
    bench: &'b Bench<'_>,
    variant: Variant,
    size: u16,
) -> Checked<(Rig<'b>, Ring, Peer)> {
    let rig = bench.open()?;
    rig.negotiate(rig.plain(variant))?;
    let ring = Ring::new(&rig, 0, size)?;
    let peer = Peer {
        hand: Hand::of(&rig, &ring),
        variant,
        size: ring.size(),
        avail: 0,
        used: 0,
        avail_pos: Pos::START,
        used_pos: Pos::START,
    };
    Ok((rig, ring, peer))
}

impl Peer {
    /// Whether the next chain is shown.
    pub(super) fn is_shown(&self) -> bool {
        let shown = match self.variant.is_packed() {
            true => {
                let lap = if self.avail_pos.wrap { AVAIL } else { USED };
                self.hand.meta(self.avail_pos.index).2 & (AVAIL | USED) == lap
            }
            false => self.driver_word(layout::IDX) != self.avail,
        };
        fence(Ordering::Acquire);
        shown
    }

    /// The first slot of the next chain: its head, or its place in a packed ring.
    pub(super) fn head(&self) -> u16 {
        match self.variant.is_packed() {
            true => self.avail_pos.index,
            false => self.driver_word(layout::avail_entry(self.avail % self.size)),
        }
    }

    /// The descriptors in the ring of the chain that begins there.
    pub(super) fn descriptors(&self, head: u16) -> Vec<Seen> {
        let (mut slot, mut seen) = (head, Vec::new());
        for _ in 0..self.size {
            let (one, next) = self.descriptor(slot);
            seen.push(one);
            if one.flags & NEXT == 0 {
                break;
            }
            slot = match self.variant.is_packed() {
                true => (slot + 1) % self.size,
                false => next % self.size,
            };
        }
        seen
    }

    /// A descriptor of the ring, and the word that names the next one in a split ring and the buffer in a packed one.
    pub(super) fn descriptor(&self, slot: u16) -> (Seen, u16) {
        let at = layout::descriptor(slot);
        let area = self.hand.area(Area::Descriptor);
        self.split(area.load_u64(at), area.load_u64(at | 8))
    }

    /// The entries of the table that a descriptor points to.
    pub(super) fn table(&self, rig: &Rig<'_>, pointer: Seen) -> Vec<Seen> {
        let at = rig.offset(vdpa_mem::Iova::new(pointer.at));
        let Some(bytes) = rig.bytes().slice(at, pointer.len as usize) else {
            return Vec::new();
        };
        let entries = (0..pointer.len / 16).map(|entry| {
            let at = entry * 16;
            self.split(bytes.load_u64(at), bytes.load_u64(at | 8)).0
        });
        entries.collect()
    }

    fn split(&self, at: u64, meta: u64) -> (Seen, u16) {
        let (low, high) = ((meta >> 32) as u16, (meta >> 48) as u16);
        let (flags, other) = match self.variant.is_packed() {
            true => (high, low),
            false => (low, high),
        };
        let len = meta as u32;
        (Seen { at, len, flags }, other)
    }

    /// Gives the next chain back, with this length.
    pub(super) fn give_back(&mut self, len: u32) {
        let next = self.next();
        self.give(next, len);
    }

    /// The next chain, as it stands in memory now.
    fn next(&self) -> Next {
        let head = self.head();
        let slots = self.descriptors(head).len() as u16;
        let id = match self.variant.is_packed() {
            true => {
                let last = self.avail_pos.advance(slots - 1, self.size);
                self.descriptor(last.index).1
            }
            false => head,
        };
        Next { id, slots }
    }

    fn give(&mut self, Next { id, slots }: Next, len: u32) {
        self.avail = self.avail.wrapping_add(1);
        self.avail_pos = self.avail_pos.advance(slots, self.size);
        self.put_used(id, len);
        self.used = self.used.wrapping_add(1);
        self.used_pos = self.used_pos.advance(slots, self.size);
    }

    fn put_used(&self, id: u16, len: u32) {
        fence(Ordering::SeqCst);
        if self.variant.is_packed() {
            let written = if len == 0 { 0 } else { WRITE };
            let lap = if self.used_pos.wrap { AVAIL | USED } else { 0 };
            let flags = u64::from(lap | written) << 48;
            let at = layout::descriptor_meta(self.used_pos.index);
            let meta = u64::from(len) | u64::from(id) << 32 | flags;
            self.hand.area(Area::Descriptor).store_u64(at, meta);
            return;
        }
        let device = self.hand.area(Area::Device);
        let at = layout::used_entry(self.used % self.size);
        device.store_u32_pair(at, [id.into(), len]);
        fence(Ordering::SeqCst);
        device.store_u16(layout::IDX, self.used.wrapping_add(1));
    }

    /// Packed: the device's event suppression structure.
    pub(super) fn set_event(&self, mode: u16, at: u16) {
        self.set_device_word(layout::EVENT_POS, at);
        self.set_device_word(layout::EVENT_MODE, mode);
    }

    /// A word of the device area.
    pub(super) fn set_device_word(&self, at: u32, value: u16) {
        self.hand.area(Area::Device).store_u16(at, value);
    }

    fn driver_word(&self, at: u32) -> u16 {
        self.hand.area(Area::Driver).load_u16(at)
    }

    /// Makes what was shown illegible, so that it is not taken for what is shown next.
    fn scrub(&self, head: u16, slots: u16) {
        let descriptors = self.hand.area(Area::Descriptor);
        if !self.variant.is_packed() {
            let entry = layout::avail_entry(self.avail % self.size);
            self.hand.area(Area::Driver).store_u16(entry, u16::MAX);
            for slot in 0..slots {
                let at = layout::descriptor(head.wrapping_add(slot) % self.size);
                descriptors.store_u64(at, u64::MAX);
            }
        }
    }
}

/// As soon as a chain is shown, all of it is there: its entry, its descriptors, and what is in its buffers
/// (virtio 1.4 §2.7.13.3.1, §2.8.17 and §2.8.21).
pub(super) fn shows_what_is_complete(bench: &Bench<'_>, variant: Variant) -> Checked {
    orders(variant, Side::Before)?;
    let rounds = bench.times(300, 50);
    let plain = Variant {
        indirect: false,
        ..variant
    };
    let (rig, mut ring, mut peer) = alone(bench, plain, 8)?;
    ring.takes(3)?;
    let buffers: Vec<Piece> = (0..3).map(|_| rig.alloc(64)).collect::<Checked<_>>()?;
    let firsts: Vec<u64> = buffers.iter().map(|piece| piece.at.get()).collect();
    let window = rig.window().clone();
    let offset = rig.offset(
        buffers
            .first()
            .map_or(rig.range().first(), |piece| piece.at),
    );
    let (driven, looked) = std::thread::scope(|threads| {
        let looking = threads.spawn(move || {
            for round in 0..rounds {
                bench.until("the showing of a chain", || Ok(peer.is_shown()))?;
                let head = peer.head();
                ensure!(
                    head < peer.size,
                    "chain {round} is shown, and its entry names head {head}"
                );
                let seen = peer.descriptors(head);
                let addresses: Vec<u64> = seen.iter().map(|seen| seen.at).collect();
                ensure!(
                    addresses == firsts,
                    "chain {round} is shown, and its descriptors name {addresses:x?}, not {firsts:x?}"
                );
                let payload = window.bytes().slice(offset, 4).map(|b| b.load_u32(0));
                ensure!(
                    payload == Some(round),
                    "chain {round} is shown, and its buffer holds {payload:?}"
                );
                let next = peer.next();
                peer.scrub(head, next.slots);
                peer.give(next, 0);
            }
            Ok(())
        });
        let mut drive = || {
            for round in 0..rounds {
                let first = buffers[0];
                rig.write(first, &round.to_le_bytes());
                ring.add(&buffers, &[])?;
                ring.publish_silently();
                let mut back = 0;
                bench.until("the return of a chain", || {
                    back += ring.poll()?.len();
                    Ok(back > 0)
                })?;
            }
            Ok(())
        };
        let driven: Checked = drive();
        (driven, looking.join())
    });
    match looked {
        Ok(looked) => looked.and(driven),
        Err(_) => fail!("the side that looks has ended by a panic"),
    }
}

/// The size that a queue has where `size` is asked for.
pub(super) fn most(bench: &Bench<'_>, size: u16) -> Checked<u16> {
    let limits = bench
        .open()?
        .device
        .queue_limits(vdpa_core::QueueIndex::new(0))?;
    Ok(size.min(limits.max_size))
}

/// What the driver half writes for a chain of these many buffers: its descriptors, and the entries of its table.
pub(super) fn described(
    bench: &Bench<'_>,
    variant: Variant,
    size: u16,
    (readable, writable): (usize, usize),
) -> Checked<(Vec<Seen>, Vec<Seen>)> {
    let (rig, mut ring, peer) = alone(bench, variant, size)?;
    let alloc = |count| {
        (0..count)
            .map(|_| rig.alloc(8))
            .collect::<Checked<Vec<_>>>()
    };
    let (readable, writable) = (alloc(readable)?, alloc(writable)?);
    ring.add(&readable, &writable)?;
    ring.publish_silently();
    ensure!(peer.is_shown(), "a chain was published, and is not shown");
    let seen = peer.descriptors(peer.head());
    let pointer = seen.last().filter(|last| last.flags & INDIRECT != 0);
    let table = pointer.map_or_else(Vec::new, |pointer| peer.table(&rig, *pointer));
    let direct = seen.iter().filter(|seen| seen.flags & INDIRECT == 0);
    let entries: Vec<Seen> = direct.chain(&table).copied().collect();
    let pieces: Vec<u64> = readable
        .iter()
        .chain(&writable)
        .map(|piece| piece.at.get())
        .collect();
    let named: Vec<u64> = entries.iter().map(|seen| seen.at).collect();
    ensure!(
        named == pieces,
        "the chain of {pieces:x?} is described as {named:x?}"
    );
    Ok((seen, table))
}

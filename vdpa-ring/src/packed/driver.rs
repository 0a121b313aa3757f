//! Driver half of the packed ring.

use alloc::boxed::Box;

mod take;

use self::take::load_used;
use crate::{
    chain::{Segment, measure, sequence},
    descriptor::{INDIRECT, WRITE, packed},
    error::{AddError, Latch, RingError, SetupError},
    event::{mode, packed_wants},
    layout::{self, EVENT_MODE, EVENT_POS, Format, legal_size},
    mem::{Areas, DriverMem, RingMem, Tables},
    run::Run,
    state::{Pos, QueueState, RingFeatures},
};

/// A chain in flight, kept under its id. Aligned, so that none is in two cache lines.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(16))]
struct Chain {
    /// Slots it takes; 0: not in flight.
    slots: u16,
    /// Next free id while it is not in flight, its number while it is.
    link: u32,
    /// Bytes the device may write.
    writable: u32,
}

/// Driver half of a packed queue: makes chains available and takes them back.
///
/// Ids, chain lengths and positions are private; nothing but used descriptors is read from
/// shared memory, and those are checked. Ids freed last are used first, but for IN_ORDER, where
/// an id is the slot the chain begins at.
#[derive(Debug)]
pub struct PackedDriver {
    size: u16,
    features: RingFeatures,
    chains: Box<[Chain]>,
    /// First free id.
    id: u16,
    /// Slots free.
    free: u16,
    /// Chains added, shown to the device, and taken back, free-running. Wider than the ring's
    /// indices: a chain may stay in flight while those come round many times.
    added: u32,
    shown: u32,
    done: u32,
    /// Next slot to write.
    avail: Pos,
    /// What the device has been shown.
    published: Pos,
    /// Meta word of the first slot written and not shown: the one that shows them all.
    first: u64,
    /// Next slot to take back.
    used: Pos,
    run: Option<Run>,
    /// Whether calls are asked for; unknown at start.
    armed: Option<bool>,
    latch: Latch,
}

impl PackedDriver {
    /// A ring of `size` slots with nothing in flight, that goes on from `state` or starts at slot
    /// 0 with wrap counters 1 (`virtio 1.4 §2.8.1`).
    ///
    /// # Errors
    /// [`SetupError::Size`]; [`SetupError::State`] also if slots are in flight in it.
    pub fn new(
        size: u16,
        features: RingFeatures,
        state: Option<QueueState>,
    ) -> Result<Self, SetupError> {
        let format = Format::Packed;
        if !legal_size(format, size) {
            return Err(SetupError::Size { format, size });
        }
        let at = match state {
            None => Pos::START,
            Some(QueueState::Packed { avail, used }) if avail == used && avail.index < size => {
                avail
            }
            Some(state) => {
                return Err(SetupError::State {
                    format,
                    size,
                    state,
                });
            }
        };
        let chain = |next: u16| Chain {
            slots: 0,
            link: u32::from(next),
            writable: 0,
        };
        Ok(Self {
            size,
            features,
            chains: (1..=size).map(chain).collect(),
            id: 0,
            free: size,
            added: 0,
            shown: 0,
            done: 0,
            avail: at,
            published: at,
            first: 0,
            used: at,
            run: None,
            armed: None,
            latch: Latch::Clear,
        })
    }

    /// Queue size.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Where the ring stands: what is published, and what has been taken back.
    pub fn state(&self) -> QueueState {
        QueueState::Packed {
            avail: self.published,
            used: self.used,
        }
    }

    /// Slots free.
    #[inline]
    pub fn free(&self) -> u16 {
        self.free
    }

    /// Chains added and not taken back.
    #[inline]
    pub fn in_flight(&self) -> u16 {
        self.added.wrapping_sub(self.done) as u16
    }

    /// What a kick carries with NOTIFICATION_DATA (`virtio 1.4 §2.9`): queue index, next slot
    /// and wrap counter as published.
    #[inline]
    pub fn notification_data(&self, queue: u16) -> u32 {
        u32::from(queue) | (u32::from(self.published.bits()) << 16)
    }

    /// Adds a chain: what the device reads, then what it writes. It is not shown before
    /// [`publish`](Self::publish). Returns its id, unique among those in flight and below the
    /// queue size.
    ///
    /// # Errors
    /// [`AddError`]; nothing changes then.
    #[inline(always)]
    pub fn add<M: RingMem>(
        &mut self,
        mem: &DriverMem<M>,
        readable: &[Segment],
        writable: &[Segment],
    ) -> Result<u16, AddError> {
        let (one, flags, written) = match (readable, writable) {
            ([one], []) => (one, 0, 0),
            ([], [one]) => (one, WRITE, one.len),
            _ => return self.add_many(mem, readable, writable),
        };
        let id = self.reserve(1)?;
        self.write(&mem.areas, one, flags, id);
        self.enlist(id, 1, written);
        Ok(id)
    }

    /// Inlined, so that a caller whose chains are arrays gets code for their length.
    #[inline(always)]
    fn add_many<M: RingMem>(
        &mut self,
        mem: &DriverMem<M>,
        readable: &[Segment],
        writable: &[Segment],
    ) -> Result<u16, AddError> {
        let (segments, written) = measure(readable, writable, self.size)?;
        if self.features.contains(RingFeatures::INDIRECT_DESC)
            && let Some(added) = self.add_table(mem, readable, writable, segments, written)
        {
            return added;
        }
        let id = self.reserve(segments)?;
        // Kept apart: the stores below could be to `self`, as far as the compiler knows.
        let (mut at, size) = (self.avail, self.size);
        // Only the chain's first slot, of several, can be the one that shows all: the rest is behind it.
        let (shows, mut first) = (at == self.published, self.first);
        let ring = &mem.areas.descriptor;
        sequence(readable, writable, |segment, flags, next| {
            if let Some(meta) = put(ring, at, shows && next == 1, segment, flags, id) {
                first = meta;
            }
            at = at.advance(1, size);
        });
        (self.avail, self.first) = (at, first);
        self.enlist(id, segments, written);
        Ok(id)
    }

    /// The same through an indirect table, where one is at hand.
    #[inline(never)]
    fn add_table<M: RingMem>(
        &mut self,
        mem: &DriverMem<M>,
        readable: &[Segment],
        writable: &[Segment],
        segments: u16,
        written: u32,
    ) -> Option<Result<u16, AddError>> {
        let (tables, offset, table) = self.table(mem, segments)?;
        let id = match self.reserve(1) {
            Ok(id) => id,
            Err(error) => return Some(Err(error)),
        };
        let mut at = offset;
        sequence(readable, writable, |segment, flags, _| {
            // virtio 1.4 §2.8.19: entries carry WRITE alone.
            let meta = packed::meta(segment.len, 0, flags & WRITE);
            tables
                .memory
                .store_descriptor(at, [segment.addr.get(), meta]);
            at = at.wrapping_add(layout::DESCRIPTOR_BYTES);
        });
        self.write(&mem.areas, &table, INDIRECT, id);
        self.enlist(id, 1, written);
        Some(Ok(id))
    }

    /// The table of the next id, where a chain of `segments` goes through one.
    fn table<'m, M>(
        &self,
        mem: &'m DriverMem<M>,
        segments: u16,
    ) -> Option<(&'m Tables<M>, u32, Segment)> {
        if segments < 2 || !self.features.contains(RingFeatures::INDIRECT_DESC) {
            return None;
        }
        let tables = mem.tables.as_ref()?;
        let (offset, addr) = tables.slot(self.next_id(), segments)?;
        let len = u32::from(segments) << 4;
        Some((tables, offset, Segment { addr, len }))
    }

    #[inline(always)]
    fn next_id(&self) -> u16 {
        match self.features.contains(RingFeatures::IN_ORDER) {
            true => self.avail.index,
            false => self.id,
        }
    }

    /// The id of a chain that needs `needed` slots. Room is checked first
    /// (`virtio 1.4 §2.8.17`).
    #[inline(always)]
    fn reserve(&self, needed: u16) -> Result<u16, AddError> {
        if !self.latch.is_clear() {
            return Err(AddError::Latched);
        }
        let free = self.free;
        match needed <= free {
            true => Ok(self.next_id()),
            false => Err(AddError::Full { needed, free }),
        }
    }

    /// Writes the next slot; the first since the last publication keeps its meta word back.
    #[inline(always)]
    fn write<M: RingMem>(&mut self, areas: &Areas<M>, segment: &Segment, flags: u16, id: u16) {
        let at = self.avail;
        let ring = &areas.descriptor;
        let shows = at == self.published;
        if let Some(meta) = put(ring, at, shows, segment, flags, id) {
            self.first = meta;
        }
        self.avail = at.advance(1, self.size);
    }

    #[inline(always)]
    fn enlist(&mut self, id: u16, slots: u16, writable: u32) {
        if let Some(chain) = self.chains.get_mut(usize::from(id)) {
            chain.slots = slots;
            chain.writable = writable;
            let next = core::mem::replace(&mut chain.link, self.added);
            if !self.features.contains(RingFeatures::IN_ORDER) {
                self.id = next as u16;
            }
        }
        self.free = self.free.wrapping_sub(slots);
        self.added = self.added.wrapping_add(1);
    }

    /// Shows the device what was added since the last time. True: kick it.
    #[inline]
    pub fn publish<M: RingMem>(&mut self, mem: &DriverMem<M>) -> bool {
        let (avail, published) = (self.avail, self.published);
        let slots = match avail.since(published, self.size) {
            Some(0) if self.added == self.shown => return false,
            Some(slots @ 1..) => slots,
            _ => return self.overrun(),
        };
        let areas = &mem.areas;
        // Pairs with the device's acquire after its load of the first meta word: payload and the
        // descriptors behind it are visible before it (virtio 1.4 §2.8.17, §2.8.21).
        areas.descriptor.release();
        let first = layout::descriptor(self.published.index);
        areas.descriptor.store_meta(first, self.first);
        self.published = self.avail;
        self.shown = self.added;
        // Pairs with the device's full fence between its store of the event words and its second
        // look at the ring: one of the two sees the other.
        areas.descriptor.full();
        let event_idx = self.features.contains(RingFeatures::EVENT_IDX);
        let asked = areas.device.load_u16(EVENT_MODE);
        let position = || Pos::from_bits(areas.device.load_u16(EVENT_POS));
        packed_wants(asked, position, event_idx, self.avail, slots, self.size)
    }

    /// What is written and not shown is not within the ring. Nothing more is shown, and the next
    /// take tells: an answer of silence here would leave the owner waiting for ever.
    #[cold]
    fn overrun(&mut self) -> bool {
        if self.latch.is_clear() {
            let (avail, published) = (self.avail, self.published);
            let error = RingError::Overrun { avail, published };
            self.latch = Latch::Pending(error);
        }
        false
    }

    /// Asks for calls and looks again. True: something is there to take already.
    pub fn arm<M: RingMem>(&mut self, mem: &DriverMem<M>) -> bool {
        if !self.latch.is_clear() {
            return self.latch.is_pending();
        }
        let areas = &mem.areas;
        let mut asked = mode::ENABLE;
        if self.features.contains(RingFeatures::EVENT_IDX) {
            areas.driver.store_u16(EVENT_POS, self.used.bits());
            // In any order with the mode: the fence below stands behind both, and a peer whose
            // fence comes first has left us something to find.
            asked = mode::POSITION;
        }
        if self.armed != Some(true) {
            areas.driver.store_u16(EVENT_MODE, asked);
        }
        self.armed = Some(true);
        // Pairs with the device's full fence between its store of the first used meta word and
        // its load of the event words: either it sees that we want a call, or we see its word.
        areas.driver.full();
        self.run.is_some()
            || self.shown != self.done && load_used(&areas.descriptor, self.used).is_some()
    }

    /// Asks for silence: calls may still come.
    pub fn disarm<M: RingMem>(&mut self, mem: &DriverMem<M>) {
        if self.armed == Some(false) {
            return;
        }
        self.armed = Some(false);
        mem.areas.driver.store_u16(EVENT_MODE, mode::DISABLE);
    }
}

/// Writes slot `at`. The one that `shows` the rest, the first since the last publication, keeps its
/// meta word back: that is the answer.
#[inline(always)]
fn put<M: RingMem>(
    ring: &M,
    at: Pos,
    shows: bool,
    segment: &Segment,
    flags: u16,
    id: u16,
) -> Option<u64> {
    let meta = packed::meta(segment.len, id, flags | packed::avail(at.wrap));
    let (slot, addr) = (layout::descriptor(at.index), segment.addr.get());
    if shows {
        ring.store_address(slot, addr);
        return Some(meta);
    }
    ring.store_descriptor(slot, [addr, meta]);
    None
}

#[cfg(test)]
mod tests {
    use vdpa_mem::{Iova, Region};

    use super::*;
    use crate::{chain::Completion, layout::area_sizes};

    #[test]
    fn publication_that_can_not_be_is_told_and_not_passed_over() {
        let (format, size) = (Format::Packed, 4);
        let sizes = area_sizes(format, size, false);
        let at = sizes.placed();
        let region = Region::anonymous(u64::from(at.bytes)).unwrap();
        let area = |from: u32, bytes: u32| {
            let bytes = region.bytes().slice(from as usize, bytes as usize);
            bytes.unwrap()
        };
        let mem = DriverMem::new(Areas {
            descriptor: area(0, sizes.descriptor.bytes),
            driver: area(at.driver, sizes.driver.bytes),
            device: area(at.device, sizes.device.bytes),
        });
        let segment = Segment {
            addr: Iova::new(0x1000),
            len: 8,
        };
        // Behind what is published; and where it is, with a chain added.
        for by in [1, 0] {
            let mut driver = PackedDriver::new(size, RingFeatures::empty(), None).unwrap();
            let published = driver.published;
            driver.add(&mem, &[segment], &[]).unwrap();
            driver.avail = published.retreat(by, size);
            assert!(!driver.publish(&mem));
            assert!(driver.arm(&mem), "there is something to tell");
            let error = RingError::Overrun {
                avail: driver.avail,
                published,
            };
            let mut out = [Completion::default()];
            assert_eq!(driver.take_used(&mem, &mut out), Err(error));
            assert_eq!(driver.take_used(&mem, &mut out), Err(RingError::Latched));
            assert_eq!(driver.add(&mem, &[segment], &[]), Err(AddError::Latched));
        }
    }
}

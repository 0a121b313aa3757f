//! Driver half of the packed ring.

use alloc::boxed::Box;

use crate::{
    chain::{Completion, Segment, measure, sequence},
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

impl Chain {
    /// The length a used descriptor tells, if it can be true.
    #[inline(always)]
    fn length(&self, meta: u64) -> Option<u32> {
        let len = meta as u32;
        if len <= self.writable {
            return Some(len);
        }
        // virtio 1.4 §2.8.4: the length is reserved without WRITE. Devices in the field set the
        // length and forget the flag, so one that can be true counts.
        (packed::flags(meta) & WRITE == 0).then_some(0)
    }
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
        let (mut at, mut first) = (self.avail, self.first);
        let (published, size) = (self.published, self.size);
        let ring = &mem.areas.descriptor;
        sequence(readable, writable, |segment, flags, _| {
            if let Some(meta) = put(ring, at, published, segment, flags, id) {
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
        if let Some(meta) = put(ring, at, self.published, segment, flags, id) {
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
        let first = layout::descriptor_meta(self.published.index);
        areas.descriptor.store_u64(first, self.first);
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

    /// Takes back as many used chains as fit `out`; returns how many. A length in a used
    /// descriptor without WRITE counts where it can be true: see [`Completion::len`].
    ///
    /// # Errors
    /// What the device did wrong, once, after the chains before it were returned; then
    /// [`RingError::Latched`].
    #[inline]
    pub fn take_used<M: RingMem>(
        &mut self,
        mem: &DriverMem<M>,
        out: &mut [Completion],
    ) -> Result<usize, RingError> {
        self.latch.check()?;
        let ring = &mem.areas.descriptor;
        if self.features.contains(RingFeatures::IN_ORDER) {
            return self.take_in_order(ring, out);
        }
        let size = self.size;
        let chains = self.shown.wrapping_sub(self.done) as usize;
        // Numbers of chains the device can't know yet: nearly always none, and then a chain's own
        // need not be loaded.
        let (shown, hidden) = (self.shown, self.added.wrapping_sub(self.shown));
        let (mut at, mut free, mut first) = (self.used, self.free, self.id);
        let (mut taken, mut bad) = (0u16, None);
        // Nothing is read of a ring the device has nothing of.
        for place in out.iter_mut().take(chains) {
            let Some(meta) = load_used(ring, at) else {
                break;
            };
            let id = packed::id(meta);
            let known = self.chains.get_mut(usize::from(id));
            let seen = |chain: &&mut Chain| {
                chain.slots != 0 && (hidden == 0 || chain.link.wrapping_sub(shown) >= hidden)
            };
            let Some(chain) = known.filter(seen) else {
                bad = Some(self.reproach(at, meta));
                break;
            };
            let Some(len) = chain.length(meta) else {
                bad = Some(self.reproach(at, meta));
                break;
            };
            let slots = core::mem::take(&mut chain.slots);
            // Freed last, used first.
            chain.link = u32::from(core::mem::replace(&mut first, id));
            free = free.wrapping_add(slots);
            at = at.past(slots, size);
            taken = taken.wrapping_add(1);
            *place = Completion { id, len };
        }
        (self.used, self.free, self.id) = (at, free, first);
        self.done = self.done.wrapping_add(u32::from(taken));
        match bad {
            None => Ok(usize::from(taken)),
            Some(error) => self.latch.raise(error, usize::from(taken)),
        }
    }

    /// What is wrong with a used descriptor.
    #[cold]
    fn reproach(&self, at: Pos, meta: u64) -> RingError {
        let (index, size, id) = (at.index, self.size, packed::id(meta));
        match self.chains.get(usize::from(id)) {
            None => RingError::UsedIdOutOfRange {
                index,
                id: u32::from(id),
                size,
            },
            Some(&Chain {
                slots,
                link,
                writable,
            }) if slots != 0 && !self.is_hidden(link) && meta as u32 > writable => {
                let len = meta as u32;
                RingError::UsedTooLong { id, len, writable }
            }
            Some(_) => RingError::UsedNotInFlight { index, id },
        }
    }

    /// Whether the chain in flight of this number has not been shown to the device.
    fn is_hidden(&self, number: u32) -> bool {
        number.wrapping_sub(self.shown) < self.added.wrapping_sub(self.shown)
    }

    /// With IN_ORDER a used descriptor stands for all chains up to the one it names; those before
    /// it have been used completely (`virtio 1.4 §2.8.8`). Ids are first slots, so the oldest
    /// chain is the one at the used position.
    fn take_in_order<M: RingMem>(
        &mut self,
        ring: &M,
        out: &mut [Completion],
    ) -> Result<usize, RingError> {
        let mut taken = 0usize;
        while let Some(room) = out.get_mut(taken..).filter(|room| !room.is_empty()) {
            let run = match self.run {
                Some(run) => run,
                None => match self.begin_run(ring) {
                    Ok(Some(run)) => run,
                    Ok(None) => break,
                    Err(error) => return self.latch.raise(error, taken),
                },
            };
            let (mut at, mut free, mut done) = (self.used, self.free, 0u16);
            for place in room.iter_mut().take(usize::from(run.left)) {
                let id = at.index;
                if let Some(chain) = self.chains.get_mut(usize::from(id)) {
                    let len = chain.writable;
                    *place = Completion { id, len };
                    let slots = core::mem::take(&mut chain.slots);
                    free = free.wrapping_add(slots);
                    at = at.past(slots, self.size);
                }
                done = done.wrapping_add(1);
            }
            (self.used, self.free) = (at, free);
            self.done = self.done.wrapping_add(u32::from(done));
            taken = taken.wrapping_add(usize::from(done));
            self.run = run.after(done, out.get_mut(..taken).unwrap_or_default());
        }
        Ok(taken)
    }

    /// Reads a used descriptor and counts the chains it stands for.
    fn begin_run<M: RingMem>(&self, ring: &M) -> Result<Option<Run>, RingError> {
        let at = self.used;
        if self.shown == self.done {
            return Ok(None);
        }
        let Some(meta) = load_used(ring, at) else {
            return Ok(None);
        };
        let id = packed::id(meta);
        let chain = self.chains.get(usize::from(id));
        let Some(&chain) = chain.filter(|chain| chain.slots != 0) else {
            return Err(self.reproach(at, meta));
        };
        let Some(len) = chain.length(meta) else {
            return Err(self.reproach(at, meta));
        };
        let before = chain.link.wrapping_sub(self.done);
        if before >= self.shown.wrapping_sub(self.done) {
            let index = at.index;
            return Err(RingError::UsedNotInFlight { index, id });
        }
        // At most as many as the ring has slots.
        let left = before.wrapping_add(1) as u16;
        Ok(Some(Run { left, len }))
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

/// The meta word at `at`, if it is used.
#[inline(always)]
fn load_used<M: RingMem>(ring: &M, at: Pos) -> Option<u64> {
    let meta = ring.load_u64(layout::descriptor_meta(at.index));
    if !packed::is_used(packed::flags(meta), at.wrap) {
        return None;
    }
    // Pairs with the device's release before its store of the first used meta word: payload is
    // visible.
    ring.acquire();
    Some(meta)
}

/// Writes slot `at`. The first since the last publication keeps its meta word back: that is the
/// answer.
#[inline(always)]
fn put<M: RingMem>(
    ring: &M,
    at: Pos,
    published: Pos,
    segment: &Segment,
    flags: u16,
    id: u16,
) -> Option<u64> {
    let meta = packed::meta(segment.len, id, flags | packed::avail(at.wrap));
    let (slot, addr) = (layout::descriptor(at.index), segment.addr.get());
    if at == published {
        ring.store_u64(slot, addr);
        return Some(meta);
    }
    ring.store_descriptor(slot, [addr, meta]);
    None
}

#[cfg(test)]
mod tests {
    use vdpa_mem::{Iova, Region};

    use super::*;
    use crate::layout::area_sizes;

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

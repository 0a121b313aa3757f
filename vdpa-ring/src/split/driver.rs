//! Driver half of the split ring.

use alloc::boxed::Box;

mod take;

use crate::{
    chain::{Segment, measure, sequence},
    descriptor::{INDIRECT, WRITE, split},
    error::{AddError, Latch, SetupError},
    event::{SILENT, need_event},
    layout::{self, FLAGS, Format, IDX, legal_size},
    mem::{Areas, DriverMem, RingMem, Tables},
    run::Run,
    state::{QueueState, RingFeatures},
};

/// A chain in flight, kept under its head. Aligned, so that none is in two cache lines.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(16))]
struct Chain {
    /// Descriptors it takes; 0: not in flight, or no head.
    descriptors: u16,
    /// Its last descriptor.
    last: u16,
    /// Bytes the device may write.
    writable: u32,
    /// Its number: that of its entry in the available ring.
    number: u32,
}

/// Driver half of a split queue: makes chains available and takes them back.
///
/// Free list, chain lengths and indices are private; nothing but used entries is read from
/// shared memory, and those are checked. Descriptors freed last are used first, but for
/// IN_ORDER, where they are used in ring order.
#[derive(Debug)]
pub struct SplitDriver {
    size: u16,
    mask: u16,
    features: RingFeatures,
    /// Next descriptor after each: of the free list, or of the chain in flight.
    next: Box<[u16]>,
    chains: Box<[Chain]>,
    /// First free descriptor.
    head: u16,
    free: u16,
    /// Head of the oldest chain in flight; followed with IN_ORDER only.
    oldest: u16,
    /// Next entry of the available ring to write: the index is the low half. The upper half
    /// tells a chain just added from one in flight since the index was last here.
    avail: u32,
    /// What the device has been shown, likewise.
    published: u32,
    /// Next entry of the used ring to take.
    used: u16,
    run: Option<Run>,
    /// Whether calls are asked for; unknown at start.
    armed: Option<bool>,
    latch: Latch,
}

impl SplitDriver {
    /// A ring of `size` slots with nothing in flight, that goes on from `state` or starts at 0.
    ///
    /// # Errors
    /// [`SetupError::Size`]; [`SetupError::State`] also if chains are in flight in it.
    pub fn new(
        size: u16,
        features: RingFeatures,
        state: Option<QueueState>,
    ) -> Result<Self, SetupError> {
        let format = Format::Split;
        if !legal_size(format, size) {
            return Err(SetupError::Size { format, size });
        }
        let at = match state {
            None => 0,
            Some(QueueState::Split { avail, used }) if used.unwrap_or(avail) == avail => avail,
            Some(state) => {
                return Err(SetupError::State {
                    format,
                    size,
                    state,
                });
            }
        };
        let mask = size.wrapping_sub(1);
        Ok(Self {
            size,
            mask,
            features,
            next: (0..size).map(|i| i.wrapping_add(1) & mask).collect(),
            chains: (0..size).map(|_| Chain::default()).collect(),
            head: 0,
            free: size,
            oldest: 0,
            avail: u32::from(at),
            published: u32::from(at),
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
        QueueState::Split {
            avail: self.published as u16,
            used: Some(self.used),
        }
    }

    /// Descriptors free.
    #[inline]
    pub fn free(&self) -> u16 {
        self.free
    }

    /// Chains added and not taken back.
    #[inline]
    pub fn in_flight(&self) -> u16 {
        (self.avail as u16).wrapping_sub(self.used)
    }

    /// What a kick carries with NOTIFICATION_DATA (`virtio 1.4 §2.9`): queue index and the
    /// published index.
    #[inline]
    pub fn notification_data(&self, queue: u16) -> u32 {
        u32::from(queue) | (self.published << 16)
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
        let head = self.reserve(1)?;
        write(&mem.areas, head, one, flags, 0);
        let next = self.after(head);
        self.enlist(&mem.areas, head, (head, next), 1, written);
        Ok(head)
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
        let head = self.reserve(segments)?;
        let (mut index, mut last) = (head, head);
        // Borrowed once: the stores below could be anywhere, as far as the compiler knows.
        let (free, ring) = (&*self.next, &mem.areas.descriptor);
        sequence(readable, writable, |segment, flags, _| {
            let next = free.get(usize::from(index)).copied().unwrap_or(0);
            let meta = split::meta(segment.len, flags, next);
            ring.store_descriptor(layout::descriptor(index), [segment.addr.get(), meta]);
            (last, index) = (index, next);
        });
        self.enlist(&mem.areas, head, (last, index), segments, written);
        Ok(head)
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
        let head = match self.reserve(1) {
            Ok(head) => head,
            Err(error) => return Some(Err(error)),
        };
        let mut at = offset;
        sequence(readable, writable, |segment, flags, entry| {
            let meta = split::meta(segment.len, flags, entry);
            tables
                .memory
                .store_descriptor(at, [segment.addr.get(), meta]);
            at = at.wrapping_add(layout::DESCRIPTOR_BYTES);
        });
        write(&mem.areas, head, &table, INDIRECT, 0);
        let next = self.after(head);
        self.enlist(&mem.areas, head, (head, next), 1, written);
        Some(Ok(head))
    }

    /// The table of the next head, where a chain of `segments` goes through one.
    fn table<'m, M>(
        &self,
        mem: &'m DriverMem<M>,
        segments: u16,
    ) -> Option<(&'m Tables<M>, u32, Segment)> {
        if segments < 2 || !self.features.contains(RingFeatures::INDIRECT_DESC) {
            return None;
        }
        let tables = mem.tables.as_ref()?;
        let (offset, addr) = tables.slot(self.head, segments)?;
        let len = u32::from(segments) << 4;
        Some((tables, offset, Segment { addr, len }))
    }

    /// The first of `descriptors` free ones.
    #[inline(always)]
    fn reserve(&self, needed: u16) -> Result<u16, AddError> {
        if !self.latch.is_clear() {
            return Err(AddError::Latched);
        }
        let free = self.free;
        match needed <= free {
            true => Ok(self.head),
            false => Err(AddError::Full { needed, free }),
        }
    }

    #[inline(always)]
    fn after(&self, index: u16) -> u16 {
        self.next.get(usize::from(index)).copied().unwrap_or(0)
    }

    /// Takes the chain's descriptors, the last and the free one after it given, off the free list and
    /// enters it in the available ring.
    #[inline(always)]
    fn enlist<M: RingMem>(
        &mut self,
        areas: &Areas<M>,
        head: u16,
        (last, next): (u16, u16),
        descriptors: u16,
        writable: u32,
    ) {
        self.head = next;
        self.free = self.free.wrapping_sub(descriptors);
        if let Some(chain) = self.chains.get_mut(usize::from(head)) {
            *chain = Chain {
                descriptors,
                last,
                writable,
                number: self.avail,
            };
        }
        let slot = self.avail as u16 & self.mask;
        areas.driver.store_u16(layout::avail_entry(slot), head);
        self.avail = self.avail.wrapping_add(1);
    }

    /// Shows the device what was added since the last time. True: kick it.
    #[inline]
    pub fn publish<M: RingMem>(&mut self, mem: &DriverMem<M>) -> bool {
        let old = core::mem::replace(&mut self.published, self.avail);
        if self.avail == old {
            return false;
        }
        let (new, old) = (self.avail as u16, old as u16);
        let areas = &mem.areas;
        // Pairs with the device's acquire after its load of avail.idx: payload, descriptors and
        // entries are visible before the index (virtio 1.4 §2.7.13.3.1).
        areas.driver.release();
        areas.driver.store_u16(IDX, new);
        // Pairs with the device's full fence between its store of avail_event (or flags) and its
        // second look at avail.idx: one of the two sees the other (virtio 1.4 §2.7.13.4.1).
        areas.driver.full();
        if self.features.contains(RingFeatures::EVENT_IDX) {
            let event = areas.device.load_u16(layout::avail_event(self.size));
            return need_event(event, new, old);
        }
        areas.device.load_u16(FLAGS) & SILENT == 0
    }

    /// Asks for calls and looks again. True: something is there to take already.
    pub fn arm<M: RingMem>(&mut self, mem: &DriverMem<M>) -> bool {
        if !self.latch.is_clear() {
            return self.latch.is_pending();
        }
        let areas = &mem.areas;
        if self.features.contains(RingFeatures::EVENT_IDX) {
            let event = layout::used_event(self.size);
            areas.driver.store_u16(event, self.used);
        }
        // virtio 1.4 §2.7.7.1: 0 with EVENT_IDX, always.
        if self.armed != Some(true) {
            areas.driver.store_u16(FLAGS, 0);
        }
        self.armed = Some(true);
        // Pairs with the device's full fence between its store of used.idx and its load of
        // used_event (or flags): either it sees that we want a call, or we see its index.
        areas.driver.full();
        areas.device.load_u16(IDX) != self.used
    }

    /// Asks for silence: calls may still come.
    pub fn disarm<M: RingMem>(&mut self, mem: &DriverMem<M>) {
        if self.armed == Some(false) {
            return;
        }
        self.armed = Some(false);
        let driver = &mem.areas.driver;
        if self.features.contains(RingFeatures::EVENT_IDX) {
            // The index just passed: 65535 chains away.
            driver.store_u16(layout::used_event(self.size), self.used.wrapping_sub(1));
        } else {
            driver.store_u16(FLAGS, SILENT);
        }
    }
}

#[inline(always)]
fn write<M: RingMem>(areas: &Areas<M>, index: u16, segment: &Segment, flags: u16, next: u16) {
    let words = [segment.addr.get(), split::meta(segment.len, flags, next)];
    areas
        .descriptor
        .store_descriptor(layout::descriptor(index), words);
}

//! Device half of the packed ring.

mod again;

use alloc::{boxed::Box, vec, vec::Vec};

use vdpa_mem::Iova;

use crate::{
    chain::{Batch, Open, Stop, Used},
    descriptor::{INDIRECT, NEXT, WRITE, packed, segment},
    error::{Latch, RingError, SetupError},
    event::{mode, packed_wants},
    inflight::Again,
    layout::{self, EVENT_MODE, EVENT_POS, Format, legal_size},
    mem::{Areas, DeviceMem, RingMem},
    state::{Pos, QueueState, RingFeatures},
    table::copy_table,
};

pub(crate) use again::Noted;

/// Device half of a packed queue: takes chains in ring order, marks them used in the same slots.
///
/// Both positions live here; shared memory is never asked for them.
#[derive(Debug)]
pub struct PackedDevice {
    size: u16,
    features: RingFeatures,
    /// Next slot to take.
    avail: Pos,
    /// Next slot to mark used.
    used: Pos,
    /// Slots between the two.
    in_flight: u16,
    /// Whether kicks are asked for; unknown at start.
    armed: Option<bool>,
    latch: Latch,
    parked: Option<Iova>,
    /// Chains of the last take that were not given back since.
    rewindable: usize,
    /// Private copy of the indirect table being walked.
    table: Box<[[u64; 2]]>,
    /// Chains to take before what is new.
    again: Option<Box<Again>>,
    /// The descriptors of the batch's tables, where somebody wants to know.
    noted: Option<Vec<Noted>>,
}

impl PackedDevice {
    /// A ring of `size` slots that goes on from `state`, or starts at slot 0 with wrap counters 1
    /// (`virtio 1.4 §2.8.1`).
    ///
    /// # Errors
    /// [`SetupError::Size`], [`SetupError::State`].
    pub fn new(
        size: u16,
        features: RingFeatures,
        state: Option<QueueState>,
    ) -> Result<Self, SetupError> {
        let format = Format::Packed;
        if !legal_size(format, size) {
            return Err(SetupError::Size { format, size });
        }
        let (avail, used, in_flight) = match state {
            None => (Pos::START, Pos::START, 0),
            Some(state) => match restored(state, size) {
                Some(positions) => positions,
                None => {
                    return Err(SetupError::State {
                        format,
                        size,
                        state,
                    });
                }
            },
        };
        let entries = match features.contains(RingFeatures::INDIRECT_DESC) {
            true => usize::from(size),
            false => 0,
        };
        Ok(Self {
            size,
            features,
            avail,
            used,
            in_flight,
            armed: None,
            latch: Latch::Clear,
            parked: None,
            rewindable: 0,
            table: vec![[0; 2]; entries].into_boxed_slice(),
            again: None,
            noted: None,
        })
    }

    /// Queue size.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Where the ring stands.
    pub fn state(&self) -> QueueState {
        QueueState::Packed {
            avail: self.avail,
            used: self.used,
        }
    }

    /// Slots taken and not committed.
    #[inline]
    pub fn in_flight(&self) -> u16 {
        self.in_flight
    }

    /// The address the last take waited for, if a chain's indirect table was not mapped.
    #[inline]
    pub fn parked(&self) -> Option<Iova> {
        self.parked
    }

    /// Takes up to `limit` chains, after clearing `batch`. 0: the ring is empty, or its next
    /// chain is [parked](Self::parked).
    ///
    /// # Errors
    /// What the driver did wrong, once, after the chains before it were returned; then
    /// [`RingError::Latched`]. [`RingError::BatchTooSmall`] takes nothing and latches nothing.
    #[inline]
    pub fn take<D: DeviceMem>(
        &mut self,
        mem: &D,
        batch: &mut Batch,
        limit: usize,
    ) -> Result<usize, RingError> {
        batch.clear();
        self.rewindable = 0;
        self.latch.check()?;
        self.parked = None;
        if self.again.is_some() || self.noted.is_some() {
            return self.take_watched(mem, batch, limit);
        }
        self.take_new(mem, batch, limit)
    }

    /// Takes what is new, behind what is in the batch already.
    #[inline]
    fn take_new<D: DeviceMem>(
        &mut self,
        mem: &D,
        batch: &mut Batch,
        limit: usize,
    ) -> Result<usize, RingError> {
        let areas = mem.areas();
        // Slots behind the room hold chains in flight: nothing can be available there.
        let goal = limit.min(batch.capacity());
        while batch.len() < goal && self.in_flight < self.size {
            // Nor does a run go round the ring's end: it has one wrap counter.
            let room = self.size.wrapping_sub(self.in_flight);
            let room = usize::from(room.min(self.size.wrapping_sub(self.avail.index)));
            let upto = goal.min(batch.len().wrapping_add(room));
            let stopped = match self.take_singles(&areas.descriptor, batch, upto) {
                End::Empty => break,
                End::Long(meta) => self.walk(mem, &areas.descriptor, batch, meta),
                End::Bad(bad) => Err(bad.into()),
                End::Full if batch.len() < upto => Err(Stop::Full),
                End::Full => Ok(()),
            };
            if let Err(stop) = stopped {
                return self.stopped(stop, batch);
            }
        }
        self.rewindable = batch.len();
        Ok(batch.len())
    }

    /// Takes chains of one descriptor as long as they come, up to `goal` chains in the batch and not
    /// round the end of the ring.
    ///
    /// Kept apart: inlined into what its callers do with the batch, it runs out of registers.
    #[inline(never)]
    fn take_singles<M: RingMem>(&mut self, ring: &M, batch: &mut Batch, goal: usize) -> End {
        let (size, at) = (self.size, self.avail);
        let mut slots = 0u16;
        let mut end = End::Full;
        for (place, index) in batch.places(goal).zip(at.index..) {
            // The whole word: flags never without their length and id.
            let meta = ring.load_meta(layout::descriptor(index));
            let flags = packed::flags(meta);
            if !packed::is_avail(flags, at.wrap) {
                end = End::Empty;
                break;
            }
            if flags & (NEXT | INDIRECT) != 0 {
                // As below, for the rest of the list.
                ring.acquire();
                end = End::Long(meta);
                break;
            }
            let id = packed::id(meta);
            if id >= size {
                let slot = index;
                end = End::Bad(RingError::IdOutOfRange { slot, id, size });
                break;
            }
            // Pairs with the driver's release before its store of the first descriptor's meta
            // word: the address is visible once the flags were. A fence a descriptor costs
            // nothing where loads are ordered, and less than a second pass where they are not.
            ring.acquire();
            let addr = ring.load_address(layout::descriptor(index));
            place.fill(id, segment(addr, meta), flags & WRITE != 0);
            slots = slots.wrapping_add(1);
        }
        batch.grow(usize::from(slots));
        self.avail = at.advance(slots, size);
        self.in_flight = self.in_flight.wrapping_add(slots);
        end
    }

    #[cold]
    fn bad_id(&self, slot: u16, id: u16) -> Stop {
        let size = self.size;
        RingError::IdOutOfRange { slot, id, size }.into()
    }

    /// A list or an indirect descriptor at the available position; its meta word was loaded and
    /// acquired.
    fn walk<D: DeviceMem>(
        &mut self,
        mem: &D,
        ring: &D::Ring,
        batch: &mut Batch,
        mut meta: u64,
    ) -> Result<(), Stop> {
        let head = self.avail.index;
        let room = self.size.wrapping_sub(self.in_flight);
        let mut open = batch.open(head);
        let mut at = self.avail;
        let mut slots = 0u16;
        loop {
            // Slots behind the room hold chains that are in flight: the list is too long.
            if slots == room {
                return Err(RingError::ChainTooLong { head, limit: room }.into());
            }
            slots = slots.wrapping_add(1);
            let index = at.index;
            let flags = packed::flags(meta);
            let addr = ring.load_address(layout::descriptor(index));
            if flags & INDIRECT != 0 {
                if !self.features.contains(RingFeatures::INDIRECT_DESC) {
                    return Err(RingError::IndirectNotNegotiated { head, index }.into());
                }
                if flags & NEXT != 0 {
                    return Err(RingError::IndirectWithNext { head, index }.into());
                }
                if slots > 1 {
                    return Err(RingError::IndirectInList { head, index }.into());
                }
                self.walk_table(mem, batch, &mut open, head, addr, meta as u32)?;
                if let Some(noted) = &mut self.noted {
                    noted.push(Noted {
                        place: batch.len(),
                        descriptor: [addr, meta],
                    });
                }
            } else {
                batch.append(&mut open, segment(addr, meta), flags & WRITE != 0, index)?;
            }
            if flags & NEXT == 0 {
                // virtio 1.4 §2.8.6: the id is the last descriptor's.
                let id = packed::id(meta);
                if id >= self.size {
                    return Err(self.bad_id(index, id));
                }
                batch.close(open, id, slots)?;
                self.avail = self.avail.advance(slots, self.size);
                self.in_flight = self.in_flight.wrapping_add(slots);
                return Ok(());
            }
            at = at.advance(1, self.size);
            if slots == room {
                continue;
            }
            meta = ring.load_meta(layout::descriptor(at.index));
            // virtio 1.4 §2.8.17: the first descriptor is published last.
            if !packed::is_avail(packed::flags(meta), at.wrap) {
                let slot = at.index;
                return Err(RingError::NotAvailable { head, slot }.into());
            }
        }
    }

    /// Copies a table once and walks the copy: entries in order, their NEXT and id mean nothing
    /// (`virtio 1.4 §2.8.7`).
    fn walk_table<D: DeviceMem>(
        &mut self,
        mem: &D,
        batch: &mut Batch,
        open: &mut Open,
        head: u16,
        addr: u64,
        len: u32,
    ) -> Result<(), Stop> {
        let table = copy_table(mem, &mut self.table, head, self.size, addr, len)?;
        let reads_all = self.features.contains(RingFeatures::DEVICE_READS_ALL);
        for (&[addr, meta], entry) in table.iter().zip(0u16..) {
            let flags = packed::flags(meta);
            if flags & INDIRECT != 0 {
                return Err(RingError::IndirectNested { head, entry }.into());
            }
            let writable = flags & WRITE != 0 && !reads_all;
            batch.append(open, segment(addr, meta), writable, entry)?;
        }
        Ok(())
    }

    #[cold]
    fn stopped(&mut self, stop: Stop, batch: &Batch) -> Result<usize, RingError> {
        self.rewindable = batch.len();
        match stop {
            Stop::Full if batch.is_empty() => Err(RingError::BatchTooSmall {
                place: self.avail.index,
                capacity: batch.segment_capacity(),
            }),
            Stop::Full => Ok(batch.len()),
            Stop::Parked(at) => {
                self.parked = Some(at);
                Ok(batch.len())
            }
            Stop::Bad(error) => self.latch.raise(error, batch.len()),
        }
    }

    /// Gives the last `n` chains of `batch`, the last one taken from this ring, back untouched:
    /// the next take returns them again. Before what precedes them is committed, or after.
    ///
    /// # Errors
    /// [`RingError::NotRewindable`] if fewer are left of the last take. Which chains a commit
    /// gave back is not looked at: each counts as one of the last take.
    pub fn rewind(&mut self, batch: &mut Batch, n: usize) -> Result<(), RingError> {
        if n == 0 {
            return Ok(());
        }
        let rewindable = batch.len().min(self.rewindable);
        // Those that were taken again stay taken.
        let again = self.again.as_ref();
        let again = again.map_or(0, |again| again.among(batch.len(), n));
        let slots = (n <= rewindable)
            .then(|| batch.slots_of_last(n.wrapping_sub(again)))
            .flatten()
            .and_then(|slots| u16::try_from(slots).ok())
            .filter(|&slots| slots <= self.in_flight);
        let Some(slots) = slots else {
            return Err(RingError::NotRewindable {
                asked: n,
                rewindable,
            });
        };
        if let Some(list) = &mut self.again {
            list.retreat(again);
        }
        batch.drop_last(n);
        self.rewindable = rewindable.wrapping_sub(n);
        self.avail = self.avail.retreat(slots, self.size);
        self.in_flight = self.in_flight.wrapping_sub(slots);
        // A malformed or parked chain behind them is found again behind them.
        self.latch.forget();
        self.parked = None;
        Ok(())
    }

    /// Gives chains back, in any order: one publication, one decision. True: call the driver.
    ///
    /// # Errors
    /// [`RingError::NotTaken`] if more slots are given back than are in flight; nothing is
    /// written.
    #[inline]
    pub fn commit<D: DeviceMem>(&mut self, mem: &D, used: &[Used]) -> Result<bool, RingError> {
        let areas = mem.areas();
        let Some((first, rest)) = used.split_first() else {
            return Ok(false);
        };
        let slots = self.covered(used)?;
        let size = self.size;
        let mut at = self.used.past(first.token.slots(), size);
        for entry in rest {
            write_entry(&areas.descriptor, at, entry);
            at = at.past(entry.token.slots(), size);
        }
        self.rewindable = self.rewindable.saturating_sub(used.len());
        Ok(self.publish(areas, first, at, slots))
    }

    /// Gives chains back in the order taken, with one used descriptor for all of them
    /// (`virtio 1.4 §2.8.8`). True: call the driver.
    ///
    /// All but the last must have been used completely: their length is not transmitted, the
    /// driver takes it to be the whole writable length.
    ///
    /// # Errors
    /// [`RingError::NotInOrder`] without IN_ORDER, [`RingError::NotTaken`] as for
    /// [`commit`](Self::commit).
    #[inline]
    pub fn commit_in_order<D: DeviceMem>(
        &mut self,
        mem: &D,
        used: &[Used],
    ) -> Result<bool, RingError> {
        if !self.features.contains(RingFeatures::IN_ORDER) {
            return Err(RingError::NotInOrder);
        }
        let Some(last) = used.last() else {
            return Ok(false);
        };
        let slots = self.covered(used)?;
        let new = self.used.advance(slots, self.size);
        self.rewindable = self.rewindable.saturating_sub(used.len());
        // The descriptor stands where the batch begins and names where it ends.
        Ok(self.publish(mem.areas(), last, new, slots))
    }

    /// Slots of all, if they are in flight.
    #[inline(always)]
    fn covered(&self, used: &[Used]) -> Result<u16, RingError> {
        let in_flight = self.in_flight;
        // A u64 holds the sum of any slice of u16.
        let asked = used
            .iter()
            .fold(0u64, |sum, u| sum.wrapping_add(u64::from(u.token.slots())));
        match u16::try_from(asked) {
            Ok(slots) if slots <= in_flight => Ok(slots),
            _ => Err(RingError::NotTaken {
                asked: asked as usize,
                in_flight,
            }),
        }
    }

    /// Writes the batch's first used descriptor and asks whether the driver wants to know.
    #[inline]
    fn publish<M: RingMem>(
        &mut self,
        areas: &Areas<M>,
        first: &Used,
        new: Pos,
        slots: u16,
    ) -> bool {
        // Pairs with the driver's acquire after its load of the first meta word: payload and the
        // used descriptors behind it are visible before it (virtio 1.4 §2.8.9).
        areas.descriptor.release();
        write_entry(&areas.descriptor, self.used, first);
        self.used = new;
        self.in_flight = self.in_flight.wrapping_sub(slots);
        // Pairs with the driver's full fence between its store of the event words and its second
        // look at the ring: one of the two sees the other.
        areas.descriptor.full();
        let event_idx = self.features.contains(RingFeatures::EVENT_IDX);
        let asked = areas.driver.load_u16(EVENT_MODE);
        let position = || Pos::from_bits(areas.driver.load_u16(EVENT_POS));
        packed_wants(asked, position, event_idx, new, slots, self.size)
    }

    /// Asks for kicks and looks again. True: there is work already, or something to be told by
    /// the next take. False while the next chain is [parked](Self::parked), whatever is behind
    /// it: the owner takes again once it has mapped the table.
    ///
    /// # Errors
    /// As for [`take`](Self::take).
    pub fn arm<D: DeviceMem>(&mut self, mem: &D) -> Result<bool, RingError> {
        if self.latch.is_pending() {
            return Ok(true);
        }
        self.latch.check()?;
        let areas = mem.areas();
        let mut asked = mode::ENABLE;
        if self.features.contains(RingFeatures::EVENT_IDX) {
            areas.device.store_u16(EVENT_POS, self.avail.bits());
            // In any order with the mode: the fence below stands behind both, and a peer whose
            // fence comes first has left us something to find.
            asked = mode::POSITION;
        }
        if self.armed != Some(true) {
            areas.device.store_u16(EVENT_MODE, asked);
        }
        self.armed = Some(true);
        // Pairs with the driver's full fence between its store of the first meta word and its
        // load of the event words: either it sees that we want a kick, or we see its descriptor.
        areas.device.full();
        if self.parked.is_none() && self.to_repeat() != 0 {
            return Ok(true);
        }
        if self.in_flight == self.size || self.parked.is_some() {
            return Ok(false);
        }
        let meta = areas
            .descriptor
            .load_meta(layout::descriptor(self.avail.index));
        Ok(packed::is_avail(packed::flags(meta), self.avail.wrap))
    }

    /// Asks for silence: kicks may still come.
    pub fn disarm<D: DeviceMem>(&mut self, mem: &D) {
        if self.armed == Some(false) {
            return;
        }
        self.armed = Some(false);
        mem.areas().device.store_u16(EVENT_MODE, mode::DISABLE);
    }
}

/// Where a run of chains of one descriptor ends.
enum End {
    /// Nothing more is available.
    Empty,
    /// At what was asked for, or at the end of the batch's segments.
    Full,
    /// At the head of a list or table, with this meta word.
    Long(u64),
    /// At something malformed.
    Bad(RingError),
}

/// Positions of a state, and the slots in flight between them.
fn restored(state: QueueState, size: u16) -> Option<(Pos, Pos, u16)> {
    let QueueState::Packed { avail, used } = state else {
        return None;
    };
    if avail.index >= size || used.index >= size {
        return None;
    }
    Some((avail, used, avail.since(used, size)?))
}

#[inline(always)]
fn write_entry<M: RingMem>(ring: &M, at: Pos, entry: &Used) {
    // virtio 1.4 §2.8.4: WRITE in a used descriptor says that the length counts.
    let written = if entry.len == 0 { 0 } else { WRITE };
    let flags = packed::used(at.wrap) | written;
    ring.store_meta(
        layout::descriptor(at.index),
        packed::meta(entry.len, entry.token.id(), flags),
    );
}

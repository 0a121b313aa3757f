//! Device half of the split ring.

mod again;

use alloc::{boxed::Box, vec};

use vdpa_mem::Iova;

use crate::{
    chain::{Batch, Open, Stop, Used},
    descriptor::{INDIRECT, NEXT, WRITE, segment, split},
    error::{Latch, RingError, SetupError},
    event::{SILENT, need_event},
    inflight::Again,
    layout::{self, FLAGS, Format, IDX, legal_size},
    mem::{Areas, DeviceMem, RingMem},
    state::{QueueState, RingFeatures},
    table::copy_table,
};

/// Device half of a split queue: takes chains from the available ring, gives them back through
/// the used ring.
///
/// Both indices live here; shared memory is never asked for them again, but for `used.idx` once
/// where the restored state lacks it.
#[derive(Debug)]
pub struct SplitDevice {
    size: u16,
    mask: u16,
    features: RingFeatures,
    /// Next entry of the available ring to take.
    avail: u16,
    /// Next entry of the used ring to write.
    used: u16,
    /// False until `used` has been read from memory.
    used_known: bool,
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
}

impl SplitDevice {
    /// A ring of `size` slots that goes on from `state`, or starts at 0.
    ///
    /// # Errors
    /// [`SetupError::Size`], [`SetupError::State`].
    pub fn new(
        size: u16,
        features: RingFeatures,
        state: Option<QueueState>,
    ) -> Result<Self, SetupError> {
        let format = Format::Split;
        if !legal_size(format, size) {
            return Err(SetupError::Size { format, size });
        }
        let (avail, used) = match state {
            None => (0, Some(0)),
            Some(QueueState::Split { avail, used })
                if avail.wrapping_sub(used.unwrap_or(avail)) <= size =>
            {
                (avail, used)
            }
            Some(state) => {
                return Err(SetupError::State {
                    format,
                    size,
                    state,
                });
            }
        };
        let entries = match features.contains(RingFeatures::INDIRECT_DESC) {
            true => usize::from(size),
            false => 0,
        };
        Ok(Self {
            size,
            mask: size.wrapping_sub(1),
            features,
            avail,
            used: used.unwrap_or(avail),
            used_known: used.is_some(),
            armed: None,
            latch: Latch::Clear,
            parked: None,
            rewindable: 0,
            table: vec![[0; 2]; entries].into_boxed_slice(),
            again: None,
        })
    }

    /// Queue size.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Where the ring stands; the used index is absent only if nothing ran since a restore
    /// without it.
    pub fn state(&self) -> QueueState {
        QueueState::Split {
            avail: self.avail,
            used: self.used_known.then_some(self.used),
        }
    }

    /// Chains taken and not committed.
    #[inline]
    pub fn in_flight(&self) -> u16 {
        self.avail.wrapping_sub(self.used)
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
        self.start(mem.areas())?;
        self.parked = None;
        if self.again.is_some() {
            return self.take_again(mem, batch, limit);
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
        let idx = areas.driver.load_u16(IDX);
        let pending = idx.wrapping_sub(self.avail);
        if pending == 0 {
            return Ok(batch.len());
        }
        // An index that went back shows as a jump of nearly 65536.
        let in_flight = self.in_flight();
        if u32::from(pending).wrapping_add(u32::from(in_flight)) > u32::from(self.size) {
            let (from, size) = (self.avail, self.size);
            let to = idx;
            let error = RingError::AvailJump {
                from,
                to,
                in_flight,
                size,
            };
            return self.latch.raise(error, batch.len());
        }
        // Pairs with the driver's release before its store of avail.idx: entries and descriptors
        // up to idx are visible.
        areas.driver.acquire();

        let most = batch.len().saturating_add(usize::from(pending));
        let goal = most.min(limit).min(batch.capacity());
        let mut looked_ahead = false;
        while batch.len() < goal {
            let stopped = match self.take_singles(areas, batch, goal) {
                Some(Ok((head, words))) => {
                    // Where one chain is long others likely are: another core wrote each last, and each would be waited
                    // for when it is reached.
                    if !looked_ahead {
                        looked_ahead = true;
                        let behind = self.avail.wrapping_add(1);
                        let count = goal.wrapping_sub(batch.len()).wrapping_sub(1) as u16;
                        areas
                            .driver
                            .look_ahead(&areas.descriptor, behind, count, self.mask);
                    }
                    self.walk(mem, areas, batch, head, words)
                }
                Some(Err(bad)) => Err(bad.into()),
                None if batch.len() < goal => Err(Stop::Full),
                None => Ok(()),
            };
            if let Err(stop) = stopped {
                return self.stopped(stop, batch);
            }
        }
        self.rewindable = batch.len();
        Ok(batch.len())
    }

    /// Takes chains of one descriptor as long as they come. `Some`: a longer chain's head and
    /// words, or why to stop.
    ///
    /// Kept apart: inlined into what its callers do with the batch, it runs out of registers.
    #[inline(never)]
    fn take_singles<M: RingMem>(
        &mut self,
        areas: &Areas<M>,
        batch: &mut Batch,
        goal: usize,
    ) -> Option<Result<(u16, [u64; 2]), RingError>> {
        let (size, mask) = (self.size, self.mask);
        let mut at = self.avail;
        let mut end = None;
        for place in batch.places(goal) {
            let head = areas.driver.load_u16(layout::avail_entry(at & mask));
            if head >= size {
                let index = at;
                end = Some(Err(RingError::HeadOutOfRange { index, head, size }));
                break;
            }
            let [addr, meta] = areas.descriptor.load_descriptor(layout::descriptor(head));
            let flags = split::flags(meta);
            if flags & (NEXT | INDIRECT) != 0 {
                end = Some(Ok((head, [addr, meta])));
                break;
            }
            place.fill(head, segment(addr, meta), flags & WRITE != 0);
            at = at.wrapping_add(1);
        }
        batch.grow(usize::from(at.wrapping_sub(self.avail)));
        self.avail = at;
        end
    }

    /// A chain of more than one descriptor: each is loaded as it is reached, and as many are looked at as the ring has,
    /// no more.
    fn walk<D: DeviceMem>(
        &mut self,
        mem: &D,
        areas: &Areas<D::Ring>,
        batch: &mut Batch,
        head: u16,
        [mut addr, mut meta]: [u64; 2],
    ) -> Result<(), Stop> {
        let size = self.size;
        let mut open = batch.open(head);
        let mut index = head;
        let mut left = size;
        loop {
            let flags = split::flags(meta);
            if flags & INDIRECT != 0 {
                // virtio 1.4 §2.7.5.3.2: chained descriptors may end in one table; WRITE on the
                // descriptor that points to it means nothing.
                if !self.features.contains(RingFeatures::INDIRECT_DESC) {
                    return Err(RingError::IndirectNotNegotiated { head, index }.into());
                }
                if flags & NEXT != 0 {
                    return Err(RingError::IndirectWithNext { head, index }.into());
                }
                self.walk_table(mem, batch, &mut open, head, addr, meta as u32)?;
                return self.close(batch, open, head);
            }
            batch.append(&mut open, segment(addr, meta), flags & WRITE != 0, index)?;
            if flags & NEXT == 0 {
                return self.close(batch, open, head);
            }
            let next = split::next(meta);
            if next >= size {
                return Err(RingError::NextOutOfRange {
                    head,
                    index,
                    next,
                    size,
                }
                .into());
            }
            left = left.wrapping_sub(1);
            if left == 0 {
                return Err(RingError::ChainTooLong { head, limit: size }.into());
            }
            index = next;
            [addr, meta] = areas.descriptor.load_descriptor(layout::descriptor(index));
        }
    }

    fn close(&mut self, batch: &mut Batch, open: Open, head: u16) -> Result<(), Stop> {
        batch.close(open, head, 1)?;
        self.avail = self.avail.wrapping_add(1);
        Ok(())
    }

    /// Copies a table once and walks the copy.
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
        let entries = table.len() as u16;
        let mut index = 0u16;
        for _ in 0..entries {
            let Some(&[addr, meta]) = table.get(usize::from(index)) else {
                break;
            };
            let flags = split::flags(meta);
            if flags & INDIRECT != 0 {
                return Err(RingError::IndirectNested { head, entry: index }.into());
            }
            batch.append(open, segment(addr, meta), flags & WRITE != 0, index)?;
            if flags & NEXT == 0 {
                return Ok(());
            }
            let next = split::next(meta);
            if next >= entries {
                return Err(RingError::NextOutOfRange {
                    head,
                    index,
                    next,
                    size: entries,
                }
                .into());
            }
            index = next;
        }
        Err(RingError::ChainTooLong {
            head,
            limit: entries,
        }
        .into())
    }

    #[cold]
    fn stopped(&mut self, stop: Stop, batch: &Batch) -> Result<usize, RingError> {
        self.rewindable = batch.len();
        match stop {
            Stop::Full if batch.is_empty() => Err(RingError::BatchTooSmall {
                place: self.avail & self.mask,
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
        let rewindable = batch.len().min(self.rewindable);
        if n > rewindable {
            return Err(RingError::NotRewindable {
                asked: n,
                rewindable,
            });
        }
        if n == 0 {
            return Ok(());
        }
        let again = self.again.as_mut().map_or(0, |again| {
            let again_of = again.among(batch.len(), n);
            again.retreat(again_of);
            again_of
        });
        batch.drop_last(n);
        self.rewindable = rewindable.wrapping_sub(n);
        self.avail = self.avail.wrapping_sub(n.wrapping_sub(again) as u16);
        // A malformed or parked chain behind them is found again behind them.
        self.latch.forget();
        self.parked = None;
        Ok(())
    }

    /// Gives chains back, in any order: one publication, one decision. True: call the driver.
    ///
    /// # Errors
    /// [`RingError::NotTaken`] if more are given back than are in flight; nothing is written.
    /// [`RingError::UsedAtStart`] once, then [`RingError::Latched`], if the restored state lacks
    /// the used index and the one in memory does not fit.
    #[inline]
    pub fn commit<D: DeviceMem>(&mut self, mem: &D, used: &[Used]) -> Result<bool, RingError> {
        let areas = mem.areas();
        self.start(areas)?;
        if used.is_empty() {
            return Ok(false);
        }
        self.covered(used.len())?;
        let mut at = self.used;
        for entry in used {
            self.write_entry(areas, at, entry);
            at = at.wrapping_add(1);
        }
        Ok(self.publish(areas, at))
    }

    /// Gives chains back in the order taken, with one used entry for all of them
    /// (`virtio 1.4 §2.7.9`). True: call the driver.
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
        let areas = mem.areas();
        self.start(areas)?;
        let Some(last) = used.last() else {
            return Ok(false);
        };
        self.covered(used.len())?;
        // The entry stands where the batch begins and names where it ends.
        self.write_entry(areas, self.used, last);
        Ok(self.publish(areas, self.used.wrapping_add(used.len() as u16)))
    }

    #[inline(always)]
    fn covered(&self, asked: usize) -> Result<(), RingError> {
        let in_flight = self.in_flight();
        match asked <= usize::from(in_flight) {
            true => Ok(()),
            false => Err(RingError::NotTaken { asked, in_flight }),
        }
    }

    #[inline(always)]
    fn write_entry<M: RingMem>(&self, areas: &Areas<M>, at: u16, entry: &Used) {
        let offset = layout::used_entry(at & self.mask);
        let words = [u32::from(entry.token.id()), entry.len];
        areas.device.store_used(offset, words);
    }

    /// Shows the used ring up to `new` and asks whether the driver wants to know.
    #[inline]
    fn publish<M: RingMem>(&mut self, areas: &Areas<M>, new: u16) -> bool {
        // Pairs with the driver's acquire after its load of used.idx: payload and entries are
        // visible before the index.
        areas.device.release();
        areas.device.store_u16(IDX, new);
        let old = core::mem::replace(&mut self.used, new);
        let given = usize::from(new.wrapping_sub(old));
        self.rewindable = self.rewindable.saturating_sub(given);
        // Pairs with the driver's full fence between its store of used_event (or flags) and its
        // second look at used.idx: one of the two sees the other.
        areas.device.full();
        if self.features.contains(RingFeatures::EVENT_IDX) {
            let event = areas.driver.load_u16(layout::used_event(self.size));
            return need_event(event, new, old);
        }
        areas.driver.load_u16(FLAGS) & SILENT == 0
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
        self.start(areas)?;
        if self.features.contains(RingFeatures::EVENT_IDX) {
            areas
                .device
                .store_u16(layout::avail_event(self.size), self.avail);
        }
        // virtio 1.4 §2.7.10.2: 0 with EVENT_IDX, always.
        if self.armed != Some(true) {
            areas.device.store_u16(FLAGS, 0);
        }
        self.armed = Some(true);
        // Pairs with the driver's full fence between its store of avail.idx and its load of
        // avail_event (or flags): either it sees that we want a kick, or we see its index.
        areas.device.full();
        let more = self.to_repeat() != 0 || areas.driver.load_u16(IDX) != self.avail;
        Ok(self.parked.is_none() && more)
    }

    /// Asks for silence: kicks may still come.
    pub fn disarm<D: DeviceMem>(&mut self, mem: &D) {
        if self.armed == Some(false) {
            return;
        }
        self.armed = Some(false);
        let device = &mem.areas().device;
        if self.features.contains(RingFeatures::EVENT_IDX) {
            // The index just passed: 65535 chains away.
            device.store_u16(layout::avail_event(self.size), self.avail.wrapping_sub(1));
        } else {
            device.store_u16(FLAGS, SILENT);
        }
    }

    /// Reads `used.idx` once where the restored state lacks it.
    #[inline(always)]
    fn start<M: RingMem>(&mut self, areas: &Areas<M>) -> Result<(), RingError> {
        match self.used_known {
            true => Ok(()),
            false => self.read_used(areas),
        }
    }

    #[cold]
    fn read_used<M: RingMem>(&mut self, areas: &Areas<M>) -> Result<(), RingError> {
        self.latch.check()?;
        let (avail, size) = (self.avail, self.size);
        let used = areas.device.load_u16(IDX);
        if avail.wrapping_sub(used) > size {
            let error = RingError::UsedAtStart { avail, used, size };
            return self.latch.raise(error, 0).map(drop);
        }
        self.used = used;
        self.used_known = true;
        Ok(())
    }
}

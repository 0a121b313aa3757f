//! Taking used chains back from the split ring.

use super::{Chain, SplitDriver};
use crate::{
    chain::Completion,
    error::RingError,
    layout::{self, IDX},
    mem::{Areas, DriverMem, RingMem},
    run::Run,
    state::RingFeatures,
};

impl Chain {
    /// Whether it is in flight and can have been written `len` bytes.
    #[inline(always)]
    fn holds(&self, len: u32) -> bool {
        self.descriptors != 0 && len <= self.writable
    }
}

impl SplitDriver {
    /// Takes back as many used chains as fit `out`; returns how many.
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
        let areas = &mem.areas;
        let idx = areas.device.load_u16(IDX);
        let pending = idx.wrapping_sub(self.used);
        if pending == 0 {
            return Ok(0);
        }
        let in_flight = (self.published as u16).wrapping_sub(self.used);
        if pending > in_flight {
            let (from, to) = (self.used, idx);
            let error = RingError::UsedJump {
                from,
                to,
                in_flight,
            };
            return self.latch.raise(error, 0);
        }
        // Pairs with the device's release before its store of used.idx: entries and payload up to
        // idx are visible.
        areas.device.acquire();
        if self.features.contains(RingFeatures::IN_ORDER) {
            return self.take_in_order(areas, out, pending);
        }
        let (mask, mut at) = (self.mask, self.used);
        let (mut head, mut free) = (self.head, self.free);
        // Numbers of chains the device can't know yet: nearly always none, and then a chain's own
        // need not be loaded.
        let (shown, hidden) = (self.published, self.avail.wrapping_sub(self.published));
        let mut bad = None;
        // Borrowed once, and what is wrong is told behind the loop: in it, all is in registers.
        let (chains, links) = (&mut *self.chains, &mut *self.next);
        for place in out.iter_mut().take(usize::from(pending)) {
            let (id, len) = load_entry(areas, at & mask);
            let known = chains.get_mut(id as usize);
            let seen = |chain: &&mut Chain| {
                chain.holds(len) && (hidden == 0 || chain.number.wrapping_sub(shown) >= hidden)
            };
            let Some(chain) = known.filter(seen) else {
                bad = Some((id, len));
                break;
            };
            let id = id as u16;
            // Freed last, used first: its descriptors and table are still in the cache.
            if let Some(next) = links.get_mut(usize::from(chain.last)) {
                *next = head;
            }
            head = id;
            free = free.wrapping_add(chain.descriptors);
            chain.descriptors = 0;
            at = at.wrapping_add(1);
            *place = Completion { id, len };
        }
        let taken = usize::from(at.wrapping_sub(self.used));
        (self.head, self.free, self.used) = (head, free, at);
        match bad {
            None => Ok(taken),
            Some((id, len)) => self.latch.raise(self.reproach(at, id, len), taken),
        }
    }

    /// What is wrong with a used entry.
    #[cold]
    fn reproach(&self, index: u16, id: u32, len: u32) -> RingError {
        let size = self.size;
        if id >= u32::from(size) {
            return RingError::UsedIdOutOfRange { index, id, size };
        }
        let id = id as u16;
        let hidden = self.avail.wrapping_sub(self.published);
        match self.chain(id) {
            Chain { descriptors: 0, .. } => RingError::UsedNotInFlight { index, id },
            // Added, but not shown.
            Chain { number, .. } if number.wrapping_sub(self.published) < hidden => {
                RingError::UsedNotInFlight { index, id }
            }
            Chain { writable, .. } => RingError::UsedTooLong { id, len, writable },
        }
    }

    /// With IN_ORDER an entry stands for all chains up to the one it names; those before it have
    /// been used completely (`virtio 1.4 §2.7.9`).
    fn take_in_order<M: RingMem>(
        &mut self,
        areas: &Areas<M>,
        out: &mut [Completion],
        pending: u16,
    ) -> Result<usize, RingError> {
        let mut pending = pending;
        let mut taken = 0usize;
        while let Some(room) = out.get_mut(taken..).filter(|room| !room.is_empty()) {
            if pending == 0 {
                break;
            }
            let run = match self.run {
                Some(run) => run,
                None => match self.begin_run(areas, pending) {
                    Ok(run) => run,
                    Err(error) => return self.latch.raise(error, taken),
                },
            };
            let (mask, mut at, mut free) = (self.mask, self.oldest, self.free);
            let mut done = 0u16;
            for place in room.iter_mut().take(usize::from(run.left.min(pending))) {
                if let Some(chain) = self.chains.get_mut(usize::from(at)) {
                    let len = chain.writable;
                    *place = Completion { id: at, len };
                    let descriptors = core::mem::take(&mut chain.descriptors);
                    // In ring order the links never change: free descriptors follow those in
                    // flight.
                    free = free.wrapping_add(descriptors);
                    at = past(at, descriptors) & mask;
                }
                done = done.wrapping_add(1);
            }
            (self.oldest, self.free) = (at, free);
            self.used = self.used.wrapping_add(done);
            pending = pending.wrapping_sub(done);
            taken = taken.wrapping_add(usize::from(done));
            self.run = run.after(done, out.get_mut(..taken).unwrap_or_default());
        }
        Ok(taken)
    }

    fn chain(&self, head: u16) -> Chain {
        self.chains
            .get(usize::from(head))
            .copied()
            .unwrap_or_default()
    }

    /// Reads a used entry and counts the chains it stands for, at most `pending`.
    fn begin_run<M: RingMem>(&self, areas: &Areas<M>, pending: u16) -> Result<Run, RingError> {
        let index = self.used;
        let (id, len) = load_entry(areas, index & self.mask);
        let known = self.chains.get(id as usize);
        if !known.is_some_and(|chain| chain.holds(len)) {
            return Err(self.reproach(index, id, len));
        }
        let id = id as u16;
        let before = (self.chain(id).number as u16).wrapping_sub(index);
        if before >= pending {
            // In flight, but not among those that used.idx says were used.
            return Err(RingError::UsedNotInFlight { index, id });
        }
        let left = before.wrapping_add(1);
        Ok(Run { left, len })
    }
}

/// A used entry: each half loaded once.
#[inline(always)]
fn load_entry<M: RingMem>(areas: &Areas<M>, slot: u16) -> (u32, u32) {
    let [id, len] = areas.device.load_used(layout::used_entry(slot));
    (id, len)
}

/// The descriptor behind a chain in ring order, before the wrap.
#[inline(always)]
fn past(head: u16, descriptors: u16) -> u16 {
    match descriptors {
        1 => head.wrapping_add(1),
        // Kept apart: a predicted branch here lets the next record be loaded before this one has
        // arrived.
        _ => past_list(head, descriptors),
    }
}

#[cold]
fn past_list(head: u16, descriptors: u16) -> u16 {
    head.wrapping_add(descriptors)
}

//! Taking used chains back from the packed ring.

use super::{Chain, PackedDriver};
use crate::{
    chain::Completion,
    descriptor::{WRITE, packed},
    error::RingError,
    layout,
    mem::{DriverMem, RingMem},
    run::Run,
    state::{Pos, RingFeatures},
};

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

impl PackedDriver {
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
        // Borrowed once, and what is wrong is told behind the loop: in it, all is in registers.
        let known = &mut *self.chains;
        // Nothing is read of a ring the device has nothing of.
        for place in out.iter_mut().take(chains) {
            let Some(meta) = load_used(ring, at) else {
                break;
            };
            let id = packed::id(meta);
            let known = known.get_mut(usize::from(id));
            let seen = |chain: &&mut Chain| {
                chain.slots != 0 && (hidden == 0 || chain.link.wrapping_sub(shown) >= hidden)
            };
            let Some(chain) = known.filter(seen) else {
                bad = Some(meta);
                break;
            };
            let Some(len) = chain.length(meta) else {
                bad = Some(meta);
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
            Some(meta) => self
                .latch
                .raise(self.reproach(at, meta), usize::from(taken)),
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
}

/// The meta word at `at`, if it is used.
#[inline(always)]
pub(super) fn load_used<M: RingMem>(ring: &M, at: Pos) -> Option<u64> {
    let meta = ring.load_meta(layout::descriptor(at.index));
    if !packed::is_used(packed::flags(meta), at.wrap) {
        return None;
    }
    // Pairs with the device's release before its store of the first used meta word: payload is
    // visible.
    ring.acquire();
    Some(meta)
}

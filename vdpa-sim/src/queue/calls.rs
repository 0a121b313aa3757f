//! When the driver is called, and what a queue counts.

use std::time::{Duration, Instant};

use super::Queue;

/// How calls are held back: until this many chains were given back, or this much time has passed since the first of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hold {
    /// Chains, at least 1.
    pub chains: usize,
    /// The time.
    pub time: Duration,
}

/// How many sizes of batches are told apart: 1, 2 to 3, 4 to 7, and so on, 64 and more.
pub const BATCH_SIZES: usize = 7;

/// What a queue did since it was asked last.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Tally {
    /// How often buffers came while kicks were asked for.
    pub kicks: u64,
    /// How often the driver was called.
    pub calls: u64,
    /// How many batches were given back for which the driver wanted no call.
    pub suppressed: u64,
    /// How many chains a device before this one had in flight.
    pub again: u64,
    /// How many batches of each size were given back.
    pub batches: [u64; BATCH_SIZES],
}

impl Queue {
    /// Calls the driver if a commit found that it wants that. Answers whether it did. Outside sections.
    #[inline]
    pub fn call(&mut self) -> bool {
        self.returned = 0;
        self.due = None;
        let due = std::mem::take(&mut self.call_due);
        if due {
            self.tally.calls = self.tally.calls.wrapping_add(1);
            self.call.raise();
        }
        due
    }

    /// The same, held back: virtio 1.4 §5.1.9.5.10.1. To be asked again by [`due`](Self::due). With `None` nothing is
    /// held back.
    #[inline]
    pub fn call_by(&mut self, hold: Option<Hold>) -> bool {
        match hold {
            None => self.call(),
            Some(hold) => self.call_late(hold),
        }
    }

    fn call_late(&mut self, hold: Hold) -> bool {
        if self.returned == 0 {
            return false;
        }
        let now = Instant::now();
        // Also after a change of the time: it counts from the first chain, which was within the old one.
        let begun = self.due.is_some();
        let due = now.checked_add(hold.time);
        self.due = if begun { self.due.min(due) } else { due };
        let over = self.due.is_some_and(|due| now >= due);
        if over || self.returned >= hold.chains {
            self.call()
        } else {
            false
        }
    }

    /// When a call that is held back has to be made at the latest, if there is one.
    pub fn due(&self) -> Option<Instant> {
        self.due.filter(|_| self.call_due)
    }

    /// What it did since it was asked last.
    #[inline]
    pub fn tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }
}

impl Tally {
    #[inline]
    pub(super) fn batch(&mut self, len: usize) {
        let size = len.checked_ilog2().unwrap_or(0) as usize;
        if let Some(count) = self
            .batches
            .get_mut(size.min(BATCH_SIZES.saturating_sub(1)))
        {
            *count = count.wrapping_add(1);
        }
    }
}

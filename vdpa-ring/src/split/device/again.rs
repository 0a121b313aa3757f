//! Chains that the device takes again, before what is new.

use alloc::boxed::Box;

use super::SplitDevice;
use crate::{
    chain::Batch,
    error::RingError,
    inflight::Again,
    layout,
    mem::{DeviceMem, RingMem},
};

impl SplitDevice {
    /// Takes chains of old before what is new.
    #[cold]
    #[inline(never)]
    pub(super) fn take_again<D: DeviceMem>(
        &mut self,
        mem: &D,
        batch: &mut Batch,
        limit: usize,
    ) -> Result<usize, RingError> {
        let Some(mut again) = self.again.take() else {
            return Ok(0);
        };
        again.begin();
        let goal = limit.min(batch.capacity());
        let mut stopped = None;
        while let Some(saved) = again.peek().filter(|_| batch.len() < goal) {
            let head = saved.id;
            let words = mem
                .areas()
                .descriptor
                .load_descriptor(layout::descriptor(head));
            // Counted as taken already.
            let avail = self.avail;
            let walked = self.walk(mem, mem.areas(), batch, head, words);
            self.avail = avail;
            if let Err(stop) = walked {
                stopped = Some(stop);
                break;
            }
            again.advance();
        }
        // The batch may still be rewound.
        let gone = again.is_empty() && again.repeated() == 0;
        self.again = (!gone).then_some(again);
        self.rewindable = batch.len();
        match stopped {
            Some(stop) => self.stopped(stop, batch),
            None => self.take_new(mem, batch, limit),
        }
    }

    /// Takes these chains again, before what is new; the state counts them as taken.
    pub fn resubmit(&mut self, again: Again) {
        self.again = (!again.is_empty()).then(|| Box::new(again));
    }

    /// Chains to take again that were not taken yet.
    pub fn to_repeat(&self) -> usize {
        self.again.as_ref().map_or(0, |again| again.len())
    }

    /// How many chains of the last batch were taken again.
    pub(crate) fn repeated(&self) -> usize {
        self.again.as_ref().map_or(0, |again| again.repeated())
    }
}

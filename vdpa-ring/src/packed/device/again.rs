//! Chains that the device takes again, before what is new, and what a record has to know of those it takes.

use alloc::{boxed::Box, vec::Vec};

use super::PackedDevice;
use crate::{
    chain::{Batch, Stop},
    descriptor::{INDIRECT, NEXT, WRITE, packed, segment},
    error::RingError,
    inflight::Again,
    mem::DeviceMem,
    state::RingFeatures,
};

/// A descriptor that points to a table: a batch has the table's segments alone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Noted {
    /// Which chain of the batch.
    pub(crate) place: usize,
    /// Address and meta word.
    pub(crate) descriptor: [u64; 2],
}

impl PackedDevice {
    /// Takes chains of old before what is new, and notes what a record has to know.
    #[cold]
    #[inline(never)]
    pub(super) fn take_watched<D: DeviceMem>(
        &mut self,
        mem: &D,
        batch: &mut Batch,
        limit: usize,
    ) -> Result<usize, RingError> {
        if let Some(noted) = &mut self.noted {
            noted.clear();
        }
        let Some(mut again) = self.again.take() else {
            return self.take_new(mem, batch, limit);
        };
        again.begin();
        let goal = limit.min(batch.capacity());
        let mut stopped = None;
        while let Some(saved) = again.peek().filter(|_| batch.len() < goal) {
            let descriptors = again.descriptors(saved);
            if let Err(stop) = self.repeat(mem, batch, saved.id, descriptors) {
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

    /// A chain of old, from its descriptors as they were saved. They are counted as taken already.
    fn repeat<D: DeviceMem>(
        &mut self,
        mem: &D,
        batch: &mut Batch,
        id: u16,
        descriptors: &[[u64; 2]],
    ) -> Result<(), Stop> {
        let slots = descriptors.len().min(usize::from(self.size)) as u16;
        let head = self.avail.index;
        let mut open = batch.open(head);
        for (&[addr, meta], number) in descriptors.iter().zip(1u16..) {
            let flags = packed::flags(meta);
            if (flags & NEXT != 0) != (number < slots) {
                return Err(RingError::Unrepeatable { id, slots }.into());
            }
            if flags & INDIRECT == 0 {
                batch.append(&mut open, segment(addr, meta), flags & WRITE != 0, number)?;
                continue;
            }
            if !self.features.contains(RingFeatures::INDIRECT_DESC) || slots != 1 {
                return Err(RingError::Unrepeatable { id, slots }.into());
            }
            self.walk_table(mem, batch, &mut open, head, addr, meta as u32)?;
        }
        batch.close(open, id, slots)
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

    /// Notes the descriptors of tables from here on, for up to `chains` of a batch.
    pub fn note(&mut self, chains: usize) {
        self.noted = Some(Vec::with_capacity(chains));
    }

    /// Those of the last batch.
    pub(crate) fn noted(&self) -> &[Noted] {
        self.noted.as_deref().unwrap_or_default()
    }
}

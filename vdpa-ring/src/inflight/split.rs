//! The record of a split queue.

use alloc::{boxed::Box, vec, vec::Vec};

use super::{Again, RecordError, Recovered, VERSION, WORD, Words, by_counter, flags, next_counter};
use crate::{
    chain::{Batch, Used},
    error::RingError,
    layout::IDX,
    mem::{Areas, RingMem},
    state::QueueState,
};

pub(super) const HEAD: u32 = 16;
pub(super) const ENTRY: u32 = 16;

/// The entry of head descriptor `index`: its marks, and its counter 8 bytes on.
const fn entry(index: u16) -> u32 {
    HEAD.wrapping_add((index as u32).wrapping_mul(ENTRY))
}

/// The marks of an entry.
const fn marks(in_flight: bool, next: u16) -> u64 {
    Words::new([in_flight as u16, 0, 0, next]).0
}

#[derive(Debug)]
pub(super) struct SplitRecord {
    size: u16,
    /// When the next chain is taken.
    counter: u64,
    /// What was said to be given back last.
    last: u16,
    used: u16,
    in_flight: Box<[bool]>,
    /// Where an entry's list goes on.
    next: Box<[u16]>,
}

impl SplitRecord {
    fn new(size: u16, used: u16) -> Self {
        Self {
            size,
            counter: 0,
            last: 0,
            used,
            in_flight: flags(size),
            next: vec![0; usize::from(size)].into_boxed_slice(),
        }
    }

    fn store_head<R: RingMem>(&self, record: &R) {
        let head = Words::new([VERSION, self.size, self.last, self.used]);
        record.store_u64(WORD, head.0);
    }

    pub(super) fn begin<R: RingMem, M: RingMem>(
        size: u16,
        record: &R,
        areas: &Areas<M>,
        state: Option<QueueState>,
    ) -> Result<(Self, Recovered), RecordError> {
        let (avail, used) = match state {
            None => (0, 0),
            Some(QueueState::Split { avail, used }) => {
                (avail, used.unwrap_or_else(|| areas.device.load_u16(IDX)))
            }
            Some(QueueState::Packed { .. }) => return Err(RecordError::State { size }),
        };
        if avail != used {
            let in_flight = avail.wrapping_sub(used);
            return Err(RecordError::Unrecorded { in_flight });
        }
        let own = Self::new(size, used);
        for index in 0..size {
            record.store_u64(entry(index), 0);
            record.store_u64(entry(index) | 8, 0);
        }
        record.store_u64(0, 0);
        // The version last: until then it is a fresh one.
        record.release();
        own.store_head(record);
        let used = Some(used);
        let state = QueueState::Split { avail, used };
        let again = Again::default();
        Ok((own, Recovered { state, again }))
    }

    pub(super) fn recover<R: RingMem, M: RingMem>(
        size: u16,
        record: &R,
        head: Words,
        areas: &Areas<M>,
    ) -> Result<(Self, Recovered), RecordError> {
        let (last, recorded) = (head.get(2), head.get(3));
        let used = areas.device.load_u16(IDX);
        let given = used.wrapping_sub(recorded);
        if given > size {
            return Err(RecordError::UsedJump {
                recorded,
                used,
                size,
            });
        }
        let mut own = Self::new(size, used);
        own.last = last;
        let mut counters = Vec::new();
        let entries = own.in_flight.iter_mut().zip(own.next.iter_mut());
        for ((in_flight, next), index) in entries.zip(0u16..) {
            let words = Words::from(record.load_u64(entry(index)));
            *in_flight = words.get(0) & 0xff != 0;
            *next = words.get(3);
            counters.push(record.load_u64(entry(index) | 8));
        }
        // The batch that was shown last, and perhaps not unmarked.
        let shown = own.batch(given)?;
        for &index in &shown {
            if let Some(in_flight) = own.in_flight.get_mut(usize::from(index)) {
                *in_flight = false;
            }
        }
        let found = own.in_flight.iter().zip(counters).zip(0u16..);
        let found = found
            .filter(|((in_flight, _), _)| **in_flight)
            .map(|((_, counter), index)| (counter, index));
        let found = by_counter(found.collect())?;
        own.counter = next_counter(&found)?;

        for index in shown {
            own.store(record, index);
        }
        record.release();
        own.store_head(record);
        let state = QueueState::Split {
            // At most `size` of them.
            avail: used.wrapping_add(found.len() as u16),
            used: Some(used),
        };
        let again = Again::split(found.into_iter().map(|(_, head)| head));
        Ok((own, Recovered { state, again }))
    }

    /// The last `given` heads that were said to be given back.
    fn batch(&self, given: u16) -> Result<Vec<u16>, RecordError> {
        let (mut shown, mut seen) = (Vec::new(), flags(self.size));
        let (mut from, mut to) = (self.last, self.last);
        for _ in 0..given {
            match seen.get_mut(usize::from(to)) {
                Some(seen) if !*seen => *seen = true,
                _ => {
                    return Err(RecordError::List {
                        list: "the last batch",
                        from,
                        to,
                        size: self.size,
                    });
                }
            }
            shown.push(to);
            from = to;
            to = self.next.get(usize::from(to)).copied().unwrap_or(self.size);
        }
        Ok(shown)
    }

    fn store<R: RingMem>(&self, record: &R, index: u16) {
        let place = usize::from(index);
        if let (Some(in_flight), Some(next)) = (self.in_flight.get(place), self.next.get(place)) {
            record.store_u64(entry(index), marks(*in_flight, *next));
        }
    }

    /// Changes the mark of an entry; `false` if it was so already, or there is none.
    fn mark(&mut self, index: u16, to: bool) -> bool {
        match self.in_flight.get_mut(usize::from(index)) {
            Some(in_flight) if *in_flight != to => {
                *in_flight = to;
                true
            }
            _ => false,
        }
    }

    pub(super) fn taken<R: RingMem>(
        &mut self,
        record: &R,
        batch: &Batch,
        repeated: usize,
    ) -> Result<(), RingError> {
        for chain in batch.iter().skip(repeated) {
            let id = chain.token().id();
            if !self.mark(id, true) {
                return Err(RingError::InFlightTwice { id });
            }
            record.store_u64(entry(id) | 8, self.counter);
            self.counter = self.counter.wrapping_add(1);
            // After the marks of the chains before: what is marked is always the first part of what was taken.
            record.release();
            self.store(record, id);
        }
        Ok(())
    }

    pub(super) fn rewound<R: RingMem>(
        &mut self,
        record: &R,
        batch: &Batch,
        repeated: usize,
        n: usize,
    ) {
        let first = batch.len().saturating_sub(n).max(repeated);
        for place in (first..batch.len()).rev() {
            let Some(chain) = batch.chain(place) else {
                continue;
            };
            let id = chain.token().id();
            if self.mark(id, false) {
                // As in `taken`.
                record.release();
                self.store(record, id);
            }
        }
    }

    pub(super) fn committing<R: RingMem>(
        &mut self,
        record: &R,
        used: &[Used],
    ) -> Result<(), RingError> {
        for entry in used {
            let id = entry.token.id();
            let in_flight = self.in_flight.get(usize::from(id)) == Some(&true);
            let Some(next) = self.next.get_mut(usize::from(id)).filter(|_| in_flight) else {
                return Err(RingError::NotTaken {
                    asked: used.len(),
                    in_flight: 0,
                });
            };
            *next = self.last;
            self.last = id;
            self.store(record, id);
        }
        // The commit's release stands between this and the index that makes it count.
        self.store_head(record);
        Ok(())
    }

    pub(super) fn committed<R: RingMem>(&mut self, record: &R, used: &[Used]) {
        // The commit ended with a full fence: what is unmarked here was shown before.
        for entry in used {
            let id = entry.token.id();
            if self.mark(id, false) {
                self.store(record, id);
            }
        }
        // At most as many as the queue has.
        self.used = self.used.wrapping_add(used.len() as u16);
        record.release();
        self.store_head(record);
    }
}

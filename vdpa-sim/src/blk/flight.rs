//! The requests of a queue that are under way, and in which order they go back.
//!
//! All of it is made at the start: a request takes a slot and a job, and gives them back.

use std::collections::VecDeque;

use vdpa_mem::Hold;
use vdpa_ring::{ChainToken, Used};

use super::job::Parcel;

/// One request under way.
#[derive(Default)]
struct Slot {
    token: Option<ChainToken>,
    /// Where its status goes: held, so that unmapping waits until it is there.
    status: Option<Hold>,
    /// The first byte of the disk behind it.
    end: u64,
    /// What goes back, once it is done and waits for its turn.
    done: Option<Used>,
}

/// In which order requests go back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sequence {
    /// As they are done.
    Any,
    /// As they were taken: IN_ORDER, virtio 1.4 §2.7.9, §2.8.13.
    Taken,
}

/// The requests under way of one queue.
pub(super) struct Flight {
    slots: Box<[Slot]>,
    free: Vec<usize>,
    /// Slots in the order taken, where that is the order back.
    order: VecDeque<usize>,
    jobs: Vec<Parcel>,
}

impl Flight {
    /// Room for `depth` requests.
    pub(super) fn new(depth: usize) -> Self {
        Self {
            slots: (0..depth).map(|_| Slot::default()).collect(),
            free: (0..depth).rev().collect(),
            order: VecDeque::with_capacity(depth),
            jobs: (0..depth).map(|_| Box::default()).collect(),
        }
    }

    /// How many are under way.
    pub(super) fn len(&self) -> usize {
        self.slots.len().saturating_sub(self.free.len())
    }

    /// How many more there is room for.
    pub(super) fn room(&self) -> usize {
        self.free.len()
    }

    /// A request is taken. Answers with its slot.
    pub(super) fn begin(&mut self, token: ChainToken, sequence: Sequence) -> Option<usize> {
        let number = self.free.pop()?;
        let slot = self.slots.get_mut(number)?;
        slot.token = Some(token);
        slot.end = 0;
        slot.done = None;
        if sequence == Sequence::Taken {
            self.order.push_back(number);
        }
        Some(number)
    }

    /// A job to be filled.
    pub(super) fn job(&mut self) -> Parcel {
        self.jobs.pop().unwrap_or_default()
    }

    /// A job that is done with.
    pub(super) fn put(&mut self, job: Parcel) {
        self.jobs.push(job);
    }

    /// The request in `number` goes on elsewhere.
    pub(super) fn depart(&mut self, number: usize, status: Hold, end: u64) {
        if let Some(slot) = self.slots.get_mut(number) {
            slot.status = Some(status);
            slot.end = end;
        }
    }

    /// Where the status of the request goes, and the first byte behind it.
    pub(super) fn arrive(&mut self, number: usize) -> (Option<Hold>, u64) {
        self.slots
            .get_mut(number)
            .map_or((None, 0), |slot| (slot.status.take(), slot.end))
    }

    /// The request in `number` is done, with `len` bytes written. What may go back now goes to `used`.
    pub(super) fn finish(&mut self, number: usize, len: u32, used: &mut Vec<Used>) {
        let Some(slot) = self.slots.get_mut(number) else {
            return;
        };
        let Some(token) = slot.token else { return };
        let back = Used { token, len };
        if self.order.is_empty() {
            used.push(back);
            return self.release(number);
        }
        slot.done = Some(back);
        while let Some(&first) = self.order.front() {
            let Some(back) = self.slots.get_mut(first).and_then(|slot| slot.done.take()) else {
                break;
            };
            used.push(back);
            self.order.pop_front();
            self.release(first);
        }
    }

    /// The request in `number` is done, and there is no queue to give it back to.
    pub(super) fn forget(&mut self, number: usize) {
        self.order.retain(|waiting| *waiting != number);
        // Those that waited for their turn behind it have none any more.
        self.release(number);
        while let Some(&first) = self.order.front() {
            if self.slots.get(first).is_none_or(|slot| slot.done.is_none()) {
                break;
            }
            self.order.pop_front();
            self.release(first);
        }
    }

    fn release(&mut self, number: usize) {
        if let Some(slot) = self.slots.get_mut(number)
            && slot.token.take().is_some()
        {
            slot.status = None;
            slot.done = None;
            self.free.push(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(id: u16) -> ChainToken {
        ChainToken::new(id, 1)
    }

    #[test]
    fn requests_go_back_as_done_or_as_taken() {
        for (sequence, expected) in [(Sequence::Any, [2, 0, 1]), (Sequence::Taken, [0, 1, 2])] {
            let mut flight = Flight::new(3);
            let slots = [0, 1, 2].map(|id| flight.begin(token(id), sequence).unwrap());
            assert!(flight.begin(token(3), sequence).is_none());
            let mut used = Vec::new();
            for done in [2, 0, 1] {
                flight.finish(slots[done], done as u32, &mut used);
            }
            let back: Vec<_> = used.iter().map(|u| (u.token.id(), u.len)).collect();
            assert_eq!(back, expected.map(|id| (id, u32::from(id))));
            assert_eq!((flight.len(), flight.room()), (0, 3));
        }
    }

    #[test]
    fn what_is_forgotten_frees_all_that_waited_for_it() {
        let mut flight = Flight::new(3);
        let slots = [0, 1, 2].map(|id| flight.begin(token(id), Sequence::Taken).unwrap());
        let mut used = Vec::new();
        flight.finish(slots[1], 1, &mut used);
        flight.forget(slots[0]);
        assert_eq!(flight.len(), 1);
        flight.forget(slots[2]);
        assert_eq!(flight.len(), 0);
        assert!(used.is_empty());
    }
}

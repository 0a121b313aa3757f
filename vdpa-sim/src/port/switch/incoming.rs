//! What a pair receives through a switch.

use std::collections::VecDeque;
use std::sync::Arc;

use super::lane::{Count, reader};
use super::{DEPTH, End};
use crate::frames::FrameBatch;
use crate::stats::Counters;

/// The receiving half of a lane.
pub(super) struct Incoming {
    own: Arc<End>,
    pair: u16,
    /// A batch of which something is left, and whose inbox it came from; behind it what came before a suspend.
    open: VecDeque<(usize, Box<FrameBatch>)>,
    counters: Arc<Counters>,
}

/// What to go on with after a batch.
enum Go {
    /// The next one of the inbox.
    On,
    /// The next inbox.
    Next,
    Stop,
}

impl Incoming {
    pub(super) fn new(own: &Arc<End>, pair: u16) -> Self {
        Self {
            pair,
            open: VecDeque::with_capacity(1),
            counters: own.tally.row(pair),
            own: Arc::clone(own),
        }
    }

    /// Offers what has come to `take`, a batch of each inbox, until one is left.
    pub(super) fn receive(&mut self, take: &mut dyn FnMut(&mut FrameBatch)) {
        self.take_batches(|batch| {
            take(batch);
            if batch.is_empty() {
                Go::Next
            } else {
                // There are no more buffers.
                Go::Stop
            }
        });
    }

    /// Throws away what has come. Answers how many frames that were.
    pub(super) fn discard(&mut self) -> u64 {
        let mut frames = 0_u64;
        self.take_batches(|batch| {
            frames = frames.saturating_add(batch.len() as u64);
            batch.clear();
            Go::On
        });
        frames
    }

    /// Shows what has come. It is taken out of the inboxes, which others fill meanwhile, and goes first later.
    pub(super) fn held(&mut self, show: &mut dyn FnMut(&FrameBatch)) {
        let (pair, active) = (self.pair, self.own.presence.active());
        if pair < active {
            let inboxes = self.own.inboxes.iter().enumerate();
            for (number, inbox) in inboxes.skip(pair.into()).step_by(active.into()) {
                // However often the device is suspended, no more than waits for it otherwise.
                while self.open.len() <= DEPTH
                    && let Some(batch) = inbox.full.pop()
                {
                    self.open.push_back((number, batch));
                }
            }
        }
        let epoch = self.own.presence.epoch();
        for (_, batch) in self.open.iter().filter(|(_, batch)| batch.epoch == epoch) {
            show(batch);
        }
    }

    /// What has come, batch by batch: what was left first.
    fn take_batches(&mut self, mut with: impl FnMut(&mut FrameBatch) -> Go) {
        let (pair, active) = (self.pair, self.own.presence.active());
        let own = Arc::clone(&self.own);
        if pair >= active {
            self.hand_over(active);
            return;
        }
        let epoch = own.presence.epoch();
        let inboxes = own.inboxes.iter().enumerate();
        for (number, inbox) in inboxes.skip(pair.into()).step_by(active.into()) {
            // No more than what was there at first: for what a fast sender adds meanwhile it rings again.
            for _ in 0..=DEPTH {
                let next = self.open.pop_front();
                let next = next.or_else(|| inbox.full.pop().map(|batch| (number, batch)));
                let Some((from, mut batch)) = next else { break };
                let go = if batch.epoch == epoch {
                    with(&mut batch)
                } else {
                    batch.clear();
                    Go::On
                };
                if !batch.is_empty() {
                    self.open.push_front((from, batch));
                } else if let Some(inbox) = own.inboxes.get(from) {
                    inbox.give_back(batch);
                }
                match go {
                    Go::On => {}
                    Go::Next => break,
                    Go::Stop => return,
                }
            }
        }
    }

    /// This pair does not receive any more: what it began to receive is for the one that does.
    fn hand_over(&mut self, active: u16) {
        if self.open.is_empty() {
            return;
        }
        let number = reader(self.pair, active);
        while let Some((from, batch)) = self.open.pop_front() {
            if let Some(inbox) = self.own.inboxes.get(usize::from(number))
                && let Err(batch) = inbox.full.push(batch)
            {
                self.counters.add(Count::Full as usize, batch.len() as u64);
                if let Some(inbox) = self.own.inboxes.get(from) {
                    inbox.give_back(batch);
                }
            }
        }
        self.own.presence.ring(number);
    }
}

//! Sorts what has come to a pair by the pair that it is for.

use super::exchange::{Exchange, Parcel};
use super::hashing::{Hashing, Steering};
use crate::frames::{BATCH_FRAMES, FrameBatch};

/// What a pair has sorted and not given away yet. Empty between passes, but where a target has no room.
#[derive(Default)]
pub(super) struct Sorter {
    held: Vec<(u16, Parcel)>,
}

/// What frames are sorted by.
#[derive(Clone, Copy)]
pub(super) struct Rules<'a> {
    pub(super) hashing: &'a Hashing,
    /// Their version: see [`Settled`](super::settled::Settled).
    pub(super) version: u64,
    /// How many pairs receive where nothing is steered.
    pub(super) active: u16,
    /// The epoch that the frames belong to: see [`Presence`](crate::port::Presence).
    pub(super) epoch: u64,
    /// The pair that sorts.
    pub(super) own: u16,
}

impl Rules<'_> {
    /// The pair that a frame is for, of which `steering` may say something.
    #[inline]
    fn pair(&self, steering: Option<&Steering>, frame: &[u8]) -> u16 {
        match steering {
            Some(steering) => self.hashing.pair(steering, frame),
            // What was on its way when the steering ended.
            None => self.own.checked_rem(self.active).unwrap_or(0),
        }
    }

    /// Which pairs the frames of a batch are for.
    pub(super) fn plan(&self, frames: &FrameBatch) -> Plan {
        let steering = self.hashing.steering();
        let mut plan = Plan {
            pairs: [0; BATCH_FRAMES],
            one: None,
        };
        let all = frames.packets().zip(&mut plan.pairs);
        for (number, ((_, frame), place)) in all.enumerate() {
            *place = self.pair(steering, frame);
            plan.one = match plan.one {
                _ if number == 0 => Some(*place),
                one => one.filter(|pair| pair == place),
            };
        }
        plan
    }

    /// Takes the frames out that are for other pairs by now, for which nobody can wait here. Answers how many.
    pub(super) fn keep_own(&self, parcel: &mut Parcel, exchange: &Exchange) -> u64 {
        parcel.rules = self.version;
        let plan = self.plan(&parcel.batch);
        if plan.one == Some(self.own) {
            return 0;
        }
        let mut kept = exchange.spare();
        kept.epoch = parcel.batch.epoch;
        let mut gone = 0_u64;
        let mut cut = parcel.batch.cut();
        for pair in plan.pairs {
            let Some(packet) = parcel.batch.first() else {
                break;
            };
            let stays = pair == self.own && copy(packet, &mut kept);
            gone = gone.saturating_add(u64::from(!stays));
            parcel.batch.pop();
            if let Some((next, count)) = cut.take().filter(|_| stays) {
                kept.set_cut(next, count);
            }
        }
        exchange.recycle(std::mem::replace(&mut parcel.batch, kept));
        gone
    }
}

/// Which pairs the frames of a batch are for, from the first that is left on.
pub(super) struct Plan {
    pairs: [u16; BATCH_FRAMES],
    /// The one pair that all of them are for, if that is so.
    pub(super) one: Option<u16>,
}

impl Sorter {
    /// The device was reset.
    pub(super) fn reset(&mut self) {
        self.held.clear();
    }

    /// What was sorted and not given away yet, and for which pair.
    pub(super) fn held(&self) -> &[(u16, Parcel)] {
        &self.held
    }

    /// Whether everything was given away.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Moves the frames of a batch to the pairs that they are for by its plan, as far as there is room. Answers whether
    /// all went.
    pub(super) fn sort(
        &mut self,
        frames: &mut FrameBatch,
        plan: &Plan,
        rules: Rules<'_>,
        exchange: &Exchange,
    ) -> bool {
        if !self.flush(rules.own, exchange) {
            return false;
        }
        if let Some(to) = plan.one
            && self.pass_on(frames, to, rules, exchange)
        {
            return self.flush(rules.own, exchange);
        }
        // The first packet may be under way segment by segment: it is the first of its new batch too.
        let mut cut = frames.cut();
        for to in plan.pairs {
            let Some(packet) = frames.first() else {
                break;
            };
            let place = self.held.iter().rposition(|(pair, _)| *pair == to);
            let batch = place.and_then(|place| self.held.get_mut(place));
            let copied = batch.is_some_and(|(_, parcel)| copy(packet, &mut parcel.batch));
            if copied {
                frames.pop();
                continue;
            }
            // It is the first for this pair, or one batch was not enough: that goes on its way before the next begins.
            if place.is_some() && !self.flush(rules.own, exchange) {
                return false;
            }
            let mut batch = exchange.spare();
            batch.epoch = rules.epoch;
            if !copy(packet, &mut batch) {
                // It is longer than any frame of this device may be.
                exchange.recycle(batch);
                frames.pop();
                cut = None;
                continue;
            }
            frames.pop();
            if let Some((next, count)) = cut.take() {
                batch.set_cut(next, count);
            }
            let rules = rules.version;
            self.held.push((to, Parcel { batch, rules }));
        }
        self.flush(rules.own, exchange)
    }

    /// Passes a whole batch on without copying its frames, where another one like it can be left in its place.
    fn pass_on(
        &mut self,
        frames: &mut FrameBatch,
        to: u16,
        rules: Rules<'_>,
        exchange: &Exchange,
    ) -> bool {
        let mut batch = exchange.spare();
        if !batch.replaces(frames) {
            exchange.recycle(batch);
            return false;
        }
        std::mem::swap(&mut *batch, frames);
        batch.epoch = rules.epoch;
        let rules = rules.version;
        self.held.push((to, Parcel { batch, rules }));
        true
    }

    /// Gives away what was sorted. Answers whether nothing is left.
    pub(super) fn flush(&mut self, own: u16, exchange: &Exchange) -> bool {
        debug_assert!(self.held.len() <= BATCH_FRAMES, "a target for each frame");
        let mut at = 0_usize;
        while at < self.held.len() {
            let (to, parcel) = self.held.swap_remove(at);
            // Another one is at this place now; one that comes back takes it again.
            if let Err(parcel) = exchange.give(own, to, parcel) {
                let end = self.held.len();
                self.held.push((to, parcel));
                self.held.swap(at, end);
                at = at.saturating_add(1);
            }
        }
        self.held.is_empty()
    }
}

/// Copies a packet, with what its header says, to the end of a batch. Answers whether there was room.
#[inline]
fn copy(packet: &[u8], to: &mut FrameBatch) -> bool {
    let Some(room) = to.room(packet.len()) else {
        return false;
    };
    room.copy_from_slice(packet);
    to.push(packet.len());
    true
}

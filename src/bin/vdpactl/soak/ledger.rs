//! Which packets are under way, and what became of the others.
//!
//! Each pair numbers its own packets. A packet is sent, and then comes once; or it is excused, since something happened
//! that may lose it, and comes once or not at all. Everything else is a difference. Order is nothing that a device promises.

use std::collections::{HashSet, VecDeque};

/// What is known of the packets of all pairs.
#[derive(Default)]
pub(crate) struct Ledger {
    lanes: Vec<Lane>,
    counts: Counts,
    /// Damaged packets of which nobody knows which they were: as many of the missing ones are not lost.
    strange: u64,
}

/// What became of packets.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Counts {
    /// Given to the device.
    pub(crate) sent: u64,
    /// Came back whole.
    pub(crate) received: u64,
    /// Did not come, and nothing excuses that.
    pub(crate) lost: u64,
    /// Came once more, or were never sent.
    pub(crate) duplicated: u64,
    /// Came with other bytes.
    pub(crate) altered: u64,
    /// Did not come, and need not. One that comes after all does not count here any more.
    pub(crate) dropped: u64,
}

/// One pair's packets, from `first` on. Those before are done with, but for the excused ones that did not come yet.
#[derive(Default)]
struct Lane {
    first: u64,
    window: VecDeque<State>,
    excused: HashSet<u64>,
    /// Those that were excused and did not come by the last close. They may be on their way still: where a network keeps
    /// them while its device is reset and driven anew.
    late: HashSet<u64>,
    under_way: usize,
    /// The pair that a packet of this one came to last, of those from `turned` on: the others may come elsewhere still.
    to: Option<u16>,
    turned: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Sent,
    Excused,
    Came,
}

/// How a packet that came is judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Arrival {
    /// As it should be.
    Well,
    /// So too, and it was taken to be dropped.
    Late,
    /// It had come before.
    Again,
    /// Nobody sent it.
    NeverSent,
}

impl Ledger {
    /// What was counted.
    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// The number of the next packet of `pair`.
    pub(crate) fn next(&mut self, pair: u16) -> u64 {
        let lane = self.lane(pair);
        lane.first + lane.window.len() as u64
    }

    /// It was sent.
    pub(crate) fn sent(&mut self, pair: u16) {
        let lane = self.lane(pair);
        lane.window.push_back(State::Sent);
        lane.under_way += 1;
        self.counts.sent += 1;
    }

    /// How many packets of `pair` are to come.
    pub(crate) fn under_way(&self, pair: u16) -> usize {
        let lane = self.lanes.get(usize::from(pair));
        lane.map_or(0, |lane| lane.under_way)
    }

    /// How many packets are to come.
    pub(crate) fn all_under_way(&self) -> usize {
        self.lanes.iter().map(|lane| lane.under_way).sum()
    }

    /// A packet of `pair` came to the pair `to`, whole.
    pub(crate) fn came(&mut self, pair: u16, number: u64, to: u16) -> Arrival {
        let lane = self.lane(pair);
        if number >= lane.turned {
            lane.to = Some(to);
        }
        let arrival = lane.came(number);
        match arrival {
            Arrival::Well => self.counts.received += 1,
            Arrival::Late => {
                self.counts.received += 1;
                self.counts.dropped -= 1;
            }
            Arrival::Again | Arrival::NeverSent => self.counts.duplicated += 1,
        }
        arrival
    }

    /// A packet came damaged; which one it is, if that can be read.
    pub(crate) fn damaged(&mut self, which: Option<(u16, u64)>) {
        self.counts.altered += 1;
        let known = which.map(|(pair, number)| self.lane(pair).came(number));
        match known {
            Some(Arrival::Well) => {}
            Some(Arrival::Late) => self.counts.dropped -= 1,
            _ => self.strange += 1,
        }
    }

    /// What `pair` has under way need not come any more.
    pub(crate) fn excuse(&mut self, pair: u16) {
        self.lane(pair).excuse();
    }

    /// The same for every packet that comes to the pair `to`, or comes nobody knows where.
    pub(crate) fn excuse_to(&mut self, to: u16) {
        for lane in &mut self.lanes {
            match lane.to.is_none_or(|known| known == to) {
                true => lane.excuse(),
                false => lane.excuse_before(lane.turned),
            }
        }
    }

    /// The same for every pair.
    pub(crate) fn excuse_all(&mut self) {
        self.lanes.iter_mut().for_each(Lane::excuse);
    }

    /// From now on packets may come elsewhere than before, and those under way here or there.
    pub(crate) fn forget_ways(&mut self) {
        for lane in &mut self.lanes {
            lane.to = None;
            lane.turned = lane.first + lane.window.len() as u64;
        }
    }

    /// The first packet that is to come, with its pair.
    pub(crate) fn first_under_way(&self) -> Option<(u16, u64)> {
        self.lanes.iter().zip(0..).find_map(|(lane, pair)| {
            let at = lane.window.iter().position(|state| *state == State::Sent)?;
            Some((pair, lane.first + at as u64))
        })
    }

    /// Nothing more comes: what is still under way is lost, what was excused is dropped.
    pub(crate) fn close(&mut self) {
        let mut missing = 0;
        for lane in &mut self.lanes {
            missing += lane.under_way as u64;
            self.counts.dropped += lane.close();
        }
        let lost = missing.saturating_sub(self.strange);
        self.strange = 0;
        self.counts.lost += lost;
    }

    fn lane(&mut self, pair: u16) -> &mut Lane {
        let place = usize::from(pair);
        if self.lanes.len() <= place {
            self.lanes.resize_with(place + 1, Lane::default);
        }
        &mut self.lanes[place]
    }
}

impl Lane {
    fn came(&mut self, number: u64) -> Arrival {
        let Some(at) = number.checked_sub(self.first) else {
            return if self.excused.remove(&number) {
                Arrival::Well
            } else if self.late.remove(&number) {
                Arrival::Late
            } else {
                Arrival::Again
            };
        };
        let there = usize::try_from(at)
            .ok()
            .and_then(|at| self.window.get_mut(at));
        match there {
            None => Arrival::NeverSent,
            Some(State::Came) => Arrival::Again,
            Some(state) => {
                if std::mem::replace(state, State::Came) == State::Sent {
                    self.under_way -= 1;
                }
                self.advance();
                Arrival::Well
            }
        }
    }

    fn excuse(&mut self) {
        self.excuse_before(u64::MAX);
    }

    /// Excuses those with numbers below `end`.
    fn excuse_before(&mut self, end: u64) {
        for (state, _) in self.window.iter_mut().zip(self.first..end) {
            if *state == State::Sent {
                *state = State::Excused;
                self.under_way -= 1;
            }
        }
        self.advance();
    }

    fn advance(&mut self) {
        while let Some(state) = self.window.front().filter(|state| **state != State::Sent) {
            if *state == State::Excused {
                self.excused.insert(self.first);
            }
            self.window.pop_front();
            self.first += 1;
        }
    }

    /// How many excused ones did not come.
    fn close(&mut self) -> u64 {
        self.late = std::mem::take(&mut self.excused);
        for (state, number) in self.window.drain(..).zip(self.first..) {
            if state == State::Excused {
                self.late.insert(number);
            }
            self.first = number + 1;
        }
        self.under_way = 0;
        self.late.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(count: u64) -> Ledger {
        let mut ledger = Ledger::default();
        for number in 0..count {
            assert_eq!(ledger.next(0), number);
            ledger.sent(0);
        }
        ledger
    }

    fn counts(ledger: &mut Ledger) -> [u64; 5] {
        ledger.close();
        let c = ledger.counts();
        [c.received, c.lost, c.duplicated, c.altered, c.dropped]
    }

    #[test]
    fn packets_may_come_in_any_order() {
        let mut ledger = sent(4);
        for number in [2, 0, 3, 1] {
            assert_eq!(ledger.came(0, number, 0), Arrival::Well);
        }
        assert_eq!(counts(&mut ledger), [4, 0, 0, 0, 0]);
        assert_eq!(ledger.next(0), 4, "numbers go on");
    }

    #[test]
    fn what_is_missing_twice_there_or_never_sent_is_found() {
        let mut ledger = sent(3);
        assert_eq!(ledger.came(0, 1, 0), Arrival::Well);
        assert_eq!(ledger.came(0, 1, 0), Arrival::Again);
        assert_eq!(ledger.came(0, 3, 0), Arrival::NeverSent);
        assert_eq!(ledger.came(0, 0, 0), Arrival::Well);
        assert_eq!(ledger.came(0, 0, 0), Arrival::Again);
        assert_eq!(ledger.first_under_way(), Some((0, 2)));
        assert_eq!(counts(&mut ledger), [2, 1, 3, 0, 0]);
    }

    #[test]
    fn only_what_was_excused_may_be_missing() {
        let mut ledger = sent(3);
        ledger.came(0, 1, 0);
        ledger.excuse(0);
        assert_eq!(ledger.under_way(0), 0);
        ledger.sent(0);
        ledger.sent(0);
        assert_eq!(ledger.came(0, 2, 0), Arrival::Well, "late");
        assert_eq!(ledger.came(0, 2, 0), Arrival::Again);
        assert_eq!(ledger.came(0, 3, 0), Arrival::Well);
        assert_eq!(ledger.first_under_way(), Some((0, 4)));
        assert_eq!(counts(&mut ledger), [3, 1, 1, 0, 1]);
    }

    #[test]
    fn what_was_excused_may_come_in_the_next_phase_and_in_none_after_it() {
        let mut ledger = sent(3);
        ledger.excuse(0);
        assert_eq!(counts(&mut ledger), [0, 0, 0, 0, 3]);
        ledger.sent(0);
        assert_eq!(ledger.came(0, 1, 0), Arrival::Late);
        assert_eq!(ledger.came(0, 1, 0), Arrival::Again);
        ledger.damaged(Some((0, 2)));
        assert_eq!(ledger.came(0, 3, 0), Arrival::Well);
        assert_eq!(counts(&mut ledger), [2, 0, 1, 1, 1]);
        assert_eq!(ledger.came(0, 0, 0), Arrival::Again, "far too late");
    }

    #[test]
    fn a_queue_excuses_those_that_come_through_it_and_those_that_may() {
        let mut ledger = Ledger::default();
        for pair in 0..3 {
            ledger.sent(pair);
            ledger.sent(pair);
        }
        ledger.came(0, 0, 0);
        ledger.came(1, 0, 1);
        ledger.excuse_to(1);
        let under_way = [0, 1, 2].map(|pair| ledger.under_way(pair));
        assert_eq!(under_way, [1, 0, 0], "where 2 goes nobody knows");
        ledger.sent(0);
        ledger.forget_ways();
        ledger.sent(0);
        // One of before comes as it had to; it does not say where the others come.
        ledger.came(0, 1, 0);
        ledger.came(0, 3, 2);
        ledger.sent(0);
        ledger.excuse_to(7);
        assert_eq!(ledger.all_under_way(), 1, "only what was sent since");
        ledger.excuse_to(2);
        assert_eq!(ledger.all_under_way(), 0);
    }

    #[test]
    fn a_damaged_packet_is_not_lost_as_well() {
        let mut ledger = sent(3);
        ledger.damaged(Some((0, 0)));
        ledger.damaged(None);
        ledger.came(0, 2, 0);
        assert_eq!(counts(&mut ledger), [1, 0, 0, 2, 0]);
    }
}

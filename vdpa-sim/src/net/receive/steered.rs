//! Receiving while the driver steers frames by their hashes.

use super::pass::{Own, Pass};
use super::{Receiver, Seat};
use crate::class::{Desk, Station};
use crate::net::count::Rx;
use crate::net::exchange::{DEPTH, Exchange};
use crate::net::sorter::Rules;
use crate::port::Lane;

impl Receiver {
    /// What comes to this pair is for any, and what is for this pair comes to any.
    pub(super) fn serve_exchange(
        &mut self,
        station: &mut Station,
        lane: &mut dyn Lane,
        seat: Seat<'_>,
        exchange: &Exchange,
        desk: &mut Desk,
    ) -> bool {
        let Self {
            watch,
            hand,
            sorter,
            open,
            waiting,
        } = self;
        let rules = Rules {
            hashing: watch.hashing(),
            version: watch.version(),
            active: seat.shared.presence.active(),
            epoch: seat.shared.presence.epoch(),
            own: seat.pair,
        };
        let mut pass = Pass::new(watch, hand, seat);
        let mut to = Own {
            station,
            counters: seat.counters,
        };
        // Frames that others sorted first: what comes from the lane may belong to the same flows.
        let mut moved = false;
        // Unless what came with the state waits for others, who may wait for this pair.
        let ahead = seat.stowed && open.is_none() && sorter.flush(seat.pair, exchange);
        for _ in 0..=DEPTH {
            if ahead {
                break;
            }
            let Some(parcel) = open.take().or_else(|| exchange.take(seat.pair)) else {
                break;
            };
            let parcel = open.insert(parcel);
            if parcel.batch.epoch != rules.epoch {
                // Sent to this device before its last reset.
                parcel.batch.clear();
            } else if parcel.rules > rules.version {
                // By rules that are newer than those of this pass.
                moved = true;
                break;
            } else if parcel.rules < rules.version {
                let gone = rules.keep_own(parcel, exchange);
                seat.counters.add(Rx::Resteered as usize, gone);
            }
            to.give(&mut pass, &mut parcel.batch, &mut desk.reader);
            if !parcel.batch.is_empty() {
                break;
            }
            moved = true;
            if let Some(parcel) = open.take() {
                exchange.recycle(parcel.batch);
            }
        }
        // A target without room stops everything that comes after it, and rings when it has some.
        let mut again = false;
        if sorter.flush(seat.pair, exchange) {
            let behind = open.is_some();
            again = lane.receive(&mut |frames| {
                let before = frames.len();
                // What was sorted for this pair before goes first.
                let first = !behind && sorter.is_empty() && (ahead || exchange.is_empty(seat.pair));
                if rules.hashing.steering().is_some() {
                    let plan = rules.plan(frames);
                    if first && plan.one == Some(seat.pair) {
                        to.give(&mut pass, frames, &mut desk.reader);
                    } else {
                        sorter.sort(frames, &plan, rules, exchange);
                    }
                } else if first {
                    to.give(&mut pass, frames, &mut desk.reader);
                }
                moved |= frames.len() != before;
            });
        }
        let (waits, worked) = pass.end(to.station.running(), desk);
        *waiting = waits;
        worked || moved || again
    }
}

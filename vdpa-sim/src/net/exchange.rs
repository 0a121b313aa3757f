//! How frames go from the pair that they came to, to the pair that their hash says: receive-side scaling.
//!
//! ```text
//!   worker of pair p                                          worker of pair q
//!     lane ─▶ Sorter: a batch for each target ── full of q ──▶ taken, given to the driver
//!                          ▲                                        │
//!                          └─────────────── empty ◀─────────────────┘
//! ```
//! There is an exchange only once a driver has chosen steering. Each pair has a bounded queue of batches that anybody
//! fills and it alone empties: one atomic exchange for a batch, one bell for a batch, and nothing allocated once as many
//! batches are about as are under way. A queue that is full stops whoever fills it, at the frame that does not fit: so
//! nothing is lost, and frames of a flow stay in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use crossbeam_queue::ArrayQueue;

use crate::frames::FrameBatch;
use crate::port::Presence;

/// How many batches wait for a pair at most.
pub(super) const DEPTH: usize = 8;

/// How many bits a word has.
const WORD: u16 = 64;

/// Frames for one pair, and what they were sorted by.
pub(super) struct Parcel {
    pub(super) batch: Box<FrameBatch>,
    /// The version of the rules: see [`Settled`](super::settled::Settled).
    pub(super) rules: u64,
}

/// The queues of all pairs.
pub(super) struct Exchange {
    presence: Arc<Presence>,
    pairs: Box<[Inbox]>,
    empty: ArrayQueue<Box<FrameBatch>>,
    longest: usize,
}

/// What waits for a pair.
struct Inbox {
    full: ArrayQueue<Parcel>,
    /// A bit for each pair that waits for room here: there are at most 128.
    waiting: [AtomicU64; 2],
}

impl Exchange {
    /// For `pairs` pairs. `longest`: bytes of the longest frame.
    pub(super) fn new(presence: &Arc<Presence>, pairs: u16, longest: usize) -> Self {
        let inbox = |_| Inbox {
            full: ArrayQueue::new(DEPTH),
            waiting: [AtomicU64::new(0), AtomicU64::new(0)],
        };
        // All that can wait, and as many again that are being filled or emptied.
        let all = usize::from(pairs).saturating_mul(DEPTH.saturating_mul(2));
        Self {
            presence: Arc::clone(presence),
            pairs: (0..pairs).map(inbox).collect(),
            empty: ArrayQueue::new(all.max(1)),
            longest,
        }
    }

    /// Whether nothing waits for `pair`.
    #[inline]
    pub(super) fn is_empty(&self, pair: u16) -> bool {
        let inbox = self.pairs.get(usize::from(pair));
        inbox.is_none_or(|inbox| inbox.full.is_empty())
    }

    /// Gives a parcel to pair `to`, which is rung. Without room it comes back, and `from` is rung once there is some.
    ///
    /// # Errors
    /// The parcel.
    pub(super) fn give(&self, from: u16, to: u16, parcel: Parcel) -> Result<(), Parcel> {
        let Some(inbox) = self.pairs.get(usize::from(to)) else {
            // No such pair: targets are checked when they are set.
            return Err(parcel);
        };
        let parcel = match inbox.full.push(parcel) {
            Ok(()) => {
                self.presence.ring(to);
                return Ok(());
            }
            Err(parcel) => parcel,
        };
        if let Some(word) = inbox.waiting.get(usize::from(from / WORD)) {
            word.fetch_or(1 << (from % WORD), Ordering::Relaxed);
        }
        // Between "I wait" and the second try; pairs with the fence in `take`.
        fence(Ordering::SeqCst);
        inbox.full.push(parcel)?;
        self.presence.ring(to);
        Ok(())
    }

    /// The next parcel for pair `own`. Whoever waits for room is rung.
    pub(super) fn take(&self, own: u16) -> Option<Parcel> {
        let inbox = self.pairs.get(usize::from(own))?;
        let parcel = inbox.full.pop()?;
        // Between making room and looking who waits for it; pairs with the fence in `give`.
        fence(Ordering::SeqCst);
        for (word, first) in inbox.waiting.iter().zip([0, WORD]) {
            if word.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let waiting = word.swap(0, Ordering::Relaxed);
            for bit in (0..WORD).filter(|bit| waiting & (1 << bit) != 0) {
                self.presence.ring(first.saturating_add(bit));
            }
        }
        Some(parcel)
    }

    /// Shows `show` the batches that wait for each pair of a device in this epoch. No pair is served meanwhile.
    pub(super) fn waiting(&self, epoch: u64, show: &mut dyn FnMut(u16, &FrameBatch)) {
        for (inbox, pair) in self.pairs.iter().zip(0_u16..) {
            // Each goes to the end, and in the end all are where they were.
            for _ in 0..inbox.full.len() {
                let Some(parcel) = inbox.full.pop() else {
                    break;
                };
                if parcel.batch.epoch == epoch {
                    show(pair, &parcel.batch);
                }
                // It made the room.
                let _back = inbox.full.push(parcel);
            }
        }
    }

    /// An empty batch. Made on demand: in the steady state there are as many as are under way.
    pub(super) fn spare(&self) -> Box<FrameBatch> {
        self.empty
            .pop()
            .unwrap_or_else(|| FrameBatch::new(self.longest))
    }

    /// Gives a batch back, with whatever is in it.
    pub(super) fn recycle(&self, mut batch: Box<FrameBatch>) {
        batch.clear();
        // There is room for as many as there are in the steady state; the rest is freed.
        let _freed = self.empty.push(batch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parcel(exchange: &Exchange, number: u32) -> Parcel {
        let mut batch = exchange.spare();
        assert!(batch.is_empty() && batch.push_frame(&number.to_le_bytes()));
        Parcel {
            batch,
            rules: number.into(),
        }
    }

    #[test]
    fn parcels_come_in_order_and_a_full_inbox_gives_them_back() {
        let exchange = Exchange::new(&Presence::new(true), 130, 1514);
        for number in 0..DEPTH as u32 {
            assert!(exchange.give(0, 129, parcel(&exchange, number)).is_ok());
        }
        let back = exchange.give(127, 129, parcel(&exchange, 77));
        let Err(back) = back else {
            panic!("there is no room");
        };
        assert_eq!(back.rules, 77);
        assert!(exchange.is_empty(0) && !exchange.is_empty(129));
        let inbox = &exchange.pairs[129];
        assert_eq!(inbox.waiting[1].load(Ordering::Relaxed), 1 << 63);
        assert_eq!(exchange.take(129).unwrap().rules, 0);
        assert_eq!(inbox.waiting[1].load(Ordering::Relaxed), 0, "rung");
        assert!(exchange.give(127, 129, back).is_ok());
        for number in (1..DEPTH as u64).chain([77]) {
            let parcel = exchange.take(129).unwrap();
            assert_eq!(parcel.rules, number);
            exchange.recycle(parcel.batch);
        }
        assert!(exchange.take(129).is_none());
        assert!(exchange.give(0, 130, parcel(&exchange, 1)).is_err());
    }

    #[test]
    fn what_waits_is_shown_and_stays_in_its_order() {
        let exchange = Exchange::new(&Presence::new(true), 3, 1514);
        for number in 0..5 {
            let mut parcel = parcel(&exchange, number);
            parcel.batch.epoch = if number == 2 { 8 } else { 9 };
            assert!(exchange.give(0, 1, parcel).is_ok());
        }
        for _ in 0..2 {
            let mut seen = Vec::new();
            exchange.waiting(9, &mut |pair, batch| {
                seen.extend(batch.packets().map(|(_, frame)| (pair, frame[0])));
            });
            assert_eq!(seen, [(1, 0), (1, 1), (1, 3), (1, 4)]);
        }
        let order: Vec<_> = std::iter::from_fn(|| exchange.take(1)).collect();
        assert!(order.iter().map(|parcel| parcel.rules).eq(0..5));
    }

    #[test]
    fn two_pairs_that_fill_one_inbox_lose_nothing_and_allocate_no_more_than_is_under_way() {
        const EACH: u32 = if cfg!(miri) { 100 } else { 20_000 };
        let exchange = Exchange::new(&Presence::new(true), 3, 64);
        std::thread::scope(|s| {
            for from in 0..2 {
                let exchange = &exchange;
                s.spawn(move || {
                    for number in 0..EACH {
                        let mut parcel = parcel(exchange, from << 31 | number);
                        while let Err(back) = exchange.give(from as u16, 2, parcel) {
                            parcel = back;
                            std::thread::yield_now();
                        }
                    }
                });
            }
            let mut next = [0; 2];
            while next != [EACH; 2] {
                let Some(parcel) = exchange.take(2) else {
                    std::thread::yield_now();
                    continue;
                };
                let number = parcel.rules as u32;
                let from = (number >> 31) as usize;
                assert_eq!(number & (u32::MAX >> 1), next[from]);
                next[from] += 1;
                exchange.recycle(parcel.batch);
            }
        });
        assert!(
            exchange.empty.len() <= DEPTH + 3,
            "{}",
            exchange.empty.len()
        );
    }
}

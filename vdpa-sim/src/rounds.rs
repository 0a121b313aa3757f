//! When a change of settings has reached every worker.
//!
//! ```text
//!   control                              worker
//!     settings written                     round number loaded  (acquire)
//!     round number + 1     (release)       ... and stored as seen (release)
//!     wait until all have seen it          one pass over its queues, with the settings of that moment
//! ```
//! A worker that has seen a round has ended the pass that it made with older settings. A worker that sleeps has no pass
//! under way; it says so before it sleeps, and takes it back with a fence before it looks at the settings again.

use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::{Duration, Instant};

/// What a worker has seen while it sleeps: everything.
const ASLEEP: u64 = u64::MAX;

/// How long a change waits for workers. One that takes longer is stuck in a call closure of its user's.
const PATIENCE: Duration = Duration::from_millis(200);

#[repr(align(128))]
#[derive(Debug)]
struct Seen(AtomicU64);

/// The rounds of a device's workers.
#[derive(Debug)]
pub struct Rounds {
    current: AtomicU64,
    seen: Box<[Seen]>,
}

impl Rounds {
    /// For `workers` workers, all of them asleep.
    pub fn new(workers: usize) -> Self {
        Self {
            current: AtomicU64::new(0),
            seen: (0..workers).map(|_| Seen(AtomicU64::new(ASLEEP))).collect(),
        }
    }

    /// Worker `worker` begins a pass.
    #[inline]
    pub(crate) fn begin(&self, worker: usize) {
        if let Some(Seen(seen)) = self.seen.get(worker) {
            // Acquire pairs with the release in `settle`: what was written before it is seen in this pass.
            let current = self.current.load(Ordering::Acquire);
            // Release pairs with the acquire in `settle`: the pass before this one is over.
            seen.store(current, Ordering::Release);
        }
    }

    /// Worker `worker` is about to sleep, or to end.
    pub(crate) fn rest(&self, worker: usize) {
        if let Some(Seen(seen)) = self.seen.get(worker) {
            seen.store(ASLEEP, Ordering::Release);
        }
    }

    /// Worker `worker` woke up.
    pub(crate) fn wake(&self, worker: usize) {
        self.begin(worker);
        // Between "awake" and the first look at the settings; pairs with the fence in `settle`: either that finds the
        // worker awake, or the worker finds the settings.
        fence(Ordering::SeqCst);
    }

    /// Returns once no worker but `own` works with settings older than this call. Answers whether that came about.
    /// Worker `own` looks at settings anew for each unit, so that of several that wait none waits for another.
    pub(crate) fn settle(&self, own: usize) -> bool {
        self.settle_within(own, PATIENCE)
    }

    fn settle_within(&self, own: usize, patience: Duration) -> bool {
        let round = self.current.fetch_add(1, Ordering::AcqRel).wrapping_add(1);
        fence(Ordering::SeqCst);
        let begun = Instant::now();
        let others = || self.seen.iter().enumerate().filter(|(i, _)| *i != own);
        // Acquire pairs with the release in `begin` and `rest`.
        while others().any(|(_, Seen(seen))| seen.load(Ordering::Acquire) < round) {
            self.begin(own);
            if begun.elapsed() > patience {
                return false;
            }
            std::thread::yield_now();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    /// Far longer than a machine that does other things takes to run a thread.
    const SOON: Duration = Duration::from_secs(60);

    #[test]
    fn a_change_waits_for_the_pass_of_others_and_not_for_sleepers() {
        let rounds = Rounds::new(3);
        assert!(rounds.settle_within(0, SOON), "all asleep");
        rounds.wake(1);
        let (before, passed) = (
            rounds.current.load(Ordering::Relaxed),
            AtomicBool::new(false),
        );
        std::thread::scope(|s| {
            s.spawn(|| {
                // Not before the change is made, and long enough after it to show one that does not wait.
                while rounds.current.load(Ordering::Relaxed) == before {
                    std::thread::yield_now();
                }
                std::thread::sleep(Duration::from_millis(5));
                passed.store(true, Ordering::Relaxed);
                rounds.begin(1);
            });
            assert!(rounds.settle_within(0, SOON));
            assert!(passed.load(Ordering::Relaxed), "it did not wait");
        });
        // Two that wait for each other.
        let together = std::sync::Barrier::new(2);
        let change = |own| {
            together.wait();
            let settled = rounds.settle_within(own, SOON);
            rounds.rest(own);
            settled
        };
        rounds.wake(0);
        rounds.wake(1);
        std::thread::scope(|s| {
            let other = s.spawn(|| change(1));
            assert!(change(0));
            assert!(other.join().unwrap());
        });
        rounds.wake(1);
        assert!(!rounds.settle(0), "worker 1 makes no pass any more");
        rounds.rest(1);
        assert!(rounds.settle_within(0, SOON));
    }
}

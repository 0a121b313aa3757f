//! How a worker sleeps on many bells without losing a kick, and how a kick costs no system call while it is awake.
//!
//! ```text
//!   driver: Bell::ring                         worker: Sleeper::sleep_unless
//!     ring written (release, by the ring)        sleeping = 1
//!     pending = 1            (release)           ── full fence ──
//!     ── full fence ──                           any bell pending, any work?  ─ yes ─▶ awake
//!     sleeping? ─ no ─▶ done                     epoll_wait
//!        └ yes ─▶ eventfd write                  sleeping = 0
//! ```
//!
//! One of the two sees the other's store: with both fences in place it cannot be that the driver finds the worker awake
//! and the worker finds no bell.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use vdpa_mem::Deadline;

use crate::Result;
use crate::sync::{AtomicBool, Guard, full};
use waker::Waker;

#[cfg_attr(loom, path = "sleeper/model.rs")]
#[cfg_attr(not(loom), path = "sleeper/waker.rs")]
mod waker;

/// Keeps a word that one side writes often out of the cache line of another's.
#[repr(align(128))]
struct Apart<T>(T);

/// The place where one worker sleeps.
pub struct Sleeper {
    sleeping: Apart<AtomicBool>,
    waker: Waker,
}

impl Sleeper {
    /// A place to sleep for one worker.
    ///
    /// # Errors
    /// When the system has no eventfd left to give.
    pub fn new() -> Result<Arc<Self>> {
        Ok(Arc::new(Self {
            sleeping: Apart(AtomicBool::new(false)),
            waker: Waker::new()?,
        }))
    }

    /// Wakes the worker if it sleeps, or is about to: for what is not a bell. What the worker shall find must be stored
    /// before.
    #[inline]
    pub fn wake(&self) {
        // Between the store of what the worker shall find and the load of `sleeping`; pairs with the fence in
        // `sleep_unless`.
        full(Guard::Ring);
        // Relaxed: the fences order it. The swap lets one of many ringers make the system call.
        let sleeping = &self.sleeping.0;
        if sleeping.load(Ordering::Relaxed) && sleeping.swap(false, Ordering::Relaxed) {
            self.waker.wake();
        }
    }

    /// Sleeps until woken, until the deadline, or until a watched descriptor is readable; not at all if `work` finds
    /// something once the worker has said that it sleeps. May return early for no reason.
    ///
    /// * `work`: looks at every bell and whatever else [`wake`](Self::wake) announces
    /// * `by`: `None` sleeps until woken
    /// * `ready`: called with the token of each watched descriptor that is readable, at most 16 a sleep
    ///
    /// # Errors
    /// When the system call fails.
    ///
    /// # For parents
    /// Called by one worker alone.
    pub fn sleep_unless(
        &self,
        mut work: impl FnMut() -> bool,
        by: Option<Deadline>,
        ready: impl FnMut(u64),
    ) -> Result<()> {
        self.sleeping.0.store(true, Ordering::Relaxed);
        // Between "I sleep" and the last look; pairs with the fence in `wake`.
        full(Guard::Sleep);
        let slept = if work() {
            Ok(())
        } else {
            self.waker.wait(by, ready)
        };
        self.sleeping.0.store(false, Ordering::Relaxed);
        slept
    }

    /// From here on a sleep also ends when `file` is readable.
    ///
    /// * `file`: kept open by the caller until [`unwatch`](Self::unwatch)
    /// * `token`: what `sleep_unless` reports; `u64::MAX` is taken
    ///
    /// # Errors
    /// When `file` cannot be polled, or is watched already.
    pub fn watch(&self, file: BorrowedFd<'_>, token: u64) -> Result<()> {
        self.waker.watch(file, token)
    }

    /// `file` ends no sleep any more.
    ///
    /// # Errors
    /// When it was not watched.
    pub fn unwatch(&self, file: BorrowedFd<'_>) -> Result<()> {
        self.waker.unwatch(file)
    }
}

/// A software doorbell, one a queue: it remembers that it was rung, and wakes the worker.
pub struct Bell {
    pending: Apart<AtomicBool>,
    sleeper: Arc<Sleeper>,
}

impl Bell {
    /// A bell for the worker that sleeps at `sleeper`. It is not pending.
    pub fn new(sleeper: &Arc<Sleeper>) -> Arc<Self> {
        Arc::new(Self {
            pending: Apart(AtomicBool::new(false)),
            sleeper: Arc::clone(sleeper),
        })
    }

    /// Rings. No lock, no virtual call, and a system call only while the worker sleeps. Once nobody sleeps there any
    /// more it does nothing.
    #[inline]
    pub fn ring(&self) {
        // Release pairs with the acquire in `take`: who takes the bell sees the ring as it was when rung.
        self.pending.0.store(true, Ordering::Release);
        self.sleeper.wake();
    }

    /// Whether it was rung since it was last taken.
    #[inline]
    pub fn is_pending(&self) -> bool {
        self.pending.0.load(Ordering::Relaxed)
    }

    /// Takes the ring, if there was one. Look at the queue after this, not before.
    #[inline]
    pub fn take(&self) -> bool {
        // The plain load keeps the line shared while nobody rings.
        self.is_pending() && self.pending.0.swap(false, Ordering::Acquire)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::time::{Duration, Instant};

    use crate::fd;

    #[test]
    fn a_ring_before_the_sleep_is_found_and_one_during_it_wakes() {
        let sleeper = Sleeper::new().unwrap();
        let bell = Bell::new(&sleeper);
        bell.ring();
        sleeper
            .sleep_unless(|| bell.is_pending(), None, |_| {})
            .unwrap();
        assert!(bell.take());
        assert!(!bell.take());

        std::thread::scope(|s| {
            s.spawn(|| {
                while !sleeper.sleeping.0.load(Ordering::Relaxed) {
                    std::thread::yield_now();
                }
                bell.ring();
            });
            while !bell.take() {
                sleeper
                    .sleep_unless(|| bell.is_pending(), None, |_| {})
                    .unwrap();
            }
        });
    }

    #[test]
    fn a_watched_descriptor_ends_the_sleep_and_says_which() {
        let sleeper = Sleeper::new().unwrap();
        let event = fd::eventfd().unwrap();
        sleeper.watch(event.as_fd(), 7).unwrap();
        fd::signal(event.as_fd());
        let mut seen = Vec::new();
        sleeper
            .sleep_unless(|| false, None, |token| seen.push(token))
            .unwrap();
        assert_eq!(seen, [7]);
        sleeper.unwatch(event.as_fd()).unwrap();
        let start = Instant::now();
        let by = Deadline::after(Duration::from_millis(5));
        sleeper
            .sleep_unless(|| false, Some(by), |_| panic!("unwatched"))
            .unwrap();
        assert!(start.elapsed() >= Duration::from_millis(5));
    }
}

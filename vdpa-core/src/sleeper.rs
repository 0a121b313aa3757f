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
//!
//! A worker with many bells would look at each of them. Bells can therefore *mark* what they belong to: a bit in a bitmap
//! of the sleeper's, set after `pending` and before the fence. The worker takes the marks, 64 at a load, and looks at the
//! bells of what is marked alone; a mark is found by the last look before a sleep as a bell is.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use vdpa_mem::Deadline;

use crate::Result;
use crate::sync::{AtomicBool, AtomicU64, Guard, full};
use waker::Waker;

#[cfg_attr(loom, path = "sleeper/model.rs")]
#[cfg_attr(not(loom), path = "sleeper/waker.rs")]
mod waker;

/// Keeps a word that one side writes often out of the cache line of another's.
#[repr(align(128))]
struct Apart<T>(T);

/// Words of marks. A model has one, since each is a state more.
const WORDS: usize = if cfg!(loom) { 1 } else { 64 };

/// The place where one worker sleeps.
pub struct Sleeper {
    sleeping: Apart<AtomicBool>,
    marks: Apart<[AtomicU64; WORDS]>,
    waker: Waker,
}

impl Sleeper {
    /// How many marks there are: bells mark numbers below.
    pub const MARKS: usize = WORDS * 64;

    /// A place to sleep for one worker.
    ///
    /// # Errors
    /// When the system has no eventfd left to give.
    pub fn new() -> Result<Arc<Self>> {
        Ok(Arc::new(Self {
            sleeping: Apart(AtomicBool::new(false)),
            marks: Apart(std::array::from_fn(|_| AtomicU64::new(0))),
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

    /// Whether a bell that marks a number below `below` was rung since the mark was taken.
    #[inline]
    pub fn is_marked(&self, below: usize) -> bool {
        let words = self.marks.0.iter().take(below.div_ceil(64));
        words
            .into_iter()
            .any(|word| word.load(Ordering::Relaxed) != 0)
    }

    /// Takes the marks below `below`, ascending; a few beyond it may be among them. Look at the bells after this, not
    /// before.
    #[inline]
    pub fn take_marks(&self, below: usize, mut to: impl FnMut(usize)) {
        let words = self.marks.0.iter().take(below.div_ceil(64));
        for (word, first) in words.zip((0..).step_by(64)) {
            // The plain load keeps the line shared while nobody rings.
            if word.load(Ordering::Relaxed) == 0 {
                continue;
            }
            // Acquire pairs with the release in `Bell::ring`: who takes the mark finds the bell pending.
            let mut marks = word.swap(0, Ordering::Acquire);
            while marks != 0 {
                to(first + marks.trailing_zeros() as usize);
                marks &= marks - 1;
            }
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
        // Stores would do: a ringer's swap stands right behind the one that it read, and so before all later ones. The
        // model checker knows that order of swaps alone, and finds deadlocks of several ringers that cannot be.
        self.sleeping.0.swap(true, Ordering::Relaxed);
        // Between "I sleep" and the last look; pairs with the fence in `wake`.
        full(Guard::Sleep);
        let slept = if work() {
            Ok(())
        } else {
            self.waker.wait(by, ready)
        };
        self.sleeping.0.swap(false, Ordering::Relaxed);
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
    /// What it marks: the word, and the bit in it.
    mark: Option<(usize, u64)>,
    sleeper: Arc<Sleeper>,
}

impl Bell {
    /// A bell for the worker that sleeps at `sleeper`. It is not pending.
    pub fn new(sleeper: &Arc<Sleeper>) -> Arc<Self> {
        Arc::new(Self {
            pending: Apart(AtomicBool::new(false)),
            mark: None,
            sleeper: Arc::clone(sleeper),
        })
    }

    /// The same for a bell that marks `mark` when it is rung; one that is not below [`Sleeper::MARKS`] marks nothing.
    pub fn marking(sleeper: &Arc<Sleeper>, mark: usize) -> Arc<Self> {
        let word = Some((mark / 64, 1 << (mark % 64)));
        Arc::new(Self {
            pending: Apart(AtomicBool::new(false)),
            mark: word.filter(|_| mark < Sleeper::MARKS),
            sleeper: Arc::clone(sleeper),
        })
    }

    /// Rings. No lock, no virtual call, and a system call only while the worker sleeps. Once nobody sleeps there any
    /// more it does nothing.
    #[inline]
    pub fn ring(&self) {
        // Release pairs with the acquire in `take`: who takes the bell sees the ring as it was when rung.
        self.pending.0.store(true, Ordering::Release);
        if let Some((word, bit)) = self.mark
            && let Some(word) = self.sleeper.marks.0.get(word)
        {
            // Release pairs with the acquire in `take_marks`. Set again even if it is: who took it meanwhile may have
            // looked at the bell before.
            word.fetch_or(bit, Ordering::Release);
        }
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
    fn marks_say_whose_bells_were_rung() {
        let sleeper = Sleeper::new().unwrap();
        let numbers = [0, 1, 63, 64, 1000, Sleeper::MARKS - 1];
        let bells = numbers.map(|number| Bell::marking(&sleeper, number));
        let take = |below| {
            let mut taken = Vec::new();
            sleeper.take_marks(below, |mark| taken.push(mark));
            taken
        };
        assert!(!sleeper.is_marked(Sleeper::MARKS));
        for bell in bells.iter().rev().chain(&bells) {
            bell.ring();
        }
        Bell::new(&sleeper).ring();
        Bell::marking(&sleeper, Sleeper::MARKS).ring();
        assert_eq!(take(65), [0, 1, 63, 64]);
        assert!(!sleeper.is_marked(65) && sleeper.is_marked(1001));
        assert_eq!(take(Sleeper::MARKS), [1000, Sleeper::MARKS - 1]);
        assert_eq!(take(Sleeper::MARKS), [0; 0]);
        assert!(bells.iter().all(|bell| bell.take()));
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

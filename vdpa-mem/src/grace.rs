//! Grace periods: a writer waits until every reader that could still see the old table has left its section.
//!
//! ```text
//!  reader                                   writer
//!  slot = odd            (release)          table = new           (release)
//!  full fence      ───────┐     ┌───────    full fence
//!  load table (acquire)   └──X──┘           load slot (acquire)
//!  ... use it ...                           odd: wait until it changes
//!  slot = even           (release)
//! ```
//! The two fences are a pair (store, fence, load on both sides): of a reader and a writer at least one sees the
//! other's store. Either the reader has the new table, or the writer sees that the reader is inside.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::sync::{AtomicU64, Guard, Mutex, full, yield_now};
use crate::{Deadline, clock};

/// Whether one reader is inside: odd inside, even outside, never the same twice. On a cache line of its own, and its
/// neighbour, which the hardware fetches with it.
#[repr(align(128))]
pub(crate) struct Slot(AtomicU64);

impl Slot {
    /// Marks the reader as inside, and orders that before what it loads next.
    #[inline]
    pub(crate) fn enter(&self) {
        // Only this reader stores to its slot. A section that was leaked left it odd: the next is odd too, and new.
        let before = self.0.load(Ordering::Relaxed);
        // Release: a writer that sees this section, and not the end of the one before, still sees that one's work
        // done. Pairs with the acquire in `Grace::is_over`.
        self.0.store((before | 1) + 2, Ordering::Release);
        // Pairs with the writer's fence in `Readers::grace`.
        full(Guard::Enter);
    }

    /// Marks it as outside. The release pairs with the writer's acquire load: what the section did is done.
    #[inline]
    pub(crate) fn leave(&self) {
        let inside = self.0.load(Ordering::Relaxed);
        self.0.store(inside + 1, Ordering::Release);
    }
}

/// The readers of an address space.
pub(crate) struct Readers(Mutex<Vec<Arc<Slot>>>);

impl Readers {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    fn slots(&self) -> impl std::ops::DerefMut<Target = Vec<Arc<Slot>>> {
        // Nothing panics while it holds the lock.
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub(crate) fn add(&self) -> Arc<Slot> {
        let slot = Arc::new(Slot(AtomicU64::new(0)));
        self.slots().push(Arc::clone(&slot));
        slot
    }

    pub(crate) fn remove(&self, slot: &Arc<Slot>) {
        self.slots().retain(|s| !Arc::ptr_eq(s, slot));
    }

    /// The grace period of what was published before this call.
    pub(crate) fn grace(&self) -> Grace {
        // Pairs with the fence in `Slot::enter`.
        full(Guard::Publish);
        let slots = self.slots();
        let inside = slots.iter().filter_map(|slot| {
            // Acquire pairs with the release in `Slot::leave`.
            let seen = slot.0.load(Ordering::Acquire);
            (seen & 1 == 1).then(|| (Arc::clone(slot), seen))
        });
        Grace(inside.collect())
    }
}

/// A grace period: the readers that have still to leave.
pub(crate) struct Grace(Vec<(Arc<Slot>, u64)>);

impl Grace {
    /// Whether it is over.
    pub(crate) fn is_over(&mut self) -> bool {
        // Acquire pairs with the releases in `Slot::leave` and in the `Slot::enter` that may have followed.
        self.0
            .retain(|(slot, seen)| slot.0.load(Ordering::Acquire) == *seen);
        self.0.is_empty()
    }
}

/// Polls until `done`, politely, or until the deadline. Answers whether it is done.
pub(crate) fn wait(by: Deadline, mut done: impl FnMut() -> bool) -> bool {
    for turn in 0u32.. {
        if done() {
            return true;
        }
        if by.expired() {
            return false;
        }
        // A batch takes microseconds; a reader that was scheduled away takes milliseconds.
        if turn < 1000 || cfg!(loom) {
            yield_now();
        } else {
            clock::sleep(Duration::from_micros(100).min(by.remaining()));
        }
    }
    false
}

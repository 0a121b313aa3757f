//! The primitives of the read section: the platform's, or the model checker's.

#[cfg(not(loom))]
mod chosen {
    pub(crate) use std::sync::Mutex;
    pub(crate) use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, fence};
    pub(crate) use std::thread::yield_now;
}

#[cfg(loom)]
mod chosen {
    pub(crate) use loom::sync::Mutex;
    pub(crate) use loom::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, fence};
    pub(crate) use loom::thread::yield_now;
}

pub(crate) use chosen::*;

/// What a model can leave out, to show that it is needed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(
    not(loom),
    allow(dead_code, unreachable_pub, reason = "only a model looks at it")
)]
pub enum Guard {
    /// The fence between a reader's "inside" and its load of the table.
    Enter,
    /// The fence between a writer's store of the table and its look at the readers.
    Publish,
    /// That a writer waits for holds.
    Wait,
    /// That the end of a hold releases what was done by it.
    Release,
}

/// A full fence that a model can leave out.
#[inline]
pub(crate) fn full(site: Guard) {
    if is_there(site) {
        fence(std::sync::atomic::Ordering::SeqCst);
    }
}

/// Whether a guard is in its place: always, but for models.
#[inline]
pub(crate) fn is_there(site: Guard) -> bool {
    #[cfg(loom)]
    if model::is_removed(site) {
        return false;
    }
    let _ = site;
    true
}

/// Switches for models: each guard can be taken away to show that the model then fails.
#[cfg(loom)]
pub mod model {
    pub use super::Guard;
    use std::cell::Cell;

    std::thread_local! {
        // The threads of a model are coroutines of one thread, so each test has its own switch.
        static REMOVED: Cell<Option<Guard>> = const { Cell::new(None) };
    }

    /// Takes `guard` away for the models that follow on this thread; `None` puts it back.
    pub fn remove(guard: Option<Guard>) {
        REMOVED.set(guard);
    }

    pub(super) fn is_removed(guard: Guard) -> bool {
        REMOVED.get() == Some(guard)
    }
}

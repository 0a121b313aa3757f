//! The primitives that wake-ups and call replacement rest on: the platform's, or the model checker's.

#[cfg(not(loom))]
mod chosen {
    pub(crate) use std::sync::Mutex;
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, fence};
}

#[cfg(loom)]
mod chosen {
    pub(crate) use loom::sync::Mutex;
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, fence};
}

pub(crate) use chosen::*;

/// What a model can leave out, to show that it is needed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(
    not(loom),
    allow(dead_code, unreachable_pub, reason = "only models tell them apart")
)]
pub enum Guard {
    /// The fence between ringing a bell and looking whether the worker sleeps.
    Ring,
    /// The fence between saying "I sleep" and looking for work once more.
    Sleep,
    /// That a call is raised while its cell is locked.
    Raise,
    /// A parent's own: that who has done its part of something releases what it did.
    Done,
}

/// A full fence that a model can leave out.
#[inline]
pub(crate) fn full(site: Guard) {
    #[cfg(loom)]
    if model::is_removed(site) {
        return;
    }
    let _ = site;
    fence(std::sync::atomic::Ordering::SeqCst);
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

    /// Whether `guard` is taken away.
    pub fn is_removed(guard: Guard) -> bool {
        REMOVED.get() == Some(guard)
    }
}

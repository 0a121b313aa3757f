//! The primitives of the read section: the platform's, or the model checker's.

#[cfg(not(loom))]
mod chosen {
    pub(crate) use std::sync::Mutex;
    pub(crate) use std::sync::atomic::{AtomicPtr, AtomicU64, fence};
    pub(crate) use std::thread::yield_now;
}

#[cfg(loom)]
mod chosen {
    pub(crate) use loom::sync::Mutex;
    pub(crate) use loom::sync::atomic::{AtomicPtr, AtomicU64, fence};
    pub(crate) use loom::thread::yield_now;
}

pub(crate) use chosen::*;

/// A full fence that a model can leave out, to show that it is needed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(
    not(loom),
    allow(dead_code, unreachable_pub, reason = "only a model looks at it")
)]
pub enum Fence {
    /// Between a reader's "inside" and its load of the table.
    Enter,
    /// Between a writer's store of the table and its look at the readers.
    Publish,
}

#[inline]
pub(crate) fn full(site: Fence) {
    #[cfg(loom)]
    if model::is_removed(site) {
        return;
    }
    let _ = site;
    fence(std::sync::atomic::Ordering::SeqCst);
}

/// Switches for models: each fence can be taken away to show that the model then fails.
#[cfg(loom)]
pub mod model {
    pub use super::Fence;
    use std::sync::atomic::{AtomicU8, Ordering};

    static REMOVED: AtomicU8 = AtomicU8::new(u8::MAX);

    /// Takes `fence` away for the models that follow in this process; `None` puts all back.
    pub fn remove(fence: Option<Fence>) {
        REMOVED.store(fence.map_or(u8::MAX, |f| f as u8), Ordering::SeqCst);
    }

    pub(super) fn is_removed(fence: Fence) -> bool {
        REMOVED.load(Ordering::SeqCst) == fence as u8
    }
}

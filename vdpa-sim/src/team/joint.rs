//! What all teams of a device do, each at its own worker: a suspend, a reset.

use std::sync::Arc;
use std::sync::atomic::Ordering;

#[cfg(loom)]
use loom::sync::atomic::AtomicUsize;
#[cfg(not(loom))]
use std::sync::atomic::AtomicUsize;

/// Something that all teams of a device do; the last one says that it is done.
pub(crate) struct Joint {
    left: AtomicUsize,
}

impl Joint {
    pub(crate) fn new(teams: usize) -> Arc<Self> {
        Arc::new(Self {
            left: AtomicUsize::new(teams),
        })
    }

    /// Whether all teams are done. Acquire pairs with the release in `done`: nothing of theirs happens any more.
    pub(crate) fn is_done(&self) -> bool {
        self.left.load(Ordering::Acquire) == 0
    }

    /// One more team is done. Answers whether it was the last one.
    pub(crate) fn done(&self) -> bool {
        // Acquire too: the last one sees what the others did.
        self.left.fetch_sub(1, order()) == 1
    }
}

#[cfg(not(loom))]
fn order() -> Ordering {
    Ordering::AcqRel
}

/// A model can leave it out, to show that it is needed.
#[cfg(loom)]
fn order() -> Ordering {
    match vdpa_core::model::is_removed(vdpa_core::model::Guard::Done) {
        true => Ordering::Relaxed,
        false => Ordering::AcqRel,
    }
}

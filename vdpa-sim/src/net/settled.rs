//! What the driver settled by negotiation and commands, as workers see it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use vdpa_core::Features;

use super::filter::Filter;
use crate::shared::lock;

/// The features, and the filter: replaced as a whole, and looked at once a batch without a lock.
pub(crate) struct Settled {
    /// Network devices negotiate bits below 64 alone here.
    features: AtomicU64,
    filter: Mutex<Arc<Filter>>,
    version: AtomicU64,
    generation: AtomicU32,
}

impl Settled {
    pub(crate) fn new(filter: Filter) -> Self {
        Self {
            features: AtomicU64::new(0),
            filter: Mutex::new(Arc::new(filter)),
            version: AtomicU64::new(1),
            generation: AtomicU32::new(0),
        }
    }

    pub(crate) fn set_features(&self, features: Features) {
        self.features.store(features.low_u64(), Ordering::Release);
    }

    #[inline]
    pub(crate) fn features(&self) -> Features {
        Features::from_u64(self.features.load(Ordering::Acquire))
    }

    /// What the driver takes unfinished of what it receives: those of [`RECEIVE`](crate::offload::RECEIVE) that are on.
    #[inline]
    pub(crate) fn guest_offloads(&self) -> Features {
        self.features() & crate::offload::RECEIVE
    }

    /// The filter of the moment.
    pub(crate) fn filter(&self) -> Arc<Filter> {
        Arc::clone(&lock(&self.filter))
    }

    /// Replaces the filter. Workers have it with their next batch.
    pub(crate) fn set_filter(&self, filter: Filter) {
        let mut current = lock(&self.filter);
        if current.mac != filter.mac {
            self.changed();
        }
        *current = Arc::new(filter);
        // Release pairs with the acquire in `Watch::filter`.
        self.version.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn reset(&self, filter: Filter) {
        self.set_features(Features::NONE);
        self.set_filter(filter);
    }

    pub(crate) fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }

    /// The configuration has changed.
    pub(crate) fn changed(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }
}

/// One worker's copy of the filter.
#[derive(Default)]
pub(crate) struct Watch {
    seen: u64,
    filter: Option<Arc<Filter>>,
}

impl Watch {
    /// The filter of the moment: a load, unless it has changed.
    #[inline]
    pub(crate) fn filter(&mut self, settled: &Settled) -> Option<&Filter> {
        let version = settled.version.load(Ordering::Acquire);
        if version != self.seen {
            self.seen = version;
            self.filter = Some(settled.filter());
        }
        self.filter.as_deref()
    }
}

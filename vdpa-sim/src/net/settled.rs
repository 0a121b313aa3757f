//! What the driver settled by negotiation and commands, as workers see it.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use vdpa_core::config::Mac;
use vdpa_core::{Features, bits::net};

use super::filter::Filter;
use super::hashing::Hashing;
use crate::offload::RECEIVE;
use crate::shared::lock;

/// The features, the filter and the hashing: replaced as a whole, and looked at once a batch without a lock.
pub(crate) struct Settled {
    /// Network devices negotiate bits below 64 alone here.
    features: AtomicU64,
    /// The offloads of received packets, by the same bits, that the driver has on.
    offloads: AtomicU64,
    /// The address at reset.
    own: Mutex<Mac>,
    filter: Mutex<Arc<Filter>>,
    hashing: Mutex<Arc<Hashing>>,
    version: AtomicU64,
    generation: AtomicU32,
    /// The driver is asked to announce itself.
    announce: AtomicBool,
}

impl Settled {
    pub(crate) fn new(mac: Mac) -> Self {
        Self {
            features: AtomicU64::new(0),
            offloads: AtomicU64::new(0),
            own: Mutex::new(mac),
            filter: Mutex::new(Arc::new(Filter::new(mac))),
            hashing: Mutex::default(),
            version: AtomicU64::new(1),
            generation: AtomicU32::new(0),
            announce: AtomicBool::new(false),
        }
    }

    /// Takes the features. The offloads among them are on: virtio 1.4 §5.1.9.5.9.1.
    pub(crate) fn set_features(&self, features: Features) {
        self.features.store(features.low_u64(), Ordering::Release);
        self.set_offloads(features & RECEIVE);
    }

    /// Switches offloads of received packets on, and all others off.
    ///
    /// * `offloads`: those of [`RECEIVE`] that were negotiated, or fewer
    pub(crate) fn set_offloads(&self, offloads: Features) {
        self.offloads.store(offloads.low_u64(), Ordering::Release);
    }

    /// The offloads that the driver has on, virtio 1.4 §5.1.9.5.9.1: with what each needs or without.
    pub(crate) fn offloads(&self) -> Features {
        Features::from_u64(self.offloads.load(Ordering::Acquire))
    }

    /// What the driver takes unfinished of what it receives: the offloads that are on and have what they need. A driver
    /// may switch one off and leave on what depends on it (virtio 1.4 §5.1.3.1).
    #[inline]
    pub(crate) fn guest_offloads(&self) -> Features {
        let on = self.offloads();
        if !on.contains(net::GUEST_CSUM) {
            return Features::NONE;
        }
        let tso = Features::of(&[net::GUEST_TSO4, net::GUEST_TSO6]);
        if on.intersects(tso) {
            on
        } else {
            on.without(net::GUEST_ECN)
        }
    }

    #[inline]
    pub(crate) fn features(&self) -> Features {
        Features::from_u64(self.features.load(Ordering::Acquire))
    }

    /// The filter of the moment.
    pub(crate) fn filter(&self) -> Arc<Filter> {
        Arc::clone(&lock(&self.filter))
    }

    /// What is hashed at the moment.
    pub(super) fn hashing(&self) -> Arc<Hashing> {
        Arc::clone(&lock(&self.hashing))
    }

    /// Replaces the filter. Workers have it with their next batch.
    pub(crate) fn set_filter(&self, filter: Filter) {
        let mut current = lock(&self.filter);
        if current.mac != filter.mac {
            self.changed();
        }
        *current = Arc::new(filter);
        // Release pairs with the acquire in `Watch::refresh`.
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Replaces what is hashed. Workers have it with their next batch.
    pub(super) fn set_hashing(&self, hashing: Hashing) {
        *lock(&self.hashing) = Arc::new(hashing);
        // As in `set_filter`.
        self.version.fetch_add(1, Ordering::Release);
    }

    /// The rules are others than before, although nothing here has changed.
    pub(super) fn touch(&self) {
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Changes the address of the device, now and after each reset. Answers whether it was another.
    pub(super) fn set_own(&self, mac: Mac) -> bool {
        *lock(&self.own) = mac;
        let filter = self.filter();
        let other = filter.mac != mac;
        if other {
            self.set_filter(Filter {
                mac,
                ..Filter::clone(&filter)
            });
        }
        other
    }

    /// Whether the driver is asked to announce itself.
    pub(super) fn announces(&self) -> bool {
        self.announce.load(Ordering::Acquire)
    }

    /// Asks the driver to announce itself, or not any more. Answers whether that is a change.
    pub(super) fn set_announce(&self, on: bool) -> bool {
        let changed = self.announce.swap(on, Ordering::AcqRel) != on;
        if changed {
            self.changed();
        }
        changed
    }

    pub(crate) fn reset(&self) {
        self.set_features(Features::NONE);
        self.announce.store(false, Ordering::Release);
        self.set_hashing(Hashing::default());
        let mac = *lock(&self.own);
        self.set_filter(Filter::new(mac));
    }

    pub(crate) fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }

    /// The configuration has changed.
    pub(crate) fn changed(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }
}

/// One worker's copy of the filter and of the hashing.
#[derive(Default)]
pub(crate) struct Watch {
    seen: u64,
    filter: Option<Arc<Filter>>,
    hashing: Arc<Hashing>,
}

impl Watch {
    /// Takes over the rules of the moment: a load, unless they have changed.
    #[inline]
    pub(crate) fn refresh(&mut self, settled: &Settled) {
        // Acquire pairs with the release in `set_filter` and `set_hashing`.
        let version = settled.version.load(Ordering::Acquire);
        if version != self.seen {
            self.seen = version;
            self.filter = Some(settled.filter());
            self.hashing = settled.hashing();
        }
    }

    /// Which rules these are.
    #[inline]
    pub(super) fn version(&self) -> u64 {
        self.seen
    }

    /// The filter.
    #[inline]
    pub(crate) fn filter(&self) -> Option<&Filter> {
        self.filter.as_deref()
    }

    /// What is hashed.
    #[inline]
    pub(super) fn hashing(&self) -> &Hashing {
        &self.hashing
    }
}

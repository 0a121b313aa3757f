//! How a device is served.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use vdpa_core::{Device, Features};

use super::Notice;

type Reopen = dyn Fn() -> Result<Device, vdpa_core::Error> + Send + Sync;
type Observer = dyn Fn(&Notice<'_>) + Send + Sync;

/// How a device is served to its front ends.
#[derive(Clone)]
pub struct Options {
    pub(super) hidden: Features,
    pub(super) patience: Duration,
    pub(super) stats: Option<Duration>,
    pub(super) once: bool,
    pub(super) observer: Option<Arc<Observer>>,
    pub(super) reopen: Option<Arc<Reopen>>,
}

impl Default for Options {
    /// All that the device offers and vhost-user carries, to one front end after the other, with ten seconds for what
    /// takes time.
    fn default() -> Self {
        Self {
            hidden: Features::NONE,
            patience: Duration::from_secs(10),
            stats: None,
            once: false,
            observer: None,
            reopen: None,
        }
    }
}

impl Options {
    /// Keeps these features from front ends.
    #[must_use]
    pub fn hide(mut self, features: Features) -> Self {
        self.hidden = self.hidden.union(features);
        self
    }

    /// How long the device may take for each thing that takes time: to stop a queue, to let go of memory, to reset.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Tells the [counters](Notice::Stats) this often while a front end is there; at most once a millisecond.
    #[must_use]
    pub fn stats_every(mut self, every: Duration) -> Self {
        self.stats = Some(every.max(Duration::from_millis(1)));
        self
    }

    /// Ends with the first front end.
    #[must_use]
    pub fn once(mut self) -> Self {
        self.once = true;
        self
    }

    /// Makes another device with `open` when a front end has broken the one that there is, so that the next one is served:
    /// by keeping it from coming to rest for longer than the [patience](Self::patience), say. The broken one is dropped
    /// before that, which may take the device's own time. Without this the server ends then.
    #[must_use]
    pub fn reopen(
        mut self,
        open: impl Fn() -> Result<Device, vdpa_core::Error> + Send + Sync + 'static,
    ) -> Self {
        self.reopen = Some(Arc::new(open));
        self
    }

    /// Tells `observer` what happens. It runs on the server's thread, which serves nobody meanwhile.
    #[must_use]
    pub fn observe(mut self, observer: impl Fn(&Notice<'_>) + Send + Sync + 'static) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    pub(super) fn tell(&self, notice: &Notice<'_>) {
        if let Some(observer) = &self.observer {
            observer(notice);
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("hidden", &self.hidden)
            .field("patience", &self.patience)
            .field("stats", &self.stats)
            .field("once", &self.once)
            .finish_non_exhaustive()
    }
}

//! Whether a function is there.
//!
//! A function that was taken away answers with all ones, and so does one that is in the middle of a reset: for a while
//! after a reset began, [`GRACE`] once it is driven, such answers mean nothing yet.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use vdpa_core::{Error, Event, EventSink, Result};

use crate::clock::Clock;

/// How long a function may answer with all ones after a reset began. PCI Express Base §6.6.1 allows as much after a reset
/// of the function.
pub const GRACE: Duration = Duration::from_millis(100);

/// Whether a function is there, and who is told when it is not any more.
pub(crate) struct Life {
    gone: AtomicBool,
    told: AtomicBool,
    events: OnceLock<Arc<dyn EventSink>>,
    /// The reset that is under way.
    reset: Mutex<Option<Reset>>,
    clock: Arc<dyn Clock>,
}

#[derive(Clone, Copy)]
struct Reset {
    since: Duration,
    /// For how long all ones mean nothing.
    grace: Duration,
}

impl Life {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            gone: AtomicBool::new(false),
            told: AtomicBool::new(false),
            events: OnceLock::new(),
            reset: Mutex::new(None),
            clock,
        })
    }

    /// Says who is told.
    pub(crate) fn report_to(&self, events: Arc<dyn EventSink>) {
        let _first = self.events.set(events);
    }

    /// An error once the function is gone.
    pub(crate) fn check(&self) -> Result<()> {
        match self.is_gone() {
            true => Err(Error::Gone),
            false => Ok(()),
        }
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// The function is gone, for good. Told once.
    pub(crate) fn lose(&self) {
        self.gone.store(true, Ordering::Release);
        if let Some(events) = self.events.get()
            && !self.told.swap(true, Ordering::AcqRel)
        {
            events.raise(Event::Gone);
        }
    }

    /// Reports an event, if somebody listens.
    pub(crate) fn raise(&self, event: Event) {
        if let Some(events) = self.events.get() {
            events.raise(event);
        }
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// A reset begins now.
    ///
    /// * `grace`: how long the function may be silent
    pub(crate) fn begin_reset(&self, grace: Duration) {
        let since = self.clock.now();
        *self.reset() = Some(Reset { since, grace });
    }

    /// The reset is complete: the function answered.
    pub(crate) fn end_reset(&self) {
        *self.reset() = None;
    }

    /// Whether a reset is under way.
    pub(crate) fn in_reset(&self) -> bool {
        self.reset().is_some()
    }

    /// Whether all ones mean nothing yet.
    pub(crate) fn in_grace(&self) -> bool {
        let reset = *self.reset();
        reset.is_some_and(|r| self.clock.now().saturating_sub(r.since) < r.grace)
    }

    fn reset(&self) -> std::sync::MutexGuard<'_, Option<Reset>> {
        self.reset.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the access to a function reports goes through here, so that its removal is known and told once.
pub(crate) struct Watcher(pub(crate) Arc<Life>);

impl EventSink for Watcher {
    fn raise(&self, event: Event) {
        match event {
            Event::Gone => self.0.lose(),
            other => self.0.raise(other),
        }
    }
}

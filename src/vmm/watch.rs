//! Passes on what a device reports: to the guest what is the guest's, and all of it to the VMM.

use std::fmt;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vdpa_core::{Call, Event, Events, Relay, Relayed};

use super::VmmError;

/// Who looks at a device's events beside the guest.
pub(super) type Observer = dyn Fn(&Event) + Send + Sync;

/// Watches the event channel on the thread of a relay.
pub(super) struct Watch {
    /// The interrupt of the configuration; [`Call::None`] while nobody is to be interrupted.
    config: Arc<Mutex<Call>>,
    _relayed: Relayed,
}

impl Watch {
    pub(super) fn new(
        events: Events,
        relay: &Relay,
        observer: Option<Arc<Observer>>,
    ) -> Result<Self, VmmError> {
        let readable = events.as_fd().try_clone_to_owned();
        let readable = readable.map_err(VmmError::eventfd("duplicate"))?;
        let config = Arc::new(Mutex::new(Call::None));
        let target = Arc::clone(&config);
        let pass = move || {
            while let Some(event) = events.try_next() {
                let is_guests = match event {
                    Event::Config => true,
                    // One from before a reset that is complete is not of now.
                    Event::NeedsReset { .. } => events.needs_reset(),
                    _ => false,
                };
                if is_guests {
                    // Under the lock: who aims elsewhere waits for the old one to end.
                    lock(&target).raise();
                }
                if let Some(observer) = &observer {
                    observer(&event);
                }
            }
        };
        let relayed = relay.call(Arc::new(readable), vec![Call::from_fn(pass)])?;
        Ok(Self {
            config,
            _relayed: relayed,
        })
    }

    /// From here on `config` is raised, and what was raised before has ended.
    pub(super) fn aim(&self, config: Call) {
        let old = std::mem::replace(&mut *lock(&self.config), config);
        // Outside of the lock: a closure may own anything.
        drop(old);
    }
}

fn lock(call: &Mutex<Call>) -> MutexGuard<'_, Call> {
    call.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

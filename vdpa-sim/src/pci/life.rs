//! Whether a function is there, and what its device reports.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use vdpa_core::{Asid, Call, Error, Event, EventSink, Events, Relay, Relayed, Result};

use crate::pci::interrupts::Interrupts;
use crate::pci::iommu::{DmaFault, FaultLog};
use crate::pci::mirror::Mirror;
use crate::pci::notify::Notify;
use crate::pci::setup::Extension;
use crate::shared::lock;

/// Whether the function is there, and who wants to know.
#[derive(Default)]
pub(super) struct Life {
    gone: AtomicBool,
    /// Who drives it now: those who did before are gone, and could not say so.
    watcher: Mutex<Option<Arc<dyn EventSink>>>,
}

impl Life {
    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Tells whoever watches.
    pub(super) fn tell(&self, event: &Event) {
        // Outside of the lock: a sink may do anything.
        let watcher = lock(&self.watcher).clone();
        if let Some(watcher) = watcher {
            watcher.raise(event.clone());
        }
    }

    /// The function is gone, or as good as that: nothing answers any more. `false`: it was before, and that was told.
    pub(super) fn end(&self) -> bool {
        !self.gone.swap(true, Ordering::AcqRel)
    }

    pub(super) fn watch(&self, events: Arc<dyn EventSink>) {
        let old = lock(&self.watcher).replace(Arc::clone(&events));
        drop(old);
        // Before or after it was put there: told at least once.
        if self.is_gone() {
            events.raise(Event::Gone);
        }
    }
}

/// Those who hear what the device reports.
pub(super) struct Ears {
    pub(super) interrupts: Arc<Interrupts>,
    pub(super) notify: Arc<Notify>,
    pub(super) faults: Arc<FaultLog>,
    pub(super) life: Arc<Life>,
    pub(super) mirror: Arc<Mirror>,
    pub(super) extension: Option<Arc<dyn Extension>>,
}

impl Ears {
    /// Listens to a device from here on, until what it answers is dropped.
    pub(super) fn listen(self, events: Events) -> Result<Relayed> {
        let readable: OwnedFd =
            events
                .as_fd()
                .try_clone_to_owned()
                .map_err(|source| Error::Io {
                    what: "duplicate a file descriptor",
                    source,
                })?;
        let call = Call::from_fn(move || {
            while let Some(event) = events.try_next() {
                self.hear(&event, &events);
            }
        });
        Relay::new().call(Arc::new(readable), vec![call])
    }

    fn hear(&self, event: &Event, events: &Events) {
        match event {
            // virtio 1.4 §2.1.2: a need for a reset is told as a change of the configuration.
            // What comes after the reset that it asked for is of a life before.
            Event::NeedsReset { .. } if !events.needs_reset() => {}
            Event::NeedsReset { .. } => {
                self.mirror.lost();
                match events.needs_reset() {
                    true => self.interrupts.config(),
                    // Whoever saw the end of that reset may have looked at the mirror before this.
                    false => self.mirror.whole(),
                }
            }
            Event::Config => {
                self.mirror.changed();
                self.interrupts.config();
            }
            Event::Fault { at, want, .. } | Event::Miss { at, want, .. } => {
                let (asid, at, want) = (Asid::new(0), *at, *want);
                self.faults.add(DmaFault { at, want });
                // One that is waited for cannot come: it is a fault to whoever maps.
                self.life.tell(&Event::Fault { asid, at, want });
            }
            Event::Gone | Event::Broken { .. } => {
                let first = self.life.end();
                self.notify.set_live(false);
                self.interrupts.set_command(false, true);
                if let Some(extension) = &self.extension {
                    extension.gone();
                }
                if first {
                    self.life.tell(event);
                }
            }
            event => self.life.tell(event),
        }
    }
}

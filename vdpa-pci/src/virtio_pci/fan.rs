//! What one interrupt does: raises the calls of many queues, and looks what else happened.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use vdpa_core::{Call, Event, Result, Status};

use super::gate::{Branch, Gate};
use crate::access::Width;
use crate::registers::{NOTHING_SEEN, Registers, common};

/// Where an interrupt comes from, and so what it may mean.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Source {
    /// A vector of queues alone.
    Queues,
    /// A vector that tells of configuration changes, perhaps of queues too.
    Config,
    /// The interrupt line: its status says what it means.
    Line,
}

/// The target of one interrupt.
pub(super) struct Fan {
    source: Source,
    branches: Mutex<Arc<[Arc<Branch>]>>,
    /// Shut once a reset began: nobody is called any more.
    gate: Gate,
    /// Weak: the access keeps the closure that keeps this.
    registers: Weak<Registers>,
}

impl Fan {
    pub(super) fn new(source: Source, registers: &Arc<Registers>) -> Arc<Self> {
        Arc::new(Self {
            source,
            branches: Mutex::default(),
            gate: Gate::default(),
            registers: Arc::downgrade(registers),
        })
    }

    /// The call that runs it.
    pub(super) fn call(self: &Arc<Self>) -> Call {
        let fan = Arc::clone(self);
        Call::from_fn(move || fan.run())
    }

    /// Whom it calls from here on. Returns whom it called, to be dropped without a lock.
    pub(super) fn set(&self, branches: Arc<[Arc<Branch>]>) -> Arc<[Arc<Branch>]> {
        let mut held = self.branches.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *held, branches)
    }

    /// It calls nobody any more, but for whom it calls at this moment.
    pub(super) fn fold(&self) {
        self.gate.shut();
    }

    /// Whether it does nothing at this moment.
    pub(super) fn is_idle(&self) -> bool {
        self.gate.is_empty()
    }

    fn run(&self) {
        let Some(_inside) = self.gate.enter() else {
            return;
        };
        // Gone with its device: so is whoever it called.
        let Some(registers) = self.registers.upgrade() else {
            return;
        };
        match self.source {
            Source::Queues => {
                self.raise();
            }
            Source::Config => {
                let shared = self.raise();
                registers.look(shared);
            }
            Source::Line => self.run_line(&registers),
        }
    }

    /// virtio 1.4 §4.1.5.5: reading the status takes the interrupt back.
    fn run_line(&self, registers: &Registers) {
        let Some(isr) = registers.layout.isr else {
            return;
        };
        // What cannot be read may have been anything.
        let status = registers.read(&isr, 0, Width::U8).unwrap_or(1 | 2);
        if registers.life.is_gone() {
            return;
        }
        if status & 1 != 0 {
            self.raise();
        }
        if status & 2 != 0 {
            registers.look_at_config();
        }
        // Also when it was another function's: they share lines.
        if !self.gate.is_shut() && !registers.life.is_gone() {
            // Fails where the line was taken away meanwhile: nobody waits for it then.
            let _unused = registers.access().unmask_intx();
        }
    }

    /// Raises the calls of its queues. Whether it has any.
    fn raise(&self) -> bool {
        let branches = self.branches.lock();
        let branches = Arc::clone(&branches.unwrap_or_else(PoisonError::into_inner));
        for branch in branches.iter() {
            if self.gate.is_shut() {
                break;
            }
            branch.raise();
        }
        !branches.is_empty()
    }
}

impl Registers {
    /// Looks what a vector that tells of configuration changes told.
    ///
    /// * `shared`: it may as well have told of queues alone
    fn look(&self, shared: bool) {
        if !shared {
            return self.look_at_config();
        }
        // The bit is set before such an interrupt also where there are vectors, virtio 1.4 §4.1.4.5.1. A device that
        // does not keep to that still shows by its generation.
        let isr = self
            .layout
            .isr
            .and_then(|isr| self.read(&isr, 0, Width::U8).ok());
        if isr.is_some_and(|isr| isr & 2 != 0) {
            return self.look_at_config();
        }
        let seen = self.generation.load(Ordering::Relaxed);
        match self.common(common::CONFIG_GENERATION) {
            // A reset began: whatever changed is seen after it.
            Ok(_) if seen == NOTHING_SEEN => self.look_at_status(),
            Ok(now) if now != seen => self.look_at_config(),
            Ok(_) => self.look_at_status(),
            Err(_) => {}
        }
    }

    /// The configuration changed, or the device needs a reset.
    fn look_at_config(&self) {
        self.look_at_status();
        if self.life.in_reset() {
            return;
        }
        // The generation may change only when the configuration is read, so it does not say whether something changed.
        if let Ok(now) = self.common(common::CONFIG_GENERATION) {
            self.generation.store(now, Ordering::Relaxed);
            self.life.raise(Event::Config);
        }
    }

    fn look_at_status(&self) {
        if self.life.in_reset() {
            return;
        }
        let Ok(status) = self.common(common::DEVICE_STATUS) else {
            return;
        };
        let needs = u32::from(Status::DEVICE_NEEDS_RESET.bits());
        if status & needs != 0 && !self.needs_reset.swap(true, Ordering::Relaxed) {
            let why = format!(
                "{} set DEVICE_NEEDS_RESET, its status is {status:#04x}",
                self.name()
            );
            self.life.raise(Event::NeedsReset { queue: None, why });
        }
    }

    /// Remembers what the generation is before anything is told of.
    pub(super) fn note_generation(&self) -> Result<()> {
        let now = self.common(common::CONFIG_GENERATION)?;
        self.generation.store(now, Ordering::Relaxed);
        Ok(())
    }

    /// A reset begins: what was seen before it counts no more.
    pub(super) fn forget(&self) {
        self.needs_reset.store(false, Ordering::Relaxed);
        self.generation.store(NOTHING_SEEN, Ordering::Relaxed);
    }
}

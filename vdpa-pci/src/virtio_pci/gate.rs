//! What can be shut without waiting for whoever is inside: control calls do not wait for a user's closure.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use vdpa_core::{Call, CallCell};

/// Counts who is inside, and lets nobody in once it is shut.
#[derive(Default)]
pub(super) struct Gate {
    shut: AtomicBool,
    inside: AtomicU32,
}

/// Somebody inside.
pub(super) struct Inside<'g>(&'g Gate);

impl Gate {
    /// Goes in, if it is not shut.
    pub(super) fn enter(&self) -> Option<Inside<'_>> {
        // One order for both sides: either this one is seen inside by `is_empty`, or it sees that the gate was shut before.
        self.inside.fetch_add(1, Ordering::SeqCst);
        let inside = Inside(self);
        (!self.is_shut()).then_some(inside)
    }

    /// Lets nobody in any more, for good.
    pub(super) fn shut(&self) {
        self.shut.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_shut(&self) -> bool {
        self.shut.load(Ordering::SeqCst)
    }

    /// Whether nobody is inside. Once it is shut, that stays so.
    pub(super) fn is_empty(&self) -> bool {
        self.inside.load(Ordering::SeqCst) == 0
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        // What was done inside comes before what is done by who finds the gate empty.
        self.0.inside.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The call of one queue, behind a gate.
#[derive(Default)]
pub(super) struct Branch {
    gate: Gate,
    cell: CallCell,
}

impl Branch {
    pub(super) fn new(call: Call) -> Self {
        Self {
            gate: Gate::default(),
            cell: CallCell::new(call),
        }
    }

    /// Raises the call of the moment.
    pub(super) fn raise(&self) {
        if let Some(_inside) = self.gate.enter() {
            self.cell.raise();
        }
    }

    /// Replaces the call, as [`CallCell::replace`] does. `false`, and nothing is called, once it is shut.
    pub(super) fn replace(&self, call: Call) -> bool {
        let Some(_inside) = self.gate.enter() else {
            return false;
        };
        self.cell.replace(call);
        true
    }

    /// Nothing is called from here on, but for what is called at this moment.
    pub(super) fn shut(&self) {
        self.gate.shut();
    }

    /// Whether nothing is called at this moment.
    pub(super) fn is_idle(&self) -> bool {
        self.gate.is_empty()
    }

    /// Lets go of the call of a branch that is shut and idle.
    pub(super) fn clear(&self) {
        self.cell.replace(Call::None);
    }
}

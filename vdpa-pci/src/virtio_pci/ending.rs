//! What a reset leaves behind: it ends once nobody is inside, and is dropped once no lock is held.

use std::sync::Arc;

use vdpa_core::{Call, Relayed, Result};

use super::fan::Fan;
use super::gate::Branch;
use crate::registers::Registers;

/// What ends with a reset.
#[derive(Default)]
pub(super) struct Ending {
    /// What still runs the fan.
    pub(super) from: From,
    pub(super) fan: Option<Arc<Fan>>,
    pub(super) branches: Vec<Arc<Branch>>,
    pub(super) relayed: Option<Relayed>,
}

#[derive(Clone, Copy, Default)]
pub(super) enum From {
    #[default]
    Nothing,
    Vector(u16),
    Line,
}

impl Ending {
    pub(super) fn is_idle(&self) -> bool {
        self.fan.as_ref().is_none_or(|fan| fan.is_idle())
            && self.branches.iter().all(|branch| branch.is_idle())
    }

    pub(super) fn clear(self, registers: &Registers, dead: &mut Dead) {
        let cleared = match self.from {
            From::Nothing => Ok(()),
            From::Vector(vector) => registers.access().set_vector(vector, Call::None),
            From::Line => registers.access().set_intx(Call::None),
        };
        note_kept(registers, cleared);
        dead.branches.extend(self.branches.into_iter().map(Spent));
        dead.relayed.extend(self.relayed);
    }
}

/// A vector that keeps its call: a device in reset does not interrupt, and what is left calls nobody.
pub(super) fn note_kept(registers: &Registers, cleared: Result<()>) {
    if let Err(e) = cleared.map_err(|e| registers.failed(e))
        && !registers.life.is_gone()
    {
        tracing::warn!(function = registers.name(), error = %e, "a vector keeps its call");
    }
}

/// What is dropped once no lock is held: closures own anything.
#[derive(Default)]
pub(super) struct Dead {
    pub(super) calls: Vec<Call>,
    pub(super) branches: Vec<Spent>,
    pub(super) lists: Vec<Arc<[Arc<Branch>]>>,
    pub(super) relayed: Vec<Relayed>,
}

/// A branch that is shut and idle. Whoever else has it, its call is dropped with this.
pub(super) struct Spent(pub(super) Arc<Branch>);

impl Drop for Spent {
    fn drop(&mut self) {
        self.0.clear();
    }
}

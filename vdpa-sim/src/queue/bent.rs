//! What a queue does wrong on purpose.

use vdpa_core::faults::Plan;
use vdpa_mem::{Fault, Section};

use super::mem::Place;
use super::{Completeness, Halt, Queue, QueueMem};
use crate::faults::QueueFaults;

impl Queue {
    /// The same queue, which makes the faults of `plan`.
    pub(crate) fn with_faults(mut self, plan: Option<&Plan>) -> Self {
        self.faults = plan.map(|plan| QueueFaults::new(plan, self.index, self.size()));
        self
    }

    /// What it does wrong on purpose.
    pub(crate) fn faults(&mut self) -> Option<&mut QueueFaults> {
        self.faults.as_deref_mut()
    }

    /// Makes faults of the chains that were taken.
    #[cold]
    pub(super) fn bend(&mut self, section: &Section<'_>, taken: usize) -> Result<(), Halt> {
        let Some(faults) = &mut self.faults else {
            return Ok(());
        };
        if !faults.lose_area() {
            faults.bend(&mut self.batch, section);
            return Ok(());
        }
        // So that the queue's state says that they were not taken.
        self.rewind_ring(taken)?;
        let Place { area, at, .. } = self.device;
        let fault = Fault::Miss;
        Err(Halt::Area { area, at, fault })
    }

    /// Gives them back with faults.
    #[cold]
    pub(super) fn commit_bent(
        &mut self,
        mem: &QueueMem<'_>,
        how: Completeness,
    ) -> Result<(), Halt> {
        let size = self.ring.size();
        if let Some(faults) = &mut self.faults {
            faults.bend_used(&mut self.used, size, mem.section);
        }
        self.commit_used(mem, how)?;
        if let Some(faults) = &mut self.faults {
            self.call_due |= faults.bend_ring(&mem.areas, self.ring.state(), size);
        }
        Ok(())
    }
}

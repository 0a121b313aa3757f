//! Addresses that a queue waits for: page requests.

use vdpa_mem::{Access, Iova, Section};

use super::mem::missing;
use super::{Halt, Queue, QueueMem};

/// An address that a queue waits for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait {
    at: Iova,
    want: Access,
    told: bool,
    /// How much had been unmapped when it was found missing.
    removals: u64,
}

impl Queue {
    /// The same queue, which waits for what is not mapped: [`take`](Self::take) returns chains that are mapped
    /// completely, and no others.
    pub fn with_page_requests(self) -> Self {
        Self {
            misses: true,
            ..self
        }
    }

    /// What the queue waits for since it was last asked.
    pub(crate) fn new_wait(&mut self) -> Option<(Iova, Access)> {
        let wait = self.waits.as_mut().filter(|wait| !wait.told)?;
        wait.told = true;
        Some((wait.at, wait.want))
    }

    /// Whether everything that the queue needs to go on is mapped.
    #[cold]
    pub(super) fn check_waits(&mut self, section: &Section<'_>) -> Result<(), Halt> {
        if let Some(wait) = &mut self.waits
            && missing(section, wait.at, 1, wait.want, &mut self.near).is_some()
        {
            // What was asked for may have come, and gone before the queue was looked at: it is asked for again.
            wait.told &= wait.removals == section.removals();
            wait.removals = section.removals();
            return Err(Halt::Waiting);
        }
        self.waits = None;
        self.check_areas(section)
    }

    /// Whether the areas are mapped.
    #[cold]
    pub(super) fn check_areas(&mut self, section: &Section<'_>) -> Result<(), Halt> {
        let areas = [&mut self.descriptor, &mut self.driver, &mut self.device];
        let gap = areas.into_iter().find_map(|area| area.missing(section));
        match gap {
            Some(gap) => Err(self.wait_for(section, gap)),
            None => Ok(()),
        }
    }

    fn wait_for(&mut self, section: &Section<'_>, (at, want): (Iova, Access)) -> Halt {
        self.waits = Some(Wait {
            at,
            want,
            told: false,
            removals: section.removals(),
        });
        Halt::Waiting
    }

    /// Gives back, untouched, what follows the first chain that is not mapped completely, and waits for that. Answers
    /// how many are left.
    #[cold]
    pub(super) fn take_mapped(&mut self, mem: &QueueMem<'_>, taken: usize) -> Result<usize, Halt> {
        let (near, section) = (&mut self.near, mem.section);
        // Not where the table begins: that may be mapped.
        let parked = self.ring.parked().map(|at| mem.gap.take().unwrap_or(at));
        let mut gap = parked.map(|at| (at, Access::DeviceReads));
        let mut whole = 0_usize;
        for chain in self.batch.iter() {
            let parts = [
                (chain.readable(), Access::DeviceReads),
                (chain.writable(), Access::DeviceWrites),
            ];
            let mut segments = parts
                .into_iter()
                .flat_map(|(part, want)| part.iter().map(move |segment| (segment, want)));
            let hole = segments.find_map(|(segment, want)| {
                missing(section, segment.addr, segment.len, want, near).map(|at| (at, want))
            });
            if hole.is_some() {
                gap = hole;
                break;
            }
            whole = whole.saturating_add(1);
        }
        self.rewind_ring(taken.saturating_sub(whole))?;
        match gap.map(|gap| self.wait_for(section, gap)) {
            Some(waiting) if whole == 0 => Err(waiting),
            _ => Ok(whole),
        }
    }
}

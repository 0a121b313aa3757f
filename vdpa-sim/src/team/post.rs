//! A unit in its team: its queues, and what has it served.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use vdpa_core::{Asid, Bell, GroupIndex};
use vdpa_mem::Reader;

use super::command::{Seat, Stop};
use crate::class::{Stations, Unit};
use crate::kicks::Kicks;

/// In how many looks that find nothing the clock is looked at once.
const LOOKS_A_CLOCK: u32 = 8;

/// A unit in its team.
pub(crate) struct Post {
    pub(super) unit: Box<dyn Unit>,
    pub(super) queues: Stations,
    pub(super) group: GroupIndex,
    /// The address space of its group, and the way into it, which lies on the desk while the unit is served.
    pub(super) asid: Asid,
    pub(super) reader: Reader,
    /// Stops that are not over.
    pub(super) stops: [Option<(Seat, Stop)>; 2],
    /// What has the unit served besides kicks.
    pub(super) sources: Vec<Arc<OwnedFd>>,
    /// The eventfds that kick it.
    pub(super) kicks: [Option<Arc<OwnedFd>>; 2],
    /// The numbers of the queues.
    pub(super) numbers: [usize; 2],
    pub(super) bell: Arc<Bell>,
    pub(super) hot: bool,
    /// Since when there is nothing to do, while hot.
    pub(super) quiet: Option<Instant>,
    /// How often there was nothing to do, for the looks at the clock.
    pub(super) empty: u32,
    /// When a call that is held back has to be made, while not hot.
    pub(super) due: Option<Instant>,
}

impl Post {
    /// A unit without queues, in the first address space.
    pub(crate) fn new(
        unit: Box<dyn Unit>,
        bell: Arc<Bell>,
        group: GroupIndex,
        reader: Reader,
    ) -> Self {
        Self {
            sources: unit.sources(),
            unit,
            queues: Stations::default(),
            group,
            asid: Asid::new(0),
            reader,
            stops: [None, None],
            kicks: [None, None],
            numbers: [0; 2],
            bell,
            hot: false,
            quiet: None,
            empty: 0,
            due: None,
        }
    }

    /// Has its sources watched.
    ///
    /// # Errors
    /// When one cannot be polled.
    pub(super) fn watch(&mut self, kicks: &Kicks, token: u64) -> std::io::Result<()> {
        let (mut watched, mut outcome) = (Vec::new(), Ok(()));
        for source in std::mem::take(&mut self.sources) {
            match kicks.watch_source(source, token) {
                Ok(source) => watched.push(source),
                Err(e) => outcome = Err(e),
            }
        }
        self.sources = watched;
        outcome
    }

    /// Whether nothing is in flight.
    pub(super) fn is_idle(&self) -> bool {
        self.unit.in_flight(0) == 0 && self.unit.in_flight(1) == 0
    }

    /// Counts a look that found nothing. Whether the clock need not be looked at: it is for the first of them in a row,
    /// and for one of [`LOOKS_A_CLOCK`].
    #[inline]
    pub(super) fn may_skip_clock(&mut self) -> bool {
        self.empty = self.empty.wrapping_add(1);
        self.quiet.is_some() && !self.empty.is_multiple_of(LOOKS_A_CLOCK)
    }

    /// Looked at in every pass from here on.
    pub(super) fn heat(&mut self) {
        self.hot = true;
        self.quiet = None;
        self.due = None;
    }

    /// Looked at when something is to be done for it, and at the latest when the first call that is held back is due.
    pub(super) fn cool(&mut self) {
        self.hot = false;
        let queues = self.queues.iter_mut();
        self.due = queues.filter_map(|station| station.running()?.due()).min();
    }
}

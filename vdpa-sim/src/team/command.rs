//! What a team is told, and of which queue.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use vdpa_core::{Asid, GroupIndex};
use vdpa_mem::AddressSpace;

use crate::queue::Queue;

/// What a team is told.
pub(crate) enum Command {
    /// A queue runs from here on; its `kick` is watched.
    Start {
        at: Seat,
        queue: Box<Queue>,
        kick: Option<Arc<OwnedFd>>,
    },
    /// A queue stops.
    Stop { at: Seat, how: Stop },
    /// A queue is switched on or off.
    Enable { at: Seat, on: bool },
    /// The driver is ready.
    Live,
    /// The queues of a group, none of which runs, are in another address space.
    Assign {
        group: GroupIndex,
        asid: Asid,
        space: AddressSpace,
    },
    /// Everything stops, and is kept.
    Suspend(Arc<Joint>),
    /// Everything goes on.
    Resume,
    /// Everything is taken away.
    Reset(Arc<Joint>),
    /// Everything is taken away, and the team leaves once nothing is in flight.
    Exit,
}

/// How a queue stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stop {
    Pause,
    Reset,
}

impl Command {
    /// Whether it switches the queue at `seat` on or off.
    pub(crate) fn enables(&self, seat: Seat) -> bool {
        matches!(self, Self::Enable { at, .. } if *at == seat)
    }
}

/// Where a queue sits in its team.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Seat {
    /// The queue's number.
    pub(crate) queue: usize,
    /// The unit, counted in this team.
    pub(crate) unit: usize,
    /// Its place in the unit.
    pub(crate) place: usize,
}

impl Seat {
    /// What its kicks are reported with, of the device at `berth`.
    pub(crate) fn token(self, berth: usize) -> u64 {
        token(berth, self.unit)
    }
}

/// The unit in the lower half, the berth of the device in the upper.
pub(super) fn token(berth: usize, unit: usize) -> u64 {
    (berth as u64) << 32 | unit as u64
}

/// Which unit of the device at which berth was kicked. The device there may be another by now: it is kicked for nothing
/// then, once.
pub(crate) fn kicked(token: u64) -> Option<(usize, usize)> {
    let unit = usize::try_from(token & u64::from(u32::MAX)).ok()?;
    Some((usize::try_from(token >> 32).ok()?, unit))
}

/// Something that all teams of a device do; the last one says that it is done.
pub(crate) struct Joint {
    left: AtomicUsize,
}

impl Joint {
    pub(crate) fn new(teams: usize) -> Arc<Self> {
        Arc::new(Self {
            left: AtomicUsize::new(teams),
        })
    }

    /// Whether all teams are done. Acquire pairs with the release in `done`: nothing of theirs happens any more.
    pub(crate) fn is_done(&self) -> bool {
        self.left.load(Ordering::Acquire) == 0
    }

    /// One more team is done. Answers whether it was the last one.
    pub(super) fn done(&self) -> bool {
        // Acquire too: the last one sees what the others did.
        self.left.fetch_sub(1, Ordering::AcqRel) == 1
    }
}

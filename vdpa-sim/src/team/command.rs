//! What a team is told, and of which queue.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use vdpa_core::{Asid, GroupIndex};
use vdpa_mem::AddressSpace;

use super::joint::Joint;
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

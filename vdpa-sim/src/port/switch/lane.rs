//! The way of a pair through a switch.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::incoming::Incoming;
use super::outgoing::Outgoing;
use super::vlan::Refused;
use super::{End, Switch};
use crate::frames::FrameBatch;
use crate::port::{Lane, Room};
use crate::stats::counters;

counters! {
    /// What a lane counts.
    pub(super) enum Count;
    /// The names of these counters.
    pub(super) const SWITCH_COUNTERS {
        /// Frames for one station that nobody has been seen with: they went to all.
        Flooded = "flooded",
        /// Copies for devices that had too much to receive already.
        Full = "dropped.full",
        /// Frames that nobody else of the VLAN is there for.
        Nobody = "dropped.nobody",
        /// Frames for a station on the side that they came from.
        Back = "dropped.back",
        /// Frames with a tag at an access port, or of the VLAN that is none.
        Vlan = "dropped.vlan",
        /// Frames shorter than their headers.
        Short = "dropped.short",
        /// Frames from a group or from address 0.
        Source = "dropped.source",
        /// Frames for the switch itself.
        Reserved = "dropped.reserved",
    }
}

impl From<Refused> for Count {
    fn from(why: Refused) -> Self {
        match why {
            Refused::Short => Self::Short,
            Refused::Vlan => Self::Vlan,
            Refused::Source => Self::Source,
            Refused::Reserved => Self::Reserved,
        }
    }
}

/// A pair's lane.
pub(super) struct SwitchLane {
    outgoing: Outgoing,
    incoming: Incoming,
}

impl SwitchLane {
    pub(super) fn new(switch: &Arc<Switch>, own: &Arc<End>, pair: u16, longest: usize) -> Self {
        Self {
            outgoing: Outgoing::new(switch, own, pair, longest),
            incoming: Incoming::new(own, pair),
        }
    }
}

/// The pair that reads what pair `pair` sends, of `active`.
pub(super) fn reader(pair: u16, active: u16) -> u16 {
    pair.checked_rem(active).unwrap_or(0)
}

impl Lane for SwitchLane {
    fn room(&mut self) -> Room {
        self.outgoing.room()
    }

    fn send(&mut self, batch: Box<FrameBatch>) -> Box<FrameBatch> {
        self.outgoing.send(batch)
    }

    fn receive(&mut self, take: &mut dyn FnMut(&mut FrameBatch)) -> bool {
        self.incoming.receive(take);
        false
    }

    fn held(&mut self, to: &mut dyn FnMut(&FrameBatch)) {
        self.incoming.held(to);
    }

    fn discard(&mut self) -> u64 {
        self.incoming.discard()
    }

    fn sources(&self) -> Vec<Arc<OwnedFd>> {
        Vec::new()
    }
}

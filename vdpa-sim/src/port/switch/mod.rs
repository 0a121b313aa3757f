//! `switch:NAME[:VLAN]`: many devices of one management device, behind a switch that learns.
//!
//! ```text
//!   sender's lane                                            receiver's lane of pair i modulo the pairs in use
//!     batch ─ each frame: admitted? learnt? to whom? ─┐
//!             all to one, unchanged: the batch itself ├──▶ full ───▶ taken, its frames given to the driver
//!             else: copied, target by target ─────────┘◀── empty ◀── given back
//! ```
//! Each pair of a device has a bounded queue of batches, into which all others put theirs: lock-free, one step and one
//! bell for a batch. Nothing is allocated in the steady state.
//!
//! # Which frames go where
//! * A frame goes to the device behind which its destination was seen last, in its VLAN; to all others of the VLAN if
//!   that is nowhere, or the frame is for a group; never back to where it came from. 802.1Q's reserved addresses
//!   (01-80-C2-00-00-0X) are not passed on.
//! * Without VLAN a port is a trunk: frames have their tags, and those without are of VLAN 0. With VLAN, 1 to 4094, it
//!   is an access port: frames have no tags there, a trunk sees them with the tag, and what comes with one is dropped.
//! * 4096 stations are remembered, each for 300 s after its last frame; see [`table`] for what happens beyond that.
//! * A device whose driver is not ready, or whose link is down, gets nothing, as if it were not there; what was sent to
//!   it before a reset or the loss of its link is not delivered after it.
//!
//! # When a device is slow
//! What comes for a device whose queue is full is dropped and counted at the sender, as switches do: a sender that
//! waited would stop what it sends to others. So a sender never waits here, and between two devices that shall lose
//! nothing there is `wire`.

mod incoming;
mod lane;
mod outgoing;
mod table;
#[cfg(test)]
mod tests;
pub mod vlan;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use crossbeam_queue::ArrayQueue;

use super::tally::Tally;
use super::{Lane, Port, Presence};
use crate::frames::FrameBatch;
use crate::shared::lock;

pub use vlan::Membership;

use lane::{SWITCH_COUNTERS, SwitchLane};
use table::{Id, Table};

/// How many batches wait for a pair at most.
const DEPTH: usize = 32;

/// How many devices are on a switch at most.
const DEVICES: usize = 4096;

/// The switches that devices of one [`SimMgmt`](crate::SimMgmt) can be on, by name. A value, not a global.
#[derive(Clone, Default)]
pub struct Switches(Arc<Mutex<HashMap<String, Weak<Switch>>>>);

/// A switch that has no place left.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("switch:{name} has its {DEVICES} places taken: name another switch")]
pub struct SwitchFull {
    /// The switch's name.
    pub name: String,
}

/// A switch: who is on it, and where stations are.
struct Switch {
    ends: Mutex<Ends>,
    /// Counts changes of the ends, so that they are looked at only then.
    version: AtomicU64,
    table: Table,
    begun: Instant,
}

#[derive(Default)]
struct Ends {
    slots: Vec<Option<Arc<End>>>,
    turns: u16,
}

/// A device on a switch.
struct End {
    id: Id,
    membership: Membership,
    presence: Arc<Presence>,
    inboxes: Box<[Inbox]>,
    tally: Tally,
}

/// What waits for a pair.
struct Inbox {
    full: ArrayQueue<Box<FrameBatch>>,
    empty: ArrayQueue<Box<FrameBatch>>,
}

impl Inbox {
    fn new() -> Self {
        Self {
            full: ArrayQueue::new(DEPTH),
            empty: ArrayQueue::new(DEPTH),
        }
    }

    /// Gives a batch back. There is room for as many as wait at most; what is beyond is freed.
    #[inline]
    fn give_back(&self, mut batch: Box<FrameBatch>) {
        batch.clear();
        let _freed = self.empty.push(batch);
    }
}

impl Switch {
    /// Seconds since the switch was made, in 136 years.
    fn now(&self) -> u32 {
        u32::try_from(self.begun.elapsed().as_secs()).unwrap_or(u32::MAX)
    }

    /// Puts a device at a free place.
    fn attach(&self, end: impl FnOnce(Id) -> End) -> Option<Arc<End>> {
        let mut ends = lock(&self.ends);
        let free = ends.slots.iter().position(Option::is_none);
        let slot = free.unwrap_or(ends.slots.len());
        if slot >= DEVICES {
            return None;
        }
        // Never 0, which is nobody's.
        ends.turns = ends.turns.checked_add(1).unwrap_or(1);
        let id = Id {
            slot: u16::try_from(slot).ok()?,
            turn: ends.turns,
        };
        let end = Arc::new(end(id));
        match ends.slots.get_mut(slot) {
            Some(place) => *place = Some(Arc::clone(&end)),
            None => ends.slots.push(Some(Arc::clone(&end))),
        }
        self.change();
        Some(end)
    }

    fn detach(&self, id: Id) {
        let end = lock(&self.ends)
            .slots
            .get_mut(usize::from(id.slot))
            .and_then(Option::take);
        self.change();
        // Batches that wait: freed outside of the lock.
        drop(end);
    }

    fn change(&self) {
        // Release pairs with the acquire in `SwitchLane::refresh`.
        self.version.fetch_add(1, Ordering::Release);
    }
}

impl Switches {
    /// No switches yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a place on the switch `name`. It is free again once the port is dropped.
    ///
    /// * `membership`: the VLAN is in 1 to 4094
    /// * `pairs`, `longest`: the device's queue pairs, and the bytes of its longest frame
    ///
    /// # Errors
    /// [`SwitchFull`] when 4096 devices are on it.
    pub fn take(
        &self,
        name: &str,
        membership: Membership,
        presence: Arc<Presence>,
        pairs: u16,
        longest: usize,
    ) -> Result<SwitchPort, SwitchFull> {
        let mut switches = lock(&self.0);
        switches.retain(|_, switch| switch.strong_count() != 0);
        let known = switches.get(name).and_then(Weak::upgrade);
        let switch = known.unwrap_or_else(|| {
            let switch = Arc::new(Switch {
                ends: Mutex::default(),
                version: AtomicU64::new(1),
                table: Table::new(),
                begun: Instant::now(),
            });
            switches.insert(name.to_owned(), Arc::downgrade(&switch));
            switch
        });
        let own = switch.attach(|id| End {
            id,
            membership,
            presence,
            inboxes: (0..pairs).map(|_| Inbox::new()).collect(),
            tally: Tally::new(SWITCH_COUNTERS, pairs),
        });
        let own = own.ok_or_else(|| SwitchFull {
            name: name.to_owned(),
        })?;
        Ok(SwitchPort {
            switch,
            own,
            longest,
        })
    }
}

/// A device's place on a switch. Pair `i` sends to the pair `i` modulo those in use of whom a frame is for.
pub struct SwitchPort {
    switch: Arc<Switch>,
    own: Arc<End>,
    longest: usize,
}

impl Drop for SwitchPort {
    fn drop(&mut self) {
        self.switch.detach(self.own.id);
    }
}

impl Port for SwitchPort {
    fn lane(&self, pair: u16) -> Box<dyn Lane> {
        Box::new(SwitchLane::new(&self.switch, &self.own, pair, self.longest))
    }

    fn changed(&self) {
        // What waits may be another pair's to take now.
        self.own.presence.ring_all();
    }

    fn stats(&self, to: &mut dyn FnMut(&str, u64)) {
        self.own.tally.read(to);
    }
}

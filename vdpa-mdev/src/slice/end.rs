//! A slice as its uplink sees it: who it is, and what is under way between the two.
//!
//! ```text
//!   worker of the slice                       worker of the uplink
//!     full batch  ───── Outbox::full ─────▶     taken in turn, frame by frame
//!     empty batch ◀──── Outbox::empty ─────     given back
//!     taken, frames given to the driver ◀────── Inbox::full ───── filled with what is for the slice
//!     given back ──────────────────────── Inbox::empty ─▶
//! ```
//! Both are bounded. A full outbox stops the slice that fills it; a full inbox loses what is for the slice that does not
//! empty it. Whoever waits for room says so, and is rung by who makes some.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

use crossbeam_queue::ArrayQueue;
use vdpa_core::Bell;
use vdpa_core::config::Mac;
use vdpa_sim::Counters;
use vdpa_sim::frames::FrameBatch;
use vdpa_sim::port::vlan::Refused;
use vdpa_sim::port::{Membership, Presence};

/// How many batches that a pair sent wait at most.
const SENT: usize = 4;

/// How many batches wait for a pair at most.
pub(super) const CAME: usize = 16;

/// How many empty batches a pair keeps: those that waited, and some of senders that send to it at once.
const SPARES: usize = 2 * CAME;

/// What is counted for a slice, by the worker of its uplink alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Count {
    /// Frames that it sent to the wire.
    ToWire,
    /// Copies of its frames for other slices.
    ToSlices,
    /// Frames and copies that were passed to it.
    Received,
    /// Frames from another address than its own.
    Source,
    /// Frames with a tag, which it may not send.
    Vlan,
    /// Frames shorter than their headers.
    Short,
    /// Frames for the next switch on the cable alone.
    Reserved,
    /// Frames for the wire while there was none.
    Unsent,
    /// Frames and copies for it, which had too much to receive already.
    Full,
    /// Frames and copies for it while its driver was not ready.
    Absent,
}

/// The names of these counters.
pub(super) const COUNTERS: &[&str] = &[
    "to_wire",
    "to_slices",
    "received",
    "refused.source",
    "refused.vlan",
    "refused.short",
    "refused.reserved",
    "dropped.unsent",
    "dropped.full",
    "dropped.absent",
];

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

/// A slice.
pub(super) struct End {
    /// Which slice of the uplink: no other one has, or had, this number.
    pub(super) number: u32,
    pub(super) name: String,
    /// Its VLAN.
    pub(super) place: Membership,
    mac: AtomicU64,
    /// Whether the management side wants its link up.
    pub(super) wanted: AtomicBool,
    pub(super) presence: Arc<Presence>,
    /// By pair.
    pub(super) ways: Box<[Way]>,
    pub(super) counters: Counters,
    /// Frames that were lost when another pair was to receive them, since that had too many already. Counted by its lanes.
    pub(super) moved: AtomicU64,
}

/// What is under way from and to a pair.
pub(super) struct Way {
    pub(super) sent: Outbox,
    pub(super) came: Inbox,
}

impl End {
    pub(super) fn new(
        number: u32,
        name: String,
        place: Membership,
        mac: Mac,
        wanted: bool,
        presence: Arc<Presence>,
        pairs: u16,
    ) -> Self {
        let way = |_| Way {
            sent: Outbox {
                full: ArrayQueue::new(SENT),
                empty: ArrayQueue::new(SENT),
                blocked: AtomicBool::new(false),
            },
            came: Inbox {
                full: ArrayQueue::new(CAME),
                empty: ArrayQueue::new(SPARES),
                waiting: AtomicBool::new(false),
            },
        };
        Self {
            number,
            name,
            place,
            mac: AtomicU64::new(packed(mac)),
            wanted: AtomicBool::new(wanted),
            presence,
            ways: (0..pairs).map(way).collect(),
            counters: Counters::new(COUNTERS),
            moved: AtomicU64::new(0),
        }
    }

    pub(super) fn pairs(&self) -> u16 {
        // Made for a number of 16 bits.
        self.ways.len() as u16
    }

    /// Its address.
    pub(super) fn mac(&self) -> Mac {
        let [_, _, a, b, c, d, e, f] = self.mac.load(Ordering::Relaxed).to_be_bytes();
        Mac::new([a, b, c, d, e, f])
    }

    pub(super) fn set_mac(&self, mac: Mac) {
        self.mac.store(packed(mac), Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn count(&self, what: Count, more: u64) {
        self.counters.add(what as usize, more);
    }

    /// Whether frames of the two could be taken for each other's: one VLAN, or all of them.
    pub(super) fn meets(&self, place: Membership) -> bool {
        self.place == place || [self.place, place].contains(&Membership::Trunk)
    }
}

fn packed(mac: Mac) -> u64 {
    let [a, b, c, d, e, f] = mac.octets();
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

/// The pair that reads what is for pair `pair`, of `active`.
pub(super) fn reader(pair: u16, active: u16) -> u16 {
    pair.checked_rem(active).unwrap_or(0)
}

/// What a pair sent.
pub(super) struct Outbox {
    full: ArrayQueue<Box<FrameBatch>>,
    empty: ArrayQueue<Box<FrameBatch>>,
    /// The pair waits for room.
    blocked: AtomicBool,
}

impl Outbox {
    /// Whether there is room; without, the pair is rung once there is some.
    pub(super) fn has_room(&self) -> bool {
        if !self.full.is_full() {
            return true;
        }
        self.blocked.store(true, Ordering::Relaxed);
        // Between "I wait" and the second look; pairs with the fence in `take`.
        fence(Ordering::SeqCst);
        let room = !self.full.is_full();
        if room {
            self.blocked.store(false, Ordering::Relaxed);
        }
        room
    }

    /// Puts a batch in. It comes back where there is no room.
    pub(super) fn put(&self, batch: Box<FrameBatch>) -> Result<(), Box<FrameBatch>> {
        self.full.push(batch)
    }

    /// The next batch; pair `pair`, if it waits for room, is rung.
    pub(super) fn take(&self, presence: &Presence, pair: u16) -> Option<Box<FrameBatch>> {
        let batch = self.full.pop()?;
        // Between making room and looking who waits for it; pairs with the fence in `has_room`.
        fence(Ordering::SeqCst);
        if self.blocked.load(Ordering::Relaxed) && self.blocked.swap(false, Ordering::Relaxed) {
            presence.ring(pair);
        }
        Some(batch)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.full.is_empty()
    }

    pub(super) fn spare(&self) -> Option<Box<FrameBatch>> {
        self.empty.pop()
    }

    /// There is room for as many as wait at most; what is beyond is freed.
    pub(super) fn give_back(&self, mut batch: Box<FrameBatch>) {
        batch.clear();
        let _freed = self.empty.push(batch);
    }
}

/// Frames for a slice, as it was in this epoch.
pub(super) struct Parcel {
    pub(super) epoch: u64,
    pub(super) batch: Box<FrameBatch>,
}

/// What came for a pair.
pub(super) struct Inbox {
    full: ArrayQueue<Parcel>,
    empty: ArrayQueue<Box<FrameBatch>>,
    /// The uplink waits for room.
    waiting: AtomicBool,
}

impl Inbox {
    /// How many parcels wait.
    pub(super) fn len(&self) -> usize {
        self.full.len()
    }

    /// Puts a parcel in. It comes back where there is no room.
    pub(super) fn put(&self, parcel: Parcel) -> Result<(), Parcel> {
        self.full.push(parcel)
    }

    /// The uplink waits for room, and is rung once there is more. To be looked at again after this.
    pub(super) fn ask(&self) {
        self.waiting.store(true, Ordering::Relaxed);
        // Between "I wait" and the second look; pairs with the fence in `take`.
        fence(Ordering::SeqCst);
    }

    /// The next parcel; the uplink, if it waits for room, is rung by `bell`.
    pub(super) fn take(&self, bell: &Bell) -> Option<Parcel> {
        let parcel = self.full.pop()?;
        // Between making room and looking who waits for it; pairs with the fence in `ask`.
        fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::Relaxed) && self.waiting.swap(false, Ordering::Relaxed) {
            bell.ring();
        }
        Some(parcel)
    }

    /// Puts back what another pair had begun with. What there is no room for is lost: answers with how many frames.
    pub(super) fn hand_over(&self, parcel: Parcel) -> usize {
        match self.full.push(parcel) {
            Ok(()) => 0,
            Err(parcel) => {
                let lost = parcel.batch.len();
                self.give_back(parcel.batch);
                lost
            }
        }
    }

    pub(super) fn spare(&self) -> Option<Box<FrameBatch>> {
        self.empty.pop()
    }

    pub(super) fn give_back(&self, mut batch: Box<FrameBatch>) {
        batch.clear();
        let _freed = self.empty.push(batch);
    }
}

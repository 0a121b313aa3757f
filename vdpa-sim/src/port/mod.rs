//! Ports: where a network device's frames go to and come from.
//!
//! A port gives each queue pair a [`Lane`] of its own, which goes to the pair's worker. Batches change hands by
//! pointer; nothing on the way is locked, allocated or copied for a frame, but for the files of `pcap`, the system calls of
//! `tap`, and the copies that a switch makes of frames for several.
//!
//! | port                  | frames of the driver                | frames for the driver                | when it is full   |
//! |-----------------------|-------------------------------------|--------------------------------------|-------------------|
//! | `loopback`            | come back                           | those                                | sending waits     |
//! | `null`                | are thrown away                     | none                                 | never             |
//! | `wire:NAME`           | go to the other device of that name | what that one sends                  | sending waits     |
//! | `switch:NAME[:VLAN]`  | go to the devices that they are for | what others send to it               | drops, counted    |
//! | `tap:NAME`            | go to the interface of the kernel   | what the kernel sends there          | sending waits     |
//! | `pcap:IN[:OUT]`       | are written to OUT                  | those of IN, once, to the first pair | never             |
//!
//! A packet in a batch need not be a finished frame: its header says what is left to be done, and ports pass that on. One
//! that needs frames as they are on a cable has [`Plain`](crate::offload::Plain) make them, as `pcap` does.
//!
//! Any of them may have a [`Mirror`]: a capture of all that is sent and received there.
//!
//! Between two live drivers nothing is lost for want of buffers, but on a switch: frames wait in the port, up to its
//! depth, and then the sender's queue is not served on. What is sent to nobody (no peer, its driver not ready, its link
//! down) is discarded and counted.

mod loopback;
mod mirror;
mod null;
mod pcap;
mod pipe;
mod switch;
mod tally;
mod tap;
mod wire;

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use vdpa_core::Bell;

use crate::frames::FrameBatch;

pub use loopback::Loopback;
pub use mirror::{Mirror, MirrorError, Mirrors};
pub use null::Null;
pub use pcap::PcapPort;
pub use switch::{Membership, SwitchFull, SwitchPort, Switches, vlan};
pub use tap::{TapError, TapPort};
pub use wire::{WirePort, WireTaken, Wires};

/// Where the frames of a network device go to and come from.
pub trait Port: Send + Sync {
    /// The lane of queue pair `pair`: asked for once for each pair, when the device is opened.
    fn lane(&self, pair: u16) -> Box<dyn Lane>;

    /// Whether the device is there, or how many pairs it uses, has changed.
    fn changed(&self);

    /// Shows `to` the batches that wait here for the driver, with the pair that each is for, in their order: they go
    /// along when the device is moved. Called while no pair is served.
    ///
    /// Not for what comes from outside by itself, as from the kernel: that waits there. What a lane has in its own hands
    /// it shows itself ([`Lane::held`]).
    fn waiting(&self, to: &mut dyn FnMut(u16, &FrameBatch)) {
        let _none = to;
    }

    /// Calls `to` for each counter of the port's own, as `port.NAME`.
    fn stats(&self, to: &mut dyn FnMut(&str, u64)) {
        let _none = to;
    }
}

/// Whether a batch can be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Room {
    /// Yes.
    Yes,
    /// Not now. The pair's bell is rung when that changes.
    Full,
    /// There is nobody to send to: what is sent is discarded.
    Nowhere,
}

/// The way of one queue pair through a port.
pub trait Lane: Send {
    /// Whether a batch can be sent now.
    fn room(&mut self) -> Room;

    /// Sends a batch, after [`room`](Self::room) said yes, and returns an empty one in its place.
    fn send(&mut self, batch: Box<FrameBatch>) -> Box<FrameBatch>;

    /// Offers what has come to `take`, batch by batch, which takes out of each as many frames as it can. What is left
    /// is offered again. Answers whether something could not be looked at just now.
    fn receive(&mut self, take: &mut dyn FnMut(&mut FrameBatch)) -> bool;

    /// Files whose becoming ready, for reading or for writing, has the pair served: frames that come from outside.
    /// Asked for once, and watched edge-triggered.
    fn sources(&self) -> Vec<Arc<OwnedFd>>;

    /// Shows `to` the batches that have come and are in the lane itself, where [`Port::waiting`] does not find them, in
    /// their order. Called when the device is suspended.
    fn held(&mut self, to: &mut dyn FnMut(&FrameBatch)) {
        let _none = to;
    }

    /// Throws away what has come, since there is no queue for it. Answers how many frames that were.
    fn discard(&mut self) -> u64;
}

/// The epoch that begins next, of whatever device: no two have one in common, so what is left on the way to a device
/// that is gone is never taken for the next one's at its place. 0 is nobody's.
static EPOCHS: AtomicU64 = AtomicU64::new(1);

fn fresh_epoch() -> u64 {
    EPOCHS.fetch_add(1, Ordering::Relaxed)
}

/// What a device lets others know of it.
pub struct Presence {
    live: AtomicBool,
    link: AtomicBool,
    /// The port changed the link, and the driver has not been told.
    untold: AtomicBool,
    /// How many pairs receive, at least 1.
    active: AtomicU16,
    /// Another one after each reset and loss of the link. What was sent to the device before does not arrive after it.
    epoch: AtomicU64,
    bells: OnceLock<Arc<[Arc<Bell>]>>,
}

impl Presence {
    /// A device that is not live.
    pub fn new(link: bool) -> Arc<Self> {
        Arc::new(Self {
            live: AtomicBool::new(false),
            link: AtomicBool::new(link),
            untold: AtomicBool::new(false),
            active: AtomicU16::new(1),
            epoch: AtomicU64::new(fresh_epoch()),
            bells: OnceLock::new(),
        })
    }

    /// The bells of the device's pairs, once.
    pub(crate) fn set_bells(&self, bells: &Arc<[Arc<Bell>]>) {
        let _again = self.bells.set(Arc::clone(bells));
    }

    /// Has a pair served: for a port that has something for it, or has room again.
    pub fn ring(&self, pair: u16) {
        if let Some(bell) = self
            .bells
            .get()
            .and_then(|bells| bells.get(usize::from(pair)))
        {
            bell.ring();
        }
    }

    /// Has all pairs served.
    pub fn ring_all(&self) {
        for bell in self.bells.get().into_iter().flat_map(|bells| bells.iter()) {
            bell.ring();
        }
    }

    pub(crate) fn set_live(&self, live: bool) {
        // Release pairs with the acquire in `is_there`.
        self.live.store(live, Ordering::Release);
        if !live {
            // After `live`: who reads the new epoch and then `live` does not find the device there.
            self.epoch.store(fresh_epoch(), Ordering::Release);
        }
    }

    pub(crate) fn set_link(&self, up: bool) -> bool {
        let changed = self.link.swap(up, Ordering::AcqRel) != up;
        if changed && !up {
            // As in `set_live`.
            self.epoch.store(fresh_epoch(), Ordering::Release);
        }
        changed
    }

    /// The port has something to be linked to, or has nothing any more: the link is up or down, and a pair that is served
    /// tells the driver.
    pub fn set_carrier(&self, up: bool) {
        if self.set_link(up) {
            // Release pairs with the acquire in `take_untold`.
            self.untold.store(true, Ordering::Release);
            self.ring_all();
        }
    }

    /// Whether the port changed the link since this was asked last.
    #[inline]
    pub(crate) fn take_untold(&self) -> bool {
        self.untold.load(Ordering::Relaxed) && self.untold.swap(false, Ordering::Acquire)
    }

    pub(crate) fn set_active(&self, pairs: u16) {
        self.active.store(pairs.max(1), Ordering::Release);
    }

    /// Whether its driver is ready, and its link up.
    #[inline]
    pub fn is_there(&self) -> bool {
        self.live.load(Ordering::Acquire) && self.has_link()
    }

    /// Whether its link is up.
    #[inline]
    pub fn has_link(&self) -> bool {
        self.link.load(Ordering::Acquire)
    }

    /// How many pairs receive, at least 1.
    #[inline]
    pub fn active(&self) -> u16 {
        self.active.load(Ordering::Acquire)
    }

    /// Another number after each reset and loss of the link, and never one that another device had: a port that keeps
    /// what is on its way to the device stamps it with this, before it asks whether the device [is there](Self::is_there),
    /// and discards what has another one when it arrives.
    #[inline]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }
}

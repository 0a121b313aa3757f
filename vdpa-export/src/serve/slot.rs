//! One queue, as far as the front end has said what it is.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use vdpa_core::{Call, Doorbell, Kick};
use vdpa_mem::{Access, Iova};

use super::watch::set_nonblocking;

/// How the front end kicks a queue.
#[derive(Clone, Debug)]
pub(crate) enum KickFrom {
    /// By an eventfd.
    EventFd(Arc<OwnedFd>),
    /// By nothing: the queue is to be looked at, again and again.
    Polled,
}

impl KickFrom {
    pub(super) fn of_contract(&self) -> Kick {
        match self {
            Self::EventFd(event) => Kick::Given(Arc::clone(event)),
            Self::Polled => Kick::Taken,
        }
    }
}

/// A part of a ring that is not mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Awaited {
    /// Its first address, and what for.
    pub(super) gap: (Iova, Access),
    /// Whether it was asked for.
    pub(super) told: bool,
}

/// What was said of a queue, and whether it runs.
#[derive(Default)]
pub(super) struct Slot {
    /// In descriptors.
    pub(super) size: Option<u16>,
    /// Descriptor, driver and device area, at the front end's addresses.
    pub(super) areas: Option<[u64; 3]>,
    /// Where it begins, as [`base`](super::base) has it; where it stood when it was stopped.
    pub(super) base: Option<u32>,
    pub(super) kick: Option<KickFrom>,
    pub(super) call: Call,
    /// Written when the queue is lost.
    pub(super) error: Option<Arc<OwnedFd>>,
    /// `None`: nothing was said.
    pub(super) enabled: Option<bool>,
    /// Writes to its device area are to be logged.
    pub(super) logged: bool,
    /// Where the device area is for the device, of its last start.
    pub(super) started_at: Option<Iova>,
    /// What its start waits for.
    pub(super) awaits: Option<Awaited>,
    /// Rings it while it runs.
    pub(super) doorbell: Option<Doorbell>,
}

impl Slot {
    pub(super) fn is_running(&self) -> bool {
        self.doorbell.is_some()
    }

    /// Whether all is said that a start needs.
    pub(super) fn is_complete(&self) -> bool {
        self.size.is_some() && self.areas.is_some() && self.kick.is_some()
    }

    /// It stopped: where it stands is kept, and a new kick starts it again.
    pub(super) fn stopped_at(&mut self, base: Option<u32>) {
        self.base = base;
        self.kick = None;
        self.doorbell = None;
    }

    /// Tells the front end that it is lost.
    pub(super) fn raise_error(&self) {
        let Some(event) = &self.error else {
            return;
        };
        // Each time: the front end shares its flags.
        set_nonblocking(event);
        // One that is full says it already.
        let _full = nix::unistd::write(event, &1u64.to_ne_bytes());
    }

    /// As nothing was said, but for whom to call.
    pub(super) fn reset(&mut self) {
        *self = Self {
            call: std::mem::take(&mut self.call),
            error: self.error.take(),
            ..Self::default()
        };
    }
}

//! Eventfds, whichever crate made them.
#![allow(
    unsafe_code,
    reason = "`EventFd` gives its descriptor away, and takes one over, by number only"
)]

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use super::VmmError;

/// An eventfd: what a VMM kicks a device by (an ioeventfd), or is called by (an irqfd). Clones are the same descriptor.
///
/// Made of the [`EventFd`] of vmm-sys-util 0.15, or of an [`OwnedFd`], which every VMM's own type gives.
#[derive(Clone, Debug)]
pub struct Signal(Arc<OwnedFd>);

impl Signal {
    /// The descriptor, as the contract takes it.
    pub(super) fn shared(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.0)
    }

    /// The eventfd again, by a descriptor of its own.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn to_event_fd(&self) -> Result<EventFd, VmmError> {
        let own = self.0.try_clone().map_err(VmmError::eventfd("duplicate"))?;
        // SAFETY: the number is that of a descriptor which nobody else owns from here on.
        Ok(unsafe { EventFd::from_raw_fd(own.into_raw_fd()) })
    }
}

impl From<EventFd> for Signal {
    fn from(event: EventFd) -> Self {
        // SAFETY: as above; `event` gave it up.
        OwnedFd::from(unsafe { File::from_raw_fd(event.into_raw_fd()) }).into()
    }
}

impl TryFrom<&EventFd> for Signal {
    type Error = VmmError;

    /// A duplicate of it, where the VMM keeps its own.
    fn try_from(event: &EventFd) -> Result<Self, VmmError> {
        let own = event.try_clone();
        own.map(Self::from).map_err(VmmError::eventfd("duplicate"))
    }
}

impl From<OwnedFd> for Signal {
    fn from(event: OwnedFd) -> Self {
        Self(Arc::new(event))
    }
}

impl From<Arc<OwnedFd>> for Signal {
    fn from(event: Arc<OwnedFd>) -> Self {
        Self(event)
    }
}

impl AsFd for Signal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

//! The way to end a server.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::ServerError;

/// Ends every server that is run with it, or with a clone of it, from any thread. It stays set.
#[derive(Clone, Debug)]
pub struct Stop(Arc<OwnedFd>);

impl Stop {
    /// One that is not set.
    ///
    /// # Errors
    /// When the system gives no eventfd.
    pub fn new() -> Result<Self, ServerError> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let event = EventFd::from_value_and_flags(0, flags)
            .map_err(ServerError::system("create an eventfd"))?;
        Ok(Self(Arc::new(event.into())))
    }

    /// Whether it is set.
    pub(super) fn is_set(&self) -> bool {
        let mut asked = [PollFd::new(self.as_fd(), PollFlags::POLLIN)];
        poll(&mut asked, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    /// Sets it: the servers let go of their front ends and end. Nothing but one write to an eventfd: a signal handler may
    /// do it.
    pub fn set(&self) {
        // Full says the same.
        let _full = nix::unistd::write(&*self.0, &1u64.to_ne_bytes());
    }
}

/// Readable once it is set.
impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

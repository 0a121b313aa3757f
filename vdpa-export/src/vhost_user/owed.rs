//! What a front end is asked and told on its channel.
//!
//! A VMM that waits for an answer of ours may do nothing else meanwhile, the reading of its channel included: QEMU takes
//! translations back under the lock that its main loop needs. So nobody waits here for room in the channel. What there is
//! none for is kept, each thing once, until the front end has read what came before.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::poll::PollFlags;
use vdpa_vhost_user::payload::{Access, Iotlb, IotlbKind};
use vdpa_vhost_user::{BackMessage, ToFront};

use super::{CutOff, wait};

/// How many things are kept at most: more than a device has queues, each of which waits for one address.
const MOST: usize = 4096;

/// How long one message may take for which there is room.
const PATIENCE: Duration = Duration::from_millis(200);

/// A message for the front end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Owed {
    /// The configuration changed.
    Config,
    /// The device waits for this address.
    Miss { iova: u64, access: Access },
}

impl Owed {
    fn message(self) -> BackMessage {
        match self {
            Self::Config => BackMessage::ConfigChange,
            Self::Miss { iova, access } => BackMessage::IotlbMsg(Iotlb {
                iova,
                size: 0,
                user: 0,
                access,
                kind: IotlbKind::Miss,
            }),
        }
    }
}

/// The channel, and what is kept for it.
pub(super) struct Channel {
    to: ToFront,
    owed: VecDeque<Owed>,
}

impl Channel {
    /// * `acknowledged`: whether the front end answers what wants an acknowledgement
    pub(super) fn new(fd: OwnedFd, acknowledged: bool) -> Self {
        let mut to = ToFront::new(fd, acknowledged);
        to.connection_mut().set_patience(PATIENCE);
        Self {
            to,
            owed: VecDeque::new(),
        }
    }

    /// To be sent by [`pay`](Self::pay), unless it is to be already.
    ///
    /// # Errors
    /// [`CutOff::Unread`] when too much is.
    pub(super) fn owe(&mut self, what: Owed) -> Result<(), CutOff> {
        if self.owed.contains(&what) {
            return Ok(());
        }
        if self.owed.len() >= MOST {
            return Err(CutOff::Unread { requests: MOST });
        }
        self.owed.push_back(what);
        Ok(())
    }

    /// Sends what there is room for.
    ///
    /// # Errors
    /// [`CutOff::Channel`] when the front end has closed it, or what it gave is no channel.
    pub(super) fn pay(&mut self) -> Result<(), CutOff> {
        let failed = |source| CutOff::Channel { source };
        while let Some(next) = self.owed.front()
            && wait::is_writable(self.to.as_fd())
        {
            self.to.tell(&next.message()).map_err(failed)?;
            self.owed.pop_front();
        }
        Ok(())
    }

    /// What to wait for, for more to be sent.
    pub(super) fn waits_for(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        (!self.owed.is_empty()).then(|| (self.to.as_fd(), PollFlags::POLLOUT))
    }
}

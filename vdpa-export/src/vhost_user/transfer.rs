//! What the device alone knows, on its way to another back end or from it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::PollFlags;
use vdpa_vhost_user::Reply;
use vdpa_vhost_user::payload::Direction;

use super::front::FrontEnd;
use super::wait;
use crate::at_once;

/// A state longer than this is none.
const MOST: usize = 16 << 20;

/// How long its end may take once the front end asks for it.
const END: Duration = Duration::from_secs(5);

/// A transfer, and how far it is.
#[derive(Default)]
pub(super) enum Transfer {
    /// There is none.
    #[default]
    None,
    /// Bytes that are still to be written.
    Saving { to: OwnedFd, rest: Vec<u8> },
    /// Bytes that were read so far.
    Loading { from: OwnedFd, bytes: Vec<u8> },
    /// Everything was written.
    Saved,
    /// Everything was read.
    Loaded(Vec<u8>),
    /// It came to nothing.
    Failed,
}

impl Transfer {
    /// What it waits for.
    pub(super) fn waits_for(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        match self {
            Self::Saving { to, .. } => Some((to.as_fd(), PollFlags::POLLOUT)),
            Self::Loading { from, .. } => Some((from.as_fd(), PollFlags::POLLIN)),
            _ => None,
        }
    }

    /// Moves what can be moved now.
    pub(super) fn go_on(&mut self) {
        *self = match std::mem::take(self) {
            Self::Saving { to, rest } => write_some(to, rest),
            Self::Loading { from, bytes } => read_some(from, bytes),
            done => done,
        };
    }

    /// Moves the rest.
    fn finish(&mut self) {
        let until = Instant::now().checked_add(END);
        while let Some(what) = self.waits_for() {
            let ready = wait::any([Some(what)], until);
            let late = until.is_none_or(|until| Instant::now() >= until);
            match ready {
                Ok([true]) => self.go_on(),
                Ok([false]) if !late => {}
                _ => *self = Self::Failed,
            }
        }
    }
}

fn write_some(to: OwnedFd, mut rest: Vec<u8>) -> Transfer {
    while !rest.is_empty() {
        match at_once::write(&to, &rest) {
            Ok(written) => drop(rest.drain(..written.min(rest.len()))),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Transfer::Saving { to, rest },
            Err(error) => {
                tracing::warn!(%error, "the state of the device is not taken");
                return Transfer::Failed;
            }
        }
    }
    // The reader sees the end by this.
    drop(to);
    Transfer::Saved
}

fn read_some(from: OwnedFd, mut bytes: Vec<u8>) -> Transfer {
    let mut part = [0; 4096];
    loop {
        match at_once::read(&from, &mut part) {
            Ok(0) => return Transfer::Loaded(bytes),
            Ok(read) => bytes.extend(part.iter().take(read)),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Transfer::Loading { from, bytes },
            Err(error) => {
                tracing::warn!(%error, "the state of the device cannot be read");
                return Transfer::Failed;
            }
        }
        if bytes.len() > MOST {
            tracing::warn!(most = MOST, "a state of a device that is too long");
            return Transfer::Failed;
        }
    }
}

impl FrontEnd<'_> {
    /// A transfer begins. The front end's own descriptor is used for it.
    pub(super) fn begin_transfer(&mut self, direction: Direction, fd: OwnedFd) -> Reply {
        self.transfer = Transfer::Failed;
        if let Err(error) = fcntl(&fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)) {
            tracing::warn!(%error, "the state of the device cannot be moved");
            return Reply::Failed;
        }
        self.transfer = match direction {
            Direction::Load => Transfer::Loading {
                from: fd,
                bytes: Vec::new(),
            },
            Direction::Save => match self.served.save_class() {
                Ok(rest) => Transfer::Saving { to: fd, rest },
                Err(error) => {
                    tracing::warn!(%error, "the state of the device cannot be saved");
                    return Reply::Failed;
                }
            },
        };
        Reply::Fd(None)
    }

    /// Whether it went through.
    pub(super) fn end_transfer(&mut self) -> Reply {
        self.transfer.finish();
        match std::mem::take(&mut self.transfer) {
            Transfer::Saved => Reply::Done,
            Transfer::Loaded(bytes) => match self.served.load_class(bytes) {
                Ok(()) => Reply::Done,
                Err(error) => {
                    tracing::warn!(%error, "the state of the device is not taken over");
                    Reply::Failed
                }
            },
            _ => Reply::Failed,
        }
    }
}

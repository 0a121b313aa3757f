//! Sleeping in the system: an eventfd and what else is watched, in one epoll.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use vdpa_mem::{Deadline, clock};

use crate::{Error, Result, fd};

/// The token of the eventfd itself.
const OWN: u64 = u64::MAX;

pub(super) struct Waker {
    event: OwnedFd,
    epoll: Epoll,
}

impl Waker {
    pub(super) fn new() -> Result<Self> {
        let event = fd::eventfd()?;
        let epoll =
            Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(Error::io("create an epoll"))?;
        let waker = Self { event, epoll };
        waker.watch(waker.event.as_fd(), OWN)?;
        Ok(waker)
    }

    pub(super) fn wake(&self) {
        fd::signal(self.event.as_fd());
    }

    pub(super) fn wait(&self, by: Option<Deadline>, mut ready: impl FnMut(u64)) -> Result<()> {
        let mut events = [EpollEvent::empty(); 16];
        let mut wait = |timeout| self.epoll.wait(&mut events, timeout);
        let found = match by {
            None => wait(EpollTimeout::NONE),
            Some(by) => clock::wait(by.remaining(), |most| wait(fd::millis(most))),
        };
        let count = match found {
            Ok(count) => count,
            Err(nix::Error::EINTR) => 0,
            Err(e) => return Err(Error::io("wait for events")(e)),
        };
        for event in events.iter().take(count) {
            match event.data() {
                OWN => fd::drain(self.event.as_fd()),
                token => ready(token),
            }
        }
        Ok(())
    }

    pub(super) fn watch(&self, file: BorrowedFd<'_>, token: u64) -> Result<()> {
        self.epoll
            .add(file, EpollEvent::new(EpollFlags::EPOLLIN, token))
            .map_err(Error::io("watch a file descriptor"))
    }

    pub(super) fn unwatch(&self, file: BorrowedFd<'_>) -> Result<()> {
        self.epoll
            .delete(file)
            .map_err(Error::io("stop watching a file descriptor"))
    }
}

//! The eventfds that kick a worker's queues, in an epoll of their own that the worker's sleep watches as a whole.
//!
//! They are edge-triggered: each write of an eventfd is an edge, so none is ever read. One eventfd may kick several
//! queues, of several workers, and nobody takes the kick of another; a file that is always ready, such as a socket whose
//! peer is gone, is told of once.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use vdpa_core::Sleeper;
use vdpa_mem::Deadline;

/// What the sleep of a worker reports when one of its eventfds was written.
const KICKED: u64 = 0;

/// The eventfds of one worker.
pub(crate) struct Kicks {
    sleeper: Arc<Sleeper>,
    epoll: Epoll,
    /// How many are watched.
    watched: AtomicUsize,
}

impl Kicks {
    /// None yet, for the worker that sleeps at `sleeper`.
    ///
    /// # Errors
    /// When the system has no epoll left to give.
    pub(crate) fn new(sleeper: Arc<Sleeper>) -> Result<Self, std::io::Error> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        sleeper
            .watch(epoll.0.as_fd(), KICKED)
            .map_err(std::io::Error::other)?;
        Ok(Self {
            sleeper,
            epoll,
            watched: AtomicUsize::new(0),
        })
    }

    /// Sleeps until woken or until `by`, unless `work` finds something once the worker has said that it sleeps. Answers
    /// whether there is something to [`take`](Self::take).
    ///
    /// # Errors
    /// When the system call fails.
    pub(crate) fn sleep_unless(
        &self,
        work: impl FnMut() -> bool,
        by: Option<Deadline>,
    ) -> vdpa_core::Result<bool> {
        let mut kicked = false;
        self.sleeper
            .sleep_unless(work, by, |token| kicked |= token == KICKED)?;
        Ok(kicked)
    }

    /// From here on each write of `event` is reported with `token`. Answers with what to unwatch: a duplicate where
    /// `event` is watched already, since epoll takes a number once.
    ///
    /// # Errors
    /// When `event` is no file that can be polled.
    pub(crate) fn watch(
        &self,
        event: Arc<OwnedFd>,
        token: u64,
    ) -> Result<Arc<OwnedFd>, std::io::Error> {
        self.watch_edges(event, token, EpollFlags::EPOLLIN)
    }

    /// The same for a file that is read and written by the one who is reported to: each of its becoming readable or
    /// writable is reported.
    ///
    /// # Errors
    /// When it is no file that can be polled.
    pub(crate) fn watch_source(
        &self,
        source: Arc<OwnedFd>,
        token: u64,
    ) -> Result<Arc<OwnedFd>, std::io::Error> {
        self.watch_edges(source, token, EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT)
    }

    fn watch_edges(
        &self,
        event: Arc<OwnedFd>,
        token: u64,
        edges: EpollFlags,
    ) -> Result<Arc<OwnedFd>, std::io::Error> {
        let edge = EpollEvent::new(edges | EpollFlags::EPOLLET, token);
        let watched = match self.epoll.add(&*event, edge) {
            Ok(()) => event,
            Err(Errno::EEXIST) => {
                let twin = event.try_clone()?;
                self.epoll.add(&twin, edge)?;
                Arc::new(twin)
            }
            Err(e) => return Err(e.into()),
        };
        // Relaxed: a number to go by, and the sleep looks at them all.
        self.watched.fetch_add(1, Ordering::Relaxed);
        Ok(watched)
    }

    /// Whether there are any to look at.
    #[inline]
    pub(crate) fn are_watched(&self) -> bool {
        self.watched.load(Ordering::Relaxed) != 0
    }

    /// `event` is not reported any more.
    pub(crate) fn unwatch(&self, event: &OwnedFd) {
        // It was watched: that is why it is here.
        if self.epoll.delete(event).is_ok() {
            self.watched.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Calls `to` with the token of each that was written since it was reported last: at most 64 of them, the others
    /// the next time. Does not wait.
    pub(crate) fn take(&self, mut to: impl FnMut(u64)) {
        let mut events = [EpollEvent::empty(); 64];
        // An epoll that is open fails only for a signal; then it is looked at again.
        let count = self
            .epoll
            .wait(&mut events, EpollTimeout::ZERO)
            .unwrap_or(0);
        for event in events.iter().take(count) {
            to(event.data());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::eventfd::EventFd;
    use std::time::Duration;

    fn slept(kicks: &Kicks) -> Vec<u64> {
        let by = Deadline::after(Duration::from_millis(20));
        let mut tokens = Vec::new();
        if kicks.sleep_unless(|| false, Some(by)).unwrap() {
            kicks.take(|token| tokens.push(token));
        }
        tokens.sort_unstable();
        tokens
    }

    #[test]
    fn one_eventfd_kicks_several_queues_of_several_workers_each_time() {
        let kicks = [0, 1].map(|_| Kicks::new(Sleeper::new().unwrap()).unwrap());
        let event: Arc<OwnedFd> = Arc::new(EventFd::new().unwrap().into());
        let watched: Vec<_> = [(0, 1), (0, 2), (1, 3)]
            .map(|(worker, token): (usize, _)| kicks[worker].watch(event.clone(), token).unwrap())
            .into();
        for _ in 0..3 {
            nix::unistd::write(&event, &1u64.to_ne_bytes()).unwrap();
            assert_eq!(slept(&kicks[0]), [1, 2]);
            assert_eq!(slept(&kicks[1]), [3]);
            assert_eq!(slept(&kicks[0]), [0; 0]);
        }
        kicks[0].unwatch(&watched[0]);
        nix::unistd::write(&event, &1u64.to_ne_bytes()).unwrap();
        assert_eq!(slept(&kicks[0]), [2]);
    }

    #[test]
    fn a_file_that_is_always_ready_is_told_of_once_and_one_that_cannot_be_polled_is_refused() {
        let kicks = Kicks::new(Sleeper::new().unwrap()).unwrap();
        let (socket, peer) = std::os::unix::net::UnixStream::pair().unwrap();
        drop(peer);
        let _watched = kicks.watch(Arc::new(socket.into()), 7).unwrap();
        assert_eq!(slept(&kicks), [7]);
        assert_eq!(slept(&kicks), [0; 0]);
        let file = tempfile::tempfile().unwrap();
        assert!(kicks.watch(Arc::new(file.into()), 8).is_err());
    }
}

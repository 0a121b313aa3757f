//! How the command is asked to end, or to look again.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// SIGTERM and SIGINT, and what else is asked for, as a file.
pub(crate) struct Signals(SignalFd);

impl Signals {
    /// From here on they end nothing: neither this thread nor those that it begins.
    pub(crate) fn block() -> io::Result<Self> {
        Self::block_with(&[])
    }

    /// The same with more of them.
    pub(crate) fn block_with(more: &[Signal]) -> io::Result<Self> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGINT].iter().chain(more) {
            set.add(*signal);
        }
        set.thread_block()?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        Ok(Self(SignalFd::with_flags(&set, flags)?))
    }

    /// Whether one has come.
    pub(crate) fn came(&self) -> io::Result<bool> {
        Ok(self.next()?.is_some())
    }

    /// The next one that has come, if there is one.
    pub(crate) fn next(&self) -> io::Result<Option<Signal>> {
        let came = self.0.read_signal()?;
        // A number that the system has just told is one of the set's.
        Ok(came.and_then(|info| Signal::try_from(info.ssi_signo.cast_signed()).ok()))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

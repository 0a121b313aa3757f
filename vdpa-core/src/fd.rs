//! Eventfds.

use std::fs;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::stat::{SFlag, fstat};
use vdpa_mem::{Deadline, clock};

use crate::{Error, Result};

/// A new eventfd, at 0, that never blocks.
pub(crate) fn eventfd() -> Result<OwnedFd> {
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    EventFd::from_value_and_flags(0, flags)
        .map(Into::into)
        .map_err(Error::io("create an eventfd"))
}

/// A descriptor that calls and kicks cannot go by.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{what} is no eventfd")]
pub struct NotEventFd {
    /// What it is: as `/proc` has it, or which kind of file.
    pub what: String,
}

/// Whether a descriptor from elsewhere is an eventfd, as every end has to ask before it makes a [`Call`](crate::Call) or a
/// [`Kick`](crate::Kick) of it. A file or a pipe would take the 8 bytes of a call as well, with this process's rights, and
/// the file of a file system in another process could take its time, whatever its flags say.
///
/// Where `/proc` is not mounted, whatever has no place in a file system is taken for one: the others of that kind (timers,
/// polls, signals) take no 8 bytes.
///
/// # Errors
/// When it is not.
pub fn check_eventfd(fd: BorrowedFd<'_>) -> Result<(), NotEventFd> {
    let not = |what: String| Err(NotEventFd { what });
    // In the table of this thread, which may have one of its own.
    let link = fs::read_link(format!("/proc/thread-self/fd/{}", fd.as_raw_fd()));
    if let Ok(what) = link {
        return match what.to_str() {
            Some("anon_inode:[eventfd]") => Ok(()),
            _ => not(what.display().to_string()),
        };
    }
    match fstat(fd).map(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT) {
        // What the system makes without a file has no kind.
        Ok(kind) if kind.is_empty() => Ok(()),
        Ok(SFlag::S_IFIFO) => not("a pipe".to_owned()),
        Ok(SFlag::S_IFSOCK) => not("a socket".to_owned()),
        Ok(_) => not("a file".to_owned()),
        Err(errno) => not(format!("a descriptor that cannot be examined ({errno})")),
    }
}

/// Adds 1. A counter that is full says what it has to say; nothing else can go wrong with an eventfd that is open.
pub(crate) fn signal(event: BorrowedFd<'_>) {
    let _full = nix::unistd::write(event, &1u64.to_ne_bytes());
}

/// Back to 0. An eventfd at 0 stays there.
pub(crate) fn drain(event: BorrowedFd<'_>) {
    let mut count = [0; 8];
    let _empty = nix::unistd::read(event, &mut count);
}

/// From here on neither reads nor writes of `file` block.
pub(crate) fn set_nonblocking(file: BorrowedFd<'_>) -> Result<()> {
    let fail = |e: nix::Error| Error::io("make an eventfd non-blocking")(e);
    let flags = fcntl(file, FcntlArg::F_GETFL).map_err(fail)?;
    let flags = OFlag::from_bits_retain(flags);
    if flags.contains(OFlag::O_NONBLOCK) {
        return Ok(());
    }
    fcntl(file, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map_err(fail)?;
    Ok(())
}

/// Waits until `file` is readable; `false` at the deadline.
pub(crate) fn wait_readable(file: BorrowedFd<'_>, by: Deadline) -> Result<bool> {
    loop {
        let mut fds = [PollFd::new(file, PollFlags::POLLIN)];
        let found = clock::wait(by.remaining(), |most| poll(&mut fds, millis(most)));
        match found {
            Ok(0) if by.expired() => return Ok(false),
            Ok(0) | Err(nix::Error::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(e) => return Err(Error::io("poll an eventfd")(e)),
        }
    }
}

/// In whole milliseconds, rounded up: rounded down, the last one would be spent spinning.
pub(crate) fn millis(left: Duration) -> PollTimeout {
    let millis = left.as_micros().div_ceil(1000);
    let millis = i32::try_from(millis).unwrap_or(i32::MAX);
    PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
}

/// The number of `file`, to tell eventfds apart in messages.
pub(crate) fn number(file: BorrowedFd<'_>) -> i32 {
    file.as_raw_fd()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn what_only_looks_like_an_eventfd_is_told_from_one() {
        let event = eventfd().unwrap();
        assert_eq!(check_eventfd(event.as_fd()), Ok(()));
        let (reader, _writer) = nix::unistd::pipe().unwrap();
        let why = check_eventfd(reader.as_fd()).unwrap_err();
        assert!(why.what.starts_with("pipe:["), "{why}");
        let null = fs::File::open("/dev/null").unwrap();
        let why = check_eventfd(null.as_fd()).unwrap_err();
        assert_eq!(why.to_string(), "/dev/null is no eventfd");
        let epoll = nix::sys::epoll::Epoll::new(nix::sys::epoll::EpollCreateFlags::empty());
        let why = check_eventfd(epoll.unwrap().0.as_fd()).unwrap_err();
        assert_eq!(why.what, "anon_inode:[eventpoll]");
    }
}

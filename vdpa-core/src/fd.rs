//! Eventfds.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use vdpa_mem::{Deadline, clock};

use crate::{Error, Result};

/// A new eventfd, at 0, that never blocks.
pub(crate) fn eventfd() -> Result<OwnedFd> {
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    EventFd::from_value_and_flags(0, flags)
        .map(Into::into)
        .map_err(Error::io("create an eventfd"))
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

//! Waiting for several files at once.

use std::io;
use std::os::fd::BorrowedFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vdpa_mem::Deadline;

use super::NetError;

/// Waits until one of `fds` is readable; `false` at the deadline.
pub(super) fn readable<'f>(
    fds: impl Iterator<Item = BorrowedFd<'f>>,
    by: Deadline,
) -> Result<bool, NetError> {
    let mut fds: Vec<_> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
    loop {
        match poll(&mut fds, timeout(by)) {
            Ok(0) if by.expired() => return Ok(false),
            Ok(0) | Err(nix::Error::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(errno) => {
                let source = io::Error::from(errno);
                return Err(NetError::Wait { source });
            }
        }
    }
}

/// What is left, in whole milliseconds, rounded up: rounded down, the last one would be spent spinning.
fn timeout(by: Deadline) -> PollTimeout {
    let millis = by.remaining().as_micros().div_ceil(1000);
    let millis = i32::try_from(millis).unwrap_or(i32::MAX);
    PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
}

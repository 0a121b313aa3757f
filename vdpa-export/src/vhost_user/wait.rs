//! Waiting for any of several descriptors.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::ServerError;

/// Waits until something is there, or until `until`. Says of each whether it is.
///
/// # Errors
/// When the system cannot wait.
pub(super) fn any<const N: usize>(
    of: [Option<(BorrowedFd<'_>, PollFlags)>; N],
    until: Option<Instant>,
) -> Result<[bool; N], ServerError> {
    let mut asked: Vec<_> = of
        .iter()
        .flatten()
        .map(|(fd, what)| PollFd::new(*fd, *what))
        .collect();
    let timeout = match until {
        None => PollTimeout::NONE,
        Some(until) => millis(until.saturating_duration_since(Instant::now())),
    };
    match poll(&mut asked, timeout) {
        Ok(_) => {}
        // The caller looks at the clock, and comes again.
        Err(Errno::EINTR) => return Ok([false; N]),
        Err(errno) => return Err(ServerError::system("wait for a front end")(errno)),
    }
    // Hang-ups and errors too: whoever reads is told.
    let mut found = asked.iter().map(|fd| fd.any().unwrap_or(true));
    Ok(of.map(|slot| slot.is_some() && found.next().unwrap_or(false)))
}

/// Whether something can be written, or will never be: whoever writes is told.
pub(super) fn is_writable(to: BorrowedFd<'_>) -> bool {
    let mut asked = [PollFd::new(to, PollFlags::POLLOUT)];
    let [to] = match poll(&mut asked, PollTimeout::ZERO) {
        Ok(_) => asked,
        // It is asked again.
        Err(_) => return false,
    };
    to.any().unwrap_or(true)
}

/// Rounded up, so that nothing is asked a thousand times in the last millisecond.
fn millis(left: Duration) -> PollTimeout {
    let millis = left.as_micros().div_ceil(1000);
    let millis = i32::try_from(millis).unwrap_or(i32::MAX);
    PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
}

/// The earlier of two times, where there are any.
pub(super) fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    }
}

//! Waiting for what was begun: the one place that does, without a lock. A test has it pass faster by
//! [`clock::hasten`].

use std::task::Poll;
use std::time::Duration;

use vdpa_mem::{Deadline, clock};

use crate::{Error, Result};

/// How often it looks again at once; most things end within microseconds.
const AT_ONCE: u32 = 64;
/// The first and the longest sleep between looks.
const SLEEP: (Duration, Duration) = (Duration::from_micros(20), Duration::from_millis(1));

/// Polls until it is ready, at least once.
pub(crate) fn until<T>(
    what: &'static str,
    by: Deadline,
    mut poll: impl FnMut() -> Result<Poll<T>>,
) -> Result<T> {
    let mut sleep = SLEEP.0;
    for look in 0u32.. {
        if let Poll::Ready(done) = poll()? {
            return Ok(done);
        }
        if by.expired() {
            break;
        }
        if look < AT_ONCE {
            std::thread::yield_now();
        } else {
            clock::sleep(sleep.min(by.remaining()));
            sleep = sleep.saturating_mul(2).min(SLEEP.1);
        }
    }
    Err(Error::Timeout { what })
}

/// Ready with what is there.
pub(crate) fn ready<T>(done: Option<T>) -> Poll<T> {
    done.map_or(Poll::Pending, Poll::Ready)
}

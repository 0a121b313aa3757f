//! The time that deadlines go by: real time, unless a test has it pass faster.
//!
//! What waits here polls, on the thread of whoever called, and sleeps between two looks. So time is a matter of the thread:
//! one that [`hasten`]s sleeps for less, and finds that as much time has passed as it would have slept. A wait for what
//! never comes then ends at its deadline, and takes no time; what other threads do is not hurried.
//!
//! ```
//! use std::time::{Duration, Instant};
//! use vdpa_mem::{Deadline, clock};
//!
//! let began = Instant::now();
//! let _hasty = clock::hasten(100_000);
//! let by = Deadline::after(Duration::from_secs(600));
//! while !by.expired() {
//!     clock::sleep(Duration::from_secs(1));
//! }
//! assert!(began.elapsed() < Duration::from_secs(60));
//! ```

use std::cell::Cell;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

thread_local! {
    /// How often faster time passes in waits.
    static FACTOR: Cell<u32> = const { Cell::new(1) };
    /// How much later it is than real time. Kept when the hurry ends: time does not go back.
    static AHEAD: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// What time it is on this thread. Who measures how long something takes that is waited for measures by this.
pub fn now() -> Instant {
    let real = Instant::now();
    real.checked_add(AHEAD.get()).unwrap_or(real)
}

/// Sleeps, on this thread's time.
pub fn sleep(time: Duration) {
    wait(time, std::thread::sleep);
}

/// Waits in another way than sleeping.
///
/// * `most`: how long at most, on this thread's time
/// * `wait`: is given how long that is in real time, and may end before
pub fn wait<T>(most: Duration, wait: impl FnOnce(Duration) -> T) -> T {
    let factor = FACTOR.get();
    if factor <= 1 {
        return wait(most);
    }
    let begun = Instant::now();
    let value = wait(most / factor);
    let more = begun.elapsed().saturating_mul(factor - 1);
    AHEAD.set(AHEAD.get().saturating_add(more));
    value
}

/// From here on waits of this thread take `factor` times less, until the value is dropped: for tests of what never comes.
/// A deadline that was made on this thread is later than it seems to others.
#[must_use = "dropping it ends the hurry"]
pub fn hasten(factor: u32) -> Hasty {
    Hasty {
        before: FACTOR.replace(factor.max(1)),
        _of_this_thread: PhantomData,
    }
}

/// While this lives, waits of its thread pass faster: see [`hasten`].
#[derive(Debug)]
pub struct Hasty {
    before: u32,
    _of_this_thread: PhantomData<*const ()>,
}

impl Drop for Hasty {
    fn drop(&mut self) {
        FACTOR.set(self.before);
    }
}

#[cfg(all(test, not(loom), not(miri)))]
mod tests {
    use super::*;
    use crate::Deadline;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn an_hour_passes_where_it_is_hurried_and_nowhere_else_and_does_not_come_back() {
        let real = Instant::now();
        let by = Deadline::after(HOUR);
        let hasty = hasten(1_000_000);
        sleep(HOUR);
        assert!(by.expired());
        assert_eq!(by.remaining(), Duration::ZERO);
        drop(hasty);
        assert!(by.expired() && now() >= real + HOUR);
        std::thread::spawn(move || assert!(!by.expired()))
            .join()
            .unwrap();
        let later = Deadline::after(HOUR);
        assert!(!later.expired() && later.remaining() > HOUR / 2);
    }

    #[test]
    fn what_ends_early_has_taken_no_longer_than_it_did() {
        let _hasty = hasten(10);
        let before = now();
        assert_eq!(wait(HOUR, |real| (real, 7).1), 7);
        assert!(now() < before + HOUR / 2);
    }

    #[test]
    fn a_hurry_within_a_hurry_ends_with_it() {
        let _outer = hasten(10);
        drop(hasten(0));
        assert_eq!(
            wait(Duration::from_secs(10), |real| real),
            Duration::from_secs(1)
        );
    }
}

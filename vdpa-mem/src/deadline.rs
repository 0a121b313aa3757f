//! A point in time by which something must be done.

use std::time::{Duration, Instant};

use crate::clock;

/// The time at which a waiting call gives up, by the [clock](crate::clock). It is the caller's: nothing waits without one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// `wait` from now.
    pub fn after(wait: Duration) -> Self {
        let now = clock::now();
        // A wait that the clock cannot express is as good as a year.
        Self(
            now.checked_add(wait)
                .unwrap_or(now + Duration::from_secs(365 * 24 * 3600)),
        )
    }

    /// At this instant.
    pub const fn at(instant: Instant) -> Self {
        Self(instant)
    }

    /// Whether it has passed.
    pub fn expired(self) -> bool {
        clock::now() >= self.0
    }

    /// How long is left; zero once passed.
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(clock::now())
    }
}

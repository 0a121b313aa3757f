//! The time, as what drives a function sees it.

use std::time::{Duration, Instant};

use vdpa_mem::clock;

/// Where the time comes from: the system, or a test that lets it pass at once.
pub trait Clock: Send + Sync {
    /// The time since some moment in the past, always the same one. It never goes back.
    fn now(&self) -> Duration;

    /// Returns once the time is `wait` later.
    fn sleep(&self, wait: Duration);
}

/// The system's clock, which a thread can have pass faster: see [`vdpa_mem::clock`].
#[derive(Clone, Copy, Debug)]
pub struct SystemClock(Instant);

impl SystemClock {
    /// The system's clock, which reads zero now.
    pub fn new() -> Self {
        Self(clock::now())
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        clock::now().saturating_duration_since(self.0)
    }

    fn sleep(&self, wait: Duration) {
        clock::sleep(wait);
    }
}

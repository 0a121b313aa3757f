//! The time, as what drives a function sees it.

use std::time::{Duration, Instant};

/// Where the time comes from: the system, or a test that lets it pass at once.
pub trait Clock: Send + Sync {
    /// The time since some moment in the past, always the same one. It never goes back.
    fn now(&self) -> Duration;

    /// Returns once the time is `wait` later.
    fn sleep(&self, wait: Duration);
}

/// The system's clock.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock(Instant);

impl SystemClock {
    /// The system's clock, which reads zero now.
    pub fn new() -> Self {
        Self(Instant::now())
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn sleep(&self, wait: Duration) {
        std::thread::sleep(wait);
    }
}

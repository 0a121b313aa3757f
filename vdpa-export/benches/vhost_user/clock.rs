//! What a process has used of its CPU.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// A stretch of time that begins, and what a process does in it.
pub(crate) struct Stretch {
    begun: Instant,
    clock: Option<(ClockId, Duration)>,
}

impl Stretch {
    /// Begins now.
    pub(crate) fn begin(pid: Pid) -> Self {
        let clock = clock_getcpuclockid(pid).ok();
        Self {
            begun: Instant::now(),
            clock: clock.map(|clock| (clock, used(clock))),
        }
    }

    /// Seconds since the beginning, and CPU seconds that the process used.
    pub(crate) fn end(&self) -> (f64, f64) {
        let seconds = self.begun.elapsed().as_secs_f64();
        let cpu = self.clock.map_or(f64::NAN, |(clock, before)| {
            used(clock).saturating_sub(before).as_secs_f64()
        });
        (seconds, cpu)
    }
}

fn used(clock: ClockId) -> Duration {
    clock_gettime(clock).map_or(Duration::ZERO, Duration::from)
}

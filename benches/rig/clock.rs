//! Thread CPU time: what one thread did, whatever else the machine was doing.

use nix::time::{ClockId, clock_gettime};

/// CPU time of this thread, in nanoseconds. A system call, of a fraction of a microsecond.
pub fn thread_ns() -> u64 {
    match clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID) {
        Ok(time) => time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64,
        Err(errno) => super::wrong(&format!("no thread CPU clock: {errno}")),
    }
}

/// Adds up intervals of thread CPU time, less what looking at the clock costs.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch {
    cost: u64,
    total: u64,
}

impl Stopwatch {
    /// At zero. Measures the clock's own cost.
    pub fn new() -> Self {
        let mut costs = [0; 101];
        for cost in &mut costs {
            let before = thread_ns();
            *cost = thread_ns() - before;
        }
        costs.sort_unstable();
        Self {
            cost: costs[costs.len() / 2],
            total: 0,
        }
    }

    /// Runs `work` and adds what it took.
    #[inline]
    pub fn time<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let before = thread_ns();
        let done = work();
        self.total += (thread_ns() - before).saturating_sub(self.cost);
        done
    }

    /// Nanoseconds so far.
    pub fn ns(&self) -> f64 {
        self.total as f64
    }
}

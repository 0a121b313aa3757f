//! How long a run will take.

use std::time::Duration;

use super::args::Run;

/// What it takes to have an end do something and to look at what it did, the measuring apart.
const AROUND: Duration = Duration::from_millis(400);

/// What it takes to start a program of somebody else's.
const START: Duration = Duration::from_millis(1200);

/// What a table takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Cost {
    /// How often a peer is measured.
    pub(crate) samples: usize,
    /// How many programs are started.
    pub(crate) starts: usize,
    /// What is waited for besides.
    pub(crate) waits: Duration,
}

impl Cost {
    /// Nothing.
    pub(crate) const NONE: Self = Self {
        samples: 0,
        starts: 0,
        waits: Duration::ZERO,
    };

    /// The same with more of it.
    pub(crate) fn and(self, samples: usize, starts: usize) -> Self {
        Self {
            samples: self.samples + samples,
            starts: self.starts + starts,
            ..self
        }
    }

    /// Both.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            waits: self.waits + other.waits,
            ..self.and(other.samples, other.starts)
        }
    }

    /// How long that takes.
    pub(crate) fn time(self, run: &Run) -> Duration {
        let times = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        (run.slice + AROUND) * times(self.samples) + START * times(self.starts) + self.waits
    }
}

//! Wrong about status and reset.

use std::sync::atomic::{AtomicBool, Ordering};

use vdpa_core::{Result, Status, VdpaDevice};

use crate::Mutant;
use crate::bend::{Bend, bent};
use crate::shadow::{Twist, shadow};

pub const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "keeps ACKNOWLEDGE over a reset",
        caught_by: 1,
        spec: "sim:rng",
        wrap: |inner| bent(inner, KeepsAcknowledge::default()),
    },
    Mutant {
        name: "calls before DRIVER_OK",
        caught_by: 3,
        spec: "sim:rng",
        wrap: |inner| shadow(inner, CallsEarly),
    },
];

#[derive(Default)]
struct KeepsAcknowledge(AtomicBool);

impl Bend for KeepsAcknowledge {
    fn begin_reset(&self, inner: &dyn VdpaDevice) -> Result<()> {
        let was = inner.status()?.contains(Status::DRIVER_OK);
        self.0.store(was, Ordering::Relaxed);
        inner.begin_reset()
    }
    fn status(&self, inner: &dyn VdpaDevice) -> Result<Status> {
        let kept = match self.0.load(Ordering::Relaxed) {
            true => Status::ACKNOWLEDGE,
            false => Status::empty(),
        };
        Ok(inner.status()? | kept)
    }
}

/// Looks at its queues, and calls, as soon as they are started.
struct CallsEarly;

impl Twist for CallsEarly {
    fn looks(&self, _: u16, _: bool) -> bool {
        true
    }
    fn calls(&self, _: u16, _: bool) -> bool {
        true
    }
}

//! Wrong about status and reset.

use std::sync::atomic::{AtomicBool, Ordering};

use vdpa_core::{Event, Result, Status, VdpaDevice};

use crate::Mutant;
use crate::bend::{Bend, bent};
use crate::hand::{Hand, is, on_kick};
use crate::shadow::{Twist, shadow};

pub const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "keeps ACKNOWLEDGE over a reset",
        caught_by: 1,
        spec: "sim:rng",
        wrap: |inner| bent(inner, KeepsAcknowledge::default()),
    },
    Mutant {
        name: "says that a buffer is used when it is kicked before DRIVER_OK",
        caught_by: 2,
        spec: "sim:rng",
        wrap: |inner| on_kick(inner, |hand| !is(&hand.live), Hand::use_first),
    },
    Mutant {
        name: "writes to a buffer when it is kicked before DRIVER_OK",
        caught_by: 2,
        spec: "sim:rng",
        wrap: |inner| on_kick(inner, |hand| !is(&hand.live), Hand::fill_first),
    },
    Mutant {
        name: "calls before DRIVER_OK",
        caught_by: 3,
        spec: "sim:rng",
        wrap: |inner| shadow(inner, CallsEarly),
    },
    Mutant {
        name: "calls when it is kicked before DRIVER_OK",
        caught_by: 3,
        spec: "sim:blk",
        wrap: |inner| on_kick(inner, |hand| !is(&hand.live), Hand::call),
    },
    Mutant {
        name: "sets NEEDS_RESET and tells nobody",
        caught_by: 4,
        spec: "sim:rng",
        wrap: |inner| bent(inner, Silent),
    },
    Mutant {
        name: "tells that it needs a reset, and not why",
        caught_by: 4,
        spec: "sim:blk",
        wrap: |inner| bent(inner, NoReason),
    },
    Mutant {
        name: "goes on without a word after a broken ring",
        caught_by: 5,
        spec: "sim:rng",
        wrap: |inner| shadow(inner, TellsNothing),
    },
    Mutant {
        name: "tells of a broken ring and never sets NEEDS_RESET",
        caught_by: 5,
        spec: "sim:blk",
        wrap: |inner| bent(inner, NeverNeedsReset),
    },
    Mutant {
        name: "drops ACKNOWLEDGE at FEATURES_OK",
        caught_by: 6,
        spec: "sim:rng",
        wrap: |inner| bent(inner, Drops(Status::FEATURES_OK, Status::ACKNOWLEDGE)),
    },
    Mutant {
        name: "drops DRIVER once it is live",
        caught_by: 6,
        spec: "sim:rng",
        wrap: |inner| bent(inner, Drops(Status::DRIVER_OK, Status::DRIVER)),
    },
    Mutant {
        name: "does not show FAILED",
        caught_by: 7,
        spec: "sim:rng",
        wrap: |inner| bent(inner, Drops(Status::FAILED, Status::FAILED)),
    },
    Mutant {
        name: "stays failed over a reset",
        caught_by: 7,
        spec: "sim:rng",
        wrap: |inner| bent(inner, IgnoresReset(Status::FAILED)),
    },
    Mutant {
        name: "does not reset while it only acknowledged",
        caught_by: 8,
        spec: "sim:rng",
        wrap: |inner| bent(inner, IgnoresReset(Status::ACKNOWLEDGE)),
    },
    Mutant {
        name: "does not reset once it needs to",
        caught_by: 8,
        spec: "sim:blk",
        wrap: |inner| bent(inner, IgnoresReset(Status::DEVICE_NEEDS_RESET)),
    },
    Mutant {
        name: "goes on with its queues after a reset",
        caught_by: 9,
        spec: "sim:rng",
        wrap: |inner| shadow(inner, NeverStops),
    },
    Mutant {
        name: "writes to the ring when it is kicked after a reset",
        caught_by: 9,
        spec: "sim:net",
        wrap: |inner| on_kick(inner, |hand| is(&hand.was_reset), Hand::mark),
    },
    Mutant {
        name: "calls when it is kicked after a reset",
        caught_by: 9,
        spec: "sim:blk",
        wrap: |inner| on_kick(inner, |hand| is(&hand.was_reset), Hand::call),
    },
    Mutant {
        name: "never says that the reset of a live device is over",
        caught_by: 10,
        spec: "sim:rng",
        wrap: |inner| bent(inner, KeepsAcknowledge::default()),
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

/// Has NEEDS_RESET in its status alone.
struct Silent;

impl Bend for Silent {
    fn event(&self, event: Event, raise: &dyn Fn(Event)) {
        if !matches!(event, Event::NeedsReset { .. }) {
            raise(event);
        }
    }
}

struct NoReason;

impl Bend for NoReason {
    fn event(&self, event: Event, raise: &dyn Fn(Event)) {
        raise(match event {
            Event::NeedsReset { queue, .. } => Event::NeedsReset {
                queue,
                why: String::new(),
            },
            event => event,
        });
    }
}

struct TellsNothing;

impl Twist for TellsNothing {
    fn tells(&self) -> bool {
        false
    }
}

/// Reports a fault in place of its need for a reset.
struct NeverNeedsReset;

impl Bend for NeverNeedsReset {
    fn status(&self, inner: &dyn VdpaDevice) -> Result<Status> {
        Ok(inner.status()? - Status::DEVICE_NEEDS_RESET)
    }
    fn event(&self, event: Event, raise: &dyn Fn(Event)) {
        raise(match event {
            Event::NeedsReset { .. } => Event::Config,
            event => event,
        });
    }
}

/// Where the first bits are set the second ones do not show.
struct Drops(Status, Status);

impl Bend for Drops {
    fn status(&self, inner: &dyn VdpaDevice) -> Result<Status> {
        let status = inner.status()?;
        Ok(match status.contains(self.0) {
            true => status - self.1,
            false => status,
        })
    }
}

/// Does not reset while it has this bit, and none after it.
struct IgnoresReset(Status);

impl Bend for IgnoresReset {
    fn begin_reset(&self, inner: &dyn VdpaDevice) -> Result<()> {
        let status = inner.status()?;
        let only = self.0 == Status::ACKNOWLEDGE && status != Status::ACKNOWLEDGE;
        match status.contains(self.0) && !only {
            true => Ok(()),
            false => inner.begin_reset(),
        }
    }
}

struct NeverStops;

impl Twist for NeverStops {
    fn looks(&self, _: u16, _: bool) -> bool {
        true
    }
    fn stops(&self) -> bool {
        false
    }
}

/// What is not seen is not kept: statement 4 has nothing to say of a device that sets no NEEDS_RESET.
#[test]
fn who_sets_no_needs_reset_has_not_told_of_it() {
    let selection = vdpa_conformance::Selection {
        patience: Some(std::time::Duration::from_secs(1)),
        ..vdpa_conformance::Selection::only(vdpa_conformance::Ids::one(4))
    };
    let wrap: crate::Wrap = |inner| shadow(inner, TellsNothing);
    let report = crate::judge("tells nothing", "sim:rng", wrap, &selection);
    assert_eq!(report.passed() + report.failed(), 0, "{report}");
}

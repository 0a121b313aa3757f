//! Wrong about suspend and resume.

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use vdpa_core::*;

use crate::Mutant;
use crate::bend::{Bend, bent};
use crate::hand::{Hand, is, on_kick};

pub const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "shows SUSPEND before it is live",
        caught_by: 57,
        spec: "sim:rng",
        wrap: |inner| bent(inner, ShowsEarly),
    },
    Mutant {
        name: "suspends by itself when it goes live",
        caught_by: 57,
        spec: "sim:blk",
        wrap: |inner| bent(inner, SuspendsItself),
    },
    Mutant {
        name: "is never suspended",
        caught_by: 58,
        spec: "sim:rng",
        wrap: |inner| bent(inner, NeverSuspended),
    },
    Mutant {
        name: "refuses to suspend, and needs no reset",
        caught_by: 58,
        spec: "sim:rng",
        wrap: |inner| bent(inner, Refuses),
    },
    Mutant {
        name: "offers SUSPEND and can't",
        caught_by: 58,
        spec: "sim:blk",
        wrap: |inner| bent(inner, Cannot),
    },
    Mutant {
        name: "says that it is suspended, and goes on",
        caught_by: 59,
        spec: "sim:rng",
        wrap: |inner| bent(inner, GoesOn),
    },
    Mutant {
        name: "calls when it is kicked while suspended",
        caught_by: 59,
        spec: "sim:blk",
        wrap: |inner| on_kick(inner, |hand| is(&hand.suspended), Hand::call),
    },
    Mutant {
        name: "writes to the ring when it is kicked while suspended",
        caught_by: 59,
        spec: "sim:net",
        wrap: |inner| on_kick(inner, |hand| is(&hand.suspended), Hand::mark),
    },
    Mutant {
        name: "changes its configuration while suspended",
        caught_by: 59,
        spec: "sim:blk",
        wrap: |inner| bent(inner, Changes::default()),
    },
    Mutant {
        name: "tells of a change of its configuration while suspended",
        caught_by: 59,
        spec: "sim:net",
        wrap: |inner| on_kick(inner, |hand| is(&hand.suspended), Hand::tell_config),
    },
    Mutant {
        name: "forgets to tell on resume what changed meanwhile",
        caught_by: 60,
        spec: "sim:blk",
        wrap: |inner| bent(inner, TellsNoChange),
    },
    Mutant {
        name: "tells at once what changes while it is suspended",
        caught_by: 60,
        spec: "sim:net",
        wrap: |inner| bent(inner, NeverTold(GoesOn)),
    },
    Mutant {
        name: "says that it goes on, and does not",
        caught_by: 61,
        spec: "sim:rng",
        wrap: |inner| bent(inner, StaysAsleep),
    },
    Mutant {
        name: "refuses to resume, and needs no reset",
        caught_by: 61,
        spec: "sim:blk",
        wrap: |inner| bent(inner, RefusesToResume),
    },
    Mutant {
        name: "does not call for what it used before it is suspended",
        caught_by: 62,
        spec: "sim:rng",
        wrap: |inner| bent(inner, NoLastCall),
    },
    Mutant {
        name: "has chains in flight while suspended",
        caught_by: 62,
        spec: "sim:blk",
        wrap: |inner| bent(inner, InFlight),
    },
    Mutant {
        name: "drops DRIVER while it is suspended",
        caught_by: 63,
        spec: "sim:rng",
        wrap: |inner| bent(inner, DropsDriver::default()),
    },
    Mutant {
        name: "never shows DRIVER_OK after a resume",
        caught_by: 65,
        spec: "sim:rng",
        wrap: |inner| bent(inner, NeverLiveAgain::default()),
    },
];

struct ShowsEarly;

impl Bend for ShowsEarly {
    fn status(&self, inner: &dyn VdpaDevice) -> Result<Status> {
        let status = inner.status()?;
        let early = status.contains(Status::FEATURES_OK) && !status.contains(Status::DRIVER_OK);
        Ok(match early {
            true => status | Status::SUSPEND,
            false => status,
        })
    }
}

/// As one that kept a SUSPEND which came before it was live.
struct SuspendsItself;

impl Bend for SuspendsItself {
    fn add_status(&self, inner: &dyn VdpaDevice, bits: Status) -> Result<()> {
        inner.add_status(bits)?;
        match inner.caps().suspend {
            Some(suspend) if bits.contains(Status::DRIVER_OK) => suspend.begin(),
            _ => Ok(()),
        }
    }
}

struct NeverSuspended;

impl Bend for NeverSuspended {
    fn poll_suspend(&self, _: &dyn Suspend) -> Result<Poll<()>> {
        Ok(Poll::Pending)
    }
}

fn not_now<T>() -> Result<T> {
    Err(Error::Busy {
        what: "something else",
    })
}

struct Refuses;

impl Bend for Refuses {
    fn begin_suspend(&self, _: &dyn Suspend) -> Result<()> {
        not_now()
    }
}

struct Cannot;

impl Bend for Cannot {
    fn caps<'a>(&'a self, caps: Caps<'a>) -> Caps<'a> {
        Caps {
            suspend: None,
            ..caps
        }
    }
}

struct GoesOn;

impl Bend for GoesOn {
    fn begin_suspend(&self, _: &dyn Suspend) -> Result<()> {
        Ok(())
    }
    fn poll_suspend(&self, _: &dyn Suspend) -> Result<Poll<()>> {
        Ok(Poll::Ready(()))
    }
    fn resume(&self, _: &dyn Suspend) -> Result<()> {
        Ok(())
    }
}

/// As the inner bend suspends: the device behind is told nothing, and tells of changes at once.
struct NeverTold<B>(B);

impl<B: Bend> Bend for NeverTold<B> {
    fn begin_suspend(&self, inner: &dyn Suspend) -> Result<()> {
        self.0.begin_suspend(inner)
    }
    fn poll_suspend(&self, inner: &dyn Suspend) -> Result<Poll<()>> {
        self.0.poll_suspend(inner)
    }
    fn resume(&self, inner: &dyn Suspend) -> Result<()> {
        self.0.resume(inner)
    }
}

/// The first byte is another one once it is suspended and was read.
#[derive(Default)]
struct Changes {
    suspended: AtomicBool,
    read: AtomicBool,
}

impl Bend for Changes {
    fn begin_suspend(&self, inner: &dyn Suspend) -> Result<()> {
        self.suspended.store(true, Ordering::SeqCst);
        inner.begin()
    }
    fn read_config(&self, inner: &dyn VdpaDevice, at: u32, to: &mut [u8]) -> Result<()> {
        inner.read_config(at, to)?;
        if self.suspended.load(Ordering::SeqCst)
            && self.read.swap(true, Ordering::SeqCst)
            && let Some(first) = to.first_mut()
        {
            *first ^= 0x80;
        }
        Ok(())
    }
}

struct TellsNoChange;

impl Bend for TellsNoChange {
    fn event(&self, event: Event, raise: &dyn Fn(Event)) {
        if event != Event::Config {
            raise(event);
        }
    }
}

struct StaysAsleep;

impl Bend for StaysAsleep {
    fn resume(&self, _: &dyn Suspend) -> Result<()> {
        Ok(())
    }
}

struct RefusesToResume;

impl Bend for RefusesToResume {
    fn resume(&self, _: &dyn Suspend) -> Result<()> {
        not_now()
    }
}

struct NoLastCall;

impl Bend for NoLastCall {
    fn start_queue(
        &self,
        inner: &dyn VdpaDevice,
        q: QueueIndex,
        c: &QueueConfig,
        kick: Kick,
        _: Call,
    ) -> Result<Doorbell> {
        inner.start_queue(q, c, kick, Call::None)
    }
    fn begin_suspend(&self, inner: &dyn Suspend) -> Result<()> {
        // So that something is used by then.
        std::thread::sleep(Duration::from_millis(20));
        inner.begin()
    }
}

struct InFlight;

impl Bend for InFlight {
    fn suspended_state(&self, inner: &dyn Suspend, q: QueueIndex) -> Result<QueueState> {
        Ok(match inner.state(q)? {
            QueueState::Split { avail, .. } => QueueState::Split {
                avail,
                used: Some(avail.wrapping_sub(1)),
            },
            packed => packed,
        })
    }
}

#[derive(Default)]
struct DropsDriver(AtomicBool);

impl Bend for DropsDriver {
    fn begin_suspend(&self, inner: &dyn Suspend) -> Result<()> {
        self.0.store(true, Ordering::SeqCst);
        inner.begin()
    }
    fn status(&self, inner: &dyn VdpaDevice) -> Result<Status> {
        let status = inner.status()?;
        Ok(match self.0.load(Ordering::SeqCst) {
            true => status - Status::DRIVER,
            false => status,
        })
    }
}

#[derive(Default)]
struct NeverLiveAgain(AtomicBool);

impl Bend for NeverLiveAgain {
    fn resume(&self, inner: &dyn Suspend) -> Result<()> {
        self.0.store(true, Ordering::SeqCst);
        inner.resume()
    }
    fn status(&self, inner: &dyn VdpaDevice) -> Result<Status> {
        let status = inner.status()?;
        Ok(match self.0.load(Ordering::SeqCst) {
            true => status - Status::DRIVER_OK,
            false => status,
        })
    }
}

//! Wrong about the reset of a queue.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use vdpa_core::*;

use crate::Mutant;
use crate::bend::{Bend, bent};
use crate::hand::{Hand, is, on_kick};

pub const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "says that a queue is reset, and goes on with it",
        caught_by: 50,
        spec: "sim:rng",
        wrap: |inner| bent(inner, NoReset),
    },
    Mutant {
        name: "goes on with a receive queue that was reset",
        caught_by: 50,
        spec: "sim:net",
        wrap: |inner| bent(inner, NoReceiveReset),
    },
    Mutant {
        name: "calls when it is kicked for a queue that was reset",
        caught_by: 50,
        spec: "sim:blk",
        wrap: |inner| on_kick(inner, |hand| is(&hand.queue_was_reset), Hand::call),
    },
    Mutant {
        name: "writes to the ring of a queue that was reset",
        caught_by: 50,
        spec: "sim:net",
        wrap: |inner| on_kick(inner, |hand| is(&hand.queue_was_reset), Hand::mark),
    },
    Mutant {
        name: "writes to a buffer of a queue that was reset",
        caught_by: 50,
        spec: "sim:rng",
        wrap: |inner| on_kick(inner, |hand| is(&hand.queue_was_reset), Hand::fill_first),
    },
    Mutant {
        name: "needs a reset as a whole after that of a queue",
        caught_by: 50,
        spec: "sim:rng",
        wrap: |inner| bent(inner, NeedsReset::default()),
    },
    Mutant {
        name: "goes on after the reset of a queue where it stood",
        caught_by: 51,
        spec: "sim:rng",
        wrap: |inner| {
            bent(
                inner,
                Remembers::new(|first, c| {
                    let _ = first;
                    c.state = Some(stood(c));
                }),
            )
        },
    },
    Mutant {
        name: "starts a queue again with the addresses of before",
        caught_by: 55,
        spec: "sim:rng",
        wrap: |inner| {
            bent(
                inner,
                Remembers::new(|first, c| {
                    (c.descriptor, c.driver, c.device) =
                        (first.descriptor, first.driver, first.device);
                }),
            )
        },
    },
    Mutant {
        name: "starts a queue again with the used ring of before",
        caught_by: 55,
        spec: "sim:blk",
        wrap: |inner| bent(inner, Remembers::new(|first, c| c.device = first.device)),
    },
    Mutant {
        name: "starts a queue again with the size of before",
        caught_by: 55,
        spec: "sim:net",
        wrap: |inner| bent(inner, Remembers::new(|first, c| c.size = first.size)),
    },
    Mutant {
        name: "never says that a queue is reset",
        caught_by: 56,
        spec: "sim:rng",
        wrap: |inner| bent(inner, NeverReset),
    },
];

struct NoReset;

impl Bend for NoReset {
    fn begin_queue_reset(&self, _: &dyn QueueReset, _: QueueIndex) -> Result<()> {
        Ok(())
    }
    fn poll_queue_reset(&self, _: &dyn QueueReset, _: QueueIndex) -> Result<Poll<()>> {
        Ok(Poll::Ready(()))
    }
}

struct NoReceiveReset;

impl Bend for NoReceiveReset {
    fn begin_queue_reset(&self, inner: &dyn QueueReset, q: QueueIndex) -> Result<()> {
        match q.get() {
            0 => Ok(()),
            _ => inner.begin(q),
        }
    }
    fn poll_queue_reset(&self, inner: &dyn QueueReset, q: QueueIndex) -> Result<Poll<()>> {
        match q.get() {
            0 => Ok(Poll::Ready(())),
            _ => inner.poll(q),
        }
    }
}

#[derive(Default)]
struct NeedsReset(AtomicBool);

impl Bend for NeedsReset {
    fn begin_queue_reset(&self, inner: &dyn QueueReset, q: QueueIndex) -> Result<()> {
        self.0.store(true, Ordering::SeqCst);
        inner.begin(q)
    }
    fn status(&self, inner: &dyn VdpaDevice) -> Result<Status> {
        let status = inner.status()?;
        let needs = self.0.load(Ordering::SeqCst) && !status.is_empty();
        Ok(match needs {
            true => status | Status::DEVICE_NEEDS_RESET,
            false => status,
        })
    }
}

/// A place that no fresh ring stands at.
fn stood(c: &QueueConfig) -> QueueState {
    let _ = c;
    QueueState::Split {
        avail: 3,
        used: Some(3),
    }
}

/// Starts a queue the second time with something of the first time.
struct Remembers {
    what: fn(&QueueConfig, &mut QueueConfig),
    first: Mutex<BTreeMap<u16, QueueConfig>>,
}

impl Remembers {
    fn new(what: fn(&QueueConfig, &mut QueueConfig)) -> Self {
        Self {
            what,
            first: Mutex::default(),
        }
    }
}

impl Bend for Remembers {
    fn start_queue(
        &self,
        inner: &dyn VdpaDevice,
        q: QueueIndex,
        c: &QueueConfig,
        kick: Kick,
        call: Call,
    ) -> Result<Doorbell> {
        let mut config = *c;
        let first = self.first.lock().unwrap().insert(q.get(), *c);
        if let Some(first) = first {
            (self.what)(&first, &mut config);
        }
        inner.start_queue(q, &config, kick, call)
    }
}

struct NeverReset;

impl Bend for NeverReset {
    fn poll_queue_reset(&self, _: &dyn QueueReset, _: QueueIndex) -> Result<Poll<()>> {
        Ok(Poll::Pending)
    }
}

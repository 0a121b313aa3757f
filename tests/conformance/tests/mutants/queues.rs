//! Wrong about the set-up of queues.

use vdpa_core::*;
use vdpa_mem::Iova;

use crate::Mutant;
use crate::bend::{Bend, bent};

pub const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "gives a size to a queue that is not there",
        caught_by: 38,
        spec: "sim:net",
        wrap: |inner| bent(inner, Limits(|most| if most == 0 { 256 } else { most })),
    },
    Mutant {
        name: "has no size for a queue that is there",
        caught_by: 38,
        spec: "sim:rng",
        wrap: |inner| bent(inner, Limits(|_| 0)),
    },
    Mutant {
        name: "has a size of 100 for split rings",
        caught_by: 39,
        spec: "sim:rng",
        wrap: |inner| bent(inner, Limits(|most| most.min(100))),
    },
    Mutant {
        name: "starts no queue of the size that it says",
        caught_by: 39,
        spec: "sim:net",
        wrap: |inner| bent(inner, Refuses(|_, c| c.size > 512)),
    },
    Mutant {
        name: "starts no ring of less than four",
        caught_by: 39,
        spec: "sim:rng",
        wrap: |inner| bent(inner, Refuses(|_, c| c.size < 4)),
    },
    Mutant {
        name: "starts queues of its largest size alone",
        caught_by: 40,
        spec: "sim:rng",
        wrap: |inner| bent(inner, Refuses(|limits, c| c.size != limits.max_size)),
    },
    Mutant {
        name: "refuses packed rings whose size is no power of two",
        caught_by: 41,
        spec: "sim:rng",
        wrap: |inner| bent(inner, Refuses(|_, c| !c.size.is_power_of_two())),
    },
    Mutant {
        name: "makes powers of two of packed sizes",
        caught_by: 41,
        spec: "sim:blk",
        wrap: |inner| bent(inner, Alters(|c| c.size = c.size.next_power_of_two())),
    },
    Mutant {
        name: "wants the available ring at a multiple of 4",
        caught_by: 47,
        spec: "sim:rng",
        wrap: |inner| bent(inner, Refuses(|_, c| c.driver.get() % 4 != 0)),
    },
    Mutant {
        name: "takes the used ring at a multiple of 64",
        caught_by: 47,
        spec: "sim:blk",
        wrap: |inner| bent(inner, Alters(|c| c.device = down(c.device))),
    },
    Mutant {
        name: "wants the descriptors at a multiple of a page",
        caught_by: 48,
        spec: "sim:rng",
        wrap: |inner| bent(inner, Refuses(|_, c| c.descriptor.get() % 4096 != 0)),
    },
    Mutant {
        name: "takes the descriptors at a multiple of 64",
        caught_by: 48,
        spec: "sim:blk",
        wrap: |inner| bent(inner, Alters(|c| c.descriptor = down(c.descriptor))),
    },
    Mutant {
        name: "has a size of 40000",
        caught_by: 49,
        spec: "sim:rng",
        wrap: |inner| bent(inner, Limits(|_| 40000)),
    },
];

fn down(at: Iova) -> Iova {
    Iova::new(at.get() & !63)
}

/// Has other largest sizes.
struct Limits(fn(u16) -> u16);

impl Bend for Limits {
    fn queue_limits(&self, inner: &dyn VdpaDevice, q: QueueIndex) -> Result<QueueLimits> {
        let limits = inner.queue_limits(q)?;
        Ok(QueueLimits {
            max_size: (self.0)(limits.max_size),
            ..limits
        })
    }
}

/// Does not start such queues.
struct Refuses(fn(QueueLimits, &QueueConfig) -> bool);

impl Bend for Refuses {
    fn start_queue(
        &self,
        inner: &dyn VdpaDevice,
        q: QueueIndex,
        c: &QueueConfig,
        kick: Kick,
        call: Call,
    ) -> Result<Doorbell> {
        match (self.0)(inner.queue_limits(q)?, c) {
            true => Err(Error::QueueAbsent { queue: q }),
            false => inner.start_queue(q, c, kick, call),
        }
    }
}

/// Starts another queue than it was asked for.
struct Alters(fn(&mut QueueConfig));

impl Bend for Alters {
    fn start_queue(
        &self,
        inner: &dyn VdpaDevice,
        q: QueueIndex,
        c: &QueueConfig,
        kick: Kick,
        call: Call,
    ) -> Result<Doorbell> {
        let mut config = *c;
        (self.0)(&mut config);
        inner.start_queue(q, &config, kick, call)
    }
}

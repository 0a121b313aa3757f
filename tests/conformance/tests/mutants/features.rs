//! Wrong about features.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use vdpa_core::bits::{self, block, net};
use vdpa_core::*;

use crate::Mutant;
use crate::bend::{Bend, bent};

pub const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "offers CTRL_RX without CTRL_VQ",
        caught_by: 13,
        spec: "sim:net",
        wrap: |inner| bent(inner, Lacks(net::CTRL_VQ.mask())),
    },
    Mutant {
        name: "offers CONFIG_WCE without FLUSH",
        caught_by: 13,
        spec: "sim:blk",
        wrap: |inner| bent(inner, Lacks(block::FLUSH.mask())),
    },
    Mutant {
        name: "offers a reserved bit",
        caught_by: 14,
        spec: "sim:rng",
        wrap: |inner| bent(inner, Adds(Features::from_u128(1 << 44))),
    },
    Mutant {
        name: "offers bit 30",
        caught_by: 14,
        spec: "sim:rng",
        wrap: |inner| bent(inner, Adds(Features::from_u128(1 << 30))),
    },
    Mutant {
        name: "offers a bit of another device type",
        caught_by: 14,
        spec: "sim:rng",
        wrap: |inner| bent(inner, Adds(net::MAC.mask())),
    },
    Mutant {
        name: "shows FEATURES_OK for whatever was chosen",
        caught_by: 15,
        spec: "sim:blk",
        wrap: |inner| bent(inner, AlwaysAgrees),
    },
    Mutant {
        name: "shows FEATURES_OK once it agreed, whatever is chosen after a reset",
        caught_by: 15,
        spec: "sim:rng",
        wrap: |inner| bent(inner, AgreesForGood::default()),
    },
    Mutant {
        name: "shows FEATURES_OK without the control queue that others need",
        caught_by: 30,
        spec: "sim:net",
        wrap: |inner| bent(inner, AlwaysAgrees),
    },
    Mutant {
        name: "refuses after a reset what it accepted before",
        caught_by: 16,
        spec: "sim:rng",
        wrap: |inner| bent(inner, AcceptsOnce::default()),
    },
    Mutant {
        name: "leaves FEATURES_OK unset once it was live",
        caught_by: 16,
        spec: "sim:blk",
        wrap: |inner| bent(inner, AgreesOnce::default()),
    },
    Mutant {
        name: "does not offer VERSION_1",
        caught_by: 17,
        spec: "sim:rng",
        wrap: |inner| bent(inner, Lacks(bits::VERSION_1.mask())),
    },
    Mutant {
        name: "offers more once it is open",
        caught_by: 19,
        spec: "sim:rng",
        wrap: |inner| bent(inner, Turns::new(bits::ORDER_PLATFORM)),
    },
    Mutant {
        name: "withdraws VERSION_1 once it is open",
        caught_by: 22,
        spec: "sim:rng",
        wrap: |inner| bent(inner, Turns::new(bits::VERSION_1)),
    },
    Mutant {
        name: "drops FEATURES_OK once it is live",
        caught_by: 25,
        spec: "sim:rng",
        wrap: |inner| bent(inner, Disagrees),
    },
    Mutant {
        name: "offers HOST_TSO4 without CSUM",
        caught_by: 30,
        spec: "sim:net",
        wrap: |inner| bent(inner, Lacks(net::CSUM.mask())),
    },
    Mutant {
        name: "offers GUEST_ECN without large packets",
        caught_by: 30,
        spec: "sim:net",
        wrap: |inner| bent(inner, Lacks(net::GUEST_TSO4 | net::GUEST_TSO6)),
    },
];

/// Does not offer these.
struct Lacks(Features);

impl Bend for Lacks {
    fn offered(&self, inner: &dyn VdpaDevice) -> Features {
        inner.offered() - self.0
    }
}

/// Offers these as well.
struct Adds(Features);

impl Bend for Adds {
    fn offered(&self, inner: &dyn VdpaDevice) -> Features {
        inner.offered() | self.0
    }
}

struct AlwaysAgrees;

impl Bend for AlwaysAgrees {
    fn status(&self, inner: &dyn VdpaDevice) -> Result<Status> {
        let status = inner.status()?;
        Ok(match status.contains(Status::DRIVER) {
            true => status | Status::FEATURES_OK,
            false => status,
        })
    }
}

#[derive(Default)]
struct AgreesForGood(AtomicBool);

impl Bend for AgreesForGood {
    fn status(&self, inner: &dyn VdpaDevice) -> Result<Status> {
        let status = inner.status()?;
        if status.contains(Status::FEATURES_OK) {
            self.0.store(true, Ordering::SeqCst);
        }
        let shown = status.contains(Status::DRIVER) && self.0.load(Ordering::SeqCst);
        Ok(match shown {
            true => status | Status::FEATURES_OK,
            false => status,
        })
    }
}

#[derive(Default)]
struct AcceptsOnce(AtomicU32);

impl Bend for AcceptsOnce {
    fn accept(&self, inner: &dyn VdpaDevice, f: Features) -> Result<()> {
        match self.0.fetch_add(1, Ordering::SeqCst) {
            0 => inner.accept(f),
            _ => Err(Error::FeaturesRefused {
                features: "these".to_owned(),
            }),
        }
    }
}

#[derive(Default)]
struct AgreesOnce(AtomicBool);

impl Bend for AgreesOnce {
    fn add_status(&self, inner: &dyn VdpaDevice, bits: Status) -> Result<()> {
        if bits.contains(Status::DRIVER_OK) {
            self.0.store(true, Ordering::SeqCst);
        }
        match self.0.load(Ordering::SeqCst) && bits.contains(Status::FEATURES_OK) {
            true => inner.add_status(bits - Status::FEATURES_OK),
            false => inner.add_status(bits),
        }
    }
}

/// One bit is offered before it is opened, or after, and not both.
struct Turns {
    bit: FeatureBit,
    open: AtomicBool,
}

impl Turns {
    fn new(bit: FeatureBit) -> Self {
        Self {
            bit,
            open: AtomicBool::new(false),
        }
    }
}

impl Bend for Turns {
    fn attached(&self, _: &Host) {
        self.open.store(true, Ordering::SeqCst);
    }
    fn offered(&self, inner: &dyn VdpaDevice) -> Features {
        let offered = inner.offered();
        match (self.open.load(Ordering::SeqCst), offered.contains(self.bit)) {
            (false, _) => offered,
            (true, true) => offered.without(self.bit),
            (true, false) => offered.with(self.bit),
        }
    }
}

struct Disagrees;

impl Bend for Disagrees {
    fn status(&self, inner: &dyn VdpaDevice) -> Result<Status> {
        let status = inner.status()?;
        Ok(match status.contains(Status::DRIVER_OK) {
            true => status - Status::FEATURES_OK,
            false => status,
        })
    }
}

//! Wrong about the configuration.

use std::sync::atomic::{AtomicU32, Ordering};

use vdpa_core::*;

use crate::Mutant;
use crate::bend::{Bend, bent};

pub const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "has less configuration than its fields take",
        caught_by: 31,
        spec: "sim:net",
        wrap: |inner| bent(inner, Short),
    },
    Mutant {
        name: "reads zeros before FEATURES_OK",
        caught_by: 31,
        spec: "sim:blk",
        wrap: |inner| bent(inner, LateFields(Status::FEATURES_OK)),
    },
    Mutant {
        name: "has an MTU that no network has",
        caught_by: 31,
        spec: "sim:net",
        wrap: |inner| bent(inner, SmallMtu),
    },
    Mutant {
        name: "fails to read its configuration before DRIVER",
        caught_by: 31,
        spec: "sim:blk",
        wrap: |inner| bent(inner, Unreadable),
    },
    Mutant {
        name: "has a generation that never changes",
        caught_by: 32,
        spec: "sim:blk",
        wrap: |inner| bent(inner, OldGeneration),
    },
    Mutant {
        name: "has another generation after each reset, and then the same",
        caught_by: 32,
        spec: "sim:net",
        wrap: |inner| bent(inner, CountsResets::default()),
    },
    Mutant {
        name: "does not tell that its configuration changed",
        caught_by: 32,
        spec: "sim:net",
        wrap: |inner| bent(inner, TellsNoChange),
    },
];

struct Short;

impl Bend for Short {
    fn info(&self, inner: DeviceInfo) -> DeviceInfo {
        DeviceInfo {
            config_size: 10,
            ..inner
        }
    }
}

/// The configuration is zero without this status.
struct LateFields(Status);

impl Bend for LateFields {
    fn read_config(&self, inner: &dyn VdpaDevice, at: u32, to: &mut [u8]) -> Result<()> {
        inner.read_config(at, to)?;
        if !inner.status()?.contains(self.0) {
            to.fill(0);
        }
        Ok(())
    }
}

struct SmallMtu;

impl Bend for SmallMtu {
    fn read_config(&self, inner: &dyn VdpaDevice, at: u32, to: &mut [u8]) -> Result<()> {
        inner.read_config(at, to)?;
        for (byte, place) in to.iter_mut().zip(at..) {
            match place {
                10 => *byte = 60,
                11 => *byte = 0,
                _ => {}
            }
        }
        Ok(())
    }
}

struct Unreadable;

impl Bend for Unreadable {
    fn read_config(&self, inner: &dyn VdpaDevice, at: u32, to: &mut [u8]) -> Result<()> {
        match inner.status()?.contains(Status::DRIVER) {
            true => inner.read_config(at, to),
            false => Err(Error::Busy {
                what: "the beginning",
            }),
        }
    }
}

struct OldGeneration;

impl Bend for OldGeneration {
    fn config_generation(&self, _: &dyn VdpaDevice) -> Result<Option<u32>> {
        Ok(Some(7))
    }
}

#[derive(Default)]
struct CountsResets(AtomicU32);

impl Bend for CountsResets {
    fn begin_reset(&self, inner: &dyn VdpaDevice) -> Result<()> {
        self.0.fetch_add(1, Ordering::SeqCst);
        inner.begin_reset()
    }
    fn config_generation(&self, _: &dyn VdpaDevice) -> Result<Option<u32>> {
        Ok(Some(self.0.load(Ordering::SeqCst)))
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

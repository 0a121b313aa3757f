//! The keys of a device string that ask for faults.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use vdpa_core::faults::Plan;
use vdpa_core::{DeviceSpec, Key, Layer, MgmtDevice, Result, Wrap};

use super::{Faults, KINDS};

/// Wraps the devices of a device string in [`Faults`], by `fault=KIND[:RATE]+...` and `seed=N`.
///
/// The kinds are [`KINDS`], which work with any parent, and those that the parent makes
/// [by itself](vdpa_core::MgmtDevice::faults). Without a seed one is chosen; it is told to `tracing` at INFO, with the target `vdpa::seed`, and stands at
/// the end of the device's string from then on.
#[derive(Clone, Copy, Default, Debug)]
pub struct FaultsLayer;

const KEYS: &[Key] = &[
    Key {
        name: "fault",
        values: "KIND[:RATE]+KIND[:RATE]...",
        about: "faults to make; a rate is 0.01 (the default), @3 or /8",
    },
    Key {
        name: "seed",
        values: "0 to 18446744073709551615",
        about: "which faults those are; default another one each time",
    },
];

impl Layer for FaultsLayer {
    fn name(&self) -> &str {
        "faults"
    }

    fn keys(&self) -> &[Key] {
        KEYS
    }

    fn wrap(&self, spec: &mut DeviceSpec, parent: &dyn MgmtDevice) -> Result<Option<Wrap>> {
        let seed: Option<u64> = spec.keys().take("seed")?;
        let Some(value) = spec.value("fault") else {
            return match seed {
                Some(_) => Err(spec.unused("seed").into()),
                None => Ok(None),
            };
        };
        let own = parent.faults(spec.what()).to_vec();
        let legal = KINDS.iter().chain(&own).copied();
        let plan = Plan::parse(&value, seed.unwrap_or_else(chosen), legal)?;
        let mut rest = spec.clone().without(&["fault", "seed"]);
        if seed.is_none() {
            let seed = plan.seed();
            tracing::info!(target: "vdpa::seed", device = spec.text(), seed, "faults have a seed that was chosen");
            rest = rest.noted("seed", &seed);
        }
        if let Some(plan) = plan.of(&own) {
            rest = rest.with_faults(plan);
        }
        *spec = rest;
        Ok(plan
            .of(KINDS)
            .map(|plan| -> Wrap { Box::new(move |device| Arc::new(Faults::new(device, plan))) }))
    }
}

/// A seed that nobody asked for. Short, since somebody may have to type it.
fn chosen() -> u64 {
    RandomState::new().hash_one(()) >> 40
}

//! `as=pf`: the device as a physical function that has virtual functions; `as=vf`: one of those.
//!
//! The virtual functions are made by the string of their owner, but for `mac` and `mirror`, which no two can share.

use std::sync::Arc;

use vdpa_core::spec::{DeviceSpec, Keys, SpecError};
use vdpa_core::{Error, Key, MgmtDevice, Result};
use vdpa_pci::PciAccess;

use super::{Kind, Recipe, SimMgmt, key, pci};
use crate::pci::Function;
use crate::pf::PfFunction;
use crate::pf::sriov::SrIov;

/// How many virtual functions.
pub(super) const VFS: Key = key(
    "vfs",
    "1 to 64",
    "with as=pf: virtual functions, there from the start; default 2",
);
/// Whose virtual function.
pub(super) const OF: Key = key(
    "of",
    "a device",
    "with as=vf: its physical function, by name",
);
/// Which virtual function.
pub(super) const NUMBER: Key = key(
    "number",
    "1 to 64",
    "with as=vf: which virtual function; default 1",
);

/// The most virtual functions: each has threads of its own.
const MOST: u16 = 64;

/// How many virtual functions there can be.
pub(super) fn vfs(keys: &mut Keys<'_>) -> Result<u16, SpecError> {
    Ok(keys.take_in("vfs", 1..=MOST)?.unwrap_or(2))
}

impl SimMgmt {
    /// Makes a physical function, with all its virtual functions.
    ///
    /// * `name`: nobody else's
    pub(super) fn physical(
        &self,
        kind: &'static Kind,
        spec: &DeviceSpec,
        name: &str,
        recipe: Recipe,
    ) -> Result<Arc<dyn PciAccess>> {
        let Recipe {
            class,
            served,
            setup,
            vfs,
        } = recipe;
        let (mgmt, string, owner) = (self.clone(), spec.clone(), name.to_owned());
        let make = move |number| mgmt.virtual_function(kind, &string, &owner, number);
        let serve = |class| served.device(name, class);
        let setup = setup.unwrap_or_else(pci::usual);
        let pf = PfFunction::new(class, setup, vfs, Box::new(make), serve)?;
        self.enter(kind, spec.text(), pf.device());
        pci::power(pf.function())?;
        pf.enable(vfs)?;
        self.list(|devices| {
            devices
                .owners
                .retain(|(_, owner)| owner.strong_count() != 0);
            let sriov = Arc::downgrade(pf.sriov());
            devices.owners.push((name.to_owned(), sriov));
        });
        Ok(Arc::clone(pf.function()) as _)
    }

    /// Makes virtual function `number` of a physical one.
    fn virtual_function(
        &self,
        kind: &'static Kind,
        spec: &DeviceSpec,
        owner: &str,
        number: u16,
    ) -> Result<Function> {
        let recipe = self.recipe(kind, spec, self.number(), true)?;
        let name = format!("{owner}.vf{number}");
        let device = Arc::new(recipe.served.device(&name, recipe.class));
        let (parent, what) = (self.name(), kind.class.what);
        let text = format!("{parent}:{what},as=vf,of={owner},number={number}");
        self.enter(kind, &text, &device);
        pci::function(device, recipe.setup.unwrap_or_else(pci::usual))
    }

    /// Finds the virtual function that a string names.
    pub(super) fn member(
        &self,
        kind: &'static Kind,
        mut keys: Keys<'_>,
    ) -> Result<Arc<dyn PciAccess>> {
        let of = keys.value("of");
        let number = keys.take_in("number", 1..=MOST)?.unwrap_or(1);
        super::finish(keys, kind.class.keys)?;
        let name = of.as_ref().map_or("", |of| of.text());
        let owners = self.owners();
        let owner = owners.iter().find(|(owner, _)| owner == name);
        let vf = owner.and_then(|(_, sriov)| sriov.vf(number));
        let what = kind.class.device_type;
        let vf = vf.filter(|vf| vf.device().info().device_type == what);
        let found = vf.ok_or_else(|| members(&owners, kind));
        match (found, of) {
            (Ok(vf), _) => Ok(vf),
            (Err(known), Some(of)) => Err(Error::DeviceUnknown {
                parent: self.name().to_owned(),
                name: format!("{}, virtual function {number}", of.text()),
                known,
            }),
            (Err(known), None) => Err(Error::DeviceUnknown {
                parent: self.name().to_owned(),
                name: "of=, which is missing".to_owned(),
                known,
            }),
        }
    }

    /// The physical functions that there are. What they are asked takes locks of theirs, and what makes their virtual
    /// functions takes that of the list: never within it.
    fn owners(&self) -> Vec<(String, Arc<SrIov>)> {
        self.list(|devices| {
            let owners = devices.owners.iter();
            let there = owners.filter_map(|(name, sriov)| Some((name.clone(), sriov.upgrade()?)));
            there.collect()
        })
    }
}

/// The virtual functions of a kind that there are, as they are named.
fn members(owners: &[(String, Arc<SrIov>)], kind: &'static Kind) -> Vec<String> {
    let mut names = Vec::new();
    for (owner, sriov) in owners {
        for number in 1..=sriov.total() {
            let vf = sriov.vf(number);
            if vf.is_some_and(|vf| vf.device().info().device_type == kind.class.device_type) {
                names.push(format!("of={owner},number={number}"));
            }
        }
    }
    names
}

//! Who makes mediated devices, and of which types.

use vdpa_vfio::sysfs::{ATTRIBUTE, Fact, Tree};

/// The devices that make mediated ones, by name.
pub(crate) const PARENTS: &str = "/sys/class/mdev_bus";

/// A device that makes mediated ones, as it was when it was looked at.
///
/// # Spec
/// Linux, `Documentation/driver-api/vfio-mediated-device.rst`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Parent {
    /// Its name: a PCI function's address, as a rule.
    pub name: String,
    /// What it makes.
    pub kinds: Fact<Vec<Kind>>,
}

/// A type of mediated devices, at one parent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kind {
    /// How it is asked for, as in `mtty-2`.
    pub id: String,
    /// What its parent calls it, for people.
    pub name: Fact<String>,
    /// What it is, for people: some have this, of any form.
    pub description: Fact<String>,
    /// What VFIO shows of such a device: `vfio-pci`, `vfio-ccw` and others.
    pub api: Fact<String>,
    /// How many more can be made now.
    pub available: Fact<u32>,
}

impl Parent {
    /// What stands under this name; the caller knows that something does.
    pub(crate) fn read(tree: &Tree, name: &str) -> Self {
        let home = format!("{PARENTS}/{name}/mdev_supported_types");
        Self {
            name: name.to_owned(),
            kinds: tree.names(&home).map(|ids| {
                let kind = |id: String| Kind::read(tree, &format!("{home}/{id}"), id);
                ids.into_iter().map(kind).collect()
            }),
        }
    }

    /// The type of this name.
    pub fn kind(&self, id: &str) -> Option<&Kind> {
        let mut kinds = self.kinds.known().into_iter().flatten();
        kinds.find(|kind| kind.id == id)
    }
}

impl Kind {
    pub(crate) fn read(tree: &Tree, home: &str, id: String) -> Self {
        let text = |name: &str| tree.text(format!("{home}/{name}"), ATTRIBUTE);
        Self {
            id,
            name: text("name"),
            description: text("description"),
            api: text("device_api"),
            available: tree.number(format!("{home}/available_instances")),
        }
    }
}

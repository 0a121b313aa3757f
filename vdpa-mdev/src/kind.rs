//! Who makes mediated devices, and of which types.

use std::ffi::{OsStr, OsString};

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
            kinds: tree.entries(&home).map(|ids| {
                let kind = |id: OsString| match id.into_string() {
                    Ok(id) => Kind::read(tree, &format!("{home}/{id}"), id),
                    Err(id) => Kind::nameless(&id),
                };
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
        let shown = |name: &str| tree.shown(format!("{home}/{name}"), ATTRIBUTE);
        Self {
            id,
            name: shown("name"),
            description: shown("description"),
            api: tree.text(format!("{home}/device_api"), ATTRIBUTE),
            available: tree.number(format!("{home}/available_instances")),
        }
    }

    /// One that nobody can ask for, since its name is no text: that it is there.
    fn nameless(id: &OsStr) -> Self {
        fn unread<T>() -> Fact<T> {
            Fact::Unknown("its type's name is no text".to_owned())
        }
        Self {
            id: id.to_string_lossy().into_owned(),
            name: unread(),
            description: unread(),
            api: unread(),
            available: unread(),
        }
    }
}

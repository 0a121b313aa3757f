//! Making mediated devices, and removing them.

use std::path::Path;
use std::{fs, io};

use uuid::Uuid;
use vdpa_vfio::sysfs::{Fact, Kernel, Step, excerpt, said};

use crate::kind::{Kind, PARENTS, Parent};
use crate::mediated::{DEVICES, Mediated};
use crate::{Definition, Host, MdevError};

/// What of a device's directory is the kernel's, and no attribute of its driver's: who writes there removes the device, has
/// events told of it, chooses its driver, or reaches into what is shown inside it.
///
/// # Spec
/// Linux: `drivers/vfio/mdev/mdev_sysfs.c`, `drivers/base/core.c`, `drivers/base/power/sysfs.c`, `drivers/vfio/vfio_main.c`.
const CONTROLS: [&str; 6] = [
    "remove",
    "uevent",
    "driver_override",
    "reset",
    "power",
    "vfio-dev",
];

/// Makes mediated devices, and removes them.
pub struct Making<'a> {
    host: &'a Host,
    kernel: &'a dyn Kernel,
}

impl<'a> Making<'a> {
    /// * `host`: where parents and devices are
    /// * `kernel`: what acts on writes there, as [`Host::kernel`] says
    pub fn new(host: &'a Host, kernel: &'a dyn Kernel) -> Self {
        Self { host, kernel }
    }

    /// The parent that would make a device of a type.
    ///
    /// * `kind`, `parent`: as for [`create`](Self::create)
    ///
    /// # Errors
    /// [`MdevError::KindUnknown`], [`MdevError::NoParent`] and [`MdevError::SeveralParents`].
    pub fn parent_of(host: &Host, kind: &str, parent: Option<&str>) -> Result<String, MdevError> {
        let parents = host.parents()?;
        Ok(choose(&parents, kind, parent)?.0.name.clone())
    }

    /// Makes a device.
    ///
    /// * `kind`: its type, as in `mtty-2`
    /// * `parent`: which device makes it; `None`: the only one that has the type
    /// * `uuid`: its name, which no other has
    ///
    /// # Errors
    /// [`MdevError::KindUnknown`], [`MdevError::NoParent`], [`MdevError::SeveralParents`], [`MdevError::Taken`],
    /// [`MdevError::NoInstances`], [`MdevError::ParentGone`], [`MdevError::Step`] and [`MdevError::NotSettled`]. There is no
    /// such device then.
    pub fn create(
        &self,
        kind: &str,
        parent: Option<&str>,
        uuid: Uuid,
    ) -> Result<Mediated, MdevError> {
        let parents = self.host.parents()?;
        let (parent, kind) = choose(&parents, kind, parent)?;
        if let Ok(there) = self.host.device(uuid) {
            return Err(taken(&there));
        }
        let none_left = || MdevError::NoInstances {
            kind: kind.id.clone(),
            parent: parent.name.clone(),
        };
        // What cannot be read the kernel knows.
        if kind.available == Fact::Is(0) {
            return Err(none_left());
        }
        let (parent, id) = (&parent.name, &kind.id);
        let path = format!("{PARENTS}/{parent}/mdev_supported_types/{id}/create");
        let step = Step::new(path, uuid.to_string());
        if let Err(source) = self.kernel.write(&step) {
            return Err(match (source.raw_os_error(), self.host.device(uuid)) {
                (Some(libc::EEXIST), Ok(there)) => taken(&there),
                // Linux 6.1 and later says so; drivers that count by themselves say what they like.
                (Some(libc::EUSERS | libc::ENOSPC), _) => none_left(),
                (Some(libc::ENODEV | libc::ENOENT), _) => MdevError::ParentGone {
                    parent: parent.clone(),
                },
                _ => MdevError::Step { uuid, step, source },
            });
        }
        self.host.device(uuid).map_err(|_| MdevError::NotSettled {
            uuid,
            wanted: "a new device",
        })
    }

    /// Removes a device. Who has it open is asked to let it go, and is waited for, for as long as that takes: the kernel
    /// lets nothing interrupt this.
    ///
    /// # Errors
    /// [`MdevError::NoDevice`], [`MdevError::Step`] and [`MdevError::NotSettled`].
    pub fn remove(&self, uuid: Uuid) -> Result<(), MdevError> {
        self.host.device(uuid)?;
        let step = Step::new(format!("{DEVICES}/{uuid}/remove"), "1");
        match self.kernel.write(&step) {
            Ok(()) => {}
            Err(source) => {
                return Err(match source.raw_os_error() {
                    // Somebody else was faster.
                    Some(libc::ENODEV | libc::ENOENT) => MdevError::NoDevice { uuid },
                    _ => MdevError::Step { uuid, step, source },
                });
            }
        }
        match self.host.device(uuid) {
            Ok(_) => Err(MdevError::NotSettled {
                uuid,
                wanted: "no device any more",
            }),
            Err(_) => Ok(()),
        }
    }

    /// Makes a device that is defined, and sets its attributes in their order.
    ///
    /// # Errors
    /// As for [`create`](Self::create), with [`MdevError::Made`] in place of [`MdevError::Taken`]; [`MdevError::Attribute`] for one that is none of the device's own, is not there or
    /// does not take its value, after which the device is removed again; [`MdevError::NotSettled`], when it is gone by then.
    pub fn start(&self, definition: &Definition) -> Result<Mediated, MdevError> {
        let uuid = definition.uuid;
        let made = self.create(&definition.kind, Some(&definition.parent), uuid);
        made.map_err(|error| match error {
            // Its name is chosen.
            MdevError::Taken { uuid, kind } => MdevError::Made { uuid, kind },
            error => error,
        })?;
        for (name, value) in &definition.attributes {
            if let Err(source) = self.set(uuid, name, value) {
                let left = match self.remove(uuid) {
                    Ok(()) => "; the device is removed again".to_owned(),
                    Err(error) => format!("; and the device stays: {error}"),
                };
                return Err(MdevError::Attribute {
                    uuid,
                    name: excerpt(name),
                    value: excerpt(value),
                    why: said(&source),
                    left,
                });
            }
        }
        // What an attribute does is its driver's affair.
        self.host.device(uuid).map_err(|_| MdevError::NotSettled {
            uuid,
            wanted: "a device with its attributes",
        })
    }

    fn set(&self, uuid: Uuid, name: &str, value: &str) -> io::Result<()> {
        let home = format!("{DEVICES}/{uuid}");
        is_attribute(&self.host.path(&home), name)?;
        self.kernel
            .write(&Step::new(format!("{home}/{name}"), value))
    }
}

/// Refuses what does not name an attribute of a device's own: a file below its directory, such as `nvidia/vgpu_params`, to
/// which no link leads, and which is not the kernel's to be written. mdevctl takes any path.
///
/// * `home`: the device's directory
fn is_attribute(home: &Path, name: &str) -> io::Result<()> {
    let refused = |why: &str| Err(io::Error::other(why.to_owned()));
    let is_name = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
    if !name.split('/').all(is_name) {
        return refused("it is no name below the device's directory");
    }
    let first = name.split('/').next().unwrap_or(name);
    if CONTROLS.contains(&first) {
        return refused("it is the kernel's, and no attribute of the device's driver");
    }
    let mut path = home.to_owned();
    let mut kind = None;
    for part in name.split('/') {
        path.push(part);
        let there = fs::symlink_metadata(&path)?.file_type();
        if there.is_symlink() {
            return refused("it leads through a link, out of what is the device's own");
        }
        kind = Some(there);
    }
    match kind {
        Some(kind) if kind.is_file() => Ok(()),
        _ => refused("it is no file"),
    }
}

/// Which parent is meant, and its type.
fn choose<'p>(
    parents: &'p [Parent],
    kind: &str,
    wanted: Option<&str>,
) -> Result<(&'p Parent, &'p Kind), MdevError> {
    let meant: Vec<&Parent> = parents
        .iter()
        .filter(|parent| wanted.is_none_or(|name| parent.name == name))
        .collect();
    if let (Some(parent), true) = (wanted, meant.is_empty()) {
        return Err(MdevError::NoParent {
            parent: excerpt(parent),
            legal: parents.iter().map(|parent| parent.name.clone()).collect(),
        });
    }
    let with = |parent: &&'p Parent| Some((*parent, parent.kind(kind)?));
    let having: Vec<_> = meant.iter().filter_map(with).collect();
    match having[..] {
        [one] => Ok(one),
        [] => {
            let ids = meant.iter().flat_map(|parent| parent.kinds.known());
            let mut legal: Vec<String> = ids.flatten().map(|kind| kind.id.clone()).collect();
            legal.sort_unstable();
            legal.dedup();
            Err(MdevError::KindUnknown {
                kind: excerpt(kind),
                parent: wanted.map(excerpt),
                legal,
            })
        }
        _ => Err(MdevError::SeveralParents {
            kind: excerpt(kind),
            parents: having
                .iter()
                .map(|(parent, _)| parent.name.clone())
                .collect(),
        }),
    }
}

fn taken(there: &Mediated) -> MdevError {
    MdevError::Taken {
        uuid: there.uuid,
        kind: there.kind_name(),
    }
}

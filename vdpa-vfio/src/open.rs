//! Which device is meant, what stands in the way of opening it, and which way it is opened.

use std::io;
use std::path::{Path, PathBuf};

use vdpa_core::spec::Keys;
use vdpa_core::{Key, Relay, SpecError};

use crate::function::Parts;
use crate::sysfs::{Address, Fact, Host, Standing, SysfsError};
use crate::{Function, VfioError, group};

/// The file of iommufd.
pub(crate) const IOMMU: &str = "/dev/iommu";

/// Where devices have files of their own.
const DEVICES: &str = "/dev/vfio/devices";

/// Where mediated devices are, by UUID.
const MEDIATED: &str = "/sys/bus/mdev/devices";

/// How a function is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Via {
    /// By its IOMMU group, in a container of the second version of type 1.
    Group,
    /// By its own device file, in a space of an iommufd: Linux 6.6 and later, where built in.
    Cdev,
}

impl Via {
    /// The key of a device string that chooses.
    pub const KEY: Key = Key {
        name: "via",
        values: "group or cdev",
        about: "how it is opened; default: by its group, where that has a file",
    };

    /// What a device string chooses; `None` where it leaves that open.
    ///
    /// # Errors
    /// When it names no way.
    pub fn of(keys: &mut Keys<'_>) -> Result<Option<Self>, SpecError> {
        let ways = [("group", Self::Group), ("cdev", Self::Cdev)];
        keys.take_one_of(Self::KEY.name, &ways)
    }
}

impl Function {
    /// Opens a function that is bound to `vfio-pci`.
    ///
    /// * `root`: `/`; or a directory that shows a system, of which everything is told but nothing opened
    /// * `via`: `None`: by its group where that has a file, else by its own file where there is one
    /// * `relay`: runs what the kernel reports
    ///
    /// # Errors
    /// [`VfioError`], each with what mends it.
    pub fn open(
        root: &Path,
        address: Address,
        via: Option<Via>,
        relay: Relay,
    ) -> Result<Self, VfioError> {
        Found::function(root, address)?.open(via, relay)
    }
}

/// A device that can be opened, as far as files show: a PCI function, or a mediated device that acts like one.
#[derive(Clone, Debug)]
pub struct Found {
    host: Host,
    root: PathBuf,
    pub(crate) name: String,
    /// Its directory in sysfs.
    pub(crate) path: PathBuf,
    pub(crate) group: u32,
    /// The name of its own device file.
    cdev: Option<String>,
    /// The module that makes the files that it is opened by.
    pub(crate) module: &'static str,
}

impl Found {
    /// A mediated device. Whoever has looked at it has seen that its driver gives it to VFIO.
    ///
    /// * `root`: as for [`Function::open`]
    /// * `uuid`: its name on the bus, lower case and with hyphens
    /// * `group`: its IOMMU group, which it is alone in
    /// * `cdev`: the name of its own device file, as in `vfio3`, where there is one
    pub fn mediated(root: &Path, uuid: &str, group: u32, cdev: Option<String>) -> Self {
        Self {
            host: Host::new(root),
            root: root.to_owned(),
            name: uuid.to_owned(),
            path: root.join(MEDIATED.trim_start_matches('/')).join(uuid),
            group,
            cdev,
            module: "vfio",
        }
    }

    /// Looks for a function that is bound to `vfio-pci`, and for what stands in the way.
    ///
    /// * `root`: as for [`Function::open`]
    ///
    /// # Errors
    /// [`VfioError`], each with what mends it.
    pub fn function(root: &Path, address: Address) -> Result<Self, VfioError> {
        let host = Host::new(root);
        let name = address.to_string();
        let function = match host.function(address) {
            Ok(function) => function,
            Err(SysfsError::NoSuchFunction { .. }) => return Err(VfioError::NoFunction { name }),
            Err(error) => {
                return Err(VfioError::System {
                    name,
                    what: "look at it",
                    source: io::Error::other(error),
                });
            }
        };
        if !function.is_vfio() {
            let driver = function.driver.known().cloned();
            return Err(VfioError::NotBound { name, driver });
        }
        let path = root.join("sys/bus/pci/devices").join(&name);
        let group = match function.iommu_group {
            Fact::Is(group) => group,
            Fact::Absent => return Err(VfioError::NoIommu { name }),
            Fact::Unknown(why) => {
                return Err(VfioError::System {
                    name,
                    what: "read its IOMMU group",
                    source: io::Error::other(why),
                });
            }
        };
        if host.group(group).no_iommu {
            return Err(VfioError::Unprotected { name });
        }
        Ok(Self {
            host,
            root: root.to_owned(),
            name,
            path,
            group,
            cdev: function.vfio_device.known().cloned(),
            module: "vfio-pci",
        })
    }

    /// Opens it.
    ///
    /// * `via`: `None`: by its group where that has a file, else by its own file where there is one
    /// * `relay`: runs what the kernel reports
    ///
    /// # Errors
    /// [`VfioError`], each with what mends it.
    pub fn open(&self, via: Option<Via>, relay: Relay) -> Result<Function, VfioError> {
        let via = self.via(via)?;
        if self.root != Path::new("/") {
            return Err(VfioError::Picture {
                name: self.name.clone(),
                root: self.root.display().to_string(),
            });
        }
        Function::new(self.parts(via, relay)?)
    }

    /// Where a file of the system is below the root.
    fn below(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// The file of its group.
    fn group_file(&self) -> String {
        format!("/dev/vfio/{}", self.group)
    }

    /// Its own file.
    pub(crate) fn device_file(&self) -> String {
        format!("{DEVICES}/{}", self.cdev.as_deref().unwrap_or("vfioN"))
    }

    /// Which way to go: the one that is wanted, or one that is there.
    fn via(&self, wanted: Option<Via>) -> Result<Via, VfioError> {
        let has_group = self.below(&self.group_file()).exists();
        let has_cdev = self.cdev.is_some()
            && self.below(&self.device_file()).exists()
            && self.below(IOMMU).exists();
        let missing = |path, hint| self.missing(path, hint);
        match wanted {
            Some(Via::Group) | None if has_group => Ok(Via::Group),
            Some(Via::Group) => Err(missing(
                self.group_file(),
                "; a kernel without CONFIG_VFIO_GROUP has none: via=cdev",
            )),
            Some(Via::Cdev) | None if has_cdev => match cfg!(feature = "iommufd") {
                true => Ok(Via::Cdev),
                false => Err(VfioError::NoIommufd {
                    name: self.name.clone(),
                }),
            },
            Some(Via::Cdev) => Err(missing(
                match self.below(IOMMU).exists() {
                    true => self.device_file(),
                    false => IOMMU.to_owned(),
                },
                "; a kernel without CONFIG_VFIO_DEVICE_CDEV and CONFIG_IOMMUFD has none: via=group",
            )),
            None => Err(missing(self.group_file(), "")),
        }
    }

    fn parts(&self, via: Via, relay: Relay) -> Result<Parts, VfioError> {
        match via {
            Via::Group => group::open(self, relay),
            #[cfg(feature = "iommufd")]
            Via::Cdev => crate::cdev::open(self, relay),
            #[cfg(not(feature = "iommufd"))]
            Via::Cdev => Err(VfioError::NoIommufd {
                name: self.name.clone(),
            }),
        }
    }

    fn missing(&self, path: String, hint: &'static str) -> VfioError {
        VfioError::NoFile {
            name: self.name.clone(),
            path,
            module: self.module,
            hint,
        }
    }

    /// The error of a device file that cannot be opened.
    pub(crate) fn unopened(&self, path: &str, source: io::Error) -> VfioError {
        let (name, path) = (self.name.clone(), path.to_owned());
        match source.raw_os_error() {
            Some(libc::EACCES | libc::EPERM) => VfioError::Permission { name, path },
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => self.missing(path, ""),
            Some(libc::EBUSY) => VfioError::InUse { name, path },
            _ => VfioError::System {
                name,
                what: "open its device file",
                source,
            },
        }
    }

    /// The error of a group that others use.
    pub(crate) fn not_viable(&self) -> VfioError {
        VfioError::NotViable {
            name: self.name.clone(),
            group: self.group,
            others: self.others(),
        }
    }

    /// Who stands in the way of using the group, with their drivers.
    pub(crate) fn others(&self) -> Vec<(String, String)> {
        let group = self.host.group(self.group);
        let driver = |standing: &Standing| match standing {
            Standing::Taken { driver } => driver.clone(),
            _ => "an unknown driver".to_owned(),
        };
        // A mediated device has a driver of its kind, which is none that the group minds.
        let others = group.in_the_way().into_iter();
        others
            .filter(|other| other.name != self.name)
            .map(|other| (other.name.clone(), driver(&other.standing)))
            .collect()
    }
}

#[cfg(test)]
pub(crate) mod tests;

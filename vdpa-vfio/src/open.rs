//! Which function is meant, what stands in the way of opening it, and which way it is opened.

use std::io;
use std::path::{Path, PathBuf};

use vdpa_core::Relay;

use crate::function::Parts;
use crate::sysfs::{Address, Fact, Host, Standing, SysfsError};
use crate::{Function, VfioError, group};

/// The file of iommufd.
pub(crate) const IOMMU: &str = "/dev/iommu";

/// Where functions have files of their own.
const DEVICES: &str = "/dev/vfio/devices";

/// How a function is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Via {
    /// By its IOMMU group, in a container of the second version of type 1.
    Group,
    /// By its own device file, in a space of an iommufd: Linux 6.6 and later, where built in.
    Cdev,
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
        let found = Found::look(root, address)?;
        let via = found.via(via)?;
        if root != Path::new("/") {
            return Err(VfioError::Picture {
                name: found.name,
                root: root.display().to_string(),
            });
        }
        Self::new(found.open(via, relay)?)
    }
}

/// A function that can be opened, as far as files show.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    host: Host,
    root: PathBuf,
    pub(crate) name: String,
    /// Its directory in sysfs.
    pub(crate) path: PathBuf,
    pub(crate) group: u32,
    /// The name of its own device file.
    cdev: Option<String>,
}

impl Found {
    /// Looks for a function and for what stands in the way.
    pub(crate) fn look(root: &Path, address: Address) -> Result<Self, VfioError> {
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
        })
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
        let missing = |path, hint| VfioError::NoFile {
            name: self.name.clone(),
            path,
            hint,
        };
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

    fn open(&self, via: Via, relay: Relay) -> Result<Parts, VfioError> {
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

    /// The error of a device file that cannot be opened.
    pub(crate) fn unopened(&self, path: &str, source: io::Error) -> VfioError {
        let (name, path) = (self.name.clone(), path.to_owned());
        match source.raw_os_error() {
            Some(libc::EACCES | libc::EPERM) => VfioError::Permission { name, path },
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => VfioError::NoFile {
                name,
                path,
                hint: "",
            },
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
        let others = group.in_the_way().into_iter();
        others
            .map(|other| (other.name.clone(), driver(&other.standing)))
            .collect()
    }
}

#[cfg(test)]
pub(crate) mod tests;

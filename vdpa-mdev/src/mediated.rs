//! A mediated device, as sysfs describes it.

use std::path::Path;

use uuid::Uuid;
use vdpa_vfio::Found;
use vdpa_vfio::sysfs::{Fact, Tree, excerpt};

use crate::MdevError;
use crate::kind::Kind;

/// Mediated devices, by UUID.
pub(crate) const DEVICES: &str = "/sys/bus/mdev/devices";

/// What VFIO shows of a device that acts like a PCI function.
///
/// # Spec
/// `linux/vfio.h`: VFIO_DEVICE_API_PCI_STRING.
pub const PCI_API: &str = "vfio-pci";

/// A mediated device, as it was when it was looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mediated {
    /// Its name.
    pub uuid: Uuid,
    /// The device that it is in.
    pub parent: Fact<String>,
    /// Its type, of which nothing but the name may be known.
    pub kind: Fact<Kind>,
    /// The driver that has it. Absent: nobody has, and it cannot be used.
    pub driver: Fact<String>,
    /// The group that VFIO made for it. Absent: its driver does not give it to VFIO.
    pub iommu_group: Fact<u32>,
    /// VFIO's device file of its own: `vfio3`, in `/dev/vfio/devices`. Absent: the kernel has none.
    pub vfio_device: Fact<String>,
}

impl Mediated {
    /// What stands under this name; the caller knows that something does.
    pub(crate) fn read(tree: &Tree, uuid: Uuid) -> Self {
        let at = |name: &str| format!("{DEVICES}/{uuid}/{name}");
        let kind = at("mdev_type");
        Self {
            uuid,
            // Where the bus's link leads: to the device's directory in its parent's.
            parent: tree.target(format!("{DEVICES}/{uuid}")).and_then(|target| {
                match name_of(target.parent()) {
                    Some(parent) => Fact::Is(parent),
                    None => Fact::Unknown("its link leads to no parent".to_owned()),
                }
            }),
            kind: tree.link(&kind).map(|id| Kind::read(tree, &kind, id)),
            driver: tree.link(at("driver")),
            iommu_group: tree
                .link(at("iommu_group"))
                .and_then(|name| match name.parse() {
                    Ok(group) => Fact::Is(group),
                    Err(_) => Fact::Unknown(format!("`{}` is no group", excerpt(&name))),
                }),
            vfio_device: match tree.names(at("vfio-dev")) {
                Fact::Is(names) => match <[String; 1]>::try_from(names) {
                    Ok([name]) => Fact::Is(name),
                    Err(names) => Fact::Unknown(format!("it has {}", names.len())),
                },
                Fact::Absent => Fact::Absent,
                Fact::Unknown(why) => Fact::Unknown(why),
            },
        }
    }

    /// The same for VFIO, if it is a device that acts like a PCI function.
    ///
    /// * `root`: of the system that it was read from
    ///
    /// # Errors
    /// [`MdevError::Api`], [`MdevError::NoDriver`], [`MdevError::NoGroup`] and [`MdevError::Unreadable`].
    pub(crate) fn found(&self, root: &Path) -> Result<Found, MdevError> {
        let uuid = self.uuid;
        let unreadable = |what, why: &str| MdevError::Unreadable {
            uuid,
            what,
            why: why.to_owned(),
        };
        let api = self.kind.as_ref().and_then(|kind| kind.api.as_ref());
        match api {
            Fact::Is(api) if api == PCI_API => {}
            Fact::Is(api) => {
                return Err(MdevError::Api {
                    uuid,
                    kind: self.kind_name(),
                    api: excerpt(api),
                });
            }
            Fact::Absent => return Err(unreadable("device_api", "there is no such file")),
            Fact::Unknown(why) => return Err(unreadable("device_api", &why)),
        }
        if self.driver == Fact::Absent {
            return Err(MdevError::NoDriver { uuid });
        }
        match &self.iommu_group {
            Fact::Is(group) => Ok(Found::mediated(
                root,
                &uuid.to_string(),
                *group,
                self.vfio_device.known().cloned(),
            )),
            Fact::Absent => Err(MdevError::NoGroup { uuid }),
            Fact::Unknown(why) => Err(unreadable("group", why)),
        }
    }

    /// Its type and its parent, for people: `mtty-2 of mtty`.
    pub(crate) fn kind_name(&self) -> String {
        let kind = self.kind.as_ref().map(|kind| excerpt(&kind.id));
        let parent = self.parent.as_ref().map(|parent| excerpt(parent));
        match (kind, parent) {
            (Fact::Is(kind), Fact::Is(parent)) => format!("{kind} of {parent}"),
            (Fact::Is(kind), _) => kind,
            _ => "of an unknown type".to_owned(),
        }
    }
}

fn name_of(path: Option<&Path>) -> Option<String> {
    Some(path?.file_name()?.to_str()?.to_owned())
}

/// A UUID as the kernel writes it: 8, 4, 4, 4 and 12 hexadecimal digits, in either case.
///
/// # Errors
/// [`MdevError::Uuid`].
pub fn uuid(text: &str) -> Result<Uuid, MdevError> {
    // The other forms that there are, such as one without hyphens, the kernel refuses.
    let hyphens = text.len() == uuid::fmt::Hyphenated::LENGTH;
    let parsed = hyphens.then(|| Uuid::try_parse(text).ok()).flatten();
    parsed.ok_or_else(|| MdevError::Uuid {
        text: excerpt(text),
    })
}

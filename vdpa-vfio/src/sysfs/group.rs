//! An IOMMU group: the functions that the IOMMU cannot tell apart.

use super::function::DEVICES;
use super::tree::{ATTRIBUTE, Tree};
use super::{Address, Fact, Function};

/// The groups of the system, by number.
pub(super) const GROUPS: &str = "/sys/kernel/iommu_groups";

/// Drivers that leave DMA alone: a member of theirs does not stand in the way.
///
/// # Spec
/// Linux 5.19 and later, `driver_managed_dma` in `drivers/pci/pcie/portdrv.c` and `drivers/pci/pci-stub.c`.
const WITHOUT_DMA: [&str; 2] = ["pcieport", "pci-stub"];

/// An IOMMU group, as it was when it was looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Group {
    /// Its number.
    pub number: u32,
    /// Whether it is one only by name: VFIO was told to do without an IOMMU, and nothing holds DMA back.
    pub no_iommu: bool,
    /// Who is in it.
    pub members: Fact<Vec<Member>>,
}

/// A member of a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Its name: a PCI function's address, as a rule.
    pub name: String,
    /// What its driver means for the group.
    pub standing: Standing,
}

/// What a member's driver means for its group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Standing {
    /// VFIO has it.
    Vfio,
    /// Nobody has it.
    Free,
    /// Its driver leaves DMA alone.
    Harmless {
        /// The driver.
        driver: String,
    },
    /// Its driver uses the group's address space: nobody else may.
    Taken {
        /// The driver.
        driver: String,
    },
    /// That cannot be seen.
    Unknown {
        /// Why not.
        why: String,
    },
}

impl Standing {
    fn of(driver: Fact<String>, vfio: bool) -> Self {
        match driver {
            Fact::Is(_) if vfio => Self::Vfio,
            Fact::Is(driver) if WITHOUT_DMA.contains(&driver.as_str()) => Self::Harmless { driver },
            Fact::Is(driver) => Self::Taken { driver },
            Fact::Absent => Self::Free,
            Fact::Unknown(why) => Self::Unknown { why },
        }
    }
}

impl Group {
    pub(super) fn read(tree: &Tree, number: u32) -> Self {
        let home = format!("{GROUPS}/{number}");
        let member = |name: String| {
            let standing = match name.parse::<Address>() {
                Ok(address) if tree.path(format!("{DEVICES}/{address}")).is_dir() => {
                    let function = Function::read(tree, address);
                    let vfio = function.is_vfio();
                    Standing::of(function.driver, vfio)
                }
                _ => Standing::of(tree.link(format!("{home}/devices/{name}/driver")), false),
            };
            Member { name, standing }
        };
        let named = tree.text(format!("{home}/name"), ATTRIBUTE);
        Self {
            number,
            // Linux, drivers/vfio/group.c: how such a group is named.
            no_iommu: named.known().is_some_and(|name| name == "vfio-noiommu"),
            members: tree
                .names(format!("{home}/devices"))
                .map(|names| names.into_iter().map(member).collect()),
        }
    }

    /// The members on account of which VFIO does not give the group away: those that another driver uses, or may use.
    ///
    /// Members that nobody has, that VFIO has, and bridges with the port driver or none do not stand in the way.
    ///
    /// # Spec
    /// `linux/vfio.h`: VFIO_GROUP_FLAGS_VIABLE.
    pub fn in_the_way(&self) -> Vec<&Member> {
        let members = self.members.known().into_iter().flatten();
        members
            .filter(|member| {
                matches!(
                    member.standing,
                    Standing::Taken { .. } | Standing::Unknown { .. }
                )
            })
            .collect()
    }

    /// Whether VFIO would give it away. Absent: it has no members.
    pub fn viable(&self) -> Fact<bool> {
        match &self.members {
            Fact::Is(members) if members.is_empty() => Fact::Absent,
            Fact::Is(_) => Fact::Is(!self.no_iommu && self.in_the_way().is_empty()),
            Fact::Absent => Fact::Absent,
            Fact::Unknown(why) => Fact::Unknown(why.clone()),
        }
    }
}

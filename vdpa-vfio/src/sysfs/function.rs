//! A PCI function, as sysfs describes it.

use super::address::excerpt;
use super::tree::{ATTRIBUTE, Tree, number, plain};
use super::{Address, Fact, Identity};

/// The functions of the system, by address.
pub(super) const DEVICES: &str = "/sys/bus/pci/devices";

/// A PCI function, as it was when it was looked at.
///
/// # Spec
/// Linux, `Documentation/ABI/testing/sysfs-bus-pci`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Function {
    /// Its address.
    pub address: Address,
    /// Its maker's number.
    pub vendor: Fact<u16>,
    /// Its maker's number for it.
    pub device: Fact<u16>,
    /// The number of who built the card.
    pub subsystem_vendor: Fact<u16>,
    /// The card builder's number for it.
    pub subsystem_device: Fact<u16>,
    /// Class, subclass and programming interface, 8 bits each.
    pub class: Fact<u32>,
    /// Its revision.
    pub revision: Fact<u8>,
    /// The driver that has it. Absent: nobody has.
    pub driver: Fact<String>,
    /// The only driver that may take it. Absent: any may.
    pub driver_override: Fact<String>,
    /// The IOMMU group that it is in. Absent: no IOMMU stands before it.
    pub iommu_group: Fact<u32>,
    /// The memory node that it is near. Absent: none is nearer than another.
    pub numa_node: Fact<u32>,
    /// Its regions of registers.
    pub bars: Fact<Vec<Bar>>,
    /// Its virtual functions. Absent: it cannot have any.
    pub sriov: Fact<Sriov>,
    /// The physical function that it is a virtual function of. Absent: it is none.
    pub physical: Fact<Address>,
    /// VFIO's device file of its own: `vfio3`, in `/dev/vfio/devices`. Absent: it is not VFIO's, or the kernel has none.
    pub vfio_device: Fact<String>,
}

/// A region of registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bar {
    /// Which one: 0 to 5.
    pub index: u8,
    /// Where it is, in bytes; 0 where that is not to be seen.
    pub start: u64,
    /// Its length in bytes, at least 1.
    pub len: u64,
    /// Memory, or else I/O ports.
    pub memory: bool,
    /// Whether it takes up the next one too.
    pub wide: bool,
    /// Whether reading it changes nothing.
    pub prefetchable: bool,
}

/// The virtual functions of a physical one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sriov {
    /// How many it can have.
    pub total: Fact<u16>,
    /// How many it has.
    pub made: Fact<u16>,
    /// Those that it has, in their order.
    pub functions: Vec<Address>,
}

impl Function {
    /// What stands at `address`; the caller knows that something does.
    pub(super) fn read(tree: &Tree, address: Address) -> Self {
        let at = |name: &str| format!("{DEVICES}/{address}/{name}");
        Self {
            address,
            vendor: tree.number(at("vendor")),
            device: tree.number(at("device")),
            subsystem_vendor: tree.number(at("subsystem_vendor")),
            subsystem_device: tree.number(at("subsystem_device")),
            class: tree.number(at("class")),
            revision: tree.number(at("revision")),
            driver: tree.link(at("driver")),
            driver_override: only_driver(tree, &at("driver_override")),
            iommu_group: tree.link(at("iommu_group")).and_then(|name| {
                match number(&name).and_then(|group| u32::try_from(group).ok()) {
                    Some(group) => Fact::Is(group),
                    None => Fact::Unknown(format!("`{}` is no group", excerpt(&name))),
                }
            }),
            numa_node: match tree.text(at("numa_node"), ATTRIBUTE) {
                Fact::Is(text) if text == "-1" => Fact::Absent,
                _ => tree.number(at("numa_node")),
            },
            bars: tree
                .text(at("resource"), ATTRIBUTE)
                .and_then(|text| bars(&text)),
            sriov: match tree.number(at("sriov_totalvfs")) {
                Fact::Absent => Fact::Absent,
                total => Fact::Is(Sriov {
                    total,
                    made: tree.number(at("sriov_numvfs")),
                    functions: virtual_functions(tree, address),
                }),
            },
            physical: tree.link(at("physfn")).and_then(|name| match name.parse() {
                Ok(address) => Fact::Is(address),
                Err(_) => Fact::Unknown(format!("`{}` is no function", excerpt(&name))),
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

    /// What it is.
    pub fn identity(&self) -> Identity {
        Identity::of(self)
    }

    /// Whether it joins PCI buses, and is no device of its own: a PCI bridge, or one to CardBus.
    ///
    /// Host bridges, ISA bridges and the like have a device's header: VFIO takes them, for the sake of their group.
    ///
    /// # Spec
    /// PCI Code and ID Assignment Specification 1.11 §1.7: subclasses 04h, 07h and 09h, whose headers are of a kind of
    /// their own.
    pub fn is_bridge(&self) -> bool {
        let class = self.class.known().map(|class| class >> 8);
        matches!(class, Some(0x0604 | 0x0607 | 0x0609))
    }

    /// Whether VFIO has it: `vfio-pci`, or one of the drivers made for one kind of card that do the same.
    pub fn is_vfio(&self) -> bool {
        let driver = self.driver.known();
        self.vfio_device.known().is_some() || driver.is_some_and(|name| gives_away(name))
    }
}

/// Whether a driver's name is VFIO's, or that of one that does the same for one kind of card.
pub(super) fn gives_away(driver: &str) -> bool {
    driver.replace('_', "-").ends_with("vfio-pci")
}

/// `(null)` and nothing say that any driver may have it.
fn only_driver(tree: &Tree, path: &str) -> Fact<String> {
    match tree.text(path, ATTRIBUTE) {
        Fact::Is(text) if text.is_empty() || text == "(null)" => Fact::Absent,
        text => text.and_then(plain),
    }
}

/// Numbers of virtual functions need not be without gaps while some are being made.
fn virtual_functions(tree: &Tree, address: Address) -> Vec<Address> {
    let home = format!("{DEVICES}/{address}");
    let Fact::Is(names) = tree.names(&home) else {
        return Vec::new();
    };
    let mut functions: Vec<(u16, Address)> = names
        .iter()
        .filter_map(|name| {
            let number = name.strip_prefix("virtfn")?.parse().ok()?;
            let Fact::Is(target) = tree.link(format!("{home}/{name}")) else {
                return None;
            };
            Some((number, target.parse().ok()?))
        })
        .collect();
    functions.sort_unstable();
    functions.into_iter().map(|(_, address)| address).collect()
}

/// A line a region: start, end and flags. The first six are the BARs.
///
/// # Spec
/// Linux, `include/linux/ioport.h`: IORESOURCE_IO, IORESOURCE_MEM, IORESOURCE_PREFETCH, IORESOURCE_MEM_64.
fn bars(text: &str) -> Fact<Vec<Bar>> {
    const IO: u64 = 0x100;
    const MEMORY: u64 = 0x200;
    const PREFETCH: u64 = 0x2000;
    const WIDE: u64 = 0x10_0000;

    let mut bars = Vec::new();
    for (index, line) in (0..vdpa_pci::BARS).zip(text.lines()) {
        let mut numbers = line.split(' ').map(number);
        let (Some(Some(start)), Some(Some(end)), Some(Some(flags)), None) = (
            numbers.next(),
            numbers.next(),
            numbers.next(),
            numbers.next(),
        ) else {
            return Fact::Unknown(format!("region {index} is `{}`", excerpt(line)));
        };
        if flags & (IO | MEMORY) == 0 {
            continue;
        }
        let Some(len) = end.checked_sub(start).and_then(|last| last.checked_add(1)) else {
            return Fact::Unknown(format!("region {index} ends before it begins"));
        };
        bars.push(Bar {
            index,
            start,
            len,
            memory: flags & MEMORY != 0,
            wide: flags & WIDE != 0,
            prefetchable: flags & PREFETCH != 0,
        });
    }
    Fact::Is(bars)
}

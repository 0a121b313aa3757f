//! Where a function keeps virtio's structures, virtio 1.4 §4.1.4.
//!
//! ```text
//!   capability list ─▶ vendor-specific ─▶ cfg_type, BAR, offset, length ─▶ checked ─▶ Structure
//!                                                                   └─ wrong ─▶ Ignored, with the reason
//! ```
//! Of several capabilities of one type the first that can be used counts; one in a BAR that can be reached goes before one
//! that takes the configuration access window. A wrong one is passed over, never believed in part.

mod cap;
mod ignored;

use vdpa_core::{DeviceType, Result};

use crate::access::PciAccess;
use crate::error::PciError;
use crate::identity::{self, Identity};
use crate::pci::{self, Capability, ExtendedCapability, Fault, Header, Msix, SrIov};
use cap::Cap;

pub use ignored::{Ignored, Reason};

/// What a virtio capability points to, `cfg_type`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// The common configuration structure.
    Common,
    /// Where queues are notified.
    Notify,
    /// The interrupt status.
    Isr,
    /// The configuration of the device type.
    Device,
    /// The window through which BARs are reached from configuration space.
    Window,
    /// A shared memory region.
    SharedMemory,
    /// Data of the vendor's.
    Vendor,
}

impl Kind {
    const fn from_cfg_type(cfg_type: u8) -> Option<Self> {
        Some(match cfg_type {
            1 => Self::Common,
            2 => Self::Notify,
            3 => Self::Isr,
            4 => Self::Device,
            5 => Self::Window,
            8 => Self::SharedMemory,
            9 => Self::Vendor,
            _ => return None,
        })
    }

    /// Its name in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Common => "common configuration",
            Self::Notify => "notification structure",
            Self::Isr => "interrupt status",
            Self::Device => "device configuration",
            Self::Window => "configuration access window",
            Self::SharedMemory => "shared memory region",
            Self::Vendor => "vendor data",
        }
    }
}

/// How a structure is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// In its BAR.
    Bar,
    /// Through the configuration access window, since its BAR cannot be reached.
    Window,
}

/// A structure in a BAR.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Structure {
    /// What it is.
    pub kind: Kind,
    /// Where its capability is in configuration space, in bytes.
    pub capability: u16,
    /// The BAR, below 6.
    pub bar: u8,
    /// Where it begins in the BAR, in bytes.
    pub offset: u64,
    /// Its length in bytes, as the capability says: never 0, and inside its BAR where that can be reached.
    pub len: u64,
    /// How it is reached.
    pub reach: Reach,
}

/// A shared memory region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SharedMemory {
    /// Its number, by device type.
    pub id: u8,
    /// Where it is.
    pub structure: Structure,
}

/// Data of a vendor's, in configuration space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VendorData {
    /// Where the capability is, in bytes.
    pub capability: u16,
    /// Its length in bytes, header and all.
    pub len: u8,
    /// Whose format it has: a PCI vendor id.
    pub vendor: u16,
}

/// A virtio function: who it is, and where its structures are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    /// The header of its configuration space.
    pub header: Header,
    /// What kind of device it is.
    pub device_type: DeviceType,
    /// Whether it may have the legacy interface as well; that one is never used.
    pub transitional: bool,
    /// The common configuration structure.
    pub common: Structure,
    /// Where queues are notified.
    pub notify: Structure,
    /// From one doorbell to the next, in bytes; 0: all queues have the same one.
    pub notify_multiplier: u32,
    /// The interrupt status. A function without it has no use for an interrupt line.
    pub isr: Option<Structure>,
    /// The configuration of the device type, if it has one.
    pub device: Option<Structure>,
    /// Where the configuration access window's capability is in configuration space, in bytes.
    pub window: Option<u16>,
    /// The shared memory regions, by capability.
    pub shared_memory: Vec<SharedMemory>,
    /// The vendor's data, by capability.
    pub vendor_data: Vec<VendorData>,
    /// The MSI-X vectors.
    pub msix: Option<Msix>,
    /// The VFs of a PF.
    pub sr_iov: Option<SrIov>,
    /// The capability list, as far as it goes.
    pub capabilities: Vec<Capability>,
    /// The extended capability list, as far as it goes.
    pub extended: Vec<ExtendedCapability>,
    /// What is wrong with one of the two lists.
    pub faults: Vec<Fault>,
    /// Virtio capabilities that were passed over.
    pub ignored: Vec<Ignored>,
}

/// What was found on the way.
#[derive(Default)]
struct Found {
    common: Option<Structure>,
    notify: Option<(Structure, u32)>,
    isr: Option<Structure>,
    device: Option<Structure>,
    shared_memory: Vec<SharedMemory>,
    vendor_data: Vec<VendorData>,
    ignored: Vec<Ignored>,
}

impl Layout {
    /// Bytes of the common configuration structure up to the fields that come with features.
    pub const COMMON_LEN: u64 = 56;

    /// Reads where the structures are. Writes nothing.
    ///
    /// # Errors
    /// When the access fails; [`PciError::Absent`], [`PciError::NotVirtio`], [`PciError::LegacyOnly`],
    /// [`PciError::NoStructure`] and [`PciError::BarUnmapped`].
    ///
    /// # Spec
    /// virtio 1.4 §4.1.2 and §4.1.4.
    pub fn read(access: &dyn PciAccess) -> Result<Self> {
        let name = access.name();
        let header = Header::read(access)?;
        let identity = Identity::of(name, &header)?;
        let list = pci::capabilities(access, &header)?;
        let extended = pci::extended_capabilities(access)?;
        let faults = [list.fault, extended.fault].into_iter().flatten().collect();

        let mut caps = Vec::new();
        let mut found = Found::default();
        for entry in list.found.iter().filter(|c| c.id == pci::id::VENDOR) {
            match Cap::read(access, entry)? {
                Ok(cap) => caps.push(cap),
                Err(ignored) => found.ignored.push(ignored),
            }
        }
        let window = caps.iter().find(|cap| cap.kind == Kind::Window);
        let window = window.map(|cap| cap.at);
        found.place(access, &header, &caps, window);

        let any = !caps.is_empty() || !found.ignored.is_empty();
        let required = |kind| missing(name, kind, any, &header, identity, &found.ignored);
        // A function that went away meanwhile reads as one that lacks something.
        let common = found.common.ok_or_else(|| required(Kind::Common));
        let notify = found.notify.ok_or_else(|| required(Kind::Notify));
        let (common, (notify, notify_multiplier)) = match (common, notify) {
            (Ok(common), Ok(notify)) => (common, notify),
            (Err(e), _) | (_, Err(e)) => {
                let again = Header::read(access)?;
                Identity::of(name, &again)?;
                return Err(e.into());
            }
        };
        let msix = list.found.iter().find(|c| c.id == pci::id::MSIX);
        let msix = match msix {
            Some(entry) => Msix::read(access, entry)?,
            None => None,
        };
        let sr_iov = extended.found.iter().find(|c| c.id == pci::id::SR_IOV);
        let sr_iov = match sr_iov {
            Some(entry) => SrIov::read(access, entry)?,
            None => None,
        };
        Ok(Self {
            device_type: identity.device_type,
            transitional: identity.transitional,
            header,
            common,
            notify,
            notify_multiplier,
            isr: found.isr,
            device: found.device,
            window,
            shared_memory: found.shared_memory,
            vendor_data: found.vendor_data,
            msix,
            sr_iov,
            capabilities: list.found,
            extended: extended.found,
            faults,
            ignored: found.ignored,
        })
    }
}

impl Found {
    /// Takes the capabilities that can be used: in reach of their BAR first, then by the window.
    fn place(
        &mut self,
        access: &dyn PciAccess,
        header: &Header,
        caps: &[Cap],
        window: Option<u16>,
    ) {
        let mut placed: Vec<_> = caps
            .iter()
            .map(|cap| (cap, cap.structure(access, header, window)))
            .collect();
        // Stable: among those of one reach the order is the device's preference.
        placed.sort_by_key(|(_, structure)| match structure {
            Ok(structure) => u8::from(structure.reach == Reach::Window),
            Err(_) => 2,
        });
        for (cap, structure) in placed {
            let spare = |used: Option<&Structure>| {
                used.map(|used| Reason::Spare {
                    used: used.capability,
                })
            };
            let refused = match (cap.kind, structure) {
                (Kind::Window, _) => {
                    let used = window.filter(|&at| at != cap.at);
                    used.map(|used| Reason::Spare { used })
                }
                (Kind::Vendor, _) => {
                    self.vendor_data.push(cap.vendor_data());
                    None
                }
                (_, Err(reason)) => Some(reason),
                (Kind::Common, Ok(new)) => {
                    let old = spare(self.common.as_ref());
                    self.common.get_or_insert(new);
                    old
                }
                (Kind::Notify, Ok(new)) => {
                    let old = spare(self.notify.as_ref().map(|(old, _)| old));
                    self.notify.get_or_insert((new, cap.extra[0]));
                    old
                }
                (Kind::Isr, Ok(new)) => {
                    let old = spare(self.isr.as_ref());
                    self.isr.get_or_insert(new);
                    old
                }
                (Kind::Device, Ok(new)) => {
                    let old = spare(self.device.as_ref());
                    self.device.get_or_insert(new);
                    old
                }
                (Kind::SharedMemory, Ok(new)) => {
                    let same = self.shared_memory.iter().find(|old| old.id == cap.id);
                    let old = spare(same.map(|old| &old.structure));
                    if old.is_none() {
                        self.shared_memory.push(SharedMemory {
                            id: cap.id,
                            structure: new,
                        });
                    }
                    old
                }
            };
            if let Some(reason) = refused {
                self.ignored.push(cap.ignored(reason));
            }
        }
        self.ignored.sort_by_key(|ignored| ignored.at);
    }
}

/// Why there is no structure of this kind.
fn missing(
    name: &str,
    kind: Kind,
    any: bool,
    header: &Header,
    identity: Identity,
    ignored: &[Ignored],
) -> PciError {
    let function = name.to_owned();
    if !any && identity.transitional {
        let known = identity::known_legacy(header);
        return PciError::LegacyOnly {
            function,
            device_type: identity.device_type,
            known: known.map_or_else(String::new, |known| format!(", {known}")),
        };
    }
    let first = ignored.iter().find(|ignored| ignored.kind == Some(kind));
    match first.map(|first| first.reason) {
        Some(Reason::Unreachable { bar }) => PciError::BarUnmapped {
            function,
            structure: kind.name(),
            bar,
        },
        _ => PciError::NoStructure {
            function,
            structure: kind.name(),
            ignored: first.copied(),
        },
    }
}

//! The SR-IOV capability of a PF.

use vdpa_core::Result;

use super::header::halves;
use super::{ExtendedCapability, id};
use crate::access::{PciAccess, Width};

/// What a PF says of its VFs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SrIov {
    /// Where the capability is, in bytes.
    pub at: u16,
    /// How many VFs it was made with.
    pub initial: u16,
    /// How many it can have.
    pub total: u16,
    /// How many it has while they are enabled.
    pub count: u16,
    /// Whether the VFs are enabled.
    pub enabled: bool,
    /// The routing id of the first VF, less that of the PF.
    pub first: u16,
    /// From one VF's routing id to the next one's.
    pub stride: u16,
    /// The device id of its VFs.
    pub device: u16,
}

impl SrIov {
    /// Bytes of the capability.
    const LEN: u16 = 0x40;

    /// Reads the capability; `None` where `capability` is another, or configuration space ends before it does.
    ///
    /// # Errors
    /// When the access fails.
    ///
    /// # Spec
    /// PCI Express Base §9.3.3; `linux/pci_regs.h`, PCI_SRIOV_*.
    pub fn read(access: &dyn PciAccess, capability: &ExtendedCapability) -> Result<Option<Self>> {
        let at = capability.at;
        let room = access.config_len().saturating_sub(at);
        if capability.id != id::SR_IOV || room < Self::LEN {
            return Ok(None);
        }
        let dword = |offset: u16| access.read_config(at + offset, Width::U32);
        let [control, _] = halves(dword(0x08)?);
        let [initial, total] = halves(dword(0x0c)?);
        let [count, _] = halves(dword(0x10)?);
        let [first, stride] = halves(dword(0x14)?);
        let [_, device] = halves(dword(0x18)?);
        Ok(Some(Self {
            at,
            initial,
            total,
            count,
            enabled: control & 1 != 0,
            first,
            stride,
            device,
        }))
    }
}

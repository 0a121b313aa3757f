//! The MSI-X capability.

use vdpa_core::Result;

use super::Capability;
use crate::access::{PciAccess, Width};

/// Where a function keeps its MSI-X vectors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Msix {
    /// Where the capability is, in bytes.
    pub at: u16,
    /// How many vectors the table has: 1 to 2048.
    pub vectors: u16,
    /// The BAR of the table; 6 and 7 are no BARs.
    pub table_bar: u8,
    /// Where the table begins in it, in bytes; a multiple of 8.
    pub table_offset: u32,
    /// The BAR of the pending bits; 6 and 7 are no BARs.
    pub pending_bar: u8,
    /// Where they begin in it, in bytes; a multiple of 8.
    pub pending_offset: u32,
    /// Whether MSI-X is on.
    pub enabled: bool,
}

impl Msix {
    /// Bytes of the capability.
    const LEN: u16 = 12;

    /// Reads the capability; `None` where configuration space ends before it does.
    ///
    /// # Errors
    /// When the access fails.
    ///
    /// # Spec
    /// PCI Local Bus 3.0 §6.8.2; `linux/pci_regs.h`, PCI_MSIX_*.
    pub fn read(access: &dyn PciAccess, capability: &Capability) -> Result<Option<Self>> {
        if capability.room() < Self::LEN {
            return Ok(None);
        }
        let at = capability.at;
        let control = u16::from_le_bytes(capability.body);
        let table = access.read_config(at + 4, Width::U32)?;
        let pending = access.read_config(at + 8, Width::U32)?;
        Ok(Some(Self {
            at,
            vectors: (control & 0x7ff) + 1,
            table_bar: bar(table),
            table_offset: table & !7,
            pending_bar: bar(pending),
            pending_offset: pending & !7,
            enabled: control & 1 << 15 != 0,
        }))
    }

    /// Bytes of the table: 16 for each vector.
    pub const fn table_len(&self) -> u32 {
        self.vectors as u32 * 16
    }
}

/// The BAR indicator of a register: its low three bits.
fn bar(register: u32) -> u8 {
    register.to_le_bytes()[0] & 7
}

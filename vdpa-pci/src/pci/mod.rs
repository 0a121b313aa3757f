//! PCI configuration space: the header, the two capability lists, and the capabilities that matter here.
//!
//! ```text
//!   0x00  header ─ capabilities pointer ──▶ 0x40..0xff   capability list            id, next, ...
//!  0x100  extended capability list ───────▶ 0x100..0xfff (where there are 4096 bytes)
//! ```
//! What a function says is not believed: pointers are kept inside their part, nothing is visited twice, and what is cut off
//! by the end of configuration space is no capability.

mod header;
mod list;
mod msix;
mod sriov;

pub use header::{Bar, Header};
pub use list::{Capability, ExtendedCapability, Fault, Walk, capabilities, extended_capabilities};
pub use msix::Msix;
pub use sriov::SrIov;

/// Bytes of configuration space that every function has.
pub const CONFIG_LEN: u16 = 0x100;

/// The ids of capabilities that are looked at here, `linux/pci_regs.h`, PCI_CAP_ID_*.
pub mod id {
    /// Vendor-specific: where virtio's structures are.
    pub const VENDOR: u8 = 0x09;
    /// PCI Express.
    pub const EXPRESS: u8 = 0x10;
    /// MSI-X.
    pub const MSIX: u8 = 0x11;
    /// SR-IOV, in the extended list.
    pub const SR_IOV: u16 = 0x10;
}

//! virtio-pci at register level.
//!
//! ```text
//!   vdpa_core::Device ──▶ VirtioPci (virtio_pci)        the contract's calls, turned into register accesses
//!                             │ virtio 1.4 §4.1
//!                             ▼
//!                         PciAccess (access)            configuration space, BARs, interrupts, reset, DMA
//!                             ▲
//!        VFIO, a mediated device, a simulated function, a mock
//! ```
//!
//! # Reading order
//! [`PciAccess`], what a function is reached through.

mod access;

#[cfg(any(test, feature = "mock"))]
pub use access::MockPciAccess;
pub use access::{BARS, Interrupts, PciAccess, PciParent, Width};

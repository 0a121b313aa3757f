//! A vDPA parent that drives a virtio-pci function, a SmartNIC's VF say, from user space through VFIO, with DMA that the
//! IOMMU translates.
//!
//! ```text
//!   VfioMgmt (mgmt) ─▶ Found::open (open) ─▶ group: container, type 1     or     cdev: iommufd
//!                           │
//!                       Function (function): PciAccess, for vdpa_pci::VirtioPci
//!                           ├─ region    registers by system calls, each with its result; which pages can be mapped
//!                           ├─ bells     doorbells: stores to a mapped page, which can be taken away
//!                           ├─ irq       vectors by eventfd, the line, what the kernel reports
//!                           └─ dma       mappings, and what can be mapped
//! ```
//!
//! **A device with DMA reaches what it is given.** What is mapped for it, it can read or change, at any time, until it is
//! unmapped; the IOMMU keeps it from all else.
//!
//! # What is of `vfio-ioctls`
//! Opening: container, group, iommufd, binding, and closing in the right order. Its other calls are not used, since they
//! drop results (`region_read`, `region_write`, `reset`), begin at vector 0, map for reading and writing always, or are not
//! there (mapping BARs, limits). What stands in for them is in `ioctl`, on the structures of `vfio-bindings`.
//!
//! # Reading order
//! [`Function`], then `region`, `irq`, `dma`; `open` for what can be in the way; [`VfioMgmt`].
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod bells;
#[cfg(feature = "iommufd")]
mod cdev;
mod chain;
mod config;
mod dma;
mod error;
mod function;
mod group;
mod ioctl;
mod irq;
mod keeper;
mod mgmt;
mod open;
mod openings;
mod region;
pub mod sysfs;

pub use error::VfioError;
pub use function::{DmaOwner, Function};
pub use mgmt::VfioMgmt;
pub use open::{Found, Via};
pub use openings::Openings;

//! A simulated device as hardware shows it: a virtio-pci function at register level, virtio 1.4 §4.1.
//!
//! ```text
//!   PciAccess ──▶ Function (function)
//!                    │  configuration space (config_space, assemble) ─ command, PCI_CFG window, function reset (core)
//!                    │  BARs (region, layout)
//!                    ├──▶ common configuration, device configuration (transport, field) ──▶ vdpa_core::Device
//!                    ├──▶ doorbells (notify) ─────────────────────────────────────────────▶ the queue's own doorbell
//!                    ├──▶ shared memory (shared_memory)
//!                    ├──▶ MSI-X table, pending bits, ISR, line (interrupts, line) ◀──────── calls, events (life)
//!                    └──▶ mappings, log of faults (iommu) ────────────────────────────────▶ its address space
//! ```
//!
//! # Reading order
//! [`Layout`], `region` (what is where), `assemble` and [`ConfigSpace`], [`Function`], `core`, `transport`, `interrupts`,
//! `notify`, `iommu`.

mod assemble;
mod config_space;
mod core;
mod error;
mod field;
mod function;
mod interrupts;
mod iommu;
mod layout;
mod life;
mod line;
mod mirror;
mod notify;
mod region;
mod setup;
mod shared_memory;
mod transport;

pub use config_space::{CONFIG_BYTES, ConfigSpace};
pub use error::{PciError, Space};
pub use function::Function;
pub(crate) use function::bar_lengths;
pub use iommu::DmaFault;
pub use layout::{Identity, Layout, MAX_MULTIPLIER, MAX_VECTORS, Order};
pub use setup::{AdminQueues, After, Extension, Setup};

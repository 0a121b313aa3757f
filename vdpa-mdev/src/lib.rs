//! A vDPA parent of mediated devices: those of the kernel, opened by UUID through VFIO.
//!
//! ```text
//!   Host ── /sys/class/mdev_bus ───────▶ Parent ── Kind        who makes mediated devices, and of which types
//!     ├──── /sys/bus/mdev/devices ─────▶ Mediated              those that are made
//!     ├──── Making ── Step ────────────▶ Kernel                made, and removed
//!     └──── /etc/mdevctl.d ────────────▶ Definitions           those that are to be made again, as mdevctl keeps them
//!   Uevents ────────────────────────────▶ Change               what comes and goes, as the kernel tells it
//!   MdevMgmt (mgmt) ── vdpa_vfio::Found ─▶ Function ─▶ vdpa_pci::VirtioPci
//! ```
//!
//! A mediated device is a device that a driver shows inside another one, its parent. What a user sees is whatever the
//! driver plays: this crate drives those that play a virtio function on a PCI bus, and refuses the others by name. Its
//! registers are then trapped, as a rule: each access, kicks among them, is a system call that ends in the driver.
//!
//! With the feature `slices` there are also network devices that share one, whatever its parent: `slice`.
//!
//! Nothing here is unsafe: VFIO is `vdpa-vfio`'s.
//!
//! # Reading order
//! [`Host`], [`Parent`], [`Mediated`]; [`MdevMgmt`]. Then [`Making`], with [`Rehearsal`], which acts like a kernel on a copy;
//! [`Definitions`]; [`Uevents`].
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

mod definition;
mod definitions;
mod error;
mod host;
mod kind;
mod making;
mod mediated;
mod mgmt;
mod rehearsal;
#[cfg(feature = "slices")]
pub mod slice;
mod uevent;
mod uevents;

#[cfg(test)]
mod tests;

pub use definition::{Definition, Start};
pub use definitions::{Defined, Definitions};
pub use error::{Broken, MdevError};
pub use host::Host;
pub use kind::{Kind, Parent};
pub use making::Making;
pub use mediated::{Mediated, PCI_API, uuid};
pub use mgmt::MdevMgmt;
pub use rehearsal::Rehearsal;
pub use uevent::{Change, Malformed, Uevent};
pub use uevents::{Heard, Uevents};
pub use uuid::Uuid;

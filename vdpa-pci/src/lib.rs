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
//! [`PciAccess`], what a function is reached through; [`pci`], its configuration space; [`Layout`], where virtio's
//! structures are; `registers` with `window` and `life`, how they are accessed and what is made of all ones;
//! [`VirtioPci`], what drives them, with its `features`, `queues`, `vectors` and `config`.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

mod access;
mod clock;
mod error;
mod identity;
pub mod layout;
mod life;
pub mod pci;
mod registers;
mod virtio_pci;
mod window;

#[cfg(any(test, feature = "mock"))]
pub use access::MockPciAccess;
pub use access::{BARS, Interrupts, PciAccess, PciParent, Width};
pub use clock::{Clock, SystemClock};
pub use error::PciError;
pub use identity::{Identity, VIRTIO_VENDOR, known};
pub use layout::Layout;
pub use life::GRACE;
pub use virtio_pci::{Options, VirtioPci};

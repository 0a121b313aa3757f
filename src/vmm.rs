//! A device in front of a guest: what a VMM in Rust has at the boundary to its devices.
//!
//! VMMs differ in their traits and agree in what these ask. [`GuestDevice`] has each call of theirs once, over a device of
//! any parent, so that an `impl VirtioDevice for` it is one line a method; `docs/vmm.md` has the table.
//!
//! ```text
//!                ack_features      activate            pause
//!   new ───────▶ acknowledged ───▶ active ───────────▶ paused ───▶ snapshot ─▶ bytes
//!    ▲             (negotiate)      │  ▲      resume    │  ▲
//!    │                              │  └───────────────┘  └──── restore, of a device that is new
//!    └──────────── reset ───────────┴── queues, eventfds and interrupts come back; memory stays
//! ```
//!
//! A transport that keeps the status byte itself, as most do, calls [`activate`](GuestDevice::activate) on DRIVER_OK and
//! [`reset`](GuestDevice::reset) on 0. One that leaves the byte to the device hands it to
//! [`write_status`](GuestDevice::write_status), which says when these are [due](Due). Either way the device has the bits
//! one at a time and in the specification's order.
//!
//! ```
//! # #[cfg(feature = "sim")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::{sync::Arc, time::Duration};
//! use vdpa::vmm::{GuestDevice, GuestQueue, Interrupts};
//! use vdpa::{Deadline, core::Status};
//! use vm_memory::{GuestAddress, GuestMemoryMmap};
//! use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
//!
//! let memory = Arc::new(GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 1 << 20)])?);
//! let mut device = GuestDevice::new(vdpa::open("sim:rng")?)?;
//! assert_eq!(device.device_type(), 4);
//!
//! // The guest reads what is offered, and writes what it takes of it; then it sets up a queue, and says that it is ready.
//! device.ack_features(device.device_features());
//! let kick = EventFd::new(EFD_NONBLOCK)?; // an ioeventfd of KVM's
//! let queue = GuestQueue::new(0, 64, [0x1000, 0x2000, 0x3000]).kicked_by(kick.try_clone()?);
//! let interrupts = Interrupts::from_fn(|_kind| Ok(())); // inject one
//! let by = Deadline::after(Duration::from_secs(5));
//! device.activate(&memory, interrupts, vec![queue], by)?;
//! assert_eq!(device.status()? & Status::DRIVER_OK.bits(), Status::DRIVER_OK.bits());
//!
//! // From here on kicks and buffers go past the VMM.
//! kick.write(1)?;
//! device.reset(by)?;
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "sim"))]
//! # fn main() {}
//! ```
//!
//! `examples/vmm` is a whole device model of virtio-mmio over it, with a guest.
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

mod activation;
mod device;
mod error;
mod interrupts;
mod memory;
mod queue;
mod signal;
mod snapshot;
mod watch;

pub use activation::{Due, Released};
pub use device::{GuestDevice, OF_TRANSPORT, Options};
pub use error::VmmError;
pub use interrupts::{InterruptKind, Interrupts};
pub use queue::GuestQueue;
pub use signal::Signal;

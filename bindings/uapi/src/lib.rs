//! Kernel interfaces of vDPA that no other crate has.
//!
//! | module | header | what is there | Linux |
//! |---|---|---|---|
//! | [`vhost`] | `linux/vhost.h`, `linux/vhost_types.h` | all ioctls of vhost, IOTLB messages, [`vhost::Vdpa`] | 2.6.34 to 6.17 |
//! | | | a vhost-vdpa device; its configuration call; batches | 5.7; 5.8; 5.9 |
//! | | | counts of queues and groups, ASIDs; suspend; resume | 5.18, 5.19; 6.0; 6.3 |
//! | | | descriptor groups; the size of one queue; feature arrays | 6.7; 6.9; 6.17 |
//! | [`vduse`] | `linux/vduse.h` | [`vduse::Control`], [`vduse::Device`], its requests | 5.15 |
//! | | | user memory behind a region; groups and ASIDs | 6.0; 7.0 |
//! | [`vdpa`] | `linux/vdpa.h` | the netlink family, [`vdpa::Netlink`] | 5.12 to 6.12 |
//! | [`virtio_pci`] | `linux/virtio_pci.h` | registers, capabilities, administration commands | 2.6.31 to 7.0 |
//! | [`iommufd`] | `linux/iommufd.h` | all ioctls; [`iommufd::Iommufd`] for those that `iommufd-ioctls` has not | 6.2 to 7.1 |
//!
//! Names are the kernel's, and the documentation of each says since which Linux it is there. A kernel that is older
//! answers `ENOTTY` (vhost: `ENOBUFS` too), one whose driver cannot `EOPNOTSUPP`: [`Error`] has it, with the call's name.
//!
//! **Numbers are checked.** An ioctl's number is derived from the type of its argument ([`Call`]), and every number, size
//! and offset stands in a table that a test holds to the kernel's headers with a C compiler.
//!
//! **Descriptors are handed over.** Each wrapper has a `from_fd`, which makes sure of what it was given, for devices that
//! somebody else has opened. What hands memory to the kernel is `unsafe`, with what has to hold; the rest is safe.
//!
//! # Reading order
//! `table` for how a number comes in; [`Call`]; then [`vhost::Vdpa`] and [`vduse::Device`], which are two ends of one thing.
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

mod call;
mod device;
mod error;
pub mod iommufd;
#[doc(hidden)]
pub mod table;
pub mod vdpa;
pub mod vduse;
pub mod vhost;
pub mod virtio_pci;

pub use call::Call;
pub use error::Error;

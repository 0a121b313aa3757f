//! A vDPA parent of devices that other processes serve: back ends of vhost-user.
//!
//! ```text
//!   VhostUserMgmt (mgmt) ─▶ Options (options) ─▶ VhostUser::open (open): socket, features, protocol features
//!                                                   │
//!                                               VhostUser (device): VdpaDevice
//!                                                   ├─ line      requests and their answers, in order, with deadlines
//!                                                   ├─ queue     one queue: set, live, stopping
//!                                                   ├─ memory    what the back end can reach, by files
//!                                                   ├─ config    its configuration, or one made here
//!                                                   └─ watch     what it says unasked
//! ```
//!
//! It is the front end, as a VMM is one: whatever drives a [`Device`](vdpa_core::Device) drives a disk of
//! qemu-storage-daemon, a port of a DPDK application or a device of `vdpactl serve` by it.
//!
//! **A back end does not say what it is.** So a device string has to: `vhost-user:/run/disk.sock,type=blk`. It does not say
//! how large its queues may be either (`queue_size`), and a network device may have no configuration (`mac`); its control
//! queue is the front end's business then, and so it has one pair of queues here, without filters.
//!
//! **A back end reaches what it is given**: all memory that is mapped for the device, which is given to it by file. Memory
//! without a file is refused. It may read and write all of it, whatever the mapping says.
//!
//! # Reading order
//! [`VhostUser`], whose module says how calls that must not wait go over a socket; `queue`, `memory`, `line`; `open`;
//! [`VhostUserMgmt`].
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

mod base;
mod config;
mod device;
mod error;
mod features;
mod line;
mod memory;
mod mgmt;
mod open;
mod options;
mod queue;
mod roles;
mod socket;
mod watch;

pub use device::VhostUser;
pub use error::VhostError;
pub use mgmt::VhostUserMgmt;
pub use options::Options;

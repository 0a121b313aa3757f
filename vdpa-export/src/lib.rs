//! Ends of vDPA: any device served to the driver of another process, by vhost-user.
//!
//! ```text
//!   front end (QEMU, DPDK, cloud-hypervisor) ── unix socket ── vhost_user ─▶ serve ─▶ vdpa_core::Device
//!        └────────────────── rings, buffers, kicks and calls: shared memory and eventfds ──────┘
//! ```
//!
//! What passes the socket sets a device up; nothing of it is on the data path. The peer is not trusted: one that misbehaves
//! is cut off, and everything that it gave is let go of.
//!
//! # Reading order
//! [`vhost_user`] (its [`Server`](vhost_user::Server) first), then `serve`, which knows of no protocol.
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

mod at_once;
mod serve;
pub mod vhost_user;

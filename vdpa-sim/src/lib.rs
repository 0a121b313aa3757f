//! A vDPA parent fully in software: simulated devices, to be opened where no hardware is.
//!
//! A device is a *core*, a *class*, and a *team* of units at each worker of a crew:
//!
//! ```text
//!   vdpa_core::Device ──▶ SimDevice (device, shared)          status, features, queues: control calls become commands
//!                              │ Mailbox                      and are polled for, never waited for
//!                              ▼
//!        Crew: workers ──▶ Team ── Unit::serve ──▶  Net: pairs, control queue, filter, steering         class
//!          (threads)           ▲                          │ FrameBatch, by pointer
//!                   doorbells, eventfds                   ▼
//!                                                   Port: loopback, wire, switch, tap, ...
//!                                              ▶  Blk: request queues ─▶ Backend: memory, image
//!                                              ▶  Rng
//! ```
//!
//! * A worker polls while there is work, and a bounded time longer; then it sleeps, and costs nothing. It locks,
//!   allocates and asks the system for nothing on behalf of a packet.
//! * The driver is not trusted: what it writes is read once and checked. A ring that it broke is lost, and is told once
//!   with its reason, while the other queues go on; a buffer that is not mapped comes back unused.
//! * Ring areas have to be mapped in one piece of this process's memory; buffers may be in as many as they like.
//!
//! # Reading order
//! [`SimMgmt`] (device strings), `device` (the contract's calls), `crew` (threads), `team` (what they serve of a device),
//! `mailbox` and `kicks` (what reaches them), [`queue`] (a ring and its areas), [`class`] (what a kind of device brings),
//! [`rng`] (a whole class in one file), [`net`] with its parts, [`port`], [`frames`]; [`blk`] with its backends;
//! [`pci`] (a device as registers), [`pf`] (one that has virtual functions, and administers them); [`offload`] and [`pcap`]
//! stand alone, and [`faults`] are made only if they are asked for.
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

pub mod blk;
pub mod class;
mod crew;
mod device;
mod error;
pub mod faults;
pub mod frames;
mod kicks;
mod mailbox;
mod mgmt;
pub mod net;
pub mod offload;
pub mod pcap;
pub mod pci;
pub mod pf;
pub mod port;
pub mod queue;
pub mod rng;
mod rounds;
mod shared;
mod stats;
mod team;

pub use crew::{Crew, Shift};
pub use device::{Options, SimDevice};
pub use error::SimError;
pub use mgmt::SimMgmt;
pub use rounds::Rounds;
pub use stats::Counters;

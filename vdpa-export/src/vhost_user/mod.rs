//! The vhost-user end: a device served to a VMM or a DPDK application over a unix socket.
//!
//! ```text
//!   Server::new ─▶ bind, connect or attach ─▶ Serving::run ─┬─▶ a front end comes ─▶ is served ─▶ leaves, or is cut off
//!                                                           │          ▲                                │
//!                                                           │          └──────── the next one ──────────┘
//!                                                           └─▶ Ended: by the stop, by the device, after one
//! ```
//!
//! A server has one device and one front end at a time. Several devices in one process are several servers, each run by a
//! thread of its own, which sleeps while nothing passes the socket.
//!
//! ```no_run
//! use vdpa_export::vhost_user::{Options, Server, Stop};
//!
//! # fn of(device: vdpa_core::Device) -> Result<(), vdpa_export::vhost_user::ServerError> {
//! let stop = Stop::new()?;
//! Server::new(device, Options::default()).bind("/run/net0.sock")?.run(&stop)?;
//! # Ok(())
//! # }
//! ```

mod config;
mod door;
mod error;
mod front;
mod inflight;
mod listen;
mod memory;
mod notice;
mod offer;
mod options;
mod owed;
mod place;
mod requests;
mod server;
mod stop;
mod transfer;
mod wait;

pub use error::{CutOff, EventKind, MemoryError, ServeError, ServerError};
pub use listen::Listen;
pub use notice::{Notice, Peer};
pub use options::Options;
pub use place::{Admission, Made, Place, can_connect};
pub use server::{Ended, EndedBy, Server, Serving};
pub use stop::Stop;

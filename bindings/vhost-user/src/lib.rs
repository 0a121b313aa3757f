//! The vhost-user protocol as data: messages of both halves, and the socket they go over.
//!
//! ```text
//!   front end (QEMU, DPDK's virtio-user)                       back end (serves a device)
//!
//!   Front ── FrontMessage, need_reply? ──▶ Connection ═══ Connection ──▶ Back ─▶ Received{FrontMessage, Ticket}
//!         ◀─ Reply ──────────────────────            UNIX socket        ◀── answer(Ticket, Reply)
//!
//!   FromBack ◀── BackMessage, need_reply? ─ Connection ═══ Connection ─ ToFront      the back-end channel, whose socket
//!            ─── answer(Ticket, Reply) ───▶                                          comes with SET_BACKEND_REQ_FD
//! ```
//!
//! It names nothing of a device: what a request means is for who receives it. Numbers and layouts are those of
//! `docs/interop/vhost-user.rst` in QEMU; what its C structures pad, and what programs do where the document is silent, is
//! said at the type it concerns. All numbers are in the machine's byte order.
//!
//! **The peer is not trusted.** A message comes apart only if its version, its flags, the length of its payload and the
//! count of its descriptors are right, and sums in it do not wrap; all else is an [`Error`] with the numbers in it.
//! Descriptors are owned from the moment the kernel hands them over, close on exec, and closed with whatever holds them,
//! those that no message takes included.
//!
//! **Nothing waits for ever.** Every system call is made so that it does not block; what waits does so with `poll`, until a
//! deadline. A message that has begun has to be whole within the connection's [patience](Connection::set_patience), and so
//! has one that is sent to a peer that does not read.
//!
//! # Reading order
//! [`FrontRequest`] and [`BackRequest`], the tables of all there is; [`payload`]; [`FrontMessage`]; [`Connection`]; then
//! [`Back`] and [`Front`], which are two ends of one thing.
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

mod back;
mod back_message;
mod channel;
mod connection;
mod error;
mod features;
mod form;
mod front;
mod front_message;
mod header;
pub mod payload;
mod reply;
mod request;
mod rights;

pub use back::{Back, Received};
pub use back_message::BackMessage;
pub use channel::{FromBack, ToFront, Told};
pub use connection::{Connection, DEFAULT_PATIENCE};
pub use error::Error;
pub use features::{F_LOG_ALL, F_PROTOCOL_FEATURES, ProtocolFeatures};
pub use form::{Form, PayloadForm};
pub use front::{Front, Pending};
pub use front_message::FrontMessage;
pub use header::{Frame, HEADER_LEN, Header, MAX_FDS, MAX_PAYLOAD, Outgoing};
pub use reply::{Reply, Ticket};
pub use request::{BackRequest, FrontRequest};

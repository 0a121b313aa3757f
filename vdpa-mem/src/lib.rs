//! Guest memory for vDPA: the leaf of the tree, and the one room of the data path with raw memory in it.
//!
//! A virtio device reads and writes memory that belongs to somebody else: a guest, an application, another process.
//! That memory changes under our hands, may be hostile, and may be taken away. Everything above this crate sees it
//! only through these types:
//!
//! ```text
//!  Mapping { iova, memory, offset, access }      one entry of an address space; keeps its memory alive
//!      │ AddressSpace::map / unmap / replace      published as one table, read without a lock
//!      ▼
//!  AddressSpace ── reader() ─▶ Reader ── enter() ─▶ Section        one per batch; unmap waits for it
//!                                                      │ translate(iova, len, want, hint)
//!                                                      ▼
//!                                                   Bytes          a span: copies and ring cells, never a reference
//! ```
//!
//! * Addresses are types that never mix: [`Iova`] is what the device uses, [`Gpa`] is guest-physical (only the dirty
//!   log speaks it), [`Hva`] is host-virtual.
//! * Peer memory is never a Rust reference. [`Bytes`] copies, or loads and stores aligned atomics of one width.
//! * A [`Section`] costs a store and a fence for a batch. Unmapping publishes, then waits for sections and for
//!   [`Hold`]s; memory safety does not depend on that wait, since the table holds `Arc`s.
//!
//! [`Registers`] are the other kind of memory here: those of a device, mapped from its file and taken away in place.
//!
//! Without the feature `std` the crate is `no_std` (with `alloc`): addresses, memory, mappings and [`Bytes`] stay; address
//! spaces, which wait, do not.
#![cfg_attr(not(feature = "std"), no_std)]
#![warn(clippy::undocumented_unsafe_blocks)]

extern crate alloc;

mod address;
mod barrier;
mod bytes;
mod copy;
mod dirty;
mod error;
mod mapping;
mod region;
mod window;

#[cfg(feature = "std")]
pub mod clock;
#[cfg(feature = "std")]
mod cursor;
#[cfg(feature = "std")]
mod deadline;
#[cfg(feature = "std")]
mod grace;
#[cfg(feature = "vm-memory")]
mod guest;
#[cfg(feature = "std")]
mod index;
#[cfg(feature = "std")]
mod registers;
#[cfg(feature = "std")]
mod shrink;
#[cfg(feature = "std")]
mod space;
#[cfg(feature = "std")]
mod spots;
#[cfg(feature = "std")]
mod sync;
#[cfg(feature = "std")]
mod table;

pub use address::{Gpa, Hva, Iova, IovaRange};
pub use barrier::Barriers;
pub use bytes::Bytes;
pub use dirty::{DirtyLog, DirtyPages, VhostLog};
pub use error::MemError;
pub use mapping::{Access, DmaMemory, Fault, Mapping};
pub use region::{HugePage, Region};
pub use window::Window;

#[cfg(feature = "std")]
pub use cursor::Cursor;
#[cfg(feature = "std")]
pub use deadline::Deadline;
#[cfg(feature = "vm-memory")]
pub use guest::{GuestRegion, MappedGuestMemory};
#[cfg(feature = "std")]
pub use registers::{Register, Registers};
#[cfg(feature = "std")]
pub use shrink::{survive_shrinking, watch_losses};
#[cfg(feature = "std")]
pub use space::{AddressSpace, Hold, Reader, Section};
#[cfg(feature = "std")]
pub use spots::{Spots, Unfit};
#[cfg(loom)]
pub use sync::model;
#[cfg(feature = "std")]
pub use table::Hint;

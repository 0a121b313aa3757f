//! Split and packed virtqueues, device half and driver half.
//!
//! Pure algorithm over shared cells ([`RingMem`]): no file, no thread, no system call and, after
//! construction, no allocation. Four rings, one shape:
//!
//! ```text
//!              device half                      driver half
//!  split       SplitDevice                      SplitDriver
//!  packed      PackedDevice                     PackedDriver
//!  either      DeviceRing                       DriverRing
//!
//!              take    chains into a Batch      add       chains
//!              rewind  the last of them         publish   them: kick?
//!              commit  Used: call the driver?   take_used completions
//!              arm / disarm kicks               arm / disarm calls
//! ```
//!
//! Everything works in batches: one acquire for the split entries taken (a packed descriptor has
//! its own), one release for what is handed over, one decision whether to notify. Nothing the peer can write is trusted when read again:
//! each field is fetched once, checked, and only the copy is used; a ring's own position, free
//! list and lengths live in private memory.
//!
//! A malformed ring is told from an empty one. What precedes the fault is still returned, then
//! the [`RingError`] once, with its numbers, and from then on [`RingError::Latched`].
//!
//! # Reading order
//! [`layout`] (where things stand in memory), [`mem`] (cells and fences), [`event`] (when to
//! notify), [`chain`] (what is passed), then the four halves, `split` before `packed`; [`inflight`]
//! beside them.
#![no_std]
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

extern crate alloc;
#[cfg(test)]
extern crate std;

mod any;
pub mod chain;
mod descriptor;
pub mod error;
pub mod event;
pub mod inflight;
pub mod layout;
pub mod mem;
mod packed;
mod run;
mod split;
mod state;
mod table;

pub use any::{DeviceRing, DriverRing};
pub use chain::{Batch, ChainRef, ChainToken, Completion, Segment, Used};
pub use error::{AddError, Kind, RingError, SetupError};
pub use event::{need_event, need_event_packed};
pub use inflight::{Again, Record, RecordError, Recovered, record_bytes};
pub use layout::{Area, AreaSizes, Format, Placement, area_sizes, legal_size};
pub use mem::{Areas, DeviceMem, DriverMem, RingMem, Tables};
pub use packed::{PackedDevice, PackedDriver};
pub use split::{SplitDevice, SplitDriver};
pub use state::{Pos, QueueState, RingFeatures};

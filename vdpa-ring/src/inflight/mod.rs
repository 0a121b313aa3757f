//! What a device has taken and not given back, in memory that outlives it.
//!
//! A device that dies leaves a driver whose buffers are neither available nor used. A [`Record`] says which: the device
//! marks what it takes before it looks at it, and unmarks it around the store that shows it to the driver, so that
//! whoever opens the record afterwards finds each chain either used or in flight, wherever the last one stopped. The
//! chains in flight are then taken [`Again`], in the order of old.
//!
//! ```text
//!   take ─▶ taken()                     marked, in the order taken, before the device looks at them
//!   rewound() ─▶ rewind                 unmarked, from the last one on
//!   committing() ─▶ commit ─▶ committed()
//!      │             │            └──── unmarked
//!      │             └───────────────── shown to the driver, all at once
//!      └─────────────────────────────── what is about to be shown
//!   after a death:  open() ─▶ where the ring stands, and what is taken again
//! ```
//!
//! The layout is that of vhost-user's region for tracking in-flight I/O (QEMU's `docs/interop/vhost-user.rst`), one
//! region a queue, little-endian:
//!
//! ```text
//! split   features u64 | version u16, desc_num u16, last_batch_head u16, used_idx u16
//!         a descriptor: inflight u8, 0 u8[5], next u16 | counter u64
//! packed  features u64 | version u16, desc_num u16, free_head u16, old_free_head u16
//!         | used_idx u16, old_used_idx u16, used_wrap u8, old_used_wrap u8, 0 u16 | 0 u64
//!         a descriptor: inflight u8, 0 u8, next u16, last u16, num u16 | counter u64 | id u16, flags u16, len u32 | addr u64
//! ```
//! All of it is used as cells of eight bytes: fields that have to change together do. While a device runs it only
//! writes, from private copies; what [`Record::open`] reads is hostile, and read once.

mod again;
mod error;
mod packed;
mod split;

use alloc::{boxed::Box, vec, vec::Vec};

pub use again::Again;
pub use error::RecordError;

use crate::{
    any::DeviceRing,
    chain::{Batch, Used},
    error::RingError,
    layout::Format,
    mem::{Areas, RingMem},
    state::QueueState,
};

/// The version of a record in use; 0 is one that nobody has written.
const VERSION: u16 = 1;

/// Offset of the word that the version is in.
const WORD: u32 = 8;

/// Bytes of a record of a queue of `size`: a multiple of 64, as vhost-user has them. The memory is aligned to 8.
pub const fn record_bytes(format: Format, size: u16) -> u32 {
    let (head, entry) = match format {
        Format::Split => (split::HEAD, split::ENTRY),
        Format::Packed => (packed::HEAD, packed::ENTRY),
    };
    head.wrapping_add((size as u32).wrapping_mul(entry))
        .wrapping_add(63)
        & !63
}

/// Which chains of a queue are in flight, for whoever comes after. Made by [`open`](Self::open).
#[derive(Debug)]
pub struct Record {
    kind: Kind,
    /// Something came that no record can hold: it is not written any more.
    latched: bool,
}

#[derive(Debug)]
enum Kind {
    Split(split::SplitRecord),
    Packed(packed::PackedRecord),
}

/// What opening a record comes to.
#[derive(Debug)]
pub struct Recovered {
    /// Where the queue goes on. What is in flight counts as taken.
    pub state: QueueState,
    /// What was in flight, for [`DeviceRing::resubmit`].
    pub again: Again,
}

impl Record {
    /// Opens a record: begins a fresh one (all zero), or finishes what the last device was at.
    ///
    /// * `record`: at least [`record_bytes`], aligned to 8
    /// * `areas`: of the queue; the used index (split) or one descriptor (packed) is read
    /// * `state`: where the queue stands, for a fresh record; one that was in use knows better
    ///
    /// # Errors
    /// When what is there is no record of such a queue, or does not fit what the ring says; nothing is written then.
    pub fn open<R: RingMem, M: RingMem>(
        format: Format,
        size: u16,
        record: &R,
        areas: &Areas<M>,
        state: Option<QueueState>,
    ) -> Result<(Self, Recovered), RecordError> {
        let features = record.load_u64(0);
        let head = Words::from(record.load_u64(WORD));
        let version = head.get(0);
        let used = version != 0;
        if used && version != VERSION {
            return Err(RecordError::Version { version });
        }
        if used && features != 0 {
            return Err(RecordError::Features { features });
        }
        if used && head.get(1) != size {
            let found = head.get(1);
            return Err(RecordError::Size { found, size });
        }
        let (kind, recovered) = match (format, used) {
            (Format::Split, true) => {
                let (record, recovered) = split::SplitRecord::recover(size, record, head, areas)?;
                (Kind::Split(record), recovered)
            }
            (Format::Split, false) => {
                let (record, recovered) = split::SplitRecord::begin(size, record, areas, state)?;
                (Kind::Split(record), recovered)
            }
            (Format::Packed, true) => {
                let (record, recovered) = packed::PackedRecord::recover(size, record, head, areas)?;
                (Kind::Packed(record), recovered)
            }
            (Format::Packed, false) => {
                let (record, recovered) = packed::PackedRecord::begin(size, record, state)?;
                (Kind::Packed(record), recovered)
            }
        };
        let latched = false;
        Ok((Self { kind, latched }, recovered))
    }

    /// Marks the chains of `batch`, just taken from `ring`. Before anything is done with them.
    ///
    /// # Errors
    /// [`RingError::InFlightTwice`], once, for a chain that is in flight already; then [`RingError::Latched`].
    pub fn taken<R: RingMem>(
        &mut self,
        record: &R,
        ring: &DeviceRing,
        batch: &Batch,
    ) -> Result<(), RingError> {
        if self.latched {
            return Err(RingError::Latched);
        }
        let marked = match (&mut self.kind, ring) {
            (Kind::Split(kind), DeviceRing::Split(ring)) => {
                kind.taken(record, batch, ring.repeated())
            }
            (Kind::Packed(kind), DeviceRing::Packed(ring)) => {
                kind.taken(record, batch, ring.repeated(), ring.noted())
            }
            _ => Err(RingError::Latched),
        };
        self.latched = marked.is_err();
        marked
    }

    /// Unmarks the last `n` chains of `batch`, which go back untouched: before [`DeviceRing::rewind`]. Those that were
    /// taken again stay marked.
    pub fn rewound<R: RingMem>(&mut self, record: &R, ring: &DeviceRing, batch: &Batch, n: usize) {
        if self.latched {
            return;
        }
        match (&mut self.kind, ring) {
            (Kind::Split(kind), DeviceRing::Split(ring)) => {
                kind.rewound(record, batch, ring.repeated(), n);
            }
            (Kind::Packed(kind), DeviceRing::Packed(ring)) => {
                kind.rewound(record, batch, ring.repeated(), n);
            }
            _ => {}
        }
    }

    /// Says what is about to be given back, all at once: before [`DeviceRing::commit`], with the same chains.
    ///
    /// # Errors
    /// [`RingError::NotTaken`] for a chain that is not in flight; then [`RingError::Latched`].
    pub fn committing<R: RingMem>(&mut self, record: &R, used: &[Used]) -> Result<(), RingError> {
        if self.latched {
            return Err(RingError::Latched);
        }
        let said = match &mut self.kind {
            Kind::Split(kind) => kind.committing(record, used),
            Kind::Packed(kind) => kind.committing(record, used),
        };
        self.latched = said.is_err();
        said
    }

    /// Unmarks what was given back: after [`DeviceRing::commit`].
    pub fn committed<R: RingMem>(&mut self, record: &R, used: &[Used]) {
        if self.latched {
            return;
        }
        match &mut self.kind {
            Kind::Split(kind) => kind.committed(record, used),
            Kind::Packed(kind) => kind.committed(record, used),
        }
    }
}

/// The chains in flight in the order of their counters, which tell them apart.
fn by_counter(mut found: Vec<(u64, u16)>) -> Result<Vec<(u64, u16)>, RecordError> {
    found.sort_unstable();
    let twice = found.windows(2).find_map(|pair| match pair {
        [(a, first), (b, second)] if a == b => Some((*a, *first, *second)),
        _ => None,
    });
    match twice {
        Some((counter, first, second)) => Err(RecordError::Counter {
            counter,
            first,
            second,
        }),
        None => Ok(found),
    }
}

/// The counter after the last one in use.
fn next_counter(found: &[(u64, u16)]) -> Result<u64, RecordError> {
    let Some(&(counter, entry)) = found.last() else {
        return Ok(0);
    };
    counter.checked_add(1).ok_or(RecordError::Counter {
        counter,
        first: entry,
        second: entry,
    })
}

/// The list of `n` flags, all the same.
fn flags(n: u16) -> Box<[bool]> {
    vec![false; usize::from(n)].into_boxed_slice()
}

/// Four fields in one cell, the first in the lowest bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Words(u64);

impl From<u64> for Words {
    fn from(cell: u64) -> Self {
        Self(cell)
    }
}

impl Words {
    const fn new([a, b, c, d]: [u16; 4]) -> Self {
        Self(a as u64 | (b as u64) << 16 | (c as u64) << 32 | (d as u64) << 48)
    }

    /// Field `at`, 0 to 3.
    const fn get(self, at: u32) -> u16 {
        (self.0 >> (at.wrapping_mul(16) & 63)) as u16
    }
}

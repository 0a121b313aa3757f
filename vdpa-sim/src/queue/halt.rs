//! Why a queue does not go on.

use vdpa_core::Area;
use vdpa_mem::{Fault, Iova};
use vdpa_ring::{RecordError, RingError, SetupError};

/// Why a queue does not go on: for good, that is before the device is reset, or for a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Halt {
    /// The driver broke the ring.
    #[error("{0}")]
    Ring(RingError),
    /// An area of the ring is not where it was any more.
    #[error("{area} at {at} is {fault}")]
    Area {
        /// Which area.
        area: Area,
        /// Where it begins.
        at: Iova,
        /// What is wrong.
        fault: Fault,
    },
    /// An area was mapped in one piece and is not any more, or not aligned in this process.
    #[error(
        "{area} at {at} is not one aligned piece of memory in this process: map it by one mapping"
    )]
    Scattered {
        /// Which area.
        area: Area,
        /// Where it begins.
        at: Iova,
    },
    /// It waits for an address that is not mapped yet. No fault of the driver's.
    #[error("an address is not mapped yet")]
    Waiting,
}

impl From<RingError> for Halt {
    fn from(error: RingError) -> Self {
        Self::Ring(error)
    }
}

/// Why a queue cannot keep a record of what it has in flight.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TrackError {
    /// The record is none, or does not fit the ring.
    #[error(transparent)]
    Record(RecordError),
    /// An area of the ring is not mapped: it says what the record means.
    #[error(transparent)]
    Area(Halt),
    /// The state that the record and the ring give cannot be.
    #[error(transparent)]
    State(SetupError),
}

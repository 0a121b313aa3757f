//! What the adapter refuses, and what fails under it.

use std::io;

use vdpa_core::{ErrorKind, ParentError};

use super::InterruptKind;

/// Why a call of a VMM's on a device failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VmmError {
    /// An activation before the driver has said what it wants.
    #[error("{call} comes before the driver's features: call ack_features first")]
    NotAcked {
        /// The call.
        call: &'static str,
    },
    /// A device that is active already.
    #[error("{call} is not legal while the device is active: reset it first")]
    Active {
        /// The call.
        call: &'static str,
    },
    /// A device that is not active.
    #[error("{call} is not legal before the device is active: activate it first")]
    NotActive {
        /// The call.
        call: &'static str,
    },
    /// A snapshot of a device that runs.
    #[error("a device that runs cannot be saved: pause it first")]
    Running,
    /// A queue given more than once.
    #[error("queue {queue} is given twice")]
    QueueTwice {
        /// The queue.
        queue: u16,
    },
    /// A queue without a way to call its driver.
    #[error(
        "queue {queue} has no interrupt: give it an eventfd, or a closure for all that have none"
    )]
    NoInterrupt {
        /// The queue.
        queue: u16,
    },
    /// An eventfd for the interrupt of something that is not there.
    #[error("an eventfd is given for {kind}, which is not among the {queues} queues activated")]
    InterruptOfNothing {
        /// What it is for.
        kind: InterruptKind,
        /// How many queues there are.
        queues: usize,
    },
    /// An offset that no configuration space reaches.
    #[error("configuration access at {at:#x} reaches past the end at {size}")]
    ConfigOffset {
        /// Offset in bytes.
        at: u64,
        /// Bytes there are.
        size: u32,
    },
    /// A region that no guest memory can have.
    #[error("the region ends beyond the last guest address")]
    Region,
    /// Bytes that are no snapshot.
    #[error("the bytes are no snapshot of a device: {why}")]
    Snapshot {
        /// What is wrong with them.
        why: &'static str,
    },
    /// A snapshot of another version.
    #[error("the snapshot's version is {found}, known is {known}: take it again with this version")]
    SnapshotVersion {
        /// The version found.
        found: u16,
        /// The one that is known.
        known: u16,
    },
    /// The system has no eventfd to give.
    #[error("cannot {what} an eventfd")]
    Eventfd {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// What the device refuses.
    #[error(transparent)]
    Device(#[from] vdpa_core::Error),
}

impl VmmError {
    pub(super) fn eventfd(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Eventfd { what, source }
    }

    /// Whose fault it is, and what can be done about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotAcked { .. }
            | Self::Active { .. }
            | Self::NotActive { .. }
            | Self::Running
            | Self::QueueTwice { .. }
            | Self::NoInterrupt { .. }
            | Self::InterruptOfNothing { .. }
            | Self::ConfigOffset { .. }
            | Self::Region
            | Self::Snapshot { .. }
            | Self::SnapshotVersion { .. } => ErrorKind::Misuse,
            Self::Eventfd { .. } => ErrorKind::Io,
            Self::Device(error) => error.kind(),
        }
    }
}

impl ParentError for VmmError {
    fn kind(&self) -> ErrorKind {
        self.kind()
    }
}

impl From<vdpa_mem::MemError> for VmmError {
    fn from(error: vdpa_mem::MemError) -> Self {
        Self::Device(error.into())
    }
}

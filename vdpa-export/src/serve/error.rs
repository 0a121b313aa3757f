//! What a front end may not ask of a device.

use vdpa_core::{ErrorKind, ParentError, QueueIndex};
use vdpa_mem::MemError;

/// Why a request of a front end's cannot be carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Features that were not offered.
    #[error("features that were not offered: {features}")]
    NotOffered {
        /// By name.
        features: String,
    },
    /// Features that are changed while queues run.
    #[error("features cannot change while queues run: stop the queues first")]
    FeaturesChange,
    /// A device that is to start without features.
    #[error("the features are to be set before the device starts")]
    NoFeatures,
    /// Something of a queue that cannot change while it runs.
    #[error("queue {queue}: {what} cannot change while it runs: stop it first")]
    Running {
        /// The queue.
        queue: QueueIndex,
        /// What was to be changed.
        what: &'static str,
    },
    /// A descriptor of something else than an eventfd.
    #[error("queue {queue} cannot go by it")]
    NotEventFd {
        /// The queue.
        queue: QueueIndex,
        /// What it is.
        source: vdpa_core::NotEventFd,
    },
    /// A ring at an address that the front end gave no memory for.
    #[error(
        "queue {queue}: {area} at {at:#x} is in no memory region: all of the guest's memory has to be shared, as by \
         share=on"
    )]
    Nowhere {
        /// The queue.
        queue: QueueIndex,
        /// The part of the queue.
        area: vdpa_core::Area,
        /// The address that the front end gave.
        at: u64,
    },
    /// A number that no queue size can be.
    #[error("queue {queue}: {size} is no queue size: 1 to 32768 is legal")]
    Size {
        /// The queue.
        queue: QueueIndex,
        /// The number.
        size: u32,
    },
    /// A queue that is larger than those of the device.
    #[error(
        "queue {queue}: {size} descriptors are too many: {most} is the most that the device takes"
    )]
    TooLarge {
        /// The queue.
        queue: QueueIndex,
        /// How many were asked for.
        size: u16,
        /// The most.
        most: u16,
    },
    /// A place in the ring that a split ring cannot have.
    #[error("queue {queue}: {base:#x} is no place in a split ring: 65535 is the last")]
    Base {
        /// The queue.
        queue: QueueIndex,
        /// The number.
        base: u32,
    },
    /// A queue that cannot be stopped in a way that keeps its place.
    #[error(
        "queue {queue} cannot be stopped: the device can neither pause a queue nor be suspended, and a packed ring does \
         not say where it stands"
    )]
    Unstoppable {
        /// The queue.
        queue: QueueIndex,
    },
    /// A queue of which nobody knows where it stands.
    #[error(
        "queue {queue} has stopped, and where is not known: its used ring at {at} is not mapped any more, and the device can \
         neither pause a queue nor be suspended"
    )]
    NoPlace {
        /// The queue.
        queue: QueueIndex,
        /// Where its used ring was for the device.
        at: vdpa_mem::Iova,
    },
    /// A size that a split ring cannot have.
    #[error(
        "queue {queue}: a split ring of {size} descriptors cannot be: their number is a power of two"
    )]
    NoPowerOfTwo {
        /// The queue.
        queue: QueueIndex,
        /// How many were asked for.
        size: u16,
    },
    /// A state that is to be moved while queues run.
    #[error("the state of a device can be moved only while its queues are stopped: {running} run")]
    StateWhileRunning {
        /// How many run.
        running: u16,
    },
    /// Records for fewer queues than there are.
    #[error("queue {queue} has no record of what is in flight: the region is for {queues} queues")]
    NoRecord {
        /// The queue.
        queue: QueueIndex,
        /// How many there are records for.
        queues: usize,
    },
    /// A dirty log that does not cover the memory.
    #[error("the dirty log has {len:#x} bytes, and the memory needs {needed:#x}")]
    ShortLog {
        /// Bytes that there are.
        len: u64,
        /// Bytes that are needed.
        needed: u64,
    },
    /// Memory that cannot be used.
    #[error(transparent)]
    Memory(#[from] MemError),
    /// What the device refuses.
    #[error(transparent)]
    Device(#[from] vdpa_core::Error),
}

impl ServeError {
    /// Whether it says no to features, after which others can be chosen.
    pub(crate) fn refuses_features(&self) -> bool {
        use vdpa_core::Error;
        matches!(
            self,
            Self::NoFeatures
                | Self::Device(
                    Error::Features(_) | Error::FeaturesRefused { .. } | Error::Untranslated { .. }
                )
        )
    }

    /// Whose fault it is, and what can be done about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Unstoppable { .. } => ErrorKind::Unsupported,
            Self::Memory(_) => ErrorKind::PeerMisbehaved,
            Self::Device(error) => error.kind(),
            _ => ErrorKind::PeerMisbehaved,
        }
    }
}

impl ParentError for ServeError {
    fn kind(&self) -> ErrorKind {
        self.kind()
    }
}

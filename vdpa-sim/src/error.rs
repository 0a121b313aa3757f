//! What a simulated device refuses.

use vdpa_core::{ErrorKind, ParentError, QueueIndex};
use vdpa_ring::SetupError;

use crate::blk::ImageError;
use crate::pcap::CaptureError;
use crate::port::TapError;
use crate::queue::{Halt, TrackError};

/// Why a simulated device cannot be made or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SimError {
    /// A device is opened once.
    #[error("device {name} is open already: close it, or add another device")]
    Open {
        /// The device.
        name: String,
    },
    /// A device that is not open.
    #[error("device {name} is not open")]
    NotOpen {
        /// The device.
        name: String,
    },
    /// A device that is no PCI function.
    #[error("{name} is no PCI function: add as=pci")]
    NoFunction {
        /// The device string.
        name: String,
    },
    /// A crew serves only so many devices.
    #[error("crew {name} serves {devices} devices, as many as it can: name another crew")]
    CrewFull {
        /// The crew.
        name: String,
        /// How many devices it has.
        devices: usize,
    },
    /// A worker thread cannot be started.
    #[error(
        "{name}: cannot start worker {worker}: ask for fewer workers, or let devices share some (crew=NAME)"
    )]
    Worker {
        /// The device, or the crew of several.
        name: String,
        /// Which worker.
        worker: usize,
        /// What the system said.
        source: std::io::Error,
    },
    /// A ring that cannot be made.
    #[error("queue {queue}: {why}")]
    Ring {
        /// The queue.
        queue: QueueIndex,
        /// Why not.
        why: SetupError,
    },
    /// An area that cannot be used.
    #[error("queue {queue}: {why}")]
    Area {
        /// The queue.
        queue: QueueIndex,
        /// Why not.
        why: Halt,
    },
    /// A record of what is in flight that cannot be kept.
    #[error("queue {queue}: the record of what is in flight cannot be gone on with")]
    Track {
        /// The queue.
        queue: QueueIndex,
        /// Why not.
        source: TrackError,
    },
    /// An eventfd that cannot be used as a kick.
    #[error("queue {queue}: the kick's eventfd cannot be used")]
    Kick {
        /// The queue.
        queue: QueueIndex,
        /// What the system said.
        source: std::io::Error,
    },
    /// A capture that cannot be read or written.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// A tap interface that cannot be opened.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// An image that cannot be served.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// Memory for a disk that cannot be had.
    #[error("there is no memory for a disk of {bytes} bytes: give it a smaller size, or a file")]
    Disk {
        /// Its size.
        bytes: u64,
        /// What the system said.
        source: std::io::Error,
    },
}

impl ParentError for SimError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Open { .. }
            | Self::NotOpen { .. }
            | Self::NoFunction { .. }
            | Self::CrewFull { .. }
            | Self::Ring { .. }
            | Self::Area { .. }
            | Self::Track { .. } => ErrorKind::Misuse,
            Self::Worker { .. } | Self::Kick { .. } => ErrorKind::Io,
            Self::Image(ImageError::NoUring { .. } | ImageError::Threads { .. })
            | Self::Disk { .. } => ErrorKind::Io,
            // The file is what the caller named.
            Self::Tap(why) => match why {
                TapError::Name { .. } | TapError::NoTap { .. } | TapError::SingleQueue { .. } => {
                    ErrorKind::Misuse
                }
                TapError::Busy { .. } => ErrorKind::Busy,
                TapError::Permission { .. }
                | TapError::NoControl { .. }
                | TapError::System { .. } => ErrorKind::Io,
            },
            Self::Capture(_) | Self::Image(_) => ErrorKind::Misuse,
        }
    }
}

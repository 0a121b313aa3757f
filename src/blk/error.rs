//! What a block driver refuses, and what fails under it.

use std::fmt;

use vdpa_core::{DeviceType, ErrorKind};

use super::{Op, Ring};

/// What a device answers to a request, when it is not that all is well: virtio 1.4 §5.2.6.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Refusal {
    /// VIRTIO_BLK_S_IOERR: the device or its medium failed, or the request was none for this disk.
    IoError,
    /// VIRTIO_BLK_S_UNSUPP: the device does not know such a request.
    Unsupported,
    /// A status that virtio 1.4 does not define; 0xff where the device wrote none.
    Other(u8),
}

impl Refusal {
    /// What the status byte says: `None` for a request that was done.
    pub(super) const fn of(status: u8) -> Option<Self> {
        match status {
            0 => None,
            1 => Some(Self::IoError),
            2 => Some(Self::Unsupported),
            other => Some(Self::Other(other)),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IoError => f.write_str("an I/O error"),
            Self::Unsupported => f.write_str("that it is not supported"),
            Self::Other(status) => write!(f, "{status:#04x}, which is no status"),
        }
    }
}

/// Why a call on a block driver failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlkError {
    /// Another kind of device.
    #[error(
        "the device is of type {device_type}, where a block device is wanted: open one such as sim:blk"
    )]
    NotBlock {
        /// The kind.
        device_type: DeviceType,
    },
    /// A device that does not have the rings asked for.
    #[error(
        "{ring} rings need {missing}, which the device does not offer: use another ring format, or another device"
    )]
    RingNotOffered {
        /// The rings.
        ring: Ring,
        /// The features that are missing.
        missing: String,
    },
    /// More queues than there are.
    #[error("{asked} queues asked for, where 1 to {most} are possible")]
    Queues {
        /// How many were asked for.
        asked: u16,
        /// The most that the device has.
        most: u16,
    },
    /// A queue too small for a request.
    #[error("queue {queue} has {size} descriptors, and a request needs 2")]
    QueueSize {
        /// The queue.
        queue: u16,
        /// Its descriptors.
        size: u16,
    },
    /// A queue that is not in use.
    #[error("queue {queue} is not in use: there are {count}, counted from 0")]
    NoQueue {
        /// The queue.
        queue: u16,
        /// How many there are.
        count: u16,
    },
    /// Data that is no number of sectors, or more than a request has room for.
    #[error("{len} bytes cannot be {op}: multiples of 512 up to {most} can")]
    Length {
        /// What was to be done.
        op: Op,
        /// How many bytes.
        len: usize,
        /// The most.
        most: usize,
    },
    /// A part of the disk that is not there.
    #[error("{sectors} sectors from {sector} on cannot be {op}: the disk has {capacity}")]
    Range {
        /// What was to be done.
        op: Op,
        /// The first sector.
        sector: u64,
        /// How many.
        sectors: u64,
        /// How many there are.
        capacity: u64,
    },
    /// A request over a limit of the device's.
    #[error("{sectors} sectors cannot be {op} at once: the device takes {most}")]
    Limit {
        /// What was to be done.
        op: Op,
        /// How many sectors.
        sectors: u64,
        /// The most.
        most: u32,
    },
    /// The device does not have what is needed for it.
    #[error("to have it {op} needs the feature {feature}, which was not negotiated")]
    NotNegotiated {
        /// What was to be done.
        op: Op,
        /// The feature.
        feature: &'static str,
    },
    /// The device answered that it did not do it.
    #[error("the device answered {refusal}: from sector {sector} on nothing is known to be {op}")]
    Refused {
        /// What was to be done.
        op: Op,
        /// Where.
        sector: u64,
        /// What it answered.
        refusal: Refusal,
    },
    /// The device used fewer bytes than there are in what it answered.
    #[error("the device wrote {len} of {wanted} bytes, and said that all is well")]
    Short {
        /// What it says that it wrote.
        len: u32,
        /// What it had to write.
        wanted: u32,
    },
    /// The device did not answer.
    #[error("the device did not answer a request ({op}) in {seconds} s")]
    Timeout {
        /// What was to be done.
        op: Op,
        /// How long it was waited for.
        seconds: u64,
    },
    /// Requests of the caller's own are under way on the queue.
    #[error("queue {queue} has {count} requests under way: complete them first")]
    UnderWay {
        /// The queue.
        queue: u16,
        /// How many.
        count: usize,
    },
    /// The device or its rings.
    #[error(transparent)]
    Device(#[from] vdpa_core::Error),
}

impl BlkError {
    /// Whose fault it is, and what can be done about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotBlock { .. }
            | Self::Queues { .. }
            | Self::QueueSize { .. }
            | Self::NoQueue { .. }
            | Self::Length { .. }
            | Self::Range { .. }
            | Self::Limit { .. }
            | Self::NotNegotiated { .. }
            | Self::UnderWay { .. } => ErrorKind::Misuse,
            Self::RingNotOffered { .. } => ErrorKind::Unsupported,
            Self::Refused { refusal, .. } => match refusal {
                Refusal::IoError => ErrorKind::Io,
                Refusal::Unsupported => ErrorKind::Unsupported,
                Refusal::Other(_) => ErrorKind::PeerMisbehaved,
            },
            Self::Short { .. } => ErrorKind::PeerMisbehaved,
            Self::Timeout { .. } => ErrorKind::Busy,
            Self::Device(error) => error.kind(),
        }
    }
}

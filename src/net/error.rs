//! What a network driver refuses, and what fails under it.

use vdpa_core::{DeviceType, ErrorKind};

use super::{Command, Ring};

/// Why a call on a network driver failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// Another kind of device.
    #[error(
        "the device is of type {device_type}, where a network device is wanted: open one such as sim:net"
    )]
    NotNet {
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
    /// More queue pairs than there are.
    #[error("{asked} queue pairs asked for, where 1 to {most} are possible")]
    Pairs {
        /// How many were asked for.
        asked: u16,
        /// The most that the device has.
        most: u16,
    },
    /// A queue pair that is not in use.
    #[error("queue pair {pair} is not in use: there are {count}, counted from 0")]
    NoPair {
        /// The pair.
        pair: u16,
        /// How many there are.
        count: u16,
    },
    /// A frame that no Ethernet frame can be, or one over the device's MTU.
    #[error("a frame of {len} bytes cannot be sent: {least} to {most} can")]
    FrameLength {
        /// Its length in bytes.
        len: usize,
        /// The least.
        least: usize,
        /// The most, by the device's MTU.
        most: usize,
    },
    /// A header that says that the device has found the checksum right.
    #[error(
        "a sent packet's checksum is whole or partial: only a device says that it has verified one"
    )]
    VerifiedSent,
    /// A partial checksum outside the packet.
    #[error(
        "a partial checksum of the bytes from {start} on, at {offset} behind that, is not inside the payload of a frame \
         of {len} bytes"
    )]
    ChecksumPlace {
        /// Where its bytes begin.
        start: u16,
        /// Where it stands, from there on.
        offset: u16,
        /// Bytes of the frame.
        len: usize,
    },
    /// Segments that cannot be.
    #[error(
        "a frame of {len} bytes cannot be cut into segments of {size} bytes behind {header_len} of headers: that takes a \
         partial checksum, headers within the frame, and 1 to {most} bytes for both together"
    )]
    SegmentSize {
        /// Payload of a segment.
        size: u16,
        /// Bytes of all headers.
        header_len: u16,
        /// Bytes of the frame.
        len: usize,
        /// The longest frame on the network.
        most: usize,
    },
    /// The device was not asked to do this, or cannot.
    #[error(
        "the frame needs {feature}, which was not negotiated: name it in Setup::ask, if the device offers it"
    )]
    OffloadNotNegotiated {
        /// The feature.
        feature: &'static str,
    },
    /// A feature asked for that this driver knows nothing of.
    #[error("the driver cannot use {features}: it can be asked for {known}")]
    FeatureUnknown {
        /// The features that it does not know.
        features: String,
        /// Those that it does.
        known: String,
    },
    /// A table of receive-side scaling that no device takes.
    #[error("a table of {len} entries: 1 to 128 are possible, a power of two")]
    SpreadTable {
        /// Its entries.
        len: usize,
    },
    /// The control queue is not there, or not for this.
    #[error("the command to set {command} needs the feature {feature}, which was not negotiated")]
    CommandNotNegotiated {
        /// The command.
        command: Command,
        /// The feature.
        feature: &'static str,
    },
    /// The device did not carry a command out.
    #[error("the device refused the command to set {command}")]
    CommandRefused {
        /// The command.
        command: Command,
    },
    /// The device did not answer a command.
    #[error("the device did not answer the command to set {command} in {seconds} s")]
    CommandTimeout {
        /// The command.
        command: Command,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The device wrote a receive header that cannot be.
    #[error(
        "receive queue {pair}: the device says that a frame has {buffers} buffers, of {size} that there are"
    )]
    FrameBuffers {
        /// The queue pair.
        pair: u16,
        /// What the header says.
        buffers: u16,
        /// Buffers in the queue.
        size: u16,
    },
    /// The device used a buffer for less than a receive header.
    #[error("receive queue {pair}: the device wrote {len} bytes, less than the header of {header}")]
    FrameShort {
        /// The queue pair.
        pair: u16,
        /// Bytes written.
        len: u32,
        /// Bytes of the header.
        header: usize,
    },
    /// The system cannot wait for what arrives.
    #[error("cannot wait for what arrives")]
    Wait {
        /// What it says.
        source: std::io::Error,
    },
    /// The device or its rings.
    #[error(transparent)]
    Device(#[from] vdpa_core::Error),
}

impl NetError {
    /// Whose fault it is, and what can be done about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotNet { .. }
            | Self::Pairs { .. }
            | Self::NoPair { .. }
            | Self::FrameLength { .. }
            | Self::VerifiedSent
            | Self::ChecksumPlace { .. }
            | Self::SegmentSize { .. }
            | Self::OffloadNotNegotiated { .. }
            | Self::FeatureUnknown { .. }
            | Self::SpreadTable { .. }
            | Self::CommandNotNegotiated { .. } => ErrorKind::Misuse,
            Self::RingNotOffered { .. } | Self::CommandRefused { .. } => ErrorKind::Unsupported,
            Self::CommandTimeout { .. } => ErrorKind::Busy,
            Self::FrameBuffers { .. } | Self::FrameShort { .. } => ErrorKind::PeerMisbehaved,
            Self::Wait { .. } => ErrorKind::Io,
            Self::Device(error) => error.kind(),
        }
    }
}

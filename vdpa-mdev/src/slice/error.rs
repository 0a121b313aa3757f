//! Why there is no slice.

use vdpa_core::config::Mac;
use vdpa_core::{DeviceType, Error, ErrorKind, ParentError};

/// Why a device cannot be shared, or a slice of it cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SliceError {
    /// A device of another type.
    #[error("{device} is a {device_type} device: slices are of network devices")]
    NotNet {
        /// The device.
        device: String,
        /// What it is.
        device_type: DeviceType,
    },
    /// A device that does not receive for addresses besides its own.
    #[error(
        "{device} does not become promiscuous ({answer}), and so receives for none of its slices: trust the function (`ip link set DEV vf N trust on`), or share another device"
    )]
    Promiscuous {
        /// The device.
        device: String,
        /// What came of the command.
        answer: String,
    },
    /// More than is left.
    #[error(
        "{device}: slice-{wanted} takes {wanted} of the {limit} queue pairs that it is shared in, and {left} are left: remove a slice, or share it with a larger limit"
    )]
    Full {
        /// The device that is shared.
        device: String,
        /// Queue pairs asked for.
        wanted: u16,
        /// Queue pairs that no slice has.
        left: u16,
        /// All of them.
        limit: u16,
    },
    /// An address that another slice has.
    #[error("{device}: {mac} is the address of {owner}, in the same VLAN: choose another one")]
    MacTaken {
        /// The device that is shared.
        device: String,
        /// The address.
        mac: Mac,
        /// Who has it.
        owner: String,
    },
    /// A number that is out of its range.
    #[error("{device}: {what} {given} is out of range: {least} to {most}")]
    Range {
        /// The device that is shared.
        device: String,
        /// Which number.
        what: &'static str,
        /// The number.
        given: u32,
        /// The least that is legal.
        least: u32,
        /// The most that is legal.
        most: u32,
    },
    /// A group's address, or none.
    #[error("{device}: {mac} is no address of one card")]
    Mac {
        /// The device that is shared.
        device: String,
        /// The address.
        mac: Mac,
    },
    /// A limit that is not the one that the device is shared with.
    #[error(
        "{device} is shared with a limit of {has} already, which its first slice gave: leave limit={given} out, or remove its slices"
    )]
    Limit {
        /// The device that is shared.
        device: String,
        /// The limit asked for.
        given: u16,
        /// The limit there is.
        has: u16,
    },
    /// A device that is lost.
    #[error("{device} is lost to its slices: {why}")]
    Lost {
        /// The device that is shared.
        device: String,
        /// How.
        why: String,
    },
    /// A device that came without its events.
    #[error("{device}: its events were taken already, and who shares it needs them")]
    Events {
        /// The device.
        device: String,
        /// What was said.
        source: Error,
    },
    /// No thread.
    #[error("{device}: cannot start the thread that serves its slices")]
    Worker {
        /// The device that is shared.
        device: String,
        /// What the system said.
        source: std::io::Error,
    },
}

impl ParentError for SliceError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotNet { .. }
            | Self::MacTaken { .. }
            | Self::Range { .. }
            | Self::Mac { .. }
            | Self::Limit { .. }
            | Self::Events { .. } => ErrorKind::Misuse,
            Self::Promiscuous { .. } => ErrorKind::Unsupported,
            // There may be some later.
            Self::Full { .. } => ErrorKind::Busy,
            Self::Lost { .. } => ErrorKind::Gone,
            Self::Worker { .. } => ErrorKind::Io,
        }
    }
}

//! What a simulated function refuses.

use vdpa_core::{ErrorKind, ParentError};
use vdpa_mem::IovaRange;

/// Why an access to a simulated function is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PciError {
    /// A register that there is not.
    #[error(
        "{space} has no register of {width} bytes at {at:#x}: it has {len:#x} bytes, and registers are aligned"
    )]
    NoRegister {
        /// `configuration space`, or a BAR.
        space: Space,
        /// The offset.
        at: u64,
        /// The width of the access in bytes.
        width: u8,
        /// How long the space is; 0: it cannot be reached.
        len: u64,
    },
    /// A register that cannot be a doorbell.
    #[error("a doorbell has 16 or 32 bits, not {width} bytes")]
    DoorbellWidth {
        /// The width in bytes.
        width: u8,
    },
    /// More vectors than there are.
    #[error("the function has {has} MSI-X vectors, not {asked}")]
    Vectors {
        /// How many were asked for, or which.
        asked: u16,
        /// How many there are.
        has: u16,
    },
    /// A vector that is not enabled.
    #[error("vector {vector} is not enabled: {enabled} are")]
    VectorNotEnabled {
        /// Which one.
        vector: u16,
        /// How many are.
        enabled: u16,
    },
    /// No interrupt line.
    #[error("the interrupt line cannot be used: {why}")]
    Line {
        /// Why not.
        why: &'static str,
    },
    /// Addresses that cannot be mapped.
    #[error("{range} cannot be mapped: {why}")]
    Range {
        /// The addresses.
        range: IovaRange,
        /// What is wrong with them.
        why: &'static str,
    },
    /// No room for another mapping.
    #[error(
        "{range} cannot be mapped: there are {limit} mappings, as many as there can be; map larger pieces"
    )]
    Entries {
        /// The addresses.
        range: IovaRange,
        /// How many there can be.
        limit: u32,
    },
}

/// Where a register is looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Space {
    /// Configuration space.
    Config,
    /// A BAR.
    Bar(u8),
}

impl std::fmt::Display for Space {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Config => f.write_str("configuration space"),
            Self::Bar(bar) => write!(f, "BAR {bar}"),
        }
    }
}

impl ParentError for PciError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Vectors { .. } | Self::Line { .. } => ErrorKind::Unsupported,
            Self::Entries { .. } => ErrorKind::Io,
            Self::NoRegister { .. }
            | Self::DoorbellWidth { .. }
            | Self::VectorNotEnabled { .. }
            | Self::Range { .. } => ErrorKind::Misuse,
        }
    }
}

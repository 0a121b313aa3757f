//! Why a capability is passed over.

use std::fmt;

use super::Kind;

/// A virtio capability that is not used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ignored {
    /// Where it is in configuration space, in bytes.
    pub at: u16,
    /// Its type, as it says.
    pub cfg_type: u8,
    /// Its type, if there is such a one.
    pub kind: Option<Kind>,
    /// Why.
    pub reason: Reason,
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the capability at {:#x} ", self.at)?;
        match self.kind {
            Some(kind) => write!(f, "({}) {}", kind.name(), self.reason),
            None => write!(f, "{}", self.reason),
        }
    }
}

/// What is wrong with a capability, or why another one is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Reason {
    /// Another one of its type is used.
    Spare {
        /// Where that is, in bytes.
        used: u16,
    },
    /// A type that virtio 1.4 does not have.
    UnknownType,
    /// It says that it is shorter than its type is.
    Short {
        /// Bytes, as it says.
        len: u8,
        /// Bytes that its type has.
        need: u8,
    },
    /// Configuration space ends before it does.
    CutOff {
        /// Bytes to the end.
        room: u16,
        /// Bytes that its type has.
        need: u8,
    },
    /// A BAR number that no function has.
    UnknownBar {
        /// The number.
        bar: u8,
    },
    /// The function has no such BAR, or it was given no address.
    NoBar {
        /// The BAR.
        bar: u8,
    },
    /// The BAR cannot be reached, and there is no configuration access window.
    Unreachable {
        /// The BAR.
        bar: u8,
    },
    /// The structure is not where its BAR is.
    OutsideBar {
        /// The BAR.
        bar: u8,
        /// Where the structure begins, in bytes.
        offset: u64,
        /// Its length in bytes.
        len: u64,
        /// How much of the BAR can be reached, in bytes.
        size: u64,
    },
    /// The structure begins at a place where its fields cannot be accessed.
    Misaligned {
        /// Where it begins, in bytes.
        offset: u64,
        /// What that has to be a multiple of.
        align: u64,
    },
    /// The structure does not hold its fields.
    TooSmall {
        /// Its length in bytes.
        len: u64,
        /// Bytes that its fields take.
        need: u64,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Spare { used } => write!(f, "is not needed: the one at {used:#x} is used"),
            Self::UnknownType => f.write_str("is of a type that virtio 1.4 does not have"),
            Self::Short { len, need } => {
                write!(f, "says that it has {len} bytes, and its type has {need}")
            }
            Self::CutOff { room, need } => {
                write!(
                    f,
                    "has {need} bytes, and configuration space ends after {room}"
                )
            }
            Self::UnknownBar { bar } => write!(f, "names BAR {bar}: a function has 0 to 5"),
            Self::NoBar { bar } => write!(f, "names BAR {bar}, which the function does not have"),
            Self::Unreachable { bar } => write!(f, "names BAR {bar}, which is not mapped"),
            Self::OutsideBar {
                bar,
                offset,
                len,
                size,
            } => write!(
                f,
                "names {len} bytes at {offset:#x} of BAR {bar}, which ends at {size:#x}"
            ),
            Self::Misaligned { offset, align } => {
                write!(
                    f,
                    "points to {offset:#x}, which is not a multiple of {align}"
                )
            }
            Self::TooSmall { len, need } => {
                write!(f, "points to {len} bytes, and the structure has {need}")
            }
        }
    }
}

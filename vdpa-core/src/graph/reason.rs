//! Why a set of features is refused, in facts and in words.

use std::fmt;

use crate::device_type::DeviceType;
use crate::features::{FeatureBit, Features};

/// One thing that is wrong with a set of features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// A feature without what it depends on.
    Needs {
        /// The type of the device.
        device: DeviceType,
        /// The feature that has the need.
        bit: FeatureBit,
        /// What it needs one of; none is in the set.
        any_of: &'static [FeatureBit],
        /// Where the specification says so.
        clause: &'static str,
    },
    /// What every set must have is not there (`VERSION_1`, above all).
    Missing {
        /// The type of the device.
        device: DeviceType,
        /// One of these must be there.
        any_of: &'static [FeatureBit],
        /// Where the specification says so.
        clause: &'static str,
    },
    /// The specification defines no such bit for this type of device (virtio 1.4 §2.2.2).
    Undefined {
        /// The type of the device.
        device: DeviceType,
        /// The bit.
        bit: FeatureBit,
    },
    /// The specification keeps the bit for future extensions (virtio 1.4 §2.2).
    Reserved {
        /// The bit.
        bit: FeatureBit,
    },
    /// The bit means something on the legacy interface alone.
    Legacy {
        /// The type of the device.
        device: DeviceType,
        /// The bit.
        bit: FeatureBit,
    },
    /// Accepted, although the device did not offer it (virtio 1.4 §2.2.1).
    NotOffered {
        /// The type of the device.
        device: DeviceType,
        /// The bit.
        bit: FeatureBit,
    },
}

impl Reason {
    /// Where the specification says so.
    pub const fn clause(&self) -> &'static str {
        match self {
            Self::Needs { clause, .. } | Self::Missing { clause, .. } => clause,
            Self::Undefined { .. } => "virtio 1.4 §2.2.2",
            Self::Reserved { .. } => "virtio 1.4 §2.2",
            Self::Legacy { .. } => "virtio 1.4 §2.2.3",
            Self::NotOffered { .. } => "virtio 1.4 §2.2.1",
        }
    }
}

/// The alternatives in words: `A`, `A or B`, `A, B or C`.
struct Alternatives(DeviceType, &'static [FeatureBit]);

impl fmt::Display for Alternatives {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.1.len().saturating_sub(1);
        for (at, bit) in self.1.iter().enumerate() {
            if at > 0 {
                f.write_str(if at == last { " or " } else { ", " })?;
            }
            write!(f, "{}", bit.display(self.0))?;
        }
        Ok(())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Needs {
                device,
                bit,
                any_of,
                ..
            } => write!(
                f,
                "{} needs {}, {} in the set",
                bit.display(device),
                Alternatives(device, any_of),
                match any_of.len() {
                    1 => "which is not",
                    2 => "and neither is",
                    _ => "and none of them is",
                }
            ),
            Self::Missing { device, any_of, .. } => {
                write!(f, "{} is missing", Alternatives(device, any_of))
            }
            Self::Undefined { device, bit } => {
                write!(f, "{bit} is not defined for a {device} device")
            }
            Self::Reserved { bit } => write!(f, "{bit} is reserved"),
            Self::Legacy { device, bit } => write!(
                f,
                "{} belongs to the legacy interface alone",
                bit.display(device)
            ),
            Self::NotOffered { device, bit } => {
                write!(f, "{} was not offered", bit.display(device))
            }
        }
    }
}

/// A set of features was refused; all reasons are in it, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    device: DeviceType,
    set: Features,
    reasons: Vec<Reason>,
}

impl Refusal {
    /// `Ok` if there is no reason.
    pub(super) fn unless_empty(
        device: DeviceType,
        set: Features,
        reasons: Vec<Reason>,
    ) -> Result<(), Self> {
        if reasons.is_empty() {
            return Ok(());
        }
        Err(Self {
            device,
            set,
            reasons,
        })
    }

    /// The type of the device.
    pub fn device(&self) -> DeviceType {
        self.device
    }

    /// The set that was refused.
    pub fn set(&self) -> Features {
        self.set
    }

    /// Everything that is wrong with the set, the missing and undefined first, then the
    /// dependencies in the order of the table.
    pub fn reasons(&self) -> &[Reason] {
        &self.reasons
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} features refused: ", self.device)?;
        for (at, reason) in self.reasons.iter().enumerate() {
            if at > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{reason}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}

//! What could be read, and what could not.

use std::fmt;

/// Something that the system says, or does not.
///
/// A tree that is damaged, or of a kernel that has other files, leaves gaps: they are told as gaps, with the reason,
/// and the rest is still told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fact<T> {
    /// This.
    Is(T),
    /// The file is not there: there is no such thing.
    Absent,
    /// It cannot be read, or makes no sense; with the reason.
    Unknown(String),
}

impl<T> Fact<T> {
    /// What it is, if that is known and there is one.
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Is(value) => Some(value),
            Self::Absent | Self::Unknown(_) => None,
        }
    }

    /// The same of something else.
    pub fn map<U>(self, to: impl FnOnce(T) -> U) -> Fact<U> {
        self.and_then(|value| Fact::Is(to(value)))
    }

    /// What `to` makes of it.
    pub fn and_then<U>(self, to: impl FnOnce(T) -> Fact<U>) -> Fact<U> {
        match self {
            Self::Is(value) => to(value),
            Self::Absent => Fact::Absent,
            Self::Unknown(why) => Fact::Unknown(why),
        }
    }

    /// The same, borrowed.
    pub fn as_ref(&self) -> Fact<&T> {
        match self {
            Self::Is(value) => Fact::Is(value),
            Self::Absent => Fact::Absent,
            Self::Unknown(why) => Fact::Unknown(why.clone()),
        }
    }
}

/// As people read it: the value, `none`, or `unknown`.
impl<T: fmt::Display> fmt::Display for Fact<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Is(value) => value.fmt(f),
            Self::Absent => f.pad("none"),
            Self::Unknown(_) => f.pad("unknown"),
        }
    }
}

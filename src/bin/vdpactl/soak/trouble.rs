//! What ends a soak before its time.

use std::error::Error;
use std::fmt;

use vdpa::core::Chain;

/// What was seen, and where.
#[derive(Debug)]
pub(crate) struct Trouble(String);

impl Trouble {
    /// This was seen.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }

    /// The same, with where it was.
    pub(crate) fn at(self, place: &str) -> Self {
        Self(format!("{}, {place}", self.0))
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a driver or device fails with is trouble, with everything that it says.
impl<E: Error> From<E> for Trouble {
    fn from(error: E) -> Self {
        Self(Chain(&error).to_string())
    }
}

//! A device is named by a string: `PARENT:WHAT[,key=value...]`.
//!
//! ```text
//! sim:net,mac=52:54:00:00:00:01,queue_pairs=4,port=tap:tap0
//! \_/ \_/ \_/ \_______________/
//!  |   |   |          value: up to the next comma, may hold `:` and `=`
//!  |   |   key: up to the first `=`
//!  |   what: up to the first comma, may hold `:` (vfio:0000:01:00.1)
//!  parent: up to the first `:`
//! ```
//!
//! There is no quoting: neither WHAT nor a value can hold a comma. No key comes twice.
//!
//! The string is taken apart once, by [`DeviceSpec::parse`]. A parent then reads its keys by type
//! through [`Keys`], and what it did not ask for is an error. Each error knows the part of the
//! string it is about, so that [`SpecError::render`] can point at it.
//!
//! ```
//! use vdpa_core::spec::DeviceSpec;
//! use vdpa_core::config::Mac;
//!
//! # fn main() -> Result<(), vdpa_core::spec::SpecError> {
//! let spec = DeviceSpec::parse("sim:net,mac=52:54:00:00:00:01,queue_size=65537")?;
//! let mut keys = spec.keys();
//! let mac: Option<Mac> = keys.take("mac")?;
//! assert!(mac.is_some());
//!
//! let error = keys.take_in("queue_size", 1..=32768u16).unwrap_err();
//! assert_eq!(
//!     error.render(),
//!     "sim:net,mac=52:54:00:00:00:01,queue_size=65537\n\
//!      \x20                                        ^^^^^ queue_size 65537 is out of range: 1..=32768\n"
//! );
//! # Ok(())
//! # }
//! ```

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

mod error;
mod keys;
mod list;
mod nearest;
mod value;

use crate::faults::Plan;

pub use error::{Problem, SpecError};
pub use keys::Keys;
pub use value::{FromValue, Value};

/// A device string, taken apart.
///
/// What it means is not known yet: whether the parent exists, and which keys it takes, is for the
/// registry and the parent to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceSpec {
    text: String,
    parent: Range<usize>,
    what: Range<usize>,
    pairs: Vec<Pair>,
    faults: Option<Plan>,
}

/// One `key=value`, as byte ranges of the whole string.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pair {
    key: Range<usize>,
    value: Range<usize>,
}

impl DeviceSpec {
    /// Takes a device string apart.
    ///
    /// # Errors
    /// [`SpecError`]: no `:`, an empty parent or WHAT, a key without a name or without `=`, a key
    /// that comes twice.
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        let fail = |span, problem| Err(SpecError::new(text, span, problem));
        let Some(colon) = text
            .find([':', ','])
            .filter(|&at| text[at..].starts_with(':'))
        else {
            let end = text.find(',').unwrap_or(text.len());
            return fail(0..end, Problem::NoColon);
        };
        let mut spec = Self {
            text: text.into(),
            parent: 0..colon,
            what: colon + 1..text.len(),
            pairs: Vec::new(),
            faults: None,
        };
        if colon == 0 {
            return fail(0..0, Problem::NoParent);
        }
        // Where the parts between the commas begin and end.
        let mut at = spec.what.start;
        let mut parts = text[at..].split(',').map(|part| {
            let span = at..at + part.len();
            at = span.end + 1;
            span
        });
        spec.what = parts.next().unwrap_or(spec.what);
        if spec.what.is_empty() {
            let parent = spec.parent().into();
            return fail(spec.what, Problem::NoWhat { parent });
        }
        for span in parts {
            let part = &text[span.clone()];
            let (key, value) = match part.find('=') {
                Some(0) => return fail(span, Problem::NoKey),
                Some(equals) => (
                    span.start..span.start + equals,
                    span.start + equals + 1..span.end,
                ),
                None if part.is_empty() => return fail(span, Problem::NoKey),
                None => return fail(span, Problem::NoValue { key: part.into() }),
            };
            let name = &text[key.clone()];
            if spec.pair(name).is_some() {
                return fail(key, Problem::DuplicateKey { key: name.into() });
            }
            spec.pairs.push(Pair { key, value });
        }
        Ok(spec)
    }

    /// The part before the first `:`, which names who makes the device.
    pub fn parent(&self) -> &str {
        &self.text[self.parent.clone()]
    }

    /// The part between the first `:` and the first comma: what to make, or which to open.
    pub fn what(&self) -> &str {
        &self.text[self.what.clone()]
    }

    /// The whole string as it was given.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// All keys and values in the order they were given.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs
            .iter()
            .map(|pair| (&self.text[pair.key.clone()], &self.text[pair.value.clone()]))
    }

    /// The value of a key, if it was given.
    pub fn value(&self, key: &str) -> Option<Value<'_>> {
        let pair = self.pair(key)?;
        let name = &self.text[pair.key.clone()];
        Some(Value::new(&self.text, name, pair.value.clone()))
    }

    /// The same without these keys, which somebody else reads. The text stays whole, so that errors point into it.
    #[must_use]
    pub fn without(mut self, keys: &[&str]) -> Self {
        let text = &self.text;
        self.pairs
            .retain(|pair| !keys.contains(&&text[pair.key.clone()]));
        self
    }

    /// The same with a note at the end of its text, for whoever uses the text again: a value that was chosen where none
    /// was given. It is no key of this one any more.
    #[must_use]
    pub fn noted(mut self, key: &str, value: &dyn fmt::Display) -> Self {
        self.text.push_str(&format!(",{key}={value}"));
        self
    }

    /// The faults that the parent is to make by itself, of those that it [has](crate::MgmtDevice::faults).
    pub fn faults(&self) -> Option<&Plan> {
        self.faults.as_ref()
    }

    /// The same with such faults.
    #[must_use]
    pub fn with_faults(mut self, faults: Plan) -> Self {
        self.faults = Some(faults);
        self
    }

    /// A reader over the keys, for the parent that knows them.
    pub fn keys(&self) -> Keys<'_> {
        Keys::new(self)
    }

    /// WHAT as a [`Value`], for a parent that finds something wrong in it.
    pub fn what_value(&self) -> Value<'_> {
        Value::new(&self.text, "WHAT", self.what.clone())
    }

    /// The error for a key that has no meaning beside the others, or without another.
    pub fn unused(&self, key: &str) -> SpecError {
        let span = self.pair(key).map_or(0..0, |pair| pair.key.clone());
        SpecError::new(&self.text, span, Problem::UnusedKey { key: key.into() })
    }

    /// The error for a parent that nobody registered.
    pub fn unknown_parent<S: AsRef<str>>(&self, legal: impl IntoIterator<Item = S>) -> SpecError {
        let problem = Problem::UnknownParent {
            name: self.parent().into(),
            legal: error::owned(legal),
        };
        SpecError::new(&self.text, self.parent.clone(), problem)
    }

    /// The error for a WHAT that the parent does not have.
    pub fn unknown_what<S: AsRef<str>>(&self, legal: impl IntoIterator<Item = S>) -> SpecError {
        let problem = Problem::UnknownWhat {
            parent: self.parent().into(),
            name: self.what().into(),
            legal: error::owned(legal),
        };
        SpecError::new(&self.text, self.what.clone(), problem)
    }

    fn pair(&self, key: &str) -> Option<&Pair> {
        self.pairs
            .iter()
            .find(|pair| &self.text[pair.key.clone()] == key)
    }
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for DeviceSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests;

//! A value of a device string, and what it can be read as.

use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;

use super::{Problem, SpecError, error};
use crate::config::Mac;

/// A value, or a part of one, that knows where in the device string it stands.
///
/// Parents with values of their own kind (`port=pcap:IN[:OUT]`) split it and report against the
/// part that is wrong.
#[derive(Clone, Debug)]
pub struct Value<'s> {
    whole: &'s str,
    key: &'s str,
    span: Range<usize>,
}

impl<'s> Value<'s> {
    /// `span` is a range of `whole` on character boundaries.
    pub(super) fn new(whole: &'s str, key: &'s str, span: Range<usize>) -> Self {
        Self { whole, key, span }
    }

    /// The text.
    pub fn text(&self) -> &'s str {
        self.whole.get(self.span.clone()).unwrap_or_default()
    }

    /// The key it belongs to.
    pub fn key(&self) -> &'s str {
        self.key
    }

    /// The bytes of the device string that it takes up.
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// The part of the value at these bytes of its text; the empty end of it where there are none.
    #[must_use]
    pub fn part(&self, at: Range<usize>) -> Self {
        let whole = self.text();
        let span = match whole.get(at.clone()) {
            Some(_) => self.span.start + at.start..self.span.start + at.end,
            None => self.span.end..self.span.end,
        };
        Self::new(self.whole, self.key, span)
    }

    /// What is before and after the first `separator`; all and nothing if there is none.
    #[must_use]
    pub fn split(&self, separator: char) -> (Self, Option<Self>) {
        match self.text().find(separator) {
            Some(at) => {
                let after = at + separator.len_utf8();
                (self.part(0..at), Some(self.part(after..self.text().len())))
            }
            None => (self.clone(), None),
        }
    }

    fn error(&self, problem: Problem) -> SpecError {
        SpecError::new(self.whole, self.span.clone(), problem)
    }

    pub(super) fn refused(&self, refusal: crate::graph::Refusal) -> SpecError {
        self.error(Problem::Features { refusal })
    }

    /// The error that it is not what was expected: `a MAC address (52:54:00:00:00:01)`.
    pub fn malformed(&self, expected: impl Into<String>) -> SpecError {
        self.error(Problem::Malformed {
            key: self.key.into(),
            given: self.text().into(),
            expected: expected.into(),
        })
    }

    /// The error that it is none of these names.
    pub fn unknown<S: AsRef<str>>(&self, legal: impl IntoIterator<Item = S>) -> SpecError {
        self.error(Problem::UnknownName {
            key: self.key.into(),
            given: self.text().into(),
            legal: error::owned(legal),
        })
    }

    /// The error that the number is not in its range.
    pub fn out_of_range<T: fmt::Display>(&self, range: &RangeInclusive<T>) -> SpecError {
        self.error(Problem::OutOfRange {
            key: self.key.into(),
            given: self.text().into(),
            least: range.start().to_string(),
            most: range.end().to_string(),
        })
    }

    /// A whole number, decimal or hexadecimal (`0x10`), in this range.
    ///
    /// # Errors
    /// [`SpecError`]: no number, or out of the range, however large it is.
    pub fn integer<T>(&self, range: RangeInclusive<T>) -> Result<T, SpecError>
    where
        T: TryFrom<u64> + PartialOrd + fmt::Display,
    {
        let text = self.text();
        let (digits, radix) = match text.strip_prefix("0x").or(text.strip_prefix("0X")) {
            Some(digits) => (digits, 16),
            None => (text, 10),
        };
        let unsigned = digits.strip_prefix('-').unwrap_or(digits);
        if unsigned.is_empty() || !unsigned.chars().all(|digit| digit.is_digit(radix)) {
            return Err(self.malformed("a whole number"));
        }
        // All digits, so that what does not fit, or is below zero, is merely out of range.
        u64::from_str_radix(digits, radix)
            .ok()
            .and_then(|number| T::try_from(number).ok())
            .filter(|number| range.contains(number))
            .ok_or_else(|| self.out_of_range(&range))
    }

    /// A size in bytes in this range: a whole number with `K`, `M`, `G` or `T` for powers of
    /// 1024, in any case, `KiB` and so on too.
    ///
    /// # Errors
    /// [`SpecError`]: no size, or out of the range.
    pub fn size(&self, range: RangeInclusive<u64>) -> Result<u64, SpecError> {
        let malformed = || self.malformed("a size (4096, 64K, 16M, 1G)");
        let text = self.text();
        let end = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (digits, unit) = text.split_at(end);
        let shift = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kib" => 10,
            "m" | "mib" => 20,
            "g" | "gib" => 30,
            "t" | "tib" => 40,
            _ => return Err(malformed()),
        };
        if digits.is_empty() {
            return Err(malformed());
        }
        digits
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(1 << shift))
            .filter(|size| range.contains(size))
            .ok_or_else(|| self.out_of_range(&range))
    }

    /// The value that this name stands for.
    ///
    /// # Errors
    /// [`SpecError`] with all names.
    pub fn one_of<T: Clone>(&self, names: &[(&str, T)]) -> Result<T, SpecError> {
        names
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(self.text()))
            .map(|(_, value)| value.clone())
            .ok_or_else(|| self.unknown(names.iter().map(|(name, _)| name)))
    }
}

/// What a value can be read as without further limits; see [`super::Keys::take`].
pub trait FromValue: Sized {
    /// Reads the value.
    ///
    /// # Errors
    /// [`SpecError`] with what was expected.
    fn from_value(value: &Value<'_>) -> Result<Self, SpecError>;
}

macro_rules! integers {
    ($($int:ty),*) => {$(
        impl FromValue for $int {
            fn from_value(value: &Value<'_>) -> Result<Self, SpecError> {
                value.integer(<$int>::MIN..=<$int>::MAX)
            }
        }
    )*};
}
integers!(u8, u16, u32, u64, usize);

impl FromValue for bool {
    /// `on`, `yes`, `true` or `1`; `off`, `no`, `false` or `0`; in any case.
    fn from_value(value: &Value<'_>) -> Result<Self, SpecError> {
        match value.text().to_ascii_lowercase().as_str() {
            "on" | "yes" | "true" | "1" => Ok(true),
            "off" | "no" | "false" | "0" => Ok(false),
            _ => Err(value.malformed("`on` or `off`")),
        }
    }
}

impl FromValue for Mac {
    fn from_value(value: &Value<'_>) -> Result<Self, SpecError> {
        value
            .text()
            .parse()
            .map_err(|_| value.malformed("a MAC address (52:54:00:00:00:01)"))
    }
}

impl FromValue for String {
    /// Any text but the empty one.
    fn from_value(value: &Value<'_>) -> Result<Self, SpecError> {
        match value.text() {
            "" => Err(value.malformed("a name: nothing stands after the `=`")),
            text => Ok(text.into()),
        }
    }
}

impl FromValue for PathBuf {
    /// Any text but the empty one; whether the file exists is not looked at.
    fn from_value(value: &Value<'_>) -> Result<Self, SpecError> {
        match value.text() {
            "" => Err(value.malformed("a path: nothing stands after the `=`")),
            text => Ok(text.into()),
        }
    }
}

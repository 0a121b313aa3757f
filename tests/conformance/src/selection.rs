//! Which statements are tried, and how hard.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use crate::statement;

/// How hard a statement is tried.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Effort {
    /// Every statement once, in one ring variant, with short loops: for slow machines.
    Quick,
    /// In each ring variant that the device offers.
    #[default]
    Full,
}

/// Numbers of statements, as in `93-109,151`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ids(Vec<RangeInclusive<u16>>);

/// Which statements are tried, and how hard.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Selection {
    /// How hard.
    pub effort: Effort,
    /// Only these; `None`: all.
    pub only: Option<Ids>,
    /// Nothing more is tried after the first failure.
    pub fail_fast: bool,
    /// How long something that has to happen may take; `None`: 5 seconds, 20 with [`Effort::Quick`].
    pub patience: Option<Duration>,
}

impl Selection {
    /// Every statement, as hard as this.
    pub const fn all(effort: Effort) -> Self {
        Self {
            effort,
            only: None,
            fail_fast: false,
            patience: None,
        }
    }

    /// Only these, in full.
    pub const fn only(ids: Ids) -> Self {
        Self {
            effort: Effort::Full,
            only: Some(ids),
            fail_fast: false,
            patience: None,
        }
    }

    /// Whether statement `id` is tried.
    pub fn contains(&self, id: u16) -> bool {
        self.only.as_ref().is_none_or(|ids| ids.contains(id))
    }
}

impl Ids {
    /// Just this one.
    pub fn one(id: u16) -> Self {
        Self(vec![id..=id])
    }

    /// Whether it is among them.
    pub fn contains(&self, id: u16) -> bool {
        self.0.iter().any(|range| range.contains(&id))
    }
}

impl FromIterator<u16> for Ids {
    fn from_iter<I: IntoIterator<Item = u16>>(ids: I) -> Self {
        Self(ids.into_iter().map(|id| id..=id).collect())
    }
}

impl fmt::Display for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, range) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            match (range.start(), range.end()) {
                (first, last) if first == last => write!(f, "{first}")?,
                (first, last) => write!(f, "{first}-{last}")?,
            }
        }
        Ok(())
    }
}

/// Text that names no statements.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnknownIds {
    part: String,
    last: u16,
}

impl fmt::Display for UnknownIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` names no statements: numbers and ranges from 1 to {}, as in 93-109,151",
            self.part, self.last
        )
    }
}

impl std::error::Error for UnknownIds {}

impl FromStr for Ids {
    type Err = UnknownIds;

    fn from_str(text: &str) -> Result<Self, UnknownIds> {
        let last = statement::LAST;
        let range = |part: &str| {
            let (first, end) = part.split_once('-').unwrap_or((part, part));
            let number = |text: &str| text.trim().parse::<u16>().ok();
            let range = number(first)?..=number(end)?;
            (!range.is_empty() && *range.start() >= 1 && *range.end() <= last).then_some(range)
        };
        let parts = text.split(',').map(|part| {
            range(part).ok_or_else(|| UnknownIds {
                part: part.to_owned(),
                last,
            })
        });
        parts.collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_numbers_and_ranges() {
        let ids: Ids = "93-109,151".parse().unwrap();
        assert!(ids.contains(93) && ids.contains(109) && ids.contains(151));
        assert!(!ids.contains(92) && !ids.contains(110) && !ids.contains(150));
        assert_eq!(ids.to_string(), "93-109,151");
    }

    #[test]
    fn what_names_no_statement_is_pointed_at() {
        for (text, part) in [
            ("", ""),
            ("0", "0"),
            ("3,9-4", "9-4"),
            ("212", "212"),
            ("1,x-2", "x-2"),
            ("1,,2", ""),
        ] {
            let error = text.parse::<Ids>().unwrap_err();
            assert_eq!(error.part, part);
            assert!(error.to_string().contains("1 to 211"));
        }
    }
}

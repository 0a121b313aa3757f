//! What came of it.

use std::fmt;
use std::time::Duration;

use crate::{Effort, Statement, Variant};

/// What came of a run: at least one row for each statement that was selected.
#[derive(Debug)]
pub struct Report {
    /// The target's name.
    pub target: String,
    /// How hard it was tried.
    pub effort: Effort,
    /// In order of the statements' numbers.
    pub rows: Vec<Row>,
    /// How long it took.
    pub elapsed: Duration,
}

/// What came of one statement in one ring variant.
#[derive(Debug)]
pub struct Row {
    /// What was asked.
    pub statement: &'static Statement,
    /// In which ring variant; `None` where it does not depend on one.
    pub variant: Option<Variant>,
    /// What came of it.
    pub outcome: Outcome,
    /// How long it took.
    pub elapsed: Duration,
}

/// What came of a statement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It is kept.
    Passed,
    /// It is not kept.
    Failed {
        /// What was seen.
        seen: String,
    },
    /// It does not apply. Never a pass.
    Skipped {
        /// Why.
        reason: String,
    },
    /// It is not kept, as the target said beforehand.
    Excepted {
        /// What was seen.
        seen: String,
        /// What the target said.
        reason: String,
    },
}

impl Outcome {
    /// The word for it.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed { .. } => "failed",
            Self::Skipped { .. } => "skipped",
            Self::Excepted { .. } => "excepted",
        }
    }

    /// What was seen, or why it was skipped; empty where there is nothing to say.
    pub fn reason(&self) -> &str {
        match self {
            Self::Passed => "",
            Self::Failed { seen } => seen,
            Self::Skipped { reason } | Self::Excepted { reason, .. } => reason,
        }
    }
}

impl Report {
    /// Rows that passed.
    pub fn passed(&self) -> usize {
        self.count("passed")
    }

    /// Rows that failed.
    pub fn failed(&self) -> usize {
        self.count("failed")
    }

    /// Rows that were skipped.
    pub fn skipped(&self) -> usize {
        self.count("skipped")
    }

    /// Rows that failed as was said beforehand.
    pub fn excepted(&self) -> usize {
        self.count("excepted")
    }

    /// The rows that failed.
    pub fn failures(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.is_failure())
    }

    fn count(&self, word: &str) -> usize {
        let of = |row: &&Row| row.outcome.word() == word;
        self.rows.iter().filter(of).count()
    }
}

impl Row {
    /// Whether it failed.
    pub fn is_failure(&self) -> bool {
        matches!(self.outcome, Outcome::Failed { .. })
    }

    /// The variant's name; `-` where it does not depend on one.
    pub fn variant_name(&self) -> String {
        self.variant
            .map_or_else(|| "-".to_owned(), |v| v.to_string())
    }
}

/// The failures, then the counts.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in self.failures() {
            writeln!(f, "{row}")?;
        }
        write!(
            f,
            "{}: {} passed, {} failed, {} skipped, {} excepted",
            self.target,
            self.passed(),
            self.failed(),
            self.skipped(),
            self.excepted()
        )
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Statement { id, kind, text, .. } = self.statement;
        write!(f, "{} {id} {}", self.outcome.word(), kind.letter())?;
        if let Some(variant) = self.variant {
            write!(f, " [{variant}]")?;
        }
        write!(f, " {} asks: {text}", self.statement.citation())?;
        match self.outcome.reason() {
            "" => Ok(()),
            why => write!(f, " Seen: {why}"),
        }
    }
}

//! What is wrong with a device string, where, and what would be legal.

use std::fmt;
use std::ops::Range;

use super::nearest;
use crate::graph::Refusal;

/// What is wrong with a part of a device string.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// There is no `:` before the first comma.
    #[error("a device is named PARENT:WHAT[,key=value...], and there is no `:` here")]
    NoColon,
    /// Nothing before the `:`.
    #[error("the parent before the `:` is missing")]
    NoParent,
    /// Nothing after the `:`.
    #[error("what to open is missing after `{parent}:`")]
    NoWhat {
        /// The parent that was named.
        parent: String,
    },
    /// No such parent.
    #[error("no parent is called `{name}`{}", if legal.is_empty() { ": there are none, since each is a cargo feature" } else { "" })]
    UnknownParent {
        /// The name as it was given.
        name: String,
        /// The parents there are.
        legal: Vec<String>,
    },
    /// The parent makes nothing of this name.
    #[error("`{parent}` has no `{name}`")]
    UnknownWhat {
        /// The parent.
        parent: String,
        /// The name as it was given.
        name: String,
        /// What the parent has.
        legal: Vec<String>,
    },
    /// Two commas in a row, a comma at the end, or `=` without a key.
    #[error("a key is missing: write key=value after each comma")]
    NoKey,
    /// A key without `=`.
    #[error("`{key}` has no value: write {key}=...")]
    NoValue {
        /// The key.
        key: String,
    },
    /// A key for the second time.
    #[error("`{key}` is given twice")]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// A key that the parent does not have.
    #[error("there is no key `{key}`")]
    UnknownKey {
        /// The key as it was given.
        key: String,
        /// The keys there are.
        legal: Vec<String>,
    },
    /// A key that the parent has, but not together with the others that were given.
    #[error("`{key}` has no meaning here")]
    UnusedKey {
        /// The key.
        key: String,
    },
    /// A number outside its range.
    #[error("{key} {given} is out of range: {least}..={most}")]
    OutOfRange {
        /// The key.
        key: String,
        /// The value as it was given.
        given: String,
        /// The least value allowed.
        least: String,
        /// The greatest value allowed.
        most: String,
    },
    /// A value that cannot be read as what it should be.
    #[error("{key} `{given}` is not {expected}")]
    Malformed {
        /// The key.
        key: String,
        /// The value as it was given.
        given: String,
        /// What was expected, with an example: `a size (4096, 64K, 1G)`.
        expected: String,
    },
    /// A name that is none of the legal ones.
    #[error("{key} has no `{given}`")]
    UnknownName {
        /// The key.
        key: String,
        /// The name as it was given.
        given: String,
        /// The names there are.
        legal: Vec<String>,
    },
    /// A list of features that no device may have.
    #[error("{refusal}")]
    Features {
        /// Why not.
        refusal: Refusal,
    },
}

impl Problem {
    /// The names that would have been legal, where there is such a list.
    pub fn legal(&self) -> &[String] {
        match self {
            Self::UnknownParent { legal, .. }
            | Self::UnknownWhat { legal, .. }
            | Self::UnknownKey { legal, .. }
            | Self::UnknownName { legal, .. } => legal,
            _ => &[],
        }
    }

    /// The legal name that was probably meant.
    pub fn suggestion(&self) -> Option<&str> {
        let (Self::UnknownParent { name: given, .. }
        | Self::UnknownWhat { name: given, .. }
        | Self::UnknownKey { key: given, .. }
        | Self::UnknownName { given, .. }) = self
        else {
            return None;
        };
        nearest::nearest(given, self.legal())
    }

    fn legal_label(&self) -> &'static str {
        match self {
            Self::UnknownParent { .. } => "parents",
            Self::UnknownKey { .. } => "keys",
            _ => "legal",
        }
    }
}

/// A device string that can't be used: the whole of it, the part at fault, and why.
///
/// `Display` is one line; [`SpecError::render`] is for a terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecError(Box<Inner>);

/// Boxed, since an error rides in every `Result` and this one is large.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Inner {
    text: String,
    span: Range<usize>,
    problem: Problem,
}

impl SpecError {
    pub(super) fn new(text: &str, span: Range<usize>, problem: Problem) -> Self {
        Self(Box::new(Inner {
            text: text.into(),
            span,
            problem,
        }))
    }

    /// The same, where these keys are legal as well.
    #[must_use]
    pub(crate) fn with_keys<'k>(mut self, more: impl IntoIterator<Item = &'k str>) -> Self {
        if let Problem::UnknownKey { legal, .. } = &mut self.0.problem {
            // A device in a device string has been told of them before.
            let mut more = owned(more);
            more.retain(|key| !legal.contains(key));
            legal.extend(more);
        }
        self
    }

    /// The whole device string.
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// The part at fault, as a range of bytes of [`SpecError::text`]; empty where something is
    /// missing.
    pub fn span(&self) -> Range<usize> {
        self.0.span.clone()
    }

    /// The part at fault.
    pub fn part(&self) -> &str {
        self.0.text.get(self.span()).unwrap_or_default()
    }

    /// What is wrong.
    pub fn problem(&self) -> &Problem {
        &self.0.problem
    }

    /// Several lines for a terminal, each with its line end: the string, a caret under the part
    /// at fault with what is wrong, the probable meaning, and what is legal.
    pub fn render(&self) -> String {
        let Inner {
            text,
            span,
            problem,
        } = &*self.0;
        // Control characters are shown escaped, so that the columns below stay true.
        let before = escaped(text.get(..span.start).unwrap_or_default());
        let part = escaped(self.part());
        let after = escaped(text.get(span.end..).unwrap_or_default());
        let indent = " ".repeat(before.chars().count());
        let carets = "^".repeat(part.chars().count().max(1));
        let mut lines = format!("{before}{part}{after}\n{indent}{carets} {problem}\n");
        if let Some(meant) = problem.suggestion() {
            lines += &format!("did you mean `{meant}`?\n");
        }
        if !problem.legal().is_empty() {
            let label = problem.legal_label();
            lines += &format!("{label}: {}\n", problem.legal().join(", "));
        }
        lines
    }
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let problem = &self.0.problem;
        let mut line = format!("device `{}`: {problem}", self.0.text);
        if let Some(meant) = problem.suggestion() {
            line += &format!("; did you mean `{meant}`?");
        }
        if !problem.legal().is_empty() {
            line += &format!(
                " ({}: {})",
                problem.legal_label(),
                problem.legal().join(", ")
            );
        }
        f.write_str(&escaped(&line))
    }
}

impl std::error::Error for SpecError {}

/// The text with control characters escaped: one line, whatever was in the string.
fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

pub(super) fn owned<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Vec<String> {
    names.into_iter().map(|name| name.as_ref().into()).collect()
}

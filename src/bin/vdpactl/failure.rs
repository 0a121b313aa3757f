//! How a command ends, and with which exit code.

use std::fmt;
use std::process::ExitCode;

use vdpa::blk::BlkError;
use vdpa::core::ErrorKind;
use vdpa::core::SpecError;
use vdpa::net::NetError;

/// How a command that ran to its end judged what it saw.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// All well: exit 0.
    Well,
    /// It found a difference: exit 1.
    Differs,
}

impl Verdict {
    /// [`Verdict::Well`] if so.
    pub(crate) fn well_if(well: bool) -> Self {
        if well { Self::Well } else { Self::Differs }
    }
}

impl From<Verdict> for ExitCode {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Well => Self::SUCCESS,
            Verdict::Differs => Self::from(1),
        }
    }
}

/// A command that did not run to its end.
pub(crate) enum Failure {
    /// What it was given is wrong, and nothing was done: exit 2.
    Input(anyhow::Error),
    /// It ran, and failed on the way: exit 1.
    Ran(anyhow::Error),
}

impl Failure {
    /// What was given is wrong.
    pub(crate) fn input(error: impl Into<anyhow::Error>) -> Self {
        Self::Input(error.into())
    }

    /// It failed on the way.
    pub(crate) fn ran(error: impl Into<anyhow::Error>) -> Self {
        Self::Ran(error.into())
    }

    /// A network driver could not be set up: see [`disk`](Self::disk).
    pub(crate) fn setup(error: NetError) -> Self {
        Self::of(error.kind(), error)
    }

    /// A block driver could not be set up: bad input if the device cannot do what was asked for, a failure if it
    /// failed.
    pub(crate) fn disk(error: BlkError) -> Self {
        Self::of(error.kind(), error)
    }

    /// Bad input, if what was asked for is wrong or cannot be had; else a failure.
    pub(crate) fn of(kind: ErrorKind, error: impl Into<anyhow::Error>) -> Self {
        match kind {
            ErrorKind::Misuse | ErrorKind::Unsupported => Self::input(error),
            _ => Self::ran(error),
        }
    }

    fn error(&self) -> &anyhow::Error {
        let (Self::Input(error) | Self::Ran(error)) = self;
        error
    }
}

/// What fails without further notice failed while it ran.
impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Ran(error.into())
    }
}

impl From<Failure> for ExitCode {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Ran(_) => Self::from(1),
            Failure::Input(_) => Self::from(2),
        }
    }
}

/// The error and its sources in one line; below it, the part of a device string that it is about.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = self.error();
        write!(f, "{error:#}")?;
        match spec_error(error) {
            Some(spec) => pointed_at(spec, f),
            None => Ok(()),
        }
    }
}

/// What is wrong with the device string, if that is it.
fn spec_error(error: &anyhow::Error) -> Option<&SpecError> {
    error.chain().find_map(|error| match error.downcast_ref() {
        // It is transparent: what is inside is not among its sources.
        Some(vdpa::Error::Spec(spec)) => Some(spec),
        _ => error.downcast_ref(),
    })
}

/// The first two lines of the error's picture: the string, and carets, without the words that the error says anyway.
fn pointed_at(spec: &SpecError, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let picture = spec.render();
    let mut lines = picture.lines();
    let (string, carets) = (lines.next(), lines.next());
    let carets = carets.unwrap_or_default();
    let end = carets.find("^ ").map_or(carets.len(), |at| at + 1);
    write!(
        f,
        "\n  {}\n  {}",
        string.unwrap_or_default(),
        &carets[..end]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_told_in_the_same_line() {
        let error = anyhow::anyhow!("no such file").context("in.pcap: cannot be opened");
        let failure = Failure::input(error);
        assert_eq!(
            failure.to_string(),
            "in.pcap: cannot be opened: no such file"
        );
    }
}

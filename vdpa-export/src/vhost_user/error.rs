//! Why a server cannot go on, and why a front end is cut off.

use std::io;
use std::path::PathBuf;

use vdpa_core::{ErrorKind, ParentError};

/// Why a server could not begin, or had to end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// Somebody listens there.
    #[error("{}: another process listens there: choose another path, or end it", path.display())]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// There is something else than a socket.
    #[error("{}: there is something there, and it is not a socket: choose another path", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// A path that no unix socket can have.
    #[error("{}: {len} bytes are too long for the path of a socket: {most} is the most", path.display())]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        len: usize,
        /// The longest.
        most: usize,
    },
    /// The system does not give a socket there.
    #[error("{}: cannot {what}", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A descriptor that was handed in, and is not what it was said to be.
    #[error("the descriptor that was handed in is not {need}")]
    Descriptor {
        /// What it has to be.
        need: &'static str,
    },
    /// The system does not do what the server needs.
    #[error("cannot {what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The device cannot be served, or is lost.
    #[error(transparent)]
    Device(#[from] vdpa_core::Error),
}

impl ServerError {
    pub(super) fn system(what: &'static str) -> impl Fn(nix::Error) -> Self {
        move |errno| Self::System {
            what,
            source: errno.into(),
        }
    }

    /// Whose fault it is, and what can be done about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::InUse { .. } => ErrorKind::Busy,
            Self::NotASocket { .. } | Self::TooLong { .. } | Self::Descriptor { .. } => {
                ErrorKind::Misuse
            }
            Self::Path { .. } | Self::System { .. } => ErrorKind::Io,
            Self::Device(error) => error.kind(),
        }
    }
}

impl ParentError for ServerError {
    fn kind(&self) -> ErrorKind {
        self.kind()
    }
}

/// Why a front end was cut off.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CutOff {
    /// The device refuses what was asked of it.
    #[error("{request}")]
    Device {
        /// The request.
        request: &'static str,
        /// Why.
        source: vdpa_core::Error,
    },
}

impl CutOff {
    /// Whose fault it is, and what can be done about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Device { source, .. } => source.kind(),
        }
    }
}

impl ParentError for CutOff {
    fn kind(&self) -> ErrorKind {
        self.kind()
    }
}

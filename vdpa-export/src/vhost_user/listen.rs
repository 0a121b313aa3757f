//! Where front ends come from.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use super::Admission;

/// Where a server meets its front ends.
#[derive(Debug)]
#[non_exhaustive]
pub enum Listen {
    /// It makes the socket, and front ends connect to it, one after the other. A socket that nobody listens on any more is
    /// replaced. It is removed when the server ends.
    Bind {
        /// Where.
        path: PathBuf,
        /// Who may connect.
        admission: Admission,
    },
    /// The front end made the socket and the server connects to it, again whenever the connection ends: QEMU's
    /// `server=on`, DPDK's and OVS's `dpdkvhostuserclient` turned round.
    Connect {
        /// Where.
        path: PathBuf,
        /// How long it waits before it tries again.
        every: Duration,
    },
    /// A socket that somebody else listens on for us, as systemd does.
    Listener(OwnedFd),
    /// A connection that is there already. The server ends with it.
    Stream(OwnedFd),
}

impl Listen {
    /// How long a client waits before it tries again, unless told.
    pub const AGAIN: Duration = Duration::from_secs(1);

    /// A socket at `path` that front ends connect to.
    pub fn bind(path: impl Into<PathBuf>) -> Self {
        let (path, admission) = (path.into(), Admission::default());
        Self::Bind { path, admission }
    }

    /// A front end that listens at `path`.
    pub fn connect(path: impl Into<PathBuf>) -> Self {
        let (path, every) = (path.into(), Self::AGAIN);
        Self::Connect { path, every }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind { path, .. } => write!(f, "{}", path.display()),
            Self::Connect { path, .. } => write!(f, "the front end at {}", path.display()),
            Self::Listener(_) => f.write_str("a socket that was handed in"),
            Self::Stream(_) => f.write_str("a connection that was handed in"),
        }
    }
}

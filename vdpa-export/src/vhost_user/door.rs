//! The place where front ends come in.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::sockopt::{AcceptConn, PeerCredentials};
use nix::sys::socket::{UnixAddr, getpeername, getsockname, getsockopt};

use super::place::{self, Made, Place};
use super::{Listen, Peer, ServerError};

/// A place to come in, open.
pub(super) enum Door {
    /// Front ends connect.
    Listener {
        listener: UnixListener,
        /// Removed with it.
        _made: Option<Made>,
    },
    /// We connect to the front end.
    Client { path: PathBuf, every: Duration },
    /// Somebody connected us; `None` once it was served.
    Stream(Option<UnixStream>),
}

impl Door {
    /// Opens it.
    ///
    /// # Errors
    /// When the socket cannot be had.
    pub(super) fn open(listen: Listen) -> Result<Self, ServerError> {
        match listen {
            Listen::Bind { path, admission } => {
                let (listener, made) = Place::find(path)?.listen(&admission)?;
                Self::listening(listener, Some(made))
            }
            Listen::Connect { path, every } => {
                place::can_connect(&path)?;
                Ok(Self::Client { path, every })
            }
            Listen::Listener(fd) => {
                let is_local = getsockname::<UnixAddr>(fd.as_raw_fd()).is_ok();
                if !is_local || !getsockopt(&fd, AcceptConn).unwrap_or(false) {
                    let need = "a unix socket that is listened on";
                    return Err(ServerError::Descriptor { need });
                }
                Self::listening(fd.into(), None)
            }
            Listen::Stream(fd) => {
                if getpeername::<UnixAddr>(fd.as_raw_fd()).is_err() {
                    let need = "a unix socket that is connected";
                    return Err(ServerError::Descriptor { need });
                }
                Ok(Self::Stream(Some(fd.into())))
            }
        }
    }

    fn listening(listener: UnixListener, made: Option<Made>) -> Result<Self, ServerError> {
        // Who knocked and left before he was let in holds nobody up.
        let set = listener.set_nonblocking(true);
        let what = "make a socket non-blocking";
        set.map_err(|source| ServerError::System { what, source })?;
        Ok(Self::Listener {
            listener,
            _made: made,
        })
    }

    /// Readable when somebody is there; `None` where nobody comes by himself.
    pub(super) fn bell(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Listener { listener, .. } => Some(listener.as_fd()),
            Self::Client { .. } | Self::Stream(_) => None,
        }
    }

    /// How long to wait before looking again where nobody rings.
    pub(super) fn again(&self) -> Option<Duration> {
        match self {
            Self::Client { every, .. } => Some(*every),
            Self::Listener { .. } | Self::Stream(_) => None,
        }
    }

    /// Whether nobody will come any more.
    pub(super) fn is_closed(&self) -> bool {
        matches!(self, Self::Stream(None))
    }

    /// The front end that is there, if one is.
    ///
    /// # Errors
    /// What the system said. Of a [client](Self::Client) that is how it is when nobody is there, or nobody takes it in.
    pub(super) fn look(&mut self) -> io::Result<Option<UnixStream>> {
        match self {
            Self::Listener { listener, .. } => match listener.accept() {
                Ok((stream, _)) => Ok(Some(stream)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(None),
                Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => Ok(None),
                Err(e) => Err(e),
            },
            Self::Client { path, .. } => place::connected(path).map(Some),
            Self::Stream(stream) => Ok(stream.take()),
        }
    }
}

/// Who is at the other end.
pub(super) fn peer(stream: &UnixStream) -> Option<Peer> {
    let credentials = getsockopt(stream, PeerCredentials).ok()?;
    let (pid, uid) = (credentials.pid(), credentials.uid());
    Some(Peer { pid, uid })
}

/// Whether who is there cannot be let in for want of something that comes back: descriptors, memory.
pub(super) fn is_scarcity(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(
        errno,
        Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM)
    )
}

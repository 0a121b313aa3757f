//! The place where front ends come in.

use std::fs::Permissions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::sockopt::{AcceptConn, PeerCredentials};
use nix::sys::socket::{UnixAddr, getpeername, getsockopt};

use super::{Listen, Peer, ServerError};

/// The longest path of a socket, `sun_path` in `linux/un.h` without its end.
const LONGEST: usize = 107;

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

/// A socket that we made, removed when we end.
pub(super) struct Made {
    path: PathBuf,
    /// Device and inode, by which it is told from one that somebody else put there meanwhile.
    id: (u64, u64),
}

impl Drop for Made {
    fn drop(&mut self) {
        let ours = |meta: std::fs::Metadata| (meta.dev(), meta.ino()) == self.id;
        if std::fs::symlink_metadata(&self.path).is_ok_and(ours) {
            // Nobody is hurt by one that stays.
            let _stays = std::fs::remove_file(&self.path);
        }
    }
}

impl Door {
    /// Opens it.
    ///
    /// # Errors
    /// When the socket cannot be had.
    pub(super) fn open(listen: Listen) -> Result<Self, ServerError> {
        match listen {
            Listen::Bind { path, mode } => bind(path, mode),
            Listen::Connect { path, every } => {
                check_length(&path)?;
                Ok(Self::Client { path, every })
            }
            Listen::Listener(fd) => {
                if !getsockopt(&fd, AcceptConn).unwrap_or(false) {
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
    /// What the system said. Of a [client](Self::Client) that is how it is when nobody is there.
    pub(super) fn look(&mut self) -> io::Result<Option<UnixStream>> {
        match self {
            Self::Listener { listener, .. } => match listener.accept() {
                Ok((stream, _)) => Ok(Some(stream)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(None),
                Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => Ok(None),
                Err(e) => Err(e),
            },
            Self::Client { path, .. } => UnixStream::connect(path).map(Some),
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

fn bind(path: PathBuf, mode: Option<u32>) -> Result<Door, ServerError> {
    check_length(&path)?;
    let failed = |what: &'static str| {
        let path = path.clone();
        move |source| ServerError::Path { path, what, source }
    };
    match std::fs::symlink_metadata(&path) {
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(ServerError::NotASocket { path });
        }
        Ok(_) => {
            // One that nobody listens on refuses.
            match UnixStream::connect(&path) {
                Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(&path).map_err(failed("replace the old socket"))?;
                }
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(failed("see whether somebody listens there")(e));
                }
                _ => return Err(ServerError::InUse { path }),
            }
        }
        // What else is wrong with the path shows when it is bound.
        Err(_) => {}
    }
    let listener = UnixListener::bind(&path).map_err(failed("make the socket"))?;
    let meta = std::fs::symlink_metadata(&path).map_err(failed("examine the socket"))?;
    let made = Made {
        path: path.clone(),
        id: (meta.dev(), meta.ino()),
    };
    if let Some(mode) = mode {
        let mode = Permissions::from_mode(mode);
        std::fs::set_permissions(&path, mode).map_err(failed("set the mode of the socket"))?;
    }
    Door::listening(listener, Some(made))
}

fn check_length(path: &Path) -> Result<(), ServerError> {
    match path.as_os_str().len() {
        ..=LONGEST => Ok(()),
        len => Err(ServerError::TooLong {
            path: path.to_owned(),
            len,
            most: LONGEST,
        }),
    }
}

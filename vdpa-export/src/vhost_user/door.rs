//! The place where front ends come in.

use std::fs::Permissions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::sockopt::{AcceptConn, PeerCredentials};
use nix::sys::socket::{
    self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr, getpeername, getsockname,
    getsockopt,
};
use nix::sys::stat::{Mode, fchmod};

use super::{Listen, Peer, ServerError};

/// The longest path of a socket, `sun_path` in `linux/un.h` without its end.
const LONGEST: usize = 107;

/// How many front ends may wait to be let in.
const WAITING: i32 = 8;

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
            Self::Client { path, .. } => connect(path).map(Some),
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
    let refused = |what: &'static str| {
        let failed = failed(what);
        move |errno: Errno| failed(errno.into())
    };
    match std::fs::symlink_metadata(&path) {
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(ServerError::NotASocket { path });
        }
        Ok(_) => {
            if is_listened_at(&path).map_err(failed("see whether somebody listens there"))? {
                return Err(ServerError::InUse { path });
            }
            std::fs::remove_file(&path).map_err(failed("replace the old socket"))?;
        }
        // What else is wrong with the path shows when it is bound.
        Err(_) => {}
    }
    let what = "make the socket";
    let socket = stream().map_err(failed(what))?;
    if mode.is_some() {
        // The file has the mode that the socket has: nobody connects before it is said who may.
        let own = Mode::S_IRUSR | Mode::S_IWUSR;
        fchmod(&socket, own).map_err(refused("set the mode of the socket"))?;
    }
    let address = UnixAddr::new(&path).map_err(refused(what))?;
    socket::bind(socket.as_raw_fd(), &address).map_err(refused(what))?;
    let meta = std::fs::symlink_metadata(&path).map_err(failed("examine the socket"))?;
    // From here on it is removed, whatever comes.
    let made = Made {
        path: path.clone(),
        id: (meta.dev(), meta.ino()),
    };
    if let Some(mode) = mode {
        let mode = Permissions::from_mode(mode);
        std::fs::set_permissions(&path, mode).map_err(failed("set the mode of the socket"))?;
    }
    let waiting = Backlog::new(WAITING).map_err(refused(what))?;
    socket::listen(&socket, waiting).map_err(refused("listen on the socket"))?;
    Door::listening(socket.into(), Some(made))
}

/// A socket that does not block.
fn stream() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    Ok(socket)
}

/// Connects, if that can be done at once: who listens and takes nobody in keeps nobody waiting.
fn connect(path: &Path) -> io::Result<UnixStream> {
    let socket = stream()?;
    socket::connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(socket.into())
}

/// Whether somebody listens at a socket.
///
/// It is asked with a socket of another type, so that who listens there never sees a connection: unix(7), EPROTOTYPE.
fn is_listened_at(path: &Path) -> io::Result<bool> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let asker = socket::socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
    match socket::connect(asker.as_raw_fd(), &UnixAddr::new(path)?) {
        Err(Errno::ECONNREFUSED) => Ok(false),
        Ok(()) | Err(Errno::EPROTOTYPE) => Ok(true),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether who is there cannot be let in for want of something that comes back: descriptors, memory.
pub(super) fn is_scarcity(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(
        errno,
        Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM)
    )
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

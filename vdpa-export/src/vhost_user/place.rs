//! The path of a socket: what is in its way, how the socket is made there, and how it goes.

use std::fs::{self, Metadata, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{
    self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen,
};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{AccessFlags, Gid, Uid, access, chown};

use super::ServerError;

/// The longest path of a socket in bytes: `sun_path` of `linux/un.h` has 108, and one ends it.
const LONGEST: usize = 107;

/// How many front ends may wait to be let in.
const WAITING: i32 = 8;

/// A path at which a socket can be made.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
    /// A socket that nobody listens at is there, left behind.
    stale: bool,
}

/// Who may connect to a socket, as the file system has it.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Admission {
    /// The file mode bits, 0 to 0o777; `None`: what the process's umask leaves.
    pub mode: Option<u32>,
    /// The number of the user that it is to belong to; `None`: the process's.
    pub user: Option<u32>,
    /// The number of the group that it is to belong to; `None`: the process's.
    pub group: Option<u32>,
}

/// A socket that was made. It is removed with this, if it is still there: what somebody else has put in its place stays.
#[derive(Debug)]
pub struct Made {
    path: PathBuf,
    /// Device and inode. `None` once it was removed.
    id: Option<(u64, u64)>,
}

impl Place {
    /// Looks whether a socket can be made at `path`. Nothing is changed, and who listens there is not disturbed.
    ///
    /// # Errors
    /// What is in the way: a path of more than 107 bytes or without a name, no directory, no permission, something that
    /// is no socket, a socket that is in use.
    pub fn find(path: impl Into<PathBuf>) -> Result<Self, ServerError> {
        let path = path.into();
        let dir = directory(&path)?;
        let stale = match fs::symlink_metadata(&path) {
            Ok(there) => {
                is_socket(&path, &there)?;
                is_left(&path)?;
                true
            }
            Err(e) if e.kind() == ErrorKind::NotFound => false,
            Err(source) => return Err(failed(&path, "look at what is there")(source)),
        };
        if let Err(errno) = access(&dir, AccessFlags::W_OK | AccessFlags::X_OK) {
            let (user, source) = (Uid::effective().as_raw(), errno.into());
            return Err(ServerError::MayNot {
                path,
                dir,
                user,
                source,
            });
        }
        Ok(Self { path, stale })
    }

    /// Makes the socket and listens at it. Nobody can connect before it admits those whom it is to admit. What was left
    /// there is removed.
    ///
    /// # Errors
    /// When it is in use by now, and what the system says. Nothing is left behind then.
    pub fn listen(self, admission: &Admission) -> Result<(UnixListener, Made), ServerError> {
        let path = self.path;
        if self.stale {
            // Again: it was looked at some time ago.
            is_left(&path)?;
            fs::remove_file(&path)
                .map_err(failed(&path, "remove the socket that was left there"))?;
        }
        let refused = |what| {
            let failed = failed(&path, what);
            move |errno: Errno| failed(errno.into())
        };
        let socket = stream().map_err(refused("get a socket"))?;
        if *admission != Admission::default() {
            // The file has the mode that the socket has: nobody else connects before it is said who may.
            let own = Mode::S_IRUSR | Mode::S_IWUSR;
            fchmod(&socket, own).map_err(refused("set the mode of the socket"))?;
        }
        let address = UnixAddr::new(&path).map_err(refused("name the socket so"))?;
        bind(socket.as_raw_fd(), &address).map_err(refused("make the socket"))?;
        // From here on it is removed, whatever comes.
        let made = Made {
            path: path.clone(),
            id: id(&path),
        };
        admission.apply(&path)?;
        let waiting = Backlog::new(WAITING).map_err(refused("listen at the socket"))?;
        listen(&socket, waiting).map_err(refused("listen at the socket"))?;
        Ok((socket.into(), made))
    }
}

impl Admission {
    fn apply(&self, path: &Path) -> Result<(), ServerError> {
        let owner = match (self.user, self.group) {
            (None, None) => None,
            (Some(user), None) => Some(format!("user {user}")),
            (None, Some(group)) => Some(format!("group {group}")),
            (Some(user), Some(group)) => Some(format!("user {user} and group {group}")),
        };
        if let Some(owner) = owner {
            let (user, group) = (self.user.map(Uid::from_raw), self.group.map(Gid::from_raw));
            chown(path, user, group).map_err(|errno| ServerError::Owner {
                path: path.to_owned(),
                owner,
                source: errno.into(),
            })?;
        }
        if let Some(mode) = self.mode {
            fs::set_permissions(path, Permissions::from_mode(mode))
                .map_err(failed(path, "set the mode of the socket"))?;
        }
        Ok(())
    }
}

impl Made {
    /// Removes the socket: nobody can connect any more, and who is connected stays so.
    pub fn remove(&mut self) {
        if self.id.is_some() && self.id == id(&self.path) {
            // Somebody who is as quick as we are has removed it, or nobody is hurt by one that stays.
            let _gone = fs::remove_file(&self.path);
        }
        self.id = None;
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Looks whether a front end could listen at `path`, which may come later.
///
/// # Errors
/// As of [`Place::find`], where it has to do with reading; a socket that the process may not connect to.
pub fn can_connect(path: &Path) -> Result<(), ServerError> {
    directory(path)?;
    let may_not = |source| ServerError::MayNotConnect {
        path: path.to_owned(),
        user: Uid::effective().as_raw(),
        source,
    };
    match fs::metadata(path) {
        Ok(there) => is_socket(path, &there)?,
        Err(e) if e.kind() == ErrorKind::PermissionDenied => return Err(may_not(e)),
        Err(_) => return Ok(()),
    }
    match access(path, AccessFlags::W_OK) {
        Err(errno @ (Errno::EACCES | Errno::EPERM)) => Err(may_not(errno.into())),
        // It may have gone since.
        _ => Ok(()),
    }
}

/// Connects, if that can be done at once: who listens and takes nobody in keeps nobody waiting.
pub(super) fn connected(path: &Path) -> io::Result<UnixStream> {
    let socket = stream()?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(socket.into())
}

/// A socket that does not block.
fn stream() -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)
}

/// The directory of a path that a socket can have, which is there.
fn directory(path: &Path) -> Result<PathBuf, ServerError> {
    let bytes = path.as_os_str().as_bytes();
    let owned = || path.to_owned();
    if bytes.len() > LONGEST {
        return Err(ServerError::TooLong {
            path: owned(),
            len: bytes.len(),
            most: LONGEST,
        });
    }
    if path.file_name().is_none() || bytes.ends_with(b"/") {
        return Err(ServerError::NoName { path: owned() });
    }
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir.to_owned(),
        _ => PathBuf::from("."),
    };
    match fs::metadata(&dir) {
        Ok(found) if found.is_dir() => Ok(dir),
        Ok(_) => Err(ServerError::NotADirectory { path: owned(), dir }),
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let path = owned();
            Err(ServerError::NoDirectory { path, dir })
        }
        // As where a file is in the place of a directory further up.
        Err(source) => Err(failed(path, "look at its directory")(source)),
    }
}

fn is_socket(path: &Path, there: &Metadata) -> Result<(), ServerError> {
    let is = there.file_type();
    let kind = match () {
        () if is.is_socket() => return Ok(()),
        () if is.is_file() => "a regular file",
        () if is.is_dir() => "a directory",
        () if is.is_symlink() => "a symbolic link",
        () if is.is_fifo() => "a pipe",
        () => "a device",
    };
    let path = path.to_owned();
    Err(ServerError::NotASocket { path, kind })
}

/// Whether nobody listens at a socket any more.
///
/// It is asked with a socket of another type, so that who listens there never sees a connection: unix(7), EPROTOTYPE.
fn is_left(path: &Path) -> Result<(), ServerError> {
    let asked = || -> nix::Result<()> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let asker = socket::socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
        connect(asker.as_raw_fd(), &UnixAddr::new(path)?)
    };
    let owned = path.to_owned();
    match asked() {
        Err(Errno::ECONNREFUSED | Errno::ENOENT) => Ok(()),
        Ok(()) | Err(Errno::EPROTOTYPE) => Err(ServerError::InUse { path: owned }),
        Err(Errno::EACCES | Errno::EPERM) => Err(ServerError::NotOurs { path: owned }),
        Err(errno) => {
            let failed = failed(path, "see whether somebody listens there");
            Err(failed(errno.into()))
        }
    }
}

fn failed(path: &Path, what: &'static str) -> impl Fn(io::Error) -> ServerError {
    let path = path.to_owned();
    move |source| ServerError::Path {
        path: path.clone(),
        what,
        source,
    }
}

/// What tells a file from another one that takes its place.
fn id(path: &Path) -> Option<(u64, u64)> {
    let there = fs::symlink_metadata(path).ok()?;
    Some((there.dev(), there.ino()))
}

//! The socket of a device: what is in its way, how it is made, and how it goes.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket,
};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{AccessFlags, Gid, Group, Uid, User, access, chown};

/// The longest path that the address of a socket holds, in bytes: `sockaddr_un` has 108, and one ends it.
const LONGEST: usize = 107;

/// A path at which a socket can be made.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    /// A socket that nobody listens at is there, left behind.
    stale: bool,
}

/// Who may connect.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Admission {
    mode: Option<u32>,
    user: Option<Uid>,
    group: Option<Gid>,
}

/// A socket that listens, and is removed with this.
#[derive(Debug)]
pub(super) struct Bound {
    path: PathBuf,
    /// What was made there: whoever puts another in its place keeps that.
    made: Option<(u64, u64)>,
}

impl Place {
    /// Looks whether a socket can be made at `path`. Nothing is changed, and who listens there is not disturbed.
    ///
    /// # Errors
    /// What is in the way, and what to do about it.
    pub(super) fn find(path: &Path) -> Result<Self> {
        let shown = path.display();
        fits(path)?;
        let dir = directory(path)?;
        let there = match fs::symlink_metadata(path) {
            Ok(there) => there,
            Err(e) if e.kind() == ErrorKind::NotFound => {
                may_write(&dir, path)?;
                return Ok(Self::at(path, false));
            }
            Err(e) => return Err(e).with_context(|| format!("{shown}: cannot be looked at")),
        };
        ensure!(
            there.file_type().is_socket(),
            "{shown} is {}, not a socket: give another path, or remove it",
            kind(&there)
        );
        match occupied(path).with_context(|| format!("{shown}: cannot be looked at"))? {
            Some(Occupied::InUse) => {
                bail!("{shown} is in use, somebody listens there: end that, or give another path")
            }
            Some(Occupied::NotOurs) => {
                bail!(
                    "{shown} is another user's socket: no permission to see whether it is in use; give another path"
                )
            }
            None => {
                may_write(&dir, path)?;
                Ok(Self::at(path, true))
            }
        }
    }

    fn at(path: &Path, stale: bool) -> Self {
        Self {
            path: path.to_owned(),
            stale,
        }
    }

    /// Makes the socket, with whom it admits before anybody can connect. What was left behind there is removed.
    ///
    /// # Errors
    /// What the system says, with the path; nothing is left behind.
    pub(super) fn listen(&self, admission: &Admission) -> Result<(UnixListener, Bound)> {
        let path = &self.path;
        let shown = path.display();
        if self.stale {
            // Again: it was looked at some time ago.
            ensure!(
                occupied(path)?.is_none(),
                "{shown} is in use, somebody listens there: end that, or give another path"
            );
            fs::remove_file(path)
                .with_context(|| format!("{shown}: the socket left behind cannot be removed"))?;
        }
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let stream = SockType::Stream;
        let socket = socket(AddressFamily::Unix, stream, flags, None)
            .map_err(io::Error::from)
            .with_context(|| format!("{shown}: no socket can be had"))?;
        if admission.mode.is_some() || admission.user.is_some() || admission.group.is_some() {
            // The file has the mode that the socket has: nobody else connects before it is said who may.
            fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)
                .map_err(io::Error::from)
                .with_context(|| format!("{shown}: the socket's mode cannot be set"))?;
        }
        let address = UnixAddr::new(path).with_context(|| format!("{shown} is no address"))?;
        bind(socket.as_raw_fd(), &address)
            .map_err(io::Error::from)
            .with_context(|| format!("{shown}: no socket can be made here"))?;
        // From here on it is removed, whatever comes.
        let bound = Bound::new(path);
        admission.apply(path)?;
        listen(&socket, Backlog::new(8)?)
            .map_err(io::Error::from)
            .with_context(|| format!("{shown}: the socket cannot be listened at"))?;
        Ok((UnixListener::from(socket), bound))
    }
}

/// Whether a path can be the address of a socket.
pub(super) fn fits(path: &Path) -> Result<()> {
    let shown = path.display();
    let bytes = path.as_os_str().as_bytes();
    ensure!(
        bytes.len() <= LONGEST,
        "{shown} has {} bytes, and a socket's path at most {LONGEST}: give a shorter one, or one relative to another directory",
        bytes.len()
    );
    ensure!(
        path.file_name().is_some() && !bytes.ends_with(b"/"),
        "`{shown}` names no file: give a path to one, as in /run/vdpa/net0.sock"
    );
    Ok(())
}

/// The directory of a path, which is there.
pub(super) fn directory(path: &Path) -> Result<PathBuf> {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let (shown, dir_shown) = (path.display(), dir.display());
    match fs::metadata(dir) {
        Ok(found) if found.is_dir() => Ok(dir.to_owned()),
        Ok(_) => bail!("{shown}: {dir_shown} is not a directory: give a path in one"),
        Err(e) if e.kind() == ErrorKind::NotFound => {
            bail!(
                "{shown}: there is no directory {dir_shown}: make it first (mkdir -p {dir_shown})"
            )
        }
        Err(e) => Err(e).with_context(|| format!("{shown}: {dir_shown} cannot be looked at")),
    }
}

/// The path by which two ways to write it are one, as far as the directories are there.
pub(super) fn whole(path: &Path) -> PathBuf {
    let dir = directory(path).and_then(|dir| Ok(fs::canonicalize(dir)?));
    match (dir, path.file_name()) {
        (Ok(dir), Some(name)) => dir.join(name),
        _ => path.to_owned(),
    }
}

fn may_write(dir: &Path, path: &Path) -> Result<()> {
    let wanted = AccessFlags::W_OK | AccessFlags::X_OK;
    let may = access(dir, wanted).map_err(io::Error::from);
    may.with_context(|| {
        let (path, dir, user) = (path.display(), dir.display(), Uid::effective());
        format!("{path}: user {user} may make no socket in {dir}, give another path or run as another user")
    })
}

enum Occupied {
    InUse,
    /// It cannot be connected to, so whether it is in use is not known.
    NotOurs,
}

/// Whether there is still somebody at a socket. `None`: nobody is.
///
/// It is asked with a socket of another type, so that who listens there never sees a connection: unix(7), EPROTOTYPE.
fn occupied(path: &Path) -> io::Result<Option<Occupied>> {
    let datagram = SockType::Datagram;
    let asker = socket(AddressFamily::Unix, datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let address = UnixAddr::new(path)?;
    match connect(asker.as_raw_fd(), &address) {
        Err(Errno::ECONNREFUSED | Errno::ENOENT) => Ok(None),
        Ok(()) | Err(Errno::EPROTOTYPE) => Ok(Some(Occupied::InUse)),
        Err(Errno::EACCES | Errno::EPERM) => Ok(Some(Occupied::NotOurs)),
        Err(e) => Err(e.into()),
    }
}

fn kind(there: &fs::Metadata) -> &'static str {
    let is = there.file_type();
    match () {
        () if is.is_file() => "a regular file",
        () if is.is_dir() => "a directory",
        () if is.is_symlink() => "a symbolic link",
        () if is.is_fifo() => "a pipe",
        () => "a device",
    }
}

impl Admission {
    /// * `mode`: as of a file, 0 to 0o777; `None`: what the umask leaves
    /// * `owner`: `USER`, `USER:GROUP` or `:GROUP`, names or numbers
    ///
    /// # Errors
    /// A name that nobody has.
    pub(super) fn new(mode: Option<u32>, owner: Option<&str>) -> Result<Self> {
        let (user, group) = match owner {
            None => (None, None),
            Some(owner) => match owner.split_once(':') {
                None => (Some(user(owner)?), None),
                Some(("", of)) => (None, Some(group(of)?)),
                Some((owner, of)) => (Some(user(owner)?), Some(group(of)?)),
            },
        };
        Ok(Self { mode, user, group })
    }

    fn apply(&self, path: &Path) -> Result<()> {
        let shown = path.display();
        if self.user.is_some() || self.group.is_some() {
            let given = chown(path, self.user, self.group).map_err(io::Error::from);
            given.with_context(|| {
                let to = match (self.user, self.group) {
                    (Some(user), Some(group)) => format!("user {user} and group {group}"),
                    (Some(user), None) => format!("user {user}"),
                    (None, group) => format!("group {}", group.unwrap_or(Gid::effective())),
                };
                format!("{shown}: the socket cannot be given to {to}")
            })?;
        }
        if let Some(mode) = self.mode {
            fs::set_permissions(path, Permissions::from_mode(mode))
                .with_context(|| format!("{shown}: the socket's mode cannot be {mode:03o}"))?;
        }
        Ok(())
    }
}

fn user(name: &str) -> Result<Uid> {
    if let Ok(number) = name.parse() {
        return Ok(Uid::from_raw(number));
    }
    let found = User::from_name(name)
        .with_context(|| format!("--owner: user `{name}` cannot be looked up"))?;
    let found = found.ok_or_else(|| anyhow!("--owner: there is no user `{name}`"))?;
    Ok(found.uid)
}

fn group(name: &str) -> Result<Gid> {
    if let Ok(number) = name.parse() {
        return Ok(Gid::from_raw(number));
    }
    let found = Group::from_name(name)
        .with_context(|| format!("--owner: group `{name}` cannot be looked up"))?;
    let found = found.ok_or_else(|| anyhow!("--owner: there is no group `{name}`"))?;
    Ok(found.gid)
}

impl Bound {
    fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            made: inode(path),
        }
    }

    /// Nobody can connect any more.
    pub(super) fn remove(&mut self) {
        if self.made.is_some() && self.made == inode(&self.path) {
            // Somebody who is as quick as we are has removed it.
            let _gone = fs::remove_file(&self.path);
        }
        self.made = None;
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        self.remove();
    }
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    let there = fs::symlink_metadata(path).ok()?;
    Some((there.dev(), there.ino()))
}

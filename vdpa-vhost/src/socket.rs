//! From a path to a connection.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use std::os::fd::AsFd;
use vdpa_mem::{Deadline, clock};

use crate::{Options, VhostError};

type Result<T, E = VhostError> = std::result::Result<T, E>;

/// What a path of a socket has room for: `sun_path`, and the 0 at its end.
const LONGEST: usize = 107;
/// How long to wait before a server whose queue is full is asked again: nothing says when there is room.
const AGAIN: Duration = Duration::from_millis(10);

/// Connects to a back end, or waits until one connects.
pub(crate) fn open(options: &Options) -> Result<UnixStream> {
    let path = &options.path;
    let len = path.as_os_str().len();
    if len > LONGEST {
        return Err(VhostError::PathTooLong {
            path: path.clone(),
            len,
            most: LONGEST,
        });
    }
    let by = Deadline::after(options.timeout);
    match options.server {
        true => accepted(path, by, options.timeout),
        false => connected(path, by),
    }
}

fn connected(path: &Path, by: Deadline) -> Result<UnixStream> {
    let failed = |source: Errno| VhostError::Socket {
        path: path.to_owned(),
        what: "connect to it",
        source: source.into(),
    };
    let to = UnixAddr::new(path).map_err(failed)?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let ours = socket(AddressFamily::Unix, SockType::Stream, flags, None).map_err(failed)?;
    loop {
        match connect(ours.as_raw_fd(), &to) {
            Ok(()) => return Ok(UnixStream::from(ours)),
            Err(Errno::EINTR) => {}
            // Its queue is full of others.
            Err(Errno::EAGAIN) if !by.expired() => clock::sleep(AGAIN),
            // As the system also has it of what is no socket.
            Err(e @ Errno::ECONNREFUSED) => return Err(other(path).unwrap_or_else(|| failed(e))),
            Err(e) => return Err(failed(e)),
        }
    }
}

/// What is there, if it is not a socket.
fn other(path: &Path) -> Option<VhostError> {
    let is = fs::metadata(path).ok()?.file_type();
    let kind = match () {
        () if is.is_socket() => return None,
        () if is.is_file() => "a regular file",
        () if is.is_dir() => "a directory",
        () if is.is_fifo() => "a pipe",
        () => "a device",
    };
    let path = path.to_owned();
    Some(VhostError::NotASocket { path, kind })
}

/// Why a socket cannot be made there.
fn unmade(path: &Path, source: io::Error) -> VhostError {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir.to_owned(),
        _ => PathBuf::from("."),
    };
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound => VhostError::NoDirectory { path, dir },
        io::ErrorKind::PermissionDenied => VhostError::MayNot { path, dir, source },
        _ => VhostError::Socket {
            path,
            what: "listen there",
            source,
        },
    }
}

/// A socket that was made here, until nobody connects to it any more.
struct Made(PathBuf);

impl Drop for Made {
    fn drop(&mut self) {
        // Somebody may have removed it already.
        let _gone = fs::remove_file(&self.0);
    }
}

fn accepted(path: &Path, by: Deadline, timeout: Duration) -> Result<UnixStream> {
    let failed = |what: &'static str| {
        move |source: io::Error| VhostError::Socket {
            path: path.to_owned(),
            what,
            source,
        }
    };
    let listener = UnixListener::bind(path).map_err(|e| unmade(path, e))?;
    let _made = Made(path.to_owned());
    listener
        .set_nonblocking(true)
        .map_err(failed("listen there"))?;
    loop {
        match listener.accept() {
            Ok((stream, _)) => return Ok(stream),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && by.expired() => {
                return Err(VhostError::NobodyCame {
                    path: path.to_owned(),
                    seconds: timeout.as_secs(),
                });
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
                let left = by.remaining().as_millis().saturating_add(1);
                let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
                match poll(&mut fds, left) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(e) => return Err(failed("wait for a back end")(e.into())),
                }
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(failed("accept a back end")(e)),
        }
    }
}

//! Sockets that were passed when the process began, as systemd does: sd_listen_fds(3).
#![allow(
    unsafe_code,
    reason = "they are passed by number, and nothing but the environment says that they are ours"
)]

use std::env;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::socket::{SockType, UnixAddr, getsockname, getsockopt, sockopt};

use super::socket::whole;

/// The number of the first: `SD_LISTEN_FDS_START`.
const FIRST: i32 = 3;
/// More than anybody passes; what the environment says is not trusted to be small.
const MOST: i32 = 1024;

/// What was passed and is not taken yet.
#[derive(Debug)]
pub(super) struct Passed(Vec<Socket>);

/// A socket that was passed.
#[derive(Debug)]
pub(super) struct Socket {
    /// As the unit names it, `FileDescriptorName=`.
    name: String,
    /// Where it is bound.
    path: Option<PathBuf>,
    fd: OwnedFd,
}

impl Passed {
    /// What this process was passed: nothing, if it is not meant. To be asked once, before anything is opened.
    ///
    /// # Errors
    /// When the environment makes no sense, or what it names is not open.
    pub(super) fn take() -> Result<Self> {
        let ours = |pid: String| pid.parse() == Ok(process::id());
        if !env::var("LISTEN_PID").is_ok_and(ours) {
            return Ok(Self(Vec::new()));
        }
        let count = env::var("LISTEN_FDS").unwrap_or_default();
        let count = match count.parse() {
            Ok(number) if (0..=MOST).contains(&number) => number,
            _ => bail!("LISTEN_FDS=`{count}` is no number of sockets from 0 to {MOST}"),
        };
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':').filter(|name| !name.is_empty());
        let sockets = (FIRST..FIRST + count).map(|number| {
            let name = names.next().unwrap_or("unknown").to_owned();
            ensure!(
                Path::new(&format!("/proc/self/fd/{number}")).exists(),
                "LISTEN_FDS={count}, but descriptor {number} is not open"
            );
            // SAFETY: it is open, LISTEN_PID says that it was passed to this process, and nothing was opened or taken over
            // by number before.
            let fd = unsafe { OwnedFd::from_raw_fd(number) };
            Ok(Socket {
                name,
                path: bound_at(&fd),
                fd,
            })
        });
        Ok(Self(sockets.collect::<Result<_>>()?))
    }

    /// The one of this name, as in `fd:NAME`; by its number, if it was given none.
    ///
    /// # Errors
    /// When there is none, with those that there are.
    pub(super) fn named(&mut self, name: &str) -> Result<Socket> {
        let is_it = |s: &Socket| s.name == name || s.fd.as_raw_fd().to_string() == name;
        if let Some(at) = self.0.iter().position(is_it) {
            return Ok(self.0.remove(at));
        }
        let mut left: Vec<&str> = self.0.iter().map(|s| s.name.as_str()).collect();
        if left.is_empty() {
            bail!("fd:{name}: systemd passed no socket, or none is left");
        }
        left.dedup();
        bail!(
            "fd:{name}: systemd passed no such socket; left are {}",
            left.join(", ")
        )
    }

    /// The one that is bound at this path.
    pub(super) fn at(&mut self, path: &Path) -> Option<Socket> {
        let at = self
            .0
            .iter()
            .position(|s| s.path.as_deref().is_some_and(|at| whole(at) == whole(path)));
        at.map(|at| self.0.remove(at))
    }

    /// The names of those that nobody took.
    pub(super) fn left(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|s| s.name.as_str())
    }
}

impl Socket {
    /// # Errors
    /// When nobody can connect to it.
    pub(super) fn into_listener(self) -> Result<UnixListener> {
        let name = &self.name;
        let asked = || format!("fd:{name}: what systemd passed is no socket");
        let kind = getsockopt(&self.fd, sockopt::SockType).with_context(asked)?;
        let listens = getsockopt(&self.fd, sockopt::AcceptConn).with_context(asked)?;
        let local = getsockname::<UnixAddr>(self.fd.as_raw_fd()).is_ok();
        ensure!(
            local && kind == SockType::Stream && listens,
            "fd:{name}: systemd passed a socket that does not listen for streams of this machine: the unit needs \
             ListenStream= with a path, and Accept=no"
        );
        Ok(UnixListener::from(self.fd))
    }
}

fn bound_at(fd: &impl AsFd) -> Option<PathBuf> {
    let address: UnixAddr = getsockname(fd.as_fd().as_raw_fd()).ok()?;
    let path = address.path()?;
    (!path.as_os_str().as_bytes().is_empty()).then(|| path.to_owned())
}

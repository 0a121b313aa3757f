//! Where a device meets its front ends.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use vdpa::export::vhost_user::{Admission, Listen, Made, Place, can_connect};

use super::passed::{Passed, Socket};
use super::socket::whole;
use crate::options::Serve;

/// How a path asks for a socket that was passed.
const PASSED: &str = "fd:";

/// Where a device meets its front ends; it was looked at, and nothing was done.
pub(super) enum Meeting {
    /// A socket is to be made.
    Make(PathBuf, Place),
    /// The socket is there, by this path or name.
    Passed(PathBuf, Socket),
    /// The front end makes it.
    Join(PathBuf),
}

/// Each device with its path.
///
/// # Errors
/// When their numbers differ, a path is there twice, or an option would do nothing.
pub(super) fn pairs(options: &Serve) -> Result<Vec<(&str, &Path)>> {
    let (specs, paths) = (&options.specs, &options.vhost_user);
    ensure!(
        specs.len() == paths.len(),
        "{} and {}: each SPEC needs a --vhost-user PATH of its own",
        crate::number::count(specs.len() as u64, "device"),
        crate::number::count(paths.len() as u64, "--vhost-user path"),
    );
    for (at, path) in paths.iter().enumerate() {
        let same = |other: &&PathBuf| !is_passed(path) && whole(other) == whole(path);
        if let Some(first) = paths.iter().take(at).position(|other| same(&other)) {
            anyhow::bail!(
                "{} is given twice, for {} and for {}: each device needs a socket of its own",
                path.display(),
                specs[first],
                specs[at]
            );
        }
    }
    if paths.iter().all(|path| is_passed(path)) {
        let mode = options.mode.map(|_| "--mode");
        let owner = options.owner.as_ref().map(|_| "--owner");
        if let Some(flag) = mode.or(owner) {
            anyhow::bail!(
                "{flag} is of sockets that are made, and fd: names one that systemd has made: its unit has SocketMode=, \
                 SocketUser= and SocketGroup="
            );
        }
    }
    let paths = paths.iter().map(PathBuf::as_path);
    Ok(specs.iter().map(String::as_str).zip(paths).collect())
}

fn is_passed(path: &Path) -> bool {
    path.to_str().is_some_and(|path| path.starts_with(PASSED))
}

impl Meeting {
    /// Looks whether front ends can be met there.
    ///
    /// * `path`: a socket, or `fd:NAME`
    /// * `client`: whether the front end listens there
    ///
    /// # Errors
    /// What is in the way.
    pub(super) fn find(path: &Path, client: bool, passed: &mut Passed) -> Result<Self> {
        if let Some(name) = path.to_str().and_then(|path| path.strip_prefix(PASSED)) {
            ensure!(
                !client,
                "fd:{name}: a socket that listens cannot connect: --client takes a path"
            );
            return Ok(Self::Passed(path.to_owned(), passed.named(name)?));
        }
        if client {
            can_connect(path)?;
            return Ok(Self::Join(path.to_owned()));
        }
        match passed.at(path) {
            Some(socket) => Ok(Self::Passed(path.to_owned(), socket)),
            None => Ok(Self::Make(path.to_owned(), Place::find(path)?)),
        }
    }

    /// What it is called: as it was given.
    pub(super) fn shown(&self) -> PathBuf {
        let (Self::Make(path, _) | Self::Join(path) | Self::Passed(path, _)) = self;
        path.clone()
    }

    /// Front ends can connect from here on, as long as what is returned lives.
    ///
    /// # Errors
    /// When the socket cannot be made, or used.
    pub(super) fn listen(self, admission: &Admission) -> Result<(Listen, Option<Made>)> {
        Ok(match self {
            Self::Make(_, place) => {
                let (listener, made) = place.listen(admission)?;
                (Listen::Listener(listener.into()), Some(made))
            }
            Self::Passed(_, socket) => (Listen::Listener(socket.into_listener()?.into()), None),
            Self::Join(path) => (Listen::connect(path), None),
        })
    }
}

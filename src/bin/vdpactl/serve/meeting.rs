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
    /// The socket is there.
    Passed(Socket),
    /// The front end makes it.
    Join(PathBuf),
}

/// Each device with its path.
///
/// # Errors
/// When their numbers differ, or a path is there twice.
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
            return Ok(Self::Passed(passed.named(name)?));
        }
        if client {
            can_connect(path)?;
            return Ok(Self::Join(path.to_owned()));
        }
        match passed.at(path) {
            Some(socket) => Ok(Self::Passed(socket)),
            None => Ok(Self::Make(path.to_owned(), Place::find(path)?)),
        }
    }

    /// What it is called.
    pub(super) fn shown(&self) -> PathBuf {
        match self {
            Self::Make(path, _) | Self::Join(path) => path.clone(),
            Self::Passed(socket) => socket.shown(),
        }
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
            Self::Passed(socket) => (Listen::Listener(socket.into_listener()?.into()), None),
            Self::Join(path) => (Listen::connect(path), None),
        })
    }
}

//! What all device files here have in common: opened, or handed over, and asked what they are.
#![allow(unsafe_code, reason = "fcntl on a descriptor that is held")]

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use nix::errno::Errno;
use nix::libc;

use crate::Error;

/// Opens a device file.
pub(crate) fn open(path: &Path, made_by: &'static str) -> Result<OwnedFd, Error> {
    let file = OpenOptions::new().read(true).write(true).open(path);
    file.map(OwnedFd::from).map_err(|source| Error::Open {
        path: path.to_owned(),
        made_by,
        source,
    })
}

/// Takes over a descriptor that has to be a device file, before any ioctl is made on it.
pub(crate) fn character_device(fd: OwnedFd, what: &'static str) -> Result<File, Error> {
    let file = File::from(fd);
    let foreign = |errno| Error::Foreign {
        fd: file.as_raw_fd(),
        what,
        call: "fstat",
        errno,
    };
    let kind = match file.metadata() {
        Ok(data) => data.file_type(),
        Err(e) => return Err(foreign(Errno::from_raw(e.raw_os_error().unwrap_or(0)))),
    };
    if !kind.is_char_device() {
        return Err(foreign(Errno::ENODEV));
    }
    Ok(file)
}

/// The answer to the call that only `what` understands, as an answer to whether this is one.
pub(crate) fn known<T>(
    file: &File,
    what: &'static str,
    asked: Result<T, Error>,
) -> Result<T, Error> {
    asked.map_err(|error| match error {
        Error::Call { call, errno } => Error::Foreign {
            fd: file.as_raw_fd(),
            what,
            call,
            errno,
        },
        other => other,
    })
}

/// Keeps a descriptor from programs that are started.
pub(crate) fn close_on_exec(fd: &OwnedFd) -> Result<(), Error> {
    // SAFETY: it takes a number, and the descriptor has no other flag that it could take away.
    let done = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) };
    Errno::result(done).map(drop).map_err(|errno| Error::Call {
        call: "fcntl F_SETFD",
        errno,
    })
}

/// What the kernel said to a `read` or `write` of `call`.
pub(crate) fn transfer(
    call: &'static str,
    wanted: usize,
    done: std::io::Result<usize>,
) -> Result<(), Error> {
    match done {
        Ok(len) if len == wanted => Ok(()),
        Ok(len) => Err(Error::Short {
            what: call,
            len,
            least: wanted,
        }),
        Err(e) => Err(Error::Call {
            call,
            errno: Errno::from_raw(e.raw_os_error().unwrap_or(0)),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the kernel makes those of VDUSE's windows.
    #[test]
    fn descriptor_that_programs_would_inherit_is_kept_from_them() {
        let file = OwnedFd::from(tempfile::tempfile().unwrap());
        let flags = |to: Option<i32>| {
            let (command, flags) = to.map_or((libc::F_GETFD, 0), |flags| (libc::F_SETFD, flags));
            // SAFETY: it takes a number.
            unsafe { libc::fcntl(file.as_raw_fd(), command, flags) }
        };
        assert_eq!((flags(Some(0)), flags(None)), (0, 0));
        close_on_exec(&file).unwrap();
        assert_eq!(flags(None), libc::FD_CLOEXEC);
    }
}

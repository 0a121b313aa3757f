//! Opening an image: what can be wrong with one, and what to do about it.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use io_uring::{IoUring, opcode};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::Open;

/// Why an image cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// There is no such file.
    #[error("image {path} does not exist: make one (truncate -s 64M {path})")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// It may not be opened.
    #[error("image {path} cannot be opened{hint}")]
    Open {
        /// The file.
        path: PathBuf,
        /// What might help, or nothing.
        hint: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// It is no file with a size.
    #[error("image {path} is {what}: a regular file or a block device is needed")]
    Kind {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// There is nothing in it.
    #[error("image {path} is empty: give it a size (truncate -s 64M {path})")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Its size is odd.
    #[error(
        "image {path} has {bytes} bytes, which is no multiple of {unit}: extend it (truncate -s %{unit} {path})"
    )]
    Unaligned {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// What it has to be a multiple of.
        unit: u32,
    },
    /// Somebody else has it.
    #[error(
        "image {path} is in use: another device or program holds a lock for {held} on it; close that, or serve a copy (lock=off, \
         if the two take turns as in a migration)"
    )]
    Locked {
        /// The file.
        path: PathBuf,
        /// What for.
        held: &'static str,
    },
    /// There is no io_uring.
    #[error(
        "io_uring is refused by the system: use io=auto or io=threads, or allow it (sysctl kernel.io_uring_disabled=0, \
         and the seccomp filter of a container)"
    )]
    NoUring {
        /// What the system said.
        source: io::Error,
    },
    /// Threads cannot be started.
    #[error("cannot start {count} threads for an image")]
    Threads {
        /// How many.
        count: usize,
        /// What the system said.
        source: io::Error,
    },
}

/// Opens an image, and locks it if it is to be. Answers with its size, too.
pub(super) fn open(path: &Path, how: Open) -> Result<(File, u64), ImageError> {
    let path_of = || path.to_owned();
    // Not held up by a FIFO without a writer.
    let opened = OpenOptions::new()
        .read(true)
        .write(!how.read_only)
        .custom_flags(libc::O_NONBLOCK)
        .open(path);
    let mut file = opened.map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => ImageError::Missing { path: path_of() },
        io::ErrorKind::IsADirectory => ImageError::Kind {
            path: path_of(),
            what: "a directory",
        },
        kind => ImageError::Open {
            path: path_of(),
            hint: match kind {
                io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied
                    if !how.read_only =>
                {
                    " for writing: add ro=on to serve it read-only"
                }
                _ => "",
            },
            source,
        },
    })?;
    let failed = |source| ImageError::Open {
        path: path_of(),
        hint: "",
        source,
    };
    let kind = file.metadata().map_err(failed)?.file_type();
    let what = if kind.is_dir() {
        Some("a directory")
    } else if kind.is_char_device() {
        Some("a character device")
    } else if kind.is_fifo() || kind.is_socket() {
        Some("a pipe or socket")
    } else {
        None
    };
    if let Some(what) = what {
        let path = path_of();
        return Err(ImageError::Kind { path, what });
    }
    // From here on it may block whoever asks it for something: none of them is a worker.
    let blocks = fcntl(&file, FcntlArg::F_SETFL(OFlag::empty()));
    blocks.map_err(|e| failed(e.into()))?;
    if how.lock {
        take_lock(&file, path, how)?;
    }
    // Of a block device too.
    let bytes = file.seek(SeekFrom::End(0)).map_err(failed)?;
    if bytes == 0 {
        return Err(ImageError::Empty { path: path_of() });
    }
    if !bytes.is_multiple_of(how.unit.max(1).into()) {
        return Err(ImageError::Unaligned {
            path: path_of(),
            bytes,
            unit: how.unit,
        });
    }
    Ok((file, bytes))
}

/// A lock of this kind on the whole file.
fn lock(kind: i32) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// Lets go of the lock.
pub(super) fn unlock(file: &File) {
    let _closed_soon = fcntl(file, FcntlArg::F_OFD_SETLK(&lock(libc::F_UNLCK)));
}

/// Locks the whole file, by what is open and not by who opened it: two devices of one process exclude each other too.
fn take_lock(file: &File, path: &Path, how: Open) -> Result<(), ImageError> {
    let wanted = if how.read_only {
        libc::F_RDLCK
    } else {
        libc::F_WRLCK
    };
    match fcntl(file, FcntlArg::F_OFD_SETLK(&lock(wanted))) {
        Ok(_) => Ok(()),
        Err(Errno::EAGAIN | Errno::EACCES) => {
            let mut found = lock(wanted);
            let asked = fcntl(file, FcntlArg::F_OFD_GETLK(&mut found));
            let read = asked.is_ok() && i32::from(found.l_type) == libc::F_RDLCK;
            Err(ImageError::Locked {
                path: path.to_owned(),
                held: if read { "reading" } else { "writing" },
            })
        }
        // A file system without locks: nothing can be excluded there.
        Err(Errno::ENOLCK | Errno::EOPNOTSUPP | Errno::EINVAL) => {
            tracing::warn!("{}: its file system has no locks", path.display());
            Ok(())
        }
        Err(e) => Err(ImageError::Open {
            path: path.to_owned(),
            hint: ": it cannot be locked",
            source: e.into(),
        }),
    }
}

/// Whether the system lets us use io_uring: a ring is made, and one request that does nothing goes through it.
pub(super) fn probe() -> io::Result<()> {
    let mut ring = IoUring::new(1)?;
    super::uring::push(&mut ring, &opcode::Nop::new().build())
        .map_err(|_| io::Error::from(io::ErrorKind::ResourceBusy))?;
    ring.submit_and_wait(1)?;
    Ok(())
}

//! A disk in a file, or in a block device of the system's.
//!
//! Requests go by io_uring, or where that is refused by threads of the disk's own: never on a worker. The file is never
//! mapped, so that one that is cut under us is an I/O error and not a signal. It is locked as a whole (`F_OFD_SETLK` of
//! `fcntl.h`), for writing or with `ro` for reading, so that two devices do not spoil one image; with `lock=off` somebody
//! else sees to that, as whoever has a guest migrate.

mod open;
mod pool;
mod uring;

use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use vdpa_core::Bell;

use super::backend::{Backend, Lane};
use crate::shared::lock;

pub use open::ImageError;

use pool::Pool;
use uring::Uring;

/// How requests get to the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Engine {
    /// By io_uring if the system has it, by threads otherwise.
    #[default]
    Auto,
    /// By io_uring; an image is not opened where the system refuses it. A queue that then gets none of its own, since the
    /// system has no more, goes by threads.
    Uring,
    /// By threads.
    Threads,
}

/// How an image is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Open {
    /// Only for reading.
    pub read_only: bool,
    /// Whether it is locked: then a device that locks it as well has it at the same time only where both read.
    pub lock: bool,
    /// The size of the image has to be a multiple of so many bytes.
    pub unit: u32,
    /// How requests get there.
    pub engine: Engine,
    /// How many threads there are where there is no io_uring; at least 1.
    pub threads: usize,
}

/// An image, open, and locked if it is to be.
#[derive(Debug)]
pub(super) struct File {
    file: std::fs::File,
}

impl File {
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // Closing does not do it at once where others still have the open file: the kernel for a request that has just
        // ended, or a child between fork and exec.
        open::unlock(&self.file);
    }
}

/// A disk in a file.
pub struct Image {
    file: Arc<File>,
    path: PathBuf,
    bytes: AtomicU64,
    open: Open,
    pool: Mutex<Option<Pool>>,
    /// Queues that go by io_uring, and by threads.
    rings: AtomicU64,
    pooled: AtomicU64,
}

impl Image {
    /// Opens and locks the image at `path`.
    ///
    /// # Errors
    /// [`ImageError`], which names the file, what is wrong with it, and the way out.
    pub fn open(path: &Path, how: Open) -> Result<Self, ImageError> {
        let (file, bytes) = open::open(path, how)?;
        let mut open = how;
        match open::probe() {
            Ok(()) if how.engine == Engine::Auto => open.engine = Engine::Uring,
            Err(_) if how.engine == Engine::Auto => open.engine = Engine::Threads,
            Err(source) if how.engine == Engine::Uring => {
                return Err(ImageError::NoUring { source });
            }
            _ => {}
        }
        let image = Self {
            file: Arc::new(File { file }),
            path: path.to_owned(),
            bytes: AtomicU64::new(bytes),
            open,
            pool: Mutex::new(None),
            rings: AtomicU64::new(0),
            pooled: AtomicU64::new(0),
        };
        if open.engine == Engine::Threads {
            let pool = image.pool().map_err(|source| ImageError::Threads {
                count: how.threads,
                source,
            })?;
            *lock(&image.pool) = Some(pool);
        }
        Ok(image)
    }

    /// The bytes of the disk that is in it: its size, rounded down to whole sectors.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How requests get to the file, with [`Engine::Auto`] decided.
    pub fn engine(&self) -> Engine {
        self.open.engine
    }

    fn pool(&self) -> io::Result<Pool> {
        Pool::new(&self.file, "blk", self.open.threads.max(1))
    }

    fn by_ring(&self, depth: usize) -> Option<Uring> {
        if self.open.engine == Engine::Threads {
            return None;
        }
        match Uring::new(&self.file, depth) {
            Ok(ring) => Some(ring),
            // It was there when the image was opened: the system has no more of them.
            Err(e) => {
                let path = self.path.display();
                tracing::warn!("{path}: no further io_uring, going on with threads: {e}");
                None
            }
        }
    }
}

impl Backend for Image {
    fn lane(&self, depth: usize, bell: &Arc<Bell>) -> Lane {
        if let Some(ring) = self.by_ring(depth) {
            self.rings.fetch_add(1, Ordering::Relaxed);
            return Lane::Queued(Box::new(ring));
        }
        let mut pool = lock(&self.pool);
        if pool.is_none() {
            *pool = self.pool().ok();
        }
        self.pooled.fetch_add(1, Ordering::Relaxed);
        match &*pool {
            Some(pool) => Lane::Queued(Box::new(pool.lane(depth, bell))),
            None => Lane::Inline(Box::new(super::backend::Nothing)),
        }
    }

    fn resize(&self, bytes: u64) -> io::Result<()> {
        // Of a block device of the system's, too. Nobody else uses the offset.
        let have = (&self.file.file).seek(SeekFrom::End(0))?;
        if have < bytes {
            // A block device says here that it has a size of its own.
            self.file.file.set_len(bytes)?;
        }
        self.bytes.store(bytes, Ordering::Relaxed);
        Ok(())
    }

    fn stats(&self, to: &mut dyn FnMut(&str, u64)) {
        to("image.io_uring_queues", self.rings.load(Ordering::Relaxed));
        to("image.thread_queues", self.pooled.load(Ordering::Relaxed));
    }
}

//! What the data of a disk is in.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use vdpa_core::Bell;
use vdpa_mem::Bytes;

use super::Parcel;

/// Where the data of a disk is: one for a device, with a [`Lane`] for each queue.
///
/// What a backend is asked for is inside the disk and legal: the device has checked the request, its length and its
/// place.
pub trait Backend: Send + Sync {
    /// The way of one queue to the data: called once for each.
    ///
    /// * `depth`: how many jobs are under way at most
    /// * `bell`: rung when jobs are done, by a lane that has no file to tell of it
    fn lane(&self, depth: usize, bell: &Arc<Bell>) -> Lane;

    /// Makes room for `bytes` bytes. What is new reads as zeroes, or as what a file has there; a smaller disk keeps what
    /// it needs.
    ///
    /// # Errors
    /// When there is no such room; nothing has changed then.
    fn resize(&self, bytes: u64) -> io::Result<()>;

    /// Calls `to` for each counter of its own, with its name and value.
    fn stats(&self, to: &mut dyn FnMut(&str, u64)) {
        let _ = to;
    }
}

/// How a queue gets at the data.
pub enum Lane {
    /// At once, on the worker.
    Inline(Box<dyn Inline>),
    /// By jobs, elsewhere: nothing that may block runs on a worker.
    Queued(Box<dyn Queued>),
}

/// Data that is at hand: no call blocks, or takes longer than a copy of so many bytes.
///
/// All lengths and offsets are in bytes, multiples of 512 where a whole request is concerned; a request that is cut
/// comes in pieces of any length.
pub trait Inline: Send {
    /// Copies the data from `at` on into `to`, which is in the driver's memory, completely.
    ///
    /// # Errors
    /// The request is answered with an I/O error.
    fn read(&mut self, at: u64, to: &Bytes<'_>) -> io::Result<()>;

    /// Copies `from`, which is in the driver's memory, to the data from `at` on.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    fn write(&mut self, at: u64, from: &Bytes<'_>) -> io::Result<()>;

    /// Has `len` bytes from `at` on read as zeroes.
    ///
    /// * `unmap`: whether their memory may be given up
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    fn zero(&mut self, at: u64, len: u64, unmap: bool) -> io::Result<()>;

    /// `len` bytes from `at` on are of no interest any more.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    fn discard(&mut self, at: u64, len: u64) -> io::Result<()>;

    /// Destroys `len` bytes from `at` on for good.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    fn erase(&mut self, at: u64, len: u64) -> io::Result<()> {
        self.zero(at, len, false)
    }

    /// What was written before is durable on return. Called for a flush, and in writethrough mode after each change.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    fn flush(&mut self) -> io::Result<()>;
}

/// Data that takes time to get at.
pub trait Queued: Send {
    /// Takes a job, to be begun with [`begin`](Self::begin).
    fn submit(&mut self, job: Parcel);

    /// Begins what was submitted since the last time: once a pass, outside sections.
    fn begin(&mut self);

    /// Moves up to `room` jobs that are done to `done`, in any order. No system call, unless there is something to do.
    fn poll(&mut self, done: &mut Vec<Parcel>, room: usize);

    /// Whether something was submitted that could not be begun yet.
    fn is_waiting(&mut self) -> bool {
        false
    }

    /// Files whose readiness says that jobs are done.
    fn sources(&self) -> Vec<Arc<OwnedFd>> {
        Vec::new()
    }
}

/// Data that cannot be got at: every request fails.
pub(super) struct Nothing;

impl Inline for Nothing {
    fn read(&mut self, _: u64, _: &Bytes<'_>) -> io::Result<()> {
        Err(io::ErrorKind::ResourceBusy.into())
    }

    fn write(&mut self, _: u64, _: &Bytes<'_>) -> io::Result<()> {
        Err(io::ErrorKind::ResourceBusy.into())
    }

    fn zero(&mut self, _: u64, _: u64, _: bool) -> io::Result<()> {
        Err(io::ErrorKind::ResourceBusy.into())
    }

    fn discard(&mut self, _: u64, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ResourceBusy.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::ResourceBusy.into())
    }
}

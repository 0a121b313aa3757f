//! The way to a file through io_uring: requests are put into a ring shared with the kernel, and their completions are
//! found in another one without a system call.
#![allow(
    unsafe_code,
    reason = "the kernel reads and writes memory at the addresses in the requests"
)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::types::{Fd, FsyncFlags};
use io_uring::{IoUring, opcode, squeue};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::File;
use crate::blk::backend::Queued;
use crate::blk::iov::Iov;
use crate::blk::job::{Ask, Job, Parcel};

/// How long a queue that is closed waits for the kernel to end what is under way. The kernel has the memory of what has
/// not ended then: it is never released.
const PATIENCE: Duration = Duration::from_secs(30);

/// A job, and what was asked for it.
type Asked = (Parcel, Ask);

/// The ring of one queue.
pub(super) struct Uring {
    ring: IoUring,
    event: Arc<OwnedFd>,
    file: Arc<File>,
    /// The jobs under way, each with what was asked for it last.
    jobs: Box<[Option<Asked>]>,
    under_way: usize,
    /// Jobs that are done without having asked for anything.
    idle: Vec<Parcel>,
}

impl Uring {
    /// A ring for `depth` jobs.
    ///
    /// # Errors
    /// When the system has no io_uring, or refuses it.
    pub(super) fn new(file: &Arc<File>, depth: usize) -> io::Result<Self> {
        let entries = u32::try_from(depth.next_power_of_two()).unwrap_or(u32::MAX);
        let ring = IoUring::new(entries)?;
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let event: OwnedFd = EventFd::from_flags(flags)?.into();
        ring.submitter().register_eventfd(event.as_raw_fd())?;
        Ok(Self {
            ring,
            event: Arc::new(event),
            file: Arc::clone(file),
            jobs: (0..depth).map(|_| None).collect(),
            under_way: 0,
            idle: Vec::with_capacity(depth),
        })
    }

    /// Puts what the job needs next into the ring, or the job to those that are done.
    fn advance(&mut self, mut job: Parcel) {
        let slot = job.slot;
        let Some(ask) = job.next() else {
            return self.idle.push(job);
        };
        let entry = self.entry(&job, &ask).user_data(slot as u64);
        let Some(place) = self.jobs.get_mut(slot).filter(|place| place.is_none()) else {
            // A queue has no more slots than there are places.
            job.fail(io::ErrorKind::InvalidInput.into());
            return self.idle.push(job);
        };
        let mut pushed = push(&mut self.ring, &entry);
        if pushed.is_err() {
            // Full: what is in it goes first.
            let _later = self.ring.submit();
            pushed = push(&mut self.ring, &entry);
        }
        if pushed.is_err() {
            job.fail(io::ErrorKind::ResourceBusy.into());
            return self.idle.push(job);
        }
        *place = Some((job, ask));
        self.under_way = self.under_way.saturating_add(1);
    }

    fn entry(&self, job: &Job, ask: &Ask) -> squeue::Entry {
        let fd = Fd(self.file.fd().as_raw_fd());
        let pieces = Iov::raw(job.pieces());
        match *ask {
            // At most 1024.
            Ask::Read { at, count } => opcode::Readv::new(fd, pieces, count as u32)
                .offset(at)
                .build(),
            Ask::Write { at, count } => {
                let flags = if job.is_stable() { libc::RWF_DSYNC } else { 0 };
                opcode::Writev::new(fd, pieces, count as u32)
                    .offset(at)
                    .rw_flags(flags)
                    .build()
            }
            Ask::Allocate { mode, extent } => opcode::Fallocate::new(fd, extent.len)
                .offset(extent.at)
                .mode(mode)
                .build(),
            Ask::Sync => opcode::Fsync::new(fd).flags(FsyncFlags::DATASYNC).build(),
        }
    }

    /// Takes up to `room` completions, and lets their jobs go on.
    fn reap(&mut self, room: usize) {
        for _ in 0..room {
            // One at a time: what a job needs next goes into the same ring.
            let Some(entry) = self.ring.completion().next() else {
                return;
            };
            let slot = usize::try_from(entry.user_data()).unwrap_or(usize::MAX);
            let found = self.jobs.get_mut(slot).and_then(Option::take);
            if let Some((mut job, ask)) = found {
                self.under_way = self.under_way.saturating_sub(1);
                job.answer(&ask, entry.result().into());
                self.advance(job);
            }
        }
    }
}

/// Puts a request into the ring.
pub(super) fn push(ring: &mut IoUring, entry: &squeue::Entry) -> Result<(), squeue::PushError> {
    // SAFETY: the pieces are in the job, which stays where it is, with what it holds mapped, until the completion is
    // taken; the file is open as long as the ring.
    unsafe { ring.submission().push(entry) }
}

impl Queued for Uring {
    fn submit(&mut self, job: Parcel) {
        self.advance(job);
    }

    fn begin(&mut self) {
        if self.is_waiting() {
            // What the kernel does not take now it is given with the next pass.
            let _later = self.ring.submit();
        }
    }

    fn poll(&mut self, done: &mut Vec<Parcel>, room: usize) {
        if self.under_way != 0 {
            self.reap(room);
        }
        let count = room.min(self.idle.len());
        done.extend(self.idle.drain(..count));
    }

    fn is_waiting(&mut self) -> bool {
        !self.ring.submission().is_empty()
    }

    fn sources(&self) -> Vec<Arc<OwnedFd>> {
        vec![Arc::clone(&self.event)]
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        let by = Instant::now().checked_add(PATIENCE);
        while self.under_way != 0 && by.is_none_or(|by| Instant::now() < by) {
            let _again = self.ring.submit();
            self.reap(usize::MAX);
            if self.under_way != 0 {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        if self.under_way != 0 {
            tracing::warn!(
                "{} requests did not end: their memory stays mapped",
                self.under_way
            );
            // The kernel may still write there.
            std::mem::forget(std::mem::take(&mut self.jobs));
        }
    }
}

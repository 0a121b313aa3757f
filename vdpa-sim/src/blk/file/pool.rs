//! The way to a file where io_uring is refused: threads of the backend's own, which may block.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use nix::fcntl::{FallocateFlags, fallocate};
use nix::unistd::fdatasync;
use vdpa_core::Bell;

use super::File;
use crate::blk::backend::Queued;
use crate::blk::iov::{preadv, pwritev};
use crate::blk::job::{Ask, Job, Parcel};
use crate::shared::lock;

/// The threads of a disk.
pub(super) struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    work: Mutex<Work>,
    there: Condvar,
}

#[derive(Default)]
struct Work {
    jobs: VecDeque<(Parcel, Arc<Outbox>)>,
    closing: bool,
}

/// Where the jobs of one queue come back to.
struct Outbox {
    jobs: Mutex<Vec<Parcel>>,
    /// How many there are: looked at without the lock.
    count: AtomicUsize,
    bell: Arc<Bell>,
}

impl Pool {
    /// `count` threads that work on `file`.
    ///
    /// # Errors
    /// When the system has none left.
    pub(super) fn new(file: &Arc<File>, name: &str, count: usize) -> io::Result<Self> {
        let mut pool = Self {
            shared: Arc::new(Shared {
                work: Mutex::default(),
                there: Condvar::new(),
            }),
            threads: Vec::new(),
        };
        for number in 0..count {
            let (shared, file) = (Arc::clone(&pool.shared), Arc::clone(file));
            let thread = std::thread::Builder::new()
                .name(format!("{name}-io-{number}"))
                .spawn(move || shared.run(&file))?;
            pool.threads.push(thread);
        }
        Ok(pool)
    }

    /// The way of one queue to them.
    pub(super) fn lane(&self, depth: usize, bell: &Arc<Bell>) -> PoolLane {
        PoolLane {
            shared: Arc::clone(&self.shared),
            outbox: Arc::new(Outbox {
                jobs: Mutex::new(Vec::with_capacity(depth)),
                count: AtomicUsize::new(0),
                bell: Arc::clone(bell),
            }),
            waiting: Vec::with_capacity(depth),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        lock(&self.shared.work).closing = true;
        self.shared.there.notify_all();
        for thread in self.threads.drain(..) {
            let _panicked = thread.join();
        }
    }
}

impl Shared {
    fn run(&self, file: &File) {
        while let Some((mut job, outbox)) = self.take() {
            while let Some(ask) = job.next() {
                let answer = carry_out(file, &job, &ask);
                job.answer(&ask, answer);
            }
            lock(&outbox.jobs).push(job);
            // Release pairs with the acquire in `poll`: who sees the count finds the job.
            outbox.count.fetch_add(1, Ordering::Release);
            outbox.bell.ring();
        }
    }

    fn take(&self) -> Option<(Parcel, Arc<Outbox>)> {
        let mut work = lock(&self.work);
        loop {
            if let Some(job) = work.jobs.pop_front() {
                return Some(job);
            }
            if work.closing {
                return None;
            }
            work = self
                .there
                .wait(work)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Asks the system. Answers with what was done, or the error number negated.
fn carry_out(file: &File, job: &Job, ask: &Ask) -> i64 {
    let fd = file.fd();
    let pieces = |count| job.pieces().get(..count).unwrap_or_default();
    let done = |done: nix::Result<()>| match done {
        Ok(()) => 0,
        Err(e) => i64::from(e as i32).wrapping_neg(),
    };
    match *ask {
        Ask::Read { at, count } => preadv(fd, pieces(count), at),
        Ask::Write { at, count } => pwritev(fd, pieces(count), at, job.is_stable()),
        Ask::Allocate { mode, extent } => {
            let flags = FallocateFlags::from_bits_retain(mode);
            let (Ok(at), Ok(len)) = (i64::try_from(extent.at), i64::try_from(extent.len)) else {
                return i64::from(libc::EFBIG).wrapping_neg();
            };
            done(fallocate(fd, flags, at, len))
        }
        Ask::Sync => done(fdatasync(fd)),
    }
}

/// The way of one queue to the threads.
pub(super) struct PoolLane {
    shared: Arc<Shared>,
    outbox: Arc<Outbox>,
    waiting: Vec<Parcel>,
}

impl Queued for PoolLane {
    fn submit(&mut self, job: Parcel) {
        self.waiting.push(job);
    }

    fn begin(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let count = self.waiting.len();
        let mut work = lock(&self.shared.work);
        let jobs = self.waiting.drain(..);
        work.jobs
            .extend(jobs.map(|job| (job, Arc::clone(&self.outbox))));
        drop(work);
        match count {
            1 => self.shared.there.notify_one(),
            _ => self.shared.there.notify_all(),
        }
    }

    fn poll(&mut self, done: &mut Vec<Parcel>, room: usize) {
        // Acquire pairs with the release of the thread that was done.
        if self.outbox.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut jobs = lock(&self.outbox.jobs);
        let count = room.min(jobs.len());
        done.extend(jobs.drain(..count));
        self.outbox.count.fetch_sub(count, Ordering::Relaxed);
    }
}

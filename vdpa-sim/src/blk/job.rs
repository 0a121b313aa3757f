//! A request on its way through a backend that takes time: what to ask the system for next, and what its answer means.
//!
//! ```text
//!   next ─▶ preadv │ pwritev │ fallocate │ fdatasync ─▶ answer ─▶ next ─▶ ... ─▶ nothing more: done, or failed
//! ```
//! It is the same for every way to the system, and touches no file: short transfers go on where they stopped, holes that
//! a file system cannot punch are written as zeroes, and what has to be durable ends with fdatasync.

use std::io;

use vdpa_mem::Hold;

use super::iov::{Iov, MOST, ZEROES};

/// What a job does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Copies data to the driver.
    Read,
    /// Copies data from the driver.
    Write,
    /// Makes what was written before durable.
    Flush,
    /// Has ranges read as zeroes; `unmap`: their storage may be given up.
    Zero {
        /// Whether it may.
        unmap: bool,
    },
    /// Gives the storage of ranges up, if it can.
    Discard,
    /// Overwrites ranges, for good.
    Erase,
}

/// A part of the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// The first byte.
    pub at: u64,
    /// How many bytes.
    pub len: u64,
}

/// What the system is to be asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// The first `count` pieces are to be read, from `at` on.
    Read { at: u64, count: usize },
    /// The first `count` pieces are to be written, from `at` on.
    Write { at: u64, count: usize },
    /// `fallocate` with this mode.
    Allocate { mode: i32, extent: Extent },
    /// `fdatasync`.
    Sync,
}

/// How a range becomes zeroes: the first way that the file takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Punch,
    ZeroRange,
    Write,
}

pub(super) const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
pub(super) const ZERO_RANGE: i32 = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;

/// Pieces of zeroes in one write: 1 MiB.
const ZERO_PIECES: usize = 16;

/// How often in a row the system may say "again" before that counts as a failure.
const PATIENCE: u32 = 1000;

/// One request. Boxes of them go back and forth between a queue and its lane, and are used again.
pub struct Job {
    pub(super) slot: usize,
    action: Action,
    stable: bool,
    extents: Vec<Extent>,
    /// Keeps the memory behind `iovs` mapped until the job is done.
    holds: Vec<Hold>,
    iovs: Vec<Iov>,
    /// The first piece that is not transferred completely.
    piece: usize,
    /// Which extent it is at, and how many bytes of it are done.
    extent: usize,
    done: u64,
    way: Way,
    synced: bool,
    again: u32,
    failed: Option<io::Error>,
}

/// A job as it goes from hand to hand.
pub type Parcel = Box<Job>;

impl Default for Job {
    fn default() -> Self {
        Self {
            slot: 0,
            action: Action::Flush,
            stable: false,
            extents: Vec::with_capacity(1),
            holds: Vec::new(),
            iovs: Vec::new(),
            piece: 0,
            extent: 0,
            done: 0,
            way: Way::Write,
            synced: false,
            again: 0,
            failed: None,
        }
    }
}

impl Job {
    /// What it does.
    pub fn action(&self) -> Action {
        self.action
    }

    /// Which parts of the disk it is about.
    pub fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// Whether its effect has to be durable when it is done.
    pub fn is_stable(&self) -> bool {
        self.stable
    }

    /// Why it failed, if it did.
    pub fn failure(&self) -> Option<&io::Error> {
        self.failed.as_ref()
    }

    /// Ends it with an error, whatever is left of it.
    pub fn fail(&mut self, why: io::Error) {
        self.failed.get_or_insert(why);
    }

    /// Makes a new job of it.
    pub(super) fn begin(&mut self, slot: usize, action: Action, stable: bool) {
        self.slot = slot;
        self.action = action;
        self.stable = stable;
        self.extents.clear();
        self.iovs.clear();
        self.piece = 0;
        self.extent = 0;
        self.done = 0;
        self.synced = false;
        self.again = 0;
        self.failed = None;
        self.way = match action {
            Action::Zero { unmap: false } => Way::ZeroRange,
            Action::Zero { unmap: true } | Action::Discard => Way::Punch,
            _ => Way::Write,
        };
    }

    /// One more part of the disk.
    pub(super) fn extend(&mut self, extent: Extent) {
        self.extents.push(extent);
    }

    /// One more piece of the driver's memory.
    pub(super) fn hold(&mut self, hold: Hold) {
        self.iovs.push(Iov::of(&hold.bytes()));
        self.holds.push(hold);
    }

    /// Tells the dirty log what was written to the driver's memory, and lets go of it. Answers with the bytes written.
    pub(super) fn release(&mut self) -> u64 {
        let written = match self.action {
            Action::Read => self.done,
            _ => 0,
        };
        let mut left = written;
        for hold in self.holds.drain(..) {
            let here = left.min(hold.bytes().len() as u64);
            hold.wrote(here);
            left = left.saturating_sub(here);
        }
        self.iovs.clear();
        written
    }

    /// The pieces that are to be transferred next.
    pub(super) fn pieces(&self) -> &[Iov] {
        self.iovs.get(self.piece..).unwrap_or_default()
    }

    /// What the system is to be asked for next; `None` when there is nothing more to do.
    pub(super) fn next(&mut self) -> Option<Ask> {
        if self.failed.is_some() {
            return None;
        }
        while let Some(&Extent { at, len }) = self.extents.get(self.extent) {
            let left = len.saturating_sub(self.done);
            if left == 0 {
                // The bytes done of the one extent of a read are asked for later.
                if self.extents.len() == 1 {
                    self.extent = 1;
                    break;
                }
                self.extent = self.extent.saturating_add(1);
                self.done = 0;
                continue;
            }
            let at = at.saturating_add(self.done);
            let count = self.pieces().len().min(MOST);
            return Some(match (self.action, self.way) {
                (Action::Read, _) => Ask::Read { at, count },
                (Action::Write, _) => Ask::Write { at, count },
                (_, Way::Punch) => Ask::Allocate {
                    mode: PUNCH,
                    extent: Extent { at, len: left },
                },
                (_, Way::ZeroRange) => Ask::Allocate {
                    mode: ZERO_RANGE,
                    extent: Extent { at, len: left },
                },
                (_, Way::Write) => {
                    let count = self.zeroes(left);
                    Ask::Write { at, count }
                }
            });
        }
        let sync = match self.action {
            Action::Flush | Action::Erase => true,
            Action::Zero { .. } | Action::Discard => self.stable,
            // Written so that it is durable.
            Action::Read | Action::Write => false,
        };
        (sync && !self.synced).then_some(Ask::Sync)
    }

    /// Makes the pieces `len` zeroes, or as many as go into one write.
    fn zeroes(&mut self, len: u64) -> usize {
        self.iovs.clear();
        self.piece = 0;
        let mut left = len;
        while left != 0 && self.iovs.len() < ZERO_PIECES {
            let here = left.min(ZEROES);
            self.iovs.push(Iov::zeroes(here));
            left = left.saturating_sub(here);
        }
        self.iovs.len()
    }

    /// The system's answer to what [`next`](Self::next) said: what was done, or an error number negated.
    pub(super) fn answer(&mut self, ask: &Ask, answer: i64) {
        let Ok(done) = u64::try_from(answer) else {
            let number = i32::try_from(answer.wrapping_neg()).unwrap_or(libc::EIO);
            return self.refused(ask, number);
        };
        self.again = 0;
        match ask {
            Ask::Sync => self.synced = true,
            Ask::Allocate { extent, .. } => self.done = self.done.saturating_add(extent.len),
            // The file ends before the disk does: it was cut under us.
            Ask::Read { .. } if done == 0 => self.fail(io::ErrorKind::UnexpectedEof.into()),
            Ask::Write { .. } if done == 0 => self.fail(io::ErrorKind::WriteZero.into()),
            Ask::Read { .. } | Ask::Write { .. } => {
                self.done = self.done.saturating_add(done);
                self.advance(done);
            }
        }
    }

    /// `done` more bytes are transferred.
    fn advance(&mut self, done: u64) {
        let mut left = usize::try_from(done).unwrap_or(usize::MAX);
        while let Some(iov) = self.iovs.get_mut(self.piece) {
            let here = iov.len().min(left);
            iov.advance(here);
            left = left.saturating_sub(here);
            if iov.len() != 0 {
                break;
            }
            self.piece = self.piece.saturating_add(1);
        }
    }

    fn refused(&mut self, ask: &Ask, number: i32) {
        match number {
            libc::EINTR | libc::EAGAIN if self.again < PATIENCE => {
                self.again = self.again.saturating_add(1);
            }
            libc::EOPNOTSUPP | libc::ENOSYS if matches!(ask, Ask::Allocate { .. }) => {
                match (self.action, self.way) {
                    // Nobody has to give storage up.
                    (Action::Discard, _) => self.extent = self.extents.len(),
                    (_, Way::Punch) => self.way = Way::ZeroRange,
                    _ => self.way = Way::Write,
                }
            }
            number => self.fail(io::Error::from_raw_os_error(number)),
        }
    }
}

#[cfg(test)]
mod tests;

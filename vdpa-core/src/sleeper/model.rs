//! Sleeping in a model: an eventfd is a flag that is waited for.

use std::os::fd::BorrowedFd;

use loom::sync::{Condvar, Mutex};
use vdpa_mem::Deadline;

use crate::Result;

pub(super) struct Waker {
    written: Mutex<bool>,
    readable: Condvar,
}

impl Waker {
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            written: Mutex::new(false),
            readable: Condvar::new(),
        })
    }

    pub(super) fn wake(&self) {
        *self.written.lock().unwrap() = true;
        self.readable.notify_one();
    }

    /// Never returns by itself: a lost wake-up is a deadlock, which the model checker reports.
    pub(super) fn wait(&self, _by: Option<Deadline>, _ready: impl FnMut(u64)) -> Result<()> {
        let mut written = self.written.lock().unwrap();
        while !*written {
            written = self.readable.wait(written).unwrap();
        }
        *written = false;
        Ok(())
    }

    pub(super) fn watch(&self, _file: BorrowedFd<'_>, _token: u64) -> Result<()> {
        Ok(())
    }

    pub(super) fn unwatch(&self, _file: BorrowedFd<'_>) -> Result<()> {
        Ok(())
    }
}

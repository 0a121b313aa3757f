//! What servers tell the one thread that prints: as much as fits, since that thread may have to wait for whoever reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use vdpa::export::vhost_user::{EndedBy, ServerError};

use super::event::Told;

/// How many events may wait to be printed, of all devices. A front end that comes and goes in a loop makes thousands a
/// second.
const WAITING: usize = 1024;

/// What the main thread is told.
pub(super) enum News {
    /// By the server of this number.
    Told(usize, Told),
    /// The server of this number has ended.
    Ended(usize, Result<EndedBy, ServerError>),
    /// A signal asks for the end.
    Signal,
    /// A signal asks to look at the images again.
    Look,
}

/// The way to the main thread.
pub(super) fn channel() -> (SyncSender<News>, Receiver<News>) {
    sync_channel(WAITING)
}

/// What a server has told, whether it was printed or not.
#[derive(Default, Debug)]
pub(super) struct Tally {
    front_ends: AtomicU64,
    cut_off: AtomicU64,
    missed: AtomicU64,
}

impl Tally {
    /// How many front ends came.
    pub(super) fn front_ends(&self) -> u64 {
        self.front_ends.load(Ordering::Relaxed)
    }

    /// How many of them were cut off.
    pub(super) fn cut_off(&self) -> u64 {
        self.cut_off.load(Ordering::Relaxed)
    }

    /// How many events were dropped since this was asked last.
    pub(super) fn take_missed(&self) -> u64 {
        self.missed.swap(0, Ordering::Relaxed)
    }
}

/// A server's way to the main thread. Nobody waits for that.
pub(super) struct Teller {
    number: usize,
    sender: SyncSender<News>,
    tally: Arc<Tally>,
}

impl Teller {
    /// * `number`: of the server
    pub(super) fn new(number: usize, sender: SyncSender<News>) -> Self {
        let tally = Arc::default();
        Self {
            number,
            sender,
            tally,
        }
    }

    /// What it tells, counted.
    pub(super) fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.tally)
    }

    /// Counts it, and tells it if there is room.
    pub(super) fn tell(&self, told: Told) {
        let count = |what: &AtomicU64| what.fetch_add(1, Ordering::Relaxed);
        match &told {
            Told::Connected { .. } => _ = count(&self.tally.front_ends),
            Told::CutOff { .. } => _ = count(&self.tally.cut_off),
            _ => {}
        }
        // At the end there is nobody left to tell either.
        if self.sender.try_send(News::Told(self.number, told)).is_err() {
            count(&self.tally.missed);
        }
    }
}

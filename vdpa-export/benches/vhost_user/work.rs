//! What an end in a child is told to do with packets, and what it has done.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::stamp::Seen;

/// What an end does with packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Work {
    /// Nothing.
    Idle,
    /// Takes what comes, and looks at it.
    Sink,
    /// Sends frames of so many bytes.
    Source(usize),
    /// Sends one frame of so many bytes, and the next when that has come back: a driver.
    Ping(usize),
    /// Sends what comes back: a device.
    Reflect,
}

/// How long the working thread may take to see an order: before its queues run it sees none.
const PATIENCE: Duration = Duration::from_secs(5);

/// The orders of an end, and its counts, between the thread that is told and the one that works.
#[derive(Default)]
pub(crate) struct Orders {
    /// Kind and length; changes with each order, so that the same one again is seen.
    order: AtomicU64,
    /// The last one that the working thread has seen.
    obeyed: AtomicU64,
    sent: AtomicU64,
    packets: AtomicU64,
    bad: AtomicU64,
    missing: AtomicU64,
    /// Of round trips, in nanoseconds.
    pub(crate) trips: Mutex<Vec<u32>>,
}

impl Orders {
    /// Carries out a line of [`child`](super::child)'s, but for those that it does not know. `changed`: there is a new
    /// order.
    pub(crate) fn obey(&self, words: &[&str], changed: impl FnOnce()) -> String {
        let len = || words.get(1).and_then(|len| len.parse().ok()).unwrap_or(64);
        let work = match *words {
            ["idle"] => Work::Idle,
            ["sink"] => Work::Sink,
            ["source", _] => Work::Source(len()),
            ["ping", _] => Work::Ping(len()),
            ["reflect"] => Work::Reflect,
            ["counts"] => return self.counts(),
            ["trips"] => return self.percentiles(),
            _ => return "unknown".to_owned(),
        };
        self.set(work);
        changed();
        // What is counted from here on belongs to the new order.
        let by = Instant::now() + PATIENCE;
        while self.obeyed.load(Ordering::Acquire) != self.order.load(Ordering::Relaxed) {
            if Instant::now() > by {
                return "not obeyed".to_owned();
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        "done".to_owned()
    }

    fn set(&self, work: Work) {
        let (kind, len) = match work {
            Work::Idle => (0, 0),
            Work::Sink => (1, 0),
            Work::Source(len) => (2, len),
            Work::Ping(len) => (3, len),
            Work::Reflect => (4, 0),
        };
        let number = (self.order.load(Ordering::Relaxed) >> 32).wrapping_add(1);
        self.order
            .store(number << 32 | (len as u64) << 8 | kind, Ordering::Release);
    }

    /// What is to be done, as a word that differs from one order to the next.
    #[inline]
    pub(crate) fn word(&self) -> u64 {
        self.order.load(Ordering::Acquire)
    }

    /// The working thread has seen the order `word`, and has reported what it did before.
    pub(crate) fn acknowledge(&self, word: u64) {
        self.obeyed.store(word, Ordering::Release);
    }

    /// What a word says.
    pub(crate) fn work(word: u64) -> Work {
        let len = (word >> 8 & 0xffff) as usize;
        match word & 0xff {
            1 => Work::Sink,
            2 => Work::Source(len),
            3 => Work::Ping(len),
            4 => Work::Reflect,
            _ => Work::Idle,
        }
    }

    /// Publishes what the working thread has done since the last order.
    #[inline]
    pub(crate) fn report(&self, sent: u64, seen: Seen) {
        self.sent.store(sent, Ordering::Relaxed);
        self.packets.store(seen.packets, Ordering::Relaxed);
        self.bad.store(seen.bad, Ordering::Relaxed);
        self.missing.store(seen.missing, Ordering::Relaxed);
    }

    fn counts(&self) -> String {
        let [sent, packets, bad, missing] = [&self.sent, &self.packets, &self.bad, &self.missing]
            .map(|count| count.load(Ordering::Relaxed));
        format!("{sent} {packets} {bad} {missing}")
    }

    fn percentiles(&self) -> String {
        let mut trips = match self.trips.lock() {
            Ok(mut trips) => std::mem::take(&mut *trips),
            Err(_) => Vec::new(),
        };
        trips.sort_unstable();
        let at = |hundredth: usize| trips.get(trips.len() * hundredth / 100).copied();
        let [p50, p99] = [50, 99].map(|hundredth| at(hundredth).unwrap_or(0));
        format!("{} {p50} {p99}", trips.len())
    }
}

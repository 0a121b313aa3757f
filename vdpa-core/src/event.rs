//! What a device tells its owner: one channel, with a file descriptor.

use std::collections::VecDeque;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use vdpa_mem::{Access, Deadline, Iova};

use crate::{Asid, Error, ErrorKind, QueueIndex, Result, fd};

/// Something that happened to a device.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// Configuration space changed.
    Config,
    /// The device set DEVICE_NEEDS_RESET: it goes on only after a reset.
    NeedsReset {
        /// The queue that it lost, if it was one.
        queue: Option<QueueIndex>,
        /// What was wrong.
        why: String,
    },
    /// The device wants an address that is not mapped, and can wait for it. Only from devices that can miss. Told once,
    /// and again where something was unmapped before the device came to look, which may be what was asked for: whoever
    /// answers knows what is mapped by now.
    Miss {
        /// In which address space.
        asid: Asid,
        /// Where.
        at: Iova,
        /// What for.
        want: Access,
    },
    /// The device used an address that it may not use.
    Fault {
        /// In which address space.
        asid: Asid,
        /// Where.
        at: Iova,
        /// What for.
        want: Access,
    },
    /// The parent asks the owner to let go of the device.
    RemoveRequested,
    /// The device does not answer as it must; nothing but closing it helps.
    Broken {
        /// What it did.
        why: String,
    },
    /// The device is gone.
    Gone,
}

impl Event {
    /// Whether one of these that waits to be read says all that a second one would.
    fn covers(&self, later: &Event) -> bool {
        match (self, later) {
            (Event::NeedsReset { queue: a, .. }, Event::NeedsReset { queue: b, .. }) => a == b,
            (Event::Broken { .. }, Event::Broken { .. }) => true,
            _ => self == later,
        }
    }

    /// Of which kind it is, if that kind comes in unbounded variety, as often as a hostile driver likes.
    fn flood(&self) -> Option<Flood> {
        match self {
            Event::Miss { .. } => Some(Flood::Misses),
            Event::Fault { .. } => Some(Flood::Faults),
            _ => None,
        }
    }
}

/// The kinds of which a bounded number waits. Each has its own bound: a flood of faults hides no miss, for which a queue
/// waits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flood {
    Misses,
    Faults,
}

/// Where a device reports. Raising never blocks, and is never done under a lock of the data path.
pub trait EventSink: Send + Sync {
    /// Reports `event`. One that says nothing new is dropped.
    fn raise(&self, event: Event);
}

/// How many misses, and how many faults, wait at most to be read; the rest is counted. A queue waits for one miss at a
/// time, so that all of a device's find room.
const MANY: usize = 512;

/// The channel between a device and its owner.
pub(crate) struct Channel {
    waiting: Mutex<VecDeque<Event>>,
    readable: OwnedFd,
    dropped: AtomicU64,
    needs_reset: AtomicBool,
    broken: AtomicBool,
    gone: AtomicBool,
    taken: AtomicBool,
}

impl Channel {
    pub(crate) fn new() -> Result<Arc<Self>> {
        Ok(Arc::new(Self {
            waiting: Mutex::default(),
            readable: fd::eventfd()?,
            dropped: AtomicU64::new(0),
            needs_reset: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            taken: AtomicBool::new(false),
        }))
    }

    /// The reading end, once.
    pub(crate) fn take(self: &Arc<Self>) -> Result<Events> {
        if self.taken.swap(true, Ordering::Relaxed) {
            return Err(Error::Taken { what: "events" });
        }
        Ok(Events(Arc::clone(self)))
    }

    /// The error that every call answers once the device is lost.
    pub(crate) fn check(&self) -> Result<()> {
        if self.gone.load(Ordering::Acquire) {
            return Err(Error::Gone);
        }
        if self.broken.load(Ordering::Acquire) {
            return Err(Error::Broken);
        }
        Ok(())
    }

    /// Takes note of an error of the parent's that says that the device is lost, and gives the one that every call answers
    /// from then on.
    pub(crate) fn heard(&self, error: Error) -> Error {
        if error.kind() != ErrorKind::Gone {
            return error;
        }
        if self.check().is_ok() {
            self.raise(match error {
                Error::Broken => Event::Broken {
                    why: "its parent says so".to_owned(),
                },
                _ => Event::Gone,
            });
        }
        self.check().err().unwrap_or(error)
    }

    /// Whether the device reported that it needs a reset, since the last one.
    pub(crate) fn needs_reset(&self) -> bool {
        self.needs_reset.load(Ordering::Acquire)
    }

    /// A reset is complete. What was reported before it stays to be read.
    pub(crate) fn forget_needs_reset(&self) {
        self.needs_reset.store(false, Ordering::Release);
    }
}

impl EventSink for Channel {
    fn raise(&self, event: Event) {
        match &event {
            Event::NeedsReset { .. } => self.needs_reset.store(true, Ordering::Release),
            Event::Broken { .. } => self.broken.store(true, Ordering::Release),
            // Told once: it does not come back.
            Event::Gone if self.gone.swap(true, Ordering::AcqRel) => return,
            _ => {}
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.iter().any(|w| w.covers(&event)) {
            return;
        }
        // The others are bounded by their kinds and the number of queues.
        let kind = event.flood();
        if kind.is_some() && waiting.iter().filter(|w| w.flood() == kind).count() >= MANY {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.push_back(event);
        drop(waiting);
        fd::signal(self.readable.as_fd());
    }
}

/// The owner's end of a device's event channel: readable, by [`AsFd`], while events wait.
///
/// Events of one kind that say the same are reported once until they are read. At most 512 misses and 512 faults
/// wait; the others always find room.
pub struct Events(Arc<Channel>);

impl Events {
    /// The next event, if one waits.
    pub fn try_next(&self) -> Option<Event> {
        let waiting = || {
            self.0
                .waiting
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        if let Some(event) = waiting().pop_front() {
            return Some(event);
        }
        // Drained before the second look: an event raised in between signals again.
        fd::drain(self.0.readable.as_fd());
        let next = waiting().pop_front();
        if next.is_some() {
            fd::signal(self.0.readable.as_fd());
        }
        next
    }

    /// Whether the device needs a reset at this moment. An [`Event::NeedsReset`] that is read while it does not was
    /// reported before a reset that is complete.
    pub fn needs_reset(&self) -> bool {
        self.0.needs_reset()
    }

    /// The next event, or `None` if the deadline passes first.
    ///
    /// # Errors
    /// When the system cannot wait.
    pub fn wait(&self, by: Deadline) -> Result<Option<Event>> {
        loop {
            if let Some(event) = self.try_next() {
                return Ok(Some(event));
            }
            if !fd::wait_readable(self.0.readable.as_fd(), by)? {
                return Ok(None);
            }
        }
    }

    /// How many misses and faults found no room so far.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.readable.as_fd()
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::time::Duration;

    fn now() -> Deadline {
        Deadline::after(Duration::ZERO)
    }

    #[test]
    fn the_same_event_waits_once_and_the_fd_follows() {
        let channel = Channel::new().unwrap();
        let events = channel.take().unwrap();
        assert!(channel.take().is_err());
        assert_eq!(events.wait(now()).unwrap(), None);
        channel.raise(Event::Config);
        channel.raise(Event::Config);
        let lost = |queue, why: &str| Event::NeedsReset {
            queue: Some(QueueIndex::new(queue)),
            why: why.to_owned(),
        };
        channel.raise(lost(1, "first"));
        channel.raise(lost(1, "second"));
        channel.raise(lost(2, "other"));
        assert!(fd::wait_readable(events.as_fd(), now()).unwrap());
        assert_eq!(events.try_next(), Some(Event::Config));
        assert_eq!(events.try_next(), Some(lost(1, "first")));
        assert_eq!(events.try_next(), Some(lost(2, "other")));
        assert_eq!(events.try_next(), None);
        assert!(!fd::wait_readable(events.as_fd(), now()).unwrap());
        channel.raise(Event::Config);
        assert_eq!(events.wait(now()).unwrap(), Some(Event::Config));
    }

    #[test]
    fn a_need_for_a_reset_that_is_read_after_the_reset_is_told_from_one_of_now() {
        let channel = Channel::new().unwrap();
        let events = channel.take().unwrap();
        let lost = || Event::NeedsReset {
            queue: None,
            why: String::new(),
        };
        channel.raise(lost());
        assert!(events.needs_reset());
        channel.forget_needs_reset();
        assert_eq!(events.try_next(), Some(lost()));
        assert!(!events.needs_reset());
        channel.raise(lost());
        assert!(events.needs_reset());
    }

    #[test]
    fn a_flood_of_faults_is_bounded_and_hides_nothing_else() {
        let channel = Channel::new().unwrap();
        let events = channel.take().unwrap();
        for at in 0..1000 {
            channel.raise(Event::Fault {
                asid: Asid::new(0),
                at: Iova::new(at),
                want: Access::DeviceReads,
            });
        }
        let miss = Event::Miss {
            asid: Asid::new(0),
            at: Iova::new(0),
            want: Access::DeviceReads,
        };
        channel.raise(miss.clone());
        channel.raise(Event::Gone);
        assert_eq!(events.dropped(), 1000 - MANY as u64);
        let all: Vec<_> = std::iter::from_fn(|| events.try_next()).collect();
        assert_eq!(all.len(), MANY + 2);
        assert!(all.contains(&miss), "a queue waits for it");
        assert_eq!(all.last(), Some(&Event::Gone));
        assert!(matches!(channel.check(), Err(Error::Gone)));
    }
}

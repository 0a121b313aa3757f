//! What control calls and workers share: the status byte, the class, and how what was begun came out.

use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use vdpa_core::{CallCell, Event, EventSink, Features, Status};
use vdpa_mem::Window;
use vdpa_ring::QueueState;

use crate::class::Class;

/// What a queue is, as control calls see it.
#[derive(Default)]
pub(crate) struct Record {
    /// Its call, while it is started.
    pub(crate) call: Option<Arc<CallCell>>,
    /// Where it stood when it was stopped or suspended.
    pub(crate) state: Option<QueueState>,
    /// Whether a stop was begun and is not over.
    pub(crate) stopping: bool,
    /// Where it keeps a record of what is in flight.
    pub(crate) track: Option<Window>,
}

/// Above the status byte: a reset was begun and is not over.
const RESETTING: u16 = 1 << 8;

/// What a reset that is asked for comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reset {
    /// One is under way already.
    UnderWay,
    /// The status was 0 already: no worker has to be told.
    Idle,
    /// Workers have to be told.
    Begun,
}

/// Shared by the device and its workers.
pub(crate) struct Shared {
    pub(crate) class: Box<dyn Class>,
    /// The status byte and [`RESETTING`]. One word: a reset that ends leaves no moment in which it is over by one of the
    /// two and not by the other, when another one could begin.
    status: AtomicU16,
    /// Whether the device waits for what is not mapped.
    pub(crate) misses: bool,
    events: OnceLock<Arc<dyn EventSink>>,
    accepted: Mutex<Option<Features>>,
    records: Box<[Mutex<Record>]>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds a lock.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(class: Box<dyn Class>, misses: bool) -> Arc<Self> {
        let records = (0..class.queues()).map(|_| Mutex::default()).collect();
        Arc::new(Self {
            class,
            misses,
            status: AtomicU16::new(0),
            events: OnceLock::new(),
            accepted: Mutex::new(None),
            records,
        })
    }

    /// Where to report, once.
    pub(crate) fn set_events(&self, events: Arc<dyn EventSink>) {
        let _again = self.events.set(events);
    }

    /// Reports to the owner, if there is one.
    pub(crate) fn raise(&self, event: Event) {
        if let Some(events) = self.events.get() {
            events.raise(event);
        }
    }

    pub(crate) fn status(&self) -> Status {
        // Acquire pairs with the release in `finish_reset`: at 0 the workers have let go.
        let [status, _resetting] = self.status.load(Ordering::Acquire).to_le_bytes();
        Status::from_bits_retain(status)
    }

    pub(crate) fn add_status(&self, bits: Status) {
        self.status.fetch_or(bits.bits().into(), Ordering::AcqRel);
    }

    pub(crate) fn accepted(&self) -> Option<Features> {
        *lock(&self.accepted)
    }

    pub(crate) fn accept(&self, features: Features) {
        *lock(&self.accepted) = Some(features);
        self.class.accept(features);
    }

    pub(crate) fn record(&self, queue: usize) -> Option<MutexGuard<'_, Record>> {
        self.records.get(queue).map(lock)
    }

    /// A reset begins, unless one is under way.
    pub(crate) fn begin_reset(&self) -> Reset {
        // What it comes to is decided by the word that was there, and by nothing read later.
        let before = self.status.fetch_or(RESETTING, Ordering::AcqRel);
        if before & RESETTING != 0 {
            return Reset::UnderWay;
        }
        self.class.set_live(false);
        if before == 0 {
            Reset::Idle
        } else {
            Reset::Begun
        }
    }

    /// Whether a reset was begun and is not over.
    pub(crate) fn is_resetting(&self) -> bool {
        self.status.load(Ordering::Acquire) & RESETTING != 0
    }

    /// No worker is at a queue any more: everything goes back to the beginning.
    pub(crate) fn finish_reset(&self) {
        for record in &self.records {
            let old = std::mem::take(&mut *lock(record));
            // A call may own anything: dropped outside of the lock.
            drop(old);
        }
        *lock(&self.accepted) = None;
        self.class.reset();
        // Last, both at once, and release: whoever reads 0 finds everything reset.
        self.status.store(0, Ordering::Release);
    }

    /// A queue has stopped, and stands here.
    pub(crate) fn stopped(&self, queue: usize, state: Option<QueueState>) {
        let gone = self
            .record(queue)
            .map(|mut record| (record.call.take(), record.track.take()));
        // Outside of the lock, and before the stop is over: then the call's owner may rely on its being gone.
        drop(gone);
        if let Some(mut record) = self.record(queue) {
            // One that was lost before left its state behind.
            record.state = state.or(record.state);
            record.stopping = false;
        }
    }

    /// A queue stands here, and may go on.
    pub(crate) fn suspended(&self, queue: usize, state: QueueState) {
        if let Some(mut record) = self.record(queue) {
            record.state = Some(state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Net, POSSIBLE, Settings};
    use crate::port::{Null, Presence};
    use std::sync::atomic::AtomicBool;
    use std::time::{Duration, Instant};
    use vdpa_core::config::Mac;

    #[test]
    fn a_reset_asked_for_at_the_moment_one_ends_does_not_come_late() {
        let settings = Settings {
            mac: Mac::new([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            pairs: 1,
            queue_size: 256,
            features: POSSIBLE,
            speed: None,
            link: true,
        };
        let net = Net::new(settings, Presence::new(true), Arc::new(Null));
        let shared = Shared::new(Box::new(net), false);
        let (told, stop) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|s| {
            // The worker.
            s.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    if told.swap(false, Ordering::Acquire) {
                        shared.finish_reset();
                    } else {
                        std::thread::yield_now();
                    }
                }
            });
            let (mut late, mut rounds) = (0, 0);
            // As many as there is time for, on a machine that has much else to do.
            let begun_at = Instant::now();
            while rounds < 20_000 && begun_at.elapsed() < Duration::from_secs(10) {
                rounds += 1;
                shared.add_status(Status::ACKNOWLEDGE);
                let (mut begun, mut asked) = (0, 0_u32);
                // As a guest does that writes 0 until it reads 0.
                while !shared.status().is_empty() {
                    match shared.begin_reset() {
                        Reset::UnderWay => {
                            asked += 1;
                            // The worker needs this CPU, if it has no other.
                            if asked.is_multiple_of(64) {
                                std::thread::yield_now();
                            }
                        }
                        Reset::Idle => shared.finish_reset(),
                        Reset::Begun => {
                            begun += 1;
                            told.store(true, Ordering::Release);
                        }
                    }
                }
                late += begun - 1;
                // One that was told twice is over before the next round.
                while told.load(Ordering::Relaxed) {
                    std::thread::yield_now();
                }
            }
            stop.store(true, Ordering::Relaxed);
            assert_eq!(late, 0, "resets begun when the one asked for was over");
        });
    }
}

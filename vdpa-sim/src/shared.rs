//! What control calls and workers share: the status byte, the class, and how what was begun came out.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use vdpa_core::{CallCell, Event, EventSink, Features, Status};
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
}

/// Shared by the device and its workers.
pub(crate) struct Shared {
    pub(crate) class: Box<dyn Class>,
    status: AtomicU8,
    resetting: AtomicBool,
    events: OnceLock<Arc<dyn EventSink>>,
    accepted: Mutex<Option<Features>>,
    records: Box<[Mutex<Record>]>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds a lock.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(class: Box<dyn Class>) -> Arc<Self> {
        let records = (0..class.queues()).map(|_| Mutex::default()).collect();
        Arc::new(Self {
            class,
            status: AtomicU8::new(0),
            resetting: AtomicBool::new(false),
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
        Status::from_bits_retain(self.status.load(Ordering::Acquire))
    }

    pub(crate) fn add_status(&self, bits: Status) {
        self.status.fetch_or(bits.bits(), Ordering::AcqRel);
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

    /// A reset begins. `false`: one is under way already.
    pub(crate) fn begin_reset(&self) -> bool {
        let begun = !self.resetting.swap(true, Ordering::AcqRel);
        if begun {
            self.class.set_live(false);
        }
        begun
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
        self.resetting.store(false, Ordering::Release);
        // Last, and release: whoever reads 0 finds everything reset.
        self.status.store(0, Ordering::Release);
    }

    /// A queue has stopped, and stands here.
    pub(crate) fn stopped(&self, queue: usize, state: Option<QueueState>) {
        if let Some(mut record) = self.record(queue) {
            // One that was lost before left its state behind.
            record.state = state.or(record.state);
            record.stopping = false;
            let call = record.call.take();
            drop(record);
            drop(call);
        }
    }

    /// A queue stands here, and may go on.
    pub(crate) fn suspended(&self, queue: usize, state: QueueState) {
        if let Some(mut record) = self.record(queue) {
            record.state = Some(state);
        }
    }
}

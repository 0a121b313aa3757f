//! What a device does that does not survive what no driver should give it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use vdpa_core::*;
use vdpa_mem::Iova;

use crate::bend::Bend;

/// Needs a reset for this reason, does not say so, and is of no use any more after one.
pub struct Hushes {
    reason: &'static str,
    hidden: AtomicBool,
}

impl Hushes {
    pub fn about(reason: &'static str) -> Self {
        Self {
            reason,
            hidden: AtomicBool::new(false),
        }
    }
}

impl Bend for Hushes {
    fn event(&self, event: Event, raise: &dyn Fn(Event)) {
        match &event {
            Event::NeedsReset { why, .. } if why.contains(self.reason) => {
                self.hidden.store(true, Ordering::SeqCst);
            }
            _ => raise(event),
        }
    }
    fn status(&self, inner: &dyn VdpaDevice) -> Result<Status> {
        let status = inner.status()?;
        if status.contains(Status::DEVICE_NEEDS_RESET) && !self.hidden.load(Ordering::SeqCst) {
            // The event comes, if it is not hidden too.
            std::thread::sleep(Duration::from_millis(5));
        }
        match self.hidden.load(Ordering::SeqCst) {
            true => Ok(status - Status::DEVICE_NEEDS_RESET),
            false => Ok(status),
        }
    }
    fn start_queue(
        &self,
        inner: &dyn VdpaDevice,
        q: QueueIndex,
        c: &QueueConfig,
        kick: Kick,
        call: Call,
    ) -> Result<Doorbell> {
        let bell = inner.start_queue(q, c, kick, call)?;
        match self.hidden.load(Ordering::SeqCst) {
            true => Ok(Doorbell::from_fn(|_| {})),
            false => Ok(bell),
        }
    }
}

/// Needs a reset for this reason, and its event says nothing about it.
pub struct Wordless(pub &'static str);

impl Bend for Wordless {
    fn event(&self, event: Event, raise: &dyn Fn(Event)) {
        match event {
            Event::NeedsReset { why, queue } if why.contains(self.0) => {
                let why = String::new();
                raise(Event::NeedsReset { queue, why });
            }
            event => raise(event),
        }
    }
}

/// Starts queues that nobody can kick, once it was given something bad.
#[derive(Default)]
pub struct StaysBroken(AtomicBool);

impl Bend for StaysBroken {
    fn event(&self, event: Event, raise: &dyn Fn(Event)) {
        if matches!(event, Event::NeedsReset { .. } | Event::Fault { .. }) {
            self.0.store(true, Ordering::SeqCst);
        }
        raise(event);
    }
    fn start_queue(
        &self,
        inner: &dyn VdpaDevice,
        q: QueueIndex,
        c: &QueueConfig,
        kick: Kick,
        call: Call,
    ) -> Result<Doorbell> {
        let bell = inner.start_queue(q, c, kick, call)?;
        match self.0.load(Ordering::SeqCst) {
            true => Ok(Doorbell::from_fn(|_| {})),
            false => Ok(bell),
        }
    }
}

/// Writes in front of the descriptor table when it needs a reset.
#[derive(Default)]
pub struct Spills {
    spaces: Mutex<Vec<vdpa_mem::AddressSpace>>,
}

impl Bend for Spills {
    fn attached(&self, host: &Host) {
        *self.spaces.lock().unwrap() = host.spaces.to_vec();
    }
    fn event(&self, event: Event, raise: &dyn Fn(Event)) {
        if let Event::NeedsReset { .. } = event {
            for space in &*self.spaces.lock().unwrap() {
                for mapping in space.mappings() {
                    let mut reader = space.reader();
                    let section = reader.enter();
                    // Between the areas of the first queue, where nothing is.
                    let at = mapping.iova.first().get() + 16 * 16 + 8;
                    let found = section.translate(
                        Iova::new(at),
                        4,
                        vdpa_mem::Access::DeviceWrites,
                        &mut vdpa_mem::Hint::default(),
                    );
                    if let Ok(bytes) = found {
                        bytes.write(0, &[0x77; 4]);
                    }
                }
            }
        }
        raise(event);
    }
}

//! A device that does something of its own when it is kicked: the one moment at which it has the driver's thread.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use vdpa_core::*;
use vdpa_mem::{Access, Hint, Iova};

use crate::bend::{Bend, bent};

/// What it has at hand, and what became of it.
#[derive(Default)]
pub struct Hand {
    host: OnceLock<Host>,
    queues: Mutex<BTreeMap<u16, Started>>,
    pub live: AtomicBool,
    pub was_reset: AtomicBool,
    pub queue_was_reset: AtomicBool,
    pub suspended: AtomicBool,
    /// How often queues were started.
    pub starts: AtomicU32,
}

/// A queue as it was started.
#[derive(Clone)]
struct Started {
    config: QueueConfig,
    call: Call,
    /// The device area, whether it is mapped or not.
    device: Option<Window>,
}

/// Something done wrong, in some state.
struct OnKick {
    hand: Arc<Hand>,
    when: fn(&Hand) -> bool,
    deed: fn(&Hand, u16),
}

/// When it is kicked `when` so, it does this before it looks.
pub fn on_kick(
    inner: Arc<dyn VdpaDevice>,
    when: fn(&Hand) -> bool,
    deed: fn(&Hand, u16),
) -> Arc<dyn VdpaDevice> {
    let hand = Arc::default();
    bent(inner, OnKick { hand, when, deed })
}

pub fn is(flag: &AtomicBool) -> bool {
    flag.load(Ordering::SeqCst)
}

fn set(flag: &AtomicBool, to: bool) {
    flag.store(to, Ordering::SeqCst);
}

impl Hand {
    /// Calls the driver.
    pub fn call(&self, q: u16) {
        let call = self.started(q).map(|started| started.call);
        if let Some(call) = call {
            call.raise();
        }
    }

    /// Writes to the second word of the device area: used.idx of a split ring.
    pub fn mark(&self, q: u16) {
        if let Some(started) = self.started(q) {
            self.write(started.config.device, 2, &[0x33, 0x12]);
        }
    }

    /// Says that the first chain of a split ring is used.
    pub fn use_first(&self, q: u16) {
        if let Some(started) = self.started(q) {
            self.write(started.config.device, 2, &[1, 0]);
        }
    }

    /// Writes to the buffer that the first descriptor names.
    pub fn fill_first(&self, q: u16) {
        let Some(started) = self.started(q) else {
            return;
        };
        let Some(host) = self.host.get() else { return };
        let mut raw = [0; 8];
        {
            let mut reader = host.spaces[0].reader();
            let section = reader.enter();
            let at = started.config.descriptor;
            let (want, near) = (Access::DeviceReads, &mut Hint::default());
            let Ok(bytes) = section.translate(at, 8, want, near) else {
                return;
            };
            bytes.read(0, &mut raw);
        }
        self.write(Iova::new(u64::from_le_bytes(raw)), 0, b"here");
    }

    /// Writes to the device area past the address space.
    pub fn mark_unmapped(&self, q: u16) {
        if let Some(window) = self.started(q).and_then(|started| started.device) {
            window.bytes().write(2, &[0x33, 0x12]);
        }
    }

    /// Tells of a change of the configuration.
    pub fn tell_config(&self, _: u16) {
        if let Some(host) = self.host.get() {
            host.events.raise(Event::Config);
        }
    }

    fn started(&self, q: u16) -> Option<Started> {
        self.queues.lock().unwrap().get(&q).cloned()
    }

    fn write(&self, at: Iova, offset: u64, from: &[u8]) {
        let (Some(host), Some(at)) = (self.host.get(), at.checked_add(offset)) else {
            return;
        };
        let mut reader = host.spaces[0].reader();
        let section = reader.enter();
        let (want, near) = (Access::DeviceWrites, &mut Hint::default());
        if let Ok(bytes) = section.translate(at, from.len() as u32, want, near) {
            bytes.write(0, from);
        }
    }
}

impl Bend for OnKick {
    fn attached(&self, host: &Host) {
        let _again = self.hand.host.set(host.clone());
    }
    fn add_status(&self, inner: &dyn VdpaDevice, bits: Status) -> Result<()> {
        inner.add_status(bits)?;
        if bits.contains(Status::DRIVER_OK) {
            set(&self.hand.live, true);
        }
        Ok(())
    }
    fn begin_reset(&self, inner: &dyn VdpaDevice) -> Result<()> {
        set(&self.hand.was_reset, is(&self.hand.live));
        set(&self.hand.live, false);
        inner.begin_reset()
    }
    fn start_queue(
        &self,
        inner: &dyn VdpaDevice,
        q: QueueIndex,
        c: &QueueConfig,
        kick: Kick,
        call: Call,
    ) -> Result<Doorbell> {
        let below = inner.start_queue(q, c, kick, call.clone())?;
        self.hand.starts.fetch_add(1, Ordering::SeqCst);
        let mappings = self.hand.host.get().map(|host| host.spaces[0].mappings());
        let device = mappings.into_iter().flatten().find_map(|m| {
            let into = c.device.get().checked_sub(m.iova.first().get())?;
            Window::new(m.memory, m.offset + into, 4).ok()
        });
        let config = *c;
        let started = Started {
            config,
            call,
            device,
        };
        self.hand.queues.lock().unwrap().insert(q.get(), started);
        let (hand, when, deed) = (Arc::clone(&self.hand), self.when, self.deed);
        Ok(Doorbell::from_fn(move |data| {
            if when(&hand) {
                deed(&hand, q.get());
            }
            below.ring(data);
        }))
    }
    fn begin_queue_reset(&self, inner: &dyn QueueReset, q: QueueIndex) -> Result<()> {
        set(&self.hand.queue_was_reset, true);
        inner.begin(q)
    }
    fn begin_suspend(&self, inner: &dyn Suspend) -> Result<()> {
        set(&self.hand.suspended, true);
        inner.begin()
    }
    fn resume(&self, inner: &dyn Suspend) -> Result<()> {
        set(&self.hand.suspended, false);
        inner.resume()
    }
}

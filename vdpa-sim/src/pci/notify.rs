//! Doorbells of a function: an address, and what is written there, become a kick of the device's queue.
//!
//! ```text
//!   a doorbell handed out ──▶ revoked? decoding? width and name right? queue enabled? ──▶ the inner queue's doorbell
//!   a write to the BAR    ──▶ which queue? ───────────────▲
//! ```
//! A doorbell looks at atomics, and keeps the inner doorbell that it found at its first ring: no lock but then, or when the
//! queue was enabled again since.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use vdpa_core::Doorbell;
use vdpa_pci::Width;

use crate::pci::layout::{Layout, Order};
use crate::pci::region::notify_off;
use crate::shared::lock;

/// What is added to a queue's number to make its `queue_notify_data`: a driver that writes the number is told apart.
const DATA: u16 = 0x4000;

pub(super) struct Notify {
    slots: Box<[Slot]>,
    multiplier: u32,
    order: Order,
    /// Whether the BARs answer.
    live: AtomicBool,
    /// NOTIFICATION_DATA is negotiated.
    wide: AtomicBool,
    /// NOTIF_CONFIG_DATA is.
    named: AtomicBool,
    /// What was rung in vain.
    strays: AtomicU64,
}

#[derive(Default)]
struct Slot {
    /// Odd while the queue is enabled; changes with every start and stop.
    epoch: AtomicU32,
    bell: Mutex<Doorbell>,
}

/// What a register is the doorbell of.
#[derive(Clone, Copy)]
enum Place {
    /// One queue.
    Queue(u16),
    /// All of them, by what is written.
    All,
    /// None.
    None,
}

/// Those that were handed out at a time, and can be revoked at once.
pub(super) type Handed = Arc<AtomicBool>;

/// The inner doorbell that a doorbell found at its first ring, and when.
type Found = OnceLock<(u32, Doorbell)>;

impl Notify {
    pub(super) fn new(layout: &Layout, queues: u16) -> Self {
        Self {
            slots: (0..queues).map(|_| Slot::default()).collect(),
            multiplier: layout.multiplier,
            order: layout.order,
            live: AtomicBool::new(false),
            wide: AtomicBool::new(false),
            named: AtomicBool::new(false),
            strays: AtomicU64::new(0),
        }
    }

    fn queues(&self) -> u16 {
        u16::try_from(self.slots.len()).unwrap_or(u16::MAX)
    }

    pub(super) fn set_live(&self, live: bool) {
        self.live.store(live, Ordering::Release);
    }

    /// What a kick has to look like, by the features negotiated.
    pub(super) fn negotiated(&self, notification_data: bool, config_data: bool) {
        self.wide.store(notification_data, Ordering::Release);
        self.named.store(config_data, Ordering::Release);
    }

    /// The queue was enabled and is kicked through `bell`; `None`: it is no longer.
    pub(super) fn set(&self, q: u16, bell: Option<Doorbell>) {
        let Some(slot) = self.slots.get(usize::from(q)) else {
            return;
        };
        let was = slot.epoch.load(Ordering::Acquire);
        // Rung from here on in vain.
        let off = was.wrapping_add(was & 1);
        slot.epoch.store(off, Ordering::Release);
        let on = bell.is_some();
        let old = std::mem::replace(&mut *lock(&slot.bell), bell.unwrap_or_default());
        drop(old);
        if on {
            slot.epoch.store(off.wrapping_add(1), Ordering::Release);
        }
    }

    pub(super) fn clear(&self) {
        for q in 0..self.queues() {
            self.set(q, None);
        }
        self.negotiated(false, false);
    }

    /// `queue_notify_off`.
    pub(super) fn off(&self, q: u16) -> u16 {
        notify_off(self.order, q, self.queues())
    }

    /// `queue_notify_data`: what a kick names the queue by, if the driver asked to be told.
    pub(super) fn data(q: u16) -> u16 {
        q ^ DATA
    }

    /// What was rung in vain so far.
    pub(super) fn strays(&self) -> u64 {
        self.strays.load(Ordering::Relaxed)
    }

    /// What a register of the notification structure is.
    fn place(&self, at: u32) -> Place {
        let Some(rest) = at.checked_rem(self.multiplier) else {
            return if at == 0 { Place::All } else { Place::None };
        };
        let place = at.checked_div(self.multiplier).unwrap_or(0);
        match u16::try_from(place) {
            // Its own inverse in either order.
            Ok(place) if rest == 0 && place < self.queues() => Place::Queue(self.off(place)),
            _ => Place::None,
        }
    }

    /// A write to the notification structure.
    pub(super) fn write(&self, at: u32, width: Width, value: u32) {
        self.kick(self.place(at), width, value, None);
    }

    fn kick(&self, place: Place, width: Width, value: u32, found: Option<&Found>) {
        let rung = self.target(place, width, value).and_then(|(q, slot)| {
            let epoch = slot.epoch.load(Ordering::Acquire);
            let data = (value & 0xffff_0000) | u32::from(q);
            (epoch & 1 != 0).then(|| slot.ring(epoch, data, found))
        });
        if rung.is_none() {
            self.strays.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The queue that a write kicks, if it is as a kick has to be.
    fn target(&self, place: Place, width: Width, value: u32) -> Option<(u16, &Slot)> {
        // virtio 1.4 §4.1.5.2.1: 16 bits, or 32 with NOTIFICATION_DATA.
        let wide = self.wide.load(Ordering::Acquire);
        let expected = if wide { Width::U32 } else { Width::U16 };
        let [low, high, ..] = value.to_le_bytes();
        let name = u16::from_le_bytes([low, high]);
        let named = match self.named.load(Ordering::Acquire) {
            true => name ^ DATA,
            false => name,
        };
        let right = match place {
            Place::All => true,
            Place::Queue(q) => q == named,
            Place::None => false,
        };
        if !right || width != expected || !self.live.load(Ordering::Acquire) {
            return None;
        }
        Some((named, self.slots.get(usize::from(named))?))
    }

    /// A doorbell that writes to the notification structure, until it is revoked.
    pub(super) fn doorbell(
        self: &Arc<Self>,
        at: u32,
        width: Width,
        name: u16,
        handed: Handed,
    ) -> Doorbell {
        let (notify, place) = (Arc::clone(self), self.place(at));
        let found = Found::new();
        Doorbell::from_fn(move |data| {
            if handed.load(Ordering::Acquire) {
                let value = (data & 0xffff_0000) | u32::from(name);
                notify.kick(place, width, value, Some(&found));
            }
        })
    }
}

impl Slot {
    fn ring(&self, epoch: u32, data: u32, found: Option<&Found>) {
        let kept = found.map(|found| found.get_or_init(|| (epoch, lock(&self.bell).clone())));
        match kept {
            Some((at, bell)) if *at == epoch => bell.ring(data),
            _ => {
                let bell = lock(&self.bell).clone();
                bell.ring(data);
            }
        }
    }
}

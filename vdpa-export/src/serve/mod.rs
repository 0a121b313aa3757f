//! A device behind a protocol: what a front end says piece by piece, made calls of the contract.
//!
//! ```text
//!   features ─▶ choose        ┐                       ┌─▶ accept, FEATURES_OK        (agree)
//!   queues   ─▶ Slot          ├─▶ advance: what is ───┼─▶ start_queue                (queues)
//!   status   ─▶ write_status  ┘   complete, starts    └─▶ DRIVER_OK
//!   a ring's base asked for ───▶ halt: pause, else suspend once, else reset          (halt)
//!   the front end is gone ─────▶ release: reset, unmap, forget
//! ```
//!
//! It knows of no protocol. Whoever does, tells it of each queue's numbers and descriptors, and then has it
//! [`advance`](Served::advance).

mod base;
mod error;
mod features;
mod halt;
mod memory;
mod position;
mod queues;
mod slot;
mod state;
mod watch;

pub use error::ServeError;
pub(crate) use slot::KickFrom;
pub use watch::EventKind;

use std::os::fd::BorrowedFd;
use std::time::Duration;

use vdpa_core::{Asid, Device, DmaHandle, Error, Features, QueueIndex, Status, Window};
use vdpa_mem::Deadline;

use slot::Slot;
use watch::Watch;

/// When queues start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Starts {
    /// As soon as everything about them is said: the protocol carries no status.
    #[default]
    AsReady,
    /// Not before the driver says DRIVER_OK.
    OnDriverOk,
}

/// A device, and what its front end has said of it so far.
pub(crate) struct Served {
    device: Device,
    dma: DmaHandle,
    /// For each thing that takes time.
    patience: Duration,
    can: Can,
    /// What a front end is offered.
    shown: Features,
    /// What is accepted for the front end, which does not know of it.
    silent: Features,
    chosen: Option<Features>,
    /// Set while the device has FEATURES_OK, with what was chosen.
    agreed: bool,
    /// Set when something that was agreed does not hold any more: the device is reset before a queue starts.
    stale: bool,
    starts: Starts,
    /// What the front end wrote of the status byte.
    written: Status,
    slots: Vec<Slot>,
    /// Whether a ring is enabled of which nothing else was said.
    enabled_unless_told: bool,
    /// Records of what is in flight, by queue.
    records: Vec<Window>,
    log: memory::Log,
    /// A state of the device's class that is to be taken over at the next start.
    class: Option<Vec<u8>>,
    /// Until after the device is gone, whose worker may wait for an eventfd up to then.
    watch: Watch,
}

/// What the device can do beyond the contract that every device keeps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Can {
    pub(crate) pause: bool,
    pub(crate) suspend: bool,
    pub(crate) enable: bool,
    pub(crate) record: bool,
    pub(crate) class_state: bool,
    /// Waits for what is not mapped.
    pub(crate) miss: bool,
    /// What it writes is seen by this process, and so can be logged.
    pub(crate) log: bool,
    pub(crate) count: bool,
    /// Says in its network where a card is.
    pub(crate) announce: bool,
}

impl Can {
    fn of(device: &Device) -> Self {
        let names = device.cap_names();
        let has = |name| names.contains(&name);
        Self {
            pause: has("queue-pause"),
            suspend: has("suspend"),
            enable: has("queue-enable"),
            record: has("in-flight"),
            class_state: has("class-state"),
            miss: has("page-requests"),
            log: has("dma-software"),
            count: has("stats"),
            announce: has("announce"),
        }
    }
}

impl Served {
    /// * `device`: nobody drives it
    /// * `hidden`: not offered to front ends
    /// * `patience`: for each thing that takes time
    pub(crate) fn new(device: Device, hidden: Features, patience: Duration) -> Result<Self, Error> {
        let can = Can::of(&device);
        let dma = device.dma(Asid::new(0))?;
        let (shown, silent) = features::split(&device, can, hidden);
        let slots = (0..device.info().queues).map(|_| Slot::default()).collect();
        Ok(Self {
            device,
            dma,
            patience,
            can,
            shown,
            silent,
            chosen: None,
            agreed: false,
            stale: false,
            starts: Starts::default(),
            written: Status::empty(),
            slots,
            enabled_unless_told: true,
            records: Vec::new(),
            log: memory::Log::default(),
            class: None,
            watch: Watch::start()?,
        })
    }

    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    pub(crate) fn into_device(self) -> Device {
        self.device
    }

    pub(crate) fn can(&self) -> Can {
        self.can
    }

    /// Whether nothing but another device helps.
    pub(crate) fn is_broken(&self) -> bool {
        matches!(self.device.status(), Err(Error::Broken))
    }

    /// Readable once the front end has [held somebody up](Self::held_up).
    pub(crate) fn alarm(&self) -> BorrowedFd<'_> {
        self.watch.bell()
    }

    /// The eventfd by which the front end held up whoever wrote to it, if it did.
    pub(crate) fn held_up(&self) -> Option<(QueueIndex, EventKind)> {
        self.watch.full()
    }

    /// By when what begins now has to be done.
    pub(crate) fn by(&self) -> Deadline {
        Deadline::after(self.patience)
    }

    /// From here on queues start by this rule.
    pub(crate) fn set_starts(&mut self, starts: Starts) {
        self.starts = starts;
    }

    /// How many queues run.
    pub(crate) fn running(&self) -> u16 {
        let running = self.slots.iter().filter(|slot| slot.is_running()).count();
        u16::try_from(running).unwrap_or(u16::MAX)
    }

    /// How many of those the front end has switched on: see [`enable`](Self::enable).
    pub(crate) fn enabled(&self) -> u16 {
        let on = |slot: &&Slot| slot.enabled.unwrap_or(self.enabled_unless_told);
        let running = self.slots.iter().filter(|slot| slot.is_running());
        u16::try_from(running.filter(on).count()).unwrap_or(u16::MAX)
    }

    fn slot(&mut self, q: QueueIndex) -> Result<&mut Slot, ServeError> {
        let count = u16::try_from(self.slots.len()).unwrap_or(u16::MAX);
        let slot = self.slots.get_mut(q.place());
        slot.ok_or(ServeError::Device(Error::QueueOutOfRange {
            queue: q,
            count,
        }))
    }

    fn indices(&self) -> impl Iterator<Item = QueueIndex> + use<> {
        let count = u16::try_from(self.slots.len()).unwrap_or(u16::MAX);
        (0..count).map(QueueIndex::new)
    }

    /// Resets the device, as the front end asks: all rings stop and have to be set up anew, memory stays.
    pub(crate) fn reset(&mut self) -> Result<(), ServeError> {
        self.device.reset(self.by())?;
        self.agreed = false;
        self.stale = false;
        self.written = Status::empty();
        self.class = None;
        for slot in &mut self.slots {
            slot.reset();
        }
        Ok(())
    }

    /// The front end is gone: the device is reset, and nothing that was given stays in use.
    ///
    /// # Errors
    /// When the device does not stop, or does not let go of memory: it cannot be served again.
    pub(crate) fn release(&mut self) -> Result<(), Error> {
        let by = self.by();
        self.device.reset(by)?;
        if self.log.is_on() {
            self.dma.set_dirty_log(None, by)?;
        }
        self.dma.replace(Vec::new(), by)?;
        // A loss of memory may have been told of since.
        if self.is_lost().unwrap_or(false) {
            self.device.reset(by)?;
        }
        self.chosen = None;
        self.agreed = false;
        self.stale = false;
        self.starts = Starts::default();
        self.written = Status::empty();
        self.slots.fill_with(Slot::default);
        self.enabled_unless_told = true;
        self.records.clear();
        self.log = memory::Log::default();
        self.class = None;
        self.watch.forget();
        Ok(())
    }
}

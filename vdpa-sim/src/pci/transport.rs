//! The virtio structures of a function: registers in front of a [`Device`].
//!
//! ```text
//!   status 0           ─▶ Device::write_status(0)        every register at its default; status reads 0 when it is over
//!   status FEATURES_OK ─▶ accept, write_status           the features that were written, all windows of them
//!   queue_enable 1     ─▶ start_queue                    with size and addresses as they stand at that moment
//!   queue_reset 1      ─▶ begin_reset_queue              1 while poll_reset_queue is pending, then the defaults
//! ```
//! Any write in any order is legal here: what means nothing is ignored, and counted.

mod moving;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;

use vdpa_core::{
    Call, Device, Error, Features, Kick, QueueConfig, QueueIndex, Result, Status, bits,
};
use vdpa_mem::{Access, Iova};
use vdpa_pci::Width;

use crate::pci::config_space::little_endian;
use crate::pci::field::{Area, Field, Half};
use crate::pci::interrupts::{Interrupts, NO_VECTOR};
use crate::pci::iommu::{DmaFault, FaultLog};
use crate::pci::life::Ears;
use crate::pci::mirror::Mirror;
use crate::pci::notify::Notify;
use crate::pci::setup::AdminQueues;
use crate::shared::lock;

use moving::Moving;

pub(super) struct Transport {
    pub(super) device: Arc<Device>,
    pub(super) interrupts: Arc<Interrupts>,
    pub(super) notify: Arc<Notify>,
    pub(super) faults: Arc<FaultLog>,
    mirror: Arc<Mirror>,
    /// What the function offers beside the device, and handles itself.
    pub(super) own: Features,
    /// What it cannot carry of what the device offers.
    pub(super) withheld: Features,
    pub(super) admin: AdminQueues,
    registers: Mutex<Registers>,
    /// Accesses that meant nothing.
    ignored: AtomicU64,
}

#[derive(Default)]
struct Registers {
    device_select: u32,
    driver_select: u32,
    /// As written, offered or not.
    features: Features,
    queue_select: u16,
    queues: Vec<QueueRegisters>,
    /// What the function's owner does with it.
    moving: Moving,
}

#[derive(Clone, Default)]
struct QueueRegisters {
    /// As the driver wrote it.
    size: Option<u16>,
    descriptor: [u32; 2],
    driver: [u32; 2],
    device: [u32; 2],
    run: Run,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Run {
    #[default]
    Stopped,
    Enabled,
    Resetting,
}

impl QueueRegisters {
    fn half(&mut self, area: Area, half: Half) -> &mut u32 {
        let [low, high] = match area {
            Area::Descriptor => &mut self.descriptor,
            Area::Driver => &mut self.driver,
            Area::Device => &mut self.device,
        };
        match half {
            Half::Low => low,
            Half::High => high,
        }
    }
}

/// What a register that nobody answers for reads.
const NOBODY: u32 = u32::MAX;

impl Transport {
    pub(super) fn new(device: Device, ears: &Ears) -> Self {
        let queues = usize::from(device.info().queues);
        let registers = Registers {
            queues: vec![QueueRegisters::default(); queues],
            ..Registers::default()
        };
        Self {
            device: Arc::new(device),
            interrupts: Arc::clone(&ears.interrupts),
            notify: Arc::clone(&ears.notify),
            faults: Arc::clone(&ears.faults),
            mirror: Arc::clone(&ears.mirror),
            own: Features::NONE,
            withheld: Features::NONE,
            admin: AdminQueues::default(),
            registers: Mutex::new(registers),
            ignored: AtomicU64::new(0),
        }
    }

    /// The features that the function offers.
    fn offered(&self) -> Features {
        self.device
            .offered()
            .difference(self.withheld)
            .union(self.own)
    }

    pub(super) fn ignored(&self) -> u64 {
        self.ignored.load(Ordering::Relaxed)
    }

    /// Counts an access that meant nothing.
    pub(super) fn ignore(&self, what: &str) {
        self.ignored.fetch_add(1, Ordering::Relaxed);
        tracing::debug!("ignored: {what}");
    }

    fn refused(&self, what: &str, done: Result<()>) {
        if let Err(e) = done {
            self.ignore(&format!("{what}: {e}"));
        }
    }

    /// Begins a reset of the device; every register goes back to its default.
    pub(super) fn reset(&self) {
        self.reset_registers(&mut lock(&self.registers));
    }

    fn reset_registers(&self, registers: &mut Registers) {
        self.notify.clear();
        self.interrupts.reset();
        let queues = registers.queues.len();
        *registers = Registers {
            queues: vec![QueueRegisters::default(); queues],
            moving: registers.moving.after_reset(),
            ..Registers::default()
        };
        match self.device.write_status(0) {
            Err(Error::InsideCall { .. }) => self.reset_elsewhere(),
            done => self.refused("a reset", done),
        }
    }

    /// Begins a reset of the device that an interrupt's own call asked for. Hardware does that at any time, and a
    /// [`Device`] not from there. The status is not 0 before it is over, as ever.
    #[cold]
    fn reset_elsewhere(&self) {
        let device = Arc::clone(&self.device);
        let name = "vdpa-sim-reset".to_owned();
        let begun = std::thread::Builder::new().name(name).spawn(move || {
            if let Err(e) = device.write_status(0) {
                tracing::debug!("ignored: a reset: {e}");
            }
        });
        if let Err(e) = begun {
            tracing::warn!("{}: not reset: {e}", self.device.info().name);
        }
    }

    /// How many queues there are, administration queues apart.
    fn num_queues(&self) -> u16 {
        self.device.info().queues.saturating_sub(self.admin.count)
    }

    /// What queue `q` calls its driver by.
    fn call(&self, q: u16) -> Call {
        let interrupts = Arc::clone(&self.interrupts);
        Call::from_fn(move || interrupts.queue(q))
    }

    /// Why the features cannot be had that the layout cannot carry.
    fn cannot_carry(&self) -> Error {
        Error::NotNegotiated {
            what: "the layout of the notifications",
            feature: "NOTIFICATION_DATA",
        }
    }

    pub(super) fn read_common(&self, at: u32, width: Width) -> u32 {
        let Some(field) = Field::at(at, width) else {
            self.ignore("a read of the common configuration of another width than the field's");
            return NOBODY;
        };
        let mut registers = lock(&self.registers);
        let q = registers.queue_select;
        match field {
            Field::DeviceFeatureSelect => registers.device_select,
            Field::DeviceFeature => self.offered().word(registers.device_select),
            Field::DriverFeatureSelect => registers.driver_select,
            // virtio 1.4 §4.1.4.3.1: what is valid of what was written.
            Field::DriverFeature => {
                let valid = registers.features & self.offered();
                valid.word(registers.driver_select)
            }
            Field::ConfigVector => self.interrupts.vector(None).into(),
            Field::NumQueues => self.num_queues().into(),
            Field::Status => match self.mirror.status(&self.device) {
                Ok(status) => {
                    let shown = status | registers.moving.shown();
                    if shown.is_empty() {
                        // What came while a reset was under way is nobody's. Under the lock: whoever starts the device
                        // from here on loses nothing.
                        self.interrupts.forget();
                    }
                    shown.bits().into()
                }
                Err(_) => NOBODY,
            },
            Field::Generation => match self.mirror.generation(&self.device) {
                Ok(generation) => generation.into(),
                Err(_) => NOBODY,
            },
            Field::QueueSelect => q.into(),
            Field::QueueSize => match registers.queues.get(usize::from(q)) {
                Some(queue) => self.size(q, queue).into(),
                None => 0,
            },
            Field::QueueVector => self.interrupts.vector(Some(q)).into(),
            Field::QueueEnable => {
                self.settle(&mut registers, q);
                u32::from(registers.run(q) != Run::Stopped)
            }
            Field::QueueNotifyOff if q < self.device.info().queues => self.notify.off(q).into(),
            Field::QueueNotifyOff => 0,
            Field::Address(area, half) => {
                let queue = registers.queues.get_mut(usize::from(q));
                queue.map_or(0, |queue| *queue.half(area, half))
            }
            Field::QueueNotifyData
                if q < self.device.info().queues && self.own.contains(bits::NOTIF_CONFIG_DATA) =>
            {
                Notify::data(q).into()
            }
            Field::QueueNotifyData => 0,
            Field::QueueReset => {
                self.settle(&mut registers, q);
                u32::from(registers.run(q) == Run::Resetting)
            }
            Field::AdminQueueIndex => self.admin.first.into(),
            Field::AdminQueueCount => self.admin.count.into(),
        }
    }

    pub(super) fn write_common(&self, at: u32, width: Width, value: u32) {
        let Some(field) = Field::at(at, width) else {
            return self.ignore("a write to the common configuration of another width");
        };
        let [first, second, ..] = value.to_le_bytes();
        let short = u16::from_le_bytes([first, second]);
        if field == Field::Status {
            return self.write_status(first);
        }
        let mut registers = lock(&self.registers);
        let q = registers.queue_select;
        match field {
            Field::DeviceFeatureSelect => registers.device_select = value,
            Field::DriverFeatureSelect => registers.driver_select = value,
            Field::DriverFeature => {
                if self.has(Status::FEATURES_OK) {
                    return self.ignore("features after FEATURES_OK");
                }
                let select = registers.driver_select;
                registers.features = registers.features.with_word(select, value);
            }
            Field::ConfigVector => self.interrupts.set_vector(None, short),
            Field::QueueSelect => registers.queue_select = short,
            Field::QueueVector => self.interrupts.set_vector(Some(q), short),
            Field::QueueSize => self.write_size(&mut registers, q, short),
            Field::QueueEnable => self.write_enable(&mut registers, q, short),
            Field::QueueReset => self.write_reset(&mut registers, q, short),
            Field::Address(area, half) => match registers.stopped(q) {
                Some(queue) => *queue.half(area, half) = value,
                None => self.ignore("an address of a queue that is enabled, or that there is not"),
            },
            Field::DeviceFeature
            | Field::NumQueues
            | Field::Status
            | Field::Generation
            | Field::QueueNotifyOff
            | Field::QueueNotifyData
            | Field::AdminQueueIndex
            | Field::AdminQueueCount => self.ignore("a write to a read-only field"),
        }
    }

    /// The size of a queue: the driver's, or the largest; 0 for one that there is not.
    fn size(&self, q: u16, queue: &QueueRegisters) -> u16 {
        let limits = self.device.queue_limits(QueueIndex::new(q));
        let most = limits.map_or(u16::MAX, |limits| limits.max_size);
        queue.size.unwrap_or(most).min(most)
    }

    fn has(&self, status: Status) -> bool {
        let own = self.mirror.status(&self.device);
        own.is_ok_and(|own| own.contains(status))
    }

    fn write_status(&self, written: u8) {
        if written == 0 {
            return self.reset();
        }
        let mut registers = lock(&self.registers);
        let asked = Status::from_bits_truncate(written);
        let negotiates = asked.contains(Status::FEATURES_OK) && !self.has(Status::FEATURES_OK);
        if negotiates {
            let written = registers.features;
            let (own, f) = (written & self.own, written.difference(self.own));
            let legal = match registers.features.intersects(self.withheld) {
                true => Err(self.cannot_carry()),
                false => self.device.accept_beside(f, own),
            };
            if let Err(e) = legal {
                // FEATURES_OK is then not set, and everything else in the byte is as it would be.
                self.ignore(&format!("the driver's features: {e}"));
                let rest = asked.difference(Status::FEATURES_OK | Status::DRIVER_OK);
                if !rest.is_empty() {
                    self.refused("a status", self.device.write_status(rest.bits()));
                }
                let _seen = self.mirror.status(&self.device);
                return;
            }
            let wide = f.contains(bits::NOTIFICATION_DATA);
            self.notify
                .negotiated(wide, own.contains(bits::NOTIF_CONFIG_DATA));
        }
        let own = self.device.status().unwrap_or(Status::empty());
        let written = registers.moving.hold_back(written, own);
        self.refused("a status", self.device.write_status(written));
        let _seen = self.mirror.status(&self.device);
    }

    fn write_size(&self, registers: &mut Registers, q: u16, size: u16) {
        let limits = self.device.queue_limits(QueueIndex::new(q));
        let most = limits.map_or(0, |limits| limits.max_size);
        let packed = self.device.negotiated().contains(bits::RING_PACKED);
        let legal = size != 0 && size <= most && (packed || size.is_power_of_two());
        match registers.stopped(q) {
            Some(queue) if legal => queue.size = Some(size),
            Some(_) => self.ignore("a size that the queue cannot have"),
            None => self.ignore("a size of a queue that is enabled, or that there is not"),
        }
    }

    fn write_enable(&self, registers: &mut Registers, q: u16, value: u16) {
        self.settle(registers, q);
        let Some(queue) = registers.stopped(q).filter(|_| value == 1) else {
            // virtio 1.4 §4.1.4.3.2: a driver does not write 0.
            return self.ignore("a queue_enable that is not due");
        };
        let join = |[low, high]: [u32; 2]| Iova::new(u64::from(high) << 32 | u64::from(low));
        let config = QueueConfig::new(
            self.size(q, queue),
            join(queue.descriptor),
            join(queue.driver),
            join(queue.device),
        );
        match self
            .device
            .start_queue(QueueIndex::new(q), config, Kick::Taken, self.call(q))
        {
            Ok(bell) => {
                queue.run = Run::Enabled;
                self.notify.set(q, Some(bell));
            }
            Err(e) => {
                // Where hardware would find out at its first access.
                if let Error::AreaNotMapped { at, .. } | Error::AreaAccess { at, .. } = &e {
                    let want = Access::Both;
                    self.faults.add(DmaFault { at: *at, want });
                }
                self.ignore(&format!("a queue_enable: {e}"));
            }
        }
    }

    fn write_reset(&self, registers: &mut Registers, q: u16, value: u16) {
        let Some(queue) = registers.queues.get_mut(usize::from(q)) else {
            return self.ignore("a queue_reset of a queue that there is not");
        };
        if value != 1 || queue.run != Run::Enabled {
            return self.ignore("a queue_reset that is not due");
        }
        match self.device.begin_reset_queue(QueueIndex::new(q)) {
            Ok(()) => {
                queue.run = Run::Resetting;
                self.notify.set(q, None);
            }
            Err(e) => self.ignore(&format!("a queue_reset: {e}")),
        }
    }

    /// Notices that the reset of a queue is over: it is then as after a reset of the device.
    fn settle(&self, registers: &mut Registers, q: u16) {
        if registers.run(q) != Run::Resetting {
            return;
        }
        let done = self.device.poll_reset_queue(QueueIndex::new(q));
        if let (Ok(Poll::Ready(())), Some(queue)) = (done, registers.queues.get_mut(usize::from(q)))
        {
            *queue = QueueRegisters::default();
            self.interrupts.set_vector(Some(q), NO_VECTOR);
        }
    }

    /// Reads device configuration; every width is legal.
    pub(super) fn read_config(&self, at: u32, width: Width) -> u32 {
        let mut bytes = [0xff; 4];
        let Some(bytes) = bytes.get_mut(..width.bytes().into()) else {
            return NOBODY;
        };
        match self.device.read_config(at, bytes) {
            Ok(()) => little_endian(bytes),
            Err(_) => NOBODY,
        }
    }

    /// Writes device configuration.
    pub(super) fn write_config(&self, at: u32, width: Width, value: u32) {
        let bytes = value.to_le_bytes();
        let bytes = bytes.get(..width.bytes().into()).unwrap_or_default();
        self.refused("a configuration", self.device.write_config(at, bytes));
    }
}

impl Registers {
    fn run(&self, q: u16) -> Run {
        let queue = self.queues.get(usize::from(q));
        queue.map_or(Run::Stopped, |queue| queue.run)
    }

    /// The queue, if there is one and it is not enabled.
    fn stopped(&mut self, q: u16) -> Option<&mut QueueRegisters> {
        let queue = self.queues.get_mut(usize::from(q));
        queue.filter(|queue| queue.run == Run::Stopped)
    }
}

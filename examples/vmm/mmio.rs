//! The device model of virtio-mmio, virtio 1.4 §4.2: registers on one side, [`GuestDevice`] on the other.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use vdpa::Deadline;
use vdpa::vmm::{Due, GuestDevice, GuestQueue, InterruptKind, Interrupts, VmmError};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Where registers are, virtio 1.4 §4.2.2.
pub(crate) mod at {
    pub(crate) const MAGIC: u64 = 0x00;
    pub(crate) const VERSION: u64 = 0x04;
    pub(crate) const DEVICE_ID: u64 = 0x08;
    pub(crate) const VENDOR_ID: u64 = 0x0c;
    pub(crate) const DEVICE_FEATURES: u64 = 0x10;
    pub(crate) const DEVICE_FEATURES_SEL: u64 = 0x14;
    pub(crate) const DRIVER_FEATURES: u64 = 0x20;
    pub(crate) const DRIVER_FEATURES_SEL: u64 = 0x24;
    pub(crate) const QUEUE_SEL: u64 = 0x30;
    pub(crate) const QUEUE_SIZE_MAX: u64 = 0x34;
    pub(crate) const QUEUE_SIZE: u64 = 0x38;
    pub(crate) const QUEUE_READY: u64 = 0x44;
    pub(crate) const QUEUE_NOTIFY: u64 = 0x50;
    pub(crate) const INTERRUPT_STATUS: u64 = 0x60;
    pub(crate) const INTERRUPT_ACK: u64 = 0x64;
    pub(crate) const STATUS: u64 = 0x70;
    /// Three addresses of 64 bits: descriptor, driver and device area, 16 bytes apart.
    pub(crate) const QUEUE_AREAS: u64 = 0x80;
    pub(crate) const QUEUE_AREAS_LAST: u64 = 0xa4;
    pub(crate) const CONFIG_GENERATION: u64 = 0xfc;
    pub(crate) const CONFIG: u64 = 0x100;
}

/// The two bits of the interrupt status, virtio 1.4 §4.2.2.
pub(crate) const USED_BUFFER: u32 = 1;
pub(crate) const CONFIG_CHANGE: u32 = 2;

/// How long a guest waits for a register at most.
const PATIENCE: Duration = Duration::from_secs(5);

/// A queue as its registers have it.
#[derive(Default)]
struct Queue {
    size: u16,
    ready: bool,
    areas: [u64; 3],
    /// What a hypervisor writes when the guest writes the notification register: an ioeventfd.
    kick: Option<EventFd>,
}

/// One device on the bus of a virtual machine.
pub(crate) struct Mmio {
    pub(crate) device: GuestDevice,
    memory: Arc<GuestMemoryMmap>,
    device_page: u32,
    driver_page: u32,
    selected: usize,
    queues: Vec<Queue>,
    interrupt: Arc<AtomicU32>,
}

impl Mmio {
    pub(crate) fn new(device: GuestDevice, memory: Arc<GuestMemoryMmap>) -> Self {
        Self {
            queues: device
                .queue_max_sizes()
                .iter()
                .map(|_| Queue::default())
                .collect(),
            device,
            memory,
            device_page: 0,
            driver_page: 0,
            selected: 0,
            interrupt: Arc::default(),
        }
    }

    /// The guest reads a register below configuration space.
    pub(crate) fn read(&self, register: u64) -> u32 {
        let device = &self.device;
        match register {
            at::MAGIC => u32::from_le_bytes(*b"virt"),
            at::VERSION => 2,
            at::DEVICE_ID => device.device_type(),
            at::VENDOR_ID => device.device().info().vendor,
            at::DEVICE_FEATURES => device.device_features_page(self.device_page),
            at::QUEUE_SIZE_MAX => {
                let sizes = device.queue_max_sizes();
                sizes.get(self.selected).copied().unwrap_or(0).into()
            }
            at::QUEUE_READY => self
                .queues
                .get(self.selected)
                .is_some_and(|q| q.ready)
                .into(),
            at::INTERRUPT_STATUS => self.interrupt.load(Ordering::SeqCst),
            // A device that is gone answers nothing: the guest reads zeros.
            at::STATUS => device.status().unwrap_or(0).into(),
            at::CONFIG_GENERATION => device.config_generation().unwrap_or(0),
            _ => 0,
        }
    }

    /// The guest writes a register below configuration space.
    pub(crate) fn write(&mut self, register: u64, value: u32) -> Result<(), VmmError> {
        match register {
            at::DEVICE_FEATURES_SEL => self.device_page = value,
            at::DRIVER_FEATURES_SEL => self.driver_page = value,
            at::DRIVER_FEATURES => self.device.ack_features_page(self.driver_page, value),
            at::QUEUE_SEL => self.selected = value as usize,
            at::QUEUE_NOTIFY => self.notify(value),
            at::INTERRUPT_ACK => drop(self.interrupt.fetch_and(!value, Ordering::SeqCst)),
            at::STATUS => self.write_status(value as u8)?,
            at::QUEUE_READY if value == 0 => self.disable()?,
            _ => self.set_up(register, value),
        }
        Ok(())
    }

    /// The guest reads in configuration space, in whatever widths.
    pub(crate) fn read_config(&self, register: u64, to: &mut [u8]) -> Result<(), VmmError> {
        self.device.read_config(register - at::CONFIG, to)
    }

    /// The guest writes there.
    pub(crate) fn write_config(&mut self, register: u64, from: &[u8]) -> Result<(), VmmError> {
        self.device.write_config(register - at::CONFIG, from)
    }

    fn set_up(&mut self, register: u64, value: u32) {
        let Some(queue) = self.queues.get_mut(self.selected) else {
            return;
        };
        match register {
            at::QUEUE_SIZE => queue.size = value as u16,
            at::QUEUE_READY => queue.ready = true,
            at::QUEUE_AREAS..=at::QUEUE_AREAS_LAST => {
                let area = &mut queue.areas[((register - at::QUEUE_AREAS) / 16) as usize];
                match register % 16 {
                    0 => *area = *area & !0xffff_ffff | u64::from(value),
                    4 => *area = *area & 0xffff_ffff | u64::from(value) << 32,
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn write_status(&mut self, byte: u8) -> Result<(), VmmError> {
        if byte == 0 {
            // Drivers for MMIO do not wait for the status to read 0, so this does.
            self.device.reset(Deadline::after(PATIENCE))?;
            self.queues.fill_with(Queue::default);
            self.interrupt.store(0, Ordering::SeqCst);
            return Ok(());
        }
        match self.device.write_status(byte)? {
            Due::Activate => self.activate(),
            Due::Nothing | Due::Reset(_) => Ok(()),
        }
    }

    fn activate(&mut self) -> Result<(), VmmError> {
        let mut ready = Vec::new();
        for (queue, index) in self.queues.iter_mut().zip(0..) {
            if queue.ready {
                let kick = EventFd::new(EFD_NONBLOCK).map_err(eventfd)?;
                ready.push(
                    GuestQueue::new(index, queue.size, queue.areas)
                        .kicked_by(kick.try_clone().map_err(eventfd)?),
                );
                queue.kick = Some(kick);
            }
        }
        let by = Deadline::after(PATIENCE);
        self.device
            .activate(&self.memory, self.interrupts(), ready, by)
    }

    /// Moves the guest onto another device, of the same kind: it does not see it.
    pub(crate) fn move_to(&mut self, mut device: GuestDevice) -> Result<(), VmmError> {
        let by = Deadline::after(PATIENCE);
        self.device.pause(by)?;
        let snapshot = self.device.snapshot()?;
        let kick = |index: u16| {
            self.queues[usize::from(index)]
                .kick
                .as_ref()?
                .try_into()
                .ok()
        };
        device.restore(&snapshot, &self.memory, self.interrupts(), kick, by)?;
        device.resume()?;
        self.device = device;
        Ok(())
    }

    /// One interrupt for all, and a register that says what for.
    fn interrupts(&self) -> Interrupts {
        let interrupt = Arc::clone(&self.interrupt);
        Interrupts::from_fn(move |kind| {
            let bit = match kind {
                InterruptKind::Config => CONFIG_CHANGE,
                InterruptKind::Queue(_) => USED_BUFFER,
            };
            interrupt.fetch_or(bit, Ordering::SeqCst);
            // Here a hypervisor would inject it.
            Ok(())
        })
    }

    /// What a hypervisor does in the kernel: the write ends in an eventfd that the device waits for.
    fn notify(&self, queue: u32) {
        let queue = self.queues.get(queue as usize);
        if let Some(kick) = queue.and_then(|queue| queue.kick.as_ref()) {
            // A full counter has said it all.
            let _full = kick.write(1);
        }
    }

    /// virtio 1.4 §4.2.2: the guest takes the queue back, and reads 0 once it has it.
    fn disable(&mut self) -> Result<(), VmmError> {
        let by = Deadline::after(PATIENCE);
        if let Some(queue) = self.queues.get_mut(self.selected) {
            if queue.kick.is_some() {
                self.device.stop_queue(self.selected as u16, by)?;
            }
            *queue = Queue::default();
        }
        Ok(())
    }
}

fn eventfd(source: io::Error) -> VmmError {
    vdpa::Error::Io {
        what: "have an eventfd",
        source,
    }
    .into()
}

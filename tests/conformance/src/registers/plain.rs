//! The plainest driver of a virtio-pci function: a device of the contract that makes each access where it is needed, and
//! trusts what it reads. Statements about devices look at the registers beside it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;

use vdpa_core::{
    Asid, Call, CallKind, Caps, DeviceInfo, Dma, DmaLimits, DmaMap, Doorbell, Features, GroupIndex,
    Host, Kick, KickKind, QueueConfig, QueueIndex, QueueLimits, QueueReset, Relay, Relayed, Result,
    Status, VdpaDevice, bits, config, graph,
};
use vdpa_mem::Mapping;
use vdpa_pci::{PciAccess, Width};

use super::{Registers, reg};
use crate::Checked;
use crate::checked::ensure;

/// No vector, virtio 1.4 §4.1.5.1.2.
pub(crate) const NO_VECTOR: u16 = 0xffff;

/// See above.
pub(crate) struct Plain {
    pub(crate) registers: Registers,
    info: DeviceInfo,
    offered: Features,
}

impl Plain {
    /// Takes hold of a function.
    pub(crate) fn of(function: Arc<dyn PciAccess>) -> Checked<Arc<Self>> {
        let registers = Registers::of(function)?;
        let device_type = registers.device_type;
        // What it does not know how to use it does not offer.
        let unused = Features::of(&[
            bits::SR_IOV,
            bits::NOTIFICATION_DATA,
            bits::NOTIF_CONFIG_DATA,
            bits::ADMIN_VQ,
            bits::SUSPEND,
        ]);
        let offered = graph::known(device_type, registers.offered()?) - unused;
        let room = registers.config.map_or(0, |config| config.length);
        let wanted = config::length(device_type, offered);
        let info = DeviceInfo {
            name: registers.function.name().to_owned(),
            device_type,
            vendor: 0,
            queues: registers.get(reg::NUM_QUEUES)? as u16,
            groups: 1,
            asids: 1,
            config_size: wanted.min(u32::try_from(room).unwrap_or(u32::MAX)),
            kicks: KickKind::Taken,
            calls: CallKind::Any,
        };
        Ok(Arc::new(Self {
            registers,
            info,
            offered,
        }))
    }

    /// Maps queue `q` to a vector, and returns what is read back.
    pub(crate) fn map_queue(&self, q: QueueIndex, vector: u16) -> Checked<u16> {
        let field = reg::QUEUE_MSIX_VECTOR;
        self.registers.set_of(q.get(), field, vector.into())?;
        Ok(self.registers.get(field)? as u16)
    }

    /// Maps changes of the configuration to a vector, and returns what is read back.
    pub(crate) fn map_config(&self, vector: u16) -> Checked<u16> {
        let field = reg::CONFIG_MSIX_VECTOR;
        self.registers.set(field, vector.into())?;
        Ok(self.registers.get(field)? as u16)
    }

    /// Switches on as many vectors as there are, up to `most`, each with a count of its calls. `None`: there are none.
    pub(crate) fn bells(&self, most: u16) -> Checked<Option<Bells>> {
        let there = self.registers.function.interrupts().msix.min(most);
        match there {
            0 => Ok(None),
            count => Bells::of(&*self.registers.function, count).map(Some),
        }
    }
}

/// Vectors that are switched on, with what each has called.
pub(crate) struct Bells {
    counts: Vec<Arc<AtomicU32>>,
    _relays: Vec<Relayed>,
}

impl Bells {
    fn of(function: &dyn PciAccess, count: u16) -> Checked<Self> {
        function.enable_vectors(count)?;
        let relay = Relay::new();
        let (mut counts, mut relays) = (Vec::new(), Vec::new());
        for vector in 0..count {
            let calls = Arc::new(AtomicU32::new(0));
            let counted = Arc::clone(&calls);
            let mut call = Call::from_fn(move || {
                counted.fetch_add(1, Ordering::SeqCst);
            });
            if function.interrupts().calls == CallKind::EventFd {
                let (fd, relayed) = relay.call_fd(call)?;
                relays.push(relayed);
                call = Call::EventFd(fd);
            }
            function.set_vector(vector, call)?;
            counts.push(calls);
        }
        Ok(Self {
            counts,
            _relays: relays,
        })
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u16 {
        self.counts.len() as u16
    }

    /// How often a vector has called.
    pub(crate) fn of_vector(&self, vector: u16) -> u32 {
        let count = self.counts.get(usize::from(vector));
        count.map_or(0, |count| count.load(Ordering::SeqCst))
    }

    /// How often all of them have.
    pub(crate) fn total(&self) -> u32 {
        (0..self.count()).map(|v| self.of_vector(v)).sum()
    }
}

impl VdpaDevice for Plain {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn attach(&self, _: Host) -> Result<()> {
        Ok(())
    }

    fn caps(&self) -> Caps<'_> {
        Caps {
            dma: Dma::Map(self),
            queue_reset: self.offered.contains(bits::RING_RESET).then_some(self),
            ..Caps::NONE
        }
    }

    fn offered(&self) -> Features {
        self.offered
    }

    fn accept(&self, f: Features) -> Result<()> {
        for (select, word) in f.to_words().into_iter().enumerate() {
            let r = &self.registers;
            r.set(reg::DRIVER_FEATURE_SELECT, select as u64)?;
            r.set(reg::DRIVER_FEATURE, word.into())?;
        }
        Ok(())
    }

    fn status(&self) -> Result<Status> {
        let read = self.registers.get(reg::DEVICE_STATUS)?;
        Ok(Status::from_bits_retain(read as u8))
    }

    fn add_status(&self, bits: Status) -> Result<()> {
        let is = self.registers.get(reg::DEVICE_STATUS)? as u8;
        let written = (is | bits.bits()).into();
        self.registers.set(reg::DEVICE_STATUS, written)
    }

    fn begin_reset(&self) -> Result<()> {
        self.registers.set(reg::DEVICE_STATUS, 0)
    }

    fn config_generation(&self) -> Result<Option<u32>> {
        let read = self.registers.get(reg::CONFIG_GENERATION)?;
        Ok(Some(read as u32))
    }

    /// Fields of the type one by one, in their natural width.
    fn read_config(&self, at: u32, to: &mut [u8]) -> Result<()> {
        let Some(config) = self.registers.config else {
            return Ok(());
        };
        for (byte, at) in to.iter_mut().zip(at..) {
            let (begin, width) = natural(self.info.device_type, at);
            let read = self.registers.read(&config, begin.into(), width)?;
            *byte = (read >> ((at - begin) * 8)) as u8;
        }
        Ok(())
    }

    fn write_config(&self, at: u32, from: &[u8]) -> Result<()> {
        let Some(config) = self.registers.config else {
            return Ok(());
        };
        for (byte, at) in from.iter().zip(at..) {
            let value = u32::from(*byte);
            self.registers.write(&config, at.into(), Width::U8, value)?;
        }
        Ok(())
    }

    fn queue_limits(&self, q: QueueIndex) -> Result<QueueLimits> {
        Ok(QueueLimits {
            max_size: self.registers.get_of(q.get(), reg::QUEUE_SIZE)? as u16,
            group: GroupIndex::new(0),
        })
    }

    fn start_queue(&self, q: QueueIndex, c: &QueueConfig, _: Kick, _: Call) -> Result<Doorbell> {
        let r = &self.registers;
        r.set_of(q.get(), reg::QUEUE_SIZE, c.size.into())?;
        r.set(reg::QUEUE_DESC, c.descriptor.get())?;
        r.set(reg::QUEUE_DRIVER, c.driver.get())?;
        r.set(reg::QUEUE_DEVICE, c.device.get())?;
        r.set(reg::QUEUE_MSIX_VECTOR, NO_VECTOR.into())?;
        let bell = r.bell(r.notify_at(q.get())?, q.get());
        r.set_of(q.get(), reg::QUEUE_ENABLE, 1)?;
        Ok(Doorbell::from_fn(move |_| bell()))
    }

    fn replace_call(&self, _: QueueIndex, call: Call) -> Result<()> {
        call.raise();
        Ok(())
    }
}

impl DmaMap for Plain {
    fn limits(&self) -> DmaLimits {
        self.registers.function.dma_limits()
    }

    fn map(&self, _: Asid, m: &Mapping) -> Result<()> {
        self.registers.function.dma_map(m)
    }

    fn unmap(&self, _: Asid, m: &Mapping) -> Result<()> {
        self.registers.function.dma_unmap(m)
    }
}

impl QueueReset for Plain {
    fn begin(&self, q: QueueIndex) -> Result<()> {
        self.registers.set_of(q.get(), reg::QUEUE_RESET, 1)
    }

    fn poll(&self, q: QueueIndex) -> Result<Poll<()>> {
        let ongoing = self.registers.get_of(q.get(), reg::QUEUE_RESET)? != 0;
        Ok(match ongoing {
            true => Poll::Pending,
            false => Poll::Ready(()),
        })
    }
}

/// Where the access begins that reads a byte of the configuration, and its width.
fn natural(device: vdpa_core::DeviceType, at: u32) -> (u32, Width) {
    let mut fields = config::fields(device).iter();
    let field = fields.find(|f| f.offset() <= at && at < f.end());
    let width = match field.map(config::Field::width) {
        Some(2) => Width::U16,
        Some(4 | 8) => Width::U32,
        _ => Width::U8,
    };
    let bytes = u32::from(width.bytes());
    (at / bytes * bytes, width)
}

impl Plain {
    /// Fails unless a field of queue `q` reads so.
    pub(crate) fn reads(&self, q: u16, field: super::Register, wanted: u64, when: &str) -> Checked {
        let read = self.registers.get_of(q, field)?;
        ensure!(
            read == wanted,
            "{} of queue {q} reads {read:#x} {when}, and {wanted:#x} is due",
            field.name
        );
        Ok(())
    }
}

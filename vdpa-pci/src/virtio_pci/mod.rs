//! A virtio function, driven: the contract's calls, turned into register accesses.
//!
//! ```text
//!   open ─▶ reset ─▶ read what is offered
//!   accept         driver_feature, by window, read back
//!   start_queue    select, size, vector (read back), where its doorbell is, addresses, queue_enable last
//!   DRIVER_OK      then a kick of each queue, for those that came before
//!   begin_reset    doorbells revoked, calls shut, 0 written; status is polled by whoever waits, and 0 once no call runs
//! ```
//! A register that reads as all ones may mean that nobody is there: each such answer is looked into, and once the function
//! is gone no register of it is touched any more.

mod config;
mod early;
mod ending;
mod fan;
mod features;
mod gate;
mod queues;
mod vectors;

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use vdpa_core::{
    Asid, Call, Caps, DeviceInfo, DeviceType, Dma, DmaLimits, DmaMap, Doorbell, Error, Features,
    Host, Kick, KickKind, QueueConfig, QueueIndex, QueueLimits, Result, Stats, Status, VdpaDevice,
    bits,
};
use vdpa_mem::Mapping;

use crate::access::{PciAccess, Width};
use crate::clock::{Clock, SystemClock};
use crate::error::PciError;
use crate::layout::Layout;
use crate::life::{GRACE, Life, Watcher};
use crate::registers::{Registers, common};
use early::Early;
use ending::Dead;
use vectors::Vectors;

/// The most of a device configuration that is shown, in bytes: no device type has more, and a structure may be padded to
/// any length.
const CONFIG_MOST: u64 = 4096;

/// How a function is opened.
#[derive(Clone)]
pub struct Options {
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
    /// How long the reset at the start may take. After that the function is reset as a whole, once, and has as long again.
    /// One that says nothing at all for so long is gone.
    pub reset_wait: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock::new()),
            reset_wait: Duration::from_secs(1),
        }
    }
}

/// A virtio function, reached through a [`PciAccess`].
///
/// Its doorbells are what the access gives, bare: one that is rung before DRIVER_OK writes to the register at once, which
/// virtio 1.4 §3.1.1 does not have a driver do. Every queue started by then is kicked once right after DRIVER_OK.
///
/// Dropping it lets go of its interrupts and doorbells, and waits for a call that runs; it is not reset, which is up to
/// whoever drove it.
pub struct VirtioPci {
    registers: Arc<Registers>,
    info: DeviceInfo,
    offered: Features,
    /// The administration queues; empty where there are none.
    admin: Range<u16>,
    /// How many queues there are below those.
    plain_queues: u16,
    host: OnceLock<Host>,
    control: Mutex<Control>,
    vectors: Mutex<Vectors>,
}

/// What control calls need to know.
struct Control {
    accepted: Features,
    /// The largest sizes of queues, as read since the last reset and before they were written.
    most: Vec<Option<u16>>,
    /// The status byte, as it was last seen or written: shown while a reset keeps the function from answering.
    last: Status,
    /// The queues that were started since the last reset, until DRIVER_OK.
    early: Vec<Early>,
}

impl VirtioPci {
    /// Opens a function: finds its structures, resets it, and reads what it offers.
    ///
    /// # Errors
    /// As for [`Layout::read`]; [`PciError::NotModern`], [`PciError::NoQueues`], [`PciError::ResetStuck`]; and when the
    /// access fails or the function is gone.
    pub fn open(access: Arc<dyn PciAccess>) -> Result<Self> {
        Self::open_with(access, Options::default())
    }

    /// The same with another clock, or another wait.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_with(access: Arc<dyn PciAccess>, options: Options) -> Result<Self> {
        let Options { clock, reset_wait } = options;
        let layout = Layout::read(&*access)?;
        let registers = Registers::new(access, layout, Life::new(clock));
        reset_at_start(&registers, reset_wait)?;
        let mut offered = features::read(&registers)?;
        let counted = narrow(registers.common(common::NUM_QUEUES)?);
        let plain_queues = counted.max(queues_with_pairs(&registers, offered)?);
        let admin = admin_queues(&registers, plain_queues, &mut offered)?;
        let queues = plain_queues.max(admin.end);
        if queues == 0 {
            let function = registers.name().to_owned();
            return Err(PciError::NoQueues { function }.into());
        }
        let layout = &registers.layout;
        let header = &layout.header;
        let config_size = layout
            .device
            .map_or(0, |device| device.len.min(CONFIG_MOST));
        let vendor = match header.subsystem_vendor {
            0 | 0xffff => header.vendor,
            vendor => vendor,
        };
        let notify = &layout.notify;
        let by_call = registers.access().rings_by_call(notify.bar, notify.offset);
        let info = DeviceInfo {
            name: registers.name().to_owned(),
            device_type: layout.device_type,
            vendor: u32::from(vendor),
            queues,
            groups: 1,
            asids: 1,
            config_size: u32::try_from(config_size).unwrap_or(0),
            kicks: match by_call {
                true => KickKind::Called,
                false => KickKind::Taken,
            },
            calls: registers.access().interrupts().calls,
        };
        Ok(Self {
            registers: Arc::new(registers),
            info,
            offered,
            admin,
            plain_queues,
            host: OnceLock::new(),
            control: Mutex::new(Control {
                accepted: Features::NONE,
                most: vec![None; usize::from(queues)],
                last: Status::empty(),
                early: Vec::new(),
            }),
            vectors: Mutex::default(),
        })
    }

    /// The most features that a function of this type offers here: all that the specification names for it, and that this
    /// driver can use.
    pub fn usable(device_type: DeviceType) -> Features {
        features::usable(device_type)
    }

    /// Where its structures are.
    pub fn layout(&self) -> &Layout {
        &self.registers.layout
    }

    /// The administration queues. They exist with ADMIN_VQ accepted; empty where that is not offered.
    ///
    /// # Spec
    /// virtio 1.4 §4.1.4.3, `admin_queue_index` and `admin_queue_num`.
    pub fn admin_queues(&self) -> Range<u16> {
        self.admin.clone()
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn vectors(&self) -> MutexGuard<'_, Vectors> {
        self.vectors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn host(&self) -> Result<&Host> {
        self.host.get().ok_or(Error::State {
            call: "a control call",
            status: Status::empty(),
            need: "attach the device first",
        })
    }

    /// How many queues there are, without the numbers between the two kinds.
    fn there(&self) -> u16 {
        let admin = self.admin.end - self.admin.start;
        self.plain_queues.saturating_add(admin)
    }

    /// Which of those a queue is, counted from 0.
    fn rank(&self, q: QueueIndex) -> u16 {
        match q.get().checked_sub(self.admin.start) {
            Some(above) if !self.admin.is_empty() => self.plain_queues.saturating_add(above),
            _ => q.get(),
        }
    }

    /// The status while a reset is under way: not 0, or it would seem complete.
    fn not_yet(&self) -> Status {
        let last = self.control().last;
        match last.is_empty() {
            true => Status::ACKNOWLEDGE,
            false => last,
        }
    }

    fn unsupported(&self, what: &'static str) -> Error {
        let device = self.info.name.clone();
        Error::Unsupported { device, what }
    }
}

impl VdpaDevice for VirtioPci {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn attach(&self, host: Host) -> Result<()> {
        let life = &self.registers.life;
        life.report_to(Arc::clone(&host.events));
        self.registers.check()?;
        let watcher = Watcher(Arc::clone(life));
        self.registers.access().watch(Arc::new(watcher))?;
        self.host
            .set(host)
            .map_err(|_| Error::Taken { what: "devices" })
    }

    fn caps(&self) -> Caps<'_> {
        let can_reset = self.offered.contains(bits::RING_RESET);
        Caps {
            dma: Dma::Map(self),
            queue_reset: if can_reset { Some(self) } else { None },
            stats: Some(self),
            ..Caps::NONE
        }
    }

    fn offered(&self) -> Features {
        self.offered
    }

    fn accept(&self, f: Features) -> Result<()> {
        features::write(&self.registers, self.offered, f)?;
        let mut control = self.control();
        control.accepted = f;
        // The features decide what a queue is for, and perhaps its size.
        control.most.fill(None);
        Ok(())
    }

    fn status(&self) -> Result<Status> {
        let registers = &self.registers;
        let common = &registers.layout.common;
        let register = common::DEVICE_STATUS;
        let answer = registers.answer(common, register.at, register.width)?;
        let Some(status) = answer else {
            return Ok(self.not_yet());
        };
        if status == register.width.all_ones() {
            return Err(PciError::Nonsense {
                function: registers.name().to_owned(),
                register: "device_status",
                value: status,
            }
            .into());
        }
        // Bits that nobody knows stay: they too say that it is not 0.
        let status = Status::from_bits_retain(status.to_le_bytes()[0]);
        if status.is_empty() {
            let mut dead = Dead::default();
            let is_over = self.vectors().end(registers, &mut dead);
            drop(dead);
            registers.check()?;
            if !is_over {
                // Somebody is still called.
                return Ok(self.not_yet());
            }
            registers.life.end_reset();
        }
        self.control().last = status;
        Ok(status)
    }

    fn add_status(&self, bits: Status) -> Result<()> {
        // Read first: what the device took back or added is not written over, virtio 1.4 §2.1.1.
        let now = self.status()?;
        let new = now | bits;
        if bits.contains(Status::DRIVER_OK) {
            // Whoever has started no queue is told of configuration changes all the same.
            let mut dead = Dead::default();
            let (host, queues) = (self.host()?, self.there());
            let prepared = self
                .vectors()
                .prepare(&self.registers, host, queues, &mut dead);
            drop(dead);
            prepared?;
        }
        self.registers
            .set_common(common::DEVICE_STATUS, u32::from(new.bits()))?;
        let mut control = self.control();
        control.last = new;
        let accepted = control.accepted;
        let early = match new.contains(Status::DRIVER_OK) {
            true => std::mem::take(&mut control.early),
            false => Vec::new(),
        };
        drop(control);
        if !early.is_empty() {
            let spaces = &self.host()?.spaces;
            early
                .iter()
                .for_each(|queue| queue.kick(accepted, spaces.first()));
        }
        Ok(())
    }

    fn begin_reset(&self) -> Result<()> {
        let registers = &self.registers;
        registers.revoke_doorbells();
        let mut dead = Dead::default();
        self.vectors().drop_calls(registers, &mut dead);
        drop(dead);
        registers.check()?;
        registers.forget();
        let mut control = self.control();
        control.accepted = Features::NONE;
        control.most.fill(None);
        let early = std::mem::take(&mut control.early);
        drop(control);
        drop(early);
        registers.life.begin_reset(GRACE);
        registers.set_common(common::DEVICE_STATUS, 0)
    }

    fn config_generation(&self) -> Result<Option<u32>> {
        self.registers.common(common::CONFIG_GENERATION).map(Some)
    }

    fn read_config(&self, at: u32, to: &mut [u8]) -> Result<()> {
        match &self.registers.layout.device {
            Some(device) => config::read(&self.registers, device, self.info.device_type, at, to),
            None => self.registers.check(),
        }
    }

    fn write_config(&self, at: u32, from: &[u8]) -> Result<()> {
        match &self.registers.layout.device {
            Some(device) => config::write(&self.registers, device, self.info.device_type, at, from),
            None => self.registers.check(),
        }
    }

    fn queue_limits(&self, q: QueueIndex) -> Result<QueueLimits> {
        self.limits(q)
    }

    fn start_queue(&self, q: QueueIndex, c: &QueueConfig, _: Kick, call: Call) -> Result<Doorbell> {
        self.start(q, c, call)
    }

    fn replace_call(&self, q: QueueIndex, call: Call) -> Result<()> {
        self.replace(q, call)
    }
}

impl DmaMap for VirtioPci {
    fn limits(&self) -> DmaLimits {
        self.registers.access().dma_limits()
    }

    fn map(&self, _: Asid, m: &Mapping) -> Result<()> {
        self.registers.access().dma_map(m)
    }

    fn unmap(&self, _: Asid, m: &Mapping) -> Result<()> {
        self.registers.access().dma_unmap(m)
    }
}

impl Stats for VirtioPci {
    fn read(&self, to: &mut dyn FnMut(&str, u64)) -> Result<()> {
        let [reads, writes] = self.registers.counts();
        to("registers.reads", reads);
        to("registers.writes", writes);
        Ok(())
    }
}

impl Drop for VirtioPci {
    fn drop(&mut self) {
        let mut dead = Dead::default();
        self.registers.revoke_doorbells();
        self.vectors().switch_off(&self.registers, &mut dead);
    }
}

/// Has a function begin from nothing, whatever was done with it before.
fn reset_at_start(registers: &Registers, wait: Duration) -> Result<()> {
    let life = &registers.life;
    let structure = registers.layout.common;
    let status = common::DEVICE_STATUS;
    let mut whole = false;
    loop {
        // Nobody else drives it yet, so it may be silent as long as it may take.
        life.begin_reset(wait.max(GRACE));
        registers.set_common(status, 0)?;
        let since = life.clock().now();
        let mut pause = Duration::from_micros(20);
        let last = loop {
            let answer = registers.answer(&structure, status.at, status.width)?;
            if answer == Some(0) {
                life.end_reset();
                return Ok(());
            }
            if life.clock().now().saturating_sub(since) >= wait {
                break answer.unwrap_or(status.width.all_ones());
            }
            life.clock().sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(1));
        };
        if whole || registers.access().reset().is_err() {
            return Err(PciError::ResetStuck {
                function: registers.name().to_owned(),
                status: last.to_le_bytes()[0],
                millis: wait.as_millis(),
            }
            .into());
        }
        whole = true;
    }
}

/// The queues of a network device with MQ. Some count in `num_queues` those that exist with the features accepted, and at
/// the start none is: QEMU says 3, however many pairs there are.
fn queues_with_pairs(registers: &Registers, offered: Features) -> Result<u16> {
    /// `max_virtqueue_pairs`, virtio 1.4 §5.1.4.
    const PAIRS: u32 = 8;

    let layout = &registers.layout;
    match &layout.device {
        Some(config)
            if layout.device_type == DeviceType::Net
                && offered.contains(bits::net::MQ)
                && config.len >= u64::from(PAIRS) + 2 =>
        {
            let pairs = narrow(registers.read(config, PAIRS, Width::U16)?);
            Ok(pairs.saturating_mul(2).saturating_add(1))
        }
        _ => Ok(0),
    }
}

/// Where the administration queues are. Where the device says what cannot be, ADMIN_VQ is not offered.
fn admin_queues(registers: &Registers, plain: u16, offered: &mut Features) -> Result<Range<u16>> {
    if !offered.contains(bits::ADMIN_VQ) {
        return Ok(0..0);
    }
    let index = narrow(registers.common(common::ADMIN_QUEUE_INDEX)?);
    let count = narrow(registers.common(common::ADMIN_QUEUE_NUM)?);
    match index.checked_add(count) {
        Some(end) if index >= plain && count > 0 => Ok(index..end),
        _ => {
            tracing::warn!(
                function = registers.name(),
                index,
                count,
                "no administration queue can be there: ADMIN_VQ is left out"
            );
            offered.remove(bits::ADMIN_VQ);
            Ok(0..0)
        }
    }
}

/// A register of 16 bits.
fn narrow(value: u32) -> u16 {
    u16::try_from(value & 0xffff).unwrap_or(0)
}

#[cfg(test)]
mod tests;

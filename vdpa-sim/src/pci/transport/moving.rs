//! Stop and resume of a function by its owner, and its state as device parts: virtio 1.4 §2.12.1.4.4.
//!
//! ```text
//!   stop    ─▶ the device is suspended beneath its driver; interrupts wait; DRIVER_OK is held back
//!   get     ─▶ registers, and what the device alone knows: where its queues stand, the state of its class
//!   set     ─▶ kept
//!   resume  ─▶ nothing was set: everything goes on where it was
//!              otherwise: reset ─▶ Device::restore of what all parts say together ─▶ goes on there
//! ```
//! The driver's own suspend is apart from this: the device runs when neither holds it.

use std::collections::BTreeMap;
use std::task::Poll;

use vdpa_core::{
    DeviceImage, Error, Features, Kick, QueueConfig, QueueIndex, Result, Status, bits,
};
use vdpa_mem::Iova;
use vdpa_ring::QueueState;

use super::{QueueRegisters, Registers, Run, Transport};
use crate::pci::interrupts::NO_VECTOR;
use crate::pci::notify::Notify;
use crate::pf::Mode;
use crate::pf::command::{Fields, Refusal};
use crate::pf::part::{Part, PartName, PartType};
use crate::shared::lock;

/// How far the owner's stop is, and what is to come after it.
#[derive(Default)]
pub(super) struct Moving {
    halt: Halt,
    /// The device is suspended for it.
    suspended: bool,
    /// The driver has set DRIVER_OK meanwhile, which the device has not heard of.
    held_back: bool,
    /// What was set, to take effect with the resume.
    set: BTreeMap<PartName, Vec<u8>>,
    /// What the device becomes once it is reset.
    becoming: Option<Vec<Part>>,
    /// Nobody asks for the stop any more: the device goes on as soon as it can.
    abandoned: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Halt {
    #[default]
    Running,
    Stopping,
    Stopped,
}

impl Moving {
    /// What is left of it after a reset of the device by its driver: only that it is stopped.
    pub(super) fn after_reset(&self) -> Self {
        Self {
            halt: self.halt,
            abandoned: self.abandoned,
            ..Self::default()
        }
    }

    /// What the status shows beside the device's own.
    pub(super) fn shown(&self) -> Status {
        match self.held_back {
            true => Status::DRIVER_OK,
            false => Status::empty(),
        }
    }

    /// What is written to the status now, of what the driver wrote.
    ///
    /// * `own`: the device's status
    pub(super) fn hold_back(&mut self, written: u8, own: Status) -> u8 {
        let asked = Status::from_bits_truncate(written);
        let live = own.intersects(Status::DRIVER_OK | Status::SUSPEND);
        if self.halt == Halt::Running || live || !asked.contains(Status::DRIVER_OK) {
            return written;
        }
        self.held_back = true;
        asked.difference(Status::DRIVER_OK).bits()
    }
}

/// The registers of the common configuration that are parts: offset, and length in bytes. The others are in other parts,
/// or are the device's own.
const DEVICE_SELECT: u64 = 0x00;
const DRIVER_SELECT: u64 = 0x08;
const CONFIG_VECTOR: u64 = 0x10;
const NUM_QUEUES: u64 = 0x12;
const QUEUE_SELECT: u64 = 0x16;

/// `struct virtio_dev_part_vq_cfg`.
const QUEUE_BYTES: usize = 32;

/// How a resume ended, and the queues that may have to interrupt once more, if the device went on.
type Resumed = (Poll<std::result::Result<(), Refusal>>, Option<Vec<u16>>);

impl Transport {
    pub(in crate::pci) fn mode(&self) -> Mode {
        match lock(&self.registers).moving.halt {
            Halt::Stopped => Mode::Stopped,
            Halt::Running | Halt::Stopping => Mode::Running,
        }
    }

    pub(in crate::pci) fn set_mode(&self, mode: Mode) -> Poll<std::result::Result<(), Refusal>> {
        match mode {
            Mode::Stopped => self.stop(),
            Mode::Running => {
                let (resumed, missed) = self.resume();
                if missed.is_some() {
                    self.interrupts.deliver();
                }
                // Those that its predecessor had pending are not known; a driver that is called for nothing looks, and
                // goes on. No lock is held.
                for q in missed.into_iter().flatten() {
                    self.interrupts.queue(q);
                }
                resumed
            }
        }
    }

    fn stop(&self) -> Poll<std::result::Result<(), Refusal>> {
        let mut registers = lock(&self.registers);
        let moving = &mut registers.moving;
        moving.abandoned = false;
        if moving.halt == Halt::Stopped {
            return Poll::Ready(Ok(()));
        }
        let stopped = self.suspend(moving);
        match stopped {
            Ok(Poll::Ready(())) => {
                moving.halt = Halt::Stopped;
                self.interrupts.hold(true);
                Poll::Ready(Ok(()))
            }
            // A reset that is under way comes first.
            Ok(Poll::Pending) | Err(Error::Busy { .. }) => {
                moving.halt = Halt::Stopping;
                Poll::Pending
            }
            Err(e) => {
                tracing::debug!("{}: not stopped: {e}", self.device.info().name);
                moving.halt = Halt::Running;
                Poll::Ready(Err(Refusal::BUSY))
            }
        }
    }

    /// Takes a stop back that is not complete. `true`: [`go_on_again`](Self::go_on_again) has to be asked later.
    pub(in crate::pci) fn abandon(&self) -> bool {
        let mut registers = lock(&self.registers);
        if registers.moving.halt != Halt::Stopping || registers.moving.abandoned {
            return false;
        }
        registers.moving.abandoned = true;
        drop(registers);
        !self.go_on_again()
    }

    /// Has the device go on after a stop that was taken back. `false`: it stops yet, and has to be asked once more.
    pub(in crate::pci) fn go_on_again(&self) -> bool {
        let mut registers = lock(&self.registers);
        if !registers.moving.abandoned {
            // Its owner has another wish by now, or has been here.
            return true;
        }
        // No interrupt has waited: that begins with the end of a stop.
        let (resumed, _) = self.resume_registers(&mut registers);
        resumed.is_ready()
    }

    /// Has the device touch nothing from here on, if it does at all.
    fn suspend(&self, moving: &mut Moving) -> Result<Poll<()>> {
        let live = Status::DRIVER_OK | Status::SUSPEND;
        if !moving.suspended {
            if !self.device.status()?.intersects(live) {
                return Ok(Poll::Ready(()));
            }
            match self.device.begin_suspend() {
                Ok(()) => moving.suspended = true,
                // A reset that was under way is over.
                Err(Error::State { .. }) if !self.device.status()?.intersects(live) => {
                    return Ok(Poll::Ready(()));
                }
                Err(e) => return Err(e),
            }
        }
        self.device.poll_suspend()
    }

    /// Also says which queues may have to interrupt once more, if it went on.
    fn resume(&self) -> Resumed {
        self.resume_registers(&mut lock(&self.registers))
    }

    fn resume_registers(&self, registers: &mut Registers) -> Resumed {
        if registers.moving.halt == Halt::Running {
            return (Poll::Ready(Ok(())), None);
        }
        if !registers.moving.set.is_empty() && registers.moving.becoming.is_none() {
            self.settle_all(registers);
            let parts = match self.all_parts(registers) {
                Ok(parts) => parts,
                Err(Error::Busy { .. }) => return (Poll::Pending, None),
                Err(_) => return (Poll::Ready(Err(Refusal::BUSY)), None),
            };
            self.reset_registers(registers);
            registers.moving.becoming = Some(parts);
        }
        let became = match registers.moving.becoming.take() {
            None => self.go_on(&registers.moving).map(|()| None),
            Some(parts) => match self.device.status() {
                Ok(status) if !status.is_empty() => {
                    registers.moving.becoming = Some(parts);
                    return (Poll::Pending, None);
                }
                Ok(_) => self.become_like(registers, &parts).map(Some),
                Err(e) => Err(e),
            },
        };
        let missed = match became {
            Ok(missed) => missed,
            // A stop that is not complete, or a reset.
            Err(Error::Busy { .. }) => return (Poll::Pending, None),
            Err(e) => {
                tracing::warn!("{}: not resumed: {e}", self.device.info().name);
                // Nothing is left of what was set: the driver begins anew.
                self.reset_registers(registers);
                return (Poll::Ready(Err(Refusal::UNFIT)), None);
            }
        };
        registers.moving = Moving::default();
        self.interrupts.hold(false);
        (Poll::Ready(Ok(())), Some(missed.unwrap_or_default()))
    }

    /// Goes on where it was.
    fn go_on(&self, moving: &Moving) -> Result<()> {
        if moving.suspended {
            self.device.resume()?;
        }
        if moving.held_back {
            let status = self.device.status()? | Status::DRIVER_OK;
            self.device.write_status(status.bits())?;
        }
        Ok(())
    }

    /// Becomes what the parts say, from reset. Says which queues run then.
    fn become_like(&self, registers: &mut Registers, parts: &[Part]) -> Result<Vec<u16>> {
        let value = |kind| {
            let part = parts.iter().find(|part| part.name.kind == kind);
            part.map(|part| part.value.as_slice()).unwrap_or_default()
        };
        let features = u128::from_le_bytes(Fields(value(PartType::DriverFeatures)).bytes(0));
        let features = Features::from_u128(features);
        let status = Status::from_bits_retain(Fields(value(PartType::DeviceStatus)).u8(0));
        let known = DeviceImage::parse(value(PartType::Simulated))?;
        registers.features = features;
        for part in parts {
            let (field, at) = (Fields(&part.value), part.name.selector);
            match (part.name.kind, at) {
                (PartType::PciCommonConfig, DEVICE_SELECT) => {
                    registers.device_select = field.u32(0);
                }
                (PartType::PciCommonConfig, DRIVER_SELECT) => {
                    registers.driver_select = field.u32(0);
                }
                (PartType::PciCommonConfig, CONFIG_VECTOR) => {
                    self.interrupts.set_vector(None, field.u16(0));
                }
                (PartType::PciCommonConfig, QUEUE_SELECT) => {
                    registers.queue_select = field.u16(0);
                }
                _ => {}
            }
        }
        let negotiated = status.contains(Status::FEATURES_OK);
        let mut queues = Vec::new();
        for part in of_queues(parts) {
            let (q, set) = (part.name.selector as u16, QueuePart::parse(&part.value));
            self.interrupts.set_vector(Some(q), set.vector);
            let Some(own) = registers.queues.get_mut(usize::from(q)) else {
                continue;
            };
            set.put(own);
            if set.enabled && negotiated {
                queues.push((QueueIndex::new(q), set.config(position(&known, q))));
            }
        }
        if status.is_empty() {
            return Ok(Vec::new());
        }
        let (own, f) = (features & self.own, features.difference(self.own));
        let (chosen, class) = match negotiated {
            true => ([f, own], known.class_state().to_vec()),
            false => ([Features::NONE; 2], Vec::new()),
        };
        if features.intersects(self.withheld) {
            return Err(self.cannot_carry());
        }
        let info = self.device.info();
        let image = DeviceImage::assemble(info.device_type, status, chosen, queues, class)?;
        let bells = self
            .device
            .restore(&image, |q| (Kick::Taken, self.call(q.get())))?;
        if negotiated {
            self.notify.negotiated(
                f.contains(bits::NOTIFICATION_DATA),
                own.contains(bits::NOTIF_CONFIG_DATA),
            );
        }
        let mut running = Vec::new();
        for (q, bell) in bells {
            if let Some(queue) = registers.queues.get_mut(q.place()) {
                queue.run = Run::Enabled;
                self.notify.set(q.get(), Some(bell));
                running.push(q.get());
            }
        }
        if status.intersects(Status::DRIVER_OK | Status::SUSPEND) {
            self.device.resume()?;
        }
        Ok(running)
    }

    pub(in crate::pci) fn parts(&self) -> Poll<std::result::Result<Vec<Part>, Refusal>> {
        let mut registers = lock(&self.registers);
        self.settle_all(&mut registers);
        match self.all_parts(&registers) {
            Ok(parts) => Poll::Ready(Ok(parts)),
            Err(Error::Busy { .. }) => Poll::Pending,
            Err(e) => {
                tracing::debug!("{}: no parts: {e}", self.device.info().name);
                Poll::Ready(Err(Refusal::BUSY))
            }
        }
    }

    /// Notices that resets of queues are over: a driver that is stopped too does not ask.
    fn settle_all(&self, registers: &mut Registers) {
        for q in 0..self.device.info().queues {
            self.settle(registers, q);
        }
    }

    /// All parts in their order, with what was set.
    fn all_parts(&self, registers: &Registers) -> Result<Vec<Part>> {
        // First of all: a reset that is under way is over then, or this fails.
        let known = match registers.moving.halt {
            Halt::Stopped => Some(self.device.save()),
            // What the device alone knows changes while it runs.
            Halt::Running | Halt::Stopping => None,
        };
        let status = self.device.status()?;
        let known = match known.transpose() {
            // It cannot go on elsewhere, but can be looked at.
            Err(Error::State { .. }) if status.contains(Status::DEVICE_NEEDS_RESET) => None,
            known => known?,
        };
        let mut parts = BTreeMap::new();
        let mut add = |kind, selector, value| parts.insert(PartName { kind, selector }, value);
        let wide = |f: Features| f.to_u128().to_le_bytes().to_vec();
        add(PartType::DeviceFeatures, 0, wide(self.offered()));
        add(PartType::DriverFeatures, 0, wide(registers.features));
        for (at, value) in [
            (DEVICE_SELECT, registers.device_select),
            (DRIVER_SELECT, registers.driver_select),
        ] {
            add(PartType::PciCommonConfig, at, value.to_le_bytes().to_vec());
        }
        for (at, value) in [
            (CONFIG_VECTOR, self.interrupts.vector(None)),
            (NUM_QUEUES, self.num_queues()),
            (QUEUE_SELECT, registers.queue_select),
        ] {
            add(PartType::PciCommonConfig, at, value.to_le_bytes().to_vec());
        }
        let status = status | registers.moving.shown();
        add(PartType::DeviceStatus, 0, vec![status.bits()]);
        for (q, queue) in (0_u16..).zip(&registers.queues) {
            let part = QueuePart {
                size: self.size(q, queue),
                vector: self.interrupts.vector(Some(q)),
                enabled: queue.run != Run::Stopped,
                areas: [queue.descriptor, queue.driver, queue.device],
            };
            add(PartType::QueueConfig, q.into(), part.to_bytes());
            let mut bells = self.notify.off(q).to_le_bytes().to_vec();
            let data = match self.own.contains(bits::NOTIF_CONFIG_DATA) {
                true => Notify::data(q),
                false => 0,
            };
            bells.extend(data.to_le_bytes());
            bells.extend([0; 4]);
            add(PartType::QueueNotifyConfig, q.into(), bells);
        }
        if let Some(known) = known {
            add(PartType::Simulated, 0, known.to_bytes());
        }
        for (name, value) in &registers.moving.set {
            parts.insert(*name, value.clone());
        }
        let parts = parts.into_iter();
        Ok(parts.map(|(name, value)| Part::new(name, value)).collect())
    }

    pub(in crate::pci) fn set_parts(
        &self,
        parts: &[Part],
    ) -> Poll<std::result::Result<(), Refusal>> {
        let mut registers = lock(&self.registers);
        if registers.moving.halt != Halt::Stopped || registers.moving.becoming.is_some() {
            return Poll::Ready(Err(Refusal::BUSY));
        }
        self.settle_all(&mut registers);
        let own = match self.all_parts(&registers) {
            Ok(own) => own,
            Err(Error::Busy { .. }) => return Poll::Pending,
            Err(_) => return Poll::Ready(Err(Refusal::BUSY)),
        };
        if parts.iter().any(|part| !self.is_legal(&own, part)) {
            return Poll::Ready(Err(Refusal::FIELD));
        }
        let set = parts.iter().filter(|part| !is_fixed(part.name));
        let set = set.map(|part| (part.name, part.value.clone()));
        registers.moving.set.extend(set);
        Poll::Ready(Ok(()))
    }

    /// Whether a part can have this value, as far as that can be said of it alone.
    ///
    /// * `own`: the parts that there are
    fn is_legal(&self, own: &[Part], part: &Part) -> bool {
        let Part { name, value } = part;
        let field = Fields(value);
        let is_vector = |vector| vector == NO_VECTOR || vector < self.interrupts.vectors();
        match (name.kind, name.selector) {
            _ if is_fixed(*name) => own.contains(part),
            (PartType::DriverFeatures, _) => {
                let features = Features::from_u128(u128::from_le_bytes(field.bytes(0)));
                self.offered().contains_all(features)
            }
            (PartType::PciCommonConfig, CONFIG_VECTOR) => is_vector(field.u16(0)),
            (PartType::DeviceStatus, _) => {
                let lost = Status::FAILED | Status::DEVICE_NEEDS_RESET;
                Status::from_bits(field.u8(0)).is_some_and(|status| !status.intersects(lost))
            }
            (PartType::QueueConfig, q) => {
                let enabled = field.u16(4);
                let most = self.device.queue_limits(QueueIndex::new(q as u16));
                let most = most.map_or(0, |limits| limits.max_size);
                // Of how many descriptors depends on features that are perhaps not set yet.
                is_vector(field.u16(2))
                    && enabled <= 1
                    // One that there is not with the other's features is of no size.
                    && (field.u16(0) != 0 || enabled == 0)
                    && field.u16(0) <= most.checked_next_power_of_two().unwrap_or(u16::MAX)
            }
            (PartType::Simulated, _) => {
                let own = self.device.info().device_type;
                DeviceImage::parse(value).is_ok_and(|image| image.device_type() == own)
            }
            _ => true,
        }
    }
}

/// Whether a part is the device's own: it is compared, and not set.
fn is_fixed(name: PartName) -> bool {
    match name.kind {
        PartType::DeviceFeatures | PartType::QueueNotifyConfig => true,
        PartType::PciCommonConfig => name.selector == NUM_QUEUES,
        _ => false,
    }
}

fn of_queues(parts: &[Part]) -> impl Iterator<Item = &Part> {
    parts
        .iter()
        .filter(|part| part.name.kind == PartType::QueueConfig)
}

/// Where a queue stands, if anybody knows.
fn position(known: &DeviceImage, q: u16) -> Option<QueueState> {
    let mut queues = known.queues().iter();
    let (_, config) = queues.find(|(queue, _)| queue.get() == q)?;
    config.state
}

/// How a queue is set up: `struct virtio_dev_part_vq_cfg`.
struct QueuePart {
    size: u16,
    vector: u16,
    enabled: bool,
    /// Descriptor, driver, device: the halves of their addresses.
    areas: [[u32; 2]; 3],
}

impl QueuePart {
    fn parse(value: &[u8]) -> Self {
        let field = Fields(value);
        let area = |at: usize| [field.u32(at), field.u32(at.saturating_add(4))];
        Self {
            size: field.u16(0),
            vector: field.u16(2),
            enabled: field.u16(4) == 1,
            areas: [area(8), area(16), area(24)],
        }
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut to = Vec::with_capacity(QUEUE_BYTES);
        for field in [self.size, self.vector, u16::from(self.enabled), 0] {
            to.extend(field.to_le_bytes());
        }
        for half in self.areas.iter().flatten() {
            to.extend(half.to_le_bytes());
        }
        to
    }

    fn put(&self, to: &mut QueueRegisters) {
        let [descriptor, driver, device] = self.areas;
        *to = QueueRegisters {
            size: Some(self.size).filter(|size| *size != 0),
            descriptor,
            driver,
            device,
            run: Run::Stopped,
        };
    }

    fn config(&self, state: Option<QueueState>) -> QueueConfig {
        let [descriptor, driver, device] = self
            .areas
            .map(|[low, high]| Iova::new(u64::from(high) << 32 | u64::from(low)));
        QueueConfig {
            state,
            ..QueueConfig::new(self.size, descriptor, driver, device)
        }
    }
}

//! Queues: limits, start, reset, calls.

use std::task::Poll;

use vdpa_core::{
    Call, Doorbell, Error, GroupIndex, QueueConfig, QueueIndex, QueueLimits, QueueReset,
    QueueState, Result, Status, bits,
};

use super::early::Early;
use super::ending::Dead;
use super::vectors::{Target, no_interrupts};
use super::{Control, VirtioPci, narrow};
use crate::access::Width;
use crate::error::PciError;
use crate::registers::common;

/// The largest queue that there can be, virtio 1.4 §2.7 and §2.8.
const SIZE_MOST: u16 = 0x8000;

impl VirtioPci {
    pub(super) fn limits(&self, q: QueueIndex) -> Result<QueueLimits> {
        let mut control = self.control();
        Ok(QueueLimits {
            max_size: self.most(q, &mut control)?,
            group: GroupIndex::new(0),
        })
    }

    /// The largest size of a queue; 0 for one that does not exist. Read once after a reset, since what is written to the
    /// register takes its place.
    fn most(&self, q: QueueIndex, control: &mut Control) -> Result<u16> {
        self.registers.check()?;
        let number = q.get();
        let is_admin = self.admin.contains(&number);
        if number >= self.plain_queues && !is_admin
            || is_admin && !control.accepted.contains(bits::ADMIN_VQ)
        {
            return Ok(0);
        }
        let known = control.most.get_mut(q.place());
        let known = known.ok_or(Error::QueueOutOfRange {
            queue: q,
            count: self.info.queues,
        })?;
        if let Some(most) = *known {
            return Ok(most);
        }
        self.select(q)?;
        let most = narrow(self.registers.common(common::QUEUE_SIZE)?).min(SIZE_MOST);
        *known = Some(most);
        Ok(most)
    }

    fn select(&self, q: QueueIndex) -> Result<()> {
        self.registers
            .set_common(common::QUEUE_SELECT, u32::from(q.get()))
    }

    pub(super) fn start(&self, q: QueueIndex, c: &QueueConfig, call: Call) -> Result<Doorbell> {
        if let Some(state) = c.state.filter(|state| !is_fresh(*state)) {
            return Err(PciError::QueueState { queue: q, state }.into());
        }
        let registers = &self.registers;
        registers.check()?;
        let host = self.host()?;
        let mut dead = Dead::default();
        // Kept for the error paths: the last one must not be dropped under a lock.
        dead.calls.push(call.clone());
        let mut control = self.control();
        if self.most(q, &mut control)? == 0 {
            return Err(PciError::QueueUnavailable { queue: q }.into());
        }
        let mut vectors = self.vectors();
        vectors.prepare(registers, host, self.there(), &mut dead)?;

        self.select(q)?;
        registers.set_common(common::QUEUE_SIZE, u32::from(c.size))?;
        let doorbell = self.doorbell(q, &control)?;
        vectors.add(registers, host, (q, self.rank(q)), call, &mut dead)?;
        drop(vectors);
        for (at, area) in [
            (common::QUEUE_DESC, c.descriptor),
            (common::QUEUE_DRIVER, c.driver),
            (common::QUEUE_DEVICE, c.device),
        ] {
            let address = area.get();
            let halves = [address & 0xffff_ffff, address >> 32];
            for (at, half) in [at, at + 4].into_iter().zip(halves) {
                let half = u32::try_from(half).unwrap_or(0);
                registers.write(&registers.layout.common, at, Width::U32, half)?;
            }
        }
        // Last: all else has to be there, virtio 1.4 §4.1.4.3.2.
        registers.set_common(common::QUEUE_ENABLE, 1)?;
        if !control.last.contains(Status::DRIVER_OK) {
            control.early.push(Early::new(q, c, &doorbell));
        }
        drop(control);
        drop(dead);
        Ok(doorbell)
    }

    /// The doorbell of the selected queue.
    fn doorbell(&self, q: QueueIndex, control: &Control) -> Result<Doorbell> {
        let registers = &self.registers;
        let offset = narrow(registers.common(common::QUEUE_NOTIFY_OFF)?);
        let name = match control.accepted.contains(bits::NOTIF_CONFIG_DATA) {
            true => narrow(registers.common(common::QUEUE_NOTIF_CONFIG_DATA)?),
            false => q.get(),
        };
        let width = match control.accepted.contains(bits::NOTIFICATION_DATA) {
            true => Width::U32,
            false => Width::U16,
        };
        let notify = &registers.layout.notify;
        let multiplier = registers.layout.notify_multiplier;
        // 16 bits by 32: no overflow.
        let at = u64::from(offset) * u64::from(multiplier);
        let bytes = width.bytes();
        if at + u64::from(bytes) > notify.len {
            return Err(PciError::DoorbellOutside {
                queue: q,
                offset,
                multiplier,
                width: bytes,
                len: notify.len,
            }
            .into());
        }
        let place = notify.offset + at;
        if !place.is_multiple_of(u64::from(bytes)) {
            return Err(PciError::DoorbellMisaligned {
                queue: q,
                bar: notify.bar,
                at: place,
                width: bytes,
            }
            .into());
        }
        registers.doorbell(at, width, name)
    }

    pub(super) fn replace(&self, q: QueueIndex, call: Call) -> Result<()> {
        let registers = &self.registers;
        registers.check()?;
        let mut dead = Dead::default();
        let vectors = self.vectors();
        let epoch = vectors.epoch;
        let target = vectors.target(q);
        drop(vectors);
        match target {
            None => return Err(Error::QueueNotStarted { queue: q }),
            Some(Target::Nothing) if matches!(call, Call::None) => {}
            Some(Target::Nothing) => return Err(no_interrupts(registers)),
            Some(Target::Branch(branch)) => {
                let mut vectors = self.vectors();
                if vectors.epoch != epoch {
                    return Err(interrupted());
                }
                vectors.note(q, call.clone(), &mut dead);
                drop(vectors);
                // Shut by a reset that came in between.
                if !branch.replace(call) {
                    return Err(interrupted());
                }
            }
            Some(Target::Vector(vector)) => {
                // Without a lock: it waits for the old call to end.
                let set = registers.access().set_vector(vector, call.clone());
                set.map_err(|e| registers.failed(e))?;
                let mut vectors = self.vectors();
                let same = vectors.epoch == epoch;
                if same {
                    vectors.note(q, call.clone(), &mut dead);
                }
                // A reset came, or another queue came to share the vector: it is not for this call, or not for it alone.
                let branch = match vectors.target(q) {
                    Some(Target::Branch(branch)) if same => Some(branch),
                    _ => None,
                };
                if same && branch.is_none() {
                    drop(vectors);
                    call.raise();
                    return Ok(());
                }
                let restored = vectors.restore(vector, registers);
                drop(vectors);
                // What the vector told meanwhile went to this call alone.
                restored.map_err(|e| registers.failed(e))?.raise();
                if !branch.is_some_and(|branch| branch.replace(call)) {
                    return Err(interrupted());
                }
            }
        }
        Ok(())
    }
}

impl QueueReset for VirtioPci {
    fn begin(&self, q: QueueIndex) -> Result<()> {
        self.registers.check()?;
        let mut control = self.control();
        if !control.accepted.contains(bits::RING_RESET) {
            return Err(self.unsupported("queue reset"));
        }
        self.select(q)?;
        self.registers.set_common(common::QUEUE_RESET, 1)?;
        control.early.retain(|early| early.queue() != q);
        Ok(())
    }

    fn poll(&self, q: QueueIndex) -> Result<Poll<()>> {
        let control = self.control();
        self.select(q)?;
        // Both, virtio 1.4 §4.1.4.3.1.
        for register in [common::QUEUE_RESET, common::QUEUE_ENABLE] {
            if self.registers.common(register)? != 0 {
                return Ok(Poll::Pending);
            }
        }
        let mut dead = Dead::default();
        let mut vectors = self.vectors();
        vectors.remove(q, &self.registers, self.host()?, &mut dead);
        let is_called = vectors.is_called(q, &mut dead);
        drop(vectors);
        drop(control);
        drop(dead);
        match is_called {
            true => Ok(Poll::Pending),
            false => Ok(Poll::Ready(())),
        }
    }
}

/// A reset came in between, after which nothing is called.
fn interrupted() -> Error {
    Error::Interrupted {
        what: "the replacement of a call",
    }
}

/// Whether it is where a ring begins.
fn is_fresh(state: QueueState) -> bool {
    match state {
        QueueState::Split { avail, used } => avail == 0 && used.unwrap_or(0) == 0,
        QueueState::Packed { avail, used } => {
            let begins = |index: u16, wrap: bool| index == 0 && wrap;
            begins(avail.index, avail.wrap) && begins(used.index, used.wrap)
        }
    }
}

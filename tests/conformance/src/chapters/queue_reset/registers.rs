//! What the registers of a queue say about its reset.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use vdpa_core::{Area, QueueReset, Result, bits};
use vdpa_pci::{PciAccess, Width};

use super::super::queues::registers::Taped;
use crate::checked::{ensure, fail};
use crate::lane::{Cut, Lane};
use crate::registers::{Between, Plain, Register, Registers, Structure, Through, reg};
use crate::{Bench, Checked, Rig, Variant};

/// A function under the plain driver, live, whose queue has served some requests.
struct Worked<'b> {
    plain: Arc<Plain>,
    rig: Rig<'b>,
    lane: Lane,
}

impl<'b> Worked<'b> {
    fn of(bench: &'b Bench<'b>) -> Checked<Self> {
        bench.require(bits::RING_RESET)?;
        let traffic = bench.traffic()?[0];
        let plain = bench.registers()?;
        let rig = bench.rig(plain.clone())?;
        rig.reset()?;
        rig.negotiate(rig.plain(Variant::SPLIT))?;
        let mut lane = Lane::start(&rig, traffic, 8)?;
        rig.run()?;
        lane.exchange(&rig, 3, Cut::Whole)?;
        Ok(Self { plain, rig, lane })
    }

    fn q(&self) -> u16 {
        self.lane.index().get()
    }

    fn read(&self, register: Register) -> Checked<u64> {
        Ok(self.plain.registers.get_of(self.q(), register)?)
    }

    /// Begins the reset of the queue, and reads queue_reset until it is over. What was read.
    fn reset_queue(&self) -> Checked<Vec<u64>> {
        let q = self.lane.index();
        self.rig.device.begin_reset_queue(q)?;
        // The handle has looked for itself, or has not.
        let mut read = Vec::new();
        self.rig.bench().until("the end of a queue's reset", || {
            let now = self.read(reg::QUEUE_RESET)?;
            read.push(now);
            // Of one that does not end, enough is said by this.
            Ok(now == 0 || read.len() > 1_000_000)
        })?;
        Ok(read)
    }
}

pub(super) fn ongoing(bench: &Bench<'_>) -> Checked {
    for _ in 0..bench.times(4, 1) {
        let mut worked = Worked::of(bench)?;
        // One is under way when the reset comes.
        let request = worked.lane.request(&worked.rig)?;
        worked.lane.add(&request, Cut::Whole)?;
        worked.lane.ring.publish();
        let read = worked.reset_queue()?;
        for value in &read {
            ensure!(
                *value <= 1,
                "queue_reset reads {value:#x} while a reset is under way"
            );
        }
        // Once it is over it is over, and nothing is touched.
        let ring = &worked.lane.ring;
        let before = Area::ALL.map(|area| ring.image(area));
        worked.rig.bench().quiet();
        for _ in 0..4 {
            let again = worked.read(reg::QUEUE_RESET)?;
            ensure!(
                again == 0,
                "queue_reset was 0 after {} looks, and reads {again:#x} again",
                read.len()
            );
        }
        let after = Area::ALL.map(|area| ring.image(area));
        ensure!(
            before == after,
            "queue_reset read 0, and the queue's areas were written after that"
        );
    }
    Ok(())
}

pub(super) fn complete(bench: &Bench<'_>) -> Checked {
    let worked = Worked::of(bench)?;
    let enabled = worked.read(reg::QUEUE_ENABLE)?;
    ensure!(enabled == 1, "queue_enable of a live queue reads {enabled}");
    worked.reset_queue()?;
    for field in [reg::QUEUE_ENABLE, reg::QUEUE_RESET] {
        worked
            .plain
            .reads(worked.q(), field, 0, "after the queue's reset")?;
    }
    // The queue beside it is as it was.
    if let Some(other) = &worked.lane.other {
        let q = other.index().get();
        worked
            .plain
            .reads(q, reg::QUEUE_ENABLE, 1, "after the reset of another queue")?;
    }
    Ok(())
}

pub(super) fn cleared(bench: &Bench<'_>) -> Checked {
    let Worked { plain, rig, lane } = Worked::of(bench)?;
    let q = lane.index();
    plain.reads(q.get(), reg::QUEUE_RESET, 0, "before any reset")?;
    rig.device.reset_queue(q, bench.by())?;
    // Started again with another size at other addresses: statement 55 at its registers.
    let ring = rig.queue(q.get(), 4)?;
    for (field, due) in [
        (reg::QUEUE_RESET, 0),
        (reg::QUEUE_ENABLE, 1),
        (reg::QUEUE_SIZE, ring.size().into()),
        (reg::QUEUE_DESC, ring.area(Area::Descriptor).at.get()),
        (reg::QUEUE_DRIVER, ring.area(Area::Driver).at.get()),
        (reg::QUEUE_DEVICE, ring.area(Area::Device).at.get()),
    ] {
        plain.reads(q.get(), field, due, "after the queue was started again")?;
    }
    let mut lane = Lane::with(lane.traffic, ring, lane.other);
    lane.exchange(&rig, 6, Cut::Whole)
        .map_err(|stop| stop.about("after the queue was started again"))?;
    // A reset of the device ends that of a queue.
    rig.device.begin_reset_queue(q)?;
    rig.reset()?;
    plain.reads(q.get(), reg::QUEUE_RESET, 0, "after the device was reset")?;
    Ok(())
}

/// Has the reset of a queue take so many looks.
struct Slow {
    common: Structure,
    looks: u32,
    left: AtomicU32,
}

impl Slow {
    fn is(&self, bar: u8, at: u64) -> bool {
        let place = self.common.offset + u64::from(reg::QUEUE_RESET.at);
        bar == self.common.bar && at == place
    }
}

impl Between for Slow {
    fn read(&self, to: &dyn PciAccess, bar: u8, at: u64, width: Width) -> Result<u32> {
        let read = to.read(bar, at, width)?;
        let left = self.left.load(Ordering::SeqCst);
        if !self.is(bar, at) || left == 0 {
            return Ok(read);
        }
        self.left.store(left - 1, Ordering::SeqCst);
        Ok(1)
    }
    fn write(&self, to: &dyn PciAccess, bar: u8, at: u64, width: Width, value: u32) -> Result<()> {
        if self.is(bar, at) && value == 1 {
            self.left.store(self.looks, Ordering::SeqCst);
        }
        to.write(bar, at, width, value)
    }
}

/// See statement 56: between a queue's reset and its next start, queue_reset was read to be 0.
pub(super) fn verifies(bench: &Bench<'_>) -> Checked {
    bench.require(bits::RING_RESET)?;
    for looks in [0, 30] {
        let function = bench.function()?;
        let common = Registers::of(Arc::clone(&function))?.common;
        let slow = Slow {
            common,
            looks,
            left: AtomicU32::new(0),
        };
        let Taped {
            tape,
            places,
            parent,
        } = Taped::on(bench, Through::around(function, Arc::new(slow)))?;
        let has_reset: Option<&dyn QueueReset> = parent.caps().queue_reset;
        ensure!(
            has_reset.is_some(),
            "RING_RESET is offered, and the driver makes nothing of it"
        );
        let rig = bench.rig(Arc::clone(&parent))?;
        rig.reset()?;
        rig.negotiate(rig.plain(Variant::SPLIT))?;
        let mut lane = Lane::start(&rig, bench.traffic()?[0], 8)?;
        rig.run()?;
        lane.exchange(&rig, 1, Cut::Whole)?;
        let q = lane.index();
        rig.device.reset_queue(q, bench.by())?;
        let ring = rig.queue(q.get(), 8)?;
        let mut lane = Lane::with(lane.traffic, ring, lane.other);
        lane.exchange(&rig, 1, Cut::Whole)?;
        let seen = places.common(&tape.seen());
        let begun = seen
            .iter()
            .rposition(|a| a.is_write && a.register == Some(reg::QUEUE_RESET));
        let Some(begun) = begun else {
            fail!("nothing was written to queue_reset");
        };
        let after = &seen[begun + 1..];
        let reads =
            |a: &&crate::registers::Common| !a.is_write && a.register == Some(reg::QUEUE_RESET);
        let enabled = after
            .iter()
            .position(|a| a.is_write && a.register == Some(reg::QUEUE_ENABLE));
        let between = &after[..enabled.unwrap_or(after.len())];
        let last = between.iter().rfind(reads);
        ensure!(
            enabled.is_some() && last.is_some_and(|read| read.value == 0),
            "a queue whose reset takes {looks} looks was started again, and queue_reset was read {last:?} last"
        );
        let count = between.iter().filter(reads).count();
        ensure!(
            count as u32 >= looks,
            "a reset that takes {looks} looks was looked at {count} times"
        );
    }
    Ok(())
}

//! What a driver writes when it kicks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use vdpa_core::session::{Completions, Running};
use vdpa_core::{DeviceType, Doorbell, FeatureBit, Features, QueueIndex, Result, Session, bits};
use vdpa_pci::{PciAccess, Width};

use super::super::queues::registers::Taped;
use crate::checked::{ensure, skip};
use crate::lane::Traffic;
use crate::registers::{Between, Places, Register, Registers, Seen, Structure, Through, reg};
use crate::rig::plain;
use crate::{Bench, Checked, Stop, Variant, driven};

/// Offers features of kicks that the function does not have, and takes them back on the way.
struct Offers {
    common: Structure,
    notify: Structure,
    extra: Features,
    device_select: AtomicU32,
    driver_select: AtomicU32,
    /// What was accepted of the extra ones.
    accepted: AtomicU32,
    queue: AtomicU32,
}

/// What queue `q` is to be kicked with where the function has nothing to say.
fn made_up(q: u32) -> u16 {
    0x5a00 | q as u16
}

impl Offers {
    fn of(registers: &Registers, wanted: Features) -> Checked<Arc<Self>> {
        let offered = registers.offered()?;
        Ok(Arc::new(Self {
            common: registers.common,
            notify: registers.notify,
            extra: wanted - offered,
            device_select: AtomicU32::new(0),
            driver_select: AtomicU32::new(0),
            accepted: AtomicU32::new(0),
            queue: AtomicU32::new(0),
        }))
    }

    fn field(&self, bar: u8, at: u64) -> Option<Register> {
        let offset = at.checked_sub(self.common.offset)?;
        let mut all = crate::registers::COMMON.iter();
        let found = all.find(|r| u64::from(r.at) == offset);
        found.copied().filter(|_| bar == self.common.bar)
    }

    fn has_made_up(&self) -> bool {
        self.extra.contains(bits::NOTIF_CONFIG_DATA)
    }
}

impl Between for Offers {
    fn read(&self, to: &dyn PciAccess, bar: u8, at: u64, width: Width) -> Result<u32> {
        let read = to.read(bar, at, width)?;
        let word = |select: &AtomicU32| self.extra.word(select.load(Ordering::SeqCst));
        Ok(match self.field(bar, at) {
            Some(reg::DEVICE_FEATURE) => read | word(&self.device_select),
            Some(reg::DRIVER_FEATURE) => {
                let accepted = self.accepted.load(Ordering::SeqCst);
                read | word(&self.driver_select) & accepted
            }
            Some(reg::QUEUE_NOTIF_CONFIG_DATA) if self.has_made_up() => {
                made_up(self.queue.load(Ordering::SeqCst)).into()
            }
            _ => read,
        })
    }
    fn write(&self, to: &dyn PciAccess, bar: u8, at: u64, width: Width, value: u32) -> Result<()> {
        let mut passed = value;
        match self.field(bar, at) {
            Some(reg::DEVICE_FEATURE_SELECT) => self.device_select.store(value, Ordering::SeqCst),
            Some(reg::DRIVER_FEATURE_SELECT) => self.driver_select.store(value, Ordering::SeqCst),
            Some(reg::QUEUE_SELECT) => self.queue.store(value, Ordering::SeqCst),
            Some(reg::DRIVER_FEATURE) => {
                let extra = self.extra.word(self.driver_select.load(Ordering::SeqCst));
                if extra != 0 {
                    self.accepted.store(value & extra, Ordering::SeqCst);
                }
                passed = value & !extra;
            }
            // A kick: of what was made up the lower half is the queue.
            None if self.notify.covers(bar, at) && self.has_made_up() => passed = value & 0xff,
            None if self.notify.covers(bar, at)
                && self.extra.contains(bits::NOTIFICATION_DATA)
                && width == Width::U32 =>
            {
                return to.write(bar, at, Width::U16, value & 0xffff);
            }
            _ => {}
        }
        to.write(bar, at, width, passed)
    }
    /// Whatever the driver would write, the function is kicked as it knows it.
    fn doorbell(
        &self,
        to: &dyn PciAccess,
        bar: u8,
        at: u64,
        width: Width,
        name: u16,
    ) -> Result<Doorbell> {
        let q = self.queue.load(Ordering::SeqCst) as u16;
        let (width, data) = match self.extra.contains(bits::NOTIFICATION_DATA) {
            true => (Width::U16, Some(q)),
            false => (width, None),
        };
        let name = if self.has_made_up() { q } else { name };
        let bell = to.doorbell(bar, at, width, name)?;
        Ok(Doorbell::from_fn(move |rung| {
            bell.ring(data.map_or(rung, u32::from));
        }))
    }
}

/// A driver that is judged, with a feature of kicks negotiated, after some requests.
struct Kicked {
    places: Places,
    seen: Vec<Seen>,
    /// Where each queue's register is, in its BAR, and what stands for its name.
    registers: Vec<(u64, u16)>,
}

/// Runs `requests` requests with `extra` features. `each` is told what was seen of each.
fn kicked(
    bench: &Bench<'_>,
    variant: Variant,
    extra: &[FeatureBit],
    requests: u32,
    mut each: impl FnMut(&Places, &[Seen], u32) -> Checked,
) -> Checked<Kicked> {
    let function = bench.function()?;
    let registers = Registers::of(Arc::clone(&function))?;
    let wanted = Features::of(extra);
    let offers = Offers::of(&registers, wanted)?;
    let room = registers.common.length >= u64::from(reg::QUEUE_NOTIF_CONFIG_DATA.at) + 2;
    if wanted.contains(bits::NOTIF_CONFIG_DATA) && !room {
        skip!("the common configuration ends before queue_notif_config_data");
    }
    let mut places = Vec::new();
    let count = registers.get(reg::NUM_QUEUES)? as u16;
    for q in 0..count.min(8) {
        let at = registers.notify.offset + registers.notify_at(q)?;
        let name = match (
            wanted.contains(bits::NOTIF_CONFIG_DATA),
            offers.has_made_up(),
        ) {
            (false, _) => q,
            (true, true) => made_up(q.into()),
            (true, false) => registers.get_of(q, reg::QUEUE_NOTIF_CONFIG_DATA)? as u16,
        };
        places.push((at, name));
    }
    let notify = registers.notify;
    let aligned = notify.offset.is_multiple_of(4) && notify.multiplier.is_multiple_of(4);
    if wanted.contains(bits::NOTIFICATION_DATA) && !aligned {
        skip!(
            "the function does not offer NOTIFICATION_DATA, and its notify structure, at {:#x} with a multiplier of {}, does not take it",
            notify.offset,
            notify.multiplier
        );
    }
    drop(registers);
    let taped = Taped::on(bench, Through::around(function, offers))?;
    let offered = taped.parent.offered();
    if let Some(lacking) = (wanted - offered).iter().next() {
        skip!(
            "{} is offered, and the driver makes nothing of it on a function with a multiplier of {}",
            lacking.display(bench.device_type()),
            taped.places.notify.multiplier
        );
    }
    let device_type = taped.parent.info().device_type;
    let features = plain(device_type, offered, variant) | wanted;
    let parent = Arc::clone(&taped.parent);
    let mut session = driven::running_with(bench, parent, features)?;
    for number in 0..requests {
        received(&mut session)?;
        let from = taped.tape.len();
        driven::request(bench, &mut session)?;
        each(&taped.places, &taped.tape.since(from), number)?;
    }
    drop(session);
    Ok(Kicked {
        places: taped.places,
        seen: taped.tape.seen(),
        registers: places,
    })
}

/// Takes what a network card gave back, and gives it buffers: one that finds none may stop a sender.
fn received(session: &mut Session<Running>) -> Checked {
    if session.device_type() != DeviceType::Net {
        return Ok(());
    }
    let Some(queue) = session.queue_mut(QueueIndex::new(0)) else {
        return Ok(());
    };
    let mut done = Completions::new(8);
    queue.poll(&mut done)?;
    for done in done.drain() {
        queue.put(done.lease);
    }
    while let Some(lease) = queue.lease() {
        queue
            .receive(lease)
            .map_err(|refused| Stop::from(refused.why))?;
    }
    queue.publish();
    Ok(())
}

impl Kicked {
    /// Every doorbell, and every write to the notify structure: where, width, and what stands for the queue's name.
    fn kicks(&self) -> Vec<(u64, Width, u32)> {
        let notify = self.places.notify;
        let of = |seen: &Seen| match *seen {
            Seen::Bell {
                bar,
                at,
                width,
                name,
            } if bar == notify.bar => Some((at, width, u32::from(name))),
            Seen::Write {
                bar,
                at,
                width,
                value,
            } if notify.covers(bar, at) => Some((at, width, value & 0xffff)),
            _ => None,
        };
        self.seen.iter().filter_map(of).collect()
    }

    /// Fails unless all of them are of this width, at a queue's place, and with its name.
    fn all(&self, due: Width) -> Checked {
        let kicks = self.kicks();
        ensure!(!kicks.is_empty(), "nothing was kicked");
        for (at, width, name) in kicks {
            ensure!(
                width == due,
                "a kick of {width:?} at {at:#x}, where {due:?} is due"
            );
            let mut all = self.registers.iter();
            ensure!(
                all.any(|(place, due)| *place == at && u32::from(*due) == name),
                "a kick with {name:#x} at {at:#x}, which is none of (place, name) {:x?}",
                self.registers
            );
        }
        Ok(())
    }
}

pub(super) fn width(bench: &Bench<'_>) -> Checked {
    let without = kicked(bench, Variant::SPLIT, &[], 3, |_, _, _| Ok(()))?;
    without.all(Width::U16)?;
    let with = &[bits::NOTIFICATION_DATA];
    let with = kicked(bench, Variant::SPLIT, with, 3, |_, _, _| Ok(()));
    let with = match with {
        Err(Stop::Skipped(reason)) => skip!("kicks of 16 bits are right; {reason}"),
        with => with?,
    };
    with.all(Width::U32)
        .map_err(|stop| stop.about("with NOTIFICATION_DATA"))
}

pub(super) fn config_data(bench: &Bench<'_>) -> Checked {
    let wanted = &[bits::NOTIF_CONFIG_DATA];
    let kicked = kicked(bench, Variant::SPLIT, wanted, 3, |_, _, _| Ok(()))?;
    kicked.all(Width::U16)
}

pub(super) fn next(bench: &Bench<'_>, variant: Variant) -> Checked {
    const WRAP: u32 = 1 << 31;
    bench.require(bits::VERSION_1)?;
    let traffic = bench.traffic()?[0];
    // Descriptors of each request, and those of a queue, as `driven` sets it up.
    let each = if traffic == Traffic::Disk { 2 } else { 1 };
    let size = {
        let registers = bench.registers()?;
        let most = registers
            .registers
            .get_of(traffic.queue(), reg::QUEUE_SIZE)?;
        1_u32 << (most as u32).clamp(1, 16).ilog2()
    };
    // Around the ring, and not much more: frames that nobody receives may stop a sender.
    let rounds = size / each + 3;
    let wanted = &[bits::NOTIFICATION_DATA];
    kicked(bench, variant, wanted, rounds, |places, seen, number| {
        let notify = places.notify;
        let done = number + 1;
        let due = match variant.is_packed() {
            // The available index.
            false => done << 16,
            true => {
                let slots = done * each;
                let lap = slots / size;
                // Both wrap counters are 1 at first.
                let wrap = if lap % 2 == 0 { WRAP } else { 0 };
                (slots % size) << 16 | wrap
            }
        };
        let rung = seen.iter().rev().find_map(|seen| match *seen {
            Seen::Rung { data, .. } => Some(data),
            Seen::Write { bar, at, value, .. } if notify.covers(bar, at) => Some(value),
            _ => None,
        });
        ensure!(
            rung.is_some_and(|data| data & 0xffff_0000 == due),
            "after {done} requests of {each} descriptors in a ring of {size} the kick says {rung:#x?}, \
             and its upper half has to be that of {due:#x}"
        );
        Ok(())
    })?;
    Ok(())
}

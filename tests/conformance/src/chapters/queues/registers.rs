//! The registers of queues and features.

use std::sync::Arc;

use vdpa_core::{Features, QueueIndex, Status, VdpaDevice, graph};
use vdpa_pci::PciAccess;

use crate::checked::{ensure, fail};
use crate::registers::{COMMON, Places, Registers, Seen, Tape, reg};
use crate::{Bench, Checked, Variant, driven};

/// The largest number that a queue may have.
const LAST: u16 = 0xffff;

/// Behind the last queue there is none, as its registers say.
pub(super) fn absent_have_no_size(bench: &Bench<'_>) -> Checked {
    let registers = Registers::of(bench.function()?)?;
    let count = registers.get(reg::NUM_QUEUES)? as u16;
    // What is administered has numbers of its own behind them.
    let administered = administered(&registers)?;
    for q in [count, count.saturating_add(1), LAST] {
        let is_there = q < count || administered.contains(&q);
        let size = registers.get_of(q, reg::QUEUE_SIZE)?;
        ensure!(
            is_there || size == 0,
            "queue_size of queue {q} reads {size}, and num_queues is {count}"
        );
    }
    Ok(())
}

/// The numbers of the administration queues.
fn administered(registers: &Registers) -> Checked<std::ops::Range<u16>> {
    use vdpa_core::bits::ADMIN_VQ;
    let room = registers.common.length >= u64::from(reg::ADMIN_QUEUE_NUM.at) + 2;
    if !room || !registers.offered()?.contains(ADMIN_VQ) {
        return Ok(0..0);
    }
    let first = registers.get(reg::ADMIN_QUEUE_INDEX)? as u16;
    let count = registers.get(reg::ADMIN_QUEUE_NUM)? as u16;
    Ok(first..first.saturating_add(count))
}

/// In reset, before any format is agreed on, every size is one that a split ring may have, or of a packed one alone.
pub(super) fn sizes_in_reset(bench: &Bench<'_>) -> Checked {
    let plain = bench.registers()?;
    let rig = bench.rig(plain.clone())?;
    rig.reset()?;
    rig.negotiate(rig.plain(Variant::SPLIT))?;
    for q in 0..rig.device.info().queues {
        let size = plain.registers.get_of(q, reg::QUEUE_SIZE)?;
        ensure!(
            size == 0 || size.is_power_of_two() && size <= 32768,
            "queue_size of queue {q} reads {size} with a split ring"
        );
    }
    Ok(())
}

pub(super) fn windows_of_offered(bench: &Bench<'_>) -> Checked {
    let known = bench.offered()?;
    let registers = Registers::of(bench.function()?)?;
    let window = |select: u32| -> Checked<u32> {
        registers.set(reg::DEVICE_FEATURE_SELECT, select.into())?;
        let read = registers.get(reg::DEVICE_FEATURE_SELECT)?;
        ensure!(
            read == u64::from(select),
            "{select} was written to device_feature_select, and it reads {read}"
        );
        Ok(registers.get(reg::DEVICE_FEATURE)? as u32)
    };
    let offered = registers.offered()?;
    // In another order, and again: what is shown depends on what is selected, and on nothing else.
    for select in [1, 0, 1, 3, 0, 2, 2] {
        let (seen, due) = (window(select)?, offered.word(select));
        ensure!(
            seen == due,
            "device_feature reads {seen:#010x} at window {select}, and has read {due:#010x}"
        );
    }
    // VERSION_1 is the first bit of the second window: whoever shows the first one everywhere is seen by it.
    ensure!(
        offered.word(1) & 1 == 1,
        "window 1 of device_feature reads {:#010x}, without VIRTIO_F_VERSION_1",
        offered.word(1)
    );
    // No feature has a number this high.
    for select in [4, 5, 31, 0x8000_0000] {
        let seen = window(select)?;
        ensure!(
            seen == 0,
            "device_feature reads {seen:#010x} at window {select}, where no feature is"
        );
    }
    let device = registers.device_type;
    let missing = graph::known(device, known) - graph::known(device, offered);
    ensure!(
        missing.is_empty(),
        "the device offers {}, which no window shows",
        missing.display(device)
    );
    Ok(())
}

pub(super) fn accepted_reads_back(bench: &Bench<'_>) -> Checked {
    let plain = bench.registers()?;
    let registers = &plain.registers;
    registers.set(reg::DEVICE_STATUS, 0)?;
    bench.until("status 0", || Ok(registers.get(reg::DEVICE_STATUS)? == 0))?;
    for bit in [Status::ACKNOWLEDGE, Status::DRIVER] {
        plain.add_status(bit)?;
    }
    let all = graph::acceptable(registers.device_type, plain.offered());
    let halves = [
        all,
        Features::from_u128(all.to_u128() & 0x5555_5555 << 32),
        all,
    ];
    for written in halves {
        for select in [0, 1] {
            let word = written.word(select);
            registers.set(reg::DRIVER_FEATURE_SELECT, select.into())?;
            registers.set(reg::DRIVER_FEATURE, word.into())?;
            let read = registers.get(reg::DRIVER_FEATURE)? as u32;
            ensure!(
                read & word == word,
                "{word:#010x} was written to window {select} of driver_feature, and it reads {read:#010x}"
            );
        }
        // The other window was not touched meanwhile.
        for select in [0, 1] {
            let word = written.word(select);
            registers.set(reg::DRIVER_FEATURE_SELECT, select.into())?;
            let read = registers.get(reg::DRIVER_FEATURE)? as u32;
            ensure!(
                read & word == word,
                "window {select} of driver_feature was {word:#010x}, and reads {read:#010x} later"
            );
        }
    }
    Ok(registers.set(reg::DEVICE_STATUS, 0)?)
}

/// A driver that is judged, on a function that is written down.
pub(crate) struct Taped {
    pub(crate) tape: Arc<Tape>,
    pub(crate) places: Places,
    pub(crate) parent: Arc<dyn VdpaDevice>,
}

impl Taped {
    /// On the target's function.
    pub(crate) fn of(bench: &Bench<'_>) -> Checked<Self> {
        Self::on(bench, bench.function()?)
    }

    /// On this one.
    pub(crate) fn on(bench: &Bench<'_>, function: Arc<dyn PciAccess>) -> Checked<Self> {
        let places = Places::of(&function)?;
        let (tape, function) = Tape::around(function);
        let parent = bench.drive(function)?;
        Ok(Self {
            tape,
            places,
            parent,
        })
    }
}

/// What the driver does from open to close: it starts, works, has a queue reset and started again where it can, and ends.
pub(crate) fn whole_life(bench: &Bench<'_>) -> Checked<(Places, Vec<Seen>)> {
    let variant = Variant::SPLIT;
    let Taped {
        tape,
        places,
        parent,
    } = Taped::of(bench)?;
    let resets = parent.caps().queue_reset.is_some();
    let rig = bench.rig(parent)?;
    rig.reset()?;
    rig.negotiate(rig.plain(variant))?;
    let traffic = bench.traffic()?[0];
    let mut lane = crate::Lane::start(&rig, traffic, 16)?;
    rig.run()?;
    lane.exchange(&rig, 2, crate::Cut::Whole)?;
    if resets
        && rig
            .device
            .negotiated()
            .contains(vdpa_core::bits::RING_RESET)
    {
        let q = lane.index();
        rig.device.reset_queue(q, bench.by())?;
        let ring = rig.queue(q.get(), 8)?;
        lane = crate::Lane::with(traffic, ring, lane.other);
        lane.exchange(&rig, 2, crate::Cut::Whole)?;
    }
    rig.reset()?;
    drop((lane, rig));
    Ok((places, tape.seen()))
}

/// What was written for each queue before it was enabled, as a tape tells it.
pub(super) fn written_before_enable(bench: &Bench<'_>) -> Checked {
    let (places, seen) = whole_life(bench)?;
    let mut selected = 0;
    let mut written = std::collections::BTreeMap::<u32, Vec<u64>>::new();
    let (mut enabled, mut live) = (0, std::collections::BTreeSet::new());
    for access in places.common(&seen) {
        let (Some(register), true) = (access.register, access.is_write) else {
            continue;
        };
        if register == reg::QUEUE_SELECT {
            selected = access.value;
        } else if register == reg::DEVICE_STATUS && access.value == 0 {
            written.clear();
            live.clear();
        } else if register == reg::QUEUE_RESET {
            written.remove(&selected);
            live.remove(&selected);
        } else if register == reg::QUEUE_ENABLE {
            enabled += 1;
            live.insert(selected);
            let before = written.remove(&selected).unwrap_or_default();
            for field in [reg::QUEUE_DESC, reg::QUEUE_DRIVER, reg::QUEUE_DEVICE] {
                for half in [0, 4] {
                    ensure!(
                        before.contains(&(u64::from(field.at) + half)),
                        "queue {selected} was enabled before bytes {half} to {} of {} were written",
                        half + 3,
                        field.name
                    );
                }
            }
        } else if (reg::QUEUE_SIZE.at..reg::QUEUE_NOTIF_CONFIG_DATA.at).contains(&register.at) {
            // A vector may be given to a queue that works already.
            ensure!(
                !live.contains(&selected) || register == reg::QUEUE_MSIX_VECTOR,
                "{} of queue {selected} was written after it was enabled",
                register.name
            );
            written.entry(selected).or_default().push(access.at);
        }
    }
    ensure!(enabled > 0, "no queue was enabled");
    Ok(())
}

pub(super) fn enable_is_never_cleared(bench: &Bench<'_>) -> Checked {
    let (places, seen) = whole_life(bench)?;
    let mut ones = 0;
    for access in places.common(&seen) {
        if access.register == Some(reg::QUEUE_ENABLE) && access.is_write {
            ensure!(
                access.value == 1,
                "{:#x} was written to queue_enable",
                access.value
            );
            ones += 1;
        }
    }
    ensure!(ones > 0, "nothing was written to queue_enable");
    Ok(())
}

pub(super) fn readable_is_not_written(bench: &Bench<'_>) -> Checked {
    let (places, seen) = whole_life(bench)?;
    for access in places.common(&seen) {
        if !access.is_write {
            continue;
        }
        let Some(register) = access.register else {
            fail!(
                "{:#x} was written at {:#x} of the common configuration, where no field is",
                access.value,
                access.at
            );
        };
        ensure!(
            register.written,
            "{:#x} was written to {}, which is for reading",
            access.value,
            register.name
        );
    }
    let writes = places.isr_writes(&seen);
    ensure!(writes == 0, "the ISR status was written {writes} times");
    let config = places.config(&seen);
    let written = config.iter().find(|(.., is_write)| *is_write);
    ensure!(
        written.is_none(),
        "the configuration was written, and nobody asked for it: {written:?}"
    );
    // All fields that it knows, for the message above to mean something.
    debug_assert!(COMMON.iter().any(|register| !register.written));
    Ok(())
}

/// See statement 11: after a reset no queue is enabled.
pub(crate) fn disabled_by_reset(bench: &Bench<'_>) -> Checked {
    let plain = bench.registers()?;
    let rig = bench.rig(plain.clone())?;
    rig.reset()?;
    rig.negotiate(rig.plain(Variant::SPLIT))?;
    let mut started = Vec::new();
    for q in 0..rig.device.info().queues.min(64) {
        let size = rig.device.queue_limits(QueueIndex::new(q))?.max_size;
        if size == 0 {
            continue;
        }
        let _ring = rig.queue(q, 8)?;
        plain.reads(q, reg::QUEUE_ENABLE, 1, "after it was enabled")?;
        started.push(q);
    }
    ensure!(!started.is_empty(), "no queue was started");
    rig.run()?;
    rig.reset()?;
    for q in started {
        plain.reads(q, reg::QUEUE_ENABLE, 0, "after a reset")?;
    }
    Ok(())
}

/// See statement 37: the halves of a field of 64 bits are apart.
pub(crate) fn halves_are_apart(bench: &Bench<'_>) -> Checked {
    use vdpa_pci::Width;
    let plain = bench.registers()?;
    let registers = &plain.registers;
    // Of the device's configuration, for reading.
    let fields = vdpa_core::config::fields(registers.device_type);
    let offered = plain.offered();
    for field in fields
        .iter()
        .filter(|f| f.width() == 8 && f.exists(offered))
    {
        let Some(config) = registers.config else {
            fail!("{} is offered, and there is no configuration", field.name());
        };
        let at = u64::from(field.offset());
        let half = |at| registers.read(&config, at, Width::U32);
        let (high, low) = (half(at + 4)?, half(at)?);
        let again = [half(at)?, half(at + 4)?];
        ensure!(
            again == [low, high],
            "{} reads {high:#x} and {low:#x} from above, and {again:#x?} from below",
            field.name()
        );
    }
    // Of a queue, for writing.
    let rig = bench.rig(plain.clone())?;
    rig.reset()?;
    rig.negotiate(rig.plain(Variant::SPLIT))?;
    let q = bench.traffic()?[0].queue();
    registers.set(reg::QUEUE_SELECT, q.into())?;
    for field in [reg::QUEUE_DESC, reg::QUEUE_DRIVER, reg::QUEUE_DEVICE] {
        let at = u64::from(field.at);
        let write = |at, value| registers.write(&registers.common, at, Width::U32, value);
        for (first, second, due) in [
            ((at + 4, 0x2), (at, 0x3000_1000), 0x2_3000_1000),
            ((at, 0x4000_0000), (at + 4, 0x5), 0x5_4000_0000),
            // One alone leaves the other as it was.
            ((at + 4, 0x6), (at + 4, 0x7), 0x7_4000_0000),
            ((at, 0x1000), (at, 0x2000), 0x7_0000_2000),
        ] {
            write(first.0, first.1)?;
            write(second.0, second.1)?;
            let read = registers.get(field)?;
            ensure!(
                read == due,
                "{} was written in halves to be {due:#x}, and reads {read:#x}",
                field.name
            );
        }
    }
    rig.reset()
}

/// See statement 36: each access has the width of its field.
pub(crate) fn natural_width(bench: &Bench<'_>) -> Checked {
    let device = bench.device_type();
    let offered = bench.offered()?;
    let Taped {
        tape,
        places,
        parent,
    } = Taped::of(bench)?;
    {
        let mut session = driven::running(bench, Arc::clone(&parent), Variant::SPLIT)?;
        // Each field of the configuration that is offered, and all of them in one go.
        let mut end = 0;
        for field in vdpa_core::config::fields(device) {
            if field.exists(offered) {
                let mut bytes = vec![0; field.width() as usize];
                session.read_config(field.offset(), &mut bytes)?;
                end = field.end().max(end);
            }
        }
        session.read_config(0, &mut vec![0; end as usize])?;
        driven::request(bench, &mut session)?;
    }
    let seen = tape.seen();
    let common = places.common(&seen);
    ensure!(
        !common.is_empty(),
        "the driver has made no access to the common configuration"
    );
    for access in common {
        let takes = access
            .register
            .is_some_and(|register| register.takes(access.at, access.width));
        ensure!(
            takes,
            "an access of {:?} at {:#x} of the common configuration, where {} is",
            access.width,
            access.at,
            access.register.map_or("nothing", |register| register.name)
        );
    }
    for (at, width, _) in places.config(&seen) {
        natural(device, at, width)?;
    }
    Ok(())
}

/// Fails if an access to the device's configuration is not that of its field.
fn natural(device: vdpa_core::DeviceType, at: u64, width: vdpa_pci::Width) -> Checked {
    let mut fields = vdpa_core::config::fields(device).iter();
    let covers =
        |f: &&vdpa_core::config::Field| (u64::from(f.offset())..u64::from(f.end())).contains(&at);
    let Some(field) = fields.find(covers) else {
        return Ok(());
    };
    let of = match field.width() {
        2 => 2,
        4 | 8 => 4,
        _ => 1,
    };
    let offset = at - u64::from(field.offset());
    ensure!(
        u64::from(width.bytes()) == of && offset.is_multiple_of(of),
        "an access of {width:?} at {at:#x} of the device's configuration, which is byte {offset} of {} with its {} bytes",
        field.name(),
        field.width()
    );
    Ok(())
}

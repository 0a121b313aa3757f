//! Where the structures are, and what is said of them.

use vdpa_core::{bits, config};
use vdpa_pci::{BARS, PciAccess, Width};

use crate::checked::{ensure, fail, skip};
use crate::registers::{Registers, Structure, device_type, kind, reg, structures};
use crate::{Bench, Checked};

/// Those of a kind whose BAR is one.
fn of_kind(function: &dyn PciAccess, wanted: u8) -> Checked<Vec<Structure>> {
    let mut all = structures(function)?;
    all.retain(|s| s.cfg_type == wanted && s.bar < BARS);
    Ok(all)
}

/// That there is one, that each is aligned, and inside its BAR where that can be seen.
fn placed(function: &dyn PciAccess, wanted: u8, align: u64, name: &str) -> Checked<Vec<Structure>> {
    let all = of_kind(function, wanted)?;
    ensure!(!all.is_empty(), "there is no {name}");
    for Structure {
        bar,
        offset,
        length,
        ..
    } in &all
    {
        ensure!(
            offset.is_multiple_of(align),
            "the {name} is at {offset:#x} of BAR {bar}, which is not aligned to {align}"
        );
        let there = function.bar_len(*bar);
        let end = offset.checked_add(*length);
        ensure!(
            there == 0 || end.is_some_and(|end| end <= there),
            "the {name} is at {offset:#x} of BAR {bar} with {length:#x} bytes, and the BAR has {there:#x}"
        );
    }
    Ok(all)
}

pub(super) fn common(bench: &Bench<'_>) -> Checked {
    let function = bench.function()?;
    let all = placed(&*function, kind::COMMON, 4, "common configuration")?;
    // Up to the fields that come with features, which may be left out.
    let least = u64::from(reg::QUEUE_NOTIF_CONFIG_DATA.at);
    for Structure { length, .. } in all {
        ensure!(
            length >= least,
            "the common configuration has {length} bytes, and {least} are the least"
        );
    }
    Ok(())
}

pub(super) fn notify(bench: &Bench<'_>) -> Checked {
    let function = bench.function()?;
    placed(&*function, kind::NOTIFY, 2, "notify structure").map(drop)
}

pub(super) fn multiplier(bench: &Bench<'_>) -> Checked {
    let function = bench.function()?;
    for Structure { multiplier, .. } in of_kind(&*function, kind::NOTIFY)? {
        // An even power of two: 2, 4, 8 and so on.
        let fits = multiplier == 0 || multiplier.is_power_of_two() && multiplier != 1;
        ensure!(fits, "notify_off_multiplier is {multiplier}");
    }
    Ok(())
}

/// The room behind the last queue's place, of `bytes` each.
fn rooms(registers: &Registers, bytes: u64) -> Checked {
    let Structure {
        length, multiplier, ..
    } = registers.notify;
    ensure!(
        length >= bytes,
        "the notify structure has {length} bytes, and {bytes} are the least"
    );
    let count = registers.get(reg::NUM_QUEUES)? as u16;
    ensure!(count > 0, "num_queues reads 0");
    for q in 0..count {
        let off = registers.get_of(q, reg::QUEUE_NOTIFY_OFF)?;
        let needed = off * u64::from(multiplier) + bytes;
        ensure!(
            length >= needed,
            "queue_notify_off of queue {q} reads {off} with a multiplier of {multiplier}: \
             {needed} bytes are needed, and there are {length}"
        );
    }
    Ok(())
}

pub(super) fn notify_room(bench: &Bench<'_>) -> Checked {
    rooms(&Registers::of(bench.function()?)?, 2)
}

pub(super) fn notify_data_room(bench: &Bench<'_>) -> Checked {
    let registers = Registers::of(bench.function()?)?;
    if !registers.offered()?.contains(bits::NOTIFICATION_DATA) {
        skip!("VIRTIO_F_NOTIFICATION_DATA is not offered");
    }
    let Structure {
        offset, multiplier, ..
    } = registers.notify;
    ensure!(
        offset.is_multiple_of(4),
        "the notify structure is at {offset:#x}, which is not aligned to 4"
    );
    ensure!(
        multiplier.is_multiple_of(4),
        "notify_off_multiplier is {multiplier}, which is no multiple of 4"
    );
    rooms(&registers, 4)
}

pub(super) fn device_config(bench: &Bench<'_>) -> Checked {
    let function = bench.function()?;
    let device = device_type(&*function)?;
    if config::fields(device).is_empty() {
        skip!("a device of type {device} has no configuration of its own");
    }
    let name = "device configuration";
    let all = placed(&*function, kind::DEVICE, 4, name)?;
    let registers = Registers::of(function)?;
    let needed = config::length(device, registers.offered()?);
    for Structure { length, .. } in all {
        ensure!(
            length >= needed.into(),
            "the {name} has {length} bytes, and the fields offered need {needed}"
        );
    }
    Ok(())
}

pub(super) fn shared_memory(bench: &Bench<'_>) -> Checked {
    let function = bench.function()?;
    let all = of_kind(&*function, kind::SHARED_MEMORY)?;
    if all.is_empty() {
        skip!("there is no region of shared memory");
    }
    for (number, region) in all.iter().enumerate() {
        let Structure {
            bar,
            id,
            offset,
            length,
            ..
        } = region;
        ensure!(
            region.is_inside(&*function),
            "shared memory {id} is at {offset:#x} of BAR {bar} with {length:#x} bytes, and the BAR has {:#x}",
            function.bar_len(*bar)
        );
        let twice = all.iter().skip(number + 1).any(|other| other.id == *id);
        ensure!(!twice, "two regions of shared memory have the id {id}");
    }
    Ok(())
}

/// What is read through the window is what the register holds, and what is written reaches it.
pub(super) fn window(bench: &Bench<'_>) -> Checked {
    let registers = Registers::of(bench.function()?)?;
    let Some(window) = registers.window() else {
        fail!("there is no PCI configuration access capability");
    };
    let (common, function) = (registers.common, &registers.function);
    let reached = function.bar_len(common.bar) > common.offset;
    let data = window.at + 16;
    let place = |field: crate::registers::Register| common.offset + u64::from(field.at);
    let through = |at, width| -> Checked<u32> {
        registers.aim(window, common.bar, at, width)?;
        Ok(function.read_config(data, width)?)
    };
    // What does not change by itself, of each width.
    let fields = [
        (reg::DEVICE_FEATURE, Width::U32),
        (reg::NUM_QUEUES, Width::U16),
        (reg::DEVICE_STATUS, Width::U8),
    ];
    for (field, width) in fields {
        let seen = through(place(field), width)?;
        let is = registers.get(field)? as u32;
        ensure!(
            seen == is,
            "{} reads {seen:#x} through the window, and {is:#x} in its BAR",
            field.name
        );
    }
    // What the device offers depends on what was written: the write arrived, and the read came behind it.
    for (select, field) in [
        (1, reg::DEVICE_FEATURE_SELECT),
        (0, reg::DEVICE_FEATURE_SELECT),
    ] {
        registers.aim(window, common.bar, place(field), Width::U32)?;
        function.write_config(data, Width::U32, select)?;
        let read = match reached {
            true => registers.get(field)? as u32,
            false => through(place(field), Width::U32)?,
        };
        ensure!(
            read == select,
            "{select} was written to {} through the window, and it reads {read}",
            field.name
        );
    }
    // A byte, behind which nothing else changes.
    registers.aim(window, common.bar, place(reg::DEVICE_STATUS), Width::U8)?;
    function.write_config(data, Width::U8, 1)?;
    let read = registers.get(reg::DEVICE_STATUS)?;
    ensure!(
        read == 1,
        "ACKNOWLEDGE was written through the window, and the status reads {read:#x}"
    );
    Ok(registers.set(reg::DEVICE_STATUS, 0)?)
}

//! Writes that outlast what comes after them.
//!
//! Whether data are on a medium is not seen from here. What is seen: a write that is stable is not lost when the device is
//! reset at once, as one is that only a volatile cache has, virtio 1.4 §5.2.6.2.

use vdpa_core::bits::block;
use vdpa_core::{DeviceType, Features};

use super::disk::{Disk, FLUSH, OK, difference, pattern};
use super::space::{set_writeback, writeback};
use crate::checked::ensure;
use crate::{Bench, Checked, Variant};

pub(super) fn flushed_writes_stay(bench: &Bench<'_>) -> Checked {
    bench.require_type(DeviceType::Block)?;
    bench.require(block::FLUSH)?;
    let mut disk = Disk::open(bench, Variant::SPLIT)?;
    let (at, unit, step) = (disk.scratch()?, disk.unit(), disk.step());
    for round in 0..bench.times(4, 1) {
        if disk.has(block::CONFIG_WCE.mask()) {
            set_writeback(&disk.rig, 1)?;
        }
        let data = pattern(2 * unit, round as u8);
        let (first, second) = data.split_at(unit as usize);
        // Through each of the queues: a flush is of the disk, not of its queue.
        let other = disk.last_queue();
        disk.write(at, first)?;
        let wrote = disk.ask_on(other, super::disk::OUT, at + step, second, 0)?;
        ensure!(
            wrote.status == OK,
            "a write came back with {}",
            wrote.status
        );
        let flushed = disk.ask(FLUSH, 0, &[], 0)?.status;
        ensure!(flushed == OK, "a flush came back with status {flushed}");
        disk.again()?;
        let read = disk.read(at, 2 * unit)?;
        if let Some(seen) = difference(&data, &read) {
            crate::checked::fail!("a flushed write was lost in a reset: {seen}");
        }
    }
    Ok(())
}

pub(super) fn writethrough_stays(bench: &Bench<'_>) -> Checked {
    bench.require_type(DeviceType::Block)?;
    // Without it the specification leaves open what becomes stable when.
    bench.require(block::FLUSH)?;
    let neither = Features::of(&[block::FLUSH, block::CONFIG_WCE]);
    written_through(bench, neither, "neither FLUSH nor CONFIG_WCE negotiated")?;
    if bench.offered()?.contains(block::CONFIG_WCE) {
        written_through(bench, Features::NONE, "writeback 0")?;
    }
    Ok(())
}

/// Writes, and resets as soon as that is complete.
fn written_through(bench: &Bench<'_>, left_out: Features, how: &str) -> Checked {
    let mut disk = Disk::without(bench, Variant::SPLIT, left_out)?;
    let (at, unit) = (disk.scratch()?, disk.unit());
    let settable = disk.has(block::CONFIG_WCE.mask());
    for round in 0..bench.times(4, 1) {
        if settable {
            set_writeback(&disk.rig, 0)?;
        }
        let data = pattern(unit, 0x80 | round as u8);
        disk.write(at, &data)?;
        if settable {
            let read = writeback(&disk.rig)?;
            ensure!(read == 0, "writeback became {read} by itself");
        }
        disk.again()?;
        let read = disk.read(at, unit)?;
        if let Some(seen) = difference(&data, &read) {
            crate::checked::fail!("with {how} a write was lost in a reset: {seen}");
        }
    }
    Ok(())
}

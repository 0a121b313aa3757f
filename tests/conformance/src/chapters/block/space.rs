//! What a disk offers, and what its configuration space says.

use vdpa_core::bits::block;
use vdpa_core::config::block::ZoneModel;
use vdpa_core::{Attr, DeviceType, Error, Event, Features, Status};

use super::super::config::Undo;
use super::disk::{self, Disk, model, require_usual, usual};
use crate::checked::{ensure, skip};
use crate::{Bench, Checked, Rig, Variant};

/// Where the cache mode is.
const WRITEBACK_AT: u32 = 32;

/// Padding, virtio 1.4 §5.2.4: its name, where it begins, and where it ends.
const PADDING: [(&str, u32, u32); 2] = [("unused0", 33, 34), ("unused1", 57, 60)];
/// The padding that counts where ZONED is negotiated and there are zones.
const ZONED_PADDING: (&str, u32, u32) = ("unused2", 93, 96);

pub(super) fn offers_flush_with_config_wce(bench: &Bench<'_>) -> Checked {
    bench.require_type(DeviceType::Block)?;
    bench.require(block::CONFIG_WCE)?;
    ensure!(
        bench.offered()?.contains(block::FLUSH),
        "CONFIG_WCE is offered and FLUSH is not"
    );
    Ok(())
}

pub(super) fn begins_writethrough_without_flush(bench: &Bench<'_>) -> Checked {
    bench.require_type(DeviceType::Block)?;
    bench.require(block::CONFIG_WCE)?;
    require_usual(bench)?;
    let rig = bench.open()?;
    let features = usual(&rig, Variant::SPLIT).without(block::FLUSH);
    // What a driver before it chose must not be left.
    for round in ["at first", "after a reset"] {
        if !takes(&rig, features)? {
            // virtio 1.4 §2.2.2 lets a device say no to any set.
            skip!("the device does not take CONFIG_WCE without FLUSH");
        }
        let read = writeback(&rig)?;
        ensure!(read == 0, "writeback is {read} {round}");
        rig.run()?;
        rig.device.write_config(WRITEBACK_AT, &[1])?;
        rig.reset()?;
    }
    Ok(())
}

pub(super) fn padding_is_zero(bench: &Bench<'_>) -> Checked {
    bench.require_type(DeviceType::Block)?;
    let rig = bench.open()?;
    let size = rig.device.info().config_size;
    if !PADDING.iter().any(|(_, _, end)| *end <= size) {
        skip!("the configuration space of {size} bytes ends before its padding");
    }
    check_padding(&rig, "in reset")?;
    let mut features = usual(&rig, Variant::SPLIT);
    if rig.device.offered().contains(block::ZONED) && model(&rig)? == ZoneModel::HostManaged {
        features = rig.plain(Variant::SPLIT);
    }
    rig.negotiate(features)?;
    check_padding(&rig, "with FEATURES_OK")?;
    if features.contains(block::CONFIG_WCE) {
        // The padding is beside a field that can be written.
        for mode in [0, 1] {
            rig.device.write_config(WRITEBACK_AT, &[mode])?;
            check_padding(&rig, "once writeback was written")?;
        }
    }
    rig.run()?;
    check_padding(&rig, "with DRIVER_OK")
}

fn check_padding(rig: &Rig<'_>, when: &str) -> Checked {
    let size = rig.device.info().config_size;
    let zoned = rig.device.negotiated().contains(block::ZONED);
    let more = zoned.then_some(ZONED_PADDING);
    let all = PADDING.into_iter().chain(more);
    for (name, begin, end) in all.filter(|(_, _, end)| *end <= size) {
        let mut padding = vec![0; (end - begin) as usize];
        rig.device.read_config(begin, &mut padding)?;
        ensure!(
            padding.iter().all(|byte| *byte == 0),
            "{name} reads {padding:02x?} {when}"
        );
    }
    Ok(())
}

pub(super) fn insists_on_zones(bench: &Bench<'_>) -> Checked {
    bench.require_type(DeviceType::Block)?;
    bench.require(block::ZONED)?;
    let rig = bench.open()?;
    let model = model(&rig)?;
    if model != ZoneModel::HostManaged {
        skip!("the zone model is {model:?}, not host-managed");
    }
    let without = usual(&rig, Variant::SPLIT);
    ensure!(
        !takes(&rig, without)?,
        "a host-managed disk set FEATURES_OK without ZONED"
    );
    Ok(())
}

pub(super) fn tells_of_its_capacity(bench: &Bench<'_>) -> Checked {
    let disk = Disk::open(bench, Variant::SPLIT)?;
    let (all, less) = (disk.capacity(), disk.tail(1)?);
    // Less first, and then what it had: of that there is enough in any case.
    let _undo = Undo {
        rig: &disk.rig,
        to: Attr::Capacity(all),
    };
    for sectors in [less, all] {
        disk.rig.forget_events();
        bench.manage(&disk.rig, Attr::Capacity(sectors))?;
        let what = format!("that the configuration changed, to a capacity of {sectors} sectors");
        disk.rig.event(&what, |e| matches!(e, Event::Config))?;
        let read = disk::space(&disk.rig)?.capacity();
        ensure!(
            read == sectors,
            "the capacity reads {read} where it was set to {sectors}"
        );
    }
    Ok(())
}

/// The cache mode, as it reads.
pub(super) fn writeback(rig: &Rig<'_>) -> Checked<u8> {
    let mut byte = [0];
    rig.device.read_config(WRITEBACK_AT, &mut byte)?;
    Ok(byte[0])
}

/// Sets the cache mode; it has to read as it was written.
pub(super) fn set_writeback(rig: &Rig<'_>, mode: u8) -> Checked {
    rig.device.write_config(WRITEBACK_AT, &[mode])?;
    let read = writeback(rig)?;
    ensure!(
        read == mode,
        "{mode} was written to writeback, it reads {read}"
    );
    Ok(())
}

/// Negotiates these features; whether the device takes them.
fn takes(rig: &Rig<'_>, features: Features) -> Checked<bool> {
    let device = &rig.device;
    let mut status = Status::ACKNOWLEDGE;
    device.write_status(status.bits())?;
    status |= Status::DRIVER;
    device.write_status(status.bits())?;
    // They are legal, so that a refusal is the device's own.
    if device.accept(features).is_err() {
        return Ok(false);
    }
    status |= Status::FEATURES_OK;
    match device.write_status(status.bits()) {
        Ok(()) => Ok(device.status()?.contains(Status::FEATURES_OK)),
        Err(Error::FeaturesRefused { .. }) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

//! Config space.

use vdpa_core::bits::net;
use vdpa_core::config::net::NetStatus;
use vdpa_core::config::{self, BlockConfig, Mac, NetConfig, Writable};
use vdpa_core::{
    Attr, Device, DeviceType, Error, Event, Features, LinkState, Relay, Session, graph,
};

use super::queues::registers;
use crate::checked::{ensure, fail, skip};
use crate::driven;
use crate::puppet::Script;
use crate::recorder::{Heard, Recorder};
use crate::statement::Check::Once;
use crate::statement::{Entry, device, driver};
use crate::{Bench, Checked, Rig, Variant};

pub(crate) const STATEMENTS: &[Entry] = &[
    device(
        31,
        "2.5.2",
        "A field of an offered feature is readable before FEATURES_OK",
        Once(readable_before_features_ok),
    ),
    device(
        32,
        "4.1.4.3.1",
        "The generation changes once a changed value can have been read",
        Once(generation_changes),
    ),
    driver(
        33,
        "2.5.1",
        "Multi-field and wider-than-32-bit reads loop on the generation",
        Once(reads_loop),
    ),
    driver(
        34,
        "2.5.1",
        "A field is read only if its feature is offered",
        Once(reads_what_exists),
    ),
    driver(
        35,
        "2.5.1",
        "A config space larger than known is accepted",
        Once(larger_is_accepted),
    ),
    driver(
        36,
        "4.1.3.1",
        "Access in natural width (64 bits as two 32-bit)",
        Once(registers::natural_width),
    ),
    device(
        37,
        "4.1.3.2",
        "The halves of a 64-bit field are independently accessible",
        Once(registers::halves_are_apart),
    ),
];

/// All of a device's configuration space.
pub(super) fn image(rig: &Rig<'_>) -> Checked<Vec<u8>> {
    let mut bytes = vec![0; rig.device.info().config_size as usize];
    rig.device.read_config(0, &mut bytes)?;
    Ok(bytes)
}

/// Fields that say how things are at the moment: between two looks a link comes up, and a disk grows.
const MOVES: [&str; 2] = ["status", "capacity"];

fn readable_before_features_ok(bench: &Bench<'_>) -> Checked {
    let rig = bench.open()?;
    let (info, offered) = (rig.device.info(), rig.device.offered());
    let device_type = info.device_type;
    let needed = config::length(device_type, offered);
    ensure!(
        info.config_size >= needed,
        "the configuration has {} bytes, and the fields offered need {needed}",
        info.config_size
    );
    let read = |stage: &str| {
        let mut values = Vec::new();
        for field in config::fields(device_type) {
            if !field.exists(offered) || field.writable() == Writable::ByDriver {
                continue;
            }
            let mut bytes = vec![0; field.width() as usize];
            let read = rig.device.read_config(field.offset(), &mut bytes);
            ensure!(
                read.is_ok(),
                "{} cannot be read {stage}: {read:?}",
                field.name()
            );
            values.push((field.name(), bytes));
        }
        Ok(values)
    };
    let fresh = image(&rig)?;
    let checked = match device_type {
        DeviceType::Net => NetConfig::from_bytes(&fresh).check(offered),
        DeviceType::Block => BlockConfig::from_bytes(&fresh).check(offered),
        _ => Ok(()),
    };
    if let Err(e) = checked {
        fail!("in reset: {e}");
    }
    let before = read("in reset")?;
    rig.device.write_status(1)?;
    let early = read("before FEATURES_OK")?;
    // With everything accepted every field goes on to exist, and to say the same.
    rig.negotiate(graph::acceptable(device_type, offered))?;
    let later = read("after FEATURES_OK")?;
    for ((name, was), (early, is)) in before.iter().zip(early.iter().zip(&later)) {
        if MOVES.contains(name) {
            continue;
        }
        ensure!(
            *was == early.1 && *was == is.1,
            "{name} read {was:02x?} in reset, {:02x?} before FEATURES_OK and {:02x?} after it",
            early.1,
            is.1
        );
    }
    Ok(())
}

/// A change of the configuration that the device can be asked for from outside, and what makes it undone.
pub(super) struct Change {
    pub(super) to: Attr,
    pub(super) back: Attr,
}

/// Changes the configuration back when a statement ends, however it ends: the device may be there for more than this.
pub(super) struct Undo<'r, 'b> {
    pub(super) rig: &'r Rig<'b>,
    pub(super) to: Attr,
}

impl Drop for Undo<'_, '_> {
    fn drop(&mut self) {
        // What cannot be changed at all was not changed before either.
        let _unchanged = self.rig.bench().manage(self.rig, self.to);
    }
}

/// One that this device can be asked for; skips where it has nothing that changes.
pub(super) fn change(rig: &Rig<'_>) -> Checked<Change> {
    let offered = rig.device.offered();
    match rig.device.info().device_type {
        DeviceType::Net if offered.contains(net::STATUS) => {
            let mut status = [0; 2];
            rig.device.read_config(6, &mut status)?;
            let up = NetStatus::from_bits_retain(u16::from_le_bytes(status));
            let (to, back) = match up.contains(NetStatus::LINK_UP) {
                true => (LinkState::Down, LinkState::Up),
                false => (LinkState::Up, LinkState::Down),
            };
            Ok(Change {
                to: Attr::Link(to),
                back: Attr::Link(back),
            })
        }
        DeviceType::Net if offered.contains(net::MAC) => {
            let mut mac = [0; 6];
            rig.device.read_config(0, &mut mac)?;
            Ok(Change {
                to: Attr::Mac(Mac::new([2, 0, 0, 0x5e, 0, 9])),
                back: Attr::Mac(Mac::new(mac)),
            })
        }
        DeviceType::Block => {
            let mut capacity = [0; 8];
            rig.device.read_config(0, &mut capacity)?;
            let sectors = u64::from_le_bytes(capacity);
            Ok(Change {
                to: Attr::Capacity(sectors / 2 / 8 * 8),
                back: Attr::Capacity(sectors),
            })
        }
        other => {
            skip!("nothing in the configuration of a device of type {other} changes by itself")
        }
    }
}

fn generation_changes(bench: &Bench<'_>) -> Checked {
    let rig = bench.open()?;
    let Change { to, back } = change(&rig)?;
    rig.negotiate(rig.plain(Variant::SPLIT))?;
    rig.run()?;
    let Some(before) = rig.device.config_generation()? else {
        skip!("the device has no generation: it is read twice");
    };
    let was = image(&rig)?;
    let _undo = Undo {
        rig: &rig,
        to: back,
    };
    bench.manage(&rig, to)?;
    bench.until("a change of the configuration", || Ok(image(&rig)? != was))?;
    // Read after the value, so that it cannot be older.
    let after = rig.device.config_generation()?;
    ensure!(
        after != Some(before),
        "the configuration changed, and the generation is {before} still"
    );
    rig.event("that the configuration changed", |e| *e == Event::Config)?;
    Ok(())
}

fn reads_loop(bench: &Bench<'_>) -> Checked {
    let plain = Script::plain(bench.device_type());
    for (has_generation, changes) in [(true, 0), (true, 5), (false, 0), (false, 5)] {
        let script = Script {
            has_generation,
            changes,
            ..plain.clone()
        };
        let recorder = Recorder::around(script.make());
        let device = Device::new(recorder.clone(), Relay::new())?;
        // One field of 64 bits, and several fields.
        for len in [8, 24] {
            let mut bytes = vec![0; len];
            device.read_config(0, &mut bytes)?;
            ensure!(
                bytes.iter().all(|byte| *byte == bytes[0]),
                "a read of {len} bytes came out as two halves: {bytes:?}"
            );
        }
        let reads = recorder.heard();
        let reads = reads
            .iter()
            .filter(|h| matches!(h, Heard::ReadConfig { .. }));
        let least = 2 + changes as usize + if has_generation { 0 } else { 2 };
        let reads = reads.count();
        ensure!(
            reads >= least,
            "{reads} reads where {changes} changes came in between, and two answers are known to be whole"
        );
    }
    // One that never settles is an error, and no endless loop.
    let script = Script {
        changes: u32::MAX,
        ..plain
    };
    let device = Device::new(script.make(), Relay::new())?;
    match device.read_config(0, &mut [0; 8]) {
        Err(Error::ConfigUnstable { .. }) => Ok(()),
        other => fail!("a configuration that never settles was read: {other:?}"),
    }
}

fn reads_what_exists(bench: &Bench<'_>) -> Checked {
    let recorder = driven::recorded(bench)?;
    let mut session = driven::running(bench, recorder.clone(), Variant::SPLIT)?;
    driven::request(bench, &mut session)?;
    let device_type = session.device_type();
    let offered = bench.offered()?;
    let size = session.device().info().config_size;
    for heard in recorder.heard() {
        if let Heard::ReadConfig { at, len } = heard {
            exists(device_type, offered, at, len)?;
        }
    }
    // What a driver is shown of the bytes: the fields of what is offered, and no others.
    let mut bytes = vec![0; size as usize];
    session.read_config(0, &mut bytes)?;
    for set in [Features::NONE, offered] {
        for (field, _) in config::show(device_type, set, &bytes) {
            exists(device_type, set, field.offset(), field.width() as usize)?;
        }
    }
    // One by one: without its feature no field is shown, however many bytes there are.
    for field in config::fields(device_type) {
        if field.any_of().is_empty() {
            continue;
        }
        let lacking = graph::known(device_type, Features::from_u128(u128::MAX))
            - Features::of(field.any_of());
        let mut shown = config::show(device_type, lacking, &[0; 256]);
        ensure!(
            !shown.any(|(known, _)| known.name() == field.name()),
            "{} is shown without its feature",
            field.name()
        );
    }
    Ok(())
}

/// Whether each byte of a read is of a field that exists with these features.
fn exists(device_type: DeviceType, features: Features, at: u32, len: usize) -> Checked {
    for byte in (at..).take(len) {
        let mut fields = config::fields(device_type).iter();
        let field = fields.find(|f| f.offset() <= byte && byte < f.end());
        ensure!(
            field.is_some_and(|field| field.exists(features)),
            "byte {byte} of the configuration was read, and its field ({:?}) is not offered",
            field.map(|field| field.name())
        );
    }
    Ok(())
}

fn larger_is_accepted(bench: &Bench<'_>) -> Checked {
    let device_type = bench.info()?.device_type;
    let known = config::length(
        device_type,
        graph::known(device_type, Features::from_u128(u128::MAX)),
    );
    let size = known + 61;
    let script = Script {
        config_size: size,
        ..Script::plain(device_type)
    };
    let device = Device::new(script.make(), Relay::new())?;
    let session = Session::open(device, bench.by()).map_err(driven::lost)?;
    let mut bytes = vec![0xff; size as usize];
    session.read_config(0, &mut bytes)?;
    ensure!(bytes.iter().all(|b| *b == 0), "it reads {bytes:?}");
    session.read_config(size - 1, &mut [0])?;
    session.read_config(size, &mut [])?;
    let past = session.read_config(size - 1, &mut [0; 2]);
    ensure!(past.is_err(), "a read past the end was let through");
    // Its layout is found at the beginning of what is longer.
    let longer = |first: &[u8]| [first, &[0xee; 61]].concat();
    let whole = match device_type {
        DeviceType::Net => {
            let config = NetConfig::new().with_mtu(1400);
            NetConfig::from_bytes(&longer(&config.to_bytes())) == config
        }
        DeviceType::Block => {
            let config = BlockConfig::new().with_capacity(1 << 40);
            BlockConfig::from_bytes(&longer(&config.to_bytes())) == config
        }
        _ => true,
    };
    ensure!(whole, "a layout reads differently from longer bytes");
    let most = session.acceptable();
    drop(session.negotiate(most).map_err(driven::lost)?);
    Ok(())
}

//! What our own driver side accepts, and how it lives with it.

use std::cell::RefCell;
use std::rc::Rc;

use vdpa_core::bits;
use vdpa_core::{Asid, Device, Error, Features, Relay, Session, Status, Window, graph};
use vdpa_mem::{Bytes, Iova, Mapping};
use vdpa_ring::{Areas, DriverMem, DriverRing, RingMem, Segment, layout};

use super::offered::NET;
use crate::checked::{ensure, fail, skip};
use crate::driven;
use crate::puppet::Script;
use crate::recorder::{Heard, Recorder};
use crate::{Bench, Checked, Ring, Stop, Variant};

/// What a device was told to accept.
fn told(recorder: &Recorder) -> impl Iterator<Item = Features> {
    recorder
        .heard()
        .into_iter()
        .filter_map(|heard| match heard {
            Heard::Accept(features) => Some(features),
            _ => None,
        })
}

pub(super) fn offered_only(bench: &Bench<'_>) -> Checked {
    let recorder = driven::recorded(bench)?;
    let (info, offered) = (bench.info()?, bench.offered()?);
    let session = driven::open(bench, recorder.clone())?;
    let most = session.acceptable();
    ensure!(
        offered.contains_all(most),
        "acceptable is more than offered: {}",
        (most - offered).display(info.device_type)
    );
    let mut session = session;
    for bit in (bits::defined(info.device_type) - offered).iter() {
        session = match session.negotiate(most.with(bit)) {
            Err((session, _)) => session,
            Ok(_) => fail!(
                "{} was accepted, and is not offered",
                bit.display(info.device_type)
            ),
        };
    }
    drop(session.negotiate(most).map_err(driven::lost)?);
    for features in told(&recorder) {
        ensure!(
            offered.contains_all(features),
            "the device was told to accept {}",
            (features - offered).display(info.device_type)
        );
    }
    Ok(())
}

/// On a device that offers all that its type has.
pub(super) fn with_what_it_needs(bench: &Bench<'_>) -> Checked {
    let device_type = bench.info()?.device_type;
    let always = |rule: &&graph::Rule| rule.binding() == graph::Binding::Always;
    let rules: Vec<_> = graph::rules(device_type).iter().filter(always).collect();
    if rules.is_empty() {
        skip!("no feature of a device of type {device_type} needs another");
    }
    let offered = bits::defined(device_type);
    let recorder = Recorder::around(
        Script {
            offered,
            ..Script::plain(device_type)
        }
        .make(),
    );
    let mut session = driven::open(bench, recorder.clone())?;
    for rule in &rules {
        let without = graph::close_down(device_type, offered - Features::of(rule.any_of()));
        session = match session.negotiate(without.with(rule.bit())) {
            Err((session, _)) => session,
            Ok(_) => fail!(
                "{} was accepted without {}",
                rule.bit().display(device_type),
                Features::of(rule.any_of()).display(device_type)
            ),
        };
    }
    let most = graph::acceptable(device_type, offered);
    drop(session.negotiate(most).map_err(driven::lost)?);
    for features in told(&recorder) {
        for (bit, any_of) in NET {
            ensure!(
                device_type != vdpa_core::DeviceType::Net
                    || !features.contains(*bit)
                    || features.intersects(Features::of(any_of)),
                "the device was told to accept {} without what it needs",
                bit.display(device_type)
            );
        }
    }
    Ok(())
}

/// On a device of a later specification.
pub(super) fn unknown_bits_are_passed_over(bench: &Bench<'_>) -> Checked {
    let device_type = bench.info()?.device_type;
    let known = Features::of(&[bits::VERSION_1, bits::RING_RESET]);
    // Reserved today, and of the type's own range without a name.
    let unnamed = bits::TYPE_RANGE - bits::defined(device_type) - bits::legacy(device_type);
    let later = Features::from_u128(1 << 45)
        | unnamed
            .iter()
            .next_back()
            .map_or(Features::NONE, |bit| bit.mask());
    let recorder = Recorder::around(
        Script {
            offered: known | later,
            ..Script::plain(device_type)
        }
        .make(),
    );
    let device = match Device::new(recorder.clone(), Relay::new()) {
        Ok(device) => device,
        Err(e) => fail!("a device that offers {later:?} cannot be opened: {e}"),
    };
    let session = Session::open(device, bench.by()).map_err(driven::lost)?;
    let most = session.acceptable();
    ensure!(
        !most.intersects(later),
        "acceptable has bits that nobody knows: {}",
        most.display(device_type)
    );
    drop(session.negotiate(most).map_err(driven::lost)?);
    for features in told(&recorder) {
        ensure!(
            !features.intersects(later),
            "the device was told to accept {}",
            features.display(device_type)
        );
    }
    Ok(())
}

pub(super) fn version_1(bench: &Bench<'_>) -> Checked {
    bench.require(bits::VERSION_1)?;
    let recorder = driven::recorded(bench)?;
    let session = driven::open(bench, recorder.clone())?;
    let most = session.acceptable();
    ensure!(
        most.contains(bits::VERSION_1),
        "acceptable lacks VERSION_1: {most:?}"
    );
    // Left out, it is not agreed on, and the device never hears of it.
    let session = match session.negotiate(most.without(bits::VERSION_1)) {
        Err((session, _)) => session,
        Ok(_) => fail!("a session began without VERSION_1"),
    };
    drop(session.negotiate(most).map_err(driven::lost)?);
    for features in told(&recorder) {
        ensure!(
            features.contains(bits::VERSION_1),
            "the device was told to accept {features:?}"
        );
    }
    Ok(())
}

pub(super) fn nothing_new_after_features_ok(bench: &Bench<'_>) -> Checked {
    let recorder = driven::recorded(bench)?;
    let rig = bench.rig(recorder.clone())?;
    let plain = rig.plain(Variant::SPLIT);
    // A device may be unable to work without the features of its platform, virtio 1.4 §6.2.
    let least = Features::of(&[bits::VERSION_1, bits::ACCESS_PLATFORM, bits::ORDER_PLATFORM]);
    let less = least & plain;
    rig.negotiate(less)?;
    let from = recorder.len();
    for stage in ["after FEATURES_OK", "after DRIVER_OK"] {
        let accepted = rig.device.accept(plain);
        ensure!(accepted.is_err(), "features were accepted {stage}");
        let negotiated = rig.device.negotiated();
        ensure!(
            negotiated == less,
            "negotiated was {less:?}, and is {negotiated:?} {stage}"
        );
        let read = rig.status()?;
        ensure!(
            read.contains(Status::FEATURES_OK),
            "the status reads {read} {stage}"
        );
        let heard = recorder.since(from);
        ensure!(
            !heard.iter().any(|h| matches!(h, Heard::Accept(_))),
            "the device was told {stage}: {heard:?}"
        );
        if stage == "after FEATURES_OK" {
            rig.run()?;
        }
    }
    Ok(())
}

/// What a device is handed are addresses of the space that its owner mapped, and none that is known here only: with them
/// a device needs no translation of its own. Areas, and what descriptors say.
pub(super) fn mapped_addresses_only(bench: &Bench<'_>) -> Checked {
    let recorder = driven::recorded(bench)?;
    let session = driven::open(bench, recorder.clone())?;
    let offered = session.offered().without(bits::ACCESS_PLATFORM);
    let wanted = crate::rig::plain(session.device_type(), offered, Variant::SPLIT);
    drop((session, recorder));
    // A device may be unable to work so, virtio 1.4 §6.2, and says it by FEATURES_OK.
    let recorder = driven::recorded(bench)?;
    let session = driven::open(bench, recorder)?;
    match session.negotiate(wanted) {
        Ok(session) => drop(session),
        Err((_, Error::FeaturesRefused { .. } | Error::Untranslated { .. })) => {
            skip!("the device works with ACCESS_PLATFORM only")
        }
        Err(other) => return Err(driven::lost(other)),
    }
    let recorder = driven::recorded(bench)?;
    let mut session = driven::running_with(bench, recorder.clone(), wanted)?;
    driven::request(bench, &mut session)?;
    let mappings = session.device().dma(Asid::new(0))?.mappings();
    let find = |at: Iova| {
        let holds = |m: &&Mapping| m.iova.first() <= at && at <= m.iova.last();
        mappings.iter().find(holds)
    };
    let mut looked = 0;
    for heard in recorder.heard() {
        let Heard::Start(q, config) = heard else {
            continue;
        };
        for at in [config.descriptor, config.driver, config.device] {
            ensure!(
                find(at).is_some(),
                "queue {q}: an area at {at} is not mapped"
            );
        }
        let Some(table) = find(config.descriptor) else {
            continue;
        };
        let offset = config.descriptor.get() - table.iova.first().get() + table.offset;
        let window = Window::new(table.memory.clone(), offset, u64::from(config.size) * 16)?;
        for slot in 0..config.size {
            let bytes = window.bytes();
            let at = Iova::new(bytes.load_u64(layout::descriptor(slot)));
            let len = bytes.load_u64(layout::descriptor(slot) | 8) as u32;
            if len == 0 {
                continue;
            }
            looked += 1;
            ensure!(
                find(at).is_some(),
                "queue {q}: descriptor {slot} names {at}, which is not mapped"
            );
        }
    }
    ensure!(looked > 0, "no descriptor was found in any queue");
    Ok(())
}

/// What a driver half does in memory, in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Load(Place),
    Store(Place),
    Release,
    Full,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    Descriptor,
    Driver,
    Device,
}

/// An area whose accesses are written down.
struct Watched<'w> {
    bytes: Bytes<'w>,
    place: Place,
    steps: Rc<RefCell<Vec<Step>>>,
}

impl Watched<'_> {
    fn note(&self, step: Step) {
        self.steps.borrow_mut().push(step);
    }
}

macro_rules! watched {
    ($($load:ident $store:ident $int:ty),*) => {$(
        fn $load(&self, at: u32) -> $int {
            self.note(Step::Load(self.place));
            self.bytes.$load(at)
        }
        fn $store(&self, at: u32, value: $int) {
            self.note(Step::Store(self.place));
            self.bytes.$store(at, value);
        }
    )*};
}

impl RingMem for Watched<'_> {
    watched!(load_u16 store_u16 u16, load_u32 store_u32 u32, load_u64 store_u64 u64);

    fn acquire(&self) {
        self.bytes.acquire();
    }
    fn release(&self) {
        self.note(Step::Release);
        self.bytes.release();
    }
    fn full(&self) {
        self.note(Step::Full);
        self.bytes.full();
    }
}

/// The driver half has one grade of barrier, whatever is negotiated: where it is needed, the strongest that there is for
/// memory that the processors share with a device, before what shows a buffer and before the device's event word.
pub(super) fn barriers(bench: &Bench<'_>, variant: Variant) -> Checked {
    let rig = bench.open()?;
    rig.negotiate(rig.plain(variant))?;
    let ring = Ring::new(&rig, 0, 8)?;
    let steps = Rc::default();
    let watched = |place, area| Watched {
        bytes: ring.bytes(area),
        place,
        steps: Rc::clone(&steps),
    };
    let mem = DriverMem {
        areas: Areas {
            descriptor: watched(Place::Descriptor, vdpa_core::Area::Descriptor),
            driver: watched(Place::Driver, vdpa_core::Area::Driver),
            device: watched(Place::Device, vdpa_core::Area::Device),
        },
        tables: None,
    };
    let features = variant.ring_features();
    let half = DriverRing::new(variant.format, ring.size(), features, None);
    let mut half = half.map_err(|e| Stop::failed(e.to_string()))?;
    let buffer = rig.alloc(64)?;
    let segment = Segment {
        addr: buffer.at,
        len: buffer.len,
    };
    let added = half.add(&mem, &[segment], &[]);
    added.map_err(|e| Stop::failed(e.to_string()))?;
    half.publish(&mem);
    let steps = steps.borrow();
    ordered(&steps, variant.is_packed())
}

/// What shows the buffer, the last store to the descriptors of a packed ring and to the driver area of a split one,
/// comes after a release, and the look at the device's area after a full barrier that comes later.
fn ordered(steps: &[Step], packed: bool) -> Checked {
    let shows = match packed {
        true => Step::Store(Place::Descriptor),
        false => Step::Store(Place::Driver),
    };
    let Some(shown) = steps.iter().rposition(|step| *step == shows) else {
        fail!("nothing was shown: {steps:?}");
    };
    let barrier = |step: &Step| matches!(step, Step::Release | Step::Full);
    let Some(release) = steps[..shown].iter().rposition(barrier) else {
        fail!("no barrier before a buffer is shown: {steps:?}");
    };
    ensure!(
        !steps[release..shown].contains(&Step::Store(Place::Descriptor)),
        "a descriptor is written between the barrier and what shows it: {steps:?}"
    );
    let after = &steps[shown..];
    let look = after.iter().position(|s| *s == Step::Load(Place::Device));
    let full = after.iter().position(|s| *s == Step::Full);
    match (full, look) {
        (Some(full), Some(look)) if full < look => Ok(()),
        (_, None) => fail!("the device's wish for kicks is not looked at: {steps:?}"),
        _ => fail!("the device's wish for kicks is read before a full barrier: {steps:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_barrier_that_is_missing_or_late_is_found() {
        let (descriptor, show) = (Step::Store(Place::Descriptor), Step::Store(Place::Driver));
        let look = Step::Load(Place::Device);
        let good = [descriptor, Step::Release, show, Step::Full, look];
        ordered(&good, false).unwrap();
        for missing in [1, 3] {
            let mut steps = good.to_vec();
            steps.remove(missing);
            assert!(ordered(&steps, false).is_err(), "{steps:?}");
        }
        for (a, b) in [(0, 1), (1, 2), (2, 3), (3, 4)] {
            let mut steps = good;
            steps.swap(a, b);
            assert!(ordered(&steps, false).is_err(), "{steps:?}");
        }
        let packed = [descriptor, Step::Release, descriptor, Step::Full, look];
        ordered(&packed, true).unwrap();
        assert!(ordered(&packed[2..], true).is_err());
        assert!(ordered(&packed[..3], true).is_err());
    }
}

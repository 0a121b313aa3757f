//! Each kind of fault, around a device that only keeps what it is told.

#[path = "../../vdpa-core/tests/tiny/mod.rs"]
mod tiny;

mod nobody;

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use nobody::Nobody;
use tiny::*;
use vdpa_core::faults::{Kind, Plan, Rate};
use vdpa_core::*;
use vdpa_layer::faults::kinds;
use vdpa_layer::{Faults, FaultsLayer};

/// A device around `tiny` with these faults, up to FEATURES_OK.
fn faulty(tiny: Tiny, faults: &[(Kind, Rate)]) -> (Arc<Tiny>, Device, Plan) {
    let plan = faults
        .iter()
        .fold(Plan::new(7), |plan, (kind, rate)| plan.with(*kind, *rate));
    let tiny = Arc::new(tiny);
    let layer = Faults::new(tiny.clone(), plan.clone());
    let device = Device::new(Arc::new(layer), Relay::new()).unwrap();
    (tiny, device, plan)
}

fn configured(device: &Device) {
    device.accept(SPLIT).unwrap();
    device.write_status(0x0b).unwrap();
    if device.dma(Asid::new(0)).unwrap().mappings().is_empty() {
        map(device, 0x1_0000, 0x1_0000, vdpa_mem::Access::Both);
    }
}

/// A queue that runs, with a counter of its calls.
fn started(device: &Device, n: u16) -> (Doorbell, Arc<AtomicU32>) {
    let calls = Arc::new(AtomicU32::new(0));
    let call = counted(&calls);
    let doorbell = device.start_queue(q(n), config(), Kick::Taken, call);
    (doorbell.unwrap(), calls)
}

fn counted(calls: &Arc<AtomicU32>) -> Call {
    let calls = calls.clone();
    Call::from_fn(move || {
        calls.fetch_add(1, Ordering::SeqCst);
    })
}

fn with(faults: &[(Kind, Rate)]) -> (Arc<Tiny>, Device, Plan) {
    let (tiny, device, plan) = faulty(Tiny::default(), faults);
    configured(&device);
    (tiny, device, plan)
}

/// What translates for a device that is told of mappings: takes everything, and counts what it has.
#[derive(Default)]
struct Iommu(AtomicU32);

impl DmaMap for Iommu {
    fn limits(&self) -> DmaLimits {
        DmaLimits {
            ranges: vec![(vdpa_mem::Iova::new(0), vdpa_mem::Iova::new(u64::MAX))],
            granule: 4096,
            max_entries: None,
            reach: vdpa_core::Reach::Platform,
        }
    }
    fn map(&self, _: Asid, _: &Mapping) -> Result<()> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
    fn unmap(&self, _: Asid, _: &Mapping) -> Result<()> {
        self.0.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }
}

/// Pages to map, at these numbers.
fn pages(numbers: std::ops::Range<u64>) -> Vec<Mapping> {
    let page = |number| Mapping {
        iova: IovaRange::new(vdpa_mem::Iova::new(number << 12), 4096).unwrap(),
        memory: vdpa_mem::Region::anonymous(4096).unwrap().into_shared().0,
        offset: 0,
        access: vdpa_mem::Access::Both,
        dirty: None,
    };
    numbers.map(page).collect()
}

/// A device that is told of mappings, with these faults.
fn told(faults: &[(Kind, Rate)]) -> (Arc<Iommu>, Device, DmaHandle, Plan) {
    let iommu = Arc::new(Iommu::default());
    let tiny = Tiny {
        maps: Some(iommu.clone()),
        ..Tiny::default()
    };
    let (_, device, plan) = faulty(tiny, faults);
    let dma = device.dma(Asid::new(0)).unwrap();
    (iommu, device, dma, plan)
}

#[test]
fn a_mapping_that_is_refused_takes_its_batch_with_it_and_comes_when_it_is_asked_for_again() {
    for n in 1..=3 {
        let (iommu, device, dma, plan) = told(&[
            (kinds::MAP_REFUSED, Rate::once(n)),
            (kinds::MAP_LATE, Rate::once(1)),
        ]);
        assert!(device.cap_names().contains(&"dma-map"));
        assert_eq!(dma.limits().unwrap().granule, 4096);
        let error = dma.map(pages(0..3)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains("map.refused"), "{error}");
        assert_eq!(iommu.0.load(Ordering::SeqCst), 0);
        dma.map(pages(0..3)).unwrap();
        assert_eq!(iommu.0.load(Ordering::SeqCst), 3);
        assert_eq!(plan.count(kinds::MAP_REFUSED), 1);
        assert_eq!(plan.count(kinds::MAP_LATE), 1);
        drop(device);
        assert_eq!(iommu.0.load(Ordering::SeqCst), 0);
    }
}

#[test]
fn a_device_that_is_gone_on_purpose_gives_its_mappings_back_and_takes_none() {
    let (iommu, device, dma, _) = told(&[(kinds::GONE, Rate::once(1))]);
    configured(&device);
    let (doorbell, _) = started(&device, 0);
    doorbell.ring(0);
    assert!(matches!(dma.map(pages(0..1)), Err(Error::Gone)));
    let range = IovaRange::new(vdpa_mem::Iova::new(0x1_0000), 0x1_0000).unwrap();
    dma.unmap(range, soon()).unwrap();
    assert_eq!(iommu.0.load(Ordering::SeqCst), 0);
}

#[test]
fn a_late_mapping_takes_no_real_time_where_time_is_hurried() {
    let (_, _device, dma, plan) = told(&[(kinds::MAP_LATE, Rate::once(1))]);
    let _hasty = vdpa_mem::clock::hasten(1000);
    dma.map(pages(0..1)).unwrap();
    assert_eq!(plan.count(kinds::MAP_LATE), 1);
    // Time that was slept for real is not ahead of it.
    assert!(vdpa_mem::clock::now() > std::time::Instant::now());
}

#[test]
fn a_replacement_of_which_the_way_back_is_refused_too_breaks_the_device() {
    let (_, device, dma, plan) = told(&[(kinds::MAP_REFUSED, Rate::every(2))]);
    dma.map(pages(0..1)).unwrap();
    assert!(dma.map(pages(1..2)).is_err());
    dma.map(pages(1..2)).unwrap();
    // The fourth is the new one. The fifth and the sixth are those of before.
    let error = dma.replace(pages(2..3), soon()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert_eq!(plan.count(kinds::MAP_REFUSED), 3);
    assert!(matches!(device.status(), Err(Error::Broken)));
}

fn kicks(tiny: &Tiny) -> usize {
    tiny.kicks.lock().unwrap().len()
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::yield_now();
    }
}

fn events(device: &Device) -> Vec<Event> {
    let events = device.events().unwrap();
    std::iter::from_fn(|| events.try_next()).collect()
}

#[test]
fn every_capability_is_still_there_and_counters_come_with_the_layer() {
    let (_, device, _) = with(&[(kinds::KICK_LOST, Rate::chance(0.0))]);
    let own: Vec<_> = open(Tiny::default()).1.cap_names();
    assert_eq!(device.cap_names(), own);
    let bare = Tiny {
        capable: false,
        ..Tiny::default()
    };
    let (_, device, _) = faulty(bare, &[(kinds::KICK_LOST, Rate::chance(0.0))]);
    assert_eq!(device.cap_names(), ["dma-software", "stats"]);
    let mut counters = Vec::new();
    device
        .stats(&mut |name, value| counters.push((name.to_owned(), value)))
        .unwrap();
    assert_eq!(counters, [("fault.kick.lost".to_owned(), 0)]);
}

#[test]
fn a_contract_call_fails_once_and_not_when_it_is_made_again() {
    // Each of the calls of a life in turn.
    let mut failed = Vec::new();
    for n in 1..12 {
        let (tiny, device, plan) =
            faulty(Tiny::default(), &[(kinds::CONTROL_ERROR, Rate::once(n))]);
        let try_all = || -> Result<()> {
            device.reset(soon())?;
            device.accept(SPLIT)?;
            device.write_status(0x0b)?;
            if device.dma(Asid::new(0))?.mappings().is_empty() {
                map(&device, 0x1_0000, 0x1_0000, vdpa_mem::Access::Both);
            }
            device.start_queue(q(0), config(), Kick::Taken, Call::None)?;
            device.write_status(0x0f)?;
            device.replace_call(q(0), Call::None)?;
            device.enable_queue(q(0), false)?;
            device.suspend(soon())?;
            device.resume()?;
            device.stop_queue(q(0), soon())?;
            device.write_config(0, &[1])
        };
        match try_all() {
            Ok(()) => assert_eq!(plan.count(kinds::CONTROL_ERROR), 0),
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::Busy);
                failed.push(e.to_string());
                let log = tiny.log();
                try_all().unwrap_or_else(|e| panic!("{n}: {e} after {log:?}"));
                assert_eq!(plan.count(kinds::CONTROL_ERROR), 1);
            }
        }
    }
    let calls: Vec<_> = failed
        .iter()
        .filter_map(|text| text.split(' ').next())
        .collect();
    assert_eq!(
        calls,
        [
            "begin_reset",
            "accept",
            "add_status",
            "add_status",
            "start_queue",
            "add_status",
            "replace_call",
            "queue_enable.set",
            "suspend.begin",
            "suspend.resume",
            "queue_pause.begin"
        ]
    );
}

#[test]
fn a_status_byte_that_failed_is_heard_when_it_is_written_again() {
    for n in 1..=2 {
        let (tiny, device, _) = faulty(Tiny::default(), &[(kinds::CONTROL_ERROR, Rate::once(n))]);
        for bits in [Status::ACKNOWLEDGE, Status::ACKNOWLEDGE | Status::DRIVER] {
            let written = device.write_status(bits.bits());
            if written.is_err() {
                device.write_status(bits.bits()).unwrap();
            }
            assert_eq!(device.status().unwrap(), bits);
            assert_eq!(tiny.status().unwrap(), bits, "the device has them too");
        }
    }
}

#[test]
fn what_is_slow_stays_under_way_and_ends() {
    let (_, device, plan) = with(&[(kinds::CONTROL_SLOW, Rate::chance(1.0))]);
    started(&device, 0);
    started(&device, 1);
    device.write_status(0x0f).unwrap();
    let status = device.status().unwrap();
    // None of it is asked for before it was begun, and each takes a millisecond at least.
    let least = |what: &str, done: &dyn Fn()| {
        let begun = Instant::now();
        done();
        assert!(begun.elapsed() >= Duration::from_millis(1), "{what}");
    };
    least("suspend", &|| device.suspend(soon()).unwrap());
    device.resume().unwrap();
    least("stop", &|| {
        assert_eq!(device.stop_queue(q(0), soon()).unwrap(), PAUSED);
    });
    least("queue reset", &|| device.reset_queue(q(1), soon()).unwrap());
    least("reset", &|| {
        let begun = Instant::now();
        device.write_status(0).unwrap();
        let shown = device.status().unwrap();
        // Unless somebody kept us from looking in time.
        if begun.elapsed() < Duration::from_millis(1) {
            assert_eq!(shown, status, "not before it is complete");
        }
        until("the reset", || device.status().unwrap().is_empty());
    });
    assert_eq!(plan.count(kinds::CONTROL_SLOW), 4);
    // It can be begun anew.
    configured(&device);
    started(&device, 0);
}

#[test]
fn features_are_refused_and_can_be_asked_for_again() {
    let (_, device, plan) = faulty(Tiny::default(), &[(kinds::CONTROL_REFUSED, Rate::once(1))]);
    device.accept(SPLIT).unwrap();
    let refused = device.write_status(0x0b).unwrap_err();
    assert!(
        matches!(refused, Error::FeaturesRefused { .. }),
        "{refused}"
    );
    assert!(!device.status().unwrap().contains(Status::FEATURES_OK));
    device.reset(soon()).unwrap();
    configured(&device);
    assert!(device.status().unwrap().contains(Status::FEATURES_OK));
    assert_eq!(plan.count(kinds::CONTROL_REFUSED), 1);
}

#[test]
fn kicks_are_lost_and_doubled_each_queue_apart() {
    let (tiny, device, plan) = with(&[
        (kinds::KICK_LOST, Rate::once(2)),
        (kinds::KICK_DOUBLED, Rate::once(2)),
    ]);
    let (one, _) = started(&device, 0);
    let (other, _) = started(&device, 1);
    for data in 0..4 {
        one.ring(data);
    }
    other.ring(9);
    // The second is lost; of those that are not, the second, which is the third, comes twice.
    let expected = [(0, 0), (0, 2), (0, 2), (0, 3), (1, 9)];
    assert_eq!(*tiny.kicks.lock().unwrap(), expected);
    assert_eq!(plan.count(kinds::KICK_LOST), 1);
    assert_eq!(plan.count(kinds::KICK_DOUBLED), 1);
}

#[test]
fn a_late_kick_comes_with_a_later_one_or_in_its_time_and_not_after_a_stop() {
    let (tiny, device, plan) = with(&[(kinds::KICK_LATE, Rate::chance(1.0))]);
    let (doorbell, _) = started(&device, 0);
    doorbell.ring(0);
    until("the kick", || kicks(&tiny) == 1);
    for _ in 0..100 {
        doorbell.ring(0);
    }
    assert!(kicks(&tiny) > 80, "with later ones: {}", kicks(&tiny));
    until("all kicks", || kicks(&tiny) == 101);
    doorbell.ring(0);
    device.reset_queue(q(0), soon()).unwrap();
    let now = kicks(&tiny);
    doorbell.ring(0);
    std::thread::sleep(Duration::from_millis(30));
    assert_eq!(kicks(&tiny), now, "it was stopped");
    assert_eq!(plan.count(kinds::KICK_LATE), 102);
}

#[test]
fn calls_are_lost_doubled_and_late() {
    let (tiny, device, plan) = with(&[
        (kinds::CALL_LOST, Rate::once(1)),
        (kinds::CALL_LATE, Rate::once(1)),
        (kinds::CALL_DOUBLED, Rate::once(1)),
    ]);
    let threads = Arc::new(Mutex::new(Vec::new()));
    let call = Call::from_fn({
        let threads = threads.clone();
        move || {
            let thread = std::thread::current();
            let late = thread.name().is_some_and(|name| name.ends_with("-late"));
            threads.lock().unwrap().push(late);
        }
    });
    device
        .start_queue(q(0), config(), Kick::Taken, call)
        .unwrap();
    tiny.raise(0);
    assert!(threads.lock().unwrap().is_empty(), "lost");
    tiny.raise(0);
    until("the late one", || threads.lock().unwrap().len() == 1);
    tiny.raise(0);
    tiny.raise(0);
    assert_eq!(*threads.lock().unwrap(), [true, false, false, false]);
    for kind in [kinds::CALL_LOST, kinds::CALL_LATE, kinds::CALL_DOUBLED] {
        assert_eq!(plan.count(kind), 1, "{}", kind.name);
    }
}

#[test]
fn a_late_call_is_not_raised_once_another_is_in_its_place_or_the_device_is_reset() {
    let (tiny, device, _) = with(&[(kinds::CALL_LATE, Rate::every(2))]);
    let (_, old) = started(&device, 0);
    tiny.raise(0);
    tiny.raise(0);
    let new = Arc::new(AtomicU32::new(0));
    device.replace_call(q(0), counted(&new)).unwrap();
    assert_eq!(new.load(Ordering::SeqCst), 1, "raised once");
    let before = old.load(Ordering::SeqCst);
    assert_eq!(Arc::strong_count(&old), 1, "the old one is let go of");
    tiny.raise(0);
    device.reset(soon()).unwrap();
    let at_reset = new.load(Ordering::SeqCst);
    std::thread::sleep(Duration::from_millis(30));
    assert_eq!(old.load(Ordering::SeqCst), before);
    assert_eq!(new.load(Ordering::SeqCst), at_reset);
    assert_eq!(Arc::strong_count(&new), 1, "a reset lets go of it");
}

#[test]
fn a_storm_changes_the_generation_and_nothing_else() {
    let (_, device, plan) = with(&[(kinds::CONFIG_STORM, Rate::every(3))]);
    device.write_config(0, &[5; 8]).unwrap();
    let mut bytes = [0; 8];
    for _ in 0..10 {
        device.read_config(0, &mut bytes).unwrap();
        assert_eq!(bytes, [5; 8]);
    }
    let before = device.config_generation().unwrap();
    let (doorbell, _) = started(&device, 0);
    for _ in 0..3 {
        doorbell.ring(0);
    }
    assert_ne!(device.config_generation().unwrap(), before);
    assert!(events(&device).contains(&Event::Config));
    assert!(plan.count(kinds::CONFIG_STORM) > 3);
    // One that does not end is told as what it is.
    let (_, device, _) = with(&[(kinds::CONFIG_STORM, Rate::chance(1.0))]);
    let error = device.read_config(0, &mut bytes).unwrap_err();
    assert!(matches!(error, Error::ConfigUnstable { .. }), "{error}");
}

#[test]
fn a_device_that_needs_a_reset_is_deaf_until_it_has_one() {
    let (tiny, device, plan) = with(&[(kinds::NEEDS_RESET, Rate::once(2))]);
    let (doorbell, calls) = started(&device, 0);
    device.write_status(0x0f).unwrap();
    doorbell.ring(0);
    assert!(
        !device
            .status()
            .unwrap()
            .contains(Status::DEVICE_NEEDS_RESET)
    );
    doorbell.ring(0);
    doorbell.ring(0);
    tiny.raise(0);
    assert_eq!(kicks(&tiny), 1);
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    assert!(
        device
            .status()
            .unwrap()
            .contains(Status::DEVICE_NEEDS_RESET)
    );
    let why = events(&device);
    assert!(
        matches!(&why[..], [Event::NeedsReset { queue: None, why }] if why.contains("needs_reset")),
        "{why:?}"
    );
    device.reset(soon()).unwrap();
    configured(&device);
    let (doorbell, calls) = started(&device, 0);
    device.write_status(0x0f).unwrap();
    doorbell.ring(0);
    tiny.raise(0);
    assert_eq!(kicks(&tiny), 2);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    assert_eq!(plan.count(kinds::NEEDS_RESET), 1);
}

#[test]
fn a_device_that_is_gone_is_reset_and_stays_gone() {
    let (tiny, device, plan) = with(&[(kinds::GONE, Rate::once(1))]);
    let (doorbell, calls) = started(&device, 0);
    let before = tiny.log().iter().filter(|line| *line == "reset").count();
    doorbell.ring(0);
    doorbell.ring(0);
    tiny.raise(0);
    assert_eq!(kicks(&tiny), 0);
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    let resets = tiny.log().iter().filter(|line| *line == "reset").count();
    assert_eq!(resets, before + 1, "it touches nothing any more");
    assert_eq!(device.status().unwrap_err().kind(), ErrorKind::Gone);
    assert_eq!(events(&device), [Event::Gone]);
    assert_eq!(plan.count(kinds::GONE), 1);
    device.close(soon()).map_err(|(_, e)| e).unwrap();
    drop(tiny);
    assert_eq!(Arc::strong_count(&calls), 1, "nothing is kept");
}

#[test]
fn nothing_is_kept_alive_by_a_doorbell_or_by_what_is_late() {
    let never = Rate::chance(0.0);
    let all: Vec<_> = vdpa_layer::faults::KINDS
        .iter()
        .map(|kind| (*kind, never))
        .collect();
    let late = [(kinds::CALL_LATE, Rate::chance(1.0))];
    // Accept, two of the status byte, a start: and then the reset of the drop, which fails.
    let refused = [
        (kinds::CONTROL_ERROR, Rate::once(5)),
        (kinds::KICK_LOST, never),
    ];
    for faults in [&all[..], &late, &refused] {
        let (tiny, device, _) = with(faults);
        let (doorbell, calls) = started(&device, 0);
        tiny.raise(0);
        let alive: Weak<Tiny> = Arc::downgrade(&tiny);
        drop((tiny, device));
        assert!(alive.upgrade().is_none(), "the device is gone");
        assert_eq!(Arc::strong_count(&calls), 1, "and so is its call");
        doorbell.ring(0);
    }
}

#[test]
fn eventfds_that_kick_are_led_through_the_layer_and_calls_of_a_parent_that_takes_eventfds_alone() {
    let base = Tiny::default();
    let info = DeviceInfo {
        calls: CallKind::EventFd,
        ..base.info.clone()
    };
    let (tiny, device, _) = faulty(
        Tiny { info, ..base },
        &[
            (kinds::KICK_DOUBLED, Rate::chance(1.0)),
            (kinds::CALL_DOUBLED, Rate::chance(1.0)),
        ],
    );
    configured(&device);
    let kick: Arc<OwnedFd> = Arc::new(nix::sys::eventfd::EventFd::new().unwrap().into());
    let calls = Arc::new(AtomicU32::new(0));
    device
        .start_queue(q(0), config(), Kick::Given(kick.clone()), counted(&calls))
        .unwrap();
    let before = kicks(&tiny);
    nix::unistd::write(&*kick, &1u64.to_ne_bytes()).unwrap();
    until("both kicks", || kicks(&tiny) == before + 2);
    tiny.raise(0);
    // Two writes of an eventfd may be read as one.
    until("a call", || calls.load(Ordering::SeqCst) >= 1);
    device.reset(soon()).unwrap();
    assert_eq!(Arc::strong_count(&kick), 1, "the eventfd is let go of");
}

#[test]
fn the_same_seed_and_the_same_occasions_are_the_same_faults() {
    let life = |seed| {
        let plan = Plan::new(seed)
            .with(kinds::KICK_LOST, Rate::chance(0.3))
            .with(kinds::KICK_DOUBLED, Rate::chance(0.3))
            .with(kinds::NEEDS_RESET, Rate::chance(0.01));
        let tiny = Arc::new(Tiny::default());
        let layer = Faults::new(tiny.clone(), plan);
        let device = Device::new(Arc::new(layer), Relay::new()).unwrap();
        configured(&device);
        let (a, b) = (started(&device, 0).0, started(&device, 1).0);
        for n in 0..200 {
            a.ring(n);
            if n % 3 == 0 {
                b.ring(n);
            }
        }
        tiny.kicks.lock().unwrap().clone()
    };
    let first = life(7);
    assert_eq!(first, life(7));
    assert_ne!(first, life(8));
}

#[test]
fn kinds_that_only_other_parents_know_are_refused_and_keys_are_taken_out() {
    let wrap = |text: &str| {
        let mut spec = DeviceSpec::parse(text).unwrap();
        let wrap = FaultsLayer.wrap(&mut spec, &Nobody);
        wrap.map(|wrap| (wrap.is_some(), spec))
    };
    let (is, spec) = wrap("nobody:net,fault=kick.lost,seed=7,mtu=9000").unwrap();
    assert!(is && spec.faults().is_none());
    assert_eq!(spec.pairs().collect::<Vec<_>>(), [("mtu", "9000")]);
    assert!(!wrap("nobody:net,mtu=9000").unwrap().0);
    let Err(Error::Spec(error)) = wrap("nobody:net,fault=kick.lost+ring.used_id") else {
        panic!("it is not this parent's");
    };
    assert_eq!(error.part(), "ring.used_id");
    let legal = vdpa_layer::faults::KINDS.iter().map(|kind| kind.name);
    assert!(error.problem().legal().iter().eq(legal));
}

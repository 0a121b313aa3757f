//! A parent that is told of mappings: what it has, and what becomes of memory, also where it refuses.
#![cfg(not(loom))]

mod iommu;
mod tiny;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use iommu::*;
use tiny::*;
use vdpa_core::session::QueueSetup;
use vdpa_core::*;
use vdpa_mem::{DirtyLog, Gpa, Iova, MemError, Region};

#[test]
fn the_parent_is_told_of_each_mapping_and_of_its_end() {
    let (iommu, device, dma, alive) = device();
    assert!(device.cap_names().contains(&"dma-map"));
    assert_eq!(dma.limits().unwrap().max_entries, Some(8));
    let (a, b) = (alive.at(0x1_0000, PAGE), alive.at(0x4_0000, 2 * PAGE));
    dma.map(vec![a, b]).unwrap();
    assert_eq!(iommu.log(), ["map 0 0x10000", "map 0 0x40000"]);
    assert_eq!(firsts(&dma), [0x1_0000, 0x4_0000]);
    dma.unmap(range(0x4_0000, 2 * PAGE), now()).unwrap();
    assert_eq!(iommu.log(), ["unmap 0 0x40000"]);
    assert_eq!((firsts(&dma), alive.count()), (vec![0x1_0000], 1));
    // A range that holds several, and one that holds none or half of one.
    dma.map(vec![alive.at(0x2_0000, PAGE)]).unwrap();
    let partial = dma.unmap(range(0x1_0000, 0x1_0800), now()).unwrap_err();
    assert!(matches!(partial, Error::Memory(MemError::Partial { .. })));
    let nothing = dma.unmap(range(0x9_0000, PAGE), now()).unwrap_err();
    assert!(matches!(nothing, Error::Memory(MemError::NotMapped { .. })));
    assert_eq!(iommu.mapped(), [0x1_0000, 0x2_0000]);
    dma.unmap(range(0, 1 << 20), now()).unwrap();
    assert_eq!((iommu.mapped().len(), alive.count()), (0, 0));
}

#[test]
fn a_batch_of_which_one_is_refused_leaves_nothing_whichever_it_is() {
    const MANY: usize = 5;
    for refused in 1..=MANY {
        let (iommu, device, dma, alive) = device();
        dma.map(vec![alive.at(0x1_0000, PAGE)]).unwrap();
        iommu.with(|state| state.refuse = Some(1 + refused));
        let batch = (0..MANY as u64).map(|n| alive.at(0x10_0000 + n * PAGE, PAGE));
        let error = dma.map(batch.collect()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert_eq!(error.to_string(), "no entry is left");
        assert_eq!(
            (iommu.mapped(), firsts(&dma)),
            (vec![0x1_0000], vec![0x1_0000])
        );
        assert_eq!(alive.count(), 1);
        // Nothing is broken: the same can be mapped once there is room.
        assert_eq!(device.events().unwrap().try_next(), None);
        dma.map(vec![alive.at(0x10_0000, PAGE)]).unwrap();
        assert_eq!(iommu.mapped().len(), 2);
    }
}

#[test]
fn a_batch_that_cannot_be_taken_back_keeps_its_memory_and_breaks_the_device() {
    let (iommu, _parent, device, dma, alive) = device_with_parent();
    let events = device.events().unwrap();
    iommu.with(|state| {
        state.refuse = Some(3);
        state.sticks = Some(0x2_0000);
    });
    let batch = [0x1_0000, 0x2_0000, 0x3_0000].map(|at| alive.at(at, PAGE));
    let error = dma.map(batch.to_vec()).unwrap_err();
    drop(batch);
    assert_eq!(error.kind(), ErrorKind::Io);
    assert_eq!((iommu.mapped(), alive.count()), (vec![0x2_0000], 1));
    let Some(Event::Broken { why }) = events.try_next() else {
        panic!("nobody was told");
    };
    assert!(why.contains("does not let go of"), "{why}");
    assert!(matches!(dma.map(Vec::new()), Err(Error::Broken)));
    // The parent lives on, and so does the memory.
    drop((dma, device));
    assert_eq!((iommu.mapped(), alive.count()), (vec![0x2_0000], 1));
}

#[test]
fn what_the_device_cannot_be_given_is_refused_with_the_numbers_before_the_parent_is_asked() {
    let (iommu, _device, dma, alive) = device();
    let refused = |mapping| dma.map(vec![mapping]).unwrap_err();
    // The window of interrupts, and what reaches into it.
    for (at, len) in [(0xfee0_0000, PAGE), (0xfedf_f000, 2 * PAGE), (0x1000, PAGE)] {
        let error = refused(alive.at(at, len));
        assert_eq!(error.kind(), ErrorKind::Misuse);
        let text = error.to_string();
        assert!(text.contains(&range(at, len).to_string()), "{text}");
        assert!(
            text.contains("0x10000 to 0xfedfffff, 0xfef00000 to"),
            "{text}"
        );
    }
    let beyond = refused(alive.at(0x100_0000_0000, PAGE));
    assert!(matches!(beyond, Error::DmaRange { .. }));
    let text = refused(alive.at(0x1_0800, PAGE)).to_string();
    assert!(
        text.contains("device address 0x10800 is not a multiple of 0x1000"),
        "{text}"
    );
    let mut short = alive.at(0x1_0000, PAGE);
    short.iova = range(0x1_0000, 0x800);
    let text = refused(short.clone()).to_string();
    assert!(text.contains("length 0x800"), "{text}");
    short.iova = range(0x1_0000, PAGE);
    short.memory = Arc::new(Region::memfd(2 * PAGE).unwrap());
    short.offset = 0x10;
    let text = refused(short).to_string();
    assert!(text.contains("host address"), "{text}");
    let many = (0..9)
        .map(|n| alive.at(0x10_0000 + n * PAGE, PAGE))
        .collect();
    let error = dma.map(many).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(
        error
            .to_string()
            .contains("9 more are too many: 8 are possible"),
        "{error}"
    );
    let twice = vec![alive.at(0x1_0000, PAGE), alive.at(0x1_0000, PAGE)];
    let error = dma.map(twice).unwrap_err();
    assert!(matches!(error, Error::Memory(MemError::Overlap { .. })));
    assert_eq!((iommu.log().len(), alive.count()), (0, 0));
    // All that there may be, and then no more.
    let all = (0..8)
        .map(|n| alive.at(0x10_0000 + n * PAGE, PAGE))
        .collect();
    dma.map(all).unwrap();
    let one = dma.map(vec![alive.at(0x1_0000, PAGE)]).unwrap_err();
    assert!(
        one.to_string().contains("has 8 mappings, and 1 more"),
        "{one}"
    );
}

#[test]
fn what_the_parent_does_not_let_go_of_stays_mapped_and_the_rest_does_not() {
    let (iommu, _parent, device, dma, alive) = device_with_parent();
    let events = device.events().unwrap();
    let batch = [0x1_0000, 0x2_0000, 0x3_0000].map(|at| alive.at(at, PAGE));
    dma.map(batch.to_vec()).unwrap();
    drop(batch);
    iommu.with(|state| state.sticks = Some(0x2_0000));
    let error = dma.unmap(range(0, 1 << 20), now()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert_eq!(
        (iommu.mapped(), firsts(&dma)),
        (vec![0x2_0000], vec![0x2_0000])
    );
    assert_eq!(alive.count(), 1);
    assert!(matches!(events.try_next(), Some(Event::Broken { .. })));
    assert!(matches!(device.status(), Err(Error::Broken)));
    // A broken device is let go of. What it may still write to is not.
    device.close(now()).map_err(|(_, e)| e).unwrap();
    drop(dma);
    assert_eq!((iommu.mapped(), alive.count()), (vec![0x2_0000], 1));
}

#[test]
fn memory_is_not_freed_under_a_device_that_reaches_it_though_the_parent_was_dropped() {
    let iommu = Arc::new(Iommu::default());
    let alive = Alive::default();
    let device = Device::new(Arc::new(with(&iommu)), Relay::new()).unwrap();
    let dma = device.dma(Asid::new(0)).unwrap();
    dma.map(vec![alive.at(0x1_0000, PAGE)]).unwrap();
    iommu.with(|state| state.sticks = Some(0x1_0000));
    drop(device);
    drop(dma);
    // Nobody had the parent but the device; what translates outlives both. Looks whether all that is mapped lives.
    assert_eq!((iommu.mapped(), alive.count()), (vec![0x1_0000], 1));
}

#[test]
fn memory_lives_until_the_parent_let_go_of_it_in_whatever_order_things_are_dropped() {
    for order in 0..3 {
        let (iommu, device, dma, alive) = device();
        dma.map(vec![alive.at(0x1_0000, PAGE)]).unwrap();
        // The parent itself looks whether the memory lives when it is taken back.
        match order {
            0 => drop((device, dma)),
            1 => drop((dma, device)),
            _ => {
                device.close(soon()).map_err(|(_, e)| e).unwrap();
                assert_eq!(iommu.log(), ["map 0 0x10000", "unmap 0 0x10000"]);
                // The handle is of no use any more, and does no harm.
                let error = dma.map(vec![alive.at(0x2_0000, PAGE)]).unwrap_err();
                assert!(matches!(error, Error::Gone));
                dma.unmap(range(0x1_0000, PAGE), now()).unwrap();
            }
        }
        assert_eq!((iommu.mapped().len(), alive.count()), (0, 0), "{order}");
    }
}

#[test]
fn mappings_are_taken_back_after_the_reset() {
    let iommu = Arc::new(Iommu::default());
    let tiny = Arc::new(with(&iommu));
    let device = Device::new(tiny.clone(), Relay::new()).unwrap();
    let dma = device.dma(Asid::new(0)).unwrap();
    dma.map(vec![Alive::default().at(0x1_0000, PAGE)]).unwrap();
    device.reset(soon()).unwrap();
    assert_eq!(iommu.mapped(), [0x1_0000], "mappings outlive a reset");
    device.write_status(1).unwrap();
    tiny.slow.store(3, Ordering::SeqCst);
    // Not complete at its deadline: the device comes back with all that it has.
    let (device, _) = device.close(now()).unwrap_err();
    assert_eq!(iommu.mapped(), [0x1_0000]);
    device.close(soon()).map_err(|(_, e)| e).unwrap();
    assert_eq!(iommu.mapped(), [0u64; 0]);
}

#[test]
fn a_replacement_touches_only_what_differs() {
    let (iommu, _device, dma, alive) = device();
    let (a, b) = (alive.at(0x1_0000, PAGE), alive.at(0x2_0000, PAGE));
    dma.map(vec![a.clone(), b]).unwrap();
    iommu.log();
    // The second one's place is taken by another.
    dma.replace(vec![a, alive.at(0x2_0000, 2 * PAGE)], now())
        .unwrap();
    assert_eq!(iommu.log(), ["unmap 0 0x20000", "map 0 0x20000"]);
    assert_eq!((iommu.mapped().len(), alive.count()), (2, 2));
    dma.replace(Vec::new(), now()).unwrap();
    assert_eq!((iommu.mapped().len(), alive.count()), (0, 0));
}

#[test]
fn a_replacement_of_which_one_is_refused_is_taken_back_whichever_it_is() {
    for refused in 1..=3 {
        let (iommu, device, dma, alive) = device();
        let old = [0x1_0000, 0x2_0000].map(|at| alive.at(at, PAGE));
        dma.map(old.to_vec()).unwrap();
        let kept = old[0].clone();
        drop(old);
        iommu.with(|state| state.refuse = Some(2 + refused));
        let new = [0x2_0000, 0x3_0000, 0x4_0000].map(|at| alive.at(at, PAGE));
        let table = std::iter::once(kept).chain(new).collect();
        let error = dma.replace(table, now()).unwrap_err();
        assert_eq!(error.to_string(), "no entry is left");
        assert_eq!(iommu.mapped(), [0x1_0000, 0x2_0000]);
        assert_eq!((firsts(&dma), alive.count()), (vec![0x1_0000, 0x2_0000], 2));
        assert_eq!(device.events().unwrap().try_next(), None);
    }
    let (iommu, _device, dma, alive) = device();
    dma.map(vec![alive.at(0x1_0000, PAGE)]).unwrap();
    let error = dma
        .replace(vec![alive.at(0x1000, PAGE)], now())
        .unwrap_err();
    assert!(matches!(error, Error::DmaRange { .. }));
    assert_eq!(iommu.log(), ["map 0 0x10000"], "nothing was touched");
}

#[test]
fn a_replacement_that_cannot_be_taken_back_breaks_the_device_and_frees_nothing_that_it_reaches() {
    // The new one sticks where the old one was; or the old one is not taken again.
    for sticks in [true, false] {
        let (iommu, _parent, device, dma, alive) = device_with_parent();
        let events = device.events().unwrap();
        dma.map(vec![alive.at(0x1_0000, PAGE)]).unwrap();
        iommu.with(|state| {
            state.refuse = Some(3);
            state.refuse_again = !sticks;
            state.sticks_later = sticks.then_some(0x1_0000);
        });
        let new = [0x1_0000, 0x2_0000].map(|at| alive.at(at, PAGE)).to_vec();
        let error = dma.replace(new, now()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(matches!(events.try_next(), Some(Event::Broken { .. })));
        // Looks whether all that is mapped lives.
        assert_eq!(iommu.mapped().len(), usize::from(sticks));
        drop((dma, device));
        assert_eq!(iommu.mapped().len(), usize::from(sticks));
        // The parent's address space has the old one, which was never taken out of it.
        assert_eq!(alive.count(), 1 + usize::from(sticks));
    }
}

#[test]
fn a_device_that_is_dropped_while_memory_is_mapped_for_it_takes_that_back_too() {
    let (iommu, device, dma, alive) = device();
    let (here, came) = mpsc::channel();
    let (go, wait) = mpsc::channel();
    iommu.with(|state| state.stop = Some((here, wait)));
    let mapping = alive.at(0x1_0000, PAGE);
    std::thread::scope(|scope| {
        let mapper = scope.spawn(|| dma.map(vec![mapping]));
        came.recv().unwrap();
        let dropper = scope.spawn(move || drop(device));
        go.send(()).unwrap();
        dropper.join().unwrap();
        mapper.join().unwrap().unwrap();
        assert_eq!(iommu.log(), ["map 0 0x10000", "unmap 0 0x10000"]);
    });
    drop(dma);
    assert_eq!((iommu.mapped().len(), alive.count()), (0, 0));
}

#[test]
fn writes_that_nobody_sees_cannot_be_logged() {
    struct Nowhere;
    impl DirtyLog for Nowhere {
        fn mark(&self, _: Gpa, _: u64) {}
    }
    let (_iommu, _device, dma, _) = device();
    let error = dma
        .set_dirty_log(Some(Arc::new(Nowhere)), now())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(
        error
            .to_string()
            .starts_with("device tiny0 has no dirty log"),
        "{error}"
    );
    dma.set_dirty_log(None, now()).unwrap();
}

#[test]
fn a_map_that_takes_long_holds_no_control_call_up_but_another_map() {
    let (iommu, device, dma, alive) = device();
    let (here, came) = mpsc::channel();
    let (go, wait) = mpsc::channel();
    iommu.with(|state| state.stop = Some((here, wait)));
    let (first, second) = (alive.at(0x1_0000, PAGE), alive.at(0x2_0000, PAGE));
    std::thread::scope(|scope| {
        let (dma, again) = (&dma, dma.clone());
        scope.spawn(move || dma.map(vec![first]).unwrap());
        came.recv().unwrap();
        device.reset(soon()).unwrap();
        device.write_status(1).unwrap();
        let (done, is_done) = mpsc::channel();
        scope.spawn(move || {
            again.map(vec![second]).unwrap();
            done.send(()).unwrap();
        });
        assert!(is_done.try_recv().is_err());
        assert!(iommu.mapped().is_empty());
        go.send(()).unwrap();
        is_done.recv().unwrap();
    });
    assert_eq!(iommu.log(), ["map 0 0x10000", "map 0 0x20000"]);
}

#[test]
fn a_parent_that_finds_the_device_gone_while_it_maps_says_so_once() {
    let (iommu, device, dma, alive) = device();
    let events = device.events().unwrap();
    dma.map(vec![alive.at(0x1_0000, PAGE)]).unwrap();
    iommu.with(|state| {
        state.refuse = Some(3);
        state.gone = true;
    });
    let error = dma.map([0x2_0000, 0x3_0000].map(|at| alive.at(at, PAGE)).to_vec());
    assert!(matches!(error, Err(Error::Gone)));
    assert_eq!(events.try_next(), Some(Event::Gone));
    assert_eq!(events.try_next(), None);
    assert!(matches!(device.status(), Err(Error::Gone)));
    // Memory can be had back.
    dma.unmap(range(0x1_0000, PAGE), now()).unwrap();
    device.close(now()).map_err(|(_, e)| e).unwrap();
    assert_eq!((iommu.mapped().len(), alive.count()), (0, 0));
    assert_eq!(events.try_next(), None);
}

#[test]
fn a_device_that_would_take_addresses_for_physical_ones_is_refused_by_name() {
    let (_iommu, device, _, _) = device();
    let error = device
        .accept(SPLIT.without(bits::ACCESS_PLATFORM))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let text = error.to_string();
    assert!(
        text.contains("tiny0") && text.contains("ACCESS_PLATFORM"),
        "{text}"
    );
    device.accept(SPLIT).unwrap();
    // One that reads its space itself needs no translation.
    let (_, software) = open(Tiny::default());
    software
        .accept(SPLIT.without(bits::ACCESS_PLATFORM))
        .unwrap();
}

#[test]
fn a_session_takes_addresses_that_the_device_has() {
    let iommu = Arc::new(Iommu {
        limits: DmaLimits {
            // Room for one queue, then a window of interrupts, then for the other.
            ranges: vec![
                (Iova::new(0xfed0_0000), Iova::new(0xfedf_ffff)),
                (Iova::new(0xfef0_0000), Iova::new(0xffff_ffff)),
            ],
            granule: 0x1_0000,
            max_entries: None,
            reach: vdpa_core::Reach::Platform,
        },
        state: Mutex::default(),
    });
    let device = Device::new(Arc::new(with(&iommu)), Relay::new()).unwrap();
    let session = Session::open(device, soon()).map_err(|(_, e)| e).unwrap();
    let mut session = session.negotiate(SPLIT).map_err(|(_, e)| e).unwrap();
    for (queue, backing) in [
        (0, session::Backing::Anonymous),
        (1, session::Backing::Memfd),
    ] {
        let setup = QueueSetup {
            backing,
            ..QueueSetup::default()
        };
        session.queue(q(queue), setup).unwrap();
    }
    assert_eq!(iommu.mapped(), [0xfed0_0000, 0xfef0_0000]);
    let large = QueueSetup {
        buffers: 9 << 10,
        ..QueueSetup::default()
    };
    let error = session.queue(q(2), large).unwrap_err();
    assert!(matches!(error, Error::DmaExhausted { .. }));
    assert!(
        error.to_string().contains("0xfed00000 to 0xfedfffff"),
        "{error}"
    );
    let session = session.run().map_err(|(_, e)| e).unwrap();
    session.close(soon()).map_err(|(_, e)| e).unwrap();
    assert_eq!(iommu.mapped(), [0u64; 0]);
}

#[test]
fn what_a_replacement_left_of_a_device_that_went_can_be_had_back() {
    // Refused at the first or the second of the new ones, where the old one was.
    for refused in [2, 3] {
        let (iommu, device, dma, alive) = device();
        dma.map(vec![alive.at(0x1_0000, PAGE)]).unwrap();
        iommu.with(|state| {
            state.refuse = Some(refused);
            state.gone = true;
        });
        let new = [0x1_0000, 0x2_0000].map(|at| alive.at(at, PAGE)).to_vec();
        assert!(matches!(dma.replace(new, soon()), Err(Error::Gone)));
        assert_eq!(firsts(&dma), [0x1_0000], "still shown");
        let partial = dma.unmap(range(0x1_0000, PAGE / 2), now()).unwrap_err();
        assert!(matches!(partial, Error::Memory(MemError::Partial { .. })));
        assert_eq!(alive.count(), 1);
        dma.unmap(range(0x1_0000, PAGE), soon()).unwrap();
        assert_eq!((iommu.mapped().len(), firsts(&dma).len()), (0, 0));
        assert_eq!(alive.count(), 0);
        let again = dma.unmap(range(0x1_0000, PAGE), now()).unwrap_err();
        assert!(matches!(again, Error::Memory(MemError::NotMapped { .. })));
        drop(device);
    }
}

#[test]
fn what_sticks_to_a_device_that_went_keeps_nothing_else_back() {
    let (iommu, device, dma, alive) = device();
    dma.map(vec![alive.at(0x1_0000, PAGE), alive.at(0x5_0000, PAGE)])
        .unwrap();
    iommu.with(|state| {
        state.refuse = Some(4);
        state.gone = true;
        state.sticks_later = Some(0x1_0000);
    });
    // The first new one is never published, and sticks where an old one is that is.
    let new = [0x1_0000, 0x2_0000].map(|at| alive.at(at, PAGE)).to_vec();
    assert!(matches!(dma.replace(new, soon()), Err(Error::Gone)));
    assert_eq!(alive.count(), 3);
    let error = dma.unmap(range(0, 1 << 20), now()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    // Looks whether what sticks lives.
    assert_eq!((iommu.mapped(), firsts(&dma).len()), (vec![0x1_0000], 0));
    assert_eq!(alive.count(), 1);
    drop((device, dma));
    assert_eq!((iommu.mapped(), alive.count()), (vec![0x1_0000], 1));
}

#[test]
fn a_handle_that_outlives_its_device_does_not_claim_that_what_sticks_is_unmapped() {
    let (iommu, device, dma, alive) = device();
    dma.map([0x1_0000, 0x2_0000].map(|at| alive.at(at, PAGE)).to_vec())
        .unwrap();
    iommu.with(|state| state.sticks = Some(0x1_0000));
    drop(device);
    for _ in 0..2 {
        let error = dma.unmap(range(0x1_0000, PAGE), now()).unwrap_err();
        assert!(matches!(error, Error::Broken));
    }
    dma.unmap(range(0x2_0000, PAGE), now()).unwrap();
    assert_eq!((firsts(&dma), alive.count()), (vec![0x1_0000], 1));
    drop(dma);
    assert_eq!((iommu.mapped(), alive.count()), (vec![0x1_0000], 1));
}

#[test]
fn an_unmap_of_many_is_one_change_to_who_watches_the_space() {
    let (iommu, parent, device, dma, alive) = device_with_parent();
    let all = (1..=8).map(|n| alive.at(n * 0x1_0000, PAGE)).collect();
    dma.map(all).unwrap();
    let changes = Arc::new(AtomicUsize::new(0));
    let counter = changes.clone();
    let watcher = Arc::new(move || {
        counter.fetch_add(1, Ordering::SeqCst);
    });
    parent.host.get().unwrap().spaces[0].watch(&watcher);
    dma.unmap(range(0, 1 << 20), now()).unwrap();
    assert_eq!(changes.load(Ordering::SeqCst), 1);
    assert_eq!((iommu.mapped().len(), alive.count()), (0, 0));
    drop(device);
}

#[test]
fn a_device_in_another_process_takes_memory_with_a_file_and_needs_no_access_platform() {
    let iommu = Arc::new(Iommu {
        limits: DmaLimits {
            ranges: vec![(Iova::new(0), Iova::new(u64::MAX))],
            granule: 0x1000,
            max_entries: None,
            reach: vdpa_core::Reach::Process,
        },
        state: Mutex::default(),
    });
    let device = Device::new(Arc::new(with(&iommu)), Relay::new()).unwrap();
    let session = Session::open(device, soon()).map_err(|(_, e)| e).unwrap();
    let plain = SPLIT.without(bits::ACCESS_PLATFORM);
    let mut session = session.negotiate(plain).map_err(|(_, e)| e).unwrap();
    let alone = QueueSetup {
        backing: session::Backing::Anonymous,
        ..QueueSetup::default()
    };
    let error = session.queue(q(0), alone).unwrap_err();
    assert!(matches!(error, Error::DmaNoFile { .. }), "{error}");
    assert!(error.to_string().contains("memfd"), "{error}");
    assert!(iommu.mapped().is_empty());
    session.queue(q(0), QueueSetup::default()).unwrap();
    assert_eq!(iommu.mapped().len(), 1);
    let session = session.run().map_err(|(_, e)| e).unwrap();
    session.close(soon()).map_err(|(_, e)| e).unwrap();
}

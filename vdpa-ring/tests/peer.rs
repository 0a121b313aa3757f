//! What a hostile device may write, and what the driver half makes of it.

mod rig;

use rig::{AVAIL, BASE, Rig, USED, WRITE, packed};
use vdpa_mem::Iova;
use vdpa_ring::{
    AddError, Batch, Completion, DeviceRing, DriverRing, Format, Pos, QueueState, RingError,
    RingFeatures, Segment, Used, layout,
};

const SIZE: u16 = 8;
const NONE: RingFeatures = RingFeatures::empty();

fn segment(len: u32) -> Segment {
    Segment {
        addr: Iova::new(BASE),
        len,
    }
}

/// A driver that has three chains in flight: a readable one, one of two parts, a writable one.
fn three(format: Format, features: RingFeatures) -> (Rig, DriverRing, [u16; 3]) {
    let rig = Rig::new(format, SIZE);
    let mut driver = DriverRing::new(format, SIZE, features, None).unwrap();
    let mem = rig.driver(false);
    let ids = [
        driver.add(&mem, &[segment(10)], &[]).unwrap(),
        driver.add(&mem, &[segment(10)], &[segment(20)]).unwrap(),
        driver.add(&mem, &[], &[segment(30)]).unwrap(),
    ];
    assert!(driver.publish(&mem));
    (rig, driver, ids)
}

/// The device marks a chain used at entry or slot `at`.
fn used(rig: &Rig, at: u16, id: u32, len: u32) {
    match rig.format {
        Format::Split => {
            rig.u32(rig.at.device, layout::used_entry(at), id);
            rig.u32(rig.at.device, layout::used_entry(at) + 4, len);
            rig.u16(rig.at.device, layout::IDX, at + 1);
        }
        Format::Packed => rig.words(
            layout::descriptor(at),
            BASE,
            packed(len, id as u16, AVAIL | USED | WRITE),
        ),
    }
}

fn take(rig: &Rig, driver: &mut DriverRing) -> Result<Vec<Completion>, RingError> {
    let mut out = [Completion::default(); 8];
    let n = driver.take_used(&rig.driver(false), &mut out)?;
    Ok(out[..n].to_vec())
}

fn latched(rig: &Rig, driver: &mut DriverRing, expected: RingError) {
    assert_eq!(take(rig, driver), Err(expected));
    assert_eq!(take(rig, driver), Err(RingError::Latched));
    let mem = rig.driver(false);
    assert_eq!(driver.add(&mem, &[segment(1)], &[]), Err(AddError::Latched));
    assert!(!driver.arm(&mem));
}

#[test]
fn used_id_out_of_range_is_refused() {
    for format in [Format::Split, Format::Packed] {
        for id in [u32::from(SIZE), 0xffff] {
            let (rig, mut driver, _) = three(format, NONE);
            used(&rig, 0, id, 0);
            let error = RingError::UsedIdOutOfRange {
                index: 0,
                id,
                size: SIZE,
            };
            latched(&rig, &mut driver, error);
        }
    }
    // The split id is 32 bits wide: no truncation makes it good.
    let (rig, mut driver, _) = three(Format::Split, NONE);
    used(&rig, 0, 0x1_0000, 0);
    let error = RingError::UsedIdOutOfRange {
        index: 0,
        id: 0x1_0000,
        size: SIZE,
    };
    latched(&rig, &mut driver, error);
}

#[test]
fn replayed_id_is_refused_after_the_good_one() {
    for format in [Format::Split, Format::Packed] {
        let (rig, mut driver, ids) = three(format, NONE);
        used(&rig, 0, u32::from(ids[0]), 0);
        used(&rig, 1, u32::from(ids[0]), 0);
        let good = Completion { id: ids[0], len: 0 };
        assert_eq!(take(&rig, &mut driver), Ok(vec![good]));
        assert!(driver.arm(&rig.driver(false)), "there is something to tell");
        let error = RingError::UsedNotInFlight {
            index: 1,
            id: ids[0],
        };
        latched(&rig, &mut driver, error);
    }
}

#[test]
fn id_that_is_no_head_is_refused() {
    let (rig, mut driver, ids) = three(Format::Split, NONE);
    // The second chain's second descriptor.
    let id = (0..SIZE).find(|id| !ids.contains(id) && *id < 4).unwrap();
    used(&rig, 0, u32::from(id), 0);
    latched(
        &rig,
        &mut driver,
        RingError::UsedNotInFlight { index: 0, id },
    );
}

#[test]
fn used_len_beyond_the_writable_part_is_refused() {
    for format in [Format::Split, Format::Packed] {
        for (chain, writable) in [(0, 0), (1, 20), (2, 30)] {
            let (rig, mut driver, ids) = three(format, NONE);
            let id = ids[chain];
            used(&rig, 0, u32::from(id), writable);
            assert_eq!(
                take(&rig, &mut driver).unwrap(),
                [Completion { id, len: writable }]
            );

            let (rig, mut driver, ids) = three(format, NONE);
            let id = ids[chain];
            let len = writable + 1;
            used(&rig, 0, u32::from(id), len);
            latched(
                &rig,
                &mut driver,
                RingError::UsedTooLong { id, len, writable },
            );
        }
    }
}

#[test]
fn packed_length_without_the_write_flag_counts_only_if_it_can_be_true() {
    for (len, found) in [(20, 20), (21, 0)] {
        let (rig, mut driver, ids) = three(Format::Packed, NONE);
        rig.packed(0, BASE, len, ids[1], AVAIL | USED);
        assert_eq!(
            take(&rig, &mut driver).unwrap(),
            [Completion {
                id: ids[1],
                len: found
            }]
        );
    }
}

#[test]
fn used_idx_that_jumps_or_goes_back_is_refused() {
    for to in [4, SIZE, 0x8000, 0xffff] {
        let (rig, mut driver, _) = three(Format::Split, NONE);
        rig.u16(rig.at.device, layout::IDX, to);
        let error = RingError::UsedJump {
            from: 0,
            to,
            in_flight: 3,
        };
        latched(&rig, &mut driver, error);
    }
    // What is added but not published can't have been used.
    let (rig, mut driver, _) = three(Format::Split, NONE);
    driver.add(&rig.driver(false), &[segment(1)], &[]).unwrap();
    rig.u16(rig.at.device, layout::IDX, 4);
    let error = RingError::UsedJump {
        from: 0,
        to: 4,
        in_flight: 3,
    };
    latched(&rig, &mut driver, error);
}

/// A device that guesses the id of a chain it has not been shown: accepted, its slots would be
/// written again before they are published, and the ring would show nothing any more.
#[test]
fn unpublished_chain_marked_used_is_refused_and_publication_goes_on() {
    for format in [Format::Split, Format::Packed] {
        for features in [NONE, RingFeatures::IN_ORDER] {
            for (parts, len) in [(1, 0), (1, 10), (3, 30), (3, 31), (1, u32::MAX)] {
                let rig = Rig::new(format, SIZE);
                let mem = rig.driver(false);
                let mut driver = DriverRing::new(format, SIZE, features, None).unwrap();
                driver.add(&mem, &[], &[segment(10)]).unwrap();
                assert!(driver.publish(&mem));
                let hidden = [segment(10); 3];
                let id = driver.add(&mem, &[], &hidden[..parts]).unwrap();
                let before = (driver.state(), driver.free(), driver.in_flight());
                used(&rig, 0, u32::from(id), len);
                latched(
                    &rig,
                    &mut driver,
                    RingError::UsedNotInFlight { index: 0, id },
                );
                assert_eq!(
                    before,
                    (driver.state(), driver.free(), driver.in_flight()),
                    "{format} {features:?}"
                );
                driver.publish(&mem);
                assert_ne!(before.0, driver.state(), "{format} {features:?}");
            }
        }
    }
}

#[test]
fn chain_is_taken_back_once_it_was_published_and_used() {
    for format in [Format::Split, Format::Packed] {
        let (rig, mut driver, ids) = three(format, NONE);
        // One more, which hides none of those shown.
        let mem = rig.driver(false);
        let hidden = driver.add(&mem, &[], &[segment(9)]).unwrap();
        // The second chain has two parts.
        let [first, second, third, last] = match format {
            Format::Split => [0, 1, 2, 3],
            Format::Packed => [0, 1, 3, 4],
        };
        for (at, id) in [first, second, third].into_iter().zip(ids) {
            used(&rig, at, u32::from(id), 0);
        }
        let back: Vec<_> = take(&rig, &mut driver)
            .unwrap()
            .iter()
            .map(|c| c.id)
            .collect();
        assert_eq!(back, ids, "{format}");
        driver.publish(&mem);
        used(&rig, last, u32::from(hidden), 9);
        let completion = Completion { id: hidden, len: 9 };
        assert_eq!(take(&rig, &mut driver), Ok(vec![completion]));
    }
}

/// One slow chain, and as many quick ones as the ring's index has values.
#[test]
#[cfg(not(miri))] // 65536 chains take too long.
fn slow_chain_is_not_taken_for_an_unpublished_one_when_indices_wrap() {
    for format in [Format::Split, Format::Packed] {
        let rig = Rig::new(format, SIZE);
        let (driver_mem, device_mem) = (rig.driver(false), rig.device());
        let mut driver = DriverRing::new(format, SIZE, NONE, None).unwrap();
        let mut device = DeviceRing::new(format, SIZE, NONE, None).unwrap();
        let mut batch = Batch::new(1, 1);
        let mut show = |driver: &mut DriverRing, device: &mut DeviceRing| {
            let id = driver.add(&driver_mem, &[], &[segment(9)]).unwrap();
            driver.publish(&driver_mem);
            assert_eq!(device.take(&device_mem, &mut batch, 1), Ok(1));
            let token = batch.chain(0).unwrap().token();
            assert_eq!(token.id(), id);
            Used { token, len: 3 }
        };
        let slow = show(&mut driver, &mut device);
        for _ in 0..0xffff {
            let quick = show(&mut driver, &mut device);
            device.commit(&device_mem, &[quick]).unwrap();
            assert_eq!(take(&rig, &mut driver).unwrap().len(), 1);
        }
        driver.add(&driver_mem, &[], &[segment(9)]).unwrap();
        device.commit(&device_mem, &[slow]).unwrap();
        let id = slow.token.id();
        assert_eq!(take(&rig, &mut driver), Ok(vec![Completion { id, len: 3 }]));
    }
}

#[test]
fn no_used_entry_is_fetched_twice() {
    for format in [Format::Split, Format::Packed] {
        for features in [NONE, RingFeatures::IN_ORDER] {
            let (rig, mut driver, ids) = three(format, features);
            rig.driver_log.clear();
            if features == NONE {
                used(&rig, 0, u32::from(ids[0]), 0);
                used(&rig, 1, u32::from(ids[1]), 20);
                let last = if format == Format::Split { 2 } else { 3 };
                used(&rig, last, u32::from(ids[2]), 30);
            } else {
                used(&rig, 0, u32::from(ids[2]), 30);
                if format == Format::Split {
                    rig.u16(rig.at.device, layout::IDX, 3);
                }
            }
            // Whatever has been read turns into ones at once.
            *rig.driver_log.hook.borrow_mut() = Some(Box::new(|rig, which, at| match which {
                rig::Which::Descriptor => rig.region.bytes().store_u64(at, u64::MAX),
                rig::Which::Device if at == layout::IDX => rig.u16(rig.at.device, at, 0xffff),
                rig::Which::Device => rig.u32(rig.at.device, at, u32::MAX),
                _ => {}
            }));
            let whole = [(ids[0], 0), (ids[1], 20), (ids[2], 30)];
            assert_eq!(
                take(&rig, &mut driver).unwrap(),
                whole.map(|(id, len)| Completion { id, len })
            );
            let (idx, entry) = match format {
                Format::Split => (1, 2),
                Format::Packed => (0, 1),
            };
            let chains = if features == NONE { 3 } else { 1 };
            let loads = rig.driver_log.loads.borrow();
            assert!(loads.values().all(|&n| n == 1), "{format} {loads:?}");
            assert_eq!(
                loads.len(),
                idx + entry * chains,
                "{format} {features:?} {loads:?}"
            );
        }
    }
}

#[test]
fn empty_ring_ignores_used_marks() {
    let rig = Rig::new(Format::Packed, SIZE);
    let mut driver = DriverRing::new(Format::Packed, SIZE, NONE, None).unwrap();
    used(&rig, 0, 0, 0);
    assert_eq!(take(&rig, &mut driver), Ok(vec![]));
    // Nor does one that has shown nothing.
    driver.add(&rig.driver(false), &[segment(1)], &[]).unwrap();
    assert_eq!(take(&rig, &mut driver), Ok(vec![]));
}

#[test]
fn shared_descriptors_rewritten_by_the_device_change_nothing() {
    for format in [Format::Split, Format::Packed] {
        let (rig, mut driver, ids) = three(format, NONE);
        for i in 0..SIZE {
            rig.words(layout::descriptor(i), u64::MAX, u64::MAX >> 17);
        }
        used(&rig, 0, u32::from(ids[1]), 5);
        assert_eq!(
            take(&rig, &mut driver).unwrap(),
            [Completion { id: ids[1], len: 5 }]
        );
        assert_eq!(driver.free(), SIZE - 2);
        let loads = rig.driver_log.loads.borrow();
        let device_made = |(which, at, _): &(rig::Which, u32, u8)| {
            *which == rig::Which::Device || format == Format::Packed && at % 16 == 8
        };
        assert!(loads.keys().all(device_made), "{loads:?}");
    }
}

#[test]
fn in_order_entry_stands_for_the_chains_before_it() {
    for format in [Format::Split, Format::Packed] {
        let (rig, mut driver, ids) = three(format, RingFeatures::IN_ORDER);
        used(&rig, 0, u32::from(ids[2]), 7);
        if format == Format::Split {
            rig.u16(rig.at.device, layout::IDX, 3);
        }
        let whole = [(ids[0], 0), (ids[1], 20), (ids[2], 7)];
        // Also where there is room for one at a time.
        for (id, len) in whole {
            let mut out = [Completion::default()];
            assert!(driver.arm(&rig.driver(false)));
            assert_eq!(driver.take_used(&rig.driver(false), &mut out), Ok(1));
            assert_eq!(out, [Completion { id, len }]);
        }
        assert_eq!((driver.free(), driver.in_flight()), (SIZE, 0));
    }
}

#[test]
fn in_order_entry_for_more_than_was_used_is_refused() {
    // used.idx says two, the entry names the third.
    let (rig, mut driver, ids) = three(Format::Split, RingFeatures::IN_ORDER);
    used(&rig, 0, u32::from(ids[2]), 0);
    rig.u16(rig.at.device, layout::IDX, 2);
    let error = RingError::UsedNotInFlight {
        index: 0,
        id: ids[2],
    };
    latched(&rig, &mut driver, error);
    // What is added but not published can't have been used.
    let (rig, mut driver, _) = three(Format::Packed, RingFeatures::IN_ORDER);
    let id = driver.add(&rig.driver(false), &[segment(1)], &[]).unwrap();
    used(&rig, 0, u32::from(id), 0);
    latched(
        &rig,
        &mut driver,
        RingError::UsedNotInFlight { index: 0, id },
    );
    // A slot inside a list begins no chain.
    let (rig, mut driver, ids) = three(Format::Packed, RingFeatures::IN_ORDER);
    let id = ids[1] + 1;
    used(&rig, 0, u32::from(id), 0);
    latched(
        &rig,
        &mut driver,
        RingError::UsedNotInFlight { index: 0, id },
    );
}

#[test]
fn in_order_split_chains_take_descriptors_in_ring_order() {
    let rig = Rig::new(Format::Split, SIZE);
    let mut driver = DriverRing::new(Format::Split, SIZE, RingFeatures::IN_ORDER, None).unwrap();
    let mem = rig.driver(false);
    let mut at = 0;
    for _ in 0..20 {
        let parts = [segment(1), segment(1), segment(1)];
        assert_eq!(driver.add(&mem, &parts, &[]), Ok(at));
        let next = rig.region.bytes().load_u64(layout::descriptor_meta(at)) >> 48;
        assert_eq!(next, u64::from((at + 1) % SIZE));
        driver.publish(&mem);
        let idx = match driver.state() {
            QueueState::Split { avail, .. } => avail,
            QueueState::Packed { .. } => unreachable!(),
        };
        let entry = layout::used_entry((idx - 1) % SIZE);
        rig.u32(rig.at.device, entry, u32::from(at));
        rig.u32(rig.at.device, entry + 4, 0);
        rig.u16(rig.at.device, layout::IDX, idx);
        assert_eq!(take(&rig, &mut driver).unwrap().len(), 1);
        at = (at + 3) % SIZE;
    }
}

#[test]
fn chains_the_ring_can_not_carry_are_refused_and_change_nothing() {
    for format in [Format::Split, Format::Packed] {
        let rig = Rig::new(format, SIZE);
        let mem = rig.driver(false);
        let mut driver = DriverRing::new(format, SIZE, NONE, None).unwrap();
        assert_eq!(driver.add(&mem, &[], &[]), Err(AddError::Empty));
        let long = [segment(1); 9];
        let error = AddError::TooLong {
            segments: 9,
            size: SIZE,
        };
        assert_eq!(driver.add(&mem, &long, &[]), Err(error));
        let error = AddError::TooLarge {
            bytes: u64::from(u32::MAX) * 2,
        };
        let large = [segment(u32::MAX)];
        assert_eq!(driver.add(&mem, &large, &large), Err(error));
        driver.add(&mem, &long[..6], &[]).unwrap();
        let error = AddError::Full { needed: 3, free: 2 };
        assert_eq!(driver.add(&mem, &long[..3], &[]), Err(error));
        assert_eq!((driver.free(), driver.in_flight()), (2, 1));
    }
}

#[test]
fn notification_data_carries_the_published_position() {
    let state = QueueState::Split {
        avail: 0xfffe,
        used: None,
    };
    let rig = Rig::new(Format::Split, SIZE);
    let mut driver = DriverRing::new(Format::Split, SIZE, NONE, Some(state)).unwrap();
    let mem = rig.driver(false);
    assert_eq!(driver.notification_data(5), 0xfffe_0005);
    driver.add(&mem, &[segment(1)], &[]).unwrap();
    assert_eq!(
        driver.notification_data(5),
        0xfffe_0005,
        "not published yet"
    );
    driver.publish(&mem);
    assert_eq!(driver.notification_data(5), 0xffff_0005);

    let at = Pos {
        index: 6,
        wrap: true,
    };
    let state = QueueState::Packed {
        avail: at,
        used: at,
    };
    let rig = Rig::new(Format::Packed, 7);
    let mut driver = DriverRing::new(Format::Packed, 7, NONE, Some(state)).unwrap();
    let mem = rig.driver(false);
    assert_eq!(driver.notification_data(1), 0x8006_0001);
    driver.add(&mem, &[segment(1)], &[]).unwrap();
    driver.publish(&mem);
    assert_eq!(driver.notification_data(1), 0x0000_0001);
}

//! Section G: set-up, and what a driver may ask for.

use vdpa_core::{
    Area, Asid, Call, Error, ErrorKind, FeatureBit, Features, GroupIndex, Kick, QueueConfig,
    QueueIndex, Result, Status, bits,
};
use vdpa_hostile::background::Sibling;
use vdpa_hostile::raw::RawQueue;
use vdpa_hostile::soon;
use vdpa_hostile::stage::{Expect, HALF, HALVES, RINGS, ROM, Stage, negotiate, run, start};
use vdpa_hostile::suite::{Code, code};
use vdpa_mem::{Iova, Region};
use vdpa_ring::{Format, Pos, QueueState, area_sizes};

/// The functions of the rows.
pub(crate) const ROWS: &[Code] = &[
    code(70).device(misaligned),
    code(71).device(outside),
    code(72).device(overlapping),
    code(73).device(sizes),
    code(74).device(changed_when_live),
    code(75).device(bit_cleared),
    code(76).device(live_without_features),
    code(77).device(not_offered),
    code(78).device(version_missing),
    code(79).device(no_such_queue),
    code(85).device(state_when_enabled),
];

/// What a driver sets, from DRIVER_OK on.
const LIVE: u8 = 0x0f;

/// Refused, and the caller is told that it was wrong.
pub(crate) fn misuse<T: std::fmt::Debug>(what: &str, done: Result<T>) -> Error {
    let why = match done {
        Err(why) => why,
        Ok(done) => panic!("{what}: {done:?} instead of an error"),
    };
    assert_eq!(why.kind(), ErrorKind::Misuse, "{what}: {why}");
    why
}

/// Puts a fresh ring in place of the queue under attack, and starts it.
pub(crate) fn restart(s: &mut Stage) {
    let mut q = RawQueue::new(s.q.index.get(), s.format, s.setup.size, (&s.rings, 0), None);
    start(&s.device, &mut q, None);
    s.q = q;
}

/// Resets the device, whose sibling queue is no more.
pub(crate) fn reset(s: &Stage) {
    let _over = s.background.leave(Sibling::Queue);
    s.device.reset(soon()).expect("a reset");
}

fn try_start(s: &Stage, config: QueueConfig) -> Result<()> {
    s.device
        .start_queue(s.q.index, config, Kick::Taken, Call::None)
        .map(drop)
}

/// Tries each of the set-ups on a queue that is stopped: while the device is live, and before it is. Both times the
/// legal one is good afterwards.
fn refused(s: &mut Stage, bad: &[QueueConfig], right: impl Fn(&Error) -> bool) {
    let check = |s: &Stage| {
        for config in bad {
            let why = misuse("a set-up", try_start(s, *config));
            assert!(right(&why), "{config:?}: {why}");
        }
    };
    s.device.stop_queue(s.q.index, soon()).expect("a stop");
    check(s);
    restart(s);
    s.still_works();
    reset(s);
    negotiate(&s.device, s.features());
    check(s);
    restart(s);
    run(&s.device);
    assert_eq!(s.status().bits(), LIVE);
}

/// Another address for one of the areas.
fn moved(config: &QueueConfig, area: Area, to: u64) -> QueueConfig {
    let mut config = *config;
    let at = match area {
        Area::Descriptor => &mut config.descriptor,
        Area::Driver => &mut config.driver,
        Area::Device => &mut config.device,
    };
    *at = Iova::new(to);
    config
}

/// Bytes and alignment of an area, virtio 1.4 §2.7 and §2.8.10.1.
fn shape(s: &Stage, area: Area) -> (u64, u64) {
    let sizes = area_sizes(s.format, s.setup.size, s.setup.event_idx);
    let of = match area {
        Area::Descriptor => sizes.descriptor,
        Area::Driver => sizes.driver,
        Area::Device => sizes.device,
    };
    (of.bytes.into(), of.align.into())
}

fn misaligned(s: &mut Stage) -> Expect {
    let config = s.q.config(None);
    let mut bad = Vec::new();
    for area in Area::ALL {
        let (_, align) = shape(s, area);
        let at = config.area(area).get();
        bad.extend((1..align).map(|by| moved(&config, area, at + by)));
    }
    assert!(bad.len() >= 15 + 1 + 3);
    refused(s, &bad, |why| matches!(why, Error::AreaMisaligned { .. }));
    Expect::Over
}

fn outside(s: &mut Stage) -> Expect {
    let config = s.q.config(None);
    let end = s.rings.end();
    let mut bad = Vec::new();
    for area in Area::ALL {
        let (bytes, align) = shape(s, area);
        let last = (end - bytes) / align * align;
        // The last bytes are missing; the first are; all of them; and addresses that nothing can be at.
        for to in [
            last + align,
            HALVES - align,
            end,
            0,
            (u64::MAX - bytes) / align * align,
            u64::MAX / align * align,
        ] {
            bad.push(moved(&config, area, to));
        }
    }
    refused(s, &bad, |why| matches!(why, Error::AreaNotMapped { .. }));
    // For reading alone.
    s.device.reset(soon()).expect("a reset");
    negotiate(&s.device, s.features());
    let written = match s.format {
        Format::Split => &[Area::Device][..],
        Format::Packed => &[Area::Device, Area::Descriptor],
    };
    for area in written {
        let why = misuse("an area", try_start(s, moved(&config, *area, ROM)));
        assert!(matches!(why, Error::AreaAccess { .. }), "{why}");
    }
    // Over two regions that touch for the device alone: legal, and more than a simulated device can do.
    let border = HALVES + HALF as u64;
    let over = moved(&config, Area::Descriptor, border - 64);
    let why = try_start(s, over).expect_err("two pieces");
    assert!(matches!(why, Error::Parent(_)), "{why}");
    Expect::Over
}

fn overlapping(s: &mut Stage) -> Expect {
    let config = s.q.config(None);
    let mut bad = Vec::new();
    for first in Area::ALL {
        for second in Area::ALL.into_iter().filter(|second| *second != first) {
            let at = config.area(first).get();
            let (bytes, _) = shape(s, first);
            let (_, align) = shape(s, second);
            let end = at + (bytes - 1) / align * align;
            // From the first byte, and over the last.
            bad.extend([moved(&config, second, at.next_multiple_of(align))]);
            bad.extend([moved(&config, second, end)]);
        }
    }
    // All of them in one place.
    let at = config.descriptor.get();
    let one = moved(&moved(&config, Area::Driver, at), Area::Device, at);
    bad.push(one);
    // What was moved to the next legal address may lie behind.
    bad.retain(|c| overlap(s, c));
    assert!(bad.len() >= 6, "{}", bad.len());
    refused(s, &bad, |why| matches!(why, Error::AreasOverlap { .. }));
    Expect::Over
}

/// Whether two of the areas share a byte.
fn overlap(s: &Stage, config: &QueueConfig) -> bool {
    let all = Area::ALL.map(|area| (config.area(area).get(), shape(s, area).0));
    let share = |(a, a_len): (u64, u64), (b, b_len): (u64, u64)| a < b + b_len && b < a + a_len;
    share(all[0], all[1]) || share(all[0], all[2]) || share(all[1], all[2])
}

fn sizes(s: &mut Stage) -> Expect {
    let max = s.device.queue_limits(s.q.index).expect("limits").max_size;
    assert!(max >= 16);
    let config = s.q.config(None);
    let sized = |size: u16| QueueConfig { size, ..config };
    let above = [0, max + 1, 2 * max, 0x7fff, 0x8000, 0x8001, u16::MAX].map(sized);
    refused(
        s,
        &above,
        |why| matches!(why, Error::QueueSize { max: m, .. } if *m == max),
    );
    if s.format == Format::Split {
        let odd = [3, 5, 6, 7, 9, max - 1].map(sized);
        s.device.reset(soon()).expect("a reset");
        negotiate(&s.device, s.features());
        for config in odd {
            let why = misuse("a size", try_start(s, config));
            assert!(matches!(why, Error::QueueSizeNotPowerOfTwo { .. }), "{why}");
        }
    }
    Expect::Over
}

fn changed_when_live(s: &mut Stage) -> Expect {
    let config = s.q.config(None);
    let half = QueueConfig { size: 4, ..config };
    let other = {
        let mut config = config;
        for area in Area::ALL {
            let at = config.area(area).get() - RINGS + s.buffer(0);
            config = moved(&config, area, at);
        }
        config
    };
    for again in [config, half, other] {
        let why = misuse("a second start", try_start(s, again));
        assert!(matches!(why, Error::QueueStarted { .. }), "{why}");
    }
    for features in [
        s.features(),
        s.features().without(bits::INDIRECT_DESC),
        s.features() | bits::RING_PACKED.mask(),
        Features::of(&[bits::VERSION_1]),
        Features::NONE,
    ] {
        misuse("features", s.device.accept(features));
        assert_eq!(s.device.negotiated(), s.features());
    }
    // More chains than the smaller size has, at the old place.
    for _ in 0..20 {
        s.still_works();
    }
    Expect::Served
}

fn bit_cleared(s: &mut Stage) -> Expect {
    let before = s.status();
    assert_eq!(before.bits(), LIVE);
    // But for a reset, FAILED, and SUSPEND, which has a row of its own.
    for byte in (1..=u8::MAX).filter(|byte| byte & 0x90 == 0 && *byte != LIVE) {
        let why = misuse("a status", s.device.write_status(byte));
        assert!(matches!(why, Error::StatusRefused { .. }), "{why}");
        assert_eq!(s.status(), before, "{byte:#04x}");
    }
    s.device.write_status(LIVE).expect("what it is already");
    s.still_works();
    // One that was given up takes nothing but a reset.
    reset(s);
    negotiate(&s.device, s.features());
    let failed = Status::FAILED.bits();
    s.device.write_status(0x0b | failed).expect("FAILED");
    for byte in [LIVE, LIVE | failed, 0x0f | 0x40, 0xff] {
        misuse("a status", s.device.write_status(byte));
        assert_eq!(s.status().bits(), 0x0b | failed, "{byte:#04x}");
    }
    misuse("a queue", try_start(s, s.q.config(None)));
    Expect::Over
}

fn live_without_features(s: &mut Stage) -> Expect {
    for begun in [0, 0x01, 0x03] {
        reset(s);
        if begun != 0 {
            s.device.write_status(begun).expect("a status");
        }
        misuse("DRIVER_OK", s.device.write_status(begun | 0x04));
        misuse("a queue", try_start(s, s.q.config(None)));
        s.device.accept(s.features()).expect("features");
        misuse("DRIVER_OK", s.device.write_status(begun | 0x04));
        misuse("a queue", try_start(s, s.q.config(None)));
        assert!(
            !s.status()
                .intersects(Status::DRIVER_OK | Status::FEATURES_OK)
        );
    }
    // FEATURES_OK where nothing was accepted.
    reset(s);
    misuse("FEATURES_OK", s.device.write_status(0x0b));
    misuse("all at once", s.device.write_status(LIVE));
    assert!(
        !s.status()
            .intersects(Status::DRIVER_OK | Status::FEATURES_OK)
    );
    Expect::Over
}

fn not_offered(s: &mut Stage) -> Expect {
    reset(s);
    let (offered, good) = (s.device.offered(), s.features());
    let mut refused = 0;
    for bit in (0..128).filter_map(FeatureBit::new) {
        if offered.contains(bit) {
            continue;
        }
        refused += 1;
        s.device.accept(good).expect("what was offered");
        misuse("a feature", s.device.accept(good.with(bit)));
        // The last choice counts, also when it was refused.
        misuse("FEATURES_OK", s.device.write_status(0x0b));
        assert!(!s.status().contains(Status::FEATURES_OK), "{bit:?}");
    }
    assert!(refused > 60, "{refused}");
    misuse(
        "everything",
        s.device.accept(Features::from_u128(u128::MAX)),
    );
    Expect::Over
}

fn version_missing(s: &mut Stage) -> Expect {
    reset(s);
    let good = s.features();
    assert!(good.contains(bits::VERSION_1));
    assert!(good.contains(bits::ACCESS_PLATFORM));
    for features in [
        good.without(bits::VERSION_1),
        good.without(bits::VERSION_1).without(bits::ACCESS_PLATFORM),
        Features::NONE,
    ] {
        misuse("a legacy driver", s.device.accept(features));
        misuse("FEATURES_OK", s.device.write_status(0x0b));
    }
    // Addresses are device addresses whatever the driver says: it is served, or refused in good order.
    let without = good.without(bits::ACCESS_PLATFORM);
    match s.device.accept(without) {
        Ok(()) => {
            reset(s);
            negotiate(&s.device, without);
            restart(s);
            run(&s.device);
            assert_eq!(s.status().bits(), LIVE);
            misuse("no address of the device's", {
                s.device.stop_queue(s.q.index, soon()).expect("a stop");
                let host = s.rings.bytes().hva().get();
                try_start(s, moved(&s.q.config(None), Area::Descriptor, host))
            });
        }
        Err(why) => assert!(matches!(why, Error::Features(_)), "{why}"),
    }
    Expect::Over
}

fn no_such_queue(s: &mut Stage) -> Expect {
    let count = s.device.info().queues;
    let config = s.q.config(None);
    for suspended in [false, true] {
        if suspended {
            s.device.suspend(soon()).expect("a suspend");
        }
        for number in [count, count + 1, 0x7fff, 0x8000, u16::MAX] {
            let q = QueueIndex::new(number);
            let d = &s.device;
            let (region, window) = Region::anonymous(4096).expect("memory").into_shared();
            let none = |what: &str, why: Error| {
                assert!(
                    matches!(why, Error::QueueOutOfRange { .. }),
                    "{what} of queue {number}: {why}"
                );
            };
            let start = d.start_queue(q, config, Kick::Taken, Call::None);
            for (what, done) in [
                ("queue_limits", d.queue_limits(q).map(drop)),
                ("track_in_flight", d.track_in_flight(q, window)),
                ("start_queue", start.map(drop)),
                ("replace_call", d.replace_call(q, Call::None)),
                ("enable_queue", d.enable_queue(q, true)),
                ("stop_queue", d.stop_queue(q, soon()).map(drop)),
                ("begin_stop_queue", d.begin_stop_queue(q)),
                ("poll_stop_queue", d.poll_stop_queue(q).map(drop)),
                ("reset_queue", d.reset_queue(q, soon())),
                ("begin_reset_queue", d.begin_reset_queue(q)),
                ("poll_reset_queue", d.poll_reset_queue(q).map(drop)),
            ] {
                none(what, misuse(what, done));
            }
            let why = misuse("queue_state", d.queue_state(q));
            if suspended {
                none("queue_state", why);
            }
            drop(region);
        }
    }
    s.device.resume().expect("a resume");
    for group in [s.device.info().groups, u32::MAX] {
        let moved = s.device.assign_group(GroupIndex::new(group), Asid::new(0));
        let why = misuse("a group", moved);
        assert!(matches!(why, Error::GroupOutOfRange { .. }), "{why}");
    }
    s.still_works();
    Expect::Served
}

fn state_when_enabled(s: &mut Stage) -> Expect {
    let at = Pos {
        index: 3,
        wrap: true,
    };
    let legal = match s.format {
        Format::Split => QueueState::Split {
            avail: 3,
            used: Some(3),
        },
        Format::Packed => QueueState::Packed {
            avail: at,
            used: at,
        },
    };
    let config = s.q.config(Some(legal));
    let why = misuse("a state", try_start(s, config));
    assert!(matches!(why, Error::QueueStarted { .. }), "{why}");
    // It goes on where it stood.
    s.still_works();
    // States that no ring of this size is in, for a queue that is stopped.
    let stopped = s.device.stop_queue(s.q.index, soon()).expect("a stop");
    let size = s.setup.size;
    let pos = |index, wrap| Pos { index, wrap };
    let split = |avail, used| QueueState::Split {
        avail,
        used: Some(used),
    };
    let packed = |avail, used| QueueState::Packed { avail, used };
    let bad = match s.format {
        Format::Split => vec![
            split(size + 1, 0),
            split(0, 1),
            split(0x8000, 0),
            packed(at, at),
        ],
        Format::Packed => vec![
            packed(pos(size, true), at),
            packed(at, pos(u16::MAX, false)),
            packed(pos(2, true), at),
            packed(pos(4, false), at),
            split(0, 0),
        ],
    };
    for state in bad {
        let why = misuse("a state", try_start(s, s.q.config(Some(state))));
        assert!(matches!(why, Error::QueueStateIllegal { .. }), "{why}");
    }
    // Where it stood it goes on.
    s.q.doorbell = s
        .device
        .start_queue(
            s.q.index,
            s.q.config(Some(stopped)),
            Kick::Taken,
            Call::None,
        )
        .expect("its own state");
    s.still_works();
    Expect::Served
}

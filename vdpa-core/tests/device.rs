//! What `Device` lets through to a parent, and what it refuses in which words.
#![cfg(not(loom))]

mod tiny;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::Poll;
use std::time::{Duration, Instant};

use tiny::*;
use vdpa_core::*;
use vdpa_mem::{Access, Iova};
use vdpa_ring::{Pos, QueueState};

fn start(device: &Device, q: QueueIndex, c: QueueConfig) -> Result<Doorbell> {
    device.start_queue(q, c, Kick::Taken, Call::None)
}

/// The message of a refused start, and that the parent has not seen it.
fn refused(tiny: &Tiny, device: &Device, number: u16, c: QueueConfig) -> String {
    let before = tiny.log();
    let error = start(device, q(number), c).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misuse, "{error}");
    assert_eq!(tiny.log(), before, "the parent saw it");
    error.to_string()
}

#[test]
fn a_queue_is_checked_before_the_parent_sees_it() {
    let (tiny, device) = configured(Tiny::default(), SPLIT);
    let with = |change: &dyn Fn(&mut QueueConfig)| {
        let mut c = config();
        change(&mut c);
        c
    };
    let cases: [(u16, QueueConfig, &str); 12] = [
        (
            4,
            config(),
            "queue 4 does not exist: the device has 4 queues",
        ),
        (
            3,
            config(),
            "queue 3 does not exist with the features accepted",
        ),
        (
            0,
            with(&|c| c.size = 0),
            "queue 0: size 0 is out of range: 1 to 1024 is legal",
        ),
        (
            0,
            with(&|c| c.size = 2048),
            "queue 0: size 2048 is out of range: 1 to 1024 is legal",
        ),
        (
            0,
            with(&|c| c.size = 7),
            "queue 0: size 7 is no power of two, which a split ring needs",
        ),
        (
            1,
            with(&|c| c.descriptor = Iova::new(0x1_0008)),
            "queue 1: descriptor area at 0x10008 is not aligned to 16 bytes",
        ),
        (
            1,
            with(&|c| c.driver = Iova::new(0x1_2001)),
            "queue 1: driver area at 0x12001 is not aligned to 2 bytes",
        ),
        (
            1,
            with(&|c| c.device = Iova::new(0x1_3002)),
            "queue 1: device area at 0x13002 is not aligned to 4 bytes",
        ),
        (
            2,
            with(&|c| c.driver = Iova::new(0xf000)),
            "queue 2: driver area at 0xf000 is not mapped",
        ),
        (
            2,
            with(&|c| c.device = Iova::new(0x1_fff0)),
            "queue 2: device area at 0x20000 is not mapped",
        ),
        (
            2,
            with(&|c| c.driver = c.descriptor),
            "queue 2: descriptor area and driver area overlap at 0x10000",
        ),
        (
            2,
            with(&|c| c.descriptor = Iova::new(u64::MAX - 15)),
            "queue 2: descriptor area at 0xfffffffffffffff0 is not mapped",
        ),
    ];
    for (number, c, message) in cases {
        assert_eq!(refused(&tiny, &device, number, c), message);
    }
    start(&device, q(0), config()).unwrap();
    assert!(refused(&tiny, &device, 0, config()).contains("started already"));
    assert!(tiny.log().contains(&"start 0 size 256".to_owned()));
}

#[test]
fn areas_may_end_exactly_with_the_mapping_and_cross_into_the_next() {
    let (_tiny, device) = configured(Tiny::default(), SPLIT);
    // 6 bytes and 256 used elements of 8.
    let mut c = config();
    c.device = Iova::new(0x2_0000 - (6 + 256 * 8 + 2));
    start(&device, q(0), c).unwrap();
    map(&device, 0x2_0000, 0x1000, Access::Both);
    c.device = Iova::new(0x2_0000 - 16);
    start(&device, q(1), c).unwrap();
}

#[test]
fn memory_that_the_device_may_not_write_is_no_device_area() {
    let (tiny, device) = configured(Tiny::default(), RINGS);
    map(&device, 0x3_0000, 0x1000, Access::DeviceReads);
    let mut c = config();
    c.device = Iova::new(0x3_0000);
    assert!(refused(&tiny, &device, 0, c).contains("device area at 0x30000 is mapped, but not"));
    let mut c = config();
    c.driver = Iova::new(0x3_0000);
    c.size = 7;
    start(&device, q(0), c).unwrap();
    // A packed descriptor ring is written by the device.
    c.descriptor = Iova::new(0x3_0100);
    assert!(refused(&tiny, &device, 1, c).contains("descriptor area at 0x30100"));
}

#[test]
fn impossible_ring_states_are_refused() {
    let split = |avail, used| QueueState::Split { avail, used };
    let packed = |a, aw, u, uw| QueueState::Packed {
        avail: Pos { index: a, wrap: aw },
        used: Pos { index: u, wrap: uw },
    };
    let cases = [
        (SPLIT, split(300, Some(0)), false),
        (SPLIT, split(0, Some(1)), false),
        (SPLIT, packed(0, true, 0, true), false),
        (SPLIT, split(5, Some(65535)), true),
        (SPLIT, split(9, None), true),
        (RINGS, packed(256, true, 0, true), false),
        (RINGS, packed(3, true, 4, true), false),
        (RINGS, split(0, Some(0)), false),
        (RINGS, packed(3, false, 4, true), true),
    ];
    for (features, state, legal) in cases {
        let (_tiny, device) = configured(Tiny::default(), features);
        let mut c = config();
        c.state = Some(state);
        assert_eq!(start(&device, q(0), c).is_ok(), legal, "{state:?}");
    }
}

#[test]
fn queues_start_only_between_features_and_the_end() {
    let (_tiny, device) = open(Tiny::default());
    device.reset(soon()).unwrap();
    let early = start(&device, q(0), config()).unwrap_err();
    assert_eq!(
        early.to_string(),
        "start_queue is not legal while the device status is 0: negotiate features first"
    );
    let (tiny, device) = configured(Tiny::default(), SPLIT);
    let host = tiny.host.get().unwrap();
    host.events.raise(Event::NeedsReset {
        queue: None,
        why: "test".into(),
    });
    assert!(
        device
            .status()
            .unwrap()
            .contains(Status::DEVICE_NEEDS_RESET)
    );
    let lost = start(&device, q(0), config()).unwrap_err();
    assert!(
        lost.to_string().contains("reset the device first"),
        "{lost}"
    );
    device.reset(soon()).unwrap();
    assert_eq!(device.status().unwrap(), Status::empty());
}

#[test]
fn a_device_of_a_later_specification_is_opened_without_what_nobody_knows() {
    let later = Features::from_u128(1 << 45 | 1 << 120);
    let (tiny, device) = open(Tiny {
        offered: RINGS | later,
        ..Tiny::default()
    });
    assert_eq!(device.offered(), RINGS);
    assert!(device.accept(SPLIT | later).is_err());
    device.accept(SPLIT).unwrap();
    device.write_status(0x0b).unwrap();
    assert_eq!(tiny.kept.lock().unwrap().features, SPLIT);
}

#[test]
fn features_must_be_offered_legal_and_accepted_before_features_ok() {
    let (_tiny, device) = open(Tiny::default());
    device.reset(soon()).unwrap();
    let not_offered = device.accept(SPLIT.with(bits::IN_ORDER)).unwrap_err();
    assert!(not_offered.to_string().contains("IN_ORDER was not offered"));
    let no_version = device.accept(Features::NONE).unwrap_err();
    assert_eq!(no_version.kind(), ErrorKind::Misuse);
    assert!(
        device.write_status(0x08).is_err(),
        "nothing legal was accepted"
    );
    assert!(!device.status().unwrap().contains(Status::FEATURES_OK));
    device.accept(SPLIT).unwrap();
    device.write_status(0x08).unwrap();
    assert!(device.status().unwrap().contains(Status::FEATURES_OK));
    assert_eq!(device.negotiated(), SPLIT);
    assert!(matches!(device.accept(SPLIT), Err(Error::State { .. })));
}

#[test]
fn an_end_that_handles_the_control_queue_may_set_mq_alone() {
    let mq = bits::net::MQ;
    let tiny = Tiny {
        offered: RINGS.with(mq).with(bits::net::CTRL_VQ),
        ..Tiny::default()
    };
    let (tiny, device) = open(tiny);
    device.reset(soon()).unwrap();
    assert!(device.accept(SPLIT.with(mq)).is_err());
    device
        .accept_beside(SPLIT.with(mq), bits::net::CTRL_VQ.mask())
        .unwrap();
    assert_eq!(tiny.kept.lock().unwrap().features, SPLIT.with(mq));
}

#[test]
fn configuration_is_read_to_the_very_end_and_no_further() {
    let (_tiny, device) = open(Tiny::default());
    device.write_config(0, &[1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
    let mut to = [0; 8];
    device.read_config(0, &mut to).unwrap();
    assert_eq!(to, [1, 2, 3, 4, 5, 6, 7, 8]);
    device.read_config(7, &mut to[..1]).unwrap();
    assert_eq!(to[0], 8);
    device.read_config(8, &mut []).unwrap();
    for (at, len) in [(8, 1), (1, 8), (u32::MAX, 1), (u32::MAX, 8), (9, 0)] {
        let error = device.read_config(at, &mut to[..len]).unwrap_err();
        assert!(matches!(error, Error::ConfigBounds { .. }), "{at} {len}");
        assert!(device.write_config(at, &to[..len]).is_err());
    }
}

#[test]
fn a_torn_configuration_is_read_again_and_a_restless_one_given_up() {
    let (tiny, device) = open(Tiny::default());
    tiny.restless.store(3, Ordering::SeqCst);
    let mut to = [0; 8];
    device.read_config(0, &mut to).unwrap();
    assert_eq!(to, [3; 8]);
    tiny.restless.store(u32::MAX, Ordering::SeqCst);
    let error = device.read_config(0, &mut to).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PeerMisbehaved);
}

#[test]
fn stopping_waits_without_the_lock_and_goes_on_after_a_deadline() {
    let (tiny, device) = configured(Tiny::default(), SPLIT);
    start(&device, q(0), config()).unwrap();
    tiny.slow.store(1000, Ordering::SeqCst);
    let late = device.stop_queue(q(0), now()).unwrap_err();
    assert_eq!(late.to_string(), "the stop of a queue did not end in time");
    assert!(matches!(
        start(&device, q(0), config()),
        Err(Error::QueueBusy { .. })
    ));
    tiny.left.store(0, Ordering::SeqCst);
    assert_eq!(device.stop_queue(q(0), soon()).unwrap(), PAUSED);
    let begun = tiny.log().iter().filter(|l| *l == "pause 0").count();
    assert_eq!(begun, 1, "begun once, waited for twice");
    start(&device, q(0), config()).unwrap();
}

#[test]
fn a_reset_cuts_off_whoever_waits() {
    let (tiny, device) = configured(Tiny::default(), SPLIT);
    start(&device, q(0), config()).unwrap();
    tiny.slow.store(u32::MAX, Ordering::SeqCst);
    std::thread::scope(|s| {
        let waiting = s.spawn(|| device.stop_queue(q(0), soon()));
        while !tiny.log().contains(&"pause 0".to_owned()) {
            std::thread::yield_now();
        }
        tiny.slow.store(0, Ordering::SeqCst);
        device.reset(soon()).unwrap();
        let error = waiting.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    });
}

#[test]
fn writing_zero_never_waits_and_nothing_but_zero_is_legal_meanwhile() {
    let (tiny, device) = configured(Tiny::default(), SPLIT);
    tiny.slow.store(5, Ordering::SeqCst);
    device.write_status(0).unwrap();
    assert!(matches!(device.write_status(1), Err(Error::Busy { .. })));
    assert!(matches!(device.accept(SPLIT), Err(Error::Busy { .. })));
    device.write_status(0).unwrap();
    let mut looks = 0;
    while !device.status().unwrap().is_empty() {
        looks += 1;
        assert!(looks < 10);
    }
    assert!(looks > 0);
    assert_eq!(device.negotiated(), Features::NONE);
    device.write_status(1).unwrap();
}

#[test]
fn a_queue_is_reset_only_with_ring_reset() {
    let (_tiny, device) = configured(Tiny::default(), SPLIT.without(bits::RING_RESET));
    start(&device, q(0), config()).unwrap();
    let error = device.reset_queue(q(0), soon()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the reset of a queue needs the feature RING_RESET, which was not negotiated"
    );
    let (tiny, device) = configured(Tiny::default(), SPLIT);
    start(&device, q(0), config()).unwrap();
    tiny.slow.store(3, Ordering::SeqCst);
    device.begin_reset_queue(q(0)).unwrap();
    device.begin_reset_queue(q(0)).unwrap();
    assert_eq!(device.poll_reset_queue(q(0)).unwrap(), Poll::Pending);
    device.reset_queue(q(0), soon()).unwrap();
    assert!(device.reset_queue(q(0), soon()).is_err(), "it does not run");
    start(&device, q(0), config()).unwrap();
}

#[test]
fn a_device_without_capabilities_says_so() {
    let tiny = Tiny {
        capable: false,
        ..Tiny::default()
    };
    let (_tiny, device) = configured(tiny, SPLIT);
    assert_eq!(device.cap_names(), ["dma-software"]);
    start(&device, q(0), config()).unwrap();
    device.write_status(0x0f).unwrap();
    let mut off = config();
    off.enabled = false;
    let errors = [
        device.stop_queue(q(0), soon()).unwrap_err(),
        device.reset_queue(q(0), soon()).unwrap_err(),
        device.enable_queue(q(0), false).unwrap_err(),
        device.suspend(soon()).unwrap_err(),
        device.save_class_state().unwrap_err(),
        device.stats(&mut |_, _| {}).unwrap_err(),
        start(&device, q(1), off).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    }
    assert!(device.write_status(0x1f).is_err(), "no suspend bit either");
}

#[test]
fn suspend_keeps_state_and_is_done_twice_without_harm() {
    let (tiny, device) = configured(Tiny::default(), SPLIT);
    start(&device, q(0), config()).unwrap();
    assert!(device.suspend(soon()).is_err(), "it does not run yet");
    device.restore_class_state(&[1, 2, 3]).unwrap();
    assert!(device.restore_class_state(&[9]).is_err());
    device.write_status(0x0f).unwrap();
    assert!(device.restore_class_state(&[1, 2, 3]).is_err(), "too late");
    assert!(device.queue_state(q(0)).is_err());
    assert!(device.resume().is_err());
    tiny.slow.store(3, Ordering::SeqCst);
    device.suspend(soon()).unwrap();
    device.suspend(soon()).unwrap();
    assert_eq!(device.queue_state(q(0)).unwrap(), PAUSED);
    assert!(device.queue_state(q(1)).is_err(), "it does not run");
    assert_eq!(device.save_class_state().unwrap(), [1, 2, 3]);
    assert!(start(&device, q(1), config()).is_err());
    device.resume().unwrap();
    assert_eq!(tiny.log().iter().filter(|l| *l == "suspend").count(), 1);
}

#[test]
fn a_suspended_device_keeps_its_configuration() {
    let (tiny, device) = configured(Tiny::default(), SPLIT);
    device.write_status(0x0f).unwrap();
    device.write_config(0, &[1]).unwrap();
    device.suspend(soon()).unwrap();
    let refused = device.write_config(0, &[2]).unwrap_err();
    assert!(matches!(refused, Error::State { .. }), "{refused}");
    assert_eq!(tiny.kept.lock().unwrap().config[0], 1);
    device.resume().unwrap();
    device.write_config(0, &[3]).unwrap();
    assert_eq!(tiny.kept.lock().unwrap().config[0], 3);
}

#[test]
fn the_suspend_bit_shows_once_the_device_is_stopped() {
    let (tiny, device) = configured(Tiny::default(), SPLIT);
    device.write_status(0x0f).unwrap();
    tiny.slow.store(4, Ordering::SeqCst);
    device.write_status(0x1f).unwrap();
    assert!(!device.status().unwrap().contains(Status::SUSPEND));
    tiny.left.store(0, Ordering::SeqCst);
    assert!(device.status().unwrap().contains(Status::SUSPEND));
    device.write_status(0x0f).unwrap();
    assert!(!device.status().unwrap().contains(Status::SUSPEND));
    assert!(tiny.log().contains(&"resume".to_owned()));
}

#[test]
fn a_control_call_from_inside_a_call_closure_is_misuse() {
    let (tiny, device) = configured(Tiny::default(), SPLIT);
    let device = Arc::new(device);
    let seen: Arc<Mutex<Vec<ErrorKind>>> = Arc::default();
    let inside: Weak<Device> = Arc::downgrade(&device);
    let call = Call::from_fn({
        let seen = seen.clone();
        move || {
            let Some(device) = inside.upgrade() else {
                return;
            };
            let errors = [
                device.status().unwrap_err(),
                device.write_status(0).unwrap_err(),
                device.reset(now()).unwrap_err(),
                device.replace_call(q(0), Call::None).unwrap_err(),
            ];
            seen.lock().unwrap().extend(errors.map(|e| e.kind()));
        }
    });
    device
        .start_queue(q(0), config(), Kick::Taken, call)
        .unwrap();
    tiny.raise(0);
    assert_eq!(*seen.lock().unwrap(), [ErrorKind::Misuse; 4]);
    device.status().unwrap();
}

#[test]
fn calls_and_kicks_that_a_parent_does_not_take_are_relayed() {
    relayed(KickKind::Taken);
    relayed(KickKind::Called);
}

fn relayed(kicks: KickKind) {
    let mut tiny = Tiny::default();
    tiny.info.calls = CallKind::EventFd;
    tiny.info.kicks = kicks;
    let (tiny, device) = configured(tiny, SPLIT);
    let count = Arc::new(AtomicU32::new(0));
    let counting = {
        let count = count.clone();
        Call::from_fn(move || {
            count.fetch_add(1, Ordering::SeqCst);
        })
    };
    let flags = nix::sys::eventfd::EfdFlags::empty();
    let kick = nix::sys::eventfd::EventFd::from_value_and_flags(0, flags).unwrap();
    let kick = Arc::new(std::os::fd::OwnedFd::from(kick));
    device
        .start_queue(q(0), config(), Kick::Given(kick.clone()), counting)
        .unwrap();
    nix::unistd::write(&kick, &1u64.to_ne_bytes()).unwrap();
    tiny.raise(0);
    let start = Instant::now();
    while count.load(Ordering::SeqCst) == 0 {
        assert!(start.elapsed() < Duration::from_secs(10));
        std::thread::yield_now();
    }
    device.reset(soon()).unwrap();
    assert_eq!(Arc::strong_count(&kick), 1, "the relay let go of it");
    assert_eq!(Arc::strong_count(&count), 1, "and of the closure");
}

#[test]
fn a_device_that_is_gone_answers_gone_and_can_be_closed() {
    let (tiny, device) = configured(Tiny::default(), SPLIT);
    let events = device.events().unwrap();
    assert!(matches!(device.events(), Err(Error::Taken { .. })));
    tiny.host.get().unwrap().events.raise(Event::Gone);
    assert_eq!(events.try_next(), Some(Event::Gone));
    let dma = device.dma(Asid::new(0)).unwrap();
    let errors = [
        device.status().unwrap_err(),
        device.write_status(0).unwrap_err(),
        device.read_config(0, &mut [0]).unwrap_err(),
        start(&device, q(0), config()).unwrap_err(),
        device.stats(&mut |_, _| {}).unwrap_err(),
        dma.map(vec![]).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Gone);
    }
    device.close(now()).map_err(|(_, e)| e).unwrap();
}

#[test]
fn address_spaces_are_counted() {
    let (_tiny, device) = open(Tiny::default());
    let error = device.dma(Asid::new(1)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "address space 1 does not exist: the device has 1"
    );
}

#[test]
fn dropping_a_device_begins_a_reset() {
    let (tiny, device) = configured(Tiny::default(), SPLIT);
    drop(device);
    assert_eq!(tiny.log().last().map(String::as_str), Some("reset"));
}

#[test]
fn an_eventfd_kick_is_refused_where_kicks_carry_data() {
    let tiny = Tiny {
        offered: RINGS.with(bits::NOTIFICATION_DATA),
        ..Tiny::default()
    };
    let (_tiny, device) = configured(tiny, SPLIT.with(bits::NOTIFICATION_DATA));
    let flags = nix::sys::eventfd::EfdFlags::empty();
    let kick = nix::sys::eventfd::EventFd::from_value_and_flags(0, flags).unwrap();
    let kick = Kick::Given(Arc::new(kick.into()));
    let error = device
        .start_queue(q(0), config(), kick, Call::None)
        .unwrap_err();
    assert!(matches!(error, Error::KickWithoutData { .. }));
    start(&device, q(0), config()).unwrap();
}

#[test]
fn many_guests_hammer_one_device_and_nothing_breaks() {
    let (tiny, device) = configured(Tiny::default(), SPLIT);
    std::thread::scope(|s| {
        for seed in 0..4u32 {
            let device = &device;
            s.spawn(move || {
                let mut x = seed.wrapping_mul(0x9e37_79b9) | 1;
                for _ in 0..2000 {
                    x ^= x << 13;
                    x ^= x >> 17;
                    x ^= x << 5;
                    let n = q((x >> 8) as u16 % 5);
                    // Every answer is legal here; the parent's assertions are what can fail.
                    let _ = match x % 8 {
                        0 | 1 => device.write_status((x >> 16) as u8),
                        2 => device.accept(SPLIT),
                        3 => start(device, n, config()).map(drop),
                        4 => device.stop_queue(n, now()).map(drop),
                        5 => device.reset_queue(n, now()),
                        6 => device.replace_call(n, Call::None),
                        _ => device.suspend(now()),
                    };
                }
            });
        }
    });
    tiny.slow.store(0, Ordering::SeqCst);
    device.reset(soon()).unwrap();
    assert_eq!(device.status().unwrap(), Status::empty());
}

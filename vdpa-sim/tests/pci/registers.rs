//! The common configuration: widths, halves, features, queues, resets.

use vdpa_core::{Attr, bits};
use vdpa_core::{LinkState, MgmtDevice};
use vdpa_pci::{PciAccess, Width};
use vdpa_sim::pci::Layout;

use crate::bench::*;

const ALL_ONES: [(Width, u32); 3] = [
    (Width::U8, 0xff),
    (Width::U16, 0xffff),
    (Width::U32, 0xffff_ffff),
];

/// Statement 36.
#[test]
fn a_field_answers_only_to_its_own_width() {
    let bench = Bench::open("sim:rng", "qemu");
    for (at, natural) in [
        (DEVICE_SELECT, Width::U32),
        (CONFIG_VECTOR, Width::U16),
        (STATUS, Width::U8),
        (SIZE, Width::U16),
        (DESCRIPTOR, Width::U32),
    ] {
        let before = bench.read(COMMON, at, natural);
        for (width, ones) in ALL_ONES {
            if width != natural && at.is_multiple_of(width.bytes().into()) {
                assert!(bench.is_ignored(|b| assert_eq!(b.read(COMMON, at, width), ones)));
                assert!(bench.is_ignored(|b| b.write(COMMON, at, width, 1)));
            }
        }
        assert_eq!(bench.read(COMMON, at, natural), before, "at {at:#x}");
    }
}

/// Statement 37.
#[test]
fn halves_of_an_address_are_written_apart() {
    let bench = Bench::open("sim:rng", "qemu");
    for field in [0x20, 0x28, 0x30] {
        bench.w32(field + 4, 0x1234_5678);
        assert_eq!((bench.r32(field), bench.r32(field + 4)), (0, 0x1234_5678));
        bench.w32(field, 0x9abc_def0);
        assert_eq!(bench.r32(field + 4), 0x1234_5678);
        assert_eq!(bench.r32(field), 0x9abc_def0);
    }
}

/// Statements 38, 39, 41 and 49.
#[test]
fn sizes_are_the_drivers_and_never_illegal() {
    let bench = Bench::open("sim:net,queue_pairs=2,queue_size=1000", "qemu");
    assert_eq!(bench.r16(NUM_QUEUES), 5);
    // Without MQ there is one pair, and without CTRL_VQ no control queue: with split rings.
    bench.negotiate(bits::VERSION_1 | bits::ACCESS_PLATFORM);
    let sizes: Vec<_> = (0..7)
        .map(|q| {
            bench.w16(SELECT, q);
            bench.r16(SIZE)
        })
        .collect();
    assert_eq!(sizes, [512, 512, 0, 0, 0, 0, 0], "a power of two");
    bench.w16(SELECT, 1);
    bench.w16(SIZE, 128);
    assert_eq!(bench.r16(SIZE), 128);
    for illegal in [0, 100, 1024, 0xffff] {
        assert!(bench.is_ignored(|b| b.w16(SIZE, illegal)));
        assert_eq!(bench.r16(SIZE), 128, "not {illegal}");
    }
    bench.w16(SELECT, 0);
    assert_eq!(bench.r16(SIZE), 512, "each queue has its own");

    bench.reset();
    bench.negotiate(bits::VERSION_1 | bits::ACCESS_PLATFORM | bits::RING_PACKED);
    bench.w16(SELECT, 0);
    assert_eq!(bench.r16(SIZE), 1000);
    bench.w16(SIZE, 100);
    assert_eq!(bench.r16(SIZE), 100, "packed: any size");
    assert!(bench.is_ignored(|b| b.w16(SIZE, 0)));
}

/// Statements 45 and 46.
#[test]
fn features_are_shown_by_window_and_read_back_as_far_as_they_are_valid() {
    let bench = Bench::open("sim:net", "qemu");
    let offered = bench.offered();
    assert!(offered.contains(bits::VERSION_1) && offered.contains(bits::RING_PACKED));
    bench.w32(DEVICE_SELECT, 4);
    assert_eq!(bench.r32(DEVICE_FEATURE), 0, "above 128 bits");
    for select in [0, 1, 2, 3, 4, u32::MAX] {
        bench.w32(DRIVER_SELECT, select);
        bench.w32(DRIVER_FEATURE, u32::MAX);
        assert_eq!(bench.r32(DRIVER_FEATURE), offered.word(select));
    }
    bench.w8(STATUS, 0x0b);
    assert_eq!(bench.r8(STATUS), 3, "features that were not offered");
    bench.choose(bits::VERSION_1 | bits::ACCESS_PLATFORM);
    bench.w8(STATUS, 0x0b);
    assert_eq!(bench.r8(STATUS), 0x0b);
    assert!(bench.is_ignored(|b| b.w32(DRIVER_FEATURE, 0)), "too late");
}

/// Statement 44.
#[test]
fn what_is_read_only_stays_as_it_is() {
    let bench = Bench::open("sim:net", "qemu");
    for (at, width) in [
        (DEVICE_FEATURE, Width::U32),
        (NUM_QUEUES, Width::U16),
        (GENERATION, Width::U8),
        (NOTIFY_OFF, Width::U16),
        (NOTIFY_DATA, Width::U16),
        (0x3c, Width::U16),
        (0x3e, Width::U16),
    ] {
        let before = bench.read(COMMON, at, width);
        assert!(bench.is_ignored(|b| b.write(COMMON, at, width, !before)));
        assert_eq!(bench.read(COMMON, at, width), before);
    }
    assert_eq!((bench.r16(0x3c), bench.r16(0x3e)), (0, 0), "no such queue");
}

/// Statements 42 and 43.
#[test]
fn a_queue_is_enabled_once_and_then_keeps_what_it_was_enabled_with() {
    let bench = Bench::open("sim:rng", "qemu");
    bench.map();
    bench.w16(SELECT, 0);
    assert!(bench.is_ignored(|b| b.w16(ENABLE, 1)), "before FEATURES_OK");
    bench.negotiate(bits::VERSION_1 | bits::ACCESS_PLATFORM);
    for value in [0, 2, 0xffff] {
        assert!(bench.is_ignored(|b| b.w16(ENABLE, value)));
        assert_eq!(bench.r16(ENABLE), 0);
    }
    bench.enable(0, 16);
    assert!(bench.is_ignored(|b| b.w16(ENABLE, 0)));
    assert!(bench.is_ignored(|b| b.w16(ENABLE, 1)), "again");
    assert!(bench.is_ignored(|b| b.w16(SIZE, 8)));
    assert!(bench.is_ignored(|b| b.w32(DESCRIPTOR, 0)));
    assert_eq!((bench.r16(ENABLE), bench.r16(SIZE)), (1, 16));
    assert_eq!(bench.r32(DESCRIPTOR), BASE as u32);
    bench.w16(SELECT, 9);
    assert_eq!((bench.r16(ENABLE), bench.r16(SIZE)), (0, 0));
    assert!(bench.is_ignored(|b| b.w16(ENABLE, 1)), "no such queue");
}

/// Statements 52 to 55.
#[test]
fn a_queue_that_is_reset_is_as_new_and_can_be_enabled_with_something_else() {
    let bench = Bench::running("qemu");
    bench.w16(VECTOR, 1);
    bench.offer(0, 1);
    let (bar, at) = bench.bell();
    bench.f.write(bar, at, Width::U16, 0).unwrap();
    until("a buffer that is used", || bench.used(0) == 1);

    assert!(bench.is_ignored(|b| b.w16(RESET, 0)));
    bench.w16(RESET, 1);
    until("the end of the reset", || bench.r16(RESET) == 0);
    assert_eq!(bench.r16(ENABLE), 0);
    assert_eq!(bench.r16(SIZE), 256, "the largest again");
    assert_eq!(bench.r16(VECTOR), NO_VECTOR);
    assert_eq!(bench.r32(DESCRIPTOR), 0);
    assert!(bench.is_ignored(|b| b.w16(RESET, 1)), "it is not enabled");

    // Another size at another place.
    bench.w16(SIZE, 8);
    bench.areas(5);
    bench.w16(ENABLE, 1);
    assert_eq!((bench.r16(ENABLE), bench.r16(RESET)), (1, 0));
    bench.offer(5, 1);
    bench.f.write(bar, at, Width::U16, 0).unwrap();
    until("a buffer that is used", || bench.used(5) == 1);
    assert_eq!(bench.used(0), 1, "the old place is left alone");
}

/// Statement 54, and that every register is at its default.
#[test]
fn a_reset_of_the_device_takes_everything_back() {
    let bench = Bench::running("qemu");
    bench.w16(VECTOR, 1);
    bench.w16(CONFIG_VECTOR, 1);
    bench.w16(RESET, 1);
    bench.reset();
    for (at, width, is) in [
        (DEVICE_SELECT, Width::U32, 0),
        (DRIVER_SELECT, Width::U32, 0),
        (DRIVER_FEATURE, Width::U32, 0),
        (CONFIG_VECTOR, Width::U16, NO_VECTOR),
        (SELECT, Width::U16, 0),
        (SIZE, Width::U16, 256),
        (VECTOR, Width::U16, NO_VECTOR),
        (ENABLE, Width::U16, 0),
        (DESCRIPTOR, Width::U32, 0),
        (RESET, Width::U16, 0),
    ] {
        assert_eq!(bench.read(COMMON, at, width), is, "{at:#x}");
    }
}

#[test]
fn a_queue_is_not_reset_unless_that_was_negotiated() {
    let bench = Bench::open("sim:rng", "qemu");
    bench.map();
    bench.negotiate(bits::VERSION_1 | bits::ACCESS_PLATFORM);
    bench.enable(0, 16);
    bench.w8(STATUS, 0x0f);
    assert!(bench.is_ignored(|b| b.w16(RESET, 1)));
    assert_eq!((bench.r16(RESET), bench.r16(ENABLE)), (0, 1));
}

#[test]
fn the_generation_changes_with_the_configuration() {
    let bench = Bench::open("sim:net", "qemu");
    let before = bench.r8(GENERATION);
    assert_eq!(bench.read(DEVICE, 6, Width::U16), 1, "the link is up");
    bench
        .sim
        .dev_set("sim0", Attr::Link(LinkState::Down))
        .unwrap();
    assert_eq!(bench.read(DEVICE, 6, Width::U16), 0);
    assert_eq!(bench.read(DEVICE, 6, Width::U8), 0, "in any width");
    assert_ne!(bench.r8(GENERATION), before);
}

#[test]
fn any_write_anywhere_leaves_a_function_that_can_be_used() {
    let values = [0, 1, 0xf, 0x7f, 0xff, 0x8000_0000, u32::MAX, 0x1000];
    for (layout, _) in Layout::ALL {
        let bench = Bench::open("sim:net,queue_pairs=2", layout.name);
        for bar in 0..8 {
            let len = bench.f.bar_len(bar);
            for at in (0..len)
                .step_by(if len > 0x400 { 13 } else { 1 })
                .take(2000)
                .chain(len.saturating_sub(8)..len + 8)
            {
                for ((width, _), value) in ALL_ONES.into_iter().zip(values) {
                    let at = at - at % u64::from(width.bytes());
                    let _read = bench.f.read(bar, at, width);
                    let _written = bench.f.write(bar, at, width, value ^ at as u32);
                }
            }
        }
        for at in (0..0x140)
            .chain(4090..4100)
            .filter(|at| !(4..6).contains(at))
        {
            for (width, _) in ALL_ONES {
                for value in values {
                    let _read = bench.f.read_config(at, width);
                    let _written = bench.f.write_config(at, width, value);
                }
            }
        }
        bench.f.reset().unwrap();
        bench.f.write_config(4, Width::U16, 6).unwrap();
        if bench.cap(COMMON).is_some() && bench.f.bar_len(4) != 0 {
            until("the reset", || bench.r8(STATUS) == 0);
            bench.negotiate(bits::VERSION_1 | bits::ACCESS_PLATFORM);
        }
    }
}

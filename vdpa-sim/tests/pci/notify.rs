//! Doorbells: where they are, and what is written there.

use vdpa_core::bits;
use vdpa_pci::{PciAccess, Width};
use vdpa_sim::pci::{Layout, Setup};

use crate::bench::*;

/// Statements 113 to 116.
#[test]
fn every_doorbell_has_room_in_the_structure() {
    for (layout, _) in Layout::ALL {
        let bench = Bench::open("sim:net,queue_pairs=3", layout.name);
        let Some(notify) = bench.cap(NOTIFY) else {
            continue;
        };
        assert!(notify.offset.is_multiple_of(4));
        let multiplier = bench.multiplier;
        assert!(multiplier == 0 || multiplier.is_power_of_two() && multiplier >= 2);
        // The window's BARs cannot be read directly, and are laid out as QEMU's.
        let wide = layout.reachable && bench.offered().contains(bits::NOTIFICATION_DATA);
        assert!(!wide || multiplier.is_multiple_of(4), "{}", layout.name);
        let bell = if wide { 4 } else { 2 };
        let mut seen = std::collections::HashSet::new();
        for q in 0..if layout.reachable { 7 } else { 0 } {
            bench.w16(SELECT, q);
            let off = bench.r16(NOTIFY_OFF) * multiplier;
            assert!(notify.len >= off + bell, "{} queue {q}", layout.name);
            assert!(seen.insert(off) || multiplier == 0);
        }
    }
}

#[test]
fn a_kick_reaches_its_queue_in_every_layout() {
    for (layout, _) in Layout::ALL {
        if !layout.reachable || layout.name == "legacy" {
            continue;
        }
        let bench = Bench::running(layout.name);
        let (bar, at) = bench.bell();
        let doorbell = bench.f.doorbell(bar, at, Width::U16, 0).unwrap();
        bench.offer(0, 1);
        doorbell.ring(0);
        until(layout.name, || bench.used(0) == 1);
        bench.offer(0, 2);
        bench.f.write(bar, at, Width::U16, 0).unwrap();
        until(layout.name, || bench.used(0) == 2);
        assert_eq!(bench.f.fault_count(), 0);
    }
}

#[test]
fn each_queue_has_the_doorbell_that_its_offset_says() {
    for (layout, _) in Layout::ALL {
        if !layout.reachable || layout.name == "legacy" {
            continue;
        }
        let bench = Bench::open("sim:net", layout.name);
        bench.map();
        bench.negotiate(bits::VERSION_1 | bits::ACCESS_PLATFORM);
        for q in 0..2 {
            bench.enable(q, 16);
            let (bar, at) = bench.bell();
            let kick = |name: u16| {
                let doorbell = bench.f.doorbell(bar, at, Width::U16, name).unwrap();
                bench.is_ignored(|_| doorbell.ring(q.into()))
            };
            assert!(!kick(q), "{} queue {q}", layout.name);
            assert!(kick(7), "{} queue {q}: no such queue", layout.name);
        }
    }
}

/// Statement 129.
#[test]
fn a_kick_has_16_bits_and_32_with_notification_data() {
    let bench = Bench::running("qemu");
    let (bar, at) = bench.bell();
    assert!(bench.is_ignored(|b| b.f.write(bar, at, Width::U32, 0).unwrap()));
    assert!(bench.is_ignored(|b| b.f.write(bar, at, Width::U16, 1).unwrap()));
    assert!(!bench.is_ignored(|b| b.f.write(bar, at, Width::U16, 0).unwrap()));

    bench.reset();
    bench.negotiate(bits::VERSION_1 | bits::ACCESS_PLATFORM | bits::NOTIFICATION_DATA);
    bench.enable(0, 16);
    assert!(bench.is_ignored(|b| b.f.write(bar, at, Width::U16, 0).unwrap()));
    let next = 0x0001_0000;
    assert!(!bench.is_ignored(|b| b.f.write(bar, at, Width::U32, next).unwrap()));
}

/// Statement 130.
#[test]
fn a_kick_names_the_queue_as_the_function_asked() {
    for layout in ["qemu", "multiplier-0"] {
        let setup = Setup {
            config_data: true,
            ..Setup::new(Layout::named(layout).unwrap())
        };
        let bench = Bench::with("sim:rng", setup);
        bench.map();
        assert!(bench.offered().contains(bits::NOTIF_CONFIG_DATA));
        bench.negotiate(bits::VERSION_1 | bits::ACCESS_PLATFORM | bits::NOTIF_CONFIG_DATA);
        bench.enable(0, 16);
        let (bar, at) = bench.bell();
        let data = bench.r16(NOTIFY_DATA);
        assert_ne!(data, 0);
        bench.w16(SELECT, 1);
        assert_eq!(bench.r16(NOTIFY_DATA), 0, "of a queue that there is not");
        bench.w16(SELECT, 0);
        assert!(bench.is_ignored(|b| b.f.write(bar, at, Width::U16, 0).unwrap()));
        assert!(!bench.is_ignored(|b| b.f.write(bar, at, Width::U16, data).unwrap()));

        bench.reset();
        bench.negotiate(bits::VERSION_1 | bits::ACCESS_PLATFORM);
        bench.enable(0, 16);
        assert!(bench.is_ignored(|b| b.f.write(bar, at, Width::U16, data).unwrap()));
        assert!(!bench.is_ignored(|b| b.f.write(bar, at, Width::U16, 0).unwrap()));
    }
}

#[test]
fn a_doorbell_that_outlives_its_queue_does_nothing() {
    let bench = Bench::running("qemu");
    let (bar, at) = bench.bell();
    let doorbell = bench.f.doorbell(bar, at, Width::U16, 0).unwrap();
    doorbell.ring(0);
    assert!(!bench.is_ignored(|_| doorbell.ring(0)));
    // Decoding off, and on again.
    bench.f.write_config(4, Width::U16, 4).unwrap();
    assert!(bench.is_ignored(|_| doorbell.ring(0)));
    bench.f.write_config(4, Width::U16, 6).unwrap();
    assert!(!bench.is_ignored(|_| doorbell.ring(0)));
    // A queue that was reset, and enabled again.
    bench.w16(RESET, 1);
    assert!(bench.is_ignored(|_| doorbell.ring(0)));
    until("the end of the reset", || bench.r16(RESET) == 0);
    bench.window.bytes().zero(0, 0x3000);
    bench.enable(0, 16);
    bench.offer(0, 1);
    doorbell.ring(0);
    until("a buffer that is used", || bench.used(0) == 1);
    // Revoked: for good.
    bench.f.revoke_doorbells();
    bench.f.write_config(4, Width::U16, 4).unwrap();
    assert!(!bench.is_ignored(|_| doorbell.ring(0)), "it writes nothing");
    bench.f.write_config(4, Width::U16, 6).unwrap();
    let again = bench.f.doorbell(bar, at, Width::U16, 0).unwrap();
    bench.offer(0, 2);
    again.ring(0);
    until("a buffer that is used", || bench.used(0) == 2);
    drop(bench);
    again.ring(0);
}

#[test]
fn what_is_no_register_is_no_doorbell() {
    let bench = Bench::open("sim:rng", "qemu");
    for (bar, at, width) in [
        (9, 0, Width::U16),
        (4, 0x3001, Width::U16),
        (4, u64::MAX, Width::U32),
        (4, 0x3000, Width::U8),
    ] {
        assert!(bench.f.doorbell(bar, at, width, 0).is_err());
    }
}

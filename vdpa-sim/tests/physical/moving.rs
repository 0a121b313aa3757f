//! Cards that move to another function.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use vdpa_core::bits;
use vdpa_core::*;
use vdpa_mem::{Access, Mapping};
use vdpa_pci::{Layout as Found, PciAccess, Width};
use vdpa_sim::pf::part::PartType;

use crate::bench::*;
use crate::rig::*;

/// What kicks the queues of a function that nobody here has opened.
fn doorbell(function: &dyn PciAccess, q: u16, wide: bool) -> Doorbell {
    let found = Found::read(function).unwrap();
    let at = found.notify.offset + u64::from(q) * u64::from(found.notify_multiplier);
    let width = if wide { Width::U32 } else { Width::U16 };
    function.doorbell(found.notify.bar, at, width, q).unwrap()
}

/// Switches all vectors on, and counts their calls.
fn vectors(function: &dyn PciAccess) -> Vec<Arc<AtomicU32>> {
    let count = function.interrupts().msix;
    function.enable_vectors(count).unwrap();
    let vector = |vector| {
        let called = Arc::new(AtomicU32::new(0));
        let counted = called.clone();
        let call = Call::from_fn(move || {
            counted.fetch_add(1, Ordering::SeqCst);
        });
        function.set_vector(vector, call).unwrap();
        called
    };
    (0..count).map(vector).collect()
}

#[test]
fn a_card_that_moves_to_another_function_under_traffic_loses_nothing() {
    for (packed, merge) in [(false, false), (true, false), (false, true), (true, true)] {
        let pf = pf();
        enable(&pf, TOTAL);
        let mut owner = Owner::new(&pf);
        for member in 1..=TOTAL {
            owner.objects(member);
        }
        let rig = drive(&pf.vf(1).unwrap());
        let features = with(&rig, packed, merge, true, false).with(bits::NOTIFICATION_DATA);
        let mut card = Card::new(rig, features, 64, if merge { 400 } else { 2048 });
        let frames = frames(1200, 1514);
        let mut sent = 0;
        for to in 2..=TOTAL {
            for _ in 0..3 {
                sent += card.tx.send(&frames[sent..]);
                card.rx.poll();
            }
            sent += card.tx.send(&frames[sent..]);
            let from = to - 1;
            owner.stop(from);
            let parts = owner.parts(from);
            assert_eq!(owner.parts(from), parts, "as often as one likes");
            owner.stop(to);
            assert_eq!(owner.set(to, &parts), (0, 0));
            assert_eq!(owner.set(to, &parts), (0, 0));
            assert_eq!(owner.parts(to), parts, "before it goes on");
            let target = pf.vf(to).unwrap();
            power(&*target);
            let mapping = Mapping {
                iova: Rig::range(),
                memory: card.rig.memory.clone(),
                offset: 0,
                access: Access::Both,
                dirty: None,
            };
            target.dma_map(&mapping).unwrap();
            let called = vectors(&*target);
            owner.resume(to);
            // What the one before it had for its driver, and had not said, is not lost.
            for q in 0..2 {
                let vector = part(&parts, PartType::QueueConfig, q)[2];
                let called = called[usize::from(vector)].load(Ordering::SeqCst);
                assert!(called > 0, "queue {q}, vector {vector}");
            }
            card.rx.q.doorbell = doorbell(&*target, 0, true);
            card.tx.q.doorbell = doorbell(&*target, 1, true);
        }
        card.send_all(&frames[sent..]);
        card.rx.wait(frames.len());
        assert!(card.rx.got == frames, "as they were sent");
    }
}

#[test]
fn a_card_that_its_driver_suspended_moves_suspended() {
    let pf = pf();
    enable(&pf, 2);
    let mut owner = Owner::new(&pf);
    owner.objects(1);
    owner.objects(2);
    let access = pf.vf(1).unwrap();
    power(&*access);
    let common = Found::read(&*access).unwrap().common;
    let (bar, status) = (common.bar, common.offset + 0x14);
    let write = |at, width, value| access.write(bar, common.offset + at, width, value).unwrap();
    write(0x14, Width::U8, 0x03);
    for word in 0..4 {
        let features = Features::of(&[bits::VERSION_1, bits::ACCESS_PLATFORM, bits::SUSPEND]);
        write(0x08, Width::U32, word);
        write(0x0c, Width::U32, features.word(word));
    }
    // Beside ACKNOWLEDGE and DRIVER: FEATURES_OK, DRIVER_OK, SUSPEND in its place.
    for byte in [0x0b, 0x0f, 0x1b] {
        write(0x14, Width::U8, byte);
    }
    let suspended = || access.read(bar, status, Width::U8).unwrap() == 0x1b;
    until("the suspend", suspended);
    owner.stop(1);
    let parts = owner.parts(1);
    assert_eq!(part(&parts, PartType::DeviceStatus, 0), [0x1b]);
    owner.stop(2);
    let target = pf.vf(2).unwrap();
    power(&*target);
    assert_eq!(owner.set(2, &parts), (0, 0));
    owner.resume(2);
    assert_eq!(target.read(bar, status, Width::U8).unwrap(), 0x1b);
    target.write(bar, status, Width::U8, 0x0f).unwrap();
    assert_eq!(target.read(bar, status, Width::U8).unwrap(), 0x0f);
}

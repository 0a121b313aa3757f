//! The entropy device, virtio 1.4 §5.4.

mod rig;

use rig::*;
use vdpa_core::bits;
use vdpa_core::{DeviceType, Event, Features, QueueIndex, Status};

fn features(rig: &Rig, packed: bool, in_order: bool) -> Features {
    let mut features = rig.device.offered() - (bits::RING_PACKED | bits::IN_ORDER);
    for (bit, on) in [(bits::RING_PACKED, packed), (bits::IN_ORDER, in_order)] {
        if on {
            features = features.with(bit);
        }
    }
    features
}

fn source(packed: bool) -> (Rig, Q) {
    let rig = Lab::new().open("sim:rng,queue_size=64");
    rig.negotiate(features(&rig, packed, packed));
    let q = rig.queue(0, 64);
    rig.run();
    (rig, q)
}

/// Statement 203.
#[test]
fn every_buffer_gets_at_least_a_byte_and_none_is_like_another() {
    for packed in [false, true] {
        let (rig, mut q) = source(packed);
        assert_eq!(rig.device.info().device_type, DeviceType::Entropy);
        let at = rig.alloc(64 * 1024);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..8 {
            for i in 0..16 {
                rig.bytes().zero((at + i * 1024) as usize, 1024);
                // Whole, and in three pieces.
                let pieces = match i % 2 {
                    0 => vec![(at + i * 1024, 600)],
                    _ => vec![
                        (at + i * 1024, 1),
                        (at + i * 1024 + 1, 99),
                        (at + i * 1024 + 100, 500),
                    ],
                };
                q.add(&[], &pieces).unwrap();
            }
            q.publish();
            for done in q.wait_used(16) {
                assert_eq!(done.len, 600);
            }
            for i in 0..16 {
                let mut bytes = vec![0; 604];
                rig.bytes().read((at + i * 1024) as usize, &mut bytes);
                assert_eq!(bytes[600..], [0; 4], "nothing behind the buffer");
                let zeroes = bytes[..600].iter().filter(|byte| **byte == 0).count();
                assert!(zeroes < 30, "{zeroes} zeroes of 600");
                assert!(seen.insert(bytes));
            }
        }
        assert_eq!(rig.stat("queue0.bytes"), 8 * 16 * 600);
        assert_eq!(rig.stat("queue0.requests"), 8 * 16);
    }
}

#[test]
fn a_huge_buffer_is_filled_in_part_and_its_sibling_has_its_turn() {
    for packed in [false, true] {
        let (rig, mut q) = source(packed);
        let at = rig.alloc(8 << 20);
        let small = rig.alloc(64);
        q.add(&[], &[(at, 8 << 20)]).unwrap();
        q.add(&[], &[(small, 1)]).unwrap();
        q.publish();
        let done = q.wait_used(2);
        assert_eq!(done[0].len as usize, vdpa_sim::rng::PASS_BYTES);
        assert_eq!(done[1].len, 1);
        let mut tail = vec![0; 4096];
        let end = at as usize + vdpa_sim::rng::PASS_BYTES;
        rig.bytes().read(end - 4096, &mut tail);
        assert!(tail.iter().filter(|byte| **byte == 0).count() < 100);
        rig.bytes().read(end, &mut tail);
        assert_eq!(tail, vec![0; 4096]);
    }
}

#[test]
fn buffers_without_room_or_memory_come_back_and_the_device_goes_on() {
    for packed in [false, true] {
        let (rig, mut q) = source(packed);
        let events = rig.device.events().unwrap();
        let at = rig.alloc(64);
        q.add(&[(at, 8)], &[]).unwrap();
        q.add(&[], &[(REGION - 16, 64)]).unwrap();
        q.add(&[], &[(REGION + 4096, 64)]).unwrap();
        q.add(&[(at, 8)], &[(at + 8, 8)]).unwrap();
        q.publish();
        let lens: Vec<_> = q.wait_used(4).iter().map(|done| done.len).collect();
        assert_eq!(lens, [0, 16, 0, 8]);
        let event = events.wait(soon()).unwrap();
        assert!(matches!(event, Some(Event::Fault { .. })), "{event:?}");
        assert!(!rig.status().contains(Status::DEVICE_NEEDS_RESET));
        assert_eq!(rig.stat("queue0.errors.no_room"), 1);
        assert_eq!(rig.stat("queue0.errors.fault"), 2);
    }
}

#[test]
fn there_is_one_queue_no_configuration_and_no_state() {
    let (rig, _q) = source(false);
    assert_eq!(
        (rig.device.info().queues, rig.device.info().config_size),
        (1, 0)
    );
    assert!(rig.device.queue_limits(QueueIndex::new(1)).is_err());
    assert!(rig.device.read_config(0, &mut [0]).is_err());
    rig.device.suspend(soon()).unwrap();
    let state = rig.device.save_class_state().unwrap();
    assert!(state.is_empty());
    rig.device.resume().unwrap();
    rig.reset();
    rig.negotiate(features(&rig, false, false));
    rig.device.restore_class_state(&state).unwrap();
    assert!(rig.device.restore_class_state(&[0]).is_err());
}

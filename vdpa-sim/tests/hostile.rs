//! Drivers that do what no driver should: what they get, and that nobody else waits for it.

mod rig;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rig::*;
use vdpa_core::bits::{self, net};
use vdpa_core::{Event, QueueIndex, Status};
use vdpa_mem::Deadline;
use vdpa_ring::QueueState;

#[test]
fn useless_buffers_posted_again_and_again_hold_up_neither_a_sibling_nor_unmap_nor_reset() {
    for merge in [false, true] {
        let rig = Lab::new().open("sim:net,queue_size=32768,queue_pairs=2");
        rig.negotiate(with(&rig, false, merge, false, false));
        let rx = rig.queue(0, 32768);
        let mut tx = Tx::new(&rig, rig.queue(1, 8), 2048);
        let [descriptors, driver, device] = rx.areas().map(|at| at as usize);
        let bytes = rig.bytes();
        // Descriptor 0 has one byte, and every entry of the ring names it.
        let mut raw = [0; 16];
        raw[..8].copy_from_slice(&(BASE + rig.alloc(64)).to_le_bytes());
        raw[8..12].copy_from_slice(&1u32.to_le_bytes());
        raw[12..14].copy_from_slice(&2u16.to_le_bytes());
        bytes.write(descriptors, &raw);
        rig.run();
        let stop = AtomicBool::new(false);
        std::thread::scope(|s| {
            let (window, stop, bell) = (rig.window.clone(), &stop, rx.doorbell.clone());
            s.spawn(move || {
                let bytes = window.bytes();
                while !stop.load(Ordering::Relaxed) {
                    let used = bytes.load_u16(device as u32 + 2);
                    bytes.store_u16(driver as u32 + 2, used.wrapping_add(32767));
                    bell.ring(0);
                }
            });
            tx.send(&[frame(0, 100)]);
            until("useless buffers", || {
                rig.stat("queue0.bad_buffers") > 10_000
            });
            let by = || Deadline::after(Duration::from_secs(3));
            let sibling = rig.device.stop_queue(QueueIndex::new(1), by());
            let unmapped = rig.dma.unmap(Rig::range(), by());
            let reset = rig.device.reset(by());
            stop.store(true, Ordering::Relaxed);
            sibling.unwrap();
            unmapped.unwrap();
            reset.unwrap();
        });
    }
}

#[test]
fn a_frame_larger_than_all_buffers_of_several_descriptors_is_dropped_and_the_next_one_comes() {
    for packed in [false, true] {
        for indirect in [false, true] {
            let rig = Lab::new().open("sim:net");
            let mut features = with(&rig, packed, true, true, false);
            if !indirect {
                features = features.without(bits::INDIRECT_DESC);
            }
            rig.negotiate(features);
            let mut rx = rig.queue(0, 8);
            let mut tx = Tx::new(&rig, rig.queue(1, 8), 2048);
            let at = rig.alloc(4096);
            let mut count = 0;
            while rx
                .add(&[], &[(at + count * 128, 64), (at + count * 128 + 64, 64)])
                .is_some()
            {
                count += 1;
            }
            assert_eq!(count, if indirect { 8 } else { 4 });
            rx.publish();
            rig.run();
            tx.send(&[frame(0, 1400), frame(1, 60)]);
            let done = rx.wait_used(1);
            assert_eq!(done[0].len, 72);
            assert_eq!(rig.stat("queue0.dropped.rx_buffer_too_small"), 1);
        }
    }
}

#[test]
fn a_frame_that_needs_more_segments_than_one_take_holds_does_not_stop_the_queue() {
    for packed in [false, true] {
        let rig = Lab::new().open("sim:net");
        rig.negotiate(with(&rig, packed, true, true, false));
        let mut rx = rig.queue(0, 8);
        let mut tx = Tx::new(&rig, rig.queue(1, 8), 2048);
        let at = rig.alloc(8 * 512);
        for chain in 0..8 {
            // One take holds twice as many segments as the ring has descriptors: two of these chains.
            let pieces: Vec<_> = (0..8).map(|i| (at + chain * 512 + i * 64, 8)).collect();
            rx.add(&[], &pieces).unwrap();
        }
        rx.publish();
        rig.run();
        tx.send(&[frame(0, 300), frame(1, 40)]);
        let done = rx.wait_used(1);
        assert_eq!(done[0].len, 52);
        assert_eq!(rig.stat("queue0.dropped.rx_buffer_too_small"), 1);
    }
}

#[test]
fn frames_for_a_lost_queue_are_dropped_and_counted_also_when_it_is_stopped() {
    let rig = Lab::new().open("sim:net");
    rig.negotiate(with(&rig, false, false, false, false));
    let events = rig.device.events().unwrap();
    let rx = rig.queue(0, 16);
    let mut tx = Tx::new(&rig, rig.queue(1, 16), 2048);
    rig.run();
    // A jump of the index, which is found when there is a frame.
    let index = rx.areas()[1] as usize + 2;
    rig.bytes().write(index, &500u16.to_le_bytes());
    tx.send(&[frame(0, 100)]);
    let event = events.wait(soon()).unwrap();
    assert!(matches!(event, Some(Event::NeedsReset { .. })), "{event:?}");
    assert!(rig.status().contains(Status::DEVICE_NEEDS_RESET));
    until("the drop", || rig.stat("queue0.dropped.rx_no_queue") == 1);
    rig.device.stop_queue(rx.index, soon()).unwrap();
    tx.send(&frames(10, 100));
    until("the drops", || rig.stat("queue0.dropped.rx_no_queue") == 11);
    assert_eq!(events.try_next(), None, "it is told once");
}

#[test]
fn a_control_queue_that_is_off_answers_every_command_with_an_error_and_none_has_effects() {
    let rig = Lab::new().open("sim:net");
    rig.negotiate(with(&rig, false, false, false, false));
    let mut ctrl = Ctrl::new(&rig, rig.queue(2, 16));
    rig.run();
    let mac = rig.config().mac();
    let command = [1, 1, 2, 0, 0, 0, 0, 9];
    // Switching takes effect with the worker's next pass; until then a command may be taken as before.
    let mut until = |on: bool, ack: u8| {
        rig.device.enable_queue(ctrl.q.index, on).unwrap();
        let by = Deadline::after(Duration::from_secs(20));
        while ctrl.command(&[0, 0, 1]) != ack {
            assert!(!by.expired(), "the switch never takes effect");
        }
        (ctrl.command(&command), ctrl.command(&[0, 0, 1]))
    };
    assert_eq!(until(false, 1), (1, 1));
    assert_eq!(rig.config().mac(), mac);
    assert!(rig.stat("control.refused") >= 3);
    assert_eq!(until(true, 0), (0, 0));
    assert_ne!(rig.config().mac(), mac);
}

/// How many buffers the driver has taken back, as the ring counts them.
fn taken_back(rx: &Rx) -> u16 {
    match rx.q.ring.state() {
        QueueState::Split { used, .. } => used.unwrap(),
        QueueState::Packed { .. } => unreachable!("the ring is split"),
    }
}

/// Two workers and more read one setting: what the driver forbade is over when its command is used.
#[test]
fn nothing_arrives_that_an_acked_command_forbids_with_several_workers_under_traffic() {
    let rig = Lab::new().open("sim:net,queue_pairs=4,workers=3");
    rig.negotiate(with(&rig, false, false, true, false).with(net::MQ));
    let mut rx: Vec<_> = (0..4)
        .map(|p| Rx::new(&rig, rig.queue(2 * p, 256), 2048))
        .collect();
    let mut tx: Vec<_> = (0..4)
        .map(|p| Tx::new(&rig, rig.queue(2 * p + 1, 64), 512))
        .collect();
    let mut ctrl = Ctrl::new(&rig, rig.queue(8, 16));
    rx.iter_mut().for_each(|rx| rx.post(256));
    rig.run();
    let own = rig.config().mac().octets();
    // Its kind is in the last byte: for us, for somebody else, in VLAN 5.
    let kinds: Vec<Vec<u8>> = (0..3)
        .map(|kind: u8| {
            let mut frame = frame(0, 100);
            frame[..6].copy_from_slice(&own);
            match kind {
                1 => frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, 77]),
                2 => frame[12..16].copy_from_slice(&[0x81, 0, 0, 5]),
                _ => {}
            }
            frame[99] = kind;
            frame
        })
        .collect();
    let used = |rx: &Rx| {
        let index = rx.q.areas()[2] as u32 + 2;
        rig.bytes().load_u16(index)
    };
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        let (stop, kinds) = (&stop, &kinds);
        s.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                for tx in &mut tx {
                    tx.send(kinds);
                }
                std::thread::yield_now();
            }
        });
        // Also when an assertion fails.
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let _stop = Stop(stop);
        // Promiscuous, VLAN 5, pairs in use. At first everything passes.
        let mut setting = (true, true, 1_u8);
        let mut seen = [[0_u32; 3]; 2];
        // On a busy machine traffic comes in bursts: some more rounds then, until there was something to see.
        let enough = |seen: &[[u32; 3]; 2]| seen[0][0] > 0 && seen[0][2] > 0 && seen[1][1] > 0;
        for round in 0..30_000_u32 {
            if round >= 300 && enough(&seen) {
                break;
            }
            let command = match round % 3 {
                0 => {
                    setting.0 = !setting.0;
                    vec![0, 0, setting.0.into()]
                }
                1 => {
                    setting.1 = !setting.1;
                    vec![2, u8::from(!setting.1), 5, 0]
                }
                _ => {
                    setting.2 = (round / 3 % 4 + 1) as u8;
                    vec![4, 0, setting.2, 0]
                }
            };
            assert_eq!(ctrl.command(&command), 0);
            let before: Vec<_> = rx.iter().map(&used).collect();
            for _ in 0..20 {
                rx.iter_mut().for_each(Rx::poll);
                std::thread::yield_now();
            }
            for (pair, (rx, before)) in rx.iter_mut().zip(before).enumerate() {
                // Each frame took one buffer: those behind the index of that moment came after the ack.
                let after = (taken_back(rx)).wrapping_sub(before);
                assert!(after < 0x8000);
                let first = rx.got.len() - usize::from(after).min(rx.got.len());
                for frame in rx.got.drain(..).skip(first) {
                    let kind = usize::from(frame[99]);
                    let (promiscuous, vlan, pairs) = setting;
                    assert!(pair < usize::from(pairs), "round {round}: pair {pair}");
                    seen[usize::from(promiscuous)][kind] += 1;
                    match kind {
                        1 => assert!(promiscuous, "round {round}: somebody else's"),
                        2 => assert!(vlan || promiscuous, "round {round}: VLAN 5"),
                        _ => {}
                    }
                }
            }
        }
        assert!(enough(&seen), "{seen:?}");
    });
}

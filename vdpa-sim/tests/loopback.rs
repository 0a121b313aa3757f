//! What is sent comes back, by every ring format and with every ring feature.

mod rig;

use rig::*;
use vdpa_core::bits::{self, net};

fn round_trip(packed: bool, merge: bool, event_idx: bool, in_order: bool) {
    let rig = Lab::new().open("sim:net");
    let features = with(&rig, packed, merge, event_idx, in_order);
    let buffer = if merge { 300 } else { 2048 };
    let size = if packed { 100 } else { 128 };
    let mut card = Card::new(rig, features, size, buffer);
    let frames = frames(2000, 1514);
    card.send_all(&frames);
    card.rx.wait(frames.len());
    for (i, (sent, got)) in frames.iter().zip(&card.rx.got).enumerate() {
        assert_eq!(sent, got, "frame {i}");
    }
    until("completion of all sends", || {
        card.tx.reap();
        card.tx.in_flight() == 0
    });
    // What was done is counted a moment later.
    let bytes: usize = frames.iter().map(Vec::len).sum();
    for (name, count) in [
        ("queue1.packets", 2000),
        ("queue0.packets", 2000),
        ("queue0.bytes", bytes as u64),
    ] {
        until(name, || card.rig.stat(name) == count);
    }
    card.rig.close();
}

#[test]
fn frames_come_back_by_split_and_packed_rings_with_all_features() {
    for case in 0..16 {
        let on = |bit: u32| case & (1 << bit) != 0;
        round_trip(on(0), on(1), on(2), on(3));
    }
}

#[test]
fn a_packed_ring_of_seven_and_rings_of_one_work() {
    for (packed, size) in [(true, 7), (true, 1), (false, 1), (false, 2)] {
        let rig = Lab::new().open("sim:net");
        let features = with(&rig, packed, false, true, false);
        let mut card = Card::new(rig, features, size, 2048);
        let frames = frames(200, 1514);
        card.send_all(&frames);
        card.rx.wait(frames.len());
        assert_eq!(card.rx.got, frames);
    }
}

/// As over vhost-user, where a driver may have fewer pairs than the device, and says so by its queues alone.
#[test]
fn a_pair_that_was_never_started_gets_no_frames_where_nobody_has_a_control_queue() {
    use vdpa_core::{QueueIndex, Status};
    let rig = Lab::new().open("sim:net,queue_pairs=4");
    let features = plain(&rig).without(net::CTRL_VQ).with(net::MQ);
    let mut status = Status::ACKNOWLEDGE | Status::DRIVER;
    rig.device.write_status(status.bits()).unwrap();
    rig.device
        .accept_beside(features, net::CTRL_VQ.mask())
        .unwrap();
    status |= Status::FEATURES_OK;
    rig.device.write_status(status.bits()).unwrap();
    let mut rx: Vec<_> = [0, 2].map(|q| Rx::new(&rig, rig.queue(q, 16), 2048)).into();
    let mut tx = Tx::new(&rig, rig.queue(7, 16), 2048);
    rig.run();
    rx.iter_mut().for_each(|rx| rx.post(16));
    let mut sent = 0;
    let mut came = |rx: &mut Rx| {
        sent += 1;
        tx.send(&[frame(sent, 100)]);
        rx.wait(1);
        assert_eq!(rx.got.pop().unwrap(), frame(sent, 100));
    };
    came(&mut rx[1]);
    rig.device.enable_queue(QueueIndex::new(2), false).unwrap();
    came(&mut rx[0]);
    rig.device.enable_queue(QueueIndex::new(2), true).unwrap();
    came(&mut rx[1]);
}

#[test]
fn a_frame_that_is_sent_once_the_receive_queue_was_started_again_is_not_lost() {
    use vdpa_core::QueueIndex;
    let rig = Lab::new().open("sim:net");
    let features = with(&rig, false, false, false, false);
    let mut card = Card::new(rig, features, 8, 2048);
    // The worker takes the queue up a moment after the start has returned; most rounds miss it.
    for round in 0..600 {
        let device = &card.rig.device;
        device.reset_queue(QueueIndex::new(0), soon()).unwrap();
        card.rx = Rx::new(&card.rig, card.rig.queue(0, 2), 256);
        card.rx.post(1);
        let sent = frame(round, 60);
        assert_eq!(card.tx.send(std::slice::from_ref(&sent)), 1);
        card.rx.wait(1);
        assert_eq!(card.rx.got, [sent]);
    }
    assert_eq!(card.rig.stat("queue0.dropped.rx_no_queue"), 0);
}

#[test]
fn calls_come_when_they_are_asked_for() {
    for (packed, event_idx) in [(false, false), (false, true), (true, false), (true, true)] {
        let rig = Lab::new().open("sim:net");
        let features = with(&rig, packed, false, event_idx, false);
        let mut card = Card::new(rig, features, 64, 2048);
        for i in 0..50 {
            let before = card.rx.q.calls.load(std::sync::atomic::Ordering::SeqCst);
            assert!(!card.rx.q.arm());
            card.tx.send(&[frame(i, 60)]);
            until("a call", || {
                card.rx.q.calls.load(std::sync::atomic::Ordering::SeqCst) > before
            });
            card.rx.q.disarm();
            card.rx.wait(i + 1);
        }
    }
}

#[test]
fn a_header_cut_into_single_bytes_is_read_and_written() {
    for packed in [false, true] {
        for indirect in [false, true] {
            let rig = Lab::new().open("sim:net");
            let mut features = with(&rig, packed, false, false, false);
            if !indirect {
                features = features.without(bits::INDIRECT_DESC);
            }
            rig.negotiate(features);
            let mut rx = rig.queue(0, 64);
            let mut tx = rig.queue(1, 64);
            let sent = frame(7, 77);
            let (out, back) = (rig.alloc(256), rig.alloc(256));
            rig.bytes().zero(out as usize, 256);
            rig.bytes().write(out as usize + HEADER, &sent);
            let cut = |at: u64, len: u32| -> Vec<(u64, u32)> {
                let mut parts: Vec<_> = (0..14).map(|i| (at + i, 1)).collect();
                parts.push((at + 14, len - 14));
                parts
            };
            rx.add(&[], &cut(back, 256)).unwrap();
            rx.publish();
            tx.add(&cut(out, (HEADER + sent.len()) as u32), &[])
                .unwrap();
            tx.publish();
            rig.run();
            let done = rx.wait_used(1);
            assert_eq!(done[0].len as usize, HEADER + sent.len());
            let mut got = vec![0; done[0].len as usize];
            rig.bytes().read(back as usize, &mut got);
            assert_eq!(got[HEADER..], sent);
            assert_eq!(got[..HEADER], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
            tx.wait_used(1);
        }
    }
}

#[test]
fn jumbo_frames_fill_as_many_buffers_as_they_need() {
    for packed in [false, true] {
        for in_order in [false, true] {
            let rig = Lab::new().open("sim:net,mtu=65535");
            let features = with(&rig, packed, true, true, in_order);
            let mut card = Card::new(rig, features, 256, 1526);
            // The transmit buffers of a card are as small: one of our own.
            let out = card.rig.alloc(70_000);
            for (i, len) in [60, 9014, 1514, 65_549, 14, 3000].into_iter().enumerate() {
                let sent = frame(i, len);
                card.rig.bytes().zero(out as usize, HEADER);
                card.rig.bytes().write(out as usize + HEADER, &sent);
                card.tx.q.add(&[(out, (len + HEADER) as u32)], &[]).unwrap();
                card.tx.q.publish();
                card.rx.wait(i + 1);
                assert!(card.rx.got[i] == sent, "frame of {len} bytes");
                card.tx.q.wait_used(1);
            }
        }
    }
}

#[test]
fn frames_over_the_mtu_are_counted_and_tags_come_on_top_of_it() {
    let rig = Lab::new().open("sim:net,mtu=1000");
    let features = with(&rig, false, false, false, false);
    let mut card = Card::new(rig, features, 64, 2048);
    let tagged = |len: usize, kinds: &[[u8; 2]]| {
        let mut frame = frame(1, len);
        for (i, kind) in kinds.iter().enumerate() {
            frame[12 + 4 * i..14 + 4 * i].copy_from_slice(kind);
        }
        frame
    };
    let good = [
        frame(0, 1014),
        tagged(1018, &[[0x81, 0]]),
        tagged(1022, &[[0x88, 0xa8], [0x81, 0]]),
    ];
    let bad = [
        frame(0, 1015),
        frame(0, 1018),
        tagged(1019, &[[0x81, 0]]),
        tagged(1022, &[[0x81, 0]]),
        tagged(1023, &[[0x88, 0xa8], [0x81, 0]]),
        frame(0, 1900),
    ];
    card.send_all(&bad);
    card.send_all(&good);
    card.rx.wait(good.len());
    assert_eq!(card.rx.got, good);
    assert_eq!(
        card.rig.stat("queue1.dropped.tx_over_mtu"),
        bad.len() as u64
    );
}

#[test]
fn a_frame_larger_than_its_buffer_is_dropped_and_the_buffer_kept() {
    let rig = Lab::new().open("sim:net");
    let features = with(&rig, false, false, false, false);
    let mut card = Card::new(rig, features, 4, 200);
    card.send_all(&[frame(0, 1000), frame(1, 189), frame(2, 188), frame(3, 60)]);
    card.rx.wait(2);
    assert_eq!(card.rx.got, [frame(2, 188), frame(3, 60)]);
    assert_eq!(card.rx.buffers_used.len(), 2);
    assert_eq!(card.rig.stat("queue0.dropped.rx_buffer_too_small"), 2);
}

#[test]
fn packets_without_a_whole_header_come_back_unsent() {
    let rig = Lab::new().open("sim:net");
    let features = with(&rig, true, false, false, false);
    rig.negotiate(features);
    let mut rx = Rx::new(&rig, rig.queue(0, 8), 2048);
    let mut tx = rig.queue(1, 8);
    rx.post(8);
    rig.run();
    let at = rig.alloc(64);
    for len in [1, 11, 12, 25] {
        tx.add(&[(at, len)], &[]).unwrap();
    }
    // Nothing to read at all.
    tx.add(&[], &[(at, 64)]).unwrap();
    tx.publish();
    assert!(tx.wait_used(5).iter().all(|done| done.len == 0));
    rx.quiet();
    assert_eq!(rig.stat("queue1.dropped.tx_short"), 5);
    assert_eq!(rig.stat("queue1.packets"), 0);
}

#[test]
fn a_receive_buffer_smaller_than_a_header_comes_back_empty() {
    for merge in [false, true] {
        let rig = Lab::new().open("sim:net");
        let features = with(&rig, false, merge, false, false);
        rig.negotiate(features);
        let mut rx = rig.queue(0, 8);
        let mut tx = Tx::new(&rig, rig.queue(1, 8), 2048);
        let at = rig.alloc(4096);
        let bad = rx.add(&[], &[(at, 11)]).unwrap();
        let good = rx.add(&[], &[(at + 64, 2048)]).unwrap();
        rx.publish();
        rig.run();
        tx.send(&[frame(0, 100)]);
        let done = rx.wait_used(2);
        assert_eq!((done[0].id, done[0].len), (bad, 0));
        assert_eq!((done[1].id, done[1].len), (good, 112));
        assert_eq!(rig.stat("queue0.bad_buffers"), 1);
    }
}

#[test]
fn nothing_is_lost_while_buffers_are_missing() {
    for merge in [false, true] {
        let rig = Lab::new().open("sim:net");
        let features = with(&rig, false, merge, true, false);
        rig.negotiate(features);
        let mut rx = Rx::new(&rig, rig.queue(0, 256), 2048);
        let mut tx = Tx::new(&rig, rig.queue(1, 256), 2048);
        rig.run();
        let frames = frames(256, 1514);
        assert_eq!(tx.send(&frames), 256);
        until("frames wait", || rig.stat("queue0.waits") > 0);
        // Long enough for the worker to fall asleep.
        std::thread::sleep(std::time::Duration::from_millis(5));
        for _ in 0..256 {
            rx.post(1);
            rx.poll();
        }
        rx.wait(256);
        assert_eq!(rx.got, frames);
    }
}

#[test]
fn without_a_receive_queue_sending_goes_on() {
    let rig = Lab::new().open("sim:net");
    rig.negotiate(with(&rig, false, false, false, false));
    let mut tx = Tx::new(&rig, rig.queue(1, 64), 2048);
    rig.run();
    let frames = frames(5000, 200);
    let mut sent = 0;
    until("sending", || {
        sent += tx.send(&frames[sent..]);
        sent == frames.len() && tx.in_flight() == 0
    });
    until("the drops", || {
        rig.stat("queue0.dropped.rx_no_queue") == 5000
    });
}

#[test]
fn several_pairs_are_used_once_the_driver_says_so_and_by_several_workers() {
    for workers in [1, 3] {
        let rig = Lab::new().open(&format!("sim:net,queue_pairs=4,workers={workers}"));
        let features = with(&rig, false, false, true, false).with(net::MQ);
        rig.negotiate(features);
        assert_eq!(rig.config().max_virtqueue_pairs(), 4);
        let mut rx: Vec<_> = (0..4)
            .map(|p| Rx::new(&rig, rig.queue(2 * p, 64), 2048))
            .collect();
        let mut tx: Vec<_> = (0..4)
            .map(|p| Tx::new(&rig, rig.queue(2 * p + 1, 64), 2048))
            .collect();
        let mut ctrl = Ctrl::new(&rig, rig.queue(8, 16));
        rx.iter_mut().for_each(|rx| rx.post(64));
        rig.run();
        // After reset the first pair receives alone.
        for tx in &mut tx {
            tx.send(&[frame(1, 60)]);
        }
        rx[0].wait(4);
        rx[1..].iter_mut().for_each(Rx::quiet);
        for (pairs, to) in [
            (4u8, [0, 1, 2, 3]),
            (2, [0, 1, 0, 1]),
            (3, [0, 1, 2, 0]),
            (1, [0; 4]),
        ] {
            assert_eq!(ctrl.command(&[4, 0, pairs, 0]), 0);
            let mut expected: Vec<_> = rx.iter().map(|rx| rx.got.len()).collect();
            for (i, tx) in tx.iter_mut().enumerate() {
                assert_eq!(tx.send(&vec![frame(i, 80); 20]), 20);
                expected[to[i]] += 20;
            }
            for (rx, expected) in rx.iter_mut().zip(expected) {
                rx.wait(expected);
            }
            rx.iter_mut().for_each(Rx::quiet);
        }
        assert_eq!(ctrl.command(&[4, 0, 0, 0]), 1);
        assert_eq!(ctrl.command(&[4, 0, 5, 0]), 1);
        rig.close();
    }
}

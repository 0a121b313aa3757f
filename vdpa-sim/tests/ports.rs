//! Ports: wires between devices, captures, nothing.

mod rig;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rig::*;
use vdpa_core::bits::net;
use vdpa_core::{Attr, ErrorKind, LinkState, MgmtDevice};
use vdpa_sim::pcap::{Capture, CaptureWriter, TimeResolution, Timestamp};

fn pair(lab: &Lab, packed: bool) -> (Card, Card) {
    let open = |packed: bool, merge: bool| {
        let rig = lab.open("sim:net,port=wire:a");
        let features = with(&rig, packed, merge, true, false);
        Card::new(rig, features, 128, 2048)
    };
    // Each end has its own ring format.
    (open(packed, false), open(!packed, true))
}

#[test]
fn two_devices_on_a_wire_receive_what_the_other_sends_both_ways_at_once() {
    for packed in [false, true] {
        let lab = Lab::new();
        let (mut a, mut b) = pair(&lab, packed);
        let there = frames(3000, 1514);
        let back: Vec<_> = there.iter().rev().cloned().collect();
        std::thread::scope(|s| {
            let (a, b, there, back) = (&mut a, &mut b, &there, &back);
            s.spawn(move || {
                a.send_all(there);
                a.rx.wait(back.len());
            });
            s.spawn(move || {
                b.send_all(back);
                b.rx.wait(there.len());
            });
        });
        assert!(b.rx.got == there && a.rx.got == back, "packed: {packed}");
        for card in [&a, &b] {
            assert_eq!(card.rig.total("dropped.tx_no_peer"), 0);
        }
    }
}

#[test]
fn a_receiver_without_buffers_holds_the_sender_back_and_nothing_is_lost() {
    let lab = Lab::new();
    let (mut a, mut b) = pair(&lab, false);
    let all = frames(5000, 1514);
    let mut sent = 0;
    // Until it waits.
    let mut same = 0;
    while same < 1000 {
        let more = a.tx.send(&all[sent..]);
        sent += more;
        same = if more == 0 { same + 1 } else { 0 };
        std::thread::yield_now();
    }
    assert!(sent < all.len(), "the wire takes no more than its depth");
    until("the rest", || {
        b.rx.poll();
        sent += a.tx.send(&all[sent..]);
        sent == all.len()
    });
    b.rx.wait(all.len());
    assert!(b.rx.got == all);
}

#[test]
fn what_is_sent_to_nobody_is_discarded_and_a_peer_that_goes_away_blocks_nobody() {
    let lab = Lab::new();
    let rig = lab.open("sim:net,port=wire:a");
    let features = with(&rig, false, false, true, false);
    let mut a = Card::new(rig, features, 128, 2048);
    let all = frames(3000, 1514);
    let sends_all = |a: &mut Card| {
        let before = a.rig.stat("queue1.dropped.tx_no_peer");
        a.send_all(&all);
        until("completion", || {
            a.tx.reap();
            a.tx.in_flight() == 0
        });
        until("discard", || {
            a.rig.stat("queue1.dropped.tx_no_peer") - before >= 2000
        });
    };
    sends_all(&mut a);
    let rig = lab.open("sim:net,port=wire:a");
    sends_all(&mut a);
    let mut b = Card::new(rig, features, 16, 2048);
    a.send_all(&all[..100]);
    // Its driver receives nothing more, so that the sender waits; then it resets.
    until("the sender waits", || a.tx.send(&all[..64]) == 0);
    b.rig.reset();
    until("the sender goes on", || {
        a.tx.reap();
        a.tx.in_flight() == 0
    });
    sends_all(&mut a);
    b = Card::new(b.rig, features, 16, 2048);
    b.rx.quiet();
    assert!(b.rx.got.is_empty(), "frames from before the reset");
    until("the sender waits", || a.tx.send(&all[..64]) == 0);
    let name = b.rig.device.info().name.clone();
    lab.sim.dev_set(&name, Attr::Link(LinkState::Down)).unwrap();
    sends_all(&mut a);
    b.rig.close();
    sends_all(&mut a);
    // The end is free again.
    let rig = lab.open("sim:net,port=wire:a");
    let mut b = Card::new(rig, features, 128, 2048);
    a.send_all(&all[..50]);
    b.rx.wait(50);
}

#[test]
fn frames_sent_to_a_device_that_is_gone_do_not_reach_the_next_one_on_the_wire() {
    let lab = Lab::new();
    let open = || {
        let rig = lab.open("sim:net,port=wire:a");
        rig.negotiate(with(&rig, false, false, false, false));
        rig
    };
    let a = open();
    let mut tx = Tx::new(&a, a.queue(1, 64), 2048);
    a.run();
    let b = open();
    // Without a buffer: the frames wait on the way.
    let _rx = b.queue(0, 64);
    b.run();
    tx.send(&frames(10, 100));
    until("sending", || tx.reap() == 10 || tx.in_flight() == 0);
    assert_eq!(a.stat("queue1.packets"), 10);
    drop(b);
    let c = open();
    let mut rx = Rx::new(&c, c.queue(0, 64), 2048);
    rx.post(64);
    c.run();
    rx.quiet();
    assert!(rx.got.is_empty(), "{} frames of another's", rx.got.len());
    let own = frames(10, 200);
    tx.send(&own);
    rx.wait(10);
    assert_eq!(rx.got, own);
}

#[test]
fn a_wire_has_two_ends_and_one_that_is_closed_is_free_again() {
    let lab = Lab::new();
    let a = lab.open("sim:net,port=wire:a");
    let _b = lab.open("sim:net,port=wire:a");
    let _other = lab.open("sim:net,port=wire:b");
    let refused = lab.registry.open("sim:net,port=wire:a").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Misuse);
    let why = refused.to_string();
    assert!(why.contains("wire:a has both ends taken"), "{why}");
    assert_eq!(lab.sim.devices().len(), 3, "nothing half-made is left");
    a.close();
    lab.open("sim:net,port=wire:a");
    // Another management device has wires of its own.
    Lab::new().open("sim:net,port=wire:a");
}

#[test]
fn pairs_of_one_device_go_to_the_pairs_that_the_other_uses() {
    for port in ["wire:a", "switch:a"] {
        pairs(port);
    }
}

fn pairs(port: &str) {
    let lab = Lab::new();
    let a = lab.open(&format!("sim:net,port={port},queue_pairs=3,workers=2"));
    let b = lab.open(&format!("sim:net,port={port},queue_pairs=2,workers=2"));
    for rig in [&a, &b] {
        rig.negotiate(with(rig, false, false, true, false).with(net::MQ));
    }
    let mut tx: Vec<_> = (0..3)
        .map(|p| Tx::new(&a, a.queue(2 * p + 1, 64), 2048))
        .collect();
    let mut rx: Vec<_> = (0..2)
        .map(|p| Rx::new(&b, b.queue(2 * p, 64), 2048))
        .collect();
    let mut ctrl = Ctrl::new(&b, b.queue(4, 8));
    rx.iter_mut().for_each(|rx| rx.post(64));
    a.run();
    b.run();
    let mut expected = [0, 0];
    for round in 0..40 {
        let pairs = 1 + round % 2;
        assert_eq!(ctrl.command(&[4, 0, pairs as u8, 0]), 0);
        for (i, tx) in tx.iter_mut().enumerate() {
            until("sending", || tx.send(&[frame(i, 100), frame(i, 200)]) == 2);
            expected[i % pairs] += 2;
        }
        for (rx, expected) in rx.iter_mut().zip(expected) {
            rx.wait(expected);
        }
    }
    rx.iter_mut().for_each(Rx::quiet);
}

fn write_capture(path: &Path, frames: &[Vec<u8>]) {
    let mut writer = CaptureWriter::create(path, TimeResolution::Micros).unwrap();
    for frame in frames {
        writer.write(Timestamp::default(), frame).unwrap();
    }
    writer.finish().unwrap();
}

#[test]
fn a_capture_is_received_once_and_what_is_sent_is_captured() {
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("in.pcap"), dir.path().join("out.pcap"));
    let mut all = frames(700, 1514);
    all.push(frame(0, 4000));
    write_capture(&input, &all);
    for packed in [false, true] {
        let lab = Lab::new();
        let rig = lab.open(&format!(
            "sim:net,port=pcap:{}:{}",
            input.display(),
            output.display()
        ));
        let features = with(&rig, packed, false, true, true);
        let mut card = Card::new(rig, features, 32, 2048);
        card.rx.wait(700);
        assert!(card.rx.got == all[..700]);
        until("the last one", || {
            card.rig.stat("queue0.dropped.rx_over_mtu") == 1
        });
        card.send_all(&all[..300]);
        until("completion", || {
            card.tx.reap();
            card.tx.in_flight() == 0
        });
        card.rx.quiet();
        card.rig.close();
        let written: Vec<_> = Capture::open(&output)
            .unwrap()
            .map(|frame| frame.unwrap().data)
            .collect();
        assert!(written == all[..300]);
    }
}

#[test]
fn a_capture_that_is_none_is_refused_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("in.pcap");
    let lab = Lab::new();
    let refused = || {
        let spec = format!(
            "sim:net,port=pcap:{}:{}/out.pcap",
            file.display(),
            dir.path().display()
        );
        let error = lab.registry.open(&spec).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misuse);
        error.to_string()
    };
    assert!(refused().contains("in.pcap"));
    write_capture(&file, &frames(3, 100));
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() - 1]).unwrap();
    assert!(refused().contains("in.pcap"));
    std::fs::write(&file, b"not a capture at all, but long enough").unwrap();
    assert!(refused().contains("in.pcap"));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    assert!(lab.sim.devices().is_empty());
}

#[test]
fn the_null_port_takes_everything() {
    let rig = Lab::new().open("sim:net,port=null");
    let features = with(&rig, true, false, true, true);
    let mut card = Card::new(rig, features, 64, 2048);
    card.send_all(&frames(2000, 1514));
    until("completion", || {
        card.tx.reap();
        card.tx.in_flight() == 0
    });
    assert_eq!(card.rig.stat("queue1.packets"), 2000);
    card.rx.quiet();
}

#[test]
fn a_stress_of_resets_on_both_ends_of_a_wire_ends_well() {
    let lab = Lab::new();
    let stop = Arc::new(AtomicBool::new(false));
    let work = |seed: usize| {
        let rig = lab.open("sim:net,port=wire:a");
        let stop = stop.clone();
        move || {
            let mut rig = Some(rig);
            let mut round = seed;
            while !stop.load(Ordering::Relaxed) {
                let features = with(
                    rig.as_ref().unwrap(),
                    round.is_multiple_of(2),
                    round.is_multiple_of(3),
                    true,
                    false,
                );
                let mut card = Card::new(rig.take().unwrap(), features, 64, 2048);
                for _ in 0..(round * 7) % 40 {
                    card.tx.send(&frames(32, 1000));
                    card.rx.poll();
                }
                card.rig.reset();
                // Memory of rings long gone may be used again.
                rig = Some(Rig::new(card.rig.device));
                round += 1;
            }
            rig
        }
    };
    let threads: Vec<_> = [1, 2]
        .map(work)
        .into_iter()
        .map(std::thread::spawn)
        .collect();
    std::thread::sleep(std::time::Duration::from_millis(500));
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        drop(thread.join().unwrap());
    }
}

//! What one slice, or who drives it, does to the others: nothing.

use std::sync::atomic::{AtomicBool, Ordering};

use vdpa_conformance::{Effort, Selection, Target, run};
use vdpa_core::Registry;
use vdpa_core::config::net::NetStatus;

use crate::rig::*;

const WIRE: &str = "sim:net;port=wire:out";

/// Whoever sends no more than this at once loses nothing for want of room.
const WINDOW: u32 = 32;

/// Sends numbered frames from the first card to the second one until `done`, and at least `least`; each has to come, once
/// and in its order, among those that others send.
fn exchange(
    from: &mut Card,
    to: &mut Card,
    addresses: [[u8; 6]; 2],
    least: u32,
    done: &AtomicBool,
) {
    let [of, at] = addresses;
    let (mut sent, mut next) = (0, 0);
    let mut ended = false;
    while next < sent || !ended {
        ended |= sent >= least && done.load(Ordering::Relaxed);
        while !ended && sent - next < WINDOW {
            from.send(&frame(at, of, sent, 60 + (sent % 1400) as usize));
            sent += 1;
        }
        if next == sent {
            continue;
        }
        for came in to.receive(1) {
            if came[6..12] == of {
                assert_eq!(seq(&came), next);
                assert_eq!(came, frame(at, of, next, 60 + (next % 1400) as usize));
                next += 1;
            }
        }
    }
}

/// While `hostile` runs, two slices and the wire lose nothing.
fn beside(registry: &Registry, hostile: impl FnOnce() + Send) {
    let mut far = Card::up(registry.open("sim:net,port=wire:out").unwrap());
    let [mut a, mut b, mut c] = [11, 12, 13].map(|number| slice(registry, WIRE, number, ""));
    let done = AtomicBool::new(false);
    std::thread::scope(|s| {
        let between = s.spawn(|| exchange(&mut a, &mut b, [mac(11), mac(12)], 2000, &done));
        let out = s.spawn(|| exchange(&mut c, &mut far, [mac(13), mac(99)], 2000, &done));
        let hostile = s.spawn(hostile).join();
        // Whichever way it ended.
        done.store(true, Ordering::Relaxed);
        between.join().unwrap();
        out.join().unwrap();
        hostile.unwrap();
    });
}

#[test]
fn rings_and_chains_that_no_driver_may_write_and_queues_that_are_lost_disturb_nobody_else() {
    let registry = registry();
    let maker = registry.clone();
    beside(&registry, move || {
        let spec = format!("mdev:slice,of={WIRE},mac=02:00:00:00:00:01");
        let target = Target::named(&maker, &spec).unwrap();
        let report = run(&target, &Selection::all(Effort::Quick));
        assert_eq!(report.failed(), 0, "{report}");
    });
}

#[test]
fn a_storm_of_resets_and_removals_disturbs_nobody_else() {
    let registry = registry();
    let maker = registry.clone();
    beside(&registry, move || {
        for round in 0..300_u32 {
            let mut card = slice(&maker, WIRE, 1, "");
            for seq in 0..round % 7 {
                card.send(&frame(ALL, mac(1), seq, 300));
            }
            if round % 3 == 0 {
                maker.parent("mdev").unwrap().dev_del(&card.name()).unwrap();
            } else {
                card.control.device().reset(soon()).unwrap();
            }
        }
    });
}

#[test]
fn a_flood_and_a_receiver_that_does_not_receive_disturb_nobody_else() {
    let registry = registry();
    let maker = registry.clone();
    beside(&registry, move || {
        let deaf = Card::without_buffers(
            maker
                .open(&format!("mdev:slice,of={WIRE},mac=02:00:00:00:00:02"))
                .unwrap(),
            false,
        );
        let mut flood = slice(&maker, WIRE, 1, "");
        // To siblings, to a deaf one, from another address. Not to the wire: what is at its other end is one receiver.
        for seq in 0..20_000 {
            let to = [mac(12), mac(2), mac(11)][seq as usize % 3];
            let from = if seq % 5 == 0 { mac(12) } else { mac(1) };
            flood.send(&frame(to, from, seq, 60 + (seq % 1000) as usize));
        }
        flood.until("what the deaf one has no room for is lost", |_| {
            deaf.stat("port.dropped.full") != 0
        });
    });
}

#[test]
fn a_device_that_fails_is_reset_and_its_slices_go_on() {
    for fault in [
        "device.needs_reset:@40",
        "ring.used_id:@50",
        "ring.used_doubled:@50",
        "ring.area_lost:@30",
    ] {
        let registry = registry();
        let parent = format!("sim:net;port=loopback;poll_us=0;fault={fault};seed=1");
        let mut a = slice(&registry, &parent, 1, "");
        let mut b = slice(&registry, &parent, 2, "");
        let (mut seq, by) = (0, soon());
        let mut after = 0;
        while after < 20 {
            // What slices send each other does not depend on it.
            let one = frame(mac(2), mac(1), seq, 80);
            a.send(&one);
            assert_eq!(b.receive(1), [one], "{fault}");
            // What it was at is lost.
            a.send(&frame(mac(9), mac(1), seq, 80));
            seq += 1;
            let came = a.poll().len();
            if a.stat("uplink.restarts") != 0 {
                after += came;
            }
            assert!(
                !by.expired(),
                "{fault}: {after} frames came after {} resets",
                a.stat("uplink.restarts")
            );
        }
    }
}

#[test]
fn a_device_that_breaks_at_each_other_frame_is_lost_and_not_reset_for_ever() {
    let registry = registry();
    // Without commands, whose queue would break too.
    let parent = "sim:net;port=loopback;poll_us=0;features=-CTRL_RX;fault=ring.used_id:/2;seed=1";
    let mut a = slice(&registry, parent, 1, "");
    let (mut seq, by) = (0, soon());
    while a.config().status().contains(NetStatus::LINK_UP) {
        a.send(&frame(mac(9), mac(1), seq, 80));
        a.poll();
        seq += 1;
        let restarts = a.stat("uplink.restarts");
        assert!(restarts <= 8 && !by.expired(), "{restarts} resets");
    }
    assert_eq!(a.stat("uplink.restarts"), 8);
}

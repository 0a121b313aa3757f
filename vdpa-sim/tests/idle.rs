//! What a device costs when it does nothing, and what it leaves behind: measured for the whole process, so this file
//! has one test.

#[path = "rig/cost.rs"]
mod cost;
mod rig;

use std::time::Duration;

use cost::*;
use rig::*;
use vdpa_core::bits::net;

#[test]
fn idle_queues_cost_nothing_and_opening_and_closing_leaves_nothing() {
    for workers in [1, 4] {
        let rig = Lab::new().open(&format!("sim:net,queue_pairs=128,workers={workers}"));
        rig.negotiate(with(&rig, false, false, true, false).with(net::MQ));
        let mut queues: Vec<_> = (0..257).map(|q| rig.queue(q, 16)).collect();
        rig.run();
        let at = rig.alloc(2048);
        // Each did something.
        for q in (1..256).step_by(2) {
            queues[q].add(&[(at, 100)], &[]).unwrap();
            queues[q].publish();
        }
        for q in (1..256).step_by(2) {
            queues[q].wait_used(1);
        }
        let spent = spent_at_rest(Duration::from_secs(2));
        assert!(
            spent < Duration::from_millis(5),
            "{spent:?} of CPU time in 2 s with {workers} workers"
        );
        // And it wakes up.
        queues[1].add(&[(at, 100)], &[]).unwrap();
        queues[1].publish();
        queues[1].wait_used(1);
        rig.close();
    }

    // A call that is held back for long costs nothing either.
    let rig = Lab::new().open("sim:net");
    rig.negotiate(with(&rig, false, false, false, false));
    let mut tx = rig.queue(1, 16);
    let mut ctrl = Ctrl::new(&rig, rig.queue(2, 16));
    rig.run();
    let hold = [6, 0, 0xff, 0, 0, 0, 0, 0, 0, 1];
    assert_eq!(ctrl.command(&hold), 0);
    let at = rig.alloc(2048);
    tx.add(&[(at, 100)], &[]).unwrap();
    tx.publish();
    tx.wait_used(1);
    let spent = spent_at_rest(Duration::from_secs(1));
    assert!(
        spent < Duration::from_millis(5),
        "{spent:?} of CPU time in 1 s"
    );
    assert_eq!(
        tx.calls.load(std::sync::atomic::Ordering::SeqCst),
        0,
        "16 s are not over"
    );
    rig.close();

    // Devices that share threads, one of which is busy for a while.
    let lab = Lab::new();
    let open = |_| {
        let rig = lab.open("sim:net,crew=idle,workers=2");
        let features = with(&rig, false, false, true, false);
        Card::new(rig, features, 16, 2048)
    };
    let mut cards: Vec<_> = (0..200).map(open).collect();
    for card in &mut cards {
        card.send_all(&frames(4, 100));
        card.rx.wait(4);
    }
    cards[77].send_all(&frames(1000, 100));
    cards[77].rx.wait(1004);
    let spent = spent_at_rest(Duration::from_secs(2));
    assert!(
        spent < Duration::from_millis(5),
        "{spent:?} of CPU time in 2 s with 200 devices"
    );
    drop(cards);

    // The side that stays is not served meanwhile.
    let lab = Lab::new();
    let stays = lab.open("sim:net,port=wire:a");
    stays.negotiate(with(&stays, false, false, false, false));
    let _tx = stays.queue(1, 64);
    stays.run();
    std::thread::sleep(Duration::from_millis(10));
    let before = held().0;
    let goes = lab.open("sim:net,port=wire:a,workers=2");
    std::thread::sleep(Duration::from_millis(10));
    stays.reset();
    drop(goes);
    until("nothing of a peer that is gone", || held().0 == before);
    stays.close();

    let lab = Lab::new();
    let cycle = |i: usize| {
        let port = ["loopback", "wire:a", "null"][i % 3];
        let rig = lab.open(&format!("sim:net,workers=2,queue_pairs=2,port={port}"));
        let features = with(&rig, i.is_multiple_of(2), false, true, false);
        let mut card = Card::new(rig, features, 16, 2048);
        card.tx.send(&frames(10, 100));
        if i.is_multiple_of(2) {
            card.rig.close();
        }
    };
    (0..10).for_each(cycle);
    let before = held();
    (0..200).for_each(cycle);
    assert_let_go(before, "devices that were closed or dropped");
}

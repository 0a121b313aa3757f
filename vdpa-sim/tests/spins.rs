//! What must not keep a worker busy: measured for the whole process, so the tests of this file take turns.

#[path = "rig/cost.rs"]
mod cost;
mod rig;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cost::*;
use rig::*;
use vdpa_core::{Attr, Kick, LinkState, MgmtDevice, QueueIndex, bits};
use vdpa_sim::Crew;

static TURN: Mutex<()> = Mutex::new(());

/// Asserts that the next 300 ms cost nearly nothing.
fn assert_quiet(what: &str) {
    let spent = spent_at_rest(Duration::from_millis(300));
    assert!(
        spent < Duration::from_millis(20),
        "{what}: {spent:?} of CPU time in 300 ms"
    );
}

#[test]
fn a_merged_frame_that_waits_for_buffers_costs_nothing_and_the_last_one_it_needs_gets_it() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    for case in 0..8 {
        let on = |bit: u32| case & (1 << bit) != 0;
        let rig = Lab::new().open("sim:net");
        rig.negotiate(with(&rig, on(0), true, on(1), on(2)));
        let mut rx = Rx::new(&rig, rig.queue(0, 64), 100);
        let mut tx = Tx::new(&rig, rig.queue(1, 8), 2048);
        rx.post(1);
        rig.run();
        // 11 buffers.
        let sent = [frame(0, 1000), frame(1, 60)];
        tx.send(&sent);
        assert_quiet(&format!("case {case}, one buffer"));
        for i in 1..10 {
            rx.post(1);
            std::thread::sleep(Duration::from_micros(200 * i));
            assert!(rx.q.used().is_empty(), "a frame needs all of its buffers");
        }
        assert_quiet(&format!("case {case}, ten buffers"));
        rx.post(1);
        rx.wait(1);
        rx.wait(2);
        assert_eq!(rx.got, sent);
        // And it goes on so.
        tx.send(&sent);
        rx.wait(4);
    }
}

#[test]
fn small_frames_behind_one_that_waits_come_as_soon_as_there_are_buffers() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    for packed in [false, true] {
        let rig = Lab::new().open("sim:net");
        rig.negotiate(with(&rig, packed, true, true, false));
        let mut rx = Rx::new(&rig, rig.queue(0, 64), 100);
        let mut tx = Tx::new(&rig, rig.queue(1, 64), 2048);
        rig.run();
        let sent = frames(50, 1000);
        tx.send(&sent);
        while rx.got.len() < sent.len() {
            rx.post(1);
            std::thread::sleep(Duration::from_micros(100));
            rx.poll();
        }
        assert_eq!(rx.got, sent);
    }
}

#[test]
fn a_kick_whose_other_end_is_gone_costs_nothing() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let rig = Lab::new().open("sim:net");
    rig.negotiate(plain(&rig) - bits::NOTIFICATION_DATA);
    let (kick, other) = std::os::unix::net::UnixStream::pair().unwrap();
    drop(other);
    let q = Q::new(&rig, 1, 8, None);
    let kick = Kick::Given(Arc::new(kick.into()));
    rig.device
        .start_queue(q.index, q.config(None), kick, q.call())
        .unwrap();
    assert_quiet("before the driver is ready");
    rig.run();
    assert_quiet("while it runs");
}

#[test]
fn a_loopback_that_is_full_and_has_no_buffers_costs_nothing_and_goes_on_with_some() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    for packed in [false, true] {
        let rig = Lab::new().open("sim:net");
        rig.negotiate(with(&rig, packed, false, true, false));
        let mut rx = Rx::new(&rig, rig.queue(0, 64), 2048);
        let mut tx = Tx::new(&rig, rig.queue(1, 8), 2048);
        rig.run();
        // One batch for each, until none goes any more.
        let mut sent = 0;
        while tx.in_flight() < 8 {
            sent += tx.send(&[frame(sent, 60)]);
            std::thread::sleep(Duration::from_micros(100));
            assert!(sent < 10_000, "the pipe takes everything");
        }
        assert_quiet("a full loopback");
        rx.post(64);
        rx.wait(sent);
        assert!(
            rx.got
                .iter()
                .enumerate()
                .all(|(i, got)| *got == frame(i, 60))
        );
    }
}

#[test]
fn buffers_for_a_frame_that_waits_cost_nothing_while_it_cannot_be_received() {
    for off in [false, true] {
        buffers_of_no_use(off);
    }
}

/// While the link is down, or the queue switched off.
fn buffers_of_no_use(off: bool) {
    let lab = Lab::new();
    let (crew, mut shift) = Crew::by_hand("link").unwrap();
    lab.sim.add_crew("link", &crew);
    let rig = lab.open("sim:net,crew=link,poll_us=0");
    let mut rest = |what: &str| {
        let passes = (0..1000).take_while(|_| shift.pass()).count();
        assert!(passes < 1000, "the worker finds work for ever: {what}");
    };
    rig.negotiate(plain(&rig));
    let mut rx = Rx::new(&rig, rig.queue(0, 8), 2048);
    let mut tx = Tx::new(&rig, rig.queue(1, 8), 2048);
    rig.run();
    rest("it runs");
    tx.send(&frames(1, 100));
    rest("a frame waits");
    assert_eq!(rig.stat("queue0.waits"), 1);
    let name = rig.device.info().name.clone();
    let set = |up| match (off, up) {
        (true, up) => rig.device.enable_queue(QueueIndex::new(0), up).unwrap(),
        (_, true) => lab.sim.dev_set(&name, Attr::Link(LinkState::Up)).unwrap(),
        (_, false) => lab.sim.dev_set(&name, Attr::Link(LinkState::Down)).unwrap(),
    };
    set(false);
    rest("nothing is received");
    rx.post(1);
    rest("there are buffers");
    // And they are used later: what waited was lost meanwhile.
    set(true);
    rest("frames are received");
    let sent = frames(1, 200);
    tx.send(&sent);
    rest("another frame");
    rx.poll();
    assert_eq!(rx.got, sent);
    drop(shift);
}

#[test]
fn a_worker_by_hand_is_kicked_by_an_eventfd() {
    let lab = Lab::new();
    let (crew, mut shift) = Crew::by_hand("kicked").unwrap();
    lab.sim.add_crew("kicked", &crew);
    let rig = lab.open("sim:net,crew=kicked,poll_us=0");
    rig.negotiate(plain(&rig) - bits::NOTIFICATION_DATA);
    let q = Q::new(&rig, 1, 8, None);
    let kick = Arc::new(nix::sys::eventfd::EventFd::from_value(0).unwrap().into());
    let given = Kick::Given(Arc::clone(&kick));
    rig.device
        .start_queue(q.index, q.config(None), given, q.call())
        .unwrap();
    let mut tx = Tx::new(&rig, q, 2048);
    rig.run();
    let mut rest = || {
        let passes = (0..1000).take_while(|_| shift.pass()).count();
        assert!(passes < 1000, "the worker finds work for ever");
    };
    rest();
    // Its own doorbell was not taken: nothing but the eventfd rings.
    tx.send(&frames(1, 100));
    rest();
    tx.reap();
    assert_eq!(tx.in_flight(), 1, "nobody kicked");
    nix::unistd::write(&*kick, &1_u64.to_ne_bytes()).unwrap();
    rest();
    tx.reap();
    assert_eq!(tx.in_flight(), 0, "a kick is not heard");
    drop(shift);
}

#[test]
fn a_worker_by_hand_is_not_done_while_a_pair_has_called_for_itself() {
    let lab = Lab::new();
    let (crew, mut shift) = Crew::by_hand("reset").unwrap();
    lab.sim.add_crew("reset", &crew);
    let rig = lab.open("sim:net,crew=reset,poll_us=0");
    let mut rest = || {
        let passes = (0..1000).take_while(|_| shift.pass()).count();
        assert!(passes < 1000, "the worker finds work for ever");
    };
    rig.negotiate(plain(&rig));
    let _no_buffers = rig.queue(0, 8);
    let mut tx = Tx::new(&rig, rig.queue(1, 8), 2048);
    rig.run();
    rest();
    // What comes back waits for buffers, until the port is full and the sender waits too.
    let mut sent = 0;
    while tx.in_flight() == 0 && sent < 100 {
        sent += tx.send(&frames(1, 100));
        rest();
        tx.reap();
    }
    assert!(sent < 100, "the loopback takes everything");
    rig.device.write_status(0).unwrap();
    rest();
    assert!(rig.status().is_empty(), "the reset did not end");
    // The pair finds no room, forgets what is from before the reset, and rings for itself: there is room now.
    rig.negotiate(plain(&rig));
    let mut tx = Tx::new(&rig, rig.queue(1, 8), 2048);
    rig.run();
    tx.send(&frames(1, 100));
    rest();
    tx.reap();
    assert_eq!(
        tx.in_flight(),
        0,
        "a frame waits, and nothing is done for it"
    );
    drop(shift);
}

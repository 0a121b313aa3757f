//! Control calls while frames go: reset, queue reset, pause, enable, suspend, link, calls, unmap.

mod rig;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use rig::*;
use vdpa_core::bits::{self, net};
use vdpa_core::{Attr, Call, Event, Kick, LinkState, MgmtDevice, QueueIndex, Status};
use vdpa_mem::Deadline;

fn card(lab: &Lab, spec: &str, packed: bool) -> Card {
    let rig = lab.open(spec);
    let features = with(&rig, packed, false, true, false);
    Card::new(rig, features, 128, 2048)
}

#[test]
fn reset_under_traffic_lets_go_of_the_rings_and_a_known_good_frame_comes_back_after_it() {
    let lab = Lab::new();
    for round in 0..60 {
        let packed = round % 2 == 1;
        let mut card = card(&lab, "sim:net", packed);
        let frames = frames(100, 1514);
        card.tx.send(&frames);
        for _ in 0..round * 20 {
            std::hint::spin_loop();
        }
        card.rig.reset();
        assert_eq!(card.rig.status(), Status::empty());
        // From here on nothing is touched and nobody is called.
        let bytes = card.rig.bytes();
        let ring = card.rx.q.areas()[0] as usize;
        bytes.write(ring, &[0x5a; 8192]);
        let calls = card.rx.q.calls.load(Ordering::SeqCst) + card.tx.q.calls.load(Ordering::SeqCst);
        card.tx.q.doorbell.ring(1);
        card.rx.q.doorbell.ring(0);
        std::thread::sleep(Duration::from_millis(2));
        let mut after = vec![0; 8192];
        bytes.read(ring, &mut after);
        assert!(
            after.iter().all(|byte| *byte == 0x5a),
            "a ring was touched after reset"
        );
        let now = card.rx.q.calls.load(Ordering::SeqCst) + card.tx.q.calls.load(Ordering::SeqCst);
        assert_eq!(now, calls, "a call after reset");
        let features = with(&card.rig, !packed, false, true, false);
        let mut card = Card::new(card.rig, features, 64, 2048);
        card.send_all(&frames[..10]);
        card.rx.wait(10);
        assert_eq!(card.rx.got, frames[..10]);
    }
}

#[test]
fn nothing_is_touched_before_driver_ok_whatever_is_kicked() {
    let rig = Lab::new().open("sim:net");
    rig.negotiate(with(&rig, false, false, false, false));
    let mut rx = Rx::new(&rig, rig.queue(0, 64), 2048);
    let mut tx = Tx::new(&rig, rig.queue(1, 64), 2048);
    rx.post(64);
    tx.send(&[frame(0, 100)]);
    tx.q.doorbell.ring(1);
    rx.quiet();
    assert_eq!(tx.reap(), 0);
    assert_eq!(tx.q.calls.load(Ordering::SeqCst), 0);
    rig.run();
    rx.wait(1);
}

#[test]
fn a_paused_queue_goes_on_where_it_stood_and_nothing_is_lost() {
    for packed in [false, true] {
        let lab = Lab::new();
        let mut card = card(&lab, "sim:net", packed);
        let frames = frames(3000, 1514);
        let mut sent = 0;
        for round in 0..30 {
            while sent < frames.len() * (round + 1) / 30 {
                sent += card.tx.send(&frames[sent..frames.len() * (round + 1) / 30]);
                if round % 3 != 2 {
                    card.rx.poll();
                }
                std::thread::yield_now();
                // A buffer may be missing for the queue that is paused: it is polled.
                card.rx.poll();
            }
            let q = if round % 2 == 0 {
                &mut card.tx.q
            } else {
                &mut card.rx.q
            };
            let state = card.rig.device.stop_queue(q.index, soon()).unwrap();
            std::thread::sleep(Duration::from_micros(100 * round as u64 % 1000));
            q.start(&card.rig, Some(state));
        }
        card.rx.wait(frames.len());
        assert!(card.rx.got == frames, "packed: {packed}");
        assert_eq!(card.rig.total("dropped.rx_no_queue"), 0);
    }
}

// virtio 1.4 §5.1.9.5.6.2.
#[test]
fn a_queue_that_was_reset_starts_afresh_with_another_size() {
    let lab = Lab::new();
    for packed in [false, true] {
        let mut card = card(&lab, "sim:net", packed);
        let all = frames(50, 1514);
        card.send_all(&all);
        card.rx.wait(50);
        card.rig
            .device
            .reset_queue(QueueIndex::new(0), soon())
            .unwrap();
        // What comes for a queue that is reset is dropped, and sending goes on.
        card.tx.send(&all[..20]);
        until("the drop", || {
            card.rig.stat("queue0.dropped.rx_no_queue") == 20
        });
        let mut rx = Rx::new(&card.rig, card.rig.queue(0, 32), 2048);
        rx.post(32);
        card.rx = rx;
        card.send_all(&all);
        card.rx.wait(50);
        assert_eq!(card.rx.got, all);
    }
}

#[test]
fn a_queue_that_is_off_has_no_effects_and_siblings_go_on() {
    let lab = Lab::new();
    let mut card = card(&lab, "sim:net", false);
    let (rx, tx) = (QueueIndex::new(0), QueueIndex::new(1));
    card.rig.device.enable_queue(tx, false).unwrap();
    card.rig.is_obeyed();
    card.tx.send(&frames(10, 500));
    until("discard", || {
        card.rig.stat("queue1.dropped.tx_queue_off") == 10
    });
    card.rx.quiet();
    card.rig.device.enable_queue(tx, true).unwrap();
    card.rig.device.enable_queue(rx, false).unwrap();
    card.rig.is_obeyed();
    card.tx.send(&frames(10, 500));
    until("discard", || {
        card.rig.stat("queue0.dropped.rx_queue_off") == 10
    });
    card.rx.quiet();
    card.rig.device.enable_queue(rx, true).unwrap();
    card.rig.is_obeyed();
    card.send_all(&frames(10, 500));
    card.rx.wait(10);
}

#[test]
fn suspend_stops_everything_twice_is_once_and_resume_serves_the_kicks_that_came() {
    for packed in [false, true] {
        let lab = Lab::new();
        let mut card = card(&lab, "sim:net", packed);
        let frames = frames(400, 1514);
        card.tx.send(&frames[..100]);
        card.rig.device.suspend(soon()).unwrap();
        card.rig.device.suspend(soon()).unwrap();
        let states = [0, 1].map(|q| card.rig.device.queue_state(QueueIndex::new(q)).unwrap());
        card.rx.poll();
        let before = card.rx.got.len();
        card.rx.quiet();
        // Into what room there is.
        let sent = 100 + card.tx.send(&frames[100..128]);
        card.rx.quiet();
        assert_eq!(card.rx.got.len(), before);
        let again = [0, 1].map(|q| card.rig.device.queue_state(QueueIndex::new(q)).unwrap());
        assert_eq!(states, again);
        card.rig.device.resume().unwrap();
        assert!(card.rig.device.resume().is_err(), "it is not suspended");
        card.rx.wait(sent);
        assert_eq!(card.rx.got, frames[..sent]);
    }
}

#[test]
fn the_suspend_bit_of_the_status_suspends_and_driver_ok_resumes() {
    let lab = Lab::new();
    let mut card = card(&lab, "sim:net", true);
    let running = card.rig.status();
    card.rig
        .device
        .write_status((running | Status::SUSPEND).bits())
        .unwrap();
    until("suspend", || card.rig.status().contains(Status::SUSPEND));
    card.tx.send(&[frame(0, 60)]);
    card.rx.quiet();
    card.rig.device.write_status(running.bits()).unwrap();
    card.rx.wait(1);
}

#[test]
fn the_link_goes_down_and_up_with_an_event_and_a_suspended_device_tells_it_later() {
    let lab = Lab::new();
    let mut card = card(&lab, "sim:net", false);
    let name = card.rig.device.info().name.clone();
    let events = card.rig.device.events().unwrap();
    let up = |card: &Card| !card.rig.config().status().is_empty();
    let set = |link| lab.sim.dev_set(&name, Attr::Link(link)).unwrap();
    assert!(up(&card));
    let generation = card.rig.device.config_generation().unwrap();
    set(LinkState::Up);
    assert_eq!(events.try_next(), None, "nothing changed");
    set(LinkState::Down);
    assert_eq!(events.try_next(), Some(Event::Config));
    assert!(!up(&card));
    assert_ne!(card.rig.device.config_generation().unwrap(), generation);
    card.tx.send(&frames(7, 100));
    until("discard", || {
        card.rig.stat("queue1.dropped.tx_link_down") == 7
    });
    card.rig.device.suspend(soon()).unwrap();
    set(LinkState::Up);
    assert_eq!(events.try_next(), None);
    assert!(!up(&card));
    card.rig.device.resume().unwrap();
    assert_eq!(events.try_next(), Some(Event::Config));
    assert!(up(&card));
    card.send_all(&frames(7, 100));
    card.rx.wait(7);
    assert!(lab.sim.dev_set("sim77", Attr::Link(LinkState::Up)).is_err());
}

#[test]
fn a_call_is_replaced_under_traffic_and_the_old_one_is_never_raised_again() {
    let lab = Lab::new();
    let mut card = card(&lab, "sim:net", false);
    let frames = frames(20, 200);
    let mut received = 0;
    for _ in 0..50 {
        let dead = Arc::new(AtomicBool::new(false));
        let count = Arc::new(AtomicU32::new(0));
        let (d, c) = (dead.clone(), count.clone());
        let call = Call::from_fn(move || {
            assert!(!d.load(Ordering::SeqCst), "an old call was raised");
            c.fetch_add(1, Ordering::SeqCst);
        });
        card.rig
            .device
            .replace_call(QueueIndex::new(0), call)
            .unwrap();
        assert!(
            count.load(Ordering::SeqCst) >= 1,
            "the new one is raised once"
        );
        card.rx.q.arm();
        card.send_all(&frames);
        received += frames.len();
        card.rig
            .device
            .replace_call(QueueIndex::new(0), Call::None)
            .unwrap();
        dead.store(true, Ordering::SeqCst);
        card.rx.wait(received);
    }
}

#[test]
fn kicks_by_an_eventfd_are_served_and_none_is_lost_while_another_queue_is_busy() {
    let lab = Lab::new();
    let rig = lab.open("sim:net,queue_pairs=2,port=null");
    rig.negotiate(with(&rig, false, false, false, false).with(net::MQ) - bits::NOTIFICATION_DATA);
    let mut given = Q::new(&rig, 1, 64, None);
    let kick: Arc<OwnedFd> = Arc::new(nix::sys::eventfd::EventFd::new().unwrap().into());
    let config = given.config(None);
    rig.device
        .start_queue(given.index, config, Kick::Given(kick.clone()), given.call())
        .unwrap();
    let mut busy = Tx::new(&rig, rig.queue(3, 64), 2048);
    rig.run();
    let at = rig.alloc(128);
    for _ in 0..200 {
        given.add(&[(at, 64)], &[]).unwrap();
        given.publish();
        nix::unistd::write(&*kick, &1u64.to_ne_bytes()).unwrap();
        let frames = frames(8, 100);
        until("completion", || {
            busy.send(&frames);
            !given.used().is_empty()
        });
    }
    std::thread::sleep(Duration::from_millis(5));
    given.add(&[(at, 64)], &[]).unwrap();
    given.publish();
    nix::unistd::write(&*kick, &1u64.to_ne_bytes()).unwrap();
    given.wait_used(1);
    rig.reset();
    assert_eq!(Arc::strong_count(&kick), 1, "the eventfd is let go of");
}

#[test]
fn one_eventfd_kicks_the_queues_of_several_workers_and_a_file_is_refused() {
    let rig = Lab::new().open("sim:net,queue_pairs=3,workers=2,port=null,poll_us=0");
    rig.negotiate(with(&rig, false, false, false, false).with(net::MQ) - bits::NOTIFICATION_DATA);
    let events = rig.device.events().unwrap();
    let kick: Arc<OwnedFd> = Arc::new(nix::sys::eventfd::EventFd::new().unwrap().into());
    let mut queues: Vec<_> = [1, 3, 5]
        .map(|q| {
            let queue = Q::new(&rig, q, 8, None);
            let kick = Kick::Given(kick.clone());
            rig.device
                .start_queue(queue.index, queue.config(None), kick, queue.call())
                .unwrap();
            queue
        })
        .into();
    let file = Arc::new(tempfile::tempfile().unwrap().into());
    let bad = Q::new(&rig, 0, 8, None);
    let refused =
        rig.device
            .start_queue(bad.index, bad.config(None), Kick::Given(file), bad.call());
    let why = refused.unwrap_err().to_string();
    assert!(why.contains("queue 0"), "{why}");
    rig.run();
    let at = rig.alloc(128);
    for round in 0..100 {
        for queue in &mut queues {
            queue.add(&[(at, 64)], &[]).unwrap();
            queue.publish();
        }
        if round % 2 == 0 {
            // Asleep.
            std::thread::sleep(Duration::from_micros(300));
        }
        nix::unistd::write(&*kick, &1u64.to_ne_bytes()).unwrap();
        for queue in &mut queues {
            queue.wait_used(1);
        }
    }
    assert_eq!(events.try_next(), None);
    rig.reset();
    assert_eq!(Arc::strong_count(&kick), 1, "the eventfd is let go of");
}

#[test]
fn the_configuration_of_a_suspended_device_does_not_change_whatever_the_link_does() {
    let lab = Lab::new();
    let card = card(&lab, "sim:net", false);
    let name = card.rig.device.info().name.clone();
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for link in [LinkState::Down, LinkState::Up] {
                    lab.sim.dev_set(&name, Attr::Link(link)).unwrap();
                }
            }
        });
        let mut changed = 0;
        for _ in 0..300 {
            let device = &card.rig.device;
            device.suspend(soon()).unwrap();
            let before = device.config_generation().unwrap();
            std::thread::sleep(Duration::from_micros(50));
            changed += u32::from(device.config_generation().unwrap() != before);
            device.resume().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        assert_eq!(changed, 0);
    });
    lab.sim.dev_set(&name, Attr::Link(LinkState::Up)).unwrap();
    assert!(!card.rig.config().status().is_empty());
}

#[test]
fn a_driver_that_cannot_see_the_link_is_not_told_of_it() {
    let lab = Lab::new();
    let rig = lab.open("sim:net");
    let features = with(&rig, false, false, false, false) - net::STATUS;
    let card = Card::new(rig, features, 64, 2048);
    let events = card.rig.device.events().unwrap();
    let name = card.rig.device.info().name.clone();
    let generation = card.rig.device.config_generation().unwrap();
    lab.sim.dev_set(&name, Attr::Link(LinkState::Down)).unwrap();
    assert_eq!(events.try_next(), None);
    assert_eq!(card.rig.device.config_generation().unwrap(), generation);
}

#[test]
fn a_restored_state_leaves_the_carrier_alone_and_a_driver_that_saw_another_is_told() {
    let lab = Lab::new();
    let card = card(&lab, "sim:net", false);
    card.rig.device.suspend(soon()).unwrap();
    let state = card.rig.device.save_class_state().unwrap();
    let rig = lab.open("sim:net,link=down");
    let events = rig.device.events().unwrap();
    rig.negotiate(with(&rig, false, false, true, false));
    rig.device.restore_class_state(&state).unwrap();
    assert!(rig.config().status().is_empty(), "still down");
    assert_eq!(events.try_next(), Some(Event::Config));
}

#[test]
fn what_a_call_owns_is_gone_when_the_stop_of_its_queue_is_over() {
    struct Slow(Arc<AtomicBool>);
    impl Drop for Slow {
        fn drop(&mut self) {
            std::thread::sleep(Duration::from_millis(20));
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let rig = Lab::new().open("sim:net");
    rig.negotiate(plain(&rig));
    rig.run();
    let q = Q::new(&rig, 1, 8, None);
    let gone = Arc::new(AtomicBool::new(false));
    let slow = Slow(gone.clone());
    let call = Call::from_fn(move || {
        let _held = &slow;
    });
    rig.device
        .start_queue(q.index, q.config(None), Kick::Taken, call)
        .unwrap();
    rig.device.stop_queue(q.index, soon()).unwrap();
    assert!(gone.load(Ordering::SeqCst));
}

#[test]
fn unmapping_under_traffic_faults_and_memory_is_never_touched_afterwards() {
    for packed in [false, true] {
        let lab = Lab::new();
        let mut card = card(&lab, "sim:net", packed);
        let events = card.rig.device.events().unwrap();
        card.tx.send(&frames(100, 1514));
        card.rig.unmap();
        card.tx.q.doorbell.ring(1);
        let mut before = vec![0; 1 << 20];
        card.rig.bytes().read(0, &mut before);
        let event = events.wait(Deadline::after(SOON)).unwrap();
        let Some(Event::NeedsReset { queue, why }) = event else {
            panic!("{event:?}");
        };
        assert!(queue.is_some() && why.contains("not mapped"), "{why}");
        assert!(card.rig.status().contains(Status::DEVICE_NEEDS_RESET));
        std::thread::sleep(Duration::from_millis(2));
        let mut after = vec![0; 1 << 20];
        card.rig.bytes().read(0, &mut after);
        assert!(before == after, "memory was touched after it was unmapped");
        // After reset it works again.
        card.rig.map();
        card.rig.reset();
        let features = with(&card.rig, packed, false, true, false);
        let mut card = Card::new(card.rig, features, 64, 2048);
        card.send_all(&frames(10, 100));
        card.rx.wait(10);
    }
}

#[test]
fn a_buffer_that_is_not_mapped_comes_back_unused_with_a_fault() {
    let lab = Lab::new();
    let rig = lab.open("sim:net");
    rig.negotiate(with(&rig, false, false, false, false));
    let events = rig.device.events().unwrap();
    let mut rx = rig.queue(0, 8);
    let mut tx = rig.queue(1, 8);
    let at = rig.alloc(4096);
    let far = REGION + 0x1000;
    // Not mapped; reaching past the end; good.
    let bad = rx.add(&[], &[(far, 2048)]).unwrap();
    let half = rx.add(&[], &[(REGION - 50, 2048)]).unwrap();
    let good = rx.add(&[], &[(at, 2048)]).unwrap();
    rx.publish();
    rig.run();
    for _ in 0..3 {
        tx.add(&[(at + 2048, 100)], &[]).unwrap();
    }
    tx.add(&[(far, 100)], &[]).unwrap();
    tx.publish();
    assert_eq!(tx.wait_used(4).len(), 4);
    let done = rx.wait_used(3);
    let got: Vec<_> = done.iter().map(|done| (done.id, done.len)).collect();
    assert_eq!(got, [(bad, 0), (half, 0), (good, 100)]);
    assert_eq!(rig.stat("queue0.dropped.rx_fault"), 2);
    assert_eq!(rig.stat("queue1.dropped.tx_fault"), 1);
    assert!(matches!(
        events.wait(soon()).unwrap(),
        Some(Event::Fault { .. })
    ));
    assert!(!rig.status().contains(Status::DEVICE_NEEDS_RESET));
}

#[test]
fn a_malformed_ring_is_told_once_and_its_siblings_go_on() {
    for packed in [false, true] {
        let lab = Lab::new();
        let rig = lab.open("sim:net,queue_pairs=2");
        rig.negotiate(with(&rig, packed, false, false, false).with(net::MQ));
        let events = rig.device.events().unwrap();
        let mut rx = Rx::new(&rig, rig.queue(0, 16), 2048);
        let mut good = Tx::new(&rig, rig.queue(1, 16), 2048);
        let mut bad = rig.queue(3, 16);
        rx.post(16);
        rig.run();
        let at = rig.alloc(256);
        bad.add(&[(at, 64)], &[]).unwrap();
        let [descriptors, driver, _] = bad.areas().map(|at| at as usize);
        let bytes = rig.bytes();
        if packed {
            // The id is no slot.
            let mut raw = [0; 16];
            bad.publish();
            bad.wait_used(1);
            bad.add(&[(at, 64)], &[]).unwrap();
            bytes.read(descriptors + 16, &mut raw);
            raw[12..14].copy_from_slice(&99u16.to_le_bytes());
            raw[14..16].copy_from_slice(&0x80u16.to_le_bytes());
            bytes.write(descriptors + 16, &raw);
        } else {
            // A jump of the index.
            bytes.write(driver + 2, &500u16.to_le_bytes());
        }
        for _ in 0..3 {
            bad.doorbell.ring(3);
            std::thread::sleep(Duration::from_millis(1));
        }
        let event = events.wait(soon()).unwrap();
        let Some(Event::NeedsReset { queue, why }) = event else {
            panic!("{event:?}");
        };
        assert_eq!(queue, Some(QueueIndex::new(3)));
        assert!(!why.is_empty());
        assert_eq!(events.try_next(), None, "it is told once");
        assert!(rig.status().contains(Status::DEVICE_NEEDS_RESET));
        good.send(&frames(10, 100));
        // And the one that was sent before.
        rx.wait(10 + usize::from(packed));
        rig.reset();
        let features = with(&rig, packed, false, false, false);
        let mut card = Card::new(rig, features, 16, 2048);
        card.send_all(&frames(10, 100));
        card.rx.wait(10);
    }
}

#[test]
fn a_chain_that_loops_latches_and_an_area_in_pieces_is_refused_by_name() {
    let lab = Lab::new();
    let rig = lab.open("sim:net");
    rig.negotiate(with(&rig, false, false, false, false) - bits::INDIRECT_DESC);
    let events = rig.device.events().unwrap();
    let mut tx = rig.queue(1, 16);
    rig.run();
    let at = rig.alloc(256);
    tx.add(&[(at, 64), (at, 64)], &[]).unwrap();
    let table = tx.areas()[0] as usize;
    // Descriptor 0 goes on at itself.
    rig.bytes().write(table + 14, &[0, 0]);
    tx.publish();
    let event = events.wait(soon()).unwrap();
    assert!(matches!(event, Some(Event::NeedsReset { .. })), "{event:?}");
    rig.reset();

    // Two mappings that adjoin for the device and not in this process.
    rig.unmap();
    let half = REGION / 2;
    let map = |first: u64, offset: u64| vdpa_mem::Mapping {
        iova: vdpa_mem::IovaRange::new(vdpa_mem::Iova::new(BASE + first), half).unwrap(),
        memory: rig.memory.clone(),
        offset,
        access: vdpa_mem::Access::Both,
        dirty: None,
    };
    rig.dma.map(vec![map(0, half), map(half, 0)]).unwrap();
    rig.negotiate(with(&rig, false, false, false, false));
    let q = Q::new(&rig, 1, 256, None);
    let mut config = q.config(None);
    config.descriptor = vdpa_mem::Iova::new(BASE + half - 64);
    let refused = rig
        .device
        .start_queue(q.index, config, Kick::Taken, Call::None);
    let why = refused.unwrap_err().to_string();
    assert!(
        why.contains("descriptor area") && why.contains("one mapping"),
        "{why}"
    );
}

#[test]
fn a_device_taken_away_is_gone_for_its_user() {
    let lab = Lab::new();
    let card = card(&lab, "sim:net", false);
    let events = card.rig.device.events().unwrap();
    let name = card.rig.device.info().name.clone();
    lab.sim.dev_del(&name).unwrap();
    assert!(lab.sim.devices().is_empty());
    assert_eq!(events.try_next(), Some(Event::Gone));
    card.tx.q.doorbell.ring(1);
    assert!(card.rig.device.write_status(1).is_err());
    card.rig.close();
    assert!(lab.sim.dev_del(&name).is_err());
}

/// Numbers that look random and are the same every time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

#[test]
fn rings_full_of_rubbish_are_survived_and_a_known_good_frame_comes_back_after_reset() {
    let lab = Lab::new();
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let mut rig = lab.open("sim:net");
    for round in 0..150 {
        let packed = round % 2 == 1;
        // The rings of earlier rounds are gone.
        rig = Rig::new(rig.device);
        let merge = round % 3 == 0;
        rig.negotiate(with(&rig, packed, merge, round % 5 == 0, round % 7 == 0));
        let mut queues: Vec<_> = (0..3).map(|q| rig.queue(q, 32)).collect();
        rig.run();
        let at = rig.alloc(4096);
        for q in &mut queues {
            for _ in 0..16 {
                let piece = (at + numbers.below(2048), numbers.below(2048) as u32 + 1);
                let readable = q.index.get() != 0;
                if readable {
                    q.add(&[piece, piece], &[]);
                } else {
                    q.add(&[], &[piece, piece]);
                }
            }
            let areas = q.areas();
            for _ in 0..numbers.below(40) {
                let area = areas[numbers.below(2) as usize];
                let place = area + numbers.below(if area == areas[0] { 512 } else { 70 });
                let few = numbers.below(3) != 0;
                let value = if few {
                    numbers.below(40)
                } else {
                    numbers.next()
                };
                let len = [1, 2, 4, 8][numbers.below(4) as usize];
                rig.bytes()
                    .write(place as usize, &value.to_le_bytes()[..len]);
            }
            q.publish();
            q.doorbell.ring(q.index.get().into());
        }
        for _ in 0..numbers.below(20_000) {
            std::hint::spin_loop();
        }
        rig.reset();
        if round % 10 == 0 {
            let features = with(&rig, packed, merge, true, false);
            let mut card = Card::new(rig, features, 64, 2048);
            card.send_all(&frames(10, 1000));
            card.rx.wait(10);
            rig = card.rig;
            rig.reset();
        }
    }
}

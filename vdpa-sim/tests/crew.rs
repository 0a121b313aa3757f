//! Devices that share the threads of a crew: how many there are, and that none is disturbed by what befalls another.

mod rig;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rig::*;
use vdpa_core::{Call, Status};

/// The threads of this process whose names begin so.
fn threads(prefix: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.starts_with(prefix)).count()
}

fn card(lab: &Lab, spec: &str) -> Card {
    let rig = lab.open(spec);
    let features = plain(&rig);
    Card::new(rig, features, 64, 2048)
}

/// Sends frames and finds all of them again.
fn exchange(card: &mut Card, count: usize) {
    let before = card.rx.got.len();
    let sent: Vec<_> = (0..count)
        .map(|i| frame(before + i, 60 + i % 900))
        .collect();
    card.send_all(&sent);
    card.rx.wait(before + count);
    assert!(card.rx.got[before..] == sent[..], "frames were altered");
}

#[test]
fn a_crew_serves_many_devices_with_its_threads_and_ends_with_the_last() {
    let lab = Lab::new();
    for workers in [1, 3] {
        let crew = format!("many{workers}");
        let spec = format!("sim:net,crew={crew},workers={workers}");
        let mut cards: Vec<_> = (0..70).map(|_| card(&lab, &spec)).collect();
        // A thread takes its name itself.
        until("the names", || threads(&crew) == workers);
        for round in 1..4 {
            for card in cards.iter_mut().step_by(round) {
                exchange(card, 50);
            }
        }
        // Places in the middle are given again.
        for place in [3, 40, 64] {
            cards[place] = card(&lab, &format!("sim:net,crew={crew}"));
        }
        for card in &mut cards {
            exchange(card, 10);
        }
        assert_eq!(threads(&crew), workers);
        drop(cards);
        until("the end of the threads", || threads(&crew) == 0);
    }
}

#[test]
fn a_crew_has_one_size() {
    let lab = Lab::new();
    let _first = lab.open("sim:net,crew=sized,workers=2");
    let _second = lab.open("sim:net,workers=2,crew=sized");
    let _third = lab.open("sim:net,crew=sized");
    let open = |spec| lab.registry.open(spec).err().unwrap().to_string();
    let said = open("sim:net,crew=sized,workers=3");
    assert!(said.contains("2, as many as crew sized has"), "{said}");
    let said = open("sim:net,crew=");
    assert!(said.contains("crew"), "{said}");
    // No panic for what the system has no name for.
    let _odd = lab.open("sim:net,crew=a\0b");
    // Another is another's business.
    let _other = lab.open("sim:net,crew=other,workers=3");
    until("the names", || threads("sized") == 2);
}

/// Has a card exchange frames without a pause while `disturb` does what it does to its siblings, again and again until
/// the card has been served beside it.
fn beside(lab: &Lab, spec: &str, disturb: impl Fn()) {
    let mut steady = card(lab, spec);
    let over = AtomicBool::new(false);
    let rounds = AtomicUsize::new(0);
    let done = || rounds.load(Ordering::Relaxed);
    std::thread::scope(|s| {
        s.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                exchange(&mut steady, 40);
                rounds.fetch_add(1, Ordering::Relaxed);
            }
        });
        // The machine has other things to do than to run that thread.
        until("the first round", || done() > 0);
        // Not one that is starved for as long as it lasts.
        let (before, begun) = (done(), Instant::now());
        disturb();
        while done() < before + 5 {
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "{} rounds beside it",
                done() - before
            );
            disturb();
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(!steady.rig.status().contains(Status::DEVICE_NEEDS_RESET));
    exchange(&mut steady, 40);
}

#[test]
fn devices_that_come_and_go_do_not_disturb_their_siblings() {
    for workers in [1, 2] {
        let lab = Lab::new();
        let spec = format!("sim:net,crew=doors{workers},workers={workers}");
        beside(&lab, &spec, || {
            for i in 0..60 {
                let mut guest = card(&lab, &spec);
                exchange(&mut guest, 5);
                // In the middle of something.
                guest.tx.send(&[frame(i, 100), frame(i, 200)]);
                if i % 2 == 0 {
                    guest.rig.close();
                }
            }
        });
    }
}

#[test]
fn one_is_reset_paused_and_suspended_while_its_sibling_works() {
    for workers in [1, 2] {
        let lab = Lab::new();
        let spec = format!("sim:net,crew=calm{workers},workers={workers}");
        beside(&lab, &spec, || {
            for i in 0..40 {
                let mut other = card(&lab, &spec);
                other.tx.send(&[frame(i, 100), frame(i, 200)]);
                let device = &other.rig.device;
                match i % 4 {
                    0 => device.reset(soon()).unwrap(),
                    1 => {
                        device.suspend(soon()).unwrap();
                        let (sent, got) = (other.rig.total("packets"), other.rx.got.len());
                        other.tx.send(&[frame(i, 300)]);
                        std::thread::sleep(Duration::from_millis(2));
                        assert_eq!(other.rig.total("packets"), sent, "served while suspended");
                        device.resume().unwrap();
                        other.rx.wait(got + 3);
                    }
                    2 => {
                        let q = other.tx.q.index;
                        device.stop_queue(q, soon()).unwrap();
                    }
                    _ => device.reset_queue(other.tx.q.index, soon()).unwrap(),
                }
            }
        });
    }
}

#[test]
fn a_driver_that_breaks_its_rings_and_rings_without_end_leaves_its_siblings_their_turn() {
    let lab = Lab::new();
    let spec = "sim:net,crew=flood,poll_us=100000";
    beside(&lab, spec, || {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(1) {
            let mut bad = card(&lab, spec);
            let bell = bad.tx.q.doorbell.clone();
            let ringing = AtomicBool::new(true);
            std::thread::scope(|s| {
                s.spawn(|| {
                    while ringing.load(Ordering::Relaxed) {
                        bell.ring(1);
                    }
                });
                bad.tx.send(&[frame(0, 100)]);
                let avail = bad.tx.q.areas()[1];
                // More entries than there are.
                bad.rig.bytes().store_u16(avail as u32 + 2, 0x7fff);
                let begun = Instant::now();
                let verdict = || bad.rig.status().contains(Status::DEVICE_NEEDS_RESET);
                while !verdict() && begun.elapsed() < Duration::from_secs(20) {
                    std::thread::yield_now();
                }
                ringing.store(false, Ordering::Relaxed);
                assert!(verdict());
            });
        }
    });
}

#[test]
fn a_call_that_drops_its_own_device_leaves_its_siblings_alone() {
    let lab = Lab::new();
    let spec = "sim:net,crew=last";
    let mut stays = card(&lab, spec);
    for _ in 0..10 {
        let mut goes = card(&lab, spec);
        let (rig, mut tx) = (goes.rig, goes.tx);
        let index = tx.q.index;
        let device = std::sync::Arc::new(std::sync::Mutex::new(Some(rig.device)));
        let (inside, dropped) = (device.clone(), std::sync::Arc::new(AtomicBool::new(false)));
        let told = dropped.clone();
        let call = Call::from_fn(move || {
            // Not at once, where it is set.
            let own = std::thread::current().name() == Some("last-0");
            if own && let Some(device) = inside.lock().unwrap().take() {
                drop(device);
                told.store(true, Ordering::Release);
            }
        });
        device
            .lock()
            .unwrap()
            .as_ref()
            .unwrap()
            .replace_call(index, call)
            .unwrap();
        tx.q.arm();
        tx.send(&[frame(0, 100)]);
        until("the drop", || dropped.load(Ordering::Acquire));
        exchange(&mut stays, 20);
        goes.rx.got.clear();
    }
    assert_eq!(threads("last"), 1);
}

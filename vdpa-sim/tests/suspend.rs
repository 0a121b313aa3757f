//! Suspend and resume under load: four pairs, three workers, by the owner, by the driver's status bit, and by both.

mod rig;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rig::{Ctrl, Lab, Rig, Rx, Tx, soon, until, with};
use vdpa_core::bits::net;
use vdpa_core::*;

const PAIRS: u16 = 4;
const LIVE: Status = Status::ACKNOWLEDGE
    .union(Status::DRIVER)
    .union(Status::FEATURES_OK)
    .union(Status::DRIVER_OK);

/// A pair's frame: its number, and who sends it.
fn frame(pair: usize, number: u64) -> Vec<u8> {
    let mut bytes = vec![0xff; 14];
    bytes.extend(number.to_le_bytes());
    bytes.resize(60 + (number % 500) as usize, pair as u8);
    bytes
}

/// Sends numbered frames and receives them, without a look at whether the device runs, until told to stop and all have
/// come.
fn pump(pair: usize, rx: &mut Rx, tx: &mut Tx, received: &AtomicU64, stop: &AtomicBool) {
    let (mut sent, mut back) = (0_u64, 0_u64);
    loop {
        let stop = stop.load(Ordering::Relaxed);
        if stop && sent == back {
            return;
        }
        if !stop && sent - back < 200 {
            let frames: Vec<_> = (sent..sent + 16).map(|n| frame(pair, n)).collect();
            sent += tx.send(&frames) as u64;
        } else {
            tx.reap();
        }
        rx.poll();
        for got in rx.got.drain(..) {
            assert!(got == frame(pair, back), "frame {back} of pair {pair}");
            back += 1;
        }
        received.store(back, Ordering::Relaxed);
        std::thread::yield_now();
    }
}

/// What a suspended device leaves as it is: what it writes besides frames, whom it called, what it counted.
fn trace(rig: &Rig, areas: &[(u64, usize)], calls: &dyn Fn() -> u32) -> (Vec<u8>, u32, u64) {
    let mut all = Vec::new();
    for (at, len) in areas {
        let mut bytes = vec![0; *len];
        rig.bytes().read(*at as usize, &mut bytes);
        all.extend(bytes);
    }
    (all, calls(), rig.total("packets"))
}

#[derive(Clone, Copy, PartialEq)]
enum By {
    Owner,
    Driver,
    Both,
}

fn suspend(rig: &Rig, by: By) {
    if by != By::Owner {
        let asked = (LIVE - Status::DRIVER_OK) | Status::SUSPEND;
        rig.device.write_status(asked.bits()).unwrap();
        if by == By::Both {
            rig.device.suspend(soon()).unwrap();
        }
        until("the suspend", || rig.status() == asked);
        // Twice is once.
        rig.device.write_status(asked.bits()).unwrap();
        assert_eq!(rig.status(), asked);
    }
    if by != By::Driver {
        rig.device.suspend(soon()).unwrap();
        rig.device.suspend(soon()).unwrap();
    }
}

fn resume(rig: &Rig, by: By) {
    if by != By::Owner {
        rig.device.write_status(LIVE.bits()).unwrap();
        assert_eq!(rig.status(), LIVE);
    }
    if by != By::Driver {
        rig.device.resume().unwrap();
        assert!(rig.device.resume().is_err(), "it is not suspended");
    }
}

fn under_load(packed: bool, workers: u16) {
    let lab = Lab::new();
    let rig = lab.open(&format!("sim:net,queue_pairs={PAIRS},workers={workers}"));
    let events = rig.device.events().unwrap();
    rig.negotiate(with(&rig, packed, true, true, false).with(net::MQ));
    let mut pairs: Vec<(Rx, Tx)> = (0..PAIRS)
        .map(|pair| {
            let rx = Rx::new(&rig, rig.queue(2 * pair, 64), 400);
            let tx = Tx::new(&rig, rig.queue(2 * pair + 1, 64), 2048);
            (rx, tx)
        })
        .collect();
    let mut ctrl = Ctrl::new(&rig, rig.queue(2 * PAIRS, 16));
    pairs.iter_mut().for_each(|(rx, _)| rx.post(64));
    rig.run();
    assert_eq!(ctrl.command(&[4, 0, PAIRS as u8, 0]), 0);

    // Used rings (split), event words (packed): the device's alone.
    let len = if packed { 4 } else { 6 + 8 * 64 };
    let queues = || pairs.iter().flat_map(|(rx, tx)| [&rx.q, &tx.q]);
    let areas: Vec<_> = queues().map(|q| (q.areas()[2], len)).collect();
    let called: Vec<_> = queues().map(|q| q.calls.clone()).collect();
    let calls = || called.iter().map(|c| c.load(Ordering::SeqCst)).sum();
    let name = rig.device.info().name.clone();
    let link = |link| lab.sim.dev_set(&name, Attr::Link(link)).unwrap();

    let stop = AtomicBool::new(false);
    let received: Vec<AtomicU64> = (0..PAIRS).map(|_| AtomicU64::new(0)).collect();
    std::thread::scope(|s| {
        let drivers: Vec<_> = pairs
            .iter_mut()
            .zip(&received)
            .enumerate()
            .map(|(pair, ((rx, tx), received))| {
                let stop = &stop;
                s.spawn(move || pump(pair, rx, tx, received, stop))
            })
            .collect();
        let all = |least: u64| {
            until("traffic on all pairs", || {
                assert!(!drivers.iter().any(|d| d.is_finished()), "a driver failed");
                received.iter().all(|r| r.load(Ordering::Relaxed) >= least)
            });
        };
        for round in 0..24_u64 {
            all(round * 100);
            let by = [By::Owner, By::Driver, By::Both][round as usize % 3];
            suspend(&rig, by);
            let before = trace(&rig, &areas, &calls);
            let config = rig.config();
            if round % 4 == 0 {
                // Both ways: in the end it is as it was, and the frames arrive.
                link(LinkState::Down);
                link(LinkState::Up);
            }
            // The drivers kick on meanwhile.
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis(2) {
                std::thread::yield_now();
            }
            assert!(trace(&rig, &areas, &calls) == before, "it does something");
            assert_eq!(rig.config(), config);
            assert_eq!(events.try_next(), None);
            if by == By::Both {
                // One of the two does not suffice.
                rig.device.resume().unwrap();
                assert!(trace(&rig, &areas, &calls) == before);
                rig.device.write_status(LIVE.bits()).unwrap();
            } else {
                resume(&rig, by);
            }
            assert_eq!(rig.status(), LIVE);
        }
        all(24 * 100);
        stop.store(true, Ordering::Relaxed);
        drivers.into_iter().for_each(|d| d.join().unwrap());
    });
    rig.close();
}

#[test]
fn a_suspend_under_load_stops_everything_and_loses_nothing_by_split_rings() {
    for workers in [1, 3, 5] {
        under_load(false, workers);
    }
}

#[test]
fn a_suspend_under_load_stops_everything_and_loses_nothing_by_packed_rings() {
    for workers in [1, 3, 5] {
        under_load(true, workers);
    }
}

#[test]
fn a_suspend_is_not_begun_before_the_device_is_live_and_ends_with_a_reset() {
    let lab = Lab::new();
    let rig = lab.open("sim:net");
    assert!(rig.device.suspend(soon()).is_err(), "in reset");
    rig.negotiate(with(&rig, true, false, false, false));
    let early = ((LIVE - Status::DRIVER_OK) | Status::SUSPEND).bits();
    assert!(rig.device.write_status(early).is_err(), "not live");
    assert!(rig.device.suspend(soon()).is_err(), "not live");
    rig.run();
    suspend(&rig, By::Both);
    rig.reset();
    assert!(rig.status().is_empty());
    assert!(rig.device.resume().is_err(), "the reset took it back");
    rig.negotiate(with(&rig, true, false, false, false));
    rig.run();
    assert_eq!(rig.status(), LIVE);
}

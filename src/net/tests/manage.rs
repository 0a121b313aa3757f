//! Devices and queues that are stopped, reset, moved and started again under their driver.

use std::time::Duration;

use vdpa_core::{Event, bits};
use vdpa_mem::Deadline;

use super::super::*;

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(20))
}

fn started(ring: Ring, spec: &str) -> NetDriver {
    let setup = Setup {
        ring,
        pairs: 2,
        queue_size: 16,
        ..Setup::default()
    };
    NetDriver::start(crate::open(spec).unwrap(), &setup).unwrap()
}

/// The card of these tests.
const CARD: &str = "sim:net,queue_pairs=2";

/// Numbers from here on are of frames that may come or not.
const MAY_COME: u8 = 200;

fn frame(number: u8) -> [u8; 60] {
    [number; 60]
}

fn send(driver: &mut NetDriver, pair: u16, numbers: impl Iterator<Item = u8>) {
    let frames: Vec<_> = numbers.map(frame).collect();
    assert_eq!(driver.send(pair, &frames).unwrap(), frames.len());
}

/// The numbers of what arrives at `pair`, until there are `count`.
fn received(driver: &mut NetDriver, pair: u16, count: usize) -> Vec<u8> {
    let mut numbers = Vec::new();
    while numbers.len() < count {
        assert!(driver.wait(pair, soon()).unwrap(), "{numbers:?}");
        let each = |frame: &Frame<'_>| {
            let mut bytes = [0; 60];
            assert_eq!(frame.read(0, &mut bytes), 60);
            assert_eq!(bytes, [bytes[0]; 60]);
            if bytes[0] < MAY_COME {
                numbers.push(bytes[0]);
            }
        };
        driver.receive(pair, each).unwrap();
    }
    numbers
}

fn exchanges(driver: &mut NetDriver, from: u8) {
    for pair in 0..driver.pairs() {
        send(driver, pair, from..from + 3);
        assert_eq!(received(driver, pair, 3), [from, from + 1, from + 2]);
    }
}

#[test]
fn a_driver_goes_on_after_a_suspend_and_at_another_device() {
    for ring in Ring::ALL {
        let mut driver = started(ring, CARD);
        exchanges(&mut driver, 1);
        driver.suspend(soon()).unwrap();
        send(&mut driver, 1, 10..14);
        assert_eq!(driver.receive(1, |_| {}).unwrap(), 0, "it is suspended");
        driver.resume(soon()).unwrap();
        assert_eq!(received(&mut driver, 1, 4), [10, 11, 12, 13]);

        driver.suspend(soon()).unwrap();
        send(&mut driver, 0, 20..24);
        let to = crate::open("sim:net,queue_pairs=2,mac=02:00:00:00:00:07").unwrap();
        let old = driver.move_to(to, soon()).map_err(|(_, e)| e).unwrap();
        assert!(old.status().unwrap().is_empty(), "it is reset");
        old.close(soon()).map_err(|(_, e)| e).unwrap();
        driver.resume(soon()).unwrap();
        assert_eq!(received(&mut driver, 0, 4), [20, 21, 22, 23]);
        exchanges(&mut driver, 30);
        driver.command(Command::Pairs(1)).unwrap();
        driver.stop().unwrap();
    }
}

#[test]
fn a_device_that_cannot_take_over_is_given_back_and_the_old_one_goes_on() {
    let mut driver = started(Ring::Packed, CARD);
    let other = crate::open("sim:blk,size=1M").unwrap();
    driver.suspend(soon()).unwrap();
    let (back, error) = driver.move_to(other, soon()).unwrap_err();
    assert!(error.to_string().contains("block"), "{error}");
    assert!(back.status().unwrap().is_empty());
    driver.resume(soon()).unwrap();
    exchanges(&mut driver, 1);
    let (_, error) = driver
        .move_to(crate::open(CARD).unwrap(), soon())
        .unwrap_err();
    assert!(error.to_string().contains("suspend"), "{error}");
    exchanges(&mut driver, 5);
}

#[test]
fn a_queue_that_was_stopped_goes_on_where_it_stood() {
    for ring in Ring::ALL {
        let mut driver = started(ring, CARD);
        for round in 0..5 {
            exchanges(&mut driver, 1);
            driver.stop_queue(1, Way::Transmit, soon()).unwrap();
            assert!(driver.stop_queue(1, Way::Transmit, soon()).is_err());
            send(&mut driver, 1, 10..14);
            exchanges_at(&mut driver, 0, 40 + round);
            assert_eq!(driver.start_queue(1, Way::Transmit).unwrap(), 0);
            assert_eq!(received(&mut driver, 1, 4), [10, 11, 12, 13]);
            driver.stop_queue(0, Way::Receive, soon()).unwrap();
            assert_eq!(driver.start_queue(0, Way::Receive).unwrap(), 0);
            assert!(driver.start_queue(0, Way::Receive).is_err(), "it runs");
        }
        assert!(driver.stop_queue(2, Way::Receive, soon()).is_err());
        driver.stop().unwrap();
    }
}

fn exchanges_at(driver: &mut NetDriver, pair: u16, number: u8) {
    send(driver, pair, number..number + 1);
    assert_eq!(received(driver, pair, 1), [number]);
}

#[test]
fn a_queue_that_was_reset_begins_afresh_with_all_of_its_buffers() {
    for ring in Ring::ALL {
        let mut driver = started(ring, CARD);
        assert!(driver.features().contains(bits::RING_RESET));
        for _ in 0..5 {
            // Some of them are in the queue when it is reset, and some may be on their way.
            driver.suspend(soon()).unwrap();
            send(&mut driver, 0, MAY_COME..MAY_COME + 5);
            driver.resume(soon()).unwrap();
            driver.reset_queue(0, Way::Transmit, soon()).unwrap();
            let lost = driver.start_queue(0, Way::Transmit).unwrap();
            assert!(lost <= 16, "{lost}");
            driver.reset_queue(0, Way::Receive, soon()).unwrap();
            driver.receive(0, |_| {}).unwrap();
            assert_eq!(driver.start_queue(0, Way::Receive).unwrap(), 0);
            // Every buffer of both queues is there: as many frames as they have, several times over.
            for round in 0..4 {
                send(&mut driver, 0, round * 16..(round + 1) * 16);
                let expected: Vec<u8> = (round * 16..(round + 1) * 16).collect();
                assert_eq!(received(&mut driver, 0, 16), expected);
            }
            exchanges(&mut driver, 9);
        }
        driver.stop().unwrap();
    }
}

#[test]
fn a_queue_is_reset_only_where_that_was_negotiated() {
    let setup = Setup {
        decline: bits::RING_RESET.mask(),
        ..Setup::default()
    };
    let mut driver = NetDriver::start(crate::open("sim:net").unwrap(), &setup).unwrap();
    let error = driver.reset_queue(0, Way::Receive, soon()).unwrap_err();
    assert!(error.to_string().contains("RING_RESET"), "{error}");
    exchanges(&mut driver, 1);
}

#[test]
fn a_queue_that_is_off_discards_what_is_sent() {
    let mut driver = started(Ring::Split, CARD);
    exchanges(&mut driver, 1);
    driver.enable_queue(1, Way::Transmit, false).unwrap();
    assert!(driver.enable_queue(2, Way::Transmit, false).is_err());
    // It takes effect soon: what is sent from some moment on does not come back.
    let by = soon();
    loop {
        send(&mut driver, 1, 7..8);
        let moment = Deadline::after(Duration::from_millis(100));
        if !driver.wait(1, moment).unwrap() {
            break;
        }
        driver.receive(1, |_| {}).unwrap();
        assert!(!by.expired(), "it stays on");
    }
    driver.enable_queue(1, Way::Transmit, true).unwrap();
    loop {
        send(&mut driver, 1, 8..9);
        let moment = Deadline::after(Duration::from_millis(100));
        if driver.wait(1, moment).unwrap() {
            break;
        }
        assert!(!by.expired(), "it stays off");
    }
    assert!(driver.control().events().unwrap().try_next() != Some(Event::Gone));
}

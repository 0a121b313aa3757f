use std::time::Duration;

use vdpa_core::config::Mac;
use vdpa_core::{ErrorKind, bits};
use vdpa_mem::Deadline;

use super::super::*;

fn started(spec: &str, setup: &Setup) -> NetDriver {
    NetDriver::start(crate::open(spec).unwrap(), setup).unwrap()
}

fn frame(len: usize, mark: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + mark) as u8).collect()
}

/// What arrives at any pair until `count` frames did, or none does for long.
fn arrived(driver: &mut NetDriver, count: usize) -> Vec<Vec<u8>> {
    let by = Deadline::after(Duration::from_secs(10));
    let mut frames = Vec::new();
    while frames.len() < count && !by.expired() {
        for pair in 0..driver.pairs() {
            let each = |frame: &Frame<'_>| {
                let mut bytes = Vec::new();
                frame.copy_to(&mut bytes);
                frames.push(bytes);
            };
            driver.receive(pair, each).unwrap();
        }
        std::thread::yield_now();
    }
    frames
}

#[test]
fn frames_of_every_length_cross_buffer_ends() {
    // The ends of receive buffers are somewhere in here, whatever their size.
    let lengths = (14..=9014).step_by(61).chain([9014]);
    let frames: Vec<_> = lengths.map(|len| frame(len, len)).collect();
    for ring in Ring::ALL {
        for spec in ["sim:net,mtu=9000", "sim:net,mtu=9000,features=-MRG_RXBUF"] {
            let setup = Setup {
                ring,
                ..Setup::default()
            };
            let mut driver = started(spec, &setup);
            for frames in frames.chunks(driver.frames_in_flight(9014)) {
                assert_eq!(driver.send(0, frames).unwrap(), frames.len());
                assert!(
                    arrived(&mut driver, frames.len()) == frames,
                    "{spec}, {ring}"
                );
            }
            driver.stop().unwrap();
        }
    }
}

#[test]
fn a_frame_is_read_from_anywhere() {
    let mut driver = started("sim:net,mtu=9000", &Setup::default());
    let sent = frame(9000, 3);
    driver.send(0, [&sent]).unwrap();
    let by = Deadline::after(Duration::from_secs(10));
    let mut got = 0;
    while got == 0 && driver.wait(0, by).unwrap() {
        got = driver
            .receive(0, |frame| {
                for at in (0..9000).step_by(333) {
                    let mut bytes = [0; 3000];
                    let len = frame.read(at, &mut bytes);
                    assert_eq!(bytes[..len], sent[at..(at + 3000).min(9000)]);
                }
                assert_eq!(frame.read(9000, &mut [0; 8]), 0);
                assert_eq!(frame.read(usize::MAX, &mut [0; 8]), 0);
            })
            .unwrap();
    }
    assert_eq!(got, 1);
}

#[test]
fn every_pair_sends_and_receives() {
    let setup = Setup {
        pairs: 4,
        ..Setup::default()
    };
    let mut driver = started("sim:net,queue_pairs=4", &setup);
    assert_eq!(driver.pairs(), 4);
    let frames: Vec<_> = (0..4).map(|pair| frame(100, pair)).collect();
    for (pair, frame) in (0..).zip(&frames) {
        assert_eq!(driver.send(pair, [frame]).unwrap(), 1);
    }
    let mut back = arrived(&mut driver, 4);
    back.sort();
    let mut frames = frames;
    frames.sort();
    assert_eq!(back, frames);
}

#[test]
fn more_pairs_than_there_are_is_misuse() {
    for (spec, pairs) in [("sim:net,queue_pairs=2", 3), ("sim:net", 2), ("sim:net", 0)] {
        let setup = Setup {
            pairs,
            ..Setup::default()
        };
        let error = NetDriver::start(crate::open(spec).unwrap(), &setup).unwrap_err();
        assert!(matches!(error, NetError::Pairs { .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::Misuse);
    }
    let mut driver = started("sim:net", &Setup::default());
    let error = driver.publish(1).unwrap_err();
    assert!(
        matches!(error, NetError::NoPair { pair: 1, count: 1 }),
        "{error}"
    );
}

#[test]
fn frames_that_cannot_be_are_refused_and_the_others_sent() {
    let mut driver = started("sim:net,mtu=1500", &Setup::default());
    for (len, most) in [(13, 1514), (1515, 1514)] {
        let error = driver.send(0, [frame(60, 1), frame(len, 0)]).unwrap_err();
        let expected = NetError::FrameLength {
            len,
            least: 14,
            most,
        };
        assert_eq!(error.to_string(), expected.to_string());
        assert_eq!(arrived(&mut driver, 1), [frame(60, 1)]);
    }
}

#[test]
fn a_full_queue_says_so_and_loses_nothing() {
    for ring in Ring::ALL {
        let setup = Setup {
            ring,
            queue_size: 16,
            ..Setup::default()
        };
        let mut driver = started("sim:net", &setup);
        let frames: Vec<_> = (0..17).map(|mark| frame(60, mark)).collect();
        assert_eq!(driver.send(0, &frames).unwrap(), 16);
        assert!(arrived(&mut driver, 16) == frames[..16], "{ring}");
        // The device is done with the others by now.
        assert_eq!(driver.send(0, &frames[16..]).unwrap(), 1);
        assert!(arrived(&mut driver, 1) == frames[16..], "{ring}");
    }
}

#[test]
fn the_device_receives_what_it_is_told_to() {
    let setup = Setup {
        promiscuous: false,
        ..Setup::default()
    };
    let mut driver = started("sim:net", &setup);
    let other = Mac::new([0x52, 0x54, 0, 0xaa, 0xbb, 0xcc]);
    let to = |mac: Mac| [&mac.octets()[..], &frame(54, 9)].concat();
    let own = driver.ethernet().mac.unwrap();
    driver.send(0, [to(other), to(own)]).unwrap();
    assert_eq!(arrived(&mut driver, 1), [to(own)]);
    driver.command(Command::Address(other)).unwrap();
    driver.send(0, [to(own), to(other)]).unwrap();
    assert_eq!(arrived(&mut driver, 1), [to(other)]);
    driver.command(Command::Promiscuous(true)).unwrap();
    driver.send(0, [to(own), to(other)]).unwrap();
    assert_eq!(arrived(&mut driver, 2), [to(own), to(other)]);
}

#[test]
fn commands_need_their_feature() {
    let mut driver = started("sim:net", &Setup::default());
    let error = driver.command(Command::VlanAdd(7)).unwrap_err();
    assert!(error.to_string().contains("CTRL_VLAN"), "{error}");
    let mut driver = started("sim:net,features=-CTRL_VQ", &Setup::default());
    let error = driver.command(Command::Promiscuous(true)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misuse);
    assert!(error.to_string().contains("CTRL_RX"), "{error}");
}

#[test]
fn each_step_is_told_of_in_order() {
    let mut steps = Vec::new();
    let setup = Setup {
        ring: Ring::Packed,
        ..Setup::default()
    };
    let device = crate::open("sim:net,mtu=2000").unwrap();
    let driver = NetDriver::start_watched(device, &setup, &mut |step| steps.push(step)).unwrap();
    let [
        Step::Offered(offered),
        Step::Accepted(accepted),
        Step::Live {
            features, ethernet, ..
        },
    ] = steps[..]
    else {
        panic!("{steps:?}");
    };
    assert!(offered.contains_all(accepted) && accepted.contains(bits::RING_PACKED));
    assert_eq!((accepted, ethernet), (features, driver.ethernet()));
    assert_eq!(ethernet.mtu, 2000);
}

#[test]
fn a_stopped_device_starts_again_with_other_rings() {
    let mut device = crate::open("sim:net").unwrap();
    for ring in Ring::ALL {
        let setup = Setup {
            ring,
            ..Setup::default()
        };
        let mut driver = NetDriver::start(device, &setup).unwrap();
        driver.send(0, [frame(60, 5)]).unwrap();
        assert_eq!(arrived(&mut driver, 1), [frame(60, 5)]);
        device = driver.stop().unwrap();
    }
}

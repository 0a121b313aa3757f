//! Commands that need a feature of their own, carried out by a simulated card that offers them.

use std::time::Duration;

use vdpa_core::bits::net;
use vdpa_core::config::net::{HashTypes, NetConfig, NetStatus};
use vdpa_core::{Attr, Features, Registry};
use vdpa_mem::Deadline;

use super::super::*;
use super::offloads::{HEADERS, large, segment};

/// The key of the published vectors for the Toeplitz hash.
const KEY: [u8; HASH_KEY_BYTES] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0,
    0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c,
    0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

fn started(registry: &Registry, spec: &str, setup: &Setup) -> NetDriver {
    NetDriver::start(registry.open(spec).unwrap(), setup).unwrap()
}

fn hashing() -> Hashing {
    Hashing {
        types: HashTypes::IPV4 | HashTypes::TCPV4,
        key: KEY,
    }
}

/// What comes back at any pair: by which one, with which hash, how long.
fn returned(
    driver: &mut NetDriver,
    frame: &[u8],
    header: &Header,
) -> Vec<(u16, Option<Hash>, usize)> {
    assert!(driver.push_with(0, header, frame).unwrap());
    driver.publish(0).unwrap();
    let by = Deadline::after(Duration::from_secs(20));
    let mut got = Vec::new();
    while got.is_empty() {
        assert!(driver.wait_any(&[], by).unwrap(), "nothing came back");
        for pair in 0..driver.pairs() {
            let each = |frame: &Frame<'_>| got.push((pair, frame.hash(), frame.len()));
            driver.receive(pair, each).unwrap();
        }
    }
    got
}

#[test]
fn receive_offloads_are_given_up_and_taken_again() {
    let registry = crate::registry();
    let mut driver = started(&registry, "sim:net", &Setup::asking(OFFLOADS));
    let frame = segment(5000);
    assert_eq!(returned(&mut driver, &frame, &large()).len(), 1);
    driver
        .command(Command::GuestOffloads(Features::NONE))
        .unwrap();
    let segments = returned(&mut driver, &frame, &large());
    let mut lens: Vec<_> = segments.iter().map(|(_, _, len)| *len).collect();
    // Those that were not first follow.
    let by = Deadline::after(Duration::from_secs(20));
    let payload = |lens: &[usize]| lens.iter().map(|len| len - HEADERS).sum::<usize>();
    while payload(&lens) < frame.len() - HEADERS {
        assert!(driver.wait_any(&[], by).unwrap(), "only {lens:?}");
        driver.receive(0, |frame| lens.push(frame.len())).unwrap();
    }
    assert_eq!(payload(&lens), frame.len() - HEADERS);
    assert!(lens.iter().all(|len| *len <= 1514), "{lens:?}");
    let all = net::GUEST_CSUM | net::GUEST_TSO4;
    driver.command(Command::GuestOffloads(all)).unwrap();
    assert_eq!(
        returned(&mut driver, &frame, &large()),
        [(0, None, frame.len())]
    );
    let not_negotiated = Command::GuestOffloads(net::GUEST_UFO.mask());
    let error = driver.command(not_negotiated).unwrap_err();
    assert!(matches!(error, NetError::CommandRefused { .. }), "{error}");
}

#[test]
fn hashes_are_those_of_the_published_vectors() {
    let registry = crate::registry();
    let setup = Setup::asking(OFFLOADS.with(net::HASH_REPORT));
    let mut driver = started(&registry, "sim:net", &setup);
    let mut frame = segment(100);
    // 66.9.149.187:2794 to 161.142.100.80:1766.
    frame[26..38].copy_from_slice(&[66, 9, 149, 187, 161, 142, 100, 80, 0x0a, 0xea, 0x06, 0xe6]);
    driver.command(Command::Hash(Box::new(hashing()))).unwrap();
    let hash = Hash {
        value: 0x51cc_c178,
        report: 2,
    };
    assert_eq!(
        returned(&mut driver, &frame, &Header::NONE),
        [(0, Some(hash), frame.len())]
    );
}

#[test]
fn flows_are_spread_as_they_are_told_to() {
    let registry = crate::registry();
    let setup = Setup {
        pairs: 4,
        ..Setup::asking(net::RSS.mask())
    };
    let mut driver = started(&registry, "sim:net,queue_pairs=4", &setup);
    for pair in [3, 1] {
        let spread = Spread::new(hashing(), vec![pair; 128], 0, 4).unwrap();
        driver.command(Command::Spread(Box::new(spread))).unwrap();
        let frame = segment(100);
        assert_eq!(
            returned(&mut driver, &frame, &Header::NONE),
            [(pair, None, frame.len())]
        );
    }
}

#[test]
fn an_announcement_that_was_asked_for_is_acknowledged() {
    let registry = crate::registry();
    let setup = Setup::asking(net::GUEST_ANNOUNCE.mask());
    let mut driver = started(&registry, "sim:net", &setup);
    let asked = |driver: &NetDriver| {
        let mut bytes = [0; NetConfig::SIZE];
        driver.control().read_config(0, &mut bytes).unwrap();
        NetConfig::from_bytes(&bytes)
            .status()
            .contains(NetStatus::ANNOUNCE)
    };
    assert!(!asked(&driver));
    let name = driver.control().device().info().name.clone();
    registry.dev_set("sim", &name, Attr::Announce).unwrap();
    assert!(asked(&driver));
    driver.command(Command::Announced).unwrap();
    assert!(!asked(&driver));
}

#[test]
fn commands_go_on_after_one_that_was_answered_too_late() {
    let registry = crate::registry();
    let mut driver = started(&registry, "sim:net", &Setup::default());
    let commands = driver.commands.as_mut().unwrap();
    let patience = std::mem::replace(&mut commands.patience, Duration::from_millis(1));
    let soon = || Deadline::after(Duration::from_secs(20));
    driver.control().device().suspend(soon()).unwrap();
    for _ in 0..2 {
        let error = driver.command(Command::AllMulticast(true)).unwrap_err();
        assert!(matches!(error, NetError::CommandTimeout { .. }), "{error}");
    }
    driver.control().device().resume().unwrap();
    driver.commands.as_mut().unwrap().patience = patience;
    // The late answer may come at any time.
    let by = soon();
    while let Err(error) = driver.command(Command::AllMulticast(false)) {
        assert!(matches!(error, NetError::CommandTimeout { .. }), "{error}");
        assert!(!by.expired(), "the control queue is of no use any more");
        std::thread::yield_now();
    }
    driver.command(Command::AllMulticast(true)).unwrap();
}

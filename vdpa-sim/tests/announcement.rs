//! What a device says in its network in its driver's place arrives at the others there, byte for byte.

mod rig;

use rig::*;
use vdpa_core::config::Mac;
use vdpa_core::{Attr, ErrorKind, LinkState, MgmtDevice as _};

const GUEST: Mac = Mac::new([0x52, 0x54, 0x00, 0xab, 0xcd, 0xef]);

/// RFC 903's request reverse, as short as there are frames.
fn expected(mac: Mac) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(mac.octets());
    frame.extend([0x80, 0x35, 0x00, 0x01, 0x08, 0x00, 6, 4, 0x00, 0x03]);
    frame.extend(mac.octets());
    frame.extend([0; 4]);
    frame.extend(mac.octets());
    frame.resize(60, 0);
    frame
}

fn card(lab: &Lab, spec: &str) -> Card {
    let rig = lab.open(spec);
    let features = plain(&rig);
    Card::new(rig, features, 64, 2048)
}

#[test]
fn a_card_is_announced_to_everyone_on_a_wire_and_on_a_switch() {
    for port in ["wire:a", "switch:a"] {
        let lab = Lab::new();
        let spec = format!("sim:net,port={port},queue_pairs=2,workers=2");
        let (from, mut to) = (card(&lab, &spec), card(&lab, &spec));
        from.rig.device.announce(GUEST).unwrap();
        to.rx.wait(1);
        assert_eq!(to.rx.got, [expected(GUEST)], "{port}");
        // It is not one of the driver's.
        assert_eq!(from.rig.stat("queue1.packets"), 0);
        let other = Mac::new([0x02, 0, 0, 0, 0, 1]);
        from.rig.device.announce(other).unwrap();
        to.rx.wait(2);
        assert_eq!(to.rx.got[1], expected(other), "{port}");
    }
}

#[test]
fn an_announcement_comes_between_frames_of_the_driver_and_takes_none_away() {
    let lab = Lab::new();
    let (mut from, mut to) = (
        card(&lab, "sim:net,port=wire:a"),
        card(&lab, "sim:net,port=wire:a"),
    );
    let sent = frames(3000, 1514);
    // Nobody receives: all that there is room for is full, or will be soon.
    let mut there = from.tx.send(&sent);
    from.rig.device.announce(GUEST).unwrap();
    until("sending", || {
        there += from.tx.send(&sent[there..]);
        to.rx.poll();
        there == sent.len()
    });
    to.rx.wait(sent.len() + 1);
    let own = expected(GUEST);
    let said = to.rx.got.iter().filter(|frame| **frame == own).count();
    assert_eq!(said, 1);
    to.rx.got.retain(|frame| *frame != own);
    assert_eq!(to.rx.got, sent);
}

#[test]
fn what_cannot_be_announced_is_refused_or_lost_and_not_kept() {
    let lab = Lab::new();
    let (from, mut to) = (
        card(&lab, "sim:net,port=wire:a"),
        card(&lab, "sim:net,port=wire:a"),
    );
    for mac in [Mac::BROADCAST, Mac::default()] {
        let refused = from.rig.device.announce(mac).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Misuse, "{refused}");
    }
    let name = from.rig.device.info().name.clone();
    // Nobody hears it where there is no link, then or later.
    lab.sim.dev_set(&name, Attr::Link(LinkState::Down)).unwrap();
    from.rig.device.announce(GUEST).unwrap();
    from.rig.device.suspend(soon()).unwrap();
    assert!(from.rig.device.announce(GUEST).is_err(), "it stands still");
    from.rig.device.resume().unwrap();
    lab.sim.dev_set(&name, Attr::Link(LinkState::Up)).unwrap();
    from.rig.device.announce(Mac::new([2; 6])).unwrap();
    to.rx.wait(1);
    assert_eq!(to.rx.got, [expected(Mac::new([2; 6]))]);

    from.rig.device.reset(soon()).unwrap();
    let refused = from.rig.device.announce(GUEST).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Misuse, "{refused}");
    let disk = lab.open("sim:blk,size=1M");
    let refused = disk.device.announce(GUEST).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused}");
}

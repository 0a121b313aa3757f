//! Devices on a switch.

#[path = "rig/packets.rs"]
mod packets;
mod rig;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use packets::{Packet, TCP4, TCP6, UDP4, dissect, payload};
use rig::*;
use vdpa_core::MgmtDevice;
use vdpa_sim::offload::TRANSMIT;

/// The address of the station behind card `i`.
fn address(i: usize) -> [u8; 6] {
    [0x52, 0x54, 0, 1, 0, i as u8]
}

const EVERYBODY: [u8; 6] = [0xff; 6];

/// Frame `number` from station `from`; its bytes say which it is.
fn letter(from: usize, to: [u8; 6], number: usize, len: usize) -> Vec<u8> {
    let mut bytes = frame(number, len);
    bytes[..6].copy_from_slice(&to);
    bytes[6..12].copy_from_slice(&address(from));
    bytes
}

fn card(lab: &Lab, i: usize, place: &str) -> Card {
    let rig = lab.open(&format!(
        "sim:net,mac=52:54:00:01:00:{i:02x},port=switch:{place}"
    ));
    // Of both ring formats, with and without merging of buffers.
    let features = with(&rig, i.is_multiple_of(2), i.is_multiple_of(3), true, false);
    Card::new(rig, features, 256, 2048)
}

/// Each one says where it is, and has heard all others.
fn introduce(cards: &mut [Card]) {
    for (i, card) in cards.iter_mut().enumerate() {
        card.send_all(&[letter(i, EVERYBODY, i, 60)]);
    }
    let others = cards.len() - 1;
    for card in cards {
        card.rx.wait(others);
        card.rx.got.clear();
    }
}

#[test]
fn sixteen_devices_talk_to_each_other_at_once() {
    const CARDS: usize = 16;
    const ROUNDS: usize = 40;
    let lab = Lab::new();
    let mut cards: Vec<_> = (0..CARDS).map(|i| card(&lab, i, "a")).collect();
    introduce(&mut cards);
    // A letter to each other one and one to everybody, in rounds, so that no queue is full.
    let arrived = Arc::new(AtomicUsize::new(0));
    std::thread::scope(|s| {
        for (i, card) in cards.iter_mut().enumerate() {
            let arrived = arrived.clone();
            s.spawn(move || {
                for round in 0..ROUNDS {
                    let len = 60 + (round * 97 + i) % 1400;
                    let mut letters: Vec<_> = (0..CARDS)
                        .filter(|to| *to != i)
                        .map(|to| letter(i, address(to), round, len))
                        .collect();
                    letters.push(letter(i, EVERYBODY, round, len));
                    card.send_all(&letters);
                    let all = (round + 1) * (CARDS - 1) * 2;
                    until("arrival of a round", || {
                        card.rx.poll();
                        card.rx.got.len() >= all
                    });
                    arrived.fetch_add(1, Ordering::SeqCst);
                    until("the others", || {
                        card.rx.poll();
                        arrived.load(Ordering::SeqCst) >= (round + 1) * CARDS
                    });
                }
            });
        }
    });
    for (i, card) in cards.iter_mut().enumerate() {
        card.rx.quiet();
        for from in (0..CARDS).filter(|from| *from != i) {
            // In order, each once to it and once to everybody.
            let got: Vec<_> = card
                .rx
                .got
                .iter()
                .filter(|f| f[6..12] == address(from))
                .collect();
            let sent = (0..ROUNDS).flat_map(|round| {
                let len = 60 + (round * 97 + from) % 1400;
                [address(i), EVERYBODY].map(|to| letter(from, to, round, len))
            });
            let sent: Vec<_> = sent.collect();
            let same = got.iter().zip(&sent).take_while(|(a, b)| **a == *b).count();
            assert!(
                got.len() == sent.len() && same == sent.len(),
                "{from} to {i}: {} of {} frames, the first {same} right",
                got.len(),
                sent.len()
            );
        }
        for counter in ["full", "nobody", "back", "vlan", "short"] {
            assert_eq!(
                card.rig.stat(&format!("port.dropped.{counter}")),
                0,
                "{counter}"
            );
        }
        assert_eq!(card.rig.stat("port.flooded"), 0, "all were known");
    }
}

#[test]
fn access_ports_and_trunks_through_the_rings() {
    let lab = Lab::new();
    let mut cards = [
        card(&lab, 0, "a"),
        card(&lab, 1, "a:7"),
        card(&lab, 2, "a:7"),
        card(&lab, 3, "a:8"),
        // Another switch, and a wire of the same name.
        card(&lab, 4, "b"),
    ];
    let wire = lab.open("sim:net,port=wire:a");
    cards[1].send_all(&[letter(1, EVERYBODY, 0, 1514)]);
    cards[0].rx.wait(1);
    cards[2].rx.wait(1);
    let plain = letter(1, EVERYBODY, 0, 1514);
    let tagged = [&plain[..12], &[0x81, 0, 0, 7], &plain[12..]].concat();
    assert!(
        cards[0].rx.got == [tagged],
        "the longest frame, and its tag on top"
    );
    assert!(cards[2].rx.got == [plain]);
    // Back, by the trunk's tag.
    let answer = letter(0, address(1), 1, 300);
    let tagged = [&answer[..12], &[0x81, 0, 0, 7], &answer[12..]].concat();
    cards[0].send_all(std::slice::from_ref(&tagged));
    cards[1].rx.wait(1);
    assert_eq!(cards[1].rx.got, [answer]);
    // What an access port tags is dropped, whatever is in the tag.
    cards[1].send_all(&[tagged]);
    until("the drop", || cards[1].rig.stat("port.dropped.vlan") == 1);
    cards.iter_mut().for_each(|card| card.rx.quiet());
    assert_eq!(cards[4].rig.total("dropped.tx_no_peer"), 0);
    cards[4].send_all(&[letter(4, EVERYBODY, 0, 60)]);
    until("the discard", || {
        cards[4].rig.total("dropped.tx_no_peer") == 1
    });
    wire.close();
}

#[test]
fn packets_that_are_not_finished_keep_what_is_said_of_them_when_their_tags_change() {
    let lab = Lab::new();
    let mut trunk = card(&lab, 0, "a");
    let mut access = card(&lab, 1, "a:7");
    let rig = lab.open("sim:net,port=switch:a:7");
    let features = with(&rig, false, false, true, false) | TRANSMIT;
    let mut sender = Card::new(rig, features, 16, 65_600);
    let long = payload(1, 30_000);
    let send = |card: &mut Card, Packet { header, frame }: Packet| {
        let mut bytes = [0; HEADER];
        bytes[..10].copy_from_slice(&header);
        until("sending", || {
            card.tx.send_with([(bytes, frame.as_slice())].into_iter()) == 1
        });
    };
    let check = |card: &mut Card, tagged: bool| {
        card.rx.wait(30 + 30 + 1);
        for frame in &card.rx.got {
            assert_eq!(frame[12..14] == [0x81, 0], tagged);
        }
        let parts = card.rx.got.iter().map(|frame| dissect(frame).payload);
        let expected = [&long[..], &long, &long[..900]].concat();
        assert!(parts.flatten().eq(expected));
        card.rx.got.clear();
    };
    send(&mut sender, TCP4.packet(&long, 1000));
    send(&mut sender, UDP4.packet(&long, 1000));
    send(&mut sender, TCP6.partial(&long[..900]));
    check(&mut access, false);
    check(&mut trunk, true);
    // From a trunk, with its tag, whose VLAN is 5.
    let rig = lab.open("sim:net,port=switch:a");
    let features = with(&rig, true, false, true, false) | TRANSMIT;
    let mut sender = Card::new(rig, features, 16, 65_600);
    let mut five = card(&lab, 5, "a:5");
    let tagged = |shape| packets::Shape { tags: 1, ..shape };
    send(&mut sender, tagged(TCP4).packet(&long, 1000));
    send(&mut sender, tagged(UDP4).packet(&long, 1000));
    send(&mut sender, tagged(TCP6).partial(&long[..900]));
    check(&mut five, false);
    check(&mut trunk, true);
    access.rx.quiet();
}

#[test]
fn a_device_that_receives_nothing_stops_no_other() {
    let lab = Lab::new();
    let mut a = card(&lab, 0, "a");
    let mut c = card(&lab, 2, "a");
    let rig = lab.open("sim:net,port=switch:a");
    rig.negotiate(with(&rig, false, false, true, false));
    // It says that it is there, and has no buffer.
    let _rx = rig.queue(0, 64);
    let mut tx = Tx::new(&rig, rig.queue(1, 64), 2048);
    rig.run();
    tx.send(&[letter(1, EVERYBODY, 0, 60)]);
    a.rx.wait(1);
    c.send_all(&[letter(2, EVERYBODY, 0, 60)]);
    a.rx.wait(2);
    c.rx.wait(1);
    c.rx.got.clear();
    let mut sent = 0;
    let mut number = 0;
    until("drops at the one that is slow", || {
        let letters = [
            letter(0, address(1), number, 1000),
            letter(0, address(2), number, 1000),
        ];
        number += 1;
        a.send_all(&letters);
        sent += 1;
        c.rx.wait(sent);
        a.rig.stat("port.dropped.full") >= 100
    });
    assert_eq!(c.rig.total("waits"), 0);
    assert!(
        c.rx.got
            .iter()
            .enumerate()
            .all(|(i, f)| *f == letter(0, address(2), i, 1000))
    );
    // Every frame is somewhere: sent, waiting or counted, which is a moment after it has arrived.
    until("the count", || {
        a.rig.stat("queue1.packets") == 2 * sent as u64
    });
}

#[test]
fn a_reset_device_receives_nothing_from_before() {
    let lab = Lab::new();
    let mut a = card(&lab, 0, "a");
    let b = lab.open("sim:net,port=switch:a");
    let features = with(&b, false, false, true, false);
    b.negotiate(features);
    // Without buffers, then reset.
    let _none = b.queue(0, 64);
    b.run();
    a.send_all(&frames(10, 100));
    drained(&mut a);
    // What was given back is at the switch.
    a.rig.is_obeyed();
    b.reset();
    let mut b = Card::new(Rig::new(b.device), features, 64, 2048);
    b.rx.quiet();
    assert!(b.rx.got.is_empty());
    a.send_all(&frames(3, 100));
    b.rx.wait(3);
}

fn drained(card: &mut Card) {
    until("completion", || {
        card.tx.reap();
        card.tx.in_flight() == 0
    });
}

#[test]
fn devices_that_come_and_go_under_traffic_hurt_nobody() {
    let lab = Lab::new();
    let mut cards: Vec<_> = (0..3).map(|i| card(&lab, i, "a")).collect();
    introduce(&mut cards);
    let stop = AtomicUsize::new(0);
    std::thread::scope(|s| {
        let (lab, stop) = (&lab, &stop);
        s.spawn(move || {
            for round in 0..40 {
                let place = ["a", "a:9"][round % 2];
                let mut guest = card(lab, 9, place);
                guest.tx.send(&[
                    letter(9, EVERYBODY, round, 60),
                    letter(9, address(0), round, 60),
                ]);
                if round % 3 == 0 {
                    guest.rig.reset();
                }
                guest.rig.close();
            }
            stop.store(1, Ordering::SeqCst);
        });
        for (i, card) in cards.iter_mut().enumerate() {
            s.spawn(move || {
                let mut number = 0;
                while stop.load(Ordering::SeqCst) == 0 {
                    let to = [address((i + 1) % 3), address(9), EVERYBODY];
                    card.send_all(&to.map(|to| letter(i, to, number, 200)));
                    number += 1;
                    std::thread::yield_now();
                }
            });
        }
    });
    // Nothing is wedged. What is left of before may still come, and leave no room for a letter, which is sent again then.
    let wanted = |to, number| letter(0, to, number, 99);
    for (card, wanted) in [
        (1, wanted(address(1), 77)),
        (1, wanted(EVERYBODY, 78)),
        (2, wanted(EVERYBODY, 79)),
    ] {
        until("the letter", || {
            cards[0].tx.send(std::slice::from_ref(&wanted));
            for card in &mut cards {
                card.rx.poll();
            }
            cards[card].rx.got.contains(&wanted)
        });
    }
    assert_eq!(lab.sim.devices().len(), 3);
}

#[test]
fn what_waits_on_a_switch_is_part_of_the_state_and_comes_when_the_device_goes_on() {
    let lab = Lab::new();
    let mut a = card(&lab, 0, "s");
    let rig = lab.open("sim:net,port=switch:s");
    rig.negotiate(with(&rig, false, true, true, false));
    let mut rx = Rx::new(&rig, rig.queue(0, 64), 2048);
    let _tx = Tx::new(&rig, rig.queue(1, 16), 2048);
    rig.run();
    let sent: Vec<_> = (0..30).map(|i| letter(0, [0xff; 6], i, 100)).collect();
    for frames in sent.chunks(3) {
        a.send_all(frames);
        drained(&mut a);
    }
    // What was given back is at the switch.
    a.rig.is_obeyed();
    for _ in 0..2 {
        rig.device.suspend(soon()).unwrap();
        let state = rig.device.save_class_state().unwrap();
        for frame in &sent {
            assert!(state.windows(frame.len()).any(|bytes| bytes == frame));
        }
        rig.device.resume().unwrap();
    }
    rx.post(64);
    rx.wait(30);
    assert!(rx.got == sent);
}

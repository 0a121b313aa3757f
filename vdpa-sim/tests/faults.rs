//! The faults that a device makes by itself: each does what it says, and a reset ends it.

mod rig;

use std::time::{Duration, Instant};

use rig::*;
use vdpa_core::{Event, Status};
use vdpa_mem::Access;
use vdpa_ring::RingError;

fn card(fault: &str, packed: bool) -> Card {
    let rig = Lab::new().open(&format!("sim:net,fault={fault},seed=7"));
    let features = with(&rig, packed, false, true, false);
    Card::new(rig, features, 64, 2048)
}

/// A packet to everybody, so that both queues have it.
fn packet(card: &Card) -> (u64, u32) {
    let at = card.rig.alloc(64);
    card.rig.bytes().write(at as usize + HEADER, &[0xff; 52]);
    (at, 64)
}

/// What taking from the transmit queue comes to, once it is an error.
fn broken(card: &mut Card) -> RingError {
    let mut error = None;
    until("an error", || {
        error = card.tx.q.try_used().err();
        error.is_some()
    });
    error.unwrap()
}

/// A reset, and everything arrives again: at once, or after another one where the other queue has its fault still to come.
fn recovers(card: Card) {
    let Card { mut rig, .. } = card;
    for _ in 0..3 {
        rig.reset();
        let features = with(&rig, false, false, true, false);
        let mut card = Card::new(rig, features, 64, 2048);
        let sent = frames(20, 1514);
        assert_eq!(card.tx.send(&sent), 20);
        // What the other queue still loses shows as an error, or as a frame that does not come.
        let (mut lost, mut had, mut since) = (false, 0, Instant::now());
        until("arrival or a loss", || {
            lost = card.rx.try_poll().is_err()
                || card.rig.status().contains(Status::DEVICE_NEEDS_RESET)
                || since.elapsed() > Duration::from_secs(1);
            if card.rx.got.len() != had {
                (had, since) = (card.rx.got.len(), Instant::now());
            }
            lost || had == 20
        });
        if !lost {
            assert_eq!(card.rx.got, sent);
            return card.rig.close();
        }
        rig = card.rig;
    }
    panic!("it needs a reset again and again");
}

#[test]
fn a_used_entry_names_what_the_ring_does_not_have() {
    for packed in [false, true] {
        let mut card = card("ring.used_id:@2", packed);
        card.tx.send(&frames(1, 100));
        card.tx.q.wait_used(1);
        card.tx.q.add(&[packet(&card)], &[]).unwrap();
        card.tx.q.publish();
        let error = broken(&mut card);
        assert!(
            matches!(error, RingError::UsedIdOutOfRange { id: 64, .. }),
            "{error}"
        );
        assert!(card.rig.stat("fault.ring.used_id") >= 1);
        recovers(card);
    }
}

#[test]
fn a_used_entry_has_a_length_that_nothing_has_room_for() {
    let mut card = card("ring.used_len:@1", false);
    card.tx.send(&frames(1, 100));
    let error = broken(&mut card);
    assert!(
        matches!(error, RingError::UsedTooLong { writable: 0, .. }),
        "{error}"
    );
    recovers(card);
}

#[test]
fn the_used_index_goes_too_far() {
    let mut split = card("ring.used_index:@1", false);
    split.tx.send(&frames(1, 100));
    let error = broken(&mut split);
    assert!(matches!(error, RingError::UsedJump { .. }), "{error}");
    recovers(split);

    // A packed ring has no index: the slot behind is marked, which a driver looks at that has more in flight.
    let mut packed = card("ring.used_index:@1", true);
    packed.tx.send(&frames(1, 100));
    let mut error = None;
    until("an error", || {
        error = packed.rx.q.try_used().err();
        error.is_some()
    });
    let error = error.unwrap();
    assert!(
        matches!(error, RingError::UsedIdOutOfRange { .. }),
        "{error}"
    );
    recovers(packed);
}

#[test]
fn a_used_entry_comes_twice() {
    for packed in [false, true] {
        let mut card = card("ring.used_doubled:@1", packed);
        card.tx.send(&frames(2, 100));
        let error = broken(&mut card);
        assert!(
            matches!(error, RingError::UsedNotInFlight { .. }),
            "{error}"
        );
        recovers(card);
    }
}

#[test]
fn a_chain_never_comes_back() {
    for packed in [false, true] {
        let mut card = card("ring.used_lost:@3", packed);
        // All sent at once, or one by one: the third is lost.
        let ids: Vec<u16> = (0..8)
            .map(|_| card.tx.q.add(&[packet(&card)], &[]).unwrap())
            .collect();
        card.tx.q.publish();
        let back = card.tx.q.wait_used(7);
        let back: Vec<u16> = back.iter().map(|done| done.id).collect();
        let left: Vec<_> = ids.into_iter().filter(|id| !back.contains(id)).collect();
        assert_eq!(left.len(), 1);
        assert_eq!(card.tx.q.ring.in_flight(), 1);
        recovers(card);
    }
}

#[test]
fn an_area_is_lost_and_the_queue_with_it() {
    let card = card("ring.area_lost:@2", false);
    let events = card.rig.device.events().unwrap();
    let mut card = card;
    card.tx.send(&frames(1, 100));
    card.tx.q.wait_used(1);
    card.tx.q.add(&[packet(&card)], &[]).unwrap();
    card.tx.q.publish();
    until("NEEDS_RESET", || {
        card.rig.status().contains(Status::DEVICE_NEEDS_RESET)
    });
    let Some(Event::NeedsReset { queue, why }) = events.wait(soon()).unwrap() else {
        panic!("it is told");
    };
    assert_eq!(queue.map(|q| q.get()), Some(1));
    assert!(why.contains("device area"), "{why}");
    recovers(card);
}

#[test]
fn buffers_that_cannot_be_reached_come_back_unused() {
    for packed in [false, true] {
        let mut card = card("dma.read:@2+dma.write:@2", packed);
        let events = card.rig.device.events().unwrap();
        let sent = frames(6, 1514);
        // Apart, since one fault a pass is told.
        card.send_all(&sent[..2]);
        card.rx.wait(1);
        card.send_all(&sent[2..]);
        // The second of those sent is not read, and of the others the second has no buffer.
        let expected: Vec<_> = [0, 3, 4, 5].map(|i: usize| sent[i].clone()).into();
        card.rx.wait(4);
        assert_eq!(card.rx.got, expected);
        until("all buffers", || {
            card.tx.reap();
            card.tx.in_flight() == 0
        });
        let mut told = Vec::new();
        for access in [Access::DeviceReads, Access::DeviceWrites] {
            let is = |event: &Event| matches!(event, Event::Fault { want, .. } if *want == access);
            until("both faults", || {
                told.extend(std::iter::from_fn(|| events.try_next()));
                told.iter().any(is)
            });
        }
        assert_eq!(card.rig.stat("fault.dma.read"), 1);
        assert_eq!(card.rig.stat("fault.dma.write"), 1);
        assert!(card.rig.status().contains(Status::DRIVER_OK));
        recovers(card);
    }
}

#[test]
fn one_bit_of_a_packet_is_wrong() {
    let mut card = card("dma.corrupt:/5", true);
    let sent = frames(50, 1514);
    card.send_all(&sent);
    card.rx.wait(50);
    let mut wrong = Vec::new();
    for (i, (sent, got)) in sent.iter().zip(&card.rx.got).enumerate() {
        let bits: u32 = sent
            .iter()
            .zip(got)
            .map(|(a, b)| (a ^ b).count_ones())
            .sum();
        assert!(bits <= 1 && sent.len() == got.len(), "frame {i}");
        if bits == 1 {
            wrong.push(i + 1);
        }
    }
    assert_eq!(wrong, [5, 10, 15, 20, 25, 30, 35, 40, 45, 50]);
    assert_eq!(card.rig.stat("fault.dma.corrupt"), 10);
}

#[test]
fn packets_get_lost_the_same_ones_for_the_same_seed() {
    let life = |seed: u32| {
        let rig = Lab::new().open(&format!("sim:net,fault=packet.lost:0.3,seed={seed}"));
        let features = with(&rig, false, false, true, false);
        let mut card = Card::new(rig, features, 64, 2048);
        let sent = frames(200, 1514);
        card.send_all(&sent);
        // Counted a moment after they are lost.
        until("all", || {
            card.rx.poll();
            card.rx.got.len() as u64 + card.rig.stat("fault.packet.lost") == 200
        });
        let lost = card.rig.stat("fault.packet.lost");
        assert!((30..=90).contains(&lost), "{lost}");
        assert!(card.rx.got.iter().all(|frame| sent.contains(frame)));
        card.rx.got
    };
    assert_eq!(life(7), life(7));
    assert_ne!(life(7), life(8));
}

#[test]
fn faults_of_memory_are_no_page_requests() {
    let rig = Lab::new().open("sim:net,page_requests=on,fault=dma.read:@1,seed=7");
    let events = rig.device.events().unwrap();
    let features = with(&rig, false, false, true, false);
    let mut card = Card::new(rig, features, 64, 2048);
    card.send_all(&frames(3, 200));
    card.rx.wait(2);
    let told = events.wait(soon()).unwrap();
    assert!(matches!(told, Some(Event::Fault { .. })), "{told:?}");
}

#[test]
fn hostile_rates_of_everything_break_nothing_but_the_device() {
    // Whatever comes of it, a reset ends in time and nothing dies.
    for seed in 0..20 {
        let all: Vec<_> = vdpa_sim::faults::NET
            .iter()
            .map(|kind| format!("{}:0.05", kind.name))
            .collect();
        let spec = format!("sim:net,fault={},seed={seed}", all.join("+"));
        let rig = Lab::new().open(&spec);
        let features = with(&rig, seed % 2 == 0, seed % 3 == 0, true, seed % 5 == 0);
        let mut card = Card::new(rig, features, 64, 2048);
        for _ in 0..50 {
            let _sent = card.tx.q.add(&[packet(&card)], &[]);
            card.tx.q.publish();
            if card.tx.q.try_used().is_err() || card.rx.q.try_used().is_err() {
                break;
            }
            std::thread::yield_now();
        }
        card.rig.reset();
        card.rig.close();
    }
}

use std::collections::HashSet;

use super::*;
use crate::frames::BATCH_FRAMES;
use crate::port::Room;

const LONGEST: usize = 1522;

/// A device on a switch, and a station behind it.
struct Device {
    presence: Arc<Presence>,
    port: SwitchPort,
    lanes: Vec<Box<dyn Lane>>,
    station: u8,
}

/// The address of a station.
fn address(station: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, station]
}

const EVERYBODY: [u8; 6] = [0xff; 6];

fn frame(to: [u8; 6], from: u8, tag: Option<u16>, text: &str) -> Vec<u8> {
    let mut frame = [to, address(from)].concat();
    if let Some(vlan) = tag {
        frame.extend([0x81, 0x00]);
        frame.extend(vlan.to_be_bytes());
    }
    frame.extend([0x88, 0xb5]);
    frame.extend(text.as_bytes());
    frame
}

impl Device {
    fn new(switches: &Switches, membership: Membership, station: u8, pairs: u16) -> Self {
        let presence = Presence::new(true);
        presence.set_live(true);
        presence.set_active(pairs);
        let port = switches.take("a", membership, presence.clone(), pairs, LONGEST);
        let port = port.unwrap();
        let lanes = (0..pairs).map(|pair| port.lane(pair)).collect();
        Self {
            presence,
            port,
            lanes,
            station,
        }
    }

    /// Sends frames as one batch. `false`: nobody is there.
    fn send_all(&mut self, pair: usize, frames: &[Vec<u8>]) -> bool {
        let mut batch = FrameBatch::new(LONGEST);
        frames.iter().for_each(|f| assert!(batch.push_frame(f)));
        let lane = &mut self.lanes[pair];
        if lane.room() == Room::Nowhere {
            return false;
        }
        let empty = lane.send(batch);
        assert!(empty.is_empty() && empty.holds(LONGEST));
        true
    }

    fn say(&mut self, to: [u8; 6], text: &str) -> bool {
        let frame = frame(to, self.station, None, text);
        self.send_all(0, &[frame])
    }

    /// What comes to a pair now.
    fn got(&mut self, pair: usize) -> Vec<Vec<u8>> {
        let mut all: Vec<Vec<u8>> = Vec::new();
        loop {
            let before = all.len();
            self.lanes[pair].receive(&mut |batch| {
                all.extend(batch.packets().map(|(_, frame)| frame.to_vec()));
                batch.clear();
            });
            if all.len() == before {
                return all;
            }
        }
    }

    /// The texts of what comes to the first pair now.
    fn heard(&mut self) -> Vec<String> {
        let text = |frame: &Vec<u8>| {
            let tag = if frame[12..14] == [0x81, 0x00] { 4 } else { 0 };
            String::from_utf8(frame[14 + tag..].to_vec()).unwrap()
        };
        self.got(0).iter().map(text).collect()
    }

    fn stat(&self, name: &str) -> u64 {
        let mut found = None;
        self.port.stats(&mut |n, value| {
            if n == format!("port.{name}") {
                found = Some(value);
            }
        });
        found.unwrap()
    }
}

fn devices<const N: usize>(memberships: [Membership; N]) -> (Switches, [Device; N]) {
    let switches = Switches::new();
    let mut station = 0;
    let devices = memberships.map(|membership| {
        station += 1;
        Device::new(&switches, membership, station, 1)
    });
    (switches, devices)
}

const NONE: [&str; 0] = [];

#[test]
fn what_is_unknown_goes_to_all_others_and_what_was_seen_to_one() {
    let (_switches, [mut a, mut b, mut c]) = devices([Membership::Trunk; 3]);
    assert!(a.say(address(2), "who is 2?"));
    assert_eq!(
        (b.heard(), c.heard()),
        (vec!["who is 2?".into()], vec!["who is 2?".into()])
    );
    assert_eq!(a.heard(), NONE, "never back");
    assert_eq!(a.stat("flooded"), 1);
    b.say(address(1), "me");
    assert_eq!((a.heard(), c.heard()), (vec!["me".to_owned()], vec![]));
    a.say(address(2), "you");
    assert_eq!((b.heard(), c.heard()), (vec!["you".to_owned()], vec![]));
    a.say(EVERYBODY, "all");
    a.say([1, 0, 0x5e, 0, 0, 1], "some");
    for other in [&mut b, &mut c] {
        assert_eq!(other.heard(), ["all", "some"]);
    }
    // Two stations behind one device know each other without the switch.
    let from_9 = frame(address(1), 9, None, "");
    a.send_all(0, &[from_9]);
    assert_eq!(a.stat("dropped.back"), 1);
    assert_eq!((a.heard(), b.heard(), c.heard()), (vec![], vec![], vec![]));
}

#[test]
fn a_batch_for_several_is_taken_apart_in_order() {
    let (_switches, [mut a, mut b, mut c]) = devices([Membership::Trunk; 3]);
    a.say(EVERYBODY, "a");
    b.say(EVERYBODY, "b");
    c.say(EVERYBODY, "c");
    let _learnt = (a.heard(), b.heard(), c.heard());
    let frames: Vec<_> = (0..BATCH_FRAMES)
        .map(|i| {
            let to = match i % 4 {
                0 => EVERYBODY,
                i => address(i as u8),
            };
            frame(to, 1, None, &i.to_string())
        })
        .collect();
    a.send_all(0, &frames);
    let of = |station| {
        (0..BATCH_FRAMES)
            .filter(|i| i % 4 == 0 || i % 4 == station)
            .map(|i| i.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!((b.heard(), c.heard()), (of(2), of(3)));
    assert_eq!(a.heard(), NONE);
}

#[test]
fn a_station_that_moves_is_found_where_it_was_seen_last() {
    let (_switches, [mut a, mut b, mut c]) = devices([Membership::Trunk; 3]);
    b.send_all(0, &[frame(EVERYBODY, 9, None, "here")]);
    let _learnt = (a.heard(), c.heard());
    a.say(address(9), "1");
    assert_eq!((b.heard(), c.heard()), (vec!["1".to_owned()], vec![]));
    c.send_all(0, &[frame(EVERYBODY, 9, None, "moved")]);
    let _learnt = (a.heard(), b.heard());
    a.say(address(9), "2");
    assert_eq!((b.heard(), c.heard()), (vec![], vec!["2".to_owned()]));
}

#[test]
fn vlans_are_apart_and_tags_are_for_trunks() {
    use Membership::{Access, Trunk};
    let (_switches, [mut trunk, mut red, mut red2, mut blue, mut other]) =
        devices([Trunk, Access(10), Access(10), Access(20), Trunk]);
    red.say(EVERYBODY, "red");
    assert_eq!(red2.got(0), [frame(EVERYBODY, 2, None, "red")]);
    for trunk in [&mut trunk, &mut other] {
        assert_eq!(trunk.got(0), [frame(EVERYBODY, 2, Some(10), "red")]);
    }
    assert_eq!(blue.got(0), [[0; 0]; 0]);
    // Untagged on a trunk is a VLAN that no access port is in.
    trunk.say(EVERYBODY, "plain");
    assert_eq!(other.heard(), ["plain"]);
    assert_eq!((red.heard(), blue.heard()), (vec![], vec![]));
    // Learnt by VLAN: 2 is known in 10 and not in 20.
    trunk.send_all(
        0,
        &[
            frame(address(2), 1, Some(10), "to red"),
            frame(address(2), 1, Some(20), "to blue"),
        ],
    );
    assert_eq!(red.got(0), [frame(address(2), 1, None, "to red")]);
    assert_eq!(red2.heard(), NONE);
    assert_eq!(blue.heard(), ["to blue"]);
    assert_eq!(other.heard(), ["to blue"], "not known there");
    // And from there back.
    red.say(address(1), "back");
    assert_eq!(trunk.got(0), [frame(address(1), 2, Some(10), "back")]);
    assert_eq!(other.heard(), NONE);
    // A tag at an access port, its own even, and the number that is none.
    red.send_all(
        0,
        &[
            frame(EVERYBODY, 2, Some(20), "x"),
            frame(EVERYBODY, 2, Some(10), "x"),
        ],
    );
    trunk.send_all(0, &[frame(EVERYBODY, 1, Some(4095), "x")]);
    assert_eq!(
        (red.stat("dropped.vlan"), trunk.stat("dropped.vlan")),
        (2, 1)
    );
    for device in [&mut trunk, &mut red, &mut red2, &mut blue, &mut other] {
        assert_eq!(device.heard(), NONE);
    }
    // A VLAN that nobody else is in.
    let mut alone = Device::new(&_switches, Access(30), 6, 1);
    trunk.presence.set_live(false);
    other.presence.set_live(false);
    alone.say(EVERYBODY, "hello?");
    assert_eq!(alone.stat("dropped.nobody"), 1);
}

#[test]
fn one_device_that_is_slow_stops_nobody_and_what_it_misses_is_counted() {
    let (_switches, [mut a, mut slow, mut c]) = devices([Membership::Trunk; 3]);
    slow.say(EVERYBODY, "");
    c.say(EVERYBODY, "");
    let _learnt = (a.heard(), slow.heard(), c.heard());
    let mut heard = 0;
    for _ in 0..500 {
        a.say(address(2), "slow");
        a.say(address(3), "c");
        a.say(EVERYBODY, "all");
        heard += c.heard().len();
    }
    assert_eq!(heard, 1000);
    let got = slow.heard().len() as u64;
    assert!(got >= DEPTH as u64, "{got}");
    assert_eq!(a.stat("dropped.full"), 1000 - got);
    // And goes on.
    a.say(address(2), "now");
    assert_eq!(slow.heard(), ["now"]);
}

#[test]
fn what_was_sent_before_a_reset_or_the_loss_of_the_link_is_not_delivered_after_it() {
    let (_switches, [mut a, mut b, mut c]) = devices([Membership::Trunk; 3]);
    b.say(EVERYBODY, "");
    let _learnt = (a.heard(), c.heard());
    let reset = |device: &Device| {
        device.presence.set_live(false);
        device.presence.set_live(true);
    };
    let flap = |device: &Device| {
        device.presence.set_link(false);
        device.presence.set_link(true);
    };
    for again in [reset as fn(&Device), flap] {
        a.say(address(2), "old");
        a.say(EVERYBODY, "old");
        // Begun, and not ended for want of buffers.
        b.lanes[0].receive(&mut |_| {});
        again(&b);
        assert_eq!(b.heard(), NONE);
        assert_eq!(c.heard(), ["old"]);
        // Taken from the sender's queue before, and sent after.
        let mut batch = FrameBatch::new(LONGEST);
        assert!(batch.push_frame(&frame(address(2), 1, None, "late")));
        assert_eq!(a.lanes[0].room(), Room::Yes);
        again(&b);
        a.lanes[0].send(batch);
        assert_eq!(b.heard(), NONE);
        let _flooded = c.heard();
        a.say(address(2), "new");
        assert_eq!(b.heard(), ["new"]);
    }
    // Not there: somebody else may be it by now.
    b.presence.set_live(false);
    a.say(address(2), "where?");
    assert_eq!(c.heard(), ["where?"]);
    b.presence.set_live(true);
    assert_eq!(b.heard(), NONE);
}

#[test]
fn a_place_that_is_taken_anew_inherits_nothing() {
    let (switches, [mut a, mut b, mut c]) = devices([Membership::Trunk; 3]);
    b.say(EVERYBODY, "");
    let _learnt = (a.heard(), c.heard());
    drop(b);
    let mut d = Device::new(&switches, Membership::Access(5), 4, 1);
    assert_eq!(d.port.own.id.slot, 1, "at the place that became free");
    a.say(address(2), "for the one that is gone");
    assert_eq!((c.heard().len(), d.heard().len()), (1, 0));
    drop((c, d));
    assert!(!a.say(EVERYBODY, "alone"), "nobody else is on it");
    let _e = Device::new(&switches, Membership::Trunk, 5, 1);
    assert!(a.say(EVERYBODY, "not alone"));
    // Another name is another switch.
    let presence = Presence::new(true);
    let other = switches.take("b", Membership::Trunk, presence, 1, LONGEST);
    assert_eq!(other.unwrap().lane(0).room(), Room::Nowhere);
}

#[test]
fn frames_that_are_none_are_counted_and_hurt_nobody() {
    let (_switches, [mut a, mut b]) = devices([Membership::Trunk; 2]);
    let whole = frame(EVERYBODY, 1, Some(3), "");
    let mut frames: Vec<_> = (0..18).map(|len| whole[..len].to_vec()).collect();
    frames.push(frame(EVERYBODY, 1, None, "good"));
    let mut from_all = frame(EVERYBODY, 1, None, "");
    from_all[6] = 0xff;
    frames.push(from_all);
    frames.push(frame([0x01, 0x80, 0xc2, 0, 0, 0], 1, None, ""));
    a.send_all(0, &frames);
    assert_eq!(b.heard(), ["good"]);
    let counts = ["dropped.short", "dropped.source", "dropped.reserved"].map(|name| a.stat(name));
    assert_eq!(counts, [18, 1, 1]);
}

#[test]
fn a_pair_sends_to_the_pair_of_its_number_modulo_those_in_use() {
    let switches = Switches::new();
    let mut a = Device::new(&switches, Membership::Trunk, 1, 5);
    let mut b = Device::new(&switches, Membership::Trunk, 2, 3);
    let to_b = |i: usize| frame(address(2), 1, None, &i.to_string());
    for active in [3_u16, 2, 1, 3] {
        b.presence.set_active(active);
        b.port.changed();
        for pair in 0..5 {
            a.send_all(pair, &[to_b(pair)]);
        }
        for pair in 0..3 {
            let expected: Vec<_> = (0..5)
                .filter(|i| i % usize::from(active) == pair)
                .map(to_b)
                .collect();
            assert_eq!(b.got(pair), expected);
        }
    }
    // What a pair has begun to receive when it is switched off comes to another one, and what waits for it too.
    for i in 0..3 {
        a.send_all(2, &[to_b(i)]);
    }
    b.lanes[2].receive(&mut |_| {});
    b.presence.set_active(1);
    assert_eq!(b.got(2), [[0; 0]; 0]);
    let mut got = b.got(0);
    got.sort();
    assert_eq!(got, [to_b(0), to_b(1), to_b(2)]);
}

#[test]
fn batches_go_round_and_none_is_made_anew() {
    let (_switches, [mut a, mut b, mut c]) = devices([Membership::Trunk; 3]);
    b.say(EVERYBODY, "");
    let _learnt = (a.heard(), c.heard());
    let mut seen = HashSet::new();
    let mut batch = FrameBatch::new(LONGEST);
    for i in 0..1000 {
        let to = if i % 2 == 0 { address(2) } else { EVERYBODY };
        assert!(batch.push_frame(&frame(to, 1, None, "x")));
        assert_eq!(a.lanes[0].room(), Room::Yes);
        batch = a.lanes[0].send(batch);
        for lane in [&mut b.lanes[0], &mut c.lanes[0]] {
            lane.receive(&mut |batch| {
                seen.insert(std::ptr::from_ref(&*batch) as usize);
                batch.clear();
            });
        }
    }
    assert!(seen.len() <= 8, "{} batches for one under way", seen.len());
}

#[test]
fn a_switch_that_is_full_is_named_and_has_room_again_when_a_device_goes() {
    let switches = Switches::default();
    let take = || {
        let presence = Presence::new(true);
        switches.take("full", Membership::Trunk, presence, 1, LONGEST)
    };
    let mut ports: Vec<_> = (0..DEVICES).map(|_| take().unwrap()).collect();
    let why = take().err().unwrap().to_string();
    assert!(why.contains("full") && why.contains("4096"), "{why}");
    ports.pop();
    take().unwrap();
}

//! Which frames go where.

use vdpa_core::Features;
use vdpa_core::bits::net;
use vdpa_sim::offload::Header;

use crate::rig::*;

const WIRE: &str = "sim:net;port=wire:out";

#[test]
fn frames_go_to_the_slice_of_their_address_else_to_the_wire_and_come_back_from_there() {
    let registry = registry();
    let mut far = Card::up(registry.open("sim:net,port=wire:out").unwrap());
    let mut a = slice(&registry, WIRE, 1, "");
    let mut b = slice(&registry, WIRE, 2, "");
    for (number, len) in (0..).zip([60, 61, 1000, 1514]) {
        let one = frame(mac(2), mac(1), number, len);
        a.send(&one);
        assert_eq!(b.receive(1), [one], "to a sibling");
        let out = frame(mac(9), mac(1), number, len);
        a.send(&out);
        assert_eq!(far.receive(1), [out], "to the wire");
        let back = frame(mac(1), mac(9), number, len);
        far.send(&back);
        assert_eq!(a.receive(1), [back], "from the wire");
    }
    // To everybody: once to each, and not to oneself.
    let all = frame(ALL, mac(1), 7, 80);
    a.send(&all);
    assert_eq!(
        (b.receive(1), far.receive(1)),
        (vec![all.clone()], vec![all])
    );
    let all = frame(ALL, mac(9), 8, 80);
    far.send(&all);
    assert_eq!((a.receive(1), b.receive(1)), (vec![all.clone()], vec![all]));
    // To nobody: dropped, and counted.
    far.send(&frame(mac(77), mac(9), 9, 80));
    let last = frame(mac(2), mac(9), 10, 80);
    far.send(&last);
    assert_eq!(b.receive(1), [last]);
    assert!(a.poll().is_empty());
    assert_eq!(a.stat("uplink.unknown"), 1);
}

#[test]
fn a_slice_that_sends_from_another_address_or_with_a_tag_is_refused_and_counted() {
    let registry = registry();
    let mut far = Card::up(registry.open("sim:net,port=wire:out").unwrap());
    let mut a = slice(&registry, WIRE, 1, "");
    let mut b = slice(&registry, WIRE, 2, "");
    let mut c = slice(&registry, WIRE, 3, ",vlan=5");
    let honest = |seq| frame(ALL, mac(1), seq, 80);
    for (seq, spoofed) in (0..).zip([mac(2), mac(9), [0; 6], ALL, [0x03, 0, 0, 0, 0, 1]]) {
        a.send(&frame(ALL, spoofed, seq, 80));
        a.send(&frame(mac(2), spoofed, seq, 80));
    }
    for tag in [0, 5, 6, 0x2005, 0xfff] {
        a.send(&tagged(&honest(50), tag));
    }
    // The other kinds of tags.
    for kind in [0x88a8_u16, 0x9100, 0x9200, 0x9300] {
        let mut other = tagged(&honest(51), 5);
        other[12..14].copy_from_slice(&kind.to_be_bytes());
        a.send(&other);
    }
    a.send(&frame([0x01, 0x80, 0xc2, 0, 0, 0x0e], mac(1), 52, 80));
    a.send(&honest(99));
    assert_eq!(b.before(&honest(99)), Vec::<Vec<u8>>::new());
    assert_eq!(far.before(&honest(99)), Vec::<Vec<u8>>::new());
    assert_eq!(a.stat("port.refused.source"), 10);
    assert_eq!(a.stat("port.refused.vlan"), 9);
    assert_eq!(a.stat("port.refused.reserved"), 1);
    // Nothing of it came to the VLAN that was named.
    c.send(&honest(1));
    let own = tagged(&frame(ALL, mac(3), 2, 80), 6);
    c.send(&own);
    let last = frame(ALL, mac(3), 3, 80);
    c.send(&last);
    assert_eq!(far.before(&tagged(&last, 5)), Vec::<Vec<u8>>::new());
    assert!(c.poll().is_empty());
    assert_eq!(
        (c.stat("port.refused.source"), c.stat("port.refused.vlan")),
        (1, 1)
    );
}

#[test]
fn vlans_do_not_meet_and_have_their_tags_on_the_wire_alone() {
    let registry = registry();
    let mut far = Card::up(registry.open("sim:net,port=wire:out").unwrap());
    // One address in each.
    let mut none = slice(&registry, WIRE, 1, "");
    let mut five = slice(&registry, WIRE, 1, ",vlan=5");
    let mut peer = slice(&registry, WIRE, 2, ",vlan=5");
    let mut six = slice(&registry, WIRE, 2, ",vlan=6");

    let all = frame(ALL, mac(1), 1, 1514);
    five.send(&all);
    assert_eq!(peer.receive(1), std::slice::from_ref(&all));
    assert_eq!(far.receive(1), [tagged(&all, 5)]);
    // The slice of another VLAN with that address is not a sibling: it is looked for on the wire.
    let one = frame(mac(2), mac(1), 2, 60);
    none.send(&one);
    assert_eq!(far.receive(1), std::slice::from_ref(&one));
    five.send(&one);
    assert_eq!(peer.receive(1), [one]);

    let back = frame(mac(2), mac(9), 3, 60);
    far.send(&tagged(&back, 0xe006));
    assert_eq!(six.receive(1), std::slice::from_ref(&back));
    far.send(&tagged(&back, 5));
    assert_eq!(peer.receive(1), [back]);
    let back = frame(mac(1), mac(9), 4, 60);
    // A priority without a VLAN.
    far.send(&tagged(&back, 0x6000));
    assert_eq!(none.receive(1), std::slice::from_ref(&back));
    far.send(&tagged(&back, 7));
    far.send(&tagged(&frame(ALL, mac(9), 5, 60), 7));
    far.send(&tagged(&frame(ALL, mac(9), 6, 60), 5));
    far.send(&frame(ALL, mac(9), 6, 60));
    for card in [&mut none, &mut five, &mut peer] {
        assert_eq!(card.receive(1), [frame(ALL, mac(9), 6, 60)]);
    }
    assert!(
        [&mut none, &mut five, &mut peer, &mut six]
            .into_iter()
            .all(|card| card.poll().is_empty())
    );
}

#[test]
fn a_slice_that_sees_no_tags_is_given_none_of_any_kind_nor_behind_another() {
    let registry = registry();
    let mut far = Card::up(registry.open("sim:net,port=wire:out").unwrap());
    let mut none = slice(&registry, WIRE, 1, "");
    let mut five = slice(&registry, WIRE, 2, ",vlan=5");
    let mut trunk = slice(&registry, WIRE, 3, ",vlan=any");
    let mut all = Vec::new();
    for kind in [0x8100_u16, 0x88a8, 0x9100, 0x9200, 0x9300] {
        for to in [ALL, mac(1), mac(2)] {
            let mut other = tagged(&frame(to, mac(9), 1, 80), 7);
            other[12..14].copy_from_slice(&kind.to_be_bytes());
            // A tag of its own alone is none of 802.1Q's; behind one of these, any is one too many.
            let own = (kind != 0x8100).then(|| other.clone());
            let behind = [0, 0x6000, 5].map(|tag| tagged(&other, tag));
            for sent in own.into_iter().chain(behind) {
                far.send(&sent);
                if to == ALL {
                    all.push(sent.clone());
                }
                // Nor from a slice that may send it: the others' it is on the wire alone.
                let mut ours = sent;
                ours[6..12].copy_from_slice(&mac(3));
                trunk.send(&ours);
                assert_eq!(far.receive(1), [ours]);
            }
        }
    }
    assert_eq!(trunk.before(all.last().unwrap()), all[..all.len() - 1]);
    let last = frame(ALL, mac(9), 2, 80);
    far.send(&last);
    far.send(&tagged(&last, 5));
    assert_eq!(none.before(&last), Vec::<Vec<u8>>::new());
    assert_eq!(five.before(&last), Vec::<Vec<u8>>::new());
}

#[test]
fn a_slice_of_any_vlan_sees_tags_and_sends_them() {
    let registry = registry();
    let mut far = Card::up(registry.open("sim:net,port=wire:out").unwrap());
    let mut trunk = slice(&registry, WIRE, 1, ",vlan=any");
    let mut five = slice(&registry, WIRE, 2, ",vlan=5");
    let one = frame(mac(2), mac(1), 1, 80);
    trunk.send(&tagged(&one, 5));
    assert_eq!(five.receive(1), [one]);
    let all = frame(ALL, mac(2), 2, 80);
    five.send(&all);
    assert_eq!(trunk.receive(1), [tagged(&all, 5)]);
    assert_eq!(far.receive(1), [tagged(&all, 5)]);
    let back = tagged(&frame(mac(1), mac(9), 3, 80), 0x2123);
    far.send(&back);
    assert_eq!(trunk.receive(1), [back]);
    let used = registry.open("mdev:slice,of=sim:net;port=wire:out,mac=02:00:00:00:00:01,vlan=9");
    let text = used.unwrap_err().to_string();
    assert!(
        text.contains("02:00:00:00:00:01") && text.contains("slice0"),
        "{text}"
    );
}

#[test]
fn what_a_wire_gives_back_goes_to_its_sender_alone_and_nobody_has_it_twice() {
    let registry = registry();
    let mut a = slice(&registry, "sim:net;port=loopback", 1, "");
    let mut b = slice(&registry, "sim:net;port=loopback", 2, "");
    for seq in 0..50 {
        let all = frame(ALL, mac(1), seq, 80);
        a.send(&all);
        assert_eq!((a.receive(1), b.receive(1)), (vec![all.clone()], vec![all]));
        // To a sibling: the wire does not see it.
        let one = frame(mac(2), mac(1), seq, 80);
        a.send(&one);
        assert_eq!(b.receive(1), [one]);
        let out = frame(mac(9), mac(1), seq, 80);
        a.send(&out);
        assert_eq!(a.receive(1), [out]);
    }
    assert!(a.poll().is_empty() && b.poll().is_empty());
    assert_eq!(
        (a.stat("uplink.reflected"), a.stat("uplink.arrived")),
        (100, 100)
    );
}

#[test]
fn sixteen_slices_tell_each_other_and_the_wire_apart() {
    const SLICES: u8 = 16;
    const ROUNDS: u32 = 40;
    let registry = registry();
    let mut far = Card::up(registry.open("sim:net,port=wire:out").unwrap());
    let mut cards: Vec<_> = (1..=SLICES)
        .map(|number| slice(&registry, WIRE, number, ""))
        .collect();
    for round in 0..ROUNDS {
        for (number, card) in (1..).zip(&mut cards) {
            let next = mac(number % SLICES + 1);
            let len = 60 + usize::from(number) * 37 + round as usize;
            card.send(&frame(next, mac(number), round, len));
            card.send(&frame(mac(99), mac(number), round, len));
        }
        let out = far.receive(SLICES.into());
        assert_eq!(out.len(), usize::from(SLICES));
        for came in out {
            let number = came[11];
            let len = 60 + usize::from(number) * 37 + round as usize;
            assert_eq!(came, frame(mac(99), mac(number), round, len));
            far.send(&frame(mac(number), mac(99), round, len));
        }
        for (number, card) in (1..).zip(&mut cards) {
            let before = if number == 1 { SLICES } else { number - 1 };
            let mut came = card.receive(2);
            came.sort_by_key(|frame| frame[11]);
            let len = |number: u8| 60 + usize::from(number) * 37 + round as usize;
            let expected = [
                frame(mac(number), mac(before), round, len(before)),
                frame(mac(number), mac(99), round, len(number)),
            ];
            assert_eq!(came, expected);
        }
    }
}

/// The sum of the Internet checksum over these bytes, all of it folded: 0xffff over what has a right one.
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2);
    let words = words.map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)));
    let sum: u32 = words.sum();
    let sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + (sum & 0xffff)) as u16
}

#[test]
fn a_packet_that_is_to_be_cut_is_whole_for_a_sibling_and_on_the_wire_where_each_piece_has_its_tag()
{
    const HEADERS: usize = 14 + 20 + 20;
    const PAYLOAD: usize = 1800;
    const SIZE: usize = 500;
    let registry = registry();
    let mut far = Card::up(registry.open("sim:net,port=wire:out").unwrap());
    let spec = format!("mdev:slice,of={WIRE},mac=02:00:00:00:00:01,vlan=5");
    let offloads = Features::of(&[net::CSUM, net::HOST_TSO4]);
    let mut a = Card::with(registry.open(&spec).unwrap(), true, offloads);
    let mut b = slice(&registry, WIRE, 2, ",vlan=5");
    for (to, tag) in [(mac(2), 0), (mac(9), 4)] {
        let mut packet = frame(to, mac(1), 7, HEADERS + PAYLOAD);
        packet[12..HEADERS].fill(0);
        packet[12..15].copy_from_slice(&[0x08, 0x00, 0x45]);
        packet[16..18].copy_from_slice(&(40 + PAYLOAD as u16).to_be_bytes());
        packet[22..24].copy_from_slice(&[64, 6]);
        packet[26..34].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        packet[46] = 0x50;
        // The pseudo header: both addresses, the protocol, the length.
        let length = (20 + PAYLOAD as u16).to_be_bytes();
        let pseudo = [&packet[26..34], &[0, 6], &length].concat();
        packet[50..52].copy_from_slice(&sum(&pseudo).to_be_bytes());
        let header = Header {
            flags: Header::NEEDS_CSUM,
            gso_type: Header::GSO_TCPV4,
            hdr_len: HEADERS as u16,
            gso_size: SIZE as u16,
            csum_start: 34,
            csum_offset: 16,
        };
        assert!(a.push_packet(header, &packet));
        a.tx.publish();
        let came = if tag == 0 { &mut b } else { &mut far };
        let mut payload = Vec::new();
        for piece in came.receive(PAYLOAD.div_ceil(SIZE)) {
            assert_eq!(piece[..12], packet[..12]);
            if tag != 0 {
                assert_eq!(piece[12..16], [0x81, 0x00, 0, 5]);
            }
            let piece = &piece[tag..];
            assert_eq!(sum(&piece[14..34]), 0xffff, "the header of IPv4");
            let length = (piece.len() as u16 - 34).to_be_bytes();
            let pseudo = [&piece[26..34], &[0, 6], &length, &piece[34..]].concat();
            assert_eq!(sum(&pseudo), 0xffff, "the checksum of TCP");
            let sequence = u32::from_be_bytes(piece[38..42].try_into().unwrap());
            assert_eq!(sequence as usize, payload.len());
            payload.extend_from_slice(&piece[HEADERS..]);
        }
        assert_eq!(payload, packet[HEADERS..]);
    }
    assert!(b.poll().is_empty() && far.poll().is_empty());
}

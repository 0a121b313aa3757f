//! Offloads, statement by statement: what a network device must do with headers, in both directions.
//!
//! The numbers are those of the conformance list; the clauses are virtio 1.4 §5.1.4.1 (148, 149), §5.1.9.4.1 (151 to
//! 162, but for 155: §5.1.9.3.2) and §5.1.9.2 (163 to 168). Packets are built, and what comes is judged, by etherparse.

#[path = "rig/packets.rs"]
mod packets;
mod rig;
#[path = "rig/wires.rs"]
mod wires;

use packets::{Packet, Shape, TCP4, TCP6, UDP4, UDP6, header, payload};
use rig::*;
use vdpa_core::Features;
use vdpa_core::bits::net;
use vdpa_sim::offload::{RECEIVE, TRANSMIT};
use wires::*;

#[test]
fn statement_148_no_received_packet_is_over_the_mtu_but_one_to_be_segmented() {
    for offloads in [RECEIVE, Features::NONE] {
        let mut wire = Wire::with(TRANSMIT, To { offloads, ..WHOLE }, 9000, 1500);
        let small = payload(1, 40_000);
        let good = TCP4.packet(&small, 1460);
        let large = TCP4.packet(&payload(2, 40_000), 1461);
        let frame = UDP4.partial(&payload(3, 1473));
        let end = payload(4, 1472);
        wire.send(&[good, large, frame, UDP4.partial(&end)]);
        let parts = wire.receive(40_000);
        let whole = offloads == RECEIVE;
        assert_eq!(parts.len(), if whole { 1 } else { 28 });
        assert_eq!(wire.receive(1472)[0].1.payload, end);
        assert_eq!(wire.to.rig.stat("queue0.dropped.rx_over_mtu"), 2);
    }
}

#[test]
fn statement_149_a_packet_up_to_the_mtu_is_sent_unfragmented() {
    let mut wire = Wire::new(WHOLE);
    let tagged = Shape { tags: 2, ..TCP6 };
    let cases = [
        (TCP4.frame(&payload(0, 1460)), [0; 10]),
        (
            UDP4.partial(&payload(1, 1472)).frame,
            UDP4.partial(&[]).header,
        ),
        (
            tagged.partial(&payload(2, 1440)).frame,
            tagged.partial(&[]).header,
        ),
    ];
    for (frame, header) in cases {
        wire.send(&[Packet {
            header,
            frame: frame.clone(),
        }]);
        until("arrival", || {
            wire.to.rx.poll();
            !wire.to.rx.got.is_empty()
        });
        assert_eq!(wire.to.rx.got.remove(0), frame);
        wire.to.rx.headers.clear();
    }
    // Of a packet to be segmented the segments count.
    let over = tagged.packet(&payload(3, 20_000), 1441);
    let good = tagged.packet(&payload(3, 20_000), 1440);
    wire.send(&[over, good]);
    assert_eq!(wire.receive(20_000).len(), 1);
    assert_eq!(wire.from.rig.stat("queue1.dropped.tx_over_mtu"), 1);
}

#[test]
fn statement_151_without_mrg_rxbuf_num_buffers_is_1() {
    for (offloads, buffer) in [(RECEIVE, BIG), (RECEIVE, 1700), (Features::NONE, BIG)] {
        let to = To {
            offloads,
            buffer,
            ..WHOLE
        };
        let mut wire = Wire::new(to);
        for parts in wire.exchange(&mixed(30)) {
            assert!(parts.iter().all(|part| field(&part.0, 10) == 1));
        }
    }
}

#[test]
fn statement_152_with_mrg_rxbuf_num_buffers_is_the_buffers_used() {
    for offloads in [RECEIVE, Features::NONE] {
        let mut wire = Wire::new(To { offloads, ..MERGED });
        for parts in wire.exchange(&mixed(30)) {
            for (header, _, frame) in parts {
                let expected = (frame.len() + HEADER).div_ceil(1000);
                assert_eq!(field(&header, 10), expected);
            }
        }
    }
}

#[test]
fn statement_153_all_but_the_last_buffer_are_filled_completely() {
    for packed in [false, true] {
        let mut wire = Wire::new(To { packed, ..MERGED });
        let data = payload(0, 50_500);
        wire.exchange(&[(TCP4.packet(&data, 1460), data)]);
        let used = &wire.to.rx.buffers_used;
        let whole = 50_500 + 54 + HEADER as u32;
        assert_eq!(used.len(), whole.div_ceil(1000) as usize);
        assert!(used[..used.len() - 1].iter().all(|len| *len == 1000));
        assert_eq!(used.iter().sum::<u32>(), whole);
    }
}

#[test]
fn statement_154_the_buffers_of_one_packet_appear_together() {
    for packed in [false, true] {
        let mut wire = Wire::new(To { packed, ..MERGED });
        let packet = TCP6.packet(&payload(0, 60_000), 1400);
        for _ in 0..20 {
            wire.from.tx.send_with(raw(std::slice::from_ref(&packet)));
            let mut seen = Vec::new();
            until("a buffer", || {
                seen = wire.to.rx.q.used();
                !seen.is_empty()
            });
            assert_eq!(
                seen.len(),
                (60_000 + 74 + HEADER).div_ceil(1000),
                "all at once"
            );
            // As many new ones.
            for _ in &seen {
                let at = wire.to.rig.alloc(1000);
                wire.to.rx.q.add(&[], &[(at, 1000)]).unwrap();
            }
            wire.to.rx.q.publish();
        }
    }
}

#[test]
fn statement_155_without_mrg_rxbuf_a_packet_is_in_a_single_descriptor_chain() {
    let lab = Lab::new();
    let rig = lab.open("sim:net");
    rig.negotiate(plain(&rig) | TRANSMIT | RECEIVE);
    let mut rx = rig.queue(0, 64);
    let mut tx = Tx::new(&rig, rig.queue(1, 8), BIG as usize);
    // Pieces of all lengths, a header cut in two among them.
    let at = rig.alloc(80_000);
    let mut pieces = vec![(at, 7), (at + 7, 1), (at + 8, 2000)];
    pieces.extend((0..6).map(|i| (at + 2008 + i * 12_000, 12_000)));
    rx.add(&[], &pieces).unwrap();
    let other = rig.alloc(BIG as usize);
    rx.add(&[], &[(other, BIG)]).unwrap();
    rx.publish();
    rig.run();
    let packet = TCP4.packet(&payload(5, 65_000), 1460);
    tx.send_with(raw(std::slice::from_ref(&packet)));
    let done = rx.wait_used(1);
    assert_eq!(done[0].len as usize, packet.frame.len() + HEADER);
    let mut bytes = vec![0; done[0].len as usize];
    rig.bytes().read(at as usize, &mut bytes);
    assert!(bytes[HEADER..] == packet.frame);
    assert_eq!((bytes[0], bytes[1], bytes[10]), (NEEDS_CSUM, 1, 1));
}

#[test]
fn statement_156_without_guest_csum_flags_are_0() {
    for merge in [false, true] {
        let to = To {
            merge,
            offloads: Features::NONE,
            ..WHOLE
        };
        for parts in Wire::new(to).exchange(&mixed(40)) {
            assert!(parts.iter().all(|part| part.0[..10] == [0; 10]));
        }
    }
}

/// One type with and without its bit; `gso` is what it is told with.
fn only_with(shape: Shape, bit: vdpa_core::FeatureBit, gso: u8) {
    let data = payload(9, 30_000);
    let packet = (shape.packet(&data, 1400), data);
    for (offloads, whole) in [(RECEIVE, true), (RECEIVE.without(bit), false)] {
        let offloads = vdpa_core::graph::close_down(vdpa_core::DeviceType::Net, offloads);
        let parts = Wire::new(To { offloads, ..WHOLE })
            .exchange(std::slice::from_ref(&packet))
            .remove(0);
        assert_eq!(parts.len(), if whole { 1 } else { 22 });
        for (header, ..) in parts {
            assert_eq!(header[1], if whole { gso } else { 0 });
            assert_eq!(header[0], NEEDS_CSUM);
        }
    }
}

#[test]
fn statement_157_tcpv4_only_with_guest_tso4() {
    only_with(TCP4, net::GUEST_TSO4, 1);
}

#[test]
fn statement_157_tcpv6_only_with_guest_tso6() {
    only_with(TCP6, net::GUEST_TSO6, 4);
}

#[test]
fn statement_157_udp_l4_over_ipv4_only_with_guest_uso4() {
    only_with(UDP4, net::GUEST_USO4, 5);
}

#[test]
fn statement_157_udp_l4_over_ipv6_only_with_guest_uso6() {
    only_with(UDP6, net::GUEST_USO6, 5);
}

#[test]
fn statement_157_ecn_only_with_guest_ecn() {
    only_with(Shape { cwr: true, ..TCP4 }, net::GUEST_ECN, 0x81);
    only_with(Shape { cwr: true, ..TCP6 }, net::GUEST_ECN, 0x84);
}

#[test]
fn statement_158_with_none_of_them_gso_none() {
    for offloads in [Features::NONE, Features::of(&[net::GUEST_CSUM])] {
        let mut wire = Wire::new(To { offloads, ..MERGED });
        for parts in wire.exchange(&mixed(40)) {
            assert!(parts.iter().all(|part| part.0[1] == 0));
        }
        assert_eq!(wire.to.rig.stat("queue0.gso"), 0);
    }
}

#[test]
fn statement_159_gso_implies_needs_csum_and_gso_size() {
    let mut whole = 0;
    let mut wire = Wire::new(WHOLE);
    for chunk in mixed(60).chunks(20) {
        for (header, ..) in wire.exchange(chunk).into_iter().flatten() {
            if header[1] != 0 {
                assert_eq!(header[0], NEEDS_CSUM);
                assert!((1200..1400).contains(&field(&header, 4)));
                whole += 1;
            }
        }
    }
    assert!(whole >= 15);
}

#[test]
fn statement_160_with_needs_csum_start_and_offset_complete_to_a_valid_checksum() {
    // `judge` completes every one, and etherparse verifies it.
    let csum = Features::of(&[net::GUEST_CSUM]);
    for offloads in [csum, RECEIVE] {
        let mut partial = 0;
        for parts in Wire::new(To { offloads, ..WHOLE }).exchange(&mixed(60)) {
            partial += parts.iter().filter(|part| part.0[0] == NEEDS_CSUM).count();
        }
        assert!(partial >= 40);
    }
}

#[test]
fn statement_161_data_valid_only_after_validation() {
    // Nobody validates a finished frame: not one that is right, nor one that is wrong, whatever its sender says.
    let mut wire = Wire::new(WHOLE);
    for flags in [0, 2, 0xfe] {
        let mut frame = TCP4.frame(&payload(0, 100));
        for _ in 0..2 {
            let header = header(flags, 0, 0, 0, 0, 0);
            wire.send(&[Packet {
                header,
                frame: frame.clone(),
            }]);
            until("arrival", || {
                wire.to.rx.poll();
                !wire.to.rx.got.is_empty()
            });
            assert_eq!(wire.to.rx.headers.remove(0)[0], 0);
            assert_eq!(wire.to.rx.got.remove(0), frame);
            frame[60] ^= 1;
        }
    }
}

#[test]
fn statement_162_without_rsc_ext_rsc_info_is_clear() {
    let mut wire = Wire::new(WHOLE);
    let mut packets = mixed(30);
    for (packet, _) in &mut packets {
        packet.header[0] |= 4;
    }
    for parts in wire.exchange(&packets) {
        assert!(parts.iter().all(|part| part.0[0] & 4 == 0));
    }
}

#[test]
fn statement_163_unknown_transmit_flag_bits_are_ignored() {
    let mut wire = Wire::new(WHOLE);
    let mut packets = mixed(30);
    for (packet, _) in &mut packets {
        packet.header[0] |= 0xfe;
    }
    wire.exchange(&packets);
    assert_eq!(wire.dropped(), 0);
}

#[test]
fn statement_164_csum_fields_are_unused_when_needs_csum_is_clear() {
    let mut wire = Wire::new(WHOLE);
    let data = payload(0, 200);
    for (start, offset) in [(0, 0), (34, 16), (0xffff, 0xffff), (3, 9000)] {
        let frame = TCP4.frame(&data);
        let header = header(0, 0, 7, 7, start, offset);
        let parts = wire.exchange(&[(
            Packet {
                header,
                frame: frame.clone(),
            },
            data.clone(),
        )]);
        assert_eq!(parts[0][0].2, frame);
        assert_eq!(parts[0][0].0[..10], [0; 10], "and nobody is told of them");
    }
}

#[test]
fn statement_165_hdr_len_is_not_trusted() {
    for offloads in [RECEIVE, Features::NONE] {
        let mut wire = Wire::new(To { offloads, ..WHOLE });
        for hdr_len in [0_u16, 1, 53, 55, 1000, 0xffff] {
            let data = payload(0, 9000);
            let mut packet = TCP4.packet(&data, 1400);
            packet.header[2..4].copy_from_slice(&hdr_len.to_le_bytes());
            let parts = wire.exchange(&[(packet, data)]).remove(0);
            if parts[0].0[1] != 0 {
                assert_eq!(field(&parts[0].0, 2), 54);
            }
        }
    }
}

#[test]
fn statement_166_both_tunnel_bits_are_rejected() {
    let both = [0x61, 0x64, 0x65, 0xe1].map(|gso| with_type(gso, 1));
    dropped("tx_bad_gso_type", &both);
}

#[test]
fn statement_167_a_tunnel_without_needs_csum_or_with_gso_none_is_rejected() {
    let without = [0x21, 0x41, 0x25, 0x45].map(|gso| with_type(gso, 0));
    dropped("tx_bad_gso_type", &without);
    let none =
        [(0x20, 1), (0x40, 1), (0x20, 0), (0x60, 0)].map(|(gso, flags)| with_type(gso, flags));
    dropped("tx_bad_gso_type", &none);
}

#[test]
fn statement_168_what_no_driver_says_alters_nothing() {
    // num_buffers that is not 0, DATA_VALID, and a type that was not negotiated.
    let mut wire = Wire::with(Features::of(&[net::CSUM]), WHOLE, 1500, 1500);
    let data = payload(0, 1000);
    let mut packet = TCP4.partial(&data);
    packet.header[0] |= 2;
    packet.header[1] = 1;
    let mut full = [0xff; HEADER];
    full[..10].copy_from_slice(&packet.header);
    wire.from
        .tx
        .send_with([(full, packet.frame.as_slice())].into_iter());
    let parts = wire.receive(1000);
    assert_eq!(parts[0].2, packet.frame);
    assert_eq!(parts[0].0[..2], [NEEDS_CSUM, 0]);
    assert_eq!(field(&parts[0].0, 10), 1);
}

//! Offloads, from driver to driver: whatever each of them negotiated, nothing is lost or altered.
//!
//! The packets are built, and what comes is judged, by etherparse.

#[path = "rig/packets.rs"]
mod packets;
mod rig;

use packets::{Dissected, Packet, Shape, TCP4, TCP6, UDP4, UDP6, dissect, header, payload};
use rig::*;
use vdpa_core::Features;
use vdpa_core::bits::net;
use vdpa_sim::offload::{LONGEST, RECEIVE, TRANSMIT};
use vdpa_sim::pcap::Capture;

/// A buffer that takes every packet.
const BIG: u32 = (LONGEST + 8 + HEADER) as u32;

const NEEDS_CSUM: u8 = 1;

/// Two cards on a wire.
struct Wire {
    from: Card,
    to: Card,
    offloads: Features,
    mtu: usize,
}

/// How the receiving side is.
#[derive(Clone, Copy)]
struct To {
    packed: bool,
    merge: bool,
    offloads: Features,
    buffer: u32,
    size: u16,
}

const WHOLE: To = To {
    packed: false,
    merge: false,
    offloads: RECEIVE,
    buffer: BIG,
    size: 64,
};

impl Wire {
    fn new(to: To) -> Self {
        Self::with(TRANSMIT, to, 1500, 1500)
    }

    fn with(transmit: Features, to: To, mtu_from: usize, mtu: usize) -> Self {
        let lab = Lab::new();
        let open = |mtu| lab.open(&format!("sim:net,port=wire:a,mtu={mtu}"));
        let rig = open(mtu_from);
        let features = with(&rig, !to.packed, false, true, false) | transmit;
        let from = Card::new(rig, features, 32, BIG);
        let rig = open(mtu);
        let features = with(&rig, to.packed, to.merge, true, false) | to.offloads;
        Self {
            from,
            to: Card::new(rig, features, to.size, to.buffer),
            offloads: to.offloads,
            mtu,
        }
    }

    /// Sends all of them, with `num_buffers` 0, receiving meanwhile.
    fn send(&mut self, packets: &[Packet]) {
        let mut sent = 0;
        until("sending", || {
            sent += self.from.tx.send_with(raw(&packets[sent..]));
            self.to.rx.poll();
            sent == packets.len()
        });
        until("completion", || {
            self.from.tx.reap();
            self.to.rx.poll();
            self.from.tx.in_flight() == 0
        });
    }

    /// What has come of a packet with `payload` bytes of payload: a header and a frame each.
    fn receive(&mut self, payload: usize) -> Vec<([u8; HEADER], Dissected, Vec<u8>)> {
        let mut all = Vec::new();
        let mut bytes = 0;
        until("the packet", || {
            self.to.rx.poll();
            while bytes < payload && !self.to.rx.got.is_empty() {
                let header = self.to.rx.headers.remove(0);
                let frame = self.to.rx.got.remove(0);
                let seen = judge(&header, &frame, self.offloads, self.mtu);
                bytes += seen.payload.len();
                all.push((header, seen, frame));
            }
            bytes >= payload
        });
        assert_eq!(bytes, payload);
        all
    }

    /// Sends packets and expects their payload.
    fn exchange(
        &mut self,
        packets: &[(Packet, Vec<u8>)],
    ) -> Vec<Vec<([u8; HEADER], Dissected, Vec<u8>)>> {
        let only: Vec<_> = packets.iter().map(|(packet, _)| packet.clone()).collect();
        self.send(&only);
        let parts = packets.iter().map(|(_, data)| {
            let parts = self.receive(data.len());
            let got: Vec<u8> = parts
                .iter()
                .flat_map(|part| part.1.payload.clone())
                .collect();
            assert!(got == *data, "{} bytes of payload", data.len());
            parts
        });
        parts.collect()
    }

    fn dropped(&self) -> u64 {
        let mut sum = 0;
        for rig in [&self.from.rig, &self.to.rig] {
            rig.device
                .stats(&mut |name, value| {
                    if name.contains("dropped.") {
                        sum += value;
                    }
                })
                .unwrap();
        }
        sum
    }
}

fn raw(packets: &[Packet]) -> impl Iterator<Item = ([u8; HEADER], &[u8])> {
    packets.iter().map(|packet| {
        let mut full = [0; HEADER];
        full[..10].copy_from_slice(&packet.header);
        (full, packet.frame.as_slice())
    })
}

fn field(header: &[u8; HEADER], at: usize) -> usize {
    usize::from(u16::from_le_bytes([header[at], header[at + 1]]))
}

/// What a receiver may be told, and that it is true: every rule of virtio 1.4 §5.1.9.4.1 on one packet.
fn judge(header: &[u8; HEADER], frame: &[u8], offloads: Features, mtu: usize) -> Dissected {
    let (flags, gso) = (header[0], header[1]);
    let mut frame = frame.to_vec();
    let tagged = frame
        .chunks(4)
        .skip(3)
        .take_while(|tag| tag[0] == 0x81 || tag[0] == 0x88);
    let tags = 4 * tagged.take(2).count();
    assert_eq!(flags & !NEEDS_CSUM, 0, "only NEEDS_CSUM is ever true here");
    assert!(flags == 0 || offloads.contains(net::GUEST_CSUM));
    if gso == 0 {
        assert!(frame.len() <= mtu + 14 + tags, "{} bytes", frame.len());
    } else {
        let v6 = frame[12 + tags] == 0x86;
        let bit = match (gso & 0x7f, v6) {
            (1, false) => net::GUEST_TSO4,
            (4, true) => net::GUEST_TSO6,
            (5, false) => net::GUEST_USO4,
            (5, true) => net::GUEST_USO6,
            other => panic!("{other:?}"),
        };
        assert!(offloads.contains(bit), "type {gso}");
        assert!(gso & 0x80 == 0 || offloads.contains(net::GUEST_ECN));
        assert_eq!(flags, NEEDS_CSUM);
        assert!(field(header, 4) != 0 && field(header, 2) > 34);
        assert!(frame.len() > field(header, 2) + field(header, 4));
    }
    if flags & NEEDS_CSUM != 0 {
        let (start, offset) = (field(header, 6), field(header, 8));
        let mut sum = 0_u64;
        for pair in frame[start..].chunks(2) {
            sum += u64::from(u16::from_be_bytes([
                pair[0],
                pair.get(1).copied().unwrap_or(0),
            ]));
        }
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        let mut checksum = !(sum as u16);
        if checksum == 0 && offset == 6 {
            checksum = 0xffff;
        }
        frame[start + offset..start + offset + 2].copy_from_slice(&checksum.to_be_bytes());
    }
    dissect(&frame)
}

/// Packets of all kinds: each with its payload.
fn mixed(count: usize) -> Vec<(Packet, Vec<u8>)> {
    let kinds = [TCP4, TCP6, UDP4, UDP6];
    (0..count)
        .map(|i| {
            let shape = Shape {
                tags: i / 4 % 3,
                options: i % 3 == 1,
                tcp_options: i % 2 == 1,
                cwr: i % 5 == 0,
                psh: i % 2 == 0,
                fin: i % 7 == 0,
                ..kinds[i % 4]
            };
            let size = 1500 - 160 - 7 * (i % 11);
            match i % 3 {
                0 => {
                    let data = payload(i, 1 + (i * 3671) % 60_000);
                    (shape.packet(&data, size as u16), data)
                }
                1 => {
                    let data = payload(i, 1 + (i * 37) % size);
                    (shape.partial(&data), data)
                }
                _ => {
                    let data = payload(i, 1 + (i * 53) % size);
                    let frame = shape.frame(&data);
                    (
                        Packet {
                            header: [0; 10],
                            frame,
                        },
                        data,
                    )
                }
            }
        })
        .collect()
}

#[test]
fn nothing_is_lost_or_altered_between_drivers_of_any_offloads() {
    let csum = Features::of(&[net::GUEST_CSUM]);
    let sets = [
        Features::NONE,
        csum,
        csum | net::GUEST_TSO4,
        csum | net::GUEST_TSO6,
        csum | net::GUEST_TSO4 | net::GUEST_ECN,
        csum | net::GUEST_USO4,
        csum | net::GUEST_USO6,
        RECEIVE.without(net::GUEST_ECN),
        RECEIVE,
    ];
    let packets = mixed(90);
    for (i, offloads) in sets.into_iter().enumerate() {
        for (merge, buffer, size) in [
            (false, BIG, 64),
            (false, 1700, 64),
            (true, 1526, 128),
            (true, 333, 256),
        ] {
            for packed in [i % 2 == 0, i % 2 == 1] {
                let to = To {
                    packed,
                    merge,
                    offloads,
                    buffer,
                    size,
                };
                let mut wire = Wire::new(to);
                for chunk in packets.chunks(20) {
                    wire.exchange(chunk);
                }
                assert_eq!(wire.dropped(), 0);
                let rig = &wire.to.rig;
                assert_eq!(
                    rig.stat("queue0.gso") == 0,
                    (offloads - csum).is_empty() || buffer == 1700
                );
                // Something is always segmented but where everything is taken whole, if there are buffers.
                let all = offloads == RECEIVE && buffer != 1700;
                assert!(all || rig.stat("queue0.segmented") != 0, "{buffer}");
            }
        }
    }
}

#[test]
fn a_sender_without_offloads_means_nothing_by_its_headers() {
    for transmit in [Features::NONE, Features::of(&[net::CSUM])] {
        let mut wire = Wire::with(transmit, WHOLE, 1500, 1500);
        let data = payload(1, 1000);
        let finished = TCP4.frame(&data);
        let packet = Packet {
            // With CSUM alone the type means nothing, and the rest is honoured.
            header: header(0xfe, 1, 9999, 100, 0xffff, 0xffff),
            frame: finished.clone(),
        };
        wire.send(&[packet]);
        let parts = wire.receive(1000);
        assert_eq!((parts.len(), parts[0].0[0]), (1, 0));
        assert_eq!(parts[0].2, finished);
    }
    // A frame over the MTU is one, whatever its header says.
    let mut wire = Wire::with(Features::of(&[net::CSUM]), WHOLE, 1500, 1500);
    wire.send(&[TCP4.packet(&payload(0, 5000), 1000)]);
    assert_eq!(wire.from.rig.stat("queue1.dropped.tx_over_mtu"), 1);
}

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

/// A card that receives into many small buffers.
const MERGED: To = To {
    merge: true,
    buffer: 1000,
    size: 128,
    ..WHOLE
};

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

/// Sends what is to be dropped, and sees that a good packet still arrives.
fn dropped(counter: &str, packets: &[Packet]) {
    let mut wire = Wire::new(WHOLE);
    wire.send(packets);
    let name = format!("queue1.dropped.{counter}");
    assert_eq!(wire.from.rig.stat(&name), packets.len() as u64, "{counter}");
    assert_eq!(wire.dropped(), packets.len() as u64);
    let data = payload(0, 20_000);
    wire.exchange(&[(TCP4.packet(&data, 1400), data)]);
    wire.to.rx.quiet();
}

fn with_type(gso: u8, flags: u8) -> Packet {
    let mut packet = TCP4.packet(&payload(0, 5000), 1400);
    packet.header[..2].copy_from_slice(&[flags, gso]);
    packet
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

#[test]
fn what_does_not_describe_its_frame_is_dropped_by_its_reason() {
    let change = |change: fn(&mut Packet)| {
        let mut packet = TCP4.packet(&payload(0, 5000), 1400);
        change(&mut packet);
        packet
    };
    dropped(
        "tx_bad_gso_type",
        &[
            with_type(3, 1),
            with_type(2, 1),
            with_type(0x80, 1),
            with_type(6, 1),
        ],
    );
    dropped("tx_gso_without_csum", &[with_type(1, 0), with_type(5, 2)]);
    dropped("tx_bad_gso_size", &[change(|p| p.header[4..6].fill(0))]);
    dropped(
        "tx_bad_csum",
        &[
            change(|p| p.header[6] = 30),
            change(|p| p.header[8] = 6),
            change(|p| p.header[6..8].fill(0xff)),
            Packet {
                header: header(1, 0, 0, 0, 90, 9),
                frame: frame(0, 100),
            },
        ],
    );
    dropped(
        "tx_bad_gso_frame",
        &[
            with_type(4, 1),
            with_type(5, 1),
            change(|p| p.frame.truncate(60)),
            change(|p| p.frame.truncate(40)),
            change(|p| p.frame.truncate(15)),
            change(|p| p.frame[14] = 0x44),
            change(|p| p.frame[20] |= 0x20),
            change(|p| p.frame.push(0)),
        ],
    );
}

#[test]
fn a_packet_that_no_buffers_hold_is_segmented_and_not_dropped() {
    let data = payload(0, 60_000);
    let packet = (TCP4.packet(&data, 1400), data);
    // One buffer each, too small; a ring of too many too small; and a large enough ring with too little in it.
    for (merge, buffer, size, whole) in [
        (false, 1700, 64, 0),
        (true, 1500, 32, 0),
        (true, 1500, 64, 5),
    ] {
        for packed in [false, true] {
            let to = To {
                packed,
                merge,
                buffer,
                size,
                ..WHOLE
            };
            let mut wire = Wire::new(to);
            for _ in 0..5 {
                wire.exchange(std::slice::from_ref(&packet));
            }
            assert_eq!(wire.to.rig.stat("queue0.gso"), whole, "{size} of {buffer}");
            assert_eq!(wire.to.rig.stat("queue0.segmented"), 5 - whole);
            assert_eq!(wire.dropped(), 0);
        }
    }
}

#[test]
fn a_packet_that_waits_for_buffers_in_vain_is_segmented() {
    let lab = Lab::new();
    let rig = lab.open("sim:net,poll_us=1000");
    rig.negotiate(with(&rig, false, true, true, false) | TRANSMIT | RECEIVE);
    let mut rx = Rx::new(&rig, rig.queue(0, 256), 1526);
    let mut tx = Tx::new(&rig, rig.queue(1, 8), BIG as usize);
    // The ring has room for more, but the driver posts no more.
    rx.post(20);
    rig.run();
    let data = payload(0, 60_000);
    let packet = TCP4.packet(&data, 1400);
    tx.send_with(raw(std::slice::from_ref(&packet)));
    let mut got = Vec::new();
    until("the segments", || {
        rx.poll();
        for (header, frame) in rx.headers.drain(..).zip(rx.got.drain(..)) {
            got.extend(judge(&header, &frame, RECEIVE, 1500).payload);
        }
        got.len() == data.len()
    });
    assert!(got == data);
    assert_eq!(rig.stat("queue0.segmented"), 1);
    assert_eq!(rig.total("dropped.rx_buffer_too_small"), 0);
}

#[test]
fn the_longest_packets_come_whole_and_segmented() {
    for (shape, len) in [
        (TCP4, 65_535 - 40),
        (
            Shape {
                v6: true,
                tags: 2,
                ..TCP4
            },
            65_535 - 20,
        ),
        (UDP6, 65_535 - 8),
    ] {
        for to in [
            WHOLE,
            To {
                offloads: Features::NONE,
                ..WHOLE
            },
            MERGED,
        ] {
            let data = payload(7, len);
            let mut wire = Wire::new(to);
            let parts = wire.exchange(&[(shape.packet(&data, 1400), data)]);
            assert_eq!(parts[0].len() == 1, !to.offloads.is_empty());
        }
    }
    // One byte more than there can be.
    let mut wire = Wire::new(WHOLE);
    let rig = &wire.from.rig;
    let out = rig.alloc(LONGEST + 100);
    rig.bytes().zero(out as usize, LONGEST + 100);
    wire.from.tx.q.add(&[(out, BIG + 1)], &[]).unwrap();
    wire.from.tx.q.publish();
    wire.from.tx.q.wait_used(1);
    assert_eq!(wire.from.rig.stat("queue1.dropped.tx_over_mtu"), 1);
}

#[test]
fn a_flood_of_tiny_segments_holds_nobody_up() {
    // 7,500 segments of 8 bytes for each packet, at a driver that takes none of them whole.
    let to = To {
        offloads: Features::NONE,
        buffer: 256,
        ..WHOLE
    };
    let mut wire = Wire::new(to);
    let data = payload(0, 60_000);
    let parts = wire.exchange(&[(TCP4.packet(&data, 8), data.clone())]);
    assert_eq!(parts[0].len(), 7500);
    // Control goes on in between: a reset ends it.
    let packets = vec![TCP4.packet(&data, 8); 8];
    wire.from.tx.send_with(raw(&packets));
    wire.to.rig.reset();
    wire.from.rig.reset();
}

#[test]
fn a_capture_holds_frames_as_on_a_cable() {
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("in.pcap"), dir.path().join("out.pcap"));
    let writer =
        vdpa_sim::pcap::CaptureWriter::create(&input, vdpa_sim::pcap::TimeResolution::Micros);
    writer.unwrap().finish().unwrap();
    let lab = Lab::new();
    let rig = lab.open(&format!(
        "sim:net,port=pcap:{}:{}",
        input.display(),
        output.display()
    ));
    let features = with(&rig, true, false, true, false) | TRANSMIT;
    let mut card = Card::new(rig, features, 32, BIG);
    let packets = mixed(60);
    for chunk in packets.chunks(20) {
        let only: Vec<_> = chunk.iter().map(|(packet, _)| packet.clone()).collect();
        let mut sent = 0;
        until("sending", || {
            sent += card.tx.send_with(raw(&only[sent..]));
            sent == only.len()
        });
    }
    until("completion", || {
        card.tx.reap();
        card.tx.in_flight() == 0
    });
    card.rig.close();
    let mut frames = Capture::open(&output).unwrap();
    for (_, data) in &packets {
        let mut got = Vec::new();
        while got.len() < data.len() {
            let frame = frames.next().unwrap().unwrap().data;
            assert!(frame.len() <= 1522);
            got.extend(dissect(&frame).payload);
        }
        assert!(got == *data);
    }
    assert!(frames.next().is_none());
}

#[test]
fn a_small_packet_costs_a_batch_no_more_room_than_before() {
    // The wire's depth in packets of 1514 bytes is what it was without large ones: 16 batches of 43.
    let lab = Lab::new();
    let mut seen = Vec::new();
    for features in [
        "",
        ",features=+VERSION_1-HOST_TSO4-HOST_TSO6-HOST_ECN-HOST_USO",
    ] {
        let a = lab.open(&format!("sim:net,port=wire:a{features}"));
        let b = lab.open("sim:net,port=wire:a");
        b.negotiate(with(&b, false, false, true, false));
        let _none = b.queue(0, 8);
        b.run();
        a.negotiate(with(&a, false, false, true, false));
        let mut tx = Tx::new(&a, a.queue(1, 256), 2048);
        a.run();
        let all = frames(64, 1514);
        let (mut sent, mut same) = (0, 0);
        while same < 2000 {
            let more = tx.send(&all);
            sent += more;
            same = if more == 0 { same + 1 } else { 0 };
            std::thread::yield_now();
        }
        seen.push(sent);
        a.close();
        b.close();
    }
    let (with, without) = (seen[0], seen[1]);
    assert!(with.abs_diff(without) * 4 < without, "{with} and {without}");
}

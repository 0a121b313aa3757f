use super::*;
use crate::offload::TRANSMIT;
use crate::offload::sample::{self, Packet, Shape, TCP4, TCP6, UDP4, UDP6, header, payload};

fn checked(packet: &Packet, features: Features) -> Result<Header, Refused> {
    check(Header::from_bytes(&packet.header), &packet.frame, features)
}

/// A TCP packet of two segments over IPv4, changed.
fn changed(shape: Shape, change: impl FnOnce(&mut Packet)) -> Result<Header, Refused> {
    let mut packet = shape.packet(&payload(1, 2000), 1000);
    change(&mut packet);
    checked(&packet, TRANSMIT)
}

#[test]
fn what_is_true_is_kept_and_the_rest_replaced() {
    for (shape, gso) in [
        (TCP4, Header::GSO_TCPV4),
        (TCP6, Header::GSO_TCPV6),
        (UDP4, Header::GSO_UDP_L4),
        (UDP6, Header::GSO_UDP_L4),
    ] {
        for (tags, options) in [(0, false), (1, false), (2, false), (0, true), (2, true)] {
            let shape = Shape {
                tags,
                options,
                ..shape
            };
            let expected = Header {
                flags: Header::NEEDS_CSUM,
                gso_type: gso,
                hdr_len: shape.headers() as u16,
                gso_size: 1000,
                csum_start: shape.start() as u16,
                csum_offset: shape.csum_offset() as u16,
            };
            // hdr_len is not trusted, whatever it says.
            for hdr_len in [0, 1, 54, u16::MAX] {
                let found = changed(shape, |packet| {
                    packet.header[2..4].copy_from_slice(&u16::to_le_bytes(hdr_len));
                });
                assert_eq!(found, Ok(expected), "{shape:?}");
            }
            // Nor are flags other than NEEDS_CSUM.
            let found = changed(shape, |packet| packet.header[0] = 0xff);
            assert_eq!(found, Ok(expected));
        }
    }
}

#[test]
fn ecn_is_what_the_tcp_header_says() {
    let reduced = Shape { cwr: true, ..TCP4 };
    for shape in [TCP4, reduced] {
        for said in [0, Header::ECN] {
            let found = changed(shape, |packet| packet.header[1] = said | 1).unwrap();
            assert_eq!(found.gso_type & Header::ECN != 0, shape.cwr);
        }
    }
}

#[test]
fn a_packet_no_longer_than_a_segment_has_nothing_to_be_segmented() {
    for (len, gso) in [(0, false), (999, false), (1000, false), (1001, true)] {
        let packet = TCP4.packet(&payload(0, len), 1000);
        let found = checked(&packet, TRANSMIT).unwrap();
        assert!(found.needs_csum());
        assert_eq!(found.is_gso(), gso, "{len}");
    }
}

#[test]
fn what_was_not_negotiated_means_nothing() {
    let packet = TCP4.packet(&payload(0, 2000), 1000);
    assert_eq!(checked(&packet, Features::NONE), Ok(Header::NONE));
    let partial = checked(&packet, Features::of(&[net::CSUM])).unwrap();
    assert!(partial.needs_csum() && !partial.is_gso());
    for (shape, bit) in [
        (TCP4, net::HOST_TSO4),
        (TCP6, net::HOST_TSO6),
        (UDP4, net::HOST_USO),
        (UDP6, net::HOST_USO),
    ] {
        let packet = shape.packet(&payload(0, 2000), 1000);
        assert!(checked(&packet, net::CSUM | bit).unwrap().is_gso());
        let others = TRANSMIT.without(bit);
        assert_eq!(checked(&packet, others), Err(Refused::Type));
    }
    // Flags alone, which are none that a driver sets.
    for flags in [2, 4, 8, 0xfe] {
        let mut packet = UDP4.partial(&payload(0, 10));
        packet.header[0] = flags;
        assert_eq!(checked(&packet, TRANSMIT), Ok(Header::NONE));
    }
}

#[test]
fn every_lie_has_its_reason() {
    let set = |at: usize, value: u16| {
        move |packet: &mut Packet| {
            packet.header[at..at + 2].copy_from_slice(&value.to_le_bytes());
        }
    };
    let gso = |value: u8| move |packet: &mut Packet| packet.header[1] = value;
    let byte = |at: usize, value: u8| move |packet: &mut Packet| packet.frame[at] = value;
    let cut = |len: usize| move |packet: &mut Packet| packet.frame.truncate(len);
    // Types unknown, not offered, of another transport or another IP.
    for unknown in [2, 3, 6, 7, 0x1f, 0x21, 0x41, 0x61, 0x60, 0x80, 0xff] {
        assert_eq!(changed(TCP4, gso(unknown)), Err(Refused::Type), "{unknown}");
    }
    for other in [Header::GSO_TCPV6, Header::GSO_UDP_L4] {
        assert_eq!(changed(TCP4, gso(other)), Err(Refused::Frame));
    }
    assert_eq!(changed(TCP6, gso(1)), Err(Refused::Frame));
    assert_eq!(changed(UDP6, gso(4)), Err(Refused::Frame));
    assert_eq!(changed(UDP4, gso(0x85)).map(|h| h.gso_type), Ok(5));
    let without = |packet: &mut Packet| packet.header[0] = 2;
    assert_eq!(changed(TCP4, without), Err(Refused::NoChecksum));
    assert_eq!(changed(TCP4, set(4, 0)), Err(Refused::Size));
    for (start, offset) in [
        (33, 16),
        (35, 16),
        (0, 16),
        (34, 15),
        (34, 6),
        (u16::MAX, 16),
    ] {
        let at = |packet: &mut Packet| {
            set(6, start)(packet);
            set(8, offset)(packet);
        };
        assert_eq!(changed(TCP4, at), Err(Refused::Checksum));
    }
    // Headers cut off, at every byte; and lengths that are not the frame's.
    for shape in [TCP4, TCP6, UDP4, UDP6] {
        for tags in 0..=2 {
            let shape = Shape {
                tags,
                options: true,
                ..shape
            };
            let whole = shape.headers() + 2000;
            for len in (0..shape.headers() + 2).chain([whole - 1]) {
                assert_eq!(changed(shape, cut(len)), Err(Refused::Frame), "{len}");
            }
            let longer = |packet: &mut Packet| packet.frame.push(0);
            assert_eq!(changed(shape, longer), Err(Refused::Frame));
        }
    }
    // Versions, header lengths, fragments, protocols.
    for (at, value) in [
        (12, 0x86), // no IP
        (14, 0x65), // version 6 in an IPv4 packet
        (14, 0x44), // a header of 16 bytes
        (16, 0xff), // longer than the frame
        (20, 0x20), // more fragments
        (21, 0x01), // a fragment's offset
        (23, 47),   // GRE
        (46, 0x40), // a TCP header of 16 bytes
    ] {
        assert_eq!(changed(TCP4, byte(at, value)), Err(Refused::Frame), "{at}");
    }
    for (at, value) in [
        (14, 0x40), // version 4 in an IPv6 packet
        (18, 0xff), // longer than the frame
        (20, 44),   // a fragment
        (20, 51),   // authenticated
        (20, 59),   // nothing
    ] {
        assert_eq!(changed(TCP6, byte(at, value)), Err(Refused::Frame), "{at}");
    }
    // A datagram of another length.
    assert_eq!(changed(UDP4, byte(39, 0)), Err(Refused::Frame));
    // Three tags.
    let tagged = |packet: &mut Packet| {
        packet.frame.splice(12..12, [0x81, 0, 0, 1]);
    };
    let two = Shape { tags: 2, ..TCP4 };
    assert_eq!(changed(two, tagged), Err(Refused::Frame));
    // Extension headers without end.
    let mut packet = TCP6.packet(&payload(0, 2000), 1000);
    packet.frame[20] = 0;
    packet.frame[54..].fill(0);
    assert_eq!(checked(&packet, TRANSMIT), Err(Refused::Frame));
}

#[test]
fn work_is_bounded() {
    let long = TCP4.packet(&payload(0, 60_000), 1);
    assert_eq!(checked(&long, TRANSMIT), Err(Refused::Size));
    let most = TCP4.packet(&payload(0, 60_000), 8);
    assert!(checked(&most, TRANSMIT).is_ok());
    let short = TCP4.packet(&payload(0, 100), 1);
    assert_eq!(checked(&short, TRANSMIT).unwrap().gso_size, 1);
}

#[test]
fn a_partial_checksum_is_in_the_frame() {
    let frame = sample::payload(0, 60);
    for (start, offset, good) in [
        (34, 16, true),
        (14, 0, true),
        (58, 0, true),
        (14, 44, true),
        (13, 0, false),
        (0, 0, false),
        (59, 0, false),
        (60, 0, false),
        (14, 45, false),
        (u16::MAX, 0, false),
        (14, u16::MAX, false),
        (u16::MAX, u16::MAX, false),
    ] {
        let raw = Header::from_bytes(&header(1, 0, 9, 9, start, offset));
        let found = check(raw, &frame, TRANSMIT);
        let expected = Header::from_bytes(&header(1, 0, 0, 0, start, offset));
        let expected = if good {
            Ok(expected)
        } else {
            Err(Refused::Checksum)
        };
        assert_eq!(found, expected, "{start} + {offset}");
    }
}

#[test]
fn a_driver_takes_what_it_negotiated() {
    use crate::offload::RECEIVE;
    let cases = [
        (TCP4, net::GUEST_TSO4),
        (TCP6, net::GUEST_TSO6),
        (Shape { cwr: true, ..TCP4 }, net::GUEST_ECN),
        (UDP4, net::GUEST_USO4),
        (UDP6, net::GUEST_USO6),
    ];
    for (shape, bit) in cases {
        let packet = shape.packet(&payload(0, 2000), 1000);
        let header = checked(&packet, TRANSMIT).unwrap();
        let takes = |offloads| takes(header, &packet.frame, offloads);
        assert!(takes(RECEIVE));
        assert!(!takes(RECEIVE.without(bit)));
        assert!(!takes(RECEIVE.without(net::GUEST_CSUM)));
        assert!(!takes(Features::NONE));
    }
    let partial = Header {
        flags: Header::NEEDS_CSUM,
        ..Header::NONE
    };
    assert!(takes(partial, &[], Features::of(&[net::GUEST_CSUM])));
    assert!(!takes(partial, &[], RECEIVE.without(net::GUEST_CSUM)));
    assert!(takes(Header::NONE, &[], Features::NONE));
}

proptest::proptest! {
    #[test]
    fn no_bytes_are_read_beyond_and_what_is_accepted_can_be_cut(
        raw: [u8; 10],
        mut frame in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
        shape in 0..4_usize,
        kind in 0..8_u8,
    ) {
        // Frames that get through the first checks more often than random bytes do.
        let head = [TCP4, TCP6, UDP4, UDP6][shape].packet(&payload(0, 90), 10);
        for (to, from) in frame.iter_mut().zip(&head.frame) {
            if *to < 250 {
                *to = *from;
            }
        }
        let mut header = Header::from_bytes(&raw);
        if kind < 6 {
            header = Header { gso_type: kind, gso_size: 10, ..Header::from_bytes(&head.header) };
        }
        if let Ok(found) = check(header, &frame, TRANSMIT) {
            let mut to = vec![0; frame.len()];
            if let Some(segments) = crate::offload::Segments::new(found, &frame) {
                for index in 0..segments.count() {
                    let finish = crate::offload::Finish::Complete;
                    proptest::prop_assert!(segments.write(index, finish, &mut to).is_some());
                }
            } else {
                proptest::prop_assert!(!found.is_gso());
            }
            if found.needs_csum() {
                let done = crate::offload::complete(&mut frame, found.csum_start, found.csum_offset);
                proptest::prop_assert!(done);
            }
        }
    }
}

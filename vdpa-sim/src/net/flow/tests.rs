use std::net::SocketAddr;

use etherparse::PacketBuilder;
use vdpa_core::config::net::HashTypes;

use super::super::toeplitz::Key;
use super::super::toeplitz::tests::{KEY, VECTORS};
use super::*;

const ALL: HashTypes = HashTypes::from_bits_retain(0x1ff);

/// A packet that a builder that is not ours made.
fn packet(to: &str, from: &str, tcp: bool, tags: usize) -> Vec<u8> {
    let [to, from] = [to, from].map(|text| text.parse::<SocketAddr>().unwrap());
    let link = PacketBuilder::ethernet2([2; 6], [4; 6]);
    let mut bytes = Vec::new();
    let ip = match (from, to) {
        (SocketAddr::V4(from), SocketAddr::V4(to)) => {
            link.ipv4(from.ip().octets(), to.ip().octets(), 64)
        }
        (SocketAddr::V6(from), SocketAddr::V6(to)) => {
            link.ipv6(from.ip().octets(), to.ip().octets(), 64)
        }
        _ => panic!("one of each"),
    };
    if tcp {
        let tcp = ip.tcp(from.port(), to.port(), 1, 1000);
        tcp.write(&mut bytes, b"payload").unwrap();
    } else {
        let udp = ip.udp(from.port(), to.port());
        udp.write(&mut bytes, b"payload").unwrap();
    }
    for _ in 0..tags {
        bytes.splice(12..12, [0x81, 0, 0, 5]);
    }
    bytes
}

fn hash(frame: &[u8], types: HashTypes) -> Option<(u32, HashTypes)> {
    let key = Key::new(&KEY).unwrap();
    flow(frame, types).map(|flow| (key.hash(flow.input()), flow.kind))
}

/// The packet with extension headers (each with room for the type of the next in its first byte) behind its IPv6 header.
fn extended(mut frame: Vec<u8>, headers: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut next = frame[20];
    let mut chain = Vec::new();
    for (kind, header) in headers.iter().rev() {
        let mut header = header.clone();
        header[0] = next;
        next = *kind;
        chain.splice(0..0, header);
    }
    frame[20] = next;
    let len = u16::from_be_bytes([frame[18], frame[19]]) + chain.len() as u16;
    frame[18..20].copy_from_slice(&len.to_be_bytes());
    frame.splice(54..54, chain);
    frame
}

#[test]
fn packets_hash_to_the_published_values_by_each_type() {
    for (to, from, addresses, ports) in VECTORS {
        let v4 = !to.starts_with('[');
        let kind = |four, six| if v4 { four } else { six };
        let ip = kind(HashTypes::IPV4, HashTypes::IPV6);
        let tcp = kind(HashTypes::TCPV4, HashTypes::TCPV6);
        let udp = kind(HashTypes::UDPV4, HashTypes::UDPV6);
        for tags in 0..3 {
            for (is_tcp, own, other) in [(true, tcp, udp), (false, udp, tcp)] {
                let frame = packet(to, from, is_tcp, tags);
                assert_eq!(hash(&frame, ALL), Some((ports, own)));
                assert_eq!(hash(&frame, own), Some((ports, own)));
                assert_eq!(hash(&frame, ip | other), Some((addresses, ip)));
                assert_eq!(hash(&frame, other), None);
                assert_eq!(hash(&frame, HashTypes::empty()), None);
            }
        }
        let tagged = packet(to, from, true, 3);
        assert_eq!(hash(&tagged, ALL), None, "a third tag");
    }
}

#[test]
fn fragments_and_headers_cut_short_have_no_ports() {
    let (to, from, addresses, _) = VECTORS[0];
    let ip = Some((addresses, HashTypes::IPV4));
    for (high, low) in [(0x20, 0), (0, 1), (0x1f, 0xff)] {
        let mut frame = packet(to, from, true, 0);
        frame[20..22].copy_from_slice(&[high, low]);
        assert_eq!(hash(&frame, ALL), ip, "{high:#x} {low:#x}");
    }
    let mut frame = packet(to, from, true, 0);
    frame[20] = 0x40;
    assert_eq!(
        hash(&frame, ALL).unwrap().1,
        HashTypes::TCPV4,
        "not to be cut"
    );
    for cut in 0..frame.len() {
        let expected = match cut {
            ..34 => None,
            34..54 => ip,
            _ => Some((VECTORS[0].3, HashTypes::TCPV4)),
        };
        assert_eq!(hash(&frame[..cut], ALL), expected, "cut at {cut}");
    }
    // A header length that is none, or beyond the end.
    for first in [0x44, 0x65] {
        frame[14] = first;
        assert_eq!(hash(&frame, ALL), None);
    }
    frame[14] = 0x4f;
    frame.truncate(60);
    assert_eq!(hash(&frame, ALL), ip);
}

#[test]
fn extension_headers_are_walked_and_their_addresses_count_by_the_types_for_them() {
    let (to, from, addresses, ports) = VECTORS[5];
    let plain = packet(to, from, true, 0);
    let hop = (0, vec![0; 8]);
    let skipped = extended(plain.clone(), std::slice::from_ref(&hop));
    let v6 = HashTypes::IPV6 | HashTypes::TCPV6;
    assert_eq!(hash(&skipped, v6), Some((ports, HashTypes::TCPV6)));
    assert_eq!(hash(&skipped, ALL), Some((ports, HashTypes::TCP_EX)));
    assert_eq!(
        hash(&skipped, v6 | HashTypes::IP_EX),
        Some((addresses, HashTypes::IP_EX))
    );
    assert_eq!(
        hash(&plain, HashTypes::TCP_EX),
        None,
        "it has no extension header"
    );

    // The addresses of the vector in the extension headers, others in the IPv6 header.
    let mut routing = vec![0, 2, 2, 1, 0, 0, 0, 0];
    routing.extend(&plain[38..54]);
    let mut options = vec![0, 2, 0, 1, 1, 0, 201, 16];
    options.extend(&plain[22..38]);
    let mut other = plain.clone();
    other[22..54].fill(0x33);
    let moved = extended(other, &[hop.clone(), (43, routing), (60, options)]);
    assert_eq!(hash(&moved, ALL), Some((ports, HashTypes::TCP_EX)));
    assert_eq!(
        hash(&moved, HashTypes::IP_EX),
        Some((addresses, HashTypes::IP_EX))
    );
    assert_ne!(hash(&moved, v6), Some((ports, HashTypes::TCPV6)));

    let whole = extended(plain.clone(), &[(44, vec![0; 8])]);
    assert_eq!(hash(&whole, ALL), Some((ports, HashTypes::TCP_EX)));
    let part = extended(plain.clone(), &[(44, vec![0, 0, 0, 1, 0, 0, 0, 0])]);
    assert_eq!(hash(&part, ALL), Some((addresses, HashTypes::IP_EX)));

    let endless = extended(plain, &vec![hop; 40]);
    assert_eq!(hash(&endless, ALL), Some((addresses, HashTypes::IP_EX)));
    for cut in 0..moved.len() {
        let _whatever = hash(&moved[..cut], ALL);
    }
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_looked_at_without_a_panic(
        kind in proptest::sample::select(vec![[0x08, 0], [0x86, 0xdd], [0x81, 0]]),
        mut frame in proptest::collection::vec(proptest::prelude::any::<u8>(), 14..200),
        types in 0_u32..512,
    ) {
        frame[12..14].copy_from_slice(&kind);
        let types = HashTypes::from_bits_retain(types);
        if let Some(flow) = flow(&frame, types) {
            proptest::prop_assert!(types.contains(flow.kind));
            proptest::prop_assert_eq!(flow.kind.bits().count_ones(), 1);
        }
    }
}

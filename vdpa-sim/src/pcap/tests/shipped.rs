//! The capture in `examples/capture` is what its README says.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::{
    Icmpv4Header, Icmpv6Header, NetSlice, SlicedPacket, TcpOptionElement, TransportSlice,
};

use super::*;

const TRAFFIC: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../examples/capture/traffic.pcap"
);

fn frames() -> Vec<Frame> {
    Capture::open(TRAFFIC)
        .unwrap()
        .map(Result::unwrap)
        .collect()
}

fn is_documentation_v4(address: Ipv4Addr) -> bool {
    matches!(
        address.octets(),
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _]
    )
}

/// Or of neighbour discovery: link-local, multicast within the link, unspecified.
fn is_documentation_v6(address: Ipv6Addr) -> bool {
    matches!(
        address.segments(),
        [0x2001, 0xdb8, ..] | [0xfe80, 0, 0, 0, ..] | [0xff02, ..]
    ) || address.is_unspecified()
}

#[test]
fn it_is_copied_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("copy.pcap");
    let mut writer = CaptureWriter::create(&copy, TimeResolution::Micros).unwrap();
    for frame in frames() {
        writer.write(frame.time, &frame.data).unwrap();
    }
    writer.finish().unwrap();
    assert!(fs::read(&copy).unwrap() == fs::read(TRAFFIC).unwrap());
}

#[test]
fn it_has_every_kind_of_packet_each_with_sound_checksums() {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (number, frame) in (1..).zip(frames()) {
        let mut count = |what| *counts.entry(what).or_default() += 1;
        assert!(
            frame.data.len() <= 9018,
            "packet {number}: {} bytes",
            frame.data.len()
        );
        if frame.data.len() >= 9000 {
            count("jumbo");
        }
        let packet = SlicedPacket::from_ethernet(&frame.data).unwrap();
        if packet.vlan().is_some() {
            count("vlan");
        }
        let source = &frame.data[6..12];
        assert!(
            source.starts_with(&[2, 0, 0]),
            "packet {number}: from {source:02x?}"
        );
        match (&packet.net, &packet.transport) {
            (Some(NetSlice::Arp(arp)), None) => {
                for address in [arp.sender_protocol_addr(), arp.target_protocol_addr()] {
                    let address: [u8; 4] = address.try_into().unwrap();
                    assert!(is_documentation_v4(address.into()), "packet {number}");
                }
                count("arp");
            }
            (Some(NetSlice::Ipv4(ip)), transport) => {
                let header = ip.header().to_header();
                assert_eq!(
                    header.header_checksum,
                    header.calc_header_checksum(),
                    "packet {number}"
                );
                let (from, to) = (ip.header().source_addr(), ip.header().destination_addr());
                assert!(
                    is_documentation_v4(from) && is_documentation_v4(to),
                    "packet {number}"
                );
                if ip.is_payload_fragmented() {
                    count("fragment");
                    continue; // its checksum is that of the whole datagram
                }
                let (sound, kind) = match transport {
                    Some(TransportSlice::Tcp(tcp)) => {
                        let checksum = tcp.calc_checksum_ipv4(from.octets(), to.octets());
                        (checksum == Ok(tcp.checksum()), "tcp")
                    }
                    Some(TransportSlice::Udp(udp)) => {
                        let checksum = udp.to_header().calc_checksum_ipv4_raw(
                            from.octets(),
                            to.octets(),
                            udp.payload(),
                        );
                        (checksum == Ok(udp.checksum()), "udp")
                    }
                    Some(TransportSlice::Icmpv4(icmp)) => {
                        let own = Icmpv4Header::with_checksum(icmp.icmp_type(), icmp.payload());
                        (own.checksum == icmp.checksum(), "icmp")
                    }
                    other => panic!("packet {number}: {other:?}"),
                };
                assert!(sound, "packet {number}: checksum of {kind}");
                count(kind);
            }
            (Some(NetSlice::Ipv6(ip)), transport) => {
                let (from, to) = (ip.header().source_addr(), ip.header().destination_addr());
                assert!(
                    is_documentation_v6(from) && is_documentation_v6(to),
                    "packet {number}"
                );
                let (sound, kind) = match transport {
                    Some(TransportSlice::Tcp(tcp)) => {
                        let checksum = tcp.calc_checksum_ipv6(from.octets(), to.octets());
                        (checksum == Ok(tcp.checksum()), "tcp over ipv6")
                    }
                    Some(TransportSlice::Udp(udp)) => {
                        let checksum = udp.to_header().calc_checksum_ipv6_raw(
                            from.octets(),
                            to.octets(),
                            udp.payload(),
                        );
                        (checksum == Ok(udp.checksum()), "udp over ipv6")
                    }
                    Some(TransportSlice::Icmpv6(icmp)) => {
                        let (from, to) = (from.octets(), to.octets());
                        let own =
                            Icmpv6Header::with_checksum(icmp.icmp_type(), from, to, icmp.payload());
                        (own.unwrap().checksum == icmp.checksum(), "icmpv6")
                    }
                    other => panic!("packet {number}: {other:?}"),
                };
                assert!(sound, "packet {number}: checksum of {kind}");
                count(kind);
            }
            other => panic!("packet {number}: {other:?}"),
        }
        if let Some(TransportSlice::Tcp(tcp)) = &packet.transport {
            for option in tcp.options_iterator() {
                count(match option.unwrap() {
                    TcpOptionElement::MaximumSegmentSize(_) => "mss",
                    TcpOptionElement::WindowScale(_) => "window scale",
                    TcpOptionElement::SelectiveAcknowledgementPermitted => "sack permitted",
                    TcpOptionElement::SelectiveAcknowledgement(..) => "sack",
                    TcpOptionElement::Timestamp(..) => "timestamp",
                    TcpOptionElement::Noop => continue,
                });
            }
            for (set, flag) in [(tcp.syn(), "syn"), (tcp.fin(), "fin"), (tcp.rst(), "rst")] {
                if set {
                    count(flag);
                }
            }
        }
    }
    let kinds = [
        "arp",
        "fin",
        "fragment",
        "icmp",
        "icmpv6",
        "jumbo",
        "mss",
        "rst",
        "sack",
        "sack permitted",
        "syn",
        "tcp",
        "tcp over ipv6",
        "timestamp",
        "udp",
        "udp over ipv6",
        "vlan",
        "window scale",
    ];
    assert!(counts.keys().eq(&kinds), "{counts:?}");
}

#[test]
fn it_is_of_the_promised_size_and_in_order() {
    let frames = frames();
    assert!(
        (300..=600).contains(&frames.len()),
        "{} packets",
        frames.len()
    );
    assert!(frames.is_sorted_by_key(|frame| frame.time));
    assert!(fs::metadata(TRAFFIC).unwrap().len() < 1_000_000);
}

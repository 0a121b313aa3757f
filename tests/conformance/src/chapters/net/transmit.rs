//! What a packet's header may make a device do that sends it.

use vdpa_core::bits::net;
use vdpa_core::{DeviceType, Features, Status};

use super::card::{Card, loops, require_loop};
use super::offload::{GUEST, HOST, host_bit, is_right, open};
use super::packet::{
    DATA_VALID, GSO_TCPV4, GSO_TCPV6, GSO_UDP, GSO_UDP_L4, Header, KINDS, NEEDS_CSUM, RSC_INFO,
    TCP4, TUNNEL_IPV4, TUNNEL_IPV6, dissect, frame, payload,
};
use crate::checked::{ensure, skip};
use crate::{Bench, Checked, Variant};

/// A flag that virtio 1.4 says nothing of.
const UNKNOWN: u8 = 0x80;
/// Flags of IPsec, which are unknown where that is not offered.
const SECURITY: u8 = 0x70;

/// With these a device looks at `gso_type`.
const HOST_GSO: Features =
    Features::of(&[net::HOST_TSO4, net::HOST_TSO6, net::HOST_UFO, net::HOST_USO]);

/// What has to come, in however many packets: `data`, with right checksums.
fn whole(card: &mut Card<'_>, data: &[u8]) -> Checked {
    let mut came = Vec::new();
    for part in card.parts(data.len())? {
        ensure!(is_right(&part), "a checksum is not right");
        came.extend(dissect(&part.frame).map_or(Vec::new(), |found| found.payload));
    }
    ensure!(came == data, "the payload is not the one that was sent");
    Ok(())
}

pub(super) fn unknown_flags_are_ignored(bench: &Bench<'_>, variant: Variant) -> Checked {
    let mut card = open(bench, variant, HOST, GUEST)?;
    let mut unknown = vec![UNKNOWN];
    if !bench.offered()?.contains(net::IPSEC) {
        unknown.extend([UNKNOWN | SECURITY, 0x10, 0x20, 0x40]);
    }
    for flags in unknown {
        let about = |e: crate::Stop| e.about(format!("flags {flags:#x}"));
        let data = payload(flags.into(), 200);
        let header = Header {
            flags,
            ..Header::default()
        };
        card.send(header, &TCP4.whole(&TCP4.flow([5, 6]), &data))?;
        whole(&mut card, &data).map_err(about)?;
        if card.has(net::CSUM) {
            let (header, frame) = TCP4.partial(&TCP4.flow([5, 7]), &data);
            let flags = header.flags | flags;
            card.send(Header { flags, ..header }, &frame)?;
            whole(&mut card, &data).map_err(about)?;
        }
    }
    Ok(())
}

pub(super) fn checksum_fields_need_their_flag(bench: &Bench<'_>, variant: Variant) -> Checked {
    let mut card = open(bench, variant, HOST, GUEST)?;
    for [csum_start, csum_offset] in [[0xffff, 0xffff], [34, 16], [0, 0], [14, 2], [60, 0xfff0]] {
        let header = Header {
            csum_start,
            csum_offset,
            ..Header::default()
        };
        let about = format!("csum_start {csum_start}, csum_offset {csum_offset}");
        for sent in [
            TCP4.whole(&TCP4.flow([5, 6]), &payload(7, 300)),
            frame(csum_start.into(), 100),
        ] {
            card.send(header, &sent)?;
            let came = card.receive().map_err(|e| e.about(&about))?;
            ensure!(
                came.frame == sent,
                "{about}: the frame that came is not the one that was sent"
            );
        }
    }
    Ok(())
}

pub(super) fn header_length_is_not_trusted(bench: &Bench<'_>, variant: Variant) -> Checked {
    // With GUEST_HDRLEN the driver would promise that it is right.
    let mut card = open(bench, variant, HOST, GUEST | net::GUEST_HDRLEN)?;
    if !card.has(net::CSUM) {
        skip!("CSUM is not offered, so that headers are not looked at");
    }
    for (seed, kind) in (0..).zip(KINDS) {
        for hdr_len in [0, 1, 13, kind.headers() as u16 + 7, 0x7fff, 0xffff] {
            let about = |e: crate::Stop| e.about(format!("hdr_len {hdr_len}, {kind:?}"));
            let data = payload(seed, 400);
            let (header, frame) = kind.partial(&kind.flow([9, 9]), &data);
            card.send(Header { hdr_len, ..header }, &frame)?;
            whole(&mut card, &data).map_err(about)?;
            if card.has(host_bit(kind)) {
                let data = payload(seed, 2500);
                let (header, frame) = kind.large(&kind.flow([9, 9]), &data, 1000);
                card.send(Header { hdr_len, ..header }, &frame)?;
                whole(&mut card, &data).map_err(about)?;
            }
        }
    }
    Ok(())
}

/// A packet with such a header is not passed on, and its buffer comes back.
fn rejected(card: &mut Card<'_>, header: Header, seed: u32) -> Checked {
    let (_, large) = TCP4.partial(&TCP4.flow([11, 12]), &payload(seed, 2000));
    card.send(header, &large)?;
    // What comes next is this one.
    let next = frame(seed, 60);
    card.send(Header::default(), &next)?;
    let came = card.receive()?;
    ensure!(
        came.frame == next,
        "a packet with gso_type {:#x} and flags {:#x} was passed on: {} bytes came",
        header.gso_type,
        header.flags,
        came.frame.len()
    );
    Ok(())
}

/// A card that looks at `gso_type`. The text has no word of what was negotiated, and what was not is not accepted either.
fn tunnelled<'b>(bench: &'b Bench<'b>, variant: Variant) -> Checked<(Card<'b>, Header)> {
    require_loop(bench)?;
    if !bench.offered()?.intersects(HOST_GSO) {
        skip!("no segmentation is offered, so gso_type is not looked at");
    }
    let card = open(bench, variant, HOST, GUEST)?;
    let (header, _) = TCP4.large(&TCP4.flow([11, 12]), &[], 1000);
    Ok((card, header))
}

pub(super) fn both_tunnels_are_rejected(bench: &Bench<'_>, variant: Variant) -> Checked {
    let (mut card, header) = tunnelled(bench, variant)?;
    let both = TUNNEL_IPV4 | TUNNEL_IPV6;
    for (seed, gso) in (0..).zip([GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, GSO_UDP, 0]) {
        let gso_type = gso | both;
        rejected(&mut card, Header { gso_type, ..header }, seed)?;
    }
    Ok(())
}

pub(super) fn tunnels_need_more(bench: &Bench<'_>, variant: Variant) -> Checked {
    let (mut card, header) = tunnelled(bench, variant)?;
    for (seed, tunnel) in (0..).zip([TUNNEL_IPV4, TUNNEL_IPV6]) {
        for (flags, gso) in [
            (0, GSO_TCPV4),
            (NEEDS_CSUM | DATA_VALID, GSO_TCPV4),
            (DATA_VALID, GSO_TCPV4),
            (NEEDS_CSUM, 0),
            (0, 0),
        ] {
            let wrong = Header {
                flags,
                gso_type: gso | tunnel,
                ..header
            };
            rejected(&mut card, wrong, seed * 10 + u32::from(flags))?;
        }
    }
    Ok(())
}

/// A driver must not write such headers. Whatever becomes of the packet, its buffer comes back or the device says why it
/// needs a reset; and it goes on.
pub(super) fn wrong_headers_are_survived(bench: &Bench<'_>, variant: Variant) -> Checked {
    bench.require_type(DeviceType::Net)?;
    let wrong = |flags, gso_type, num_buffers| Header {
        flags,
        gso_type,
        gso_size: 1000,
        csum_start: TCP4.start() as u16,
        csum_offset: TCP4.csum_offset() as u16,
        num_buffers,
        ..Header::default()
    };
    let (_, large) = TCP4.partial(&TCP4.flow([1, 2]), &payload(1, 1200));
    let types = [GSO_TCPV4, GSO_TCPV6, GSO_UDP, GSO_UDP_L4, 2, 0x1f];
    let headers = [
        wrong(0, 0, 1),
        wrong(0, 0, 0xffff),
        wrong(DATA_VALID, 0, 0),
        wrong(RSC_INFO, 0, 0),
        wrong(DATA_VALID | NEEDS_CSUM, 0, 0),
    ];
    let types = types.map(|gso_type| wrong(NEEDS_CSUM, gso_type, 0));
    let loops = loops(bench)?;
    for less in [HOST, Features::NONE] {
        let mut card = Card::open(bench, variant, HOST - less, less)?;
        for header in headers.iter().chain(&types) {
            let piece = card.rig.place(&card.packet(*header, &large))?;
            card.tx.add(&[piece], &[])?;
            card.tx.publish();
            let what = format!("an end of a packet with the header {header:?}");
            let mut broken = false;
            bench.until(&what, || {
                broken = card.rig.status()?.contains(Status::DEVICE_NEEDS_RESET);
                Ok(broken || !card.tx.poll()?.is_empty())
            })?;
            if broken {
                let why = card.rig.needs_reset()?;
                ensure!(!why.is_empty(), "it needs a reset, and says not why");
                card = card.again(variant, HOST - less, less)?;
            }
        }
        card.send(Header::default(), &frame(1, 60))?;
        if loops {
            let mut card = card.again(variant, HOST - less, less)?;
            card.rx.post(&card.rig, 8, 2048)?;
            // What was passed on of the others may be what comes first: a port need not forget it in a reset.
            card.before(&frame(2, 60))?;
        }
    }
    Ok(())
}

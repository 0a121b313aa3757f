//! What a received packet's header says: by what the driver takes unfinished.

use vdpa_core::bits::net;
use vdpa_core::{FeatureBit, Features};

use super::card::{Card, config, require_loop};
use super::inlet::Came;
use super::packet::{
    DATA_VALID, ECN, GSO_TCPV4, GSO_TCPV6, GSO_UDP, GSO_UDP_L4, Header, KINDS, Kind, NEEDS_CSUM,
    RSC_INFO, TCP4, TCP6, TUNNEL_IPV4, TUNNEL_IPV6, UDP4, UDP6, complete, dissect, frame, payload,
};
use crate::checked::{ensure, skip};
use crate::{Bench, Checked, Variant};

/// What a device may do for a driver that sends.
pub(super) const HOST: Features = Features::of(&[
    net::CSUM,
    net::HOST_TSO4,
    net::HOST_TSO6,
    net::HOST_ECN,
    net::HOST_UFO,
    net::HOST_USO,
]);

/// With these a packet that is received may be larger than a frame.
const GUEST_GSO: Features = Features::of(&[
    net::GUEST_TSO4,
    net::GUEST_TSO6,
    net::GUEST_ECN,
    net::GUEST_UFO,
    net::GUEST_USO4,
    net::GUEST_USO6,
]);

/// What a driver may take unfinished.
pub(super) const GUEST: Features = GUEST_GSO.with(net::GUEST_CSUM);

/// Bytes of a frame's payload, and of a segment's: with headers they are no more than the least MTU that a device should
/// have, virtio 1.4 §5.1.4.1.
const SMALL: usize = 1000;
const LEAST_MTU: u16 = 1280;
/// Bytes of the payload that is to be segmented.
const LARGE: usize = 5500;
/// Bytes of the largest packet, virtio 1.4 §5.1.9.3, and a bit.
const LARGEST: u32 = 65_664;

/// The bit with which a kind of packet may be left to be segmented.
pub(super) fn host_bit(kind: Kind) -> FeatureBit {
    match kind.gso_type() {
        GSO_TCPV4 => net::HOST_TSO4,
        GSO_TCPV6 => net::HOST_TSO6,
        _ => net::HOST_USO,
    }
}

/// A card that gives back what is sent: with buffers that are merged, or, with a packed ring, large ones.
pub(super) fn open<'b>(
    bench: &'b Bench<'b>,
    variant: Variant,
    more: Features,
    less: Features,
) -> Checked<Card<'b>> {
    require_loop(bench)?;
    let merge = Features::NONE.with(net::MRG_RXBUF);
    let (more, less) = match variant.is_packed() {
        true => (more, less | merge),
        false => (more | merge, less),
    };
    let mut card = Card::open(bench, variant, more, less)?;
    match card.has(net::MRG_RXBUF) {
        true => card.rx.post(&card.rig, 48, 2048)?,
        false => card.rx.post(&card.rig, 8, LARGEST)?,
    }
    if card.has(net::MTU) {
        let mtu = config(&card.rig)?.mtu();
        if mtu < LEAST_MTU {
            skip!("an mtu of {mtu} has no room for the packets of this statement");
        }
    }
    Ok(card)
}

/// Packets of all kinds, in all states that the driver may leave them in, with their payload.
fn mixed(card: &Card<'_>) -> Vec<(Header, Vec<u8>, Vec<u8>)> {
    let mut packets = Vec::new();
    for (seed, kind) in (0..).zip(KINDS) {
        let flow = kind.flow([1000 + seed as u16, 2000]);
        let data = payload(seed, SMALL);
        packets.push((Header::default(), kind.whole(&flow, &data), data.clone()));
        if card.has(net::CSUM) {
            let (header, frame) = kind.partial(&flow, &data);
            packets.push((header, frame, data));
        }
        if card.has(host_bit(kind)) {
            let data = payload(seed + 100, LARGE);
            let (header, frame) = kind.large(&flow, &data, SMALL as u16);
            packets.push((header, frame, data));
        }
    }
    packets
}

/// Sends all of them, and has everything judged that comes.
fn each(card: &mut Card<'_>, judge: impl Fn(&Came) -> Checked) -> Checked {
    for (header, frame, data) in mixed(card) {
        card.send(header, &frame)?;
        for part in card.parts(data.len())? {
            judge(&part).map_err(|e| {
                let (flags, gso) = (header.flags, header.gso_type);
                e.about(format!("sent with flags {flags:#x} and gso_type {gso:#x}"))
            })?;
        }
    }
    Ok(())
}

/// The segmentation of a header, without the bits beside it.
fn gso(header: Header) -> u8 {
    header.gso_type & !(ECN | TUNNEL_IPV4 | TUNNEL_IPV6)
}

/// Whether a packet's checksums are right once what its header leaves undone is done.
pub(super) fn is_right(came: &Came) -> bool {
    let done = match came.header.flags & NEEDS_CSUM != 0 {
        true => complete(came.header, &came.frame),
        false => Some(came.frame.clone()),
    };
    done.is_some_and(|frame| dissect(&frame).is_some_and(|found| found.right))
}

pub(super) fn no_flags_without_guest_csum(bench: &Bench<'_>, variant: Variant) -> Checked {
    let mut card = open(bench, variant, HOST, GUEST)?;
    each(&mut card, |came| {
        let flags = came.header.flags;
        ensure!(flags == 0, "flags are {flags:#x} without GUEST_CSUM");
        // And since nothing says that a checksum is to be completed, it is there: a SHOULD of the same clause, that a
        // packet has a fully checksummed one.
        ensure!(
            is_right(came),
            "a checksum is not right without GUEST_CSUM, which SHOULD be"
        );
        Ok(())
    })
}

pub(super) fn a_type_only_with_its_bit(bench: &Bench<'_>, variant: Variant) -> Checked {
    let uso = [net::GUEST_USO4, net::GUEST_USO6];
    let cases: [(u8, Kind, FeatureBit, &[FeatureBit]); 5] = [
        (GSO_TCPV4, TCP4, net::HOST_TSO4, &[net::GUEST_TSO4]),
        (GSO_TCPV6, TCP6, net::HOST_TSO6, &[net::GUEST_TSO6]),
        (GSO_UDP, UDP4, net::HOST_UFO, &[net::GUEST_UFO]),
        (GSO_UDP_L4, UDP4, net::HOST_USO, &uso),
        (GSO_UDP_L4, UDP6, net::HOST_USO, &uso),
    ];
    let mut tried = false;
    for (forbidden, kind, host, guest) in cases {
        if !bench.offered()?.contains(host) {
            continue;
        }
        tried = true;
        let mut card = open(bench, variant, HOST | GUEST, Features::of(guest))?;
        let data = payload(forbidden.into(), LARGE);
        let (header, large) = kind.large(&kind.flow([7, 8]), &data, SMALL as u16);
        let header = Header {
            gso_type: forbidden,
            ..header
        };
        card.send(header, &large)?;
        // Fragments are not taken apart here: all that comes before the next frame is looked at.
        let last = frame(1, 60);
        let parts = match forbidden == GSO_UDP {
            true => card.before(&last)?,
            false => card.parts(data.len())?,
        };
        for part in parts {
            let said = part.header.gso_type;
            ensure!(
                gso(part.header) != forbidden && said & (TUNNEL_IPV4 | TUNNEL_IPV6) == 0,
                "gso_type is {said:#x}, which was not negotiated"
            );
        }
    }
    if !tried {
        skip!("no segmentation is offered, so nothing that needs it can be sent");
    }
    Ok(())
}

pub(super) fn no_type_with_none(bench: &Bench<'_>, variant: Variant) -> Checked {
    let mut card = open(bench, variant, HOST | net::GUEST_CSUM, GUEST_GSO)?;
    each(&mut card, |came| {
        let said = came.header.gso_type;
        ensure!(said == 0, "gso_type is {said:#x}, and none was negotiated");
        Ok(())
    })
}

pub(super) fn a_type_brings_csum_and_size(bench: &Bench<'_>, variant: Variant) -> Checked {
    let mut card = open(bench, variant, HOST | GUEST, Features::NONE)?;
    if !card.rig.device.negotiated().intersects(GUEST_GSO) {
        skip!("no segmentation of what is received is offered");
    }
    each(&mut card, |came| {
        let Header {
            flags, gso_size, ..
        } = came.header;
        if gso(came.header) != 0 {
            let said = came.header.gso_type;
            ensure!(
                flags & NEEDS_CSUM != 0,
                "gso_type is {said:#x}, and flags are {flags:#x}"
            );
            ensure!(gso_size != 0, "gso_type is {said:#x}, and gso_size is 0");
        }
        Ok(())
    })
}

pub(super) fn what_is_left_completes_to_a_right_one(
    bench: &Bench<'_>,
    variant: Variant,
) -> Checked {
    bench.require(net::GUEST_CSUM)?;
    let mut card = open(bench, variant, HOST | GUEST, Features::NONE)?;
    each(&mut card, |came| {
        let Header {
            flags,
            csum_start,
            csum_offset,
            ..
        } = came.header;
        ensure!(
            flags & NEEDS_CSUM == 0 || is_right(came),
            "with csum_start {csum_start} and csum_offset {csum_offset} a packet of {} bytes does not get a right \
             checksum",
            came.frame.len()
        );
        Ok(())
    })
}

pub(super) fn valid_only_if_it_is(bench: &Bench<'_>, variant: Variant) -> Checked {
    bench.require(net::GUEST_CSUM)?;
    let mut card = open(bench, variant, HOST | GUEST, Features::NONE)?;
    let judge = |came: &Came| {
        ensure!(
            came.header.flags & DATA_VALID == 0 || is_right(came),
            "DATA_VALID is set for a packet whose checksum is wrong"
        );
        Ok(())
    };
    each(&mut card, judge)?;
    for (seed, kind) in (0..).zip(KINDS) {
        let data = payload(seed, 100);
        let mut wrong = kind.whole(&kind.flow([3, 4]), &data);
        if let Some(byte) = wrong.get_mut(kind.headers() + 50) {
            *byte ^= 0x10;
        }
        card.send(Header::default(), &wrong)?;
        // A card may drop it: what comes before the next frame is looked at.
        let last = frame(seed, 60);
        for came in card.before(&last)? {
            judge(&came)?;
        }
    }
    Ok(())
}

pub(super) fn no_coalescing_told_of(bench: &Bench<'_>, variant: Variant) -> Checked {
    let off = Features::NONE.with(net::RSC_EXT);
    let mut card = open(bench, variant, HOST | GUEST, off)?;
    each(&mut card, |came| {
        let flags = came.header.flags;
        ensure!(
            flags & RSC_INFO == 0,
            "flags are {flags:#x} without RSC_EXT"
        );
        Ok(())
    })
}

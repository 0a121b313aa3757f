//! What a driver says of a packet, compared with the packet.

use vdpa_core::{Features, bits::net};

use super::header::Header;
use super::headers::{Headers, Ip, Transport, word};
use super::{TRANSMIT_GSO, headers};

/// Into how many segments a packet is cut at most: what the smallest TCP segments there are, of 8 bytes, make of the
/// longest packet. More is an attempt to have the device work for nothing.
pub const MAX_SEGMENTS: usize = 8192;

/// No checksum begins within the Ethernet header.
const ETHERNET: usize = 14;

/// Where the flags of a TCP header are, and the one that says that the congestion window was reduced.
const TCP_FLAGS: usize = 13;
pub(super) const CWR: u8 = 0x80;

/// Why a packet is dropped whose header does not describe it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// The checksum, or where it is to begin, is not in the frame, or not where the type has it.
    #[error("the checksum is not in the frame")]
    Checksum,
    /// No such type, or not negotiated.
    #[error("the segmentation type is unknown or was not negotiated")]
    Type,
    /// To be segmented without NEEDS_CSUM.
    #[error("to be segmented, but its checksum is not to be completed")]
    NoChecksum,
    /// The size of segments is 0, or makes more than [`MAX_SEGMENTS`] of them.
    #[error("the segment size is 0 or too small")]
    Size,
    /// The headers of the frame are not those of the type, or are not all there.
    #[error("the headers of the frame are not those of the segmentation type")]
    Frame,
}

/// Compares what a driver says of a frame that it sends with the frame, and answers with what is true of it.
///
/// * `features`: those negotiated; what was not means nothing
///
/// Of the flags NEEDS_CSUM alone is looked at, `hdr_len` is replaced by the length that the frame has, ECN by what its TCP
/// header says, and a packet that is no longer than a segment has nothing to be segmented.
///
/// # Errors
/// [`Refused`]: the frame is to be dropped.
///
/// # Spec
/// virtio 1.4 §5.1.9.2.2.
pub fn check(header: Header, frame: &[u8], features: Features) -> Result<Header, Refused> {
    if header.gso_type & (Header::GSO_UDP_TUNNEL_IPV4 | Header::GSO_UDP_TUNNEL_IPV6) != 0 {
        // Not offered; both together are never accepted, nor either without a partial checksum.
        return Err(Refused::Type);
    }
    if !features.contains(net::CSUM) {
        return Ok(Header::NONE);
    }
    let gso = header.is_gso() && features.intersects(TRANSMIT_GSO);
    match (header.needs_csum(), gso) {
        (false, false) => Ok(Header::NONE),
        (false, true) => Err(Refused::NoChecksum),
        (true, false) => partial(header, frame),
        (true, true) => segmentation(header, frame, features),
    }
}

/// A checksum to be completed.
fn partial(header: Header, frame: &[u8]) -> Result<Header, Refused> {
    let start = usize::from(header.csum_start);
    let end = start
        .saturating_add(header.csum_offset.into())
        .saturating_add(2);
    if start < ETHERNET || end > frame.len() {
        return Err(Refused::Checksum);
    }
    Ok(Header {
        flags: Header::NEEDS_CSUM,
        csum_start: header.csum_start,
        csum_offset: header.csum_offset,
        ..Header::NONE
    })
}

/// A packet to be segmented.
fn segmentation(header: Header, frame: &[u8], features: Features) -> Result<Header, Refused> {
    let (transport, ip) = header.kind().ok_or(Refused::Type)?;
    let bit = match (transport, ip) {
        (Transport::Udp, _) => net::HOST_USO,
        (Transport::Tcp, Some(Ip::V6)) => net::HOST_TSO6,
        (Transport::Tcp, _) => net::HOST_TSO4,
    };
    if !features.contains(bit) {
        return Err(Refused::Type);
    }
    if header.gso_size == 0 {
        return Err(Refused::Size);
    }
    let found = Headers::of(frame).ok_or(Refused::Frame)?;
    // Nothing behind the packet: it would become payload. And the length that the datagram has.
    if !found.are((transport, ip)) || found.end != frame.len() || !is_whole(frame, &found) {
        return Err(Refused::Frame);
    }
    let start = u16::try_from(found.start).map_err(|_| Refused::Frame)?;
    if header.csum_start != start || header.csum_offset != transport.csum_offset() {
        return Err(Refused::Checksum);
    }
    let payload = frame.len().saturating_sub(found.payload);
    let size = usize::from(header.gso_size);
    if payload.div_ceil(size) > MAX_SEGMENTS {
        return Err(Refused::Size);
    }
    let checksum = Header {
        flags: Header::NEEDS_CSUM,
        csum_start: start,
        csum_offset: header.csum_offset,
        ..Header::NONE
    };
    if payload <= size {
        return Ok(checksum);
    }
    let flags = found.start.saturating_add(TCP_FLAGS);
    let reduced =
        transport == Transport::Tcp && frame.get(flags).is_some_and(|flags| flags & CWR != 0);
    Ok(Header {
        gso_type: header.gso() | if reduced { Header::ECN } else { 0 },
        // Below the length of the frame, which an IP header's length field has counted, all but the Ethernet header.
        hdr_len: u16::try_from(found.payload).map_err(|_| Refused::Frame)?,
        gso_size: header.gso_size,
        ..checksum
    })
}

/// Whether a datagram's length is that of the packet.
fn is_whole(frame: &[u8], found: &Headers) -> bool {
    match found.transport {
        Transport::Tcp => true,
        Transport::Udp => {
            let len = word(frame, found.start.saturating_add(4));
            len.map(usize::from) == found.end.checked_sub(found.start)
        }
    }
}

/// Whether a driver that receives takes this packet as it is.
///
/// * `header`: trusted
/// * `offloads`: those of [`RECEIVE`](super::RECEIVE) that are on
///
/// # Spec
/// virtio 1.4 §5.1.9.4.1.
pub fn takes(header: Header, frame: &[u8], offloads: Features) -> bool {
    if header.flags == 0 && !header.is_gso() {
        return true;
    }
    if !offloads.contains(net::GUEST_CSUM) {
        return false;
    }
    let ecn = header.gso_type & Header::ECN != 0;
    if ecn && !offloads.contains(net::GUEST_ECN) {
        return false;
    }
    match header.gso() {
        Header::GSO_NONE => true,
        Header::GSO_TCPV4 => offloads.contains(net::GUEST_TSO4),
        Header::GSO_TCPV6 => offloads.contains(net::GUEST_TSO6),
        Header::GSO_UDP_L4 => match headers::network(frame) {
            Some((Ip::V4, _)) => offloads.contains(net::GUEST_USO4),
            Some((Ip::V6, _)) => offloads.contains(net::GUEST_USO6),
            None => false,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests;

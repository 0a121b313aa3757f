//! The header in front of every packet, without its number of buffers.

use super::headers::{Ip, Transport};

/// `virtio_net_hdr` up to `csum_offset` (virtio 1.4 §5.1.9), little-endian.
///
/// ```text
///   0      1         2        4         6           8
///   flags  gso_type  hdr_len  gso_size  csum_start  csum_offset
/// ```
/// From a driver it is a claim, until [`check`](super::check()) has compared it with its frame.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Header {
    /// [`NEEDS_CSUM`](Self::NEEDS_CSUM), [`DATA_VALID`](Self::DATA_VALID).
    pub flags: u8,
    /// How the packet is to be segmented, perhaps with [`ECN`](Self::ECN).
    pub gso_type: u8,
    /// Bytes of all headers.
    pub hdr_len: u16,
    /// Bytes of payload in each segment but the last.
    pub gso_size: u16,
    /// Where the checksum begins, in bytes from the start of the frame.
    pub csum_start: u16,
    /// Where it is stored, in bytes from `csum_start`.
    pub csum_offset: u16,
}

impl Header {
    /// Bytes that it takes.
    pub const BYTES: usize = 10;

    /// Of a packet that is a frame as on a cable.
    pub const NONE: Self = Self {
        flags: 0,
        gso_type: Self::GSO_NONE,
        hdr_len: 0,
        gso_size: 0,
        csum_start: 0,
        csum_offset: 0,
    };

    /// Flag: the checksum field holds the sum of the pseudo header alone.
    pub const NEEDS_CSUM: u8 = 1;
    /// Flag: the checksum was looked at, and is right.
    pub const DATA_VALID: u8 = 2;
    /// Flag: `csum_start` and `csum_offset` count coalesced segments. Never set here.
    pub const RSC_INFO: u8 = 4;

    /// Nothing is to be segmented.
    pub const GSO_NONE: u8 = 0;
    /// TCP over IPv4.
    pub const GSO_TCPV4: u8 = 1;
    /// UDP to be cut into IP fragments. Not supported here.
    pub const GSO_UDP: u8 = 3;
    /// TCP over IPv6.
    pub const GSO_TCPV6: u8 = 4;
    /// UDP to be cut into datagrams, over either IP.
    pub const GSO_UDP_L4: u8 = 5;
    /// In a UDP tunnel over IPv4. Not supported here.
    pub const GSO_UDP_TUNNEL_IPV4: u8 = 0x20;
    /// In a UDP tunnel over IPv6. Not supported here.
    pub const GSO_UDP_TUNNEL_IPV6: u8 = 0x40;
    /// Beside a TCP type: the first segment alone says that the congestion window was reduced (CWR).
    pub const ECN: u8 = 0x80;

    /// The header in these bytes.
    #[inline]
    pub const fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let [flags, gso_type, a, b, c, d, e, f, g, h] = *bytes;
        Self {
            flags,
            gso_type,
            hdr_len: u16::from_le_bytes([a, b]),
            gso_size: u16::from_le_bytes([c, d]),
            csum_start: u16::from_le_bytes([e, f]),
            csum_offset: u16::from_le_bytes([g, h]),
        }
    }

    /// Its bytes.
    #[inline]
    pub const fn to_bytes(self) -> [u8; Self::BYTES] {
        let [a, b] = self.hdr_len.to_le_bytes();
        let [c, d] = self.gso_size.to_le_bytes();
        let [e, f] = self.csum_start.to_le_bytes();
        let [g, h] = self.csum_offset.to_le_bytes();
        [self.flags, self.gso_type, a, b, c, d, e, f, g, h]
    }

    /// The header at the front of a packet; [`NONE`](Self::NONE) if there is none.
    #[inline]
    pub fn of(packet: &[u8]) -> Self {
        packet.first_chunk().map_or(Self::NONE, Self::from_bytes)
    }

    /// Writes it to the front of a packet.
    #[inline]
    pub fn put(self, packet: &mut [u8]) {
        if let Some(room) = packet.first_chunk_mut() {
            *room = self.to_bytes();
        }
    }

    /// Whether the header at the front of a packet says nothing: one comparison, since the other fields mean nothing
    /// without a flag or a type.
    #[inline]
    pub fn is_none(packet: &[u8]) -> bool {
        packet.first_chunk() == Some(&[0_u8; 2])
    }

    /// Whether the checksum is to be completed.
    #[inline]
    pub const fn needs_csum(self) -> bool {
        self.flags & Self::NEEDS_CSUM != 0
    }

    /// The type without [`ECN`](Self::ECN).
    #[inline]
    pub const fn gso(self) -> u8 {
        self.gso_type & !Self::ECN
    }

    /// What the type segments: which transport, over which IP if it matters. `None` for types not supported here.
    #[inline]
    pub const fn kind(self) -> Option<(Transport, Option<Ip>)> {
        match self.gso() {
            Self::GSO_TCPV4 => Some((Transport::Tcp, Some(Ip::V4))),
            Self::GSO_TCPV6 => Some((Transport::Tcp, Some(Ip::V6))),
            Self::GSO_UDP_L4 => Some((Transport::Udp, None)),
            _ => None,
        }
    }

    /// Whether the packet is to be segmented.
    #[inline]
    pub const fn is_gso(self) -> bool {
        self.gso_type != Self::GSO_NONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_has_its_place_in_little_endian() {
        let bytes = [1, 0x81, 54, 0, 0xb4, 5, 34, 0, 16, 1];
        let header = Header {
            flags: Header::NEEDS_CSUM,
            gso_type: Header::GSO_TCPV4 | Header::ECN,
            hdr_len: 54,
            gso_size: 1460,
            csum_start: 34,
            csum_offset: 272,
        };
        assert_eq!(Header::from_bytes(&bytes), header);
        assert_eq!(header.to_bytes(), bytes);
        assert_eq!(header.gso(), Header::GSO_TCPV4);
        let mut packet = [7; 12];
        header.put(&mut packet);
        assert_eq!((Header::of(&packet), packet[10]), (header, 7));
        assert!(!Header::is_none(&packet) && Header::is_none(&[0, 0, 9]));
        assert_eq!(Header::of(&[1; 9]), Header::NONE);
        assert!(!Header::is_none(&[0]), "no header at all");
    }
}

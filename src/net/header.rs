//! What stands before a frame: which of its work is left to the device, or was left to the driver.
//!
//! ```text
//!  0       1          2         4          6            8             10            12           16            18    20
//!  | flags | gso_type | hdr_len | gso_size | csum_start | csum_offset | num_buffers | hash_value | hash_report | pad |
//!                                                                                   └── with HASH_REPORT only ──────┘
//! ```

use vdpa_core::bits::net;
use vdpa_core::{FeatureBit, Features};

use super::{Ethernet, NetError, features};

/// The longest frame that is to be cut into segments, in bytes: virtio 1.4 §5.1.9.3.1.
pub(super) const MAX_LARGE: usize = 65_550;

const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;

const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// What the header of a frame says, virtio 1.4 §5.1.9.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Header {
    /// The checksum of its transport.
    pub checksum: Checksum,
    /// How it is cut into packets that the network takes; `None` for a frame that is one packet.
    pub segments: Option<Segments>,
}

/// The state of a TCP or UDP checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Checksum {
    /// It is in its place, as far as there is one; nobody has looked.
    #[default]
    Whole,
    /// It is in its place, and the device has found it right. Never sent.
    Verified,
    /// In its place is the sum of the pseudo header alone, and whoever puts the frame on a network completes it.
    Partial {
        /// Where the bytes begin that it covers, from the beginning of the frame.
        start: u16,
        /// Where it stands, from `start` on: 16 for TCP, 6 for UDP.
        offset: u16,
    },
}

/// A frame that is cut into segments on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segments {
    /// What of.
    pub of: Segmented,
    /// Bytes of payload in each segment but the last; at least 1.
    pub size: u16,
    /// Bytes of all headers together, as far as known: each segment has them in front.
    pub header_len: u16,
    /// Whether it is a TCP segment with the congestion window reduced (CWR): only the first part keeps that mark.
    pub ecn: bool,
}

/// What a large frame carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Segmented {
    /// One TCP segment over IPv4.
    TcpV4,
    /// One TCP segment over IPv6.
    TcpV6,
    /// UDP datagrams to one place, over IPv4 or IPv6.
    Udp,
}

/// A packet's hash, as the device found it (feature HASH_REPORT).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hash {
    /// The Toeplitz hash.
    pub value: u32,
    /// What was hashed: the `hash_report` of virtio 1.4 §5.1.9.4.4, 1 (IPv4 addresses) to 9 (UDP over IPv6 with
    /// extension headers).
    pub report: u16,
}

impl Header {
    /// Of a frame that is whole.
    pub const NONE: Self = Self {
        checksum: Checksum::Whole,
        segments: None,
    };

    /// Bytes of the longest header.
    pub(super) const MOST: usize = 20;

    /// Bytes of the header with these features.
    pub(super) const fn len(features: Features) -> usize {
        if features.contains(net::HASH_REPORT) {
            Self::MOST
        } else {
            12
        }
    }

    /// Whether the device may do this to `frame`, whose MTU is `ethernet`'s.
    ///
    /// # Spec
    /// virtio 1.4 §5.1.9.2.1.
    pub(super) fn check(
        &self,
        frame: &[u8],
        negotiated: Features,
        ethernet: &Ethernet,
    ) -> Result<(), NetError> {
        let need = |bit: FeatureBit| match negotiated.contains(bit) {
            true => Ok(()),
            false => Err(NetError::OffloadNotNegotiated {
                feature: features::name(bit),
            }),
        };
        let len = frame.len();
        match self.checksum {
            Checksum::Whole => {}
            Checksum::Verified => return Err(NetError::VerifiedSent),
            Checksum::Partial { start, offset } => {
                need(net::CSUM)?;
                if !is_inside(start, offset, len) {
                    return Err(NetError::ChecksumPlace { start, offset, len });
                }
            }
        }
        let Some(segments) = self.segments else {
            return Ok(());
        };
        need(match segments.of {
            Segmented::TcpV4 => net::HOST_TSO4,
            Segmented::TcpV6 => net::HOST_TSO6,
            Segmented::Udp => net::HOST_USO,
        })?;
        if segments.ecn {
            need(net::HOST_ECN)?;
        }
        let (size, header_len) = (segments.size, segments.header_len);
        let most = ethernet.max_frame(frame);
        let partial = matches!(self.checksum, Checksum::Partial { .. });
        let one = usize::from(header_len) + usize::from(size);
        if !partial || size == 0 || one > most || usize::from(header_len) >= len {
            return Err(NetError::SegmentSize {
                size,
                header_len,
                len,
                most,
            });
        }
        Ok(())
    }

    /// The whole header, of which a driver writes as much as there [is](Self::len): behind the first ten bytes it says
    /// nothing, and stands in buffers that held other things, so that it is written all the same (virtio 1.4
    /// §5.1.9.2.1: `num_buffers` is 0).
    pub(super) fn encode(&self) -> [u8; Self::MOST] {
        let mut bytes = [0; Self::MOST];
        match self.checksum {
            Checksum::Whole => {}
            Checksum::Verified => bytes[0] = DATA_VALID,
            Checksum::Partial { start, offset } => {
                bytes[0] = NEEDS_CSUM;
                bytes[6..8].copy_from_slice(&start.to_le_bytes());
                bytes[8..10].copy_from_slice(&offset.to_le_bytes());
            }
        }
        if let Some(segments) = self.segments {
            let of = match segments.of {
                Segmented::TcpV4 => GSO_TCPV4,
                Segmented::TcpV6 => GSO_TCPV6,
                Segmented::Udp => GSO_UDP_L4,
            };
            bytes[1] = if segments.ecn { of | GSO_ECN } else { of };
            bytes[2..4].copy_from_slice(&segments.header_len.to_le_bytes());
            bytes[4..6].copy_from_slice(&segments.size.to_le_bytes());
        }
        bytes
    }

    /// What the device wrote before a frame of `len` bytes. `None` when it cannot be, or needs a feature that was not
    /// negotiated.
    ///
    /// # Spec
    /// virtio 1.4 §5.1.9.4.1.
    pub(super) fn decode(bytes: &[u8; 10], features: Features, len: usize) -> Option<Self> {
        if !features.contains(net::GUEST_CSUM) {
            // Every receive offload needs it: what is there means nothing.
            return Some(Self::NONE);
        }
        let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let checksum = if bytes[0] & NEEDS_CSUM != 0 {
            let (start, offset) = (word(6), word(8));
            if !is_inside(start, offset, len) {
                return None;
            }
            Checksum::Partial { start, offset }
        } else if bytes[0] & DATA_VALID != 0 {
            Checksum::Verified
        } else {
            Checksum::Whole
        };
        let ecn = bytes[1] & GSO_ECN != 0;
        let (of, permitted) = match bytes[1] & !GSO_ECN {
            GSO_NONE => {
                let segments = None;
                return (!ecn).then_some(Self { checksum, segments });
            }
            GSO_TCPV4 => (Segmented::TcpV4, net::GUEST_TSO4.mask()),
            GSO_TCPV6 => (Segmented::TcpV6, net::GUEST_TSO6.mask()),
            GSO_UDP_L4 => (Segmented::Udp, net::GUEST_USO4 | net::GUEST_USO6),
            _ => return None,
        };
        let segments = Segments {
            of,
            size: word(4),
            header_len: word(2),
            ecn,
        };
        let right = features.intersects(permitted)
            && (!ecn || features.contains(net::GUEST_ECN))
            && matches!(checksum, Checksum::Partial { .. })
            && segments.size > 0
            && usize::from(segments.header_len) <= len;
        right.then_some(Self {
            checksum,
            segments: Some(segments),
        })
    }
}

impl Hash {
    /// The eight bytes behind the number of buffers; `None` when the device found no hash.
    pub(super) fn decode(bytes: &[u8; 8]) -> Option<Self> {
        let [a, b, c, d, e, f, _, _] = *bytes;
        let report = u16::from_le_bytes([e, f]);
        let value = u32::from_le_bytes([a, b, c, d]);
        (report != 0).then_some(Self { value, report })
    }
}

/// Whether a checksum there lies in a frame of `len` bytes, behind its Ethernet header.
fn is_inside(start: u16, offset: u16, len: usize) -> bool {
    let (start, offset) = (usize::from(start), usize::from(offset));
    start >= Ethernet::HEADER_BYTES && start + offset + 2 <= len
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUEST: Features = Features::of(&[
        net::GUEST_CSUM,
        net::GUEST_TSO4,
        net::GUEST_TSO6,
        net::GUEST_USO4,
        net::GUEST_ECN,
    ]);
    const HOST: Features = Features::of(&[net::CSUM, net::HOST_TSO4, net::HOST_ECN]);
    const ETHERNET: Ethernet = Ethernet {
        mac: None,
        mtu: 1500,
    };

    fn large(of: Segmented) -> Header {
        Header {
            checksum: Checksum::Partial {
                start: 34,
                offset: 16,
            },
            segments: Some(Segments {
                of,
                size: 1448,
                header_len: 66,
                ecn: of == Segmented::TcpV4,
            }),
        }
    }

    /// The first ten bytes; nothing stands behind them.
    fn first(header: &Header) -> [u8; 10] {
        let bytes = header.encode();
        let (first, rest) = bytes.split_at(10);
        assert_eq!(rest, [0; 10]);
        first.try_into().unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let checksum = Checksum::Verified;
        let all = [
            Header::NONE,
            Header {
                checksum,
                segments: None,
            },
            large(Segmented::TcpV4),
            large(Segmented::TcpV6),
            large(Segmented::Udp),
        ];
        for header in all {
            let read = Header::decode(&first(&header), GUEST, 4000);
            assert_eq!(read, Some(header));
        }
        assert_eq!(
            first(&large(Segmented::TcpV4)),
            [1, 0x81, 66, 0, 0xa8, 5, 34, 0, 16, 0]
        );
    }

    #[test]
    fn what_was_not_negotiated_is_not_taken() {
        let bytes = first(&large(Segmented::TcpV4));
        for (without, len) in [
            (net::GUEST_TSO4.mask(), 4000),
            (net::GUEST_ECN.mask(), 4000),
            (Features::NONE, 51),
        ] {
            assert_eq!(Header::decode(&bytes, GUEST - without, len), None);
        }
        // Without any receive offload nothing in it means anything.
        let read = Header::decode(&[0xff; 10], Features::NONE, 60);
        assert_eq!(read, Some(Header::NONE));
    }

    #[test]
    fn what_cannot_be_is_not_taken() {
        let good = first(&large(Segmented::TcpV6));
        for (at, byte) in [(0, 0), (1, 2), (1, 0x80), (1, 0xff), (3, 0xff), (7, 0xff)] {
            let mut bytes = good;
            bytes[at] = byte;
            assert_eq!(Header::decode(&bytes, GUEST, 4000), None, "{at} {byte}");
        }
        let mut no_size = good;
        no_size[4..6].fill(0);
        assert_eq!(Header::decode(&no_size, GUEST, 4000), None);
        // A checksum in the Ethernet header, and one that ends behind the frame.
        for (start, offset) in [(13, 16), (34, u16::MAX), (u16::MAX, 0), (50, 9)] {
            assert!(!is_inside(start, offset, 60), "{start} {offset}");
        }
        assert!(is_inside(50, 8, 60));
    }

    #[test]
    fn what_the_device_may_not_do_is_not_asked() {
        let frame = [0; 4000];
        let good = large(Segmented::TcpV4);
        assert!(good.check(&frame, HOST, &ETHERNET).is_ok());
        for bit in HOST.iter() {
            let error = good.check(&frame, HOST.without(bit), &ETHERNET);
            let name = super::features::name(bit);
            assert!(error.unwrap_err().to_string().contains(name));
        }
        let alter = |change: fn(&mut Segments)| {
            let mut segments = good.segments.unwrap();
            change(&mut segments);
            Header {
                segments: Some(segments),
                ..good
            }
        };
        let checksum = Checksum::Whole;
        for bad in [
            alter(|segments| segments.size = 0),
            alter(|segments| segments.size = 1449),
            alter(|segments| (segments.size, segments.header_len) = (1, 4000)),
            Header { checksum, ..good },
        ] {
            let error = bad.check(&frame, HOST, &ETHERNET).unwrap_err();
            assert!(matches!(error, NetError::SegmentSize { .. }), "{error}");
        }
        let error = good.check(&frame[..51], HOST, &ETHERNET).unwrap_err();
        assert!(matches!(error, NetError::ChecksumPlace { .. }), "{error}");
    }

    #[test]
    fn a_hash_of_nothing_is_none() {
        assert_eq!(Hash::decode(&[1, 2, 3, 4, 0, 0, 0, 0]), None);
        let hash = Hash::decode(&[1, 2, 3, 4, 2, 0, 0, 0]).unwrap();
        assert_eq!((hash.value, hash.report), (0x0403_0201, 2));
    }
}

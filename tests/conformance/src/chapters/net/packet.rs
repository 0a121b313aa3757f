//! Packets to send, and what is read out of those that come: written from the RFCs, so that nothing of a device's own is
//! used to judge it.

use super::card::OURS;

/// Bytes of an Ethernet header.
pub(super) const ETHERNET: usize = 14;

pub(super) const NEEDS_CSUM: u8 = 1;
pub(super) const DATA_VALID: u8 = 2;
pub(super) const RSC_INFO: u8 = 4;

pub(super) const GSO_TCPV4: u8 = 1;
pub(super) const GSO_UDP: u8 = 3;
pub(super) const GSO_TCPV6: u8 = 4;
pub(super) const GSO_UDP_L4: u8 = 5;
pub(super) const TUNNEL_IPV4: u8 = 0x20;
pub(super) const TUNNEL_IPV6: u8 = 0x40;
pub(super) const ECN: u8 = 0x80;

/// What a packet's IP payload is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Kind {
    pub(super) v6: bool,
    pub(super) udp: bool,
}

pub(super) const TCP4: Kind = Kind {
    v6: false,
    udp: false,
};
pub(super) const TCP6: Kind = Kind {
    v6: true,
    udp: false,
};
pub(super) const UDP4: Kind = Kind {
    v6: false,
    udp: true,
};
pub(super) const UDP6: Kind = Kind {
    v6: true,
    udp: true,
};
pub(super) const KINDS: [Kind; 4] = [TCP4, TCP6, UDP4, UDP6];

/// Who sends to whom.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Flow {
    pub(super) from: Vec<u8>,
    pub(super) to: Vec<u8>,
    pub(super) ports: [u16; 2],
}

/// The first ten bytes of a packet's header, virtio 1.4 §5.1.9.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Header {
    pub(super) flags: u8,
    pub(super) gso_type: u8,
    pub(super) hdr_len: u16,
    pub(super) gso_size: u16,
    pub(super) csum_start: u16,
    pub(super) csum_offset: u16,
    pub(super) num_buffers: u16,
}

impl Header {
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let words = [
            self.hdr_len,
            self.gso_size,
            self.csum_start,
            self.csum_offset,
            self.num_buffers,
        ];
        let words = words.iter().flat_map(|word| word.to_le_bytes());
        [self.flags, self.gso_type]
            .into_iter()
            .chain(words)
            .collect()
    }

    /// `None` where there are fewer than twelve bytes.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| {
            let two = bytes.get(at..at + 2)?;
            Some(u16::from_le_bytes(two.try_into().ok()?))
        };
        Some(Self {
            flags: *bytes.first()?,
            gso_type: *bytes.get(1)?,
            hdr_len: word(2)?,
            gso_size: word(4)?,
            csum_start: word(6)?,
            csum_offset: word(8)?,
            num_buffers: word(10)?,
        })
    }
}

impl Kind {
    /// Between two hosts of this family, with these ports.
    pub(super) fn flow(self, ports: [u16; 2]) -> Flow {
        let host = |last| match self.v6 {
            true => [vec![0xfd], vec![0; 14], vec![last]].concat(),
            false => vec![10, 0, 0, last],
        };
        Flow {
            from: host(1),
            to: host(2),
            ports,
        }
    }

    /// Where the transport header begins.
    pub(super) fn start(self) -> usize {
        ETHERNET + if self.v6 { 40 } else { 20 }
    }

    /// Where the payload begins.
    pub(super) fn headers(self) -> usize {
        self.start() + if self.udp { 8 } else { 20 }
    }

    /// Where the checksum is in the transport header.
    pub(super) fn csum_offset(self) -> usize {
        if self.udp { 6 } else { 16 }
    }

    /// The segmentation that the text names for it.
    pub(super) fn gso_type(self) -> u8 {
        match (self.udp, self.v6) {
            (true, _) => GSO_UDP_L4,
            (false, false) => GSO_TCPV4,
            (false, true) => GSO_TCPV6,
        }
    }

    /// A frame to everybody with no checksum in its transport header.
    fn bare(self, flow: &Flow, payload: &[u8]) -> Vec<u8> {
        let [source, target] = flow.ports.map(u16::to_be_bytes);
        let mut transport = [source, target].concat();
        match self.udp {
            true => {
                let len = (payload.len() + 8) as u16;
                transport.extend([&len.to_be_bytes()[..], &[0, 0]].concat());
            }
            false => {
                // Sequence and acknowledgment, 5 words of header, ACK, a window.
                transport.extend([0, 0, 16, 0, 0, 0, 0, 77, 0x50, 0x10, 0x10, 0, 0, 0, 0, 0]);
            }
        }
        transport.extend(payload);
        let number = self.number();
        let len = transport.len() as u16;
        let [high, low] = match self.v6 {
            true => len,
            false => len.wrapping_add(20),
        }
        .to_be_bytes();
        let mut ip = match self.v6 {
            true => vec![0x60, 0, 0, 0, high, low, number, 64],
            // No fragment of anything.
            false => vec![0x45, 0, high, low, 0, 1, 0x40, 0, 64, number, 0, 0],
        };
        ip.extend(&flow.from);
        ip.extend(&flow.to);
        if !self.v6 {
            let sum = !fold(sum(&ip));
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        let kind = if self.v6 { [0x86, 0xdd] } else { [0x08, 0x00] };
        [&[0xff; 6][..], &OURS, &kind, &ip, &transport].concat()
    }

    fn number(self) -> u8 {
        if self.udp { 17 } else { 6 }
    }

    /// The sum of the pseudo header of what is in a frame.
    fn pseudo(self, flow: &Flow, len: usize) -> u64 {
        sum(&flow.from) + sum(&flow.to) + len as u64 + u64::from(self.number())
    }

    /// A frame with a complete checksum.
    pub(super) fn whole(self, flow: &Flow, payload: &[u8]) -> Vec<u8> {
        let mut frame = self.bare(flow, payload);
        let len = frame.len() - self.start();
        let all = self.pseudo(flow, len) + sum(&frame[self.start()..]);
        let mut checksum = !fold(all);
        if checksum == 0 && self.udp {
            checksum = 0xffff;
        }
        self.put(&mut frame, checksum);
        frame
    }

    /// A frame whose checksum is left to the device, with the header that says so.
    pub(super) fn partial(self, flow: &Flow, payload: &[u8]) -> (Header, Vec<u8>) {
        let mut frame = self.bare(flow, payload);
        let len = frame.len() - self.start();
        self.put(&mut frame, fold(self.pseudo(flow, len)));
        let header = Header {
            flags: NEEDS_CSUM,
            csum_start: self.start() as u16,
            csum_offset: self.csum_offset() as u16,
            ..Header::default()
        };
        (header, frame)
    }

    /// The same, to be cut into segments with `size` bytes of payload each.
    pub(super) fn large(self, flow: &Flow, payload: &[u8], size: u16) -> (Header, Vec<u8>) {
        let (header, frame) = self.partial(flow, payload);
        let header = Header {
            gso_type: self.gso_type(),
            hdr_len: self.headers() as u16,
            gso_size: size,
            ..header
        };
        (header, frame)
    }

    fn put(self, frame: &mut [u8], checksum: u16) {
        let at = self.start() + self.csum_offset();
        frame[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    }
}

/// What was found in a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Found {
    pub(super) kind: Kind,
    pub(super) payload: Vec<u8>,
    /// Whether the checksums of its headers are right.
    pub(super) right: bool,
}

/// Takes apart a frame that is one of the four kinds without options; `None` for any other.
pub(super) fn dissect(frame: &[u8]) -> Option<Found> {
    let v6 = match frame.get(12..14)? {
        [0x08, 0x00] => false,
        [0x86, 0xdd] => true,
        _ => return None,
    };
    let ip = frame.get(ETHERNET..)?;
    let (number, len, addresses) = match v6 {
        true => (ip.get(6)?, be16(ip, 4)?, ip.get(8..40)?),
        false => (ip.get(9)?, be16(ip, 2)?.checked_sub(20)?, ip.get(12..20)?),
    };
    let udp = match number {
        6 => false,
        17 => true,
        _ => return None,
    };
    let kind = Kind { v6, udp };
    // What a short frame is padded with is behind that.
    let transport = frame.get(kind.start()..)?.get(..len)?;
    let all = sum(addresses) + len as u64 + u64::from(*number) + sum(transport);
    let head = v6 || fold(sum(ip.get(..20)?)) == 0xffff;
    let len_is_right = !udp || be16(transport, 4)? == len;
    Some(Found {
        kind,
        payload: frame.get(kind.headers()..kind.start() + len)?.to_vec(),
        right: head && len_is_right && fold(all) == 0xffff,
    })
}

/// Does what NEEDS_CSUM leaves to be done, as the text has it: the checksum from `csum_start` to the end of the packet,
/// stored at `csum_offset` from there. `None` where that is not in the frame.
pub(super) fn complete(header: Header, frame: &[u8]) -> Option<Vec<u8>> {
    let start = usize::from(header.csum_start);
    let at = start + usize::from(header.csum_offset);
    let checksum = !fold(sum(frame.get(start..)?));
    let mut frame = frame.to_vec();
    frame
        .get_mut(at..at + 2)?
        .copy_from_slice(&checksum.to_be_bytes());
    Some(frame)
}

/// Bytes that differ from packet to packet and from place to place.
pub(super) fn payload(seed: u32, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let mut bytes = Vec::with_capacity(len);
    for _ in 0..len {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        bytes.push(state as u8);
    }
    bytes
}

/// A frame of no known protocol, with `len` bytes altogether.
pub(super) fn frame_to(to: [u8; 6], seed: u32, len: usize) -> Vec<u8> {
    let mut frame = [&to[..], &OURS, &[0x88, 0xb5]].concat();
    frame.extend(payload(seed, len.saturating_sub(ETHERNET)));
    frame
}

/// The same to everybody.
pub(super) fn frame(seed: u32, len: usize) -> Vec<u8> {
    frame_to([0xff; 6], seed, len)
}

fn be16(bytes: &[u8], at: usize) -> Option<usize> {
    let two = bytes.get(at..at + 2)?;
    Some(usize::from(u16::from_be_bytes(two.try_into().ok()?)))
}

/// The sum of 16-bit words of RFC 1071, not folded.
fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks(2).map(|word| match *word {
        [high, low] => u64::from(high) << 8 | u64::from(low),
        [high] => u64::from(high) << 8,
        _ => 0,
    });
    words.sum()
}

fn fold(mut sum: u64) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_frame_is_right_and_one_bit_less_is_not() {
        for kind in KINDS {
            let mut frame = kind.whole(&kind.flow([1000, 2000]), &payload(3, 101));
            let found = dissect(&frame).unwrap();
            assert_eq!((found.kind, found.right), (kind, true));
            assert_eq!(found.payload, payload(3, 101));
            *frame.last_mut().unwrap() ^= 4;
            assert!(!dissect(&frame).unwrap().right);
        }
    }

    #[test]
    fn what_is_left_undone_is_what_completing_it_does() {
        for kind in KINDS {
            let flow = kind.flow([1000, 2000]);
            let (header, frame) = kind.partial(&flow, &payload(4, 64));
            assert!(!dissect(&frame).unwrap().right);
            assert_eq!(
                complete(header, &frame).unwrap(),
                kind.whole(&flow, &payload(4, 64))
            );
        }
    }

    #[test]
    fn a_published_checksum_comes_out() {
        // The example of RFC 1071, section 3.
        assert_eq!(
            fold(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])),
            0xddf2
        );
    }
}

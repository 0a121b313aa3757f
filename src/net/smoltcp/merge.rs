//! Consecutive TCP segments of one flow, put together to one large segment for the device to cut again.
//!
//! ```text
//!   | headers, seq 1 | a | + | headers, seq 1+|a| | b |   ─▶   | headers, seq 1 | a | b |     size |a|, the last not longer
//! ```
//! The stack beneath makes segments of what the network takes, one by one: that is much work that the device can do.

use crate::net::{Checksum, Ethernet, Header, Segmented, Segments};

use super::packet::{Protocol, Transport, Version, set_end};

/// The longest IP packet.
const MAX_IP: usize = 65_535;
/// Where flags stand in a TCP header.
const FLAGS_AT: usize = 13;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;

/// A segment that may still grow. The default has no room yet.
#[derive(Default)]
pub(super) struct Merge {
    frame: Vec<u8>,
    open: Option<Open>,
}

struct Open {
    transport: Transport,
    /// Bytes of all headers.
    headers: usize,
    /// Payload of the first segment: no other is longer.
    size: usize,
    segments: usize,
    /// The sequence number that follows.
    next: u32,
    /// The last segment was a short one, or is to be pushed: nothing comes behind.
    full: bool,
}

impl Merge {
    pub(super) fn new() -> Self {
        Self {
            frame: Vec::with_capacity(Ethernet::HEADER_BYTES + MAX_IP),
            open: None,
        }
    }

    /// Whether there is no segment in it.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_none()
    }

    /// Whether nothing can be added.
    pub(super) fn is_full(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.full)
    }

    /// Takes a segment with payload as the first one. `false`: it is none that others could follow.
    pub(super) fn begin(&mut self, frame: &[u8], transport: Transport) -> bool {
        let Some(payload_at) = payload_at(frame, &transport) else {
            return false;
        };
        let size = transport.end - payload_at;
        self.frame.clear();
        self.frame.extend_from_slice(&frame[..transport.end]);
        self.open = Some(Open {
            headers: payload_at,
            size,
            segments: 1,
            next: sequence(frame, &transport).wrapping_add(size as u32),
            full: is_pushed(frame, &transport),
            transport,
        });
        true
    }

    /// Adds a segment that is the next of the same flow, with the same headers. `false`: it is none.
    pub(super) fn extend(&mut self, frame: &[u8], transport: &Transport) -> bool {
        let Some(open) = &mut self.open else {
            return false;
        };
        let Some(payload_at) = payload_at(frame, transport) else {
            return false;
        };
        let size = transport.end - payload_at;
        let len = self.frame.len() + size;
        if open.full
            || payload_at != open.headers
            || transport.at != open.transport.at
            || transport.version != open.transport.version
            || size > open.size
            || len - Ethernet::HEADER_BYTES > MAX_IP
            || sequence(frame, transport) != open.next
            || !is_same_flow(&self.frame, frame, transport, payload_at)
        {
            return false;
        }
        self.frame
            .extend_from_slice(&frame[payload_at..transport.end]);
        open.segments += 1;
        open.next = open.next.wrapping_add(size as u32);
        let pushed = is_pushed(frame, transport);
        if pushed {
            self.frame[transport.at + FLAGS_AT] |= PSH;
        }
        open.full = pushed || size < open.size || len - Ethernet::HEADER_BYTES + open.size > MAX_IP;
        true
    }

    /// The segment as it is to be sent, with its header; it is no longer in here. `None` if there was none.
    pub(super) fn close(&mut self) -> Option<(Header, &[u8])> {
        let open = self.open.take()?;
        let mut transport = open.transport;
        transport.end = self.frame.len();
        let mut segments = None;
        if open.segments > 1 {
            set_end(&mut self.frame, transport.version, transport.end);
            segments = Some(Segments {
                of: match transport.version {
                    Version::V4 => Segmented::TcpV4,
                    Version::V6 => Segmented::TcpV6,
                },
                // Both are below the MTU.
                size: open.size as u16,
                header_len: open.headers as u16,
                ecn: false,
            });
        }
        transport.begin_checksum(&mut self.frame);
        let checksum = Checksum::Partial {
            // Behind Ethernet and IP headers: at most 74.
            start: transport.at as u16,
            offset: transport.checksum_offset(),
        };
        let header = Header { checksum, segments };
        Some((header, &self.frame))
    }
}

/// Where the payload of a segment begins that has one, and no flags but ACK and PSH.
fn payload_at(frame: &[u8], transport: &Transport) -> Option<usize> {
    if transport.protocol != Protocol::Tcp {
        return None;
    }
    let words = frame[transport.at + 12] >> 4;
    let at = transport.at + usize::from(words) * 4;
    let plain = frame[transport.at + FLAGS_AT] & !PSH == ACK;
    // Nothing hides in the lowest bits of the length.
    let reserved = frame[transport.at + 12] & 0x0f;
    (plain && reserved == 0 && words >= 5 && at < transport.end).then_some(at)
}

fn sequence(frame: &[u8], transport: &Transport) -> u32 {
    let at = transport.at + 4;
    u32::from_be_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]])
}

fn is_pushed(frame: &[u8], transport: &Transport) -> bool {
    frame[transport.at + FLAGS_AT] & PSH != 0
}

/// Whether the headers are the same but for lengths, identification, sequence numbers, flags and checksums.
fn is_same_flow(ours: &[u8], theirs: &[u8], transport: &Transport, payload_at: usize) -> bool {
    let same = |from: usize, to: usize| ours[from..to] == theirs[from..to];
    let ip = Ethernet::HEADER_BYTES;
    let tcp = transport.at;
    let same_ip = match transport.version {
        // Without: length and identification; checksum.
        Version::V4 => same(0, ip + 2) && same(ip + 6, ip + 10) && same(ip + 12, tcp),
        // Without: length.
        Version::V6 => same(0, ip + 4) && same(ip + 6, tcp),
    };
    // Without: sequence number; flags; checksum.
    same_ip
        && same(tcp, tcp + 4)
        && same(tcp + 8, tcp + FLAGS_AT)
        && same(tcp + 14, tcp + 16)
        && same(tcp + 18, payload_at)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A segment of `len` bytes over IPv4 at this sequence number.
    fn segment(sequence: u32, len: usize, flags: u8) -> Vec<u8> {
        let mut frame = vec![0; 54 + len];
        frame[12..14].copy_from_slice(&[8, 0]);
        let total = (40 + len) as u16;
        frame[14..26].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0]);
        frame[16..18].copy_from_slice(&total.to_be_bytes());
        frame[26..38].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2, 0, 7, 0, 9]);
        frame[38..42].copy_from_slice(&sequence.to_be_bytes());
        frame[46..48].copy_from_slice(&[0x50, flags]);
        let bytes = frame[54..].iter_mut().zip(sequence..);
        bytes.for_each(|(byte, at)| *byte = at as u8);
        frame
    }

    fn find(frame: &[u8]) -> Transport {
        Transport::find(frame).unwrap()
    }

    fn extends(merge: &mut Merge, frame: &[u8]) -> bool {
        merge.extend(frame, &find(frame))
    }

    fn begun() -> Merge {
        let mut merge = Merge::new();
        let first = segment(100, 1000, ACK);
        assert!(merge.begin(&first, find(&first)));
        merge
    }

    #[test]
    fn segments_become_one_that_a_device_can_cut_again() {
        let mut merge = begun();
        assert!(extends(&mut merge, &segment(1100, 1000, ACK)));
        assert!(!merge.is_full());
        assert!(extends(&mut merge, &segment(2100, 7, ACK | PSH)));
        assert!(merge.is_full());
        let (header, frame) = merge.close().unwrap();
        let segments = header.segments.unwrap();
        assert_eq!((segments.of, segments.size), (Segmented::TcpV4, 1000));
        assert_eq!(segments.header_len, 54);
        assert_eq!(frame.len(), 54 + 2007);
        assert_eq!(frame[16..18], 2047u16.to_be_bytes());
        assert_eq!(frame[47], ACK | PSH);
        let payload = (100u32..2107).map(|at| at as u8);
        assert!(frame[54..].iter().copied().eq(payload));
        assert!(merge.is_empty() && merge.close().is_none());
    }

    #[test]
    fn one_segment_stays_as_it_is() {
        let mut merge = begun();
        let (header, frame) = merge.close().unwrap();
        assert_eq!(header.segments, None);
        let checksum = Checksum::Partial {
            start: 34,
            offset: 16,
        };
        assert_eq!(header.checksum, checksum);
        assert_eq!(frame.len(), 1054);
    }

    #[test]
    fn what_is_not_the_next_of_the_flow_is_not_added() {
        let alter = |at: usize| {
            let mut frame = segment(1100, 1000, ACK);
            frame[at] ^= 1;
            frame
        };
        // Ethernet source, type of service, addresses, ports, acknowledgement, window.
        for at in [6, 15, 26, 33, 34, 37, 45, 48] {
            assert!(!extends(&mut begun(), &alter(at)), "{at}");
        }
        for other in [
            segment(1101, 1000, ACK),
            segment(100, 1000, ACK),
            segment(1100, 1001, ACK),
            segment(1100, 0, ACK),
            segment(1100, 10, ACK | 1),
            segment(1100, 10, 0),
        ] {
            assert!(!extends(&mut begun(), &other));
        }
        // Identification may differ.
        assert!(extends(&mut begun(), &alter(19)));
    }

    #[test]
    fn what_has_no_payload_or_other_flags_begins_nothing() {
        for frame in [
            segment(1, 0, ACK),
            segment(1, 9, ACK | 4),
            segment(1, 9, ACK | 0x80),
        ] {
            assert!(!Merge::new().begin(&frame, find(&frame)));
        }
    }

    #[test]
    fn no_packet_is_longer_than_ip_allows() {
        let mut merge = begun();
        let mut next = 1100;
        while !merge.is_full() {
            assert!(extends(&mut merge, &segment(next, 1000, ACK)));
            next += 1000;
        }
        let (_, frame) = merge.close().unwrap();
        assert_eq!(frame.len(), 54 + 65_000);
        assert_eq!(frame[16..18], 65_040u16.to_be_bytes());
    }
}

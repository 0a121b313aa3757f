//! What a frame carries, as far as checksums and segments are concerned.

use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, IpAddress, IpProtocol, Ipv4Packet, Ipv6Packet, TcpPacket,
    UdpPacket,
};

use crate::net::Ethernet;

/// Where the transport header of a whole, untagged TCP or UDP packet stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Transport {
    pub(super) version: Version,
    pub(super) protocol: Protocol,
    /// Where its header begins.
    pub(super) at: usize,
    /// Where its payload ends: an Ethernet frame may have padding behind.
    pub(super) end: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Version {
    V4,
    V6,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Protocol {
    Tcp,
    Udp,
}

/// Where an IP header begins.
const IP_AT: usize = Ethernet::HEADER_BYTES;

impl Transport {
    /// `None` for what is no TCP or UDP packet, or one with IPv6 extension headers, or a fragment.
    pub(super) fn find(frame: &[u8]) -> Option<Self> {
        let ethernet = EthernetFrame::new_checked(frame).ok()?;
        let (version, protocol, at, len) = match ethernet.ethertype() {
            EthernetProtocol::Ipv4 => {
                let packet = Ipv4Packet::new_checked(ethernet.payload()).ok()?;
                if packet.more_frags() || packet.frag_offset() != 0 {
                    return None;
                }
                let at = IP_AT + usize::from(packet.header_len());
                let len = usize::from(packet.total_len());
                (Version::V4, packet.next_header(), at, len)
            }
            EthernetProtocol::Ipv6 => {
                let packet = Ipv6Packet::new_checked(ethernet.payload()).ok()?;
                let len = packet.header_len() + usize::from(packet.payload_len());
                let at = IP_AT + packet.header_len();
                (Version::V6, packet.next_header(), at, len)
            }
            _ => return None,
        };
        let (protocol, header) = match protocol {
            IpProtocol::Tcp => (Protocol::Tcp, 20),
            IpProtocol::Udp => (Protocol::Udp, 8),
            _ => return None,
        };
        let end = IP_AT + len;
        (at + header <= end).then_some(Self {
            version,
            protocol,
            at,
            end,
        })
    }

    /// Where the checksum stands in the transport header.
    pub(super) fn checksum_offset(&self) -> u16 {
        match self.protocol {
            Protocol::Tcp => 16,
            Protocol::Udp => 6,
        }
    }

    /// The addresses of the IP header in `frame`.
    fn addresses<'f>(&self, frame: &'f [u8]) -> &'f [u8] {
        match self.version {
            Version::V4 => &frame[IP_AT + 12..IP_AT + 20],
            Version::V6 => &frame[IP_AT + 8..IP_AT + 40],
        }
    }

    /// Puts the sum of the pseudo header alone where the checksum stands: how a device wants it that completes it.
    pub(super) fn begin_checksum(&self, frame: &mut [u8]) {
        let protocol = match self.protocol {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        };
        // At most 65535, by the IP headers.
        let len = (self.end - self.at) as u32;
        let words = self.addresses(frame).chunks_exact(2);
        let sum: u32 = words
            .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
            .sum();
        let sum = sum + protocol + len;
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = ((sum & 0xffff) + (sum >> 16)) as u16;
        let at = self.at + usize::from(self.checksum_offset());
        frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }

    /// Whether the checksum in `frame` is right.
    pub(super) fn is_right(&self, frame: &[u8]) -> bool {
        let addresses = self.addresses(frame);
        let (source, destination) = addresses.split_at(addresses.len() / 2);
        let (Some(source), Some(destination)) = (address(source), address(destination)) else {
            return false;
        };
        let bytes = &frame[self.at..self.end];
        match self.protocol {
            Protocol::Tcp => TcpPacket::new_checked(bytes)
                .is_ok_and(|packet| packet.verify_checksum(&source, &destination)),
            Protocol::Udp => UdpPacket::new_checked(bytes)
                .is_ok_and(|packet| packet.verify_checksum(&source, &destination)),
        }
    }

    /// A number that is the same for all packets of a flow in this direction, and mostly another for other flows.
    pub(super) fn flow(&self, frame: &[u8]) -> u32 {
        let ports = &frame[self.at..self.at + 4];
        let bytes = self.addresses(frame).iter().chain(ports);
        // FNV-1a, and the high bits, which are the better mixed ones.
        let hash = bytes.fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
        });
        hash ^ (hash >> 16)
    }
}

fn address(bytes: &[u8]) -> Option<IpAddress> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddress::Ipv4(v4.into()));
    }
    let v6 = <[u8; 16]>::try_from(bytes).ok()?;
    Some(IpAddress::Ipv6(v6.into()))
}

/// The payload of `frame` grew, or several packets became one: the IP header says so.
pub(super) fn set_end(frame: &mut [u8], version: Version, end: usize) {
    // At most 65535, by what a merge takes.
    let len = (end - IP_AT) as u16;
    match version {
        Version::V4 => {
            let mut packet = Ipv4Packet::new_unchecked(&mut frame[IP_AT..]);
            packet.set_total_len(len);
            packet.fill_checksum();
        }
        Version::V6 => {
            let mut packet = Ipv6Packet::new_unchecked(&mut frame[IP_AT..]);
            packet.set_payload_len(len - 40);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A TCP segment over IPv4 as a capture has it: "hi" from 10.0.0.1 to 10.0.0.2.
    pub(crate) fn segment() -> Vec<u8> {
        let mut frame = vec![0; 14 + 20 + 20 + 2];
        frame[12..14].copy_from_slice(&[8, 0]);
        frame[14..26].copy_from_slice(&[0x45, 0, 0, 42, 0, 0, 0x40, 0, 64, 6, 0, 0]);
        frame[26..34].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        frame[34..48].copy_from_slice(&[0, 7, 0, 9, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10]);
        frame[54..].copy_from_slice(b"hi");
        frame
    }

    #[test]
    fn a_begun_checksum_is_completed_by_the_sum_of_the_rest() {
        let mut frame = segment();
        let transport = Transport::find(&frame).unwrap();
        assert_eq!((transport.at, transport.end), (34, 56));
        assert!(!transport.is_right(&frame));
        transport.begin_checksum(&mut frame);
        // What a device does: the sum over all from `start` on, complemented.
        let sum: u32 = frame[34..]
            .chunks(2)
            .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
            .sum();
        let sum = !(((sum & 0xffff) + (sum >> 16)) as u16);
        frame[50..52].copy_from_slice(&sum.to_be_bytes());
        assert!(transport.is_right(&frame));
        frame[55] ^= 1;
        assert!(!transport.is_right(&frame));
    }

    #[test]
    fn what_is_not_whole_is_not_found() {
        let frame = segment();
        let mut fragment = frame.clone();
        fragment[20] = 0x20;
        let mut icmp = frame.clone();
        icmp[23] = 1;
        let mut longer = frame.clone();
        longer[17] = 43;
        let mut shorter = frame.clone();
        shorter[17] = 39;
        for bad in [&fragment, &icmp, &longer, &shorter] {
            assert_eq!(Transport::find(bad), None);
        }
        for len in 0..frame.len() {
            assert_eq!(Transport::find(&frame[..len]), None, "{len}");
        }
    }

    #[test]
    fn a_flow_is_told_by_addresses_and_ports() {
        let frame = segment();
        let flow = |frame: &[u8]| Transport::find(frame).unwrap().flow(frame);
        let mut next = frame.clone();
        next[41] = 9;
        assert_eq!(flow(&frame), flow(&next));
        let mut other = frame.clone();
        other[35] = 8;
        assert_ne!(flow(&frame), flow(&other));
    }
}

//! What is in a capture, by protocol.

use vdpa_sim::pcap::Frame;

/// How many frames there are of each kind. The kinds overlap: a frame may be TCP, IPv6 and tagged.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Protocols {
    pub(crate) arp: u64,
    pub(crate) icmp: u64,
    pub(crate) tcp: u64,
    pub(crate) udp: u64,
    pub(crate) ipv6: u64,
    pub(crate) vlan: u64,
    pub(crate) jumbo: u64,
}

impl Protocols {
    /// Counts the frames.
    pub(crate) fn of(frames: &[Frame]) -> Self {
        let mut counts = Self::default();
        for frame in frames {
            counts.add(&frame.data).unwrap_or_default();
        }
        counts
    }

    /// What frames carry.
    pub(crate) fn protocols(&self) -> [(&'static str, u64); 4] {
        [
            ("ARP", self.arp),
            ("ICMP", self.icmp),
            ("TCP", self.tcp),
            ("UDP", self.udp),
        ]
    }

    /// What they are besides.
    pub(crate) fn properties(&self) -> [(&'static str, u64); 3] {
        [
            ("IPv6", self.ipv6),
            ("VLAN", self.vlan),
            ("jumbo", self.jumbo),
        ]
    }

    /// Counts one frame; `None` where it ends early.
    fn add(&mut self, frame: &[u8]) -> Option<()> {
        const TAG: u16 = 0x8100;
        const ARP: u16 = 0x0806;
        const IPV4: u16 = 0x0800;
        const IPV6: u16 = 0x86dd;
        /// Addresses, type, and a payload of 1500 bytes, tagged.
        const LONGEST_USUAL: usize = 1518;

        self.jumbo += u64::from(frame.len() > LONGEST_USUAL);
        let mut at = 12;
        if be16(frame, at)? == TAG {
            self.vlan += 1;
            at += 4;
        }
        let packet = frame.get(at + 2..)?;
        match be16(frame, at)? {
            ARP => self.arp += 1,
            IPV4 => self.transport(*packet.get(9)?),
            IPV6 => {
                self.ipv6 += 1;
                // A hop-by-hop header comes first, if there is one: multicast listener reports have it.
                let protocol = match *packet.get(6)? {
                    0 => *packet.get(40)?,
                    protocol => protocol,
                };
                self.transport(protocol);
            }
            _ => {}
        }
        Some(())
    }

    fn transport(&mut self, protocol: u8) {
        match protocol {
            1 | 58 => self.icmp += 1,
            6 => self.tcp += 1,
            17 => self.udp += 1,
            _ => {}
        }
    }
}

fn be16(frame: &[u8], at: usize) -> Option<u16> {
    let bytes = frame.get(at..at + 2)?;
    Some(u16::from_be_bytes([bytes[0], bytes[1]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tagged_jumbo_tcp_segment_over_ipv6_is_all_of_these() {
        let mut data = vec![0; 2000];
        data[12..18].copy_from_slice(&[0x81, 0, 0, 10, 0x86, 0xdd]);
        data[18 + 6] = 6;
        let time = Default::default();
        let counts = Protocols::of(&[Frame { time, data }]);
        let expected = Protocols {
            tcp: 1,
            ipv6: 1,
            vlan: 1,
            jumbo: 1,
            ..Protocols::default()
        };
        assert_eq!(counts, expected);
    }

    #[test]
    fn a_cut_frame_is_counted_as_far_as_it_goes() {
        let time = Default::default();
        let data = vec![0; 13];
        assert_eq!(Protocols::of(&[Frame { time, data }]), Protocols::default());
    }
}

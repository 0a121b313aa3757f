//! TCP and UDP packets as a driver makes them that leaves checksum and segmentation to its device, built by etherparse.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of it"
)]

use etherparse::*;

/// What a packet is like.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Shape {
    pub v6: bool,
    pub udp: bool,
    /// VLAN tags, up to 2.
    pub tags: usize,
    /// IPv4 options, or IPv6 extension headers.
    pub options: bool,
    pub tcp_options: bool,
    pub cwr: bool,
    pub fin: bool,
    pub psh: bool,
}

pub const TCP4: Shape = Shape {
    v6: false,
    udp: false,
    tags: 0,
    options: false,
    tcp_options: false,
    cwr: false,
    fin: false,
    psh: false,
};
pub const TCP6: Shape = Shape { v6: true, ..TCP4 };
pub const UDP4: Shape = Shape { udp: true, ..TCP4 };
pub const UDP6: Shape = Shape { udp: true, ..TCP6 };

pub const SEQUENCE: u32 = 0xffff_f000;
pub const ID: u16 = 0xfffe;

/// A packet, and the first 10 bytes of its virtio-net header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Packet {
    pub header: [u8; 10],
    pub frame: Vec<u8>,
}

impl Shape {
    /// The frame with complete checksums.
    pub fn frame(self, payload: &[u8]) -> Vec<u8> {
        let link = PacketBuilder::ethernet2([0x52, 0x54, 0, 0, 0, 2], [0x52, 0x54, 0, 0, 0, 1]);
        let vlan = |id| VlanId::try_new(id).unwrap();
        let headers = self.ip();
        let ip = match self.tags {
            0 => link.ip(headers),
            1 => link.single_vlan(vlan(5)).ip(headers),
            _ => link.double_vlan(vlan(5), vlan(6)).ip(headers),
        };
        let mut frame = Vec::new();
        if self.udp {
            ip.udp(1000, 2000).write(&mut frame, payload).unwrap();
            return frame;
        }
        let mut tcp = ip.tcp(1000, 2000, SEQUENCE, 4000).ack(77);
        if self.tcp_options {
            tcp = tcp.options(&[TcpOptionElement::Timestamp(1, 2)]).unwrap();
        }
        if self.cwr {
            tcp = tcp.cwr();
        }
        if self.fin {
            tcp = tcp.fin();
        }
        if self.psh {
            tcp = tcp.psh();
        }
        tcp.write(&mut frame, payload).unwrap();
        frame
    }

    fn ip(self) -> IpHeaders {
        let number = if self.udp {
            IpNumber::UDP
        } else {
            IpNumber::TCP
        };
        if self.v6 {
            let header = Ipv6Header {
                traffic_class: 0,
                flow_label: Ipv6FlowLabel::ZERO,
                payload_length: 0,
                next_header: number,
                hop_limit: 64,
                source: [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
                destination: [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2],
            };
            let mut extensions = Ipv6Extensions::default();
            if self.options {
                let raw =
                    |len: usize| Some(Ipv6RawExtHeader::new_raw(number, &vec![1; len]).unwrap());
                extensions.hop_by_hop_options = raw(6);
                extensions.destination_options = raw(14);
            }
            IpHeaders::Ipv6(header, extensions)
        } else {
            let mut header = Ipv4Header::new(0, 64, number, [10, 0, 0, 1], [10, 0, 0, 2]).unwrap();
            header.identification = ID;
            if self.options {
                header.options = [1, 1, 1, 0].into();
            }
            IpHeaders::Ipv4(header, Ipv4Extensions::default())
        }
    }

    /// Where the transport header begins.
    pub fn start(self) -> usize {
        let tags = 14 + 4 * self.tags;
        match (self.v6, self.options) {
            (false, false) => tags + 20,
            (false, true) => tags + 24,
            (true, false) => tags + 40,
            (true, true) => tags + 40 + 8 + 16,
        }
    }

    /// Bytes in front of the payload.
    pub fn headers(self) -> usize {
        let transport = match (self.udp, self.tcp_options) {
            (true, _) => 8,
            (false, false) => 20,
            (false, true) => 32,
        };
        self.start() + transport
    }

    pub fn csum_offset(self) -> usize {
        if self.udp { 6 } else { 16 }
    }

    pub fn gso_type(self) -> u8 {
        let ecn = if self.cwr { 0x80 } else { 0 };
        match (self.udp, self.v6) {
            (true, _) => 5,
            (false, false) => 1 | ecn,
            (false, true) => 4 | ecn,
        }
    }

    /// The frame with a partial checksum, and a header that says so and nothing else.
    pub fn partial(self, payload: &[u8]) -> Packet {
        let mut frame = self.frame(payload);
        let (start, field) = (self.start(), self.start() + self.csum_offset());
        let network = 14 + 4 * self.tags;
        let addresses = if self.v6 {
            &frame[network + 8..network + 40]
        } else {
            &frame[network + 12..network + 20]
        };
        let mut sum = (frame.len() - start) as u64 + if self.udp { 17 } else { 6 };
        for pair in addresses.chunks(2) {
            sum += u64::from(u16::from_be_bytes([pair[0], pair[1]]));
        }
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        frame[field..field + 2].copy_from_slice(&(sum as u16).to_be_bytes());
        Packet {
            header: header(1, 0, 0, 0, start as u16, self.csum_offset() as u16),
            frame,
        }
    }

    /// The packet, to be segmented.
    pub fn packet(self, payload: &[u8], size: u16) -> Packet {
        let Packet { frame, .. } = self.partial(payload);
        let (start, offset) = (self.start() as u16, self.csum_offset() as u16);
        Packet {
            header: header(
                1,
                self.gso_type(),
                self.headers() as u16,
                size,
                start,
                offset,
            ),
            frame,
        }
    }
}

/// The bytes of a header.
pub fn header(flags: u8, gso: u8, hdr_len: u16, size: u16, start: u16, offset: u16) -> [u8; 10] {
    let mut bytes = [0; 10];
    bytes[..2].copy_from_slice(&[flags, gso]);
    for (at, field) in [hdr_len, size, start, offset].into_iter().enumerate() {
        bytes[2 + 2 * at..4 + 2 * at].copy_from_slice(&field.to_le_bytes());
    }
    bytes
}

/// Payload of which every part is told from every other.
pub fn payload(seed: usize, len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| (seed * 31 + at * 7 + at / 256 * 13) as u8)
        .collect()
}

/// What etherparse says of a finished frame; panics if a length or a checksum in it is wrong.
pub fn dissect(frame: &[u8]) -> Dissected {
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    let mut seen = Dissected::default();
    let end = match sliced.net.as_ref().unwrap() {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            seen.id = Some(header.identification);
            usize::from(header.total_len)
        }
        NetSlice::Ipv6(ip) => usize::from(ip.header().payload_length()) + 40,
        other => panic!("{other:?}"),
    };
    let network = 14 + 4 * sliced.vlan_ids().len();
    assert_eq!(network + end, frame.len(), "length of the IP packet");
    match (sliced.transport.unwrap(), sliced.net.unwrap()) {
        (TransportSlice::Tcp(tcp), net) => {
            let right = match net {
                NetSlice::Ipv4(ip) => {
                    tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination())
                }
                NetSlice::Ipv6(ip) => {
                    tcp.calc_checksum_ipv6(ip.header().source(), ip.header().destination())
                }
                other => panic!("{other:?}"),
            };
            assert_eq!(tcp.checksum(), right.unwrap(), "TCP checksum");
            seen.sequence = tcp.sequence_number();
            seen.flags = frame[frame.len() - tcp.payload().len() - tcp.header_slice().len() + 13];
            seen.payload = tcp.payload().to_vec();
        }
        (TransportSlice::Udp(udp), net) => {
            let header = udp.to_header();
            assert_eq!(usize::from(udp.length()), udp.payload().len() + 8);
            let right = match net {
                NetSlice::Ipv4(ip) => header.calc_checksum_ipv4_raw(
                    ip.header().source(),
                    ip.header().destination(),
                    udp.payload(),
                ),
                NetSlice::Ipv6(ip) => header.calc_checksum_ipv6_raw(
                    ip.header().source(),
                    ip.header().destination(),
                    udp.payload(),
                ),
                other => panic!("{other:?}"),
            };
            assert_eq!(udp.checksum(), right.unwrap(), "UDP checksum");
            seen.payload = udp.payload().to_vec();
        }
        (other, _) => panic!("{other:?}"),
    }
    seen
}

/// What matters of a frame.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Dissected {
    pub id: Option<u16>,
    pub sequence: u32,
    pub flags: u8,
    pub payload: Vec<u8>,
}

//! Two cards on a wire, and what may come of what one of them sends.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of it"
)]

use vdpa_core::bits::net;
use vdpa_core::{DeviceType, Features, graph};
use vdpa_sim::offload::{LONGEST, RECEIVE, TRANSMIT};

use crate::packets::{Dissected, Packet, Shape, TCP4, TCP6, UDP4, UDP6, dissect, payload};
use crate::rig::*;

/// A buffer that takes every packet.
pub const BIG: u32 = (LONGEST + 8 + HEADER) as u32;

pub const NEEDS_CSUM: u8 = 1;

/// What came: its header, what etherparse says of it, and its frame as it came.
pub type Part = ([u8; HEADER], Dissected, Vec<u8>);

/// Two cards on a wire.
pub struct Wire {
    pub from: Card,
    pub to: Card,
    pub offloads: Features,
    pub mtu: usize,
}

/// How the receiving side is.
#[derive(Clone, Copy)]
pub struct To {
    pub packed: bool,
    pub merge: bool,
    pub offloads: Features,
    pub buffer: u32,
    pub size: u16,
}

pub const WHOLE: To = To {
    packed: false,
    merge: false,
    offloads: RECEIVE,
    buffer: BIG,
    size: 64,
};

impl Wire {
    pub fn new(to: To) -> Self {
        Self::with(TRANSMIT, to, 1500, 1500)
    }

    pub fn with(transmit: Features, to: To, mtu_from: usize, mtu: usize) -> Self {
        let lab = Lab::new();
        let open = |mtu| lab.open(&format!("sim:net,port=wire:a,mtu={mtu}"));
        let rig = open(mtu_from);
        let features = with(&rig, !to.packed, false, true, false) | transmit;
        let from = Card::new(rig, features, 32, BIG);
        let rig = open(mtu);
        let features = with(&rig, to.packed, to.merge, true, false) | to.offloads;
        Self {
            from,
            to: Card::new(rig, features, to.size, to.buffer),
            offloads: to.offloads,
            mtu,
        }
    }

    /// Sends all of them, with `num_buffers` 0, receiving meanwhile.
    pub fn send(&mut self, packets: &[Packet]) {
        let mut sent = 0;
        until("sending", || {
            sent += self.from.tx.send_with(raw(&packets[sent..]));
            self.to.rx.poll();
            sent == packets.len()
        });
        until("completion", || {
            self.from.tx.reap();
            self.to.rx.poll();
            self.from.tx.in_flight() == 0
        });
    }

    /// What has come of a packet with `payload` bytes of payload: a header and a frame each.
    pub fn receive(&mut self, payload: usize) -> Vec<Part> {
        let mut all = Vec::new();
        let mut bytes = 0;
        until("the packet", || {
            self.to.rx.poll();
            while bytes < payload && !self.to.rx.got.is_empty() {
                let header = self.to.rx.headers.remove(0);
                let frame = self.to.rx.got.remove(0);
                let seen = judge(&header, &frame, self.offloads, self.mtu);
                bytes += seen.payload.len();
                all.push((header, seen, frame));
            }
            bytes >= payload
        });
        assert_eq!(bytes, payload);
        all
    }

    /// Sends packets and expects their payload.
    pub fn exchange(&mut self, packets: &[(Packet, Vec<u8>)]) -> Vec<Vec<Part>> {
        let only: Vec<_> = packets.iter().map(|(packet, _)| packet.clone()).collect();
        self.send(&only);
        let parts = packets.iter().map(|(_, data)| {
            let parts = self.receive(data.len());
            let got: Vec<u8> = parts
                .iter()
                .flat_map(|part| part.1.payload.clone())
                .collect();
            assert!(got == *data, "{} bytes of payload", data.len());
            parts
        });
        parts.collect()
    }

    pub fn dropped(&self) -> u64 {
        let mut sum = 0;
        for rig in [&self.from.rig, &self.to.rig] {
            rig.device
                .stats(&mut |name, value| {
                    if name.contains("dropped.") {
                        sum += value;
                    }
                })
                .unwrap();
        }
        sum
    }
}

pub fn raw(packets: &[Packet]) -> impl Iterator<Item = ([u8; HEADER], &[u8])> {
    packets.iter().map(|packet| {
        let mut full = [0; HEADER];
        full[..10].copy_from_slice(&packet.header);
        (full, packet.frame.as_slice())
    })
}

pub fn field(header: &[u8; HEADER], at: usize) -> usize {
    usize::from(u16::from_le_bytes([header[at], header[at + 1]]))
}

/// What a receiver may be told, and that it is true: every rule of virtio 1.4 §5.1.9.4.1 on one packet.
pub fn judge(header: &[u8; HEADER], frame: &[u8], offloads: Features, mtu: usize) -> Dissected {
    let (flags, gso) = (header[0], header[1]);
    let mut frame = frame.to_vec();
    let tagged = frame
        .chunks(4)
        .skip(3)
        .take_while(|tag| tag[0] == 0x81 || tag[0] == 0x88);
    let tags = 4 * tagged.take(2).count();
    assert_eq!(flags & !NEEDS_CSUM, 0, "only NEEDS_CSUM is ever true here");
    assert!(flags == 0 || offloads.contains(net::GUEST_CSUM));
    if gso == 0 {
        assert!(frame.len() <= mtu + 14 + tags, "{} bytes", frame.len());
    } else {
        let v6 = frame[12 + tags] == 0x86;
        let bit = match (gso & 0x7f, v6) {
            (1, false) => net::GUEST_TSO4,
            (4, true) => net::GUEST_TSO6,
            (5, false) => net::GUEST_USO4,
            (5, true) => net::GUEST_USO6,
            other => panic!("{other:?}"),
        };
        assert!(offloads.contains(bit), "type {gso}");
        assert!(gso & 0x80 == 0 || offloads.contains(net::GUEST_ECN));
        assert_eq!(flags, NEEDS_CSUM);
        assert!(field(header, 4) != 0 && field(header, 2) > 34);
        assert!(frame.len() > field(header, 2) + field(header, 4));
    }
    if flags & NEEDS_CSUM != 0 {
        let (start, offset) = (field(header, 6), field(header, 8));
        let mut sum = 0_u64;
        for pair in frame[start..].chunks(2) {
            sum += u64::from(u16::from_be_bytes([
                pair[0],
                pair.get(1).copied().unwrap_or(0),
            ]));
        }
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        let mut checksum = !(sum as u16);
        if checksum == 0 && offset == 6 {
            checksum = 0xffff;
        }
        frame[start + offset..start + offset + 2].copy_from_slice(&checksum.to_be_bytes());
    }
    dissect(&frame)
}

/// What packet `i` of them is like.
fn shape(i: usize) -> Shape {
    Shape {
        tags: i / 4 % 3,
        options: i % 3 == 1,
        tcp_options: i % 2 == 1,
        cwr: i.is_multiple_of(5),
        psh: i.is_multiple_of(2),
        fin: i.is_multiple_of(7),
        ..[TCP4, TCP6, UDP4, UDP6][i % 4]
    }
}

/// Packets of all kinds: each with its payload.
pub fn mixed(count: usize) -> Vec<(Packet, Vec<u8>)> {
    (0..count)
        .map(|i| {
            let shape = shape(i);
            let size = 1500 - 160 - 7 * (i % 11);
            match i % 3 {
                0 => {
                    let data = payload(i, 1 + (i * 3671) % 60_000);
                    (shape.packet(&data, size as u16), data)
                }
                1 => {
                    let data = payload(i, 1 + (i * 37) % size);
                    (shape.partial(&data), data)
                }
                _ => {
                    let data = payload(i, 1 + (i * 53) % size);
                    let frame = shape.frame(&data);
                    (
                        Packet {
                            header: [0; 10],
                            frame,
                        },
                        data,
                    )
                }
            }
        })
        .collect()
}

/// A card that receives into many small buffers.
pub const MERGED: To = To {
    merge: true,
    buffer: 1000,
    size: 128,
    ..WHOLE
};

/// Sends what is to be dropped, and sees that a good packet still arrives.
pub fn dropped(counter: &str, packets: &[Packet]) {
    let mut wire = Wire::new(WHOLE);
    wire.send(packets);
    let name = format!("queue1.dropped.{counter}");
    assert_eq!(wire.from.rig.stat(&name), packets.len() as u64, "{counter}");
    assert_eq!(wire.dropped(), packets.len() as u64);
    let data = payload(0, 20_000);
    wire.exchange(&[(TCP4.packet(&data, 1400), data)]);
    wire.to.rx.quiet();
}

/// A TCP packet over IPv4 to be segmented, that says this of itself.
pub fn with_type(gso: u8, flags: u8) -> Packet {
    let mut packet = TCP4.packet(&payload(0, 5000), 1400);
    packet.header[..2].copy_from_slice(&[flags, gso]);
    packet
}

/// Every legal set of these offloads: the checksum, the others, which need it, and ECN, which needs one of TCP.
pub fn legal_sets(all: Features) -> Vec<Features> {
    let bits: Vec<_> = all.iter().collect();
    (0..1_u32 << bits.len())
        .map(|set| {
            let chosen = bits.iter().enumerate().filter(|(i, _)| set & (1 << i) != 0);
            chosen.map(|(_, bit)| *bit).collect()
        })
        .filter(|set| graph::close_down(DeviceType::Net, *set) == *set)
        .collect()
}

/// The same packets, from a driver with these transmit offloads: what it may not leave to its device it does itself.
pub fn mixed_from(count: usize, transmit: Features) -> Vec<(Packet, Vec<u8>)> {
    mixed(count)
        .into_iter()
        .enumerate()
        .flat_map(|(i, (packet, data))| {
            let shape = shape(i);
            let bit = match (shape.udp, shape.v6) {
                (true, _) => net::HOST_USO,
                (false, false) => net::HOST_TSO4,
                (false, true) => net::HOST_TSO6,
            };
            let ecn = !shape.cwr || shape.udp || transmit.contains(net::HOST_ECN);
            let large = packet.header[1] != 0;
            if large && !(transmit.contains(bit) && ecn) {
                let parts = data.chunks(1000).map(<[u8]>::to_vec);
                return parts
                    .map(|part| {
                        let header = [0; 10];
                        let frame = shape.frame(&part);
                        (Packet { header, frame }, part)
                    })
                    .collect();
            }
            if !transmit.contains(net::CSUM) {
                let header = [0; 10];
                let frame = shape.frame(&data);
                return vec![(Packet { header, frame }, data)];
            }
            vec![(packet, data)]
        })
        .collect()
}

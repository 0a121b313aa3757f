//! Packets with any header: judged, segmented, and sent through a card to a driver with any offloads.
//!
//! What is judged to be true of a packet is looked at with no help of the judge; what is finished has checksums that are
//! right where the sender's were; and what a driver receives is, once finished, what was sent, with nothing left undone
//! that this driver does not do.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::sync::Arc;

use vdpa_core::bits::net;
use vdpa_core::config::Mac;
use vdpa_core::{Bell, Features, Sleeper, bits};
use vdpa_mem::{Access, Iova};
use vdpa_ring::{Completion, Segment};
use vdpa_sim::class::{Class, Desk, Station, Stations, Unit};
use vdpa_sim::net::{Net, POSSIBLE, Settings};
use vdpa_sim::offload::{
    Finish, Header, Headers, Ip, MAX_SEGMENTS, Plain, RECEIVE, Segments, TRANSMIT, Transport,
    check, complete, takes, verify,
};
use vdpa_sim::port::{Loopback, Presence};

use crate::Input;
use crate::guest::{self, BUFFERS, Guest, Line, READS, WRITES, role};
use crate::packet::{Packet, packet};

/// Bytes of a packet's header.
const HEADER: usize = 12;
/// Packets of an input at most.
const PACKETS: usize = 3;
/// Receive buffers, and bytes of each.
const BUFFERS_POSTED: usize = 4;
const BUFFER: u32 = 2048;
const MERGED: u32 = 256;
/// The longest payload of a frame that the card takes.
const MTU: u16 = 1500;

thread_local! {
    static BENCH: RefCell<Bench> = RefCell::new(Bench::new());
}

/// The target `net_header`.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let bits = input.u16();
    let mut packets = vec![packet(&mut input)];
    while packets.len() < PACKETS && !input.is_empty() {
        packets.push(packet(&mut input));
    }
    for packet in &packets {
        judge(packet, TRANSMIT);
    }
    BENCH.with_borrow_mut(|bench| bench.send(bits, &packets));
}

/// Checks a packet's header, and what comes of it.
fn judge(packet: &Packet, features: Features) {
    let frame = &packet.frame;
    let Ok(trusted) = check(packet.header, frame, features) else {
        // One segment of all of it needs no headers that can be cut.
        let simple = packet.header.gso_type == Header::GSO_NONE;
        return assert!(!(packet.clean && simple), "a good packet was refused");
    };
    assert_eq!(
        check(trusted, frame, features),
        Ok(trusted),
        "judged otherwise again"
    );
    assert_eq!(trusted.flags & !Header::NEEDS_CSUM, 0);
    assert_eq!(
        takes(trusted, frame, Features::NONE),
        trusted == Header::NONE
    );
    if !trusted.needs_csum() {
        assert_eq!(trusted, Header::NONE, "a header that says nothing is empty");
    } else {
        let field = usize::from(trusted.csum_start) + usize::from(trusted.csum_offset);
        assert!(trusted.csum_start >= 14 && field + 2 <= frame.len());
    }
    if trusted.is_gso() {
        segments(packet, trusted);
    } else if trusted.needs_csum() {
        let mut done = frame.clone();
        assert!(complete(&mut done, trusted.csum_start, trusted.csum_offset));
        let field = usize::from(trusted.csum_start) + usize::from(trusted.csum_offset);
        assert_eq!(done[..field], frame[..field]);
        assert_eq!(done[field + 2..], frame[field + 2..]);
        if packet.clean {
            assert_eq!(verify(&done), packet.worth);
        }
    }
}

/// Cuts a packet, and looks at every part.
fn segments(packet: &Packet, trusted: Header) {
    let frame = &packet.frame;
    let cut = Segments::new(trusted, frame).expect("what is trusted can be cut");
    let (head, size) = (usize::from(trusted.hdr_len), usize::from(trusted.gso_size));
    let payload = &frame[head..];
    let count = cut.count() as usize;
    assert!((2..=MAX_SEGMENTS).contains(&count) && count == payload.len().div_ceil(size));
    let mut room = vec![0xaa; cut.longest() + 4];
    let mut partial = room.clone();
    // The first, the last, and some between: all of thousands would be the same.
    for index in (0..count).filter(|i| *i < 4 || *i + 2 > count || i % 97 == 0) {
        let index = index as u32;
        let len = cut
            .write(index, Finish::Complete, &mut room)
            .expect("there is room");
        assert!(len <= cut.longest() && len <= head + size);
        assert_eq!(room[len..len + 4], [0xaa; 4], "written behind the segment");
        let first = index as usize * size;
        assert_eq!(
            room[head..len],
            payload[first..payload.len().min(first + size)]
        );
        headers(frame, &room[..len], index, count, trusted);
        let other = cut.write(index, Finish::Partial, &mut partial);
        assert_eq!(other, Some(len));
        let told = cut.partial();
        assert!(complete(
            &mut partial[..len],
            told.csum_start,
            told.csum_offset
        ));
        assert_eq!(
            partial[..len],
            room[..len],
            "completed later, segment {index}"
        );
        if packet.clean {
            assert_eq!(verify(&room[..len]), packet.worth, "segment {index}");
        }
        room.fill(0xaa);
        partial.fill(0xaa);
    }
    assert_eq!(cut.write(count as u32, Finish::Complete, &mut room), None);
}

/// The headers of a segment: lengths, identification, sequence number and flags are its own, all else is the packet's.
fn headers(frame: &[u8], segment: &[u8], index: u32, count: usize, trusted: Header) {
    let found = Headers::of(segment).expect("a segment has the headers of its packet");
    assert_eq!(found.end, segment.len(), "the lengths of segment {index}");
    let word = |bytes: &[u8], at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let mut same = frame[..usize::from(trusted.hdr_len)].to_vec();
    let (network, start) = (found.network, found.start);
    let mut own = vec![];
    match found.ip {
        Ip::V4 => {
            let id = word(frame, network + 4).wrapping_add(index as u16);
            assert_eq!(
                word(segment, network + 4),
                id,
                "identification of segment {index}"
            );
            own.extend([network + 2..network + 6, network + 10..network + 12]);
        }
        Ip::V6 => own.push(network + 4..network + 6),
    }
    match found.transport {
        Transport::Tcp => {
            let long =
                |bytes: &[u8]| u32::from_be_bytes(std::array::from_fn(|i| bytes[start + 4 + i]));
            let sequence = long(frame).wrapping_add(index * u32::from(trusted.gso_size));
            assert_eq!(
                long(segment),
                sequence,
                "sequence number of segment {index}"
            );
            // CWR in the first alone, FIN and PSH in the last alone.
            let first = if index == 0 { 0 } else { 0x80 };
            let last = if index as usize + 1 == count { 0 } else { 9 };
            let flags = frame[start + 13] & !(first | last);
            assert_eq!(segment[start + 13], flags, "flags of segment {index}");
            own.extend([
                start + 4..start + 8,
                start + 13..start + 14,
                start + 16..start + 18,
            ]);
        }
        Transport::Udp => own.push(start + 4..start + 8),
    }
    for range in own {
        same[range.clone()].copy_from_slice(&segment[range]);
    }
    assert_eq!(segment[..same.len()], same, "headers of segment {index}");
}

/// All frames that a packet is, finished.
fn finished(plain: &mut Plain, header: Header, frame: &[u8], to: &mut Vec<Vec<u8>>) {
    let flow = plain.packet(header, frame, &mut |frame| {
        to.push(frame.to_vec());
        ControlFlow::Continue(())
    });
    assert!(flow.is_continue());
}

/// A card whose port is a loopback, kept from one input to the next.
struct Bench {
    net: Net,
    unit: Box<dyn Unit>,
    guest: Guest,
    desk: Desk,
    settings: Settings,
    plain: Plain,
}

impl Bench {
    fn new() -> Self {
        let settings = Settings {
            mac: Mac::new([0x52, 0x54, 0, 0, 0, 1]),
            mtu: MTU,
            pairs: 1,
            queue_size: guest::SLOTS,
            features: POSSIBLE,
            speed: None,
            link: true,
        };
        let presence = Presence::new(true);
        let port = Loopback::new(Arc::clone(&presence), 1, settings.longest());
        let net = Net::new(settings, presence, Arc::new(port));
        let sleeper = Sleeper::new().expect("an eventfd");
        let bells: Arc<[Arc<Bell>]> = (0..2).map(|_| Bell::new(&sleeper)).collect();
        let unit = net.unit(0, &bells);
        let guest = Guest::new();
        Self {
            desk: guest::desk(&guest),
            net,
            unit,
            guest,
            settings,
            plain: Plain::new(),
        }
    }

    /// Sends packets and looks at what comes back.
    fn send(&mut self, bits: u16, packets: &[Packet]) {
        let features = features(bits);
        self.guest.clear();
        self.net.accept(features);
        self.net.set_live(true);
        let (mut receive, incoming) = Line::new(0, 0, features, role(0, 64));
        let (mut transmit, outgoing) = Line::new(1, 1, features, role(1, 64));
        let mut queues: Stations = [incoming, outgoing];
        let merged = features.contains(net::MRG_RXBUF);
        let buffers = self.post_buffers(&mut receive, merged);

        let mut expected = Vec::new();
        let mut sent = 0;
        for packet in packets {
            if !self.post(&mut transmit, bits, packet) {
                continue;
            }
            sent += 1;
            transmit.publish(&self.guest);
            self.expect(packet, features, &mut expected);
            guest::serve(&mut *self.unit, &mut queues, &mut self.desk);
        }
        let mut out = [Completion::default(); 16];
        assert_eq!(transmit.take_used(&self.guest, &mut out), sent);
        assert!(
            out.iter().all(|done| done.len == 0),
            "a sent packet has no length"
        );
        self.check(&mut receive, &buffers, features, &expected);

        // What is left has nobody to go to.
        queues = [Station::Stopped, Station::Stopped];
        self.net.set_live(false);
        self.unit.reset();
        self.net.reset();
        guest::serve(&mut *self.unit, &mut queues, &mut self.desk);
    }

    /// Posts receive buffers: id and segment of each.
    fn post_buffers(&mut self, receive: &mut Line, merged: bool) -> Vec<(u16, Segment)> {
        let len = if merged { MERGED } else { BUFFER };
        let count = if merged { 16 } else { BUFFERS_POSTED };
        let places = [WRITES, WRITES + 2048, BUFFERS + 4096, BUFFERS + 4096 + 2048];
        let per = BUFFER / len;
        let buffers = (0..count as u32).map(|i| {
            let at = places[(i / per) as usize % 4] + u64::from(i % per * len);
            let addr = Iova::new(at);
            Segment { addr, len }
        });
        let mut posted = Vec::new();
        for buffer in buffers {
            match receive.add(&self.guest, &[], &[buffer]) {
                Some(id) => posted.push((id, buffer)),
                None => break,
            }
        }
        receive.publish(&self.guest);
        posted
    }

    /// Writes a packet and adds it, in one piece or several. `false`: it does not fit.
    fn post(&mut self, transmit: &mut Line, bits: u16, packet: &Packet) -> bool {
        let mut bytes = Vec::from(packet.header.to_bytes());
        bytes.extend([0, 0]);
        if features(bits).contains(net::HASH_REPORT) {
            bytes.extend([0; 8]);
        }
        bytes.extend(&packet.frame);
        let total = bytes.len() as u32;
        if !(15..4000).contains(&total) {
            return false;
        }
        let segment = |at: u64, len: u32| Segment {
            addr: Iova::new(at),
            len,
        };
        let pieces = match bits >> 13 {
            0..=3 => vec![segment(READS, total)],
            4 => vec![segment(READS, 12), segment(READS + 12, total - 12)],
            5 => vec![
                segment(READS, 5),
                segment(READS + 5, 9),
                segment(READS + 14, total - 14),
            ],
            // From one mapping into the next.
            6 => vec![segment(BUFFERS + 4090, 6), segment(READS, total - 6)],
            _ => vec![
                segment(BUFFERS, 10),
                segment(READS, 3),
                segment(READS + 3, total - 13),
            ],
        };
        self.guest.spread(&pieces, &bytes);
        let added = transmit.add(&self.guest, &pieces, &[]);
        added.is_some()
    }

    /// What a driver that finishes everything has of a packet.
    fn expect(&mut self, packet: &Packet, features: Features, to: &mut Vec<Vec<u8>>) {
        let frame = &packet.frame;
        if frame.len() < 14 {
            return;
        }
        let plain = packet.header.flags == 0 && packet.header.gso_type == 0;
        let header = match plain {
            true => Header::NONE,
            false => match check(packet.header, frame, features) {
                Ok(header) => header,
                Err(_) => return,
            },
        };
        let longest = match header.is_gso() {
            true => usize::from(header.hdr_len) + usize::from(header.gso_size),
            false => frame.len(),
        };
        if self.settings.fits_cut(frame, longest) {
            finished(&mut self.plain, header, frame, to);
        }
    }

    fn check(
        &mut self,
        receive: &mut Line,
        buffers: &[(u16, Segment)],
        features: Features,
        expected: &[Vec<u8>],
    ) {
        let mut out = [Completion::default(); 16];
        let count = receive.take_used(&self.guest, &mut out);
        self.guest.look();
        let own = match features.contains(net::HASH_REPORT) {
            true => 20,
            false => HEADER,
        };
        let offloads = features & RECEIVE;
        let mut came = Vec::new();
        let mut written = Vec::new();
        let mut packets = out[..count].iter().map(|done| {
            let buffer = buffers.iter().find(|(id, _)| *id == done.id);
            let (_, segment) = buffer.expect("a buffer that was posted");
            let (runs, found) = Guest::runs(&[*segment], 0, done.len.into(), Access::DeviceWrites);
            assert_eq!(found, u64::from(done.len));
            written.extend_from_slice(&runs);
            Guest::joined(self.guest.found(), &runs)
        });
        while let Some(mut packet) = packets.next() {
            assert!(packet.len() >= own + 14, "shorter than any packet");
            let buffers = u16::from_le_bytes([packet[10], packet[11]]);
            assert!(buffers >= 1 && (buffers == 1 || features.contains(net::MRG_RXBUF)));
            for _ in 1..buffers {
                packet.extend(
                    packets
                        .next()
                        .expect("all buffers of a packet come together"),
                );
            }
            let (header, frame) = (Header::of(&packet), &packet[own..]);
            let told = Header {
                flags: header.flags & Header::NEEDS_CSUM,
                ..header
            };
            if header.flags & Header::DATA_VALID != 0 {
                assert!(offloads.contains(net::GUEST_CSUM));
            }
            assert_eq!(header.flags & !(Header::NEEDS_CSUM | Header::DATA_VALID), 0);
            assert!(
                takes(told, frame, offloads),
                "{header:?} is more than this driver takes"
            );
            finished(&mut self.plain, told, frame, &mut came);
        }
        drop(packets);
        assert!(came.len() <= expected.len(), "more came than was sent");
        for (i, (came, sent)) in came.iter().zip(expected).enumerate() {
            assert_eq!(came, sent, "frame {i} of {}", expected.len());
        }
        // Nothing but the buffers that came back was written.
        self.guest.check_but(&written);
        let left: u32 = buffers.len().saturating_sub(count) as u32 * buffers[0].1.len;
        if left >= BUFFER {
            assert_eq!(came.len(), expected.len(), "a frame is missing");
        }
    }
}

/// What a driver negotiates: legal by itself, since a class is asked without the graph.
fn features(bits: u16) -> Features {
    let mut features = POSSIBLE.without(bits::RING_PACKED).without(net::RSS);
    for (bit, feature) in [
        (0, net::GUEST_TSO4),
        (1, net::GUEST_TSO6),
        (2, net::GUEST_ECN),
        (3, net::GUEST_USO4),
        (4, net::GUEST_USO6),
        (5, net::MRG_RXBUF),
        (6, net::HOST_USO),
        (7, net::HOST_TSO4),
        (10, net::HASH_REPORT),
        (11, bits::IN_ORDER),
    ] {
        if bits >> bit & 1 != 0 {
            features = features.without(feature);
        }
    }
    if bits >> 8 & 1 != 0 {
        features = features.difference(RECEIVE);
    }
    if bits >> 9 & 1 != 0 {
        features = features.difference(TRANSMIT);
    }
    if bits >> 12 & 1 != 0 {
        features = features.with(bits::RING_PACKED);
    }
    features
}

//! What do a checksum and a segment cost, against crates that do the same?
//!
//! **Checksum**: the internet checksum of 64 slices in turn, against the crate `internet-checksum` (Fuchsia's network
//! stack). Both results are compared with each other, and once with a sum word by word.
//!
//! **Segmentation**: a TCP packet of 64 KiB over IPv4 becomes 45 frames with 1448 bytes of payload. Against the same by
//! hand, as a program does that has no such function: copy headers and payload, change the fields, and have
//! `internet-checksum` make both checksums; against frames built anew by `etherparse`; and beside copying alone. Every
//! segment is compared, byte for byte, with what etherparse builds. "Partial" leaves the transport's checksum to the
//! driver, as the one with GUEST_CSUM gets it.

mod rig;

use std::hint::black_box;
use std::time::Duration;

use etherparse::{PacketBuilder, TcpOptionElement};
use internet_checksum::Checksum;
use rig::clock::Stopwatch;
use rig::contest::{Contest, Measured, Whose};
use rig::{Run, wrong};
use vdpa_sim::offload::{Finish, Header, Segments, Sum, complete};

/// Bytes of payload in a segment: a frame of 1514 bytes with TCP timestamps.
const SIZE: usize = 1448;
/// Segments of a packet.
const COUNT: usize = 45;
/// Bytes in front of the payload.
const HEADERS: usize = 14 + 20 + 32;
/// From one segment to the next.
const STRIDE: usize = 1536;

const FROM: [u8; 4] = [10, 0, 0, 1];
const TO: [u8; 4] = [10, 0, 0, 2];
const SEQUENCE: u32 = 1_000_000;

fn main() {
    let run = Run::from_args();
    for len in [64, SIZE, 65_536] {
        checksums(&run, len);
    }
    segments(&run);
}

fn checksums(run: &Run, len: usize) {
    let all = pattern(len + 64 * 7);
    let mut contest = Contest::new(format!("internet checksum, {len} B"), "checksum");
    let ours = |bytes: &[u8]| Sum::of(bytes).checksum();
    let theirs = |bytes: &[u8]| u16::from_be_bytes(internet_checksum::checksum(bytes));
    contest.row(Whose::Peer, "internet-checksum", summing(&all, len, theirs));
    contest.row(Whose::Ours, "ours", summing(&all, len, ours));
    contest.against("internet-checksum");
    contest.goal("ours", "internet-checksum", 1.0);
    contest.run(run);
}

/// Sums 64 slices that begin at other bytes each, over and over.
fn summing<'a>(
    all: &'a [u8],
    len: usize,
    sum: impl Fn(&[u8]) -> u16 + 'a,
) -> impl FnMut(Duration) -> Measured + 'a {
    let slices: Vec<&[u8]> = (0..64).map(|i| &all[i * 7..i * 7 + len]).collect();
    let expected: Vec<u16> = slices.iter().map(|slice| naive(slice)).collect();
    let mut got = vec![0; slices.len()];
    move |slice| {
        let mut watch = Stopwatch::new();
        let mut done = 0;
        while watch.ns() < slice.as_nanos() as f64 {
            watch.time(|| {
                for (got, slice) in got.iter_mut().zip(&slices) {
                    *got = sum(black_box(slice));
                }
            });
            if got != expected {
                wrong("a checksum is not the right one");
            }
            done += got.len() as u64;
        }
        Measured::new(watch.ns(), done)
    }
}

/// Word by word.
fn naive(bytes: &[u8]) -> u16 {
    let mut sum = 0_u64;
    for pair in bytes.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u64::from(u16::from_be_bytes([pair[0], low]));
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn segments(run: &Run) {
    let data = pattern(SIZE * COUNT);
    let packet = packet(&data);
    let expected: Vec<Vec<u8>> = (0..COUNT).map(|i| built(&data, i)).collect();
    let title = format!(
        "a TCP packet of {} B cut into {COUNT} frames of 1514",
        packet.1.len()
    );
    let mut contest = Contest::new(title, "segment");
    contest.row(
        Whose::Peer,
        "copy only",
        cutting(
            &packet,
            |(_, frame), i, to| copy(frame, i, to),
            |to, i| {
                if to[HEADERS..] != expected[i][HEADERS..] {
                    wrong("a copy is not the payload");
                }
            },
        ),
    );
    let same = |to: &[u8], i: usize| {
        if to != expected[i] {
            wrong(&format!("segment {i} is not what etherparse builds"));
        }
    };
    contest.row(
        Whose::Peer,
        "etherparse",
        cutting(&packet, |_, i, to| build(&data, i, to), same),
    );
    contest.row(
        Whose::Peer,
        "by hand, internet-checksum",
        cutting(&packet, |(_, frame), i, to| by_hand(frame, i, to), same),
    );
    contest.row(Whose::Ours, "ours", ours(&packet, Finish::Complete, same));
    // Completed outside of what is timed, and compared then.
    let mut room = [0; STRIDE];
    contest.row(
        Whose::Ours,
        "ours, partial",
        ours(&packet, Finish::Partial, move |to: &[u8], i| {
            let room = &mut room[..to.len()];
            room.copy_from_slice(to);
            complete(room, 34, 16);
            same(room, i);
        }),
    );
    contest.against("copy only");
    contest.against("etherparse");
    contest.against("by hand, internet-checksum");
    contest.goal("ours", "by hand, internet-checksum", 1.0);
    contest.run(run);
}

type Packet = (Header, Vec<u8>);

/// Cuts the packet by `cut`, segment by segment, and looks at each of them by `check`, which is not timed.
fn cutting<'a>(
    packet: &'a Packet,
    mut cut: impl FnMut(&Packet, usize, &mut [u8]) -> usize + 'a,
    mut check: impl FnMut(&[u8], usize) + 'a,
) -> impl FnMut(Duration) -> Measured + 'a {
    let mut room = vec![0; STRIDE * COUNT];
    move |slice| {
        let mut watch = Stopwatch::new();
        let mut done = 0;
        while watch.ns() < slice.as_nanos() as f64 {
            watch.time(|| {
                let packet = black_box(packet);
                for (i, to) in room.chunks_mut(STRIDE).enumerate() {
                    black_box(cut(packet, i, to));
                }
            });
            for (i, to) in room.chunks_mut(STRIDE).enumerate() {
                check(&to[..HEADERS + SIZE], i);
                to.fill(0);
            }
            done += COUNT as u64;
        }
        Measured::new(watch.ns(), done)
    }
}

/// The same by [`Segments`], made anew for each packet.
fn ours<'a>(
    packet: &'a Packet,
    finish: Finish,
    mut check: impl FnMut(&[u8], usize) + 'a,
) -> impl FnMut(Duration) -> Measured + 'a {
    let mut room = vec![0; STRIDE * COUNT];
    move |slice| {
        let mut watch = Stopwatch::new();
        let mut done = 0;
        while watch.ns() < slice.as_nanos() as f64 {
            watch.time(|| {
                let (header, frame) = black_box(packet);
                let Some(segments) = Segments::new(*header, frame) else {
                    wrong("the packet has no segments");
                };
                for (i, to) in (0..segments.count()).zip(room.chunks_mut(STRIDE)) {
                    black_box(segments.write(i, finish, to));
                }
            });
            for (i, to) in room.chunks_mut(STRIDE).enumerate() {
                check(&to[..HEADERS + SIZE], i);
                to.fill(0);
            }
            done += COUNT as u64;
        }
        Measured::new(watch.ns(), done)
    }
}

fn copy(frame: &[u8], i: usize, to: &mut [u8]) -> usize {
    let from = HEADERS + i * SIZE;
    to[..HEADERS].copy_from_slice(&frame[..HEADERS]);
    to[HEADERS..HEADERS + SIZE].copy_from_slice(&frame[from..from + SIZE]);
    HEADERS + SIZE
}

fn by_hand(frame: &[u8], i: usize, to: &mut [u8]) -> usize {
    let len = copy(frame, i, to);
    let to = &mut to[..len];
    to[16..18].copy_from_slice(&((len - 14) as u16).to_be_bytes());
    to[18..20].copy_from_slice(&(i as u16).to_be_bytes());
    to[24..26].fill(0);
    let checksum = internet_checksum::checksum(&to[14..34]);
    to[24..26].copy_from_slice(&checksum);
    to[38..42].copy_from_slice(&(SEQUENCE + (i * SIZE) as u32).to_be_bytes());
    if i + 1 != COUNT {
        to[47] &= !0x09;
    }
    to[50..52].fill(0);
    let mut sum = Checksum::new();
    sum.add_bytes(&to[26..34]);
    sum.add_bytes(&[0, 6]);
    sum.add_bytes(&((len - 34) as u16).to_be_bytes());
    sum.add_bytes(&to[34..]);
    let checksum = sum.checksum();
    to[50..52].copy_from_slice(&checksum);
    len
}

/// Segment `i`, by etherparse.
fn build(data: &[u8], i: usize, mut to: &mut [u8]) -> usize {
    let mut ip = etherparse::Ipv4Header {
        identification: i as u16,
        time_to_live: 64,
        protocol: etherparse::IpNumber::TCP,
        source: FROM,
        destination: TO,
        ..Default::default()
    };
    ip.dont_fragment = true;
    let tcp = PacketBuilder::ethernet2([2; 6], [4; 6])
        .ip(etherparse::IpHeaders::Ipv4(ip, Default::default()))
        .tcp(1000, 2000, SEQUENCE + (i * SIZE) as u32, 4000)
        .ack(77);
    let options = [
        TcpOptionElement::Noop,
        TcpOptionElement::Noop,
        TcpOptionElement::Timestamp(1, 2),
    ];
    let tcp = tcp.options(&options);
    let mut tcp = tcp.unwrap_or_else(|e| wrong(&format!("{e:?}")));
    if i + 1 == COUNT {
        tcp = tcp.psh().fin();
    }
    let payload = &data[i * SIZE..(i + 1) * SIZE];
    let written = tcp.write(&mut to, payload);
    written.unwrap_or_else(|e| wrong(&e.to_string()));
    HEADERS + SIZE
}

fn built(data: &[u8], i: usize) -> Vec<u8> {
    let mut frame = vec![0; HEADERS + SIZE];
    build(data, i, &mut frame);
    frame
}

/// The packet that becomes these segments: the first one's headers, the last one's flags, all of the payload.
fn packet(data: &[u8]) -> Packet {
    let mut frame = built(data, 0)[..HEADERS].to_vec();
    frame[47] |= 0x09;
    frame.extend(data);
    let len = frame.len() - 34;
    frame[16..18].copy_from_slice(&((len + 20) as u16).to_be_bytes());
    // The sum of the pseudo header.
    let mut sum = Checksum::new();
    sum.add_bytes(&frame[26..34]);
    sum.add_bytes(&[0, 6]);
    sum.add_bytes(&(len as u16).to_be_bytes());
    let [high, low] = sum.checksum();
    frame[50..52].copy_from_slice(&[!high, !low]);
    let header = Header {
        flags: Header::NEEDS_CSUM,
        gso_type: Header::GSO_TCPV4,
        hdr_len: HEADERS as u16,
        gso_size: SIZE as u16,
        csum_start: 34,
        csum_offset: 16,
    };
    (header, frame)
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 256 * 13) as u8).collect()
}

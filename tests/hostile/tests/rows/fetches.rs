//! Section F: values that change at every fetch.
//!
//! At ring level a change comes right before every load in turn, so that each race is had once. At device level a thread
//! changes the value all the time: which race is had is chance, and what is looked at is what the oracle looks at.

use vdpa_core::bits::net;
use vdpa_hostile::exchange::{NET_HEADER, SECTOR, block_header, frame, pattern};
use vdpa_hostile::raw::{INDIRECT, NEXT, Piece, WRITE};
use vdpa_hostile::stage::{Expect, RINGS, Setup, Stage, UNTOUCHED};
use vdpa_hostile::suite::{Code, code};
use vdpa_hostile::watched::{Bench, Memory, When, Which};
use vdpa_ring::{Format, RingError, layout};

/// The functions of the rows.
pub(crate) const ROWS: &[Code] = &[
    code(61).ring(ring_len).device(len),
    code(62).ring(ring_addr).device(addr),
    code(63).ring(ring_flags).device(flags),
    code(64).ring(ring_next).device(next),
    code(65).device_with(|_, _| Setup::PLAIN.extra(OFFLOADS), packet_header),
    code(66).device(block_type_and_sector),
    code(67).device(command_length),
    code(68).ring(ring_entry).device(entry),
    code(69).ring(ring_avail_idx).device(avail_idx),
];

/// Requests of a row at device level.
const REQUESTS: usize = 50;

/// Offset of the words of a descriptor: length, flags, link.
const LEN: usize = 8;
const fn flags_at(format: Format) -> usize {
    match format {
        Format::Split => 12,
        Format::Packed => 14,
    }
}
/// `next` of a split descriptor, the id of a packed one.
const fn link_at(format: Format) -> usize {
    match format {
        Format::Split => 14,
        Format::Packed => 12,
    }
}

/// Pieces of the chain that is changed.
fn pieces(b: &Bench) -> [Piece; 3] {
    let at = b.tables().1 + 1024;
    [
        Piece::read(at, 8),
        Piece::read(at + 8, 8),
        Piece::write(at + 16, 8),
    ]
}

/// Two chains: one of three descriptors, then one of one.
fn direct(format: Format) -> Bench {
    let mut b = Bench::new(format);
    let all = pieces(&b);
    b.q.chain(&all);
    b.q.chain(&all[..1]);
    b.q.show();
    b
}

/// The same, of which the first is in a table.
fn in_table(format: Format) -> Bench {
    let mut b = Bench::new(format);
    let all = pieces(&b);
    let table = b.table(&all);
    b.q.chain(&[table]);
    b.q.chain(&all[..1]);
    b.q.show();
    b
}

/// Writes bytes at an offset of the arena, as the peer.
fn write(at: usize, bytes: &'static [u8]) -> impl Fn(&Memory) + Clone {
    move |memory| {
        memory.arena.bytes().write(at, bytes);
    }
}

fn ring_len(format: Format) {
    for slot in 0..4 {
        for value in [&[0xff; 4], &[0, 0, 0, 0], &[9, 0, 0, 0]] {
            // The descriptors stand at the beginning of the arena.
            Bench::every_fetch(move || direct(format), write(slot * 16 + LEN, value));
        }
    }
}

fn ring_addr(format: Format) {
    for slot in 0..4 {
        for value in [&[0xff; 8], &[0; 8]] {
            Bench::every_fetch(move || direct(format), write(slot * 16, value));
        }
    }
}

fn ring_flags(format: Format) {
    let lap: &'static [&'static [u8]] = match format {
        // NEXT, WRITE, INDIRECT and all of them, where the chain begins, goes on and ends.
        Format::Split => &[
            &[NEXT as u8, 0],
            &[WRITE as u8, 0],
            &[INDIRECT as u8, 0],
            &[7, 0],
            &[0, 0],
        ],
        // The same on the lap, and off it.
        Format::Packed => &[
            &[0x80 | NEXT as u8, 0],
            &[0x80 | WRITE as u8, 0],
            &[0x80 | INDIRECT as u8, 0],
            &[0x87, 0],
            &[0x80, 0],
            &[0, 0],
            &[NEXT as u8, 0x80],
            &[0x81, 0x80],
        ],
    };
    for slot in 0..4 {
        for value in lap {
            let at = slot * 16 + flags_at(format);
            let now = direct(format).arena().get(at, 2);
            if now != *value && !is_the_same(format, slot, value) {
                Bench::every_fetch(move || direct(format), write(at, value));
            }
        }
    }
}

/// Whether this change of flags makes no difference: of a chain that is refused before its end is reached, or of a chain
/// that is behind one that is.
fn is_the_same(format: Format, slot: usize, value: &'static [u8]) -> bool {
    let mut changed = direct(format);
    changed.arena().put(slot * 16 + flags_at(format), value);
    changed.take() == direct(format).take()
}

fn ring_next(format: Format) {
    for slot in [0, 1] {
        for value in [&[3, 0], &[7, 0], &[8, 0], &[0xff, 0xff], &[0, 0]] {
            let at = slot * 16 + link_at(format);
            // Slot 3 is the second chain's: it may be in this one too.
            Bench::every_fetch(move || direct(format), write(at, value));
        }
    }
}

fn ring_entry(format: Format) {
    for entry in 0..3 {
        let at = Bench::TABLES + entry * 16;
        for value in [&[0xff; 4], &[9, 0, 0, 0]] {
            Bench::every_fetch(move || in_table(format), write(at + LEN, value));
        }
        Bench::every_fetch(move || in_table(format), write(at, &[0xff; 8]));
        for value in [&[INDIRECT as u8, 0], &[(INDIRECT | WRITE | NEXT) as u8, 0]] {
            Bench::every_fetch(
                move || in_table(format),
                write(at + flags_at(format), value),
            );
        }
        if format == Format::Split && entry < 2 {
            for value in [&[3, 0], &[0xff, 0xff]] {
                Bench::every_fetch(move || in_table(format), write(at + link_at(format), value));
            }
        }
    }
}

fn ring_avail_idx(format: Format) {
    let idx = direct(format).q.driver_at(layout::IDX);
    let entry = direct(format).q.driver_at(layout::avail_entry(1));
    for value in [&[1, 0], &[0, 0], &[9, 0], &[0xff, 0xff]] {
        Bench::every_fetch(move || direct(format), write(idx, value));
    }
    for value in [&[1, 0], &[8, 0], &[0xff, 0xff]] {
        Bench::every_fetch(move || direct(format), write(entry, value));
    }
    // Filled again as soon as it was looked at: what was shown then is taken, and the rest the next time.
    let mut b = Bench::new(format);
    let at = b.tables().1;
    for _ in 0..8 {
        b.q.chain(&[Piece::read(at, 1)]);
    }
    b.q.set_avail_idx(1);
    b.memory.hook(move |memory, _, fetch, when| {
        if fetch.which == Which::Driver && when == When::After {
            memory.arena.bytes().store_u16(idx as u32, 8);
        }
    });
    assert_eq!(b.take().map(|taken| taken.len()), Ok(1));
    assert_eq!(b.take().map(|taken| taken.len()), Ok(7));
    // And again and again: never more than the queue size at once, and what is in flight is not free.
    b.memory.hook(move |memory, nth, fetch, when| {
        if fetch.which == Which::Driver && when == When::After {
            memory
                .arena
                .bytes()
                .store_u16(idx as u32, 8 + (nth % 8) as u16 + 1);
        }
    });
    assert_eq!(b.take(), Ok(vec![]));
    let found = b.take();
    assert!(
        matches!(found, Err(RingError::AvailJump { in_flight: 8, .. })),
        "{found:?}"
    );
}

/// Sends requests while something changes; what comes back may be anything, or the queue is lost. A buffer that has become
/// too small stays where it is.
pub(crate) fn send_many(s: &mut Stage, make: impl Fn(&Stage) -> Vec<Piece>) -> Expect {
    for _ in 0..REQUESTS {
        let pieces = make(s);
        s.send(&pieces);
        if s.back_or_lost_or_neither().is_none() && s.is_lost() {
            break;
        }
        s.arrivals();
    }
    Expect::Either
}

/// The device's addresses of a field of all descriptors of the queue under attack.
fn field(s: &Stage, offset: usize) -> Vec<u64> {
    let descriptor = |slot| RINGS + (s.q.descriptor_at(layout::descriptor(slot)) + offset) as u64;
    (0..s.q.size).map(descriptor).collect()
}

/// A good request whose memory may be written anywhere.
fn anywhere(s: &Stage) -> Vec<Piece> {
    s.request().cut(4)
}

/// What the device may write to by a descriptor that is changed: anything around the buffers.
fn open_all(s: &Stage) {
    s.buffers.open(0, 64 << 10);
}

fn len(s: &mut Stage) -> Expect {
    static VALUES: [[u8; 4]; 5] = [
        [1, 0, 0, 0],
        [0xff; 4],
        [0; 4],
        [0, 2, 0, 0],
        [0, 0, 0, 0x80],
    ];
    open_all(s);
    let _flip = s.flip(&field(s, LEN), &VALUES);
    send_many(s, anywhere)
}

fn addr(s: &mut Stage) -> Expect {
    // A buffer, the end of the buffers, their hole, nothing, all ones.
    static VALUES: [[u8; 8]; 5] = [
        [0, 8, 0, 0x20, 0, 0, 0, 0],
        [0xf0, 0xff, 1, 0x20, 0, 0, 0, 0],
        [0, 0, 2, 0x20, 0, 0, 0, 0],
        [0; 8],
        [0xff; 8],
    ];
    open_all(s);
    s.open_at(s.buffers.end() - 1024, 1024);
    let _flip = s.flip(&field(s, 0), &VALUES);
    send_many(s, anywhere)
}

fn flags(s: &mut Stage) -> Expect {
    static SPLIT: [[u8; 2]; 6] = [[1, 0], [0, 0], [2, 0], [3, 0], [4, 0], [7, 0]];
    // On this lap, on the other, and used.
    static PACKED: [[u8; 2]; 6] = [
        [0x81, 0],
        [0x80, 0],
        [0x82, 0],
        [0, 0x80],
        [0x80, 0x80],
        [0x84, 0],
    ];
    open_all(s);
    let values = if s.format == Format::Split {
        &SPLIT
    } else {
        &PACKED
    };
    let _flip = s.flip(&field(s, flags_at(s.format)), values);
    send_many(s, anywhere)
}

fn next(s: &mut Stage) -> Expect {
    static VALUES: [[u8; 2]; 5] = [[1, 0], [0, 0], [7, 0], [8, 0], [0xff, 0xff]];
    open_all(s);
    let _flip = s.flip(&field(s, link_at(s.format)), &VALUES);
    send_many(s, anywhere)
}

fn entry(s: &mut Stage) -> Expect {
    static LENS: [[u8; 4]; 3] = [[1, 0, 0, 0], [0xff; 4], [0; 4]];
    static ADDRS: [[u8; 8]; 3] = [[0, 8, 0, 0x20, 0, 0, 0, 0], [0xff; 8], [0; 8]];
    open_all(s);
    let table = |s: &Stage| vec![s.table(50, &anywhere(s))];
    let entries: Vec<u64> = (0..4).map(|entry| s.buffer(50) + 16 * entry).collect();
    let _addrs = s.flip(&entries, &ADDRS);
    let lens: Vec<u64> = entries.iter().map(|entry| entry + LEN as u64).collect();
    let _lens = s.flip(&lens, &LENS);
    send_many(s, table)
}

fn avail_idx(s: &mut Stage) -> Expect {
    static VALUES: [[u8; 2]; 4] = [[1, 0], [2, 0], [9, 0], [0xff, 0xff]];
    open_all(s);
    // Entries of a request that is good, so that some go well.
    let request = anywhere(s);
    let head = s.q.chain(&request);
    (0..s.q.size).for_each(|at| s.q.set_avail_entry(at, head.id));
    let idx = RINGS + s.q.driver_at(layout::IDX) as u64;
    let _flip = s.flip(&[idx], &VALUES);
    for _ in 0..REQUESTS {
        s.kick();
        if s.back_or_lost_or_neither().is_none() && s.is_lost() {
            break;
        }
        s.arrivals();
    }
    Expect::Either
}

/// What makes a header mean something.
const OFFLOADS: vdpa_core::Features = vdpa_core::Features::NONE
    .with(net::CSUM)
    .with(net::HOST_TSO4)
    .with(net::HOST_TSO6);

fn packet_header(s: &mut Stage) -> Expect {
    assert!(s.features().contains(net::CSUM), "{:?}", s.features());
    // Nothing; a checksum; one beyond the end; segments of IPv4, of size 0, of size 1; unknown; all ones.
    static VALUES: [[u8; NET_HEADER]; 8] = [
        [0; NET_HEADER],
        [1, 0, 0, 0, 0, 0, 14, 0, 16, 0, 0, 0],
        [1, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0],
        [1, 1, 54, 0, 0, 4, 34, 0, 16, 0, 0, 0],
        [1, 1, 54, 0, 0, 0, 34, 0, 16, 0, 0, 0],
        [1, 4, 0xff, 0xff, 1, 0, 34, 0, 16, 0, 0, 0],
        [0, 0x7f, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff],
        [0xff; NET_HEADER],
    ];
    let request = s.request();
    let _flip = s.flip(&[request.readable.0], &VALUES);
    for round in 0..2 * REQUESTS {
        s.send(&request.cut([0, 8][round % 2]));
        s.refused();
        for came in s.arrivals() {
            // Nothing unfinished may arrive, and no byte of a header that was not believed.
            assert_eq!(came[..10], [0; 10], "a header: {came:02x?}");
            assert_eq!(came.len(), NET_HEADER + 64);
            // A checksum may stand in it.
            let (found, right) = (&came[NET_HEADER..], frame(7, 64));
            let unlike = found.iter().zip(&right).filter(|(a, b)| a != b).count();
            assert!(unlike <= 2, "{found:02x?}");
        }
    }
    Expect::Back
}

fn block_type_and_sector(s: &mut Stage) -> Expect {
    // IN of sector 1; of the last one, one behind it, one whose byte wraps, all ones; GET_ID; FLUSH; unknown.
    static VALUES: [[u8; 16]; 8] = [
        [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0, 0xff, 7, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0x80, 0],
        [
            0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        ],
        [8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        [4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        [99, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
    ];
    assert_eq!(VALUES[0], block_header(0, 1));
    let _flip = s.flip(&[s.request().readable.0], &VALUES);
    for cut in [0, 8] {
        for _ in 0..REQUESTS {
            let request = s.request();
            s.send(&request.cut(cut));
            let back = s.back();
            let said = s.get(request.writable.0, SECTOR + 1);
            match (said[SECTOR], back.len) {
                // One that was written in this test, or none.
                (0, 513) => assert!(
                    said[..SECTOR] == pattern(1, SECTOR) || said[..SECTOR] == [0; SECTOR],
                    "a sector that nobody wrote"
                ),
                // An identity, and a flush.
                (0, 21) => assert_eq!(said[20..SECTOR], [UNTOUCHED; SECTOR - 20]),
                (0, 1) | (1 | 2, 1) => assert_eq!(said[..SECTOR], [UNTOUCHED; SECTOR]),
                other => panic!("status and length {other:?}"),
            }
        }
    }
    Expect::Served
}

fn command_length(s: &mut Stage) -> Expect {
    // Entries of a MAC table: one, none, more than there are bytes, one whose product with 6 wraps, all ones.
    static VALUES: [[u8; 4]; 5] = [
        [1, 0, 0, 0],
        [0; 4],
        [2, 0, 0, 0],
        [0xab, 0xaa, 0xaa, 0x2a],
        [0xff; 4],
    ];
    let _flip = s.flip(&[s.request().readable.0 + 2], &VALUES);
    for round in 0..2 * REQUESTS {
        let request = s.request();
        s.send(&request.cut([0, 8][round % 2]));
        let back = s.back();
        let ack = s.get(request.writable.0, 1)[0];
        assert!(back.len == 1 && ack < 2, "{back:?}, ack {ack}");
    }
    Expect::Served
}

//! Section C: indirect tables.

use vdpa_hostile::raw::{INDIRECT, NEXT, Piece, WRITE};
use vdpa_hostile::stage::{Expect, HALF, HALVES, Setup, Stage};
use vdpa_hostile::suite::{Code, code};
use vdpa_hostile::table::Target;
use vdpa_hostile::watched::{Bench, Memory};
use vdpa_mem::Fault;
use vdpa_ring::{Format, RingError, RingFeatures};

use crate::fetches::send_many;

/// The functions of the rows.
pub(crate) const ROWS: &[Code] = &[
    code(27)
        .ring(ring_not_negotiated)
        .device_with(|_, _| Setup::PLAIN.direct(), not_negotiated),
    code(28).ring(ring_nested).device(nested),
    code(29).ring(ring_with_next).device(with_next),
    code(30).ring(ring_with_write).device(with_write),
    code(31).ring(ring_no_multiple).device(no_multiple),
    code(32).ring(ring_empty).device(empty),
    code(33).ring(ring_four_gib).device(four_gib),
    code(34).ring(ring_out_of_bounds).device(out_of_bounds),
    code(35).ring(ring_loop).device(looped),
    code(36).device(crosses_regions),
    code(37).ring(ring_too_many).device(too_many),
    code(38).ring(ring_changes).device(changes),
];

/// An address that nothing is near of.
const NOWHERE: u64 = 0x7777_0000_0000;

/// One chain of one descriptor, shown to a ring.
fn one(format: Format, piece: impl FnOnce(&Bench) -> Piece) -> Bench {
    let mut b = Bench::new(format);
    let piece = piece(&b);
    b.q.chain(&[piece]);
    b.q.show();
    b
}

/// A table with one entry for reading.
fn plain(b: &Bench) -> Piece {
    b.table(&[Piece::read(b.tables().1 + 1024, 8)])
}

/// A table that a good request stands in.
fn good(s: &Stage) -> Piece {
    let pieces = s.request().cut(4);
    s.table(50, &pieces)
}

fn ring_not_negotiated(format: Format) {
    let mut b = Bench::with(format, 8, RingFeatures::empty(), None);
    let table = plain(&b);
    b.q.chain(&[table]);
    b.q.show();
    b.malformed(|e| matches!(e, RingError::IndirectNotNegotiated { head: 0, index: 0 }));
    // At the end of a list.
    let mut b = Bench::with(format, 8, RingFeatures::empty(), None);
    let pieces = [Piece::read(b.tables().1, 8), plain(&b)];
    b.q.chain(&pieces);
    b.q.show();
    b.malformed(|e| matches!(e, RingError::IndirectNotNegotiated { head: 0, index: 1 }));
}

fn not_negotiated(s: &mut Stage) -> Expect {
    let table = good(s);
    s.send(&[table]);
    Expect::Lost("is indirect, which was not negotiated")
}

fn ring_nested(format: Format) {
    for at in 0..3 {
        let mut b = one(format, |b| {
            let mut entries = [Piece::read(b.tables().1 + 1024, 8); 3];
            entries[at] = entries[at].with(INDIRECT);
            b.table(&entries)
        });
        b.malformed(
            |e| matches!(e, RingError::IndirectNested { entry, .. } if *entry == at as u16),
        );
    }
}

fn nested(s: &mut Stage) -> Expect {
    let inner = good(s);
    let table = s.table(52, &[inner]);
    s.send(&[table]);
    Expect::Lost("of its table is indirect")
}

fn ring_with_next(format: Format) {
    let mut b = Bench::new(format);
    let pieces = [plain(&b), Piece::read(b.tables().1, 8)];
    b.q.chain(&pieces);
    b.q.show();
    b.malformed(|e| matches!(e, RingError::IndirectWithNext { head: 0, index: 0 }));
}

fn with_next(s: &mut Stage) -> Expect {
    let table = good(s);
    let behind = Piece::write(s.open_buffer(30, 64), 64);
    s.send(&[table, behind]);
    Expect::Lost("is indirect and goes on")
}

fn ring_with_write(format: Format) {
    let mut b = one(format, |b| plain(b).with(WRITE));
    let taken = b.take().expect("virtio 1.4 §2.7.5.3.2: it means nothing");
    assert_eq!((taken[0].readable.len(), taken[0].writable.len()), (1, 0));
    b.bounded();
    assert_eq!(b.memory.twice(), None);
}

fn with_write(s: &mut Stage) -> Expect {
    let request = s.request();
    let table = s.table(50, &request.cut(4)).with(WRITE);
    s.send(&[table]);
    let back = s.back();
    // Nor is the table written to: the canaries would say so.
    s.verify(&request, back.len);
    Expect::Served
}

/// Tables of a length that no table has.
fn ring_lengths(format: Format, lens: &[u32]) {
    for &len in lens {
        let mut b = one(format, |b| Piece { len, ..plain(b) });
        b.malformed(|e| matches!(e, RingError::TableLength { len: l, .. } if *l == len));
    }
}

fn ring_no_multiple(format: Format) {
    ring_lengths(format, &[1, 8, 15, 17, 31, 127]);
}

fn no_multiple(s: &mut Stage) -> Expect {
    let table = good(s);
    let len = table.len + 8;
    s.send(&[Piece { len, ..table }]);
    Expect::Lost("a table of")
}

fn ring_empty(format: Format) {
    ring_lengths(format, &[0]);
}

fn empty(s: &mut Stage) -> Expect {
    let table = good(s);
    s.send(&[Piece { len: 0, ..table }]);
    Expect::Lost("a table of 0 bytes")
}

fn ring_four_gib(format: Format) {
    ring_lengths(format, &[u32::MAX - 15, u32::MAX, 1 << 31]);
}

fn four_gib(s: &mut Stage) -> Expect {
    let table = good(s);
    let len = u32::MAX - 15;
    s.send(&[Piece { len, ..table }]);
    Expect::Lost("a table of 4294967280 bytes")
}

fn ring_out_of_bounds(format: Format) {
    for at in [NOWHERE, u64::MAX, u64::MAX - 15, 0] {
        let mut b = one(format, |b| Piece {
            addr: at,
            ..plain(b)
        });
        b.malformed(|e| matches!(e, RingError::TableDenied { at: a, .. } if a.get() == at));
    }
    // Where it may come to be mapped, the chain waits; nothing is lost, and nothing fetched meanwhile.
    let mut b = one(format, plain);
    b.memory.fault.set(Some(Fault::Miss));
    assert_eq!(b.take(), Ok(vec![]));
    assert_eq!(b.ring.parked().map(|at| at.get()), Some(b.tables().1));
    b.memory.fault.set(None);
    assert_eq!(b.take().map(|taken| taken.len()), Ok(1));
}

fn out_of_bounds(s: &mut Stage) -> Expect {
    let table = good(s);
    let addr = match s.target {
        // By its last entry alone, by its last byte alone, and wholly.
        Target::Tx => s.buffers.end() - u64::from(table.len) + 16,
        Target::Rx => s.buffers.end() - u64::from(table.len) + 1,
        Target::Ctrl => NOWHERE,
        Target::Blk => u64::MAX - 15,
    };
    s.send(&[Piece { addr, ..table }]);
    Expect::Lost("can't be read")
}

fn ring_loop(format: Format) {
    for next in 0..3 {
        let mut b = one(format, |b| {
            let mut entries = [Piece::read(b.tables().1 + 1024, 8); 3];
            entries[2] = entries[2].goes_on(true).link(next);
            b.table(&entries)
        });
        // The copy is walked: no entry is fetched twice.
        b.malformed(|e| matches!(e, RingError::ChainTooLong { limit: 3, .. }));
    }
    for next in [3, 4, 0xffff] {
        let mut b = one(format, |b| {
            let entry = Piece::read(b.tables().1 + 1024, 8);
            b.table(&[entry, entry, entry.goes_on(true).link(next)])
        });
        b.malformed(|e| matches!(e, RingError::NextOutOfRange { size: 3, .. }));
    }
}

fn looped(s: &mut Stage) -> Expect {
    let mut pieces = s.request().cut(4);
    let first = pieces[0];
    // All of one kind, so that nothing else is wrong with it.
    pieces.iter_mut().for_each(|piece| *piece = first);
    if let Some(last) = pieces.last_mut() {
        *last = last.goes_on(true).link(0);
    }
    let table = s.table(50, &pieces);
    s.send(&[table]);
    Expect::Lost("more than")
}

fn crosses_regions(s: &mut Stage) -> Expect {
    let border = HALVES + HALF as u64;
    let request = s.request();
    let pieces = request.cut(4);
    // At every byte: between entries, and within one.
    for before in 1..16 * pieces.len() as u64 {
        let request = s.request();
        let table = s.table_at(border - before, &pieces);
        s.send(&[table]);
        let back = s.back();
        s.verify(&request, back.len);
    }
    // The other end of the second region is the end.
    let table = s.table_at(border + HALF as u64 - 64, &pieces[..1]);
    s.send(&[Piece { len: 80, ..table }]);
    Expect::Lost("can't be read")
}

fn ring_too_many(format: Format) {
    for count in [9, 10, 64] {
        let mut b = one(format, |b| {
            b.table(&vec![Piece::read(b.tables().1, 1); count])
        });
        b.malformed(|e| matches!(e, RingError::TableLength { size: 8, .. }));
        assert!(
            b.memory
                .loads_of(vdpa_hostile::watched::Which::Table)
                .is_empty()
        );
    }
    // Behind descriptors of a list: together they may be more than the ring has, and are bounded all the same.
    if format == Format::Split {
        let mut b = Bench::new(format);
        let table = b.table(&[Piece::read(b.tables().1 + 1024, 1); 8]);
        let mut pieces = vec![Piece::read(b.tables().1 + 1024, 1); 7];
        pieces.push(table);
        b.q.chain(&pieces);
        b.q.show();
        let taken = b
            .take()
            .map(|taken| taken.iter().map(|t| t.readable.len()).sum());
        assert_eq!(taken, Ok(15_usize));
        b.bounded();
    }
}

fn too_many(s: &mut Stage) -> Expect {
    let piece = s.request().cut(8)[0];
    let table = s.table(50, &[piece; 9]);
    s.send(&[table]);
    Expect::Lost("a table of 144 bytes, size is 8")
}

fn ring_changes(format: Format) {
    let entries = |b: &Bench| {
        let at = b.tables().1 + 1024;
        [
            Piece::read(at, 8),
            Piece::read(at + 8, 8),
            Piece::write(at + 16, 8),
        ]
    };
    let make = move || one(format, |b| b.table(&entries(b)));
    // Each word of each entry: address, and length with flags and link.
    for word in 0..6 {
        let change = move |memory: &Memory| {
            let at = Bench::TABLES + 8 * word;
            let value = if word % 2 == 0 { u64::MAX } else { 0xffff };
            memory.arena.bytes().store_u64(at as u32, value);
        };
        Bench::every_fetch(make, change);
    }
    // The whole table becomes something else.
    Bench::every_fetch_mixed(make, |memory| {
        for word in 0..6 {
            let at = Bench::TABLES + 8 * word;
            memory.arena.bytes().store_u64(at as u32, u64::MAX);
        }
    });
}

fn changes(s: &mut Stage) -> Expect {
    static LENS: [[u8; 4]; 3] = [[1, 0, 0, 0], [0xff; 4], [0; 4]];
    static FLAGS: [[u8; 2]; 4] = [[0, 0], [NEXT as u8, 0], [INDIRECT as u8, 0], [0xff; 2]];
    let request = s.request();
    let pieces = request.cut(4);
    let table = s.table(50, &pieces);
    let flags = if s.format == Format::Split { 12 } else { 14 };
    let _lens = s.flip(&[s.buffer(50) + 8], &LENS);
    let _flags = s.flip(&[s.buffer(50) + 16 + flags], &FLAGS);
    send_many(s, |_| vec![table])
}

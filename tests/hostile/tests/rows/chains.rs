//! Section A: chains.

use vdpa_hostile::raw::{INDIRECT, NEXT, Piece};
use vdpa_hostile::stage::{Expect, Setup, Stage};
use vdpa_hostile::suite::{Code, code};
use vdpa_hostile::table::Target;
use vdpa_hostile::watched::Bench;
use vdpa_ring::{Format, RingError, RingFeatures};

/// The functions of the rows.
pub(crate) const ROWS: &[Code] = &[
    code(1).ring(ring_self_loop).device(self_loop),
    code(2).ring(ring_two_loop).device(two_loop),
    code(3).ring(ring_next_beyond).device(next_beyond),
    code(4).ring(ring_head_beyond).device(head_beyond),
    code(5).ring(ring_one_too_many).device(one_too_many),
    code(6).ring(ring_exactly_the_size).device(exactly_the_size),
    code(7)
        .ring(ring_readable_after_writable)
        .device(readable_after_writable),
    code(8).ring(ring_one_part).device(no_writable_part),
    code(9).ring(ring_one_part).device(no_readable_part),
    code(10).ring(ring_same_head_twice).device(same_head_twice),
    code(11).ring(ring_undefined_flags).device(undefined_flags),
    code(12).ring(ring_all_ones).device(all_ones),
];

/// As many pieces as the ring has, and a last one that goes on: around the ring the chain meets its own head.
fn endless(at: u64, size: u16, flags: u16) -> Vec<Piece> {
    vec![Piece::read(at, 1).with(flags).goes_on(true); size.into()]
}

fn ring_self_loop(format: Format) {
    let mut b = Bench::new(format);
    let at = b.tables().1;
    match format {
        Format::Split => b.q.chain(&[Piece::read(at, 1).goes_on(true).link(0)]),
        Format::Packed => b.q.chain(&endless(at, b.q.size, 0)),
    };
    b.q.show();
    b.looped(|e| matches!(e, RingError::ChainTooLong { head: 0, limit: 8 }));
}

fn self_loop(s: &mut Stage) -> Expect {
    let (at, slot) = (s.open_buffer(0, 1), s.q.next_slot());
    let flags = written_flag(s);
    match s.format {
        Format::Split => {
            let piece = Piece::read(at, 1).with(flags).goes_on(true).link(slot);
            s.send(&[piece]);
        }
        Format::Packed => {
            let size = s.q.size;
            s.send(&endless(at, size, flags));
        }
    }
    Expect::Lost("more than 8 descriptors")
}

/// What makes a descriptor one that the queue under attack is about.
fn written_flag(s: &Stage) -> u16 {
    match s.target {
        Target::Rx => vdpa_hostile::raw::WRITE,
        _ => 0,
    }
}

fn ring_two_loop(format: Format) {
    let mut b = Bench::new(format);
    let piece = Piece::read(b.tables().1, 1).goes_on(true);
    b.q.chain(&[piece.link(1), piece.link(0)]);
    b.q.show();
    b.looped(|e| matches!(e, RingError::ChainTooLong { head: 0, limit: 8 }));
}

fn two_loop(s: &mut Stage) -> Expect {
    let (at, slot) = (s.open_buffer(0, 1), s.q.next_slot());
    let piece = Piece::read(at, 1).with(written_flag(s)).goes_on(true);
    s.send(&[piece.link((slot + 1) % s.q.size), piece.link(slot)]);
    Expect::Lost("more than 8 descriptors")
}

fn ring_next_beyond(format: Format) {
    for next in [8, 9, 0x7fff, 0xffff] {
        let mut b = Bench::new(format);
        b.q.chain(&[Piece::read(b.tables().1, 1).goes_on(true).link(next)]);
        b.q.show();
        b.malformed(|e| matches!(e, RingError::NextOutOfRange { next: n, .. } if *n == next));
    }
}

fn next_beyond(s: &mut Stage) -> Expect {
    let at = s.open_buffer(0, 1);
    let next = [s.q.size, 0xffff][usize::from(s.target == Target::Blk)];
    let piece = Piece::read(at, 1).with(written_flag(s));
    s.send(&[piece.goes_on(true).link(next)]);
    Expect::Lost("goes on at")
}

fn ring_head_beyond(format: Format) {
    for head in [8, 0x8000, 0xffff] {
        let mut b = Bench::new(format);
        b.q.set_avail_entry(0, head);
        b.q.set_avail_idx(1);
        b.malformed(|e| matches!(e, RingError::HeadOutOfRange { head: h, .. } if *h == head));
    }
}

fn head_beyond(s: &mut Stage) -> Expect {
    let head = [s.q.size, 0xffff][usize::from(s.target == Target::Blk)];
    s.q.set_avail_entry(s.q.avail, head);
    s.q.set_avail_idx(s.q.avail.wrapping_add(1));
    s.kick();
    Expect::Lost("names head")
}

fn ring_one_too_many(format: Format) {
    let mut b = Bench::new(format);
    let mut pieces = vec![Piece::read(b.tables().1, 1); 8];
    // The ninth overwrites the first: split comes round to its head, packed finds a slot that is in the chain.
    pieces.extend([Piece::read(b.tables().1, 1)]);
    if format == Format::Packed {
        pieces.truncate(8);
        pieces[7] = pieces[7].goes_on(true);
    } else {
        pieces[8] = pieces[8].goes_on(true);
    }
    b.q.chain(&pieces);
    b.q.show();
    b.looped(|e| matches!(e, RingError::ChainTooLong { head: 0, limit: 8 }));
    // In a table there is no room for a ninth either.
    let mut b = Bench::new(format);
    let table = b.table(&[Piece::read(b.tables().1 + 512, 1); 9]);
    b.q.chain(&[table]);
    b.q.show();
    b.malformed(|e| matches!(e, RingError::TableLength { len: 144, .. }));
}

fn one_too_many(s: &mut Stage) -> Expect {
    let at = s.open_buffer(0, 16);
    let piece = Piece::read(at, 1).with(written_flag(s));
    let mut pieces = vec![piece; s.q.size.into()];
    if let Some(last) = pieces.last_mut() {
        // The next one is the first: virtio 1.4 §2.7.5.3.1, §2.8.21.2 have chains no longer than the queue.
        *last = last.goes_on(true);
    }
    s.send(&pieces);
    Expect::Lost("more than 8 descriptors")
}

fn ring_exactly_the_size(format: Format) {
    for table in [false, true] {
        let mut b = Bench::new(format);
        let at = b.tables().1 + 1024;
        let piece = |i: u64| match i {
            0..4 => Piece::read(at + i, 1),
            _ => Piece::write(at + i, 1),
        };
        let pieces: Vec<_> = (0..8).map(piece).collect();
        match table {
            true => b.q.chain(&[b.table(&pieces)]),
            false => b.q.chain(&pieces),
        };
        b.q.show();
        let taken = b.take().expect("a legal chain");
        assert_eq!(taken.len(), 1);
        assert_eq!(taken[0].readable, [0, 1, 2, 3].map(|i| (at + i, 1)));
        assert_eq!(taken[0].writable, [4, 5, 6, 7].map(|i| (at + i, 1)));
        b.bounded();
    }
}

fn exactly_the_size(s: &mut Stage) -> Expect {
    let request = s.request();
    let pieces = request.cut(usize::from(s.q.size));
    assert_eq!(pieces.len(), usize::from(s.q.size));
    s.send(&pieces);
    let back = s.back();
    s.verify(&request, back.len);
    s.still_works();
    Expect::Served
}

fn ring_readable_after_writable(format: Format) {
    for table in [false, true] {
        let mut b = Bench::new(format);
        let at = b.tables().1 + 1024;
        let pieces = [Piece::write(at, 8), Piece::read(at + 8, 8)];
        match table {
            true => b.q.chain(&[b.table(&pieces)]),
            false => b.q.chain(&pieces),
        };
        b.q.show();
        b.malformed(|e| matches!(e, RingError::ReadableAfterWritable { head: 0, index: 1 }));
    }
}

fn readable_after_writable(s: &mut Stage) -> Expect {
    let (from, to) = (s.buffer(0), s.open_buffer(2, 64));
    s.send(&[Piece::write(to, 64), Piece::read(from, 64)]);
    Expect::Lost("readable after a writable")
}

fn ring_one_part(format: Format) {
    for written in [false, true] {
        let mut b = Bench::new(format);
        let at = b.tables().1;
        b.q.chain(&[if written {
            Piece::write(at, 9)
        } else {
            Piece::read(at, 9)
        }]);
        b.q.show();
        let taken = b.take().expect("legal for the ring");
        let parts = (taken[0].readable.len(), taken[0].writable.len());
        assert_eq!(parts, if written { (0, 1) } else { (1, 0) });
        b.bounded();
    }
}

fn no_writable_part(s: &mut Stage) -> Expect {
    let request = s.request();
    let at = if request.readable.1 == 0 {
        request.writable
    } else {
        request.readable
    };
    s.send(&[Piece::read(at.0, at.1)]);
    Expect::Back
}

fn no_readable_part(s: &mut Stage) -> Expect {
    let to = s.open_buffer(2, 513);
    s.send(&[Piece::write(to, 513)]);
    Expect::Back
}

fn ring_same_head_twice(format: Format) {
    let mut b = Bench::new(format);
    let at = b.tables().1;
    let head = b.q.chain(&[Piece::write(at, 9)]);
    b.q.set_avail_entry(b.q.avail, head.id);
    b.q.set_avail_idx(b.q.avail.wrapping_add(1));
    let taken = b.take().expect("what is twice in the ring is two chains");
    assert_eq!((taken.len(), &taken[0]), (2, &taken[1]));
    b.commit(&[1, 2]).expect("both go back");
    let back = [b.q.used(), b.q.used()].map(|back| back.map(|back| (back.id, back.len)));
    assert_eq!(back, [Some((head.id.into(), 1)), Some((head.id.into(), 2))]);
}

fn same_head_twice(s: &mut Stage) -> Expect {
    let request = s.request();
    let head = s.q.chain(&request.pieces());
    s.q.set_avail_entry(s.q.avail, head.id);
    s.q.avail = s.q.avail.wrapping_add(1);
    s.q.show();
    s.q.shown += 1;
    s.kick();
    s.stir();
    // It is as many requests, and each is answered.
    for _ in 0..2 {
        let back = s.back();
        assert_eq!(back.id, u32::from(head.id));
        s.verify(&request, back.len);
    }
    Expect::Served
}

/// Bits that mean nothing in either format: virtio 1.4 §2.7.5, §2.8.1.
fn undefined(format: Format) -> u16 {
    match format {
        Format::Split => !(NEXT | INDIRECT | 2),
        Format::Packed => !(NEXT | INDIRECT | 2 | 1 << 7 | 1 << 15),
    }
}

fn ring_undefined_flags(format: Format) {
    for bit in (0..16)
        .map(|bit| 1 << bit)
        .filter(|bit| bit & undefined(format) != 0)
    {
        let mut b = Bench::new(format);
        let at = b.tables().1;
        b.q.chain(&[
            Piece::read(at, 8).with(bit),
            Piece::write(at + 8, 8).with(bit),
        ]);
        b.q.show();
        let taken = b.take().expect("bits that mean nothing");
        assert_eq!((taken[0].readable.len(), taken[0].writable.len()), (1, 1));
        b.bounded();
    }
}

fn undefined_flags(s: &mut Stage) -> Expect {
    let request = s.request();
    let bits = undefined(s.format);
    let pieces: Vec<_> = request
        .cut(4)
        .iter()
        .map(|piece| piece.with(bits))
        .collect();
    s.send(&pieces);
    let back = s.back();
    s.verify(&request, back.len);
    Expect::Served
}

/// All ones, but for what makes a packed descriptor available.
fn ones(format: Format) -> Piece {
    let flags = match format {
        Format::Split => u16::MAX,
        Format::Packed => !(1 << 15),
    };
    Piece::read(u64::MAX, u32::MAX).with(flags).link(u16::MAX)
}

fn ring_all_ones(format: Format) {
    for features in [RingFeatures::empty(), RingFeatures::INDIRECT_DESC] {
        let mut b = Bench::with(format, 8, features, None);
        b.q.chain(&[ones(format)]);
        b.q.show();
        match features.is_empty() {
            true => b.malformed(|e| matches!(e, RingError::IndirectNotNegotiated { .. })),
            false => b.malformed(|e| matches!(e, RingError::IndirectWithNext { .. })),
        }
    }
}

fn all_ones(s: &mut Stage) -> Expect {
    assert_eq!(s.setup.indirect, Setup::PLAIN.indirect);
    s.send(&[ones(s.format)]);
    Expect::Lost("is indirect and goes on")
}

//! Section B: addresses.

use vdpa_hostile::exchange::NET_HEADER;
use vdpa_hostile::raw::{INDIRECT, Piece};
use vdpa_hostile::soon;
use vdpa_hostile::stage::{
    Expect, FIRST_RING, HALF, HALVES, HOUSE, RINGS, ROM, SECOND_RING, SPARE, Stage,
};
use vdpa_hostile::suite::{Code, code};
use vdpa_hostile::table::Target;
use vdpa_hostile::watched::Bench;
use vdpa_ring::{Format, RingError};

/// The functions of the rows.
pub(crate) const ROWS: &[Code] = &[
    code(13).device(nothing_at_a_valid_address),
    code(14).device(nothing_at_an_invalid_address),
    code(15).device(wraps),
    code(16).ring(ring_sum_wraps).device(sum_wraps),
    code(17).device(spans_a_hole),
    code(18).device(spans_two_regions),
    code(19).device(ends_at_the_end),
    code(20).device(one_past_the_end),
    code(21).device(in_its_own_ring),
    code(22).device(in_anothers_ring),
    code(23).device(just_unmapped),
    code(24).device(written_where_read),
    code(25).device(overlapping),
    code(26).device(above_everything),
];

/// An address that nothing is near of.
const NOWHERE: u64 = 0x7777_0000_0000;

/// For each piece of a good request in turn: the request with this piece bent comes back, and not as if it had
/// succeeded; the one behind it is served.
fn each_piece(s: &mut Stage, bend: impl Fn(&Stage, Piece) -> Piece) -> Expect {
    for cut in [0, 4] {
        let count = s.request().cut(cut).len();
        for at in 0..count {
            let request = s.request();
            let mut pieces = request.cut(cut);
            pieces[at] = bend(s, pieces[at]);
            s.send(&pieces);
            s.refused();
            s.still_works();
        }
    }
    Expect::Back
}

/// The same for an address that may not be used: it is told as a fault.
fn each_fault(s: &mut Stage, bend: impl Fn(&Stage, Piece) -> Piece) -> Expect {
    let expect = each_piece(s, bend);
    assert!(s.has_faulted(), "{:?}", s.said);
    expect
}

/// A piece of length 0 by itself, and before, between and behind those of a good request.
fn nothing_at(s: &mut Stage, at: u64) -> Expect {
    let written = s.target == Target::Rx;
    let nothing = |written: bool| match written {
        true => Piece::write(at, 0),
        false => Piece::read(at, 0),
    };
    s.send(&[nothing(written)]);
    s.refused();
    s.still_works();
    let count = s.request().cut(3).len();
    for place in 0..=count {
        let request = s.request();
        let mut pieces = request.cut(3);
        let beside = pieces[place.min(count - 1)];
        pieces.insert(place, nothing(beside.is_written()));
        s.send(&pieces);
        // There is nothing to be read or written there: it is as if it were not there.
        let back = s.back();
        s.verify(&request, back.len);
    }
    Expect::Served
}

fn nothing_at_a_valid_address(s: &mut Stage) -> Expect {
    let at = s.buffer(20);
    nothing_at(s, at)
}

fn nothing_at_an_invalid_address(s: &mut Stage) -> Expect {
    nothing_at(s, NOWHERE);
    nothing_at(s, u64::MAX)
}

fn wraps(s: &mut Stage) -> Expect {
    each_fault(s, |_, piece| Piece {
        addr: u64::MAX - 3,
        len: piece.len.max(64),
        ..piece
    });
    // From memory that is mapped: around all addresses, and back to it.
    each_piece(s, |_, piece| Piece {
        addr: u64::MAX - u64::from(piece.len / 2),
        ..piece
    })
}

fn ring_sum_wraps(format: Format) {
    for written in [false, true] {
        let piece = |len| match written {
            true => Piece::write(NOWHERE, len),
            false => Piece::read(NOWHERE, len),
        };
        // 2^32 is the most: virtio 1.4 §2.7.5.2.
        let mut b = Bench::new(format);
        b.q.chain(&[piece(1 << 31), piece(1 << 31)]);
        b.q.show();
        assert_eq!(b.take().map(|taken| taken.len()), Ok(1));
        for lens in [&[u32::MAX, 2][..], &[u32::MAX; 8], &[1 << 31, 1 << 31, 1]] {
            let mut b = Bench::new(format);
            let pieces: Vec<_> = lens.iter().map(|len| piece(*len)).collect();
            b.q.chain(&pieces);
            b.q.show();
            b.malformed(
                |e| matches!(e, RingError::ChainTooLarge { bytes, .. } if *bytes > 1 << 32),
            );
        }
    }
}

fn sum_wraps(s: &mut Stage) -> Expect {
    let written = s.target == Target::Rx;
    let piece = |len| match written {
        true => Piece::write(NOWHERE, len),
        false => Piece::read(NOWHERE, len),
    };
    // As much as there may be: the chain is one, and its memory is not there.
    s.send(&[piece(1 << 31), piece(1 << 31)]);
    s.refused();
    s.still_works();
    // One of which the sum, cut to 32 bits, would be small.
    s.send(&[piece(u32::MAX), piece(65)]);
    Expect::Lost("more than 2^32")
}

fn spans_a_hole(s: &mut Stage) -> Expect {
    let end = s.buffers.end();
    s.open_at(end - 1024, 1024);
    each_fault(s, |_, piece| Piece {
        addr: end - u64::from(piece.len / 2),
        ..piece
    });
    // Both ends are mapped, and what is between them is not.
    s.open_at(HALVES, 1);
    each_piece(s, |s, piece| Piece {
        addr: s.buffers.end() - 1,
        len: (HALVES - s.buffers.end()) as u32 + 2,
        ..piece
    })
}

fn spans_two_regions(s: &mut Stage) -> Expect {
    let border = HALVES + HALF as u64;
    let (readable, writable) = s.known_good();
    let far = s.buffer(40);
    for before in 1..readable.len().max(writable).min(20) as u64 {
        let across = border - before;
        let ways = match (readable.is_empty(), writable) {
            (true, _) => vec![(far, across)],
            (_, 0) => vec![(across, far)],
            _ => vec![(far, across), (across, far)],
        };
        for (from, to) in ways {
            for cut in [0, 3] {
                let request = s.request_between(from, to);
                s.send(&request.cut(cut));
                let back = s.back();
                s.verify(&request, back.len);
            }
        }
    }
    Expect::Served
}

fn ends_at_the_end(s: &mut Stage) -> Expect {
    let (readable, writable) = s.known_good();
    for cut in [0, 3] {
        let from = HALVES + 2 * HALF as u64 - readable.len() as u64;
        let to = s.buffers.end() - writable as u64;
        let from = if readable.is_empty() {
            s.buffer(0)
        } else {
            from
        };
        let to = if writable == 0 { s.buffer(0) } else { to };
        let request = s.request_between(from, to);
        s.send(&request.cut(cut));
        let back = s.back();
        s.verify(&request, back.len);
    }
    Expect::Served
}

fn one_past_the_end(s: &mut Stage) -> Expect {
    let end = s.buffers.end();
    s.open_at(end - 1024, 1024);
    each_fault(s, |_, piece| Piece {
        addr: end - u64::from(piece.len) + 1,
        ..piece
    })
}

/// Uses memory at these addresses, one after the other, as buffers; ends when the queue is lost.
fn use_as_buffers(s: &mut Stage, places: &[u64]) -> Expect {
    for &at in places {
        let request = s.request();
        let bend = |piece: Piece| match piece.len {
            0..2 => piece,
            len => Piece {
                addr: at,
                len: len.min(76),
                ..piece
            },
        };
        let pieces: Vec<_> = request.pieces().into_iter().map(bend).collect();
        s.send(&pieces);
        if s.back_or_lost().is_none() {
            break;
        }
    }
    Expect::Either
}

fn in_its_own_ring(s: &mut Stage) -> Expect {
    let bytes = s.q.placed.bytes as usize;
    s.rings.open(0, bytes + 1024);
    let areas = [s.q.device_at(0), s.q.descriptor_at(0), s.q.driver_at(0)];
    use_as_buffers(s, &areas.map(|offset| RINGS + offset as u64))
}

fn in_anothers_ring(s: &mut Stage) -> Expect {
    // What is done to the sibling queue is the driver's own doing: it does not go on.
    let _over = s.background.leave(vdpa_hostile::background::Sibling::Queue);
    s.house.open(0, 16 << 10);
    use_as_buffers(
        s,
        &[FIRST_RING, SECOND_RING].map(|ring| HOUSE + ring as u64),
    )
}

fn just_unmapped(s: &mut Stage) -> Expect {
    // It works while it is mapped, so that the device has been there.
    let (readable, writable) = s.known_good();
    let (from, to) = (SPARE, SPARE + 2048);
    let from = if readable.is_empty() {
        s.buffer(0)
    } else {
        from
    };
    let to = if writable == 0 { s.buffer(2) } else { to };
    let request = s.request_between(from, to);
    s.send(&request.pieces());
    let back = s.back();
    s.verify(&request, back.len);
    s.dma.unmap(s.spare.range(), soon()).expect("an unmap");
    for cut in [0, 3] {
        s.send(&request.cut(cut));
        s.refused();
        s.still_works();
    }
    each_fault(s, |_, piece| Piece {
        addr: SPARE,
        ..piece
    })
}

fn written_where_read(s: &mut Stage) -> Expect {
    for cut in [0, 4] {
        let count = s.request().cut(cut).len();
        for at in 0..count {
            let mut pieces = s.request().cut(cut);
            if !pieces[at].is_written() {
                continue;
            }
            pieces[at].addr = ROM + 512;
            s.send(&pieces);
            s.refused();
            s.still_works();
        }
    }
    assert!(s.has_faulted(), "{:?}", s.said);
    Expect::Back
}

fn overlapping(s: &mut Stage) -> Expect {
    // Read twice: that is only odd.
    if s.target == Target::Tx {
        let request = s.request();
        let header = Piece::read(request.readable.0, NET_HEADER as u32);
        let frame = Piece::read(request.readable.0 + NET_HEADER as u64, 32);
        s.send(&[header, frame, frame]);
        assert_eq!(s.back().len, 0);
        let came = s.arrival();
        assert_eq!(came[NET_HEADER..NET_HEADER + 32], came[NET_HEADER + 32..]);
        return Expect::Served;
    }
    // Written to what is read: what was read is a copy by then. And all that is written at one place.
    let request = s.request();
    let mut pieces = request.cut(4);
    let at = if request.readable.1 == 0 {
        request.writable.0
    } else {
        request.readable.0
    };
    s.open_at(at, 1024);
    for piece in pieces.iter_mut().filter(|piece| piece.is_written()) {
        piece.addr = at;
    }
    s.send(&pieces);
    let back = s.back();
    let right: u32 = pieces
        .iter()
        .filter(|piece| piece.is_written())
        .map(|piece| piece.len)
        .sum();
    match s.target {
        Target::Rx => assert_eq!(back.len, NET_HEADER as u32 + 64),
        _ => assert_eq!(
            back.len, right,
            "it succeeds, by what was read before anything was written"
        ),
    }
    if s.target == Target::Blk {
        let last = pieces.last().map_or(0, |piece| u64::from(piece.len) - 1);
        assert_eq!(s.get(at + last, 1), [0], "the status is written last");
    }
    s.still_works();
    Expect::Served
}

fn above_everything(s: &mut Stage) -> Expect {
    for at in [1 << 63, u64::MAX - 4095, u64::MAX, 1 << 52] {
        each_fault(s, |_, piece| Piece { addr: at, ..piece });
    }
    // A table there is none.
    s.send(&[Piece::read(1 << 63, 32).with(INDIRECT)]);
    Expect::Lost("can't be read")
}

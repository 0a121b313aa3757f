//! Section A: chains.

use vdpa_hostile::raw::Piece;
use vdpa_hostile::stage::{Expect, Stage};
use vdpa_hostile::suite::{Code, code};

/// The functions of the rows.
pub(crate) const ROWS: &[Code] = &[
    code(6).device(exactly_the_size),
    code(7).device(readable_after_writable),
];

fn exactly_the_size(s: &mut Stage) -> Expect {
    let request = s.request();
    let pieces = request.cut(usize::from(s.q.size));
    assert_eq!(pieces.len(), usize::from(s.q.size));
    s.send(&pieces);
    let back = s.back();
    s.verify(&request, back.len);
    Expect::Served
}

fn readable_after_writable(s: &mut Stage) -> Expect {
    let (from, to) = (s.buffer(0), s.open_buffer(2, 64));
    s.send(&[Piece::write(to, 64), Piece::read(from, 64)]);
    Expect::Lost("readable after a writable")
}

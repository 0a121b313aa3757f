//! Section I: block.

use vdpa_core::bits::block;
use vdpa_hostile::exchange::{IN, OUT, SECTOR, block_header, pattern};
use vdpa_hostile::raw::Piece;
use vdpa_hostile::stage::{Expect, Setup, Stage, UNTOUCHED};
use vdpa_hostile::suite::{Code, code};

/// The functions of the rows.
pub(crate) const ROWS: &[Code] = &[
    code(101).device(beyond_the_capacity),
    code(102).device(overrun_in_the_sum),
    code(103).device(byte_wraps),
    code(104).device(no_multiple),
    code(105).device(no_status),
    code(106).device(discards),
    code(107).device_with(|_, _| Setup::PLAIN.keys(",ro=on"), write_to_read_only),
    code(108).device(unknown_type),
    code(109).device(short_identity),
];

const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;
const SECURE_ERASE: u32 = 14;

const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;

/// Sectors of the disk.
const CAPACITY: u64 = (1 << 20) / SECTOR as u64;

/// Sends a request: its header and these bytes to be read, so many to be written, each part cut in pieces of at most
/// `cut` bytes. Answers with status, used length and what was written before the status.
fn ask(
    s: &mut Stage,
    kind: u32,
    sector: u64,
    data: &[u8],
    room: usize,
    cut: usize,
) -> (u8, u32, Vec<u8>) {
    let (from, to) = (s.buffer(60), s.buffer(70));
    s.put(from, &[&block_header(kind, sector), data].concat());
    s.open_at(to, room + 1);
    s.put(to, &vec![UNTOUCHED; room + 1]);
    let parts = |at: u64, len: usize| {
        (0..len)
            .step_by(cut)
            .map(move |begin| (at + begin as u64, cut.min(len - begin) as u32))
    };
    let mut pieces: Vec<_> = parts(from, 16 + data.len())
        .map(|(at, len)| Piece::read(at, len))
        .collect();
    pieces.extend(parts(to, room + 1).map(|(at, len)| Piece::write(at, len)));
    assert!(pieces.len() <= 8, "{} pieces", pieces.len());
    s.send(&pieces);
    let back = s.back();
    let mut said = s.get(to, room + 1);
    let status = said.pop().unwrap_or(UNTOUCHED);
    (status, back.len, said)
}

/// A request that is refused with this status, and has no effect.
fn refused(s: &mut Stage, kind: u32, sector: u64, data: &[u8], room: usize, status: u8) {
    for cut in [usize::MAX, 400] {
        let (said, len, written) = ask(s, kind, sector, data, room, cut);
        assert_eq!(
            (said, len),
            (status, 1),
            "type {kind}, sector {sector:#x}, {} and {room} bytes",
            data.len()
        );
        assert_eq!(
            written,
            vec![UNTOUCHED; room],
            "nothing is written but the status"
        );
    }
    s.still_works();
}

/// Nothing of the disk has changed: its sector 1, which everybody reads, and its last one, which nobody wrote.
fn unchanged(s: &mut Stage) {
    s.still_works();
    let (status, _, data) = ask(s, IN, CAPACITY - 1, &[], SECTOR, usize::MAX);
    assert_eq!((status, data), (OK, vec![0; SECTOR]));
}

fn beyond_the_capacity(s: &mut Stage) -> Expect {
    for sector in [CAPACITY, CAPACITY + 1, 1 << 32, 1 << 40] {
        refused(s, IN, sector, &[], SECTOR, IOERR);
        refused(s, OUT, sector, &[7; SECTOR], 0, IOERR);
    }
    unchanged(s);
    Expect::Served
}

fn overrun_in_the_sum(s: &mut Stage) -> Expect {
    // Each piece by itself would fit.
    refused(s, IN, CAPACITY - 1, &[], 2 * SECTOR, IOERR);
    refused(s, OUT, CAPACITY - 1, &[7; 2 * SECTOR], 0, IOERR);
    unchanged(s);
    Expect::Served
}

fn byte_wraps(s: &mut Stage) -> Expect {
    for sector in [1 << 55, (1 << 55) + 1, u64::MAX / 512, u64::MAX, 1 << 63] {
        refused(s, IN, sector, &[], SECTOR, IOERR);
        refused(s, OUT, sector, &[7; SECTOR], 0, IOERR);
    }
    unchanged(s);
    Expect::Served
}

fn no_multiple(s: &mut Stage) -> Expect {
    for len in [1, 511, 513, 1000] {
        refused(s, IN, 2, &[], len, IOERR);
        refused(s, OUT, CAPACITY - 1, &vec![7; len], 0, IOERR);
    }
    unchanged(s);
    Expect::Served
}

fn no_status(s: &mut Stage) -> Expect {
    let (from, to) = (s.buffer(60), s.open_buffer(70, SECTOR));
    s.put(from, &block_header(OUT, CAPACITY - 1));
    s.put(from + 16, &[7; SECTOR]);
    let header = Piece::read(from, 16 + SECTOR as u32);
    // Missing; of no length; only to be read.
    for chain in [
        vec![header],
        vec![header, Piece::write(to, 0)],
        vec![header, Piece::read(to, 1)],
        vec![header, Piece::read(to, 1), Piece::write(to, 0)],
    ] {
        s.send(&chain);
        let back = s.back();
        assert_eq!(back.len, 0, "there is nowhere to say anything");
        s.still_works();
    }
    // What cannot be told was not done.
    unchanged(s);
    Expect::Served
}

/// A segment of a discard and its like.
fn segment(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    [
        &sector.to_le_bytes()[..],
        &sectors.to_le_bytes(),
        &flags.to_le_bytes(),
    ]
    .concat()
}

fn discards(s: &mut Stage) -> Expect {
    for bit in [block::DISCARD, block::WRITE_ZEROES, block::SECURE_ERASE] {
        assert!(s.features().contains(bit), "{:?}", s.features());
    }
    for kind in [DISCARD, WRITE_ZEROES, SECURE_ERASE] {
        // None; half of one; more than there may be.
        refused(s, kind, 0, &[], 0, IOERR);
        refused(s, kind, 0, &segment(0, 1, 0)[..8], 0, IOERR);
        refused(
            s,
            kind,
            0,
            &[segment(0, 1, 0), vec![0; 1]].concat(),
            0,
            IOERR,
        );
        refused(
            s,
            kind,
            0,
            &segment(CAPACITY - 1, 0, 0).repeat(62),
            0,
            IOERR,
        );
        // Beyond the end, around it, too many sectors, with flags that mean nothing.
        refused(s, kind, 0, &segment(CAPACITY, 1, 0), 0, IOERR);
        refused(s, kind, 0, &segment(1, CAPACITY as u32, 0), 0, IOERR);
        refused(s, kind, 0, &segment(u64::MAX, 2, 0), 0, IOERR);
        refused(s, kind, 0, &segment(1 << 55, 1, 0), 0, IOERR);
        refused(s, kind, 0, &segment(1, u32::MAX, 0), 0, IOERR);
        refused(s, kind, 0, &segment(1, 1, 1 << 1), 0, UNSUPP);
        refused(s, kind, 0, &segment(1, 1, u32::MAX), 0, UNSUPP);
        // All of a request is looked at before any of it is done.
        let both = [segment(1, 1, 0), segment(CAPACITY, 1, 0)].concat();
        refused(s, kind, 0, &both, 0, IOERR);
    }
    // Unmap is for zeroes alone.
    refused(s, DISCARD, 0, &segment(1, 1, 1), 0, UNSUPP);
    unchanged(s);
    Expect::Served
}

fn write_to_read_only(s: &mut Stage) -> Expect {
    assert!(s.features().contains(block::RO), "{:?}", s.features());
    for sector in [0, 1, CAPACITY - 1, CAPACITY, u64::MAX] {
        let (status, len, _) = ask(s, OUT, sector, &[7; SECTOR], 0, usize::MAX);
        assert_eq!((status, len), (IOERR, 1), "sector {sector:#x}");
    }
    for kind in [DISCARD, WRITE_ZEROES, SECURE_ERASE] {
        let (status, len, _) = ask(s, kind, 0, &segment(1, 1, 0), 0, usize::MAX);
        assert!(
            matches!((status, len), (IOERR | UNSUPP, 1)),
            "type {kind}: {status}"
        );
    }
    let (status, _, data) = ask(s, IN, 1, &[], SECTOR, usize::MAX);
    assert_eq!((status, data), (OK, vec![0; SECTOR]), "nothing was written");
    Expect::Served
}

fn unknown_type(s: &mut Stage) -> Expect {
    for kind in [2, 3, 5, 6, 7, 9, 10, 12, 15, 99, 0x8000_0000, u32::MAX] {
        refused(s, kind, 1, &[], SECTOR, UNSUPP);
        refused(s, kind, 1, &[7; SECTOR], 0, UNSUPP);
    }
    // A flush carries nothing; what is beside it is not looked at.
    let (status, len, _) = ask(s, FLUSH, u64::MAX, &[], 0, usize::MAX);
    assert_eq!((status, len), (OK, 1));
    unchanged(s);
    Expect::Served
}

fn short_identity(s: &mut Stage) -> Expect {
    for room in [0, 1, 19] {
        refused(s, GET_ID, 0, &[], room, IOERR);
    }
    let (status, len, id) = ask(s, GET_ID, 0, &[], 20, usize::MAX);
    assert_eq!((status, len), (OK, 21), "{id:02x?}");
    assert_ne!(id, vec![UNTOUCHED; 20]);
    assert_ne!(id, pattern(1, 20));
    Expect::Served
}

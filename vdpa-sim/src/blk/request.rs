//! What a request asks for, and whether that is legal: virtio 1.4 §5.2.6.
//!
//! ```text
//!   readable:  type u32 | reserved u32 | sector u64 | data, or segments         however it is cut
//!   writable:  data, or the identity | status u8, the last byte
//!   segment:   sector u64 | sectors u32 | flags u32 (bit 0: unmap)
//! ```
//! All of a request is checked before any of it is done: one that is refused has no effect.

use vdpa_core::config::block::SECTOR;
use vdpa_mem::{Hint, Section};
use vdpa_ring::ChainRef;

use super::config::{
    DISCARD_SECTORS, DISCARD_SEGMENTS, ERASE_SECTORS, ERASE_SEGMENTS, ID_BYTES, ZERO_SECTORS,
};
use super::count::Count;
use super::job::{Action, Extent};
use super::scatter::{self, Stray};

/// Bytes of the header.
pub(super) const HEADER: u64 = 16;
/// Bytes of a segment of a discard and its like.
const SEGMENT: usize = 16;
/// The most bytes of such segments.
const SEGMENTS: usize = DISCARD_SEGMENTS as usize * SEGMENT;
/// Segments of either kind find room.
const _: () = assert!(ERASE_SEGMENTS <= DISCARD_SEGMENTS);

/// Status bytes.
pub(super) const OK: u8 = 0;
pub(super) const IOERR: u8 = 1;
pub(super) const UNSUPP: u8 = 2;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;
const SECURE_ERASE: u32 = 14;

/// The flag of a segment that its storage may be given up.
const UNMAP: u32 = 1;

/// What the device takes at the moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// Bytes of the disk.
    pub(super) bytes: u64,
    pub(super) read_only: bool,
    pub(super) flush: bool,
    pub(super) discard: bool,
    pub(super) write_zeroes: bool,
    pub(super) secure_erase: bool,
}

/// A legal request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Order {
    /// The identity of the disk.
    Identity,
    /// Data go one way or the other: a read or a write of one extent. By value, not in the extents beside: one that is stored
    /// as two words and loaded as one waits until all earlier stores are done, those to lines of another core too.
    Data(Action, Extent),
    /// What else a backend does. Its extents are beside it.
    Disk(Action),
}

impl Order {
    /// The counter of such requests.
    pub(super) fn count(self) -> Count {
        match self {
            Self::Identity => Count::GetId,
            Self::Data(action, _) | Self::Disk(action) => match action {
                Action::Read => Count::Read,
                Action::Write => Count::Write,
                Action::Flush => Count::Flush,
                Action::Zero { .. } => Count::WriteZeroes,
                Action::Discard => Count::Discard,
                Action::Erase => Count::SecureErase,
            },
        }
    }
}

/// Why a request is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refused {
    /// Its header cannot be read, or a buffer not used.
    Stray(Stray),
    /// For this reason, with this status.
    Because(Count, u8),
}

const RANGE: Refused = Refused::Because(Count::Range, IOERR);
const READ_ONLY: Refused = Refused::Because(Count::ReadOnly, IOERR);
const MALFORMED: Refused = Refused::Because(Count::Malformed, IOERR);
const LIMIT: Refused = Refused::Because(Count::Limit, IOERR);
const UNSUPPORTED: Refused = Refused::Because(Count::Unsupported, UNSUPP);
/// The backend could not do it.
pub(super) const FAILED: Refused = Refused::Because(Count::Backend, IOERR);

impl From<Stray> for Refused {
    fn from(stray: Stray) -> Self {
        Self::Stray(stray)
    }
}

/// Reads and judges a request that has a status byte.
///
/// * `extents`: the parts of the disk that an [`Order::Disk`] is about
#[inline]
pub(super) fn judge(
    section: &Section<'_>,
    chain: &ChainRef<'_>,
    rules: &Rules,
    extents: &mut Vec<Extent>,
    near: &mut Hint,
) -> Result<Order, Refused> {
    extents.clear();
    let Some(header) = scatter::first(section, chain.readable(), near)? else {
        return Err(MALFORMED);
    };
    // Read once: what the driver writes there from now on is not looked at.
    let [a, b, c, d, _, _, _, _, sector @ ..]: [u8; HEADER as usize] = header;
    let sector = u64::from_le_bytes(sector);
    match u32::from_le_bytes([a, b, c, d]) {
        IN => {
            // The last byte is the status.
            let len = chain.writable_len().saturating_sub(1);
            Ok(Order::Data(Action::Read, data(rules, sector, len)?))
        }
        // virtio 1.4 §5.2.6.2: an error, and nothing is written.
        OUT if rules.read_only => Err(READ_ONLY),
        OUT => {
            let len = chain.readable_len().saturating_sub(HEADER);
            Ok(Order::Data(Action::Write, data(rules, sector, len)?))
        }
        FLUSH if rules.flush => Ok(Order::Disk(Action::Flush)),
        GET_ID if chain.writable_len() > ID_BYTES as u64 => Ok(Order::Identity),
        GET_ID => Err(MALFORMED),
        DISCARD if rules.discard => {
            let most = (DISCARD_SEGMENTS, DISCARD_SECTORS);
            let flags = segments(section, chain, rules, most, extents, near)?;
            // virtio 1.4 §5.2.6.2: unmap is not for a discard.
            if flags.any != 0 {
                return Err(UNSUPPORTED);
            }
            Ok(Order::Disk(Action::Discard))
        }
        WRITE_ZEROES if rules.write_zeroes => {
            let most = (DISCARD_SEGMENTS, ZERO_SECTORS);
            let flags = segments(section, chain, rules, most, extents, near)?;
            // Where one may not be given up, none is.
            let unmap = flags.all & UNMAP != 0;
            Ok(Order::Disk(Action::Zero { unmap }))
        }
        SECURE_ERASE if rules.secure_erase => {
            let most = (ERASE_SEGMENTS, ERASE_SECTORS);
            let flags = segments(section, chain, rules, most, extents, near)?;
            // Nor for an erase: `virtio_blk.h` has it valid for write-zeroes alone.
            if flags.any != 0 {
                return Err(UNSUPPORTED);
            }
            Ok(Order::Disk(Action::Erase))
        }
        _ => Err(UNSUPPORTED),
    }
}

/// The part of the disk that data of `len` bytes from `sector` on is.
fn data(rules: &Rules, sector: u64, len: u64) -> Result<Extent, Refused> {
    if !len.is_multiple_of(SECTOR) {
        return Err(MALFORMED);
    }
    extent(rules, sector, len)
}

/// `len` bytes from `sector` on, if they are on the disk: judged by the sum, in bytes, which may not wrap.
fn extent(rules: &Rules, sector: u64, len: u64) -> Result<Extent, Refused> {
    let at = sector.checked_mul(SECTOR).ok_or(RANGE)?;
    let end = at.checked_add(len).ok_or(RANGE)?;
    if end > rules.bytes {
        return Err(RANGE);
    }
    Ok(Extent { at, len })
}

/// The flags of several segments.
struct Flags {
    any: u32,
    all: u32,
}

/// Reads the segments of a discard and its like.
///
/// * `most`: how many of them, and sectors of each, the configuration space allows
fn segments(
    section: &Section<'_>,
    chain: &ChainRef<'_>,
    rules: &Rules,
    (most, most_sectors): (u32, u32),
    extents: &mut Vec<Extent>,
    near: &mut Hint,
) -> Result<Flags, Refused> {
    let len = chain.readable_len().saturating_sub(HEADER);
    if len == 0 || !len.is_multiple_of(SEGMENT as u64) {
        return Err(MALFORMED);
    }
    if len > u64::from(most).saturating_mul(SEGMENT as u64) {
        return Err(LIMIT);
    }
    let mut bytes = [0; SEGMENTS];
    let bytes = bytes.get_mut(..len as usize).unwrap_or_default();
    scatter::read(section, chain.readable(), HEADER, bytes, near)?;
    let mut flags = Flags {
        any: 0,
        all: u32::MAX,
    };
    let mut refused = None;
    for segment in bytes.as_chunks::<SEGMENT>().0 {
        let [a, b, c, d, e, f, g, h, i, j, k, l, rest @ ..] = *segment;
        let sector = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        let sectors = u32::from_le_bytes([i, j, k, l]);
        let flag = u32::from_le_bytes(rest);
        flags.any |= flag;
        flags.all &= flag;
        if sectors > most_sectors {
            refused.get_or_insert(LIMIT);
        }
        match extent(rules, sector, u64::from(sectors).saturating_mul(SECTOR)) {
            Ok(extent) => extents.push(extent),
            Err(range) => {
                refused.get_or_insert(range);
            }
        }
    }
    // virtio 1.4 §5.2.6.2: an unknown flag says that more is meant than is known, whatever else is wrong.
    if flags.any & !UNMAP != 0 {
        return Err(UNSUPPORTED);
    }
    refused.map_or(Ok(flags), Err)
}

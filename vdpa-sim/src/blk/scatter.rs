//! The driver's memory of a request, however it is cut.

use std::convert::Infallible;

use vdpa_mem::{Access, Bytes, Hint, Hold, Iova, Section};
use vdpa_ring::Segment;

use super::config::ID_BYTES;

/// An address of the driver's that may not be used so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stray {
    pub(super) at: Iova,
    pub(super) want: Access,
}

/// Why a walk ended early.
#[derive(Debug)]
pub(super) enum Stop<E> {
    Stray(Stray),
    Other(E),
}

/// Calls `each` with every address and length of the `len` bytes of `segments` behind the first `skip`, in order; it
/// answers how many bytes from there on it took.
fn walk<E>(
    segments: &[Segment],
    want: Access,
    mut skip: u64,
    mut len: u64,
    mut each: impl FnMut(Iova, u32) -> Result<usize, Stop<E>>,
) -> Result<(), Stop<E>> {
    for segment in segments {
        if len == 0 {
            break;
        }
        let here = u64::from(segment.len);
        if skip >= here {
            skip = skip.saturating_sub(here);
            continue;
        }
        let stray = |at| Stop::Stray(Stray { at, want });
        let mut at = segment
            .addr
            .checked_add(skip)
            .ok_or_else(|| stray(segment.addr))?;
        let mut left = here.saturating_sub(skip).min(len);
        len = len.saturating_sub(left);
        skip = 0;
        loop {
            // Of one segment: it fits.
            let took = each(at, left as u32)? as u64;
            left = left.saturating_sub(took);
            if left == 0 || took == 0 {
                break;
            }
            // The mapping ended: the next one may be elsewhere in this process.
            at = at.checked_add(took).ok_or_else(|| stray(at))?;
        }
    }
    Ok(())
}

/// Calls `each` with the memory of `len` bytes of `segments` behind the first `skip`, piece by piece.
#[inline]
pub(super) fn pieces<E>(
    section: &Section<'_>,
    segments: &[Segment],
    want: Access,
    (skip, len): (u64, u64),
    near: &mut Hint,
    mut each: impl FnMut(Bytes<'_>) -> Result<(), E>,
) -> Result<(), Stop<E>> {
    walk(segments, want, skip, len, |at, len| {
        let bytes = section
            .translate(at, len, want, near)
            .map_err(|_| Stop::Stray(Stray { at, want }))?;
        each(bytes).map_err(Stop::Other)?;
        Ok(bytes.len())
    })
}

/// The same with holds on the memory, for what outlives the section.
pub(super) fn holds(
    section: &Section<'_>,
    segments: &[Segment],
    want: Access,
    (skip, len): (u64, u64),
    mut each: impl FnMut(Hold),
) -> Result<(), Stray> {
    let walked = walk(segments, want, skip, len, |at, len| {
        let hold = section
            .hold(at, len, want)
            .map_err(|_| Stop::<()>::Stray(Stray { at, want }))?;
        let held = hold.bytes().len();
        each(hold);
        Ok(held)
    });
    match walked {
        Err(Stop::Stray(stray)) => Err(stray),
        Ok(()) | Err(Stop::Other(())) => Ok(()),
    }
}

/// The first `N` bytes of `segments`; `None`: they are shorter.
#[inline]
pub(super) fn first<const N: usize>(
    section: &Section<'_>,
    segments: &[Segment],
    near: &mut Hint,
) -> Result<Option<[u8; N]>, Stray> {
    let mut to = [0; N];
    // As nearly all drivers have it: in one piece.
    if let Some(Segment { addr, len }) = segments.first()
        && *len as usize >= N
        && let Ok(bytes) = section.translate(*addr, N as u32, Access::DeviceReads, near)
        && bytes.len() == N
    {
        bytes.read(0, &mut to);
        return Ok(Some(to));
    }
    let len = read(section, segments, 0, &mut to, near)?;
    Ok((len == N).then_some(to))
}

/// Copies what is behind the first `skip` bytes of `segments` into `to`, which is not longer. Answers with the bytes
/// copied.
pub(super) fn read(
    section: &Section<'_>,
    segments: &[Segment],
    skip: u64,
    to: &mut [u8],
    near: &mut Hint,
) -> Result<usize, Stray> {
    let mut filled = 0_usize;
    let len = to.len() as u64;
    let want = Access::DeviceReads;
    let walked = pieces(section, segments, want, (skip, len), near, |bytes| {
        let read = bytes.read(0, to.get_mut(filled..).unwrap_or_default());
        filled = filled.saturating_add(read);
        Ok::<(), ()>(())
    });
    match walked {
        Err(Stop::Stray(stray)) => Err(stray),
        Ok(()) | Err(Stop::Other(())) => Ok(filled),
    }
}

/// Finds the last byte of `writable`, which has one: the status.
#[inline]
pub(super) fn locate<'s>(
    section: &'s Section<'_>,
    writable: &[Segment],
    near: &mut Hint,
) -> Result<Bytes<'s>, Stray> {
    let want = Access::DeviceWrites;
    let nowhere = Stray {
        at: Iova::new(0),
        want,
    };
    let segment = writable.iter().rev().find(|segment| segment.len != 0);
    let Segment { addr, len } = *segment.ok_or(nowhere)?;
    let at = addr
        .checked_add(u64::from(len).saturating_sub(1))
        .ok_or(nowhere)?;
    let found = section.translate(at, 1, want, near);
    found.map_err(|_| Stray { at, want })
}

/// Copies the identity to the first bytes of the buffer.
pub(super) fn copy_id(
    section: &Section<'_>,
    writable: &[Segment],
    id: &[u8; ID_BYTES],
    near: &mut Hint,
) -> Result<(), Stray> {
    let (mut rest, want) = (id.as_slice(), Access::DeviceWrites);
    let span = (0, ID_BYTES as u64);
    let walked = pieces(section, writable, want, span, near, |bytes| {
        let wrote = bytes.write(0, rest);
        rest = rest.get(wrote..).unwrap_or_default();
        Ok::<(), Infallible>(())
    });
    match walked {
        Ok(()) => Ok(()),
        Err(Stop::Stray(stray)) => Err(stray),
        Err(Stop::Other(never)) => match never {},
    }
}

//! Requests that are done at once, in the section that they were found in.

use std::io;

use vdpa_mem::{Access, Bytes, Hint, Section};
use vdpa_ring::ChainRef;

use super::backend::Inline;
use super::job::{Action, Extent};
use super::request::{FAILED, HEADER, Refused};
use super::scatter::{self, Stop};

/// Where the parts of a request were last: each may be in a mapping of its own.
#[derive(Default)]
pub(super) struct Near {
    pub(super) header: Hint,
    pub(super) readable: Hint,
    pub(super) writable: Hint,
    pub(super) status: Hint,
}

/// Reads or writes an extent at once. Answers with the bytes of data written to the driver.
///
/// * `stable`: whether what is written has to be durable then
#[inline]
pub(super) fn transfer(
    lane: &mut dyn Inline,
    section: &Section<'_>,
    chain: &ChainRef<'_>,
    action: Action,
    Extent { at: begin, len }: Extent,
    stable: bool,
    near: &mut Near,
) -> Result<u64, Refused> {
    let failed = |why| failed(action, &[Extent { at: begin, len }], &why);
    let stopped = |stop| match stop {
        Stop::Stray(stray) => Refused::Stray(stray),
        Stop::Other(why) => failed(why),
    };
    let mut at = begin;
    let mut place = |bytes: &Bytes<'_>| {
        let place = at;
        at = at.saturating_add(bytes.len() as u64);
        place
    };
    if action == Action::Read {
        let (part, want) = (chain.writable(), Access::DeviceWrites);
        let read = |bytes: Bytes<'_>| lane.read(place(&bytes), &bytes);
        scatter::pieces(section, part, want, (0, len), &mut near.writable, read)
            .map_err(stopped)?;
        return Ok(len);
    }
    let (part, want) = (chain.readable(), Access::DeviceReads);
    let write = |bytes: Bytes<'_>| lane.write(place(&bytes), &bytes);
    let span = (HEADER, len);
    scatter::pieces(section, part, want, span, &mut near.readable, write).map_err(stopped)?;
    if stable {
        lane.flush().map_err(failed)?;
    }
    Ok(0)
}

/// Does at once what is no transfer.
///
/// * `stable`: whether what is changed has to be durable then
pub(super) fn change(
    lane: &mut dyn Inline,
    action: Action,
    extents: &[Extent],
    stable: bool,
) -> Result<u64, Refused> {
    let failed = |why| failed(action, extents, &why);
    if action == Action::Flush {
        return lane.flush().map(|()| 0).map_err(failed);
    }
    for Extent { at, len } in extents.iter().filter(|extent| extent.len != 0) {
        match action {
            Action::Zero { unmap } => lane.zero(*at, *len, unmap),
            Action::Discard => lane.discard(*at, *len),
            _ => lane.erase(*at, *len),
        }
        .map_err(failed)?;
    }
    if stable {
        lane.flush().map_err(failed)?;
    }
    Ok(0)
}

#[cold]
fn failed(action: Action, extents: &[Extent], why: &io::Error) -> Refused {
    tracing::debug!("{action:?} of {extents:?} failed: {why}");
    FAILED
}

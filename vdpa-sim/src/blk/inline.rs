//! Requests that are done at once, in the section that they were found in.

use std::io;

use vdpa_mem::{Access, Bytes, Hint, Section};
use vdpa_ring::ChainRef;

use super::backend::Inline;
use super::job::{Action, Extent};
use super::request::{FAILED, HEADER, Refused};
use super::scatter::{self, Stop};

/// Where buffers were last.
#[derive(Default)]
pub(super) struct Near {
    pub(super) readable: Hint,
    pub(super) writable: Hint,
}

/// Does a request at once. Answers with the bytes of data written to the driver.
pub(super) fn now(
    lane: &mut dyn Inline,
    section: &Section<'_>,
    chain: &ChainRef<'_>,
    (action, extents): (Action, &[Extent]),
    stable: bool,
    near: &mut Near,
) -> Result<u64, Refused> {
    let failed = |why: io::Error| {
        tracing::debug!("{action:?} of {extents:?} failed: {why}");
        FAILED
    };
    let (mut at, len) = extents
        .first()
        .map_or((0, 0), |extent| (extent.at, extent.len));
    let mut each = |bytes: Bytes<'_>| {
        let begin = at;
        at = at.saturating_add(bytes.len() as u64);
        match action {
            Action::Read => lane.read(begin, &bytes),
            _ => lane.write(begin, &bytes),
        }
    };
    let stopped = |stop| match stop {
        Stop::Stray(stray) => Refused::Stray(stray),
        Stop::Other(why) => failed(why),
    };
    match action {
        Action::Read => {
            let (part, want) = (chain.writable(), Access::DeviceWrites);
            scatter::pieces(section, part, want, (0, len), &mut near.writable, each)
                .map_err(stopped)?;
            return Ok(len);
        }
        Action::Write => {
            let (part, want, near) = (chain.readable(), Access::DeviceReads, &mut near.readable);
            scatter::pieces(section, part, want, (HEADER, len), near, &mut each)
                .map_err(stopped)?;
        }
        Action::Flush => lane.flush().map_err(failed)?,
        Action::Zero { .. } | Action::Discard | Action::Erase => {
            for Extent { at, len } in extents.iter().filter(|extent| extent.len != 0) {
                match action {
                    Action::Zero { unmap } => lane.zero(*at, *len, unmap),
                    Action::Discard => lane.discard(*at, *len),
                    _ => lane.erase(*at, *len),
                }
                .map_err(failed)?;
            }
        }
    }
    if stable && action != Action::Flush {
        lane.flush().map_err(failed)?;
    }
    Ok(0)
}

//! What is written for a command.

use vdpa_mem::{Access, Hint, Iova, Section};
use vdpa_ring::Segment;

use super::{Done, PARAMS_BYTES, STATS};

const OK: u8 = 0;
const ERR: u8 = 1;

/// VIRTIO_NET_CTRL_NOTF_COAL_VQ_GET.
const COAL_VQ_GET: [u8; 2] = [6, 3];

/// Bytes that are zeroed before the ack where the driver gave more than it takes.
const MOST_ZEROED: u64 = 4096;

/// What is written for a command, and whether that is all; if not, it is the end of what is written.
pub(super) fn reply(kind: [u8; 2], done: Option<&Done>, room: u64) -> (bool, Vec<u8>) {
    let ack = if done.is_some() { OK } else { ERR };
    match (kind, done) {
        // Behind the parameters, which an error says nothing of.
        (COAL_VQ_GET, _) if room > PARAMS_BYTES => {
            let params = match done {
                Some(Done::Params(params)) => params.to_bytes(),
                _ => [0; 8],
            };
            (true, params.into_iter().chain([ack]).collect())
        }
        ([STATS, _], Some(Done::Result(result))) => {
            (true, [ack].iter().chain(result).copied().collect())
        }
        ([STATS, _], _) => (true, vec![ack]),
        _ => (false, vec![ack]),
    }
}

/// Writes a reply to the writable bytes: from the first on if it is whole, into the last ones otherwise. Answers with
/// the bytes written from the first one on.
pub(super) fn answer(
    section: &Section<'_>,
    to: &[Segment],
    len: u64,
    reply: &[u8],
    whole: bool,
    near: &mut Hint,
) -> Result<u32, Iova> {
    // Nowhere to say anything: it comes back, which is what can be done.
    let first = if whole {
        0
    } else {
        len.saturating_sub(reply.len() as u64)
    };
    let zeroes = MOST_ZEROED.min(first);
    let mut rest = reply;
    let mut before = 0_u64;
    for segment in to {
        let (mut at, mut left) = (segment.addr, segment.len);
        while left != 0 && !rest.is_empty() {
            let bytes = section
                .translate(at, left, Access::DeviceWrites, near)
                .map_err(|_| at)?;
            let here = bytes.len();
            let zeroed = usize::try_from(zeroes.saturating_sub(before)).unwrap_or(usize::MAX);
            bytes.zero(0, here.min(zeroed));
            let place = usize::try_from(first.saturating_sub(before)).unwrap_or(usize::MAX);
            if place < here {
                let written = bytes.write(place, rest);
                rest = rest.get(written..).unwrap_or_default();
            }
            before = before.saturating_add(here as u64);
            left = left.saturating_sub(here as u32);
            if here == 0 || left == 0 {
                break;
            }
            at = at.checked_add(here as u64).ok_or(at)?;
        }
    }
    let written = first.saturating_add((reply.len().saturating_sub(rest.len())) as u64);
    // Past the zeroes nothing is promised.
    let promised = if first <= MOST_ZEROED {
        written
    } else {
        zeroes
    };
    Ok(u32::try_from(promised).unwrap_or(u32::MAX))
}

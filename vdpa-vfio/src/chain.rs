//! Capabilities in the kernel's answers: a chain of headers, each with the offset of the next one from the beginning of the
//! answer (`vfio_info_cap_header` of `linux/vfio.h`).

/// What is wrong with an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum ReplyFault {
    /// It ends before.
    #[error("it ends at {end} of {wanted} bytes")]
    Short {
        /// Bytes that there are.
        end: usize,
        /// Bytes that there must be.
        wanted: usize,
    },
    /// A capability that is not in it.
    #[error("a capability is at {at}, outside of it")]
    Outside {
        /// Where.
        at: u32,
    },
    /// A chain that leads back.
    #[error("its capabilities have no end")]
    Endless,
    /// A list of more entries than the answer has room for.
    #[error("a list has {count} entries, and there is room for {room}")]
    List {
        /// How many it says.
        count: u32,
        /// How many can be there.
        room: usize,
    },
    /// A range that ends before it begins.
    #[error("a range goes from {first:#x} to {last:#x}")]
    Range {
        /// Its first byte.
        first: u64,
        /// Its last byte.
        last: u64,
    },
    /// No page size.
    #[error("it has no page size")]
    NoPage,
}

/// Bytes of a header.
const HEADER: usize = 8;

/// A capability.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Capability<'a> {
    /// Which, of the numbers that its answer has.
    pub(crate) id: u16,
    /// From its header to the end of the answer.
    pub(crate) bytes: &'a [u8],
}

/// The capabilities of an answer.
///
/// * `first`: offset of the first one, 0 for none
/// * `fixed`: bytes of the part before all of them
pub(crate) fn capabilities(
    reply: &[u8],
    first: u32,
    fixed: usize,
) -> Result<Vec<Capability<'_>>, ReplyFault> {
    let mut found = Vec::new();
    let mut at = first;
    while at != 0 {
        let outside = ReplyFault::Outside { at };
        let start = usize::try_from(at).map_err(|_| outside)?;
        let bytes = reply
            .get(start..)
            .filter(|bytes| start >= fixed && bytes.len() >= HEADER);
        let bytes = bytes.ok_or(outside)?;
        // They do not overlap, so there are no more of them than headers.
        if found.len() >= reply.len() / HEADER {
            return Err(ReplyFault::Endless);
        }
        let [low, high] = [byte(bytes, 0)?, byte(bytes, 1)?];
        found.push(Capability {
            id: u16::from_ne_bytes([low, high]),
            bytes,
        });
        at = u32_at(bytes, 4)?;
    }
    Ok(found)
}

fn byte(bytes: &[u8], at: usize) -> Result<u8, ReplyFault> {
    Ok(array::<1>(bytes, at)?[0])
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], ReplyFault> {
    let short = ReplyFault::Short {
        end: bytes.len(),
        wanted: at.saturating_add(N),
    };
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk());
    found.copied().ok_or(short)
}

/// The `u32` at this offset.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Result<u32, ReplyFault> {
    array(bytes, at).map(u32::from_ne_bytes)
}

/// The `u64` at this offset.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Result<u64, ReplyFault> {
    array(bytes, at).map(u64::from_ne_bytes)
}

/// The pairs of `u64` from this offset on.
pub(crate) fn pairs(bytes: &[u8], at: usize, count: u32) -> Result<Vec<(u64, u64)>, ReplyFault> {
    let list = bytes.get(at..).unwrap_or_default();
    let room = list.len() / 16;
    let wanted = usize::try_from(count).unwrap_or(usize::MAX);
    if wanted > room {
        return Err(ReplyFault::List { count, room });
    }
    let pairs = list.chunks_exact(16).take(wanted);
    pairs
        .map(|pair| Ok((u64_at(pair, 0)?, u64_at(pair, 8)?)))
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An answer of `words`, as the kernel writes them.
    pub(crate) fn bytes(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    /// A header: id and version 1, then where the next one is.
    pub(crate) fn header(id: u16, next: u32) -> [u32; 2] {
        let [a, b] = id.to_ne_bytes();
        let [c, d] = 1u16.to_ne_bytes();
        [u32::from_ne_bytes([a, b, c, d]), next]
    }

    fn ids(words: &[u32], first: u32) -> Result<Vec<u16>, ReplyFault> {
        let reply = bytes(words);
        let found = capabilities(&reply, first, 8)?;
        Ok(found.iter().map(|capability| capability.id).collect())
    }

    #[test]
    fn a_chain_is_followed_in_any_order() {
        let ([a, b], [c, d], [e, f]) = (header(7, 0), header(8, 8), header(9, 16));
        assert_eq!(ids(&[0, 0, a, b, c, d, e, f], 24).unwrap(), [9, 8, 7]);
        assert!(ids(&[0, 0], 0).unwrap().is_empty());
    }

    #[test]
    fn a_chain_that_leads_back_ends() {
        let [a, b] = header(7, 8);
        assert_eq!(ids(&[0, 0, a, b], 8), Err(ReplyFault::Endless));
        let ([a, b], [c, d]) = (header(7, 16), header(8, 8));
        assert_eq!(ids(&[0, 0, a, b, c, d], 8), Err(ReplyFault::Endless));
    }

    #[test]
    fn what_is_outside_the_answer_is_not_read() {
        for first in [1, 7, 9, 16, 12, 1000, u32::MAX] {
            let [a, b] = header(7, first);
            let outside = match first {
                1 | 7 => ReplyFault::Outside { at: first },
                9 | 12 | 16 | 1000 => ReplyFault::Outside { at: first },
                _ => ReplyFault::Outside { at: u32::MAX },
            };
            assert_eq!(ids(&[0, 0, a, b], first), Err(outside), "begins at {first}");
            assert_eq!(ids(&[0, 0, a, b], 8), Err(outside), "goes on at {first}");
        }
    }

    #[test]
    fn a_list_that_is_longer_than_the_answer_is_refused() {
        let list = bytes(&[0; 8]);
        assert_eq!(pairs(&list, 0, 2).unwrap().len(), 2);
        assert_eq!(pairs(&list, 16, 1).unwrap().len(), 1);
        for (at, count, room) in [(0, 3, 2), (0, u32::MAX, 2), (17, 1, 0), (4000, 1, 0)] {
            assert_eq!(
                pairs(&list, at, count),
                Err(ReplyFault::List { count, room })
            );
        }
        assert!(pairs(&list, 4000, 0).unwrap().is_empty());
    }
}

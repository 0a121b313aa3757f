//! A frame that arrived, still in the buffers of the receive queue.

use vdpa_core::Queue;
use vdpa_core::session::Done;

use super::header::{Hash, Header};

/// Where the number of buffers stands in the header before a frame.
pub(super) const BUFFERS_AT: usize = 10;
/// Where the hash stands in it, if there is one.
const HASH_AT: usize = 12;

/// A frame in receive buffers. Reading copies: the device may still write there if it does not keep the rules.
pub struct Frame<'q> {
    queue: &'q Queue,
    /// At least one. The first begins with the header.
    parts: &'q [Done],
    /// Bytes of the header.
    skip: usize,
    len: usize,
    header: Header,
}

impl<'q> Frame<'q> {
    /// The frame in these buffers, of which the first holds the header's `skip` bytes and more perhaps; what it says is
    /// judged by `judge`, which is told its first bytes and the frame's length. `None`: it says what cannot be.
    #[inline]
    pub(super) fn new(
        queue: &'q Queue,
        parts: &'q [Done],
        skip: usize,
        judge: impl FnOnce(&Queue, &Done, usize) -> Option<Header>,
    ) -> Option<Self> {
        let whole: usize = parts.iter().map(|part| part.len as usize).sum();
        let len = whole.checked_sub(skip)?;
        Some(Self {
            header: judge(queue, parts.first()?, len)?,
            queue,
            parts,
            skip,
            len,
        })
    }

    /// Its length in bytes, from the destination address on.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no byte.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What the device says about it: only what was negotiated, and in itself possible. A checksum may still be wrong, and
    /// headers be others than they are said to be.
    #[inline]
    pub fn header(&self) -> Header {
        self.header
    }

    /// The hash that the device found for it; `None` without HASH_REPORT, or where the device found none.
    pub fn hash(&self) -> Option<Hash> {
        if self.skip <= HASH_AT {
            return None;
        }
        let mut bytes = [0; 8];
        let first = self.parts.first()?;
        self.queue.read(&first.lease, HASH_AT, &mut bytes);
        Hash::decode(&bytes)
    }

    /// Copies from the frame, from `at` on, into `to`; returns how many bytes there were.
    #[inline]
    pub fn read(&self, at: usize, to: &mut [u8]) -> usize {
        let wanted = to.len().min(self.len.saturating_sub(at));
        let mut skip = at.saturating_add(self.skip);
        let mut have = 0;
        for part in self.parts {
            let len = part.len as usize;
            if skip >= len {
                skip -= len;
                continue;
            }
            let count = (len - skip).min(wanted - have);
            if count == 0 {
                break;
            }
            have += self
                .queue
                .read(&part.lease, skip, &mut to[have..have + count]);
            skip = 0;
        }
        have
    }

    /// Replaces what is in `to` by the whole frame.
    pub fn copy_to(&self, to: &mut Vec<u8>) {
        to.resize(self.len, 0);
        let have = self.read(0, to);
        to.truncate(have);
    }
}

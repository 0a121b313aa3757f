//! A frame that arrived, still in the buffers of the receive queue.

use vdpa_core::Queue;
use vdpa_core::session::Done;

/// The header before a frame, virtio 1.4 §5.1.6: flags, offload type, four lengths, and the number of buffers.
pub(super) const HEADER_BYTES: usize = 12;
/// Where the number of buffers stands in it.
pub(super) const BUFFERS_AT: usize = 10;

/// A frame in receive buffers. Reading copies: the device may still write there if it does not keep the rules.
pub struct Frame<'q> {
    queue: &'q Queue,
    /// At least one. The first begins with the header.
    parts: &'q [Done],
    len: usize,
}

impl<'q> Frame<'q> {
    /// The frame in these buffers; `None` if they do not even hold the header.
    #[inline]
    pub(super) fn new(queue: &'q Queue, parts: &'q [Done]) -> Option<Self> {
        let whole: usize = parts.iter().map(|part| part.len as usize).sum();
        let first = parts.first()?.len as usize;
        if first < HEADER_BYTES {
            return None;
        }
        Some(Self {
            queue,
            parts,
            len: whole - HEADER_BYTES,
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

    /// Copies from the frame, from `at` on, into `to`; returns how many bytes there were.
    #[inline]
    pub fn read(&self, at: usize, to: &mut [u8]) -> usize {
        let wanted = to.len().min(self.len.saturating_sub(at));
        let mut skip = at.saturating_add(HEADER_BYTES);
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

//! Batches of frames: the buffer in which frames go from a transmit queue to a receive queue.
//!
//! ```text
//!  bytes   | header | frame      pad | header | frame   pad | ...           one allocation, made once
//!  slots   { at, len }                { at, len }                           where each packet is
//! ```
//! Each frame stands behind room for its virtio-net header, so that a packet is copied in by one copy and out by one
//! copy. A batch goes from queue to queue by its pointer.
//!
//! The first 10 bytes of that room are a trusted [`Header`]: whoever puts a packet in has made sure that they describe it.
//! A packet that is to be segmented, and that the driver does not take whole, is taken out segment by segment: how far
//! that has come is kept here, since another pair may go on with it.

use std::ops::Range;

use crate::offload::Header;

/// How many frames a batch holds at most.
pub const BATCH_FRAMES: usize = 64;

/// So many frames are few: what is prepared for a whole batch would take longer than they do.
pub(crate) const FEW: usize = 4;

/// Bytes of the header of a packet, `virtio_net_hdr` with `num_buffers` (virtio 1.4 §5.1.9).
pub const HEADER_BYTES: usize = 12;

/// A batch with so many bytes takes no further packet. The last one may go beyond: the longest that there is has room.
const BATCH_BYTES: usize = 64 << 10;

/// Frames begin on a cache line, behind their headers, as they do in the buffers of most drivers: so what is copied is
/// aligned at both ends.
const ALIGN: usize = 64;

#[derive(Clone, Copy, Default)]
struct Slot {
    at: u32,
    len: u32,
}

/// How far the first packet was taken out, segment by segment.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Cut {
    /// The next segment.
    next: u32,
    /// How many there are; 0 while the packet is to be taken out whole.
    count: u32,
}

/// Up to [`BATCH_FRAMES`] frames in one buffer, put in at the back and taken out at the front.
pub struct FrameBatch {
    bytes: Box<[u8]>,
    /// Where the first packet is.
    skew: usize,
    slots: [Slot; BATCH_FRAMES],
    /// The first frame that was not taken out.
    front: usize,
    /// How many were put in.
    len: usize,
    /// Bytes in use.
    filled: usize,
    cut: Cut,
    /// What is taken out is looked at behind that: it stays in this batch.
    watched: bool,
    /// Who it is for: see [`Presence`](crate::port::Presence).
    pub(crate) epoch: u64,
}

impl FrameBatch {
    /// An empty batch with room for at least one frame of `longest` bytes.
    pub fn new(longest: usize) -> Box<Self> {
        let bytes = longest
            .saturating_add(HEADER_BYTES)
            .next_multiple_of(ALIGN)
            .saturating_add(BATCH_BYTES)
            .saturating_add(ALIGN.saturating_mul(2));
        let bytes = vec![0; bytes].into_boxed_slice();
        // What is allocated stays where it is.
        let line = bytes.as_ptr().align_offset(ALIGN).min(ALIGN);
        let skew = line.saturating_add(ALIGN).saturating_sub(HEADER_BYTES);
        Box::new(Self {
            bytes,
            skew,
            slots: [Slot::default(); BATCH_FRAMES],
            front: 0,
            len: 0,
            filled: skew,
            cut: Cut::default(),
            watched: false,
            epoch: 0,
        })
    }

    /// Whether a frame of `longest` bytes fits, were there no other.
    pub(crate) fn holds(&self, longest: usize) -> bool {
        self.bytes.len()
            >= longest
                .saturating_add(HEADER_BYTES)
                .saturating_add(self.skew)
    }

    /// Forgets all frames.
    pub fn clear(&mut self) {
        self.front = 0;
        self.len = 0;
        self.filled = self.skew;
        self.cut = Cut::default();
    }

    /// From here on somebody looks at what was taken out, or does not.
    pub(crate) fn watch(&mut self, on: bool) {
        self.watched = on;
    }

    /// Whether this one may stand in the place of another one: it has as much room, and nobody looks at that one.
    pub(crate) fn replaces(&self, other: &Self) -> bool {
        self.bytes.len() == other.bytes.len() && !other.watched
    }

    /// How many frames have not been taken out.
    pub fn len(&self) -> usize {
        self.len.saturating_sub(self.front)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.front >= self.len
    }

    /// Room behind the last frame for a packet of `len` bytes, header and all; `None` when the batch is full.
    #[inline]
    pub(crate) fn room(&mut self, len: usize) -> Option<&mut [u8]> {
        if self.len >= BATCH_FRAMES || self.filled >= BATCH_BYTES.saturating_add(self.skew) {
            return None;
        }
        let end = self.filled.checked_add(len)?;
        self.bytes.get_mut(self.filled..end)
    }

    /// The packet of `len` bytes that was written to [`room`](Self::room) is in the batch from here on.
    #[inline]
    pub(crate) fn push(&mut self, len: usize) {
        if let Some(slot) = self.slots.get_mut(self.len) {
            // Both are below the buffer's length, which is far below 4 GiB.
            *slot = Slot {
                at: self.filled as u32,
                len: len as u32,
            };
            self.len = self.len.wrapping_add(1);
            self.filled = self.filled.saturating_add(len.next_multiple_of(ALIGN));
        }
    }

    /// Adds a finished frame. Answers whether there was room.
    pub fn push_frame(&mut self, frame: &[u8]) -> bool {
        self.push_packet(Header::NONE, frame)
    }

    /// Adds a packet. Answers whether there was room.
    ///
    /// * `header`: what is true of it, since who takes it out believes that: see [`check`](crate::offload::check())
    pub fn push_packet(&mut self, header: Header, frame: &[u8]) -> bool {
        let len = frame.len().saturating_add(HEADER_BYTES);
        let Some(room) = self.room(len) else {
            return false;
        };
        header.put(room);
        if let Some(place) = room.get_mut(HEADER_BYTES..) {
            place.copy_from_slice(frame);
        }
        self.push(len);
        true
    }

    /// Puts back all packets that were taken out: whoever makes the same frames again and again need not copy them again.
    pub fn put_back(&mut self) {
        self.front = 0;
        self.cut = Cut::default();
    }

    /// The frames that have not been taken out, to be changed where they are. What is true of them stays so.
    pub fn frames_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let slots = self.slots.get(self.front..self.len).unwrap_or_default();
        let mut rest = &mut *self.bytes;
        let mut at = 0_usize;
        slots.iter().map_while(move |slot| {
            // In the order of their places.
            let gap = (slot.at as usize).checked_sub(at)?;
            let (_, behind) = std::mem::take(&mut rest).split_at_mut_checked(gap)?;
            let (packet, behind) = behind.split_at_mut_checked(slot.len as usize)?;
            at = at.saturating_add(gap).saturating_add(packet.len());
            rest = behind;
            packet.get_mut(HEADER_BYTES..)
        })
    }

    /// The first frame, with the room for its header before it.
    #[inline]
    pub(crate) fn first(&mut self) -> Option<&mut [u8]> {
        let slot = *self.slots.get(self.front..self.len)?.first()?;
        self.bytes
            .get_mut(slot.at as usize..(slot.at as usize).checked_add(slot.len as usize)?)
    }

    /// The packets that have not been taken out, each with the room for its header.
    #[inline]
    pub(crate) fn waiting(&self) -> impl Iterator<Item = &[u8]> {
        let slots = self.slots.get(self.front..self.len).unwrap_or_default();
        slots.iter().map_while(|slot| {
            let (at, len) = (slot.at as usize, slot.len as usize);
            self.bytes.get(at..at.checked_add(len)?)
        })
    }

    /// Takes the first `n` frames out.
    #[inline]
    pub(crate) fn pop_many(&mut self, n: usize) {
        self.front = self.front.saturating_add(n).min(self.len);
        if n != 0 {
            self.cut = Cut::default();
        }
    }

    /// Takes the first frame out.
    #[inline]
    pub fn pop(&mut self) {
        self.front = self.front.wrapping_add(1).min(self.len);
        self.cut = Cut::default();
    }

    /// The next segment of the first packet, and how many there are, if it is taken out segment by segment.
    pub(crate) fn cut(&self) -> Option<(u32, u32)> {
        (self.cut.count != 0).then_some((self.cut.next, self.cut.count))
    }

    /// From here on the first packet is taken out in `count` segments, `next` of which are out by now; with the last one
    /// the packet is.
    pub(crate) fn set_cut(&mut self, next: u32, count: u32) {
        if next >= count {
            self.pop();
        } else {
            self.cut = Cut { next, count };
        }
    }

    /// How many frames are to be taken out, segments counted as far as is known, and at least: what there was less of
    /// before.
    #[inline]
    pub(crate) fn left(&self) -> usize {
        let Cut { next, count } = self.cut;
        self.len()
            .saturating_add(count.saturating_sub(next) as usize)
            .saturating_sub(usize::from(count != 0))
    }

    /// Takes out, without a look at them, the frames for which `keeps` answers `false`.
    pub(crate) fn retain(&mut self, mut keeps: impl FnMut() -> bool) {
        let mut kept = self.front;
        for at in self.front..self.len {
            if keeps()
                && let Some(slot) = self.slots.get(at).copied()
                && let Some(place) = self.slots.get_mut(kept)
            {
                *place = slot;
                kept = kept.wrapping_add(1);
            }
        }
        self.len = kept;
    }

    /// The packets that have not been taken out: what is true of each, and the frame, which is not finished where the
    /// header says so (see [`Plain`](crate::offload::Plain)).
    pub fn packets(&self) -> impl Iterator<Item = (Header, &[u8])> {
        self.packets_at(self.front..self.len)
    }

    /// How many packets have been taken out.
    pub(crate) fn taken(&self) -> usize {
        self.front
    }

    /// The packets that have been taken out since so many were.
    pub(crate) fn taken_since(&self, taken: usize) -> impl Iterator<Item = (Header, &[u8])> {
        self.packets_at(taken..self.front)
    }

    fn packets_at(&self, range: Range<usize>) -> impl Iterator<Item = (Header, &[u8])> {
        let slots = self.slots.get(range).unwrap_or_default();
        slots.iter().filter_map(|slot| {
            let at = slot.at as usize;
            let packet = self.bytes.get(at..at.checked_add(slot.len as usize)?)?;
            Some((Header::of(packet), packet.get(HEADER_BYTES..)?))
        })
    }
}

impl std::fmt::Debug for FrameBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FrameBatch({} frames)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_as_they_went_in_until_the_batch_is_full() {
        let mut batch = FrameBatch::new(9014);
        let frames: Vec<Vec<u8>> = (0..BATCH_FRAMES)
            .map(|i| vec![i as u8; 1 + i * 17])
            .collect();
        for frame in &frames {
            assert!(batch.push_frame(frame));
        }
        assert!(!batch.push_frame(&[1]), "64 frames at most");
        let plain = frames.iter().map(|frame| (Header::NONE, frame.as_slice()));
        assert!(batch.packets().eq(plain));
        batch.pop();
        assert_eq!(batch.len(), BATCH_FRAMES - 1);
        assert_eq!(&batch.first().unwrap()[HEADER_BYTES..], &frames[1][..]);
        batch.clear();
        assert!(batch.is_empty() && batch.first().is_none());
    }

    #[test]
    fn frames_that_are_not_kept_leave_no_gap() {
        let mut batch = FrameBatch::new(9014);
        for i in 0..9 {
            assert!(batch.push_frame(&[i; 20]));
        }
        batch.pop();
        let mut n = 0;
        batch.retain(|| {
            n += 1;
            n % 3 != 0
        });
        assert!(batch.push_frame(&[9; 20]));
        let left: Vec<u8> = batch.packets().map(|(_, frame)| frame[0]).collect();
        assert_eq!(left, [1, 2, 4, 5, 7, 8, 9]);
    }

    #[test]
    fn frames_that_are_put_back_come_again_as_they_were_changed() {
        let mut batch = FrameBatch::new(9014);
        for i in 0..5 {
            assert!(batch.push_frame(&[i; 70]));
        }
        batch.pop();
        for (frame, number) in batch.frames_mut().zip(10..) {
            assert_eq!(frame.len(), 70);
            frame[69] = number;
        }
        while !batch.is_empty() {
            batch.pop();
        }
        assert_eq!(batch.frames_mut().count(), 0);
        batch.put_back();
        let ends: Vec<_> = batch
            .packets()
            .map(|(_, frame)| (frame[0], frame[69]))
            .collect();
        assert_eq!(ends, [(0, 0), (1, 10), (2, 11), (3, 12), (4, 13)]);
    }

    #[test]
    fn a_frame_of_the_longest_length_always_fits_an_empty_batch() {
        for longest in [60, 1514, 65_557, 256 << 10] {
            assert!(FrameBatch::new(longest).push_frame(&vec![7; longest]));
        }
    }

    #[test]
    fn a_packet_is_out_with_its_last_segment() {
        let mut batch = FrameBatch::new(100);
        for i in 0..3 {
            assert!(batch.push_frame(&[i; 60]));
        }
        assert_eq!((batch.cut(), batch.left()), (None, 3));
        batch.set_cut(0, 4);
        assert_eq!((batch.cut(), batch.left()), (Some((0, 4)), 6));
        batch.set_cut(3, 4);
        assert_eq!((batch.len(), batch.left()), (3, 3));
        batch.set_cut(4, 4);
        assert_eq!((batch.cut(), batch.len(), batch.left()), (None, 2, 2));
        batch.set_cut(1, 2);
        batch.pop();
        assert_eq!((batch.cut(), batch.left()), (None, 1));
    }

    #[test]
    fn two_of_the_longest_packets_fit_where_small_ones_fill_no_more_than_before() {
        let longest = crate::offload::LONGEST;
        let mut batch = FrameBatch::new(longest);
        assert!(batch.push_frame(&[0; 60_000]) && batch.push_frame(&vec![0; longest]));
        assert!(!batch.push_frame(&[0; 60]));
        batch.clear();
        let count = (0..BATCH_FRAMES)
            .take_while(|_| batch.push_frame(&[0; 1514]))
            .count();
        assert_eq!(count, 43);
    }

    #[test]
    fn bytes_bound_a_batch_too() {
        let mut batch = FrameBatch::new(9014);
        let count = (0..BATCH_FRAMES)
            .take_while(|_| batch.push_frame(&[0; 9014]))
            .count();
        assert!((7..=9).contains(&count), "{count}");
    }
}

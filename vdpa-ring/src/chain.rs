//! What passes between a ring and its owner: segments, chains, batches, used chains.

use alloc::{boxed::Box, vec};

use vdpa_mem::Iova;

use crate::{
    descriptor::{NEXT, WRITE},
    error::{AddError, RingError},
};

/// A part of a chain: contiguous to the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Segment {
    /// First byte.
    pub addr: Iova,
    /// Length in bytes; zero is legal.
    pub len: u32,
}

/// What a device half needs to know again when it gives a chain back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChainToken {
    id: u16,
    slots: u16,
}

impl ChainToken {
    /// The token of a chain known from elsewhere, such as a record of what was in flight.
    /// `slots`: ring slots it takes, 1 for a split ring.
    pub const fn new(id: u16, slots: u16) -> Self {
        Self {
            id,
            slots: if slots == 0 { 1 } else { slots },
        }
    }

    /// Head descriptor (split) or buffer id (packed).
    #[inline(always)]
    pub const fn id(self) -> u16 {
        self.id
    }

    /// Ring slots the chain takes: 1 in a split ring, its descriptors in a packed one.
    #[inline(always)]
    pub const fn slots(self) -> u16 {
        self.slots
    }
}

/// A chain to give back to the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Used {
    /// Which chain.
    pub token: ChainToken,
    /// Bytes written, from the first writable byte on (`virtio 1.4 §2.7.8.2`).
    pub len: u32,
}

/// A chain that came back to the driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Completion {
    /// What adding the chain returned.
    pub id: u16,
    /// Bytes the device wrote, at most the chain's writable length.
    ///
    /// In a packed ring the length is reserved where the used descriptor lacks WRITE
    /// (`virtio 1.4 §2.8.4`). One that can be true counts all the same, since devices set it and
    /// forget the flag; one that can't is 0. So a device that leaves a stale length there instead
    /// of clearing it makes this too large by bytes it did not write.
    pub len: u32,
}

#[derive(Clone, Copy, Debug)]
struct Chain {
    token: ChainToken,
    /// Index of the first segment.
    first: u32,
    /// Index of the first writable segment.
    writable: u32,
    /// Index behind the last segment.
    end: u32,
}

/// Room for the chains of one take: allocated once, used for every batch.
///
/// Reused across rings freely; a batch remembers nothing of the ring but the chains.
#[derive(Debug)]
pub struct Batch {
    chains: Box<[Chain]>,
    segments: Box<[Segment]>,
    len: usize,
    filled: usize,
}

impl Batch {
    /// Room for `chains` chains of `segments` segments together. To take any legal chain,
    /// `segments` is at least twice the queue size with INDIRECT_DESC, the queue size without.
    pub fn new(chains: usize, segments: usize) -> Self {
        let none = Chain {
            token: ChainToken { id: 0, slots: 1 },
            first: 0,
            writable: 0,
            end: 0,
        };
        Self {
            chains: vec![none; chains].into_boxed_slice(),
            segments: vec![Segment::default(); segments.min(u32::MAX as usize)].into_boxed_slice(),
            len: 0,
            filled: 0,
        }
    }

    /// Chains in the batch.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Chains there is room for.
    #[inline(always)]
    pub fn capacity(&self) -> usize {
        self.chains.len()
    }

    /// Forgets all chains. The ring still counts them as taken.
    #[inline(always)]
    pub fn clear(&mut self) {
        self.len = 0;
        self.filled = 0;
    }

    /// Chain `i`, in the order taken.
    #[inline(always)]
    pub fn chain(&self, i: usize) -> Option<ChainRef<'_>> {
        self.chains.get(..self.len)?.get(i).map(|c| self.view(c))
    }

    /// All chains, in the order taken.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = ChainRef<'_>> + '_ {
        self.chains
            .get(..self.len)
            .unwrap_or_default()
            .iter()
            .map(|c| self.view(c))
    }

    /// The segments of chain `i`, what the device reads and what it writes, to be changed by whoever makes faults. The
    /// ring does not look at them again; a chain that is taken anew is as the driver wrote it.
    pub fn segments_mut(&mut self, i: usize) -> Option<(&mut [Segment], &mut [Segment])> {
        let chain = self.chains.get(..self.len)?.get(i)?;
        let (first, end) = (chain.first as usize, chain.end as usize);
        let readable = (chain.writable as usize).saturating_sub(first);
        let segments = self.segments.get_mut(first..end)?;
        segments.split_at_mut_checked(readable)
    }

    #[inline(always)]
    fn view(&self, chain: &Chain) -> ChainRef<'_> {
        let part = |from: u32, to: u32| self.segments.get(from as usize..to as usize);
        ChainRef {
            token: chain.token,
            readable: part(chain.first, chain.writable).unwrap_or_default(),
            writable: part(chain.writable, chain.end).unwrap_or_default(),
        }
    }

    #[inline(always)]
    pub(crate) fn segment_capacity(&self) -> usize {
        self.segments.len()
    }

    /// Places for chains of one segment, up to `goal` chains in all: see [`grow`](Self::grow).
    #[inline(always)]
    pub(crate) fn places(&mut self, goal: usize) -> impl Iterator<Item = Place<'_>> {
        let chains = self.chains.get_mut(self.len..goal).unwrap_or_default();
        let segments = self.segments.get_mut(self.filled..).unwrap_or_default();
        let first = self.filled as u32;
        chains
            .iter_mut()
            .zip(segments)
            .zip(first..)
            .map(|((chain, segment), at)| Place { chain, segment, at })
    }

    /// Counts the first `n` places in.
    #[inline(always)]
    pub(crate) fn grow(&mut self, n: usize) {
        self.len = self.len.wrapping_add(n).min(self.chains.len());
        self.filled = self.filled.wrapping_add(n).min(self.segments.len());
    }

    /// Begins a chain; nothing of it shows before [`close`](Self::close).
    #[inline]
    pub(crate) fn open(&self, head: u16) -> Open {
        Open {
            head,
            at: self.filled,
            readable: self.filled,
            bytes: 0,
        }
    }

    /// Adds a segment to an open chain: `index` names it in errors.
    #[inline]
    pub(crate) fn append(
        &mut self,
        open: &mut Open,
        segment: Segment,
        writable: bool,
        index: u16,
    ) -> Result<(), Stop> {
        let head = open.head;
        let Some(place) = self.segments.get_mut(open.at) else {
            return Err(Stop::Full);
        };
        open.bytes = open.bytes.wrapping_add(u64::from(segment.len));
        if open.bytes > 1 << 32 {
            let bytes = open.bytes;
            return Err(RingError::ChainTooLarge { head, bytes }.into());
        }
        if !writable && open.readable != open.at {
            return Err(RingError::ReadableAfterWritable { head, index }.into());
        }
        *place = segment;
        open.at = open.at.wrapping_add(1);
        if !writable {
            open.readable = open.at;
        }
        Ok(())
    }

    /// Ends a chain: it is in the batch now.
    #[inline]
    pub(crate) fn close(&mut self, open: Open, id: u16, slots: u16) -> Result<(), Stop> {
        let Some(chain) = self.chains.get_mut(self.len) else {
            return Err(Stop::Full);
        };
        *chain = Chain {
            token: ChainToken { id, slots },
            first: self.filled as u32,
            writable: open.readable as u32,
            end: open.at as u32,
        };
        self.len = self.len.wrapping_add(1);
        self.filled = open.at;
        Ok(())
    }

    /// Slots of the last `n` chains together.
    pub(crate) fn slots_of_last(&self, n: usize) -> Option<u32> {
        let last = self.chains.get(self.len.checked_sub(n)?..self.len)?;
        Some(last.iter().map(|c| u32::from(c.token.slots)).sum())
    }

    /// Drops the last `n` chains, `n` at most [`len`](Self::len).
    pub(crate) fn drop_last(&mut self, n: usize) {
        self.len = self.len.saturating_sub(n);
    }
}

/// Where a chain of one segment goes.
pub(crate) struct Place<'b> {
    chain: &'b mut Chain,
    segment: &'b mut Segment,
    at: u32,
}

impl Place<'_> {
    #[inline(always)]
    pub(crate) fn fill(self, id: u16, segment: Segment, writable: bool) {
        *self.segment = segment;
        *self.chain = Chain {
            token: ChainToken { id, slots: 1 },
            first: self.at,
            writable: self.at.wrapping_add(u32::from(!writable)),
            end: self.at.wrapping_add(1),
        };
    }
}

/// A chain being built: see [`Batch::open`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Open {
    head: u16,
    at: usize,
    readable: usize,
    bytes: u64,
}

/// Why a take goes no further.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stop {
    /// The batch has no room.
    Full,
    /// A table is not mapped yet.
    Parked(Iova),
    /// The chain is malformed.
    Bad(RingError),
}

impl From<RingError> for Stop {
    #[cold]
    fn from(error: RingError) -> Self {
        Self::Bad(error)
    }
}

/// A chain of a batch: what the device reads, then what it writes.
#[derive(Clone, Copy, Debug)]
pub struct ChainRef<'b> {
    token: ChainToken,
    readable: &'b [Segment],
    writable: &'b [Segment],
}

impl<'b> ChainRef<'b> {
    /// Segments the device reads.
    #[inline(always)]
    pub fn readable(&self) -> &'b [Segment] {
        self.readable
    }

    /// Segments the device writes.
    #[inline(always)]
    pub fn writable(&self) -> &'b [Segment] {
        self.writable
    }

    /// Bytes the device reads, at most 2^32.
    #[inline]
    pub fn readable_len(&self) -> u64 {
        self.readable().iter().map(|s| u64::from(s.len)).sum()
    }

    /// Bytes the device may write, at most 2^32.
    #[inline]
    pub fn writable_len(&self) -> u64 {
        self.writable().iter().map(|s| u64::from(s.len)).sum()
    }

    /// What to give back.
    #[inline(always)]
    pub fn token(&self) -> ChainToken {
        self.token
    }
}

/// Checks a chain a driver wants to add: how many segments, and how many bytes the device may
/// write (2^32 shown as `u32::MAX`, which is what a used length can say at most).
#[inline(always)]
pub(crate) fn measure(
    readable: &[Segment],
    writable: &[Segment],
    size: u16,
) -> Result<(u16, u32), AddError> {
    let segments = readable.len().saturating_add(writable.len());
    if segments == 0 {
        return Err(AddError::Empty);
    }
    if segments > usize::from(size) {
        return Err(AddError::TooLong { segments, size });
    }
    // At most 32768 segments of 32 bits: no overflow.
    let total = |part: &[Segment]| match part {
        // What most chains are made of, without a loop.
        [] => 0,
        [one] => u64::from(one.len),
        [one, other] => u64::from(one.len).saturating_add(u64::from(other.len)),
        all => all.iter().map(|s| u64::from(s.len)).sum::<u64>(),
    };
    let written = total(writable);
    let bytes = total(readable).saturating_add(written);
    if bytes > 1 << 32 {
        return Err(AddError::TooLarge { bytes });
    }
    Ok((segments as u16, written.min(u64::from(u32::MAX)) as u32))
}

/// Hands the segments of a chain to `put` in turn, with their flags and the number of the entry
/// after each.
#[inline(always)]
pub(crate) fn sequence(
    readable: &[Segment],
    writable: &[Segment],
    mut put: impl FnMut(&Segment, u16, u16),
) {
    let segments = readable.len().wrapping_add(writable.len());
    let mut entry = 0usize;
    // Plain loops with one call of `put`, so that it is inlined: a chained iterator is not.
    for (part, flags) in [(readable, 0), (writable, WRITE)] {
        for segment in part {
            entry = entry.wrapping_add(1);
            match entry < segments {
                true => put(segment, flags | NEXT, entry as u16),
                false => put(segment, flags, 0),
            }
        }
    }
}

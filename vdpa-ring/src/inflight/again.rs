//! Chains that are taken again.

use alloc::{boxed::Box, vec::Vec};

/// Chains that a device takes again, ahead of what is new: those that the last one had in flight.
#[derive(Debug, Default)]
pub struct Again {
    chains: Box<[Saved]>,
    /// Packed: their descriptors as they were; the ring may not have them any more.
    descriptors: Box<[[u64; 2]]>,
    /// The next to take.
    next: usize,
    /// How many of the last batch were from here; they came first.
    batch: usize,
}

/// A chain in flight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Saved {
    /// Head descriptor (split), buffer id (packed).
    pub(crate) id: u16,
    /// Descriptors in the ring, and in `descriptors`.
    pub(crate) slots: u16,
    /// The first one there.
    first: usize,
}

impl Again {
    /// These heads of a split ring, in this order.
    pub fn split(heads: impl Iterator<Item = u16>) -> Self {
        let saved = |id| Saved {
            id,
            slots: 1,
            first: 0,
        };
        Self {
            chains: heads.map(saved).collect(),
            ..Self::default()
        }
    }

    /// These chains of a packed ring, in this order: buffer id and descriptors, an address and a meta word each.
    pub fn packed<'d>(chains: impl Iterator<Item = (u16, &'d [[u64; 2]])>) -> Self {
        let mut descriptors = Vec::new();
        let saved = |(id, own): (u16, &[[u64; 2]])| {
            let first = descriptors.len();
            descriptors.extend_from_slice(own);
            Saved {
                id,
                slots: own.len().min(usize::from(u16::MAX)) as u16,
                first,
            }
        };
        Self {
            chains: chains.map(saved).collect(),
            descriptors: descriptors.into_boxed_slice(),
            next: 0,
            batch: 0,
        }
    }

    /// Chains that have not been taken.
    pub fn len(&self) -> usize {
        self.chains.len().wrapping_sub(self.next)
    }

    /// Whether all have been taken.
    pub fn is_empty(&self) -> bool {
        self.next >= self.chains.len()
    }

    /// Ring slots of all of them together.
    pub(crate) fn slots(&self) -> u32 {
        self.chains.iter().map(|c| u32::from(c.slots)).sum()
    }

    /// The next one.
    pub(crate) fn peek(&self) -> Option<Saved> {
        self.chains.get(self.next).copied()
    }

    /// Its descriptors.
    pub(crate) fn descriptors(&self, of: Saved) -> &[[u64; 2]] {
        let end = of.first.wrapping_add(usize::from(of.slots));
        self.descriptors.get(of.first..end).unwrap_or_default()
    }

    /// A take begins.
    pub(crate) fn begin(&mut self) {
        self.batch = 0;
    }

    /// The next one is in the batch.
    pub(crate) fn advance(&mut self) {
        self.next = self.next.wrapping_add(1);
        self.batch = self.batch.wrapping_add(1);
    }

    /// How many of the batch's chains were taken again.
    pub(crate) fn repeated(&self) -> usize {
        self.batch
    }

    /// How many of the last `n` of `total` chains were taken again.
    pub(crate) fn among(&self, total: usize, n: usize) -> usize {
        self.batch.saturating_sub(total.saturating_sub(n))
    }

    /// The last `n` that were taken are to be taken once more.
    pub(crate) fn retreat(&mut self, n: usize) {
        self.next = self.next.saturating_sub(n);
        self.batch = self.batch.saturating_sub(n);
    }
}

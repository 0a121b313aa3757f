//! What can go wrong, with its numbers.

use vdpa_mem::Iova;

use crate::{
    layout::Format,
    state::{Pos, QueueState},
};

/// Who has to act on an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// Our side called with something illegal.
    Misuse,
    /// The peer wrote something illegal: the queue needs a reset.
    PeerMisbehaved,
}

/// A ring that can't be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// Split takes powers of two to 32768, packed 1 to 32768.
    #[error("{size} is no legal size of a {format} queue")]
    Size {
        /// Ring format.
        format: Format,
        /// Size asked for.
        size: u16,
    },
    /// The state is of the other format, or its positions can't belong together.
    #[error("{state:?} is no state of a {format} queue of size {size}")]
    State {
        /// Ring format.
        format: Format,
        /// Queue size.
        size: u16,
        /// State given.
        state: QueueState,
    },
}

impl SetupError {
    /// Who has to act.
    pub const fn kind(&self) -> Kind {
        Kind::Misuse
    }
}

/// A chain a driver half can't take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddError {
    /// A chain has at least one segment.
    #[error("a chain has no segments")]
    Empty,
    /// A chain is at most the queue size (`virtio 1.4 §2.7.5.3.1`).
    #[error("a chain of {segments} segments in a queue of size {size}")]
    TooLong {
        /// Segments of the chain.
        segments: usize,
        /// Queue size.
        size: u16,
    },
    /// A chain is at most 2^32 bytes: in a split ring by `virtio 1.4 §2.7.5.2`, in a packed one
    /// by a limit of ours.
    #[error("a chain of {bytes} bytes, more than 2^32")]
    TooLarge {
        /// Bytes of the chain.
        bytes: u64,
    },
    /// No room now; taking used chains makes some.
    #[error("{needed} descriptors needed, {free} free")]
    Full {
        /// Descriptors the chain takes.
        needed: u16,
        /// Descriptors free.
        free: u16,
    },
    /// The device misbehaved; the ring takes nothing until it is reset.
    #[error("the ring is latched after a malformed entry")]
    Latched,
}

impl AddError {
    /// Who has to act.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Latched => Kind::PeerMisbehaved,
            _ => Kind::Misuse,
        }
    }
}

/// Why a ring does not go on.
///
/// Errors of kind [`Kind::PeerMisbehaved`] are returned once and latch the ring; after that
/// [`Latched`](Self::Latched) is returned. Errors of kind [`Kind::Misuse`] change nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RingError {
    /// The reason has been told; only a reset helps.
    #[error("the ring is latched after a malformed entry")]
    Latched,

    // The driver misbehaved; seen by a device half.
    /// `avail.idx` went back, or on by more than the queue size.
    #[error(
        "avail.idx is {to}, {in_flight} chains are in flight up to {from}: more than size {size}"
    )]
    AvailJump {
        /// Index of the next entry to take.
        from: u16,
        /// Index found.
        to: u16,
        /// Chains taken and not used.
        in_flight: u16,
        /// Queue size.
        size: u16,
    },
    /// `used.idx`, read at start, does not fit the state restored.
    #[error("used.idx is {used} with avail at {avail}: not within size {size}")]
    UsedAtStart {
        /// Restored available index.
        avail: u16,
        /// Index found.
        used: u16,
        /// Queue size.
        size: u16,
    },
    /// An entry of the available ring names no descriptor.
    #[error("avail entry {index} names head {head}, size is {size}")]
    HeadOutOfRange {
        /// Index of the entry, free-running.
        index: u16,
        /// Head found.
        head: u16,
        /// Queue size.
        size: u16,
    },
    /// `next` names no descriptor.
    #[error("chain {head}: descriptor {index} goes on at {next}, size is {size}")]
    NextOutOfRange {
        /// First descriptor of the chain.
        head: u16,
        /// Descriptor that names it.
        index: u16,
        /// What it names.
        next: u16,
        /// Queue size, or entries of the indirect table.
        size: u16,
    },
    /// More descriptors than the ring or table has: a loop, or an overlong list.
    #[error("chain {head}: more than {limit} descriptors")]
    ChainTooLong {
        /// First descriptor (split) or first slot (packed) of the chain.
        head: u16,
        /// Most there may be.
        limit: u16,
    },
    /// Writable segments come last (`virtio 1.4 §2.7.4.2`).
    #[error("chain {head}: descriptor {index} is readable after a writable one")]
    ReadableAfterWritable {
        /// First descriptor or slot of the chain.
        head: u16,
        /// Descriptor, slot or table entry.
        index: u16,
    },
    /// The lengths add up to more than 2^32: in a split ring by `virtio 1.4 §2.7.5.2`, in a
    /// packed one by a limit of ours.
    #[error("chain {head}: {bytes} bytes, more than 2^32")]
    ChainTooLarge {
        /// First descriptor or slot of the chain.
        head: u16,
        /// Sum where it passed the limit.
        bytes: u64,
    },
    /// INDIRECT without VIRTIO_F_INDIRECT_DESC.
    #[error("chain {head}: descriptor {index} is indirect, which was not negotiated")]
    IndirectNotNegotiated {
        /// First descriptor or slot of the chain.
        head: u16,
        /// Descriptor or slot.
        index: u16,
    },
    /// INDIRECT together with NEXT.
    #[error("chain {head}: descriptor {index} is indirect and goes on")]
    IndirectWithNext {
        /// First descriptor or slot of the chain.
        head: u16,
        /// Descriptor or slot.
        index: u16,
    },
    /// Packed: INDIRECT inside a list (`virtio 1.4 §2.8.19`).
    #[error("chain {head}: slot {index} is indirect inside a list")]
    IndirectInList {
        /// First slot of the chain.
        head: u16,
        /// Slot.
        index: u16,
    },
    /// INDIRECT inside a table.
    #[error("chain {head}: entry {entry} of its table is indirect")]
    IndirectNested {
        /// First descriptor or slot of the chain.
        head: u16,
        /// Table entry.
        entry: u16,
    },
    /// A table's length is zero, no multiple of 16, or of more entries than the queue has slots.
    #[error("chain {head}: a table of {len} bytes, size is {size}")]
    TableLength {
        /// First descriptor or slot of the chain.
        head: u16,
        /// Length found, in bytes.
        len: u32,
        /// Queue size.
        size: u16,
    },
    /// A table the device may not read.
    #[error("chain {head}: table at {at} can't be read")]
    TableDenied {
        /// First descriptor or slot of the chain.
        head: u16,
        /// Address of the table.
        at: Iova,
    },
    /// Packed: the first descriptor of a list is available and a later one is not.
    #[error("chain {head}: slot {slot} is not available")]
    NotAvailable {
        /// First slot of the chain.
        head: u16,
        /// Slot that is not.
        slot: u16,
    },
    /// Packed: a buffer id that is no slot.
    #[error("slot {slot} has buffer id {id}, size is {size}")]
    IdOutOfRange {
        /// Slot.
        slot: u16,
        /// Id found.
        id: u16,
        /// Queue size.
        size: u16,
    },

    /// A chain was made available while it is in flight; seen where a record is kept of what is.
    #[error("chain {id} was made available while it is in flight")]
    InFlightTwice {
        /// Head descriptor (split) or buffer id (packed).
        id: u16,
    },
    /// Packed: a chain taken again from a record that is no legal chain.
    #[error("chain {id} of the record has {slots} descriptors that make no chain")]
    Unrepeatable {
        /// Buffer id.
        id: u16,
        /// Its descriptors.
        slots: u16,
    },

    // The device misbehaved; seen by a driver half.
    /// `used.idx` went back, or past what is in flight.
    #[error("used.idx is {to} after {from}, {in_flight} chains are in flight")]
    UsedJump {
        /// Index of the next entry to take.
        from: u16,
        /// Index found.
        to: u16,
        /// Chains published and not used.
        in_flight: u16,
    },
    /// A used entry names no descriptor.
    #[error("used entry {index} has id {id}, size is {size}")]
    UsedIdOutOfRange {
        /// Entry (split, free-running) or slot (packed).
        index: u16,
        /// Id found.
        id: u32,
        /// Queue size.
        size: u16,
    },
    /// A used entry names what is not in flight, is no head, or was not shown yet: a replay, or
    /// a guess.
    #[error("used entry {index} has id {id}, which is not in flight")]
    UsedNotInFlight {
        /// Entry (split, free-running) or slot (packed).
        index: u16,
        /// Id found.
        id: u16,
    },
    /// More bytes used than the chain can be written.
    #[error("chain {id} used with {len} bytes of {writable}")]
    UsedTooLong {
        /// Chain.
        id: u16,
        /// Length found.
        len: u32,
        /// Bytes the device may write.
        writable: u32,
    },

    /// Packed: what was added and not shown is more than the ring has slots. Nothing the device
    /// may write leads here; if something does, nothing more is shown.
    #[error("slots up to {avail:?} are written, shown up to {published:?}: not within the ring")]
    Overrun {
        /// Next slot to write.
        avail: Pos,
        /// Next slot to show.
        published: Pos,
    },

    // Our own side.
    /// More chains or slots committed than are in flight.
    #[error("{asked} committed, {in_flight} in flight")]
    NotTaken {
        /// Chains (split) or slots (packed) to commit.
        asked: usize,
        /// Those in flight.
        in_flight: u16,
    },
    /// Not the last chains taken from this ring, or some given back already.
    #[error("{asked} chains can't be given back, {rewindable} can")]
    NotRewindable {
        /// Chains to give back.
        asked: usize,
        /// How many could be.
        rewindable: usize,
    },
    /// One chain has more segments than the whole batch; twice the queue size is always enough.
    #[error("the chain at {place} of the ring does not fit a batch of {capacity} segments")]
    BatchTooSmall {
        /// Where it begins: its place in the available ring, or the slot of a packed one.
        place: u16,
        /// Segments the batch holds.
        capacity: usize,
    },
    /// One used entry for a batch needs IN_ORDER.
    #[error("in-order use was not negotiated")]
    NotInOrder,
}

impl RingError {
    /// Who has to act.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::NotTaken { .. }
            | Self::NotRewindable { .. }
            | Self::BatchTooSmall { .. }
            | Self::NotInOrder => Kind::Misuse,
            _ => Kind::PeerMisbehaved,
        }
    }
}

/// Keeps the first malformation: told once, then latched.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Latch {
    /// Nothing is wrong.
    Clear,
    /// Found behind something that was good; the next call tells it.
    Pending(RingError),
    /// Told.
    Told,
}

impl Latch {
    /// Tells what is pending.
    #[inline(always)]
    pub(crate) fn check(&mut self) -> Result<(), RingError> {
        match self {
            Self::Clear => Ok(()),
            _ => Err(self.tell()),
        }
    }

    #[cold]
    fn tell(&mut self) -> RingError {
        match core::mem::replace(self, Self::Told) {
            Self::Pending(error) => error,
            _ => RingError::Latched,
        }
    }

    /// Latches `error`: tells it now, or later if `before` things precede it.
    #[cold]
    pub(crate) fn raise(&mut self, error: RingError, before: usize) -> Result<usize, RingError> {
        if before == 0 {
            *self = Self::Told;
            return Err(error);
        }
        *self = Self::Pending(error);
        Ok(before)
    }

    /// Forgets what is pending but not told: it will be found again.
    #[inline]
    pub(crate) fn forget(&mut self) {
        if let Self::Pending(_) = self {
            *self = Self::Clear;
        }
    }

    #[inline]
    pub(crate) const fn is_clear(&self) -> bool {
        matches!(self, Self::Clear)
    }

    #[inline]
    pub(crate) const fn is_pending(&self) -> bool {
        matches!(self, Self::Pending(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_caller_did_wrong_is_not_blamed_on_the_peer() {
        let format = Format::Split;
        assert_eq!(SetupError::Size { format, size: 3 }.kind(), Kind::Misuse);
        assert_eq!(AddError::Empty.kind(), Kind::Misuse);
        let full = AddError::Full { needed: 2, free: 1 };
        assert_eq!(full.kind(), Kind::Misuse);
        let misuse = [
            RingError::NotTaken {
                asked: 2,
                in_flight: 1,
            },
            RingError::NotRewindable {
                asked: 2,
                rewindable: 1,
            },
            RingError::BatchTooSmall {
                place: 0,
                capacity: 1,
            },
            RingError::NotInOrder,
        ];
        for error in misuse {
            assert_eq!(error.kind(), Kind::Misuse, "{error}");
        }
    }

    #[test]
    fn what_a_peer_did_wrong_is_its_own_and_stays_so() {
        assert_eq!(AddError::Latched.kind(), Kind::PeerMisbehaved);
        let index = 0;
        let bad = [
            RingError::Latched,
            RingError::HeadOutOfRange {
                index,
                head: 4,
                size: 4,
            },
            RingError::UsedNotInFlight { index, id: 0 },
        ];
        for error in bad {
            assert_eq!(error.kind(), Kind::PeerMisbehaved, "{error}");
        }
    }
}

//! Why a record cannot be gone on with.

/// Why a record of chains in flight cannot be gone on with: it is none, or was tampered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// A layout that is not known.
    #[error("the record's version is {version}, known is 1: zero the record to begin anew")]
    Version {
        /// The version found.
        version: u16,
    },
    /// Features that are not known.
    #[error("the record has features {features:#x}, known are none: zero the record to begin anew")]
    Features {
        /// The features found.
        features: u64,
    },
    /// A record of another queue.
    #[error(
        "the record is of a queue of size {found}, this one's is {size}: give the queue its own record, or a zeroed one"
    )]
    Size {
        /// The size found.
        found: u16,
        /// The queue's size.
        size: u16,
    },
    /// The queue's state says that chains are in flight, and a fresh record knows of none.
    #[error(
        "{in_flight} chains are in flight by the queue's state, and the record has none: give the queue the record it had"
    )]
    Unrecorded {
        /// Chains (split) or slots (packed).
        in_flight: u16,
    },
    /// The state is of the other ring format, or its positions cannot belong together.
    #[error(
        "the queue's state does not fit its format and size {size}: start it with a state of its own"
    )]
    State {
        /// The queue's size.
        size: u16,
    },
    /// Split: `used.idx` is not where a batch of the device's could have moved it.
    #[error(
        "used.idx is {used}, the record says {recorded}: more than size {size} apart: one of them is damaged, so reset the queue and zero the record"
    )]
    UsedJump {
        /// What the record says.
        recorded: u16,
        /// What the used ring says.
        used: u16,
        /// The queue's size.
        size: u16,
    },
    /// Packed: positions outside the ring, or too far apart.
    #[error(
        "the record's used positions {old} and {new} (wrap in bit 15) do not fit size {size}: reset the queue and zero the record"
    )]
    Positions {
        /// Before the last batch.
        old: u16,
        /// After it.
        new: u16,
        /// The queue's size.
        size: u16,
    },
    /// A list in the record leads out of it, or into a loop.
    #[error(
        "the record's list of {list} leads from {from} to {to}, size is {size}: reset the queue and zero the record"
    )]
    List {
        /// Of what.
        list: &'static str,
        /// The last entry that was good.
        from: u16,
        /// Where it leads.
        to: u16,
        /// The queue's size.
        size: u16,
    },
    /// Packed: entries that are neither free nor in flight.
    #[error(
        "{entries} entries of the record are neither free nor in flight: reset the queue and zero the record"
    )]
    Lost {
        /// How many.
        entries: u16,
    },
    /// Packed: a buffer id that is no slot, or of two chains.
    #[error(
        "entry {entry} of the record has buffer id {id}: no slot of {size}, or another's: reset the queue and zero the record"
    )]
    Id {
        /// The entry.
        entry: u16,
        /// Its id.
        id: u16,
        /// The queue's size.
        size: u16,
    },
    /// Two chains were taken at the same time, or one at the end of time.
    #[error(
        "entries {first} and {second} of the record have the same counter {counter:#x}, or the last one: reset the queue and zero the record"
    )]
    Counter {
        /// The counter.
        counter: u64,
        /// One entry.
        first: u16,
        /// The other.
        second: u16,
    },
}

//! What memory calls refuse, with the numbers.

use crate::{Iova, IovaRange};

/// Why a call on memory failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemError {
    /// A range is empty or runs past the end of the 64-bit space.
    #[error("range of {len:#x} bytes at {first} is empty or wraps past 2^64")]
    Range {
        /// Where it begins.
        first: Iova,
        /// Its length in bytes.
        len: u64,
    },
    /// A mapping reaches past the end of its memory.
    #[error("{len:#x} bytes at offset {offset:#x} reach past memory of {memory:#x} bytes")]
    Outside {
        /// Offset into the memory.
        offset: u64,
        /// Bytes wanted.
        len: u64,
        /// Bytes there are.
        memory: u64,
    },
    /// A file is shorter than the memory mapped from it: reading the rest would be fatal.
    #[error(
        "memory needs {needed:#x} bytes of its file, which has {file:#x}: make the file larger before mapping it"
    )]
    FileTooShort {
        /// Bytes of the file that the mapping needs.
        needed: u64,
        /// Bytes the file has.
        file: u64,
    },
    /// Memory that may only be read was to be mapped for a device to write.
    #[error("memory for {range} may only be read: map it for the device to read")]
    ReadOnly {
        /// Where it was to be mapped.
        range: IovaRange,
    },
    /// Memory that may only be read was to be a dirty log.
    #[error(
        "a dirty log cannot be kept in {len:#x} bytes that may only be read: map them for writing"
    )]
    ReadOnlyLog {
        /// Bytes of the log.
        len: u64,
    },
    /// A mapping overlaps one that is there already, or another of its batch.
    #[error("mapping {new} overlaps {old}: unmap that first")]
    Overlap {
        /// The new range.
        new: IovaRange,
        /// The range in the way.
        old: IovaRange,
    },
    /// Nothing is mapped in the range.
    #[error("nothing is mapped in {range}")]
    NotMapped {
        /// The range asked for.
        range: IovaRange,
    },
    /// The range cuts a mapping in two; mappings go whole.
    #[error("range {range} cuts mapping {mapping}: mappings are removed whole")]
    Partial {
        /// The range asked for.
        range: IovaRange,
        /// The mapping it cuts.
        mapping: IovaRange,
    },
    /// The deadline passed while a device still used the old table. The memory is kept alive.
    #[error("{what} still in use at the deadline; the memory is kept")]
    Busy {
        /// What was waited for.
        what: &'static str,
    },
    /// Memory of our own could not be had.
    #[error("cannot allocate {len:#x} bytes of {kind}{hint}")]
    Allocation {
        /// Bytes asked for.
        len: u64,
        /// Which kind of memory.
        kind: &'static str,
        /// The way out, if one is known; begins with `": "`.
        hint: &'static str,
        /// What the system said.
        #[cfg(feature = "std")]
        source: std::io::Error,
    },
    /// A file that cannot be mapped.
    #[cfg(feature = "std")]
    #[error("cannot map {len:#x} bytes of a file: {hint}")]
    Map {
        /// Bytes asked for.
        len: u64,
        /// What has to be so.
        hint: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file behind a mapping could not be examined.
    #[cfg(feature = "std")]
    #[error("cannot examine the file behind a mapping")]
    File {
        /// What the system said.
        source: std::io::Error,
    },
    /// A register that is not all inside what is mapped, or not at a multiple of its width.
    #[error(
        "no register of {width} bytes at {at:#x}: {len:#x} bytes are mapped, and offsets are multiples of the width"
    )]
    Register {
        /// Its offset in bytes.
        at: u64,
        /// Its width in bytes.
        width: u64,
        /// Bytes of registers there are.
        len: u64,
    },
    /// A memory region of another crate has no host address.
    #[error("guest memory region at {at:#x} has no host address: only mapped memory can be used")]
    NoHostAddress {
        /// Guest-physical start of the region.
        at: u64,
    },
}

//! What a request queue counts.

macro_rules! counters {
    ($( $(#[$about:meta])* $variant:ident = $text:literal, )*) => {
        /// A counter of a queue.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(super) enum Count {
            $( $(#[$about])* $variant, )*
        }

        /// The names of the counters of a request queue, behind the name of the queue and a dot: requests by type, bytes,
        /// failures by reason, calls, and how many batches had up to so many requests.
        pub const QUEUE_COUNTERS: &[&str] = &[$( $text, )*];
    };
}

counters! {
    /// Requests to read.
    Read = "requests.read",
    /// Requests to write.
    Write = "requests.write",
    /// Flushes.
    Flush = "requests.flush",
    /// Discards.
    Discard = "requests.discard",
    /// Write-zeroes.
    WriteZeroes = "requests.write_zeroes",
    /// Secure erases.
    SecureErase = "requests.secure_erase",
    /// Questions for the identity.
    GetId = "requests.get_id",
    /// Bytes read.
    BytesRead = "bytes.read",
    /// Bytes written.
    BytesWritten = "bytes.written",
    /// Requests beyond the end of the disk.
    Range = "errors.range",
    /// Writes to a disk that may only be read.
    ReadOnly = "errors.read_only",
    /// Requests with a short header or an illegal length.
    Malformed = "errors.malformed",
    /// Requests over a limit of the configuration space.
    Limit = "errors.limit",
    /// Requests of a type, or with a flag, that is not known or not negotiated.
    Unsupported = "errors.unsupported",
    /// Requests that the backend failed.
    Backend = "errors.backend",
    /// Requests in memory that is not mapped.
    Fault = "errors.fault",
    /// Requests without room for a status.
    NoStatus = "errors.no_status",
    /// How often the driver was called.
    Calls = "calls",
    /// Batches of one request.
    Batch1 = "batches.to_1",
    /// Batches of 2 or 3.
    Batch3 = "batches.to_3",
    /// Batches of 4 to 7.
    Batch7 = "batches.to_7",
    /// Batches of 8 to 15.
    Batch15 = "batches.to_15",
    /// Batches of 16 to 31.
    Batch31 = "batches.to_31",
    /// Batches of 32 and more.
    BatchMore = "batches.more",
}

impl Count {
    /// The counter of batches of `requests`, which are not 0.
    pub(super) fn of_batch(requests: usize) -> Self {
        match requests {
            0 | 1 => Self::Batch1,
            2 | 3 => Self::Batch3,
            4..=7 => Self::Batch7,
            8..=15 => Self::Batch15,
            16..=31 => Self::Batch31,
            _ => Self::BatchMore,
        }
    }
}

//! What a request queue counts.

use crate::stats::queue_counters;

queue_counters! {
    /// A counter of a queue.
    pub(super) enum Count;
    /// The names of the counters of a request queue, behind the name of the queue and a dot: requests by type, bytes,
    /// failures by reason, kicks, calls, and how many batches had up to so many requests.
    pub const QUEUE_COUNTERS {
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
    }
}

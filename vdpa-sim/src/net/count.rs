//! What a queue pair counts. The names are documented in `docs/statistics.md`.

use crate::stats::{Counters, queue_counters};

queue_counters! {
    /// What a transmit queue counts.
    pub(super) enum Tx;
    /// The names of these counters, behind the name of the queue and a dot.
    pub const TRANSMIT_COUNTERS {
        /// Frames.
        Packets = "packets",
        /// Their bytes.
        Bytes = "bytes",
        /// Packets whose checksum is to be completed, those to be segmented too.
        Partial = "partial",
        /// Packets to be segmented.
        Gso = "gso",
        /// Their bytes.
        GsoBytes = "gso_bytes",
        /// Packets shorter than their header and an Ethernet header.
        Short = "dropped.tx_short",
        /// Frames over the MTU.
        OverMtu = "dropped.tx_over_mtu",
        /// Packets whose checksum, or its beginning, is not in the frame, or not where the segmentation type has it.
        Checksum = "dropped.tx_bad_csum",
        /// Packets of a segmentation type that is unknown or was not negotiated.
        GsoType = "dropped.tx_bad_gso_type",
        /// Packets to be segmented without NEEDS_CSUM.
        GsoChecksum = "dropped.tx_gso_without_csum",
        /// Packets to be segmented into parts of 0 bytes, or into far too many.
        GsoSize = "dropped.tx_bad_gso_size",
        /// Packets whose headers are not those of their segmentation type, or not all there.
        GsoFrame = "dropped.tx_bad_gso_frame",
        /// Packets in memory that is not mapped.
        Fault = "dropped.tx_fault",
        /// Frames sent while the link is down.
        LinkDown = "dropped.tx_link_down",
        /// Frames sent while nobody is at the other end.
        NoPeer = "dropped.tx_no_peer",
        /// Frames of a queue that is off.
        Off = "dropped.tx_queue_off",
    }
}

queue_counters! {
    /// What a receive queue counts.
    pub(super) enum Rx;
    /// The names of these counters, behind the name of the queue and a dot.
    pub const RECEIVE_COUNTERS {
        /// Frames.
        Packets = "packets",
        /// Their bytes.
        Bytes = "bytes",
        /// How often frames had to wait for buffers.
        Waits = "waits",
        /// Packets given to the driver that it has to complete the checksum of, those to be segmented too.
        Partial = "partial",
        /// Packets given to the driver that are to be segmented still.
        Gso = "gso",
        /// Their bytes.
        GsoBytes = "gso_bytes",
        /// Packets given to the driver whose checksum is known to be right.
        Valid = "valid",
        /// Packets that were segmented, since the driver takes no such packets or has no room for them.
        Segmented = "segmented",
        /// Frames that the filter stopped.
        Filtered = "dropped.rx_filtered",
        /// Frames over the MTU.
        OverMtu = "dropped.rx_over_mtu",
        /// Frames larger than the buffer, or than all buffers together.
        NoRoom = "dropped.rx_buffer_too_small",
        /// Frames whose buffers are in memory that is not mapped.
        Fault = "dropped.rx_fault",
        /// Packets whose header does not describe them.
        Unfit = "dropped.rx_bad_offload",
        /// Frames for a queue that does not run.
        Stopped = "dropped.rx_no_queue",
        /// Frames for a queue that is off.
        Off = "dropped.rx_queue_off",
        /// Frames that were on their way to this queue when the driver chose another steering.
        Resteered = "dropped.rx_resteered",
        /// Buffers too small for a header, given back empty.
        BadBuffer = "bad_buffers",
    }
}

/// The counters of a pair.
pub(crate) struct PairCounters {
    pub(crate) receive: Counters,
    pub(crate) transmit: Counters,
}

impl PairCounters {
    pub(crate) fn new() -> Self {
        Self {
            receive: Counters::new(RECEIVE_COUNTERS),
            transmit: Counters::new(TRANSMIT_COUNTERS),
        }
    }
}

//! What a PCI function is refused for.

use vdpa_core::{DeviceType, ErrorKind, ParentError, QueueIndex, QueueState};

use crate::layout::Ignored;

/// Why a function cannot be driven.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PciError {
    /// Nobody answers.
    #[error(
        "{function} does not answer: its vendor id reads as ffff. It was unplugged or is powered off: rescan the bus, or reset its slot"
    )]
    Absent {
        /// The function.
        function: String,
    },
    /// Another vendor's, or no virtio device.
    #[error(
        "{function} is not virtio: it is {vendor:04x}:{device:04x}{known}. Name a function with the ids 1af4:1000 to 1af4:107f"
    )]
    NotVirtio {
        /// The function.
        function: String,
        /// Its vendor id.
        vendor: u16,
        /// Its device id.
        device: u16,
        /// What it is, after a comma; empty where that is not known.
        known: String,
    },
    /// Only the interface from before virtio 1.0.
    #[error(
        "{function} is legacy only ({device_type}{known}): it has no virtio 1.x structures. Switch its modern interface on (QEMU: disable-modern=off), or update its firmware"
    )]
    LegacyOnly {
        /// The function.
        function: String,
        /// What kind of device it is.
        device_type: DeviceType,
        /// Who made it, after a comma; empty where that is not known.
        known: String,
    },
    /// A structure that every function has to have.
    #[error("{function} has no usable {structure}{}", why(.ignored))]
    NoStructure {
        /// The function.
        function: String,
        /// Which.
        structure: &'static str,
        /// The first such capability, and what is wrong with it; `None` where there is none.
        ignored: Option<Ignored>,
    },
    /// A structure is in a BAR that cannot be reached, and there is no way around.
    #[error(
        "{function}: {structure} is in BAR {bar}, which is not mapped, and there is no configuration access window: switch memory decoding on, or see why the BAR cannot be mapped"
    )]
    BarUnmapped {
        /// The function.
        function: String,
        /// Which.
        structure: &'static str,
        /// The BAR.
        bar: u8,
    },
    /// Not virtio 1.x.
    #[error(
        "{function} does not offer VERSION_1, but {features}: update its firmware, or switch its modern interface on"
    )]
    NotModern {
        /// The function.
        function: String,
        /// What it offers, by name.
        features: String,
    },
    /// A device without queues.
    #[error("{function} has 0 queues: its firmware has none configured")]
    NoQueues {
        /// The function.
        function: String,
    },
    /// A queue without room.
    #[error("queue {queue} does not exist: its size is 0")]
    QueueUnavailable {
        /// The queue.
        queue: QueueIndex,
    },
    /// A queue that did not take what it was told.
    #[error("queue {queue}: {register} was set to {written:#x} and reads {read:#x}")]
    QueueRegister {
        /// The queue.
        queue: QueueIndex,
        /// Which register.
        register: &'static str,
        /// What was written.
        written: u32,
        /// What it reads.
        read: u32,
    },
    /// A queue that cannot begin where another one stood.
    #[error("queue {queue} cannot start from {state:?}: a PCI function begins with a fresh ring")]
    QueueState {
        /// The queue.
        queue: QueueIndex,
        /// The state.
        state: QueueState,
    },
    /// A doorbell outside the notification structure.
    #[error(
        "queue {queue}: its doorbell is {width} bytes at {offset} x {multiplier}, outside the notification structure of {len} bytes"
    )]
    DoorbellOutside {
        /// The queue.
        queue: QueueIndex,
        /// The queue's notify offset.
        offset: u16,
        /// What it is multiplied with.
        multiplier: u32,
        /// Bytes of a kick.
        width: u8,
        /// Bytes of the structure.
        len: u64,
    },
    /// A doorbell that no store of its width reaches.
    #[error("queue {queue}: its doorbell at {at:#x} of BAR {bar} is not aligned to {width} bytes")]
    DoorbellMisaligned {
        /// The queue.
        queue: QueueIndex,
        /// The BAR.
        bar: u8,
        /// Where it is.
        at: u64,
        /// Bytes of a kick.
        width: u8,
    },
    /// Features that do not read back.
    #[error(
        "{function} did not take the features {lost}, which it offers: leave them out, or update its firmware"
    )]
    FeaturesLost {
        /// The function.
        function: String,
        /// Those, by name.
        lost: String,
    },
    /// No vector could be mapped.
    #[error(
        "{function}: {event} could not be given an interrupt vector: vectors {tried} read back as none. Allow the function more vectors, or fewer queues"
    )]
    VectorRefused {
        /// The function.
        function: String,
        /// What for.
        event: String,
        /// Which vectors, separated by commas.
        tried: String,
    },
    /// Neither vectors nor a line.
    #[error(
        "{function} has no interrupt: no MSI-X vector can be used and there is no interrupt line. Poll its queues, see `dmesg`, or give it vectors (QEMU: vectors=N)"
    )]
    NoInterrupts {
        /// The function.
        function: String,
    },
    /// A reset that does not end.
    #[error(
        "{function}: the reset did not end in {millis} ms, its status is {status:#04x}: {}", whole_reset(.function)
    )]
    ResetStuck {
        /// The function.
        function: String,
        /// What its status register reads.
        status: u8,
        /// How long it had.
        millis: u128,
    },
    /// A register reads what it cannot.
    #[error("{function}: {register} reads {value:#x}, which is impossible")]
    Nonsense {
        /// The function.
        function: String,
        /// Which register.
        register: &'static str,
        /// What it reads.
        value: u32,
    },
    /// An access beyond a structure's end.
    #[error("an access to {len} bytes at {at:#x} reaches past a structure of {size} bytes")]
    PastEnd {
        /// Offset in bytes.
        at: u32,
        /// Bytes.
        len: u8,
        /// Bytes of the structure.
        size: u64,
    },
}

/// What is wrong with the capability that would have been used.
fn why(ignored: &Option<Ignored>) -> String {
    match ignored {
        None => ": it has no such capability".to_owned(),
        Some(ignored) => format!(": {ignored}"),
    }
}

/// How a function is reset as a whole: one on the system's bus has a file for that, a mediated device and one of another
/// process have none.
fn whole_reset(function: &str) -> String {
    let is_address = |front: &str| !front.is_empty() && front.contains(':');
    match function.rsplit_once('.') {
        Some((front, number)) if is_address(front) && number.len() == 1 => {
            format!(
                "reset the function as a whole (echo 1 > /sys/bus/pci/devices/{function}/reset)"
            )
        }
        _ => "let go of it, remove it and make it anew".to_owned(),
    }
}

impl ParentError for PciError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Absent { .. } => ErrorKind::Gone,
            Self::NotVirtio { .. }
            | Self::LegacyOnly { .. }
            | Self::NotModern { .. }
            | Self::QueueState { .. }
            | Self::NoQueues { .. } => ErrorKind::Unsupported,
            Self::QueueUnavailable { .. } => ErrorKind::Misuse,
            Self::NoStructure { .. }
            | Self::QueueRegister { .. }
            | Self::DoorbellOutside { .. }
            | Self::DoorbellMisaligned { .. }
            | Self::FeaturesLost { .. }
            | Self::Nonsense { .. }
            | Self::PastEnd { .. } => ErrorKind::PeerMisbehaved,
            Self::BarUnmapped { .. } | Self::VectorRefused { .. } | Self::NoInterrupts { .. } => {
                ErrorKind::Io
            }
            Self::ResetStuck { .. } => ErrorKind::Busy,
        }
    }
}

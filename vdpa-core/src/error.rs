//! What control calls refuse, and why.

use std::{fmt, io};

use vdpa_mem::{Iova, IovaRange, MemError};
use vdpa_ring::{AddError, QueueState, RingError};

use crate::graph::Refusal;
use crate::image::ImageError;
use crate::{Area, Asid, GroupIndex, QueueIndex, SpecError, Status};

/// The result of a control call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whose fault an error is, and what can be done about it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The caller asked for something illegal; the same call fails again.
    Misuse,
    /// The device or the driver broke the rules.
    PeerMisbehaved,
    /// The device cannot do this.
    Unsupported,
    /// Something else is under way or did not end in time; the same call may succeed later.
    Busy,
    /// The system refused.
    Io,
    /// The device is gone or broken; nothing but dropping it helps.
    Gone,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A queue number that the device does not have.
    #[error("queue {queue} does not exist: the device has {count} queues")]
    QueueOutOfRange {
        /// The number.
        queue: QueueIndex,
        /// How many there are.
        count: u16,
    },
    /// A queue that does not exist with the features accepted.
    #[error("queue {queue} does not exist with the features accepted")]
    QueueAbsent {
        /// The queue.
        queue: QueueIndex,
    },
    /// A queue size that is 0 or too large.
    #[error("queue {queue}: size {size} is out of range: 1 to {max} is legal")]
    QueueSize {
        /// The queue.
        queue: QueueIndex,
        /// The size asked for.
        size: u16,
        /// The largest size.
        max: u16,
    },
    /// A split ring whose size is no power of two.
    #[error("queue {queue}: size {size} is no power of two, which a split ring needs")]
    QueueSizeNotPowerOfTwo {
        /// The queue.
        queue: QueueIndex,
        /// The size asked for.
        size: u16,
    },
    /// An area at an address that is not aligned.
    #[error("queue {queue}: {area} at {at} is not aligned to {align} bytes")]
    AreaMisaligned {
        /// The queue.
        queue: QueueIndex,
        /// Which area.
        area: Area,
        /// Where it is.
        at: Iova,
        /// The alignment, in bytes.
        align: u32,
    },
    /// An area that is not, or not wholly, in mapped memory.
    #[error("queue {queue}: {area} at {at} is not mapped")]
    AreaNotMapped {
        /// The queue.
        queue: QueueIndex,
        /// Which area.
        area: Area,
        /// The first address that is not mapped.
        at: Iova,
    },
    /// An area in memory that the device may not use in the way it has to.
    #[error("queue {queue}: {area} at {at} is mapped, but not for what the device does there")]
    AreaAccess {
        /// The queue.
        queue: QueueIndex,
        /// Which area.
        area: Area,
        /// The first such address.
        at: Iova,
    },
    /// Two areas share bytes.
    #[error("queue {queue}: {first} and {second} overlap at {at}")]
    AreasOverlap {
        /// The queue.
        queue: QueueIndex,
        /// One area.
        first: Area,
        /// The other.
        second: Area,
        /// The first shared address.
        at: Iova,
    },
    /// A state that no ring of this format and size can be in.
    #[error("queue {queue}: state {state:?} is impossible for a ring of {size}")]
    QueueStateIllegal {
        /// The queue.
        queue: QueueIndex,
        /// The state.
        state: QueueState,
        /// The size of the ring.
        size: u16,
    },
    /// A queue that runs already.
    #[error("queue {queue} is started already: stop it or reset the device first")]
    QueueStarted {
        /// The queue.
        queue: QueueIndex,
    },
    /// A queue that does not run.
    #[error("queue {queue} is not started")]
    QueueNotStarted {
        /// The queue.
        queue: QueueIndex,
    },
    /// A queue with an operation under way.
    #[error("queue {queue}: {what} is under way")]
    QueueBusy {
        /// The queue.
        queue: QueueIndex,
        /// What is under way.
        what: &'static str,
    },
    /// An eventfd as the kick of a queue whose kicks carry data.
    #[error(
        "queue {queue}: an eventfd carries no data, which NOTIFICATION_DATA needs: do not offer it"
    )]
    KickWithoutData {
        /// The queue.
        queue: QueueIndex,
    },
    /// Configuration space ends before.
    #[error("configuration access to {len} bytes at {at} reaches past the end at {size}")]
    ConfigBounds {
        /// Offset in bytes.
        at: u32,
        /// Bytes asked for.
        len: usize,
        /// Bytes there are.
        size: u32,
    },
    /// Configuration space changed at every one of many reads.
    #[error("configuration changed during each of {tries} reads")]
    ConfigUnstable {
        /// How often it was read.
        tries: u32,
    },
    /// A call that is not legal in the state the device is in.
    #[error("{call} is not legal while the device status is {status}: {need}")]
    State {
        /// The call.
        call: &'static str,
        /// The status.
        status: Status,
        /// What it needs.
        need: &'static str,
    },
    /// A status byte that asks for something illegal.
    #[error("status byte {written:#04x} is refused while the device status is {status}")]
    StatusRefused {
        /// The byte.
        written: u8,
        /// The status.
        status: Status,
    },
    /// A control call from inside a call closure.
    #[error("{call} was called from inside a call closure: hand it to another thread")]
    InsideCall {
        /// The control call.
        call: &'static str,
    },
    /// Features that are not offered, or cannot go together.
    #[error(transparent)]
    Features(#[from] Refusal),
    /// The device did not set FEATURES_OK.
    #[error("the device refused the features {features}")]
    FeaturesRefused {
        /// The features, by name.
        features: String,
    },
    /// A device that would take what it is told of memory for physical addresses.
    #[error(
        "device {device} takes addresses for physical ones without ACCESS_PLATFORM, which are not given out: accept it, or have it offered (iommu_platform=on, in QEMU)"
    )]
    Untranslated {
        /// The device.
        device: String,
    },
    /// Something was used whose feature was not negotiated.
    #[error("{what} needs the feature {feature}, which was not negotiated")]
    NotNegotiated {
        /// What was used.
        what: &'static str,
        /// The feature.
        feature: &'static str,
    },
    /// A capability that the device does not have.
    #[error("device {device} has no {what}")]
    Unsupported {
        /// The device.
        device: String,
        /// The capability.
        what: &'static str,
    },
    /// An address space that the device does not have.
    #[error("address space {asid} does not exist: the device has {count}")]
    AsidOutOfRange {
        /// The number.
        asid: Asid,
        /// How many there are.
        count: u32,
    },
    /// A mapping where the device cannot be given memory.
    #[error("mapping {range} is outside of what the device can address: {}", ranges(.legal))]
    DmaRange {
        /// Where it was to be mapped.
        range: IovaRange,
        /// What is legal: first and last address of each range.
        legal: Vec<(Iova, Iova)>,
    },
    /// A mapping that begins or ends within what can only be mapped whole.
    #[error("mapping {range}: its {what} {value:#x} is not a multiple of {granule:#x}")]
    DmaGranule {
        /// Where it was to be mapped.
        range: IovaRange,
        /// Which of its numbers.
        what: &'static str,
        /// The number.
        value: u64,
        /// What it has to be a multiple of.
        granule: u64,
    },
    /// Memory of this process alone, for a device that is in another one.
    #[error(
        "mapping {range}: its memory has no file, by which another process could map it: take it from a memfd (`Region::memfd`, `Backing::Memfd`)"
    )]
    DmaNoFile {
        /// Where it was to be mapped.
        range: IovaRange,
    },
    /// More mappings than the system has entries for.
    #[error(
        "address space {asid} has {there} mappings, and {more} more are too many: {max} are possible; map larger pieces, or unmap some"
    )]
    DmaEntries {
        /// The address space.
        asid: Asid,
        /// Mappings there are.
        there: usize,
        /// Mappings wanted beside them.
        more: usize,
        /// Mappings possible.
        max: u32,
    },
    /// No room is left in what a device can address.
    #[error(
        "no room for {len:#x} bytes in what the device can address: {}", ranges(.legal)
    )]
    DmaExhausted {
        /// Bytes wanted.
        len: u64,
        /// What is legal: first and last address of each range.
        legal: Vec<(Iova, Iova)>,
    },
    /// A queue group that the device does not have.
    #[error("queue group {group} does not exist: the device has {count}")]
    GroupOutOfRange {
        /// The number.
        group: GroupIndex,
        /// How many there are.
        count: u32,
    },
    /// A queue group that cannot change its address space, since one of its queues is started.
    #[error("queue group {group}: queue {queue} is started: stop or reset it first")]
    GroupBusy {
        /// The group.
        group: GroupIndex,
        /// A queue of it.
        queue: QueueIndex,
    },
    /// Memory that no record of a queue's chains in flight can be in.
    #[error("queue {queue}: no record of what is in flight can be there: {why}")]
    Record {
        /// The queue.
        queue: QueueIndex,
        /// What is wrong with it.
        why: &'static str,
    },
    /// An image that this device cannot become, or that cannot be taken.
    #[error(transparent)]
    Image(ImageError),
    /// Something that is handed out once was asked for again.
    #[error("{what} were taken already")]
    Taken {
        /// What it is.
        what: &'static str,
    },
    /// Something did not end in time. It may still end.
    #[error("{what} did not end in time")]
    Timeout {
        /// What was waited for.
        what: &'static str,
    },
    /// Something was cut off by a reset.
    #[error("{what} was cut off by a reset")]
    Interrupted {
        /// What was under way.
        what: &'static str,
    },
    /// Something else is under way.
    #[error("{what} is under way")]
    Busy {
        /// What is under way.
        what: &'static str,
    },
    /// A saved state that is none.
    #[error("saved state is not acceptable: {why}")]
    ClassState {
        /// What is wrong with it.
        why: String,
    },
    /// An attribute that cannot have the value asked for.
    #[error("device {device}: {why}")]
    Attr {
        /// The device.
        device: String,
        /// What is wrong with the value, and what is legal.
        why: String,
    },
    /// A buffer lease that is not of this queue, or a part that does not fit into its buffer.
    #[error("queue {queue}: {why}")]
    Buffer {
        /// The queue.
        queue: QueueIndex,
        /// What is wrong.
        why: &'static str,
    },
    /// No room in the ring for a chain; the next completion makes some.
    #[error("queue {queue}: the ring is full: {needed} descriptors needed, {free} free")]
    RingFull {
        /// The queue.
        queue: QueueIndex,
        /// Descriptors that the chain takes.
        needed: u16,
        /// Descriptors free.
        free: u16,
    },
    /// A chain that no ring takes.
    #[error("queue {queue}: the chain cannot be submitted")]
    Chain {
        /// The queue.
        queue: QueueIndex,
        /// Why.
        source: AddError,
    },
    /// A device string that cannot be understood.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A management device without such a device.
    #[error("parent {parent} has no device {name}; it has: {}", list(.known))]
    DeviceUnknown {
        /// The parent.
        parent: String,
        /// The name asked for.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// Memory.
    #[error(transparent)]
    Memory(#[from] MemError),
    /// A ring.
    #[error("queue {queue}: the ring is broken")]
    Ring {
        /// The queue.
        queue: QueueIndex,
        /// How.
        source: RingError,
    },
    /// What a parent refuses for reasons of its own.
    #[error(transparent)]
    Parent(#[from] ParentFailure),
    /// The system.
    #[error("cannot {what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The device is broken.
    #[error("the device is broken")]
    Broken,
    /// The device is gone.
    #[error("the device is gone")]
    Gone,
}

/// An error of a parent's own: an enum with its facts in fields.
pub trait ParentError: std::error::Error + Send + Sync + 'static {
    /// Whose fault it is.
    fn kind(&self) -> ErrorKind;
}

/// A [`ParentError`], whichever it is.
#[derive(Debug)]
pub struct ParentFailure(Box<dyn ParentError>);

impl ParentFailure {
    /// Whose fault it is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind()
    }
}

impl std::fmt::Display for ParentFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for ParentFailure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

impl<E: ParentError> From<E> for Error {
    fn from(error: E) -> Self {
        Self::Parent(ParentFailure(Box::new(error)))
    }
}

/// An error with all that led to it, in one line: what each says, with `: ` between them.
#[derive(Clone, Copy, Debug)]
pub struct Chain<'a>(pub &'a (dyn std::error::Error + 'a));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut below = self.0.source();
        while let Some(error) = below {
            write!(f, ": {error}")?;
            below = error.source();
        }
        Ok(())
    }
}

impl Error {
    /// Whose fault it is, and what can be done about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::QueueOutOfRange { .. }
            | Error::QueueAbsent { .. }
            | Error::QueueSize { .. }
            | Error::QueueSizeNotPowerOfTwo { .. }
            | Error::AreaMisaligned { .. }
            | Error::AreaNotMapped { .. }
            | Error::AreaAccess { .. }
            | Error::AreasOverlap { .. }
            | Error::QueueStateIllegal { .. }
            | Error::QueueStarted { .. }
            | Error::QueueNotStarted { .. }
            | Error::KickWithoutData { .. }
            | Error::ConfigBounds { .. }
            | Error::State { .. }
            | Error::StatusRefused { .. }
            | Error::InsideCall { .. }
            | Error::Features(_)
            | Error::NotNegotiated { .. }
            | Error::AsidOutOfRange { .. }
            | Error::DmaRange { .. }
            | Error::DmaGranule { .. }
            | Error::DmaNoFile { .. }
            | Error::DmaExhausted { .. }
            | Error::GroupOutOfRange { .. }
            | Error::Record { .. }
            | Error::Image(_)
            | Error::Attr { .. }
            | Error::Taken { .. }
            | Error::ClassState { .. }
            | Error::Buffer { .. }
            | Error::Chain { .. }
            | Error::Spec(_)
            | Error::DeviceUnknown { .. } => ErrorKind::Misuse,
            Error::ConfigUnstable { .. } | Error::Ring { .. } => ErrorKind::PeerMisbehaved,
            Error::Unsupported { .. }
            | Error::Untranslated { .. }
            | Error::FeaturesRefused { .. } => ErrorKind::Unsupported,
            Error::QueueBusy { .. }
            | Error::GroupBusy { .. }
            | Error::RingFull { .. }
            | Error::DmaEntries { .. }
            | Error::Timeout { .. }
            | Error::Interrupted { .. }
            | Error::Busy { .. } => ErrorKind::Busy,
            Error::Memory(error) => match error {
                MemError::Busy { .. } => ErrorKind::Busy,
                MemError::Allocation { .. } | MemError::Map { .. } | MemError::File { .. } => {
                    ErrorKind::Io
                }
                _ => ErrorKind::Misuse,
            },
            Error::Parent(error) => error.kind(),
            Error::Io { .. } => ErrorKind::Io,
            Error::Broken | Error::Gone => ErrorKind::Gone,
        }
    }

    /// Makes the error of a system call that tried to `what`.
    pub(crate) fn io(what: &'static str) -> impl Fn(nix::Error) -> Error {
        move |errno| Error::Io {
            what,
            source: io::Error::from(errno),
        }
    }
}

/// Ranges of addresses for a message.
fn ranges(legal: &[(Iova, Iova)]) -> String {
    let one = |(first, last): &(Iova, Iova)| format!("{first} to {last}");
    list(&legal.iter().map(one).collect::<Vec<_>>())
}

/// A list for a message.
pub(crate) fn list(names: &[String]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

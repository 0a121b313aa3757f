//! What only some parents can do.

use std::task::Poll;

use vdpa_mem::{Iova, Mapping, Window};
use vdpa_ring::QueueState;

use crate::config::Mac;
use crate::{Asid, GroupIndex, QueueIndex, Result};

/// The capabilities of a parent. They are constant while the device is open: using one that was not negotiated is an
/// error, not a capability that vanishes.
///
/// A layer around a parent destructures this without `..`, so that one that forgets a new capability does not compile.
/// A parent names what it has and writes `..Caps::NONE`.
#[derive(Clone, Copy)]
pub struct Caps<'a> {
    /// How the device reaches memory.
    pub dma: Dma<'a>,
    /// Its queue groups can be put into its address spaces one by one.
    pub spaces: Option<&'a dyn GroupSpaces>,
    /// One queue can be reset alone.
    pub queue_reset: Option<&'a dyn QueueReset>,
    /// A queue can be stopped and its state taken.
    pub queue_pause: Option<&'a dyn QueuePause>,
    /// A running queue can be switched off and on.
    pub queue_enable: Option<&'a dyn QueueEnable>,
    /// The whole device can be stopped and resumed.
    pub suspend: Option<&'a dyn Suspend>,
    /// The device can keep a record of what it has in flight, for whoever comes after it.
    pub in_flight: Option<&'a dyn InFlight>,
    /// The state of the device's class can be saved and restored.
    pub class_state: Option<&'a dyn ClassState>,
    /// The device can say in its network that a card is reached through it.
    pub announce: Option<&'a dyn Announce>,
    /// The device counts.
    pub stats: Option<&'a dyn Stats>,
}

impl Caps<'_> {
    /// A software device that can do nothing special.
    pub const NONE: Caps<'static> = Caps {
        dma: Dma::Software { misses: false },
        spaces: None,
        queue_reset: None,
        queue_pause: None,
        queue_enable: None,
        suspend: None,
        in_flight: None,
        class_state: None,
        announce: None,
        stats: None,
    };

    /// The names of what is there, for people.
    pub fn names(&self) -> Vec<&'static str> {
        let Caps {
            dma,
            spaces,
            queue_reset,
            queue_pause,
            queue_enable,
            suspend,
            in_flight,
            class_state,
            announce,
            stats,
        } = self;
        let named = [
            ("dma-software", matches!(dma, Dma::Software { .. })),
            (
                "page-requests",
                matches!(dma, Dma::Software { misses: true }),
            ),
            ("dma-map", matches!(dma, Dma::Map(_))),
            ("group-spaces", spaces.is_some()),
            ("queue-reset", queue_reset.is_some()),
            ("queue-pause", queue_pause.is_some()),
            ("queue-enable", queue_enable.is_some()),
            ("suspend", suspend.is_some()),
            ("in-flight", in_flight.is_some()),
            ("class-state", class_state.is_some()),
            ("announce", announce.is_some()),
            ("stats", stats.is_some()),
        ];
        named
            .into_iter()
            .filter(|(_, is)| *is)
            .map(|(name, _)| name)
            .collect()
    }
}

/// How a device reaches memory.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub enum Dma<'a> {
    /// It reads [`Host::spaces`](crate::Host::spaces) itself.
    Software {
        /// Whether it waits for an address that is not mapped: it reports [`Event::Miss`](crate::Event::Miss), and the
        /// queue goes on once the address is mapped, while its siblings go on meanwhile. So nothing has to be mapped, or
        /// be there, before it is used. Where it does not wait, such an address is a fault.
        misses: bool,
    },
    /// It has to be told of each mapping, since something else translates for it: an IOMMU, or the process that it is in.
    Map(&'a dyn DmaMap),
}

/// What has a device reach what it is told of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Reach {
    /// The platform, by an IOMMU: the driver has to accept ACCESS_PLATFORM, or the device takes addresses for physical ones.
    #[default]
    Platform,
    /// Another process, which maps the memory's [file](vdpa_mem::DmaMemory::file): memory without one cannot be mapped. What
    /// an address means is what that process was told, whatever the driver accepts.
    Process,
}

/// What can be mapped for a device that has to be told of mappings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DmaLimits {
    /// The legal device addresses, ascending and apart: first and last of each range. Empty where nothing can be mapped.
    pub ranges: Vec<(Iova, Iova)>,
    /// What device addresses, host addresses and lengths are multiples of, in bytes; a power of two.
    pub granule: u64,
    /// How many mappings there can be; `None`: no limit is known.
    pub max_entries: Option<u32>,
    /// What has the device reach them.
    pub reach: Reach,
}

impl DmaLimits {
    /// Nothing can be mapped.
    pub const NOTHING: Self = Self {
        ranges: Vec::new(),
        granule: 1,
        max_entries: Some(0),
        reach: Reach::Platform,
    };
}

/// Mappings of a device that does not read [`Host::spaces`](crate::Host::spaces) itself.
pub trait DmaMap: Send + Sync {
    /// What can be mapped.
    ///
    /// # For parents
    /// The same answer while the device is open.
    fn limits(&self) -> DmaLimits;

    /// Has the device reach a mapping.
    ///
    /// * `a`: in range
    /// * `m`: within the [limits](Self::limits), and apart from what is mapped
    ///
    /// # Errors
    /// When the system refuses, with the numbers and the cure; nothing is mapped then.
    ///
    /// # For parents
    /// Runs beside control calls, though no two maps and unmaps of one address space at once; may take as long as the
    /// system does. The memory stays mapped in this process until [`unmap`](Self::unmap) has returned well: where it never
    /// does, for good. That the parent is dropped proves nothing, since parts of it may be shared.
    fn map(&self, a: Asid, m: &Mapping) -> Result<()>;

    /// Takes a mapping back, whole. On return the device cannot reach it any more.
    ///
    /// * `m`: as it was mapped
    ///
    /// # Errors
    /// When that is not certain: the memory is kept, and the device is broken.
    ///
    /// # For parents
    /// Comes also once the device is gone, or a reset is under way. A device that is not there any more reaches nothing:
    /// that is no error.
    fn unmap(&self, a: Asid, m: &Mapping) -> Result<()>;
}

/// Queue groups in different address spaces: a control queue that the owner serves itself, say, while the data queues
/// are a guest's.
pub trait GroupSpaces: Send + Sync {
    /// Puts group `g` into address space `a`. A device begins with all groups in the first one, and so it is after
    /// each reset.
    ///
    /// # Errors
    /// When it cannot; the group stays where it was.
    ///
    /// # For parents
    /// Called only while no queue of the group is started. Both numbers are in range.
    ///
    /// # Spec
    /// `linux/vhost.h`, VHOST_VDPA_SET_GROUP_ASID.
    fn assign(&self, g: GroupIndex, a: Asid) -> Result<()>;
}

/// Reset of one queue alone; its state is lost.
pub trait QueueReset: Send + Sync {
    /// Begins to reset queue `q`, which runs.
    ///
    /// # Errors
    /// When the reset cannot be begun; the queue then runs on.
    ///
    /// # For parents
    /// Called only with RING_RESET accepted. Never waits.
    ///
    /// # Spec
    /// virtio 1.4 §2.6.1.
    fn begin(&self, q: QueueIndex) -> Result<()>;

    /// Whether the reset of `q` is done: the queue's areas and buffers are then untouched for good.
    ///
    /// # Errors
    /// When the reset failed; the device needs a reset as a whole.
    ///
    /// # For parents
    /// Called again until it is ready, or the device is reset.
    fn poll(&self, q: QueueIndex) -> Result<Poll<()>>;
}

/// Stop of one queue, with its state.
pub trait QueuePause: Send + Sync {
    /// Begins to stop queue `q`, which runs.
    ///
    /// # Errors
    /// When it cannot be begun; the queue then runs on.
    ///
    /// # For parents
    /// Never waits. Chains that were taken are completed or given back; nothing new is taken.
    fn begin(&self, q: QueueIndex) -> Result<()>;

    /// Whether `q` is drained, and where it stands. After that the queue can be started again with this state.
    ///
    /// # Errors
    /// When the queue could not be drained.
    ///
    /// # For parents
    /// Ready only when nothing of the queue is touched any more.
    fn poll(&self, q: QueueIndex) -> Result<Poll<QueueState>>;
}

/// Off and on of a running queue.
pub trait QueueEnable: Send + Sync {
    /// Switches queue `q` on or off. A queue that is off runs on without side effects: a network device discards what
    /// is sent and takes no receive buffer.
    ///
    /// # Errors
    /// When the queue does not run.
    ///
    /// # For parents
    /// Never waits. Takes effect soon, between batches: one that is under way, or begins at the same moment, is
    /// processed as before.
    fn set(&self, q: QueueIndex, on: bool) -> Result<()>;
}

/// Stop of the whole device, with everything kept.
pub trait Suspend: Send + Sync {
    /// Begins to stop all queues.
    ///
    /// # Errors
    /// When it cannot be begun; the device runs on.
    ///
    /// # For parents
    /// Never waits. Called only while live and not suspended.
    ///
    /// # Spec
    /// virtio 1.4 §2.1, status bit SUSPEND.
    fn begin(&self) -> Result<()>;

    /// Whether nothing is touched any more.
    ///
    /// # Errors
    /// When the device could not be stopped.
    fn poll(&self) -> Result<Poll<()>>;

    /// Where queue `q` stands.
    ///
    /// # Errors
    /// When the queue does not run.
    ///
    /// # For parents
    /// Called only while suspended.
    fn state(&self, q: QueueIndex) -> Result<QueueState>;

    /// Lets everything go on where it stood.
    ///
    /// # Errors
    /// When that fails; the device stays suspended.
    ///
    /// # For parents
    /// Called only while suspended. Looks at every queue once, since kicks may have come in the meantime.
    fn resume(&self) -> Result<()>;
}

/// A record of the chains that are in flight, in memory that outlives the device: whoever starts the queue with it
/// afterwards finds each chain either given back or in flight, wherever the device stopped, and takes the latter again
/// first. Its layout is [`vdpa_ring::inflight`]'s, which is vhost-user's. A reset, of the device or the queue, leaves the
/// record as it is: whoever begins with a fresh ring zeroes it.
pub trait InFlight: Send + Sync {
    /// Keeps the record of queue `q` in these bytes from its next start on, and goes on by what is in them.
    ///
    /// * `record`: all zero for a fresh queue, or as a device left it
    ///
    /// # Errors
    /// When the device is gone.
    ///
    /// # For parents
    /// Called only while the queue is stopped, after FEATURES_OK. The bytes are writable, aligned to 8 and, at the start,
    /// as many as [`record_bytes`](vdpa_ring::record_bytes); what is in them is hostile, and an error of the start. Where
    /// they were in use they say where the queue stands, and the state it is started with counts for nothing. Forgotten
    /// with the start's end, also in a reset.
    fn track(&self, q: QueueIndex, record: Window) -> Result<()>;
}

/// What a device of this type knows besides its queues: filters, link state, mode.
pub trait ClassState: Send + Sync {
    /// The state, in a portable format that carries its version and the device type.
    ///
    /// # Errors
    /// When it cannot be taken.
    fn save(&self) -> Result<Vec<u8>>;

    /// Takes over a saved state.
    ///
    /// # Errors
    /// When the bytes are not a state of this device type, with what is wrong; nothing is taken over then.
    ///
    /// # For parents
    /// The bytes are hostile. Called with features accepted and before the device is live.
    fn restore(&self, from: &[u8]) -> Result<()>;
}

/// What a network device says in the place of a driver that has moved to it, and does not say so itself (GUEST_ANNOUNCE).
pub trait Announce: Send + Sync {
    /// Has the network learn that `mac` is reached through this device, by a frame to everyone, which nobody answers.
    ///
    /// * `mac`: of one card
    ///
    /// # Errors
    /// When none will be sent.
    ///
    /// # For parents
    /// Called only while live and not suspended. Never waits: the frame leaves soon, and one may do for several calls. It is
    /// lost as any other where nobody is, or the link is down.
    ///
    /// # Spec
    /// A request reverse of RFC 903, ethertype 0x8035; vhost-user's VHOST_USER_SEND_RARP.
    fn announce(&self, mac: Mac) -> Result<()>;
}

/// Counters.
pub trait Stats: Send + Sync {
    /// Calls `to` once for each counter, with its name (`queue0.packets`) and value.
    ///
    /// # Errors
    /// When they cannot be read.
    ///
    /// # For parents
    /// May run beside anything. Names are stable and lower case.
    fn read(&self, to: &mut dyn FnMut(&str, u64)) -> Result<()>;
}

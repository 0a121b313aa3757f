//! What a parent implements.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use vdpa_mem::AddressSpace;

use crate::{
    Call, Caps, DeviceType, Doorbell, EventSink, Features, QueueConfig, QueueIndex, QueueLimits,
    Relay, Result, Status,
};

/// What a device is, constant while it is open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceInfo {
    /// The name of the device within its parent.
    pub name: String,
    /// What kind of virtio device it is.
    pub device_type: DeviceType,
    /// The PCI vendor id of its maker, or what stands for one.
    pub vendor: u32,
    /// How many queues it has at most, with any features.
    pub queues: u16,
    /// How many queue groups; at least 1.
    pub groups: u32,
    /// How many address spaces; at least 1.
    pub asids: u32,
    /// Bytes of configuration space.
    pub config_size: u32,
    /// Which kicks it takes.
    pub kicks: KickKind,
    /// Which calls it makes.
    pub calls: CallKind,
}

/// Which kicks a parent takes. The core relays the others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KickKind {
    /// Only through the [`Doorbell`] that it hands out.
    Taken,
    /// The same, and each ring is a system call: some hundred times slower than a store. Whoever can, kicks seldom.
    Called,
    /// Also through eventfds handed to it.
    Given,
}

/// Which calls a parent makes. The core relays the others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CallKind {
    /// Any.
    Any,
    /// Only eventfds, as a kernel or another process does.
    EventFd,
}

/// How a queue is kicked.
#[derive(Clone, Debug)]
pub enum Kick {
    /// Through the doorbell that starting the queue returns.
    Taken,
    /// Through this eventfd. Reaches only parents of [`KickKind::Given`]; for the others the core relays.
    Given(Arc<OwnedFd>),
}

/// What a device is given by whoever opens it.
#[derive(Clone)]
pub struct Host {
    /// Where it reports.
    pub events: Arc<dyn EventSink>,
    /// Its address spaces, by [`Asid`](crate::Asid): as many as [`DeviceInfo::asids`].
    pub spaces: Arc<[AddressSpace]>,
    /// For relaying between eventfds and doorbells or closures.
    pub relay: Relay,
}

/// A vDPA device, as its parent implements it.
///
/// Called by [`Device`](crate::Device) alone: every call is legal (indices in range, features offered, areas mapped),
/// control calls come one at a time, and none may wait; [`replace_call`](Self::replace_call) alone runs beside others.
/// What takes time is begun, and polled by the core. DMA, statistics, doorbells and status come from several threads:
/// hence `&self`.
///
/// What only some parents have is in [`caps`](Self::caps). There are no defaults that pretend success.
pub trait VdpaDevice: Send + Sync {
    /// What the device is.
    ///
    /// # For parents
    /// The same answer always; `groups` and `asids` are at least 1.
    fn info(&self) -> &DeviceInfo;

    /// Hands the device its surroundings.
    ///
    /// * `host`: event sink, address spaces, relay; keep it until dropped
    ///
    /// # Errors
    /// When the device cannot be used; it is then dropped.
    ///
    /// # For parents
    /// Called once, before everything but `info` and `caps`.
    fn attach(&self, host: Host) -> Result<()>;

    /// What the device can do beyond this trait.
    ///
    /// # For parents
    /// The same answer always.
    fn caps(&self) -> Caps<'_>;

    /// The features offered.
    ///
    /// # For parents
    /// The same answer until the device is gone, and legal by [`graph`](crate::graph).
    ///
    /// # Spec
    /// virtio 1.4 §2.2.
    fn offered(&self) -> Features;

    /// Takes the features that the driver chose.
    ///
    /// * `f`: a legal part of what is offered
    ///
    /// # Errors
    /// When the device cannot work with this choice; FEATURES_OK is then not set.
    ///
    /// # For parents
    /// Comes before FEATURES_OK, perhaps several times; the last one counts.
    ///
    /// # Spec
    /// virtio 1.4 §3.1.1, step 4.
    fn accept(&self, f: Features) -> Result<()>;

    /// The device's own status byte.
    ///
    /// # Errors
    /// When the device is gone: an error of kind [`Gone`](crate::ErrorKind::Gone), from this call or any other, is the
    /// last answer that is listened to. All ones, which is what a device that was taken away reads as, says the same.
    ///
    /// # For parents
    /// 0 once a reset is complete and nothing is touched any more, never before.
    ///
    /// # Spec
    /// virtio 1.4 §2.1.
    fn status(&self) -> Result<Status>;

    /// Adds to the status byte.
    ///
    /// * `bits`: those the driver adds; with DRIVER_OK the device goes live. SUSPEND never comes this way.
    ///
    /// # Errors
    /// When the device cannot take them, FEATURES_OK apart: that one is left unset instead, and read back.
    ///
    /// # For parents
    /// Never waits. Kicks that came before DRIVER_OK are looked at once on DRIVER_OK.
    ///
    /// # Spec
    /// virtio 1.4 §2.1.2.
    fn add_status(&self, bits: Status) -> Result<()>;

    /// Begins a reset: done when [`status`](Self::status) is 0.
    ///
    /// # Errors
    /// When it cannot be begun.
    ///
    /// # For parents
    /// Legal at any time, also while one is under way. Takes back everything: features, queues with their states,
    /// calls and enabled flags. Address spaces stay. Doorbells handed out before become no-ops.
    ///
    /// # Spec
    /// virtio 1.4 §2.4.
    fn begin_reset(&self) -> Result<()>;

    /// A number that changes whenever the configuration does, or `None` where there is none: the core then reads twice.
    ///
    /// # Errors
    /// When the device is gone.
    ///
    /// # Spec
    /// virtio 1.4 §2.5.
    fn config_generation(&self) -> Result<Option<u32>>;

    /// Reads configuration space.
    ///
    /// * `at`: offset in bytes; `at + to.len()` is at most [`DeviceInfo::config_size`]
    /// * `to`: filled completely
    ///
    /// # Errors
    /// When the device is gone.
    ///
    /// # For parents
    /// Legal in every status. Little-endian always.
    fn read_config(&self, at: u32, to: &mut [u8]) -> Result<()>;

    /// Writes configuration space.
    ///
    /// * `at`: offset in bytes; `at + from.len()` is at most [`DeviceInfo::config_size`]
    /// * `from`: the bytes
    ///
    /// # Errors
    /// When the field cannot be written.
    ///
    /// # For parents
    /// Fields that the specification makes read-only are left as they are, without error.
    fn write_config(&self, at: u32, from: &[u8]) -> Result<()>;

    /// What queue `q` can do with the features accepted.
    ///
    /// * `q`: below [`DeviceInfo::queues`]
    ///
    /// # Errors
    /// When the device is gone.
    ///
    /// # For parents
    /// `max_size` 0 says that the queue does not exist with these features.
    fn queue_limits(&self, q: QueueIndex) -> Result<QueueLimits>;

    /// Starts a queue, with everything it needs in one call.
    ///
    /// * `q`: below [`DeviceInfo::queues`], and stopped
    /// * `c`: size and alignments legal, areas mapped, state of the ring format in use
    /// * `kick`: as [`DeviceInfo::kicks`] allows
    /// * `call`: raised when the driver is to be called, at a batch boundary, outside sections and locks
    ///
    /// Returns the doorbell. With [`Kick::Given`] it rings the same queue.
    ///
    /// # Errors
    /// The queue is then not started; what else was written is void until the device is reset.
    ///
    /// # For parents
    /// Comes between FEATURES_OK and DRIVER_OK, or later. The queue is processed only with DRIVER_OK.
    fn start_queue(
        &self,
        q: QueueIndex,
        c: &QueueConfig,
        kick: Kick,
        call: Call,
    ) -> Result<Doorbell>;

    /// Replaces the call of a running queue. On return the old one is unused, and the new one was raised once, since an
    /// event may have gone to the old one alone.
    ///
    /// * `q`: a started queue
    /// * `call`: the new one
    ///
    /// # Errors
    /// When the call cannot be made; the old one stays.
    ///
    /// # For parents
    /// [`CallCell`](crate::CallCell) does it. Raises a closure of the user's, so no lock is held: other control calls come
    /// meanwhile, also a reset, after which it is an error or without effect. Queue `q` is not
    /// started, stopped or given yet another call before this has returned.
    fn replace_call(&self, q: QueueIndex, call: Call) -> Result<()>;
}

//! The device, from a VMM's side: what it is, its features, its configuration.

use std::fmt;
use std::sync::Arc;

use vdpa_core::{
    Asid, Device, Doorbell, Event, Features, GroupIndex, QueueIndex, Relay, Status, bits, graph,
};
use vdpa_mem::Deadline;

use super::watch::{Observer, Watch};
use super::{GuestQueue, InterruptKind, Interrupts, VmmError};

/// A device of the contract in front of a guest, with the calls that VMMs in Rust have at that boundary.
///
/// See the [module](super) for the order of the calls.
pub struct GuestDevice {
    device: Device,
    /// What the guest is offered.
    shown: Features,
    /// What is accepted for the guest, whether it knows of it or not.
    silent: Features,
    /// What the driver acknowledged, if it did.
    acked: Option<Features>,
    max_sizes: Vec<u16>,
    /// Assigned by the VMM, for every activation.
    pub(super) groups: Vec<(GroupIndex, Asid)>,
    active: Option<Active>,
    /// Set while it is stopped by the VMM.
    pub(super) paused: bool,
    /// Interrupts were not restored with a snapshot: they are raised once.
    pub(super) recall: bool,
    /// The status of an activation that failed, until the next reset.
    pub(super) failed: Option<Status>,
    watch: Watch,
}

/// What an activation gave.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) queues: Vec<(GuestQueue, Doorbell)>,
    pub(super) interrupts: Interrupts,
}

impl Active {
    pub(super) fn has(&self, index: u16) -> bool {
        self.queues.iter().any(|(queue, _)| queue.index() == index)
    }

    pub(super) fn indices(&self) -> Vec<u16> {
        let queues = self.queues.iter();
        queues.map(|(queue, _)| queue.index()).collect()
    }
}

/// Features that need something of the transport which a VMM's may not have. They are not offered to a guest unless the
/// VMM [says so](Options::offer).
pub const OF_TRANSPORT: Features = Features::of(&[
    // Packed rings: any size, and positions of another form.
    bits::RING_PACKED,
    // A notification register that carries data, which an eventfd does not.
    bits::NOTIFICATION_DATA,
    bits::NOTIF_CONFIG_DATA,
    // A register for the reset of one queue, and a further bit of the status byte.
    bits::RING_RESET,
    bits::SUSPEND,
    // A vIOMMU.
    bits::ACCESS_PLATFORM,
    // Functions beside the device.
    bits::SR_IOV,
    bits::ADMIN_VQ,
]);

/// The bits of the status byte that a driver sets before it knows of features.
const EARLY: Status = Status::ACKNOWLEDGE.union(Status::DRIVER);

/// How a device is put in front of a guest.
pub struct Options {
    hidden: Features,
    observer: Option<Arc<Observer>>,
    relay: Relay,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            hidden: OF_TRANSPORT,
            observer: None,
            relay: Relay::new(),
        }
    }
}

impl Options {
    /// Offers the guest these too, of [`OF_TRANSPORT`]: the VMM's transport carries them out.
    #[must_use]
    pub fn offer(mut self, features: Features) -> Self {
        self.hidden = self.hidden.difference(features);
        self
    }

    /// Keeps these from the guest.
    #[must_use]
    pub fn hide(mut self, features: Features) -> Self {
        self.hidden = self.hidden.union(features);
        self
    }

    /// Tells `observer` of every event: that the device is [gone](Event::Gone) or broken, is to be let go of, or
    /// [needs a reset](Event::NeedsReset), and why. It runs on the relay's thread, and is bound to what the closure of
    /// [`Interrupts::from_fn`] is bound to.
    #[must_use]
    pub fn observe(mut self, observer: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    /// Watches for events on the thread of this relay, which many devices may share. Each has one of its own otherwise.
    #[must_use]
    pub fn relay(mut self, relay: Relay) -> Self {
        self.relay = relay;
        self
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("hidden", &self.hidden)
            .finish_non_exhaustive()
    }
}

/// What the device is, its features, and its configuration.
impl GuestDevice {
    /// Puts `device`, which nobody drives, in front of a guest, as [`Options::default`] has it.
    ///
    /// # Errors
    /// As for [`with_options`](Self::with_options).
    pub fn new(device: Device) -> Result<Self, VmmError> {
        Self::with_options(device, Options::default())
    }

    /// Puts `device`, which nobody drives, in front of a guest.
    ///
    /// # Errors
    /// When the events of the device were taken, or it is gone.
    pub fn with_options(device: Device, options: Options) -> Result<Self, VmmError> {
        let device_type = device.info().device_type;
        let offered = device.offered();
        // What a guest is offered is 64 bits wide, and what depends on a bit that it does not get goes with that.
        let shown = offered.truncated_to_64().difference(options.hidden);
        let shown = graph::close_down(device_type, shown);
        let limits = |queue| device.queue_limits(QueueIndex::new(queue));
        let max_sizes = (0..device.info().queues)
            .map(|queue| limits(queue).map(|limits| limits.max_size))
            .collect::<Result<_, _>>()?;
        let watch = Watch::new(device.events()?, &options.relay, options.observer)?;
        Ok(Self {
            // The device's addresses are the guest's because they are translated: by the mappings, if not by an IOMMU.
            silent: offered & bits::ACCESS_PLATFORM.mask(),
            device,
            shown,
            acked: None,
            max_sizes,
            groups: Vec::new(),
            active: None,
            paused: false,
            recall: false,
            failed: None,
            watch,
        })
    }

    /// The device beneath, for what is not of every VMM: statistics, limits, names of capabilities.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The virtio device type: 1 for a network card, 2 for a disk.
    ///
    /// # Spec
    /// virtio 1.4 §5.
    pub fn device_type(&self) -> u32 {
        self.device.info().device_type.id()
    }

    /// The largest size of each queue, in descriptors. Constant: they are those before features are chosen, and a queue
    /// may be absent with some.
    pub fn queue_max_sizes(&self) -> &[u16] {
        &self.max_sizes
    }

    /// The features that the guest is offered.
    pub fn device_features(&self) -> u64 {
        self.shown.low_u64()
    }

    /// The 32 features from `page * 32` on; 0 beyond the last.
    pub fn device_features_page(&self, page: u32) -> u32 {
        self.shown.word(page)
    }

    /// Acknowledges features, beside those acknowledged since the last reset. What is not offered is not dropped: the
    /// negotiation refuses it, and says what it is.
    pub fn ack_features(&mut self, features: u64) {
        let acked = self.acked.unwrap_or_default();
        self.acked = Some(acked | Features::from_u64(features));
    }

    /// Acknowledges the 32 features from `page * 32` on, in place of what was acknowledged of these: a driver that
    /// writes the register again has changed its mind. Beyond the last page nothing can be acknowledged.
    pub fn ack_features_page(&mut self, page: u32, features: u32) {
        let acked = self.acked.unwrap_or_default();
        self.acked = Some(acked.with_word(page, features));
    }

    /// Acknowledges these and no others.
    pub fn set_acked_features(&mut self, features: u64) {
        self.acked = Some(Features::from_u64(features));
    }

    /// What the driver has acknowledged since the last reset.
    pub fn acked_features(&self) -> u64 {
        self.acked.unwrap_or_default().low_u64()
    }

    /// Negotiates what was acknowledged: what a transport calls when the guest writes FEATURES_OK, so that the guest reads
    /// back whether it holds. [`activate`](Self::activate) does it where it was not done.
    ///
    /// Each bit of the status byte is written for itself, in the order of the specification, and FEATURES_OK is read back.
    ///
    /// # Errors
    /// When nothing was acknowledged, something was that is not offered or does not go together, or the device refuses.
    ///
    /// # Spec
    /// virtio 1.4 §3.1.1, steps 2 to 6.
    pub fn negotiate(&mut self) -> Result<(), VmmError> {
        self.agree(EARLY)
    }

    /// Negotiates, as a driver that wrote the bits `early` before or with FEATURES_OK.
    pub(super) fn agree(&self, early: Status) -> Result<(), VmmError> {
        if self.device.status()?.contains(Status::FEATURES_OK) {
            return Ok(());
        }
        let acked = self.acked.ok_or(VmmError::NotAcked { call: "negotiate" })?;
        self.check_acked(acked)?;
        let byte = self.add_early(early)?;
        self.device.accept(acked | self.silent)?;
        Ok(self
            .device
            .write_status((byte | Status::FEATURES_OK).bits())?)
    }

    /// Whether a driver may have acknowledged these of what it was offered.
    pub(super) fn check_acked(&self, acked: Features) -> Result<(), VmmError> {
        let device_type = self.device.info().device_type;
        let checked = graph::check_accepted(device_type, self.shown, acked);
        Ok(checked.map_err(vdpa_core::Error::from)?)
    }

    /// Sets those of [`EARLY`] that are asked for, each by a byte of its own: there are devices that take one step at a
    /// time. Whatever is set by now stays set.
    pub(super) fn add_early(&self, asked: Status) -> Result<Status, VmmError> {
        let mut byte = self.device.status()?;
        for step in EARLY.iter().filter(|step| asked.contains(*step)) {
            byte |= step;
            self.device.write_status(byte.bits())?;
        }
        Ok(byte)
    }

    /// Reads configuration space.
    ///
    /// * `at`: offset in bytes
    /// * `to`: filled completely, or all zero after an error: a VMM that has no error to give hands out nothing stale
    ///
    /// # Errors
    /// When it reaches past the end; reading exactly to it is legal. When the device is gone.
    pub fn read_config(&self, at: u64, to: &mut [u8]) -> Result<(), VmmError> {
        let read = self
            .config_offset(at)
            .and_then(|at| Ok(self.device.read_config(at, to)?));
        if read.is_err() {
            to.fill(0);
        }
        read
    }

    /// Writes configuration space.
    ///
    /// # Errors
    /// As for [`read_config`](Self::read_config), and when the field cannot be written.
    pub fn write_config(&mut self, at: u64, from: &[u8]) -> Result<(), VmmError> {
        let at = self.config_offset(at)?;
        Ok(self.device.write_config(at, from)?)
    }

    /// A number that changes with the configuration; 0 always, where the device has none and reads are whole by
    /// themselves.
    ///
    /// # Errors
    /// When the device is gone.
    pub fn config_generation(&self) -> Result<u32, VmmError> {
        Ok(self.device.config_generation()?.unwrap_or(0))
    }

    /// What the device counts, by name.
    ///
    /// # Errors
    /// When it does not count.
    pub fn counters(&self) -> Result<Vec<(String, u64)>, VmmError> {
        let mut counters = Vec::new();
        let count = &mut |name: &str, value| counters.push((name.to_owned(), value));
        self.device.stats(count)?;
        Ok(counters)
    }

    /// Resets the device, waits for it, and lets go of it: when a VM ends, or the device is unplugged.
    ///
    /// # Errors
    /// When the reset does not end in time; the device comes back.
    pub fn close(self, by: Deadline) -> Result<(), (Box<Self>, VmmError)> {
        match self.device.reset(by) {
            Ok(()) | Err(vdpa_core::Error::Broken | vdpa_core::Error::Gone) => Ok(()),
            Err(e) => Err((Box::new(self), e.into())),
        }
    }

    fn config_offset(&self, at: u64) -> Result<u32, VmmError> {
        let size = self.device.info().config_size;
        u32::try_from(at).map_err(|_| VmmError::ConfigOffset { at, size })
    }

    pub(super) fn active(&self) -> Option<&Active> {
        self.active.as_ref()
    }

    pub(super) fn active_in(&mut self, call: &'static str) -> Result<&mut Active, VmmError> {
        self.active.as_mut().ok_or(VmmError::NotActive { call })
    }

    /// It is active with `active` from here on, or not at all.
    pub(super) fn set_active(&mut self, active: Option<Active>) -> Option<Active> {
        self.aim(active.as_ref().map(|active| &active.interrupts));
        std::mem::replace(&mut self.active, active)
    }

    /// Where changes of the configuration are told from here on.
    pub(super) fn aim(&self, interrupts: Option<&Interrupts>) {
        let call = interrupts.map(|interrupts| interrupts.call(InterruptKind::Config));
        self.watch.aim(call.unwrap_or_default());
    }

    pub(super) fn acked(&self) -> Option<Features> {
        self.acked
    }

    pub(super) fn set_acked(&mut self, acked: Option<Features>) {
        self.acked = acked;
    }
}

impl fmt::Debug for GuestDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuestDevice")
            .field("device", self.device.info())
            .field("acked", &self.acked)
            .field("active", &self.active)
            .field("paused", &self.paused)
            .finish_non_exhaustive()
    }
}

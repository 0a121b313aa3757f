//! A device that stands still: paused, saved, and gone on with elsewhere.
//!
//! ```text
//!  "vdpg" | version u16 = 1 | flags u16: 1, features were acknowledged | acknowledged u64 | its complement u64
//!  the image of the device (vdpa_core::image), with its own version and checksum; little-endian like this
//! ```

use std::sync::Arc;

use vdpa_core::{Call, DeviceImage, Features, GroupIndex, Kick, QueueIndex, Status};
use vdpa_mem::{Deadline, MappedGuestMemory};

use super::device::Active;
use super::{GuestDevice, GuestQueue, InterruptKind, Interrupts, Signal, VmmError};

const MAGIC: [u8; 4] = *b"vdpg";
const VERSION: u16 = 1;
const ACKED: u16 = 1;

/// Pause, snapshot, and what undoes them.
impl GuestDevice {
    /// Stops the device where it stands: on return it touches nothing. The guest does not see it. A device that does not
    /// run has nothing to stop, and pausing twice changes nothing.
    ///
    /// # Errors
    /// When the device cannot be suspended, or is not by the deadline; the stop then goes on, and can be waited for again
    /// or, once it is done, undone by [`resume`](Self::resume).
    pub fn pause(&mut self, by: Deadline) -> Result<(), VmmError> {
        if self.is_activated() {
            self.device().begin_suspend()?;
            self.paused = true;
            self.device().suspend(by)?;
        }
        Ok(())
    }

    /// Lets a paused device go on. Nothing happens to one that is not paused: a VMM resumes all that it has.
    ///
    /// # Errors
    /// When the pause is not complete, or the device cannot go on.
    pub fn resume(&mut self) -> Result<(), VmmError> {
        if !self.paused {
            return Ok(());
        }
        self.device().resume()?;
        self.paused = false;
        if std::mem::take(&mut self.recall)
            && let Some(active) = self.active()
        {
            // An interrupt that was on its way when the snapshot was taken may not be in what else was saved. One too
            // many is legal.
            for queue in active.indices() {
                active.interrupts.call(InterruptKind::Queue(queue)).raise();
            }
        }
        Ok(())
    }

    /// Whether it is paused.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// The device's state, whole: features, status, where each queue stands, what its class alone knows. It stays as it
    /// is, and may be resumed, reset or closed.
    ///
    /// # Errors
    /// When the device runs, needs a reset, or cannot save its state.
    pub fn snapshot(&self) -> Result<Vec<u8>, VmmError> {
        if self.is_activated() && !self.paused {
            return Err(VmmError::Running);
        }
        let image = self.device().save()?;
        let flags = if self.acked().is_some() { ACKED } else { 0 };
        let acked = self.acked_features();
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(acked.to_le_bytes());
        bytes.extend((!acked).to_le_bytes());
        bytes.extend(image.to_bytes());
        Ok(bytes)
    }

    /// Becomes the device that a snapshot was taken of, in this process or another. One that was active is active, and
    /// paused: [`resume`](Self::resume) lets it go on, and raises each queue's interrupt once.
    ///
    /// * `from`: from anywhere; damage is found
    /// * `memory`: with the contents of then, at the addresses of then
    /// * `kicks`: the eventfd of each queue by its index, if it has one
    ///
    /// # Errors
    /// When the bytes are no snapshot, of another version or another type of device; when features were negotiated that
    /// are not [offered](super::Options::offer) here, this device cannot be like that one, or is not in reset; when memory
    /// or interrupts do not fit the queues. The device is then in reset, or a reset is begun.
    pub fn restore<M>(
        &mut self,
        from: &[u8],
        memory: &Arc<M>,
        interrupts: Interrupts,
        kicks: impl FnMut(u16) -> Option<Signal>,
        by: Deadline,
    ) -> Result<(), VmmError>
    where
        M: MappedGuestMemory + Send + Sync + 'static,
    {
        let call = "restore";
        if self.is_activated() {
            return Err(VmmError::Active { call });
        }
        let (acked, image) = parse(from)?;
        let negotiated = Self::of_guest(image.features());
        if image.status().contains(Status::FEATURES_OK)
            && acked.map(Self::of_guest) != Some(negotiated)
        {
            let why = "it has acknowledged other features than are negotiated";
            return Err(VmmError::Snapshot { why });
        }
        if let Some(acked) = acked
            && image.status().contains(Status::FEATURES_OK)
            && image.device_type() == self.device().info().device_type
        {
            // The device may have what this VMM's transport does not carry out: a ring of another form, for one.
            self.check_acked(acked)?;
        }
        self.update_memory(memory, by)?;
        let live = Status::DRIVER_OK | Status::SUSPEND;
        let active = match image.status().intersects(live) {
            true => Some(self.go_on(&image, interrupts, kicks)?),
            false if image.queues().is_empty() => {
                self.device()
                    .restore(&image, |_| (Kick::Taken, Call::None))?;
                None
            }
            false => {
                let why = "it has queues, and was never active";
                return Err(VmmError::Snapshot { why });
            }
        };
        self.set_acked(acked);
        self.paused = active.is_some();
        self.recall = active.is_some();
        self.failed = None;
        self.groups = image
            .groups()
            .iter()
            .zip(0..)
            .map(|(asid, group)| (GroupIndex::new(group), *asid))
            .collect();
        let _none = self.set_active(active);
        Ok(())
    }

    /// Takes over an image of a device that was active.
    fn go_on(
        &self,
        image: &DeviceImage,
        interrupts: Interrupts,
        mut kicks: impl FnMut(u16) -> Option<Signal>,
    ) -> Result<Active, VmmError> {
        let queues = image.queues().iter();
        let queues = queues
            .map(|(index, config)| GuestQueue::from_config(*index, *config, kicks(index.get())));
        let queues: Vec<GuestQueue> = queues.collect();
        let indices: Vec<u16> = queues.iter().map(GuestQueue::index).collect();
        interrupts.check(&indices)?;
        let wire = |index: QueueIndex| {
            let mut of_index = queues.iter().filter(|queue| queue.index() == index.get());
            let kick = of_index
                .next()
                .map_or(Kick::Taken, GuestQueue::kick_of_contract);
            (kick, interrupts.call(InterruptKind::Queue(index.get())))
        };
        let doorbells = self.device().restore(image, wire)?;
        // They come in the order of the image.
        let doorbells = doorbells.into_iter().map(|(_, doorbell)| doorbell);
        Ok(Active {
            queues: queues.into_iter().zip(doorbells).collect(),
            interrupts,
        })
    }
}

/// The features acknowledged, and the image.
fn parse(from: &[u8]) -> Result<(Option<Features>, DeviceImage), VmmError> {
    let no = |why| VmmError::Snapshot { why };
    let short = || no("it is cut short");
    let (magic, rest) = from.split_first_chunk().ok_or_else(short)?;
    if *magic != MAGIC {
        return Err(no("it begins otherwise"));
    }
    let (version, rest) = rest.split_first_chunk().ok_or_else(short)?;
    let found = u16::from_le_bytes(*version);
    if found != VERSION {
        return Err(VmmError::SnapshotVersion {
            found,
            known: VERSION,
        });
    }
    let (flags, rest) = rest.split_first_chunk().ok_or_else(short)?;
    let (acked, rest) = rest.split_first_chunk().ok_or_else(short)?;
    let (twin, rest) = rest.split_first_chunk().ok_or_else(short)?;
    let (flags, acked) = (u16::from_le_bytes(*flags), u64::from_le_bytes(*acked));
    let is_legal = match flags {
        0 => acked == 0,
        ACKED => true,
        _ => false,
    };
    if !is_legal || acked != !u64::from_le_bytes(*twin) {
        return Err(no("its features are damaged"));
    }
    let image = DeviceImage::parse(rest).map_err(vdpa_core::Error::from)?;
    let acked = (flags == ACKED).then_some(Features::from_u64(acked));
    Ok((acked, image))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> Vec<u8> {
        let image = DeviceImage::assemble(
            vdpa_core::DeviceType::Entropy,
            Status::ACKNOWLEDGE,
            [Features::NONE; 2],
            Vec::new(),
            Vec::new(),
        );
        let mut bytes = MAGIC.to_vec();
        bytes.extend([1, 0, 1, 0]);
        bytes.extend(5_u64.to_le_bytes());
        bytes.extend((!5_u64).to_le_bytes());
        bytes.extend(image.unwrap().to_bytes());
        bytes
    }

    #[test]
    fn a_snapshot_that_is_cut_or_changed_anywhere_is_none() {
        let (acked, image) = parse(&whole()).unwrap();
        assert_eq!(acked, Some(Features::from_u64(5)));
        assert_eq!(image.status(), Status::ACKNOWLEDGE);
        for len in 0..whole().len() {
            assert!(parse(&whole()[..len]).is_err(), "{len} bytes of it");
        }
        for at in 0..whole().len() {
            let mut bytes = whole();
            bytes[at] ^= 0x10;
            assert!(parse(&bytes).is_err(), "byte {at} changed");
        }
    }

    #[test]
    fn a_later_version_is_told_apart() {
        let mut bytes = whole();
        bytes[4] = 2;
        let error = parse(&bytes).unwrap_err().to_string();
        assert!(error.contains("version is 2"), "{error}");
    }
}

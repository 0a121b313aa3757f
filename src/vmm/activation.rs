//! From features to a device that runs, and back: by the VMM's calls, or by the status byte of the guest.

use std::sync::Arc;

use vdpa_core::{Doorbell, Features, QueueIndex, Status, bits};
use vdpa_mem::{Deadline, MappedGuestMemory};

use super::device::Active;
use super::{GuestDevice, GuestQueue, InterruptKind, Interrupts, VmmError};

/// The bits by which a driver sets a device up.
const SET_UP: Status = Status::ACKNOWLEDGE
    .union(Status::DRIVER)
    .union(Status::FEATURES_OK)
    .union(Status::DRIVER_OK);

/// What a status byte of the guest's asks the VMM to do.
#[must_use = "a device that is to be activated does not run before it is"]
#[derive(Debug)]
pub enum Due {
    /// Nothing: the byte is taken.
    Nothing,
    /// [Activate](GuestDevice::activate) the device, with the queues that are ready: DRIVER_OK is set by that.
    Activate,
    /// A reset is begun, and [complete](GuestDevice::status) when the status reads 0. What an activation was given comes
    /// back.
    Reset(Option<Released>),
}

/// What an activation was given, given back by a reset: the device does not use it any more once that is complete.
#[derive(Debug)]
pub struct Released {
    /// The queues, with the eventfds that they were kicked by.
    pub queues: Vec<GuestQueue>,
    /// The interrupts.
    pub interrupts: Interrupts,
}

/// Activation, the status byte, and reset.
impl GuestDevice {
    /// Makes the device run: guest memory, queues, interrupts, and DRIVER_OK last.
    ///
    /// * `memory`: mapped as by [`update_memory`](Self::update_memory), if it is not
    /// * `interrupts`: for the configuration and each of the queues
    /// * `queues`: those that are ready; others may be started later
    /// * `by`: how long memory may take that is to be unmapped, and a reset after an activation that failed
    ///
    /// # Errors
    /// When the device is active, nothing was acknowledged, or queues and interrupts do not fit: nothing has happened
    /// then. As for [`negotiate`](Self::negotiate): FEATURES_OK is not set then. When memory cannot be mapped, a queue is
    /// not legal (its size, its areas, memory that does not cover them) or the device refuses it: the device is then in
    /// reset, shows the guest DEVICE_NEEDS_RESET, and can be activated anew.
    ///
    /// # Spec
    /// virtio 1.4 §3.1.1, steps 7 and 8.
    pub fn activate<M>(
        &mut self,
        memory: &Arc<M>,
        interrupts: Interrupts,
        queues: Vec<GuestQueue>,
        by: Deadline,
    ) -> Result<(), VmmError>
    where
        M: MappedGuestMemory + Send + Sync + 'static,
    {
        self.check(&interrupts, &queues)?;
        if let Err(e) = self.update_memory(memory, by) {
            return Err(self.give_up(e));
        }
        self.activate_mapped(interrupts, queues, by)
    }

    /// Makes the device run with what is mapped by now, by [`dma`](Self::dma): for memory of other types, and behind a
    /// vIOMMU.
    ///
    /// # Errors
    /// As for [`activate`](Self::activate).
    pub fn activate_mapped(
        &mut self,
        interrupts: Interrupts,
        queues: Vec<GuestQueue>,
        by: Deadline,
    ) -> Result<(), VmmError> {
        self.check(&interrupts, &queues)?;
        if self.failed.take().is_some() {
            // It was begun when the last activation came to nothing.
            self.device().reset(by)?;
        }
        self.negotiate()?;
        match self.run(&interrupts, &queues) {
            Ok(doorbells) => {
                let queues = queues.into_iter().zip(doorbells).collect();
                let _none = self.set_active(Some(Active { queues, interrupts }));
                Ok(())
            }
            Err(e) => Err(self.give_up(e)),
        }
    }

    /// Whether it runs, or is paused.
    pub fn is_activated(&self) -> bool {
        self.active().is_some()
    }

    /// The status byte as the guest reads it: for transports that leave it to the device.
    ///
    /// # Errors
    /// When the device is gone.
    pub fn status(&self) -> Result<u8, VmmError> {
        let own = self.device().status()?;
        let shown = match self.failed {
            Some(failed) => failed | Status::DEVICE_NEEDS_RESET,
            None => own,
        };
        Ok(shown.bits())
    }

    /// Takes a status byte of the guest's, any in any order, and says what is due. Never waits.
    ///
    /// # Errors
    /// When the byte asks for something that is not legal, or the device refuses; the guest sees it in the bits that are
    /// not set.
    ///
    /// # Spec
    /// virtio 1.4 §2.1.
    pub fn write_status(&mut self, written: u8) -> Result<Due, VmmError> {
        let asked = Status::from_bits_retain(written);
        if asked.is_empty() {
            self.device().write_status(0)?;
            return Ok(Due::Reset(self.forget()));
        }
        if self.failed.is_some() {
            // It reads DEVICE_NEEDS_RESET, and nothing else moves it.
            return Ok(Due::Nothing);
        }
        let early = asked.difference(Status::DRIVER_OK);
        let now = self.device().status()?;
        let goes_on =
            now.difference(asked).is_empty() && now.union(asked).difference(SET_UP).is_empty();
        if self.is_activated() || !(goes_on || early.is_empty()) {
            // What the device makes of it: it is refused, but for bits that gate nothing.
            self.device().write_status(written)?;
            return Ok(Due::Nothing);
        }
        if goes_on {
            self.add_early(asked)?;
            if asked.contains(Status::FEATURES_OK) {
                self.agree(asked)?;
            }
            if !asked.contains(Status::DRIVER_OK) {
                return Ok(Due::Nothing);
            }
            // Queues come first.
            if self.device().status()?.contains(Status::FEATURES_OK) {
                return Ok(Due::Activate);
            }
        }
        let status = self.device().status()?;
        Err(vdpa_core::Error::StatusRefused { written, status }.into())
    }

    /// Resets the device, and waits for it: features, queues and interrupts are gone, memory and assigned groups stay.
    /// What it was activated with comes back, if it was.
    ///
    /// # Errors
    /// When the device is gone, or not done by the deadline; it may still be.
    ///
    /// # Spec
    /// virtio 1.4 §2.4.
    pub fn reset(&mut self, by: Deadline) -> Result<Option<Released>, VmmError> {
        self.device().reset(by)?;
        Ok(self.forget())
    }

    /// What a reset makes of this side.
    fn forget(&mut self) -> Option<Released> {
        self.set_acked(None);
        self.paused = false;
        self.recall = false;
        self.failed = None;
        let Active { queues, interrupts } = self.set_active(None)?;
        let queues = queues.into_iter().map(|(queue, _)| queue).collect();
        Some(Released { queues, interrupts })
    }

    /// An activation came to nothing: nothing of it stays, and the guest is to see that.
    fn give_up(&mut self, why: VmmError) -> VmmError {
        self.failed = self.device().status().ok();
        // The error says what was wrong, and that is before this.
        let _lost = self.device().write_status(0);
        why
    }

    /// What can be said of an activation before anything is touched.
    fn check(&self, interrupts: &Interrupts, queues: &[GuestQueue]) -> Result<(), VmmError> {
        let call = "activate";
        if self.is_activated() {
            return Err(VmmError::Active { call });
        }
        if self.acked().is_none() {
            return Err(VmmError::NotAcked { call });
        }
        let mut indices: Vec<u16> = queues.iter().map(GuestQueue::index).collect();
        indices.sort_unstable();
        let twice = |pair: &&[u16]| pair.first() == pair.last();
        if let Some(queue) = indices.windows(2).find(twice).and_then(<[u16]>::first) {
            return Err(VmmError::QueueTwice { queue: *queue });
        }
        interrupts.check(&indices)
    }

    fn run(
        &self,
        interrupts: &Interrupts,
        queues: &[GuestQueue],
    ) -> Result<Vec<Doorbell>, VmmError> {
        for (group, asid) in &self.groups {
            self.device().assign_group(*group, *asid)?;
        }
        let start = |queue| self.start(queue, interrupts);
        let doorbells = queues.iter().map(start).collect::<Result<_, _>>()?;
        let status = self.device().status()? | Status::DRIVER_OK;
        self.device().write_status(status.bits())?;
        Ok(doorbells)
    }

    pub(super) fn start(
        &self,
        queue: &GuestQueue,
        interrupts: &Interrupts,
    ) -> Result<Doorbell, VmmError> {
        let call = interrupts.call(InterruptKind::Queue(queue.index()));
        let index = QueueIndex::new(queue.index());
        let device = self.device();
        Ok(device.start_queue(index, *queue.config(), queue.kick_of_contract(), call)?)
    }

    /// The features that hold, without what the guest does not know of.
    pub(super) fn of_guest(features: Features) -> Features {
        features.without(bits::ACCESS_PLATFORM)
    }
}

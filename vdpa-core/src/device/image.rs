//! The state of a whole device, taken and taken over.
//!
//! ```text
//!   here       suspend ─▶ save ─▶ bytes          (close, or resume if the other side did not want them)
//!   elsewhere             bytes ─▶ parse ─▶ restore ─▶ stopped, as it was saved ─▶ resume
//! ```

use super::{Device, Run};
use crate::image::{DeviceImage, ImageError, in_flight};
use crate::{Call, Doorbell, Error, Kick, QueueIndex, Result, Status};

impl Device {
    /// The state of the device, from which another one of its type goes on, in another process too: see
    /// [`restore`](Self::restore). It stays as it is, and may also be resumed.
    ///
    /// # Errors
    /// When the device runs (suspend it first), needs a reset, cannot save its class state, or holds chains in flight
    /// that it took over by a record.
    pub fn save(&self) -> Result<DeviceImage> {
        let held = self.enter_settled("save")?;
        let control = &held.control;
        let status = control.machine.status();
        if status.intersects(Status::FAILED | Status::DEVICE_NEEDS_RESET) {
            return Err(control.wrong_state("save", "reset the device first"));
        }
        let live = control.is_live();
        if live && !control.suspend.is_stopped() {
            return Err(control.wrong_state("save", "suspend the device first"));
        }
        let caps = self.inner.parent.caps();
        let mut queues = Vec::new();
        for (slot, number) in control.slots.iter().zip(0..) {
            let queue = QueueIndex::new(number);
            let (run, Some(mut config)) = (slot.run, slot.config) else {
                continue;
            };
            if run != Run::Started {
                slot.check_started(queue)?;
            }
            // One that was never live stands where it was started.
            if live && !control.suspend.is_restored() {
                let suspend = caps.suspend.ok_or_else(|| self.unsupported("suspend"))?;
                config.state = Some(self.heard(suspend.state(queue))?);
            }
            if config.state.is_some_and(in_flight) {
                let queue = number;
                return Err(ImageError::InFlight { queue }.into());
            }
            queues.push((queue, config));
        }
        let class = match caps.class_state {
            // Before FEATURES_OK it cannot be taken over, and says nothing.
            Some(class) if status.contains(Status::FEATURES_OK) => self.heard(class.save())?,
            _ => Vec::new(),
        };
        Ok(DeviceImage {
            device_type: self.inner.info.device_type,
            status,
            features: control.negotiated,
            handled: control.handled,
            groups: control.groups.clone(),
            queues,
            class,
        })
    }

    /// Becomes the device that `image` was taken of. If that one was live, this one is stopped as by
    /// [`suspend`](Self::suspend), and goes on with [`resume`](Self::resume).
    ///
    /// The device is in reset, and the memory is mapped at the addresses of before.
    ///
    /// * `wire`: how each queue of the image is kicked, and calls
    ///
    /// Returns the queues' doorbells.
    ///
    /// # Errors
    /// When the image is of another type of device, or has features, queues or a class state that this one cannot have.
    /// A reset of the device is then begun.
    pub fn restore(
        &self,
        image: &DeviceImage,
        wire: impl FnMut(QueueIndex) -> (Kick, Call),
    ) -> Result<Vec<(QueueIndex, Doorbell)>> {
        let held = self.enter_settled("restore")?;
        if !held.control.machine.status().is_empty() {
            return Err(held
                .control
                .wrong_state("restore", "reset the device first"));
        }
        drop(held);
        let (own, theirs) = (self.inner.info.device_type, image.device_type);
        if own != theirs {
            let (image, device) = (theirs, own);
            return Err(ImageError::DeviceType { image, device }.into());
        }
        let restored = self.become_like(image, wire);
        if restored.is_err() {
            // What it has taken over by now is of no use. The error says what was wrong.
            let _lost = self.write_status(0);
        }
        restored
    }

    fn become_like(
        &self,
        image: &DeviceImage,
        mut wire: impl FnMut(QueueIndex) -> (Kick, Call),
    ) -> Result<Vec<(QueueIndex, Doorbell)>> {
        let early = image.status & (Status::ACKNOWLEDGE | Status::DRIVER);
        if !early.is_empty() {
            self.write_status(early.bits())?;
        }
        let negotiated = image.status.contains(Status::FEATURES_OK);
        if negotiated {
            self.accept_beside(image.features, image.handled)?;
            self.write_status((early | Status::FEATURES_OK).bits())?;
        }
        // The owner may have done that before its driver came.
        for (asid, group) in image.groups.iter().zip(0..) {
            self.assign_group(crate::GroupIndex::new(group), *asid)?;
        }
        let mut doorbells = Vec::new();
        if !negotiated {
            return Ok(doorbells);
        }
        if !image.class.is_empty() {
            self.restore_class_state(&image.class)?;
        }
        for (queue, config) in &image.queues {
            let (kick, call) = wire(*queue);
            let doorbell = self.start_queue(*queue, *config, kick, call)?;
            doorbells.push((*queue, doorbell));
        }
        if image.status.intersects(Status::DRIVER_OK | Status::SUSPEND) {
            let mut held = self.enter_settled("restore")?;
            self.stand_still(&mut held.control, image.status.contains(Status::SUSPEND))?;
        }
        Ok(doorbells)
    }
}

impl From<ImageError> for Error {
    fn from(error: ImageError) -> Self {
        Self::Image(error)
    }
}

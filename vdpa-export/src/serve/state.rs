//! The status byte, and what the device alone knows.

use vdpa_core::Status;

use super::{ServeError, Served};

impl Served {
    /// The status byte, as the front end wrote it and the device took it.
    pub(crate) fn status(&self) -> Result<Status, ServeError> {
        let own = self.device.status()?;
        let settled = Status::FEATURES_OK | Status::DRIVER_OK;
        let early = self.written.difference(settled);
        let shown = self.written & own & settled;
        Ok(early | shown | (own & Status::DEVICE_NEEDS_RESET))
    }

    /// The front end writes the status byte. Queues start by the [`advance`](Self::advance) after it.
    ///
    /// Features that do not go together, or that the device refuses, are no error: FEATURES_OK reads as unset then, and the
    /// driver has to choose others.
    ///
    /// # Spec
    /// virtio 1.4 §3.1.1, steps 5 and 6.
    pub(crate) fn write_status(&mut self, written: Status) -> Result<(), ServeError> {
        if written.is_empty() {
            return self.reset();
        }
        // DEVICE_NEEDS_RESET is the device's own.
        let drivers = Status::ACKNOWLEDGE
            | Status::DRIVER
            | Status::FEATURES_OK
            | Status::DRIVER_OK
            | Status::FAILED;
        self.written |= written & drivers;
        if written.contains(Status::FEATURES_OK) {
            match self.agree() {
                Err(error) if error.refuses_features() => tracing::warn!("refused: {error}"),
                agreed => agreed?,
            }
        }
        if written.contains(Status::FAILED) {
            let own = self.device.status()?;
            self.device.write_status((own | Status::FAILED).bits())?;
        }
        Ok(())
    }

    /// What the device's class knows, once its queues are stopped.
    pub(crate) fn save_class(&mut self) -> Result<Vec<u8>, ServeError> {
        self.check_stopped()?;
        if let Some(class) = &self.class {
            return Ok(class.clone());
        }
        if self.device.status()?.contains(Status::DRIVER_OK) && !self.stale {
            // All of its queues are stopped, or should be: it stays so until one is started.
            self.device.suspend(self.by())?;
            let class = self.device.save_class_state()?;
            self.class = Some(class.clone());
            self.stale = true;
            return Ok(class);
        }
        Ok(self.device.save_class_state()?)
    }

    /// Becomes a device that knows this: at once if it can, else from its next start on.
    pub(crate) fn load_class(&mut self, class: Vec<u8>) -> Result<(), ServeError> {
        self.check_stopped()?;
        self.class = Some(class);
        self.stale = self.agreed;
        Ok(())
    }

    fn check_stopped(&self) -> Result<(), ServeError> {
        match self.running() {
            0 => Ok(()),
            running => Err(ServeError::StateWhileRunning { running }),
        }
    }
}

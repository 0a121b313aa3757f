//! What was last seen of a device: for registers that are read by an interrupt's own call.
//!
//! Hardware answers those at any time. A [`Device`] does not from inside a call, since a control call there may wait for
//! its own caller.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

use vdpa_core::{Device, Error, Result, Status};

#[derive(Default)]
pub(super) struct Mirror {
    status: AtomicU8,
    /// The device reported it.
    needs_reset: AtomicBool,
    generation: AtomicU32,
    /// Changes of the configuration that were reported since the generation was read.
    changes: AtomicU32,
}

impl Mirror {
    /// The status byte.
    pub(super) fn status(&self, device: &Device) -> Result<Status> {
        match device.status() {
            Ok(status) => {
                self.status.store(status.bits(), Ordering::Release);
                if status.is_empty() {
                    self.whole();
                }
                Ok(status)
            }
            Err(Error::InsideCall { .. }) => {
                let mut status = Status::from_bits_retain(self.status.load(Ordering::Acquire));
                let needs_reset = self.needs_reset.load(Ordering::Acquire);
                status.set(
                    Status::DEVICE_NEEDS_RESET,
                    needs_reset && !status.is_empty(),
                );
                Ok(status)
            }
            Err(e) => Err(e),
        }
    }

    /// The generation of the configuration, a byte of it: a driver looks twice, and not 256 changes apart.
    pub(super) fn generation(&self, device: &Device) -> Result<u8> {
        let generation = match device.config_generation() {
            Ok(generation) => {
                let generation = generation.unwrap_or(0);
                self.generation.store(generation, Ordering::Release);
                self.changes.store(0, Ordering::Release);
                generation
            }
            Err(Error::InsideCall { .. }) => {
                let changes = self.changes.load(Ordering::Acquire);
                self.generation
                    .load(Ordering::Acquire)
                    .wrapping_add(changes)
            }
            Err(e) => return Err(e),
        };
        let [low, ..] = generation.to_le_bytes();
        Ok(low)
    }

    /// The device reported a change of its configuration.
    pub(super) fn changed(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// The device reported that it needs a reset.
    pub(super) fn lost(&self) {
        self.needs_reset.store(true, Ordering::Release);
    }

    /// The device was reset.
    pub(super) fn whole(&self) {
        self.needs_reset.store(false, Ordering::Release);
    }
}

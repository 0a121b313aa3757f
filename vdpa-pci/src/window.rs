//! The configuration access window: registers of a BAR, reached through configuration space.

use std::sync::{Mutex, PoisonError};

use vdpa_core::Result;

use crate::access::{PciAccess, Width};

/// The window. One access at a time: each sets where it looks, and then looks.
///
/// # Spec
/// virtio 1.4 §4.1.4.9.
pub(crate) struct Window {
    /// Where its capability is in configuration space, in bytes.
    at: u16,
    busy: Mutex<()>,
}

// Offsets in the capability.
const BAR: u16 = 4;
const OFFSET: u16 = 8;
const LENGTH: u16 = 12;
const DATA: u16 = 16;

impl Window {
    pub(crate) fn new(at: u16) -> Self {
        Self {
            at,
            busy: Mutex::new(()),
        }
    }

    /// Reads a register. `at`: inside a structure, aligned to `width`.
    pub(crate) fn read(
        &self,
        access: &dyn PciAccess,
        bar: u8,
        at: u32,
        width: Width,
    ) -> Result<u32> {
        let _one = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        self.aim(access, bar, at, width)?;
        access.read_config(self.at + DATA, width)
    }

    /// Writes a register, if `legal` says so once nobody else is at it.
    pub(crate) fn write(
        &self,
        access: &dyn PciAccess,
        bar: u8,
        at: u32,
        (width, value): (Width, u32),
        legal: impl FnOnce() -> bool,
    ) -> Result<()> {
        let _one = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        if !legal() {
            return Ok(());
        }
        self.aim(access, bar, at, width)?;
        access.write_config(self.at + DATA, width, value)
    }

    /// Runs `then` while no access is under way.
    pub(crate) fn between<T>(&self, then: impl FnOnce() -> T) -> T {
        let _none = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        then()
    }

    fn aim(&self, access: &dyn PciAccess, bar: u8, at: u32, width: Width) -> Result<()> {
        access.write_config(self.at + BAR, Width::U8, u32::from(bar))?;
        // The length before the offset, which has to be a multiple of it at any time.
        let bytes = u32::from(width.bytes());
        access.write_config(self.at + LENGTH, Width::U32, bytes)?;
        access.write_config(self.at + OFFSET, Width::U32, at)
    }
}

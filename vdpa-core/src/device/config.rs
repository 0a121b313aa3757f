//! Configuration space.

use super::Device;
use crate::{Error, Result};

/// How often a read that changes under our hands is tried.
const TRIES: u32 = 64;

impl Device {
    /// Reads configuration space, as it stood at one moment.
    ///
    /// * `at`: offset in bytes
    /// * `to`: filled completely; reading exactly to the end is legal, and so is reading nothing
    ///
    /// # Errors
    /// When it reaches past the end, or the device changes the configuration faster than it can be read.
    ///
    /// # Spec
    /// virtio 1.4 §2.5.1: read again while the generation changes.
    pub fn read_config(&self, at: u32, to: &mut [u8]) -> Result<()> {
        let _held = self.enter("read_config")?;
        self.check_bounds(at, to.len())?;
        let parent = &self.inner.parent;
        let mut before = self.heard(parent.config_generation())?;
        let mut last: Option<Vec<u8>> = None;
        for _ in 0..TRIES {
            self.heard(parent.read_config(at, to))?;
            let after = self.heard(parent.config_generation())?;
            let same = match (before, after) {
                (Some(before), Some(after)) => before == after,
                // No generation: two reads that agree.
                _ => last.as_deref() == Some(&*to),
            };
            if same {
                return Ok(());
            }
            if after.is_none() {
                last = Some(to.to_vec());
            }
            before = after;
        }
        Err(Error::ConfigUnstable { tries: TRIES })
    }

    /// Writes configuration space.
    ///
    /// * `at`: offset in bytes
    /// * `from`: writing exactly to the end is legal
    ///
    /// # Errors
    /// When it reaches past the end, the field cannot be written, or the device is suspended.
    ///
    /// # Spec
    /// virtio 1.4 §3.4.1 and §3.4.2: a suspended device keeps its configuration.
    pub fn write_config(&self, at: u32, from: &[u8]) -> Result<()> {
        let held = self.enter_settled("write_config")?;
        if !held.control.suspend.is_running() {
            let need = "resume the device first";
            return Err(held.control.wrong_state("write_config", need));
        }
        self.check_bounds(at, from.len())?;
        self.heard(self.inner.parent.write_config(at, from))
    }

    /// A number that changes with the configuration, if the device has one.
    ///
    /// # Errors
    /// When the device is broken or gone.
    pub fn config_generation(&self) -> Result<Option<u32>> {
        let _held = self.enter("config_generation")?;
        self.heard(self.inner.parent.config_generation())
    }

    fn check_bounds(&self, at: u32, len: usize) -> Result<()> {
        let size = self.inner.info.config_size;
        let end = u32::try_from(len).ok().and_then(|len| at.checked_add(len));
        match end {
            Some(end) if end <= size => Ok(()),
            _ => Err(Error::ConfigBounds { at, len, size }),
        }
    }
}

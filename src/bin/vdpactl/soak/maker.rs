//! Where the devices of a soak come from, and what can be done to them.

use vdpa::core::{Attr, DeviceSpec, LinkState};
use vdpa::{Deadline, Device, Registry, Result};

use super::PATIENCE;

/// Opens devices of one device string.
pub(crate) struct Maker {
    registry: Registry,
    spec: DeviceSpec,
}

impl Maker {
    /// Of this string.
    ///
    /// # Errors
    /// When it cannot be parsed.
    pub(crate) fn new(spec: &str) -> Result<Self> {
        Ok(Self {
            registry: vdpa::registry(),
            spec: DeviceSpec::parse(spec)?,
        })
    }

    /// Another device.
    ///
    /// # Errors
    /// When the string is wrong, or the device cannot be had.
    pub(crate) fn open(&self) -> Result<Device> {
        self.registry.open_spec(&self.spec)
    }

    /// Why there cannot be a second device beside the first; `None` if there can.
    pub(crate) fn refuses_a_second(&self) -> Option<String> {
        match self.open() {
            Ok(second) => match second.close(Deadline::after(PATIENCE)) {
                Ok(()) => None,
                Err((_, error)) => Some(error.to_string()),
            },
            Err(error) => Some(error.to_string()),
        }
    }

    /// Sets the link of a device that was opened here.
    ///
    /// # Errors
    /// When the management side cannot.
    pub(crate) fn set_link(&self, device: &str, state: LinkState) -> Result<()> {
        self.registry
            .dev_set(self.spec.parent(), device, Attr::Link(state))
    }
}

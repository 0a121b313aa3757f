//! What is offered, chosen and agreed on.

use vdpa_core::{Device, DeviceType, Features, Format, Status, bits, graph};

use super::{Can, ServeError, Served};

/// What no protocol of these carries.
const NOT_CARRIED: Features = Features::of(&[
    // Kicks are eventfds, which carry no data.
    bits::NOTIFICATION_DATA,
    bits::NOTIF_CONFIG_DATA,
    // A driver's own bit of the status byte.
    bits::SUSPEND,
    // Functions beside the device.
    bits::SR_IOV,
    bits::ADMIN_VQ,
]);

/// What a front end is offered, and what is accepted without its knowledge.
pub(super) fn split(device: &Device, can: Can, hidden: Features) -> (Features, Features) {
    let offered = device.offered();
    let mut shown = offered
        .truncated_to_64()
        .difference(NOT_CARRIED.union(hidden));
    // Translation by the front end is for devices that wait for it. For the others the addresses are guest-physical, and
    // are translated by what is mapped.
    let mut silent = Features::NONE;
    if !can.miss {
        silent = offered & bits::ACCESS_PLATFORM.mask();
        shown = shown.difference(silent);
    }
    // To a back end the reset of a queue is a stop and a start.
    if !can.pause {
        shown = shown.without(bits::RING_RESET);
    }
    (graph::close_down(device.info().device_type, shown), silent)
}

impl Served {
    /// What a front end is offered.
    pub(crate) fn shown(&self) -> Features {
        self.shown
    }

    /// What the front end chose.
    pub(crate) fn chosen(&self) -> Features {
        self.chosen.unwrap_or_default()
    }

    /// The front end chose these. What they come to is seen when the device starts.
    ///
    /// # Errors
    /// When some were not offered, or differ from those that queues run with.
    pub(crate) fn choose(&mut self, f: Features) -> Result<(), ServeError> {
        let foreign = f.difference(self.shown);
        if !foreign.is_empty() {
            let features = foreign.display(self.device.info().device_type).to_string();
            return Err(ServeError::NotOffered { features });
        }
        if self.chosen == Some(f) {
            return Ok(());
        }
        if self.running() > 0 {
            return Err(ServeError::FeaturesChange);
        }
        self.chosen = Some(f);
        self.stale = self.agreed;
        Ok(())
    }

    /// Brings the device to FEATURES_OK with what was chosen, if it is not there.
    ///
    /// # Errors
    /// When features do not go together, or the device refuses them or its saved state.
    pub(super) fn agree(&mut self) -> Result<(), ServeError> {
        if self.agreed && !self.stale {
            return Ok(());
        }
        let chosen = self.chosen.ok_or(ServeError::NoFeatures)?;
        if !self.device.status()?.is_empty() {
            self.device.reset(self.by())?;
        }
        self.agreed = false;
        let handled = self.handled(chosen);
        self.device.accept_beside(chosen | self.silent, handled)?;
        let set = Status::ACKNOWLEDGE | Status::DRIVER | Status::FEATURES_OK;
        self.device.write_status(set.bits())?;
        if let Some(class) = &self.class {
            self.device.restore_class_state(class)?;
        }
        self.class = None;
        self.agreed = true;
        self.stale = false;
        Ok(())
    }

    /// What the front end handles itself: the control queue of a network device, when the features that need one are
    /// chosen without it.
    fn handled(&self, chosen: Features) -> Features {
        let control = bits::net::CTRL_VQ;
        let is_net = self.device.info().device_type == DeviceType::Net;
        match is_net && !chosen.contains(control) {
            true => control.mask(),
            false => Features::NONE,
        }
    }

    /// The format of the rings, by what was chosen.
    pub(crate) fn format(&self) -> Format {
        match self.chosen().contains(bits::RING_PACKED) {
            true => Format::Packed,
            false => Format::Split,
        }
    }
}

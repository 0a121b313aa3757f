//! What the management side changes of a simulated device while a driver uses it.

use std::sync::MutexGuard;

use vdpa_core::{Attr, Error, Event, Result};

use super::{SimDevice, Suspension};
use crate::class::SetError;
use crate::shared::lock;

impl SimDevice {
    /// Changes an attribute. The driver is told, if that changes what it sees. A suspended device changes when it goes
    /// on; what turns out to be impossible then is logged, and stays as it was.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a device without such an attribute, [`Error::Attr`] for a value that it cannot have.
    pub fn set(&self, attr: Attr) -> Result<()> {
        self.shared.class.check(attr).map_err(|e| self.unset(e))?;
        let mut suspension = lock(&self.suspension);
        if suspension.joint.is_some() {
            let kind = std::mem::discriminant(&attr);
            let other = |waiting: &Attr| std::mem::discriminant(waiting) != kind;
            suspension.attrs.retain(other);
            suspension.attrs.push(attr);
            return Ok(());
        }
        self.change(&[attr], suspension)
    }

    /// Changes attributes of a device that is not suspended, and is not before this is done: the lock says so.
    fn change(&self, attrs: &[Attr], suspension: MutexGuard<'_, Suspension>) -> Result<()> {
        let (mut seen, mut outcome) = (false, Ok(()));
        for attr in attrs {
            match self.shared.class.set(*attr) {
                Ok(changed) => seen |= changed,
                Err(e) => outcome = outcome.and(Err(self.unset(e))),
            }
        }
        // The owner may do anything when it is told.
        drop(suspension);
        if seen {
            self.shared.raise(Event::Config);
        }
        outcome
    }

    /// Makes the changes that came while the device was suspended. One that cannot be made any more is no failure of what
    /// ends the suspend.
    pub(super) fn catch_up(&self, attrs: &[Attr], suspension: MutexGuard<'_, Suspension>) {
        if let Err(e) = self.change(attrs, suspension) {
            tracing::warn!("not changed, as was asked for while it was suspended: {e}");
        }
    }

    fn unset(&self, error: SetError) -> Error {
        let device = self.info.name.clone();
        match error {
            SetError::Unsupported => Error::Unsupported {
                device,
                what: "such attribute",
            },
            SetError::Illegal(why) => Error::Attr { device, why },
        }
    }
}

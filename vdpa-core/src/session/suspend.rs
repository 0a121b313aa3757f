//! Stop and resume of the whole device, as a driver asks for them.

use vdpa_mem::Deadline;

use super::Core;
use crate::device::wait;
use crate::{Error, Result, Status, bits};

/// What a driver has set before the device is live.
const READY: Status = Status::ACKNOWLEDGE
    .union(Status::DRIVER)
    .union(Status::FEATURES_OK);
/// The status of a live device.
pub(super) const LIVE: Status = READY.union(Status::DRIVER_OK);
/// The status of one that the driver has suspended.
const SUSPENDED: Status = READY.union(Status::SUSPEND);

impl Core {
    pub(super) fn suspend(&self, by: Deadline) -> Result<()> {
        if !self.features.contains(bits::SUSPEND) {
            return self.device.suspend(by);
        }
        // Without DRIVER_OK: if the device is suspended by now, since an earlier wait ended too soon, that would resume it.
        self.device.write_status(SUSPENDED.bits())?;
        self.wait_for("the suspend", SUSPENDED, by)
    }

    pub(super) fn resume(&self, by: Deadline) -> Result<()> {
        if !self.features.contains(bits::SUSPEND) {
            return self.device.resume();
        }
        self.device.write_status(LIVE.bits())?;
        self.wait_for("the resume", LIVE, by)
    }

    /// Reads the status until it has `want`, and of SUSPEND and DRIVER_OK no other: virtio 1.4 §3.4.1.
    fn wait_for(&self, what: &'static str, want: Status, by: Deadline) -> Result<()> {
        wait::until(what, by, || {
            let status = self.device.status()?;
            if status.intersects(Status::DEVICE_NEEDS_RESET | Status::FAILED) {
                return Err(Error::State {
                    call: what,
                    status,
                    need: "reset the device first",
                });
            }
            if !status.contains(Status::FEATURES_OK) {
                return Err(Error::Interrupted { what });
            }
            let other = SUSPENDED.symmetric_difference(LIVE).difference(want);
            let shows = status.contains(want) && !status.intersects(other);
            Ok(wait::ready(shows.then_some(())))
        })
    }
}

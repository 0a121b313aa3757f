//! The control side of a session whose queues are elsewhere.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use vdpa_mem::Deadline;

use super::{Core, Queue, Running, Session};
use crate::{Device, Error, Events, Features, Result, Status};

/// What is left of a running session when its queues were split off.
///
/// Dropping it resets the device; the queues are then of no use, and safe.
#[must_use = "dropping it resets the device"]
pub struct Control {
    core: Box<Core>,
    /// By what the queues are known again: their call fds are theirs alone.
    queues: Vec<Arc<OwnedFd>>,
}

impl Control {
    pub(super) fn new(core: Box<Core>, queues: &[Queue]) -> Self {
        let queues = queues.iter().map(|q| Arc::clone(q.call_fd())).collect();
        Self { core, queues }
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.core.device
    }

    /// The features agreed on.
    pub fn features(&self) -> Features {
        self.core.features
    }

    /// The status byte.
    ///
    /// # Errors
    /// When the device is broken or gone.
    pub fn status(&self) -> Result<Status> {
        self.core.device.status()
    }

    /// Reads configuration space, as it stood at one moment.
    ///
    /// # Errors
    /// As for [`Device::read_config`].
    pub fn read_config(&self, at: u32, to: &mut [u8]) -> Result<()> {
        self.core.device.read_config(at, to)
    }

    /// Writes configuration space.
    ///
    /// # Errors
    /// As for [`Device::write_config`].
    pub fn write_config(&self, at: u32, from: &[u8]) -> Result<()> {
        self.core.device.write_config(at, from)
    }

    /// The events of the device, once.
    ///
    /// # Errors
    /// When they were taken already.
    pub fn events(&self) -> Result<Events> {
        self.core.device.events()
    }

    /// Puts the session together again.
    ///
    /// # Errors
    /// Both sides come back when `all` are not exactly the queues that were split off.
    pub fn join(mut self, mut all: Vec<Queue>) -> Result<Session<Running>, (Self, Vec<Queue>)> {
        all.sort_by_key(Queue::index);
        let same = |(known, queue): (&Arc<OwnedFd>, &Queue)| Arc::ptr_eq(known, queue.call_fd());
        if all.len() != self.queues.len() || !self.queues.iter().zip(&all).all(same) {
            return Err((self, all));
        }
        self.core.queues = all;
        Ok(Session::new(self.core))
    }

    /// Resets the device and gives it back; the memory of the session is unmapped. Queues that are still elsewhere are
    /// of no use any more. A device that is broken or gone is let go of.
    ///
    /// # Errors
    /// When the device does not let go in time.
    pub fn close(self, by: Deadline) -> Result<Device, (Self, Error)> {
        let queues = self.queues;
        match self.core.close(by) {
            Ok(device) => Ok(device),
            Err((core, e)) => Err((Self { core, queues }, e)),
        }
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control")
            .field("device", &self.core.device.info().name)
            .field("queues", &self.queues.len())
            .finish_non_exhaustive()
    }
}

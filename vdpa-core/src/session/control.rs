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

    /// Stops the device as a whole, as [`Session::suspend`] does; its queues stay where they are. What the device was done
    /// with can be polled for, and more can be submitted: it is seen after [`resume`](Self::resume).
    ///
    /// # Errors
    /// When the device cannot suspend, needs a reset, or is not stopped at the deadline; the stop then goes on and can
    /// be waited for again.
    ///
    /// # Spec
    /// virtio 1.4 §3.4.1.
    pub fn suspend(&self, by: Deadline) -> Result<()> {
        self.core.suspend(by)
    }

    /// Lets a suspended device go on, and waits until it does.
    ///
    /// # Errors
    /// When it cannot, or does not say so in time; resuming again waits again.
    ///
    /// # Spec
    /// virtio 1.4 §3.4.1.
    pub fn resume(&self, by: Deadline) -> Result<()> {
        self.core.resume(by)
    }

    /// Has another device of the type go on in place of this one, which is suspended, as [`Session::move_to`] does. The
    /// new one is suspended too. Its events are its own.
    ///
    /// * `queues`: all that were split off, in any order
    /// * `to`: is reset first
    ///
    /// Returns the old device, which is reset.
    ///
    /// # Errors
    /// As for [`Session::move_to`]: `to` comes back in reset, and the device of before is still there, suspended; or the
    /// old device, which does not let go in time. When `queues` are not exactly those that were split off.
    pub fn move_to<'q>(
        &mut self,
        queues: impl IntoIterator<Item = &'q mut Queue>,
        to: Device,
        by: Deadline,
    ) -> Result<Device, (Device, Error)> {
        let mut queues: Vec<_> = queues.into_iter().collect();
        if let Err(e) = queues.iter().try_for_each(|queue| self.check_own(queue)) {
            return Err((to, e));
        }
        if queues.len() != self.queues.len() {
            let what = "a device without all of its queues";
            let device = self.device().info().name.clone();
            return Err((to, Error::Unsupported { device, what }));
        }
        self.core.move_to(&mut queues, to, by)
    }

    /// Whether the queue is one of those that were split off.
    pub(super) fn owns(&self, queue: &Queue) -> bool {
        let call = queue.call_fd();
        self.queues.iter().any(|known| Arc::ptr_eq(known, call))
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

//! Queues that are stopped, reset and started again, while the rest of the device goes on.
//!
//! ```text
//!   Started ─ stop_queue ──▶ Stopped ─ start_queue ─▶ Started    goes on where it stood: nothing is lost
//!      │
//!      └───── reset_queue ─▶ Reset ─── start_queue ─▶ Started    begins afresh: what was in flight comes back undone,
//!                                                                or done, and nobody knows which
//! ```

use vdpa_mem::Deadline;

use super::queue::Phase;
use super::setup::ring_features;
use super::{Control, Lease, Queue};
use crate::{Call, Device, Error, Kick, Result};

impl Control {
    /// Stops a queue, so that the device touches nothing of it; everything stays as it is. What the device was done with
    /// can be polled for, and more can be submitted: it is seen after [`start_queue`](Self::start_queue).
    ///
    /// # Errors
    /// As for [`Device::stop_queue`]; when it is a queue of another session.
    pub fn stop_queue(&self, queue: &mut Queue, by: Deadline) -> Result<()> {
        self.check_own(queue)?;
        let at = self.device().stop_queue(queue.index(), by)?;
        queue.stopped(at);
        Ok(())
    }

    /// Resets a queue: the device forgets it, and touches nothing of it any more. What the device was done with before can
    /// be polled for until [`start_queue`](Self::start_queue).
    ///
    /// # Errors
    /// As for [`Device::reset_queue`]; when it is a queue of another session.
    ///
    /// # Spec
    /// virtio 1.4 §2.6.1.
    pub fn reset_queue(&self, queue: &mut Queue, by: Deadline) -> Result<()> {
        self.check_own(queue)?;
        self.device().reset_queue(queue.index(), by)?;
        queue.was_reset();
        Ok(())
    }

    /// Starts a queue again that was stopped or reset. Returns the buffers that were in flight when it was reset, which
    /// the device was not done with, or of which nobody polled; none if it was stopped.
    ///
    /// # Errors
    /// As for [`Device::start_queue`], and the queue can be started again; when it is a queue of another session. The
    /// buffers of a reset queue that could not be started again are free.
    ///
    /// # Spec
    /// virtio 1.4 §2.6.1.
    pub fn start_queue(&self, queue: &mut Queue) -> Result<Vec<Lease>> {
        self.check_own(queue)?;
        let mut back = Vec::new();
        if queue.phase() == Phase::Reset {
            back = queue.renew(ring_features(self.features()))?;
        }
        if let Err(e) = start(self.device(), queue) {
            for lease in back {
                queue.put(lease);
            }
            return Err(e);
        }
        // What was submitted meanwhile was not kicked for, or not heard.
        queue.kick();
        Ok(back)
    }

    /// Whether the queue was split off this session.
    pub(super) fn check_own(&self, queue: &Queue) -> Result<()> {
        match self.owns(queue) {
            true => Ok(()),
            false => Err(Error::Buffer {
                queue: queue.index(),
                why: "the queue is of another session",
            }),
        }
    }
}

/// Has the device serve the queue, from its beginning or from where it was stopped.
pub(super) fn start(device: &Device, queue: &mut Queue) -> Result<()> {
    // Polling is the rule, so calls are switched off before the device looks.
    queue.silence();
    let (config, call) = (*queue.config(), Call::EventFd(queue.call_fd().clone()));
    let doorbell = device.start_queue(queue.index(), config, Kick::Taken, call)?;
    queue.started(doorbell);
    Ok(())
}

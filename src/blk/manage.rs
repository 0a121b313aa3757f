//! What a driver can do to its device, and to single queues of it, while it goes on driving it.
//!
//! ```text
//!   suspend ─▶ (move_to another device) ─▶ resume         every request is done, before or after
//!   stop_queue ──▶ start_queue                            the same
//!   reset_queue ─▶ start_queue                            a request that was in the queue is done, or not
//! ```

use vdpa_core::{Control, Device, Queue, QueueIndex, Result};
use vdpa_mem::Deadline;

use super::lane::Lane;
use super::{BlkDriver, BlkError};

impl BlkDriver {
    /// Stops the device as a whole: on return it touches nothing, and keeps everything. What is done can be completed, and
    /// more can be submitted and published; it is seen after [`resume`](Self::resume).
    ///
    /// # Errors
    /// When the device cannot suspend, or is not stopped at the deadline; the stop then goes on and can be waited for again.
    pub fn suspend(&mut self, by: Deadline) -> Result<(), BlkError> {
        Ok(self.control.suspend(by)?)
    }

    /// Lets a suspended device go on where it stood.
    ///
    /// # Errors
    /// When it is not suspended, or does not go on in time; resuming again waits again.
    pub fn resume(&mut self, by: Deadline) -> Result<(), BlkError> {
        Ok(self.control.resume(by)?)
    }

    /// Has another device go on in place of the suspended one: it takes over the queues with all requests in them, and the
    /// state, but for what is on the disk. It is suspended still.
    ///
    /// * `to`: is reset first; a device with the same disk, or one with the same data
    ///
    /// Returns the old device, which is reset.
    ///
    /// # Errors
    /// With the device that is left: `to`, when it cannot take over, and the driver has the device of before, suspended; or
    /// the old one, when that does not let go in time.
    pub fn move_to(&mut self, to: Device, by: Deadline) -> Result<Device, (Device, BlkError)> {
        let queues = self.lanes.iter_mut().map(Lane::queue_mut);
        let moved = self.control.move_to(queues, to, by);
        moved.map_err(|(device, error)| (device, error.into()))
    }

    /// Stops a queue, so that the device touches nothing of it. What is done can be completed; what is submitted and
    /// published is seen after [`start_queue`](Self::start_queue).
    ///
    /// # Errors
    /// When there is no such queue, the device cannot stop single queues, the queue does not run, or it is not drained at the
    /// deadline; the stop then goes on and can be waited for again.
    pub fn stop_queue(&mut self, queue: u16, by: Deadline) -> Result<(), BlkError> {
        self.on_queue(queue, |control, queue| control.stop_queue(queue, by))
    }

    /// Resets a queue. What is done can be completed until [`start_queue`](Self::start_queue); a request that is not may be
    /// done or not.
    ///
    /// # Errors
    /// When there is no such queue, RING_RESET was not negotiated, the queue does not run, or it is not reset at the deadline;
    /// it can be waited for again.
    ///
    /// # Spec
    /// virtio 1.4 §2.6.1.
    pub fn reset_queue(&mut self, queue: u16, by: Deadline) -> Result<(), BlkError> {
        self.on_queue(queue, |control, queue| control.reset_queue(queue, by))
    }

    /// Starts a queue again that was stopped, and goes on where it stood, or reset, and begins afresh. Then `lost` is told the
    /// tag of each request that was in it: it comes back no more, and nobody knows whether it was done.
    ///
    /// # Errors
    /// When there is no such queue, the queue runs, or the device refuses; it can be started again.
    pub fn start_queue(&mut self, queue: u16, mut lost: impl FnMut(u64)) -> Result<(), BlkError> {
        let back = self.on_queue(queue, |control, queue| control.start_queue(queue))?;
        self.lane(queue)?.begin_again(back, &mut lost);
        Ok(())
    }

    /// Switches a queue on or off. One that is off runs on without side effects, if the device can do that.
    ///
    /// # Errors
    /// When there is no such queue, the device cannot do that, or the queue does not run.
    pub fn enable_queue(&mut self, queue: u16, on: bool) -> Result<(), BlkError> {
        self.lane(queue)?;
        let device = self.control.device();
        Ok(device.enable_queue(QueueIndex::new(queue), on)?)
    }

    fn on_queue<T>(
        &mut self,
        queue: u16,
        call: impl FnOnce(&Control, &mut Queue) -> Result<T>,
    ) -> Result<T, BlkError> {
        let count = self.queues();
        let Self { lanes, control, .. } = self;
        let lane = lanes.get_mut(usize::from(queue));
        let lane = lane.ok_or(BlkError::NoQueue { queue, count })?;
        Ok(call(control, lane.queue_mut())?)
    }
}

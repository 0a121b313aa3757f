//! What a driver can do to its device, and to single queues of it, while it goes on driving it.
//!
//! ```text
//!   suspend ─▶ (move_to another device) ─▶ resume         nothing is lost
//!   stop_queue ──▶ start_queue                            nothing that was in the queue is lost
//!   reset_queue ─▶ start_queue                            what was in the queue is lost
//! ```

use vdpa_core::session::Lease;
use vdpa_core::{Control, Device, Queue, QueueIndex, Result};
use vdpa_mem::Deadline;

use super::pair::Pair;
use super::{NetDriver, NetError};

/// Which queue of a pair.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Way {
    /// The one that frames arrive through.
    Receive,
    /// The one that frames are sent through.
    Transmit,
}

impl Way {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Receive, Self::Transmit];

    /// The number of this queue of `pair`, virtio 1.4 §5.1.2.
    pub const fn queue(self, pair: u16) -> QueueIndex {
        // A pair that is in use is below 2^15.
        let first = pair.wrapping_mul(2);
        QueueIndex::new(match self {
            Self::Receive => first,
            Self::Transmit => first.wrapping_add(1),
        })
    }
}

impl NetDriver {
    /// Stops the device as a whole: on return it touches nothing, and keeps everything. What has arrived can be received,
    /// and more can be pushed and published; it is sent after [`resume`](Self::resume).
    ///
    /// # Errors
    /// When the device cannot suspend, or is not stopped at the deadline; the stop then goes on and can be waited for again.
    pub fn suspend(&mut self, by: Deadline) -> Result<(), NetError> {
        Ok(self.control.suspend(by)?)
    }

    /// Lets a suspended device go on where it stood.
    ///
    /// # Errors
    /// When it is not suspended, or does not go on in time; resuming again waits again.
    pub fn resume(&mut self, by: Deadline) -> Result<(), NetError> {
        Ok(self.control.resume(by)?)
    }

    /// Has another device, such as a new one of the same device string, go on in place of the suspended one: it takes over
    /// everything, frames that wait in the old one too. It is suspended still.
    ///
    /// * `to`: is reset first
    ///
    /// Returns the old device, which is reset.
    ///
    /// # Errors
    /// With the device that is left: `to`, when it cannot take over, and the driver has the device of before, suspended; or
    /// the old one, when that does not let go in time.
    pub fn move_to(&mut self, to: Device, by: Deadline) -> Result<Device, (Device, NetError)> {
        let pairs = self.pairs.iter_mut().flat_map(Pair::queues_mut);
        let queues = pairs.chain(self.commands.as_mut().map(|commands| commands.queue_mut()));
        let moved = self.control.move_to(queues, to, by);
        moved.map_err(|(device, error)| (device, error.into()))
    }

    /// Switches a queue on or off. One that is off runs on without side effects: what is sent is discarded, and nothing is
    /// received. It takes effect soon, between batches.
    ///
    /// # Errors
    /// When there is no such pair, the device cannot do that, or the queue does not run.
    pub fn enable_queue(&mut self, pair: u16, way: Way, on: bool) -> Result<(), NetError> {
        self.pair(pair)?;
        let device = self.control.device();
        Ok(device.enable_queue(way.queue(pair), on)?)
    }

    /// Stops a queue, so that the device touches nothing of it. What has arrived can be received; what is pushed and
    /// published is sent after [`start_queue`](Self::start_queue). A device may drop what arrives for a receive queue that is
    /// stopped.
    ///
    /// # Errors
    /// When there is no such pair, the device cannot stop single queues, the queue does not run, or it is not drained at the
    /// deadline; the stop then goes on and can be waited for again.
    pub fn stop_queue(&mut self, pair: u16, way: Way, by: Deadline) -> Result<(), NetError> {
        self.on_queue(pair, way, |control, queue| control.stop_queue(queue, by))
    }

    /// Resets a queue: frames that the device was not done with are lost, or sent, and nobody knows which. What has arrived
    /// can be received until [`start_queue`](Self::start_queue).
    ///
    /// # Errors
    /// When there is no such pair, RING_RESET was not negotiated, the queue does not run, or it is not reset at the deadline;
    /// it can be waited for again.
    ///
    /// # Spec
    /// virtio 1.4 §2.6.1.
    pub fn reset_queue(&mut self, pair: u16, way: Way, by: Deadline) -> Result<(), NetError> {
        self.on_queue(pair, way, |control, queue| control.reset_queue(queue, by))
    }

    /// Starts a queue again that was stopped, and goes on where it stood, or reset, and begins afresh. Returns how many
    /// buffers of a transmit queue were in it when it was reset: as many as frames that are lost, or one of each buffer of
    /// large ones.
    ///
    /// # Errors
    /// When there is no such pair, the queue runs, or the device refuses; it can be started again.
    pub fn start_queue(&mut self, pair: u16, way: Way) -> Result<usize, NetError> {
        let back = self.on_queue(pair, way, |control, queue| control.start_queue(queue))?;
        let count = back.len();
        self.pair(pair)?.begin_again(way, back)?;
        Ok(match way {
            Way::Transmit => count,
            Way::Receive => 0,
        })
    }

    fn on_queue<T>(
        &mut self,
        pair: u16,
        way: Way,
        call: impl FnOnce(&Control, &mut Queue) -> Result<T>,
    ) -> Result<T, NetError> {
        self.pair(pair)?;
        let Self { pairs, control, .. } = self;
        let count = u16::try_from(pairs.len()).unwrap_or(u16::MAX);
        let there = pairs.get_mut(usize::from(pair));
        let there = there.ok_or(NetError::NoPair { pair, count })?;
        Ok(call(control, there.queue_mut(way))?)
    }
}

impl Pair {
    /// Both queues.
    fn queues_mut(&mut self) -> [&mut Queue; 2] {
        [&mut self.receive, &mut self.transmit]
    }

    fn queue_mut(&mut self, way: Way) -> &mut Queue {
        match way {
            Way::Receive => &mut self.receive,
            Way::Transmit => &mut self.transmit,
        }
    }

    /// A queue was started again, and these buffers were in it. None: it goes on, or nothing was in it.
    fn begin_again(&mut self, way: Way, back: Vec<Lease>) -> Result<(), NetError> {
        let afresh = !back.is_empty();
        let queue = self.queue_mut(way);
        for lease in back {
            queue.put(lease);
        }
        if way == Way::Transmit || !afresh {
            return Ok(());
        }
        // A frame of which only a part had come does not go on in a ring that begins afresh.
        for part in self.parts.drain(..) {
            self.receive.put(part.lease);
        }
        while let Some(lease) = self.receive.lease() {
            self.receive.receive(lease).map_err(|refused| refused.why)?;
        }
        self.receive.publish();
        Ok(())
    }
}

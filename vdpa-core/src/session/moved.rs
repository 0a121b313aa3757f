//! A session that goes on with another device.

use vdpa_mem::Deadline;

use super::{Core, Queue, Session, Suspended};
use crate::{
    Call, Device, DeviceImage, DmaHandle, Doorbell, Error, Kick, QueueIndex, Result, bits,
};

impl Session<Suspended> {
    /// Has another device of the type go on in place of this one: it takes over the state, and the memory of the first
    /// address space at the same addresses. Queues with their leases stay as they are; the session is suspended still.
    ///
    /// * `to`: is reset first
    ///
    /// Returns the session and the old device, which is reset. Devices in other processes: [`Device::save`].
    ///
    /// # Errors
    /// When the state cannot be taken, or `to` cannot take it over, or is not reset in time. The session comes back
    /// with the device of before, suspended, and `to` in reset. When the old device does not let go in time: the session
    /// has moved all the same, and the old device comes back in its place.
    pub fn move_to(
        mut self,
        to: Device,
        by: Deadline,
    ) -> Result<(Self, Device), (Self, Device, Error)> {
        let mut queues = std::mem::take(&mut self.core.queues);
        let moved = self
            .core
            .move_to(&mut queues.iter_mut().collect::<Vec<_>>(), to, by);
        self.core.queues = queues;
        match moved {
            Ok(old) => Ok((self, old)),
            Err((device, e)) => Err((self, device, e)),
        }
    }
}

impl Core {
    /// Has `to` go on in place of this device, with these queues, which are all there are. Returns the device that is left:
    /// the old one, or with an error `to`, or the old one that does not let go.
    pub(super) fn move_to(
        &mut self,
        queues: &mut [&mut Queue],
        to: Device,
        by: Deadline,
    ) -> Result<Device, (Device, Error)> {
        let dma = match self.hand_over(queues, &to, by) {
            Ok(dma) => dma,
            Err(e) => return Err((to, e)),
        };
        let old = std::mem::replace(&mut self.device, to);
        let old_dma = std::mem::replace(&mut self.dma, dma);
        match self.leave(&old, &old_dma, by) {
            Ok(()) => Ok(old),
            Err(e) => Err((old, e)),
        }
    }

    /// Makes `to` the device that this one is. Nothing has changed here but the doorbells.
    fn hand_over(&self, queues: &mut [&mut Queue], to: &Device, by: Deadline) -> Result<DmaHandle> {
        let dma = to.dma(self.dma.asid())?;
        to.reset(by)?;
        let image = self.device.save()?;
        let mappings = self.dma.mappings();
        dma.map(mappings.clone())?;
        let doorbells = match self.go_on_at(queues, to, &image) {
            Ok(doorbells) => doorbells,
            Err(e) => {
                to.reset(by)?;
                for mapping in mappings {
                    dma.unmap(mapping.iova, by)?;
                }
                return Err(e);
            }
        };
        for (q, doorbell) in doorbells {
            let queue = queues.iter_mut().find(|queue| queue.index() == q);
            if let Some(queue) = queue {
                queue.started(doorbell);
            }
        }
        Ok(dma)
    }

    /// `to`, which has the memory, becomes what is in the image, suspended as this session is.
    fn go_on_at(
        &self,
        queues: &[&mut Queue],
        to: &Device,
        image: &DeviceImage,
    ) -> Result<Vec<(QueueIndex, Doorbell)>> {
        let doorbells = to.restore(image, |q| {
            let call = queues.iter().find(|queue| queue.index() == q);
            let call = call.map_or(Call::None, |queue| Call::EventFd(queue.call_fd().clone()));
            (Kick::Taken, call)
        })?;
        if self.features.contains(bits::SUSPEND) {
            // It is suspended by the driver's status, and goes on by it: the owner, who restored it, holds it no more.
            to.resume()?;
        }
        Ok(doorbells)
    }

    /// The old device lets go.
    fn leave(&self, old: &Device, dma: &DmaHandle, by: Deadline) -> Result<()> {
        match old.reset(by) {
            Ok(()) => {}
            Err(Error::Broken | Error::Gone) => return Ok(()),
            Err(e) => return Err(e),
        }
        for range in &self.mapped {
            dma.unmap(*range, by)?;
        }
        Ok(())
    }
}

//! What is done to a block device while requests are under way.

use vdpa::Device;
use vdpa::blk::{BlkDriver, Setup};

use super::{Flight, Round, Stop, Trouble, soon};
use crate::soak::operation::{Loss, Operation};

impl Round<'_, '_> {
    /// Interrupts. What the operation may leave undone may be done or not from there on.
    pub(super) fn interrupt(
        &mut self,
        mut driver: BlkDriver,
        stop: &Stop,
    ) -> Result<BlkDriver, Trouble> {
        let queue = self.queue(stop);
        match stop.operation {
            Operation::Reset => {
                let device = driver.stop()?;
                driver = BlkDriver::start(device, &self.setup)?;
            }
            Operation::QueueReset => {
                driver.reset_queue(queue, soon())?;
                self.complete_one(&mut driver, queue)?;
                let mut back = 0;
                driver.start_queue(queue, |_| back += 1)?;
                let of_queue = |flight: &&Flight| flight.queue == queue;
                let known = self.flights.iter().flatten().filter(of_queue).count();
                if back != known {
                    return Err(Trouble::new(format!(
                        "queue {queue} had {known} requests in it, and {back} came back"
                    )));
                }
            }
            Operation::Suspend => {
                self.suspend(&mut driver)?;
                self.stand_still(&mut driver)?;
                driver.resume(soon())?;
            }
            Operation::Move => {
                self.suspend(&mut driver)?;
                // The disk's data is its owner's to move, and is not a part of the device's state.
                let to = self.copy(self.maker.open()?)?;
                let moved = driver.move_to(to, soon());
                let old = moved.map_err(|(_, error)| error)?;
                let old = self.look_through(old)?;
                old.close(soon()).map_err(|(_, error)| error)?;
                self.stand_still(&mut driver)?;
                driver.resume(soon())?;
            }
            Operation::Pause => {
                driver.stop_queue(queue, soon())?;
                self.burst(&mut driver, self.planned)?;
                driver.start_queue(queue, |_| {})?;
            }
            Operation::Disable => {
                driver.enable_queue(queue, false)?;
                self.burst(&mut driver, self.planned)?;
                driver.enable_queue(queue, true)?;
            }
            // No disk has them.
            Operation::Link | Operation::Pairs => {}
        }
        match stop.operation.loses_requests() {
            Loss::Nothing => {}
            Loss::Queue => self.cut_off(|flight| flight.queue == queue),
            Loss::Everything => self.cut_off(|_| true),
        }
        Ok(driver)
    }

    /// What is about to be done, in words.
    pub(super) fn describe(&self, stop: &Stop) -> String {
        match stop.operation {
            Operation::QueueReset | Operation::Pause | Operation::Disable => {
                format!("{} of queue {}", stop.operation, self.queue(stop))
            }
            operation => operation.to_string(),
        }
    }

    fn queue(&self, stop: &Stop) -> u16 {
        (stop.which % u64::from(self.setup.queues.max(1))) as u16
    }

    /// These requests are under way no more: each is done, or not.
    fn cut_off(&mut self, which: impl Fn(&Flight) -> bool) {
        for slot in &mut self.flights {
            let Some(flight) = slot.take_if(|flight| which(flight)) else {
                continue;
            };
            self.counts.dropped += 1;
            if flight.op == vdpa::blk::Op::Flush {
                continue;
            }
            self.sectors.end(&flight.places, flight.makes.is_some());
            if let Some(content) = flight.makes {
                self.sectors.may_hold(&flight.places, content);
            }
        }
    }

    /// Stops the device, and takes what was done by then.
    fn suspend(&mut self, driver: &mut BlkDriver) -> Result<(), Trouble> {
        driver.suspend(soon())?;
        self.complete(driver).map(drop)
    }

    /// A device that is suspended is given more, and must do nothing.
    fn stand_still(&mut self, driver: &mut BlkDriver) -> Result<(), Trouble> {
        self.burst(driver, self.planned)?;
        match self.complete(driver)? {
            0 => Ok(()),
            done => Err(Trouble::new(format!(
                "{done} requests were done by a device that was suspended"
            ))),
        }
    }

    /// Writes to a new device what is on the old one, which is suspended.
    fn copy(&mut self, to: Device) -> Result<Device, Trouble> {
        let mut driver = BlkDriver::start(to, &Setup::default())?;
        for places in self.sectors.stripes() {
            self.watch.beat();
            self.buffer.clear();
            // Where nobody knows what is there, there may be zeroes as well.
            for place in places.clone() {
                self.sectors.write_known(place, &mut self.buffer);
            }
            driver.write(self.sectors.sector(places.start), &self.buffer)?;
        }
        Ok(driver.stop()?)
    }

    /// Reads every sector of the device that was left: it was done with everything that it had said it was done with.
    fn look_through(&mut self, old: Device) -> Result<Device, Trouble> {
        let mut driver = BlkDriver::start(old, &Setup::default())?;
        self.read_back(&mut driver)?;
        Ok(driver.stop()?)
    }
}

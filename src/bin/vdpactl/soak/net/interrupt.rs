//! What is done to a network device while packets are under way.

use std::time::{Duration, Instant};

use vdpa::Deadline;
use vdpa::core::LinkState;
use vdpa::net::{Command, NetDriver, Way};

use super::{Operation, Round, Stop, Trouble, soon};
use crate::soak::operation::Loss;

/// How long packets are waited for that may have been too early.
const SOON: Duration = Duration::from_millis(100);

impl Round<'_, '_> {
    /// Interrupts, and excuses what the operation may lose: what is in flight when it is over, and nothing sent later.
    pub(super) fn interrupt(
        &mut self,
        mut driver: NetDriver,
        stop: &Stop,
    ) -> Result<NetDriver, Trouble> {
        let (pair, way) = self.queue(stop);
        match stop.operation {
            Operation::Reset => {
                let device = driver.stop()?;
                self.active = self.setup.pairs;
                self.ledger.forget_ways();
                driver = NetDriver::start(device, &self.setup)?;
            }
            Operation::QueueReset => {
                driver.reset_queue(pair, way, soon())?;
                self.burst_one(&mut driver)?;
                self.receive(&mut driver)?;
                driver.start_queue(pair, way)?;
            }
            Operation::Suspend => {
                self.suspend(&mut driver)?;
                self.stand_still(&mut driver)?;
                driver.resume(soon())?;
            }
            Operation::Move => {
                self.suspend(&mut driver)?;
                let to = self.maker.open()?;
                // As the first one's at the beginning. Where it cannot be set now, it could not be then.
                let _unable = self.maker.set_link(&to.info().name, LinkState::Up);
                let moved = driver.move_to(to, soon());
                let old = moved.map_err(|(_, error)| error)?;
                old.close(soon()).map_err(|(_, error)| error)?;
                self.stand_still(&mut driver)?;
                driver.resume(soon())?;
            }
            Operation::Link => {
                self.set_link(&driver, LinkState::Down)?;
                self.burst_one(&mut driver)?;
                self.set_link(&driver, LinkState::Up)?;
            }
            Operation::Pairs => {
                let pairs = self.pairs(stop);
                if pairs != self.active {
                    driver.command(Command::Pairs(pairs))?;
                    self.active = pairs;
                    self.ledger.forget_ways();
                }
            }
            Operation::Pause => {
                driver.stop_queue(pair, way, soon())?;
                self.burst_one(&mut driver)?;
                driver.start_queue(pair, way)?;
            }
            Operation::Disable => {
                driver.enable_queue(pair, way, false)?;
                self.burst_one(&mut driver)?;
                driver.enable_queue(pair, way, true)?;
                self.wait_for_effect(&mut driver, pair, way)?;
            }
        }
        self.excuse(stop.operation, pair, way);
        Ok(driver)
    }

    /// What is in flight, as far as the operation may lose it, need not come.
    fn excuse(&mut self, operation: Operation, pair: u16, way: Way) {
        match (operation.loses_packets(way), way) {
            (Loss::Nothing, _) => {}
            (Loss::Queue, Way::Transmit) => self.ledger.excuse(pair),
            (Loss::Queue, Way::Receive) => self.ledger.excuse_to(pair),
            (Loss::Everything, _) => self.ledger.excuse_all(),
        }
    }

    /// A queue that was switched on is on soon, and not at once: sends through it until everything comes.
    fn wait_for_effect(
        &mut self,
        driver: &mut NetDriver,
        pair: u16,
        way: Way,
    ) -> Result<(), Trouble> {
        let by = soon();
        loop {
            // Also what was sent the last time, and is late.
            self.excuse(Operation::Disable, pair, way);
            self.burst_one(driver)?;
            let late = Instant::now() + SOON;
            while self.ledger.all_under_way() > 0 && Instant::now() < late {
                driver.wait_any(&[], Deadline::at(late))?;
                self.receive(driver)?;
                self.check()?;
            }
            if self.ledger.all_under_way() == 0 {
                return Ok(());
            }
            if by.expired() {
                return Err(self.stands_still(driver));
            }
        }
    }

    /// What is about to be done, in words.
    pub(super) fn describe(&self, stop: &Stop) -> String {
        let (pair, way) = self.queue(stop);
        match stop.operation {
            Operation::QueueReset | Operation::Pause | Operation::Disable => {
                let way = match way {
                    Way::Receive => "receive",
                    Way::Transmit => "transmit",
                };
                format!("{} of {way} queue {pair}", stop.operation)
            }
            Operation::Pairs => format!("{} {}", self.pairs(stop), stop.operation),
            operation => operation.to_string(),
        }
    }

    /// An operation on a queue is on one that is in use.
    fn queue(&self, stop: &Stop) -> (u16, Way) {
        let pair = (stop.which >> 1) % u64::from(self.active.max(1));
        (pair as u16, Way::ALL[(stop.which & 1) as usize])
    }

    /// How many pairs are used next: another number, where there is one.
    fn pairs(&self, stop: &Stop) -> u16 {
        let others = u64::from(self.setup.pairs.saturating_sub(1)).max(1);
        let pairs = 1 + (stop.which % others) as u16;
        let pairs = pairs + u16::from(pairs >= self.active);
        pairs.min(self.setup.pairs)
    }

    /// Sends once through each pair, in the middle of an operation.
    fn burst_one(&mut self, driver: &mut NetDriver) -> Result<(), Trouble> {
        self.burst(driver, self.planned).map(drop)
    }

    /// Stops the device, and takes what it had given by then.
    fn suspend(&mut self, driver: &mut NetDriver) -> Result<(), Trouble> {
        driver.suspend(soon())?;
        self.receive(driver)?;
        self.check()
    }

    /// A device that is suspended is sent to, and must give nothing.
    fn stand_still(&mut self, driver: &mut NetDriver) -> Result<(), Trouble> {
        self.burst_one(driver)?;
        match self.receive(driver)? {
            0 => Ok(()),
            came => Err(Trouble::new(format!(
                "{came} packets came from a device that was suspended"
            ))),
        }
    }

    fn set_link(&self, driver: &NetDriver, state: LinkState) -> Result<(), Trouble> {
        let name = &driver.control().device().info().name;
        Ok(self.maker.set_link(name, state)?)
    }
}

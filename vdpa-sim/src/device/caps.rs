//! What a simulated device can do beyond the contract that every device keeps: all of it.

use std::sync::Arc;
use std::task::Poll;

use vdpa_core::config::Mac;
use vdpa_core::{
    Announce, Asid, ClassState, Error, Event, GroupIndex, GroupSpaces, InFlight, QueueEnable,
    QueueIndex, QueuePause, QueueReset, Result, Stats, Suspend,
};
use vdpa_mem::Window;
use vdpa_ring::QueueState;

use super::SimDevice;
use crate::shared::lock;
use crate::team::{Command, Joint, Stop};

impl GroupSpaces for SimDevice {
    fn assign(&self, g: GroupIndex, a: Asid) -> Result<()> {
        self.with_service(|service| {
            let (Some(asid), Some(space)) = (
                service.assigned.get_mut(g.place()),
                service.spaces.get(a.place()),
            ) else {
                // The numbers are in range.
                return Ok(());
            };
            *asid = a;
            for hand in &service.hands {
                hand.mailbox.post(Command::Assign {
                    group: g,
                    asid: a,
                    space: space.clone(),
                });
            }
            Ok(())
        })
    }
}

impl QueueReset for SimDevice {
    fn begin(&self, q: QueueIndex) -> Result<()> {
        self.begin_stop(q, Stop::Reset)
    }

    fn poll(&self, q: QueueIndex) -> Result<Poll<()>> {
        Ok(self.poll_stop(q).map(drop))
    }
}

impl QueuePause for SimDevice {
    fn begin(&self, q: QueueIndex) -> Result<()> {
        self.begin_stop(q, Stop::Pause)
    }

    fn poll(&self, q: QueueIndex) -> Result<Poll<QueueState>> {
        match self.poll_stop(q) {
            Poll::Pending => Ok(Poll::Pending),
            Poll::Ready(state) => state
                .map(Poll::Ready)
                .ok_or(Error::QueueNotStarted { queue: q }),
        }
    }
}

impl QueueEnable for SimDevice {
    fn set(&self, q: QueueIndex, on: bool) -> Result<()> {
        let (role, seat) = self.seat(q)?;
        self.with_service(|service| {
            let worker = self.worker(service.berth, role.unit);
            if !on {
                self.shared.class.queue_enabled(q, false);
            }
            if let Some(hand) = service.hands.get(worker) {
                let command = Command::Enable { at: seat, on };
                hand.mailbox
                    .post_instead(command, |waiting| waiting.enables(seat));
            }
            if on {
                self.shared.class.queue_enabled(q, true);
            }
            Ok(())
        })
    }
}

impl Suspend for SimDevice {
    fn begin(&self) -> Result<()> {
        let all = Joint::new(self.options.workers);
        // Waits for a change of an attribute that is under way.
        lock(&self.suspension).joint = Some(Arc::clone(&all));
        self.tell_all(|| Command::Suspend(Arc::clone(&all)))
    }

    fn poll(&self) -> Result<Poll<()>> {
        let done = lock(&self.suspension)
            .joint
            .as_ref()
            .is_none_or(|all| all.is_done());
        Ok(if done { Poll::Ready(()) } else { Poll::Pending })
    }

    fn state(&self, q: QueueIndex) -> Result<QueueState> {
        let state = self
            .shared
            .record(q.place())
            .and_then(|record| record.state);
        state.ok_or(Error::QueueNotStarted { queue: q })
    }

    fn resume(&self) -> Result<()> {
        let mut suspension = lock(&self.suspension);
        suspension.joint = None;
        let attrs = std::mem::take(&mut suspension.attrs);
        self.tell_all(|| Command::Resume)?;
        self.catch_up(&attrs, suspension);
        Ok(())
    }
}

impl InFlight for SimDevice {
    fn track(&self, q: QueueIndex, record: Window) -> Result<()> {
        if let Some(mut own) = self.shared.record(q.place()) {
            own.track = Some(record);
        }
        Ok(())
    }
}

impl ClassState for SimDevice {
    fn save(&self) -> Result<Vec<u8>> {
        Ok(self.shared.class.save())
    }

    fn restore(&self, from: &[u8]) -> Result<()> {
        let restored = self.shared.class.restore(from);
        if restored.map_err(|why| Error::ClassState { why })? {
            self.shared.raise(Event::Config);
        }
        Ok(())
    }
}

impl Announce for SimDevice {
    fn announce(&self, mac: Mac) -> Result<()> {
        self.shared.class.announce(mac);
        Ok(())
    }
}

impl Stats for SimDevice {
    fn read(&self, to: &mut dyn FnMut(&str, u64)) -> Result<()> {
        self.shared.class.stats(to);
        if let Some(faults) = &self.faults {
            faults.read(to);
        }
        Ok(())
    }
}

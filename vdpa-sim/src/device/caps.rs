//! What a simulated device can do beyond the contract that every device keeps: all of it.

use std::sync::Arc;
use std::task::Poll;

use vdpa_core::{
    ClassState, Error, QueueEnable, QueueIndex, QueuePause, QueueReset, Result, Stats, Suspend,
};
use vdpa_ring::QueueState;

use super::SimDevice;
use crate::shared::lock;
use crate::worker::{Command, Joint, Stop};

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
        self.tell(q, |at| Command::Enable { at, on })
    }
}

impl Suspend for SimDevice {
    fn begin(&self) -> Result<()> {
        let all = Joint::new(self.workers);
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
        let link = suspension.link.take();
        drop(suspension);
        self.tell_all(|| Command::Resume)?;
        link.map_or(Ok(()), |up| self.set_link(up))
    }
}

impl ClassState for SimDevice {
    fn save(&self) -> Result<Vec<u8>> {
        Ok(self.shared.class.save())
    }

    fn restore(&self, from: &[u8]) -> Result<()> {
        let restored = self.shared.class.restore(from);
        restored.map_err(|why| Error::ClassState { why })
    }
}

impl Stats for SimDevice {
    fn read(&self, to: &mut dyn FnMut(&str, u64)) -> Result<()> {
        self.shared.class.stats(to);
        Ok(())
    }
}

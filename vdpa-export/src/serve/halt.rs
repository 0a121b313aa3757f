//! The stop of a queue, with the place where it stands.
//!
//! ```text
//!   pause    this queue alone, drained
//!   suspend  all queues at once; each answers where it stood, and the device is reset before one starts again
//!   reset    all queues at once; a split ring has how far the device came, in its used index
//! ```

use vdpa_core::{Format, QueueConfig, QueueIndex, QueueState};
use vdpa_mem::Iova;

use super::{ServeError, Served, base};

impl Served {
    /// Stops a queue, if it runs, and says where it stands.
    ///
    /// # Errors
    /// When the device cannot stop it so that its place is known, or does not stop in time.
    pub(crate) fn halt(&mut self, q: QueueIndex) -> Result<u32, ServeError> {
        let fresh = base::fresh(self.format());
        let slot = self.slot(q)?;
        if !slot.is_running() {
            // Started anew, it needs a kick of its own.
            slot.kick = None;
            slot.awaits = None;
            return Ok(slot.base.unwrap_or(fresh));
        }
        let stopped = if self.can.pause {
            self.pause(q)
        } else if self.can.suspend {
            self.suspend_all()
        } else if self.format() == Format::Split {
            self.reset_all()
        } else {
            Err(ServeError::Unstoppable { queue: q })
        };
        match stopped {
            // Its driver has to begin anew, wherever it stood.
            Err(_) if self.is_lost()? => match self.reset_all() {
                Ok(()) | Err(ServeError::NoPlace { .. }) => {}
                Err(error) => return Err(error),
            },
            stopped => stopped?,
        }
        Ok(self.slot(q)?.base.unwrap_or(fresh))
    }

    fn pause(&mut self, q: QueueIndex) -> Result<(), ServeError> {
        let state = self.device.stop_queue(q, self.by())?;
        self.slot(q)?.stopped_at(Some(base::encode(state)));
        Ok(())
    }

    fn suspend_all(&mut self) -> Result<(), ServeError> {
        self.device.suspend(self.by())?;
        if self.can.class_state {
            self.class = Some(self.device.save_class_state()?);
        }
        for q in self.indices() {
            if self.slot(q)?.is_running() {
                let state = self.device.queue_state(q)?;
                self.slot(q)?.stopped_at(Some(base::encode(state)));
            }
        }
        self.stale = true;
        Ok(())
    }

    /// All have stopped by that, also where one of them does not say where it stands.
    fn reset_all(&mut self) -> Result<(), ServeError> {
        let split = self.format() == Format::Split;
        self.device.reset(self.by())?;
        self.stale = true;
        let mut unknown = None;
        for q in self.indices() {
            let (running, at) = {
                let slot = self.slot(q)?;
                (slot.is_running(), slot.started_at)
            };
            if !running {
                continue;
            }
            let at = at.filter(|_| split);
            let used = at.and_then(|device| self.index(device));
            if let (Some(at), None) = (at, used) {
                unknown = Some(ServeError::NoPlace { queue: q, at });
            }
            let base = used.map(|used| {
                base::encode(QueueState::Split {
                    avail: used,
                    used: None,
                })
            });
            self.slot(q)?.stopped_at(base);
        }
        unknown.map_or(Ok(()), Err)
    }

    /// Where a split ring begins of which the front end says 0. That is where it stands, or what DPDK's virtio-user says of
    /// every ring, also of one that a back end of before left in the midst of: then no ring could stand at 0 with the
    /// indices that it has, and it goes on from its used index, as it does in DPDK's own back end.
    pub(super) fn split_base(&self, config: &QueueConfig) -> u32 {
        let indices = (self.index(config.device), self.index(config.driver));
        let (Some(used), Some(avail)) = indices else {
            return 0;
        };
        // 0 is at most a ring ahead of what was used, and at most a ring behind what is available.
        let fits = used.wrapping_neg() <= config.size && avail <= config.size;
        if fits { 0 } else { u32::from(used) }
    }

    /// How far its writer came in the available or the used ring at `area`.
    ///
    /// # Spec
    /// virtio 1.4 §2.7.6 and §2.7.8: flags, then the index.
    fn index(&self, area: Iova) -> Option<u16> {
        let window = self.window(area.checked_add(2)?, 2)?;
        let mut index = [0; 2];
        let read = window.bytes().read(0, &mut index);
        (read == index.len()).then(|| u16::from_le_bytes(index))
    }
}

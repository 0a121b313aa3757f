//! Starting, stopping and changing queues.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::Poll;

use vdpa_mem::{Deadline, Window};
use vdpa_ring::QueueState;

use super::{Begun, Control, Device, Held, Run, checks, wait};
use crate::{
    Asid, Call, CallKind, Dma, DmaHandle, Doorbell, Error, GroupIndex, Kick, KickKind, QueueConfig,
    QueueIndex, QueueLimits, QueuePause, QueueReset, Relayed, Result, bits,
};

impl Device {
    /// What queue `q` can do with the features accepted.
    ///
    /// # Errors
    /// When the device has no such queue.
    pub fn queue_limits(&self, q: QueueIndex) -> Result<QueueLimits> {
        let mut held = self.enter("queue_limits")?;
        held.control.slot(q)?;
        self.heard(self.inner.parent.queue_limits(q))
    }

    /// Puts queue group `g` into address space `a`. All groups are in the first one at the start, and after each reset.
    ///
    /// # Errors
    /// When the device has no such group or space, cannot do that, or a queue of the group is started.
    pub fn assign_group(&self, g: GroupIndex, a: Asid) -> Result<()> {
        let mut held = self.enter_settled("assign_group")?;
        let count = self.inner.info.asids;
        if a.place() >= self.inner.dma.len() {
            return Err(Error::AsidOutOfRange { asid: a, count });
        }
        let groups = self.inner.info.groups;
        let now = held.control.groups.get(g.place()).copied();
        let now = now.ok_or(Error::GroupOutOfRange {
            group: g,
            count: groups,
        })?;
        if now == a {
            return Ok(());
        }
        let spaces = self.inner.parent.caps().spaces;
        let spaces = spaces.ok_or_else(|| self.unsupported("address spaces of queue groups"))?;
        for (slot, number) in held.control.slots.iter().zip(0..) {
            let queue = QueueIndex::new(number);
            if slot.run == Run::Stopped {
                continue;
            }
            let limits = self.heard(self.inner.parent.queue_limits(queue))?;
            if limits.group == g {
                return Err(Error::GroupBusy { group: g, queue });
            }
        }
        self.heard(spaces.assign(g, a))?;
        if let Some(asid) = held.control.groups.get_mut(g.place()) {
            *asid = a;
        }
        Ok(())
    }

    /// Keeps a record of what queue `q` has in flight in these bytes, from its next start on; see
    /// [`InFlight`](crate::InFlight). A device that died with the record leaves what it takes to go on: the queue is
    /// started with the same bytes, here or elsewhere, and takes again first, in order, what it had in flight.
    ///
    /// * `record`: [`record_bytes`](vdpa_ring::record_bytes) of the queue's format and size, aligned to 8; all zero for
    ///   a fresh queue
    ///
    /// # Errors
    /// When the device cannot keep one, the queue is started, it is too early, or the bytes are no such memory. What is
    /// in them is looked at when the queue starts.
    pub fn track_in_flight(&self, q: QueueIndex, record: Window) -> Result<()> {
        let mut held = self.enter_settled("track_in_flight")?;
        let cap = self.inner.parent.caps().in_flight;
        let cap = cap.ok_or_else(|| self.unsupported("a record of what is in flight"))?;
        held.control.check_negotiated("track_in_flight")?;
        let slot = held.control.slot(q)?;
        if slot.run != Run::Stopped {
            return Err(Error::QueueStarted { queue: q });
        }
        let bytes = record.bytes();
        if !bytes.is_writable() || !bytes.hva().is_aligned(8) {
            let why = "it has to be writable, and aligned to 8 bytes";
            return Err(Error::Record { queue: q, why });
        }
        let len = bytes.len();
        self.heard(cap.track(q, record))?;
        held.control.slot(q)?.record = Some(len);
        Ok(())
    }

    /// Starts a queue, with everything it needs in one call.
    ///
    /// * `q`: a stopped queue
    /// * `c`: its memory has to be mapped by now
    /// * `k`: [`Kick::Given`] is relayed if the parent does not take eventfds
    /// * `call`: made non-blocking if it is an eventfd; relayed if the parent cannot make it
    ///
    /// Returns the doorbell, which rings the queue whatever `k` is.
    ///
    /// # Errors
    /// When the set-up is not legal, before the parent sees it; or when the parent refuses.
    ///
    /// # Spec
    /// virtio 1.4 §3.1.1 step 7, and §2.6.1 for a queue that was reset.
    pub fn start_queue(
        &self,
        q: QueueIndex,
        c: QueueConfig,
        k: Kick,
        call: Call,
    ) -> Result<Doorbell> {
        let mut held = self.enter_settled("start_queue")?;
        let Held {
            control,
            dead,
            calls,
        } = &mut held;
        let slot = control.slot(q)?;
        slot.check_call(q)?;
        let run = slot.run;
        control.check_negotiated("start_queue")?;
        if !control.suspend.is_running() {
            return Err(control.wrong_state("start_queue", "resume the device first"));
        }
        match run {
            Run::Stopped => {}
            Run::Started | Run::Void => return Err(Error::QueueStarted { queue: q }),
            Run::Pausing | Run::Resetting => control.slot(q)?.check_started(q)?,
        }
        self.check_queue(q, &c, control)?;
        let needed = vdpa_ring::record_bytes(control.format(), c.size);
        let record = control.slot(q)?.record;
        if record.is_some_and(|len| len < needed as usize) {
            let why = "it is too small for the queue's size";
            return Err(Error::Record { queue: q, why });
        }
        if matches!(k, Kick::Given(_)) && control.negotiated.contains(bits::NOTIFICATION_DATA) {
            return Err(Error::KickWithoutData { queue: q });
        }

        // Kept for the error paths: the last one must not be dropped under the lock.
        calls.push(call.clone());
        let (call, call_relay) = self.fit_call(call)?;
        let parent = &self.inner.parent;
        let (kick, relayed_kick) = match k {
            Kick::Given(from) if self.inner.info.kicks != KickKind::Given => {
                (Kick::Taken, Some(from))
            }
            kick => (kick, None),
        };
        let doorbell = match self.heard(parent.start_queue(q, &c, kick, call)) {
            Ok(doorbell) => doorbell,
            Err(e) => {
                dead.extend(call_relay);
                return Err(e);
            }
        };
        let slot = control.slot(q)?;
        slot.run = Run::Started;
        slot.config = Some(c);
        slot.call = call_relay;
        if let Some(from) = relayed_kick {
            match self.relay_kick(q, from, &doorbell) {
                Ok(relay) => slot.kick = Some(relay),
                Err(e) => {
                    // It runs, but nobody can kick it.
                    slot.run = Run::Void;
                    return Err(e);
                }
            }
        }
        Ok(doorbell)
    }

    /// Replaces the call of a running queue. On return the old one is unused, and the new one was raised once.
    ///
    /// Closures run meanwhile, so other control calls are not held up. Only those that start, stop or change this queue
    /// answer that it is busy.
    ///
    /// # Errors
    /// When the queue does not run, or the call cannot be made; the old one then stays. When a reset came in between.
    pub fn replace_call(&self, q: QueueIndex, call: Call) -> Result<()> {
        let mut held = self.enter_settled("replace_call")?;
        let begun = held.begun("the replacement of a call");
        let slot = held.control.slot(q)?;
        slot.check_started(q)?;
        slot.replacing = true;
        drop(held);
        // Without the lock: this runs one closure and waits for another, and they may wait for who wants the lock.
        let outcome = self.fit_call(call).and_then(|(call, relay)| {
            self.heard(self.inner.parent.replace_call(q, call))?;
            Ok(relay)
        });

        // Also where the device was lost meanwhile.
        let mut held = self.lock();
        let interrupted = held.control.epoch != begun.epoch;
        let Held { control, dead, .. } = &mut held;
        let slot = control.slot(q)?;
        slot.replacing = false;
        if interrupted {
            // Whatever the parent said: the queue is not the one that it was asked about.
            dead.extend(outcome.ok().flatten());
            return Err(Error::Interrupted { what: begun.what });
        }
        dead.extend(std::mem::replace(&mut slot.call, outcome?));
        Ok(())
    }

    /// Switches a running queue on or off. One that is off runs on without side effects.
    ///
    /// # Errors
    /// When the device cannot do that, or the queue does not run.
    pub fn enable_queue(&self, q: QueueIndex, on: bool) -> Result<()> {
        let mut held = self.enter_settled("enable_queue")?;
        let slot = held.control.slot(q)?;
        slot.check_started(q)?;
        let enable = self.inner.parent.caps().queue_enable;
        let enable = enable.ok_or_else(|| self.unsupported("queue enable"))?;
        self.heard(enable.set(q, on))?;
        if let Some(config) = &mut slot.config {
            config.enabled = on;
        }
        Ok(())
    }

    /// Stops a queue and takes its state, with which it can be started again, here or elsewhere.
    ///
    /// # Errors
    /// When the device cannot pause queues, the queue does not run, or it is not drained at the deadline; the stop then
    /// goes on and can be waited for again.
    pub fn stop_queue(&self, q: QueueIndex, by: Deadline) -> Result<QueueState> {
        let begun = self.begin_stop(q)?;
        wait::until(begun.what, by, || self.poll_stop(q, Some(begun)))
    }

    /// Begins to stop a queue. Once begun, beginning again changes nothing.
    ///
    /// # Errors
    /// As for [`stop_queue`](Self::stop_queue).
    pub fn begin_stop_queue(&self, q: QueueIndex) -> Result<()> {
        self.begin_stop(q).map(drop)
    }

    fn begin_stop(&self, q: QueueIndex) -> Result<Begun> {
        let mut held = self.enter_settled("stop_queue")?;
        let begun = held.begun("the stop of a queue");
        let slot = held.control.slot(q)?;
        let pause = self.pause_cap()?;
        if slot.run != Run::Pausing {
            slot.check_started(q)?;
            self.heard(pause.begin(q))?;
            slot.run = Run::Pausing;
        }
        Ok(begun)
    }

    /// Whether the queue is stopped, and where it stands. Tells it once.
    ///
    /// # Errors
    /// When no stop was begun, or the queue cannot be drained.
    pub fn poll_stop_queue(&self, q: QueueIndex) -> Result<Poll<QueueState>> {
        self.poll_stop(q, None)
    }

    fn poll_stop(&self, q: QueueIndex, begun: Option<Begun>) -> Result<Poll<QueueState>> {
        let mut held = self.enter_since("stop_queue", begun)?;
        let Held { control, dead, .. } = &mut held;
        let slot = control.slot(q)?;
        if slot.run != Run::Pausing {
            return Err(Error::QueueNotStarted { queue: q });
        }
        let done = self.heard(self.pause_cap()?.poll(q))?;
        if done.is_ready() {
            slot.stop(dead);
        }
        Ok(done)
    }

    /// Resets one queue and waits until that is complete. Its state is lost.
    ///
    /// # Errors
    /// When RING_RESET is not negotiated, the queue does not run, or it is not reset at the deadline; it can be waited
    /// for again.
    ///
    /// # Spec
    /// virtio 1.4 §2.6.1.
    pub fn reset_queue(&self, q: QueueIndex, by: Deadline) -> Result<()> {
        let begun = self.begin_queue_reset(q)?;
        wait::until(begun.what, by, || self.poll_queue_reset(q, Some(begun)))
    }

    /// Begins to reset a queue, without waiting: a guest's processor may be behind it. Once begun, beginning again
    /// changes nothing.
    ///
    /// # Errors
    /// As for [`reset_queue`](Self::reset_queue).
    pub fn begin_reset_queue(&self, q: QueueIndex) -> Result<()> {
        self.begin_queue_reset(q).map(drop)
    }

    fn begin_queue_reset(&self, q: QueueIndex) -> Result<Begun> {
        let mut held = self.enter_settled("reset_queue")?;
        let begun = held.begun("the reset of a queue");
        held.control.slot(q)?;
        if !held.control.negotiated.contains(bits::RING_RESET) {
            return Err(Error::NotNegotiated {
                what: "the reset of a queue",
                feature: "RING_RESET",
            });
        }
        let reset = self.reset_cap()?;
        let slot = held.control.slot(q)?;
        if slot.run != Run::Resetting {
            slot.check_started(q)?;
            self.heard(reset.begin(q))?;
            slot.run = Run::Resetting;
        }
        Ok(begun)
    }

    /// Whether the queue is reset. Tells it once.
    ///
    /// # Errors
    /// When no reset of the queue was begun, or it failed.
    pub fn poll_reset_queue(&self, q: QueueIndex) -> Result<Poll<()>> {
        self.poll_queue_reset(q, None)
    }

    fn poll_queue_reset(&self, q: QueueIndex, begun: Option<Begun>) -> Result<Poll<()>> {
        let mut held = self.enter_since("reset_queue", begun)?;
        let Held { control, dead, .. } = &mut held;
        let slot = control.slot(q)?;
        if slot.run != Run::Resetting {
            return Err(Error::QueueNotStarted { queue: q });
        }
        let done = self.heard(self.reset_cap()?.poll(q))?;
        if done.is_ready() {
            slot.stop(dead);
        }
        Ok(done)
    }

    fn check_queue(&self, q: QueueIndex, c: &QueueConfig, control: &Control) -> Result<()> {
        let caps = self.inner.parent.caps();
        if !c.enabled && caps.queue_enable.is_none() {
            return Err(self.unsupported("queue enable"));
        }
        let limits = self.heard(self.inner.parent.queue_limits(q))?;
        let asid = control.groups.get(limits.group.place());
        let space = asid.and_then(|asid| self.inner.dma.get(asid.place()));
        let mappings = space.map(DmaHandle::mappings).unwrap_or_default();
        let misses = matches!(caps.dma, Dma::Software { misses: true });
        let facts = checks::Facts {
            limits,
            format: control.format(),
            event_idx: control.negotiated.contains(bits::EVENT_IDX),
            // One that waits for what is missing asks for the areas too.
            mappings: (!misses).then_some(&mappings),
        };
        checks::queue(q, c, &facts)
    }

    /// The call as the parent can make it, with the relay that this needs.
    fn fit_call(&self, call: Call) -> Result<(Call, Option<Relayed>)> {
        call.prepare()?;
        match (self.inner.info.calls, call) {
            (CallKind::EventFd, call @ Call::Fn(_)) => {
                let (event, relay) = self.inner.relay.call_fd(call)?;
                Ok((Call::EventFd(event), Some(relay)))
            }
            (_, call) => Ok((call, None)),
        }
    }

    fn relay_kick(&self, q: QueueIndex, from: Arc<OwnedFd>, to: &Doorbell) -> Result<Relayed> {
        self.inner.relay.kick(from, to.clone(), u32::from(q.get()))
    }

    fn pause_cap(&self) -> Result<&dyn QueuePause> {
        let pause = self.inner.parent.caps().queue_pause;
        pause.ok_or_else(|| self.unsupported("queue pause"))
    }

    fn reset_cap(&self) -> Result<&dyn QueueReset> {
        let reset = self.inner.parent.caps().queue_reset;
        reset.ok_or_else(|| self.unsupported("queue reset"))
    }
}

//! The device, as the contract has it.
//!
//! # How the contract's calls go over a socket
//! None may wait, and a request that has an answer takes a round trip to another process. So:
//!
//! * What is begun and polled is so here as well: stopping queues, one or all, and resetting send their requests and look
//!   for the answers when they are asked.
//! * What has to be done on return is asked for at once and waited for, all requests of a call together, for the time-out
//!   of the device string at most. A back end that lets it pass is given up, and so is broken: no later call waits for it.
//! * What is begun and polled may wait all the same, for the same time, in two cases. Some 250 requests fit the socket: where
//!   no acknowledgements were agreed on and the back end reads none, the next one waits for room. And a poll waits for a
//!   call of another thread's that waits for its answer.
//! * Kicks and calls are eventfds between driver and back end. They do not pass here. A back end can have a kick block and
//!   fill its counter, so that the driver's thread waits for it: who drives a device trusts it to go on, or drives it on a
//!   thread that may stay.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use vdpa_core::config::Mac;
use vdpa_core::{
    Announce, Asid, Call, Caps, DeviceInfo, Dma, DmaLimits, DmaMap, Doorbell, Features, GroupIndex,
    Host, Kick, Mapping, QueueConfig, QueueEnable, QueueIndex, QueueLimits, QueuePause, QueueReset,
    QueueState, Result, Status, Suspend, VdpaDevice, bits,
};
use vdpa_ring::Format;
use vdpa_vhost_user::{F_PROTOCOL_FEATURES, FromBack, FrontMessage, ProtocolFeatures};

use crate::VhostError;
use crate::config::Config;
use crate::line::{Line, Loss, Ticket};
use crate::memory::Memory;
use crate::queue::{Queue, Setup, Stopped, Switch, USED_BYTES, call};
use crate::roles::Roles;
use crate::watch::{Heard, Watch, eventfd};

/// A device that another process serves.
///
/// Dropping it ends the connection; the back end stops what it does with it then.
pub struct VhostUser {
    /// First to go, with its thread.
    pub(crate) watch: Mutex<Option<Watch>>,
    /// Until the watch has it.
    pub(crate) channel: Mutex<Option<FromBack>>,
    pub(crate) line: Arc<Line>,
    pub(crate) heard: Arc<Heard>,
    pub(crate) info: DeviceInfo,
    pub(crate) offered: Features,
    /// All that the back end offers.
    pub(crate) theirs: u64,
    pub(crate) protocol: ProtocolFeatures,
    pub(crate) switch: Switch,
    pub(crate) queue_size: u16,
    pub(crate) roles: Roles,
    pub(crate) config: Config,
    pub(crate) memory: Memory,
    pub(crate) control: Mutex<Control>,
}

/// What control calls change.
pub(crate) struct Control {
    /// The status byte, but for what the back end adds.
    status: Status,
    accepted: Option<Features>,
    queues: Vec<Queue>,
    reset: Reset,
    suspended: Suspended,
}

/// How far a reset is.
enum Reset {
    Complete,
    /// The queues are being stopped, and then this is answered.
    Begun(Vec<Ticket>),
}

/// How far a suspend is.
enum Suspended {
    No,
    /// By queue: those that have stopped.
    Stopping(Vec<Option<Stopped>>),
}

impl Suspended {
    /// The queue, if it has stopped with the others.
    fn parked(&mut self, q: QueueIndex) -> Option<&mut Stopped> {
        match self {
            Self::No => None,
            Self::Stopping(parked) => parked.get_mut(q.place())?.as_mut(),
        }
    }
}

impl Control {
    pub(crate) fn new(queues: Vec<Queue>) -> Self {
        Self {
            status: Status::empty(),
            accepted: None,
            queues,
            reset: Reset::Complete,
            suspended: Suspended::No,
        }
    }

    fn indexed(&mut self) -> impl Iterator<Item = (QueueIndex, &mut Queue)> {
        self.queues
            .iter_mut()
            .zip(0..)
            .map(|(queue, number)| (QueueIndex::new(number), queue))
    }

    /// Whether every queue has stopped. What it was is forgotten.
    ///
    /// * `broken`: a queue is, of which not everything comes back
    fn all_stopped(&mut self, line: &Line, broken: bool) -> Result<bool, VhostError> {
        let mut all = true;
        for (q, queue) in self.indexed() {
            let mut polled = queue.poll(line, q);
            if broken && matches!(polled, Ok(Poll::Pending)) {
                queue.give_up();
                polled = queue.poll(line, q);
            }
            match polled {
                Ok(Poll::Ready(_)) => {}
                Ok(Poll::Pending) => all = false,
                // It has stopped, wherever it says that it stands.
                Err(
                    e @ (VhostError::Position { .. }
                    | VhostError::Refused { .. }
                    | VhostError::Dropped { .. }),
                ) => tracing::debug!("{e}"),
                Err(e) => return Err(e),
            }
        }
        Ok(all)
    }
}

impl VhostUser {
    /// Ends the connection, as if the back end had left: who uses the device is told that it is gone.
    pub fn disconnect(&self) {
        self.line.lose(Loss::Closed);
    }

    /// The protocol features agreed on with the back end.
    pub fn protocol_features(&self) -> ProtocolFeatures {
        self.protocol
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The queue, which the core has checked to be there.
    fn queue<'c>(&self, control: &'c mut Control, q: QueueIndex) -> Result<&'c mut Queue> {
        let count = self.info.queues;
        let queue = control.queues.get_mut(q.place());
        queue.ok_or(vdpa_core::Error::QueueOutOfRange { queue: q, count })
    }

    fn has_status(&self) -> bool {
        self.protocol.contains(ProtocolFeatures::STATUS)
    }

    /// Tells the back end the features. `false`: it does not take them. What is offered here alone, as the address of a card
    /// without a configuration, is none of its.
    fn agree(&self, accepted: Features) -> Result<bool, VhostError> {
        let features = (accepted.low_u64() | F_PROTOCOL_FEATURES) & self.theirs;
        match self.line.ask(&FrontMessage::SetFeatures(features)) {
            Ok(_) => Ok(true),
            Err(VhostError::Refused { .. }) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Tells the back end the status, and asks for it where that may say something new.
    fn tell_status(&self, status: Status) -> Result<Status, VhostError> {
        if !self.has_status() {
            return Ok(status);
        }
        // One that refuses a bit does not show it when it is read.
        match self.line.ask(&FrontMessage::SetStatus(status.bits())) {
            Ok(_) | Err(VhostError::Refused { .. }) => {}
            Err(e) => return Err(e),
        }
        let read = self.read_status()?;
        Ok(status.difference(Status::FEATURES_OK.difference(read)))
    }

    /// The back end's own byte.
    fn read_status(&self) -> Result<Status, VhostError> {
        let read = self.line.value(&FrontMessage::GetStatus)?;
        let status = Status::from_bits_truncate(u8::try_from(read & 0xff).unwrap_or(0));
        if status.contains(Status::DEVICE_NEEDS_RESET) && !self.heard.needs_reset() {
            let why = "its back end set DEVICE_NEEDS_RESET".to_owned();
            self.heard.lost(None, why);
        }
        Ok(status)
    }

    /// Begins a reset, by all that the back end has for it.
    fn send_reset(&self, control: &mut Control) -> Result<(), VhostError> {
        for (q, queue) in control.indexed() {
            queue.stop(&self.line, q)?;
        }
        let mut tickets = Vec::new();
        if self.protocol.contains(ProtocolFeatures::RESET_DEVICE) {
            tickets.push(self.line.send(&FrontMessage::ResetDevice)?);
        }
        if self.has_status() {
            tickets.push(self.line.send(&FrontMessage::SetStatus(0))?);
        }
        control.suspended = Suspended::No;
        control.reset = Reset::Begun(tickets);
        Ok(())
    }

    /// Notices that a reset is complete.
    fn settle_reset(&self, control: &mut Control) -> Result<(), VhostError> {
        let broken = self.heard.needs_reset();
        if !matches!(control.reset, Reset::Begun(_)) || !control.all_stopped(&self.line, broken)? {
            return Ok(());
        }
        let Reset::Begun(tickets) = &mut control.reset else {
            return Ok(());
        };
        while let Some(ticket) = tickets.last() {
            match self.line.poll(ticket) {
                Ok(Poll::Pending) => return Ok(()),
                Ok(Poll::Ready(_)) => {}
                // Its queues have stopped; what else it has, it keeps.
                Err(e @ VhostError::Refused { .. }) => tracing::warn!("{e}"),
                Err(e) => return Err(e),
            }
            tickets.pop();
        }
        control.reset = Reset::Complete;
        control.status = Status::empty();
        control.accepted = None;
        self.heard.forget_needs_reset();
        Ok(())
    }

    fn start(&self, q: QueueIndex, c: &QueueConfig, kick: Kick, call: Call) -> Result<Doorbell> {
        let kick = match kick {
            Kick::Given(kick) => kick,
            Kick::Taken => Arc::new(eventfd().map_err(self.line.system("make an eventfd"))?),
        };
        let mut control = self.control();
        let packed = control.accepted.unwrap_or(Features::NONE);
        let format = match packed.contains(bits::RING_PACKED) {
            true => Format::Packed,
            false => Format::Split,
        };
        let live = control.status.contains(Status::DRIVER_OK);
        let queue = self.queue(&mut control, q)?;
        let setup = Setup {
            config: *c,
            format,
            kick: Arc::clone(&kick),
            call,
            used: match format {
                Format::Split => self.memory.window(c.device, USED_BYTES),
                Format::Packed => None,
            },
        };
        queue.start(&self.line, &self.heard, q, setup)?;
        if live {
            queue.go(&self.line, q, self.switch)?;
        }
        Ok(Doorbell::from(kick))
    }

    /// Begins to stop a queue, of which the state is kept or not.
    fn begin_stop(&self, q: QueueIndex) -> Result<()> {
        let mut control = self.control();
        Ok(self.queue(&mut control, q)?.stop(&self.line, q)?)
    }

    fn poll_stop(&self, q: QueueIndex) -> Result<Poll<QueueState>> {
        let mut control = self.control();
        match self.queue(&mut control, q)?.poll(&self.line, q)? {
            Poll::Pending => Ok(Poll::Pending),
            Poll::Ready(Some(stopped)) => Ok(Poll::Ready(stopped.at)),
            Poll::Ready(None) => Err(vdpa_core::Error::QueueNotStarted { queue: q }),
        }
    }
}

impl VdpaDevice for VhostUser {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn attach(&self, host: Host) -> Result<()> {
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        if watch.is_some() {
            let path = self.line.path().to_owned();
            return Err(VhostError::Open { path }.into());
        }
        self.line.report_to(Arc::clone(&host.events));
        let channel = self.channel.lock();
        let channel = channel.unwrap_or_else(PoisonError::into_inner).take();
        let heard = Arc::clone(&self.heard);
        let started = Watch::start(heard, host.events, channel);
        *watch = Some(started.map_err(self.line.system("watch it from a thread"))?);
        Ok(())
    }

    fn caps(&self) -> Caps<'_> {
        Caps {
            dma: Dma::Map(self),
            queue_reset: Some(self),
            queue_pause: Some(self),
            queue_enable: match self.switch {
                Switch::There => Some(self),
                Switch::Missing => None,
            },
            suspend: Some(self),
            announce: match self.protocol.contains(ProtocolFeatures::RARP) {
                true => Some(self),
                false => None,
            },
            ..Caps::NONE
        }
    }

    fn offered(&self) -> Features {
        self.offered
    }

    fn accept(&self, f: Features) -> Result<()> {
        self.line.check()?;
        self.control().accepted = Some(f);
        Ok(())
    }

    fn status(&self) -> Result<Status> {
        self.line.check()?;
        let mut control = self.control();
        self.settle_reset(&mut control)?;
        let settled = matches!(control.reset, Reset::Complete);
        if settled && self.has_status() && self.heard.take_stale() {
            self.read_status()?;
        }
        let mut status = control.status;
        if self.heard.needs_reset() && !status.is_empty() {
            status |= Status::DEVICE_NEEDS_RESET;
        }
        Ok(status)
    }

    fn add_status(&self, bits: Status) -> Result<()> {
        let mut control = self.control();
        let mut new = control.status | bits;
        if bits.contains(Status::FEATURES_OK) {
            let accepted = control.accepted.unwrap_or(Features::NONE);
            if !self.agree(accepted)? {
                new.remove(Status::FEATURES_OK);
            }
        }
        if bits.contains(Status::DRIVER_OK) {
            for (q, queue) in control.indexed() {
                queue.go(&self.line, q, self.switch)?;
            }
        }
        control.status = self.tell_status(new)?;
        Ok(())
    }

    fn begin_reset(&self) -> Result<()> {
        let mut control = self.control();
        self.line.check()?;
        match control.reset {
            Reset::Begun(_) => Ok(()),
            Reset::Complete => Ok(self.send_reset(&mut control)?),
        }
    }

    fn config_generation(&self) -> Result<Option<u32>> {
        let seen = self.config.generation(&self.line)?;
        Ok(Some(seen.wrapping_add(self.heard.config_changes())))
    }

    fn read_config(&self, at: u32, to: &mut [u8]) -> Result<()> {
        Ok(self.config.read(&self.line, at, to)?)
    }

    fn write_config(&self, at: u32, from: &[u8]) -> Result<()> {
        let device_type = self.info.device_type;
        Ok(self.config.write(&self.line, device_type, at, from)?)
    }

    fn queue_limits(&self, q: QueueIndex) -> Result<QueueLimits> {
        self.line.check()?;
        let accepted = self.control().accepted;
        let features = accepted.unwrap_or(self.offered);
        let split = accepted.is_some_and(|f| !f.contains(bits::RING_PACKED));
        let most = match self.queue_size.checked_ilog2() {
            // virtio 1.4 §4.1.4.3.1: a power of two, once it is known that rings are split.
            Some(log) if split => 1 << log,
            _ => self.queue_size,
        };
        Ok(QueueLimits {
            max_size: match self.roles.exists(q.get(), features) {
                true => most,
                false => 0,
            },
            group: GroupIndex::new(0),
        })
    }

    fn start_queue(
        &self,
        q: QueueIndex,
        c: &QueueConfig,
        kick: Kick,
        call: Call,
    ) -> Result<Doorbell> {
        self.start(q, c, kick, call)
    }

    fn replace_call(&self, q: QueueIndex, new: Call) -> Result<()> {
        let mut control = self.control();
        // One that is not live yet is told with the rest.
        if self.queue(&mut control, q)?.is_live() {
            self.line.ask(&call(&self.line, q, &new)?)?;
            self.line.settle()?;
        }
        let queue = self.queue(&mut control, q)?;
        queue.set_call(&new);
        if let Some(stopped) = control.suspended.parked(q) {
            stopped.setup.call = new.clone();
        }
        drop(control);
        // An event may have gone to the old one alone.
        new.raise();
        Ok(())
    }
}

impl DmaMap for VhostUser {
    fn limits(&self) -> DmaLimits {
        self.memory.limits()
    }

    fn map(&self, _: Asid, m: &Mapping) -> Result<()> {
        Ok(self.memory.map(&self.line, m)?)
    }

    fn unmap(&self, _: Asid, m: &Mapping) -> Result<()> {
        Ok(self.memory.unmap(&self.line, m)?)
    }
}

impl QueuePause for VhostUser {
    fn begin(&self, q: QueueIndex) -> Result<()> {
        self.begin_stop(q)
    }

    fn poll(&self, q: QueueIndex) -> Result<Poll<QueueState>> {
        self.poll_stop(q)
    }
}

/// To a back end, the reset of a queue is a stop of which nobody looks at the state.
impl QueueReset for VhostUser {
    fn begin(&self, q: QueueIndex) -> Result<()> {
        self.begin_stop(q)
    }

    fn poll(&self, q: QueueIndex) -> Result<Poll<()>> {
        Ok(self.poll_stop(q)?.map(|_| ()))
    }
}

impl Announce for VhostUser {
    fn announce(&self, mac: Mac) -> Result<()> {
        let mac = mac.octets();
        self.line.ask(&FrontMessage::SendRarp(mac))?;
        Ok(())
    }
}

impl QueueEnable for VhostUser {
    fn set(&self, q: QueueIndex, on: bool) -> Result<()> {
        let mut control = self.control();
        self.queue(&mut control, q)?.enable(&self.line, q, on)?;
        // One that rests is told when it goes on.
        if let Some(stopped) = control.suspended.parked(q) {
            stopped.setup.config.enabled = on;
        }
        Ok(())
    }
}

/// No request stops a device as a whole: all its queues are stopped, and started again where they stood.
impl Suspend for VhostUser {
    fn begin(&self) -> Result<()> {
        let mut control = self.control();
        let count = control.queues.len();
        for (q, queue) in control.indexed() {
            if queue.is_live() {
                queue.stop(&self.line, q)?;
            }
        }
        control.suspended = Suspended::Stopping((0..count).map(|_| None).collect());
        Ok(())
    }

    fn poll(&self) -> Result<Poll<()>> {
        let mut control = self.control();
        let Control {
            queues, suspended, ..
        } = &mut *control;
        let Suspended::Stopping(parked) = suspended else {
            return Ok(Poll::Pending);
        };
        let mut all = true;
        for ((queue, parked), number) in queues.iter_mut().zip(parked).zip(0..) {
            match queue.poll(&self.line, QueueIndex::new(number))? {
                Poll::Pending => all = false,
                Poll::Ready(None) => {}
                Poll::Ready(stopped) => *parked = stopped,
            }
        }
        Ok(if all { Poll::Ready(()) } else { Poll::Pending })
    }

    fn state(&self, q: QueueIndex) -> Result<QueueState> {
        let control = self.control();
        let stopped = match &control.suspended {
            Suspended::Stopping(parked) => parked.get(q.place()).and_then(Option::as_ref),
            Suspended::No => None,
        };
        let stopped = stopped.ok_or(vdpa_core::Error::QueueNotStarted { queue: q })?;
        Ok(stopped.at)
    }

    fn resume(&self) -> Result<()> {
        let mut control = self.control();
        let Control {
            queues, suspended, ..
        } = &mut *control;
        let Suspended::Stopping(parked) = suspended else {
            return Ok(());
        };
        for ((queue, parked), number) in queues.iter_mut().zip(parked).zip(0..) {
            let q = QueueIndex::new(number);
            let Some(stopped) = parked.as_ref() else {
                continue;
            };
            if queue.is_stopped() {
                queue.start(&self.line, &self.heard, q, stopped.again())?;
            }
            queue.go(&self.line, q, self.switch)?;
            *parked = None;
        }
        *suspended = Suspended::No;
        Ok(())
    }
}

//! The one way to a device: the validated handle that ends, sessions and tests hold.
//!
//! ```text
//!   Device::call ─▶ not inside a call closure? device alive? ─▶ lock ─▶ legal now? ─▶ VdpaDevice::call ─▶ unlock
//!   what takes time:  begin ─▶ unlock ─▶ sleep ─▶ lock, poll ─▶ ... until ready or the deadline
//! ```
//!
//! Validation that does not depend on the parent is here, once; a parent receives only legal calls, one at a time but for
//! `replace_call`, which runs the user's closures. The lock is never held over those or over a wait, so status can be read
//! and a reset begun while something else is waited for.

mod checks;
mod config;
mod image;
mod queues;
mod status;
mod suspend;
pub(crate) mod wait;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vdpa_mem::{AddressSpace, Deadline};
use vdpa_ring::Format;

use crate::config::Mac;
use crate::event::{Channel, Event, EventSink};
use crate::{
    Asid, Call, DeviceInfo, DmaHandle, Error, Events, Features, Host, QueueConfig, QueueIndex,
    Relay, Relayed, Result, Status, StatusMachine, VdpaDevice, bits, call, graph,
};

/// A device, opened. The one handle to it: not `Clone`, shared by reference.
///
/// All calls take `&self` and may come from any thread but from inside a call closure. None waits unless it takes a
/// [`Deadline`]. Once the device is broken or gone, by an event or because its parent answered so, every call answers an
/// error of kind [`Gone`](crate::ErrorKind::Gone), and closing it succeeds.
///
/// Dropping it begins a reset and does not wait for it; [`close`](Self::close) does. Either way memory stays mapped as
/// long as the device may touch it. A parent that was told of mappings has them taken back: by `close` once the reset is
/// complete, by a drop as soon as it is begun. A device that was dropped while it is live may then still be at its last
/// accesses: they meet a fault in what translates for it, which the system may log, and reach nothing. What a parent does
/// not let go of is never freed.
pub struct Device {
    inner: Box<Inner>,
}

/// Dropped in this order: relays into the device, the device, and what it relays with.
struct Inner {
    control: Mutex<Control>,
    channel: Arc<Channel>,
    /// By address space.
    dma: Vec<DmaHandle>,
    parent: Arc<dyn VdpaDevice>,
    info: DeviceInfo,
    relay: Relay,
    _losses: Arc<dyn Fn() + Send + Sync>,
}

/// What control calls need to know and change.
struct Control {
    machine: StatusMachine,
    /// What the driver chose last, if it was legal and the parent took it.
    accepted: Option<Features>,
    /// What holds since FEATURES_OK.
    negotiated: Features,
    /// What was accepted beside them, and the device does not see.
    handled: Features,
    reset: Reset,
    suspend: suspend::Suspension,
    slots: Vec<Slot>,
    /// The address space of each queue group.
    groups: Vec<Asid>,
    /// Counts resets, so that whoever waits knows that it was cut off.
    epoch: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reset {
    Complete,
    Begun,
}

/// A queue, as control calls see it.
#[derive(Default)]
struct Slot {
    run: Run,
    /// How it was started, while it is.
    config: Option<QueueConfig>,
    /// Bytes of the record of what is in flight, for its start and while it is started.
    record: Option<usize>,
    kick: Option<Relayed>,
    call: Option<Relayed>,
    /// Its call is being replaced, without the lock. Outlasts a reset: the parent is still at it.
    replacing: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Run {
    #[default]
    Stopped,
    Started,
    Pausing,
    Resetting,
    /// Half started: of no use before the device is reset.
    Void,
}

/// The control lock, held. What is to be dropped outside of it goes into `dead` and `calls`, which are dropped after it.
struct Held<'d> {
    control: MutexGuard<'d, Control>,
    dead: Vec<Relayed>,
    /// Closures own anything, and may be the last to.
    calls: Vec<Call>,
}

/// When something was begun, for whoever waits for it.
#[derive(Clone, Copy)]
struct Begun {
    what: &'static str,
    epoch: u64,
}

impl Device {
    /// Opens a device of a parent.
    ///
    /// * `relay`: where kicks and calls that the parent does not take itself are relayed
    ///
    /// # Errors
    /// When the parent does not attach, or offers features that no device may offer. Bits that nobody knows are no reason:
    /// a device of a later specification has them.
    pub fn new(parent: Arc<dyn VdpaDevice>, relay: Relay) -> Result<Self> {
        let info = parent.info().clone();
        let offered = graph::known(info.device_type, parent.offered());
        graph::check_offered(info.device_type, offered)?;
        let channel = Channel::new()?;
        let spaces: Arc<[AddressSpace]> = (0..info.asids.max(1))
            .map(|_| AddressSpace::new())
            .collect();
        parent.attach(Host {
            events: Arc::clone(&channel) as _,
            spaces: Arc::clone(&spaces),
            relay: relay.clone(),
        })?;
        let dma = spaces.iter().zip(0..).map(|(space, number)| {
            DmaHandle::new(Asid::new(number), space.clone(), &channel, &parent)
        });
        let dma = dma.collect();
        let losses = Arc::new(reset_by_losses(&channel, &spaces));
        vdpa_mem::watch_losses(&losses);
        let control = Control {
            machine: StatusMachine::new(),
            accepted: None,
            negotiated: Features::NONE,
            handled: Features::NONE,
            reset: Reset::Complete,
            suspend: suspend::Suspension::default(),
            slots: (0..info.queues).map(|_| Slot::default()).collect(),
            groups: (0..info.groups.max(1)).map(|_| Asid::new(0)).collect(),
            epoch: 0,
        };
        Ok(Self {
            inner: Box::new(Inner {
                control: Mutex::new(control),
                channel,
                dma,
                parent,
                info,
                relay,
                _losses: losses,
            }),
        })
    }

    /// What the device is.
    pub fn info(&self) -> &DeviceInfo {
        &self.inner.info
    }

    /// The names of what it can do beyond the contract that every device keeps.
    pub fn cap_names(&self) -> Vec<&'static str> {
        self.inner.parent.caps().names()
    }

    /// The features it offers, as far as virtio 1.4 knows them: whoever shows them to somebody else does not offer what it
    /// could not handle.
    ///
    /// # Spec
    /// virtio 1.4 §2.2.1 and §2.2.2.
    pub fn offered(&self) -> Features {
        graph::known(self.inner.info.device_type, self.inner.parent.offered())
    }

    /// The features that hold since FEATURES_OK; none before.
    pub fn negotiated(&self) -> Features {
        self.lock().control.negotiated
    }

    /// A handle to address space `a`.
    ///
    /// # Errors
    /// When the device has no such address space.
    pub fn dma(&self, a: Asid) -> Result<DmaHandle> {
        let handle = self.inner.dma.get(a.place()).cloned();
        handle.ok_or(Error::AsidOutOfRange {
            asid: a,
            count: self.inner.info.asids,
        })
    }

    /// The events of the device. They are taken once.
    ///
    /// # Errors
    /// When they were taken already.
    pub fn events(&self) -> Result<Events> {
        self.inner.channel.take()
    }

    /// Reports every counter of the device to `to`.
    ///
    /// # Errors
    /// When the device does not count.
    pub fn stats(&self, to: &mut dyn FnMut(&str, u64)) -> Result<()> {
        self.inner.channel.check()?;
        let stats = self.inner.parent.caps().stats;
        let stats = stats.ok_or_else(|| self.unsupported("statistics"))?;
        self.heard(stats.read(to))
    }

    /// Has the network learn that a card is reached through this device: for a driver that came from elsewhere, and does not
    /// say so itself.
    ///
    /// * `mac`: the address of the driver's card, which may be another one than the device's own
    ///
    /// # Errors
    /// When the device cannot, does not run, or `mac` is no address of one card.
    pub fn announce(&self, mac: Mac) -> Result<()> {
        let held = self.enter_settled("announce")?;
        let announce = self.inner.parent.caps().announce;
        let announce = announce.ok_or_else(|| self.unsupported("announcements"))?;
        held.control.check_negotiated("announce")?;
        if !held.control.is_live() || !held.control.suspend.is_running() {
            let need = "have the device run first";
            return Err(held.control.wrong_state("announce", need));
        }
        if !mac.is_unicast() {
            return Err(Error::Attr {
                device: self.inner.info.name.clone(),
                why: format!("{mac} is no address of one card, and nobody is reached by it"),
            });
        }
        self.heard(announce.announce(mac))
    }

    /// Resets the device, waits for it, and lets go.
    ///
    /// # Errors
    /// When the reset does not end in time; the device comes back. A device that is broken or gone is let go of.
    pub fn close(self, by: Deadline) -> Result<(), (Self, Error)> {
        match self.reset(by) {
            Ok(()) | Err(Error::Broken | Error::Gone) => Ok(()),
            Err(e) => Err((self, e)),
        }
    }

    /// Begins a control call.
    fn enter(&self, call: &'static str) -> Result<Held<'_>> {
        // Before the lock: the thread that runs the closure may be one that the holder of the lock waits for.
        if call::is_inside() {
            return Err(Error::InsideCall { call });
        }
        self.inner.channel.check()?;
        Ok(self.lock())
    }

    /// Begins a control call that is not legal while a reset is under way. One that is complete is noticed.
    fn enter_settled(&self, call: &'static str) -> Result<Held<'_>> {
        self.enter_since(call, None)
    }

    /// Begins a look at what was begun; an error once a reset has cut it off.
    fn enter_since(&self, call: &'static str, begun: Option<Begun>) -> Result<Held<'_>> {
        let mut held = self.enter(call)?;
        match begun {
            Some(Begun { what, epoch }) if epoch != held.control.epoch => {
                Err(Error::Interrupted { what })
            }
            _ => {
                self.settle(&mut held)?;
                held.check_settled()?;
                Ok(held)
            }
        }
    }

    fn lock(&self) -> Held<'_> {
        Held {
            control: self
                .inner
                .control
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
            dead: Vec::new(),
            calls: Vec::new(),
        }
    }

    /// What a parent answered. One that finds its device gone has said so for every call from then on, and as an event.
    fn heard<T>(&self, answer: Result<T>) -> Result<T> {
        answer.map_err(|e| self.inner.channel.heard(e))
    }

    fn unsupported(&self, what: &'static str) -> Error {
        Error::Unsupported {
            device: self.inner.info.name.clone(),
            what,
        }
    }
}

/// Reports that the device needs a reset once memory that is mapped for it is lost, whatever the parent makes of that. Whose
/// memory it is may be a peer that means it: the device is as good as before once it is reset and that memory unmapped.
fn reset_by_losses(
    channel: &Arc<Channel>,
    spaces: &Arc<[AddressSpace]>,
) -> impl Fn() + Send + Sync + use<> {
    let (channel, spaces) = (Arc::clone(channel), Arc::clone(spaces));
    move || {
        for (space, number) in spaces.iter().zip(0..) {
            let mappings = space.mappings();
            if let Some(lost) = mappings.iter().find(|mapping| mapping.memory.is_lost()) {
                let (asid, at) = (Asid::new(number), lost.iova.first());
                channel.raise(Event::NeedsReset {
                    queue: None,
                    why: format!("the file of the memory at {at} of address space {asid} was cut"),
                });
                return;
            }
        }
    }
}

impl Held<'_> {
    /// For calls that are not legal while a reset is under way.
    fn check_settled(&self) -> Result<()> {
        match self.control.reset {
            Reset::Complete => Ok(()),
            Reset::Begun => Err(Error::Busy { what: "a reset" }),
        }
    }

    /// What is begun now, for [`Device::enter_since`].
    fn begun(&self, what: &'static str) -> Begun {
        let epoch = self.control.epoch;
        Begun { what, epoch }
    }
}

impl Control {
    /// Whether the driver has made the device live. While it has it suspended, that is the bit which shows it.
    fn is_live(&self) -> bool {
        let live = Status::DRIVER_OK | Status::SUSPEND;
        self.machine.status().intersects(live)
    }

    /// The error for a call that comes at the wrong time.
    fn wrong_state(&self, call: &'static str, need: &'static str) -> Error {
        Error::State {
            call,
            status: self.machine.status(),
            need,
        }
    }

    /// For calls that are legal between FEATURES_OK and the device's end.
    fn check_negotiated(&self, call: &'static str) -> Result<()> {
        let status = self.machine.status();
        if !status.contains(Status::FEATURES_OK) {
            return Err(self.wrong_state(call, "negotiate features first"));
        }
        if status.intersects(Status::FAILED | Status::DEVICE_NEEDS_RESET) {
            return Err(self.wrong_state(call, "reset the device first"));
        }
        Ok(())
    }

    fn format(&self) -> Format {
        if self.negotiated.contains(bits::RING_PACKED) {
            Format::Packed
        } else {
            Format::Split
        }
    }

    /// The slot of `q`, or the error that says how many there are.
    fn slot(&mut self, q: QueueIndex) -> Result<&mut Slot> {
        let count = u16::try_from(self.slots.len()).unwrap_or(u16::MAX);
        self.slots
            .get_mut(q.place())
            .ok_or(Error::QueueOutOfRange { queue: q, count })
    }
}

impl Slot {
    /// The queue has stopped: what was relayed for it ends, outside the lock.
    fn stop(&mut self, dead: &mut Vec<Relayed>) {
        self.run = Run::Stopped;
        self.config = None;
        self.record = None;
        dead.extend(self.kick.take());
        dead.extend(self.call.take());
    }

    /// For calls that are legal only while the queue runs.
    fn check_started(&self, q: QueueIndex) -> Result<()> {
        self.check_call(q)?;
        match self.run {
            Run::Started => Ok(()),
            Run::Stopped | Run::Void => Err(Error::QueueNotStarted { queue: q }),
            Run::Pausing => Err(Error::QueueBusy {
                queue: q,
                what: "a stop",
            }),
            Run::Resetting => Err(Error::QueueBusy {
                queue: q,
                what: "a queue reset",
            }),
        }
    }

    /// For calls that are not legal while the parent replaces the call of the queue.
    fn check_call(&self, q: QueueIndex) -> Result<()> {
        match self.replacing {
            false => Ok(()),
            true => Err(Error::QueueBusy {
                queue: q,
                what: "a replacement of its call",
            }),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Nobody is left to tell. A parent that cannot even begin keeps its memory alive by itself; one that panics does not
        // keep the device in reach of memory.
        let begun = catch_unwind(AssertUnwindSafe(|| self.parent.begin_reset()));
        // After it, and at once: how long a reset takes is the device's to say, and a drop does not wait. One that has not
        // stopped by now is kept out by what translates for it.
        self.dma.iter().for_each(DmaHandle::take_back);
        if let Err(panic) = begun {
            resume_unwind(panic);
        }
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("info", &self.inner.info)
            .finish_non_exhaustive()
    }
}

//! The driver side, as types: what may be done when is checked by the compiler, and drives any device of any parent.
//!
//! ```text
//!   Session::open ─▶ Session<Negotiating> ─ negotiate ─▶ Session<Configured> ─ run ─▶ Session<Running>
//!                         offered, config                   queue, queue, ...          │    ▲      │ suspend ▲ resume
//!                                                                              split ▼    │ join  ▼         │
//!                                                                     (Control, Vec<Queue>)   Session<Suspended>
//! ```
//!
//! [`Control`] suspends, resumes and moves the device too, and stops, resets and restarts single queues, for whoever keeps
//! the queues where they are.
//!
//! The steps are those of virtio 1.4 §3.1.1, in that order, and FEATURES_OK is always read back. A step that fails gives
//! the session back as it was. Each queue has memory of its own: its ring, and a pool of buffers of one size.
//!
//! Dropped in this order: queues with their leases, the device (which begins a reset), the mappings. Memory is released
//! when the device is gone too, so a queue that outlives its session is useless but safe.

mod cells;
mod control;
mod moved;
mod pool;
mod queue;
mod restart;
mod setup;
mod suspend;

use std::fmt;
use std::marker::PhantomData;

use vdpa_mem::{Deadline, IovaRange};
use vdpa_ring::QueueState;

use self::queue::Phase;
use crate::{
    Asid, Device, DeviceType, DmaHandle, Error, Features, QueueIndex, QueueLimits, Result, Status,
    graph,
};

pub use control::Control;
pub use pool::{Completions, Done, Lease, Link, Part};
pub use queue::{Queue, Refused};
pub use setup::{Backing, QueueSetup};

/// The driver has found the device, and learns what it is.
#[derive(Debug)]
pub struct Negotiating(());
/// Features are agreed on; queues are set up.
#[derive(Debug)]
pub struct Configured(());
/// The device is live.
#[derive(Debug)]
pub struct Running(());
/// The device is stopped as a whole, and keeps everything.
#[derive(Debug)]
pub struct Suspended(());

/// A driver's hold on a device, in state `S`: [`Negotiating`], [`Configured`], [`Running`] or [`Suspended`].
#[must_use = "dropping a session resets the device"]
pub struct Session<S> {
    core: Box<Core>,
    state: PhantomData<S>,
}

/// What a session owns, whatever state it is in. Dropped in this order.
struct Core {
    queues: Vec<Queue>,
    device: Device,
    dma: DmaHandle,
    features: Features,
    iovas: setup::Iovas,
    mapped: Vec<IovaRange>,
}

impl<S> Session<S> {
    fn new(core: Box<Core>) -> Self {
        Self {
            core,
            state: PhantomData,
        }
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.core.device
    }

    /// What kind of device it is.
    pub fn device_type(&self) -> DeviceType {
        self.core.device.info().device_type
    }

    /// Reads configuration space, as it stood at one moment.
    ///
    /// # Errors
    /// As for [`Device::read_config`].
    pub fn read_config(&self, at: u32, to: &mut [u8]) -> Result<()> {
        self.core.device.read_config(at, to)
    }

    /// Resets the device and gives it back; the memory of the session is unmapped. One that is broken or gone is let go
    /// of.
    ///
    /// # Errors
    /// When the device does not let go in time.
    pub fn close(self, by: Deadline) -> Result<Device, (Self, Error)> {
        match self.core.close(by) {
            Ok(device) => Ok(device),
            Err((core, e)) => Err((Self::new(core), e)),
        }
    }
}

impl Session<Negotiating> {
    /// Takes hold of a device: resets it and says that there is a driver.
    ///
    /// # Errors
    /// When the device does not reset in time; it comes back.
    ///
    /// # Spec
    /// virtio 1.4 §3.1.1, steps 1 to 3.
    pub fn open(device: Device, by: Deadline) -> Result<Self, (Device, Error)> {
        let hold = || {
            let dma = device.dma(Asid::new(0))?;
            device.reset(by)?;
            device.write_status(Status::ACKNOWLEDGE.bits())?;
            device.write_status((Status::ACKNOWLEDGE | Status::DRIVER).bits())?;
            Ok(dma)
        };
        match hold() {
            Ok(dma) => Ok(Self::new(Box::new(Core {
                queues: Vec::new(),
                device,
                features: Features::NONE,
                iovas: setup::Iovas::new(dma.limits()),
                dma,
                mapped: Vec::new(),
            }))),
            Err(e) => Err((device, e)),
        }
    }

    /// What the device offers.
    pub fn offered(&self) -> Features {
        self.core.device.offered()
    }

    /// The most of it that a driver may accept.
    pub fn acceptable(&self) -> Features {
        graph::acceptable(self.device_type(), self.offered())
    }

    /// Agrees on features.
    ///
    /// * `wanted`: exactly what is to hold; offered, legal by [`graph`], and with VERSION_1
    ///
    /// # Errors
    /// When they are not, or the device leaves FEATURES_OK unset; another choice may be tried.
    ///
    /// # Spec
    /// virtio 1.4 §3.1.1, steps 4 to 6.
    pub fn negotiate(mut self, wanted: Features) -> Result<Session<Configured>, (Self, Error)> {
        let device = &self.core.device;
        let status = Status::ACKNOWLEDGE | Status::DRIVER | Status::FEATURES_OK;
        let agreed = device
            .accept(wanted)
            .and_then(|()| device.write_status(status.bits()))
            .and_then(|()| device.status());
        match agreed {
            Ok(read) if read.contains(Status::FEATURES_OK) => {
                self.core.features = wanted;
                Ok(Session::new(self.core))
            }
            Ok(_) => {
                let features = wanted.display(self.device_type()).to_string();
                Err((self, Error::FeaturesRefused { features }))
            }
            Err(e) => Err((self, e)),
        }
    }
}

impl Session<Configured> {
    /// The features agreed on.
    pub fn features(&self) -> Features {
        self.core.features
    }

    /// What queue `q` can do with them.
    ///
    /// # Errors
    /// When the device has no such queue.
    pub fn queue_limits(&self, q: QueueIndex) -> Result<QueueLimits> {
        self.core.device.queue_limits(q)
    }

    /// Sets a queue up: allocates and maps its ring and its buffers. It starts with [`run`](Self::run).
    ///
    /// # Errors
    /// When the device has no such queue, it is set up already, the set-up is out of range, or memory is short.
    pub fn queue(&mut self, q: QueueIndex, setup: QueueSetup) -> Result<()> {
        let core = &mut *self.core;
        if core.queues.iter().any(|queue| queue.index() == q) {
            return Err(Error::QueueStarted { queue: q });
        }
        let limits = core.device.queue_limits(q)?;
        let prepared = setup::prepare(q, &setup, limits, core.features, &mut core.iovas)?;
        core.dma.map(vec![prepared.mapping])?;
        core.mapped.push(prepared.range);
        core.queues.push(prepared.queue);
        core.queues.sort_by_key(Queue::index);
        Ok(())
    }

    /// Starts every queue that was set up, and the device.
    ///
    /// # Errors
    /// When a queue cannot be started. Running again starts the rest.
    ///
    /// # Spec
    /// virtio 1.4 §3.1.1, steps 7 and 8.
    pub fn run(mut self) -> Result<Session<Running>, (Self, Error)> {
        match self.core.start() {
            Ok(()) => Ok(Session::new(self.core)),
            Err(e) => Err((self, e)),
        }
    }
}

impl Session<Running> {
    /// The features agreed on.
    pub fn features(&self) -> Features {
        self.core.features
    }

    /// Queue `q`, if it was set up.
    pub fn queue_mut(&mut self, q: QueueIndex) -> Option<&mut Queue> {
        self.core.queues.iter_mut().find(|queue| queue.index() == q)
    }

    /// Parts the queues from the control side, so that each can go to a thread of its own. They come in ascending order.
    pub fn split(mut self) -> (Control, Vec<Queue>) {
        let queues = std::mem::take(&mut self.core.queues);
        (Control::new(self.core, &queues), queues)
    }

    /// Stops the device as a whole: by the status byte where SUSPEND is negotiated, read back until it shows, and
    /// otherwise by [`Device::suspend`].
    ///
    /// # Errors
    /// When the device cannot suspend, needs a reset, or is not stopped at the deadline; the stop then goes on and can
    /// be waited for again.
    ///
    /// # Spec
    /// virtio 1.4 §3.4.1.
    pub fn suspend(self, by: Deadline) -> Result<Session<Suspended>, (Self, Error)> {
        match self.core.suspend(by) {
            Ok(()) => Ok(Session::new(self.core)),
            Err(e) => Err((self, e)),
        }
    }
}

impl Session<Suspended> {
    /// Where the device stands in queue `q`.
    ///
    /// # Errors
    /// When the queue does not run.
    pub fn queue_state(&self, q: QueueIndex) -> Result<QueueState> {
        self.core.device.queue_state(q)
    }

    /// Lets the device go on, and waits until it does.
    ///
    /// # Errors
    /// When it cannot, or does not say so in time; resuming again waits again.
    ///
    /// # Spec
    /// virtio 1.4 §3.4.1.
    pub fn resume(self, by: Deadline) -> Result<Session<Running>, (Self, Error)> {
        match self.core.resume(by) {
            Ok(()) => Ok(Session::new(self.core)),
            Err(e) => Err((self, e)),
        }
    }
}

impl Core {
    fn start(&mut self) -> Result<()> {
        for queue in &mut self.queues {
            if queue.phase() != Phase::Started {
                restart::start(&self.device, queue)?;
            }
        }
        self.device.write_status(suspend::LIVE.bits())
    }

    fn close(mut self: Box<Self>, by: Deadline) -> Result<Device, (Box<Self>, Error)> {
        match self.let_go(by) {
            Ok(()) => Ok(self.device),
            Err(e) => Err((self, e)),
        }
    }

    /// Resets the device, then unmaps: in this order nothing can be in use.
    fn let_go(&mut self, by: Deadline) -> Result<()> {
        let lost = match self.device.reset(by) {
            Ok(()) => false,
            Err(Error::Broken | Error::Gone) => true,
            Err(e) => return Err(e),
        };
        self.queues.clear();
        while let Some(range) = self.mapped.last() {
            match self.dma.unmap(*range, by) {
                Ok(()) => {}
                // What a lost device does not let go of stays mapped, and alive, as long as the device.
                Err(_) if lost => {}
                Err(e) => return Err(e),
            }
            self.mapped.pop();
        }
        Ok(())
    }
}

impl<S> fmt::Debug for Session<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = std::any::type_name::<S>();
        f.debug_struct("Session")
            .field("state", &state.rsplit("::").next().unwrap_or(state))
            .field("device", &self.core.device.info().name)
            .finish_non_exhaustive()
    }
}

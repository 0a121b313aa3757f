//! A device that behaves wrongly on its control side: everything goes to the device behind it, but for what a [`Bend`]
//! does otherwise.

use std::sync::{Arc, OnceLock};
use std::task::Poll;

use vdpa_core::*;
use vdpa_mem::Window;

/// What a mutant does otherwise. Each method forwards unless it is written anew; `inner` is the device behind it.
#[allow(unused_variables, reason = "for the names in what overrides them")]
pub trait Bend: Send + Sync + 'static {
    /// What it is.
    fn info(&self, inner: DeviceInfo) -> DeviceInfo {
        inner
    }
    /// Comes once, with what the device is given: address spaces to scribble in, a sink for events.
    fn attached(&self, host: &Host) {}
    /// Opens the device behind it.
    fn attach(&self, inner: &dyn VdpaDevice, host: Host) -> Result<()> {
        inner.attach(host)
    }
    /// What it can do, by capability.
    fn caps<'a>(&'a self, caps: Caps<'a>) -> Caps<'a> {
        caps
    }
    fn offered(&self, inner: &dyn VdpaDevice) -> Features {
        inner.offered()
    }
    fn accept(&self, inner: &dyn VdpaDevice, f: Features) -> Result<()> {
        inner.accept(f)
    }
    fn status(&self, inner: &dyn VdpaDevice) -> Result<Status> {
        inner.status()
    }
    fn add_status(&self, inner: &dyn VdpaDevice, bits: Status) -> Result<()> {
        inner.add_status(bits)
    }
    fn begin_reset(&self, inner: &dyn VdpaDevice) -> Result<()> {
        inner.begin_reset()
    }
    fn config_generation(&self, inner: &dyn VdpaDevice) -> Result<Option<u32>> {
        inner.config_generation()
    }
    fn read_config(&self, inner: &dyn VdpaDevice, at: u32, to: &mut [u8]) -> Result<()> {
        inner.read_config(at, to)
    }
    fn write_config(&self, inner: &dyn VdpaDevice, at: u32, from: &[u8]) -> Result<()> {
        inner.write_config(at, from)
    }
    fn queue_limits(&self, inner: &dyn VdpaDevice, q: QueueIndex) -> Result<QueueLimits> {
        inner.queue_limits(q)
    }
    fn start_queue(
        &self,
        inner: &dyn VdpaDevice,
        q: QueueIndex,
        c: &QueueConfig,
        kick: Kick,
        call: Call,
    ) -> Result<Doorbell> {
        inner.start_queue(q, c, kick, call)
    }
    fn replace_call(&self, inner: &dyn VdpaDevice, q: QueueIndex, call: Call) -> Result<()> {
        inner.replace_call(q, call)
    }
    /// What the device behind it reports.
    fn event(&self, event: Event, raise: &dyn Fn(Event)) {
        raise(event);
    }

    fn begin_queue_reset(&self, inner: &dyn QueueReset, q: QueueIndex) -> Result<()> {
        inner.begin(q)
    }
    fn poll_queue_reset(&self, inner: &dyn QueueReset, q: QueueIndex) -> Result<Poll<()>> {
        inner.poll(q)
    }
    fn begin_pause(&self, inner: &dyn QueuePause, q: QueueIndex) -> Result<()> {
        inner.begin(q)
    }
    fn poll_pause(&self, inner: &dyn QueuePause, q: QueueIndex) -> Result<Poll<QueueState>> {
        inner.poll(q)
    }
    fn enable(&self, inner: &dyn QueueEnable, q: QueueIndex, on: bool) -> Result<()> {
        inner.set(q, on)
    }
    fn begin_suspend(&self, inner: &dyn Suspend) -> Result<()> {
        inner.begin()
    }
    fn poll_suspend(&self, inner: &dyn Suspend) -> Result<Poll<()>> {
        inner.poll()
    }
    fn suspended_state(&self, inner: &dyn Suspend, q: QueueIndex) -> Result<QueueState> {
        inner.state(q)
    }
    fn resume(&self, inner: &dyn Suspend) -> Result<()> {
        inner.resume()
    }
    fn save(&self, inner: &dyn ClassState) -> Result<Vec<u8>> {
        inner.save()
    }
    fn restore(&self, inner: &dyn ClassState, from: &[u8]) -> Result<()> {
        inner.restore(from)
    }
    fn assign(&self, inner: &dyn GroupSpaces, g: GroupIndex, a: Asid) -> Result<()> {
        inner.assign(g, a)
    }
}

/// Bends nothing.
pub struct Straight;

impl Bend for Straight {}

/// A device with its bend.
pub struct Bent<B> {
    inner: Arc<dyn VdpaDevice>,
    info: DeviceInfo,
    bend: Arc<B>,
    attached: OnceLock<()>,
}

/// Puts a bend around a device.
pub fn bent<B: Bend>(inner: Arc<dyn VdpaDevice>, bend: B) -> Arc<dyn VdpaDevice> {
    let info = bend.info(inner.info().clone());
    Arc::new(Bent {
        inner,
        info,
        bend: Arc::new(bend),
        attached: OnceLock::new(),
    })
}

struct Sink<B> {
    to: Arc<dyn EventSink>,
    bend: Arc<B>,
}

impl<B: Bend> EventSink for Sink<B> {
    fn raise(&self, event: Event) {
        self.bend.event(event, &|event| self.to.raise(event));
    }
}

impl<B: Bend> VdpaDevice for Bent<B> {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }
    fn attach(&self, host: Host) -> Result<()> {
        let first = self.attached.set(()).is_ok();
        if first {
            self.bend.attached(&host);
        }
        let events = Arc::new(Sink {
            to: host.events,
            bend: Arc::clone(&self.bend),
        });
        self.bend.attach(&*self.inner, Host { events, ..host })
    }
    fn caps(&self) -> Caps<'_> {
        let Caps {
            dma,
            spaces,
            queue_reset,
            queue_pause,
            queue_enable,
            suspend,
            in_flight,
            class_state,
            announce,
            stats,
        } = self.inner.caps();
        self.bend.caps(Caps {
            dma,
            spaces: spaces.map(|_| self as _),
            queue_reset: queue_reset.map(|_| self as _),
            queue_pause: queue_pause.map(|_| self as _),
            queue_enable: queue_enable.map(|_| self as _),
            suspend: suspend.map(|_| self as _),
            in_flight: in_flight.map(|_| self as _),
            class_state: class_state.map(|_| self as _),
            announce,
            stats,
        })
    }
    fn offered(&self) -> Features {
        self.bend.offered(&*self.inner)
    }
    fn accept(&self, f: Features) -> Result<()> {
        self.bend.accept(&*self.inner, f)
    }
    fn status(&self) -> Result<Status> {
        self.bend.status(&*self.inner)
    }
    fn add_status(&self, bits: Status) -> Result<()> {
        self.bend.add_status(&*self.inner, bits)
    }
    fn begin_reset(&self) -> Result<()> {
        self.bend.begin_reset(&*self.inner)
    }
    fn config_generation(&self) -> Result<Option<u32>> {
        self.bend.config_generation(&*self.inner)
    }
    fn read_config(&self, at: u32, to: &mut [u8]) -> Result<()> {
        self.bend.read_config(&*self.inner, at, to)
    }
    fn write_config(&self, at: u32, from: &[u8]) -> Result<()> {
        self.bend.write_config(&*self.inner, at, from)
    }
    fn queue_limits(&self, q: QueueIndex) -> Result<QueueLimits> {
        self.bend.queue_limits(&*self.inner, q)
    }
    fn start_queue(
        &self,
        q: QueueIndex,
        c: &QueueConfig,
        kick: Kick,
        call: Call,
    ) -> Result<Doorbell> {
        self.bend.start_queue(&*self.inner, q, c, kick, call)
    }
    fn replace_call(&self, q: QueueIndex, call: Call) -> Result<()> {
        self.bend.replace_call(&*self.inner, q, call)
    }
}

/// A capability of the device behind, which is there if the one in front was asked.
macro_rules! cap {
    ($self:ident . $name:ident) => {
        $self.inner.caps().$name.expect("it is declared")
    };
}

impl<B: Bend> QueueReset for Bent<B> {
    fn begin(&self, q: QueueIndex) -> Result<()> {
        self.bend.begin_queue_reset(cap!(self.queue_reset), q)
    }
    fn poll(&self, q: QueueIndex) -> Result<Poll<()>> {
        self.bend.poll_queue_reset(cap!(self.queue_reset), q)
    }
}

impl<B: Bend> QueuePause for Bent<B> {
    fn begin(&self, q: QueueIndex) -> Result<()> {
        self.bend.begin_pause(cap!(self.queue_pause), q)
    }
    fn poll(&self, q: QueueIndex) -> Result<Poll<QueueState>> {
        self.bend.poll_pause(cap!(self.queue_pause), q)
    }
}

impl<B: Bend> QueueEnable for Bent<B> {
    fn set(&self, q: QueueIndex, on: bool) -> Result<()> {
        self.bend.enable(cap!(self.queue_enable), q, on)
    }
}

impl<B: Bend> Suspend for Bent<B> {
    fn begin(&self) -> Result<()> {
        self.bend.begin_suspend(cap!(self.suspend))
    }
    fn poll(&self) -> Result<Poll<()>> {
        self.bend.poll_suspend(cap!(self.suspend))
    }
    fn state(&self, q: QueueIndex) -> Result<QueueState> {
        self.bend.suspended_state(cap!(self.suspend), q)
    }
    fn resume(&self) -> Result<()> {
        self.bend.resume(cap!(self.suspend))
    }
}

impl<B: Bend> InFlight for Bent<B> {
    fn track(&self, q: QueueIndex, record: Window) -> Result<()> {
        cap!(self.in_flight).track(q, record)
    }
}

impl<B: Bend> ClassState for Bent<B> {
    fn save(&self) -> Result<Vec<u8>> {
        self.bend.save(cap!(self.class_state))
    }
    fn restore(&self, from: &[u8]) -> Result<()> {
        self.bend.restore(cap!(self.class_state), from)
    }
}

impl<B: Bend> GroupSpaces for Bent<B> {
    fn assign(&self, g: GroupIndex, a: Asid) -> Result<()> {
        self.bend.assign(cap!(self.spaces), g, a)
    }
}

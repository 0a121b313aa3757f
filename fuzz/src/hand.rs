//! A device whose worker works on the thread of whoever asks something of it.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use vdpa_core::{
    Call, Caps, Device, DeviceInfo, DeviceType, Doorbell, Features, Host, Kick, QueueConfig,
    QueueIndex, QueueLimits, QueuePause, QueueReset, QueueState, Relay, Result, Status, Suspend,
    VdpaDevice,
};
use vdpa_sim::{Crew, Options, Shift, SimDevice};

/// Passes in which all work there can be is done.
const PASSES: usize = 10_000;

/// A simulated device, and its worker: what is begun is done when the call returns.
pub struct ByHand {
    sim: SimDevice,
    shift: Mutex<Shift>,
}

impl ByHand {
    /// A device of this type.
    pub fn new(device_type: DeviceType, page_requests: bool) -> (Device, Arc<Self>) {
        let (crew, shift) = Crew::by_hand("fuzz").expect("an eventfd");
        let options = Options {
            workers: 1,
            patience: Duration::ZERO,
            page_requests,
        };
        let class = crate::setup::class(device_type);
        let hand = Arc::new(Self {
            sim: SimDevice::in_crew("fuzz0", class, options, crew),
            shift: Mutex::new(shift),
        });
        let device = Device::new(Arc::clone(&hand) as _, Relay::new()).expect("a device");
        (device, hand)
    }

    /// Each unit that is hot is served once. `false`: there is none any more.
    pub fn pass(&self) -> bool {
        let mut shift = self.shift.lock().unwrap_or_else(PoisonError::into_inner);
        shift.pass()
    }

    /// All that there is to do is done.
    ///
    /// # Panics
    /// When there is no end of it.
    pub fn rest(&self) {
        let passes = (0..PASSES).take_while(|_| self.pass());
        assert!(passes.count() < PASSES, "the device is busy for ever");
    }
}

impl VdpaDevice for ByHand {
    fn info(&self) -> &DeviceInfo {
        self.sim.info()
    }

    fn attach(&self, host: Host) -> Result<()> {
        self.sim.attach(host)
    }

    fn caps(&self) -> Caps<'_> {
        Caps {
            queue_reset: Some(self),
            queue_pause: Some(self),
            suspend: Some(self),
            ..self.sim.caps()
        }
    }

    fn offered(&self) -> Features {
        self.sim.offered()
    }

    fn accept(&self, f: Features) -> Result<()> {
        self.sim.accept(f)
    }

    fn status(&self) -> Result<Status> {
        self.sim.status()
    }

    fn add_status(&self, bits: Status) -> Result<()> {
        self.sim.add_status(bits)
    }

    fn begin_reset(&self) -> Result<()> {
        self.sim.begin_reset()?;
        self.rest();
        Ok(())
    }

    fn config_generation(&self) -> Result<Option<u32>> {
        self.sim.config_generation()
    }

    fn read_config(&self, at: u32, to: &mut [u8]) -> Result<()> {
        self.sim.read_config(at, to)
    }

    fn write_config(&self, at: u32, from: &[u8]) -> Result<()> {
        self.sim.write_config(at, from)
    }

    fn queue_limits(&self, q: QueueIndex) -> Result<QueueLimits> {
        self.sim.queue_limits(q)
    }

    fn start_queue(
        &self,
        q: QueueIndex,
        c: &QueueConfig,
        kick: Kick,
        call: Call,
    ) -> Result<Doorbell> {
        self.sim.start_queue(q, c, kick, call)
    }

    fn replace_call(&self, q: QueueIndex, call: Call) -> Result<()> {
        self.sim.replace_call(q, call)
    }
}

impl QueueReset for ByHand {
    fn begin(&self, q: QueueIndex) -> Result<()> {
        QueueReset::begin(&self.sim, q)?;
        self.rest();
        Ok(())
    }

    fn poll(&self, q: QueueIndex) -> Result<Poll<()>> {
        QueueReset::poll(&self.sim, q)
    }
}

impl QueuePause for ByHand {
    fn begin(&self, q: QueueIndex) -> Result<()> {
        QueuePause::begin(&self.sim, q)?;
        self.rest();
        Ok(())
    }

    fn poll(&self, q: QueueIndex) -> Result<Poll<QueueState>> {
        QueuePause::poll(&self.sim, q)
    }
}

impl Suspend for ByHand {
    fn begin(&self) -> Result<()> {
        Suspend::begin(&self.sim)?;
        self.rest();
        Ok(())
    }

    fn poll(&self) -> Result<Poll<()>> {
        Suspend::poll(&self.sim)
    }

    fn state(&self, q: QueueIndex) -> Result<QueueState> {
        Suspend::state(&self.sim, q)
    }

    fn resume(&self) -> Result<()> {
        Suspend::resume(&self.sim)
    }
}

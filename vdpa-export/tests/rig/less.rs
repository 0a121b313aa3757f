//! A device of the simulator's that lacks something.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use vdpa_core::{
    Call, Caps, DeviceInfo, DeviceSpec, Doorbell, Error, Features, Host, Kick, MgmtDevice as _,
    QueueConfig, QueueIndex, QueueLimits, Result, Status, VdpaDevice, bits,
};
use vdpa_mem::AddressSpace;

/// A device that can do less than it can.
pub struct Less {
    inner: Arc<dyn VdpaDevice>,
    /// What it reaches.
    pub space: Arc<OnceLock<AddressSpace>>,
    pub without: fn(Caps<'_>) -> Caps<'_>,
    /// Whether it never comes to rest once it was driven.
    pub restless: bool,
    /// Set once it is gone, which it does not report.
    pub gone: Arc<AtomicBool>,
}

impl Less {
    /// A device of the simulator's that can do all that it can.
    pub fn new(spec: &str) -> Self {
        let sim = vdpa_sim::SimMgmt::new();
        let spec = DeviceSpec::parse(spec).unwrap();
        Self {
            inner: sim.dev_add(&spec).unwrap(),
            space: Arc::new(OnceLock::new()),
            without: |caps| caps,
            restless: false,
            gone: Arc::default(),
        }
    }
}

impl VdpaDevice for Less {
    fn info(&self) -> &DeviceInfo {
        self.inner.info()
    }
    fn attach(&self, host: Host) -> Result<()> {
        let first = host.spaces.first().cloned();
        first.map(|space| self.space.set(space));
        self.inner.attach(host)
    }
    fn caps(&self) -> Caps<'_> {
        (self.without)(self.inner.caps())
    }
    fn offered(&self) -> Features {
        self.inner.offered() - bits::RING_RESET - bits::SUSPEND
    }
    fn accept(&self, f: Features) -> Result<()> {
        self.inner.accept(f)
    }
    fn status(&self) -> Result<Status> {
        match self.gone.load(Ordering::Acquire) {
            true => Err(Error::Gone),
            false => self.inner.status(),
        }
    }
    fn add_status(&self, bits: Status) -> Result<()> {
        self.inner.add_status(bits)
    }
    fn begin_reset(&self) -> Result<()> {
        match self.restless {
            true => Ok(()),
            false => self.inner.begin_reset(),
        }
    }
    fn config_generation(&self) -> Result<Option<u32>> {
        self.inner.config_generation()
    }
    fn read_config(&self, at: u32, to: &mut [u8]) -> Result<()> {
        self.inner.read_config(at, to)
    }
    fn write_config(&self, at: u32, from: &[u8]) -> Result<()> {
        self.inner.write_config(at, from)
    }
    fn queue_limits(&self, q: QueueIndex) -> Result<QueueLimits> {
        self.inner.queue_limits(q)
    }
    fn start_queue(&self, q: QueueIndex, c: &QueueConfig, k: Kick, call: Call) -> Result<Doorbell> {
        self.inner.start_queue(q, c, k, call)
    }
    fn replace_call(&self, q: QueueIndex, call: Call) -> Result<()> {
        self.inner.replace_call(q, call)
    }
}

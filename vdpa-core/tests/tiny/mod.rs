//! A parent without a data path: it keeps what it is told, and can be slow on purpose.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::Poll;
use std::time::Duration;

use vdpa_core::config::Mac;
use vdpa_core::*;
use vdpa_mem::{Access, Deadline, Iova, IovaRange, Mapping, Region};
use vdpa_ring::QueueState;

pub const RINGS: Features = Features::of(&[
    bits::VERSION_1,
    bits::ACCESS_PLATFORM,
    bits::INDIRECT_DESC,
    bits::EVENT_IDX,
    bits::RING_PACKED,
    bits::RING_RESET,
    bits::SUSPEND,
]);

pub type Hook = Box<dyn FnMut(&str) -> Result<()> + Send>;

pub struct Tiny {
    pub info: DeviceInfo,
    pub offered: Features,
    pub capable: bool,
    pub host: OnceLock<Host>,
    pub kept: Mutex<Kept>,
    /// How many polls everything takes.
    pub slow: AtomicU32,
    pub left: AtomicU32,
    /// Bumped by every config read while positive.
    pub restless: AtomicU32,
    /// Whether it has no configuration generation.
    pub ageless: bool,
    /// Whether it refuses to start queues.
    pub refuses: AtomicBool,
    /// Comes before each call of the contract, by name, and may fail it.
    pub before: Mutex<Option<Hook>>,
    /// What has to be told of its mappings, if anything.
    pub maps: Option<Arc<dyn DmaMap>>,
    /// Its kicks: queue, and what came with it.
    pub kicks: Arc<Mutex<Vec<(u16, u32)>>>,
}

#[derive(Default)]
pub struct Kept {
    pub status: Status,
    pub resetting: bool,
    pub features: Features,
    pub config: [u8; 8],
    pub generation: u32,
    pub calls: Vec<Option<Arc<CallCell>>>,
    pub log: Vec<String>,
}

impl Default for Tiny {
    fn default() -> Self {
        Self {
            info: DeviceInfo {
                name: "tiny0".into(),
                device_type: DeviceType::Net,
                vendor: 0x1af4,
                queues: 4,
                groups: 1,
                asids: 1,
                config_size: 8,
                kicks: KickKind::Taken,
                calls: CallKind::Any,
            },
            offered: RINGS,
            capable: true,
            host: OnceLock::new(),
            kept: Mutex::new(Kept {
                calls: (0..4).map(|_| None).collect(),
                ..Kept::default()
            }),
            slow: AtomicU32::new(0),
            left: AtomicU32::new(0),
            restless: AtomicU32::new(0),
            ageless: false,
            refuses: AtomicBool::new(false),
            before: Mutex::new(None),
            maps: None,
            kicks: Arc::default(),
        }
    }
}

impl Tiny {
    pub fn log(&self) -> Vec<String> {
        self.kept.lock().unwrap().log.clone()
    }

    pub fn raise(&self, q: usize) {
        let call = self.kept.lock().unwrap().calls[q].clone();
        if let Some(call) = call {
            call.raise();
        }
    }

    fn come(&self, call: &str) -> Result<()> {
        let mut before = self.before.lock().unwrap();
        before.as_mut().map_or(Ok(()), |before| before(call))
    }

    fn note(&self, what: String) {
        self.kept.lock().unwrap().log.push(what);
    }

    fn begin(&self, what: String) -> Result<()> {
        self.left
            .store(self.slow.load(Ordering::SeqCst), Ordering::SeqCst);
        self.note(what);
        Ok(())
    }

    fn poll<T>(&self, done: T) -> Result<Poll<T>> {
        let left = self.left.load(Ordering::SeqCst);
        self.left.store(left.saturating_sub(1), Ordering::SeqCst);
        Ok(match left {
            0 => Poll::Ready(done),
            _ => Poll::Pending,
        })
    }
}

impl VdpaDevice for Tiny {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }
    fn attach(&self, host: Host) -> Result<()> {
        assert!(self.host.set(host).is_ok(), "attached twice");
        Ok(())
    }
    fn caps(&self) -> Caps<'_> {
        if !self.capable {
            return Caps::NONE;
        }
        Caps {
            dma: match &self.maps {
                Some(maps) => Dma::Map(&**maps),
                None => Dma::Software { misses: false },
            },
            spaces: None,
            queue_reset: Some(self),
            queue_pause: Some(self),
            queue_enable: Some(self),
            suspend: Some(self),
            in_flight: None,
            class_state: Some(self),
            announce: Some(self),
            stats: Some(self),
        }
    }
    fn offered(&self) -> Features {
        self.offered
    }
    fn accept(&self, f: Features) -> Result<()> {
        self.come("accept")?;
        self.kept.lock().unwrap().features = f;
        Ok(())
    }
    fn status(&self) -> Result<Status> {
        self.come("status")?;
        let done = self.poll(())?.is_ready();
        let mut kept = self.kept.lock().unwrap();
        if kept.resetting && done {
            kept.resetting = false;
            kept.status = Status::empty();
            kept.features = Features::NONE;
            kept.calls.iter_mut().for_each(|call| *call = None);
        }
        Ok(kept.status)
    }
    fn add_status(&self, bits: Status) -> Result<()> {
        self.come("add_status")?;
        self.note(format!("status {bits}"));
        self.kept.lock().unwrap().status |= bits;
        Ok(())
    }
    fn begin_reset(&self) -> Result<()> {
        self.come("begin_reset")?;
        self.kept.lock().unwrap().resetting = true;
        self.begin("reset".into())
    }
    fn config_generation(&self) -> Result<Option<u32>> {
        self.come("config_generation")?;
        let generation = self.kept.lock().unwrap().generation;
        Ok((!self.ageless).then_some(generation))
    }
    fn read_config(&self, at: u32, to: &mut [u8]) -> Result<()> {
        self.come("read_config")?;
        let mut kept = self.kept.lock().unwrap();
        to.copy_from_slice(&kept.config[at as usize..][..to.len()]);
        if self.restless.load(Ordering::SeqCst) > 0 {
            self.restless.fetch_sub(1, Ordering::SeqCst);
            kept.generation += 1;
            kept.config = [kept.generation as u8; 8];
        }
        Ok(())
    }
    fn write_config(&self, at: u32, from: &[u8]) -> Result<()> {
        self.come("write_config")?;
        let mut kept = self.kept.lock().unwrap();
        kept.config[at as usize..][..from.len()].copy_from_slice(from);
        Ok(())
    }
    fn queue_limits(&self, q: QueueIndex) -> Result<QueueLimits> {
        self.come("queue_limits")?;
        Ok(QueueLimits {
            max_size: if q.get() == 3 { 0 } else { 1024 },
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
        self.come("start_queue")?;
        assert!(matches!(kick, Kick::Taken), "not what the info says");
        self.note(format!("start {q} size {}", c.size));
        if self.refuses.load(Ordering::SeqCst) {
            let why = "on purpose".into();
            return Err(Error::ClassState { why });
        }
        self.kept.lock().unwrap().calls[q.place()] = Some(Arc::new(CallCell::new(call)));
        let kicks = self.kicks.clone();
        Ok(Doorbell::from_fn(move |data| {
            kicks.lock().unwrap().push((q.get(), data));
        }))
    }
    fn replace_call(&self, q: QueueIndex, call: Call) -> Result<()> {
        self.come("replace_call")?;
        // A reset may have come in between.
        let cell = self.kept.lock().unwrap().calls[q.place()].clone();
        cell.ok_or(Error::QueueNotStarted { queue: q })?
            .replace(call);
        Ok(())
    }
}

impl QueueReset for Tiny {
    fn begin(&self, q: QueueIndex) -> Result<()> {
        self.come("queue_reset.begin")?;
        Tiny::begin(self, format!("reset {q}"))
    }
    fn poll(&self, _: QueueIndex) -> Result<Poll<()>> {
        self.come("queue_reset.poll")?;
        Tiny::poll(self, ())
    }
}

pub const PAUSED: QueueState = QueueState::Split {
    avail: 7,
    used: Some(5),
};

impl QueuePause for Tiny {
    fn begin(&self, q: QueueIndex) -> Result<()> {
        self.come("queue_pause.begin")?;
        Tiny::begin(self, format!("pause {q}"))
    }
    fn poll(&self, _: QueueIndex) -> Result<Poll<QueueState>> {
        self.come("queue_pause.poll")?;
        Tiny::poll(self, PAUSED)
    }
}

impl QueueEnable for Tiny {
    fn set(&self, q: QueueIndex, on: bool) -> Result<()> {
        self.come("queue_enable.set")?;
        self.note(format!("enable {q} {on}"));
        Ok(())
    }
}

impl Suspend for Tiny {
    fn begin(&self) -> Result<()> {
        self.come("suspend.begin")?;
        Tiny::begin(self, "suspend".into())
    }
    fn poll(&self) -> Result<Poll<()>> {
        self.come("suspend.poll")?;
        Tiny::poll(self, ())
    }
    fn state(&self, _: QueueIndex) -> Result<QueueState> {
        self.come("suspend.state")?;
        Ok(PAUSED)
    }
    fn resume(&self) -> Result<()> {
        self.come("suspend.resume")?;
        self.note("resume".into());
        Ok(())
    }
}

impl ClassState for Tiny {
    fn save(&self) -> Result<Vec<u8>> {
        self.come("class_state.save")?;
        Ok(vec![1, 2, 3])
    }
    fn restore(&self, from: &[u8]) -> Result<()> {
        self.come("class_state.restore")?;
        if from == [1, 2, 3] {
            return Ok(());
        }
        let why = format!("{} bytes", from.len());
        Err(Error::ClassState { why })
    }
}

impl Announce for Tiny {
    fn announce(&self, mac: Mac) -> Result<()> {
        self.come("announce")?;
        self.note(format!("announce {mac}"));
        Ok(())
    }
}

impl Stats for Tiny {
    fn read(&self, to: &mut dyn FnMut(&str, u64)) -> Result<()> {
        self.come("stats.read")?;
        to("ticks", 42);
        Ok(())
    }
}

pub fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(5))
}

pub fn now() -> Deadline {
    Deadline::after(Duration::ZERO)
}

pub fn q(number: u16) -> QueueIndex {
    QueueIndex::new(number)
}

pub fn open(tiny: Tiny) -> (Arc<Tiny>, Device) {
    let tiny = Arc::new(tiny);
    let device = Device::new(tiny.clone(), Relay::new()).unwrap();
    (tiny, device)
}

/// Up to FEATURES_OK, with 64 KiB mapped at 0x10000.
pub fn configured(tiny: Tiny, features: Features) -> (Arc<Tiny>, Device) {
    let (tiny, device) = open(tiny);
    device.reset(soon()).unwrap();
    device.accept(features).unwrap();
    device.write_status(0x0b).unwrap();
    map(&device, 0x1_0000, 0x1_0000, Access::Both);
    (tiny, device)
}

pub fn map(device: &Device, at: u64, len: u64, access: Access) {
    let (memory, _) = Region::anonymous(len).unwrap().into_shared();
    let dma = device.dma(Asid::new(0)).unwrap();
    dma.map(vec![Mapping {
        iova: IovaRange::new(Iova::new(at), len).unwrap(),
        memory,
        offset: 0,
        access,
        dirty: None,
    }])
    .unwrap();
}

/// A split queue of 256 that lies inside what `configured` maps.
pub fn config() -> QueueConfig {
    QueueConfig::new(
        256,
        Iova::new(0x1_0000),
        Iova::new(0x1_2000),
        Iova::new(0x1_3000),
    )
}

pub const SPLIT: Features = RINGS.without(bits::RING_PACKED);

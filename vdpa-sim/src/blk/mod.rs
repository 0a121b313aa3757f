//! The block device: request queues, and a backend that has the data.
//!
//! ```text
//!   request queue ─▶ request: type, lengths, place, limits judged ─▶ Inline   memory: copied at once
//!                 ◀─ status byte, used length                     └▶ Queued   file: io_uring, or threads
//! ```
//! Each queue is a unit. A request is judged as a whole before anything of it is done. What the backend does elsewhere
//! is held mapped until it is over, and a queue is stopped, suspended or reset only then.
//!
//! Writes are stable when they are flushed, or at once in writethrough mode: virtio 1.4 §5.2.6.2. That is the mode where
//! the driver accepted neither FLUSH nor CONFIG_WCE, and where it chose so in the configuration space.
//!
//! Statistics are [`QUEUE_COUNTERS`] of each queue (`queue0.requests.read`), and those of the backend.

mod backend;
mod config;
mod count;
mod file;
mod flight;
mod inline;
mod iov;
mod job;
mod memory;
mod queue;
mod request;
mod saved;
mod scatter;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use vdpa_core::config::{BlockConfig, block::SECTOR};
use vdpa_core::{Attr, Bell, DeviceType, Features, GroupIndex, QueueIndex};
use vdpa_core::{bits, bits::block};

use crate::class::{Class, Role, SetError, Unit};
use crate::shared::lock;
use crate::stats::Counters;

pub use backend::{Backend, Inline, Lane, Queued};
pub use config::{ID_BYTES, MAX_QUEUES, MAX_SECTORS, POSSIBLE, Settings};
pub use count::QUEUE_COUNTERS;
pub use file::{Engine, Image, ImageError, Open};
pub use job::{Action, Extent, Job, Parcel};
pub use memory::{MAX_BYTES, Memory};

use queue::Requests;
use request::Rules;

/// How many requests are taken, or taken back from the backend, in a pass.
const BATCH: usize = 64;

/// How many requests of a queue are with a backend that takes time, at most.
const DEPTH: usize = 256;

/// Where the cache mode is in the configuration space.
const WRITEBACK_AT: u32 = 32;

/// A block device, virtio 1.4 §5.2.
pub struct Blk {
    shared: Arc<BlkShared>,
    backend: Box<dyn Backend>,
}

/// What the units of a block device share.
struct BlkShared {
    settings: Settings,
    counters: Box<[QueueCounters]>,
    /// Sectors of the disk: for the data path. Changed under `generation`.
    capacity: AtomicU64,
    /// Changes with the configuration. Whoever reads the space holds it, so that no read is half old and half new.
    generation: Mutex<u32>,
    /// Which of [`SEEN`] the driver accepted.
    accepted: AtomicU32,
    writeback: AtomicBool,
}

/// The features that requests are judged by; each is a bit of the word.
const SEEN: [vdpa_core::FeatureBit; 6] = [
    block::FLUSH,
    block::CONFIG_WCE,
    block::DISCARD,
    block::WRITE_ZEROES,
    block::SECURE_ERASE,
    bits::IN_ORDER,
];
const FLUSH: u32 = 1;
const CONFIG_WCE: u32 = 1 << 1;
const DISCARD: u32 = 1 << 2;
const WRITE_ZEROES: u32 = 1 << 3;
const SECURE_ERASE: u32 = 1 << 4;
const IN_ORDER: u32 = 1 << 5;

/// The counters of a queue, apart from those of the next.
#[repr(align(128))]
struct QueueCounters(Counters);

impl std::ops::Deref for QueueCounters {
    type Target = Counters;

    fn deref(&self) -> &Counters {
        &self.0
    }
}

impl BlkShared {
    fn has(&self, bit: u32) -> bool {
        self.accepted.load(Ordering::Relaxed) & bit != 0
    }

    /// Bytes of the disk.
    #[inline]
    fn bytes(&self) -> u64 {
        // At most `MAX_SECTORS`.
        self.capacity.load(Ordering::Acquire).saturating_mul(SECTOR)
    }

    /// By what requests are judged now.
    #[inline]
    fn rules(&self) -> Rules {
        let accepted = self.accepted.load(Ordering::Relaxed);
        Rules {
            bytes: self.bytes(),
            read_only: self.settings.is_read_only(),
            flush: accepted & FLUSH != 0,
            discard: accepted & DISCARD != 0,
            write_zeroes: accepted & WRITE_ZEROES != 0,
            secure_erase: accepted & SECURE_ERASE != 0,
        }
    }

    /// In which order requests go back.
    fn sequence(&self) -> flight::Sequence {
        if self.has(IN_ORDER) {
            flight::Sequence::Taken
        } else {
            flight::Sequence::Any
        }
    }

    /// Whether a write is stable when it is complete: virtio 1.4 §5.2.6.2.
    #[inline]
    fn is_writethrough(&self) -> bool {
        let accepted = self.accepted.load(Ordering::Relaxed);
        match accepted & CONFIG_WCE != 0 {
            true => !self.writeback.load(Ordering::Acquire),
            // A driver that cannot flush relies on it.
            false => accepted & FLUSH == 0,
        }
    }

    /// Makes the disk `sectors` large. Answers whether that is a change.
    fn set_capacity(&self, sectors: u64) -> bool {
        let mut generation = lock(&self.generation);
        let changed = self.capacity.swap(sectors, Ordering::AcqRel) != sectors;
        if changed {
            *generation = generation.wrapping_add(1);
        }
        changed
    }
}

impl Blk {
    /// A block device with these settings, and its data in `backend`, which has room for the capacity.
    pub fn new(settings: Settings, backend: Box<dyn Backend>) -> Self {
        let settings = Settings {
            capacity: settings.capacity.min(MAX_SECTORS),
            queues: settings.queues.clamp(1, MAX_QUEUES),
            ..settings
        };
        let counters = |_| QueueCounters(Counters::new(QUEUE_COUNTERS));
        let shared = BlkShared {
            counters: (0..settings.queues).map(counters).collect(),
            capacity: AtomicU64::new(settings.capacity),
            generation: Mutex::new(0),
            accepted: AtomicU32::new(0),
            writeback: AtomicBool::new(true),
            settings,
        };
        Self {
            shared: Arc::new(shared),
            backend,
        }
    }
}

impl Class for Blk {
    fn device_type(&self) -> DeviceType {
        DeviceType::Block
    }

    fn queues(&self) -> u16 {
        self.shared.settings.queues
    }

    fn max_size(&self) -> u16 {
        self.shared.settings.queue_size
    }

    fn config_size(&self) -> u32 {
        BlockConfig::SIZE as u32
    }

    fn offered(&self) -> Features {
        self.shared.settings.features
    }

    fn units(&self) -> usize {
        self.shared.settings.queues.into()
    }

    fn unit(&self, unit: usize, bells: &Arc<[Arc<Bell>]>) -> Box<dyn Unit> {
        let depth = DEPTH.min(self.shared.settings.queue_size.into());
        let lane = match bells.get(unit) {
            Some(bell) => self.backend.lane(depth, bell),
            None => Lane::Inline(Box::new(backend::Nothing)),
        };
        let shared = Arc::clone(&self.shared);
        Box::new(Requests::new(shared, unit, lane, depth))
    }

    fn groups(&self) -> u32 {
        1
    }

    fn group(&self, _: usize) -> GroupIndex {
        GroupIndex::new(0)
    }

    fn role(&self, q: QueueIndex, accepted: Option<Features>) -> Option<Role> {
        let features = accepted.unwrap_or(self.shared.settings.features);
        let used = match features.contains(block::MQ) {
            true => self.units(),
            false => 1,
        };
        (q.place() < used).then_some(Role {
            unit: q.place(),
            place: 0,
            chains: BATCH,
            reads_all: false,
        })
    }

    fn accept(&self, features: Features) {
        let seen = SEEN.iter().zip(0_u32..);
        let seen = seen.filter(|(bit, _)| features.contains(**bit));
        let word = seen.fold(0, |word, (_, place)| {
            word | 1_u32.checked_shl(place).unwrap_or(0)
        });
        self.shared.accepted.store(word, Ordering::Relaxed);
        // virtio 1.4 §5.2.5.2: without FLUSH it is 0 at first.
        let writeback = features.contains(block::FLUSH);
        self.shared.writeback.store(writeback, Ordering::Release);
    }

    fn set_live(&self, _: bool) {}

    fn reset(&self) {
        self.shared.accepted.store(0, Ordering::Relaxed);
        self.shared.writeback.store(true, Ordering::Release);
    }

    fn generation(&self) -> u32 {
        *lock(&self.shared.generation)
    }

    fn read_config(&self, at: u32, to: &mut [u8]) {
        let _whole = lock(&self.shared.generation);
        let capacity = self.shared.capacity.load(Ordering::Acquire);
        let writeback = self.shared.writeback.load(Ordering::Acquire);
        let space = self.shared.settings.space(capacity, writeback).to_bytes();
        let from = space.get(at as usize..).unwrap_or_default();
        for (to, from) in to.iter_mut().zip(from.iter().chain(std::iter::repeat(&0))) {
            *to = *from;
        }
    }

    fn write_config(&self, at: u32, from: &[u8]) {
        // All other fields are the device's own, virtio 1.4 §5.2.4.
        let place = WRITEBACK_AT.checked_sub(at);
        let byte = place.and_then(|place| from.get(place as usize));
        if let (Some(byte), true) = (byte, self.shared.has(CONFIG_WCE)) {
            self.shared.writeback.store(*byte != 0, Ordering::Release);
        }
    }

    fn check(&self, attr: Attr) -> Result<(), SetError> {
        match attr {
            Attr::Capacity(sectors) if sectors > MAX_SECTORS => Err(SetError::Illegal(format!(
                "a capacity of {sectors} sectors: 0 to {MAX_SECTORS} are legal"
            ))),
            Attr::Capacity(_) => Ok(()),
            _ => Err(SetError::Unsupported),
        }
    }

    fn set(&self, attr: Attr) -> Result<bool, SetError> {
        let Attr::Capacity(sectors) = attr else {
            return Err(SetError::Unsupported);
        };
        let before = self.shared.capacity.load(Ordering::Acquire);
        let resized =
            |e: std::io::Error| SetError::Illegal(format!("a capacity of {sectors} sectors: {e}"));
        // Before it grows there is room, and before there is less, nothing more begins beyond the end.
        if sectors >= before {
            self.backend
                .resize(sectors.saturating_mul(SECTOR))
                .map_err(resized)?;
            return Ok(self.shared.set_capacity(sectors));
        }
        let changed = self.shared.set_capacity(sectors);
        self.backend
            .resize(sectors.saturating_mul(SECTOR))
            .map_err(resized)?;
        Ok(changed)
    }

    fn save(&self) -> Vec<u8> {
        saved::save(&saved::Saved {
            capacity: self.shared.capacity.load(Ordering::Acquire),
            writeback: self.shared.writeback.load(Ordering::Acquire),
        })
    }

    fn restore(&self, from: &[u8]) -> Result<bool, String> {
        let state = saved::load(from)?;
        if state.writeback != self.shared.has(FLUSH) && !self.shared.has(CONFIG_WCE) {
            return Err(format!(
                "its cache mode, writeback {}, is none that these features have without CONFIG_WCE",
                state.writeback
            ));
        }
        // The capacity is this disk's own. A driver that saw another one is told; one that saw a larger disk has data
        // there that is not here.
        let capacity = self.shared.capacity.load(Ordering::Acquire);
        if state.capacity > capacity {
            return Err(format!(
                "it is of a disk of {} sectors, this one has {capacity}: set its capacity first",
                state.capacity
            ));
        }
        self.shared
            .writeback
            .store(state.writeback, Ordering::Release);
        let differs = state.capacity != capacity;
        if differs {
            let mut generation = lock(&self.shared.generation);
            *generation = generation.wrapping_add(1);
        }
        Ok(differs)
    }

    fn stats(&self, to: &mut dyn FnMut(&str, u64)) {
        for (queue, counters) in self.shared.counters.iter().enumerate() {
            counters.read(&format!("queue{queue}"), to);
        }
        self.backend.stats(to);
    }
}

//! The entropy device: one queue, whose buffers are filled with random bytes of the system's (virtio 1.4 §5.4).
//!
//! A whole class in one file: what a class has to bring, and nothing else. A pass fills at most [`PASS_BYTES`]; a buffer
//! that is larger comes back with less, which its driver has to expect.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use vdpa_core::{Attr, Bell, DeviceType, Features, GroupIndex, QueueIndex, bits};
use vdpa_mem::{Access, Hint, Iova, Section};
use vdpa_ring::{Segment, Used};

use crate::class::{Class, Desk, Role, Served, SetError, Stations, Unit};
use crate::queue::{Completeness, Halt, Queue};
use crate::stats::{Counters, queue_counters};

/// All that an entropy device can offer.
pub const POSSIBLE: Features = Features::of(&[
    bits::VERSION_1,
    bits::ACCESS_PLATFORM,
    bits::RING_PACKED,
    bits::IN_ORDER,
    bits::NOTIFICATION_DATA,
    bits::INDIRECT_DESC,
    bits::EVENT_IDX,
    bits::RING_RESET,
    bits::SUSPEND,
]);

/// The most random bytes that are made in a pass.
pub const PASS_BYTES: usize = 64 << 10;

queue_counters! {
    /// A counter of the queue.
    enum Count;
    /// The names of the counters, behind `queue0.`: buffers filled, bytes, failures by reason, kicks, calls, and how many
    /// batches had up to so many buffers.
    pub const COUNTERS {
        /// Buffers given back.
        Requests = "requests",
        /// Bytes.
        Bytes = "bytes",
        /// Buffers in memory that is not mapped.
        Fault = "errors.fault",
        /// Buffers without room.
        NoRoom = "errors.no_room",
        /// Failures of the system's source.
        Source = "errors.source",
    }
}

/// How many buffers are taken at once.
const BATCH: usize = 64;

/// Bytes that are asked of the system at once.
const CHUNK: usize = 4096;

/// An entropy device.
pub struct Rng {
    queue_size: u16,
    features: Features,
    counters: Arc<Counters>,
}

impl Rng {
    /// An entropy device with queues of up to `queue_size`.
    pub fn new(queue_size: u16, features: Features) -> Self {
        Self {
            queue_size,
            features,
            counters: Arc::new(Counters::new(COUNTERS)),
        }
    }
}

impl Class for Rng {
    fn device_type(&self) -> DeviceType {
        DeviceType::Entropy
    }

    fn queues(&self) -> u16 {
        1
    }

    fn max_size(&self) -> u16 {
        self.queue_size
    }

    fn config_size(&self) -> u32 {
        // virtio 1.4 §5.4.4: there is none.
        0
    }

    fn offered(&self) -> Features {
        self.features
    }

    fn units(&self) -> usize {
        1
    }

    fn unit(&self, _: usize, _: &Arc<[Arc<Bell>]>) -> Box<dyn Unit> {
        Box::new(Filler {
            counters: Arc::clone(&self.counters),
            random: vec![0; CHUNK].into_boxed_slice(),
            near: Hint::default(),
        })
    }

    fn groups(&self) -> u32 {
        1
    }

    fn group(&self, _: usize) -> GroupIndex {
        GroupIndex::new(0)
    }

    fn role(&self, q: QueueIndex, _: Option<Features>) -> Option<Role> {
        (q.place() == 0).then_some(Role {
            unit: 0,
            place: 0,
            chains: BATCH,
            reads_all: false,
        })
    }

    fn accept(&self, _: Features) {}

    fn set_live(&self, _: bool) {}

    fn reset(&self) {}

    fn generation(&self) -> u32 {
        0
    }

    fn read_config(&self, _: u32, to: &mut [u8]) {
        to.fill(0);
    }

    fn write_config(&self, _: u32, _: &[u8]) {}

    fn check(&self, _: Attr) -> Result<(), SetError> {
        Err(SetError::Unsupported)
    }

    fn set(&self, _: Attr) -> Result<bool, SetError> {
        Err(SetError::Unsupported)
    }

    fn save(&self) -> Vec<u8> {
        // Nothing: what was random there is random here.
        Vec::new()
    }

    fn restore(&self, from: &[u8]) -> Result<bool, String> {
        match from.len() {
            0 => Ok(false),
            len => Err(format!(
                "it has {len} bytes: an entropy device has no state"
            )),
        }
    }

    fn stats(&self, to: &mut dyn FnMut(&str, u64)) {
        self.counters.read("queue0", to);
    }
}

/// The queue, a unit of its own.
struct Filler {
    counters: Arc<Counters>,
    /// Random bytes on their way.
    random: Box<[u8]>,
    near: Hint,
}

/// What a pass came to.
#[derive(Default)]
struct Pass {
    taken: usize,
    stray: Option<Iova>,
}

/// Why a buffer is not filled any further.
enum Stop {
    At(Iova),
    Source,
}

impl Unit for Filler {
    fn serve(&mut self, queues: &mut Stations, desk: &mut Desk) -> Served {
        let [station, _] = queues;
        // Off, it takes nothing: a driver that waits for randomness is not to go on without.
        let Some(queue) = station.running().filter(|queue| queue.enabled) else {
            return Served::Nothing;
        };
        let passed = self.fill(queue, &desk.reader.enter());
        let pass = passed.unwrap_or_else(|halt| {
            desk.halt(queue, halt);
            Pass::default()
        });
        if let Some(at) = pass.stray {
            desk.fault(at, Access::DeviceWrites);
        }
        queue.call();
        self.counters.add_tally(&queue.tally());
        match pass.taken {
            0 => Served::Nothing,
            _ => Served::Work,
        }
    }

    fn arm(&mut self, queues: &mut Stations, desk: &mut Desk) -> bool {
        let [station, _] = queues;
        station
            .running()
            .filter(|queue| queue.enabled)
            .is_some_and(|queue| desk.arm(queue))
    }

    fn in_flight(&self, _: usize) -> usize {
        // A buffer is filled at once: the system's source does not wait once it is seeded, which it is.
        0
    }

    fn sources(&self) -> Vec<Arc<OwnedFd>> {
        Vec::new()
    }

    fn reset(&mut self) {}
}

impl Filler {
    /// Fills buffers until the pass is over, and gives them back.
    fn fill(&mut self, queue: &mut Queue, section: &Section<'_>) -> Result<Pass, Halt> {
        let mem = queue.open(section)?;
        let mut pass = Pass {
            taken: queue.take(&mem, BATCH)?,
            stray: None,
        };
        if pass.taken == 0 {
            return Ok(pass);
        }
        queue.disarm(&mem);
        let (mut left, mut done) = (PASS_BYTES, 0_usize);
        for chain in queue.batch.iter() {
            if left == 0 {
                break;
            }
            done = done.saturating_add(1);
            let mut filled = 0_usize;
            match self.one(section, chain.writable(), left, &mut filled) {
                Ok(()) if filled == 0 => self.counters.add(Count::NoRoom as usize, 1),
                Ok(()) => {}
                Err(Stop::Source) => self.counters.add(Count::Source as usize, 1),
                Err(Stop::At(at)) => {
                    self.counters.add(Count::Fault as usize, 1);
                    pass.stray.get_or_insert(at);
                }
            }
            left = left.saturating_sub(filled);
            self.counters.add(Count::Requests as usize, 1);
            self.counters.add(Count::Bytes as usize, filled as u64);
            queue.used.push(Used {
                token: chain.token(),
                // At most `PASS_BYTES`.
                len: filled as u32,
            });
        }
        queue.rewind(pass.taken.saturating_sub(done))?;
        queue.commit(&mem, Completeness::Partial)?;
        Ok(pass)
    }

    /// Fills up to `most` bytes of one buffer, from its beginning. `filled` says how many, however it ends.
    fn one(
        &mut self,
        section: &Section<'_>,
        writable: &[Segment],
        most: usize,
        filled: &mut usize,
    ) -> Result<(), Stop> {
        for segment in writable {
            let (mut at, mut left) = (segment.addr, segment.len);
            while left != 0 {
                let room = most.saturating_sub(*filled).min(CHUNK);
                let len = left.min(room as u32);
                if len == 0 {
                    return Ok(());
                }
                let bytes = section
                    .translate(at, len, Access::DeviceWrites, &mut self.near)
                    .map_err(|_| Stop::At(at))?;
                let random = self.random.get_mut(..bytes.len()).unwrap_or_default();
                getrandom::fill(random).map_err(|_| Stop::Source)?;
                let wrote = bytes.write(0, random);
                *filled = filled.saturating_add(wrote);
                left = left.saturating_sub(wrote as u32);
                if wrote == 0 || left == 0 {
                    break;
                }
                at = at.checked_add(wrote as u64).ok_or(Stop::At(at))?;
            }
        }
        Ok(())
    }
}

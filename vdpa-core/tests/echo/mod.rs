//! A device with a data path, as small as one can be: it writes back what it reads, on a thread of its own.
#![allow(unreachable_pub, reason = "each test file uses its part")]

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::Poll;
use std::thread::JoinHandle;

use vdpa_core::*;
use vdpa_mem::{Access, Bytes, Fault, Hint, Iova, Section};
use vdpa_ring::{
    Areas, Batch, DeviceMem, DeviceRing, Format, QueueState, RingFeatures, Segment, Used,
    area_sizes,
};

pub const OFFERED: Features = Features::of(&[
    bits::VERSION_1,
    bits::ACCESS_PLATFORM,
    bits::ORDER_PLATFORM,
    bits::INDIRECT_DESC,
    bits::EVENT_IDX,
    bits::RING_PACKED,
    bits::IN_ORDER,
    bits::NOTIFICATION_DATA,
    bits::SUSPEND,
]);

pub struct Echo {
    info: DeviceInfo,
    host: OnceLock<Host>,
    shared: Arc<Shared>,
    worker: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    sleeper: Arc<Sleeper>,
    status: AtomicU8,
    features: Mutex<Features>,
    /// The worker takes over what is asked for here, between two batches.
    asked: Mutex<Asked>,
    /// How often the worker has looked there.
    looks: AtomicU64,
}

#[derive(Default)]
struct Asked {
    queues: Vec<(Line, DeviceRing)>,
    reset: bool,
    suspended: bool,
    end: bool,
}

/// A queue, as the worker has it.
struct Line {
    number: QueueIndex,
    config: QueueConfig,
    format: Format,
    event_idx: bool,
    bell: Arc<Bell>,
    call: Arc<CallCell>,
}

impl Echo {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            info: DeviceInfo {
                name: "echo0".into(),
                device_type: DeviceType::Net,
                vendor: 0x1af4,
                queues: 2,
                groups: 1,
                asids: 1,
                config_size: 0,
                kicks: KickKind::Taken,
                calls: CallKind::Any,
            },
            host: OnceLock::new(),
            shared: Arc::new(Shared {
                sleeper: Sleeper::new().unwrap(),
                status: AtomicU8::new(0),
                features: Mutex::new(Features::NONE),
                asked: Mutex::default(),
                looks: AtomicU64::new(0),
            }),
            worker: Mutex::new(None),
        })
    }

    fn ask(&self, change: impl FnOnce(&mut Asked)) {
        change(&mut self.shared.asked.lock().unwrap());
        self.shared.looks.fetch_or(1 << 63, Ordering::SeqCst);
        self.shared.sleeper.wake();
    }

    fn is_seen(&self) -> bool {
        self.shared.looks.load(Ordering::SeqCst) >> 63 == 0
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.ask(|asked| asked.end = true);
        if let Some(worker) = self.worker.lock().unwrap().take() {
            worker.join().unwrap();
        }
    }
}

/// What a ring reaches within one section.
struct Reach<'s, 'r> {
    areas: Areas<Bytes<'s>>,
    section: &'s Section<'r>,
}

impl<'s> DeviceMem for Reach<'s, '_> {
    type Ring = Bytes<'s>;
    fn areas(&self) -> &Areas<Bytes<'s>> {
        &self.areas
    }
    fn table(&self, at: Iova, to: &mut [[u64; 2]]) -> Result<(), Fault> {
        let len = u32::try_from(to.len() * 16).unwrap();
        let want = Access::DeviceReads;
        let bytes = self
            .section
            .translate(at, len, want, &mut Hint::default())?;
        for (i, entry) in to.iter_mut().enumerate() {
            for (j, word) in entry.iter_mut().enumerate() {
                let mut le = [0; 8];
                bytes.read(i * 16 + j * 8, &mut le);
                *word = u64::from_le_bytes(le);
            }
        }
        Ok(())
    }
}

fn copy_out(section: &Section<'_>, segments: &[Segment], to: &mut Vec<u8>) {
    for s in segments {
        let bytes = section
            .translate(s.addr, s.len, Access::DeviceReads, &mut Hint::default())
            .unwrap();
        let at = to.len();
        to.resize(at + bytes.len(), 0);
        bytes.read(0, &mut to[at..]);
    }
}

fn copy_in(section: &Section<'_>, segments: &[Segment], mut from: &[u8]) {
    for s in segments {
        let bytes = section
            .translate(s.addr, s.len, Access::DeviceWrites, &mut Hint::default())
            .unwrap();
        let n = bytes.write(0, from);
        from = &from[n..];
    }
}

/// One batch of one queue. Whether there was anything.
fn serve(section: &Section<'_>, line: &Line, ring: &mut DeviceRing, batch: &mut Batch) -> bool {
    let sizes = area_sizes(line.format, line.config.size, line.event_idx);
    let span = |at, area: vdpa_ring::Area| {
        section
            .translate(at, area.bytes, Access::Both, &mut Hint::default())
            .unwrap()
    };
    let reach = Reach {
        areas: Areas {
            descriptor: span(line.config.descriptor, sizes.descriptor),
            driver: span(line.config.driver, sizes.driver),
            device: span(line.config.device, sizes.device),
        },
        section,
    };
    ring.disarm(&reach);
    let taken = ring.take(&reach, batch, 32).unwrap();
    if taken == 0 {
        return ring.arm(&reach).unwrap();
    }
    let mut used = Vec::new();
    for chain in batch.iter() {
        let mut data = Vec::new();
        copy_out(section, chain.readable(), &mut data);
        data.truncate(usize::try_from(chain.writable_len()).unwrap());
        copy_in(section, chain.writable(), &data);
        used.push(Used {
            token: chain.token(),
            len: u32::try_from(data.len()).unwrap(),
        });
    }
    if ring.commit(&reach, &used).unwrap() {
        line.call.raise();
    }
    true
}

fn work(shared: &Shared, host: &Host) {
    let mut reader = host.spaces[0].reader();
    let mut queues: Vec<(Line, DeviceRing)> = Vec::new();
    let mut batch = Batch::new(32, 1024);
    let (mut live, mut stopped) = (false, false);
    loop {
        let mut asked = shared.asked.lock().unwrap();
        if asked.end {
            return;
        }
        if asked.reset {
            asked.reset = false;
            queues.clear();
            shared.status.store(0, Ordering::SeqCst);
        }
        queues.append(&mut asked.queues);
        let was = std::mem::replace(&mut stopped, asked.suspended);
        // Under the lock: what is asked for from here on is looked at in the next round.
        shared.looks.store(0, Ordering::SeqCst);
        drop(asked);

        let status = Status::from_bits_retain(shared.status.load(Ordering::SeqCst));
        let again = !std::mem::replace(&mut live, status.contains(Status::DRIVER_OK)) || was;
        let mut busy = false;
        if live && !stopped {
            let section = reader.enter();
            for (line, ring) in &mut queues {
                if line.bell.take() || again || ring.in_flight() > 0 || busy {
                    busy |= serve(&section, line, ring, &mut batch);
                }
            }
        }
        if busy {
            // More may be there: as if rung.
            queues.iter().for_each(|(line, _)| line.bell.ring());
            continue;
        }
        let work = || {
            let asked = shared.looks.load(Ordering::SeqCst) != 0;
            asked || (live && !stopped && queues.iter().any(|(line, _)| line.bell.is_pending()))
        };
        shared.sleeper.sleep_unless(work, None, |_| {}).unwrap();
    }
}

impl VdpaDevice for Echo {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }
    fn attach(&self, host: Host) -> Result<()> {
        let shared = self.shared.clone();
        let host = self.host.get_or_init(|| host).clone();
        let worker = std::thread::spawn(move || work(&shared, &host));
        *self.worker.lock().unwrap() = Some(worker);
        Ok(())
    }
    fn caps(&self) -> Caps<'_> {
        Caps {
            suspend: Some(self),
            ..Caps::NONE
        }
    }
    fn offered(&self) -> Features {
        OFFERED
    }
    fn accept(&self, f: Features) -> Result<()> {
        *self.shared.features.lock().unwrap() = f;
        Ok(())
    }
    fn status(&self) -> Result<Status> {
        let status = self.shared.status.load(Ordering::SeqCst);
        Ok(Status::from_bits_retain(status))
    }
    fn add_status(&self, bits: Status) -> Result<()> {
        self.shared.status.fetch_or(bits.bits(), Ordering::SeqCst);
        self.ask(|_| {});
        Ok(())
    }
    fn begin_reset(&self) -> Result<()> {
        self.ask(|asked| {
            asked.reset = true;
            asked.suspended = false;
            // 0 only once the worker has let go.
            self.shared.status.fetch_or(0x20, Ordering::SeqCst);
        });
        Ok(())
    }
    fn config_generation(&self) -> Result<Option<u32>> {
        Ok(None)
    }
    fn read_config(&self, _: u32, _: &mut [u8]) -> Result<()> {
        Ok(())
    }
    fn write_config(&self, _: u32, _: &[u8]) -> Result<()> {
        Ok(())
    }
    fn queue_limits(&self, _: QueueIndex) -> Result<QueueLimits> {
        Ok(QueueLimits {
            max_size: 1024,
            group: GroupIndex::new(0),
        })
    }
    fn start_queue(&self, q: QueueIndex, c: &QueueConfig, _: Kick, call: Call) -> Result<Doorbell> {
        let features = *self.shared.features.lock().unwrap();
        let format = match features.contains(bits::RING_PACKED) {
            true => Format::Packed,
            false => Format::Split,
        };
        let mut ring = RingFeatures::empty();
        ring.set(RingFeatures::EVENT_IDX, features.contains(bits::EVENT_IDX));
        ring.set(RingFeatures::IN_ORDER, features.contains(bits::IN_ORDER));
        let indirect = features.contains(bits::INDIRECT_DESC);
        ring.set(RingFeatures::INDIRECT_DESC, indirect);
        let bell = Bell::new(&self.shared.sleeper);
        let line = Line {
            number: q,
            config: *c,
            format,
            event_idx: features.contains(bits::EVENT_IDX),
            bell: bell.clone(),
            call: Arc::new(CallCell::new(call)),
        };
        let ring = DeviceRing::new(format, c.size, ring, c.state).unwrap();
        assert!(line.number.get() < self.info.queues);
        self.ask(|asked| asked.queues.push((line, ring)));
        bell.ring();
        Ok(bell.into())
    }
    fn replace_call(&self, _: QueueIndex, _: Call) -> Result<()> {
        Err(Error::Unsupported {
            device: self.info.name.clone(),
            what: "replacing a call",
        })
    }
}

impl Suspend for Echo {
    fn begin(&self) -> Result<()> {
        self.ask(|asked| asked.suspended = true);
        Ok(())
    }
    fn poll(&self) -> Result<Poll<()>> {
        Ok(match self.is_seen() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
    }
    fn state(&self, _: QueueIndex) -> Result<QueueState> {
        Ok(QueueState::Split {
            avail: 0,
            used: None,
        })
    }
    fn resume(&self) -> Result<()> {
        self.ask(|asked| asked.suspended = false);
        Ok(())
    }
}

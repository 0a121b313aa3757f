//! A driver for tests: rings and buffers of its own in one region, so that it can do what a driver must not do too.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of it"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use vdpa_core::bits::{self, net};
use vdpa_core::*;
use vdpa_mem::{Access, Bytes, Deadline, DmaMemory, Iova, IovaRange, Mapping, Region, Window};
use vdpa_ring::{
    Areas, Completion, DriverMem, DriverRing, Format, Placement, QueueState, RingError,
    RingFeatures, Segment, Tables, area_sizes,
};
use vdpa_sim::SimMgmt;

/// Where the region is for the device.
pub const BASE: u64 = 0x4000_0000;
/// Bytes of the region.
pub const REGION: u64 = 16 << 20;
/// A packet's header.
pub const HEADER: usize = 12;

/// Bytes of a packet's header with these features.
pub fn header_bytes(features: Features) -> usize {
    if features.contains(net::HASH_REPORT) {
        20
    } else {
        HEADER
    }
}
/// Anything ends within this.
pub const SOON: Duration = Duration::from_secs(10);

pub fn soon() -> Deadline {
    Deadline::after(SOON)
}

/// Waits until `done`.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < SOON, "{what} did not happen");
        std::thread::yield_now();
    }
}

/// A place where devices are made.
pub struct Lab {
    pub sim: Arc<SimMgmt>,
    pub registry: Registry,
}

impl Lab {
    pub fn new() -> Self {
        let sim = Arc::new(SimMgmt::new());
        let mut registry = Registry::new();
        registry.add(sim.clone());
        registry.add_layer(Arc::new(vdpa_layer::FaultsLayer));
        registry.add_layer(Arc::new(vdpa_layer::TraceLayer));
        Self { sim, registry }
    }

    pub fn open(&self, spec: &str) -> Rig {
        let spec = format!("{spec}{}", around());
        Rig::new(self.registry.open(&spec).unwrap())
    }
}

/// What every device of this test file is wrapped in: `through_trace` and `through_faults` hold other files.
fn around() -> String {
    match module_path!().split("::").next() {
        Some("through_trace") => {
            // Somebody has to listen, or kicks and calls are left alone.
            let all = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE);
            let _again = all.with_writer(std::io::sink).try_init();
            ",trace=trace".to_owned()
        }
        Some("through_faults") => {
            // Every fault is asked for, so that everything goes through the layer, and never comes.
            let kinds = vdpa_layer::faults::KINDS.iter();
            let never: Vec<_> = kinds.map(|kind| format!("{}:0", kind.name)).collect();
            format!(",fault={},seed=1", never.join("+"))
        }
        _ => String::new(),
    }
}

/// A device, and memory that it sees.
pub struct Rig {
    pub device: Device,
    pub memory: Arc<dyn DmaMemory>,
    pub window: Window,
    pub dma: DmaHandle,
    next: AtomicU64,
}

impl Rig {
    pub fn new(device: Device) -> Self {
        let (memory, window) = Region::anonymous(REGION).unwrap().into_shared();
        let dma = device.dma(Asid::new(0)).unwrap();
        let rig = Self {
            device,
            memory,
            window,
            dma,
            next: AtomicU64::new(0),
        };
        rig.map();
        rig
    }

    pub fn range() -> IovaRange {
        IovaRange::new(Iova::new(BASE), REGION).unwrap()
    }

    /// Maps the region, and nothing else.
    pub fn map(&self) {
        let mapping = Mapping {
            iova: Self::range(),
            memory: self.memory.clone(),
            offset: 0,
            access: Access::Both,
            dirty: None,
        };
        self.dma.replace(vec![mapping], soon()).unwrap();
    }

    pub fn unmap(&self) {
        self.dma.unmap(Self::range(), soon()).unwrap();
    }

    pub fn bytes(&self) -> Bytes<'_> {
        self.window.bytes()
    }

    /// An offset in the region of `len` bytes that nobody else has.
    pub fn alloc(&self, len: usize) -> u64 {
        let len = (len as u64).next_multiple_of(128);
        let at = self.next.fetch_add(len, Ordering::Relaxed);
        assert!(at + len <= REGION, "the region is too small for the test");
        at
    }

    /// Negotiates everything that is offered but `without`, and packed rings if asked for.
    pub fn negotiate(&self, features: Features) {
        let by = |status: Status| self.device.write_status(status.bits()).unwrap();
        by(Status::ACKNOWLEDGE);
        by(Status::ACKNOWLEDGE | Status::DRIVER);
        self.device.accept(features).unwrap();
        by(Status::ACKNOWLEDGE | Status::DRIVER | Status::FEATURES_OK);
        assert!(self.status().contains(Status::FEATURES_OK));
    }

    pub fn run(&self) {
        let all = Status::ACKNOWLEDGE | Status::DRIVER | Status::FEATURES_OK | Status::DRIVER_OK;
        self.device.write_status(all.bits()).unwrap();
    }

    /// Waits until the device's workers have done what they were told to do: they do it in the order in which they are told,
    /// so once they are suspended all before that is done.
    pub fn is_obeyed(&self) {
        self.device.suspend(soon()).unwrap();
        self.device.resume().unwrap();
    }

    pub fn status(&self) -> Status {
        self.device.status().unwrap()
    }

    pub fn queue(&self, q: u16, size: u16) -> Q {
        self.queue_from(q, size, None)
    }

    pub fn queue_from(&self, q: u16, size: u16, state: Option<QueueState>) -> Q {
        let mut queue = Q::new(self, q, size, state);
        queue.start(self, state);
        queue
    }

    pub fn stat(&self, name: &str) -> u64 {
        let mut found = None;
        self.device
            .stats(&mut |n, value| {
                if n == name {
                    found = Some(value);
                }
            })
            .unwrap();
        found.unwrap_or_else(|| panic!("no counter {name}"))
    }

    /// The sum of a counter over all queues.
    pub fn total(&self, name: &str) -> u64 {
        let mut sum = 0;
        self.device
            .stats(&mut |n, value| {
                if n.split_once('.').is_some_and(|(_, n)| n == name) {
                    sum += value;
                }
            })
            .unwrap();
        sum
    }

    pub fn config(&self) -> config::NetConfig {
        let mut bytes = [0; config::NetConfig::SIZE];
        self.device.read_config(0, &mut bytes).unwrap();
        config::NetConfig::from_bytes(&bytes)
    }

    pub fn reset(&self) {
        self.device.reset(soon()).unwrap();
    }

    pub fn close(self) {
        self.device.close(soon()).map_err(|(_, e)| e).unwrap();
    }
}

/// Everything but packed rings, offloads and what changes which frames arrive.
pub fn plain(rig: &Rig) -> Features {
    let rest = rig.device.offered() - vdpa_sim::offload::TRANSMIT - vdpa_sim::offload::RECEIVE;
    let rest = rest - (bits::RING_PACKED | bits::IN_ORDER | net::MRG_RXBUF | net::MQ);
    rest - (net::RSS | net::HASH_REPORT)
}

/// Plain features with some of these switched on.
pub fn with(rig: &Rig, packed: bool, merge: bool, event_idx: bool, in_order: bool) -> Features {
    let mut features = plain(rig) - bits::EVENT_IDX;
    for (bit, on) in [
        (bits::RING_PACKED, packed),
        (net::MRG_RXBUF, merge),
        (bits::EVENT_IDX, event_idx),
        (bits::IN_ORDER, in_order),
    ] {
        if on {
            features = features.with(bit);
        }
    }
    features
}

/// A queue, from the driver's side.
pub struct Q {
    pub index: QueueIndex,
    pub ring: DriverRing,
    pub size: u16,
    pub at: u64,
    placed: Placement,
    tables: u64,
    features: Features,
    window: Window,
    pub doorbell: Doorbell,
    pub calls: Arc<AtomicU32>,
}

const TABLE_ENTRIES: u16 = 16;

impl Q {
    pub fn new(rig: &Rig, q: u16, size: u16, state: Option<QueueState>) -> Self {
        let features = rig.device.negotiated();
        let packed = features.contains(bits::RING_PACKED);
        let format = if packed {
            Format::Packed
        } else {
            Format::Split
        };
        let mut ring = RingFeatures::empty();
        ring.set(
            RingFeatures::INDIRECT_DESC,
            features.contains(bits::INDIRECT_DESC),
        );
        ring.set(RingFeatures::EVENT_IDX, features.contains(bits::EVENT_IDX));
        ring.set(RingFeatures::IN_ORDER, features.contains(bits::IN_ORDER));
        let placed = area_sizes(format, size, true).placed();
        let at = rig.alloc(placed.bytes as usize);
        rig.bytes().zero(at as usize, placed.bytes as usize);
        let tables = rig.alloc(usize::from(size) * usize::from(TABLE_ENTRIES) * 16);
        Self {
            index: QueueIndex::new(q),
            ring: DriverRing::new(format, size, ring, state).unwrap(),
            size,
            at,
            placed,
            tables,
            features,
            window: rig.window.clone(),
            doorbell: Doorbell::NONE,
            calls: Arc::default(),
        }
    }

    pub fn config(&self, state: Option<QueueState>) -> QueueConfig {
        let iova = |offset: u32| Iova::new(BASE + self.at + u64::from(offset));
        let p = &self.placed;
        QueueConfig {
            state,
            ..QueueConfig::new(
                self.size,
                iova(p.descriptor),
                iova(p.driver),
                iova(p.device),
            )
        }
    }

    pub fn call(&self) -> Call {
        let calls = self.calls.clone();
        Call::from_fn(move || {
            calls.fetch_add(1, Ordering::SeqCst);
        })
    }

    pub fn start(&mut self, rig: &Rig, state: Option<QueueState>) {
        let config = self.config(state);
        self.doorbell = rig
            .device
            .start_queue(self.index, config, Kick::Taken, self.call())
            .unwrap();
    }

    /// Where the areas are in the region: descriptor, driver, device.
    pub fn areas(&self) -> [u64; 3] {
        let p = &self.placed;
        [p.descriptor, p.driver, p.device].map(|offset| self.at + u64::from(offset))
    }

    fn mem<'a>(
        window: &'a Window,
        at: u64,
        p: &Placement,
        tables: u64,
        size: u16,
    ) -> DriverMem<Bytes<'a>> {
        let all = window.bytes();
        let from = |offset: u32, len: u32| {
            all.slice(at as usize + offset as usize, len as usize)
                .unwrap()
        };
        DriverMem {
            areas: Areas {
                descriptor: from(p.descriptor, p.driver - p.descriptor),
                driver: from(p.driver, p.device - p.driver),
                device: from(p.device, p.bytes - p.device),
            },
            tables: Some(Tables {
                memory: all
                    .slice(
                        tables as usize,
                        usize::from(size) * usize::from(TABLE_ENTRIES) * 16,
                    )
                    .unwrap(),
                base: Iova::new(BASE + tables),
                entries: TABLE_ENTRIES,
            }),
        }
    }

    /// Adds a chain of pieces (offset in the region, length).
    pub fn add(&mut self, readable: &[(u64, u32)], writable: &[(u64, u32)]) -> Option<u16> {
        let segments = |list: &[(u64, u32)]| -> Vec<Segment> {
            list.iter()
                .map(|&(at, len)| Segment {
                    addr: Iova::new(BASE.wrapping_add(at)),
                    len,
                })
                .collect()
        };
        let mem = Self::mem(&self.window, self.at, &self.placed, self.tables, self.size);
        self.ring
            .add(&mem, &segments(readable), &segments(writable))
            .ok()
    }

    pub fn publish(&mut self) {
        let mem = Self::mem(&self.window, self.at, &self.placed, self.tables, self.size);
        if self.ring.publish(&mem) {
            let data = if self.features.contains(bits::NOTIFICATION_DATA) {
                self.ring.notification_data(self.index.get())
            } else {
                self.index.get().into()
            };
            self.doorbell.ring(data);
        }
    }

    /// What has come back by now.
    pub fn used(&mut self) -> Vec<Completion> {
        self.try_used().unwrap()
    }

    /// The same, from a device that may break the ring.
    pub fn try_used(&mut self) -> Result<Vec<Completion>, RingError> {
        let mem = Self::mem(&self.window, self.at, &self.placed, self.tables, self.size);
        let mut out = [Completion::default(); 256];
        let taken = self.ring.take_used(&mem, &mut out)?;
        Ok(out[..taken].to_vec())
    }

    pub fn arm(&mut self) -> bool {
        let mem = Self::mem(&self.window, self.at, &self.placed, self.tables, self.size);
        self.ring.arm(&mem)
    }

    pub fn disarm(&mut self) {
        let mem = Self::mem(&self.window, self.at, &self.placed, self.tables, self.size);
        self.ring.disarm(&mem);
    }

    /// Waits for `count` chains.
    pub fn wait_used(&mut self, count: usize) -> Vec<Completion> {
        let mut all = Vec::new();
        until("completion", || {
            all.extend(self.used());
            all.len() >= count
        });
        assert_eq!(all.len(), count);
        all
    }
}

/// A transmit queue with a buffer for each slot.
pub struct Tx {
    pub q: Q,
    buffers: Vec<u64>,
    free: Vec<usize>,
    of: Vec<usize>,
    len: usize,
    header: usize,
}

impl Tx {
    pub fn new(rig: &Rig, q: Q, len: usize) -> Self {
        let count = usize::from(q.size);
        Self {
            buffers: (0..count).map(|_| rig.alloc(len)).collect(),
            free: (0..count).collect(),
            of: vec![0; count],
            len,
            header: header_bytes(q.features),
            q,
        }
    }

    /// Sends frames; answers how many there was room for.
    pub fn send(&mut self, frames: &[Vec<u8>]) -> usize {
        self.send_with(frames.iter().map(|frame| ([0; HEADER], frame.as_slice())))
    }

    /// Sends packets with these headers; answers how many there was room for.
    pub fn send_with<'f>(
        &mut self,
        packets: impl Iterator<Item = ([u8; HEADER], &'f [u8])>,
    ) -> usize {
        self.reap();
        let mut sent = 0;
        for (header, frame) in packets {
            let len = frame.len() + self.header;
            assert!(len <= self.len);
            let Some(buffer) = self.free.pop() else { break };
            let at = self.buffers[buffer];
            let bytes = self.q.window.bytes();
            bytes.zero(at as usize, self.header);
            bytes.write(at as usize, &header);
            bytes.write(at as usize + self.header, frame);
            let Some(id) = self.q.add(&[(at, len as u32)], &[]) else {
                self.free.push(buffer);
                break;
            };
            self.of[usize::from(id)] = buffer;
            sent += 1;
        }
        self.q.publish();
        sent
    }

    pub fn reap(&mut self) -> usize {
        let used = self.q.used();
        for done in &used {
            assert_eq!(done.len, 0, "nothing is written to a buffer that is sent");
            self.free.push(self.of[usize::from(done.id)]);
        }
        used.len()
    }

    pub fn in_flight(&self) -> usize {
        self.buffers.len() - self.free.len()
    }
}

/// A receive queue with a buffer for each slot.
pub struct Rx {
    pub q: Q,
    buffers: Vec<u64>,
    free: Vec<usize>,
    of: Vec<usize>,
    len: u32,
    merge: bool,
    /// Buffers of a frame that has not come wholly.
    part: Vec<u8>,
    missing: u16,
    pub got: Vec<Vec<u8>>,
    /// The headers of what came.
    pub headers: Vec<[u8; HEADER]>,
    /// Calls back with each buffer's `num_buffers` and length.
    pub buffers_used: Vec<u32>,
    header: usize,
    /// The hash and its report of each frame, with HASH_REPORT.
    pub hashes: Vec<(u32, u16)>,
}

impl Rx {
    pub fn new(rig: &Rig, q: Q, len: u32) -> Self {
        let count = usize::from(q.size);
        Self {
            buffers: (0..count).map(|_| rig.alloc(len as usize)).collect(),
            free: (0..count).collect(),
            of: vec![0; count],
            len,
            merge: q.features.contains(net::MRG_RXBUF),
            header: header_bytes(q.features),
            hashes: Vec::new(),
            q,
            part: Vec::new(),
            missing: 0,
            got: Vec::new(),
            headers: Vec::new(),
            buffers_used: Vec::new(),
        }
    }

    /// Posts up to `count` buffers.
    pub fn post(&mut self, count: usize) {
        for _ in 0..count {
            let Some(buffer) = self.free.pop() else { break };
            let at = self.buffers[buffer];
            let Some(id) = self.q.add(&[], &[(at, self.len)]) else {
                self.free.push(buffer);
                break;
            };
            self.of[usize::from(id)] = buffer;
        }
        self.q.publish();
    }

    /// Takes what has come into `got`, checks its headers, and posts the buffers again.
    pub fn poll(&mut self) {
        self.try_poll().unwrap();
    }

    /// The same, from a device that may break the ring.
    pub fn try_poll(&mut self) -> Result<(), RingError> {
        let used = self.q.try_used()?;
        let count = used.len();
        for done in used {
            let buffer = self.of[usize::from(done.id)];
            self.free.push(buffer);
            assert!(done.len <= self.len);
            self.buffers_used.push(done.len);
            if done.len == 0 {
                continue;
            }
            let mut bytes = vec![0; done.len as usize];
            self.q
                .window
                .bytes()
                .read(self.buffers[buffer] as usize, &mut bytes);
            if self.missing == 0 {
                let offloads = self.q.features.intersects(vdpa_sim::offload::RECEIVE);
                assert!(
                    offloads || bytes[..10] == [0; 10],
                    "no offload is negotiated"
                );
                self.headers.push(bytes[..HEADER].try_into().unwrap());
                let buffers = u16::from_le_bytes([bytes[10], bytes[11]]);
                assert!(
                    buffers >= 1 && (self.merge || buffers == 1),
                    "{buffers} buffers"
                );
                self.missing = buffers;
                if let [a, b, c, d, e, f, g, h] = bytes[HEADER..self.header] {
                    assert_eq!([g, h], [0; 2], "padding");
                    let hash = u32::from_le_bytes([a, b, c, d]);
                    self.hashes.push((hash, u16::from_le_bytes([e, f])));
                }
                bytes.drain(..self.header);
            }
            self.part.extend(bytes);
            self.missing -= 1;
            if self.missing == 0 {
                self.got.push(std::mem::take(&mut self.part));
            } else {
                assert_eq!(done.len, self.len, "all but the last are full");
            }
        }
        if count != 0 {
            self.post(count);
        }
        Ok(())
    }

    /// Waits until `count` frames have come in all.
    pub fn wait(&mut self, count: usize) {
        until(&format!("arrival of {count} frames"), || {
            self.poll();
            self.got.len() >= count
        });
        assert_eq!(self.got.len(), count);
    }

    /// Nothing more comes for a while.
    pub fn quiet(&mut self) {
        let before = self.got.len();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(20) {
            self.poll();
            std::thread::yield_now();
        }
        assert_eq!(self.got.len(), before, "a frame came that must not");
    }
}

/// The control queue.
pub struct Ctrl {
    pub q: Q,
    at: u64,
}

impl Ctrl {
    pub fn new(rig: &Rig, q: Q) -> Self {
        let at = rig.alloc(4096);
        Self { q, at }
    }

    /// Sends a command with room for `len` bytes of answer, and returns those that were written.
    pub fn ask(&mut self, bytes: &[u8], len: u32) -> Vec<u8> {
        let memory = self.q.window.bytes();
        memory.write(self.at as usize, bytes);
        let answer = self.at + 2048;
        memory.write(answer as usize, &vec![0xaa; len as usize]);
        self.q
            .add(&[(self.at, bytes.len() as u32)], &[(answer, len)])
            .unwrap();
        self.q.publish();
        let done = self.q.wait_used(1);
        let mut said = vec![0; len as usize];
        self.q.window.bytes().read(answer as usize, &mut said);
        let rest = said.split_off(done[0].len as usize);
        assert!(rest.iter().all(|byte| *byte == 0xaa), "beyond what is used");
        said
    }

    /// Sends a command and returns its ack.
    pub fn command(&mut self, bytes: &[u8]) -> u8 {
        let memory = self.q.window.bytes();
        memory.write(self.at as usize, bytes);
        let ack = self.at + 4000;
        memory.write(ack as usize, &[0xaa]);
        self.q
            .add(&[(self.at, bytes.len() as u32)], &[(ack, 1)])
            .unwrap();
        self.q.publish();
        let done = self.q.wait_used(1);
        assert_eq!(done[0].len, 1);
        let mut said = [0];
        self.q.window.bytes().read(ack as usize, &mut said);
        said[0]
    }
}

/// A card with its first pair running.
pub struct Card {
    pub rig: Rig,
    pub tx: Tx,
    pub rx: Rx,
}

impl Card {
    pub fn new(rig: Rig, features: Features, size: u16, buffer: u32) -> Self {
        rig.negotiate(features);
        let mut rx = Rx::new(&rig, rig.queue(0, size), buffer);
        let tx = Tx::new(
            &rig,
            rig.queue(1, size),
            65_700.min(buffer.max(2048) as usize),
        );
        rx.post(size.into());
        rig.run();
        Self { rig, tx, rx }
    }

    /// Sends all, receiving meanwhile.
    pub fn send_all(&mut self, frames: &[Vec<u8>]) {
        let mut sent = 0;
        until("sending", || {
            sent += self.tx.send(&frames[sent..]);
            self.rx.poll();
            sent == frames.len()
        });
    }
}

/// Frame number `i`: its bytes say which it is.
pub fn frame(i: usize, len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..len).map(|at| (i * 31 + at * 7) as u8).collect();
    bytes[..6].copy_from_slice(&[0x52, 0x54, 0, 0, 0, 1]);
    bytes[6..12].copy_from_slice(&[0x52, 0x54, 0, 0, 0, 2]);
    bytes[12..14].copy_from_slice(&[0x88, 0xb5]);
    if len >= 18 {
        bytes[14..18].copy_from_slice(&(i as u32).to_le_bytes());
    }
    bytes
}

/// Frames of all lengths up to the MTU.
pub fn frames(count: usize, longest: usize) -> Vec<Vec<u8>> {
    (0..count)
        .map(|i| frame(i, 14 + (i * 97) % (longest - 13)))
        .collect()
}

//! A device that behaves wrongly on its data path. It stands between a driver and the device behind it: takes chains from
//! the driver's rings, hands copies of them to that device in rings and memory of its own, and gives them back, but for
//! what a [`Twist`] does otherwise.
//!
//! ```text
//!   driver's memory            Shadow                       its own memory
//!   ring ── DeviceRing over [Cells] ─▶ read ─▶ DriverRing ── ring     device behind
//!   buffers ◀── written ◀── copies ◀───────────────────────── buffers
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use vdpa_core::*;
use vdpa_mem::{
    Access, AddressSpace, Bytes, DmaMemory, Fault, Hint, Iova, IovaRange, Mapping, Reader, Region,
    Section, Window,
};
use vdpa_ring::{
    Areas, Batch, ChainToken, Completion, DeviceMem, DeviceRing, DriverMem, DriverRing, Format,
    RingError, RingFeatures, RingMem, Segment, Used, area_sizes,
};

/// What a mutant does otherwise. Each method does nothing unless it is written anew. All are called on the shadow's
/// thread, or under its lock: they must not call the device.
#[allow(unused_variables, reason = "for the names in what overrides them")]
pub trait Twist: Send + Sync + 'static {
    /// What a cell of the driver's ring says.
    fn load(&self, cell: Cell, value: u64) -> u64 {
        value
    }
    /// What is written to a cell of the driver's ring: `put` writes, as often as it is called, also elsewhere.
    fn store(&self, cell: Cell, value: u64, put: &mut dyn FnMut(Cell, u64)) {
        put(cell, value);
    }
    /// A chain was taken: what the device behind will read, and the driver's memory.
    fn taken(&self, chain: &Chain, readable: &mut Vec<u8>, memory: &Memory<'_>) {}
    /// A chain is done: what goes into the writable buffers (all of them, canaries behind what was written), and the
    /// length that is told.
    fn written(&self, chain: &Chain, bytes: &mut Vec<u8>, len: &mut u32, memory: &Memory<'_>) {}
    /// Chains are given back: in this order.
    fn used(&self, queue: u16, used: &mut Vec<Used>) {}
    /// They were given back, and the driver was not called yet.
    fn committed(&self, queue: u16, used: &[Used], memory: &Memory<'_>) {}
    /// Whether the driver is called.
    fn calls(&self, queue: u16, wanted: bool) -> bool {
        wanted
    }
    /// Whether the queue is looked at.
    fn looks(&self, queue: u16, live: bool) -> bool {
        live
    }
    /// Whether a reset stops the queues, as it has to.
    fn stops(&self) -> bool {
        true
    }
    /// Whether what is wrong with a ring is told, by status and event.
    fn tells(&self) -> bool {
        true
    }
    /// How many chains are taken at once, at most.
    fn batch(&self) -> usize {
        64
    }
}

/// Twists nothing.
pub struct Plain;

impl Twist for Plain {}

/// A cell of a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cell {
    /// The queue.
    pub queue: u16,
    /// The area that it is in.
    pub area: Area,
    /// Where in the area, in bytes.
    pub at: u32,
    /// How many bytes it has: 2, 4 or 8.
    pub width: u8,
}

/// A chain that was taken.
pub struct Chain {
    /// The queue.
    pub queue: u16,
    /// How many were taken from this queue before it.
    pub number: u64,
    /// Its head or id, and its slots.
    pub token: ChainToken,
    /// What the device reads.
    pub readable: Vec<Segment>,
    /// What the device writes.
    pub writable: Vec<Segment>,
}

/// The driver's memory.
pub struct Memory<'s> {
    section: &'s Section<'s>,
    /// How the queue in question was set up.
    pub config: QueueConfig,
}

impl Memory<'_> {
    /// Writes as far as it is mapped, whatever for.
    pub fn write(&self, at: Iova, from: &[u8]) {
        let mut done = 0;
        while done < from.len() {
            let Some(at) = at.checked_add(done as u64) else {
                return;
            };
            let left = (from.len() - done) as u32;
            let found =
                self.section
                    .translate(at, left, Access::DeviceWrites, &mut Hint::default());
            let Ok(bytes) = found else { return };
            done += bytes.write(0, &from[done..]);
        }
    }

    /// Reads as far as it is mapped; the rest is zero.
    pub fn read(&self, at: Iova, len: usize) -> Vec<u8> {
        let mut to = vec![0; len];
        let mut done = 0;
        while done < len {
            let Some(at) = at.checked_add(done as u64) else {
                break;
            };
            let left = (len - done) as u32;
            let found = self
                .section
                .translate(at, left, Access::DeviceReads, &mut Hint::default());
            let Ok(bytes) = found else { break };
            done += bytes.read(0, &mut to[done..]);
        }
        to
    }
}

/// Puts a shadow in front of a device.
pub fn shadow<T: Twist>(inner: Arc<dyn VdpaDevice>, twist: T) -> Arc<dyn VdpaDevice> {
    let info = DeviceInfo {
        kicks: KickKind::Taken,
        calls: CallKind::Any,
        groups: 1,
        asids: 1,
        ..inner.info().clone()
    };
    let shadow = Arc::new_cyclic(|me| Shadow {
        me: me.clone(),
        inner,
        info,
        twist,
        state: Mutex::default(),
        work: Condvar::new(),
    });
    let served = Arc::downgrade(&shadow);
    std::thread::spawn(move || serve(&served));
    shadow
}

/// Where the shadow's own memory is for the device behind.
const BASE: u64 = 0x10_0000;
/// How much of it a queue has.
const ARENA: u64 = 4 << 20;
/// The most bytes of a chain.
const MOST: u64 = 1 << 20;
/// What is in the device's buffers before it writes: as in the suite.
const CANARY: u8 = 0xc5;

struct Shadow<T> {
    me: Weak<Self>,
    inner: Arc<dyn VdpaDevice>,
    info: DeviceInfo,
    twist: T,
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    host: Option<Host>,
    reader: Option<Reader>,
    own: Option<AddressSpace>,
    features: Features,
    live: bool,
    needs_reset: bool,
    dirty: bool,
    queues: BTreeMap<u16, Queue>,
}

struct Queue {
    config: QueueConfig,
    call: Call,
    outer: DeviceRing,
    broken: bool,
    taken: u64,
    batch: Batch,
    inner: DriverRing,
    bell: Doorbell,
    window: Window,
    areas: [(u32, u32); 3],
    base: u64,
    free: BTreeMap<u64, u64>,
    /// Chains in the order taken; the length once they are done.
    order: VecDeque<(ChainToken, Option<u32>)>,
    /// By the id in the inner ring.
    under_way: BTreeMap<u16, UnderWay>,
}

struct UnderWay {
    chain: Chain,
    at: u64,
    len: u64,
    writable_at: u64,
    writable: u32,
}

fn serve<T: Twist>(served: &Weak<Shadow<T>>) {
    while let Some(shadow) = served.upgrade() {
        let mut state = shadow.lock();
        if !state.dirty {
            let nap = Duration::from_millis(50);
            state = shadow
                .work
                .wait_timeout(state, nap)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        let calls = match std::mem::take(&mut state.dirty) {
            true => shadow.pass(&mut state),
            false => Vec::new(),
        };
        drop(state);
        calls.iter().for_each(Call::raise);
    }
}

impl<T: Twist> Shadow<T> {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        self.lock().dirty = true;
        self.work.notify_one();
    }

    /// Wakes the shadow, as long as there is one.
    fn bell(&self) -> Doorbell {
        let me = self.me.clone();
        Doorbell::from_fn(move |_| {
            if let Some(shadow) = me.upgrade() {
                shadow.wake();
            }
        })
    }

    /// Looks at every queue once; returns who is to be called.
    fn pass(&self, state: &mut State) -> Vec<Call> {
        let mut calls = Vec::new();
        let (Some(reader), Some(host)) = (&mut state.reader, &state.host) else {
            return calls;
        };
        let section = reader.enter();
        let mut events = Vec::new();
        for (&number, queue) in &mut state.queues {
            if queue.broken || !self.twist.looks(number, state.live) {
                continue;
            }
            let passed = queue.pass(number, &self.twist, &section, state.features, &mut events);
            match passed {
                Ok(true) => calls.push(queue.call.clone()),
                Ok(false) => {}
                Err(why) => {
                    queue.broken = true;
                    if self.twist.tells() {
                        state.needs_reset = true;
                        events.push(Event::NeedsReset {
                            queue: Some(QueueIndex::new(number)),
                            why,
                        });
                    }
                }
            }
        }
        drop(section);
        events
            .into_iter()
            .for_each(|event| host.events.raise(event));
        calls
    }
}

impl Queue {
    /// `true`: call the driver.
    fn pass<T: Twist>(
        &mut self,
        number: u16,
        twist: &T,
        section: &Section<'_>,
        features: Features,
        events: &mut Vec<Event>,
    ) -> Result<bool, String> {
        let areas = self.outer_areas(number, twist, section)?;
        let memory = Memory {
            section,
            config: self.config,
        };
        let mem = OuterMem { areas, section };
        self.collect(twist, &memory)?;
        let told = |e: RingError| e.to_string();
        let mut wanted = self.give_back(number, twist, &mem, &memory, features)?;
        loop {
            let room = twist.batch().min(usize::from(self.inner.free()) / 2).max(1);
            if self.inner.free() < 2 {
                break;
            }
            let limit = room.min(self.batch.capacity());
            let took = self.outer.take(&mem, &mut self.batch, limit);
            let count = self.batch.len();
            if !self.hand_over(number, twist, &memory, events) || took.is_err() || count == 0 {
                took.map_err(told)?;
                // Looks once more after it has asked for kicks.
                if !self.outer.arm(&mem).map_err(told)? || self.inner.free() < 2 {
                    break;
                }
            }
        }
        if self.publish_inner() {
            self.bell.ring(number.into());
        }
        self.collect(twist, &memory)?;
        wanted |= self.give_back(number, twist, &mem, &memory, features)?;
        Ok(twist.calls(number, wanted))
    }

    /// Gives the batch to the device behind. `false`: there was no room for all of it.
    fn hand_over<T: Twist>(
        &mut self,
        number: u16,
        twist: &T,
        memory: &Memory<'_>,
        events: &mut Vec<Event>,
    ) -> bool {
        let chains: Vec<_> = self
            .batch
            .iter()
            .map(|chain| {
                let (readable, writable) = (chain.readable().to_vec(), chain.writable().to_vec());
                (chain.token(), readable, writable)
            })
            .collect();
        let count = chains.len();
        for (at, (token, readable, writable)) in chains.into_iter().enumerate() {
            let chain = Chain {
                queue: number,
                number: self.taken,
                token,
                readable,
                writable,
            };
            let bytes = |segments: &[Segment]| segments.iter().map(|s| u64::from(s.len)).sum();
            let (reads, writes): (u64, u64) = (bytes(&chain.readable), bytes(&chain.writable));
            let missing = fault(memory.section, &chain);
            if let Some(event) = missing {
                events.push(event);
                self.taken += 1;
                self.order.push_back((token, Some(0)));
                continue;
            }
            if reads + writes == 0 || reads + writes > MOST {
                self.taken += 1;
                self.order.push_back((token, Some(0)));
                continue;
            }
            let Some(at_own) = self.allocate(reads + writes + 1024) else {
                let left = count - at;
                return self.outer.rewind(&mut self.batch, left).is_err();
            };
            self.taken += 1;
            let mut read = Vec::new();
            for segment in &chain.readable {
                read.extend(memory.read(segment.addr, segment.len as usize));
            }
            twist.taken(&chain, &mut read, memory);
            read.truncate(reads as usize + 1024);
            let own = self.window.bytes();
            own.write(at_own as usize, &read);
            let writable_at = at_own + read.len() as u64;
            own.write(writable_at as usize, &vec![CANARY; writes as usize]);
            let segment = |at: u64, len: u64| Segment {
                addr: Iova::new(self.base + at),
                len: len as u32,
            };
            let (one, other);
            let readable: &[Segment] = if read.is_empty() {
                &[]
            } else {
                one = [segment(at_own, read.len() as u64)];
                &one
            };
            let writable: &[Segment] = if writes == 0 {
                &[]
            } else {
                other = [segment(writable_at, writes)];
                &other
            };
            let mem = driver_mem(&self.window, &self.areas);
            let id = self.inner.add(&mem, readable, writable);
            let id = id.expect("there is room for two descriptors");
            self.order.push_back((token, None));
            let under_way = UnderWay {
                chain,
                at: at_own,
                len: reads + writes + 1024,
                writable_at,
                writable: writes as u32,
            };
            self.under_way.insert(id, under_way);
        }
        true
    }

    fn publish_inner(&mut self) -> bool {
        let mem = driver_mem(&self.window, &self.areas);
        self.inner.publish(&mem)
    }

    /// Takes back what the device behind is done with.
    fn collect<T: Twist>(&mut self, twist: &T, memory: &Memory<'_>) -> Result<(), String> {
        loop {
            let mut out = [Completion::default(); 64];
            let mem = driver_mem(&self.window, &self.areas);
            let taken = self.inner.take_used(&mem, &mut out);
            let taken = taken.map_err(|e| format!("behind: {e}"))?;
            for done in &out[..taken] {
                let Some(under_way) = self.under_way.remove(&done.id) else {
                    continue;
                };
                let UnderWay {
                    chain,
                    at,
                    len,
                    writable_at,
                    writable,
                } = under_way;
                let mut bytes = vec![0; writable as usize];
                self.window.bytes().read(writable_at as usize, &mut bytes);
                let mut told = done.len;
                twist.written(&chain, &mut bytes, &mut told, memory);
                let mut rest = &bytes[..];
                for segment in &chain.writable {
                    let (part, after) = rest.split_at(rest.len().min(segment.len as usize));
                    memory.write(segment.addr, part);
                    rest = after;
                }
                self.release(at, len);
                let waiting = self.order.iter_mut();
                let mut same =
                    waiting.filter(|(token, done)| *token == chain.token && done.is_none());
                if let Some(entry) = same.next() {
                    entry.1 = Some(told);
                }
            }
            if taken == 0 && !self.inner.arm(&driver_mem(&self.window, &self.areas)) {
                return Ok(());
            }
        }
    }

    fn give_back<T: Twist>(
        &mut self,
        number: u16,
        twist: &T,
        mem: &OuterMem<'_, T>,
        memory: &Memory<'_>,
        features: Features,
    ) -> Result<bool, String> {
        let mut used = Vec::new();
        if features.contains(bits::IN_ORDER) {
            while let Some(&(token, Some(len))) = self.order.front() {
                used.push(Used { token, len });
                self.order.pop_front();
            }
        } else {
            self.order.retain(|&(token, done)| {
                used.extend(done.map(|len| Used { token, len }));
                done.is_none()
            });
        }
        if used.is_empty() {
            return Ok(false);
        }
        twist.used(number, &mut used);
        let wanted = self.outer.commit(mem, &used).map_err(|e| e.to_string())?;
        twist.committed(number, &used, memory);
        Ok(wanted)
    }

    fn outer_areas<'s, T: Twist>(
        &self,
        number: u16,
        twist: &'s T,
        section: &'s Section<'_>,
    ) -> Result<Areas<Cells<'s, T>>, String> {
        let packed = self.outer.format() == Format::Packed;
        let sizes = area_sizes(self.outer.format(), self.outer.size(), true);
        let (c, near) = (&self.config, &mut Hint::default());
        let mut open = |area, at, len: u32, want| {
            // Without EVENT_IDX the last two bytes need not be there.
            let bytes = section
                .translate(at, len, want, near)
                .map_err(|_| format!("the {area} at {:#x} is not mapped", at.get()))?;
            Ok::<_, String>(Cells {
                bytes,
                queue: number,
                area,
                twist,
            })
        };
        let descriptors = match packed {
            true => Access::Both,
            false => Access::DeviceReads,
        };
        Ok(Areas {
            descriptor: open(
                Area::Descriptor,
                c.descriptor,
                sizes.descriptor.bytes,
                descriptors,
            )?,
            driver: open(
                Area::Driver,
                c.driver,
                sizes.driver.bytes,
                Access::DeviceReads,
            )?,
            device: open(
                Area::Device,
                c.device,
                sizes.device.bytes,
                Access::DeviceWrites,
            )?,
        })
    }

    /// First fit.
    fn allocate(&mut self, len: u64) -> Option<u64> {
        let len = len.next_multiple_of(64);
        let (&at, &room) = self.free.iter().find(|(_, room)| **room >= len)?;
        self.free.remove(&at);
        if room > len {
            self.free.insert(at + len, room - len);
        }
        Some(at)
    }

    fn release(&mut self, at: u64, len: u64) {
        let mut len = len.next_multiple_of(64);
        let mut at = at;
        if let Some(after) = self.free.remove(&(at + len)) {
            len += after;
        }
        let before = self.free.range(..at).next_back().map(|(a, l)| (*a, *l));
        if let Some((before, room)) = before
            && before + room == at
        {
            self.free.remove(&before);
            at = before;
            len += room;
        }
        self.free.insert(at, len);
    }
}

/// What of a chain cannot be reached.
fn fault(section: &Section<'_>, chain: &Chain) -> Option<Event> {
    for (segments, want) in [
        (&chain.readable, Access::DeviceReads),
        (&chain.writable, Access::DeviceWrites),
    ] {
        for segment in segments {
            let (mut at, mut left) = (segment.addr, segment.len);
            while left > 0 {
                match section.translate(at, left, want, &mut Hint::default()) {
                    Ok(bytes) => {
                        left -= bytes.len() as u32;
                        match at.checked_add(bytes.len() as u64) {
                            Some(next) => at = next,
                            None if left == 0 => {}
                            None => return Some(missing(at, want)),
                        }
                    }
                    Err(_) => return Some(missing(at, want)),
                }
            }
        }
    }
    None
}

fn missing(at: Iova, want: Access) -> Event {
    Event::Fault {
        asid: Asid::new(0),
        at,
        want,
    }
}

/// Maps a queue's own memory, in place of what an earlier start left there. A device behind that has an IOMMU is told.
fn remap(
    own: &AddressSpace,
    dma: Dma<'_>,
    range: IovaRange,
    memory: Arc<dyn DmaMemory>,
) -> Result<()> {
    let iommu = match dma {
        Dma::Map(iommu) => Some(iommu),
        _ => None,
    };
    let old = own.mappings();
    if let Some(old) = old.iter().find(|mapping| mapping.iova == range) {
        if let Some(iommu) = iommu {
            iommu.unmap(Asid::new(0), old)?;
        }
        own.unmap(range, vdpa_mem::Deadline::after(Duration::from_secs(5)))?;
    }
    let mapping = Mapping {
        iova: range,
        memory,
        offset: 0,
        access: Access::Both,
        dirty: None,
    };
    if let Some(iommu) = iommu {
        iommu.map(Asid::new(0), &mapping)?;
    }
    Ok(own.map(vec![mapping])?)
}

fn driver_mem<'w>(window: &'w Window, areas: &[(u32, u32); 3]) -> DriverMem<Bytes<'w>> {
    let of = |(at, len): (u32, u32)| {
        let bytes = window.bytes().slice(at as usize, len as usize);
        bytes.expect("the areas are in the arena")
    };
    DriverMem::new(Areas {
        descriptor: of(areas[0]),
        driver: of(areas[1]),
        device: of(areas[2]),
    })
}

/// The driver's ring, cell by cell.
struct Cells<'s, T> {
    bytes: Bytes<'s>,
    queue: u16,
    area: Area,
    twist: &'s T,
}

impl<T: Twist> Cells<'_, T> {
    fn cell(&self, at: u32, width: u8) -> Cell {
        Cell {
            queue: self.queue,
            area: self.area,
            at,
            width,
        }
    }

    fn put(&self, cell: Cell, value: u64) {
        // Only this area is at hand.
        if cell.area != self.area {
            return;
        }
        match cell.width {
            2 => self.bytes.store_u16(cell.at, value as u16),
            4 => self.bytes.store_u32(cell.at, value as u32),
            _ => self.bytes.store_u64(cell.at, value),
        }
    }

    fn store(&self, at: u32, width: u8, value: u64) {
        let cell = self.cell(at, width);
        self.twist
            .store(cell, value, &mut |cell, value| self.put(cell, value));
    }

    fn load(&self, at: u32, width: u8, value: u64) -> u64 {
        self.twist.load(self.cell(at, width), value)
    }
}

impl<T: Twist> RingMem for Cells<'_, T> {
    fn load_u16(&self, at: u32) -> u16 {
        self.load(at, 2, self.bytes.load_u16(at).into()) as u16
    }
    fn store_u16(&self, at: u32, value: u16) {
        self.store(at, 2, value.into());
    }
    fn load_u32(&self, at: u32) -> u32 {
        self.load(at, 4, self.bytes.load_u32(at).into()) as u32
    }
    fn store_u32(&self, at: u32, value: u32) {
        self.store(at, 4, value.into());
    }
    fn load_u64(&self, at: u32) -> u64 {
        self.load(at, 8, self.bytes.load_u64(at))
    }
    fn store_u64(&self, at: u32, value: u64) {
        self.store(at, 8, value);
    }
    fn acquire(&self) {
        RingMem::acquire(&self.bytes);
    }
    fn release(&self) {
        RingMem::release(&self.bytes);
    }
    fn full(&self) {
        RingMem::full(&self.bytes);
    }
}

struct OuterMem<'s, T> {
    areas: Areas<Cells<'s, T>>,
    section: &'s Section<'s>,
}

impl<'s, T: Twist> DeviceMem for OuterMem<'s, T> {
    type Ring = Cells<'s, T>;

    fn areas(&self) -> &Areas<Cells<'s, T>> {
        &self.areas
    }

    fn table(&self, at: Iova, to: &mut [[u64; 2]]) -> Result<(), Fault> {
        for (entry, number) in to.iter_mut().zip(0u64..) {
            let at = at.checked_add(number * 16).ok_or(Fault::Denied)?;
            let mut raw = Vec::new();
            while raw.len() < 16 {
                let at = at.checked_add(raw.len() as u64).ok_or(Fault::Denied)?;
                let left = 16 - raw.len() as u32;
                let found =
                    self.section
                        .translate(at, left, Access::DeviceReads, &mut Hint::default());
                let bytes = found.map_err(|_| Fault::Denied)?;
                let mut part = vec![0; bytes.len()];
                bytes.read(0, &mut part);
                raw.extend(part);
            }
            let word = |from: usize| {
                let bytes = raw[from..from + 8].try_into().expect("eight bytes");
                u64::from_le_bytes(bytes)
            };
            *entry = [word(0), word(8)];
        }
        Ok(())
    }
}

impl<T: Twist> VdpaDevice for Shadow<T> {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn attach(&self, host: Host) -> Result<()> {
        let own = AddressSpace::new();
        let asids = self.inner.info().asids.max(1);
        let mut state = self.lock();
        if state.host.is_some() {
            return Err(Error::Taken { what: "the device" });
        }
        self.inner.attach(Host {
            events: Arc::clone(&host.events),
            spaces: (0..asids).map(|_| own.clone()).collect(),
            relay: host.relay.clone(),
        })?;
        state.reader = Some(host.spaces[0].reader());
        state.host = Some(host);
        state.own = Some(own);
        Ok(())
    }

    fn caps(&self) -> Caps<'_> {
        let Caps {
            class_state, stats, ..
        } = self.inner.caps();
        Caps {
            class_state,
            stats,
            ..Caps::NONE
        }
    }

    fn offered(&self) -> Features {
        let beyond = Features::of(&[
            bits::RING_RESET,
            bits::SUSPEND,
            bits::NOTIFICATION_DATA,
            bits::NOTIF_CONFIG_DATA,
        ]);
        self.inner.offered() - beyond
    }

    fn accept(&self, f: Features) -> Result<()> {
        self.inner.accept(f)?;
        self.lock().features = f;
        Ok(())
    }

    fn status(&self) -> Result<Status> {
        let mut status = self.inner.status()?;
        if self.lock().needs_reset {
            status |= Status::DEVICE_NEEDS_RESET;
        }
        Ok(status)
    }

    fn add_status(&self, bits: Status) -> Result<()> {
        self.inner.add_status(bits)?;
        if bits.contains(Status::DRIVER_OK) {
            self.lock().live = true;
            self.wake();
        }
        Ok(())
    }

    fn begin_reset(&self) -> Result<()> {
        let mut state = self.lock();
        if self.twist.stops() {
            state.queues.clear();
        }
        state.live = false;
        state.needs_reset = false;
        state.features = Features::NONE;
        drop(state);
        self.inner.begin_reset()
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
        let limits = self.inner.queue_limits(q)?;
        Ok(QueueLimits {
            group: GroupIndex::new(0),
            ..limits
        })
    }

    fn start_queue(&self, q: QueueIndex, c: &QueueConfig, _: Kick, call: Call) -> Result<Doorbell> {
        let mut state = self.lock();
        let features = state.features;
        let format = match features.contains(bits::RING_PACKED) {
            true => Format::Packed,
            false => Format::Split,
        };
        let mut outer_ring = RingFeatures::empty();
        for (bit, ring) in [
            (bits::INDIRECT_DESC, RingFeatures::INDIRECT_DESC),
            (bits::EVENT_IDX, RingFeatures::EVENT_IDX),
            (bits::IN_ORDER, RingFeatures::IN_ORDER),
        ] {
            outer_ring.set(ring, features.contains(bit));
        }
        let refused = |_| Error::QueueSize {
            queue: q,
            size: c.size,
            max: 0,
        };
        let outer = DeviceRing::new(format, c.size, outer_ring, c.state).map_err(refused)?;
        let inner_ring = outer_ring - RingFeatures::INDIRECT_DESC;
        // A chain takes two descriptors behind, where it may take one before.
        let size = c.size.max(2);
        let inner = DriverRing::new(format, size, inner_ring, None).map_err(refused)?;

        // Memory of its own for the device behind.
        let base = BASE + u64::from(q.get()) * ARENA * 2;
        let (memory, window) = Region::memfd(ARENA)?.into_shared();
        let range = IovaRange::new(Iova::new(base), ARENA)?;
        if let Some(own) = &state.own {
            remap(own, self.inner.caps().dma, range, memory)?;
        }
        let sizes = area_sizes(format, size, true);
        let placed = sizes.placed();
        let at = |offset: u32| Iova::new(base + u64::from(offset));
        let behind = QueueConfig::new(
            size,
            at(placed.descriptor),
            at(placed.driver),
            at(placed.device),
        );
        let segments = usize::from(c.size) * 2 + 64;
        let first = u64::from(placed.bytes).next_multiple_of(64);
        let mut queue = Queue {
            config: *c,
            call,
            outer,
            broken: false,
            taken: 0,
            batch: Batch::new(64, segments),
            inner,
            bell: Doorbell::NONE,
            window,
            areas: [
                (placed.descriptor, sizes.descriptor.bytes),
                (placed.driver, sizes.driver.bytes),
                (placed.device, sizes.device.bytes),
            ],
            base,
            free: BTreeMap::from([(first, ARENA - first)]),
            order: VecDeque::new(),
            under_way: BTreeMap::new(),
        };
        let bell = self.bell();
        let call = Call::from_fn({
            let bell = bell.clone();
            move || bell.ring(0)
        });
        queue.bell = self.inner.start_queue(q, &behind, Kick::Taken, call)?;
        state.queues.insert(q.get(), queue);
        state.dirty = true;
        Ok(bell)
    }

    fn replace_call(&self, q: QueueIndex, call: Call) -> Result<()> {
        if let Some(queue) = self.lock().queues.get_mut(&q.get()) {
            queue.call = call.clone();
        }
        call.raise();
        Ok(())
    }
}

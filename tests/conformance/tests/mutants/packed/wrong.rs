//! What they do.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering};
use std::time::Duration;

use vdpa_core::*;
use vdpa_mem::Iova;
use vdpa_ring::{Used, layout};

use crate::bend::Bend;
use crate::shadow::{Cell, Chain, Memory, Twist};

const NEXT: u64 = 1 << 48;
const AVAIL: u64 = 1 << 55;
const USED: u64 = 1 << 63;

/// Whether this is a packed descriptor's meta word.
fn is_meta(cell: Cell) -> bool {
    cell.area == Area::Descriptor && cell.width == 8 && cell.at % 16 == 8
}

/// The meta word so many slots on; the ring is not gone round.
fn on(cell: Cell, slots: i32) -> Cell {
    Cell {
        at: cell.at.wrapping_add_signed(16 * slots),
        ..cell
    }
}

pub struct BeginsWithZero;

impl Twist for BeginsWithZero {
    fn store(&self, cell: Cell, value: u64, put: &mut dyn FnMut(Cell, u64)) {
        match is_meta(cell) {
            true => put(cell, value ^ (AVAIL | USED)),
            false => put(cell, value),
        }
    }
}

pub struct NeverFlips;

impl Twist for NeverFlips {
    fn store(&self, cell: Cell, value: u64, put: &mut dyn FnMut(Cell, u64)) {
        match is_meta(cell) {
            true => put(cell, value | AVAIL | USED),
            false => put(cell, value),
        }
    }
}

/// The frame that was held back.
#[derive(Default)]
pub struct SwapsPairs(Mutex<Option<Vec<u8>>>);

impl Twist for SwapsPairs {
    fn taken(&self, chain: &Chain, readable: &mut Vec<u8>, memory: &Memory<'_>) {
        if chain.queue != 1 {
            return;
        }
        let mut held = self.0.lock().unwrap();
        if let Some(first) = held.take() {
            *readable = first;
            return;
        }
        // By hand a chain's id is its slot.
        let next = (u64::from(chain.token.id()) + 1) % u64::from(memory.config.size);
        let descriptor = memory.read(Iova::new(memory.config.descriptor.get() + next * 16), 16);
        let meta = u64::from_le_bytes(descriptor[8..].try_into().unwrap());
        if (meta & AVAIL == 0) != (meta & USED == 0) {
            let at = u64::from_le_bytes(descriptor[..8].try_into().unwrap());
            let second = memory.read(Iova::new(at), meta as u32 as usize);
            *held = Some(std::mem::replace(readable, second));
        }
    }
}

/// Reaches for what a driver mapped.
#[derive(Default)]
struct Reach(Mutex<Vec<vdpa_mem::AddressSpace>>);

impl Reach {
    fn attached(&self, host: &Host) {
        *self.0.lock().unwrap() = host.spaces.to_vec();
    }
    fn meta(&self, at: Iova, f: impl Fn(u64) -> Option<u64>) {
        for space in &*self.0.lock().unwrap() {
            let mut reader = space.reader();
            let section = reader.enter();
            let access = vdpa_mem::Access::Both;
            let found = section.translate(at, 8, access, &mut vdpa_mem::Hint::default());
            if let Ok(bytes) = found
                && let Some(value) = f(bytes.load_u64(0))
            {
                bytes.store_u64(0, value);
            }
        }
    }
}

/// Does something with the ring when it is kicked, before the device looks.
fn kicked(bell: Doorbell, on: impl Fn() + Send + Sync + 'static) -> Doorbell {
    Doorbell::from_fn(move |value| {
        on();
        bell.ring(value);
    })
}

#[derive(Default)]
pub struct PassesOver(std::sync::Arc<Reach>);

impl Bend for PassesOver {
    fn attached(&self, host: &Host) {
        self.0.attached(host);
    }
    fn start_queue(
        &self,
        inner: &dyn VdpaDevice,
        q: QueueIndex,
        c: &QueueConfig,
        kick: Kick,
        call: Call,
    ) -> Result<Doorbell> {
        let bell = inner.start_queue(q, c, kick, call)?;
        let (reach, first) = (std::sync::Arc::clone(&self.0), c.descriptor);
        Ok(kicked(bell, move || {
            let meta = |slot: u64| Iova::new(first.get() + slot * 16 + 8);
            let empty = AtomicBool::new(false);
            reach.meta(meta(0), |meta| {
                empty.store(meta == 0, Ordering::SeqCst);
                None
            });
            let passed = empty.load(Ordering::SeqCst);
            reach.meta(meta(1), |meta| {
                (passed && meta & AVAIL != 0).then_some(meta | USED)
            });
        }))
    }
}

pub struct LeavesGaps;

impl Twist for LeavesGaps {
    fn store(&self, cell: Cell, value: u64, put: &mut dyn FnMut(Cell, u64)) {
        match is_meta(cell) && cell.at > 16 && cell.at < 16 * 16 {
            true => put(on(cell, 1), value),
            false => put(cell, value),
        }
    }
}

pub struct NamesTheFirst;

impl Twist for NamesTheFirst {
    fn used(&self, _: u16, used: &mut Vec<Used>) {
        for used in used {
            used.token = vdpa_ring::ChainToken::new(0, used.token.slots());
        }
    }
}

pub struct TakesUsed;

impl Twist for TakesUsed {
    fn load(&self, cell: Cell, value: u64) -> u64 {
        match is_meta(cell) && value & (AVAIL | USED) == AVAIL | USED {
            true => value & !AVAIL,
            false => value,
        }
    }
}

#[derive(Default)]
pub struct UsesNothing(std::sync::Arc<Reach>);

impl Bend for UsesNothing {
    fn attached(&self, host: &Host) {
        self.0.attached(host);
    }
    fn start_queue(
        &self,
        inner: &dyn VdpaDevice,
        q: QueueIndex,
        c: &QueueConfig,
        kick: Kick,
        call: Call,
    ) -> Result<Doorbell> {
        let bell = inner.start_queue(q, c, kick, call)?;
        let (reach, first) = (std::sync::Arc::clone(&self.0), c.descriptor);
        Ok(kicked(bell, move || {
            let meta = Iova::new(first.get() + 8);
            reach.meta(meta, |meta| (meta == 0).then_some(AVAIL | USED));
        }))
    }
}

pub struct LenAfterUsed;

impl Twist for LenAfterUsed {
    fn store(&self, cell: Cell, value: u64, put: &mut dyn FnMut(Cell, u64)) {
        if is_meta(cell) {
            put(cell, value & !0xffff_ffff);
            std::thread::sleep(Duration::from_millis(2));
        }
        put(cell, value);
    }
}

/// The used descriptor before.
#[derive(Default)]
pub struct Rewrites(Mutex<Option<(Cell, u64)>>);

impl Twist for Rewrites {
    fn store(&self, cell: Cell, value: u64, put: &mut dyn FnMut(Cell, u64)) {
        put(cell, value);
        if is_meta(cell)
            && let Some((cell, value)) = self.0.lock().unwrap().replace((cell, value))
        {
            put(cell, value + 1);
        }
    }
}

/// What was read.
#[derive(Default)]
pub struct ClearsReadable(Mutex<Vec<vdpa_ring::Segment>>);

impl Twist for ClearsReadable {
    fn taken(&self, chain: &Chain, _: &mut Vec<u8>, _: &Memory<'_>) {
        self.0.lock().unwrap().extend(&chain.readable);
    }
    fn written(&self, _: &Chain, _: &mut Vec<u8>, _: &mut u32, memory: &Memory<'_>) {
        for segment in self.0.lock().unwrap().drain(..) {
            memory.write(segment.addr, &vec![0; segment.len as usize]);
        }
    }
}

/// The table that a chain's first slot points to, if its id is its slot.
fn table(chain: &Chain, memory: &Memory<'_>) -> Option<(u64, u32)> {
    let at = memory.config.descriptor.get() + 16 * u64::from(chain.token.id());
    let descriptor = memory.read(Iova::new(at), 16);
    let is_table = descriptor[14] & 4 != 0;
    let word = |from: usize| u64::from_le_bytes(descriptor[from..from + 8].try_into().unwrap());
    is_table.then(|| (word(0), word(8) as u32))
}

pub struct CountsInTables;

impl Twist for CountsInTables {
    fn taken(&self, chain: &Chain, _: &mut Vec<u8>, memory: &Memory<'_>) {
        if let Some((at, _)) = table(chain, memory) {
            let id = Iova::new(at + 12);
            let count = memory.read(id, 1)[0];
            memory.write(id, &[count.wrapping_add(1)]);
        }
    }
}

/// A list's bytes, its segments from the last one on.
fn backwards(bytes: &[u8], segments: &[vdpa_ring::Segment]) -> Vec<u8> {
    let mut turned = Vec::new();
    let mut end = bytes.len();
    for segment in segments.iter().rev() {
        let begin = end.saturating_sub(segment.len as usize);
        turned.extend_from_slice(&bytes[begin..end]);
        end = begin;
    }
    turned.resize(bytes.len(), 0);
    turned
}

pub struct FillsBackwards;

impl Twist for FillsBackwards {
    fn written(&self, chain: &Chain, bytes: &mut Vec<u8>, _: &mut u32, _: &Memory<'_>) {
        let turned: Vec<_> = chain.writable.iter().rev().copied().collect();
        *bytes = backwards(bytes, &turned);
    }
}

pub struct ReadsBackwards;

impl Twist for ReadsBackwards {
    fn taken(&self, chain: &Chain, readable: &mut Vec<u8>, _: &Memory<'_>) {
        *readable = backwards(readable, &chain.readable);
    }
}

/// Slots of the chains that are given back.
#[derive(Default)]
pub struct MarksTheSecond(AtomicU16);

impl Twist for MarksTheSecond {
    fn used(&self, _: u16, used: &mut Vec<Used>) {
        let slots = used.first().map_or(0, |used| used.token.slots());
        self.0.store(slots, Ordering::SeqCst);
    }
    fn store(&self, cell: Cell, value: u64, put: &mut dyn FnMut(Cell, u64)) {
        if is_meta(cell) && self.0.load(Ordering::SeqCst) > 1 && cell.at < 16 * 16 {
            put(on(cell, 1), value);
        }
        put(cell, value);
    }
}

/// The id of the first descriptor of a list, by where it stands.
#[derive(Default)]
pub struct FirstId {
    listed: AtomicBool,
    ids: Mutex<BTreeMap<(u16, u32), u64>>,
}

impl Twist for FirstId {
    fn load(&self, cell: Cell, value: u64) -> u64 {
        if is_meta(cell) && (value & AVAIL == 0) != (value & USED == 0) {
            let inside = self.listed.swap(value & NEXT != 0, Ordering::SeqCst);
            if !inside && value & NEXT != 0 {
                let id = value & 0xffff_0000_0000;
                self.ids.lock().unwrap().insert((cell.queue, cell.at), id);
            }
        }
        value
    }
    fn store(&self, cell: Cell, value: u64, put: &mut dyn FnMut(Cell, u64)) {
        let first = self.ids.lock().unwrap().remove(&(cell.queue, cell.at));
        match first.filter(|_| is_meta(cell)) {
            Some(id) => put(cell, value & !0xffff_0000_0000 | id),
            None => put(cell, value),
        }
    }
}

/// How many are given back together, and those that were held.
#[derive(Default)]
pub struct FirstBufferFirst {
    left: AtomicU32,
    held: Mutex<Vec<(Cell, u64)>>,
}

impl Twist for FirstBufferFirst {
    fn used(&self, _: u16, used: &mut Vec<Used>) {
        self.left.store(used.len() as u32, Ordering::SeqCst);
    }
    fn store(&self, cell: Cell, value: u64, put: &mut dyn FnMut(Cell, u64)) {
        if !is_meta(cell) {
            return put(cell, value);
        }
        let mut held = self.held.lock().unwrap();
        if self.left.fetch_sub(1, Ordering::SeqCst) > 1 {
            held.push((cell, value));
            return;
        }
        put(cell, value);
        if !held.is_empty() {
            std::thread::sleep(Duration::from_millis(2));
        }
        held.drain(..).for_each(|(cell, value)| put(cell, value));
    }
}

/// Takes one event mode for another.
pub struct Mode {
    pub of: u64,
    pub taken: u64,
}

impl Twist for Mode {
    fn load(&self, cell: Cell, value: u64) -> u64 {
        let is_mode = cell.area == Area::Driver && cell.at == layout::EVENT_MODE;
        match is_mode && value == self.of {
            true => self.taken,
            false => value,
        }
    }
}

pub struct WrongLap;

impl Twist for WrongLap {
    fn load(&self, cell: Cell, value: u64) -> u64 {
        let is_pos = cell.area == Area::Driver && cell.at == layout::EVENT_POS;
        if is_pos { value ^ 1 << 15 } else { value }
    }
}

/// The meta word that was loaded last.
pub struct HeedsReserved;

impl Twist for HeedsReserved {
    fn written(&self, chain: &Chain, bytes: &mut Vec<u8>, len: &mut u32, memory: &Memory<'_>) {
        if let Some((at, size)) = table(chain, memory) {
            let entries = memory.read(Iova::new(at), size as usize);
            let reserved = |entry: &[u8]| entry[14] & !2 != 0 || entry[15] != 0;
            if entries.chunks(16).any(reserved) {
                bytes.fill(0xc5);
                *len = 0;
            }
        }
    }
}

pub struct SleepsDisabled;

impl Twist for SleepsDisabled {
    fn store(&self, cell: Cell, value: u64, put: &mut dyn FnMut(Cell, u64)) {
        match cell.area == Area::Device && cell.at == layout::EVENT_MODE {
            true => put(cell, 1),
            false => put(cell, value),
        }
    }
}

pub struct PowersOfTwo;

impl Bend for PowersOfTwo {
    fn start_queue(
        &self,
        inner: &dyn VdpaDevice,
        q: QueueIndex,
        c: &QueueConfig,
        kick: Kick,
        call: Call,
    ) -> Result<Doorbell> {
        if !c.size.is_power_of_two() {
            return Err(Error::QueueSize {
                queue: q,
                size: c.size,
                max: 256,
            });
        }
        inner.start_queue(q, c, kick, call)
    }
}

pub struct RoundsUp;

impl Bend for RoundsUp {
    fn start_queue(
        &self,
        inner: &dyn VdpaDevice,
        q: QueueIndex,
        c: &QueueConfig,
        kick: Kick,
        call: Call,
    ) -> Result<Doorbell> {
        let size = c.size.next_power_of_two();
        let c = QueueConfig { size, ..*c };
        inner.start_queue(q, &c, kick, call)
    }
}

/// Used descriptors written, which change their flags every eight.
#[derive(Default)]
pub struct EightLaps(AtomicU32);

impl Twist for EightLaps {
    fn store(&self, cell: Cell, value: u64, put: &mut dyn FnMut(Cell, u64)) {
        if !is_meta(cell) {
            return put(cell, value);
        }
        let lap = self.0.fetch_add(1, Ordering::SeqCst) / 8;
        let flags = if lap.is_multiple_of(2) {
            AVAIL | USED
        } else {
            0
        };
        put(cell, value & !(AVAIL | USED) | flags);
    }
}

//! Wrong about packed rings.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use vdpa_core::*;
use vdpa_mem::Iova;
use vdpa_ring::{Used, layout};

use crate::Mutant;
use crate::bend::{Bend, bent};
use crate::shadow::{Cell, Chain, Memory, Twist, shadow};
use crate::split::{Hushes, Spills, StaysBroken, Wordless};

const NEXT: u64 = 1 << 48;
const AVAIL: u64 = 1 << 55;
const USED: u64 = 1 << 63;

pub const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "begins with a wrap counter of 0",
        caught_by: 93,
        spec: "sim:rng",
        wrap: |inner| shadow(inner, BeginsWithZero),
    },
    Mutant {
        name: "does not flip its wrap counter",
        caught_by: 93,
        spec: "sim:blk",
        wrap: |inner| shadow(inner, NeverFlips),
    },
    Mutant {
        name: "sends two frames in the wrong order",
        caught_by: 94,
        spec: "sim:net",
        wrap: |inner| shadow(inner, SwapsPairs::default()),
    },
    Mutant {
        name: "passes over what is not available",
        caught_by: 94,
        spec: "sim:rng",
        wrap: |inner| bent(inner, PassesOver::default()),
    },
    Mutant {
        name: "leaves a slot out between used descriptors",
        caught_by: 95,
        spec: "sim:rng",
        wrap: |inner| shadow(inner, LeavesGaps),
    },
    Mutant {
        name: "names the first chain for every one",
        caught_by: 95,
        spec: "sim:blk",
        wrap: |inner| shadow(inner, NamesTheFirst),
    },
    Mutant {
        name: "takes used descriptors for available ones",
        caught_by: 96,
        spec: "sim:rng",
        wrap: |inner| shadow(inner, TakesUsed),
    },
    Mutant {
        name: "uses an empty ring's first slot when it is kicked",
        caught_by: 96,
        spec: "sim:blk",
        wrap: |inner| bent(inner, UsesNothing::default()),
    },
    Mutant {
        name: "sets the length behind USED",
        caught_by: 97,
        spec: "sim:blk",
        wrap: |inner| shadow(inner, LenAfterUsed),
    },
    Mutant {
        name: "writes over the used descriptor before the last",
        caught_by: 97,
        spec: "sim:rng",
        wrap: |inner| shadow(inner, Rewrites::default()),
    },
    Mutant {
        name: "clears readable buffers once they are used",
        caught_by: 98,
        spec: "sim:blk",
        wrap: |inner| shadow(inner, ClearsReadable::default()),
    },
    Mutant {
        name: "counts tables that it has read, in them",
        caught_by: 98,
        spec: "sim:rng",
        wrap: |inner| shadow(inner, CountsInTables),
    },
    Mutant {
        name: "fills a list's buffers from the last one on",
        caught_by: 99,
        spec: "sim:net",
        wrap: |inner| shadow(inner, FillsBackwards),
    },
    Mutant {
        name: "reads a list's buffers from the last one on",
        caught_by: 99,
        spec: "sim:net",
        wrap: |inner| shadow(inner, ReadsBackwards),
    },
    Mutant {
        name: "marks a list's second descriptor used too",
        caught_by: 100,
        spec: "sim:rng",
        wrap: |inner| shadow(inner, MarksTheSecond::default()),
    },
    Mutant {
        name: "gives a list back by its first descriptor's id",
        caught_by: 100,
        spec: "sim:blk",
        wrap: |inner| shadow(inner, FirstId::default()),
    },
    Mutant {
        name: "marks a packet's first buffer used first",
        caught_by: 101,
        spec: "sim:net",
        wrap: |inner| shadow(inner, FirstBufferFirst::default()),
    },
    Mutant {
        name: "calls with events disabled",
        caught_by: 102,
        spec: "sim:rng",
        wrap: |inner| shadow(inner, Mode { of: 1, taken: 0 }),
    },
    Mutant {
        name: "takes events at a descriptor for disabled ones",
        caught_by: 102,
        spec: "sim:blk",
        wrap: |inner| shadow(inner, Mode { of: 2, taken: 1 }),
    },
    Mutant {
        name: "takes events at a descriptor for enabled ones",
        caught_by: 102,
        spec: "sim:net",
        wrap: |inner| shadow(inner, Mode { of: 2, taken: 0 }),
    },
    Mutant {
        name: "takes enabled events for disabled ones",
        caught_by: 102,
        spec: "sim:net",
        wrap: |inner| shadow(inner, Mode { of: 0, taken: 1 }),
    },
    Mutant {
        name: "takes an event's wrap counter the wrong way round",
        caught_by: 102,
        spec: "sim:rng",
        wrap: |inner| shadow(inner, WrongLap),
    },
    Mutant {
        name: "dies silently of a list that goes round the ring",
        caught_by: 103,
        spec: "sim:rng",
        wrap: |inner| bent(inner, Hushes::about("more than")),
    },
    Mutant {
        name: "writes where nobody asked it after a list that goes round the ring",
        caught_by: 103,
        spec: "sim:blk",
        wrap: |inner| bent(inner, Spills::default()),
    },
    Mutant {
        name: "uses a list of which half is available",
        caught_by: 104,
        spec: "sim:rng",
        wrap: |inner| shadow(inner, TakesHalf::default()),
    },
    Mutant {
        name: "dies silently of a list of which half is available",
        caught_by: 104,
        spec: "sim:blk",
        wrap: |inner| bent(inner, Hushes::about("is not available")),
    },
    Mutant {
        name: "heeds reserved flags in a table",
        caught_by: 105,
        spec: "sim:rng",
        wrap: |inner| shadow(inner, HeedsReserved),
    },
    Mutant {
        name: "dies silently of a packed table in a table",
        caught_by: 105,
        spec: "sim:blk",
        wrap: |inner| bent(inner, Hushes::about("of its table is indirect")),
    },
    Mutant {
        name: "dies silently of a table in a list",
        caught_by: 106,
        spec: "sim:rng",
        wrap: |inner| bent(inner, Hushes::about("indirect inside a list")),
    },
    Mutant {
        name: "gives no reason for NEEDS_RESET after a table with a list behind it",
        caught_by: 106,
        spec: "sim:blk",
        wrap: |inner| bent(inner, Wordless("is indirect and goes on")),
    },
    Mutant {
        name: "keeps a chain whose buffer is nowhere",
        caught_by: 107,
        spec: "sim:rng",
        wrap: |inner| shadow(inner, KeepsEmpty),
    },
    Mutant {
        name: "is of no use any more after a descriptor that changed",
        caught_by: 107,
        spec: "sim:blk",
        wrap: |inner| bent(inner, StaysBroken::default()),
    },
    Mutant {
        name: "asks for silence and goes to sleep, packed",
        caught_by: 108,
        spec: "sim:rng",
        wrap: |inner| shadow(inner, SleepsDisabled),
    },
    Mutant {
        name: "refuses sizes that are no power of two",
        caught_by: 109,
        spec: "sim:rng",
        wrap: |inner| bent(inner, PowersOfTwo),
    },
    Mutant {
        name: "rounds an odd size up",
        caught_by: 109,
        spec: "sim:blk",
        wrap: |inner| bent(inner, RoundsUp),
    },
    Mutant {
        name: "counts the laps of a ring of seven by eight",
        caught_by: 109,
        spec: "sim:rng",
        wrap: |inner| shadow(inner, EightLaps::default()),
    },
];

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

struct BeginsWithZero;

impl Twist for BeginsWithZero {
    fn store(&self, cell: Cell, value: u64, put: &mut dyn FnMut(Cell, u64)) {
        match is_meta(cell) {
            true => put(cell, value ^ (AVAIL | USED)),
            false => put(cell, value),
        }
    }
}

struct NeverFlips;

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
struct SwapsPairs(Mutex<Option<Vec<u8>>>);

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
struct PassesOver(std::sync::Arc<Reach>);

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

struct LeavesGaps;

impl Twist for LeavesGaps {
    fn store(&self, cell: Cell, value: u64, put: &mut dyn FnMut(Cell, u64)) {
        match is_meta(cell) && cell.at > 16 && cell.at < 16 * 16 {
            true => put(on(cell, 1), value),
            false => put(cell, value),
        }
    }
}

struct NamesTheFirst;

impl Twist for NamesTheFirst {
    fn used(&self, _: u16, used: &mut Vec<Used>) {
        for used in used {
            used.token = vdpa_ring::ChainToken::new(0, used.token.slots());
        }
    }
}

struct TakesUsed;

impl Twist for TakesUsed {
    fn load(&self, cell: Cell, value: u64) -> u64 {
        match is_meta(cell) && value & (AVAIL | USED) == AVAIL | USED {
            true => value & !AVAIL,
            false => value,
        }
    }
}

#[derive(Default)]
struct UsesNothing(std::sync::Arc<Reach>);

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

struct LenAfterUsed;

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
struct Rewrites(Mutex<Option<(Cell, u64)>>);

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
struct ClearsReadable(Mutex<Vec<vdpa_ring::Segment>>);

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

struct CountsInTables;

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

struct FillsBackwards;

impl Twist for FillsBackwards {
    fn written(&self, chain: &Chain, bytes: &mut Vec<u8>, _: &mut u32, memory: &Memory<'_>) {
        let _ = memory;
        let turned: Vec<_> = chain.writable.iter().rev().copied().collect();
        *bytes = backwards(bytes, &turned);
    }
}

struct ReadsBackwards;

impl Twist for ReadsBackwards {
    fn taken(&self, chain: &Chain, readable: &mut Vec<u8>, _: &Memory<'_>) {
        *readable = backwards(readable, &chain.readable);
    }
}

/// Slots of the chains that are given back.
#[derive(Default)]
struct MarksTheSecond(AtomicU16);

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
struct FirstId {
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
struct FirstBufferFirst {
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
struct Mode {
    of: u64,
    taken: u64,
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

struct WrongLap;

impl Twist for WrongLap {
    fn load(&self, cell: Cell, value: u64) -> u64 {
        let is_pos = cell.area == Area::Driver && cell.at == layout::EVENT_POS;
        if is_pos { value ^ 1 << 15 } else { value }
    }
}

/// The meta word that was loaded last.
#[derive(Default)]
struct TakesHalf(AtomicU64);

impl Twist for TakesHalf {
    fn load(&self, cell: Cell, value: u64) -> u64 {
        if !is_meta(cell) {
            return value;
        }
        let before = self.0.swap(value, Ordering::SeqCst);
        match value == 0 && before & NEXT != 0 {
            // Available, writable, and empty.
            true => AVAIL | 2 << 48,
            false => value,
        }
    }
}

struct HeedsReserved;

impl Twist for HeedsReserved {
    fn taken(&self, chain: &Chain, readable: &mut Vec<u8>, memory: &Memory<'_>) {
        let _ = (chain, readable, memory);
    }
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

struct KeepsEmpty;

impl Twist for KeepsEmpty {
    fn used(&self, _: u16, used: &mut Vec<Used>) {
        used.retain(|used| used.len > 0);
    }
}

struct SleepsDisabled;

impl Twist for SleepsDisabled {
    fn store(&self, cell: Cell, value: u64, put: &mut dyn FnMut(Cell, u64)) {
        match cell.area == Area::Device && cell.at == layout::EVENT_MODE {
            true => put(cell, 1),
            false => put(cell, value),
        }
    }
}

struct PowersOfTwo;

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

struct RoundsUp;

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
struct EightLaps(AtomicU32);

impl Twist for EightLaps {
    fn store(&self, cell: Cell, value: u64, put: &mut dyn FnMut(Cell, u64)) {
        if !is_meta(cell) {
            return put(cell, value);
        }
        let lap = self.0.fetch_add(1, Ordering::SeqCst) / 8;
        let flags = if lap.is_multiple_of(2) { AVAIL | USED } else { 0 };
        put(cell, value & !(AVAIL | USED) | flags);
    }
}

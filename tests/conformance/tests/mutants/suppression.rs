//! Wrong about the suppression of notifications.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use vdpa_core::*;
use vdpa_ring::{Used, layout};

use crate::Mutant;
use crate::bend::{Bend, bent};
use crate::shadow::{Cell, Memory, Twist, shadow};

pub const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "heeds used_event without EVENT_IDX",
        caught_by: 84,
        spec: "sim:rng",
        wrap: |inner| shadow(inner, HeedsEvents::default()),
    },
    Mutant {
        name: "never calls",
        caught_by: 85,
        spec: "sim:rng",
        wrap: |inner| shadow(inner, NeverCalls),
    },
    Mutant {
        name: "stays silent once it was asked for silence",
        caught_by: 85,
        spec: "sim:blk",
        wrap: |inner| shadow(inner, SilentForGood::default()),
    },
    Mutant {
        name: "heeds the flag with EVENT_IDX",
        caught_by: 86,
        spec: "sim:net",
        wrap: |inner| shadow(inner, HeedsFlags::default()),
    },
    Mutant {
        name: "calls one chain after used_event",
        caught_by: 87,
        spec: "sim:blk",
        wrap: |inner| shadow(inner, EventOff(1)),
    },
    Mutant {
        name: "compares used_event as if it did not wrap",
        caught_by: 87,
        spec: "sim:rng",
        wrap: |inner| shadow(inner, NoWrap::default()),
    },
    Mutant {
        name: "calls for every chain",
        caught_by: 88,
        spec: "sim:rng",
        wrap: |inner| shadow(inner, AlwaysCalls::default()),
    },
    Mutant {
        name: "calls one chain before used_event",
        caught_by: 88,
        spec: "sim:blk",
        wrap: |inner| shadow(inner, EventOff(-1)),
    },
    Mutant {
        name: "sets a second bit of used.flags",
        caught_by: 89,
        spec: "sim:rng",
        wrap: |inner| shadow(inner, SecondBit),
    },
    Mutant {
        name: "sets used.flags with EVENT_IDX",
        caught_by: 89,
        spec: "sim:blk",
        wrap: |inner| shadow(inner, FlagsWithEvents),
    },
    Mutant {
        name: "wears out by kicks",
        caught_by: 90,
        spec: "sim:rng",
        wrap: |inner| bent(inner, WearsOut),
    },
    Mutant {
        name: "needs a reset after kicks for nothing",
        caught_by: 90,
        spec: "sim:blk",
        wrap: |inner| bent(inner, Offended::default()),
    },
    Mutant {
        name: "takes a kick for a chain of its own",
        caught_by: 90,
        spec: "sim:net",
        wrap: |inner| shadow(inner, CountsKicks::default()),
    },
    Mutant {
        name: "replaces a call without raising it",
        caught_by: 91,
        spec: "sim:rng",
        wrap: |inner| bent(inner, MuteReplacement),
    },
    Mutant {
        name: "uses a chain again with a call for nothing",
        caught_by: 91,
        spec: "sim:blk",
        wrap: |inner| bent(inner, UsesAgain::default()),
    },
    Mutant {
        name: "goes to sleep while it asks for silence",
        caught_by: 92,
        spec: "sim:rng",
        wrap: |inner| shadow(inner, SleepsSilently),
    },
    Mutant {
        name: "asks for a kick one chain too late",
        caught_by: 92,
        spec: "sim:blk",
        wrap: |inner| shadow(inner, AsksLate),
    },
];

fn driver_words(memory: &Memory<'_>) -> (u16, u16) {
    let word = |at: u32| {
        let at = memory.config.driver.checked_add(at.into()).unwrap();
        let bytes = memory.read(at, 2);
        u16::from_le_bytes([bytes[0], bytes[1]])
    };
    (
        word(layout::FLAGS),
        word(layout::used_event(memory.config.size)),
    )
}

/// What was used last, and whether the event was among it.
#[derive(Default)]
struct HeedsEvents {
    idx: Mutex<std::collections::BTreeMap<u16, u16>>,
    passed: AtomicBool,
}

impl Twist for HeedsEvents {
    fn committed(&self, queue: u16, used: &[Used], memory: &Memory<'_>) {
        let (_, event) = driver_words(memory);
        let mut all = self.idx.lock().unwrap();
        let idx = all.entry(queue).or_default();
        let off = event.wrapping_sub(*idx);
        self.passed
            .store(usize::from(off) < used.len(), Ordering::SeqCst);
        *idx = idx.wrapping_add(used.len() as u16);
    }
    fn calls(&self, _: u16, wanted: bool) -> bool {
        wanted && self.passed.load(Ordering::SeqCst)
    }
}

struct NeverCalls;

impl Twist for NeverCalls {
    fn calls(&self, _: u16, _: bool) -> bool {
        false
    }
}

fn is_driver_flags(cell: Cell) -> bool {
    cell.area == Area::Driver && cell.width == 2 && cell.at == layout::FLAGS
}

#[derive(Default)]
struct SilentForGood(AtomicBool);

impl Twist for SilentForGood {
    fn load(&self, cell: Cell, value: u64) -> u64 {
        if !is_driver_flags(cell) {
            return value;
        }
        let silent = self.0.fetch_or(value == 1, Ordering::SeqCst);
        value | u64::from(silent)
    }
}

#[derive(Default)]
struct HeedsFlags(AtomicBool);

impl Twist for HeedsFlags {
    fn committed(&self, _: u16, _: &[Used], memory: &Memory<'_>) {
        let (flags, _) = driver_words(memory);
        self.0.store(flags & 1 != 0, Ordering::SeqCst);
    }
    fn calls(&self, _: u16, wanted: bool) -> bool {
        wanted && !self.0.load(Ordering::SeqCst)
    }
}

/// Whether a cell of the driver area holds the event of a ring of 16.
fn is_used_event(cell: Cell) -> bool {
    cell.area == Area::Driver && cell.width == 2 && cell.at == layout::used_event(16)
}

struct EventOff(i16);

impl Twist for EventOff {
    fn load(&self, cell: Cell, value: u64) -> u64 {
        match is_used_event(cell) {
            true => (value as u16).wrapping_add_signed(self.0).into(),
            false => value,
        }
    }
}

/// Where used.idx was before, and whether it is past the event, by size.
#[derive(Default)]
struct NoWrap {
    idx: AtomicU32,
    event: AtomicU32,
}

impl Twist for NoWrap {
    fn store(&self, cell: Cell, value: u64, put: &mut dyn FnMut(Cell, u64)) {
        if cell.area == Area::Device && cell.width == 2 && cell.at == layout::IDX {
            self.idx.store(value as u32, Ordering::SeqCst);
        }
        put(cell, value);
    }
    fn load(&self, cell: Cell, value: u64) -> u64 {
        if is_used_event(cell) {
            self.event.store(value as u32, Ordering::SeqCst);
        }
        value
    }
    fn calls(&self, _: u16, wanted: bool) -> bool {
        let (idx, event) = (&self.idx, &self.event);
        wanted && idx.load(Ordering::SeqCst) > event.load(Ordering::SeqCst)
    }
}

/// Whether something was used in this pass.
#[derive(Default)]
struct AlwaysCalls(AtomicBool);

impl Twist for AlwaysCalls {
    fn committed(&self, _: u16, _: &[Used], _: &Memory<'_>) {
        self.0.store(true, Ordering::SeqCst);
    }
    fn calls(&self, _: u16, _: bool) -> bool {
        self.0.swap(false, Ordering::SeqCst)
    }
}

fn used_flags(cell: Cell) -> Cell {
    Cell {
        at: layout::FLAGS,
        ..cell
    }
}

struct SecondBit;

impl Twist for SecondBit {
    fn store(&self, cell: Cell, value: u64, put: &mut dyn FnMut(Cell, u64)) {
        put(cell, value);
        if cell.area == Area::Device && cell.width == 2 {
            put(used_flags(cell), 2);
        }
    }
}

struct FlagsWithEvents;

impl Twist for FlagsWithEvents {
    fn store(&self, cell: Cell, value: u64, put: &mut dyn FnMut(Cell, u64)) {
        put(cell, value);
        // An avail_event, which there is with EVENT_IDX alone.
        if cell.area == Area::Device && cell.width == 2 && cell.at > layout::IDX {
            put(used_flags(cell), 1);
        }
    }
}

fn listened(bell: Doorbell, on: impl FnMut(u32) -> bool + Send + 'static) -> Doorbell {
    let on = Mutex::new(on);
    let count = AtomicU32::new(0);
    Doorbell::from_fn(move |value| {
        let count = count.fetch_add(1, Ordering::SeqCst);
        if (on.lock().unwrap())(count) {
            bell.ring(value);
        }
    })
}

struct WearsOut;

impl Bend for WearsOut {
    fn start_queue(
        &self,
        inner: &dyn VdpaDevice,
        q: QueueIndex,
        c: &QueueConfig,
        kick: Kick,
        call: Call,
    ) -> Result<Doorbell> {
        let bell = inner.start_queue(q, c, kick, call)?;
        Ok(listened(bell, |count| count < 20))
    }
}

#[derive(Default)]
struct Offended(std::sync::Arc<AtomicBool>);

impl Bend for Offended {
    fn status(&self, inner: &dyn VdpaDevice) -> Result<Status> {
        let status = inner.status()?;
        match self.0.load(Ordering::SeqCst) {
            true => Ok(status | Status::DEVICE_NEEDS_RESET),
            false => Ok(status),
        }
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
        let offended = std::sync::Arc::clone(&self.0);
        Ok(listened(bell, move |count| {
            offended.fetch_or(count > 20, Ordering::SeqCst);
            true
        }))
    }
}

/// How often its queue was looked at.
#[derive(Default)]
struct CountsKicks(AtomicU32);

impl Twist for CountsKicks {
    fn load(&self, cell: Cell, value: u64) -> u64 {
        let idx = cell.area == Area::Driver && cell.width == 2 && cell.at == layout::IDX;
        if idx && cell.queue == 1 && self.0.fetch_add(1, Ordering::SeqCst) > 12 {
            return value.wrapping_add(1) & 0xffff;
        }
        value
    }
}

struct MuteReplacement;

impl Bend for MuteReplacement {
    fn replace_call(&self, inner: &dyn VdpaDevice, q: QueueIndex, call: Call) -> Result<()> {
        let replaced = AtomicBool::new(false);
        inner.replace_call(
            q,
            Call::from_fn(move || {
                if replaced.swap(true, Ordering::SeqCst) {
                    call.raise();
                }
            }),
        )
    }
}

/// The used ring of queue 0, which goes on by one with each replacement of a call.
#[derive(Default)]
struct UsesAgain {
    spaces: Mutex<Vec<vdpa_mem::AddressSpace>>,
    device: Mutex<Option<vdpa_mem::Iova>>,
}

impl Bend for UsesAgain {
    fn attached(&self, host: &Host) {
        *self.spaces.lock().unwrap() = host.spaces.to_vec();
    }
    fn start_queue(
        &self,
        inner: &dyn VdpaDevice,
        q: QueueIndex,
        c: &QueueConfig,
        kick: Kick,
        call: Call,
    ) -> Result<Doorbell> {
        *self.device.lock().unwrap() = Some(c.device);
        inner.start_queue(q, c, kick, call)
    }
    fn replace_call(&self, inner: &dyn VdpaDevice, q: QueueIndex, call: Call) -> Result<()> {
        let device = self.device.lock().unwrap().unwrap();
        for space in &*self.spaces.lock().unwrap() {
            let mut reader = space.reader();
            let section = reader.enter();
            let access = vdpa_mem::Access::DeviceWrites;
            let found = section.translate(device, 4, access, &mut vdpa_mem::Hint::default());
            if let Ok(bytes) = found {
                let idx = bytes.load_u16(layout::IDX);
                bytes.store_u16(layout::IDX, idx.wrapping_add(1));
            }
        }
        inner.replace_call(q, call)
    }
}

struct SleepsSilently;

impl Twist for SleepsSilently {
    fn store(&self, cell: Cell, value: u64, put: &mut dyn FnMut(Cell, u64)) {
        if cell.area == Area::Device && cell.width == 2 {
            match cell.at {
                layout::FLAGS => return put(cell, 1),
                layout::IDX => {}
                _ => return put(cell, value.wrapping_sub(1) & 0xffff),
            }
        }
        put(cell, value);
    }
}

struct AsksLate;

impl Twist for AsksLate {
    fn store(&self, cell: Cell, value: u64, put: &mut dyn FnMut(Cell, u64)) {
        match cell.area == Area::Device && cell.width == 2 && cell.at > layout::IDX {
            true => put(cell, value.wrapping_add(1) & 0xffff),
            false => put(cell, value),
        }
    }
}

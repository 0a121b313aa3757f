//! Wrong about split rings.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use vdpa_core::*;
use vdpa_mem::Iova;
use vdpa_ring::Used;

use crate::Mutant;
use crate::bend::bent;
use crate::dying::{Hushes, Spills, StaysBroken, Wordless};
use crate::shadow::{Cell, Chain, Memory, Twist, shadow};

pub const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "wants a header in one descriptor",
        caught_by: 66,
        spec: "sim:net",
        wrap: |inner| shadow(inner, WantsWholeHeaders),
    },
    Mutant {
        name: "reads the first readable descriptor alone",
        caught_by: 66,
        spec: "sim:net",
        wrap: |inner| shadow(inner, ReadsTheFirst),
    },
    Mutant {
        name: "writes the first writable descriptor alone",
        caught_by: 66,
        spec: "sim:blk",
        wrap: |inner| shadow(inner, WritesTheFirst),
    },
    Mutant {
        name: "passes over descriptors of one byte",
        caught_by: 66,
        spec: "sim:blk",
        wrap: |inner| shadow(inner, PassesOverOneByte),
    },
    Mutant {
        name: "writes into what it has read",
        caught_by: 67,
        spec: "sim:blk",
        wrap: |inner| shadow(inner, ScribblesOnReadable),
    },
    Mutant {
        name: "writes into an indirect table",
        caught_by: 67,
        spec: "sim:rng",
        wrap: |inner| shadow(inner, ScribblesOnTables),
    },
    Mutant {
        name: "writes a byte behind a writable buffer",
        caught_by: 67,
        spec: "sim:blk",
        wrap: |inner| shadow(inner, OneByteTooMany),
    },
    Mutant {
        name: "clears a descriptor that it is done with",
        caught_by: 68,
        spec: "sim:rng",
        wrap: |inner| shadow(inner, ClearsDescriptors),
    },
    Mutant {
        name: "marks descriptors that it has taken",
        caught_by: 68,
        spec: "sim:net",
        wrap: |inner| shadow(inner, MarksDescriptors),
    },
    Mutant {
        name: "sets used.len behind used.idx",
        caught_by: 69,
        spec: "sim:blk",
        wrap: |inner| shadow(inner, LenAfterIdx::default()),
    },
    Mutant {
        name: "counts what it has read into used.len",
        caught_by: 69,
        spec: "sim:net",
        wrap: |inner| shadow(inner, CountsReadable),
    },
    Mutant {
        name: "writes buffers behind used.idx",
        caught_by: 70,
        spec: "sim:blk",
        wrap: |inner| shadow(inner, WritesLate::default()),
    },
    Mutant {
        name: "says that whole buffers are written",
        caught_by: 70,
        spec: "sim:net",
        wrap: |inner| shadow(inner, SaysAll),
    },
    Mutant {
        name: "begins to write at the second buffer",
        caught_by: 70,
        spec: "sim:rng",
        wrap: |inner| shadow(inner, LeavesTheFirst),
    },
    Mutant {
        name: "dies silently of a readable descriptor after a writable one",
        caught_by: 71,
        spec: "sim:rng",
        wrap: |inner| bent(inner, Hushes::about("readable after a writable")),
    },
    Mutant {
        name: "gives no reason for NEEDS_RESET after a wrong order of descriptors",
        caught_by: 71,
        spec: "sim:blk",
        wrap: |inner| bent(inner, Wordless("readable after a writable")),
    },
    Mutant {
        name: "dies silently of a loop",
        caught_by: 72,
        spec: "sim:rng",
        wrap: |inner| bent(inner, Hushes::about("descriptors")),
    },
    Mutant {
        name: "dies silently of more than 2^32 bytes",
        caught_by: 72,
        spec: "sim:blk",
        wrap: |inner| bent(inner, Hushes::about("more than 2^32")),
    },
    Mutant {
        name: "is of no use any more after a loop, whatever reset",
        caught_by: 72,
        spec: "sim:net",
        wrap: |inner| bent(inner, StaysBroken::default()),
    },
    Mutant {
        name: "does not get over an avail.idx that went back",
        caught_by: 73,
        spec: "sim:rng",
        wrap: |inner| shadow(inner, OnlyForward::default()),
    },
    Mutant {
        name: "writes where nobody asked it when avail.idx goes back",
        caught_by: 73,
        spec: "sim:blk",
        wrap: |inner| bent(inner, Spills::default()),
    },
    Mutant {
        name: "sleeps while used.flags is 1",
        caught_by: 76,
        spec: "sim:blk",
        wrap: |inner| shadow(inner, SleepsByFlags),
    },
    Mutant {
        name: "stops with used.idx at 65535",
        caught_by: 77,
        spec: "sim:rng",
        wrap: |inner| shadow(inner, Saturates),
    },
    Mutant {
        name: "takes avail.idx for 15 bits",
        caught_by: 77,
        spec: "sim:net",
        wrap: |inner| shadow(inner, FifteenBits),
    },
    Mutant {
        name: "does not call where used.idx wraps",
        caught_by: 77,
        spec: "sim:blk",
        wrap: |inner| shadow(inner, SilentAtTheWrap::default()),
    },
];

struct WantsWholeHeaders;

impl Twist for WantsWholeHeaders {
    fn taken(&self, chain: &Chain, readable: &mut Vec<u8>, _: &Memory<'_>) {
        if chain.readable.first().is_some_and(|first| first.len < 12) {
            readable.iter_mut().for_each(|byte| *byte = 0);
        }
    }
}

struct ReadsTheFirst;

impl Twist for ReadsTheFirst {
    fn taken(&self, chain: &Chain, readable: &mut Vec<u8>, _: &Memory<'_>) {
        let first = chain.readable.first().map_or(0, |first| first.len as usize);
        readable.iter_mut().skip(first).for_each(|byte| *byte = 0);
    }
}

/// What is in a buffer that was not written.
const CANARY: u8 = 0xc5;

struct WritesTheFirst;

impl Twist for WritesTheFirst {
    fn written(&self, chain: &Chain, bytes: &mut Vec<u8>, _: &mut u32, _: &Memory<'_>) {
        let first = chain.writable.first().map_or(0, |first| first.len as usize);
        bytes.iter_mut().skip(first).for_each(|byte| *byte = CANARY);
    }
}

struct PassesOverOneByte;

impl Twist for PassesOverOneByte {
    fn written(&self, chain: &Chain, bytes: &mut Vec<u8>, _: &mut u32, _: &Memory<'_>) {
        let mut at = 0;
        for segment in &chain.writable {
            if segment.len == 1 {
                bytes[at] = CANARY;
            }
            at += segment.len as usize;
        }
    }
}

struct ScribblesOnReadable;

impl Twist for ScribblesOnReadable {
    fn taken(&self, chain: &Chain, _: &mut Vec<u8>, memory: &Memory<'_>) {
        if let Some(last) = chain.readable.last() {
            let at = last.addr.get() + u64::from(last.len) - 1;
            memory.write(Iova::new(at), &[0x77]);
        }
    }
}

struct ScribblesOnTables;

impl Twist for ScribblesOnTables {
    fn taken(&self, chain: &Chain, _: &mut Vec<u8>, memory: &Memory<'_>) {
        let at = memory.config.descriptor.get() + 16 * u64::from(chain.token.id());
        let descriptor = memory.read(Iova::new(at), 16);
        if descriptor[12] & 4 != 0 {
            let table = u64::from_le_bytes(descriptor[..8].try_into().unwrap());
            memory.write(Iova::new(table + 15), &[0x77]);
        }
    }
}

struct OneByteTooMany;

impl Twist for OneByteTooMany {
    fn written(&self, chain: &Chain, _: &mut Vec<u8>, _: &mut u32, memory: &Memory<'_>) {
        if let Some(last) = chain.writable.last() {
            let at = last.addr.get() + u64::from(last.len);
            memory.write(Iova::new(at), &[0x77]);
        }
    }
}

struct ClearsDescriptors;

impl Twist for ClearsDescriptors {
    fn committed(&self, _: u16, used: &[Used], memory: &Memory<'_>) {
        for used in used {
            let at = memory.config.descriptor.get() + 16 * u64::from(used.token.id());
            memory.write(Iova::new(at), &[0; 8]);
        }
    }
}

struct MarksDescriptors;

impl Twist for MarksDescriptors {
    fn taken(&self, chain: &Chain, _: &mut Vec<u8>, memory: &Memory<'_>) {
        let at = memory.config.descriptor.get() + 16 * u64::from(chain.token.id()) + 13;
        memory.write(Iova::new(at), &[0x80]);
    }
}

/// A cell of a used entry's length.
fn is_len(cell: Cell) -> bool {
    cell.area == Area::Device && cell.width == 4 && cell.at.is_multiple_of(8)
}

/// The index of the used ring.
fn is_idx(cell: Cell) -> bool {
    cell.area == Area::Device && cell.width == 2 && cell.at == 2
}

#[derive(Default)]
struct LenAfterIdx(Mutex<Vec<(Cell, u64)>>);

impl Twist for LenAfterIdx {
    fn store(&self, cell: Cell, value: u64, put: &mut dyn FnMut(Cell, u64)) {
        if is_len(cell) {
            self.0.lock().unwrap().push((cell, value));
            return;
        }
        put(cell, value);
        if is_idx(cell) {
            std::thread::sleep(Duration::from_millis(2));
            for (cell, value) in self.0.lock().unwrap().drain(..) {
                put(cell, value);
            }
        }
    }
}

struct CountsReadable;

impl Twist for CountsReadable {
    fn used(&self, queue: u16, used: &mut Vec<Used>) {
        if queue == 1 {
            used.iter_mut().for_each(|used| used.len += 72);
        }
    }
}

/// Buffers and what belongs into them.
#[derive(Default)]
struct WritesLate(Mutex<Vec<(Iova, Vec<u8>)>>);

impl Twist for WritesLate {
    fn written(&self, chain: &Chain, bytes: &mut Vec<u8>, _: &mut u32, _: &Memory<'_>) {
        let mut at = 0;
        for segment in &chain.writable {
            let end = at + segment.len as usize;
            let held = (segment.addr, bytes[at..end].to_vec());
            self.0.lock().unwrap().push(held);
            at = end;
        }
        bytes.fill(CANARY);
    }
    fn committed(&self, _: u16, _: &[Used], memory: &Memory<'_>) {
        std::thread::sleep(Duration::from_millis(2));
        for (at, bytes) in self.0.lock().unwrap().drain(..) {
            memory.write(at, &bytes);
        }
    }
}

struct SaysAll;

impl Twist for SaysAll {
    fn written(&self, _: &Chain, bytes: &mut Vec<u8>, len: &mut u32, _: &Memory<'_>) {
        *len = bytes.len() as u32;
    }
}

struct LeavesTheFirst;

impl Twist for LeavesTheFirst {
    fn written(&self, chain: &Chain, bytes: &mut Vec<u8>, _: &mut u32, _: &Memory<'_>) {
        if let [first, _, ..] = chain.writable.as_slice() {
            let first = first.len as usize + 8;
            bytes.iter_mut().take(first).for_each(|byte| *byte = CANARY);
        }
    }
}

/// The largest index that was seen.
/// Once the index went back.
const STUCK: u64 = 1 << 32;

#[derive(Default)]
struct OnlyForward(AtomicU64);

impl Twist for OnlyForward {
    fn load(&self, cell: Cell, value: u64) -> u64 {
        match (cell.area, cell.at, cell.queue) {
            (Area::Driver, 2, 0) => {
                let before = self.0.load(Ordering::SeqCst);
                let now = match before & STUCK != 0 || value < before {
                    true => before | STUCK,
                    false => value,
                };
                self.0.store(now, Ordering::SeqCst);
                now & 0xffff
            }
            _ => value,
        }
    }
}

struct SleepsByFlags;

impl Twist for SleepsByFlags {
    fn store(&self, cell: Cell, value: u64, put: &mut dyn FnMut(Cell, u64)) {
        match cell.area == Area::Device && cell.width == 2 && cell.at == 0 {
            true => put(cell, 1),
            false => put(cell, value),
        }
    }
}

struct Saturates;

impl Twist for Saturates {
    fn store(&self, cell: Cell, value: u64, put: &mut dyn FnMut(Cell, u64)) {
        match is_idx(cell) && value < 100 {
            true => put(cell, 65535),
            false => put(cell, value),
        }
    }
}

struct FifteenBits;

impl Twist for FifteenBits {
    fn load(&self, cell: Cell, value: u64) -> u64 {
        match cell.area == Area::Driver && cell.width == 2 && cell.at == 2 {
            true => value & 0x7fff,
            false => value,
        }
    }
}

#[derive(Default)]
struct SilentAtTheWrap(AtomicBool);

impl Twist for SilentAtTheWrap {
    fn store(&self, cell: Cell, value: u64, put: &mut dyn FnMut(Cell, u64)) {
        if is_idx(cell) {
            self.0.store(value == 0, Ordering::SeqCst);
        }
        put(cell, value);
    }
    fn calls(&self, _: u16, wanted: bool) -> bool {
        wanted && !self.0.load(Ordering::SeqCst)
    }
}

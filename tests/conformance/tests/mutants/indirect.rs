//! Wrong about indirect descriptors.

use std::sync::atomic::{AtomicBool, Ordering};

use vdpa_core::Area;

use crate::Mutant;
use crate::bend::bent;
use crate::dying::{Hushes, Spills, StaysBroken, Wordless};
use crate::shadow::{Cell, Twist, shadow};

const NEXT: u64 = 1;
const WRITE: u64 = 2;
const INDIRECT: u64 = 4;

pub const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "takes a pointer with WRITE for a buffer",
        caught_by: 78,
        spec: "sim:rng",
        wrap: |inner| shadow(inner, WriteIsABuffer),
    },
    Mutant {
        name: "takes a pointer with WRITE for malformed",
        caught_by: 78,
        spec: "sim:blk",
        wrap: |inner| shadow(inner, WriteIsMalformed),
    },
    Mutant {
        name: "takes the table at a chain's end for data",
        caught_by: 79,
        spec: "sim:net",
        wrap: |inner| shadow(inner, EndsInData::default()),
    },
    Mutant {
        name: "ends a chain before its table",
        caught_by: 79,
        spec: "sim:blk",
        wrap: |inner| shadow(inner, EndsBefore::default()),
    },
    Mutant {
        name: "dies silently of a table that was not negotiated",
        caught_by: 80,
        spec: "sim:rng",
        wrap: |inner| bent(inner, Hushes::about("not negotiated")),
    },
    Mutant {
        name: "writes where nobody asked it for a table that was not negotiated",
        caught_by: 80,
        spec: "sim:blk",
        wrap: |inner| bent(inner, Spills::default()),
    },
    Mutant {
        name: "dies silently of a table in a table",
        caught_by: 81,
        spec: "sim:net",
        wrap: |inner| bent(inner, Hushes::about("of its table is indirect")),
    },
    Mutant {
        name: "is of no use any more after a table in a table",
        caught_by: 81,
        spec: "sim:blk",
        wrap: |inner| bent(inner, StaysBroken::default()),
    },
    Mutant {
        name: "dies silently of a table that goes on",
        caught_by: 82,
        spec: "sim:blk",
        wrap: |inner| bent(inner, Hushes::about("is indirect and goes on")),
    },
    Mutant {
        name: "gives no reason for NEEDS_RESET after a table that goes on",
        caught_by: 82,
        spec: "sim:rng",
        wrap: |inner| bent(inner, Wordless("is indirect and goes on")),
    },
    Mutant {
        name: "dies silently of a table longer than the queue",
        caught_by: 83,
        spec: "sim:rng",
        wrap: |inner| bent(inner, Hushes::about("a table of")),
    },
    Mutant {
        name: "gives no reason for NEEDS_RESET after a table longer than the queue",
        caught_by: 83,
        spec: "sim:net",
        wrap: |inner| bent(inner, Wordless("a table of")),
    },
];

/// The meta word of a split ring's descriptor, and its flags.
fn meta(cell: Cell, value: u64) -> Option<u64> {
    let is_meta = cell.area == Area::Descriptor && cell.width == 8 && cell.at % 16 == 8;
    is_meta.then_some(value >> 32 & 0xffff)
}

struct WriteIsABuffer;

impl Twist for WriteIsABuffer {
    fn load(&self, cell: Cell, value: u64) -> u64 {
        match meta(cell, value) {
            Some(flags) if flags == WRITE | INDIRECT => value & !(INDIRECT << 32),
            _ => value,
        }
    }
}

struct WriteIsMalformed;

impl Twist for WriteIsMalformed {
    fn load(&self, cell: Cell, value: u64) -> u64 {
        match meta(cell, value) {
            // A table that goes on, which is none.
            Some(flags) if flags == WRITE | INDIRECT => value | NEXT << 32,
            _ => value,
        }
    }
}

/// Whether the last descriptor went on.
#[derive(Default)]
struct EndsInData(AtomicBool);

impl Twist for EndsInData {
    fn load(&self, cell: Cell, value: u64) -> u64 {
        let Some(flags) = meta(cell, value) else {
            return value;
        };
        let chained = self.0.swap(flags & NEXT != 0, Ordering::SeqCst);
        match chained && flags & INDIRECT != 0 {
            true => value & !(INDIRECT << 32),
            false => value,
        }
    }
}

#[derive(Default)]
struct EndsBefore(AtomicBool);

impl Twist for EndsBefore {
    fn load(&self, cell: Cell, value: u64) -> u64 {
        let Some(flags) = meta(cell, value) else {
            return value;
        };
        let chained = self.0.swap(flags & NEXT != 0, Ordering::SeqCst);
        match chained && flags & INDIRECT != 0 {
            // Nothing, which a device may write.
            true => WRITE << 32,
            false => value,
        }
    }
}

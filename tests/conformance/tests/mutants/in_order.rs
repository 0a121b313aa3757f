//! Wrong about order of use.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use vdpa_core::Area;
use vdpa_ring::Used;

use crate::Mutant;
use crate::shadow::{Cell, Twist, shadow};

pub const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "uses what was given together from the last one on",
        caught_by: 110,
        spec: "sim:rng",
        wrap: |inner| shadow(inner, LastFirst),
    },
    Mutant {
        name: "swaps the first two of what is used together",
        caught_by: 110,
        spec: "sim:net",
        wrap: |inner| shadow(inner, SwapsTwo),
    },
    Mutant {
        name: "puts a batch's entry where its last chain belongs",
        caught_by: 111,
        spec: "sim:rng",
        wrap: |inner| shadow(inner, LastPlace::default()),
    },
    Mutant {
        name: "stands for a batch of buffers that are not full",
        caught_by: 111,
        spec: "sim:net",
        wrap: |inner| shadow(inner, NotFull::default()),
    },
];

struct LastFirst;

impl Twist for LastFirst {
    fn used(&self, _: u16, used: &mut Vec<Used>) {
        used.reverse();
    }
}

struct SwapsTwo;

impl Twist for SwapsTwo {
    fn used(&self, _: u16, used: &mut Vec<Used>) {
        if let [first, second, ..] = used.as_mut_slice() {
            std::mem::swap(&mut first.token, &mut second.token);
        }
    }
}

/// How many are given back together, and how many cells of their entries are to come.
#[derive(Default)]
struct LastPlace(AtomicU32);

impl Twist for LastPlace {
    fn used(&self, _: u16, used: &mut Vec<Used>) {
        self.0.store(2 * used.len() as u32, Ordering::SeqCst);
    }
    fn store(&self, cell: Cell, value: u64, put: &mut dyn FnMut(Cell, u64)) {
        if cell.area == Area::Device && cell.width == 4 {
            // Two cells an entry: those of the last one alone are written.
            if self.0.fetch_sub(1, Ordering::SeqCst) > 2 {
                return;
            }
        }
        put(cell, value);
    }
}

/// Gives the first chain of the first queue back, holds the next one back until there are two, and has one entry stand for both.
#[derive(Default)]
struct NotFull {
    held: Mutex<Vec<Used>>,
    begun: AtomicBool,
    left: AtomicU32,
    first: Mutex<Option<u32>>,
}

impl Twist for NotFull {
    fn used(&self, queue: u16, used: &mut Vec<Used>) {
        if queue == 0 && self.begun.swap(true, Ordering::SeqCst) {
            let mut held = self.held.lock().unwrap();
            used.splice(..0, held.drain(..));
            if used.len() == 1 {
                held.append(used);
            }
        }
        self.left.store(2 * used.len() as u32, Ordering::SeqCst);
        *self.first.lock().unwrap() = None;
    }
    fn store(&self, cell: Cell, value: u64, put: &mut dyn FnMut(Cell, u64)) {
        if cell.queue != 0 || cell.area != Area::Device || cell.width != 4 {
            return put(cell, value);
        }
        // What stands for all of them goes where the first one belongs.
        let mut first = self.first.lock().unwrap();
        let first = *first.get_or_insert(cell.at);
        if self.left.fetch_sub(1, Ordering::SeqCst) <= 2 {
            let at = first + if cell.at.is_multiple_of(8) { 4 } else { 0 };
            put(Cell { at, ..cell }, value);
        }
    }
}

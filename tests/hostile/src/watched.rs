//! Cells of a ring that count their loads, and change before or after any of them.
//!
//! A hostile peer is a hook on each load, not a thread: every race can be had, one after the other, by the number of
//! the load that it comes with. See [`Bench`] for the device half of a ring, [`Desk`] for the driver half.

mod bench;
mod desk;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use vdpa_mem::{Bytes, Fault, Iova};
use vdpa_ring::{Areas, DeviceMem, DriverMem, RingMem};

use crate::guard::Arena;
use crate::raw::RawQueue;

pub(crate) use bench::write_table;
pub use bench::{Bench, Taken};
pub use desk::Desk;

/// Which area an access went to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Which {
    /// The descriptors.
    Descriptor,
    /// What the driver writes.
    Driver,
    /// What the device writes.
    Device,
    /// An indirect table.
    Table,
}

/// A load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fetch {
    /// Of which area.
    pub which: Which,
    /// Offset in it; of a table, in the arena.
    pub at: u32,
    /// Bytes.
    pub width: u8,
}

/// When a hook is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Before the load: it sees what the hook wrote.
    Before,
    /// After it.
    After,
}

type Hook = Box<dyn FnMut(&Memory, u32, Fetch, When)>;

/// The memory of a ring, and what is done to it.
pub struct Memory {
    /// Where it is.
    pub arena: Arc<Arena>,
    /// Offsets of the three areas, and their lengths.
    spans: [(usize, usize); 3],
    loads: RefCell<HashMap<Fetch, u32>>,
    count: Cell<u32>,
    stores: Cell<u32>,
    hook: RefCell<Option<Hook>>,
    /// What reading a table answers instead.
    pub fault: Cell<Option<Fault>>,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}

impl Memory {
    /// The memory of this queue.
    pub fn new(q: &RawQueue) -> Self {
        let sizes = vdpa_ring::area_sizes(q.format, q.size, true);
        Self {
            arena: Arc::clone(&q.arena),
            spans: [
                (q.descriptor_at(0), sizes.descriptor.bytes as usize),
                (q.driver_at(0), sizes.driver.bytes as usize),
                (q.device_at(0), sizes.device.bytes as usize),
            ],
            loads: RefCell::default(),
            count: Cell::new(0),
            stores: Cell::new(0),
            hook: RefCell::new(None),
            fault: Cell::new(None),
        }
    }

    /// Offset in the arena of what is loaded.
    pub fn at(&self, fetch: Fetch) -> usize {
        let base = self
            .spans
            .get(fetch.which as usize)
            .map_or(0, |span| span.0);
        base + fetch.at as usize
    }

    /// Calls this before and after each load, with the load's number.
    pub fn hook(&self, hook: impl FnMut(&Memory, u32, Fetch, When) + 'static) {
        *self.hook.borrow_mut() = Some(Box::new(hook));
    }

    /// Lets `change` happen right before load number `nth`.
    pub fn before(&self, nth: u32, mut change: impl FnMut(&Memory) + 'static) {
        self.hook(move |memory, number, _, when| {
            if number == nth && when == When::Before {
                change(memory);
            }
        });
    }

    /// Nobody interferes any more.
    pub fn unhook(&self) {
        *self.hook.borrow_mut() = None;
    }

    /// Forgets what was counted.
    pub fn clear(&self) {
        self.loads.borrow_mut().clear();
        self.count.set(0);
        self.stores.set(0);
    }

    /// How many loads there were.
    pub fn loads(&self) -> u32 {
        self.count.get()
    }

    /// How many stores there were.
    pub fn stores(&self) -> u32 {
        self.stores.get()
    }

    /// The loads of an area, with how often each was done.
    pub fn loads_of(&self, which: Which) -> Vec<(Fetch, u32)> {
        let loads = self.loads.borrow();
        let of = loads.iter().filter(|(fetch, _)| fetch.which == which);
        of.map(|(fetch, times)| (*fetch, *times)).collect()
    }

    /// A field that was loaded more than once, if there is one.
    pub fn twice(&self) -> Option<Fetch> {
        let loads = self.loads.borrow();
        let twice = loads.iter().find(|(_, times)| **times > 1);
        twice.map(|(fetch, _)| *fetch)
    }

    fn meet(&self, nth: u32, fetch: Fetch, when: When) {
        // Taken out meanwhile: what a hook does is not watched.
        let hook = self.hook.borrow_mut().take();
        if let Some(mut hook) = hook {
            hook(self, nth, fetch, when);
            self.hook.borrow_mut().get_or_insert(hook);
        }
    }

    fn load<T>(&self, fetch: Fetch, load: impl FnOnce() -> T) -> T {
        let nth = self.count.get();
        self.count.set(nth + 1);
        *self.loads.borrow_mut().entry(fetch).or_default() += 1;
        self.meet(nth, fetch, When::Before);
        let value = load();
        self.meet(nth, fetch, When::After);
        value
    }

    fn areas(&self) -> Areas<Cells<'_>> {
        let cells = |which: Which| {
            let (at, len) = self.spans[which as usize];
            Cells {
                bytes: self.arena.bytes().slice(at, len).expect("inside the arena"),
                which,
                memory: self,
            }
        };
        Areas {
            descriptor: cells(Which::Descriptor),
            driver: cells(Which::Driver),
            device: cells(Which::Device),
        }
    }

    /// As a device half sees it.
    pub fn device(&self) -> DeviceSide<'_> {
        DeviceSide {
            areas: self.areas(),
            memory: self,
        }
    }

    /// As a driver half sees it, without tables.
    pub fn driver(&self) -> DriverMem<Cells<'_>> {
        DriverMem::new(self.areas())
    }
}

/// Cells that are watched.
#[derive(Clone, Copy, Debug)]
pub struct Cells<'r> {
    bytes: Bytes<'r>,
    which: Which,
    memory: &'r Memory,
}

macro_rules! cells {
    ($load:ident, $store:ident, $int:ty) => {
        fn $load(&self, at: u32) -> $int {
            let width = size_of::<$int>() as u8;
            self.check(at, width);
            let fetch = Fetch {
                which: self.which,
                at,
                width,
            };
            self.memory.load(fetch, || self.bytes.$load(at))
        }
        fn $store(&self, at: u32, value: $int) {
            self.check(at, size_of::<$int>() as u8);
            self.memory.stores.set(self.memory.stores.get() + 1);
            self.bytes.$store(at, value);
        }
    };
}

impl Cells<'_> {
    fn check(&self, at: u32, width: u8) {
        let fits = at as usize + usize::from(width) <= self.bytes.len();
        assert!(
            fits && at.is_multiple_of(width.into()),
            "{:?} {at}: {width} bytes",
            self.which
        );
    }
}

impl RingMem for Cells<'_> {
    cells!(load_u16, store_u16, u16);
    cells!(load_u32, store_u32, u32);
    cells!(load_u64, store_u64, u64);
    fn acquire(&self) {}
    fn release(&self) {}
    fn full(&self) {}
}

/// A device half's memory.
#[derive(Debug)]
pub struct DeviceSide<'r> {
    areas: Areas<Cells<'r>>,
    memory: &'r Memory,
}

impl<'r> DeviceMem for DeviceSide<'r> {
    type Ring = Cells<'r>;

    fn areas(&self) -> &Areas<Cells<'r>> {
        &self.areas
    }

    fn table(&self, at: Iova, to: &mut [[u64; 2]]) -> Result<(), Fault> {
        if let Some(fault) = self.memory.fault.get() {
            return Err(fault);
        }
        let arena = &self.memory.arena;
        let from = arena.offset(at.get()).ok_or(Fault::Denied)?;
        let span = arena
            .bytes()
            .slice(from, to.len() * 16)
            .ok_or(Fault::Denied)?;
        for (word, to) in to.as_flattened_mut().iter_mut().enumerate() {
            let fetch = Fetch {
                which: Which::Table,
                at: (from + word * 8) as u32,
                width: 8,
            };
            let mut bytes = [0; 8];
            self.memory.load(fetch, || span.read(word * 8, &mut bytes));
            *to = u64::from_le_bytes(bytes);
        }
        Ok(())
    }
}

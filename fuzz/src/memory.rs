//! Memory of a ring, each access of which is looked at.

use std::cell::Cell;

use vdpa_mem::{Fault, Iova};
use vdpa_ring::{Areas, DeviceMem, Format, RingMem, area_sizes};

/// Where the device finds the memory for indirect tables.
pub const TABLES: u64 = 0x1_0000;
/// Bytes of that memory.
pub const TABLE_BYTES: usize = 1024;

/// Bytes that a peer writes too.
pub struct Span(Box<[Cell<u8>]>);

impl Span {
    /// So many, all 0.
    pub fn new(len: usize) -> Self {
        Self(vec![Cell::new(0); len].into())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All 0 again.
    pub fn clear(&self) {
        self.0.iter().for_each(|cell| cell.set(0));
    }

    /// The integer of `N` bytes at `at`, which is inside.
    pub fn get<const N: usize>(&self, at: usize) -> [u8; N] {
        let cells = &self.0[at..at + N];
        std::array::from_fn(|i| cells[i].get())
    }

    /// Writes what is inside.
    pub fn put(&self, at: usize, bytes: &[u8]) {
        for (cell, byte) in self.0.iter().skip(at).zip(bytes) {
            cell.set(*byte);
        }
    }

    /// All of them.
    pub fn bytes(&self) -> Vec<u8> {
        self.0.iter().map(Cell::get).collect()
    }

    /// Two bytes.
    pub fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.get(at))
    }

    /// Eight bytes.
    pub fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.get(at))
    }
}

/// What a ring does to its memory, and what its peer does meanwhile.
#[derive(Default)]
pub struct Watch {
    /// Loads so far.
    pub loads: Cell<u32>,
    /// Stores so far.
    pub stores: Cell<u32>,
    /// Behind so many loads from now, 1 at least, the peer flips these bits of what was loaded.
    pub flip: Cell<Option<(u32, u64)>>,
}

impl Watch {
    fn loaded(&self, span: &Span, at: usize, bytes: &[u8]) {
        self.loads.set(self.loads.get() + 1);
        if let Some((left, bits)) = self.flip.get() {
            self.flip.set((left > 1).then_some((left - 1, bits)));
            if left <= 1 {
                for (i, (byte, bits)) in bytes.iter().zip(bits.to_le_bytes()).enumerate() {
                    span.put(at + i, &[byte ^ bits]);
                }
            }
        }
    }
}

/// An area, as a ring has it.
#[derive(Clone, Copy)]
pub struct Watched<'r> {
    span: &'r Span,
    watch: &'r Watch,
}

macro_rules! cells {
    ($load:ident, $store:ident, $int:ty) => {
        fn $load(&self, at: u32) -> $int {
            let at = at as usize;
            assert!(at.is_multiple_of(size_of::<$int>()), "misaligned: {at}");
            let bytes = self.span.get(at);
            self.watch.loaded(self.span, at, &bytes);
            <$int>::from_le_bytes(bytes)
        }
        fn $store(&self, at: u32, value: $int) {
            let at = at as usize;
            assert!(at.is_multiple_of(size_of::<$int>()), "misaligned: {at}");
            assert!(at + size_of::<$int>() <= self.span.len(), "outside: {at}");
            self.watch.stores.set(self.watch.stores.get() + 1);
            self.span.put(at, &value.to_le_bytes());
        }
    };
}

impl RingMem for Watched<'_> {
    cells!(load_u16, store_u16, u16);
    cells!(load_u32, store_u32, u32);
    cells!(load_u64, store_u64, u64);
    fn acquire(&self) {}
    fn release(&self) {}
    fn full(&self) {}
}

/// A queue's memory, and that of indirect tables.
pub struct Memory {
    /// The areas.
    pub areas: Areas<Span>,
    /// What indirect tables stand in.
    pub tables: Span,
    /// A record of what is in flight.
    pub record: Span,
    /// Tables from this offset on are not mapped yet.
    pub unmapped: Cell<u64>,
    /// What the ring under test does.
    pub watch: Watch,
}

impl Memory {
    /// Memory of a queue with event words.
    pub fn new(format: Format, size: u16) -> Self {
        let sizes = area_sizes(format, size, true);
        let span = |area: vdpa_ring::Area| Span::new(area.bytes as usize);
        Self {
            areas: Areas {
                descriptor: span(sizes.descriptor),
                driver: span(sizes.driver),
                device: span(sizes.device),
            },
            tables: Span::new(TABLE_BYTES),
            record: Span::new(vdpa_ring::record_bytes(format, size) as usize),
            unmapped: Cell::new(u64::MAX),
            watch: Watch::default(),
        }
    }

    /// A span, as a ring has it.
    pub fn watched<'r>(&'r self, span: &'r Span) -> Watched<'r> {
        Watched {
            span,
            watch: &self.watch,
        }
    }

    /// The areas, as a ring has them.
    pub fn ring(&self) -> Areas<Watched<'_>> {
        Areas {
            descriptor: self.watched(&self.areas.descriptor),
            driver: self.watched(&self.areas.driver),
            device: self.watched(&self.areas.device),
        }
    }

    /// The device's view.
    pub fn device(&self) -> DeviceView<'_> {
        DeviceView {
            areas: self.ring(),
            memory: self,
        }
    }

    /// An indirect table, as the device reads it.
    ///
    /// # Errors
    /// Where it is not mapped, not yet or at all.
    pub fn table(&self, at: u64, entries: usize) -> Result<Vec<[u64; 2]>, Fault> {
        let from = at.checked_sub(TABLES).ok_or(Fault::Denied)?;
        let end = from.checked_add(entries as u64 * 16);
        if end.is_none_or(|end| end > TABLE_BYTES as u64) {
            return Err(Fault::Denied);
        }
        if from >= self.unmapped.get() {
            return Err(Fault::Miss);
        }
        let words = |i| from as usize + i * 16;
        let entry = |i| [self.tables.u64(words(i)), self.tables.u64(words(i) + 8)];
        Ok((0..entries).map(entry).collect())
    }
}

/// What a device half reaches.
pub struct DeviceView<'r> {
    areas: Areas<Watched<'r>>,
    memory: &'r Memory,
}

impl<'r> DeviceMem for DeviceView<'r> {
    type Ring = Watched<'r>;

    fn areas(&self) -> &Areas<Watched<'r>> {
        &self.areas
    }

    fn table(&self, at: Iova, to: &mut [[u64; 2]]) -> Result<(), Fault> {
        to.copy_from_slice(&self.memory.table(at.get(), to.len())?);
        Ok(())
    }
}

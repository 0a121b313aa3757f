//! A queue in memory of our own, with every access of the rings watched.
#![allow(dead_code, reason = "each test file uses its part")]

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use vdpa_mem::{Bytes, Fault, Iova, Region};
use vdpa_ring::{
    AreaSizes, Areas, DeviceMem, DriverMem, Format, Placement, RingMem, Tables, area_sizes, layout,
};

/// Where the device finds the first byte of the region.
pub(crate) const BASE: u64 = 0x10_0000;

/// Which area an access went to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Which {
    Descriptor,
    Driver,
    Device,
    Tables,
}

/// A hostile peer: told what has just been loaded.
pub(crate) type Hook = Box<dyn FnMut(&Rig, Which, u32)>;

/// What the rings did to memory.
#[derive(Default)]
pub(crate) struct Log {
    /// Loads by area, offset and width.
    pub(crate) loads: RefCell<HashMap<(Which, u32, u8), u32>>,
    /// Stores in order.
    pub(crate) stores: RefCell<Vec<(Which, u32, u8)>>,
    /// Called after each load: the hostile peer.
    pub(crate) hook: RefCell<Option<Hook>>,
}

impl Log {
    pub(crate) fn clear(&self) {
        self.loads.borrow_mut().clear();
        self.stores.borrow_mut().clear();
    }
    /// How often the most often loaded cell of an area was loaded.
    pub(crate) fn most(&self, which: Which) -> u32 {
        let loads = self.loads.borrow();
        let of = loads.iter().filter(|((w, ..), _)| *w == which);
        of.map(|(_, &n)| n).max().unwrap_or(0)
    }
    fn load(&self, rig: &Rig, which: Which, at: u32, width: u8) {
        *self
            .loads
            .borrow_mut()
            .entry((which, at, width))
            .or_default() += 1;
        // Taken out meanwhile: a hook that accesses memory raw is not watched itself.
        let hook = self.hook.borrow_mut().take();
        if let Some(mut hook) = hook {
            hook(rig, which, at);
            *self.hook.borrow_mut() = Some(hook);
        }
    }
    fn store(&self, which: Which, at: u32, width: u8) {
        self.stores.borrow_mut().push((which, at, width));
    }
}

/// Cells that are watched.
#[derive(Clone, Copy)]
pub(crate) struct Watched<'r> {
    bytes: Bytes<'r>,
    which: Which,
    log: &'r Log,
    rig: &'r Rig,
}

macro_rules! watched {
    ($load:ident, $store:ident, $int:ty) => {
        fn $load(&self, at: u32) -> $int {
            assert!(
                at as usize + size_of::<$int>() <= self.bytes.len(),
                "{:?} {at}",
                self.which
            );
            let value = self.bytes.$load(at);
            self.log
                .load(self.rig, self.which, at, size_of::<$int>() as u8);
            value
        }
        fn $store(&self, at: u32, value: $int) {
            assert!(
                at as usize + size_of::<$int>() <= self.bytes.len(),
                "{:?} {at}",
                self.which
            );
            self.log.store(self.which, at, size_of::<$int>() as u8);
            self.bytes.$store(at, value);
        }
    };
}

impl RingMem for Watched<'_> {
    watched!(load_u16, store_u16, u16);
    watched!(load_u32, store_u32, u32);
    watched!(load_u64, store_u64, u64);
    fn acquire(&self) {}
    fn release(&self) {}
    fn full(&self) {}
}

/// One queue's memory: areas, then tables for a driver, then room for tables of the test's own.
pub(crate) struct Rig {
    pub(crate) region: Region,
    pub(crate) format: Format,
    pub(crate) size: u16,
    pub(crate) sizes: AreaSizes,
    pub(crate) at: Placement,
    /// Offset of the driver's tables.
    pub(crate) tables: u32,
    /// Offset of a page the test may fill.
    pub(crate) page: u32,
    pub(crate) driver_log: Log,
    pub(crate) device_log: Log,
    /// What reading an indirect table answers.
    pub(crate) fault: Cell<Option<Fault>>,
}

impl Rig {
    pub(crate) fn new(format: Format, size: u16) -> Self {
        let sizes = area_sizes(format, size, true);
        let at = sizes.placed();
        let tables = at.bytes;
        let page = tables + u32::from(size) * u32::from(size) * 16;
        let bytes = u64::from(page) + 4096 + u64::from(size) * 32;
        Self {
            region: Region::anonymous(bytes).unwrap(),
            format,
            size,
            sizes,
            at,
            tables,
            page,
            driver_log: Log::default(),
            device_log: Log::default(),
            fault: Cell::new(None),
        }
    }

    fn areas<'r>(&'r self, log: &'r Log) -> Areas<Watched<'r>> {
        let area = |at: u32, bytes: u32, which| Watched {
            bytes: self
                .region
                .bytes()
                .slice(at as usize, bytes as usize)
                .unwrap(),
            which,
            log,
            rig: self,
        };
        Areas {
            descriptor: area(0, self.sizes.descriptor.bytes, Which::Descriptor),
            driver: area(self.at.driver, self.sizes.driver.bytes, Which::Driver),
            device: area(self.at.device, self.sizes.device.bytes, Which::Device),
        }
    }

    /// The device's view.
    pub(crate) fn device(&self) -> DeviceSide<'_> {
        DeviceSide {
            areas: self.areas(&self.device_log),
            rig: self,
        }
    }

    /// The driver's view, with indirect tables or without.
    pub(crate) fn driver(&self, tables: bool) -> DriverMem<Watched<'_>> {
        let bytes = usize::from(self.size) * usize::from(self.size) * 16;
        DriverMem {
            areas: self.areas(&self.driver_log),
            tables: tables.then(|| Tables {
                memory: Watched {
                    bytes: self
                        .region
                        .bytes()
                        .slice(self.tables as usize, bytes)
                        .unwrap(),
                    which: Which::Tables,
                    log: &self.driver_log,
                    rig: self,
                },
                base: Iova::new(BASE + u64::from(self.tables)),
                entries: self.size,
            }),
        }
    }

    // The peer's hand: raw writes, not watched.

    pub(crate) fn u16(&self, area: u32, at: u32, value: u16) {
        self.region.bytes().store_u16(area + at, value);
    }
    pub(crate) fn u32(&self, area: u32, at: u32, value: u32) {
        self.region.bytes().store_u32(area + at, value);
    }
    /// A descriptor's two words at a byte offset.
    pub(crate) fn words(&self, at: u32, addr: u64, meta: u64) {
        self.region.bytes().store_u64(at, addr);
        self.region.bytes().store_u64(at + 8, meta);
    }
    /// A split descriptor.
    pub(crate) fn split(&self, index: u16, addr: u64, len: u32, flags: u16, next: u16) {
        self.words(layout::descriptor(index), addr, split(len, flags, next));
    }
    /// A split chain made available at entry `slot`.
    pub(crate) fn avail(&self, slot: u16, head: u16) {
        self.u16(self.at.driver, layout::avail_entry(slot), head);
    }
    /// The driver's index.
    pub(crate) fn avail_idx(&self, idx: u16) {
        self.u16(self.at.driver, layout::IDX, idx);
    }
    /// A packed descriptor.
    pub(crate) fn packed(&self, slot: u16, addr: u64, len: u32, id: u16, flags: u16) {
        self.words(layout::descriptor(slot), addr, packed(len, id, flags));
    }
}

pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;
/// Available on the first lap.
pub(crate) const AVAIL: u16 = 1 << 7;
/// Available on the second lap.
pub(crate) const USED: u16 = 1 << 15;

/// A split meta word.
pub(crate) fn split(len: u32, flags: u16, next: u16) -> u64 {
    u64::from(len) | u64::from(flags) << 32 | u64::from(next) << 48
}
/// A packed meta word.
pub(crate) fn packed(len: u32, id: u16, flags: u16) -> u64 {
    u64::from(len) | u64::from(id) << 32 | u64::from(flags) << 48
}

/// Device memory over a rig.
pub(crate) struct DeviceSide<'r> {
    pub(crate) areas: Areas<Watched<'r>>,
    rig: &'r Rig,
}

impl<'r> DeviceMem for DeviceSide<'r> {
    type Ring = Watched<'r>;
    fn areas(&self) -> &Areas<Watched<'r>> {
        &self.areas
    }
    fn table(&self, at: Iova, to: &mut [[u64; 2]]) -> Result<(), Fault> {
        if let Some(fault) = self.rig.fault.get() {
            return Err(fault);
        }
        let bytes = self.rig.region.bytes();
        let from = at.get().checked_sub(BASE).ok_or(Fault::Denied)?;
        let from = usize::try_from(from).map_err(|_| Fault::Denied)?;
        let span = bytes.slice(from, to.len() * 16).ok_or(Fault::Denied)?;
        for (i, entry) in to.iter_mut().enumerate() {
            let at = (from + i * 16) as u32;
            *entry = [
                span.load_u64(i as u32 * 16),
                span.load_u64(i as u32 * 16 + 8),
            ];
            self.rig.device_log.load(self.rig, Which::Tables, at, 16);
        }
        Ok(())
    }
}

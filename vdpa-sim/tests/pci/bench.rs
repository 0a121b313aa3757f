//! A driver of registers: it finds the structures by the capabilities alone, and does also what no driver does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use vdpa_core::{Call, Features, Registry, bits};
use vdpa_mem::{Access, DmaMemory, Iova, IovaRange, Mapping, Region, Window};
use vdpa_pci::{PciAccess, Width};
use vdpa_sim::SimMgmt;
use vdpa_sim::pci::{Function, Layout, Setup};

pub(crate) const BASE: u64 = 0x4000_0000;
pub(crate) const REGION: u64 = 1 << 20;
pub(crate) const NO_VECTOR: u32 = 0xffff;

/// `cfg_type` of each structure.
pub(crate) const COMMON: u8 = 1;
pub(crate) const NOTIFY: u8 = 2;
pub(crate) const ISR: u8 = 3;
pub(crate) const DEVICE: u8 = 4;
pub(crate) const WINDOW: u8 = 5;

/// Fields of the common configuration.
pub(crate) const DEVICE_SELECT: u32 = 0x00;
pub(crate) const DEVICE_FEATURE: u32 = 0x04;
pub(crate) const DRIVER_SELECT: u32 = 0x08;
pub(crate) const DRIVER_FEATURE: u32 = 0x0c;
pub(crate) const CONFIG_VECTOR: u32 = 0x10;
pub(crate) const NUM_QUEUES: u32 = 0x12;
pub(crate) const STATUS: u32 = 0x14;
pub(crate) const GENERATION: u32 = 0x15;
pub(crate) const SELECT: u32 = 0x16;
pub(crate) const SIZE: u32 = 0x18;
pub(crate) const VECTOR: u32 = 0x1a;
pub(crate) const ENABLE: u32 = 0x1c;
pub(crate) const NOTIFY_OFF: u32 = 0x1e;
pub(crate) const DESCRIPTOR: u32 = 0x20;
pub(crate) const NOTIFY_DATA: u32 = 0x38;
pub(crate) const RESET: u32 = 0x3a;

/// Waits until `done`.
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "{what} did not happen"
        );
        std::thread::yield_now();
    }
}

/// Counts interrupts.
#[derive(Clone, Default)]
pub(crate) struct Count(Arc<AtomicU32>);

impl Count {
    pub(crate) fn call(&self) -> Call {
        let count = self.0.clone();
        Call::from_fn(move || {
            count.fetch_add(1, Ordering::Relaxed);
        })
    }

    pub(crate) fn now(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Cap {
    pub(crate) at: u16,
    pub(crate) bar: u8,
    pub(crate) offset: u32,
    pub(crate) len: u32,
}

pub(crate) struct Bench {
    pub(crate) sim: Arc<SimMgmt>,
    pub(crate) f: Function,
    pub(crate) window: Window,
    memory: Arc<dyn DmaMemory>,
    caps: Vec<(u8, Cap)>,
    pub(crate) multiplier: u32,
}

impl Bench {
    pub(crate) fn open(spec: &str, layout: &str) -> Self {
        Self::with(spec, Setup::new(Layout::named(layout).unwrap()))
    }

    pub(crate) fn with(spec: &str, setup: Setup) -> Self {
        let sim = Arc::new(SimMgmt::new());
        let mut registry = Registry::new();
        registry.add(sim.clone());
        let f = Function::new(registry.open(spec).unwrap(), setup).unwrap();
        let (memory, window) = Region::anonymous(REGION).unwrap().into_shared();
        let mut bench = Self {
            sim,
            f,
            window,
            memory,
            caps: Vec::new(),
            multiplier: 0,
        };
        // Memory decoding, bus master.
        bench.f.write_config(4, Width::U16, 6).unwrap();
        bench.caps = bench.walk();
        if let Some(notify) = bench.cap(NOTIFY) {
            bench.multiplier = bench.config(notify.at + 16, Width::U32);
        }
        bench
    }

    pub(crate) fn config(&self, at: u16, width: Width) -> u32 {
        self.f.read_config(at, width).unwrap()
    }

    /// Where each capability of this id is.
    pub(crate) fn capabilities(&self, id: u8) -> Vec<u16> {
        let mut found = Vec::new();
        let mut at = self.config(0x34, Width::U8) as u16;
        while at != 0 {
            if self.config(at, Width::U8) == u32::from(id) {
                found.push(at);
            }
            at = self.config(at + 1, Width::U8) as u16;
        }
        found
    }

    fn walk(&self) -> Vec<(u8, Cap)> {
        let cap = |at: u16| Cap {
            at,
            bar: self.config(at + 4, Width::U8) as u8,
            offset: self.config(at + 8, Width::U32),
            len: self.config(at + 12, Width::U32),
        };
        let all = self.capabilities(9).into_iter();
        all.map(|at| (self.config(at + 3, Width::U8) as u8, cap(at)))
            .collect()
    }

    pub(crate) fn cap(&self, what: u8) -> Option<Cap> {
        let right = |(cfg_type, cap): &&(u8, Cap)| *cfg_type == what && cap.bar < 6;
        let found = self.caps.iter().find(right);
        found.map(|(_, cap)| *cap)
    }

    pub(crate) fn read(&self, what: u8, at: u32, width: Width) -> u32 {
        let cap = self.cap(what).unwrap();
        self.f
            .read(cap.bar, u64::from(cap.offset + at), width)
            .unwrap()
    }

    pub(crate) fn write(&self, what: u8, at: u32, width: Width, value: u32) {
        let cap = self.cap(what).unwrap();
        self.f
            .write(cap.bar, u64::from(cap.offset + at), width, value)
            .unwrap();
    }

    pub(crate) fn r8(&self, at: u32) -> u32 {
        self.read(COMMON, at, Width::U8)
    }

    pub(crate) fn r16(&self, at: u32) -> u32 {
        self.read(COMMON, at, Width::U16)
    }

    pub(crate) fn r32(&self, at: u32) -> u32 {
        self.read(COMMON, at, Width::U32)
    }

    pub(crate) fn w8(&self, at: u32, value: u32) {
        self.write(COMMON, at, Width::U8, value);
    }

    pub(crate) fn w16(&self, at: u32, value: u32) {
        self.write(COMMON, at, Width::U16, value);
    }

    pub(crate) fn w32(&self, at: u32, value: u32) {
        self.write(COMMON, at, Width::U32, value);
    }

    /// Whether `act` was counted as meaningless.
    pub(crate) fn is_ignored(&self, act: impl FnOnce(&Self)) -> bool {
        let before = self.f.ignored();
        act(self);
        self.f.ignored() > before
    }

    pub(crate) fn mapping(&self) -> Mapping {
        Mapping {
            iova: IovaRange::new(Iova::new(BASE), REGION).unwrap(),
            memory: self.memory.clone(),
            offset: 0,
            access: Access::Both,
            dirty: None,
        }
    }

    pub(crate) fn map(&self) {
        self.f.dma_map(&self.mapping()).unwrap();
    }

    pub(crate) fn offered(&self) -> Features {
        let mut words = [0; 4];
        for (select, word) in words.iter_mut().enumerate() {
            self.w32(DEVICE_SELECT, select as u32);
            *word = self.r32(DEVICE_FEATURE);
        }
        Features::from_words(words)
    }

    /// Writes the driver's features.
    pub(crate) fn choose(&self, features: Features) {
        for (select, word) in features.to_words().into_iter().enumerate() {
            self.w32(DRIVER_SELECT, select as u32);
            self.w32(DRIVER_FEATURE, word);
        }
    }

    /// Up to FEATURES_OK, which has to stay.
    pub(crate) fn negotiate(&self, features: Features) {
        self.w8(STATUS, 3);
        self.choose(features);
        self.w8(STATUS, 0x0b);
        assert_eq!(self.r8(STATUS), 0x0b, "FEATURES_OK");
    }

    /// Begins a reset and waits for it.
    pub(crate) fn reset(&self) {
        self.w8(STATUS, 0);
        until("the reset", || self.r8(STATUS) == 0);
    }

    /// Writes the addresses of a split queue of the selected queue, `page` pages into the region.
    pub(crate) fn areas(&self, page: u64) {
        let at = BASE + page * 0x3000;
        for (field, at) in [0x20, 0x28, 0x30]
            .into_iter()
            .zip([at, at + 0x1000, at + 0x2000])
        {
            self.w32(field, at as u32);
            self.w32(field + 4, (at >> 32) as u32);
        }
    }

    /// Enables queue `q` with this size; its areas are at `3 * q` pages.
    pub(crate) fn enable(&self, q: u16, size: u16) {
        self.w16(SELECT, q.into());
        self.w16(SIZE, size.into());
        self.areas(q.into());
        self.w16(ENABLE, 1);
        assert_eq!(self.r16(ENABLE), 1, "queue {q} is enabled");
    }

    /// A source of random numbers that runs, with queue 0 of 16 entries.
    pub(crate) fn running(layout: &str) -> Self {
        let bench = Self::open("sim:rng", layout);
        bench.map();
        bench.negotiate(bits::VERSION_1 | bits::ACCESS_PLATFORM | bits::RING_RESET);
        bench.enable(0, 16);
        bench.w8(STATUS, 0x0f);
        bench
    }

    /// Where the doorbell of the selected queue is: BAR and offset.
    pub(crate) fn bell(&self) -> (u8, u64) {
        let notify = self.cap(NOTIFY).unwrap();
        let off = self.r16(NOTIFY_OFF) * self.multiplier;
        (notify.bar, u64::from(notify.offset + off))
    }

    /// Makes a buffer of 8 bytes available in a split queue at `page`; the `n`th since it was enabled, from 1.
    pub(crate) fn offer(&self, page: usize, n: u16) {
        let (table, available) = (page * 0x3000, page * 0x3000 + 0x1000);
        let bytes = self.window.bytes();
        let buffer = BASE + 0xf_0000;
        bytes.write(table, &buffer.to_le_bytes());
        bytes.write(table + 8, &8_u32.to_le_bytes());
        // VIRTQ_DESC_F_WRITE.
        bytes.write(table + 12, &2_u16.to_le_bytes());
        bytes.write(
            available + 4 + usize::from((n - 1) % 16) * 2,
            &0_u16.to_le_bytes(),
        );
        std::sync::atomic::fence(Ordering::SeqCst);
        bytes.write(available + 2, &n.to_le_bytes());
    }

    /// How many buffers were used.
    pub(crate) fn used(&self, page: usize) -> u16 {
        let mut index = [0; 2];
        self.window.bytes().read(page * 0x3000 + 0x2002, &mut index);
        u16::from_le_bytes(index)
    }
}

//! What translates for a device that is told of mappings, and memory whose end a test sees.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use vdpa_core::*;
use vdpa_mem::{Access, DmaMemory, Iova, IovaRange, Mapping, Region};

use crate::tiny::Tiny;

pub const PAGE: u64 = 4096;

/// What translates for the device, and what it was told.
pub struct Iommu {
    pub limits: DmaLimits,
    pub state: Mutex<State>,
}

#[derive(Default)]
pub struct State {
    /// By device address, with the memory that has to be alive as long as it is here.
    pub mapped: BTreeMap<u64, std::sync::Weak<dyn DmaMemory>>,
    pub log: Vec<String>,
    pub maps: usize,
    /// Which map, counted from 1, is refused.
    pub refuse: Option<usize>,
    /// Whether everything after it is too.
    pub refuse_again: bool,
    /// Where no mapping is let go of, from the refusal on.
    pub sticks_later: Option<u64>,
    /// Whether the refusal says that the device is gone.
    pub gone: bool,
    /// Where no mapping is let go of.
    pub sticks: Option<u64>,
    /// Waits here in the next map: what it has come to, and to go on.
    pub stop: Option<(mpsc::Sender<()>, mpsc::Receiver<()>)>,
}

impl Default for Iommu {
    fn default() -> Self {
        let limits = DmaLimits {
            ranges: vec![
                (Iova::new(0x1_0000), Iova::new(0xfedf_ffff)),
                (Iova::new(0xfef0_0000), Iova::new(0xff_ffff_ffff)),
            ],
            granule: PAGE,
            max_entries: Some(8),
            reach: vdpa_core::Reach::Platform,
        };
        Self {
            limits,
            state: Mutex::default(),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("no entry is left")]
pub struct NoEntry(ErrorKind);

impl ParentError for NoEntry {
    fn kind(&self) -> ErrorKind {
        self.0
    }
}

impl DmaMap for Iommu {
    fn limits(&self) -> DmaLimits {
        self.limits.clone()
    }

    fn map(&self, a: Asid, m: &Mapping) -> Result<()> {
        let stop = self.state.lock().unwrap().stop.take();
        if let Some((here, go_on)) = stop {
            here.send(()).unwrap();
            go_on.recv().unwrap();
        }
        let mut state = self.state.lock().unwrap();
        state.maps += 1;
        let before = state.refuse.is_some_and(|refused| refused < state.maps);
        if state.refuse == Some(state.maps) || (state.refuse_again && before) {
            let later = state.sticks_later.take();
            state.sticks = state.sticks.or(later);
            let kind = match state.gone {
                true => ErrorKind::Gone,
                false => ErrorKind::Io,
            };
            return Err(NoEntry(kind).into());
        }
        state.log.push(format!("map {a} {}", m.iova.first()));
        let first = m.iova.first().get();
        let old = state.mapped.insert(first, Arc::downgrade(&m.memory));
        assert!(old.is_none(), "mapped twice");
        Ok(())
    }

    fn unmap(&self, a: Asid, m: &Mapping) -> Result<()> {
        let mut state = self.state.lock().unwrap();
        let first = m.iova.first().get();
        if state.sticks == Some(first) {
            return Err(NoEntry(ErrorKind::Io).into());
        }
        state.log.push(format!("unmap {a} {}", m.iova.first()));
        let memory = state.mapped.remove(&first).expect("not mapped");
        assert!(memory.upgrade().is_some(), "its memory is gone already");
        Ok(())
    }
}

impl Iommu {
    pub fn with(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
    }

    /// Where something is mapped; all of it is alive.
    pub fn mapped(&self) -> Vec<u64> {
        let state = self.state.lock().unwrap();
        let alive = |memory: &std::sync::Weak<dyn DmaMemory>| memory.strong_count() > 0;
        assert!(
            state.mapped.values().all(alive),
            "memory is gone while mapped"
        );
        state.mapped.keys().copied().collect()
    }

    pub fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().log)
    }
}

/// How many of a test's memories live.
#[derive(Clone, Default)]
pub struct Alive(Arc<AtomicUsize>);

impl Alive {
    pub fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    /// A mapping of memory that is counted.
    pub fn at(&self, at: u64, len: u64) -> Mapping {
        self.0.fetch_add(1, Ordering::SeqCst);
        Mapping {
            iova: range(at, len),
            memory: Arc::new(Counted(Region::memfd(len).unwrap(), self.clone())),
            offset: 0,
            access: Access::Both,
            dirty: None,
        }
    }
}

pub struct Counted(Region, Alive);

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[allow(unsafe_code, reason = "memory whose end a test sees")]
// SAFETY: what the region promises.
unsafe impl DmaMemory for Counted {
    fn hva(&self) -> NonNull<u8> {
        self.0.hva()
    }
    fn len(&self) -> u64 {
        DmaMemory::len(&self.0)
    }
}

pub fn range(at: u64, len: u64) -> IovaRange {
    IovaRange::new(Iova::new(at), len).unwrap()
}

pub fn with(iommu: &Arc<Iommu>) -> Tiny {
    Tiny {
        maps: Some(iommu.clone() as _),
        ..Tiny::default()
    }
}

/// A device behind an IOMMU, its only address space, and the counter of its memories.
pub fn device() -> (Arc<Iommu>, Device, DmaHandle, Alive) {
    let (iommu, _, device, dma, alive) = device_with_parent();
    (iommu, device, dma, alive)
}

/// With the parent's own handle, which keeps it.
pub fn device_with_parent() -> (Arc<Iommu>, Arc<Tiny>, Device, DmaHandle, Alive) {
    let iommu = Arc::new(Iommu::default());
    let tiny = Arc::new(with(&iommu));
    let device = Device::new(tiny.clone(), Relay::new()).unwrap();
    let dma = device.dma(Asid::new(0)).unwrap();
    (iommu, tiny, device, dma, Alive::default())
}

pub fn firsts(dma: &DmaHandle) -> Vec<u64> {
    let first = |mapping: &Mapping| mapping.iova.first().get();
    dma.mappings().iter().map(first).collect()
}

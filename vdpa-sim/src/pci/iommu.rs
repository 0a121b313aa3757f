//! A software IOMMU: what the function reaches of memory, and a log of what it wanted and did not get.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use vdpa_core::{DmaHandle, DmaLimits, Reach, Result};
use vdpa_mem::{Access, Deadline, Iova, IovaRange, Mapping};

use crate::pci::error::PciError;
use crate::shared::lock;

/// How many faults are kept, as in hardware; all are counted.
const LOG: usize = 64;

/// How long an unmap waits for the device to let go.
const LET_GO: Duration = Duration::from_secs(5);

/// An access that the IOMMU refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DmaFault {
    /// The address.
    pub at: Iova,
    /// What the function wanted of it.
    pub want: Access,
}

/// The table, and whether the function may use it.
pub(super) struct Iommu {
    dma: DmaHandle,
    limits: DmaLimits,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    mapped: Vec<Mapping>,
    /// A function that is no bus master reaches nothing.
    bus_master: bool,
}

/// The log of faults.
#[derive(Default)]
pub(super) struct FaultLog {
    kept: Mutex<VecDeque<DmaFault>>,
    count: AtomicU64,
}

impl FaultLog {
    pub(super) fn add(&self, fault: DmaFault) {
        tracing::debug!("DMA fault at {}: {:?}", fault.at, fault.want);
        let mut kept = lock(&self.kept);
        if kept.len() < LOG {
            kept.push_back(fault);
        }
        drop(kept);
        // Last: who has counted it finds it.
        self.count.fetch_add(1, Ordering::Release);
    }

    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    pub(super) fn take(&self) -> Vec<DmaFault> {
        lock(&self.kept).drain(..).collect()
    }
}

impl Iommu {
    pub(super) fn new(dma: DmaHandle, limits: DmaLimits) -> Self {
        Self {
            dma,
            limits,
            table: Mutex::default(),
        }
    }

    pub(super) fn limits(&self) -> DmaLimits {
        self.limits.clone()
    }

    /// What can be mapped unless something else is said: every address but those that x86 interrupts by, in pages.
    pub(super) fn usual() -> DmaLimits {
        let below = (Iova::new(0), Iova::new(0xfedf_ffff));
        let above = (Iova::new(0xfef0_0000), Iova::new((1 << 48) - 1));
        DmaLimits {
            ranges: vec![below, above],
            granule: 4096,
            max_entries: Some(65535),
            reach: Reach::Platform,
        }
    }

    pub(super) fn map(&self, m: &Mapping) -> Result<()> {
        self.check(m)?;
        let mut table = lock(&self.table);
        let limit = self.limits.max_entries.unwrap_or(u32::MAX);
        let range = m.iova;
        if u32::try_from(table.mapped.len()).unwrap_or(u32::MAX) >= limit {
            return Err(PciError::Entries { range, limit }.into());
        }
        if table.mapped.iter().any(|own| own.iova.overlaps(range)) {
            let why = "some of it is mapped already";
            return Err(PciError::Range { range, why }.into());
        }
        if table.bus_master {
            self.dma.map(vec![m.clone()])?;
        }
        table.mapped.push(m.clone());
        Ok(())
    }

    pub(super) fn unmap(&self, range: IovaRange) -> Result<()> {
        let mut table = lock(&self.table);
        let Some(at) = table.mapped.iter().position(|own| own.iova == range) else {
            let why = "it is not mapped as one, so it cannot be taken back";
            return Err(PciError::Range { range, why }.into());
        };
        if table.bus_master {
            self.dma.unmap(range, Deadline::after(LET_GO))?;
        }
        let old = table.mapped.swap_remove(at);
        drop(table);
        // Outside the lock: the memory may be anybody's.
        drop(old);
        Ok(())
    }

    /// Lets the function reach memory, or not.
    pub(super) fn set_bus_master(&self, on: bool) -> Result<()> {
        let mut table = lock(&self.table);
        if table.bus_master == on {
            return Ok(());
        }
        let reached = if on { table.mapped.clone() } else { Vec::new() };
        self.dma.replace(reached, Deadline::after(LET_GO))?;
        table.bus_master = on;
        Ok(())
    }

    fn check(&self, m: &Mapping) -> Result<(), PciError> {
        let range = m.iova;
        let (first, last) = (range.first(), range.last());
        let inside = |(from, to): &(Iova, Iova)| *from <= first && last <= *to;
        if !self.limits.ranges.iter().any(inside) {
            let why = "it is not within what the IOMMU translates";
            return Err(PciError::Range { range, why });
        }
        let granule = self.limits.granule;
        if !first.is_aligned(granule) || !range.len().is_multiple_of(granule) {
            let why = "its address or length is no multiple of the IOMMU's page";
            return Err(PciError::Range { range, why });
        }
        Ok(())
    }
}

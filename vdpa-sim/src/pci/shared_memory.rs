//! Regions of shared memory: bytes in a BAR that a driver reads and writes, in any width.
//!
//! Which ones there are, and what they are for, a device's type says, virtio 1.4 §2.10: that of no class here does. They
//! keep what is written, over a reset too.

use std::sync::Mutex;

use vdpa_pci::Width;

use crate::pci::region::{Regions, SHARED_BYTES};
use crate::shared::lock;

/// The regions of a function.
pub(super) struct SharedMemory {
    regions: Vec<(u8, Mutex<Vec<u8>>)>,
}

impl SharedMemory {
    /// Those that a function has, full of zeroes.
    pub(super) fn new(regions: &Regions) -> Self {
        let zeroes = || Mutex::new(vec![0; SHARED_BYTES as usize]);
        let regions = regions.shared().map(|id| (id, zeroes()));
        Self {
            regions: regions.collect(),
        }
    }

    /// Reads at `at` of region `id`.
    pub(super) fn read(&self, id: u8, at: u32, width: Width) -> u32 {
        self.with(id, at, width, |bytes| {
            let bytes = bytes.iter().rev();
            bytes.fold(0, |word, byte| word << 8 | u32::from(*byte))
        })
    }

    /// Writes there.
    pub(super) fn write(&self, id: u8, at: u32, width: Width, value: u32) {
        self.with(id, at, width, |bytes| {
            for (to, from) in bytes.iter_mut().zip(value.to_le_bytes()) {
                *to = from;
            }
        });
    }

    fn with<T: Default>(
        &self,
        id: u8,
        at: u32,
        width: Width,
        with: impl FnOnce(&mut [u8]) -> T,
    ) -> T {
        let mut regions = self.regions.iter();
        let Some((_, region)) = regions.find(|(own, _)| *own == id) else {
            return T::default();
        };
        let mut bytes = lock(region);
        let from = usize::try_from(at).unwrap_or(usize::MAX);
        let end = from.saturating_add(width.bytes().into());
        bytes.get_mut(from..end).map_or_else(T::default, with)
    }
}

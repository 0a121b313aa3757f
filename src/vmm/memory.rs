//! The guest's memory, at the addresses that the guest knows it by.

use std::sync::Arc;

use vdpa_core::{Asid, DmaHandle, GroupIndex, Mapping};
use vdpa_mem::{Access, Deadline, GuestRegion, Iova, IovaRange, MappedGuestMemory};
use vm_memory::bitmap::NewBitmap;
use vm_memory::{GuestMemoryMmap, GuestRegionMmap};

use super::{GuestDevice, VmmError};

/// The address space that guest memory is in: the one that every queue group is in unless it was
/// [assigned](GuestDevice::assign_group) elsewhere.
const GUEST: Asid = Asid::new(0);

/// Memory. What is mapped outlives a reset, as a guest's memory does.
impl GuestDevice {
    /// Makes the guest's memory `memory`, whole: what is mapped and not in it is unmapped, what is in both is not
    /// interrupted. [`activate`](Self::activate) does it; done before, it takes the time that an IOMMU takes off the
    /// guest's processor.
    ///
    /// Memory is kept as long as the device may reach it. Where an IOMMU translates, a region that is in both is kept by
    /// what it was first mapped of, with the other regions of that: what is to be unplugged one by one is plugged by
    /// [`add_memory_region`](Self::add_memory_region).
    ///
    /// * `memory`: of vm-memory 0.18, all of it for reading and writing; other types give [`Mapping`]s to [`dma`](Self::dma)
    ///   and use [`activate_mapped`](Self::activate_mapped)
    ///
    /// # Errors
    /// As for [`DmaHandle::replace`], and when a region is not mapped in this process.
    pub fn update_memory<M>(&self, memory: &Arc<M>, by: Deadline) -> Result<(), VmmError>
    where
        M: MappedGuestMemory + Send + Sync + 'static,
    {
        let dma = self.dma(GUEST)?;
        let mut table = GuestRegion::mappings(memory, Access::Both)?;
        if dma.limits().is_some() {
            let there = dma.mappings();
            // Mapped anew, it would be gone for a moment.
            for new in &mut table {
                if let Some(old) = there.iter().find(|old| is_same(old, new)) {
                    *new = old.clone();
                }
            }
        }
        Ok(dma.replace(table, by)?)
    }

    /// Maps one more region, of memory that was plugged.
    ///
    /// # Errors
    /// As for [`DmaHandle::map`]: also when something is mapped there.
    pub fn add_memory_region<B>(&self, region: &Arc<GuestRegionMmap<B>>) -> Result<(), VmmError>
    where
        B: NewBitmap + Send + Sync + 'static,
    {
        let alone = GuestMemoryMmap::from_arc_regions(vec![Arc::clone(region)]);
        let alone = alone.map_err(|_| VmmError::Region)?;
        Ok(self.dma(GUEST)?.map_guest(&Arc::new(alone), Access::Both)?)
    }

    /// Unmaps a region that is to be unplugged. On return the device does not touch it any more.
    ///
    /// * `at`: guest-physical; `len`: in bytes
    ///
    /// # Errors
    /// As for [`DmaHandle::unmap`].
    pub fn remove_memory_region(&self, at: u64, len: u64, by: Deadline) -> Result<(), VmmError> {
        let range = IovaRange::new(Iova::new(at), len)?;
        Ok(self.dma(GUEST)?.unmap(range, by)?)
    }

    /// A handle to one of the device's address spaces: for a vIOMMU, for memory of the VMM's own, and for a dirty log.
    ///
    /// # Errors
    /// When the device has no such address space.
    pub fn dma(&self, a: Asid) -> Result<DmaHandle, VmmError> {
        Ok(self.device().dma(a)?)
    }

    /// Puts a queue group into an address space, from the next activation on and for each after that: a device forgets it
    /// with a reset, this does not. So a VMM that answers a control queue itself keeps it apart from the guest's memory.
    ///
    /// # Errors
    /// When the device is active, or has no such group or address space.
    pub fn assign_group(&mut self, group: GroupIndex, a: Asid) -> Result<(), VmmError> {
        if self.is_activated() {
            let call = "assign_group";
            return Err(VmmError::Active { call });
        }
        self.device().assign_group(group, a)?;
        self.groups.retain(|(there, _)| *there != group);
        self.groups.push((group, a));
        Ok(())
    }
}

/// Whether both are the same bytes at the same addresses. Those of one that is mapped are still those of who mapped it:
/// it keeps them.
fn is_same(old: &Mapping, new: &Mapping) -> bool {
    let place = |m: &Mapping| (m.iova, m.memory.hva(), m.memory.len(), m.offset, m.dirty);
    place(old) == place(new) && old.access == new.access
}

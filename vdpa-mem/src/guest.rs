//! Any `vm-memory` guest memory, mapped in one call.
#![allow(
    unsafe_code,
    reason = "vouches for memory that a `GuestMemoryBackend` keeps mapped"
)]

use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use vm_memory::{
    FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion,
    MemoryRegionAddress, bitmap::NewBitmap,
};

use crate::{Access, AddressSpace, DmaMemory, Gpa, Iova, IovaRange, Mapping, MemError};

/// Guest memory that can be given to devices: [`GuestMemoryMmap`], and what others vouch for.
///
/// # Safety
/// For each region, `get_host_address` answers where `len` bytes of it are mapped, readable and writable, for as long
/// as the memory exists, and no Rust reference into them exists.
pub unsafe trait MappedGuestMemory: GuestMemoryBackend {}

// SAFETY: its regions own their mappings, and access to them is volatile. They are readable and writable unless a VMM
// builds them otherwise, which is then its own to map as what it is, with `Mapping`s.
unsafe impl<B: NewBitmap + 'static> MappedGuestMemory for GuestMemoryMmap<B> {}

/// One region of somebody's guest memory, kept alive with all of it.
pub struct GuestRegion<M> {
    base: NonNull<u8>,
    len: u64,
    file: Option<FileOffset>,
    // Keeps the mapping.
    _memory: Arc<M>,
}

// SAFETY: the pointer is into memory that `_memory` keeps mapped; it is only used through `Bytes`.
unsafe impl<M: Send + Sync> Send for GuestRegion<M> {}
// SAFETY: as above.
unsafe impl<M: Send + Sync> Sync for GuestRegion<M> {}

// SAFETY: promised by `MappedGuestMemory` for as long as the memory exists, which `_memory` sees to.
unsafe impl<M: Send + Sync> DmaMemory for GuestRegion<M> {
    fn hva(&self) -> NonNull<u8> {
        self.base
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn file(&self) -> Option<(BorrowedFd<'_>, u64)> {
        let file = self.file.as_ref()?;
        Some((file.file().as_fd(), file.start()))
    }
}

impl<M: MappedGuestMemory + Send + Sync + 'static> GuestRegion<M> {
    /// A mapping for each region of `memory`, at [`Iova`]s equal to its guest-physical addresses, which is also what
    /// a dirty log is told.
    ///
    /// # Errors
    /// [`MemError::NoHostAddress`] for a region that is not mapped in this process.
    pub fn mappings(memory: &Arc<M>, access: Access) -> Result<Vec<Mapping>, MemError> {
        memory
            .iter()
            .map(|region| {
                let GuestAddress(at) = region.start_addr();
                let host = region.get_host_address(MemoryRegionAddress(0)).ok();
                let base = host
                    .and_then(NonNull::new)
                    .ok_or(MemError::NoHostAddress { at })?;
                let iova = IovaRange::new(Iova::new(at), region.len())?;
                Ok(Mapping {
                    iova,
                    memory: Arc::new(Self {
                        base,
                        len: region.len(),
                        file: region.file_offset().cloned(),
                        _memory: Arc::clone(memory),
                    }),
                    offset: 0,
                    access,
                    dirty: Some(Gpa::new(at)),
                })
            })
            .collect()
    }
}

impl AddressSpace {
    /// Maps all of a guest's memory, at [`Iova`]s equal to its guest-physical addresses.
    ///
    /// # Errors
    /// As [`map`](Self::map), and [`MemError::NoHostAddress`].
    pub fn map_guest<M>(&self, memory: &Arc<M>, access: Access) -> Result<(), MemError>
    where
        M: MappedGuestMemory + Send + Sync + 'static,
    {
        self.map(GuestRegion::mappings(memory, access)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Hint;
    use vm_memory::Bytes as _;

    #[test]
    fn what_a_vmm_writes_is_what_a_device_reads() {
        let ranges = [(GuestAddress(0), 0x1000), (GuestAddress(0x10_0000), 0x2000)];
        let memory = Arc::new(GuestMemoryMmap::<()>::from_ranges(&ranges).unwrap());
        let space = AddressSpace::new();
        space.map_guest(&memory, Access::Both).unwrap();

        memory
            .write_obj(0xfeed_u16, GuestAddress(0x10_1ffe))
            .unwrap();
        let mut reader = space.reader();
        let section = reader.enter();
        let at = Iova::new(0x10_1ffe);
        let bytes = section.translate(at, 8, Access::DeviceReads, &mut Hint::default());
        let bytes = bytes.unwrap();
        assert_eq!(bytes.len(), 2);
        assert_eq!(bytes.load_u16(0), 0xfeed);
        let hole = section.translate(
            Iova::new(0x1000),
            1,
            Access::DeviceReads,
            &mut Hint::default(),
        );
        assert!(hole.is_err());
    }

    #[test]
    fn memory_outlives_the_vmm_handle() {
        let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap();
        let space = AddressSpace::new();
        space.map_guest(&Arc::new(memory), Access::Both).unwrap();
        let mut reader = space.reader();
        let section = reader.enter();
        let bytes = section
            .translate(Iova::new(0), 4, Access::DeviceWrites, &mut Hint::default())
            .unwrap();
        assert_eq!(bytes.write(0, &[1; 4]), 4);
    }
}

//! What can be mapped, and one entry of an address space.
#![allow(
    unsafe_code,
    reason = "declares the trait whose implementers promise valid memory"
)]

use alloc::sync::Arc;
use core::fmt;
use core::ptr::NonNull;

use crate::{Gpa, IovaRange};
#[cfg(feature = "std")]
use crate::{Hva, MemError};

/// What a device may do with memory, or wants to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Access {
    /// The device reads: driver to device.
    DeviceReads,
    /// The device writes: device to driver.
    DeviceWrites,
    /// Both.
    Both,
}

impl Access {
    const fn bits(self) -> u8 {
        match self {
            Self::DeviceReads => 1,
            Self::DeviceWrites => 2,
            Self::Both => 3,
        }
    }

    /// Whether memory with this permission allows `want`.
    #[inline]
    pub const fn allows(self, want: Self) -> bool {
        self.bits() & want.bits() == want.bits()
    }
}

/// Why an address could not be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Fault {
    /// Nothing is mapped there (yet: a parent that can miss asks its owner).
    Miss,
    /// It is mapped, but not for this access.
    Denied,
}

impl core::fmt::Display for Fault {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Miss => "not mapped",
            Self::Denied => "not mapped for this access",
        })
    }
}

impl core::error::Error for Fault {}

/// Memory that a device may be given.
///
/// # Safety
/// [`len`](Self::len) bytes from [`hva`](Self::hva) on stay mapped, readable and, if
/// [`is_writable`](Self::is_writable), writable until the value is dropped; the calls always answer the same; and no
/// Rust reference into the bytes exists anywhere while the value lives.
#[allow(
    clippy::len_without_is_empty,
    reason = "empty memory cannot be mapped anyway"
)]
pub unsafe trait DmaMemory: Send + Sync {
    /// Where the memory begins in this process.
    fn hva(&self) -> NonNull<u8>;

    /// Its length in bytes.
    fn len(&self) -> u64;

    /// Whether the memory may be written at all. Where it may not (a guest's ROM), it is mapped as
    /// [`Access::DeviceReads`] or not at all.
    fn is_writable(&self) -> bool {
        true
    }

    /// Whether some of the memory is not what it was mapped from any more, since its file was cut: see
    /// [`survive_shrinking`](crate::survive_shrinking). What is not of a file is never lost.
    #[cfg(feature = "std")]
    fn is_lost(&self) -> bool {
        false
    }

    /// The file that the memory is a mapping of, and the offset in it of the first byte; `None` for memory
    /// without one. Parents in another process need it.
    #[cfg(feature = "std")]
    fn file(&self) -> Option<(std::os::fd::BorrowedFd<'_>, u64)> {
        None
    }
}

/// One entry of an address space: `iova.len()` bytes of `memory` from `offset` on, seen by the device at `iova`.
#[derive(Clone)]
pub struct Mapping {
    /// Where the device sees it.
    pub iova: IovaRange,
    /// The memory, kept alive by the entry.
    pub memory: Arc<dyn DmaMemory>,
    /// Offset in the memory of the byte at `iova.first()`.
    pub offset: u64,
    /// What the device may do.
    pub access: Access,
    /// The guest-physical address that a dirty log is told for the byte at `iova.first()`; `None`: never logged.
    pub dirty: Option<Gpa>,
}

#[cfg(feature = "std")]
impl Mapping {
    /// Checks that the mapping lies inside its memory, and the memory inside its file.
    pub(crate) fn check(&self) -> Result<(), MemError> {
        let (offset, len, memory) = (self.offset, self.iova.len(), self.memory.len());
        if offset.checked_add(len).is_none_or(|end| end > memory) {
            return Err(MemError::Outside {
                offset,
                len,
                memory,
            });
        }
        if self.access.allows(Access::DeviceWrites) && !self.memory.is_writable() {
            return Err(MemError::ReadOnly { range: self.iova });
        }
        self.check_file()
    }

    fn check_file(&self) -> Result<(), MemError> {
        use nix::sys::stat::{SFlag, fstat};

        let Some((fd, start)) = self.memory.file() else {
            return Ok(());
        };
        let stat = fstat(fd).map_err(|e| MemError::File { source: e.into() })?;
        // Only a regular file (a memfd is one) has a size that bounds its mappings.
        if stat.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFREG.bits() {
            return Ok(());
        }
        let file = u64::try_from(stat.st_size).unwrap_or(0);
        let needed = start
            .saturating_add(self.offset)
            .saturating_add(self.iova.len());
        if needed > file {
            return Err(MemError::FileTooShort { needed, file });
        }
        Ok(())
    }

    /// Whether the two are one and the same to a device: address, memory, access and log.
    pub fn is_same(&self, other: &Self) -> bool {
        self.iova == other.iova
            && Arc::ptr_eq(&self.memory, &other.memory)
            && self.offset == other.offset
            && self.access == other.access
            && self.dirty == other.dirty
    }

    /// The host address of the byte at `iova.first()`, for whoever tells a kernel of it.
    pub fn hva(&self) -> Hva {
        Hva::new(self.host() as u64)
    }

    /// The same, as a pointer.
    pub(crate) fn host(&self) -> *mut u8 {
        self.memory
            .hva()
            .as_ptr()
            .wrapping_add(usize::try_from(self.offset).unwrap_or(usize::MAX))
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapping")
            .field("iova", &format_args!("{}", self.iova))
            .field("offset", &format_args!("{:#x}", self.offset))
            .field("access", &self.access)
            .field("dirty", &self.dirty)
            .finish_non_exhaustive()
    }
}

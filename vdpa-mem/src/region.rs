//! Memory of our own to give to devices.
#![allow(
    unsafe_code,
    reason = "owns raw allocations and file mappings and frees them"
)]

use alloc::alloc::{Layout, alloc_zeroed, dealloc};
use alloc::sync::Arc;
use core::ptr::NonNull;

#[cfg(feature = "std")]
use crate::shrink::Looked;
use crate::{Bytes, DmaMemory, MemError, Window};

/// Regions begin on, and are multiples of, this many bytes.
const PAGE_BYTES: u64 = 4096;

/// The size of a huge page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HugePage {
    /// 2 MiB.
    Size2M,
    /// 1 GiB.
    Size1G,
}

impl HugePage {
    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Size2M => 2 << 20,
            Self::Size1G => 1 << 30,
        }
    }
}

/// Zeroed memory of our own, aligned to its page size: what a driver puts its rings and buffers in.
pub struct Region {
    base: NonNull<u8>,
    len: usize,
    backing: Backing,
}

enum Backing {
    Heap(Layout),
    #[cfg(feature = "std")]
    File {
        file: std::os::fd::OwnedFd,
        /// Where in it the memory begins.
        offset: u64,
        /// In case that it is cut; `None` where it cannot be.
        looked: Option<Looked>,
    },
}

// SAFETY: the memory is owned, and only used through `Bytes`.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// Heap memory of at least `len` bytes, rounded up to whole pages: for software devices in this process.
    ///
    /// # Errors
    /// [`MemError::Allocation`] when there is none, or `len` is 0.
    pub fn anonymous(len: u64) -> Result<Self, MemError> {
        let failed = |bytes| allocation(bytes, "heap memory", "");
        let rounded = round_up(len, PAGE_BYTES).ok_or_else(|| failed(len))?;
        let layout = usize::try_from(rounded)
            .ok()
            .and_then(|size| Layout::from_size_align(size, PAGE_BYTES as usize).ok())
            .ok_or_else(|| failed(len))?;
        // SAFETY: the layout's size is not 0: `round_up` refuses it.
        let base = unsafe { alloc_zeroed(layout) };
        let base = NonNull::new(base).ok_or_else(|| failed(rounded))?;
        Ok(Self {
            base,
            len: layout.size(),
            backing: Backing::Heap(layout),
        })
    }

    /// The memory as something to map, and a window onto all of it.
    pub fn into_shared(self) -> (Arc<dyn DmaMemory>, Window) {
        let len = self.len as u64;
        let memory: Arc<dyn DmaMemory> = Arc::new(self);
        let window = Window::new(Arc::clone(&memory), 0, len);
        // A window onto the whole memory is inside it.
        let window = window.unwrap_or_else(|_| unreachable!("a region contains itself"));
        (memory, window)
    }

    /// All of the memory.
    #[inline]
    pub fn bytes(&self) -> Bytes<'_> {
        // SAFETY: owned, valid for `len` bytes until `self` is dropped, never referenced.
        unsafe { Bytes::new(self.base, self.len, true, None) }
    }
}

#[cfg(feature = "std")]
mod mapped {
    use std::num::NonZeroUsize;
    use std::os::fd::OwnedFd;

    use nix::fcntl::{FcntlArg, SealFlag, fcntl};
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use nix::sys::mman::{MapFlags, ProtFlags, mmap};
    use nix::sys::stat::fstat;
    use nix::sys::statfs::{HUGETLBFS_MAGIC, fstatfs};
    use nix::unistd::ftruncate;

    use super::{Backing, HugePage, Looked, PAGE_BYTES, Region, is_sealed, round_up};
    use crate::MemError;

    impl Region {
        /// Memory with a file of its own (memfd) that other processes can map; its size is sealed. At least `len`
        /// bytes, rounded up to whole pages.
        ///
        /// # Errors
        /// [`MemError::Allocation`] when there is none, or `len` is 0.
        pub fn memfd(len: u64) -> Result<Self, MemError> {
            Self::file(len, PAGE_BYTES, MFdFlags::empty(), "shared memory", "")
        }

        /// The same in huge pages.
        ///
        /// # Errors
        /// [`MemError::Allocation`] when there are too few free huge pages, or `len` is 0.
        pub fn huge(len: u64, page: HugePage) -> Result<Self, MemError> {
            let size = match page {
                HugePage::Size2M => MFdFlags::MFD_HUGE_2MB,
                HugePage::Size1G => MFdFlags::MFD_HUGE_1GB,
            };
            let hint = match page {
                HugePage::Size2M => {
                    ": reserve some in /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
                }
                HugePage::Size1G => {
                    ": reserve some in /sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages"
                }
            };
            let flags = MFdFlags::MFD_HUGETLB | size;
            Self::file(len, page.bytes(), flags, "huge pages", hint)
        }

        /// The `len` bytes of somebody's file from `offset` on, shared with whoever else maps it: rings that a process
        /// hands over, a log, a record of what is in flight.
        ///
        /// A file that is cut while it is mapped ends the process that touches it, unless
        /// [`survive_shrinking`](crate::survive_shrinking) was called. One with the seal against shrinking (as
        /// [`memfd`](Self::memfd) sets it) cannot be cut.
        ///
        /// * `offset`: a multiple of the page size; of a file of huge pages `len` is one too
        ///
        /// # Errors
        /// [`MemError::FileTooShort`], [`MemError::Map`] when it cannot be mapped for reading and writing, or
        /// `len` is 0.
        pub fn shared(file: OwnedFd, offset: u64, len: u64) -> Result<Self, MemError> {
            let refused = |hint| {
                move |errno: nix::Error| MemError::Map {
                    len,
                    hint,
                    source: errno.into(),
                }
            };
            let failed = refused(
                "it has to be a file that memory can be, open for reading and writing, and the offset a multiple of the page \
                 size",
            );
            let stat = fstat(&file).map_err(|e| MemError::File { source: e.into() })?;
            let size = u64::try_from(stat.st_size).unwrap_or(0);
            let needed = offset.saturating_add(len);
            if needed > size {
                return Err(MemError::FileTooShort { needed, file: size });
            }
            // Such a mapping is made longer than was asked for, and could not be taken away by its length.
            let huge = fstatfs(&file)
                .ok()
                .filter(|fs| fs.filesystem_type() == HUGETLBFS_MAGIC);
            let page = huge.map_or(1, |fs| u64::try_from(fs.block_size()).unwrap_or(1).max(1));
            if !(offset | len).is_multiple_of(page) {
                let hint = "offset and length have to be multiples of its huge pages";
                return Err(refused(hint)(nix::Error::EINVAL));
            }
            let length = usize::try_from(len).ok().and_then(NonZeroUsize::new);
            let length = length.ok_or_else(|| failed(nix::Error::EINVAL))?;
            let at = i64::try_from(offset).map_err(|_| failed(nix::Error::EFBIG))?;
            let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
            // SAFETY: a new mapping at an address of the kernel's choosing touches nothing that exists.
            let base = unsafe { mmap(None, length, prot, MapFlags::MAP_SHARED, &file, at) };
            let base = base.map_err(failed)?.cast();
            let page = usize::try_from(page.max(PAGE_BYTES)).unwrap_or(usize::MAX);
            let looked = match is_sealed(&file) {
                true => None,
                false => Looked::after(base, length.get(), page),
            };
            Ok(Self {
                base,
                len: length.get(),
                backing: Backing::File {
                    file,
                    offset,
                    looked,
                },
            })
        }

        fn file(
            len: u64,
            page: u64,
            flags: MFdFlags,
            kind: &'static str,
            hint: &'static str,
        ) -> Result<Self, MemError> {
            let failed = |errno: nix::Error| MemError::Allocation {
                len,
                kind,
                hint,
                source: errno.into(),
            };
            let rounded = round_up(len, page).ok_or_else(|| failed(nix::Error::EINVAL))?;
            let size = usize::try_from(rounded)
                .ok()
                .and_then(NonZeroUsize::new)
                .ok_or_else(|| failed(nix::Error::EINVAL))?;
            let flags = flags | MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
            let fd: OwnedFd = memfd_create("vdpa", flags).map_err(failed)?;
            let length = i64::try_from(rounded).map_err(|_| failed(nix::Error::EFBIG))?;
            ftruncate(&fd, length).map_err(failed)?;
            let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
            fcntl(&fd, FcntlArg::F_ADD_SEALS(seals)).map_err(failed)?;
            let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
            // SAFETY: a new mapping at an address of the kernel's choosing touches nothing that exists.
            let base = unsafe { mmap(None, size, prot, MapFlags::MAP_SHARED, &fd, 0) };
            Ok(Self {
                base: base.map_err(failed)?.cast(),
                len: size.get(),
                backing: Backing::File {
                    file: fd,
                    offset: 0,
                    looked: None,
                },
            })
        }
    }
}

/// Whether the file cannot be cut.
#[cfg(feature = "std")]
fn is_sealed(file: &std::os::fd::OwnedFd) -> bool {
    use nix::fcntl::{FcntlArg, SealFlag, fcntl};

    // A file that knows no seals answers with an error.
    let seals = fcntl(file, FcntlArg::F_GET_SEALS).unwrap_or(0);
    SealFlag::from_bits_truncate(seals).contains(SealFlag::F_SEAL_SHRINK)
}

fn round_up(len: u64, page: u64) -> Option<u64> {
    if len == 0 {
        return None;
    }
    len.checked_next_multiple_of(page)
}

fn allocation(len: u64, kind: &'static str, hint: &'static str) -> MemError {
    MemError::Allocation {
        len,
        kind,
        hint,
        #[cfg(feature = "std")]
        source: std::io::ErrorKind::OutOfMemory.into(),
    }
}

// SAFETY: the allocation or mapping is owned and freed only on drop; nothing makes references into it.
unsafe impl DmaMemory for Region {
    fn hva(&self) -> NonNull<u8> {
        self.base
    }

    fn len(&self) -> u64 {
        self.len as u64
    }

    #[cfg(feature = "std")]
    fn file(&self) -> Option<(std::os::fd::BorrowedFd<'_>, u64)> {
        use std::os::fd::AsFd;

        match &self.backing {
            Backing::Heap(_) => None,
            Backing::File { file, offset, .. } => Some((file.as_fd(), *offset)),
        }
    }

    #[cfg(feature = "std")]
    fn is_lost(&self) -> bool {
        match &self.backing {
            Backing::Heap(_) => false,
            Backing::File { looked, .. } => looked.as_ref().is_some_and(Looked::is_lost),
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        match &mut self.backing {
            // SAFETY: allocated with this very layout.
            Backing::Heap(layout) => unsafe { dealloc(self.base.as_ptr(), *layout) },
            #[cfg(feature = "std")]
            Backing::File { looked, .. } => {
                // Before: the addresses may be somebody else's afterwards.
                drop(looked.take());
                // SAFETY: mapped by `file` or `shared` with this length; nothing points into it any more. It cannot fail for a
                // mapping that exists.
                let _ = unsafe { nix::sys::mman::munmap(self.base.cast(), self.len) };
            }
        }
    }
}

impl core::fmt::Debug for Region {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Region({:#x} bytes)", self.len)
    }
}

#[cfg(all(test, feature = "std", not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn memfd_has_a_sealed_file_of_its_size() {
        let region = Region::memfd(5000).unwrap();
        assert_eq!(DmaMemory::len(&region), 8192);
        let (fd, start) = region.file().unwrap();
        assert_eq!(start, 0);
        assert!(nix::unistd::ftruncate(fd, 4096).is_err());
        assert_eq!(region.bytes().write(8190, &[1, 2, 3]), 2);
    }

    #[test]
    fn a_file_is_mapped_where_it_is_asked_for_and_not_beyond_its_end() {
        let ours = Region::memfd(3 * 4096).unwrap();
        let fd = || ours.file().unwrap().0.try_clone_to_owned().unwrap();
        let theirs = Region::shared(fd(), 4096, 5000).unwrap();
        assert_eq!(DmaMemory::len(&theirs), 5000);
        assert_eq!(theirs.file().unwrap().1, 4096);
        theirs.bytes().write(10, &[7]);
        let mut back = [0];
        ours.bytes().read(4096 + 10, &mut back);
        assert_eq!(back, [7]);
        let long = Region::shared(fd(), 8192, 4097).unwrap_err();
        assert!(matches!(long, MemError::FileTooShort { needed: 12289, .. }));
        assert!(Region::shared(fd(), u64::MAX, 4096).is_err());
        let within = Region::shared(fd(), 1, 4096).unwrap_err().to_string();
        assert!(within.contains("multiple of the page size"), "{within}");
        assert!(Region::shared(fd(), 0, 0).is_err());
    }

    #[test]
    fn a_part_of_a_huge_page_is_refused_since_it_could_not_be_unmapped() {
        use nix::sys::memfd::{MFdFlags, memfd_create};

        let flags = MFdFlags::MFD_HUGETLB | MFdFlags::MFD_HUGE_2MB;
        let Ok(file) = memfd_create("huge", flags) else {
            let name = "a_part_of_a_huge_page_is_refused_since_it_could_not_be_unmapped";
            let module = module_path!();
            println!("SKIP {module}::{name}: no huge pages of 2 MiB in this kernel");
            return;
        };
        nix::unistd::ftruncate(&file, 4 << 20).unwrap();
        for (offset, len) in [(0, 8192), (4096, 2 << 20)] {
            let file = file.try_clone().unwrap();
            let error = Region::shared(file, offset, len).unwrap_err().to_string();
            assert!(error.contains("huge pages"), "{error}");
        }
    }

    #[test]
    fn zero_bytes_are_refused() {
        assert!(Region::memfd(0).is_err());
        assert!(Region::anonymous(0).is_err());
        assert!(Region::anonymous(u64::MAX).is_err());
    }

    #[test]
    fn missing_huge_pages_are_an_error_that_says_where_to_get_them() {
        // More than any machine has.
        let error = Region::huge(1 << 50, HugePage::Size2M).unwrap_err();
        assert!(error.to_string().contains("nr_hugepages"), "{error}");
    }
}

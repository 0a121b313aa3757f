//! `/dev/iommu`.
#![allow(
    unsafe_code,
    reason = "ioctls on a descriptor that was asked whether it is such a device"
)]

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;

use super::bitmap::Bitmap;
use super::numbers::*;
use crate::table::Plain;
use crate::{Call, Error, device};

const WHAT: &str = "iommufd";

/// Ranges of a space that are asked for at most; the kernel has a handful.
const MOST_RANGES: usize = 4096;

/// Bytes of a bitmap of dirty pages that are asked for at most: for 512 GiB in pages of 4 KiB.
const MOST_BITMAP: usize = 16 << 20;

/// Address spaces, and what devices see of them.
///
/// # Spec
/// `linux/iommufd.h`.
#[derive(Debug)]
pub struct Iommufd {
    file: File,
}

/// What can be mapped in a space.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ranges {
    /// First and last address of each.
    pub ranges: Vec<(u64, u64)>,
    /// What addresses and lengths are multiples of, in bytes.
    pub granule: u64,
}

impl Iommufd {
    /// Opens `/dev/iommu`, or another file.
    ///
    /// # Errors
    /// [`Error::Open`]; [`Error::Foreign`] if it is something else.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::from_fd(device::open(path.as_ref(), "`modprobe iommufd`")?)
    }

    /// Takes over the file that somebody else has opened.
    ///
    /// # Errors
    /// [`Error::Foreign`] if it is something else, which is found out by destroying what cannot be there.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, Error> {
        let file = device::character_device(fd, WHAT)?;
        let iommufd = Self { file };
        // Objects are numbered from 1 on.
        let known = match iommufd.destroy(0) {
            Err(Error::Call {
                errno: Errno::ENOENT,
                ..
            }) => Ok(()),
            other => other,
        };
        device::known(&iommufd.file, WHAT, known)?;
        Ok(iommufd)
    }

    /// Makes an address space: its number.
    ///
    /// # Errors
    /// [`Error::Call`], as all below.
    pub fn new_space(&self) -> Result<u32, Error> {
        let made = self.ask(IOMMU_IOAS_ALLOC, |size| iommu_ioas_alloc {
            size,
            ..Plain::ZERO
        })?;
        Ok(made.out_ioas_id)
    }

    /// Destroys an object of any kind.
    ///
    /// # Errors
    /// What the kernel says: `ENOENT` if there is none, `EBUSY` while it is used.
    pub fn destroy(&self, id: u32) -> Result<(), Error> {
        self.ask(IOMMU_DESTROY, |size| iommu_destroy { size, id })
            .map(drop)
    }

    /// What can be mapped in a space, by what is attached to it now.
    ///
    /// # Errors
    /// What the kernel says: `ENOENT` for no space.
    pub fn ranges(&self, space: u32) -> Result<Ranges, Error> {
        let mut found = vec![iommu_iova_range::ZERO; 16];
        loop {
            let mut ask = iommu_ioas_iova_ranges {
                size: size_of::<iommu_ioas_iova_ranges>() as u32,
                ioas_id: space,
                num_iovas: found.len() as u32,
                allowed_iovas: address(&mut found),
                ..Plain::ZERO
            };
            // SAFETY: this is iommufd, by `from_fd`; the argument points to as many ranges as it says, which live on.
            let done = unsafe { IOMMU_IOAS_IOVA_RANGES.make(self.file.as_fd(), &raw mut ask) };
            let count = ask.num_iovas as usize;
            match done {
                Err(Error::Call {
                    errno: Errno::EMSGSIZE,
                    ..
                }) if count > found.len() && count <= MOST_RANGES => {
                    found.resize(count, Plain::ZERO);
                }
                Err(error) => return Err(error),
                Ok(_) => {
                    return Ok(Ranges {
                        ranges: found
                            .iter()
                            .take(count)
                            .map(|range| (range.start, range.last))
                            .collect(),
                        granule: ask.out_iova_alignment,
                    });
                }
            }
        }
    }

    /// Keeps ranges free of what devices that are attached later reserve; none: takes that back.
    ///
    /// # Errors
    /// What the kernel says: `EADDRINUSE` for what is reserved already.
    pub fn allow(&self, space: u32, ranges: &[(u64, u64)]) -> Result<(), Error> {
        let mut list: Vec<_> = ranges
            .iter()
            .map(|&(start, last)| iommu_iova_range { start, last })
            .collect();
        let mut ask = iommu_ioas_allow_iovas {
            size: size_of::<iommu_ioas_allow_iovas>() as u32,
            ioas_id: space,
            num_iovas: u32::try_from(list.len()).map_err(|_| Error::TooLong {
                call: IOMMU_IOAS_ALLOW_IOVAS.name(),
                len: list.len(),
                most: u32::MAX as usize,
            })?,
            allowed_iovas: address(&mut list),
            ..Plain::ZERO
        };
        // SAFETY: this is iommufd, by `from_fd`; the argument points to as many ranges as it says, which live on.
        unsafe { IOMMU_IOAS_ALLOW_IOVAS.make(self.file.as_fd(), &raw mut ask) }.map(drop)
    }

    /// Maps in `to` what is mapped in `from` already: where it is.
    ///
    /// * `at`: where; `None`: wherever there is room
    /// * `access`: a set of `IOMMU_IOAS_MAP_READABLE` and `_WRITEABLE`, as the device sees it
    ///
    /// # Errors
    /// What the kernel says: `ENOENT` where some of it is not mapped. `EINVAL` for other bits of `access`.
    ///
    /// # Safety
    /// The memory behind it may be accessed by devices of `to` in this way, at any time until it is unmapped there too,
    /// whatever becomes of the mapping in `from`.
    pub unsafe fn copy(
        &self,
        from: u32,
        source: u64,
        length: u64,
        to: u32,
        at: Option<u64>,
        access: u32,
    ) -> Result<u64, Error> {
        if access & !(IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE) != 0 {
            return Err(IOMMU_IOAS_COPY.failed(Errno::EINVAL));
        }
        let fixed = if at.is_some() {
            IOMMU_IOAS_MAP_FIXED_IOVA
        } else {
            0
        };
        let copied = self.ask(IOMMU_IOAS_COPY, |size| iommu_ioas_copy {
            size,
            flags: fixed | access,
            dst_ioas_id: to,
            src_ioas_id: from,
            length,
            dst_iova: at.unwrap_or(0),
            src_iova: source,
        })?;
        Ok(copied.dst_iova)
    }

    /// The value of an option, one of `IOMMU_OPTION_*`.
    ///
    /// * `object`: what it is of; 0 for all
    ///
    /// # Errors
    /// What the kernel says.
    pub fn option(&self, option: u32, object: u32) -> Result<u64, Error> {
        self.with_option(IOMMU_OPTION_OP_GET, option, object, 0)
    }

    /// Sets it.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_option(&self, option: u32, object: u32, value: u64) -> Result<(), Error> {
        self.with_option(IOMMU_OPTION_OP_SET, option, object, value)
            .map(drop)
    }

    fn with_option(
        &self,
        op: u16,
        option_id: u32,
        object_id: u32,
        val64: u64,
    ) -> Result<u64, Error> {
        let option = self.ask(IOMMU_OPTION, |size| iommu_option {
            size,
            option_id,
            op,
            object_id,
            val64,
            ..Plain::ZERO
        })?;
        Ok(option.val64)
    }

    /// The space that stands in for a VFIO container.
    ///
    /// # Errors
    /// What the kernel says: `ENODEV` if there is none, `EOPNOTSUPP` where it was built without that.
    pub fn vfio_space(&self) -> Result<u32, Error> {
        self.with_vfio_space(IOMMU_VFIO_IOAS_GET, 0)
    }

    /// Makes a space the one that stands in for a VFIO container; `None`: none of them.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_vfio_space(&self, space: Option<u32>) -> Result<(), Error> {
        let op = if space.is_some() {
            IOMMU_VFIO_IOAS_SET
        } else {
            IOMMU_VFIO_IOAS_CLEAR
        };
        self.with_vfio_space(op, space.unwrap_or(0)).map(drop)
    }

    fn with_vfio_space(&self, op: u16, ioas_id: u32) -> Result<u32, Error> {
        let space = self.ask(IOMMU_VFIO_IOAS, |size| iommu_vfio_ioas {
            size,
            ioas_id,
            op,
            ..Plain::ZERO
        })?;
        Ok(space.ioas_id)
    }

    /// Has a page table note which pages devices write to, or no more. Linux 6.7.
    ///
    /// # Errors
    /// What the kernel says: `EOPNOTSUPP` if it was not made with `IOMMU_HWPT_ALLOC_DIRTY_TRACKING`.
    pub fn track_dirty(&self, table: u32, on: bool) -> Result<(), Error> {
        let flags = if on {
            IOMMU_HWPT_DIRTY_TRACKING_ENABLE
        } else {
            0
        };
        self.ask(IOMMU_HWPT_SET_DIRTY_TRACKING, |size| {
            iommu_hwpt_set_dirty_tracking {
                size,
                flags,
                hwpt_id: table,
                ..Plain::ZERO
            }
        })
        .map(drop)
    }

    /// Which pages were written to: a bit for each `page` bytes of the `length` from `iova` on, lowest bit first. Linux 6.7.
    ///
    /// * `keep`: whether they are told the next time too
    ///
    /// # Errors
    /// What the kernel says. [`Error::TooLong`] for a bitmap of more than 16 MiB; `EINVAL` unless `page` is a power of two.
    pub fn dirty(
        &self,
        table: u32,
        iova: u64,
        length: u64,
        page: u64,
        keep: bool,
    ) -> Result<Vec<u64>, Error> {
        let call = IOMMU_HWPT_GET_DIRTY_BITMAP;
        if !page.is_power_of_two() {
            return Err(call.failed(Errno::EINVAL));
        }
        let words = length.div_ceil(page).div_ceil(u64::BITS.into());
        let len = usize::try_from(words.saturating_mul(8)).unwrap_or(usize::MAX);
        if len > MOST_BITMAP {
            return Err(Error::TooLong {
                call: call.name(),
                len,
                most: MOST_BITMAP,
            });
        }
        let mut bitmap = Bitmap::new(len.div_ceil(size_of::<u64>()));
        let mut ask = iommu_hwpt_get_dirty_bitmap {
            size: size_of::<iommu_hwpt_get_dirty_bitmap>() as u32,
            hwpt_id: table,
            flags: if keep {
                IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR
            } else {
                0
            },
            iova,
            length,
            page_size: page,
            data: address(bitmap.pages()),
            ..Plain::ZERO
        };
        // SAFETY: this is iommufd, by `from_fd`; the argument points to a bitmap for that many pages, which lives on. The
        // kernel sets bits beyond it, for what else a page of the IOMMU's has, and stops where the memory that it has pinned
        // does: at the end of the last page of memory, to which all is the bitmap's.
        unsafe { call.make(self.file.as_fd(), &raw mut ask) }?;
        Ok(bitmap.into_words())
    }

    /// Makes a queue of page faults: its number, and where [`iommu_hwpt_pgfault`] are read and [`iommu_hwpt_page_response`]
    /// written. Linux 6.11.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn new_fault_queue(&self) -> Result<(u32, OwnedFd), Error> {
        let made = self.ask(IOMMU_FAULT_QUEUE_ALLOC, |size| iommu_fault_alloc {
            size,
            ..Plain::ZERO
        })?;
        let fd = i32::try_from(made.out_fault_fd)
            .map_err(|_| IOMMU_FAULT_QUEUE_ALLOC.failed(Errno::EBADF))?;
        // SAFETY: the kernel has just made it for this call, and nobody else knows it.
        Ok((made.out_fault_id, unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Has this process answer for pinned memory, in place of the one that mapped it. All of that has to be of files
    /// (`IOMMU_IOAS_MAP_FILE`). Linux 6.14.
    ///
    /// # Errors
    /// What the kernel says: `EINVAL` where memory is of addresses.
    pub fn change_process(&self) -> Result<(), Error> {
        self.ask(IOMMU_IOAS_CHANGE_PROCESS, |size| {
            iommu_ioas_change_process {
                size,
                ..Plain::ZERO
            }
        })
        .map(drop)
    }

    /// Makes a call whose argument begins with its size in bytes, and points nowhere.
    fn ask<T>(&self, call: Call<T>, argument: impl FnOnce(u32) -> T) -> Result<T, Error> {
        let mut argument = argument(size_of::<T>() as u32);
        // SAFETY: this is iommufd, by `from_fd`, and the kernel stays within the size that the argument begins with.
        unsafe { call.make(self.file.as_fd(), &raw mut argument) }?;
        Ok(argument)
    }
}

impl AsFd for Iommufd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Where items are, for the kernel to read and write them there.
fn address<T>(items: &mut [T]) -> u64 {
    items.as_mut_ptr().expose_provenance() as u64
}

//! The calls of VFIO and iommufd that are made here and not by `vfio-ioctls`, which loses their results, has no single
//! vectors, no access flags and no limits (`linux/vfio.h`, `linux/iommufd.h`).
//!
//! Each takes a structure that begins with its own size in bytes; the kernel reads and writes no more than that.
#![allow(
    unsafe_code,
    reason = "ioctls, each with an argument that begins with its size"
)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use vfio_bindings::bindings::vfio;
use vmm_sys_util::ioctl::{ioctl, ioctl_with_mut_ptr};
use vmm_sys_util::ioctl_io_nr;

ioctl_io_nr!(DEVICE_GET_INFO, TYPE, vfio::VFIO_BASE + 7);
ioctl_io_nr!(DEVICE_GET_REGION_INFO, TYPE, vfio::VFIO_BASE + 8);
ioctl_io_nr!(DEVICE_GET_IRQ_INFO, TYPE, vfio::VFIO_BASE + 9);
ioctl_io_nr!(DEVICE_SET_IRQS, TYPE, vfio::VFIO_BASE + 10);
ioctl_io_nr!(DEVICE_RESET, TYPE, vfio::VFIO_BASE + 11);
ioctl_io_nr!(IOMMU_GET_INFO, TYPE, vfio::VFIO_BASE + 12);
ioctl_io_nr!(IOMMU_MAP_DMA, TYPE, vfio::VFIO_BASE + 13);
ioctl_io_nr!(IOMMU_UNMAP_DMA, TYPE, vfio::VFIO_BASE + 14);

const TYPE: u32 = vfio::VFIO_TYPE as u32;

/// Bytes of a reply with capabilities that are read at most; the kernel's longest are a few hundred.
const REPLY: usize = 64 * 1024;

/// Makes the call `request`.
///
/// # Safety
/// `T` is the structure that the request takes, or longer; it begins with the number of its bytes as `u32`, and what it
/// points to is as the request has it.
unsafe fn call<T>(file: &File, request: u64, argument: &mut T) -> io::Result<u32> {
    // SAFETY: the kernel stays within the structure, which outlives the call; the rest is the caller's promise.
    let answer = unsafe { ioctl_with_mut_ptr(file, request, &raw mut *argument) };
    u32::try_from(answer).map_err(|_| io::Error::last_os_error())
}

/// Makes a call whose answer has any length: asks with `head` bytes, and again with as many as there are.
///
/// * `fields`: what follows the size
fn reply(file: &File, request: u64, head: usize, fields: [u32; 2]) -> io::Result<Vec<u8>> {
    let mut bytes = head;
    loop {
        let mut words = vec![0u32; bytes.div_ceil(size_of::<u32>())];
        let size = u32::try_from(size_of_val(&*words)).map_err(io::Error::other)?;
        let [first, second] = fields;
        for (to, from) in words.iter_mut().zip([size, first, second]) {
            *to = from;
        }
        // SAFETY: the words are as many bytes as the first `u32` says, which `head` makes enough for the request; none of
        // the requests that come here points anywhere.
        let answer = unsafe { ioctl_with_mut_ptr(file, request, words.as_mut_ptr()) };
        if answer < 0 {
            return Err(io::Error::last_os_error());
        }
        let all: Vec<u8> = words.into_iter().flat_map(u32::to_ne_bytes).collect();
        let wanted = all
            .first_chunk()
            .map_or(0, |size| u32::from_ne_bytes(*size)) as usize;
        if wanted <= all.len() {
            return Ok(all);
        }
        if wanted > REPLY {
            return Err(io::Error::other(format!(
                "the kernel's answer has {wanted} bytes, at most {REPLY} were expected"
            )));
        }
        bytes = wanted;
    }
}

/// `VFIO_DEVICE_GET_INFO`: a set of `VFIO_DEVICE_FLAGS_*`.
pub(crate) fn device_flags(device: &File) -> io::Result<u32> {
    let mut info = vfio::vfio_device_info {
        argsz: size_of::<vfio::vfio_device_info>() as u32,
        ..Default::default()
    };
    // SAFETY: the request's structure, with its size; it points nowhere.
    unsafe { call(device, DEVICE_GET_INFO(), &mut info) }?;
    Ok(info.flags)
}

/// `VFIO_DEVICE_GET_REGION_INFO`: a `vfio_region_info`, with its capabilities.
pub(crate) fn region_info(device: &File, index: u32) -> io::Result<Vec<u8>> {
    let head = size_of::<vfio::vfio_region_info>();
    reply(device, DEVICE_GET_REGION_INFO(), head, [0, index])
}

/// `VFIO_DEVICE_GET_IRQ_INFO`: a set of `VFIO_IRQ_INFO_*`, and how many there are.
pub(crate) fn irq_info(device: &File, index: u32) -> io::Result<(u32, u32)> {
    let mut info = vfio::vfio_irq_info {
        argsz: size_of::<vfio::vfio_irq_info>() as u32,
        index,
        ..Default::default()
    };
    // SAFETY: the request's structure, with its size; it points nowhere.
    unsafe { call(device, DEVICE_GET_IRQ_INFO(), &mut info) }?;
    Ok((info.flags, info.count))
}

/// `VFIO_DEVICE_SET_IRQS` without data.
///
/// * `action`: one of `VFIO_IRQ_SET_ACTION_*`
/// * `count`: 0 with the action TRIGGER switches the whole index off
pub(crate) fn set_irqs(device: &File, index: u32, action: u32, count: u32) -> io::Result<u32> {
    let flags = vfio::VFIO_IRQ_SET_DATA_NONE | action;
    set(device, &mut [0, flags, index, 0, count])
}

/// `VFIO_DEVICE_SET_IRQS` that has interrupts `start` and on written to these eventfds; `None`: to none.
///
/// Answers 0, or how many vectors there are to be had where that is fewer.
pub(crate) fn trigger(
    device: &File,
    index: u32,
    start: u32,
    to: &[Option<BorrowedFd<'_>>],
) -> io::Result<u32> {
    let flags = vfio::VFIO_IRQ_SET_DATA_EVENTFD | vfio::VFIO_IRQ_SET_ACTION_TRIGGER;
    let count = u32::try_from(to.len()).map_err(io::Error::other)?;
    let mut words = vec![0, flags, index, start, count];
    let number = |fd: &Option<BorrowedFd<'_>>| fd.map_or(-1, |fd| fd.as_raw_fd());
    words.extend(to.iter().map(number).map(RawFd::cast_unsigned));
    set(device, &mut words)
}

/// * `words`: a `vfio_irq_set` with its data; the size is put in here
fn set(device: &File, words: &mut [u32]) -> io::Result<u32> {
    let size = u32::try_from(size_of_val(words)).map_err(io::Error::other)?;
    if let Some(first) = words.first_mut() {
        *first = size;
    }
    // SAFETY: the words are as many bytes as the first one says, and eventfds are numbers.
    let answer = unsafe { ioctl_with_mut_ptr(device, DEVICE_SET_IRQS(), words.as_mut_ptr()) };
    u32::try_from(answer).map_err(|_| io::Error::last_os_error())
}

/// `VFIO_DEVICE_RESET`.
pub(crate) fn reset(device: &File) -> io::Result<()> {
    // SAFETY: the request takes nothing.
    match unsafe { ioctl(device, DEVICE_RESET()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `VFIO_IOMMU_GET_INFO`: a `vfio_iommu_type1_info`, with its capabilities.
pub(crate) fn iommu_info(container: &File) -> io::Result<Vec<u8>> {
    let head = size_of::<vfio::vfio_iommu_type1_info>();
    reply(container, IOMMU_GET_INFO(), head, [0, 0])
}

/// `VFIO_IOMMU_MAP_DMA`.
///
/// * `flags`: a set of `VFIO_DMA_MAP_FLAG_READ` and `_WRITE`, as the device sees it
///
/// # Safety
/// The `len` bytes from `address` on may be accessed by a device in this way, at any time until they are unmapped or the
/// container is closed for good.
pub(crate) unsafe fn map_dma(
    container: &File,
    iova: u64,
    len: u64,
    address: u64,
    flags: u32,
) -> io::Result<()> {
    let mut map = vfio::vfio_iommu_type1_dma_map {
        argsz: size_of::<vfio::vfio_iommu_type1_dma_map>() as u32,
        flags,
        vaddr: address,
        iova,
        size: len,
    };
    // SAFETY: the request's structure, with its size; where it points is the caller's promise.
    unsafe { call(container, IOMMU_MAP_DMA(), &mut map) }.map(drop)
}

/// `VFIO_IOMMU_UNMAP_DMA`: how many bytes were unmapped.
pub(crate) fn unmap_dma(container: &File, iova: u64, len: u64) -> io::Result<u64> {
    let mut unmap = vfio::vfio_iommu_type1_dma_unmap {
        argsz: size_of::<vfio::vfio_iommu_type1_dma_unmap>() as u32,
        iova,
        size: len,
        ..Default::default()
    };
    // SAFETY: the request's structure, with its size; without the flag for a bitmap it points nowhere.
    unsafe { call(container, IOMMU_UNMAP_DMA(), &mut unmap) }?;
    Ok(unmap.size)
}

#[cfg(feature = "iommufd")]
pub(crate) use iommufd::{ioas_map, ioas_ranges, ioas_unmap};

#[cfg(feature = "iommufd")]
mod iommufd {
    use std::fs::File;
    use std::io;

    use iommufd_bindings::iommufd as uapi;
    use vfio_bindings::bindings::vfio;
    use vmm_sys_util::ioctl_io_nr;

    use super::{TYPE, call};

    ioctl_io_nr!(IOAS_IOVA_RANGES, TYPE, uapi::IOMMUFD_CMD_IOAS_IOVA_RANGES);
    ioctl_io_nr!(IOAS_MAP, TYPE, uapi::IOMMUFD_CMD_IOAS_MAP);
    ioctl_io_nr!(IOAS_UNMAP, TYPE, uapi::IOMMUFD_CMD_IOAS_UNMAP);

    /// Ranges of a space that are asked for at most; the kernel has a handful.
    const RANGES: usize = 4096;

    /// What can be mapped in a space.
    pub(crate) struct IoasRanges {
        /// First and last of each.
        pub(crate) ranges: Vec<(u64, u64)>,
        /// What addresses are multiples of.
        pub(crate) granule: u64,
    }

    /// `IOMMU_IOAS_IOVA_RANGES`.
    pub(crate) fn ioas_ranges(iommufd: &File, ioas: u32) -> io::Result<IoasRanges> {
        let mut found = vec![uapi::iommu_iova_range { start: 0, last: 0 }; 16];
        loop {
            let mut ask = uapi::iommu_ioas_iova_ranges {
                size: size_of::<uapi::iommu_ioas_iova_ranges>() as u32,
                ioas_id: ioas,
                num_iovas: found.len() as u32,
                allowed_iovas: found.as_mut_ptr().expose_provenance() as u64,
                ..Default::default()
            };
            // SAFETY: the request's structure, with its size; it points to as many ranges as it says, which live on.
            let done = unsafe { call(iommufd, IOAS_IOVA_RANGES(), &mut ask) };
            let count = ask.num_iovas as usize;
            match done {
                Err(e) if e.raw_os_error() == Some(libc::EMSGSIZE) && count > found.len() => {
                    if count > RANGES {
                        return Err(e);
                    }
                    found.resize(count, uapi::iommu_iova_range { start: 0, last: 0 });
                }
                Err(e) => return Err(e),
                Ok(_) => {
                    return Ok(IoasRanges {
                        ranges: found
                            .iter()
                            .take(count)
                            .map(|r| (r.start, r.last))
                            .collect(),
                        granule: ask.out_iova_alignment,
                    });
                }
            }
        }
    }

    /// `IOMMU_IOAS_MAP`, at a given address.
    ///
    /// * `flags`: a set of `VFIO_DMA_MAP_FLAG_READ` and `_WRITE`, as the device sees it
    ///
    /// # Safety
    /// As for [`map_dma`](super::map_dma).
    pub(crate) unsafe fn ioas_map(
        iommufd: &File,
        ioas: u32,
        iova: u64,
        len: u64,
        address: u64,
        flags: u32,
    ) -> io::Result<()> {
        let mut how = uapi::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_FIXED_IOVA;
        if flags & vfio::VFIO_DMA_MAP_FLAG_READ != 0 {
            how |= uapi::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_READABLE;
        }
        if flags & vfio::VFIO_DMA_MAP_FLAG_WRITE != 0 {
            how |= uapi::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_WRITEABLE;
        }
        let mut map = uapi::iommu_ioas_map {
            size: size_of::<uapi::iommu_ioas_map>() as u32,
            flags: how,
            ioas_id: ioas,
            user_va: address,
            length: len,
            iova,
            ..Default::default()
        };
        // SAFETY: the request's structure, with its size; where it points is the caller's promise.
        unsafe { call(iommufd, IOAS_MAP(), &mut map) }.map(drop)
    }

    /// `IOMMU_IOAS_UNMAP`: how many bytes were unmapped.
    pub(crate) fn ioas_unmap(iommufd: &File, ioas: u32, iova: u64, len: u64) -> io::Result<u64> {
        let mut unmap = uapi::iommu_ioas_unmap {
            size: size_of::<uapi::iommu_ioas_unmap>() as u32,
            ioas_id: ioas,
            iova,
            length: len,
        };
        // SAFETY: the request's structure, with its size; it points nowhere.
        unsafe { call(iommufd, IOAS_UNMAP(), &mut unmap) }?;
        Ok(unmap.length)
    }
}

//! A device that a process plays: `/dev/vduse/NAME`.
#![allow(
    unsafe_code,
    reason = "ioctls on a descriptor that was asked whether it is such a device"
)]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;

use super::numbers::*;
use super::request::{QueueState, Request};
use crate::table::Plain;
use crate::{Call, Error, device};

const WHAT: &str = "VDUSE device";

/// A device that this process plays.
///
/// # Spec
/// `linux/vduse.h`.
#[derive(Debug)]
pub struct Device {
    file: File,
}

/// What the driver has made of a queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Queue {
    /// Its size.
    pub size: u32,
    /// Where its descriptors are, as the device sees it.
    pub descriptors: u64,
    /// Where the driver's area is.
    pub driver: u64,
    /// Where the device's area is.
    pub device: u64,
    /// Where it stands: for a split ring the first number is the next available index.
    pub state: vduse_vq_state_packed,
    /// Whether it is enabled.
    pub ready: bool,
}

/// Memory of the driver's: a file, to be mapped at `offset`.
#[derive(Debug)]
pub struct Window {
    /// The file.
    pub file: OwnedFd,
    /// Where in it, in bytes.
    pub offset: u64,
    /// The first address that it is behind.
    pub start: u64,
    /// The last one.
    pub last: u64,
    /// One of `VDUSE_ACCESS_*`.
    pub access: u8,
}

/// A region that memory can be put behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Region {
    /// The first address.
    pub start: u64,
    /// The last one.
    pub last: u64,
    /// A set of `VDUSE_IOVA_CAP_*`.
    pub capability: u64,
}

impl Device {
    /// Opens the device file, `/dev/vduse/NAME`.
    ///
    /// # Errors
    /// [`Error::Open`]; [`Error::Foreign`] if it is something else.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::from_fd(device::open(
            path.as_ref(),
            "`VDUSE_CREATE_DEV` of /dev/vduse/control",
        )?)
    }

    /// Takes over a device that somebody else has opened.
    ///
    /// # Errors
    /// [`Error::Foreign`] if it is something else, which is found out by asking for its features, and for a queue that no
    /// device has; or if it is a device that the kernel has given up on, which answers `EPERM` to everything.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, Error> {
        let file = device::character_device(fd, WHAT)?;
        let device = Self { file };
        // Of a call that nobody else has, some say EINVAL and not ENOTTY: one has to be answered before that counts.
        device::known(&device.file, WHAT, device.features())?;
        let known = match device.queue(u32::MAX) {
            Err(Error::Call {
                errno: Errno::EINVAL,
                ..
            }) => Ok(()),
            other => other.map(drop),
        };
        device::known(&device.file, WHAT, known)?;
        Ok(device)
    }

    /// Features that the driver has accepted.
    ///
    /// # Errors
    /// [`Error::Call`], as all below.
    pub fn features(&self) -> Result<u64, Error> {
        self.ask(VDUSE_DEV_GET_FEATURES, 0)
    }

    /// Changes the configuration space from `offset` on, in bytes.
    ///
    /// # Errors
    /// What the kernel says: `EINVAL` beyond its end. [`Error::TooLong`] for more than 4 GiB.
    pub fn set_config(&self, offset: u32, bytes: &[u8]) -> Result<(), Error> {
        let length = u32::try_from(bytes.len()).map_err(|_| Error::TooLong {
            call: VDUSE_DEV_SET_CONFIG.name(),
            len: bytes.len(),
            most: u32::MAX as usize,
        })?;
        let mut whole = offset.to_ne_bytes().to_vec();
        whole.extend(length.to_ne_bytes());
        whole.extend_from_slice(bytes);
        // SAFETY: this is a VDUSE device, by `from_fd`; the bytes follow, as many as it says.
        unsafe { VDUSE_DEV_SET_CONFIG.make(self.file.as_fd(), whole.as_mut_ptr().cast()) }.map(drop)
    }

    /// Tells the driver that the configuration has changed.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn interrupt_config(&self) -> Result<(), Error> {
        self.ask(VDUSE_DEV_INJECT_CONFIG_IRQ, ()).map(drop)
    }

    /// Says how large a queue may be; all of them, before the device gets onto the bus.
    ///
    /// * `group`: of version 1 of the interface, one of [`Setup::groups`](super::Setup::groups); 0 of version 0
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_up_queue(&self, queue: u32, max_size: u16, group: u32) -> Result<(), Error> {
        let config = vduse_vq_config {
            index: queue,
            max_size,
            group,
            ..Plain::ZERO
        };
        self.ask(VDUSE_VQ_SETUP, config).map(drop)
    }

    /// What the driver has made of a queue.
    ///
    /// # Errors
    /// What the kernel says: `EINVAL` for a queue that is not there.
    pub fn queue(&self, queue: u32) -> Result<Queue, Error> {
        let ask = vduse_vq_info {
            index: queue,
            ..Plain::ZERO
        };
        let info = self.ask(VDUSE_VQ_GET_INFO, ask)?;
        Ok(Queue {
            size: info.num,
            descriptors: info.desc_addr,
            driver: info.driver_addr,
            device: info.device_addr,
            state: info.packed,
            ready: info.ready != 0,
        })
    }

    /// Has this eventfd written to when the driver has made buffers available; `None`: none.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_queue_kick(&self, queue: u32, fd: Option<BorrowedFd<'_>>) -> Result<(), Error> {
        let event = vduse_vq_eventfd {
            index: queue,
            fd: fd.map_or(VDUSE_EVENTFD_DEASSIGN, |fd| fd.as_raw_fd()),
        };
        self.ask(VDUSE_VQ_SETUP_KICKFD, event).map(drop)
    }

    /// Tells the driver that buffers of a queue were used.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn interrupt(&self, queue: u32) -> Result<(), Error> {
        self.ask(VDUSE_VQ_INJECT_IRQ, queue).map(drop)
    }

    /// The first memory of the driver's behind `start` to `last`.
    ///
    /// The kernel makes the descriptor without `O_CLOEXEC`. It is set right after, so that only a program that another thread
    /// starts in between inherits it.
    ///
    /// # Errors
    /// What the kernel says: `EINVAL` where there is none.
    pub fn window(&self, start: u64, last: u64) -> Result<Window, Error> {
        let mut entry = vduse_iotlb_entry {
            start,
            last,
            ..Plain::ZERO
        };
        let file = self.descriptor(VDUSE_IOTLB_GET_FD, &mut entry)?;
        Ok(Window {
            file,
            offset: entry.offset,
            start: entry.start,
            last: entry.last,
            access: entry.perm,
        })
    }

    /// The same, in an address space. Linux 7.0, and version 1 of the interface.
    ///
    /// # Errors
    /// As for [`window`](Self::window).
    pub fn window_in(&self, asid: u32, start: u64, last: u64) -> Result<Window, Error> {
        let mut entry = vduse_iotlb_entry_v2 {
            start,
            last,
            asid,
            ..Plain::ZERO
        };
        let file = self.descriptor(VDUSE_IOTLB_GET_FD2, &mut entry)?;
        Ok(Window {
            file,
            offset: entry.offset,
            start: entry.start,
            last: entry.last,
            access: entry.perm,
        })
    }

    /// The first region behind `start` to `last`. Linux 6.0.
    ///
    /// * `asid`: of version 1 of the interface, one of [`Setup::address_spaces`](super::Setup::address_spaces); 0 of
    ///   version 0
    ///
    /// # Errors
    /// As for [`window`](Self::window).
    pub fn region(&self, asid: u32, start: u64, last: u64) -> Result<Region, Error> {
        let ask = vduse_iova_info {
            start,
            last,
            asid,
            ..Plain::ZERO
        };
        let info = self.ask(VDUSE_IOTLB_GET_INFO, ask)?;
        Ok(Region {
            start: info.start,
            last: info.last,
            capability: info.capability,
        })
    }

    /// Puts memory of this process behind a region, in place of the kernel's bounce buffers. Linux 6.0.
    ///
    /// * `asid`: of version 1 of the interface, one of [`Setup::address_spaces`](super::Setup::address_spaces); 0 of
    ///   version 0
    ///
    /// # Errors
    /// What the kernel says.
    ///
    /// # Safety
    /// `size` bytes from `uaddr` on are memory of this process, whose pages the kernel and the driver may read and write
    /// at any time until they are taken away again, or the device is closed for good.
    pub unsafe fn put_memory(
        &self,
        asid: u32,
        iova: u64,
        size: u64,
        uaddr: u64,
    ) -> Result<(), Error> {
        let memory = vduse_iova_umem {
            uaddr,
            iova,
            size,
            asid,
            ..Plain::ZERO
        };
        self.ask(VDUSE_IOTLB_REG_UMEM, memory).map(drop)
    }

    /// Takes it away again. Linux 6.0.
    ///
    /// # Errors
    /// What the kernel says: `ENOENT` if there is none.
    pub fn take_memory(&self, asid: u32, iova: u64, size: u64) -> Result<(), Error> {
        let memory = vduse_iova_umem {
            iova,
            size,
            asid,
            ..Plain::ZERO
        };
        self.ask(VDUSE_IOTLB_DEREG_UMEM, memory).map(drop)
    }

    /// Waits for what the kernel asks; the descriptor can be polled for it.
    ///
    /// # Errors
    /// [`Error::Call`]: `EAGAIN` if the descriptor does not block and nothing is asked; `EINTR` if a signal came first, and
    /// nothing is lost. [`Error::Unknown`] for a request that came later: the kernel gives up on the device when there is no
    /// answer.
    pub fn request(&self) -> Result<Request, Error> {
        let mut bytes = [0; Request::BYTES];
        let read = (&self.file).read(&mut bytes);
        device::transfer("read of a VDUSE request", bytes.len(), read)?;
        Request::decode(&bytes)
    }

    /// Answers a request: see [`Request::answer`].
    ///
    /// # Errors
    /// What the kernel says: `ENOENT` if it waits no longer.
    pub fn answer(
        &self,
        request: &Request,
        done: bool,
        state: Option<QueueState>,
    ) -> Result<(), Error> {
        let bytes = request.answer(done, state);
        let written = (&self.file).write(&bytes);
        device::transfer("write of a VDUSE response", bytes.len(), written)
    }

    /// Makes a call whose argument is as long as its type says. What points to memory is `unsafe` to ask for.
    fn ask<T>(&self, call: Call<T>, mut argument: T) -> Result<T, Error> {
        // SAFETY: this is a VDUSE device, by `from_fd`, and the argument is of the type that the number was derived from;
        // the one that points somewhere comes from `put_memory`, whose caller vouches for it.
        unsafe { call.make(self.file.as_fd(), &raw mut argument) }?;
        Ok(argument)
    }

    /// Makes a call that answers a descriptor.
    fn descriptor<T>(&self, call: Call<T>, argument: &mut T) -> Result<OwnedFd, Error> {
        // SAFETY: this is a VDUSE device, by `from_fd`, and the argument is of the type that the number was derived from; it
        // points nowhere.
        let fd = unsafe { call.make(self.file.as_fd(), argument) }?;
        let fd = i32::try_from(fd).map_err(|_| call.failed(Errno::EBADF))?;
        // SAFETY: the kernel has just made it for this call, and nobody else knows it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        device::close_on_exec(&fd)?;
        Ok(fd)
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

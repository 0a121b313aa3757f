//! Kicking a queue without a control call.
#![allow(unsafe_code, reason = "exports symbols by name")]

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;

use crate::boundary::done;
use crate::failure::Failure;
use crate::pointer::{GivenUp, given};

/// What kicks a queue: no lock, and for most devices no system call. It may be used by several threads, and outlive the
/// device, after which it does nothing.
pub struct Doorbell {
    doorbell: vdpa::core::Doorbell,
}

impl Doorbell {
    /// A handle for C.
    pub(crate) fn new(doorbell: vdpa::core::Doorbell) -> *mut Self {
        Box::into_raw(Box::new(Self { doorbell }))
    }
}

/// A page of a device that holds doorbells and nothing else, which a guest can be given.
#[repr(C)]
pub struct DoorbellPage {
    /// Where the page begins in the file, in bytes.
    pub offset: u64,
    /// The file to map, shared and for writing. It is the doorbell's: valid until that is freed. What is mapped stays, and
    /// with it the device's file: a guest that has the page rings on after the device was closed, and a device of VFIO is not
    /// free for others before the page is unmapped.
    pub fd: c_int,
    /// Where in the page the doorbell is, in bytes.
    pub at: u32,
}

/// Kicks the queue.
///
/// data: the index of the queue, or the notification data where VIRTIO_F_NOTIFICATION_DATA is negotiated
#[unsafe(no_mangle)]
pub extern "C" fn vdpa_doorbell_ring(doorbell: Option<&Doorbell>, data: u32) -> c_int {
    done(|| {
        given(doorbell, "doorbell")?.doorbell.ring(data);
        Ok(())
    })
}

/// The page of the doorbell's own. VDPA_ERR_UNSUPPORTED if it has none: then the guest's kicks are trapped, and ring it.
#[unsafe(no_mangle)]
pub extern "C" fn vdpa_doorbell_page(
    doorbell: Option<&Doorbell>,
    page: Option<&mut MaybeUninit<DoorbellPage>>,
) -> c_int {
    done(|| {
        let (doorbell, to) = (given(doorbell, "doorbell")?, given(page, "page")?);
        let page = doorbell.doorbell.page().ok_or(Failure::NoPage)?;
        to.write(DoorbellPage {
            offset: page.offset,
            fd: page.file.as_raw_fd(),
            at: page.at,
        });
        Ok(())
    })
}

/// The eventfd that kicks the queue when written, for ioeventfd and vhost. It is the doorbell's: valid until that is freed.
/// VDPA_ERR_UNSUPPORTED if it is none: then a kick_fd of vdpa_device_start_queue() serves.
#[unsafe(no_mangle)]
pub extern "C" fn vdpa_doorbell_eventfd(
    doorbell: Option<&Doorbell>,
    fd: Option<&mut MaybeUninit<c_int>>,
) -> c_int {
    done(|| {
        let (doorbell, to) = (given(doorbell, "doorbell")?, given(fd, "fd")?);
        let event = doorbell.doorbell.event_fd().ok_or(Failure::NoEventFd)?;
        to.write(event.as_raw_fd());
        Ok(())
    })
}

/// Frees a doorbell. The queue runs on.
#[unsafe(no_mangle)]
pub extern "C" fn vdpa_doorbell_free(doorbell: *mut Doorbell) -> c_int {
    done(|| {
        GivenUp::new(doorbell, "doorbell")?.free();
        Ok(())
    })
}

//! Descriptors that C lends.
#![allow(unsafe_code, reason = "duplicates descriptors that come as numbers")]

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use vdpa::core::{NotEventFd, check_eventfd};

use crate::failure::Failure;

/// The descriptor that stands for none.
const NONE: c_int = -1;
/// What the system says of a descriptor that is not open, `asm-generic/errno-base.h`.
pub(crate) const EBADF: i32 = 9;

/// An eventfd, duplicated, so that the caller's can be closed.
pub(crate) fn eventfd(fd: c_int, argument: &'static str) -> Result<Option<OwnedFd>, Failure> {
    if fd == NONE {
        return Ok(None);
    }
    let fail = |source: io::Error| Failure::Descriptor {
        argument,
        fd,
        source,
    };
    if fd < 0 {
        return Err(fail(io::Error::from_raw_os_error(EBADF)));
    }
    // SAFETY: it is no longer borrowed than it takes to duplicate it, which the system refuses if it is not open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    let own = borrowed.try_clone_to_owned().map_err(fail)?;
    // The duplicate is looked at, which nobody else closes.
    check_eventfd(own.as_fd()).map_err(|NotEventFd { what }| Failure::NotEventFd {
        argument,
        fd,
        what,
    })?;
    Ok(Some(own))
}

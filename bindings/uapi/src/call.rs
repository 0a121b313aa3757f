//! An ioctl with its name, its number and the type of its argument.
#![allow(
    unsafe_code,
    reason = "ioctl, whose argument is of the type that its number was derived from"
)]

use std::fmt;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::ioctl::ioctl_num_type;

use crate::Error;

/// An ioctl whose argument is a `T`.
///
/// The number is derived from the type, so that one cannot be right without the other, and a call with the argument of
/// another does not compile.
pub struct Call<T> {
    name: &'static str,
    number: ioctl_num_type,
    argument: PhantomData<fn(T)>,
}

impl<T> Clone for Call<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Call<T> {}

impl<T> fmt::Debug for Call<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {:#x}", self.name, self.number)
    }
}

impl<T> Call<T> {
    pub(crate) const fn new(name: &'static str, number: ioctl_num_type) -> Self {
        Self {
            name,
            number,
            argument: PhantomData,
        }
    }

    /// The kernel's name for it.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Its number, as `ioctl` takes it.
    pub const fn number(&self) -> ioctl_num_type {
        self.number
    }

    /// Makes the call: what the kernel answered, 0 for most.
    ///
    /// # Errors
    /// [`Error::Call`], with what the kernel said.
    ///
    /// # Safety
    /// `fd` is a descriptor of what this call belongs to: the same number may mean something else to another. `argument` is
    /// valid for reads and writes, and whatever follows it or is pointed at is as the call has it.
    pub unsafe fn make(&self, fd: BorrowedFd<'_>, argument: *mut T) -> Result<u32, Error> {
        // SAFETY: the kernel stays within the argument, and what goes with it is the caller's promise.
        let answer = unsafe { libc::ioctl(fd.as_raw_fd(), self.number, argument) };
        u32::try_from(answer).map_err(|_| self.failed(Errno::last()))
    }

    /// This call's error.
    pub(crate) fn failed(&self, errno: Errno) -> Error {
        Error::Call {
            call: self.name,
            errno,
        }
    }
}

//! Why a call failed: its code, and the facts of its message.
#![allow(unsafe_code, reason = "exports a symbol by name")]

use std::ffi::{CStr, c_char, c_int};
use std::io;

use vdpa::Error;
use vdpa::core::{Chain, ErrorKind};
use vdpa::mem::MemError;

use crate::fd::EBADF;

/// The call is not legal: an argument, or the state the device is in. The same call fails again.
pub const VDPA_ERR_MISUSE: c_int = -1;
/// The device or the driver broke the rules.
pub const VDPA_ERR_PEER: c_int = -2;
/// The device cannot do this.
pub const VDPA_ERR_UNSUPPORTED: c_int = -3;
/// Something else is under way, or did not end in time, and goes on. The same call may succeed later.
pub const VDPA_ERR_BUSY: c_int = -4;
/// The system refused; vdpa_last_os_error() has its errno.
pub const VDPA_ERR_IO: c_int = -5;
/// The device is gone. Nothing but closing it helps, but vdpa_device_unmap() gives memory back as before.
pub const VDPA_ERR_GONE: c_int = -6;
/// The call failed, and what it was to lend is held all the same: a mapping that was refused and that the device does not
/// let go of, or a log that counts while the one before is still written. It must not be freed before its release callback
/// ran, which may be never; without a callback it is never the caller's again.
pub const VDPA_ERR_KEPT: c_int = -7;
/// A bug of this library: it stopped half-way in the call. The handle stays, also where the call was to give it up, and the
/// device can be closed; nothing else about it is known.
pub const VDPA_ERR_PANIC: c_int = -8;
/// An error of a kind that this header has no name for.
pub const VDPA_ERR_OTHER: c_int = -9;
/// The device is broken: it does not answer as it must, or did not let go of memory in time. Nothing but closing it helps, and
/// nothing is given back before: what is mapped with a callback when that runs, which may be never; the rest never.
pub const VDPA_ERR_BROKEN: c_int = -10;

/// Why a call of the C interface failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// NULL where something has to be.
    #[error("argument `{argument}` is NULL")]
    Null {
        /// Which one.
        argument: &'static str,
    },
    /// A string that is not UTF-8.
    #[error(
        "argument `{argument}` is not UTF-8: byte {at} is wrong; strings are UTF-8, paths in them too"
    )]
    NotUtf8 {
        /// Which one.
        argument: &'static str,
        /// The first byte that is wrong, counted from 0.
        at: usize,
    },
    /// A number that is not legal.
    #[error("argument `{argument}` is {value:#x}: {legal}")]
    Value {
        /// Which one.
        argument: &'static str,
        /// The number.
        value: u64,
        /// What is legal.
        legal: &'static str,
    },
    /// A descriptor that cannot be duplicated.
    #[error("argument `{argument}` is descriptor {fd}, which cannot be had: -1 stands for none")]
    Descriptor {
        /// Which one.
        argument: &'static str,
        /// The descriptor.
        fd: c_int,
        /// What the system said.
        source: io::Error,
    },
    /// A descriptor of something else than an eventfd.
    #[error("argument `{argument}` is descriptor {fd}, which is {what} and no eventfd")]
    NotEventFd {
        /// Which one.
        argument: &'static str,
        /// The descriptor.
        fd: c_int,
        /// What it is.
        what: String,
    },
    /// A doorbell without a page of its own.
    #[error("the doorbell has no page of its own: have the guest's kicks trapped, and ring it")]
    NoPage,
    /// A doorbell that is no eventfd.
    #[error("the doorbell is no eventfd: start the queue with one as its kick_fd")]
    NoEventFd,
    /// A call from inside a callback.
    #[error("called from inside a callback of this library: hand it to another thread")]
    InsideCallback,
    /// The call failed, and memory that it was to lend is held all the same.
    #[error("{what}")]
    Kept {
        /// Which memory, and who holds it.
        what: &'static str,
        /// Why it could not be mapped.
        source: vdpa::Error,
    },
    /// A bug.
    #[error("a bug of libvdpa: {what}")]
    Panic {
        /// What the panic said.
        what: String,
    },
    /// What the device said.
    #[error(transparent)]
    Device(#[from] vdpa::Error),
}

impl Failure {
    /// What the call returns.
    pub fn code(&self) -> c_int {
        match self {
            Self::Null { .. }
            | Self::NotUtf8 { .. }
            | Self::Value { .. }
            | Self::NotEventFd { .. }
            | Self::InsideCallback => VDPA_ERR_MISUSE,
            Self::Descriptor { source, .. } => match source.raw_os_error() {
                Some(EBADF) => VDPA_ERR_MISUSE,
                _ => VDPA_ERR_IO,
            },
            Self::NoPage | Self::NoEventFd => VDPA_ERR_UNSUPPORTED,
            Self::Kept { .. } => VDPA_ERR_KEPT,
            Self::Panic { .. } => VDPA_ERR_PANIC,
            // Only what waits for the device to let go answers so, and the device is broken by it.
            Self::Device(Error::Broken | Error::Memory(MemError::Busy { .. })) => VDPA_ERR_BROKEN,
            Self::Device(error) => match error.kind() {
                ErrorKind::Misuse => VDPA_ERR_MISUSE,
                ErrorKind::PeerMisbehaved => VDPA_ERR_PEER,
                ErrorKind::Unsupported => VDPA_ERR_UNSUPPORTED,
                ErrorKind::Busy => VDPA_ERR_BUSY,
                ErrorKind::Io => VDPA_ERR_IO,
                ErrorKind::Gone => VDPA_ERR_GONE,
                _ => VDPA_ERR_OTHER,
            },
        }
    }

    /// The message, with what led to it.
    pub(crate) fn message(&self) -> String {
        Chain(self).to_string()
    }

    /// The errno beneath it; 0 where there is none.
    pub(crate) fn os_error(&self) -> c_int {
        let mut sources = self.sources();
        let os = sources.find_map(|source| source.downcast_ref::<io::Error>()?.raw_os_error());
        os.unwrap_or(0)
    }

    fn sources(&self) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
        std::iter::successors(std::error::Error::source(self), |error| error.source())
    }
}

/// The name of an error code, "VDPA_ERR_BUSY": a constant string. Of any other number: "0" or "unknown".
#[unsafe(no_mangle)]
pub extern "C" fn vdpa_error_name(code: c_int) -> *const c_char {
    name(code).as_ptr()
}

fn name(code: c_int) -> &'static CStr {
    match code {
        0 => c"0",
        VDPA_ERR_MISUSE => c"VDPA_ERR_MISUSE",
        VDPA_ERR_PEER => c"VDPA_ERR_PEER",
        VDPA_ERR_UNSUPPORTED => c"VDPA_ERR_UNSUPPORTED",
        VDPA_ERR_BUSY => c"VDPA_ERR_BUSY",
        VDPA_ERR_IO => c"VDPA_ERR_IO",
        VDPA_ERR_GONE => c"VDPA_ERR_GONE",
        VDPA_ERR_KEPT => c"VDPA_ERR_KEPT",
        VDPA_ERR_PANIC => c"VDPA_ERR_PANIC",
        VDPA_ERR_OTHER => c"VDPA_ERR_OTHER",
        VDPA_ERR_BROKEN => c"VDPA_ERR_BROKEN",
        _ => c"unknown",
    }
}

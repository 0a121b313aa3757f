//! Memory as the system takes it: an address and a length.
#![allow(
    unsafe_code,
    reason = "addresses of guest memory are handed to preadv, pwritev and io_uring, which take raw ones"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use vdpa_mem::Bytes;

/// How many pieces a system call takes (IOV_MAX of `limits.h`).
pub(super) const MOST: usize = 1024;

/// Bytes of zeroes that one [`Iov::zeroes`] can have.
pub(super) const ZEROES: u64 = 64 << 10;

/// What zeroes are written from. It is never written, and a static does not move.
static ZERO: [u8; ZEROES as usize] = [0; ZEROES as usize];

/// A piece of memory for the system to read or write. It keeps nothing alive: whoever hands it out holds the memory.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Iov(libc::iovec);

// SAFETY: an address and a length, which nobody follows but the system; a job moves with what keeps the memory mapped.
unsafe impl Send for Iov {}
// SAFETY: as above.
unsafe impl Sync for Iov {}

impl Iov {
    /// The piece that `bytes` are.
    pub(super) fn of(bytes: &Bytes<'_>) -> Self {
        // Memory shared with a peer has no Rust owner that the address would have to be derived from.
        let base = std::ptr::with_exposed_provenance_mut(bytes.hva().get() as usize);
        Self(libc::iovec {
            iov_base: base,
            iov_len: bytes.len(),
        })
    }

    /// Up to [`ZEROES`] zeroes, for the system to read.
    pub(super) fn zeroes(len: u64) -> Self {
        Self(libc::iovec {
            iov_base: ZERO.as_ptr().cast_mut().cast(),
            iov_len: len.min(ZEROES) as usize,
        })
    }

    /// Its length in bytes.
    pub(super) fn len(&self) -> usize {
        self.0.iov_len
    }

    /// Drops the first `n` bytes, at most all of them.
    pub(super) fn advance(&mut self, n: usize) {
        let n = n.min(self.0.iov_len);
        self.0.iov_base = self.0.iov_base.wrapping_byte_add(n);
        self.0.iov_len = self.0.iov_len.wrapping_sub(n);
    }

    /// As io_uring takes a list of them.
    pub(super) fn raw(list: &[Self]) -> *const libc::iovec {
        // The representation is that of an iovec.
        list.as_ptr().cast()
    }
}

/// The system's answer, or its error number negated, as io_uring has it.
fn answer(done: isize) -> i64 {
    match done {
        -1 => i64::from(
            io::Error::last_os_error()
                .raw_os_error()
                .unwrap_or(libc::EIO),
        )
        .wrapping_neg(),
        done => done as i64,
    }
}

/// Reads from `at` on into `into`. Answers with the bytes read, or the error number negated.
pub(super) fn preadv(file: BorrowedFd<'_>, into: &[Iov], at: u64) -> i64 {
    let count = into.len().min(MOST) as libc::c_int;
    // SAFETY: the memory of each piece is held mapped, and may be written, by the job that the pieces are of; the list
    // is borrowed for the call.
    answer(unsafe { libc::preadv(file.as_raw_fd(), Iov::raw(into), count, at as libc::off_t) })
}

/// Writes `from` from `at` on, and has it durable on return if `stable`. Answers as [`preadv`].
pub(super) fn pwritev(file: BorrowedFd<'_>, from: &[Iov], at: u64, stable: bool) -> i64 {
    let count = from.len().min(MOST) as libc::c_int;
    let flags = if stable { libc::RWF_DSYNC } else { 0 };
    // SAFETY: the memory of each piece is held mapped by the job that the pieces are of, or static; the list is
    // borrowed for the call.
    answer(unsafe {
        libc::pwritev2(
            file.as_raw_fd(),
            Iov::raw(from),
            count,
            at as libc::off_t,
            flags,
        )
    })
}

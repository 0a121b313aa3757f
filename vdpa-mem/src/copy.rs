//! Copies between shared memory and our own.
#![allow(
    unsafe_code,
    reason = "raw copies: the other side may be at the same bytes"
)]

#[cfg(any(miri, loom))]
use core::sync::atomic::{AtomicU8, Ordering};

/// Copies out of shared memory.
///
/// # Safety
/// Both pointers are valid for `len` bytes and do not overlap.
#[inline]
pub(crate) unsafe fn copy_out(from: *const u8, to: *mut u8, len: usize) {
    #[cfg(not(any(miri, loom)))]
    // SAFETY: as promised by the caller. The peer may write meanwhile: the copy then holds old or new bytes, and only
    // the copy is ever looked at.
    unsafe {
        copy(from, to, len);
    }
    // The same, said so that a checker of data races understands it.
    #[cfg(any(miri, loom))]
    for i in 0..len {
        let byte = from.wrapping_add(i).cast::<AtomicU8>();
        // SAFETY: inside the range, as promised by the caller.
        let byte = unsafe { &*byte };
        let byte = byte.load(Ordering::Relaxed);
        // SAFETY: inside the range, as promised by the caller.
        unsafe { to.wrapping_add(i).write(byte) };
    }
}

/// Copies into shared memory.
///
/// # Safety
/// Both pointers are valid for `len` bytes and do not overlap.
#[inline]
pub(crate) unsafe fn copy_in(from: *const u8, to: *mut u8, len: usize) {
    #[cfg(not(any(miri, loom)))]
    // SAFETY: as promised by the caller. A peer that reads meanwhile sees old or new bytes; the ring tells it when
    // they are its own.
    unsafe {
        copy(from, to, len);
    }
    #[cfg(any(miri, loom))]
    for i in 0..len {
        // SAFETY: inside the range, as promised by the caller.
        let value = unsafe { from.wrapping_add(i).read() };
        let byte = to.wrapping_add(i).cast::<AtomicU8>();
        // SAFETY: inside the range, as promised by the caller.
        let byte = unsafe { &*byte };
        byte.store(value, Ordering::Relaxed);
    }
}

/// Copies within shared memory.
///
/// # Safety
/// Both pointers are valid for `len` bytes, which may overlap.
#[inline]
pub(crate) unsafe fn copy_between(from: *const u8, to: *mut u8, len: usize) {
    #[cfg(not(any(miri, loom)))]
    // SAFETY: as promised by the caller. Peers may be at both sides: they, and whoever reads the copy, see old or new
    // bytes.
    unsafe {
        core::ptr::copy(from, to, len);
    }
    #[cfg(any(miri, loom))]
    for i in 0..len {
        let byte = from.wrapping_add(i).cast::<AtomicU8>();
        // SAFETY: inside the range, as promised by the caller.
        let byte = unsafe { &*byte };
        let value = byte.load(Ordering::Relaxed);
        let byte = to.wrapping_add(i).cast::<AtomicU8>();
        // SAFETY: inside the range, as promised by the caller.
        let byte = unsafe { &*byte };
        byte.store(value, Ordering::Relaxed);
    }
}

/// Copies; a header or a small packet without a call.
///
/// # Safety
/// Both pointers are valid for `len` bytes and do not overlap.
#[cfg(not(any(miri, loom)))]
#[inline(always)]
unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    match len {
        // SAFETY: as promised by the caller; `len` is in the range.
        8..=16 => unsafe { ends::<8>(from, to, len) },
        // SAFETY: as above.
        17..=32 => unsafe { ends::<16>(from, to, len) },
        // SAFETY: as above.
        33..=64 => unsafe { ends::<32>(from, to, len) },
        // SAFETY: as above.
        65..=128 => unsafe { ends::<64>(from, to, len) },
        // SAFETY: as promised by the caller.
        _ => unsafe { core::ptr::copy_nonoverlapping(from, to, len) },
    }
}

/// Copies `len` bytes, `N` to 2 `N`, as the first and the last `N`, which meet or overlap.
///
/// # Safety
/// Both pointers are valid for `len` bytes and do not overlap; `len` is at least `N` and at most 2 `N`.
#[cfg(not(any(miri, loom)))]
#[inline(always)]
unsafe fn ends<const N: usize>(from: *const u8, to: *mut u8, len: usize) {
    let (first, to_first) = (from.cast::<[u8; N]>(), to.cast::<[u8; N]>());
    let last = from.wrapping_add(len - N).cast::<[u8; N]>();
    let to_last = to.wrapping_add(len - N).cast::<[u8; N]>();
    // SAFETY: the first `N <= len` bytes.
    let head = unsafe { first.read() };
    // SAFETY: the last `N <= len` bytes.
    let tail = unsafe { last.read() };
    // SAFETY: the first `N <= len` bytes.
    unsafe { to_first.write(head) };
    // SAFETY: the last `N <= len` bytes.
    unsafe { to_last.write(tail) };
}

//! Barriers towards a device, which may be no part of what a processor's own barriers reach.
//!
//! What std's fences give is good for other processors. On x86 that is all there is: a device that shares memory is
//! coherent with them, loads and stores keep their order but for a store before a load, and stores to uncached registers
//! come after earlier stores to memory. On arm64 std's fences cover the inner shareable domain; a device is in the outer
//! one. Elsewhere the strongest fence there is has to do. The arm64 arm is not tested on hardware.
#![cfg_attr(
    target_arch = "aarch64",
    allow(
        unsafe_code,
        reason = "barrier instructions of the outer shareable domain have no other spelling"
    )
)]

use core::sync::atomic::{Ordering, fence};

/// Nothing later moves before an earlier load, as a device sees it.
#[inline(always)]
pub(crate) fn acquire() {
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a barrier changes nothing but order.
    unsafe {
        core::arch::asm!("dmb oshld", options(nostack, preserves_flags));
    }
    // Beside the instruction this is free, and tells the memory model.
    fence(Ordering::Acquire);
}

/// Who sees a later store to a register of a device finds what was stored to memory before.
#[inline(always)]
pub(crate) fn before_register() {
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        core::arch::asm!("dmb oshst", options(nostack, preserves_flags));
    }
    #[cfg(any(target_arch = "aarch64", target_arch = "x86_64", target_arch = "x86"))]
    fence(Ordering::Release);
    #[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64", target_arch = "x86")))]
    fence(Ordering::SeqCst);
}

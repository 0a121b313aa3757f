//! Barriers, towards processors and towards devices.
//!
//! What std's fences give holds against other processors, which is enough for a device that is one. A device on a bus may
//! be no part of what those reach (virtio 1.4 §6, ORDER_PLATFORM):
//!
//! * On x86 that makes no difference. A device that shares memory is coherent with the processors, loads and stores keep
//!   their order but for a store before a load, a full fence orders that too, and a store to an uncached register comes
//!   after earlier stores to memory.
//! * On arm64 std's fences cover the inner shareable domain, and a device is in the outer one, which includes that. These
//!   arms were compiled and read, and not run.
//! * On RISC-V std's fences order memory alone, and a register is I/O: between the two there is a fence of its own. These
//!   arms were compiled and read, and not run.
//! * Elsewhere the strongest fence there is has to do.
#![cfg_attr(
    any(
        target_arch = "aarch64",
        target_arch = "riscv32",
        target_arch = "riscv64"
    ),
    allow(
        unsafe_code,
        reason = "barrier instructions that reach devices have no other spelling"
    )
)]

use core::sync::atomic::{Ordering, fence};

/// Whom the fences of a ring have to hold against. Chosen when a queue is set up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Barriers {
    /// Other processors: a device in software, in this process or another.
    #[default]
    Processors,
    /// A device on a bus, and processors.
    Devices,
}

/// Whether the two differ here. Where they do not, the choice costs nothing.
const DIFFER: bool = !cfg!(any(target_arch = "x86_64", target_arch = "x86"));

impl Barriers {
    /// No later access moves before an earlier load.
    #[inline(always)]
    pub fn acquire(self) {
        if DIFFER && self == Self::Devices {
            outer::acquire();
        } else {
            fence(Ordering::Acquire);
        }
    }

    /// No earlier access moves after a later store.
    #[inline(always)]
    pub fn release(self) {
        if DIFFER && self == Self::Devices {
            outer::full();
        } else {
            fence(Ordering::Release);
        }
    }

    /// No access moves across, a later load before an earlier store included.
    #[inline(always)]
    pub fn full(self) {
        if DIFFER && self == Self::Devices {
            outer::full();
        } else {
            // On x86 mfence or a locked instruction, which are the same to memory that a device shares.
            fence(Ordering::SeqCst);
        }
    }
}

/// Comes between stores to memory and a store to a register: a device that sees the latter finds the former.
#[cfg(feature = "std")]
#[inline(always)]
pub(crate) fn before_register() {
    if DIFFER {
        outer::stores();
    } else {
        fence(Ordering::Release);
    }
}

/// Comes after a load of a register: what follows is not moved before it.
#[cfg(feature = "std")]
#[inline(always)]
pub(crate) fn after_register() {
    Barriers::Devices.acquire();
}

/// What reaches devices where std's fences do not.
#[cfg(target_arch = "aarch64")]
mod outer {
    use core::arch::asm;

    #[inline(always)]
    pub(super) fn acquire() {
        // SAFETY: a barrier changes nothing but order. Loads before, everything after.
        unsafe { asm!("dmb oshld", options(nostack, preserves_flags)) };
    }

    #[inline(always)]
    pub(super) fn full() {
        // SAFETY: as above. Everything before, everything after; there is none for loads and stores before stores alone.
        unsafe { asm!("dmb osh", options(nostack, preserves_flags)) };
    }

    #[cfg(feature = "std")]
    #[inline(always)]
    pub(super) fn stores() {
        // SAFETY: as above. Stores before, stores after.
        unsafe { asm!("dmb oshst", options(nostack, preserves_flags)) };
    }
}

/// What is ordered is named by its kind on both sides: input and output, which are accesses to registers, reads and writes.
#[cfg(any(target_arch = "riscv32", target_arch = "riscv64"))]
mod outer {
    use core::arch::asm;

    #[inline(always)]
    pub(super) fn acquire() {
        // SAFETY: a barrier changes nothing but order. Loads of either kind before, everything after.
        unsafe { asm!("fence ir, iorw", options(nostack, preserves_flags)) };
    }

    #[inline(always)]
    pub(super) fn full() {
        // SAFETY: as above. Everything before, everything after.
        unsafe { asm!("fence iorw, iorw", options(nostack, preserves_flags)) };
    }

    #[cfg(feature = "std")]
    #[inline(always)]
    pub(super) fn stores() {
        // SAFETY: as above. Stores of either kind before, stores of either kind after.
        unsafe { asm!("fence ow, ow", options(nostack, preserves_flags)) };
    }
}

#[cfg(not(any(
    target_arch = "aarch64",
    target_arch = "riscv32",
    target_arch = "riscv64"
)))]
mod outer {
    use super::{Ordering, fence};

    #[inline(always)]
    pub(super) fn acquire() {
        full();
    }

    #[inline(always)]
    pub(super) fn full() {
        fence(Ordering::SeqCst);
    }

    #[cfg(feature = "std")]
    #[inline(always)]
    pub(super) fn stores() {
        full();
    }
}

//! Descriptors as two words, and their flags.
//!
//! The meta word is always loaded and stored whole: one width per location, and a packed
//! descriptor's flags never appear without its length and id.

use vdpa_mem::Iova;

use crate::chain::Segment;

/// The chain goes on.
pub(crate) const NEXT: u16 = 1;
/// The device writes this buffer (in a used packed descriptor: has written).
pub(crate) const WRITE: u16 = 2;
/// The buffer is a table of descriptors.
pub(crate) const INDIRECT: u16 = 4;
/// Packed: the driver's lap.
pub(crate) const AVAIL: u16 = 1 << 7;
/// Packed: the device's lap.
pub(crate) const USED: u16 = 1 << 15;

/// The segment of an address word and a meta word; the length stands in the same place in both
/// formats.
#[inline(always)]
pub(crate) fn segment(addr: u64, meta: u64) -> Segment {
    Segment {
        addr: Iova::new(addr),
        len: meta as u32,
    }
}

/// Split: length, flags, next.
pub(crate) mod split {
    #[inline(always)]
    pub(crate) fn meta(len: u32, flags: u16, next: u16) -> u64 {
        u64::from(len) | (u64::from(flags) << 32) | (u64::from(next) << 48)
    }
    #[inline(always)]
    pub(crate) fn flags(meta: u64) -> u16 {
        (meta >> 32) as u16
    }
    #[inline(always)]
    pub(crate) fn next(meta: u64) -> u16 {
        (meta >> 48) as u16
    }
}

/// Packed: length, id, flags.
pub(crate) mod packed {
    use super::{AVAIL, USED};

    #[inline(always)]
    pub(crate) fn meta(len: u32, id: u16, flags: u16) -> u64 {
        u64::from(len) | (u64::from(id) << 32) | (u64::from(flags) << 48)
    }
    #[inline(always)]
    pub(crate) fn id(meta: u64) -> u16 {
        (meta >> 32) as u16
    }
    #[inline(always)]
    pub(crate) fn flags(meta: u64) -> u16 {
        (meta >> 48) as u16
    }
    /// Flags that make a descriptor available on the lap of `wrap` (`virtio 1.4 §2.8.1`).
    #[inline(always)]
    pub(crate) const fn avail(wrap: bool) -> u16 {
        if wrap { AVAIL } else { USED }
    }
    /// Flags that make a descriptor used on the lap of `wrap`.
    #[inline(always)]
    pub(crate) const fn used(wrap: bool) -> u16 {
        if wrap { AVAIL | USED } else { 0 }
    }
    /// Whether `flags` say "available" on the lap of `wrap`.
    #[inline(always)]
    pub(crate) const fn is_avail(flags: u16, wrap: bool) -> bool {
        flags & (AVAIL | USED) == avail(wrap)
    }
    /// Whether `flags` say "used" on the lap of `wrap`.
    #[inline(always)]
    pub(crate) const fn is_used(flags: u16, wrap: bool) -> bool {
        flags & (AVAIL | USED) == used(wrap)
    }
}

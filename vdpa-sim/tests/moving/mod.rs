//! A device in another process, and a driver of it in this one.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of it"
)]

pub mod line;
pub mod process;

use nix::sys::eventfd::{EfdFlags, EventFd};
use vdpa_core::{Features, bits};
use vdpa_ring::Format;

/// Bytes of the shared memory.
pub const MEMORY: u64 = 4 << 20;
/// Where the records of what is in flight are in it.
pub const RECORDS: u64 = 3 << 20;
/// Set in a process that serves a device.
pub const SERVE: &str = "VDPA_TEST_SERVE";

pub fn format(features: Features) -> Format {
    if features.contains(bits::RING_PACKED) {
        Format::Packed
    } else {
        Format::Split
    }
}

pub fn events() -> Vec<EventFd> {
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    (0..4)
        .map(|_| EventFd::from_value_and_flags(0, flags).unwrap())
        .collect()
}

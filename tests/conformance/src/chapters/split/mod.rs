//! Split ring.

pub(super) mod device;
mod driver;

use super::split;
use crate::statement::Check::Rings;
use crate::statement::{Entry, device, driver};

pub(crate) const STATEMENTS: &[Entry] = &[
    device(
        66,
        "2.7.4.1",
        "Any split into descriptors works (1-byte pieces, header cut in two)",
        Rings(split, device::takes_any_split),
    ),
    device(
        67,
        "2.7.5.1",
        "A device-readable buffer is never written",
        Rings(split, device::leaves_readable_buffers),
    ),
    device(
        68,
        "2.7.5.1",
        "The descriptor table is never written",
        Rings(split, device::leaves_the_table),
    ),
    device(
        69,
        "2.7.8.2",
        "used.len is set before used.idx",
        Rings(split, device::sets_len_before_idx),
    ),
    device(
        70,
        "2.7.8.2",
        "At least len bytes are written, from the first writable buffer on, before idx",
        Rings(split, device::writes_before_idx),
    ),
    driver(
        71,
        "2.7.4.2",
        "Writable descriptors come after readable ones",
        Rings(split, driver::puts_writable_last),
    ),
    driver(
        72,
        "2.7.5.2",
        "No loops; a chain is at most 2^32 bytes",
        Rings(split, driver::has_no_loops),
    ),
    driver(
        73,
        "2.7.6.1",
        "avail.idx never goes back",
        Rings(split, driver::never_goes_back),
    ),
    driver(
        74,
        "2.7.8.3",
        "Bytes beyond len are ignored",
        Rings(split, driver::ignores_what_is_beyond_len),
    ),
    driver(
        75,
        "2.7.13.3.1",
        "Barrier before idx",
        Rings(split, driver::shows_idx_last),
    ),
    driver(
        76,
        "2.7.13.4.1",
        "Barrier before reading flags / avail_event",
        Rings(split, driver::looks_after_showing),
    ),
    device(
        77,
        "2.7.6",
        "Indices wrap across 65535 -> 0, with and without EVENT_IDX",
        Rings(split, device::wraps),
    ),
];

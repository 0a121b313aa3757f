//! Split ring.

use crate::statement::Check::OutOfReach;
use crate::statement::{Entry, device, driver};

pub(crate) const STATEMENTS: &[Entry] = &[
    device(
        66,
        "2.7.4.1",
        "Any split into descriptors works (1-byte pieces, header cut in two)",
        OutOfReach("not written yet"),
    ),
    device(
        67,
        "2.7.5.1",
        "A device-readable buffer is never written",
        OutOfReach("not written yet"),
    ),
    device(
        68,
        "2.7.5.1",
        "The descriptor table is never written",
        OutOfReach("not written yet"),
    ),
    device(
        69,
        "2.7.8.2",
        "used.len is set before used.idx",
        OutOfReach("not written yet"),
    ),
    device(
        70,
        "2.7.8.2",
        "At least len bytes are written, from the first writable buffer on, before idx",
        OutOfReach("not written yet"),
    ),
    driver(
        71,
        "2.7.4.2",
        "Writable descriptors come after readable ones",
        OutOfReach("not written yet"),
    ),
    driver(
        72,
        "2.7.5.2",
        "No loops; a chain is at most 2^32 bytes",
        OutOfReach("not written yet"),
    ),
    driver(
        73,
        "2.7.6.1",
        "avail.idx never goes back",
        OutOfReach("not written yet"),
    ),
    driver(
        74,
        "2.7.8.3",
        "Bytes beyond len are ignored",
        OutOfReach("not written yet"),
    ),
    driver(
        75,
        "2.7.13.3.1",
        "Barrier before idx",
        OutOfReach("not written yet"),
    ),
    driver(
        76,
        "2.7.13.4.1",
        "Barrier before reading flags / avail_event",
        OutOfReach("not written yet"),
    ),
    device(
        77,
        "2.7.6",
        "Indices wrap across 65535 -> 0, with and without EVENT_IDX",
        OutOfReach("not written yet"),
    ),
];

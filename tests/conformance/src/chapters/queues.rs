//! Queue set-up (PCI).

use super::REGISTERS;
use crate::statement::Check::OutOfReach;
use crate::statement::{Entry, device, driver, format};

pub(crate) const STATEMENTS: &[Entry] = &[
    device(
        38,
        "4.1.4.3.1",
        "queue_size is 0 for an unavailable queue",
        OutOfReach("not written yet"),
    ),
    device(
        39,
        "4.1.4.3.1",
        "Split: queue_size is 0 or a power of two",
        OutOfReach("not written yet"),
    ),
    driver(
        40,
        "4.1.4.3.2",
        "Split: a size that is no power of two is refused",
        OutOfReach("not written yet"),
    ),
    driver(
        41,
        "4.1.4.3.2",
        "Packed: size 0 is refused; a size that is no power of two is allowed (2.8.10.1)",
        OutOfReach("not written yet"),
    ),
    driver(
        42,
        "4.1.4.3.2",
        "The fields are written before queue_enable",
        OutOfReach(REGISTERS),
    ),
    driver(
        43,
        "4.1.4.3.2",
        "0 is never written to queue_enable",
        OutOfReach(REGISTERS),
    ),
    driver(
        44,
        "4.1.4.3.2",
        "Read-only fields are never written",
        OutOfReach(REGISTERS),
    ),
    device(
        45,
        "4.1.4.3.1",
        "device_feature shows the selected 32-bit window",
        OutOfReach(REGISTERS),
    ),
    device(
        46,
        "4.1.4.3.1",
        "driver_feature reads back valid written bits",
        OutOfReach(REGISTERS),
    ),
    driver(
        47,
        "2.7.1",
        "Split area alignments 16/2/4",
        OutOfReach("not written yet"),
    ),
    driver(
        48,
        "2.8.11",
        "Packed area alignments 16/4/4",
        OutOfReach("not written yet"),
    ),
    format(
        49,
        "2.7",
        "Split size <= 32768",
        OutOfReach("not written yet"),
    ),
];

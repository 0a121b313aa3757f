//! Notification suppression (split).

use crate::statement::Check::OutOfReach;
use crate::statement::{Entry, device, driver, should};

pub(crate) const STATEMENTS: &[Entry] = &[
    device(
        84,
        "2.7.7.2",
        "Without EVENT_IDX used_event is ignored",
        OutOfReach("not written yet"),
    ),
    device(
        85,
        "2.7.7.2",
        "Without EVENT_IDX and flags 0 the device notifies",
        OutOfReach("not written yet"),
    ),
    device(
        86,
        "2.7.7.2",
        "With EVENT_IDX the low flag bit is ignored",
        OutOfReach("not written yet"),
    ),
    device(
        87,
        "2.7.7.2",
        "With EVENT_IDX it notifies when idx passes used_event",
        OutOfReach("not written yet"),
    ),
    should(
        88,
        "2.7.7.2",
        "Otherwise it stays silent",
        OutOfReach("not written yet"),
    ),
    device(
        89,
        "2.7.10.2",
        "used.flags is 0 or 1; 0 with EVENT_IDX",
        OutOfReach("not written yet"),
    ),
    device(
        90,
        "2.7.10.2",
        "Spurious kicks are tolerated",
        OutOfReach("not written yet"),
    ),
    driver(
        91,
        "2.7.7.1",
        "Spurious interrupts are tolerated",
        OutOfReach("not written yet"),
    ),
    driver(
        92,
        "2.7.10.1",
        "The driver kicks when flags are 0, or when idx passes avail_event",
        OutOfReach("not written yet"),
    ),
];

//! Queue reset (RING_RESET).

use super::REGISTERS;
use crate::statement::Check::OutOfReach;
use crate::statement::{Entry, device, driver};

pub(crate) const STATEMENTS: &[Entry] = &[
    device(
        50,
        "2.6.1.1.1",
        "No request runs and nothing is notified after queue reset",
        OutOfReach("not written yet"),
    ),
    device(
        51,
        "2.6.1.1.1",
        "Available and used state return to their defaults",
        OutOfReach("not written yet"),
    ),
    device(
        52,
        "4.1.4.3.1",
        "queue_reset reads 1 while ongoing",
        OutOfReach(REGISTERS),
    ),
    device(
        53,
        "4.1.4.3.1",
        "queue_reset and queue_enable both read 0 when it is complete",
        OutOfReach(REGISTERS),
    ),
    device(
        54,
        "4.1.4.3.1",
        "queue_reset is 0 after device reset and after re-enable",
        OutOfReach(REGISTERS),
    ),
    device(
        55,
        "2.6.1.2.1",
        "Re-enable honours a changed size and changed addresses",
        OutOfReach("not written yet"),
    ),
    driver(
        56,
        "2.6.1.1.2",
        "The driver side verifies that the reset completed",
        OutOfReach("not written yet"),
    ),
];

//! Suspend (1.4).

use crate::statement::Check::OutOfReach;
use crate::statement::{Entry, device, driver, should};

pub(crate) const STATEMENTS: &[Entry] = &[
    device(
        57,
        "3.4.2",
        "SUSPEND is ignored before initialisation is complete",
        OutOfReach("not written yet"),
    ),
    device(
        58,
        "3.4.2",
        "The device either suspends or sets NEEDS_RESET",
        OutOfReach("not written yet"),
    ),
    device(
        59,
        "3.4.2",
        "While suspended: no queue access, no notification, no config change",
        OutOfReach("not written yet"),
    ),
    device(
        60,
        "3.4.2",
        "A held-back config notification is sent on resume",
        OutOfReach("not written yet"),
    ),
    device(
        61,
        "3.4.2",
        "Writing DRIVER_OK resumes or sets NEEDS_RESET",
        OutOfReach("not written yet"),
    ),
    should(
        62,
        "3.4.2",
        "In-flight buffers are used and notified before SUSPEND shows",
        OutOfReach("not written yet"),
    ),
    driver(
        63,
        "3.4.1",
        "The driver side reads back SUSPEND=1 and DRIVER_OK=0",
        OutOfReach("not written yet"),
    ),
    driver(
        64,
        "3.4.1",
        "No new buffers, kicks or config writes while suspended",
        OutOfReach("not written yet"),
    ),
    driver(
        65,
        "3.4.1",
        "Resume waits for SUSPEND=0 and DRIVER_OK=1",
        OutOfReach("not written yet"),
    ),
];

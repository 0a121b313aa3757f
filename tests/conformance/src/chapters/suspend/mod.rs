//! Suspend (1.4).

mod behaviour;
mod driver_side;

use vdpa_core::Status;

use super::any;
use crate::statement::Check::{Once, Rings};
use crate::statement::{Entry, device, driver, should};

pub(crate) const STATEMENTS: &[Entry] = &[
    device(
        57,
        "3.4.2",
        "SUSPEND is ignored before initialisation is complete",
        Once(behaviour::ignored_before_live),
    ),
    device(
        58,
        "3.4.2",
        "The device either suspends or sets NEEDS_RESET",
        Rings(any, behaviour::suspends_or_needs_reset),
    ),
    device(
        59,
        "3.4.2",
        "While suspended: no queue access, no notification, no config change",
        Rings(any, behaviour::rests_while_suspended),
    ),
    device(
        60,
        "3.4.2",
        "A held-back config notification is sent on resume",
        Once(behaviour::config_is_told_on_resume),
    ),
    device(
        61,
        "3.4.2",
        "Writing DRIVER_OK resumes or sets NEEDS_RESET",
        Rings(any, behaviour::resumes_or_needs_reset),
    ),
    should(
        62,
        "3.4.2",
        "In-flight buffers are used and notified before SUSPEND shows",
        Rings(any, behaviour::drained_before_suspended),
    ),
    driver(
        63,
        "3.4.1",
        "The driver side reads back SUSPEND=1 and DRIVER_OK=0",
        Once(driver_side::suspend_is_read_back),
    ),
    driver(
        64,
        "3.4.1",
        "No new buffers, kicks or config writes while suspended",
        Once(driver_side::driver_rests),
    ),
    driver(
        65,
        "3.4.1",
        "Resume waits for SUSPEND=0 and DRIVER_OK=1",
        Once(driver_side::resume_is_waited_for),
    ),
];

const READY: Status = Status::ACKNOWLEDGE
    .union(Status::DRIVER)
    .union(Status::FEATURES_OK);
const LIVE: Status = READY.union(Status::DRIVER_OK);
const SUSPENDED: Status = READY.union(Status::SUSPEND);

//! PCI structures, doorbell, MSI-X.

use super::REGISTERS;
use crate::statement::Check::OutOfReach;
use crate::statement::{Entry, device, driver};

pub(crate) const STATEMENTS: &[Entry] = &[
    device(
        112,
        "4.1.4.3.1",
        "At least one common config, 4-aligned",
        OutOfReach(REGISTERS),
    ),
    device(
        113,
        "4.1.4.4.1",
        "At least one notify capability; offset 2-aligned",
        OutOfReach(REGISTERS),
    ),
    device(
        114,
        "4.1.4.4.1",
        "Multiplier 0 or an even power of two",
        OutOfReach(REGISTERS),
    ),
    device(
        115,
        "4.1.4.4.1",
        "length >= notify_off * multiplier + 2 for every queue",
        OutOfReach(REGISTERS),
    ),
    device(
        116,
        "4.1.4.4.1",
        "With NOTIFICATION_DATA: 4-aligned, multiplier a multiple of 4, +4 length",
        OutOfReach(REGISTERS),
    ),
    device(
        117,
        "4.1.4.5.1",
        "ISR is set before a config notification; reading clears it",
        OutOfReach(REGISTERS),
    ),
    device(
        118,
        "4.1.4.6",
        "Device config is present where the type has one, 4-aligned",
        OutOfReach(REGISTERS),
    ),
    device(
        119,
        "4.1.4.7.1",
        "A shared-memory region lies inside its BAR; ids are unique",
        OutOfReach(REGISTERS),
    ),
    device(
        120,
        "4.1.4.9.1",
        "The PCI_CFG window performs the access",
        OutOfReach(REGISTERS),
    ),
    driver(
        121,
        "4.1.4.1",
        "Unknown cfg_type or bar ignored; longer cap_len accepted; absurd lengths survived",
        OutOfReach(REGISTERS),
    ),
    device(
        122,
        "4.1.5.1.2.1",
        "Any event to any valid vector; a failure reads NO_VECTOR",
        OutOfReach(REGISTERS),
    ),
    device(
        123,
        "4.1.5.1.2.1",
        "Unmapping works and reads NO_VECTOR",
        OutOfReach(REGISTERS),
    ),
    device(
        124,
        "4.1.5.3.1",
        "A NO_VECTOR queue gives no interrupt",
        OutOfReach(REGISTERS),
    ),
    device(
        125,
        "4.1.5.4.1",
        "NO_VECTOR config gives none",
        OutOfReach(REGISTERS),
    ),
    driver(
        126,
        "4.1.5.1.2.2",
        "Every vector write is read back",
        OutOfReach(REGISTERS),
    ),
    driver(
        127,
        "4.1.5.1.2.2",
        "Any MSI-X table size works: one vector per queue, shared, or one for all",
        OutOfReach(REGISTERS),
    ),
    driver(
        128,
        "4.1.5.4.2",
        "One vector may mean config and queue",
        OutOfReach(REGISTERS),
    ),
    driver(
        129,
        "4.1.5.2.1",
        "16-bit kick; 32-bit with NOTIFICATION_DATA",
        OutOfReach(REGISTERS),
    ),
    driver(
        130,
        "4.1.5.2.1",
        "NOTIF_CONFIG_DATA's value is used when negotiated",
        OutOfReach(REGISTERS),
    ),
    driver(
        131,
        "2.8.16",
        "next_off / next_wrap name the next unpublished descriptor",
        OutOfReach(REGISTERS),
    ),
];

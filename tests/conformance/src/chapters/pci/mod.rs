//! PCI structures, doorbell, MSI-X.

mod capabilities;
mod interrupts;
mod kicks;
mod structures;
mod vectors;

use crate::statement::Check::{Once, Rings};
use crate::statement::{Entry, device, driver};

pub(crate) use interrupts::unmapped_by_reset;

pub(crate) const STATEMENTS: &[Entry] = &[
    device(
        112,
        "4.1.4.3.1",
        "At least one common config, 4-aligned",
        Once(structures::common),
    ),
    device(
        113,
        "4.1.4.4.1",
        "At least one notify capability; offset 2-aligned",
        Once(structures::notify),
    ),
    device(
        114,
        "4.1.4.4.1",
        "Multiplier 0 or an even power of two",
        Once(structures::multiplier),
    ),
    device(
        115,
        "4.1.4.4.1",
        "length >= notify_off * multiplier + 2 for every queue",
        Once(structures::notify_room),
    ),
    device(
        116,
        "4.1.4.4.1",
        "With NOTIFICATION_DATA: 4-aligned, multiplier a multiple of 4, +4 length",
        Once(structures::notify_data_room),
    ),
    device(
        117,
        "4.1.4.5.1",
        "ISR is set before a config notification; reading clears it",
        Once(interrupts::isr),
    ),
    device(
        118,
        "4.1.4.6",
        "Device config is present where the type has one, 4-aligned",
        Once(structures::device_config),
    ),
    device(
        119,
        "4.1.4.7.1",
        "A shared-memory region lies inside its BAR; ids are unique",
        Once(structures::shared_memory),
    ),
    device(
        120,
        "4.1.4.9.1",
        "The PCI_CFG window performs the access",
        Once(structures::window),
    ),
    driver(
        121,
        "4.1.4.1",
        "Unknown cfg_type or bar ignored; longer cap_len accepted; absurd lengths survived",
        Once(capabilities::misled),
    ),
    device(
        122,
        "4.1.5.1.2.1",
        "Any event to any valid vector; a failure reads NO_VECTOR",
        Once(interrupts::any_vector),
    ),
    device(
        123,
        "4.1.5.1.2.1",
        "Unmapping works and reads NO_VECTOR",
        Once(interrupts::unmapped),
    ),
    device(
        124,
        "4.1.5.3.1",
        "A NO_VECTOR queue gives no interrupt",
        Once(interrupts::silent_queue),
    ),
    device(
        125,
        "4.1.5.4.1",
        "NO_VECTOR config gives none",
        Once(interrupts::silent_config),
    ),
    driver(
        126,
        "4.1.5.1.2.2",
        "Every vector write is read back",
        Once(vectors::read_back),
    ),
    driver(
        127,
        "4.1.5.1.2.2",
        "Any MSI-X table size works: one vector per queue, shared, or one for all",
        Once(vectors::any_table),
    ),
    driver(
        128,
        "4.1.5.4.2",
        "One vector may mean config and queue",
        Once(vectors::shared),
    ),
    driver(
        129,
        "4.1.5.2.1",
        "16-bit kick; 32-bit with NOTIFICATION_DATA",
        Once(kicks::width),
    ),
    driver(
        130,
        "4.1.5.2.1",
        "NOTIF_CONFIG_DATA's value is used when negotiated",
        Once(kicks::config_data),
    ),
    driver(
        131,
        "2.8.16",
        "next_off / next_wrap name the next unpublished descriptor",
        Rings(plain_rings, kicks::next),
    ),
];

/// One ring of each format.
fn plain_rings(variant: &crate::Variant) -> bool {
    !variant.in_order && !variant.event_idx && !variant.indirect
}

//! Packed ring.

mod device;
mod driver;

use super::{indirect, packed};
use crate::Variant;
use crate::statement::Check::Rings;
use crate::statement::{Entry, device, driver, format};

pub(crate) const STATEMENTS: &[Entry] = &[
    format(
        93,
        "2.8.1",
        "Both wrap counters start at 1 and flip after the last slot",
        Rings(packed, device::flips_after_the_last_slot),
    ),
    device(
        94,
        "2.8.12",
        "The device starts in ring order",
        Rings(packed, device::starts_in_ring_order),
    ),
    device(
        95,
        "2.8.12",
        "It writes used descriptors in completion order",
        Rings(packed, device::uses_in_completion_order),
    ),
    device(
        96,
        "2.8.15",
        "It uses a descriptor only after the AVAIL change",
        Rings(packed, device::waits_for_avail),
    ),
    device(
        97,
        "2.8.15",
        "It does not touch a descriptor after setting USED",
        Rings(packed, device::leaves_used_descriptors),
    ),
    device(
        98,
        "2.8.15",
        "It never writes a readable buffer",
        Rings(packed, super::split::device::leaves_readable),
    ),
    device(
        99,
        "2.8.18",
        "Chained descriptors are used in order",
        Rings(packed, device::takes_chains_in_order),
    ),
    format(
        100,
        "2.8.6",
        "One used descriptor per list; skip by the list's length; the id is the last one's",
        Rings(packed, device::one_used_descriptor_a_list),
    ),
    format(
        101,
        "2.8.9",
        "In a multi-buffer request the first descriptor is marked used last",
        Rings(not_in_order, device::marks_the_first_of_a_packet_last),
    ),
    format(
        102,
        "2.8.14",
        "Event modes enable / disable / descriptor, with wrap",
        Rings(packed, device::obeys_event_modes),
    ),
    driver(
        103,
        "2.8.17",
        "A list is at most the queue size and room is checked first",
        Rings(packed, driver::checks_room_first),
    ),
    driver(
        104,
        "2.8.17",
        "The first descriptor is published last",
        Rings(packed, driver::shows_the_first_last),
    ),
    driver(
        105,
        "2.8.19",
        "Indirect entries carry only WRITE",
        Rings(packed_indirect, driver::tables_carry_write_alone),
    ),
    driver(
        106,
        "2.8.19",
        "No indirect inside a NEXT list",
        Rings(packed_indirect, driver::no_table_in_a_list),
    ),
    driver(
        107,
        "2.8.16",
        "A descriptor does not change once AVAIL is set",
        Rings(packed, driver::changes_nothing_available),
    ),
    driver(
        108,
        "2.8.21",
        "Barriers before the flags and before reading the event structure",
        Rings(packed, driver::looks_after_showing),
    ),
    device(
        109,
        "2.8.10.1",
        "An odd size (7) wraps correctly",
        Rings(packed, device::wraps_at_an_odd_size),
    ),
];

fn packed_indirect(variant: &Variant) -> bool {
    packed(variant) && indirect(variant)
}
// In order one used descriptor may stand for a whole packet.
fn not_in_order(variant: &Variant) -> bool {
    packed(variant) && !variant.in_order
}

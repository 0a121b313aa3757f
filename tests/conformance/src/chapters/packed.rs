//! Packed ring.

use crate::statement::Check::OutOfReach;
use crate::statement::{Entry, device, driver, format};

pub(crate) const STATEMENTS: &[Entry] = &[
    format(
        93,
        "2.8.1",
        "Both wrap counters start at 1 and flip after the last slot",
        OutOfReach("not written yet"),
    ),
    device(
        94,
        "2.8.12",
        "The device starts in ring order",
        OutOfReach("not written yet"),
    ),
    device(
        95,
        "2.8.12",
        "It writes used descriptors in completion order",
        OutOfReach("not written yet"),
    ),
    device(
        96,
        "2.8.15",
        "It uses a descriptor only after the AVAIL change",
        OutOfReach("not written yet"),
    ),
    device(
        97,
        "2.8.15",
        "It does not touch a descriptor after setting USED",
        OutOfReach("not written yet"),
    ),
    device(
        98,
        "2.8.15",
        "It never writes a readable buffer",
        OutOfReach("not written yet"),
    ),
    device(
        99,
        "2.8.18",
        "Chained descriptors are used in order",
        OutOfReach("not written yet"),
    ),
    format(
        100,
        "2.8.6",
        "One used descriptor per list; skip by the list's length; the id is the last one's",
        OutOfReach("not written yet"),
    ),
    format(
        101,
        "2.8.9",
        "In a multi-buffer request the first descriptor is marked used last",
        OutOfReach("not written yet"),
    ),
    format(
        102,
        "2.8.14",
        "Event modes enable / disable / descriptor, with wrap",
        OutOfReach("not written yet"),
    ),
    driver(
        103,
        "2.8.17",
        "A list is at most the queue size and room is checked first",
        OutOfReach("not written yet"),
    ),
    driver(
        104,
        "2.8.17",
        "The first descriptor is published last",
        OutOfReach("not written yet"),
    ),
    driver(
        105,
        "2.8.19",
        "Indirect entries carry only WRITE",
        OutOfReach("not written yet"),
    ),
    driver(
        106,
        "2.8.19",
        "No indirect inside a NEXT list",
        OutOfReach("not written yet"),
    ),
    driver(
        107,
        "2.8.16",
        "A descriptor does not change once AVAIL is set",
        OutOfReach("not written yet"),
    ),
    driver(
        108,
        "2.8.21",
        "Barriers before the flags and before reading the event structure",
        OutOfReach("not written yet"),
    ),
    device(
        109,
        "2.8.10.1",
        "An odd size (7) wraps correctly",
        OutOfReach("not written yet"),
    ),
];

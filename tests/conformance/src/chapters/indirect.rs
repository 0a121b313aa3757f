//! Indirect descriptors.

use crate::statement::Check::OutOfReach;
use crate::statement::{Entry, device, driver};

pub(crate) const STATEMENTS: &[Entry] = &[
    device(
        78,
        "2.7.5.3.2",
        "WRITE is ignored on the descriptor that points to a table",
        OutOfReach("not written yet"),
    ),
    device(
        79,
        "2.7.5.3.2",
        "Chained descriptors ending in one indirect are handled",
        OutOfReach("not written yet"),
    ),
    driver(
        80,
        "2.7.5.3.1",
        "Not without negotiation",
        OutOfReach("not written yet"),
    ),
    driver(81, "2.7.5.3.1", "Not nested", OutOfReach("not written yet")),
    driver(
        82,
        "2.7.5.3.1",
        "Not together with NEXT",
        OutOfReach("not written yet"),
    ),
    driver(
        83,
        "2.7.5.3.1",
        "A chain is at most the queue size",
        OutOfReach("not written yet"),
    ),
];

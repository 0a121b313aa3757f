//! Config space.

use super::REGISTERS;
use crate::statement::Check::OutOfReach;
use crate::statement::{Entry, device, driver};

pub(crate) const STATEMENTS: &[Entry] = &[
    device(
        31,
        "2.5.2",
        "A field of an offered feature is readable before FEATURES_OK",
        OutOfReach("not written yet"),
    ),
    device(
        32,
        "4.1.4.3.1",
        "The generation changes once a changed value can have been read",
        OutOfReach("not written yet"),
    ),
    driver(
        33,
        "2.5.1",
        "Multi-field and wider-than-32-bit reads loop on the generation",
        OutOfReach("not written yet"),
    ),
    driver(
        34,
        "2.5.1",
        "A field is read only if its feature is offered",
        OutOfReach("not written yet"),
    ),
    driver(
        35,
        "2.5.1",
        "A config space larger than known is accepted",
        OutOfReach("not written yet"),
    ),
    driver(
        36,
        "4.1.3.1",
        "Access in natural width (64 bits as two 32-bit)",
        OutOfReach(REGISTERS),
    ),
    device(
        37,
        "4.1.3.2",
        "The halves of a 64-bit field are independently accessible",
        OutOfReach(REGISTERS),
    ),
];

//! vDPA itself.

use crate::statement::Check::OutOfReach;
use crate::statement::{Entry, device};

pub(crate) const STATEMENTS: &[Entry] = &[
    device(
        206,
        "contract",
        "State get -> set -> run equals an uninterrupted run, split and packed",
        OutOfReach("not written yet"),
    ),
    device(
        207,
        "contract",
        "Suspend is idempotent; resume serves the kicks that came meanwhile",
        OutOfReach("not written yet"),
    ),
    device(
        208,
        "contract",
        "Overlapping map: an error; a batch of maps is all or none",
        OutOfReach("not written yet"),
    ),
    device(
        209,
        "contract",
        "Unmapping under a running device faults; memory is never touched afterwards",
        OutOfReach("not written yet"),
    ),
    device(
        210,
        "contract",
        "Reset keeps or clears maps exactly as the persistence capability declares",
        OutOfReach("not written yet"),
    ),
    device(
        211,
        "contract",
        "A second open is refused; reopening right after drop succeeds",
        OutOfReach("not written yet"),
    ),
];

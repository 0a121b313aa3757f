//! Other device types.

use crate::statement::Check::OutOfReach;
use crate::statement::{Entry, device};

pub(crate) const STATEMENTS: &[Entry] = &[
    device(
        203,
        "5.4.6.2",
        "rng: at least one byte",
        OutOfReach("not written yet"),
    ),
    device(
        204,
        "5.6.4.2",
        "scsi: sense 96 and cdb 32 at reset",
        OutOfReach("not written yet"),
    ),
    device(
        205,
        "5.10.6.1.2",
        "vsock: TX progresses while RX is full",
        OutOfReach("not written yet"),
    ),
];

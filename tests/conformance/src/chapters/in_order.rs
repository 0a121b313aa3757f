//! In-order.

use crate::statement::Check::OutOfReach;
use crate::statement::{Entry, device, format};

pub(crate) const STATEMENTS: &[Entry] = &[
    device(
        110,
        "6.2",
        "Buffers are used in the order made available",
        OutOfReach("not written yet"),
    ),
    format(
        111,
        "2.7.9, 2.8.8",
        "Batch completion: one entry stands for the batch",
        OutOfReach("not written yet"),
    ),
];

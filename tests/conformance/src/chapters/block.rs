//! Block device.

use crate::statement::Check::OutOfReach;
use crate::statement::{Entry, device, driver, format, should};

pub(crate) const STATEMENTS: &[Entry] = &[
    device(
        186,
        "5.2.5.2",
        "CONFIG_WCE implies FLUSH",
        OutOfReach("not written yet"),
    ),
    device(
        187,
        "5.2.5.2",
        "CONFIG_WCE without FLUSH: writeback 0",
        OutOfReach("not written yet"),
    ),
    device(
        188,
        "5.2.5.2",
        "Padding is zero",
        OutOfReach("not written yet"),
    ),
    device(
        189,
        "5.2.6.2",
        "RO offered: a write gives IOERR and the data stay",
        OutOfReach("not written yet"),
    ),
    device(
        190,
        "5.2.6.2",
        "Discard / write-zeroes / secure-erase with an unknown flag: UNSUPP",
        OutOfReach("not written yet"),
    ),
    device(
        191,
        "5.2.6.2",
        "Discard with unmap: UNSUPP",
        OutOfReach("not written yet"),
    ),
    device(
        192,
        "5.2.6.2",
        "After write-zeroes reads return zeroes, unmap or not",
        OutOfReach("not written yet"),
    ),
    device(
        193,
        "5.2.6.2",
        "Flush completes only after data are stable (persistent backend)",
        OutOfReach("not written yet"),
    ),
    device(
        194,
        "5.2.6.2",
        "Writethrough: stable at completion",
        OutOfReach("not written yet"),
    ),
    device(
        195,
        "5.2.6.2",
        "Zone commands: UNSUPP without ZONED",
        OutOfReach("not written yet"),
    ),
    device(
        196,
        "5.2.5.2",
        "Host-managed without ZONED: FEATURES_OK refused",
        OutOfReach("not written yet"),
    ),
    should(
        197,
        "5.2.6.2",
        "A capacity change raises a config notification",
        OutOfReach("not written yet"),
    ),
    device(
        198,
        "5.2.6.1",
        "Nothing past capacity (sector max, len + 1, length not a sector multiple, u64 wrap): IOERR, nothing copied",
        OutOfReach("not written yet"),
    ),
    driver(
        199,
        "5.2.6.1",
        "Lengths in multiples of 512; GET_ID 20",
        OutOfReach("not written yet"),
    ),
    driver(
        200,
        "5.2.6.1",
        "Segment counts within max_*_seg",
        OutOfReach("not written yet"),
    ),
    format(
        201,
        "5.2.4",
        "Discard limits and alignment in 512-byte units",
        OutOfReach("not written yet"),
    ),
    format(
        202,
        "5.2.6",
        "Unknown type: UNSUPP; status is the last writable byte",
        OutOfReach("not written yet"),
    ),
];

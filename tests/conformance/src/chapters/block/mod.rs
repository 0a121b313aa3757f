//! Block device.
//!
//! A disk's last eight blocks are written over, and parts of it are discarded: of a disk that is judged nothing is kept.

mod data;
mod disk;
mod extents;
mod space;
mod stable;

use super::any;
use crate::statement::Check::{Once, Rings};
use crate::statement::{Entry, device, driver, format, should};

pub(crate) const STATEMENTS: &[Entry] = &[
    device(
        186,
        "5.2.5.2",
        "CONFIG_WCE implies FLUSH",
        Once(space::offers_flush_with_config_wce),
    ),
    device(
        187,
        "5.2.5.2",
        "CONFIG_WCE without FLUSH: writeback 0",
        Once(space::begins_writethrough_without_flush),
    ),
    device(
        188,
        "5.2.5.2",
        "Padding is zero",
        Once(space::padding_is_zero),
    ),
    device(
        189,
        "5.2.6.2",
        "RO offered: a write gives IOERR and the data stay",
        Rings(any, data::refuses_writes_if_read_only),
    ),
    device(
        190,
        "5.2.6.2",
        "Discard / write-zeroes / secure-erase with an unknown flag: UNSUPP",
        Once(extents::refuses_unknown_flags),
    ),
    device(
        191,
        "5.2.6.2",
        "Discard with unmap: UNSUPP",
        Once(extents::refuses_to_unmap_a_discard),
    ),
    device(
        192,
        "5.2.6.2",
        "After write-zeroes reads return zeroes, unmap or not",
        Once(extents::zeroes_read_as_zeroes),
    ),
    device(
        193,
        "5.2.6.2",
        "Flush completes only after data are stable (persistent backend)",
        Once(stable::flushed_writes_stay),
    ),
    device(
        194,
        "5.2.6.2",
        "Writethrough: stable at completion",
        Once(stable::writethrough_stays),
    ),
    device(
        195,
        "5.2.6.2",
        "Zone commands: UNSUPP without ZONED",
        Once(data::knows_no_zones),
    ),
    device(
        196,
        "5.2.5.2",
        "Host-managed without ZONED: FEATURES_OK refused",
        Once(space::insists_on_zones),
    ),
    should(
        197,
        "5.2.6.2",
        "A capacity change raises a config notification",
        Once(space::tells_of_its_capacity),
    ),
    device(
        198,
        "5.2.6.1",
        "Nothing past capacity (sector max, len + 1, length not a sector multiple, u64 wrap): IOERR, nothing copied",
        Rings(any, data::reaches_past_no_end),
    ),
    driver(
        199,
        "5.2.6.1",
        "Lengths in multiples of 512; GET_ID 20",
        Once(data::survives_odd_lengths),
    ),
    driver(
        200,
        "5.2.6.1",
        "Segment counts within max_*_seg",
        Once(extents::takes_as_many_segments_as_it_says),
    ),
    format(
        201,
        "5.2.4",
        "Discard limits and alignment in 512-byte units",
        Once(extents::counts_discards_in_sectors),
    ),
    format(
        202,
        "5.2.6",
        "Unknown type: UNSUPP; status is the last writable byte",
        Rings(any, data::puts_the_status_last),
    ),
];

//! Features.

mod accepted;
mod offered;
mod sequence;

use super::any;
use crate::statement::Check::{Once, Rings};
use crate::statement::{Entry, device, driver, should};

pub(crate) const STATEMENTS: &[Entry] = &[
    device(
        13,
        "2.2.2",
        "A bit is never offered without the bits it depends on",
        Once(offered::with_what_it_needs),
    ),
    device(
        14,
        "2.2.2",
        "Undefined or reserved bits are never offered",
        Once(offered::known_bits_only),
    ),
    device(
        15,
        "2.2.2",
        "An unacceptable subset: FEATURES_OK does not stick",
        Once(offered::unacceptable_does_not_stick),
    ),
    should(
        16,
        "2.2.2",
        "A set accepted once is accepted again after reset",
        Rings(any, offered::accepted_again),
    ),
    device(17, "6.2", "VERSION_1 is offered", Once(offered::version_1)),
    device(
        18,
        "6.2",
        "SR_IOV is offered only with the PCI capability",
        Once(offered::sr_iov),
    ),
    driver(
        19,
        "2.2.1",
        "Only offered bits are accepted",
        Once(accepted::offered_only),
    ),
    driver(
        20,
        "2.2.1",
        "A bit is never accepted without its dependency",
        Once(accepted::with_what_it_needs),
    ),
    driver(
        21,
        "2.2.1",
        "An unknown offered bit does not fail the driver side",
        Once(accepted::unknown_bits_are_passed_over),
    ),
    driver(
        22,
        "6.1",
        "VERSION_1 is accepted when offered",
        Once(accepted::version_1),
    ),
    driver(
        23,
        "6.1",
        "ORDER_PLATFORM implies device-grade barriers",
        Rings(any, accepted::barriers),
    ),
    driver(
        24,
        "6.1",
        "Without ACCESS_PLATFORM only physical addresses are used",
        Once(accepted::mapped_addresses_only),
    ),
    driver(
        25,
        "3.1.1",
        "No new features after FEATURES_OK",
        Once(accepted::nothing_new_after_features_ok),
    ),
    driver(
        26,
        "3.1.1",
        "Order: reset, ACKNOWLEDGE, DRIVER, features, FEATURES_OK, read it back, set up, DRIVER_OK",
        Rings(any, sequence::in_order),
    ),
    driver(
        27,
        "3.1.1",
        "No config write during the feature step",
        Once(sequence::no_write_in_the_feature_step),
    ),
    driver(
        28,
        "3.1.1",
        "No available notification before DRIVER_OK",
        Rings(any, sequence::no_kick_before_driver_ok),
    ),
    driver(
        29,
        "3.1.1",
        "Initialisation stops after an irrecoverable step",
        Once(sequence::stops),
    ),
    device(
        30,
        "5.1.3.1",
        "The whole net dependency graph (GUEST_TSO*/UFO/USO -> GUEST_CSUM; HOST_* -> CSUM; ECN -> TSO; CTRL_RX, VLAN, ANNOUNCE, MQ, CTRL_MAC_ADDR, NOTF_COAL, VQ_NOTF_COAL, RSS -> CTRL_VQ; RSC_EXT -> HOST_TSO; HASH_TUNNEL -> CTRL_VQ and (RSS or HASH_REPORT); RSS_CONTEXT -> CTRL_VQ and RSS; UDP tunnel bits -> their base bits)",
        Once(offered::net_graph),
    ),
];

//! Features.

use crate::statement::Check::OutOfReach;
use crate::statement::{Entry, device, driver, should};

pub(crate) const STATEMENTS: &[Entry] = &[
    device(
        13,
        "2.2.2",
        "A bit is never offered without the bits it depends on",
        OutOfReach("not written yet"),
    ),
    device(
        14,
        "2.2.2",
        "Undefined or reserved bits are never offered",
        OutOfReach("not written yet"),
    ),
    device(
        15,
        "2.2.2",
        "An unacceptable subset: FEATURES_OK does not stick",
        OutOfReach("not written yet"),
    ),
    should(
        16,
        "2.2.2",
        "A set accepted once is accepted again after reset",
        OutOfReach("not written yet"),
    ),
    device(
        17,
        "6.2",
        "VERSION_1 is offered",
        OutOfReach("not written yet"),
    ),
    device(
        18,
        "6.2",
        "SR_IOV is offered only with the PCI capability",
        OutOfReach("not written yet"),
    ),
    driver(
        19,
        "2.2.1",
        "Only offered bits are accepted",
        OutOfReach("not written yet"),
    ),
    driver(
        20,
        "2.2.1",
        "A bit is never accepted without its dependency",
        OutOfReach("not written yet"),
    ),
    driver(
        21,
        "2.2.1",
        "An unknown offered bit does not fail the driver side",
        OutOfReach("not written yet"),
    ),
    driver(
        22,
        "6.1",
        "VERSION_1 is accepted when offered",
        OutOfReach("not written yet"),
    ),
    driver(
        23,
        "6.1",
        "ORDER_PLATFORM implies device-grade barriers",
        OutOfReach("not written yet"),
    ),
    driver(
        24,
        "6.1",
        "Without ACCESS_PLATFORM only physical addresses are used",
        OutOfReach("not written yet"),
    ),
    driver(
        25,
        "3.1.1",
        "No new features after FEATURES_OK",
        OutOfReach("not written yet"),
    ),
    driver(
        26,
        "3.1.1",
        "Order: reset, ACKNOWLEDGE, DRIVER, features, FEATURES_OK, read it back, set up, DRIVER_OK",
        OutOfReach("not written yet"),
    ),
    driver(
        27,
        "3.1.1",
        "No config write during the feature step",
        OutOfReach("not written yet"),
    ),
    driver(
        28,
        "3.1.1",
        "No available notification before DRIVER_OK",
        OutOfReach("not written yet"),
    ),
    driver(
        29,
        "3.1.1",
        "Initialisation stops after an irrecoverable step",
        OutOfReach("not written yet"),
    ),
    device(
        30,
        "5.1.3.1",
        "The whole net dependency graph (GUEST_TSO*/UFO/USO -> GUEST_CSUM; HOST_* -> CSUM; ECN -> TSO; CTRL_RX, VLAN, ANNOUNCE, MQ, CTRL_MAC_ADDR, NOTF_COAL, VQ_NOTF_COAL, RSS -> CTRL_VQ; RSC_EXT -> HOST_TSO; HASH_TUNNEL -> CTRL_VQ and (RSS or HASH_REPORT); RSS_CONTEXT -> CTRL_VQ and RSS; UDP tunnel bits -> their base bits)",
        OutOfReach("not written yet"),
    ),
];

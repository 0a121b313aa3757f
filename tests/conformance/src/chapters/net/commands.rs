//! Commands that are none.

use vdpa_core::bits::net;
use vdpa_core::{DeviceType, Features, Status};

use super::card::{Card, ERR, OK};
use super::offload::GUEST;
use crate::checked::ensure;
use crate::{Bench, Checked, Variant};

/// Commands that are none, with the feature that would be there for what they begin like.
const NONE_AT_ALL: [(&str, &[u8]); 22] = [
    ("an unknown class", &[0x7f, 0]),
    ("an unknown class with data", &[0xff, 0xff, 1, 2, 3, 4]),
    ("an unknown command of CTRL_RX", &[0, 99, 1]),
    ("an unknown command of CTRL_MAC", &[1, 9, 0, 0, 0, 0, 0, 0]),
    ("an unknown command of CTRL_VLAN", &[2, 7, 1, 0]),
    ("an unknown command of CTRL_ANNOUNCE", &[3, 7]),
    ("an unknown command of CTRL_MQ", &[4, 77, 1, 0]),
    (
        "an unknown command of CTRL_GUEST_OFFLOADS",
        &[5, 1, 0, 0, 0, 0, 0, 0, 0, 0],
    ),
    (
        "an unknown command of CTRL_NOTF_COAL",
        &[6, 44, 0, 0, 0, 0, 0, 0, 0, 0],
    ),
    ("PROMISC without data", &[0, 0]),
    ("ALLMULTI without data", &[0, 1]),
    ("MAC_TABLE_SET without data", &[1, 0]),
    ("MAC_TABLE_SET with half a number", &[1, 0, 1, 0]),
    (
        "MAC_TABLE_SET with more addresses than data",
        &[1, 0, 2, 0, 0, 0, 2, 0, 0, 0, 0, 1, 0, 0, 0, 0],
    ),
    (
        "MAC_TABLE_SET with four thousand million of them",
        &[1, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0],
    ),
    (
        "MAC_TABLE_SET without its second table",
        &[1, 0, 0, 0, 0, 0],
    ),
    ("MAC_ADDR_SET with five bytes", &[1, 1, 2, 0, 0, 0, 0]),
    ("VLAN_ADD with one byte", &[2, 0, 1]),
    ("VQ_PAIRS_SET with one byte", &[4, 0, 1]),
    (
        "RSS_CONFIG without a table",
        &[4, 1, 0, 0, 0, 0, 127, 0, 0, 0],
    ),
    (
        "HASH_CONFIG without its key",
        &[4, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 40],
    ),
    ("NOTF_COAL_RX_SET with half its data", &[6, 1, 0, 0, 0, 0]),
];

/// What is too short for a command to be in: a device may take it for a broken ring as well.
const SHORT: [(&str, &[u8]); 2] = [("nothing", &[]), ("a class alone", &[0])];

const ALL: Features = Features::of(&[
    net::CTRL_VQ,
    net::CTRL_RX,
    net::CTRL_RX_EXTRA,
    net::CTRL_VLAN,
    net::CTRL_MAC_ADDR,
    net::CTRL_GUEST_OFFLOADS,
    net::GUEST_ANNOUNCE,
    net::MQ,
    net::RSS,
    net::NOTF_COAL,
    net::VQ_NOTF_COAL,
]);

pub(super) fn no_command_comes_back_with_err(bench: &Bench<'_>, variant: Variant) -> Checked {
    bench.require_type(DeviceType::Net)?;
    bench.require(net::CTRL_VQ)?;
    let mut card = Card::open(bench, variant, ALL | GUEST, Features::NONE)?;
    for (what, command) in NONE_AT_ALL {
        card.refused(what, command)?;
    }
    known_good(&mut card)?;
    for (what, command) in SHORT {
        card = short(card, variant, what, command)?;
    }
    known_good(&mut card)?;
    // Without a byte for an answer there is none: the command comes back all the same, or it is a ring that is broken.
    for command in [[0xff, 0xff], [0, 0]] {
        let Some(control) = &mut card.control else {
            break;
        };
        let piece = card.rig.place(&command)?;
        control.add(&[piece], &[])?;
        control.publish();
        let mut broken = false;
        bench.until("an end of a command that cannot be answered", || {
            broken = card.rig.status()?.contains(Status::DEVICE_NEEDS_RESET);
            Ok(broken || !control.poll()?.is_empty())
        })?;
        if broken {
            let why = card.rig.needs_reset()?;
            ensure!(!why.is_empty(), "it needs a reset, and says not why");
            card = card.again(variant, ALL | GUEST, Features::NONE)?;
        }
    }
    known_good(&mut card)?;
    // No driver may send what was not negotiated, and the text does not say what comes of it: it ends, with one of the
    // two answers that there are.
    let mut card = card.again(variant, net::CTRL_VQ.into(), ALL.without(net::CTRL_VQ))?;
    let unknown: [(&str, &[u8]); 6] = [
        ("PROMISC without CTRL_RX", &[0, 0, 1]),
        ("ALLUNI without CTRL_RX_EXTRA", &[0, 2, 1]),
        ("VLAN_ADD without CTRL_VLAN", &[2, 0, 1, 0]),
        ("VQ_PAIRS_SET without MQ", &[4, 0, 1, 0]),
        (
            "GUEST_OFFLOADS_SET without its feature",
            &[5, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ),
        (
            "NOTF_COAL_RX_SET without NOTF_COAL",
            &[6, 1, 0, 0, 0, 0, 0, 0, 0, 0],
        ),
    ];
    for (what, command) in unknown {
        let ack = card.command(command)?;
        ensure!(
            ack == OK || ack == ERR,
            "{what} came back with {ack}, neither OK nor ERR"
        );
    }
    Ok(())
}

/// Sends less than a command: it is refused, or the device says why it needs a reset, and works after one.
fn short<'b>(
    mut card: Card<'b>,
    variant: Variant,
    what: &str,
    command: &[u8],
) -> Checked<Card<'b>> {
    let bench = card.bench();
    let Some(control) = &mut card.control else {
        return Ok(card);
    };
    let mut readable = Vec::new();
    if !command.is_empty() {
        readable.push(card.rig.place(command)?);
    }
    let answer = card.rig.alloc(1)?;
    control.add(&readable, &[answer])?;
    control.publish();
    let mut broken = false;
    bench.until(&format!("an end of {what}"), || {
        broken = card.rig.status()?.contains(Status::DEVICE_NEEDS_RESET);
        Ok(broken || !control.poll()?.is_empty())
    })?;
    if broken {
        let why = card.rig.needs_reset()?;
        ensure!(!why.is_empty(), "it needs a reset, and says not why");
        return card.again(variant, ALL | GUEST, Features::NONE);
    }
    let ack = card.rig.read(answer);
    ensure!(ack == [ERR], "{what} came back with {ack:?}, not with ERR");
    Ok(card)
}

/// A command that any device carries out that has the feature for it.
fn known_good(card: &mut Card<'_>) -> Checked {
    let good: [(_, &[u8]); 4] = [
        (net::CTRL_RX, &[0, 0, 1]),
        (net::CTRL_VLAN, &[2, 0, 1, 0]),
        (net::MQ, &[4, 0, 1, 0]),
        (net::CTRL_MAC_ADDR, &[1, 1, 2, 0, 0, 0, 0, 7]),
    ];
    for (bit, command) in good {
        if card.has(bit) {
            return card.order("a good command after bad ones", command);
        }
    }
    Ok(())
}

//! Commands about notifications and statistics, and those that are none.

use vdpa_core::bits::{self, net};
use vdpa_core::{DeviceType, Features, QueueIndex};

use super::card::{Card, ERR, OK, pairs};
use super::offload::{GUEST, HOST};
use super::packet::{Header, frame};
use crate::checked::{ensure, skip};
use crate::rig::CANARY;
use crate::{Bench, Checked, Variant};

const COAL_TX_SET: [u8; 2] = [6, 0];
const COAL_RX_SET: [u8; 2] = [6, 1];
const COAL_VQ_SET: [u8; 2] = [6, 2];
const COAL_VQ_GET: [u8; 2] = [6, 3];
const STATS_QUERY: [u8; 2] = [8, 0];
const STATS_GET: [u8; 2] = [8, 1];

const COAL: Features = Features::of(&[net::CTRL_VQ, net::NOTF_COAL, net::VQ_NOTF_COAL]);

/// What a queue's parameters are: packets, microseconds.
type Params = [u32; 2];

fn bytes(params: Params) -> Vec<u8> {
    params.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// `vq_index`, and a reserved word, which is ignored.
fn queue(q: u16) -> [u8; 4] {
    let [low, high] = q.to_le_bytes();
    [low, high, 0xee, 0x77]
}

fn vq_set(q: u16, params: Params) -> Vec<u8> {
    [&COAL_VQ_SET[..], &queue(q), &bytes(params)].concat()
}

fn vq_get(q: u16) -> Vec<u8> {
    [&COAL_VQ_GET[..], &queue(q)].concat()
}

/// The parameters of a queue as the device tells them.
fn params(card: &mut Card<'_>, q: u16) -> Checked<Params> {
    let said = card.ask(&vq_get(q), 9)?;
    let ack = said.last().copied().unwrap_or(ERR);
    ensure!(ack == OK, "VQ_GET of queue {q} came back with {ack}");
    let word = |at: usize| {
        let four = said.get(at..at + 4).unwrap_or_default();
        u32::from_le_bytes(four.try_into().unwrap_or_default())
    };
    Ok([word(0), word(4)])
}

fn has(card: &mut Card<'_>, q: u16, wanted: Params, when: &str) -> Checked {
    let said = params(card, q)?;
    ensure!(
        said == wanted,
        "{when} queue {q} has {said:?} packets and microseconds, not {wanted:?}"
    );
    Ok(())
}

fn none_of(card: &mut Card<'_>, q: u16, why: &str) -> Checked {
    card.refused(&format!("VQ_SET of {why}, {q},"), &vq_set(q, [3, 9]))?;
    let said = card.ask(&vq_get(q), 9)?;
    let ack = said.last().copied().unwrap_or(OK);
    ensure!(
        ack == ERR,
        "VQ_GET of {why}, {q}, came back with {ack}, not with ERR"
    );
    Ok(())
}

pub(super) fn coalescing_by_queue(bench: &Bench<'_>, variant: Variant) -> Checked {
    bench.require_type(DeviceType::Net)?;
    bench.require(net::VQ_NOTF_COAL)?;
    let more = COAL | net::MQ;
    let mut card = Card::open(bench, variant, more, Features::NONE)?;
    for q in [0, 1] {
        has(&mut card, q, [0, 0], "at first")?;
    }
    let last = 2 * pairs(&card.rig)?;
    none_of(&mut card, last, "the control queue")?;
    none_of(&mut card, last + 1, "a queue that is not there")?;
    none_of(&mut card, u16::MAX, "a queue that is not there")?;
    if last > 2 {
        none_of(&mut card, 2, "a queue that does not run")?;
        none_of(&mut card, 3, "a queue that does not run")?;
    }
    // A refusal changes nothing, and the last command counts.
    has(&mut card, 0, [0, 0], "after refusals")?;
    card.order("VQ_SET", &vq_set(0, [7, 100]))?;
    card.order("VQ_SET", &vq_set(1, [8, 200]))?;
    has(&mut card, 0, [7, 100], "after VQ_SET")?;
    has(&mut card, 1, [8, 200], "after VQ_SET")?;
    let all = card.has(net::NOTF_COAL);
    if all {
        card.order("TX_SET", &[&COAL_TX_SET[..], &bytes([5, 50])].concat())?;
        has(&mut card, 0, [7, 100], "after TX_SET")?;
        has(&mut card, 1, [5, 50], "after TX_SET")?;
        card.order("RX_SET", &[&COAL_RX_SET[..], &bytes([4, 40])].concat())?;
        has(&mut card, 0, [4, 40], "after RX_SET")?;
        card.order("VQ_SET", &vq_set(1, [9, 90]))?;
    }
    if card.has(bits::RING_RESET) {
        card.rig
            .device
            .reset_queue(QueueIndex::new(1), bench.by())?;
        none_of(&mut card, 1, "a queue that was reset")?;
        card.tx = card.rig.queue(1, 64)?;
        let wanted = if all { [5, 50] } else { [0, 0] };
        has(&mut card, 1, wanted, "enabled again")?;
    }
    card.send(Header::default(), &frame(0, 60))?;
    let mut card = card.again(variant, more, Features::NONE)?;
    for q in [0, 1] {
        has(&mut card, q, [0, 0], "after a reset")?;
    }
    Ok(())
}

/// A type of statistics: its bit, whose it is, how many counters, and with which of these features there is it.
struct Type {
    bit: u8,
    of: Side,
    counters: usize,
    needs: Features,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    Control,
    Receive,
    Transmit,
}

const fn kind(bit: u8, of: Side, counters: usize, needs: Features) -> Type {
    Type {
        bit,
        of,
        counters,
        needs,
    }
}

const ANY: Features = Features::NONE;

/// All types, virtio 1.4 §5.1.9.5.11.3 to §5.1.9.5.11.11.
const TYPES: [Type; 9] = [
    kind(32, Side::Control, 2, ANY),
    kind(0, Side::Receive, 6, ANY),
    kind(1, Side::Receive, 4, Features::of(&[net::GUEST_CSUM])),
    kind(
        2,
        Side::Receive,
        4,
        Features::of(&[net::GUEST_TSO4, net::GUEST_TSO6]),
    ),
    kind(3, Side::Receive, 2, ANY),
    kind(16, Side::Transmit, 6, ANY),
    kind(17, Side::Transmit, 2, Features::of(&[net::CSUM])),
    kind(
        18,
        Side::Transmit,
        6,
        Features::of(&[net::HOST_TSO4, net::HOST_TSO6, net::HOST_USO]),
    ),
    kind(19, Side::Transmit, 2, ANY),
];

fn entry(q: u16, types: u64) -> Vec<u8> {
    [&q.to_le_bytes()[..], &[0; 6], &types.to_le_bytes()].concat()
}

/// Bytes of the header of a reply.
const REPLY: usize = 8;
/// Bytes that there are for an answer: more than any has.
const ROOM: u32 = 512;

fn get(card: &mut Card<'_>, entries: &[Vec<u8>], room: u32) -> Checked<Vec<u8>> {
    card.ask(&[&STATS_GET[..], &entries.concat()].concat(), room)
}

/// How many bytes of an answer were written: all behind them are canaries.
fn written(said: &[u8]) -> usize {
    let tail = said.iter().rev().take_while(|byte| **byte == CANARY);
    said.len() - tail.count()
}

pub(super) fn statistics(bench: &Bench<'_>, variant: Variant) -> Checked {
    bench.require_type(DeviceType::Net)?;
    bench.require(net::DEVICE_STATS)?;
    let more = HOST | GUEST | net::DEVICE_STATS | net::SPEED_DUPLEX;
    let mut card = Card::open(bench, variant, more, Features::NONE)?;
    card.send(Header::default(), &frame(0, 60))?;
    let said = card.ask(&STATS_QUERY, 16)?;
    let (ack, supported) = match said.split_first_chunk::<9>() {
        Some(([ack, types @ ..], _)) => (*ack, u64::from_le_bytes(*types)),
        None => (ERR, 0),
    };
    ensure!(ack == OK, "STATS_QUERY came back with {ack}");
    let len = written(&said);
    ensure!(
        len <= 9,
        "STATS_QUERY came back with {len} bytes, not with 9"
    );

    let last = 2 * pairs(&card.rig)?;
    let number = |side| match side {
        Side::Receive => 0,
        Side::Transmit => 1,
        Side::Control => last,
    };
    let negotiated = card.rig.device.negotiated();
    let mut all = Vec::new();
    for known in &TYPES {
        let mask = 1 << known.bit;
        let there = known.needs == ANY || negotiated.intersects(known.needs);
        if supported & mask == 0 || !there {
            continue;
        }
        let q = number(known.of);
        let said = get(&mut card, &[entry(q, mask)], ROOM)?;
        reply(&said, known, q)?;
        all.push((entry(q, mask), known.counters));
    }
    if all.is_empty() {
        skip!("it supports no type of statistics");
    }
    // Several at once are one behind the other, and of those for which there is no room as much is there as fits.
    let entries: Vec<Vec<u8>> = all.iter().map(|(entry, _)| entry.clone()).collect();
    let sizes = all.iter().map(|(_, counters)| REPLY + 8 * counters);
    let size = 1 + sizes.sum::<usize>();
    let said = get(&mut card, &entries, ROOM)?;
    ensure!(
        said.first() == Some(&OK) && written(&said) <= size,
        "STATS_GET of {} types came back with {:?} and {} bytes, where {size} are right",
        entries.len(),
        said.first(),
        written(&said)
    );

    let good = entries.first().cloned().unwrap_or_default();
    let wrong = [
        ("a queue that is not there", entry(last + 1, 1)),
        ("the last number of a queue", entry(u16::MAX, 1)),
        ("an unknown type", entry(0, 1 << 63)),
        ("a type with an unknown one", entry(0, 1 | 1 << 40)),
        (
            "a transmit queue's type of a receive queue",
            entry(0, 1 << 16),
        ),
        ("a receive queue's type of a transmit queue", entry(1, 1)),
        ("a data queue's type of the control queue", entry(last, 1)),
    ];
    for (what, wrong) in wrong {
        for (entries, place) in [
            (vec![wrong.clone()], "alone"),
            (vec![good.clone(), wrong.clone()], "at the end"),
            (vec![wrong.clone(), good.clone()], "at the beginning"),
        ] {
            let said = get(&mut card, &entries, ROOM)?;
            ensure!(
                said.first() == Some(&ERR),
                "STATS_GET with {what} {place} came back with {:?}, not with ERR",
                said.first()
            );
        }
    }
    // A type whose feature was not negotiated.
    let mut card = card.again(variant, net::DEVICE_STATS.into(), HOST | GUEST)?;
    let last = 2 * pairs(&card.rig)?;
    for known in TYPES.iter().filter(|known| known.needs != ANY) {
        let q = if known.of == Side::Receive { 0 } else { 1 };
        let said = get(&mut card, &[entry(q, 1 << known.bit)], ROOM)?;
        ensure!(
            said.first() == Some(&ERR),
            "STATS_GET of type {}, whose feature was not negotiated, came back with {:?}",
            known.bit,
            said.first()
        );
    }
    if supported & 1 << 32 != 0 {
        let said = get(&mut card, &[entry(last, 1 << 32)], ROOM)?;
        ensure!(
            said.first() == Some(&OK),
            "the control queue's came back with {:?}",
            said.first()
        );
    }
    Ok(())
}

/// The answer with one reply: the ack, its header, and its counters; and nothing behind it.
fn reply(said: &[u8], known: &Type, q: u16) -> Checked {
    let Some((&[ack, kind, _, a, b, _, _, c, d], _)) = said.split_first_chunk::<9>() else {
        skip!("no room for an answer");
    };
    let (bit, size) = (known.bit, REPLY + 8 * known.counters);
    ensure!(ack == OK, "STATS_GET of type {bit} came back with {ack}");
    let (at, said_size) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
    ensure!(
        kind == bit && at == q,
        "a reply of type {bit} of queue {q} says type {kind} and queue {at}"
    );
    ensure!(
        usize::from(said_size) == size,
        "a reply of type {bit} has size {said_size}, and {size} bytes"
    );
    let len = written(said);
    ensure!(
        len <= 1 + size,
        "{len} bytes were written for a reply of type {bit}, which has {size}"
    );
    Ok(())
}

/// Commands that are none, with the feature that would be there for what they begin like.
const NONE_AT_ALL: [(&str, &[u8]); 24] = [
    ("nothing", &[]),
    ("a class alone", &[0]),
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
    // Without a byte for an answer there is none, and the command comes back all the same.
    card.ask(&[0xff, 0xff], 0)?;
    card.ask(&[0, 0, 1], 0)?;
    known_good(&mut card)?;
    // What was not negotiated is unknown.
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
        card.refused(what, command)?;
    }
    Ok(())
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

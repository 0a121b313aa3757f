//! Statistics that a driver asks for.

use vdpa_core::bits::net;
use vdpa_core::{DeviceType, Features};

use super::card::{Card, ERR, OK, pairs};
use super::offload::{GUEST, HOST};
use super::packet::{Header, frame};
use crate::checked::{ensure, fail, skip};
use crate::rig::CANARY;
use crate::{Bench, Checked, Variant};

const STATS_QUERY: [u8; 2] = [8, 0];
const STATS_GET: [u8; 2] = [8, 1];

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

pub(super) fn by_type(bench: &Bench<'_>, variant: Variant) -> Checked {
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
        all.push((known.counters, known.bit, q));
    }
    if all.is_empty() {
        skip!("it supports no type of statistics");
    }
    // Several at once are one behind the other.
    let entries = all.iter().map(|(_, bit, q)| entry(*q, 1 << bit));
    let entries: Vec<Vec<u8>> = entries.collect();
    let sizes = all.iter().map(|(counters, ..)| REPLY + 8 * counters);
    let size = 1 + sizes.sum::<usize>();
    let said = get(&mut card, &entries, ROOM)?;
    let told = types(&said);
    let mut asked: Vec<(u8, u16)> = all.iter().map(|(_, bit, q)| (*bit, *q)).collect();
    asked.sort_unstable();
    ensure!(
        told == asked,
        "STATS_GET of the types and queues {asked:?} came back with {told:?}"
    );
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

/// The types and queues of an answer's replies, from one size to the next, in order.
fn types(said: &[u8]) -> Vec<(u8, u16)> {
    let (mut told, mut rest) = (Vec::new(), said.get(1..written(said)).unwrap_or_default());
    while let Some(&[kind, _, a, b, _, _, c, d]) = rest.first_chunk() {
        told.push((kind, u16::from_le_bytes([a, b])));
        let size = usize::from(u16::from_le_bytes([c, d])).max(REPLY);
        rest = rest.get(size..).unwrap_or_default();
    }
    told.sort_unstable();
    told
}

/// The answer with one reply: the ack, its header, and its counters; and nothing behind it.
fn reply(said: &[u8], known: &Type, q: u16) -> Checked {
    let Some((&[ack, kind, _, a, b, _, _, c, d], _)) = said.split_first_chunk::<9>() else {
        fail!("an answer of {} bytes", said.len());
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

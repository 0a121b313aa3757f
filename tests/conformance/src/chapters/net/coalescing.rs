//! How notifications are held back, queue by queue.

use vdpa_core::bits::{self, net};
use vdpa_core::{DeviceType, Features, QueueIndex};

use super::card::{Card, ERR, OK, pairs};
use super::packet::{Header, frame};
use crate::checked::ensure;
use crate::{Bench, Checked, Variant};

const COAL_TX_SET: [u8; 2] = [6, 0];
const COAL_RX_SET: [u8; 2] = [6, 1];
const COAL_VQ_SET: [u8; 2] = [6, 2];
const COAL_VQ_GET: [u8; 2] = [6, 3];

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

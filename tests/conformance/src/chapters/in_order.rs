//! In-order.

use vdpa_core::Area;
use vdpa_ring::{Completion, layout};

use super::in_order;
use super::ringside::{each, links};
use crate::checked::{ensure, fail};
use crate::hand::Hand;
use crate::lane::{Cut, Lane, Request};
use crate::rig::CANARY;
use crate::statement::Check::Rings;
use crate::statement::{Entry, device, format};
use crate::{Bench, Checked, Rig, Variant};

pub(crate) const STATEMENTS: &[Entry] = &[
    device(
        110,
        "6.2",
        "Buffers are used in the order made available",
        Rings(in_order, uses_in_order),
    ),
    format(
        111,
        "2.7.9, 2.8.8",
        "Batch completion: one entry stands for the batch",
        Rings(in_order, stands_for_a_batch),
    ),
];

/// Where an entry for a chain would stand, were it its own: what is there.
fn place(hand: &Hand, lane: &Lane, at: u16) -> u64 {
    match lane.ring.variant().is_packed() {
        true => {
            let meta = layout::descriptor_meta(at);
            hand.area(Area::Descriptor).load_u64(meta)
        }
        false => {
            let entry = layout::used_entry(at % lane.ring.size());
            let [id, len] = hand.area(Area::Device).load_u32_pair(entry);
            u64::from(id) | u64::from(len) << 32
        }
    }
}

/// Chains that are under way together, with what stood in their places before.
struct Batch {
    given: Vec<(u16, Request)>,
    places: Vec<(u16, u64)>,
}

/// At most `count`, as far as a small queue has room for them.
fn give(rig: &Rig<'_>, lane: &mut Lane, hand: &mut Hand, count: usize) -> Checked<Batch> {
    let mut batch = Batch {
        given: Vec::new(),
        places: Vec::new(),
    };
    for number in 0..count {
        let request = lane.request(rig)?;
        let cut = if number % 3 == 1 {
            Cut::After(12)
        } else {
            Cut::Whole
        };
        let at = match lane.ring.variant().is_packed() {
            true => hand.avail_pos().index,
            false => {
                let at = hand.avail();
                let entry = layout::used_entry(at % lane.ring.size());
                let canaries = u32::from_le_bytes([CANARY; 4]);
                let device = hand.area(Area::Device);
                device.store_u32_pair(entry, [canaries, canaries]);
                at
            }
        };
        let mut chain = links(&request, cut);
        if chain.len() > hand.room() && batch.given.is_empty() {
            chain = links(&request, Cut::Whole);
        }
        if chain.len() > hand.room() && !batch.given.is_empty() {
            break;
        }
        let placed = hand.place(&chain)?;
        batch.given.push((hand.show(placed), request));
        batch.places.push((at, place(hand, lane, at)));
    }
    Ok(batch)
}

/// Takes entry by entry, and sees that each chain is in one: its own, or one before it that stands for it, and then none
/// stands in its place.
fn take(rig: &Rig<'_>, lane: &mut Lane, hand: &mut Hand, batch: &Batch) -> Checked {
    lane.ring.kick();
    let requests: Vec<Request> = batch.given.iter().map(|(_, r)| r.clone()).collect();
    lane.provoke(rig, &requests)?;
    let mut taken = 0;
    let mut skipped = Vec::new();
    rig.bench().until("the return of a batch", || {
        let run = hand.take()?;
        let last = run.len().saturating_sub(1);
        for (number, (id, len)) in run.into_iter().enumerate() {
            let Some((given, request)) = batch.given.get(taken) else {
                fail!("more came back than {} chains", batch.given.len());
            };
            ensure!(
                *given == id,
                "chain {id} came back where it is the turn of {given}"
            );
            // One without a length was used completely.
            let len = len.unwrap_or(request.room());
            lane.judge(rig, request, Completion { id, len })?;
            if last > 0 && number > 0 {
                skipped.push(taken);
            }
            taken += 1;
        }
        Ok(taken >= batch.given.len())
    })?;
    for at in skipped {
        let (at, before) = batch.places[at];
        let now = place(hand, lane, at);
        ensure!(
            now == before,
            "an entry before it stands for the chain at {at}, and there stands one more, {now:#x}"
        );
    }
    Ok(())
}

fn uses_in_order(bench: &Bench<'_>, variant: Variant) -> Checked {
    each(bench, variant, 32, |rig, lane| {
        let mut hand = Hand::of(rig, &lane.ring);
        for count in [1, 2, 6, 3, 6, 5] {
            let batch = give(rig, lane, &mut hand, count)?;
            take(rig, lane, &mut hand, &batch)?;
        }
        Ok(())
    })
}

fn stands_for_a_batch(bench: &Bench<'_>, variant: Variant) -> Checked {
    each(bench, variant, 32, |rig, lane| {
        // By hand: one entry or several, and the next batch's first one stands where its first chain belongs.
        let mut hand = Hand::of(rig, &lane.ring);
        for count in [8, 8, 8, 8, 8] {
            let batch = give(rig, lane, &mut hand, count)?;
            take(rig, lane, &mut hand, &batch)?;
            let count = batch.given.len();
            let ends = match variant.is_packed() {
                true => hand.used_pos() == hand.avail_pos(),
                false => hand.used_idx() == hand.avail(),
            };
            ensure!(
                ends,
                "{count} chains came back, and the ring ends elsewhere"
            );
        }
        Ok(())
    })?;
    // The driver half takes what such entries stand for, with the lengths that they imply.
    each(bench, variant, 32, |rig, lane| {
        for count in [8, 1, 8, 3, 8] {
            lane.exchange(rig, count, Cut::Whole)?;
        }
        Ok(())
    })
}

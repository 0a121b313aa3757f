//! Indirect descriptors.

use super::peer::{alone, described, most};
use super::ringside::{by_hand, each, links, survives};
use super::{indirect, split};
use crate::checked::ensure;
use crate::hand::{Hand, INDIRECT, Link, NEXT, WRITE, table};
use crate::lane::Cut;
use crate::statement::Check::Rings;
use crate::statement::{Entry, device, driver};
use crate::{Bench, Checked, Variant};

pub(crate) const STATEMENTS: &[Entry] = &[
    device(
        78,
        "2.7.5.3.2",
        "WRITE is ignored on the descriptor that points to a table",
        Rings(indirect, ignores_write_on_a_pointer),
    ),
    device(
        79,
        "2.7.5.3.2",
        "Chained descriptors ending in one indirect are handled",
        Rings(split_indirect, follows_a_chain_into_a_table),
    ),
    driver(
        80,
        "2.7.5.3.1",
        "Not without negotiation",
        Rings(direct, not_without_negotiation),
    ),
    driver(
        81,
        "2.7.5.3.1",
        "Not nested",
        Rings(split_indirect, not_nested),
    ),
    driver(
        82,
        "2.7.5.3.1",
        "Not together with NEXT",
        Rings(split_indirect, not_with_next),
    ),
    driver(
        83,
        "2.7.5.3.1",
        "A chain is at most the queue size",
        Rings(indirect, at_most_the_queue_size),
    ),
];

fn split_indirect(variant: &Variant) -> bool {
    split(variant) && indirect(variant)
}
fn direct(variant: &Variant) -> bool {
    !indirect(variant)
}

fn ignores_write_on_a_pointer(bench: &Bench<'_>, variant: Variant) -> Checked {
    each(bench, variant, 16, |rig, lane| {
        let mut hand = Hand::of(rig, &lane.ring);
        for cut in [Cut::Whole, Cut::After(12), Cut::After(1)] {
            let request = lane.request(rig)?;
            let entries = links(&request, cut);
            // A table is no longer than the queue.
            lane.ring.takes(entries.len())?;
            let pointer = Link::table(table(rig, variant, &entries)?);
            by_hand(rig, lane, &mut hand, &request, &[pointer.with(WRITE)])?;
        }
        Ok(())
    })
}

fn follows_a_chain_into_a_table(bench: &Bench<'_>, variant: Variant) -> Checked {
    each(bench, variant, 16, |rig, lane| {
        let mut hand = Hand::of(rig, &lane.ring);
        for (cut, direct) in [
            (Cut::After(12), 1),
            (Cut::After(5), 1),
            (Cut::Bytes(3), 2),
            (Cut::Bytes(3), 3),
            (Cut::Whole, 0),
        ] {
            let request = lane.request(rig)?;
            let mut chain = links(&request, cut);
            if chain.len() > usize::from(lane.ring.size()) || direct >= hand.room() {
                continue;
            }
            let rest = chain.split_off(direct);
            chain.push(Link::table(table(rig, variant, &rest)?));
            by_hand(rig, lane, &mut hand, &request, &chain)
                .map_err(|stop| stop.about(format_args!("{direct} descriptors and a table")))?;
        }
        Ok(())
    })
}

fn not_without_negotiation(bench: &Bench<'_>, variant: Variant) -> Checked {
    for pieces in [(3, 0), (0, 3), (2, 2)] {
        let (seen, _) = described(bench, variant, 8, pieces)?;
        let pointers = seen.iter().filter(|seen| seen.flags & INDIRECT != 0);
        let pointers = pointers.count();
        ensure!(
            pointers == 0,
            "{pointers} descriptors are indirect, which was not negotiated"
        );
    }
    let what = "an indirect descriptor that was not negotiated";
    survives(bench, variant, what, |rig, _, request, hand| {
        let table = table(rig, variant, &links(request, Cut::Whole))?;
        hand.give(&[Link::table(table)])?;
        Ok(())
    })
}

fn not_nested(bench: &Bench<'_>, variant: Variant) -> Checked {
    for pieces in [(3, 0), (0, 3), (2, 2)] {
        let (_, table) = described(bench, variant, 8, pieces)?;
        ensure!(!table.is_empty(), "no table for {pieces:?} buffers");
        let nested = table.iter().any(|seen| seen.flags & INDIRECT != 0);
        ensure!(!nested, "a table's entry is indirect: {table:?}");
    }
    let what = "a table whose last entry points to a table";
    survives(bench, variant, what, |rig, _, request, hand| {
        let mut outer = links(request, Cut::After(8));
        let inner = outer.split_off(1);
        outer.push(Link::table(table(rig, variant, &inner)?));
        hand.give(&[Link::table(table(rig, variant, &outer)?)])?;
        Ok(())
    })?;
    let what = "a table that points to itself";
    survives(bench, variant, what, |rig, _, _, hand| {
        let room = rig.alloc(16)?;
        let itself = table(rig, variant, &[Link::table(room)])?;
        let bytes = rig.read(itself);
        rig.write(room, &bytes);
        hand.give(&[Link::table(room)])?;
        Ok(())
    })
}

fn not_with_next(bench: &Bench<'_>, variant: Variant) -> Checked {
    // Also where a chain is too long for a table of the driver's.
    for (pieces, size) in [((2, 2), 8), ((20, 20), 64)] {
        if most(bench, size)? < size {
            continue;
        }
        let (seen, _) = described(bench, variant, size, pieces)?;
        let both = NEXT | INDIRECT;
        let bad = seen.iter().find(|seen| seen.flags & both == both);
        ensure!(
            bad.is_none(),
            "a descriptor is indirect and goes on: {bad:?}"
        );
    }
    let what = "an indirect descriptor that goes on";
    survives(bench, variant, what, |rig, _, request, hand| {
        let mut chain = links(request, Cut::After(8));
        let rest = chain.split_off(1);
        let pointer = Link::table(table(rig, variant, &chain)?);
        hand.give(&[&[pointer], rest.as_slice()].concat())?;
        Ok(())
    })
}

fn at_most_the_queue_size(bench: &Bench<'_>, variant: Variant) -> Checked {
    let (rig, mut ring, _) = alone(bench, variant, 8)?;
    let size = usize::from(ring.size());
    let pieces = (0..=size).map(|_| rig.alloc(1));
    let pieces = pieces.collect::<Checked<Vec<_>>>()?;
    let before = rig.image();
    let too_long = ring.add(&[], &pieces);
    ensure!(
        too_long.is_err(),
        "a chain of {} buffers was taken for a queue of size {size}",
        pieces.len()
    );
    ring.publish_silently();
    rig.only_changed(&before, &[])?;
    let (all, _) = pieces.split_at(size);
    ring.add(&[], all)
        .map_err(|stop| stop.about("a chain as long as the queue"))?;

    // There may be one device at a time.
    drop((rig, ring));
    let what = "a table longer than the queue";
    survives(bench, variant, what, |rig, ring, request, hand| {
        let mut chain = links(request, Cut::Whole);
        let empty = match chain.last() {
            Some(last) if last.flags & WRITE != 0 => Link::writable,
            _ => Link::readable,
        };
        // Of bytes that nobody needs.
        while chain.len() <= usize::from(ring.size()) {
            chain.push(empty(rig.alloc(1)?));
        }
        hand.give(&[Link::table(table(rig, variant, &chain)?)])?;
        Ok(())
    })
}

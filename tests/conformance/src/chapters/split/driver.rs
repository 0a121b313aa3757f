//! What a driver has to do with a split ring, and what a device survives of one that does not.

use vdpa_core::Area;
use vdpa_mem::Iova;
use vdpa_ring::layout;

use super::super::peer::{alone, described, shows_what_is_complete};
use super::super::ringside::{each, links, survives, works_with_the_kicks_asked_for};
use super::super::witness::{Side, orders};
use crate::checked::ensure;
use crate::hand::{Link, NEXT, WRITE, table};
use crate::lane::Cut;
use crate::{Bench, Checked, Piece, Rig, Variant};

pub(super) fn puts_writable_last(bench: &Bench<'_>, variant: Variant) -> Checked {
    for pieces in [(2, 3), (0, 4), (4, 0), (1, 1)] {
        let (seen, table) = described(bench, variant, 16, pieces)?;
        let entries = if table.is_empty() { seen } else { table };
        let writable = entries.iter().map(|seen| seen.flags & WRITE != 0);
        let wanted = (0..pieces.0 + pieces.1).map(|at| at >= pieces.0);
        ensure!(
            writable.eq(wanted),
            "{pieces:?} readable and writable buffers are described as {entries:?}"
        );
    }
    let what = "a readable descriptor after a writable one";
    survives(bench, variant, what, |rig, _, request, hand| {
        let mut chain = links(request, Cut::After(8));
        let readable = Link::readable(rig.place(&[0; 16])?);
        chain.insert(0, Link::writable(rig.alloc(16)?));
        chain.push(readable);
        hand.give(&chain)?;
        Ok(())
    })
}

/// Buffers that are nowhere, so that a device which believes in their lengths reaches for nothing.
fn nowhere(rig: &Rig<'_>, len: u32) -> Piece {
    let at = rig.range().last().get().wrapping_add(1 << 20);
    Piece {
        at: Iova::new(at),
        len,
    }
}

pub(super) fn has_no_loops(bench: &Bench<'_>, variant: Variant) -> Checked {
    // Our own: as long as the ring is large, no descriptor twice; more than 2^32 bytes are refused, and leave no trace.
    let most = Variant {
        indirect: false,
        ..variant
    };
    described(bench, most, 8, (4, 4))?;
    let (rig, mut ring, _) = alone(bench, variant, 8)?;
    let halves = [nowhere(&rig, 1 << 31); 2];
    let before = rig.image();
    let too_much = ring.add(&halves, &[nowhere(&rig, 1)]);
    ensure!(too_much.is_err(), "a chain of 2^32 + 1 bytes was taken");
    ring.publish_silently();
    rig.only_changed(&before, &[])?;
    ring.add(&halves, &[])
        .map_err(|stop| stop.about("a chain of 2^32 bytes"))?;
    // There may be one device at a time.
    drop((rig, ring));

    survives(
        bench,
        variant,
        "a descriptor that follows itself",
        |_, _, request, hand| {
            let placed = hand.place(&links(request, Cut::Whole))?;
            tie(hand, 0, 0);
            hand.show(placed);
            Ok(())
        },
    )?;
    survives(
        bench,
        variant,
        "two descriptors that follow each other",
        |_, _, request, hand| {
            let placed = hand.place(&links(request, Cut::After(8)))?;
            tie(hand, 1, 0);
            hand.show(placed);
            Ok(())
        },
    )?;
    survives(
        bench,
        variant,
        "a chain of more than 2^32 bytes",
        |rig, _, request, hand| {
            let kind = match request.writable.is_empty() {
                true => Link::readable,
                false => Link::writable,
            };
            let mut chain = links(request, Cut::Whole);
            chain.extend([kind(nowhere(rig, u32::MAX)), kind(nowhere(rig, u32::MAX))]);
            hand.give(&chain)?;
            Ok(())
        },
    )?;
    if variant.indirect {
        survives(
            bench,
            variant,
            "a table entry that follows itself",
            |rig, _, request, hand| {
                let table = table(rig, variant, &links(request, Cut::After(8)))?;
                // The last entry goes on at the first.
                let last = rig.offset(table.at) + table.len as usize - 4;
                let flags = rig.bytes().slice(last, 2).map_or(0, |b| b.load_u16(0));
                rig.bytes().write(last, &(flags | NEXT).to_le_bytes());
                rig.bytes().write(last + 2, &[0, 0]);
                hand.give(&[Link::table(table)])?;
                Ok(())
            },
        )?;
    }
    Ok(())
}

/// Has a descriptor go on at another.
fn tie(hand: &crate::hand::Hand, slot: u16, next: u16) {
    let at = layout::descriptor_meta(slot);
    let descriptors = hand.area(Area::Descriptor);
    let meta = descriptors.load_u64(at) & 0x0000_ffff_ffff_ffff;
    let meta = meta | u64::from(NEXT) << 32 | u64::from(next) << 48;
    descriptors.store_u64(at, meta);
}

pub(super) fn never_goes_back(bench: &Bench<'_>, variant: Variant) -> Checked {
    each(bench, variant, 16, |rig, lane| {
        let mut expected = 0_u16;
        for count in [1, 3, 2, 1, 4] {
            let before = lane.ring.load_u16(Area::Driver, layout::IDX);
            ensure!(
                before == expected,
                "avail.idx is {before} after {expected} chains"
            );
            lane.exchange(rig, count, Cut::Whole)?;
            expected += count as u16;
        }
        Ok(())
    })?;
    let what = "an avail.idx that goes back";
    survives(bench, variant, what, |rig, ring, request, hand| {
        hand.give(&links(request, Cut::Whole))?;
        ring.kick();
        hand.wait(rig, 1, request.room())?;
        let back = hand.avail().wrapping_sub(1);
        hand.area(Area::Driver).store_u16(layout::IDX, back);
        Ok(())
    })
}

pub(super) fn ignores_what_is_beyond_len(bench: &Bench<'_>, variant: Variant) -> Checked {
    let (rig, mut ring, mut peer) = alone(bench, variant, 8)?;
    for len in [0, 1, 5, 64] {
        let buffer = rig.alloc(64)?;
        ring.add(&[], &[buffer])?;
        ring.publish_silently();
        // The device writes more than it says, which it may.
        rig.fill(buffer, 0x5a);
        peer.give_back(len);
        let done = ring.poll()?;
        let lens: Vec<u32> = done.iter().map(|done| done.len).collect();
        ensure!(
            lens == [len],
            "a chain came back with used.len {len}, and the driver makes {lens:?} of it"
        );
    }
    // And what says more than there is room for is not believed.
    let buffer = rig.alloc(64)?;
    ring.add(&[], &[buffer])?;
    ring.publish_silently();
    peer.give_back(65);
    let believed = ring.poll();
    ensure!(
        believed.is_err(),
        "used.len of 65 for 64 writable bytes was believed: {believed:?}"
    );
    Ok(())
}

pub(super) fn shows_idx_last(bench: &Bench<'_>, variant: Variant) -> Checked {
    shows_what_is_complete(bench, variant)
}

pub(super) fn looks_after_showing(bench: &Bench<'_>, variant: Variant) -> Checked {
    orders(variant, Side::After)?;
    works_with_the_kicks_asked_for(bench, variant)
}

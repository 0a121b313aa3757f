//! What a driver has to do with a packed ring, and what a device survives of one that does not.

use vdpa_core::Area;
use vdpa_mem::Iova;
use vdpa_ring::layout;

use super::super::peer::{alone, described, most, shows_what_is_complete};
use super::super::ringside::{
    by_hand, each, ended, first_traffic, links, live, revive, survives,
    works_with_the_kicks_asked_for,
};
use super::super::witness::{Side, orders};
use crate::checked::{ensure, fail};
use crate::hand::{AVAIL, Hand, INDIRECT, Link, NEXT, USED, WRITE, table};
use crate::lane::Cut;
use crate::{Bench, Checked, Piece, Variant};

pub(super) fn checks_room_first(bench: &Bench<'_>, variant: Variant) -> Checked {
    let direct = Variant {
        indirect: false,
        ..variant
    };
    let (rig, mut ring, mut peer) = alone(bench, direct, 8)?;
    ring.takes(2)?;
    let size = usize::from(ring.size());
    let pieces = (0..=size).map(|_| rig.alloc(8));
    let pieces = pieces.collect::<Checked<Vec<_>>>()?;
    let (all, _) = pieces.split_at(size);
    // Refused without a trace: one that is too long for the ring, and one that is for what is free of it.
    let refused = |ring: &mut crate::Ring, pieces: &[Piece], why: &str| {
        let before = rig.image();
        let added = ring.add(&[], pieces);
        ensure!(added.is_err(), "a list of {} was taken {why}", pieces.len());
        ring.publish_silently();
        rig.only_changed(&before, &[])
    };
    refused(&mut ring, &pieces, &format!("in a ring of {size}"))?;
    for _ in 0..size - 1 {
        ring.add(&[], &all[..1])?;
    }
    ring.publish_silently();
    refused(&mut ring, &all[..2], "with one slot free")?;
    ring.add(&[], &all[..1])?;
    ring.publish_silently();
    refused(&mut ring, &all[..1], "with none free")?;
    // There is room again once something came back, and no sooner.
    peer.give_back(8);
    ring.poll()?;
    refused(&mut ring, &all[..2], "with one slot free again")?;
    ring.add(&[], &all[..1])?;

    // There may be one device at a time.
    drop((rig, ring, peer));
    let what = "a list that goes round the ring";
    survives(bench, variant, what, |rig, ring, request, hand| {
        let mut chain = links(request, Cut::Whole);
        let kind = match chain.last() {
            Some(last) if last.flags & WRITE != 0 => Link::writable,
            _ => Link::readable,
        };
        while chain.len() < usize::from(ring.size()) {
            chain.push(kind(rig.alloc(1)?));
        }
        if let Some(last) = chain.last_mut() {
            *last = last.with(NEXT);
        }
        hand.give(&chain)?;
        Ok(())
    })
}

pub(super) fn shows_the_first_last(bench: &Bench<'_>, variant: Variant) -> Checked {
    let direct = Variant {
        indirect: false,
        ..variant
    };
    {
        let (rig, mut ring, peer) = alone(bench, direct, 8)?;
        let pieces = [rig.alloc(8)?, rig.alloc(8)?, rig.alloc(8)?];
        ring.add(&pieces, &[])?;
        ensure!(!peer.is_shown(), "a list is shown before it was published");
        ring.publish_silently();
        let named: Vec<u64> = peer.descriptors(0).iter().map(|seen| seen.at).collect();
        let wanted: Vec<u64> = pieces.iter().map(|piece| piece.at.get()).collect();
        ensure!(
            peer.is_shown() && named == wanted,
            "a list of {wanted:x?} was published, and {named:x?} is shown"
        );
    }
    shows_what_is_complete(bench, variant)?;

    // The first descriptor is available, the second one is not: the device may wait for it, or give up, or count on
    // its being there (virtio 1.4 §2.8.17).
    let traffic = first_traffic(bench)?;
    let (rig, mut lane) = live(bench, variant, traffic, 16)?;
    let request = lane.request(&rig)?;
    let mut hand = Hand::of(&rig, &lane.ring);
    let placed = hand.place(&links(&request, Cut::After(8)))?;
    let at = layout::descriptor_meta(1);
    let meta = hand.area(Area::Descriptor).load_u64(at);
    hand.area(Area::Descriptor).store_u64(at, 0);
    hand.show(placed);
    lane.ring.kick();
    rig.bench().quiet();
    hand.area(Area::Descriptor).store_u64(at, meta);
    lane.ring.kick();
    ended(&rig, &hand)?;
    revive(&rig, variant, traffic)
}

pub(super) fn tables_carry_write_alone(bench: &Bench<'_>, variant: Variant) -> Checked {
    for pieces in [(3, 0), (0, 3), (2, 2)] {
        let (_, table) = described(bench, variant, 8, pieces)?;
        let writes = (0..pieces.0 + pieces.1).map(|at| if at < pieces.0 { 0 } else { WRITE });
        ensure!(
            table.iter().map(|seen| seen.flags).eq(writes),
            "{pieces:?} readable and writable buffers are in a table of {table:?}"
        );
    }
    // virtio 1.4 §2.8.7: all else is reserved, and the device does not look at it.
    each(bench, variant, 16, |rig, lane| {
        let mut hand = Hand::of(rig, &lane.ring);
        for reserved in [NEXT, AVAIL, USED, AVAIL | USED | NEXT, 1 << 3 | 1 << 14] {
            let request = lane.request(rig)?;
            let entries = links(&request, Cut::After(8));
            let entries: Vec<Link> = entries.iter().map(|link| link.with(reserved)).collect();
            let table = table(rig, variant, &entries)?;
            // Ids that are none.
            for entry in 0..entries.len() {
                let id = rig.offset(table.at) + entry * 16 + 12;
                rig.bytes().write(id, &[0xee, 0xee]);
            }
            by_hand(rig, lane, &mut hand, &request, &[Link::table(table)])
                .map_err(|stop| stop.about(format_args!("entries with flags {reserved:#x}")))?;
        }
        Ok(())
    })?;
    let what = "a table whose entry points to a table";
    survives(bench, variant, what, |rig, _, request, hand| {
        let mut outer = links(request, Cut::After(8));
        let inner = outer.split_off(1);
        outer.push(Link::table(table(rig, variant, &inner)?));
        hand.give(&[Link::table(table(rig, variant, &outer)?)])?;
        Ok(())
    })
}

pub(super) fn no_table_in_a_list(bench: &Bench<'_>, variant: Variant) -> Checked {
    for (pieces, size) in [((2, 2), 8), ((20, 20), 64)] {
        if most(bench, size)? < size {
            continue;
        }
        let (seen, _) = described(bench, variant, size, pieces)?;
        let listed = seen.len() > 1;
        let bad = seen
            .iter()
            .find(|seen| listed && seen.flags & INDIRECT != 0);
        ensure!(bad.is_none(), "a list holds a table: {bad:?}");
    }
    let what = "a list that ends in a table";
    survives(bench, variant, what, |rig, _, request, hand| {
        let mut chain = links(request, Cut::After(8));
        let rest = chain.split_off(1);
        chain.push(Link::table(table(rig, variant, &rest)?));
        hand.give(&chain)?;
        Ok(())
    })?;
    let what = "a table that goes on as a list";
    survives(bench, variant, what, |rig, _, request, hand| {
        let mut chain = links(request, Cut::After(8));
        let rest = chain.split_off(1);
        let pointer = Link::table(table(rig, variant, &chain)?);
        hand.give(&[&[pointer], rest.as_slice()].concat())?;
        Ok(())
    })
}

pub(super) fn changes_nothing_available(bench: &Bench<'_>, variant: Variant) -> Checked {
    {
        let (rig, mut ring, mut peer) = alone(bench, variant, 8)?;
        let pieces = [rig.alloc(8)?, rig.alloc(8)?];
        let (mut available, mut made) = (Vec::new(), 0);
        for round in 0..40 {
            let head = ring_slot(&ring);
            match ring.add(&pieces[..1 + round % 2], &[]) {
                Ok(_) => {
                    ring.publish_silently();
                    available.push((head, peer.descriptors(head)));
                    made += 1;
                }
                Err(_) => {
                    peer.give_back(0);
                    ring.poll()?;
                    available.remove(0);
                }
            }
            for (head, seen) in &available {
                let now = peer.descriptors(*head);
                ensure!(
                    now == *seen,
                    "round {round}: slot {head} was made available as {seen:?} and is {now:?}"
                );
            }
        }
        ensure!(made > 0, "nothing was made available");
    }
    let what = "a descriptor that changes while it is available";
    survives(bench, variant, what, |rig, ring, request, hand| {
        let nowhere = Iova::new(rig.range().last().get().wrapping_add(1 << 20));
        hand.give(&links(request, Cut::Whole))?;
        // Before the kick, so that a device that sleeps finds it changed.
        let area = hand.area(Area::Descriptor);
        for slot in 0..ring.size().min(2) {
            area.store_u64(layout::descriptor(slot), nowhere.get());
        }
        Ok(())
    })
}

/// The slot that the next list begins at.
fn ring_slot(ring: &crate::Ring) -> u16 {
    match ring.half().state() {
        vdpa_ring::QueueState::Packed { avail, .. } => avail.index,
        vdpa_ring::QueueState::Split { avail, .. } => avail,
    }
}

pub(super) fn looks_after_showing(bench: &Bench<'_>, variant: Variant) -> Checked {
    let (rig, mut ring, peer) = alone(bench, variant, 8)?;
    // As many slots as are gone through, one after the other.
    ring.takes(if variant.event_idx { 6 } else { 2 })?;
    let buffer = rig.alloc(8)?;
    // What the words ask for, one after the other.
    let mut kicks = |set: &dyn Fn(), asked: bool, what: &str| {
        set();
        ring.add(&[buffer], &[])?;
        let kick = ring.publish_silently();
        if kick != asked {
            fail!("events are {what}: kick {kick}, not {asked}");
        }
        Ok(())
    };
    kicks(&|| peer.set_event(0, 0), true, "enabled")?;
    kicks(&|| peer.set_event(1, 0), false, "disabled")?;
    if variant.event_idx {
        let lap = 1 << 15;
        kicks(&|| peer.set_event(2, lap | 2), true, "enabled at slot 2")?;
        kicks(&|| peer.set_event(2, lap | 5), false, "enabled at slot 5")?;
        kicks(&|| peer.set_event(2, 4), false, "enabled a lap on")?;
        kicks(&|| peer.set_event(2, lap | 5), true, "enabled at slot 5")?;
    }
    orders(variant, Side::Before)?;
    orders(variant, Side::After)?;
    // There may be one device at a time.
    drop((rig, ring, peer));
    works_with_the_kicks_asked_for(bench, variant)
}

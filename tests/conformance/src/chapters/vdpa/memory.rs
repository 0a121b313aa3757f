//! Memory that is mapped, and taken away.

use vdpa_core::Event;
use vdpa_mem::{Access, Iova, IovaRange, Mapping, Region};

use super::super::status::first_difference;
use crate::checked::{ensure, skip};
use crate::lane::{Cut, Lane, Traffic, packet};
use crate::{Bench, Checked, Piece, Rig, Variant};

pub(super) fn maps_all_or_none(bench: &Bench<'_>) -> Checked {
    let rig = bench.open()?;
    let ranges = || {
        let all = rig.dma.mappings();
        all.iter().map(|m| m.iova).collect::<Vec<_>>()
    };
    let before = ranges();
    let (first, last) = (rig.range().first().get(), rig.range().last().get());
    // Mapped as finely as may be; the memory's beginning does for it.
    let limits = rig.dma.limits();
    let page = limits.map_or(4096, |limits| limits.granule.max(4096));
    let one = limits.map_or(1, |limits| limits.granule);
    // Which a device in another process can map.
    let (memory, _) = Region::memfd(page.max(1 << 16))?.into_shared();
    let mapping = |at: u64, len: u64| -> Checked<Mapping> {
        Ok(Mapping {
            iova: IovaRange::new(Iova::new(at), len)?,
            memory: memory.clone(),
            offset: 0,
            access: Access::Both,
            dirty: None,
        })
    };
    let free = last + 1 + page;
    let overlapping = [
        ("the same addresses", vec![mapping(first, page)?]),
        ("the last byte", vec![mapping(last + 1 - one, one)?]),
        ("across the beginning", vec![mapping(first - one, 2 * one)?]),
        (
            "behind a good one",
            vec![mapping(free, page)?, mapping(last + 1 - one, 2 * one)?],
        ),
        (
            "before a good one",
            vec![mapping(last + 1 - one, 2 * one)?, mapping(free, page)?],
        ),
        (
            "two of one batch",
            vec![mapping(free, page)?, mapping(free + page - one, page)?],
        ),
    ];
    for (what, batch) in overlapping {
        let mapped = rig.dma.map(batch);
        ensure!(mapped.is_err(), "an overlapping map was taken: {what}");
        let now = ranges();
        ensure!(
            now == before,
            "{what}: a map was refused, and what is mapped went from {before:?} to {now:?}"
        );
    }
    // Side by side they do not overlap.
    rig.dma
        .map(vec![mapping(free, page)?, mapping(free + page, page)?])?;
    let now = ranges().len();
    ensure!(
        now == before.len() + 2,
        "two more were mapped, and there are {now} where {} were",
        before.len()
    );
    // The device finds its memory as before.
    let traffic = bench.traffic()?;
    rig.negotiate(rig.plain(Variant::SPLIT))?;
    let mut lane = Lane::start(&rig, traffic[0], 8)?;
    rig.run()?;
    lane.exchange(&rig, 2, Cut::Whole)
}

/// What is taken away: with the queue's own memory, or the buffers alone.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Taken {
    Everything,
    Buffers,
}

pub(super) fn unmapped_is_untouched(bench: &Bench<'_>, variant: Variant) -> Checked {
    let mut unread = false;
    for &traffic in bench.traffic()? {
        for taken in [Taken::Everything, Taken::Buffers] {
            if taken == Taken::Buffers && !reads(bench, variant, traffic)? {
                unread = true;
                continue;
            }
            unmapped(bench, variant, traffic, taken)
                .map_err(|stop| stop.about(format!("{traffic:?}, {taken:?}")))?;
        }
    }
    if unread {
        skip!("its rings are missed rightly; its buffers are not, since what is sent is not read");
    }
    Ok(())
}

/// Whether buffers that were never mapped are missed. A card whose frames go nowhere need not look at them.
fn reads(bench: &Bench<'_>, variant: Variant, traffic: Traffic) -> Checked<bool> {
    if traffic != Traffic::Transmit || super::super::net::loops(bench)? {
        return Ok(true);
    }
    let rig = bench.open()?;
    if rig.dma.limits().is_some() {
        return Ok(true);
    }
    rig.negotiate(rig.plain(variant))?;
    let mut lane = Lane::start(&rig, traffic, 16)?;
    rig.run()?;
    let request = lane.request(&rig)?;
    let nowhere = Piece {
        at: Iova::new(rig.range().last().get().wrapping_add(1 << 20)),
        len: request.readable.iter().map(|piece| piece.len).sum(),
    };
    let mut missed = false;
    // The second is served in a later pass: once it is back, what is to be told of the first has been told.
    for pieces in [&[nowhere][..], &request.readable] {
        lane.ring.add(pieces, &[])?;
        lane.ring.publish();
        let back = bench.until("the end of a chain", || {
            missed = missed || rig.told().iter().any(is_miss);
            Ok(missed || !lane.ring.poll()?.is_empty())
        });
        if missed || back.is_err() {
            return Ok(missed);
        }
    }
    Ok(rig.told().iter().any(is_miss))
}

/// Whether it says that memory was missed.
fn is_miss(event: &Event) -> bool {
    matches!(
        event,
        Event::Fault { .. } | Event::NeedsReset { .. } | Event::Miss { .. }
    )
}

fn unmapped(bench: &Bench<'_>, variant: Variant, traffic: Traffic, taken: Taken) -> Checked {
    let rig = bench.open()?;
    rig.dma.replace(rig.halves().into(), bench.by())?;
    rig.negotiate(rig.plain(variant))?;
    let mut lane = Lane::start(&rig, traffic, 16)?;
    rig.run()?;
    lane.exchange(&rig, 1, Cut::Whole)?;
    // The frame for a receive queue is read out of what is left, or it would be the other queue that faults.
    let frame = rig.place(&packet(0))?;
    if taken == Taken::Buffers {
        rig.go_to_upper();
    }
    // One is left for later.
    for _ in 0..lane.room().saturating_sub(1).min(4) {
        let request = lane.request(&rig)?;
        lane.add(&request, Cut::Whole)?;
    }
    // Made before the unmap: a back end that cannot go on without the memory ends its connection, and answers nothing more.
    let late = lane.request(&rig)?;
    // In the middle of it.
    lane.ring.publish();
    let [lower, upper] = rig.halves().map(|half| half.iova);
    rig.dma.unmap(upper, bench.by())?;
    if taken == Taken::Everything {
        rig.dma.unmap(lower, bench.by())?;
    }
    // From here on what is gone does not change. It is kept alive here.
    lane.ring.poll()?;
    if lane.room() > 0 {
        lane.add(&late, Cut::Whole)?;
        lane.ring.publish_silently();
    }
    if let (Traffic::Receive, Some(transmit)) = (traffic, &mut lane.other) {
        transmit.add(&[frame], &[])?;
        transmit.publish_silently();
    }
    // With buffers alone this is the upper half, which the rings are not in.
    let before = rig.image();
    lane.ring.kick();
    if let (Traffic::Receive, Some(transmit)) = (traffic, &lane.other) {
        transmit.kick();
    }
    faulted(&rig)?;
    let after = rig.image();
    let touched = first_difference(&before, &after);
    ensure!(
        touched.is_none(),
        "memory that was unmapped was written afterwards, at byte {touched:?} of {}",
        before.len()
    );
    Ok(())
}

/// The device says that it missed memory: by a fault, by its need for a reset, or, where it can wait, by asking for it. What
/// translates for a device may keep that from it: it then has time to touch what it must not.
fn faulted(rig: &Rig<'_>) -> Checked {
    if rig.dma.limits().is_some() {
        rig.bench().quiet();
        return Ok(());
    }
    let event = rig.event("that memory was missed", is_miss)?;
    if matches!(event, Event::Miss { .. }) {
        let waits = rig.device.cap_names().contains(&"page-requests");
        ensure!(waits, "{event:?} of a device that does not wait for pages");
    }
    Ok(())
}

/// Nothing is declared of it so far but that address spaces stay, which is the contract of a reset.
pub(super) fn reset_keeps_maps(bench: &Bench<'_>) -> Checked {
    let rig = bench.open()?;
    let traffic = bench.traffic()?;
    let before: Vec<_> = rig.dma.mappings().iter().map(|m| m.iova).collect();
    for round in 0..2 {
        rig.negotiate(rig.plain(Variant::SPLIT))?;
        let mut lane = Lane::start(&rig, traffic[0], 8)?;
        rig.run()?;
        lane.exchange(&rig, 2, Cut::Whole).map_err(|stop| {
            stop.about(format!("after {round} resets, with nothing mapped anew"))
        })?;
        rig.reset()?;
        let now: Vec<_> = rig.dma.mappings().iter().map(|m| m.iova).collect();
        ensure!(
            now == before,
            "a reset made {now:?} of what was mapped: {before:?}"
        );
    }
    Ok(())
}

//! What a device has to do with a split ring.

use vdpa_core::Area;
use vdpa_ring::{Completion, layout};

use super::super::ringside::{complete, each, first_traffic, links, live, live_at, spot};
use crate::checked::{ensure, skip};
use crate::hand::Hand;
use crate::lane::{Cut, Lane, Request, Traffic};
use crate::rig::CANARY;
use crate::{Bench, Checked, Rig, Variant};

/// Ways to cut a request that a device which counts on descriptors would stumble over: a byte at a time, headers in
/// two, header and payload in one.
const CUTS: [Cut; 9] = [
    Cut::Whole,
    Cut::Every(1),
    Cut::Bytes(20),
    Cut::Every(7),
    Cut::After(1),
    Cut::After(11),
    Cut::After(12),
    Cut::After(13),
    Cut::After(16),
];

pub(super) fn takes_any_split(bench: &Bench<'_>, variant: Variant) -> Checked {
    each(bench, variant, 128, |rig, lane| {
        for cut in CUTS {
            let about = |stop: crate::Stop| stop.about(format_args!("{cut:?}"));
            let request = lane.request(rig)?;
            if lane.fits(&request, cut) {
                complete(rig, lane, &request, cut).map_err(about)?;
            }
            // The same where the pieces do not lie one behind the other.
            let sizes = match cut {
                Cut::Whole => continue,
                Cut::Every(1) | Cut::Bytes(_) => vec![1; 15],
                Cut::Every(len) => vec![len; 4],
                Cut::After(len) => vec![len],
            };
            let request = lane.request(rig)?.scattered(rig, &sizes)?;
            if lane.fits(&request, Cut::Whole) {
                complete(rig, lane, &request, Cut::Whole).map_err(about)?;
            }
        }
        Ok(())
    })
}

/// Completes requests, and fails if anything is written but their writable buffers and what `ring` says.
fn writes_nothing_else(
    rig: &Rig<'_>,
    lane: &mut Lane,
    request: &Request,
    cut: Cut,
    areas: &[Area],
) -> Checked {
    let id = lane.add(request, cut)?;
    let mut allowed: Vec<_> = areas.iter().map(|area| lane.ring.area(*area)).collect();
    allowed.extend(request.writable.iter().copied());
    // The driver's own words, which go on with the publication.
    allowed.push(lane.ring.area(Area::Driver));
    allowed.extend(lane.beside());
    let before = rig.image();
    lane.ring.publish();
    lane.provoke(rig, std::slice::from_ref(request))?;
    for done in lane.ring.wait(rig, 1)? {
        ensure!(done.id == id, "chain {} came back for {id}", done.id);
        lane.judge(rig, request, done)?;
    }
    rig.only_changed(&before, &allowed)
}

pub(super) fn leaves_readable_buffers(bench: &Bench<'_>, variant: Variant) -> Checked {
    leaves_readable(bench, variant)
}

/// For either format: readable buffers, and indirect tables, which the device reads too.
pub(crate) fn leaves_readable(bench: &Bench<'_>, variant: Variant) -> Checked {
    let reads = bench.traffic()?.iter().any(|traffic| traffic.reads());
    if !reads && !variant.indirect {
        skip!("its requests have nothing that a device reads");
    }
    each(bench, variant, 64, |rig, lane| {
        if !lane.traffic.reads() && !variant.indirect {
            return Ok(());
        }
        let areas: &[Area] = match variant.is_packed() {
            true => &[Area::Descriptor, Area::Device],
            false => &[Area::Device],
        };
        for cut in [Cut::Whole, Cut::After(12), Cut::After(5)] {
            let request = lane.request(rig)?;
            writes_nothing_else(rig, lane, &request, cut, areas)?;
            let request = lane.request(rig)?.scattered(rig, &[3, 9])?;
            if lane.fits(&request, Cut::Whole) {
                writes_nothing_else(rig, lane, &request, Cut::Whole, areas)?;
            }
        }
        Ok(())
    })
}

pub(super) fn leaves_the_table(bench: &Bench<'_>, variant: Variant) -> Checked {
    each(bench, variant, 8, |rig, lane| {
        // Round the table more than once, with chains of one descriptor and of more.
        for round in 0..12 {
            let cut = match round % 3 {
                0 => Cut::Whole,
                1 => Cut::After(12),
                _ => Cut::After(1),
            };
            let request = lane.request(rig)?;
            lane.add(&request, cut)?;
            let before = lane.ring.image(Area::Descriptor);
            lane.ring.publish();
            lane.provoke(rig, std::slice::from_ref(&request))?;
            for done in lane.ring.wait(rig, 1)? {
                lane.judge(rig, &request, done)?;
            }
            let after = lane.ring.image(Area::Descriptor);
            let changed = before.iter().zip(&after).position(|(a, b)| a != b);
            if let Some(at) = changed {
                crate::checked::fail!("byte {at} of the descriptor table was written");
            }
        }
        Ok(())
    })
}

/// Gives a few requests in scattered pieces with canaries in the used ring, and calls `look` for each used entry as soon
/// as used.idx has gone past it. Then all are judged. A small queue gets fewer, and if need be one that is whole.
fn watch_used(
    rig: &Rig<'_>,
    lane: &mut Lane,
    count: usize,
    mut look: impl FnMut(&Rig<'_>, &Request, u32) -> Checked,
) -> Checked {
    let mut hand = Hand::of(rig, &lane.ring);
    for slot in 0..lane.ring.size() {
        let entry = layout::used_entry(slot);
        let canary = u16::from_le_bytes([CANARY; 2]);
        for at in [0, 2, 4, 6] {
            lane.ring.store_u16(Area::Device, entry + at, canary);
        }
    }
    let mut given = Vec::new();
    for _ in 0..count {
        let whole = lane.request(rig)?;
        let scattered = whole.scattered(rig, &[5, 7, 8])?;
        let request = match given.is_empty() && !lane.fits(&scattered, Cut::Whole) {
            true => whole,
            false => scattered,
        };
        let chain = links(&request, Cut::Whole);
        if !given.is_empty() && chain.len() > hand.room() {
            break;
        }
        given.push((hand.give(&chain)?, request));
    }
    let requests: Vec<Request> = given.iter().map(|(_, request)| request.clone()).collect();
    lane.ring.kick();
    lane.provoke(rig, &requests)?;
    let mut left = given.len();
    while left > 0 {
        spot(rig, "the use of a chain", || Ok(hand.entry().is_some()))?;
        // In order: one entry stands for several, and has the last one's length.
        for (id, len) in hand.take()? {
            left -= 1;
            let request = given.iter().find(|(given, _)| *given == id);
            let Some((_, request)) = request else {
                crate::checked::fail!("chain {id} came back, which was not given");
            };
            let len = len.unwrap_or(request.room());
            look(rig, request, len)?;
            lane.judge(rig, request, Completion { id, len })?;
        }
    }
    Ok(())
}

pub(super) fn sets_len_before_idx(bench: &Bench<'_>, variant: Variant) -> Checked {
    let times = bench.times(4, 1);
    let unset = u32::from_le_bytes([CANARY; 4]);
    let mut fresh = |_: &Rig<'_>, request: &Request, len: u32| {
        ensure!(
            len != unset,
            "used.idx went on, and used.len is not yet set"
        );
        let room = request.room();
        ensure!(
            len <= room,
            "used.len is {len} where {room} bytes are writable, as soon as used.idx went on"
        );
        Ok(())
    };
    for &traffic in bench.traffic()? {
        watch_anew(bench, variant, traffic, (6, 64), &mut fresh)?;
        // And in a queue of its own each, so that the first entry is looked at every time.
        for _ in 0..times {
            watch_anew(bench, variant, traffic, (1, 64), &mut fresh)?;
        }
    }
    Ok(())
}

/// Watches `count` chains on a live device of their own, with a queue of this size.
fn watch_anew(
    bench: &Bench<'_>,
    variant: Variant,
    traffic: Traffic,
    (count, size): (usize, u16),
    look: &mut impl FnMut(&Rig<'_>, &Request, u32) -> Checked,
) -> Checked {
    let (rig, mut lane) = live(bench, variant, traffic, size)?;
    let watched = watch_used(&rig, &mut lane, count, look);
    watched.map_err(|stop| stop.about(format_args!("{traffic:?}")))
}

pub(super) fn writes_before_idx(bench: &Bench<'_>, variant: Variant) -> Checked {
    if !bench.traffic()?.iter().any(|traffic| traffic.writes()) {
        skip!("its requests have nothing that a device writes");
    }
    let times = bench.times(4, 1);
    let mut look = |rig: &Rig<'_>, request: &Request, len: u32| written(rig, request, len);
    for &traffic in bench.traffic()?.iter().filter(|traffic| traffic.writes()) {
        watch_anew(bench, variant, traffic, (6, 64), &mut look)?;
        for _ in 0..times {
            watch_anew(bench, variant, traffic, (1, 64), &mut look)?;
        }
    }
    // For one that is full: used.idx is moved once for what may be many.
    let traffic = first_traffic(bench)?;
    if traffic.writes() {
        watch_anew(bench, variant, traffic, (12, 128), &mut look)?;
    }
    Ok(())
}

/// The first `len` bytes of a request's writable buffers are no longer as they were.
fn written(rig: &Rig<'_>, request: &Request, len: u32) -> Checked {
    let mut bytes = Vec::new();
    for piece in &request.writable {
        bytes.extend(rig.read(*piece));
    }
    bytes.truncate(len as usize);
    // That eight bytes come out like the canaries by chance happens once in 2^64.
    let canaries = [CANARY; 8];
    let untouched = bytes.windows(8).position(|window| window == canaries);
    if let Some(at) = untouched {
        crate::checked::fail!(
            "used.idx went on with used.len at {len}, and byte {at} is not written"
        );
    }
    Ok(())
}

pub(super) fn wraps(bench: &Bench<'_>, variant: Variant) -> Checked {
    for &traffic in bench.traffic()? {
        let about = |stop: crate::Stop| stop.about(format_args!("{traffic:?}"));
        // One by one across the wrap, each with a call.
        let (rig, mut lane) = live_at(bench, variant, traffic, 16, 65533)?;
        for _ in 0..6 {
            let calls = lane.ring.calls();
            let there = lane.ring.arm();
            ensure!(!there, "{traffic:?}: something is used before it was given");
            lane.exchange(&rig, 1, Cut::Whole).map_err(about)?;
            lane.ring.called(&rig, calls).map_err(about)?;
        }
        // There may be one device at a time.
        drop((rig, lane));
        // And batches that lie across it.
        let (rig, mut lane) = live_at(bench, variant, traffic, 16, 65530)?;
        for count in [4, 4, 4] {
            lane.exchange(&rig, count, Cut::Whole).map_err(about)?;
        }
        let end = 65530_u16.wrapping_add(12);
        let idx = lane.ring.load_u16(Area::Device, layout::IDX);
        ensure!(
            idx == end,
            "{traffic:?}: used.idx is {idx} after 12 chains from 65530 on"
        );
    }
    Ok(())
}

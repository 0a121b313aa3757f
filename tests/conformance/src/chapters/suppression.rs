//! Notification suppression (split).

use vdpa_core::Area;
use vdpa_ring::layout;

use super::peer::alone;
use super::ringside::{each, live_at, works_with_the_kicks_asked_for};
use super::{any, split};
use crate::checked::ensure;
use crate::lane::{Cut, Lane};
use crate::statement::Check::Rings;
use crate::statement::{Entry, device, driver, should};
use crate::{Bench, Checked, Rig, Variant};

pub(crate) const STATEMENTS: &[Entry] = &[
    device(
        84,
        "2.7.7.2",
        "Without EVENT_IDX used_event is ignored",
        Rings(by_flags, ignores_used_event),
    ),
    device(
        85,
        "2.7.7.2",
        "Without EVENT_IDX and flags 0 the device notifies",
        Rings(by_flags, notifies_by_flags),
    ),
    device(
        86,
        "2.7.7.2",
        "With EVENT_IDX the low flag bit is ignored",
        Rings(by_event, ignores_flags),
    ),
    device(
        87,
        "2.7.7.2",
        "With EVENT_IDX it notifies when idx passes used_event",
        Rings(by_event, notifies_by_event),
    ),
    should(
        88,
        "2.7.7.2",
        "Otherwise it stays silent",
        Rings(split, stays_silent),
    ),
    device(
        89,
        "2.7.10.2",
        "used.flags is 0 or 1; 0 with EVENT_IDX",
        Rings(split, keeps_its_flags),
    ),
    device(
        90,
        "2.7.10.2",
        "Spurious kicks are tolerated",
        Rings(any, takes_spurious_kicks),
    ),
    driver(
        91,
        "2.7.7.1",
        "Spurious interrupts are tolerated",
        Rings(any, takes_spurious_calls),
    ),
    driver(
        92,
        "2.7.10.1",
        "The driver kicks when flags are 0, or when idx passes avail_event",
        Rings(split, kicks_where_asked),
    ),
];

fn by_flags(variant: &Variant) -> bool {
    split(variant) && !variant.event_idx
}
fn by_event(variant: &Variant) -> bool {
    split(variant) && variant.event_idx
}

/// The driver's flags and used_event, behind the driver half's back, which here neither arms nor disarms.
fn ask(lane: &Lane, flags: u16, used_event: u16) {
    let event = layout::used_event(lane.ring.size());
    lane.ring.store_u16(Area::Driver, event, used_event);
    lane.ring.store_u16(Area::Driver, layout::FLAGS, flags);
}

fn used_idx(lane: &Lane) -> u16 {
    lane.ring.load_u16(Area::Device, layout::IDX)
}

/// Completes `count` requests and waits for a call.
fn called(rig: &Rig<'_>, lane: &mut Lane, count: u32) -> Checked {
    let calls = lane.ring.calls();
    let idx = used_idx(lane);
    lane.exchange(rig, count, Cut::Whole)?;
    lane.ring
        .called(rig, calls)
        .map_err(|stop| stop.about(format_args!("{count} chains from used.idx {idx} on")))
}

fn ignores_used_event(bench: &Bench<'_>, variant: Variant) -> Checked {
    each(bench, variant, 16, |rig, lane| {
        for off in [0, 1, 5, 0x7fff, 0x8000, 0xffff] {
            let event = used_idx(lane).wrapping_add(off);
            ask(lane, 0, event);
            called(rig, lane, 1)
                .map_err(|stop| stop.about(format_args!("flags 0 and used_event {event}")))?;
        }
        Ok(())
    })
}

fn notifies_by_flags(bench: &Bench<'_>, variant: Variant) -> Checked {
    each(bench, variant, 16, |rig, lane| {
        for count in [1, 1, 3, 1, 4] {
            lane.ring.arm();
            called(rig, lane, count)?;
            // It is asked for silence in between, and has to see that this is over.
            lane.ring.disarm();
            lane.exchange(rig, 1, Cut::Whole)?;
        }
        Ok(())
    })
}

fn ignores_flags(bench: &Bench<'_>, variant: Variant) -> Checked {
    each(bench, variant, 16, |rig, lane| {
        for flags in [1, 0, 1, 1] {
            let event = used_idx(lane);
            ask(lane, flags, event);
            called(rig, lane, 1)
                .map_err(|stop| stop.about(format_args!("flags {flags} with EVENT_IDX")))?;
        }
        Ok(())
    })
}

fn notifies_by_event(bench: &Bench<'_>, variant: Variant) -> Checked {
    let asked = |rig: &Rig<'_>, lane: &mut Lane| {
        // The first, the second and the last of four.
        for (count, off) in [(1, 0), (4, 0), (4, 1), (4, 3), (2, 1)] {
            let event = used_idx(lane).wrapping_add(off);
            ask(lane, 0, event);
            called(rig, lane, count)
                .map_err(|stop| stop.about(format_args!("used_event {event}")))?;
        }
        Ok(())
    };
    each(bench, variant, 16, asked)?;
    for &traffic in bench.traffic()? {
        // 65528 to 65536 + 7: an event on each side of the wrap, and batches that lie across it.
        let (rig, mut lane) = live_at(bench, variant, traffic, 16, 65528)?;
        asked(&rig, &mut lane).map_err(|stop| stop.about(format_args!("{traffic:?}")))?;
    }
    Ok(())
}

fn stays_silent(bench: &Bench<'_>, variant: Variant) -> Checked {
    each(bench, variant, 16, |rig, lane| {
        if variant.event_idx {
            // Five that do not pass used_event, and the sixth, which does: what has to come after it shows that it was
            // silent before.
            rig.bench().quiet();
            let before = lane.ring.calls();
            let event = used_idx(lane).wrapping_add(5);
            ask(lane, 0, event);
            for _ in 0..5 {
                lane.exchange(rig, 1, Cut::Whole)?;
            }
            called_once(rig, lane, before)?;
            // And one more, with the event passed.
            rig.bench().quiet();
            let before = lane.ring.calls();
            lane.exchange(rig, 2, Cut::Whole)?;
            rig.bench().quiet();
            let calls = lane.ring.calls() - before;
            return silent(calls, "used_event just passed");
        }
        ask(lane, 1, 0);
        // A device that looked at the flags before they were set.
        rig.bench().quiet();
        let before = lane.ring.calls();
        for _ in 0..5 {
            lane.exchange(rig, 1, Cut::Whole)?;
        }
        rig.bench().quiet();
        silent(lane.ring.calls() - before, "flags 1")
    })
}

fn called_once(rig: &Rig<'_>, lane: &mut Lane, before: u32) -> Checked {
    let early = lane.ring.calls() - before;
    silent(early, "used_event ahead")?;
    lane.exchange(rig, 1, Cut::Whole)?;
    lane.ring.called(rig, before)?;
    let calls = lane.ring.calls() - before;
    ensure!(
        calls == 1,
        "{calls} calls for six chains of which the last one passes used_event"
    );
    Ok(())
}

fn silent(calls: u32, asked: &str) -> Checked {
    ensure!(calls == 0, "{calls} calls with {asked}");
    Ok(())
}

fn keeps_its_flags(bench: &Bench<'_>, variant: Variant) -> Checked {
    each(bench, variant, 16, |rig, lane| {
        let legal: &[u16] = if variant.event_idx { &[0] } else { &[0, 1] };
        for round in 0..6 {
            let requests = [lane.request(rig)?, lane.request(rig)?];
            for request in &requests {
                lane.add(request, Cut::Whole)?;
            }
            lane.ring.publish();
            // While it is busy, and once it has gone quiet.
            lane.provoke(rig, &requests)?;
            let mut back = 0;
            rig.bench().until("the return of two chains", || {
                flags_are(lane, legal)?;
                back += lane.ring.poll()?.len();
                Ok(back >= 2)
            })?;
            if round % 3 == 0 {
                rig.bench().quiet();
            }
            flags_are(lane, legal)?;
        }
        Ok(())
    })
}

fn flags_are(lane: &Lane, legal: &[u16]) -> Checked {
    let flags = lane.ring.load_u16(Area::Device, layout::FLAGS);
    ensure!(
        legal.contains(&flags),
        "used.flags is {flags:#x}, where {legal:?} are legal"
    );
    Ok(())
}

fn takes_spurious_kicks(bench: &Bench<'_>, variant: Variant) -> Checked {
    each(bench, variant, 16, |rig, lane| {
        let kicks = |lane: &Lane| {
            for _ in 0..8 {
                lane.ring.kick();
            }
        };
        kicks(lane);
        for _ in 0..3 {
            lane.exchange(rig, 2, Cut::Whole)?;
            kicks(lane);
            // In the middle of what it does.
            let request = lane.request(rig)?;
            lane.add(&request, Cut::Whole)?;
            lane.ring.publish();
            kicks(lane);
            lane.provoke(rig, std::slice::from_ref(&request))?;
            for done in lane.ring.wait(rig, 1)? {
                lane.judge(rig, &request, done)?;
            }
            kicks(lane);
        }
        rig.bench().quiet();
        let more = lane.ring.poll()?;
        ensure!(more.is_empty(), "{more:?} came back, which was not given");
        let status = rig.status()?;
        ensure!(
            !status.contains(vdpa_core::Status::DEVICE_NEEDS_RESET),
            "the status reads {status} after kicks for nothing"
        );
        lane.exchange(rig, 1, Cut::Whole)
    })
}

fn takes_spurious_calls(bench: &Bench<'_>, variant: Variant) -> Checked {
    each(bench, variant, 16, |rig, lane| {
        let spurious = |lane: &mut Lane| {
            // The contract has a new call raised once, whatever there is to be told.
            let calls = lane.ring.calls();
            rig.device
                .replace_call(lane.ring.index(), lane.ring.call())?;
            lane.ring.called(rig, calls)?;
            let found = lane.ring.poll()?;
            ensure!(
                found.is_empty(),
                "a call for nothing, and the driver finds {found:?}"
            );
            Ok(())
        };
        for count in [1, 3] {
            spurious(lane)?;
            lane.ring.arm();
            spurious(lane)?;
            lane.exchange(rig, count, Cut::Whole)?;
            spurious(lane)?;
        }
        // Armed anew it gets those that are meant.
        let calls = lane.ring.calls();
        lane.ring.arm();
        lane.exchange(rig, 1, Cut::Whole)?;
        lane.ring.called(rig, calls)
    })
}

fn kicks_where_asked(bench: &Bench<'_>, variant: Variant) -> Checked {
    let (rig, mut ring, mut peer) = alone(bench, variant, 16)?;
    let buffer = rig.alloc(64)?;
    let event_at = layout::avail_event(ring.size());
    let mut idx = 0_u16;
    // Flags, avail_event from the index on, chains, and whether a kick is asked for.
    let cases: &[(u16, u16, u16, bool)] = match variant.event_idx {
        false => &[
            (0, 0, 1, true),
            (0, 7, 1, true),
            (0, 0xffff, 3, true),
            (1, 0, 1, false),
            (1, 1, 2, false),
        ],
        true => &[
            (0, 0, 1, true),
            (1, 0, 1, true),
            (0, 2, 3, true),
            (0, 0, 3, true),
            (0, 3, 3, false),
            (0, 1, 1, false),
            (0, 0xffff, 1, false),
            (1, 0x8000, 2, false),
        ],
    };
    for &(flags, off, chains, asked) in cases {
        peer.set_device_word(layout::FLAGS, flags);
        peer.set_device_word(event_at, idx.wrapping_add(off));
        for _ in 0..chains {
            ring.add(&[buffer], &[])?;
        }
        let kick = ring.publish_silently();
        ensure!(
            kick == asked,
            "avail.idx goes from {idx} on by {chains}, flags {flags}, avail_event {}: kick {kick}, not {asked}",
            idx.wrapping_add(off)
        );
        for _ in 0..chains {
            peer.give_back(0);
        }
        let back = ring.poll()?.len();
        ensure!(
            back == usize::from(chains),
            "{back} of {chains} chains came back"
        );
        idx = idx.wrapping_add(chains);
    }
    // There may be one device at a time.
    drop((rig, ring, peer));
    works_with_the_kicks_asked_for(bench, variant)
}

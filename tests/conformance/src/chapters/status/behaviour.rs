//! What a device does with its status, and before and after a reset.

use vdpa_core::{Event, Status, bits};

use super::{again, break_ring, first_difference, live};
use crate::checked::{ensure, fail, skip};
use crate::lane::{Cut, Lane, Traffic, packet};
use crate::rig::CANARY;
use crate::{Bench, Checked, Rig, Variant};

pub(super) fn reads_zero_after_reset(bench: &Bench<'_>) -> Checked {
    let rig = bench.open()?;
    rig.negotiate(rig.plain(Variant::SPLIT))?;
    rig.run()?;
    rig.reset()?;
    let read = rig.status()?;
    ensure!(read.is_empty(), "the status reads {read} after a reset");
    Ok(())
}

pub(super) fn consumes_nothing_before_driver_ok(bench: &Bench<'_>, variant: Variant) -> Checked {
    for &traffic in bench.traffic()? {
        let rig = bench.open()?;
        rig.negotiate(rig.plain(variant))?;
        let mut lane = Lane::start(&rig, traffic, 16)?;
        let request = lane.request(&rig)?;
        lane.add(&request, Cut::Whole)?;
        lane.ring.publish();
        lane.ring.kick();
        // What is received needs somebody who sends: a frame that no device may take yet either.
        let mut fed = 0;
        if let (Traffic::Receive, Some(transmit)) = (traffic, &mut lane.other) {
            let frame = rig.place(&packet(0))?;
            transmit.add(&[frame], &[])?;
            transmit.publish();
            transmit.kick();
            fed = 1;
        }
        bench.quiet();
        let back = lane.ring.poll()?.len();
        ensure!(
            back == 0,
            "{traffic:?}: {back} chains came back before DRIVER_OK"
        );
        if let Some(other) = &mut lane.other {
            let back = other.poll()?.len();
            ensure!(
                back == 0,
                "{traffic:?}: {back} chains of the other queue came back before DRIVER_OK"
            );
        }
        for piece in &request.writable {
            let written = rig.read(*piece).iter().filter(|b| **b != CANARY).count();
            ensure!(
                written == 0,
                "{traffic:?}: {written} bytes were written before DRIVER_OK"
            );
        }
        // Nothing is lost: the queue is looked at once the device is live.
        rig.run()?;
        if fed == 0 {
            lane.provoke(&rig, std::slice::from_ref(&request))?;
        }
        let done = lane.ring.wait(&rig, 1)?;
        if fed == 0 {
            for done in done {
                lane.judge(&rig, &request, done)?;
            }
        }
    }
    Ok(())
}

pub(super) fn calls_nobody_before_driver_ok(bench: &Bench<'_>, variant: Variant) -> Checked {
    for &traffic in bench.traffic()? {
        let rig = bench.open()?;
        rig.negotiate(rig.plain(variant))?;
        let mut lane = Lane::start(&rig, traffic, 16)?;
        lane.ring.arm();
        let request = lane.request(&rig)?;
        lane.add(&request, Cut::Whole)?;
        lane.ring.publish();
        lane.ring.kick();
        bench.quiet();
        let calls = lane.ring.calls();
        ensure!(calls == 0, "{traffic:?}: {calls} calls before DRIVER_OK");
        // It was not lost either: the queue is looked at once the device is live.
        rig.run()?;
        lane.provoke(&rig, std::slice::from_ref(&request))?;
        let done = lane.ring.wait(&rig, 1)?;
        for done in done {
            lane.judge(&rig, &request, done)?;
        }
    }
    Ok(())
}

/// A device whose error is no reason to set NEEDS_RESET is held to statement 5, and not to this one.
pub(super) fn needs_reset_is_told(bench: &Bench<'_>) -> Checked {
    let rig = bench.open()?;
    let lane = live(&rig, Variant::SPLIT)?;
    rig.forget_events();
    break_ring(&rig, &lane.ring)?;
    let mut unread = None;
    let shown = bench.until("NEEDS_RESET", || match rig.status() {
        Ok(read) => Ok(read.contains(Status::DEVICE_NEEDS_RESET)),
        Err(stop) => {
            unread = Some(stop);
            Ok(true)
        }
    });
    if let Some(stop) = unread {
        return Err(stop);
    }
    if shown.is_err() {
        skip!(
            "a broken ring does not make the device set NEEDS_RESET, so there is nothing to be told"
        );
    }
    match rig.event("that the device needs a reset", |e| {
        matches!(e, Event::NeedsReset { .. })
    })? {
        Event::NeedsReset { why, .. } => {
            ensure!(!why.is_empty(), "the event does not say what was wrong");
        }
        other => fail!("{other:?} where NEEDS_RESET is to be told"),
    }
    again(&rig)
}

pub(super) fn needs_reset_after_an_error(bench: &Bench<'_>, variant: Variant) -> Checked {
    let rig = bench.open()?;
    let lane = live(&rig, variant)?;
    break_ring(&rig, &lane.ring)?;
    rig.needs_reset()?;
    again(&rig)
}

/// A way to bring a device into some state.
type Into = fn(&Rig<'_>) -> Checked;

pub(super) fn resets_from_every_state(bench: &Bench<'_>) -> Checked {
    let states: [(&str, Into); 8] = [
        ("in reset", |_| Ok(())),
        ("ACKNOWLEDGE", |rig| {
            Ok(rig.device.write_status(Status::ACKNOWLEDGE.bits())?)
        }),
        ("FAILED", |rig| {
            let failed = Status::ACKNOWLEDGE | Status::FAILED;
            Ok(rig.device.write_status(failed.bits())?)
        }),
        ("negotiated", |rig| rig.negotiate(rig.plain(Variant::SPLIT))),
        ("live", |rig| live(rig, Variant::SPLIT).map(drop)),
        ("live, with requests under way", |rig| {
            let mut lane = live(rig, Variant::SPLIT)?;
            for _ in 0..lane.room().min(8) {
                let request = lane.request(rig)?;
                lane.add(&request, Cut::Whole)?;
            }
            lane.ring.publish();
            Ok(())
        }),
        ("with a broken ring", |rig| {
            let lane = live(rig, Variant::SPLIT)?;
            break_ring(rig, &lane.ring)?;
            // It may not say so, which is the affair of another statement.
            let _untold = rig.bench().until("NEEDS_RESET", || {
                Ok(rig.status()?.contains(Status::DEVICE_NEEDS_RESET))
            });
            Ok(())
        }),
        ("asked to suspend", |rig| {
            live(rig, Variant::SPLIT)?;
            if rig.device.negotiated().contains(bits::SUSPEND) {
                let ready = Status::ACKNOWLEDGE | Status::DRIVER | Status::FEATURES_OK;
                let written = ready | Status::DRIVER_OK | Status::SUSPEND;
                rig.device.write_status(written.bits())?;
            }
            Ok(())
        }),
    ];
    let rig = bench.open()?;
    for (name, enter) in states {
        let checked = enter(&rig).and_then(|()| {
            // Once more while it is under way: legal, and one reset.
            rig.device.write_status(0)?;
            rig.reset()?;
            let read = rig.status()?;
            ensure!(read.is_empty(), "the status reads {read} after a reset");
            Ok(())
        });
        checked.map_err(|stop| stop.about(name))?;
    }
    again(&rig)
}

pub(super) fn rests_after_reset(bench: &Bench<'_>, variant: Variant) -> Checked {
    for &traffic in bench.traffic()? {
        let rig = bench.open()?;
        rig.negotiate(rig.plain(variant))?;
        let mut lane = Lane::start(&rig, traffic, 16)?;
        rig.run()?;
        lane.exchange(&rig, 2, Cut::Whole)?;
        lane.ring.arm();
        // Some are under way when the reset comes.
        let some = lane.room().min(8) / 2;
        for _ in 0..some {
            let request = lane.request(&rig)?;
            lane.add(&request, Cut::Whole)?;
        }
        lane.ring.publish();
        rig.reset()?;
        // Some are shown to it, and kicked for, when it is over.
        let mut shown = Vec::new();
        for _ in 0..lane.room().min(some.max(1)) {
            let request = lane.request(&rig)?;
            shown.push(lane.add(&request, Cut::Whole)?);
        }
        lane.ring.publish_silently();
        // A call may be on its way, through another thread.
        bench.quiet();
        let (before, calls) = (rig.image(), lane.ring.calls());
        lane.ring.kick();
        if let Some(other) = &lane.other {
            other.kick();
        }
        bench.quiet();
        let after = rig.image();
        let touched = first_difference(&before, &after);
        ensure!(
            touched.is_none(),
            "{traffic:?}: memory was written after status 0, first at byte {touched:?} of {}",
            before.len()
        );
        // One that looks by itself may have been done before the first look.
        lane.ring
            .rests(&shown)
            .map_err(|stop| stop.about(format_args!("{traffic:?}")))?;
        let more = lane.ring.calls() - calls;
        ensure!(more == 0, "{traffic:?}: {more} calls after status 0");
        again(&rig)?;
    }
    Ok(())
}

//! Status and reset.

use std::time::Duration;

use vdpa_core::{Area, Device, Error, Event, Relay, Session, Status, bits};
use vdpa_mem::Deadline;

use super::{REGISTERS, any};
use crate::checked::{ensure, fail};
use crate::driven;
use crate::lane::{Cut, Lane, Traffic};
use crate::puppet::Script;
use crate::recorder::{Heard, Recorder};
use crate::rig::CANARY;
use crate::statement::Check::{Once, OutOfReach, Rings};
use crate::statement::{Entry, device, driver, should};
use crate::{Bench, Checked, Rig, Ring, Stop, Variant};

pub(crate) const STATEMENTS: &[Entry] = &[
    device(
        1,
        "2.1",
        "Status reads 0 after reset",
        Once(reads_zero_after_reset),
    ),
    device(
        2,
        "2.1.2",
        "No buffer is consumed before DRIVER_OK, even if kicked early",
        Rings(any, consumes_nothing_before_driver_ok),
    ),
    device(
        3,
        "2.1.2",
        "No used notification before DRIVER_OK",
        Rings(any, calls_nobody_before_driver_ok),
    ),
    device(
        4,
        "2.1.2",
        "NEEDS_RESET while DRIVER_OK is set raises a config-change notification",
        Once(needs_reset_is_told),
    ),
    should(
        5,
        "2.1.2",
        "An unrecoverable ring error raises NEEDS_RESET",
        Rings(any, needs_reset_after_an_error),
    ),
    driver(
        6,
        "2.1.1",
        "Status bits are cleared only by reset",
        Once(bits_stay_until_reset),
    ),
    driver(
        7,
        "2.1.1",
        "After FAILED, reset comes before a new initialisation",
        Once(failed_needs_a_reset),
    ),
    device(
        8,
        "2.4.1",
        "Reset leads to status 0",
        Once(resets_from_every_state),
    ),
    device(
        9,
        "2.4.1",
        "After status 0: no notification and no ring access (canary memory stays untouched)",
        Rings(any, rests_after_reset),
    ),
    driver(
        10,
        "4.1.4.3.2",
        "The driver side waits for status 0 before it initialises again, with a deadline",
        Once(waits_for_zero),
    ),
    device(
        11,
        "4.1.4.3.1",
        "Every queue_enable reads 0 after reset",
        OutOfReach(REGISTERS),
    ),
    device(
        12,
        "4.1.5.1.2.1",
        "All MSI-X vectors are unmapped after reset",
        OutOfReach(REGISTERS),
    ),
];

fn reads_zero_after_reset(bench: &Bench<'_>) -> Checked {
    let rig = bench.open()?;
    rig.negotiate(rig.plain(Variant::SPLIT))?;
    rig.run()?;
    rig.reset()?;
    let read = rig.status()?;
    ensure!(read.is_empty(), "the status reads {read} after a reset");
    Ok(())
}

fn consumes_nothing_before_driver_ok(bench: &Bench<'_>, variant: Variant) -> Checked {
    for &traffic in Traffic::of(bench.device_type())? {
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
            let frame = rig.place(&[0; 72])?;
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

fn calls_nobody_before_driver_ok(bench: &Bench<'_>, variant: Variant) -> Checked {
    for &traffic in Traffic::of(bench.device_type())? {
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

/// An error that no device goes on from in this queue: an available index that is ahead by more than the queue holds, or
/// a chain that has no end.
fn break_ring(rig: &Rig<'_>, ring: &Ring) -> Checked {
    const NEXT: u16 = 1;
    const AVAIL: u16 = 1 << 7;
    if ring.variant().is_packed() {
        let piece = rig.alloc(64)?;
        // The first one last, as a driver does: with it the device sees the others.
        for slot in (0..ring.size()).rev() {
            ring.put_descriptor(slot, piece.at, piece.len, [slot, NEXT | AVAIL]);
        }
    } else {
        let idx = ring.load_u16(Area::Driver, 2);
        let ahead = idx.wrapping_add(ring.size()).wrapping_add(1);
        ring.store_u16(Area::Driver, 2, ahead);
    }
    ring.kick();
    Ok(())
}

/// The traffic whose queue is looked at without more ado, and a live lane of it.
fn live(rig: &Rig<'_>, variant: Variant) -> Checked<Lane> {
    let traffic = match Traffic::of(rig.device.info().device_type)? {
        [first, ..] => *first,
        [] => fail!("no traffic"),
    };
    rig.negotiate(rig.plain(variant))?;
    let lane = Lane::start(rig, traffic, 16)?;
    rig.run()?;
    Ok(lane)
}

/// A device whose error is no reason to set NEEDS_RESET is held to statement 5, and not to this one.
fn needs_reset_is_told(bench: &Bench<'_>) -> Checked {
    let rig = bench.open()?;
    let lane = live(&rig, Variant::SPLIT)?;
    while rig.events.try_next().is_some() {}
    break_ring(&rig, &lane.ring)?;
    let shown = bench.until("NEEDS_RESET", || {
        Ok(rig.status()?.contains(Status::DEVICE_NEEDS_RESET))
    });
    if shown.is_err() {
        return Ok(());
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

fn needs_reset_after_an_error(bench: &Bench<'_>, variant: Variant) -> Checked {
    let rig = bench.open()?;
    let lane = live(&rig, variant)?;
    break_ring(&rig, &lane.ring)?;
    rig.needs_reset()?;
    again(&rig)
}

/// After a reset everything goes as if nothing had been.
fn again(rig: &Rig<'_>) -> Checked {
    rig.reset()?;
    let mut lane = live(rig, Variant::SPLIT)?;
    lane.exchange(rig, 1, Cut::Whole)
        .map_err(|stop| stop.about("after a reset"))
}

fn bits_stay_until_reset(bench: &Bench<'_>) -> Checked {
    let recorder = driven::recorded(bench)?;
    let rig = bench.rig(recorder.clone())?;
    let steps = [
        Status::ACKNOWLEDGE,
        Status::DRIVER,
        Status::FEATURES_OK,
        Status::DRIVER_OK,
    ];
    let mut lane = None;
    let mut set = Status::empty();
    for step in steps {
        if step == Status::FEATURES_OK {
            rig.device.accept(rig.plain(Variant::SPLIT))?;
        }
        if step == Status::DRIVER_OK {
            let traffic = Traffic::of(bench.device_type())?;
            lane = Some(Lane::start(&rig, traffic[0], 16)?);
        }
        set |= step;
        rig.device.write_status(set.bits())?;
        let read = rig.status()?;
        ensure!(
            read.contains(set),
            "{set} was set and the status reads {read}"
        );
        // Whoever leaves a bit out has not cleared it, and a device is not told that it was.
        for left_out in set.iter() {
            let written = set - left_out;
            if written.is_empty() {
                continue;
            }
            let from = recorder.len();
            let _refused = rig.device.write_status(written.bits());
            let read = rig.status()?;
            ensure!(
                read.contains(set),
                "{written} was written over {set}, and the status reads {read}"
            );
            let told = recorder.since(from);
            ensure!(
                told.iter().all(|heard| matches!(heard, Heard::Status(_))),
                "{written} was written over {set}, and the device was told: {told:?}"
            );
        }
    }
    if let Some(mut lane) = lane {
        lane.exchange(&rig, 1, Cut::Whole)?;
    }
    rig.reset()?;
    let read = rig.status()?;
    ensure!(read.is_empty(), "the status reads {read} after a reset");
    Ok(())
}

fn failed_needs_a_reset(bench: &Bench<'_>) -> Checked {
    let recorder = driven::recorded(bench)?;
    let device = Device::new(recorder.clone(), Relay::new())?;
    device.reset(bench.by())?;
    device.write_status(Status::ACKNOWLEDGE.bits())?;
    device.write_status((Status::ACKNOWLEDGE | Status::FAILED).bits())?;
    let read = device.status()?;
    ensure!(
        read.contains(Status::FAILED),
        "FAILED was written and the status reads {read}"
    );
    // Nobody gets past it without a reset.
    device.accept(crate::rig::plain(
        device.info().device_type,
        device.offered(),
        Variant::SPLIT,
    ))?;
    let ready = Status::ACKNOWLEDGE | Status::DRIVER | Status::FAILED;
    for next in [Status::FEATURES_OK, Status::DRIVER_OK] {
        let written = ready | next;
        let taken = device.write_status(written.bits());
        let read = device.status()?;
        ensure!(
            taken.is_err() && !read.contains(next),
            "{written} was written after FAILED: {taken:?}, and the status reads {read}"
        );
    }
    // Our own driver resets it before anything else.
    let from = recorder.len();
    let session = Session::open(device, bench.by()).map_err(driven::lost)?;
    let heard = recorder.since(from);
    let reset = heard.iter().position(|h| *h == Heard::BeginReset);
    let began = heard.iter().position(|h| matches!(h, Heard::AddStatus(_)));
    ensure!(
        reset.is_some() && began.is_some() && reset < began,
        "a session began without a reset: {heard:?}"
    );
    let read = session.device().status()?;
    ensure!(
        !read.contains(Status::FAILED),
        "the status reads {read} after a reset and a new beginning"
    );
    Ok(())
}

/// A way to bring a device into some state.
type Into = fn(&Rig<'_>) -> Checked;

fn resets_from_every_state(bench: &Bench<'_>) -> Checked {
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
            for _ in 0..8 {
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

fn rests_after_reset(bench: &Bench<'_>, variant: Variant) -> Checked {
    for &traffic in Traffic::of(bench.device_type())? {
        let rig = bench.open()?;
        rig.negotiate(rig.plain(variant))?;
        let mut lane = Lane::start(&rig, traffic, 16)?;
        rig.run()?;
        lane.exchange(&rig, 2, Cut::Whole)?;
        lane.ring.arm();
        // Some are under way when the reset comes.
        for _ in 0..4 {
            let request = lane.request(&rig)?;
            lane.add(&request, Cut::Whole)?;
        }
        lane.ring.publish();
        rig.reset()?;
        // Some are shown to it, and kicked for, when it is over.
        for _ in 0..4 {
            let request = lane.request(&rig)?;
            lane.add(&request, Cut::Whole)?;
        }
        lane.ring.publish_silently();
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
        let more = lane.ring.calls() - calls;
        ensure!(more == 0, "{traffic:?}: {more} calls after status 0");
        again(&rig)?;
    }
    Ok(())
}

/// Where two images of the same memory differ first.
pub(crate) fn first_difference(before: &[u8], after: &[u8]) -> Option<usize> {
    before.iter().zip(after).position(|(a, b)| a != b)
}

fn waits_for_zero(bench: &Bench<'_>) -> Checked {
    // One that takes its time.
    let slow = Script {
        resets_after: Some(40),
        ..Script::plain(bench.device_type())
    };
    let recorder = Recorder::around(slow.make());
    let device = Device::new(recorder.clone(), Relay::new())?;
    device.write_status(Status::ACKNOWLEDGE.bits())?;
    let from = recorder.len();
    let session = Session::open(device, bench.by()).map_err(driven::lost)?;
    waited(&recorder.since(from))?;
    drop(session);

    // The target's own.
    let recorder = driven::recorded(bench)?;
    let mut session = driven::running(bench, recorder.clone(), Variant::SPLIT)?;
    driven::request(bench, &mut session)?;
    let device = session.close(bench.by()).map_err(driven::lost)?;
    let from = recorder.len();
    let session = Session::open(device, bench.by()).map_err(driven::lost)?;
    waited(&recorder.since(from))?;
    drop(session);

    // One that never gets there: the wait ends, and nothing more was begun.
    let never = Script {
        resets_after: None,
        ..Script::plain(bench.device_type())
    };
    let recorder = Recorder::around(never.make());
    let device = Device::new(recorder.clone(), Relay::new())?;
    device.write_status(Status::ACKNOWLEDGE.bits())?;
    let from = recorder.len();
    let soon = Deadline::after(Duration::from_millis(20));
    match Session::open(device, soon) {
        Err((_device, Error::Timeout { .. })) => {}
        Err((_device, e)) => fail!("a reset that does not end: {e}"),
        Ok(_) => fail!("a session began although the reset did not end"),
    }
    let begun = recorder
        .since(from)
        .into_iter()
        .filter(|h| !matches!(h, Heard::Status(_) | Heard::BeginReset))
        .collect::<Vec<_>>();
    ensure!(
        begun.is_empty(),
        "the reset did not end, and the device was told: {begun:?}"
    );
    Ok(())
}

/// Between a reset and what comes next the status was read as 0.
fn waited(heard: &[Heard]) -> Checked {
    let Some(reset) = heard.iter().rposition(|h| *h == Heard::BeginReset) else {
        fail!("no reset was begun: {heard:?}");
    };
    let after = &heard[reset..];
    let next = after.iter().position(|h| matches!(h, Heard::AddStatus(_)));
    let zero = |h: &Heard| *h == Heard::Status(Status::empty());
    let seen = after.iter().position(zero);
    match (seen, next) {
        (Some(seen), Some(next)) if seen < next => Ok(()),
        (_, None) => Err(Stop::failed("nothing was begun after the reset")),
        _ => fail!("the next step came before the status was read as 0: {after:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_that_does_not_wait_is_found() {
        let begin = Heard::AddStatus(Status::ACKNOWLEDGE);
        let read = |status| Heard::Status(status);
        let waits = [
            Heard::BeginReset,
            read(Status::DRIVER),
            read(Status::empty()),
            begin.clone(),
        ];
        waited(&waits).unwrap();
        let hasty = [Heard::BeginReset, read(Status::DRIVER), begin.clone()];
        assert!(waited(&hasty).is_err());
        let late = [Heard::BeginReset, begin, read(Status::empty())];
        assert!(waited(&late).is_err());
    }
}

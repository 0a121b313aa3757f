//! What our own driver side does with a status.

use std::time::Duration;

use vdpa_core::{Device, Error, Relay, Session, Status};
use vdpa_mem::Deadline;

use crate::checked::{ensure, fail};
use crate::driven;
use crate::lane::{Cut, Lane};
use crate::puppet::Script;
use crate::recorder::{Heard, Recorder};
use crate::{Bench, Checked, Stop, Variant};

pub(super) fn bits_stay_until_reset(bench: &Bench<'_>) -> Checked {
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
            let traffic = bench.traffic()?;
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

pub(super) fn failed_needs_a_reset(bench: &Bench<'_>) -> Checked {
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

pub(super) fn waits_for_zero(bench: &Bench<'_>) -> Checked {
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

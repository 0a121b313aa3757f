//! Suspend (1.4).

use std::time::Duration;

use vdpa_core::config::{self, Writable};
use vdpa_core::{Error, Event, QueueState, Session, Status, bits};
use vdpa_mem::Deadline;

use super::any;
use super::config::{change, image};
use super::status::first_difference;
use crate::checked::{ensure, fail, skip};
use crate::driven;
use crate::lane::{Cut, Lane, Request, Traffic};
use crate::puppet::Script;
use crate::recorder::{Heard, Recorder};
use crate::statement::Check::{Once, Rings};
use crate::statement::{Entry, device, driver, should};
use crate::{Bench, Checked, Rig, Stop, Variant};

pub(crate) const STATEMENTS: &[Entry] = &[
    device(
        57,
        "3.4.2",
        "SUSPEND is ignored before initialisation is complete",
        Once(ignored_before_live),
    ),
    device(
        58,
        "3.4.2",
        "The device either suspends or sets NEEDS_RESET",
        Rings(any, suspends_or_needs_reset),
    ),
    device(
        59,
        "3.4.2",
        "While suspended: no queue access, no notification, no config change",
        Rings(any, rests_while_suspended),
    ),
    device(
        60,
        "3.4.2",
        "A held-back config notification is sent on resume",
        Once(config_is_told_on_resume),
    ),
    device(
        61,
        "3.4.2",
        "Writing DRIVER_OK resumes or sets NEEDS_RESET",
        Rings(any, resumes_or_needs_reset),
    ),
    should(
        62,
        "3.4.2",
        "In-flight buffers are used and notified before SUSPEND shows",
        Rings(any, drained_before_suspended),
    ),
    driver(
        63,
        "3.4.1",
        "The driver side reads back SUSPEND=1 and DRIVER_OK=0",
        Once(suspend_is_read_back),
    ),
    driver(
        64,
        "3.4.1",
        "No new buffers, kicks or config writes while suspended",
        Once(driver_rests),
    ),
    driver(
        65,
        "3.4.1",
        "Resume waits for SUSPEND=0 and DRIVER_OK=1",
        Once(resume_is_waited_for),
    ),
];

const READY: Status = Status::ACKNOWLEDGE
    .union(Status::DRIVER)
    .union(Status::FEATURES_OK);
const LIVE: Status = READY.union(Status::DRIVER_OK);
const SUSPENDED: Status = READY.union(Status::SUSPEND);

/// What came of a change of the status byte.
#[derive(PartialEq)]
enum Came {
    AsAsked,
    NeedsReset,
}

/// Writes `written`, and waits until of SUSPEND and DRIVER_OK only `shows` is set, or the device needs a reset.
pub(super) fn turn(rig: &Rig<'_>, written: Status, shows: Status) -> Checked {
    match turned(rig, written, shows)? {
        Came::AsAsked => Ok(()),
        Came::NeedsReset => fail!("the device needs a reset where {shows} is to show"),
    }
}

fn turned(rig: &Rig<'_>, written: Status, shows: Status) -> Checked<Came> {
    rig.device.write_status(written.bits())?;
    let mut came = Came::AsAsked;
    let both = Status::SUSPEND | Status::DRIVER_OK;
    let mut read = Status::empty();
    let waited = rig.bench().until("a change of the status", || {
        read = rig.status()?;
        if read.contains(Status::DEVICE_NEEDS_RESET) {
            came = Came::NeedsReset;
            return Ok(true);
        }
        Ok(read & both == shows & both)
    });
    waited.map_err(|stop| {
        stop.about(format!(
            "{written} was written for {shows}, and the status reads {read}"
        ))
    })?;
    Ok(came)
}

/// A live device with SUSPEND negotiated.
fn live<'b>(bench: &'b Bench<'b>, variant: Variant, traffic: Traffic) -> Checked<(Rig<'b>, Lane)> {
    bench.require(bits::SUSPEND)?;
    let rig = bench.open()?;
    rig.negotiate(rig.plain(variant))?;
    let lane = Lane::start(&rig, traffic, 16)?;
    rig.run()?;
    Ok((rig, lane))
}

fn first(bench: &Bench<'_>) -> Checked<Traffic> {
    match Traffic::of(bench.device_type())? {
        [first, ..] => Ok(*first),
        [] => skip!("no traffic"),
    }
}

fn ignored_before_live(bench: &Bench<'_>) -> Checked {
    bench.require(bits::SUSPEND)?;
    let rig = bench.open()?;
    let ignored = |set: Status, stage: &str| {
        // Refusing the write is a way to ignore it: the driver sees it in the bit that is not set.
        let _refused = rig.device.write_status((set | Status::SUSPEND).bits());
        rig.bench().quiet();
        let read = rig.status()?;
        ensure!(
            !read.contains(Status::SUSPEND) && read.contains(set),
            "SUSPEND was written {stage}, over {set}, and the status reads {read}"
        );
        Ok(())
    };
    ignored(Status::empty(), "in reset")?;
    let device = &rig.device;
    device.write_status(Status::ACKNOWLEDGE.bits())?;
    ignored(Status::ACKNOWLEDGE, "before DRIVER")?;
    let known = Status::ACKNOWLEDGE | Status::DRIVER;
    device.write_status(known.bits())?;
    ignored(known, "before FEATURES_OK")?;
    device.accept(rig.plain(Variant::SPLIT))?;
    device.write_status(READY.bits())?;
    ignored(READY, "before DRIVER_OK")?;
    // It all made no difference.
    let mut lane = Lane::start(&rig, first(bench)?, 16)?;
    rig.run()?;
    lane.exchange(&rig, 1, Cut::Whole)?;
    // Nor does the bit where its feature is not negotiated.
    rig.reset()?;
    rig.negotiate(rig.plain(Variant::SPLIT).without(bits::SUSPEND))?;
    let mut lane = Lane::start(&rig, first(bench)?, 16)?;
    rig.run()?;
    ignored(LIVE, "without the feature")?;
    lane.exchange(&rig, 1, Cut::Whole)
}

fn suspends_or_needs_reset(bench: &Bench<'_>, variant: Variant) -> Checked {
    let (rig, mut lane) = live(bench, variant, first(bench)?)?;
    lane.exchange(&rig, 1, Cut::Whole)?;
    if turned(&rig, LIVE | Status::SUSPEND, SUSPENDED)? == Came::NeedsReset {
        return rig.reset();
    }
    bench.quiet();
    let read = rig.status()?;
    ensure!(
        read == SUSPENDED,
        "it was suspended, and the status reads {read}"
    );
    // Once more: it is suspended.
    turn(&rig, SUSPENDED, SUSPENDED)
}

fn rests_while_suspended(bench: &Bench<'_>, variant: Variant) -> Checked {
    for &traffic in Traffic::of(bench.device_type())? {
        let (rig, mut lane) = live(bench, variant, traffic)?;
        lane.exchange(&rig, 2, Cut::Whole)?;
        // What is received waits for a frame, which comes while the device is suspended.
        let mut requests = vec![lane.request(&rig)?];
        lane.ring.arm();
        if traffic == Traffic::Receive {
            lane.add(&requests[0], Cut::Whole)?;
            lane.ring.publish();
        }
        turn(&rig, LIVE | Status::SUSPEND, SUSPENDED)?;
        while rig.events.try_next().is_some() {}
        if traffic != Traffic::Receive {
            lane.add(&requests[0], Cut::Whole)?;
            lane.ring.publish_silently();
        }
        requests.push(lane.request(&rig)?);
        lane.add(&requests[1], Cut::Whole)?;
        lane.ring.publish_silently();
        show_frames(&rig, &mut lane, &requests)?;
        let config = image(&rig)?;
        let written = write_a_field(&rig, &config);
        if let Ok(change) = change(&rig) {
            // Not every target can be changed from outside; the rest is asked of all.
            match bench.manage(&rig, change) {
                Ok(()) | Err(Stop::Skipped(_)) => {}
                Err(failed) => return Err(failed),
            }
        }
        let (before, calls) = (rig.image(), lane.ring.calls());
        lane.ring.kick();
        if let Some(other) = &lane.other {
            other.kick();
        }
        bench.quiet();
        let touched = first_difference(&before, &rig.image());
        ensure!(
            touched.is_none(),
            "{traffic:?}: memory was written while suspended, first at byte {touched:?}"
        );
        let more = lane.ring.calls() - calls;
        ensure!(more == 0, "{traffic:?}: {more} calls while suspended");
        let changed = first_difference(&config, &image(&rig)?);
        ensure!(
            changed.is_none(),
            "{traffic:?}: byte {changed:?} of the configuration changed while suspended (written to: {written:?})"
        );
        let told = std::iter::from_fn(|| rig.events.try_next()).collect::<Vec<_>>();
        ensure!(
            !told.contains(&Event::Config),
            "{traffic:?}: a change of the configuration was told while suspended"
        );
        // A link that went down meanwhile carries nothing: it is what comes back that is not looked at then.
        turn(&rig, LIVE, LIVE)?;
    }
    Ok(())
}

/// Publishes the frames that a receive queue waits for, and does not kick.
fn show_frames(rig: &Rig<'_>, lane: &mut Lane, requests: &[Request]) -> Checked {
    if lane.traffic != Traffic::Receive {
        return Ok(());
    }
    let Some(transmit) = &mut lane.other else {
        return Ok(());
    };
    for _ in requests {
        let frame = rig.place(&[0; 72])?;
        transmit.add(&[frame], &[])?;
        transmit.publish_silently();
    }
    Ok(())
}

/// Writes another value to a field that the driver may write, if there is one; says to which.
fn write_a_field(rig: &Rig<'_>, config: &[u8]) -> Option<&'static str> {
    let (device_type, features) = (rig.device.info().device_type, rig.device.negotiated());
    let mut fields = config::fields(device_type).iter();
    let field = fields.find(|f| f.writable() == Writable::ByDriver && f.exists(features))?;
    let at = field.offset() as usize;
    let other: Vec<u8> = config.get(at..at + field.width() as usize)?.to_vec();
    let other: Vec<u8> = other.iter().map(|byte| byte ^ 1).collect();
    // Refusing it is a way to ignore it.
    let _refused = rig.device.write_config(field.offset(), &other);
    Some(field.name())
}

fn config_is_told_on_resume(bench: &Bench<'_>) -> Checked {
    let (rig, _lane) = live(bench, Variant::SPLIT, first(bench)?)?;
    let change = change(&rig)?;
    let before = image(&rig)?;
    turn(&rig, LIVE | Status::SUSPEND, SUSPENDED)?;
    while rig.events.try_next().is_some() {}
    bench.manage(&rig, change)?;
    bench.quiet();
    while let Some(event) = rig.events.try_next() {
        ensure!(
            event != Event::Config,
            "a change of the configuration was told while suspended"
        );
    }
    turn(&rig, LIVE, LIVE)?;
    rig.event("that the configuration changed", |e| *e == Event::Config)?;
    ensure!(
        image(&rig)? != before,
        "a change was told on resume, and there is none"
    );
    Ok(())
}

fn resumes_or_needs_reset(bench: &Bench<'_>, variant: Variant) -> Checked {
    for &traffic in Traffic::of(bench.device_type())? {
        let (rig, mut lane) = live(bench, variant, traffic)?;
        for round in 0..2 {
            turn(&rig, LIVE | Status::SUSPEND, SUSPENDED)?;
            // With SUSPEND in the byte or without: DRIVER_OK is the bit that is set.
            let written = match round {
                0 => LIVE,
                _ => LIVE | Status::SUSPEND,
            };
            if turned(&rig, written, LIVE)? == Came::NeedsReset {
                return rig.reset();
            }
            lane.exchange(&rig, 2, Cut::Whole)
                .map_err(|stop| stop.about(format!("{traffic:?}, after a resume")))?;
        }
    }
    Ok(())
}

fn drained_before_suspended(bench: &Bench<'_>, variant: Variant) -> Checked {
    for &traffic in Traffic::of(bench.device_type())? {
        let (rig, mut lane) = live(bench, variant, traffic)?;
        lane.ring.arm();
        let mut requests = Vec::new();
        for _ in 0..6 {
            let request = lane.request(&rig)?;
            lane.add(&request, Cut::Whole)?;
            requests.push(request);
        }
        lane.ring.publish();
        if traffic == Traffic::Receive {
            show_frames(&rig, &mut lane, &requests)?;
            if let Some(transmit) = &lane.other {
                transmit.kick();
            }
        }
        turn(&rig, LIVE | Status::SUSPEND, SUSPENDED)?;
        let (back, calls) = (lane.ring.poll()?.len(), lane.ring.calls());
        ensure!(
            back == 0 || calls > 0,
            "{traffic:?}: {back} buffers were used, and nothing was told of it before SUSPEND showed"
        );
        let state = rig.device.queue_state(lane.index())?;
        let in_flight = match state {
            QueueState::Split { avail, used } => used.map(|used| avail.wrapping_sub(used)),
            QueueState::Packed { avail, used } => avail.since(used, lane.ring.size()),
        };
        ensure!(
            in_flight.is_none_or(|count| count == 0),
            "{traffic:?}: {in_flight:?} are in flight while SUSPEND shows: {state:?}"
        );
        bench.quiet();
        let late = lane.ring.poll()?.len();
        let more = lane.ring.calls() - calls;
        ensure!(
            late == 0 && more == 0,
            "{traffic:?}: {late} buffers and {more} calls came after SUSPEND showed"
        );
        // What it had not begun with it does now.
        turn(&rig, LIVE, LIVE)?;
        if let Some(transmit) = &lane.other {
            transmit.kick();
        }
        lane.ring.kick();
        lane.ring
            .wait(&rig, requests.len() - back)
            .map_err(|stop| stop.about(format!("{traffic:?}, of which {back} came before")))?;
    }
    Ok(())
}

/// A session on a scripted device, live.
fn scripted(
    bench: &Bench<'_>,
    script: Script,
) -> Checked<(
    std::sync::Arc<Recorder>,
    Session<vdpa_core::session::Running>,
)> {
    let recorder = Recorder::around(script.make());
    let session = driven::open(bench, recorder.clone())?;
    let most = session.acceptable();
    let session = session.negotiate(most).map_err(driven::lost)?;
    Ok((recorder, session.run().map_err(driven::lost)?))
}

fn suspend_is_read_back(bench: &Bench<'_>) -> Checked {
    let plain = || Script::plain(bench.device_type());
    // One that takes its time.
    let slow = Script {
        suspends_after: Some(30),
        ..plain()
    };
    let (recorder, session) = scripted(bench, slow)?;
    let session = session.suspend(bench.by()).map_err(driven::lost)?;
    ensure!(
        session.device().status()? == SUSPENDED,
        "a session is suspended, and the status reads {}",
        session.device().status()?
    );
    ensure!(
        recorder
            .heard()
            .contains(&Heard::SuspendPolled { done: true }),
        "a session is suspended, and the device was not seen to be"
    );
    drop(session);
    // One that never is.
    let never = Script {
        suspends_after: None,
        ..plain()
    };
    let (_recorder, session) = scripted(bench, never)?;
    let soon = Deadline::after(Duration::from_millis(20));
    match session.suspend(soon) {
        Err((_, Error::Timeout { .. })) => {}
        Err((_, e)) => fail!("a suspend that does not end: {e}"),
        Ok(_) => fail!("a session is suspended, and the device is not"),
    }
    // The target's own.
    bench.require(bits::SUSPEND)?;
    let recorder = driven::recorded(bench)?;
    let mut session = driven::running(bench, recorder.clone(), Variant::SPLIT)?;
    driven::request(bench, &mut session)?;
    let session = session.suspend(bench.by()).map_err(driven::lost)?;
    let read = session.device().status()?;
    ensure!(
        read == SUSPENDED,
        "a session is suspended, and the status reads {read}"
    );
    Ok(())
}

fn driver_rests(bench: &Bench<'_>) -> Checked {
    bench.require(bits::SUSPEND)?;
    let recorder = driven::recorded(bench)?;
    let mut session = driven::running(bench, recorder.clone(), Variant::SPLIT)?;
    driven::request(bench, &mut session)?;
    let session = session.suspend(bench.by()).map_err(driven::lost)?;
    // It may look.
    let size = session.device().info().config_size;
    session.read_config(0, &mut vec![0; size as usize])?;
    // What a driver must not do is not passed on to the device either.
    let refused = session.device().write_config(0, &[]);
    ensure!(
        refused.is_err(),
        "a write to the configuration is let through while suspended"
    );
    let mut session = session.resume(bench.by()).map_err(driven::lost)?;
    driven::request(bench, &mut session)?;
    rested(&recorder.heard())
}

/// From a suspend to its resume there was no kick, no write and no start of a queue; and there were kicks afterwards.
fn rested(heard: &[Heard]) -> Checked {
    let begun = heard.iter().position(|h| *h == Heard::Suspend);
    let ended = heard.iter().position(|h| *h == Heard::Resume);
    let (Some(begun), Some(ended)) = (begun, ended) else {
        fail!("no suspend and resume: {heard:?}");
    };
    let disturbs = |h: &&Heard| {
        matches!(
            h,
            Heard::Kick(_) | Heard::WriteConfig { .. } | Heard::Start(..)
        )
    };
    if let Some(disturbs) = heard[begun..ended].iter().find(disturbs) {
        fail!("while suspended: {disturbs:?}");
    }
    ensure!(
        heard[ended..].iter().any(|h| matches!(h, Heard::Kick(_))),
        "no kick came after the resume"
    );
    Ok(())
}

fn resume_is_waited_for(bench: &Bench<'_>) -> Checked {
    let slow = |looks| Script {
        resumes_after: looks,
        ..Script::plain(bench.device_type())
    };
    let (recorder, session) = scripted(bench, slow(30))?;
    let session = session.suspend(bench.by()).map_err(driven::lost)?;
    let session = session.resume(bench.by()).map_err(driven::lost)?;
    read_live(&recorder.heard())?;
    drop(session);
    // One that never shows it.
    let (_recorder, session) = scripted(bench, slow(u32::MAX))?;
    let session = session.suspend(bench.by()).map_err(driven::lost)?;
    let soon = Deadline::after(Duration::from_millis(20));
    match session.resume(soon) {
        Err((_, Error::Timeout { .. })) => {}
        Err((_, e)) => fail!("a resume that does not end: {e}"),
        Ok(_) => fail!("a session runs, and the device does not"),
    }
    // The target's own.
    bench.require(bits::SUSPEND)?;
    let recorder = driven::recorded(bench)?;
    let session = driven::running(bench, recorder.clone(), Variant::SPLIT)?;
    let session = session.suspend(bench.by()).map_err(driven::lost)?;
    let mut session = session.resume(bench.by()).map_err(driven::lost)?;
    read_live(&recorder.heard())?;
    driven::request(bench, &mut session)
}

/// After the resume the status was read as that of a live device.
fn read_live(heard: &[Heard]) -> Checked {
    let resumed = heard.iter().position(|h| *h == Heard::Resume);
    let after = heard.get(resumed.unwrap_or(heard.len())..);
    let live = |h: &Heard| matches!(h, Heard::Status(s) if s.contains(Status::DRIVER_OK));
    match after.unwrap_or_default().iter().any(live) {
        true => Ok(()),
        false => fail!("the status was not read as live after the resume: {heard:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vdpa_core::QueueIndex;

    #[test]
    fn a_driver_that_does_not_rest_is_found() {
        let kick = Heard::Kick(QueueIndex::new(0));
        let good = [kick.clone(), Heard::Suspend, Heard::Resume, kick.clone()];
        rested(&good).unwrap();
        let bad = [Heard::Suspend, kick.clone(), Heard::Resume, kick];
        assert!(rested(&bad).is_err());
        assert!(rested(&good[..3]).is_err());
        let write = Heard::WriteConfig { at: 0, len: 1 };
        assert!(rested(&[Heard::Suspend, write, Heard::Resume]).is_err());
    }

    #[test]
    fn a_resume_that_is_not_read_back_is_found() {
        let good = [Heard::Resume, Heard::Status(LIVE)];
        read_live(&good).unwrap();
        assert!(read_live(&[Heard::Status(LIVE), Heard::Resume]).is_err());
        assert!(read_live(&[Heard::Resume, Heard::Status(READY)]).is_err());
    }
}

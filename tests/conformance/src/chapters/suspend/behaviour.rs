//! What a device does when it is suspended, and resumed.

use std::sync::Arc;

use vdpa_core::config::{self, Writable};
use vdpa_core::{Event, QueueState, Status, VdpaDevice, bits};

use super::super::config::{Change, Undo, change, image};
use super::super::status::first_difference;
use super::{LIVE, READY, SUSPENDED};
use crate::checked::{ensure, skip};
use crate::driven;
use crate::lane::{Cut, Lane, Request, Traffic, packet};
use crate::recorder::{Heard, Recorder};
use crate::{Bench, Checked, Rig, Stop, Variant};

/// What came of a change of the status byte.
#[derive(PartialEq)]
enum Came {
    AsAsked,
    NeedsReset,
}

/// Writes `written`, and waits until of SUSPEND and DRIVER_OK only `shows` is set, or the device needs a reset.
fn turn(rig: &Rig<'_>, written: Status, shows: Status) -> Checked {
    match turned(rig, written, shows)? {
        Came::AsAsked => Ok(()),
        // It may, virtio 1.4 §3.4.2, and whoever asks what comes after it finds nothing then.
        Came::NeedsReset => skip!("the device needs a reset where {shows} was asked for"),
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
    live_around(bench, bench.make()?, variant, traffic)
}

fn live_around<'b>(
    bench: &'b Bench<'b>,
    parent: Arc<dyn VdpaDevice>,
    variant: Variant,
    traffic: Traffic,
) -> Checked<(Rig<'b>, Lane)> {
    bench.require(bits::SUSPEND)?;
    let rig = bench.rig(parent)?;
    rig.negotiate(rig.plain(variant))?;
    let lane = Lane::start(&rig, traffic, 16)?;
    rig.run()?;
    Ok((rig, lane))
}

fn first(bench: &Bench<'_>) -> Checked<Traffic> {
    match bench.traffic()? {
        [first, ..] => Ok(*first),
        [] => skip!("no traffic"),
    }
}

pub(super) fn ignored_before_live(bench: &Bench<'_>) -> Checked {
    bench.require(bits::SUSPEND)?;
    // The framework ignores it for its parents, which hear of a suspend only while they are live. What a device adds is
    // that it shows none by itself, and works afterwards.
    let recorder = driven::recorded(bench)?;
    let rig = bench.rig(recorder.clone())?;
    let ignored = |set: Status, stage: &str| {
        let from = recorder.len();
        // Refusing the write is a way to ignore it: the driver sees it in the bit that is not set.
        let _refused = rig.device.write_status((set | Status::SUSPEND).bits());
        let told = recorder.since(from);
        let suspends = |h: &Heard| match h {
            Heard::Suspend => true,
            Heard::AddStatus(bits) => bits.contains(Status::SUSPEND),
            _ => false,
        };
        ensure!(
            !told.iter().any(suspends),
            "SUSPEND was written {stage}, and the device was told: {told:?}"
        );
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

pub(super) fn suspends_or_needs_reset(bench: &Bench<'_>, variant: Variant) -> Checked {
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

pub(super) fn rests_while_suspended(bench: &Bench<'_>, variant: Variant) -> Checked {
    for &traffic in bench.traffic()? {
        let recorder = driven::recorded(bench)?;
        let (rig, mut lane) = live_around(bench, recorder.clone(), variant, traffic)?;
        lane.exchange(&rig, 2, Cut::Whole)?;
        // What is received waits for a frame, which comes while the device is suspended.
        let mut requests = vec![lane.request(&rig)?];
        lane.ring.arm();
        if traffic == Traffic::Receive {
            lane.add(&requests[0], Cut::Whole)?;
            lane.ring.publish();
        }
        turn(&rig, LIVE | Status::SUSPEND, SUSPENDED)?;
        rig.forget_events();
        let mut shown = Vec::new();
        if traffic != Traffic::Receive {
            shown.push(lane.add(&requests[0], Cut::Whole)?);
            lane.ring.publish_silently();
        }
        if lane.room() > 0 {
            requests.push(lane.request(&rig)?);
            shown.push(lane.add(&requests[1], Cut::Whole)?);
            lane.ring.publish_silently();
        }
        show_frames(&rig, &mut lane, &requests)?;
        let config = image(&rig)?;
        let written = write_a_field(&rig, &recorder, &config)?;
        let mut undo = None;
        if let Ok(Change { to, back }) = change(&rig) {
            // Not every target can be changed from outside; the rest is asked of all.
            undo = Some(Undo {
                rig: &rig,
                to: back,
            });
            match bench.manage(&rig, to) {
                Ok(()) | Err(Stop::Skipped(_)) => {}
                Err(failed) => return Err(failed),
            }
        }
        // A call may be on its way, through another thread.
        bench.quiet();
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
        // One that looks by itself may have been done before the first look.
        lane.ring
            .rests(&shown)
            .map_err(|stop| stop.about(format_args!("{traffic:?}")))?;
        let more = lane.ring.calls() - calls;
        ensure!(more == 0, "{traffic:?}: {more} calls while suspended");
        let changed = first_difference(&config, &image(&rig)?);
        ensure!(
            changed.is_none(),
            "{traffic:?}: byte {changed:?} of the configuration changed while suspended (written to: {written:?})"
        );
        let told = rig.told();
        ensure!(
            !told.contains(&Event::Config),
            "{traffic:?}: a change of the configuration was told while suspended"
        );
        // A link that went down meanwhile carries nothing: it is what comes back that is not looked at then.
        turn(&rig, LIVE, LIVE)?;
        drop(undo);
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
    let free = transmit.half().free().into();
    for _ in requests.iter().take(free) {
        let frame = rig.place(&packet(0))?;
        transmit.add(&[frame], &[])?;
        transmit.publish_silently();
    }
    Ok(())
}

/// Writes another value to a field that the driver may write, if there is one; says to which.
fn write_a_field(
    rig: &Rig<'_>,
    recorder: &Recorder,
    config: &[u8],
) -> Checked<Option<&'static str>> {
    let (device_type, features) = (rig.device.info().device_type, rig.device.negotiated());
    let mut fields = config::fields(device_type).iter();
    let Some(field) = fields.find(|f| f.writable() == Writable::ByDriver && f.exists(features))
    else {
        return Ok(None);
    };
    let at = field.offset() as usize;
    let bytes = config.get(at..at + field.width() as usize);
    let other: Vec<u8> = bytes.unwrap_or_default().iter().map(|b| b ^ 1).collect();
    let from = recorder.len();
    // Refusing it is a way to ignore it, which the framework does for its parents.
    let _refused = rig.device.write_config(field.offset(), &other);
    let told = recorder.since(from);
    ensure!(
        !told.iter().any(|h| matches!(h, Heard::WriteConfig { .. })),
        "{} was written while suspended, and the device was told: {told:?}",
        field.name()
    );
    Ok(Some(field.name()))
}

pub(super) fn config_is_told_on_resume(bench: &Bench<'_>) -> Checked {
    let (rig, _lane) = live(bench, Variant::SPLIT, first(bench)?)?;
    let Change { to, back } = change(&rig)?;
    let before = image(&rig)?;
    turn(&rig, LIVE | Status::SUSPEND, SUSPENDED)?;
    rig.forget_events();
    let _undo = Undo {
        rig: &rig,
        to: back,
    };
    bench.manage(&rig, to)?;
    bench.quiet();
    ensure!(
        !rig.told().contains(&Event::Config),
        "a change of the configuration was told while suspended"
    );
    turn(&rig, LIVE, LIVE)?;
    rig.event("that the configuration changed", |e| *e == Event::Config)?;
    ensure!(
        image(&rig)? != before,
        "a change was told on resume, and there is none"
    );
    Ok(())
}

pub(super) fn resumes_or_needs_reset(bench: &Bench<'_>, variant: Variant) -> Checked {
    for &traffic in bench.traffic()? {
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

pub(super) fn drained_before_suspended(bench: &Bench<'_>, variant: Variant) -> Checked {
    for &traffic in bench.traffic()? {
        let (rig, mut lane) = live(bench, variant, traffic)?;
        lane.ring.arm();
        let mut requests = Vec::new();
        for _ in 0..lane.room().min(6) {
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
        let back = lane.ring.poll()?.len();
        if back > 0 {
            // A call may be on its way, through another thread.
            let what = format!("{traffic:?}: a call for {back} buffers used before SUSPEND showed");
            bench.until(&what, || Ok(lane.ring.calls() > 0))?;
        }
        bench.quiet();
        let calls = lane.ring.calls();
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

//! The order in which our own driver side begins, virtio 1.4 §3.1.1.

use vdpa_core::{QueueIndex, Session, Status};

use crate::checked::{ensure, fail};
use crate::driven;
use crate::puppet::Script;
use crate::recorder::{Heard, Recorder};
use crate::{Bench, Checked, Stop, Variant};

/// A session from its beginning to its first request, written down.
fn beginning(bench: &Bench<'_>, variant: Variant) -> Checked<Vec<Heard>> {
    let recorder = driven::recorded(bench)?;
    let mut session = driven::running(bench, recorder.clone(), variant)?;
    driven::request(bench, &mut session)?;
    Ok(recorder.heard())
}

pub(super) fn in_order(bench: &Bench<'_>, variant: Variant) -> Checked {
    order(&beginning(bench, variant)?)
}

/// The first of each step comes after all of the step before it.
fn order(heard: &[Heard]) -> Checked {
    let set =
        |bits: Status| move |h: &Heard| matches!(h, Heard::AddStatus(s) if s.intersects(bits));
    let read = |bits: Status| move |h: &Heard| matches!(h, Heard::Status(s) if s.contains(bits));
    type Step<'s> = (&'s str, Box<dyn Fn(&Heard) -> bool>);
    let steps: [Step<'_>; 8] = [
        ("the reset", Box::new(|h| *h == Heard::BeginReset)),
        ("ACKNOWLEDGE", Box::new(set(Status::ACKNOWLEDGE))),
        ("DRIVER", Box::new(set(Status::DRIVER))),
        ("the features", Box::new(|h| matches!(h, Heard::Accept(_)))),
        ("FEATURES_OK", Box::new(set(Status::FEATURES_OK))),
        (
            "the look at FEATURES_OK",
            Box::new(read(Status::FEATURES_OK)),
        ),
        ("the queues", Box::new(|h| matches!(h, Heard::Start(..)))),
        ("DRIVER_OK", Box::new(set(Status::DRIVER_OK))),
    ];
    let mut done: Option<(&str, usize)> = None;
    for (name, is) in &steps {
        let Some(first) = heard.iter().position(is) else {
            fail!("{name} did not come: {heard:?}");
        };
        if let Some((before, last)) = done {
            ensure!(
                last < first,
                "{name} came before {before} was over: {heard:?}"
            );
        }
        // Reading is not over: the status may be looked at at any time.
        let last = match *name {
            "the look at FEATURES_OK" => first,
            _ => heard.iter().rposition(is).unwrap_or(first),
        };
        done = Some((name, last));
    }
    Ok(())
}

pub(super) fn no_write_in_the_feature_step(bench: &Bench<'_>) -> Checked {
    let recorder = driven::recorded(bench)?;
    let session = driven::open(bench, recorder.clone())?;
    // It may look.
    let size = session.device().info().config_size;
    let mut config = vec![0; size as usize];
    session.read_config(0, &mut config)?;
    let wanted = crate::rig::plain(session.device_type(), session.offered(), Variant::SPLIT);
    drop(session.negotiate(wanted).map_err(driven::lost)?);
    let heard = recorder.heard();
    drop(recorder);
    wrote_nothing(&heard)?;
    wrote_nothing(&beginning(bench, Variant::SPLIT)?)
}

/// Nothing was written to the configuration before FEATURES_OK.
fn wrote_nothing(heard: &[Heard]) -> Checked {
    let agreed = |h: &Heard| matches!(h, Heard::AddStatus(s) if s.contains(Status::FEATURES_OK));
    let end = heard.iter().position(agreed).unwrap_or(heard.len());
    let wrote = |h: &&Heard| matches!(h, Heard::WriteConfig { .. });
    match heard[..end].iter().find(wrote) {
        None => Ok(()),
        Some(wrote) => fail!("before FEATURES_OK: {wrote:?}"),
    }
}

pub(super) fn no_kick_before_driver_ok(bench: &Bench<'_>, variant: Variant) -> Checked {
    kicked_late(&beginning(bench, variant)?)
}

/// The first kick comes once the device is live, and one comes.
fn kicked_late(heard: &[Heard]) -> Checked {
    let live = |h: &Heard| matches!(h, Heard::AddStatus(s) if s.contains(Status::DRIVER_OK));
    let kick = |h: &Heard| matches!(h, Heard::Kick(_));
    match (heard.iter().position(live), heard.iter().position(kick)) {
        (Some(live), Some(kick)) if live < kick => Ok(()),
        (_, None) => fail!("no kick came: {heard:?}"),
        _ => fail!("a kick before DRIVER_OK: {heard:?}"),
    }
}

pub(super) fn stops(bench: &Bench<'_>) -> Checked {
    let plain = || Script::plain(bench.device_type());
    // A device that does not agree.
    let script = Script {
        agrees: false,
        ..plain()
    };
    let recorder = Recorder::around(script.make());
    let session = driven::open(bench, recorder.clone())?;
    let most = session.acceptable();
    let session = match session.negotiate(most) {
        Err((session, _)) => session,
        Ok(_) => fail!("a session is configured although FEATURES_OK did not stick"),
    };
    went_no_further(&recorder.heard())?;
    drop(session);

    // One that cannot start its queues.
    let script = Script {
        starts: false,
        ..plain()
    };
    let recorder = Recorder::around(script.make());
    let session = driven::open(bench, recorder.clone())?;
    let most = session.acceptable();
    let mut session = session.negotiate(most).map_err(driven::lost)?;
    session.queue(QueueIndex::new(0), Default::default())?;
    let session: Session<_> = match session.run() {
        Err((session, _)) => session,
        Ok(_) => fail!("a session runs although its queue was not started"),
    };
    let heard = recorder.heard();
    ensure!(
        !heard.iter().any(is_live),
        "a queue was not started, and then DRIVER_OK was set: {heard:?}"
    );
    drop(session);
    Ok(())
}

fn is_live(heard: &Heard) -> bool {
    matches!(heard, Heard::AddStatus(s) if s.contains(Status::DRIVER_OK))
}

/// After FEATURES_OK that did not stick: no queue, no DRIVER_OK.
fn went_no_further(heard: &[Heard]) -> Checked {
    let further = |h: &&Heard| is_live(h) || matches!(h, Heard::Start(..));
    match heard.iter().find(further) {
        None => Ok(()),
        Some(further) => Err(Stop::failed(format!(
            "FEATURES_OK did not stick, and then: {further:?}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vdpa_core::{Features, QueueConfig};
    use vdpa_mem::Iova;

    fn good() -> Vec<Heard> {
        let negotiated = Status::ACKNOWLEDGE | Status::DRIVER | Status::FEATURES_OK;
        let at = Iova::new(0);
        let q = QueueIndex::new(0);
        vec![
            Heard::BeginReset,
            Heard::Status(Status::empty()),
            Heard::AddStatus(Status::ACKNOWLEDGE),
            Heard::AddStatus(Status::DRIVER),
            Heard::Accept(Features::NONE),
            Heard::AddStatus(Status::FEATURES_OK),
            Heard::Status(negotiated),
            Heard::Start(q, QueueConfig::new(8, at, at, at)),
            Heard::AddStatus(Status::DRIVER_OK),
            Heard::Status(negotiated | Status::DRIVER_OK),
            Heard::Kick(q),
        ]
    }

    #[test]
    fn a_step_that_is_missing_or_out_of_order_is_found() {
        order(&good()).unwrap();
        for missing in [0, 2, 3, 4, 5, 7, 8] {
            let mut heard = good();
            heard.remove(missing);
            assert!(order(&heard).is_err(), "{missing}: {heard:?}");
        }
        for first in [2, 3, 4, 5, 6, 7] {
            let mut heard = good();
            heard.swap(first, first + 1);
            assert!(order(&heard).is_err(), "{first}: {heard:?}");
        }
    }

    #[test]
    fn what_comes_too_early_is_found() {
        let (mut wrote, mut kicked) = (good(), good());
        wrote_nothing(&wrote).unwrap();
        wrote.insert(4, Heard::WriteConfig { at: 0, len: 1 });
        assert!(wrote_nothing(&wrote).is_err());
        kicked_late(&kicked).unwrap();
        kicked.insert(8, Heard::Kick(QueueIndex::new(0)));
        assert!(kicked_late(&kicked).is_err());
        assert!(went_no_further(&good()[..8]).is_err());
        went_no_further(&good()[..7]).unwrap();
    }
}

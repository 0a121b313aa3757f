//! What our own driver side does while a device is suspended.

use std::sync::Arc;
use std::time::Duration;

use vdpa_core::session::Running;
use vdpa_core::{Error, Session, Status, bits};
use vdpa_mem::Deadline;

use super::SUSPENDED;
use crate::checked::{ensure, fail};
use crate::driven;
use crate::puppet::Script;
use crate::recorder::{Heard, Recorder};
use crate::{Bench, Checked, Variant};

/// A session on a scripted device, live.
fn scripted(bench: &Bench<'_>, script: Script) -> Checked<(Arc<Recorder>, Session<Running>)> {
    let recorder = Recorder::around(script.make());
    let session = driven::open(bench, recorder.clone())?;
    let most = session.acceptable();
    let session = session.negotiate(most).map_err(driven::lost)?;
    Ok((recorder, session.run().map_err(driven::lost)?))
}

pub(super) fn suspend_is_read_back(bench: &Bench<'_>) -> Checked {
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

pub(super) fn driver_rests(bench: &Bench<'_>) -> Checked {
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

pub(super) fn resume_is_waited_for(bench: &Bench<'_>) -> Checked {
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
    use super::super::{LIVE, READY};
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

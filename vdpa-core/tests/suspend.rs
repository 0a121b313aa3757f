//! Two may suspend a device: its owner, and the driver by the status byte. Neither sees the other.
#![cfg(not(loom))]

mod tiny;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use tiny::*;
use vdpa_core::*;

fn live() -> (Arc<Tiny>, Device) {
    let (tiny, device) = configured(Tiny::default(), SPLIT);
    device
        .start_queue(q(0), config(), Kick::Taken, Call::None)
        .unwrap();
    device.write_status(0x0f).unwrap();
    (tiny, device)
}

fn count(tiny: &Tiny, what: &str) -> usize {
    tiny.log().iter().filter(|line| *line == what).count()
}

fn shown(device: &Device) -> u8 {
    device.status().unwrap().bits()
}

#[test]
fn a_suspended_status_reads_suspend_without_driver_ok_and_takes_the_same_byte_again() {
    for byte in [0x1b, 0x1f] {
        let (tiny, device) = live();
        device.write_status(byte).unwrap();
        assert_eq!(shown(&device), 0x1b);
        device.write_status(0x1b).unwrap();
        assert_eq!(shown(&device), 0x1b);
        assert_eq!(count(&tiny, "suspend"), 1);
        assert_eq!(device.queue_state(q(0)).unwrap(), PAUSED);
        assert!(device.restore_class_state(&[1, 2, 3]).is_err(), "too late");
        device.save_class_state().unwrap();
        device.write_status(0x0f).unwrap();
        assert_eq!(shown(&device), 0x0f);
        assert_eq!(count(&tiny, "resume"), 1);
    }
}

#[test]
fn the_owners_resume_does_not_undo_the_drivers_suspend() {
    let (tiny, device) = live();
    device.write_status(0x1b).unwrap();
    assert!(device.poll_suspend().is_err(), "the owner did not begin it");
    assert!(device.resume().is_err(), "nor can it end it");
    device.suspend(soon()).unwrap();
    device.resume().unwrap();
    assert_eq!(shown(&device), 0x1b);
    assert_eq!(count(&tiny, "resume"), 0);
    device.write_status(0x0f).unwrap();
    assert_eq!((shown(&device), count(&tiny, "resume")), (0x0f, 1));
    assert_eq!(count(&tiny, "suspend"), 1);
}

#[test]
fn the_drivers_suspend_while_the_owner_holds_is_not_lost_at_the_owners_resume() {
    let (tiny, device) = live();
    device.suspend(soon()).unwrap();
    assert_eq!(shown(&device), 0x0f, "the driver does not see it");
    device.write_status(0x1f).unwrap();
    assert_eq!(shown(&device), 0x1b);
    device.resume().unwrap();
    assert_eq!((shown(&device), count(&tiny, "resume")), (0x1b, 0));
    device.suspend(soon()).unwrap();
    device.write_status(0x0f).unwrap();
    assert_eq!((shown(&device), count(&tiny, "resume")), (0x0f, 0));
    device.resume().unwrap();
    assert_eq!(count(&tiny, "resume"), 1);
}

#[test]
fn a_suspend_that_is_under_way_cannot_be_resumed_yet() {
    let (tiny, device) = live();
    tiny.slow.store(u32::MAX, Ordering::SeqCst);
    device.write_status(0x1b).unwrap();
    assert_eq!(shown(&device), 0x0f);
    let early = device.write_status(0x0f).unwrap_err();
    assert_eq!(early.kind(), ErrorKind::Busy, "{early}");
    device.begin_suspend().unwrap();
    assert_eq!(device.poll_suspend().unwrap(), Poll::Pending);
    // The owner still holds, so there is nothing to wait for.
    device.write_status(0x0f).unwrap();
    assert_eq!(device.resume().unwrap_err().kind(), ErrorKind::Busy);
    tiny.left.store(0, Ordering::SeqCst);
    device.suspend(soon()).unwrap();
    assert_eq!(shown(&device), 0x0f, "the driver took it back");
    device.resume().unwrap();
    assert_eq!(count(&tiny, "resume"), 1);
}

#[test]
fn a_byte_that_is_refused_does_not_make_the_device_live() {
    for byte in [0x2f, 0x1f, 0x4f] {
        let (_tiny, device) = open(Tiny::default());
        device.reset(soon()).unwrap();
        device.accept(SPLIT).unwrap();
        let refused = device.write_status(byte).unwrap_err();
        assert!(matches!(refused, Error::StatusRefused { .. }), "{refused}");
        assert_eq!(shown(&device), 0x03, "{byte:#x}");
    }
}

#[test]
fn a_session_suspends_by_the_status_and_reads_it_back() {
    let (tiny, device) = open(Tiny::default());
    let session = Session::open(device, soon()).map_err(|(_, e)| e).unwrap();
    let session = session.negotiate(SPLIT).map_err(|(_, e)| e).unwrap();
    let session = session.run().map_err(|(_, e)| e).unwrap();
    tiny.slow.store(20, Ordering::SeqCst);
    let (session, late) = session.suspend(now()).unwrap_err();
    assert!(matches!(late, Error::Timeout { .. }), "{late}");
    let session = session.suspend(soon()).map_err(|(_, e)| e).unwrap();
    assert_eq!(shown(session.device()), 0x1b);
    assert_eq!(count(&tiny, "suspend"), 1);
    let session = session.resume(soon()).map_err(|(_, e)| e).unwrap();
    assert_eq!(shown(session.device()), 0x0f);

    let host = tiny.host.get().unwrap();
    host.events.raise(Event::NeedsReset {
        queue: None,
        why: "test".into(),
    });
    let (_, lost) = session.suspend(soon()).unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::Misuse, "{lost}");
}

#[test]
fn a_session_without_the_feature_suspends_by_the_capability() {
    let (tiny, device) = open(Tiny::default());
    let session = Session::open(device, soon()).map_err(|(_, e)| e).unwrap();
    let plain = SPLIT.without(bits::SUSPEND);
    let session = session.negotiate(plain).map_err(|(_, e)| e).unwrap();
    let session = session.run().map_err(|(_, e)| e).unwrap();
    let session = session.suspend(soon()).map_err(|(_, e)| e).unwrap();
    assert_eq!(count(&tiny, "suspend"), 1);
    assert_eq!(shown(session.device()), 0x0f);
    assert!(session.resume(soon()).is_ok());
    assert_eq!(count(&tiny, "resume"), 1);
}

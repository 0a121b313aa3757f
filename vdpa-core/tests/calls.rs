//! Calls are the user's code: what it does when it runs, waits, panics or is dropped must hold up nobody else.
#![cfg(not(loom))]

mod tiny;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use tiny::*;
use vdpa_core::*;

/// The results of `run` on a thread of its own, so that a deadlock is a failure and not a hang.
fn apart<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
    let (done, is_done) = channel();
    std::thread::spawn(move || done.send(run()));
    is_done
}

fn in_time<T>(from: &Receiver<T>, what: &str) -> T {
    let answer = from.recv_timeout(Duration::from_secs(5));
    answer.unwrap_or_else(|_| panic!("{what} is held up"))
}

fn started(tiny: Tiny) -> (Arc<Tiny>, Arc<Device>) {
    let (tiny, device) = configured(tiny, SPLIT);
    device
        .start_queue(q(0), config(), Kick::Taken, Call::None)
        .unwrap();
    (tiny, Arc::new(device))
}

/// Replaces the call of queue 0 by one that waits for `lock`, on a thread; returns once it waits.
fn replace_and_wait(device: &Arc<Device>, lock: &Arc<Mutex<()>>) -> Receiver<Result<()>> {
    let entered = Arc::new(AtomicBool::new(false));
    let call = Call::from_fn({
        let (entered, lock) = (entered.clone(), lock.clone());
        move || {
            entered.store(true, Ordering::SeqCst);
            drop(lock.lock().unwrap());
        }
    });
    let replaced = apart({
        let device = device.clone();
        move || device.replace_call(q(0), call)
    });
    let start = Instant::now();
    while !entered.load(Ordering::SeqCst) {
        assert!(start.elapsed() < Duration::from_secs(5), "never raised");
        std::thread::yield_now();
    }
    replaced
}

#[test]
fn a_closure_that_waits_while_it_replaces_another_does_not_deadlock_status() {
    let (_tiny, device) = started(Tiny::default());
    let lock = Arc::new(Mutex::new(()));
    let mine = lock.lock().unwrap();
    let replaced = replace_and_wait(&device, &lock);

    let status = apart({
        let device = device.clone();
        move || device.status()
    });
    in_time(&status, "status").unwrap();
    // The queue itself is busy until then, and no other one is.
    let busy = [
        device.begin_stop_queue(q(0)).unwrap_err(),
        device.begin_reset_queue(q(0)).unwrap_err(),
        device.replace_call(q(0), Call::None).unwrap_err(),
        device
            .start_queue(q(0), config(), Kick::Taken, Call::None)
            .unwrap_err(),
    ];
    for error in busy {
        assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
        assert!(error.to_string().contains("replacement"), "{error}");
    }
    device
        .start_queue(q(1), config(), Kick::Taken, Call::None)
        .unwrap();
    device.stop_queue(q(1), soon()).unwrap();

    drop(mine);
    in_time(&replaced, "replace_call").unwrap();
    device.replace_call(q(0), Call::None).unwrap();
    assert_eq!(device.stop_queue(q(0), soon()).unwrap(), PAUSED);
}

#[test]
fn a_reset_during_a_replacement_cuts_it_off_and_the_queue_starts_after_it() {
    let mut tiny = Tiny::default();
    tiny.info.calls = CallKind::Any;
    let (_tiny, device) = started(tiny);
    let lock = Arc::new(Mutex::new(()));
    let mine = lock.lock().unwrap();
    let replaced = replace_and_wait(&device, &lock);

    device.reset(soon()).unwrap();
    device.accept(SPLIT).unwrap();
    device.write_status(0x0b).unwrap();
    let start = || device.start_queue(q(0), config(), Kick::Taken, Call::None);
    // The parent is still at the old one.
    assert_eq!(start().unwrap_err().kind(), ErrorKind::Busy);
    drop(mine);
    let error = in_time(&replaced, "replace_call").unwrap_err();
    assert!(matches!(error, Error::Interrupted { .. }), "{error}");
    start().unwrap();
}

/// Asks the device for its status when it is dropped.
struct Asks(Weak<Device>, Arc<AtomicU32>);

impl Drop for Asks {
    fn drop(&mut self) {
        if let Some(device) = self.0.upgrade() {
            device.status().unwrap();
            self.1.fetch_add(1, Ordering::SeqCst);
        }
    }
}

#[test]
fn a_closure_whose_start_is_refused_is_dropped_outside_the_lock() {
    for kind in [CallKind::Any, CallKind::EventFd] {
        let mut tiny = Tiny::default();
        tiny.info.calls = kind;
        tiny.refuses = AtomicBool::new(true);
        let (_tiny, device) = configured(tiny, SPLIT);
        let device = Arc::new(device);
        let asked = Arc::new(AtomicU32::new(0));
        let asks = Asks(Arc::downgrade(&device), asked.clone());
        let call = Call::from_fn(move || {
            let _ = &asks;
        });
        let refused = apart({
            let device = device.clone();
            move || {
                device
                    .start_queue(q(0), config(), Kick::Taken, call)
                    .map(drop)
            }
        });
        in_time(&refused, "start_queue").unwrap_err();
        assert_eq!(asked.load(Ordering::SeqCst), 1, "{kind:?}");
    }
}

#[test]
fn a_closure_that_panics_leaves_the_raiser_alive_and_can_be_replaced() {
    for kind in [CallKind::Any, CallKind::EventFd] {
        let mut tiny = Tiny::default();
        tiny.info.calls = kind;
        let (tiny, device) = started(tiny);
        let bad = || Call::from_fn(|| panic!("on purpose"));
        device.replace_call(q(0), bad()).unwrap();
        tiny.raise(0);
        tiny.raise(0);
        let count = Arc::new(AtomicU32::new(0));
        let good = Call::from_fn({
            let count = count.clone();
            move || {
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        device.replace_call(q(0), good).unwrap();
        tiny.raise(0);
        let start = Instant::now();
        while count.load(Ordering::SeqCst) == 0 {
            assert!(start.elapsed() < Duration::from_secs(5));
            std::thread::yield_now();
        }
        device.reset(soon()).unwrap();
    }
}

#[test]
fn a_reset_just_after_a_stop_was_begun_tells_the_waiter_that_it_was_cut_off() {
    for round in 0..300 {
        let (tiny, device) = started(Tiny::default());
        tiny.slow.store(u32::MAX, Ordering::SeqCst);
        let (stop, log) = match round % 3 {
            0 => (0, "pause 0"),
            1 => (1, "reset 0"),
            _ => {
                device.write_status(0x0f).unwrap();
                (2, "suspend")
            }
        };
        let waiting = apart({
            let device = device.clone();
            move || match stop {
                0 => device.stop_queue(q(0), soon()).map(drop),
                1 => device.reset_queue(q(0), soon()),
                _ => device.suspend(soon()),
            }
        });
        while tiny.log().last().map(String::as_str) != Some(log) {
            std::hint::spin_loop();
        }
        tiny.slow.store(0, Ordering::SeqCst);
        device.reset(soon()).unwrap();
        let error = in_time(&waiting, log).unwrap_err();
        assert!(matches!(error, Error::Interrupted { .. }), "{log}: {error}");
    }
}

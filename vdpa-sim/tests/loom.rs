//! A command to stop a queue against a kick, in every interleaving: neither is lost, and once the stop is answered the
//! queue is not looked at again.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p vdpa-sim --release --test loom`. Preemptions are bounded to three a thread.
#![cfg(loom)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::thread;
use vdpa_core::model::{Guard, remove};
use vdpa_core::{Bell, Sleeper};

use mailbox::Mailbox;

#[path = "../src/mailbox.rs"]
#[allow(dead_code, reason = "the model uses a part of it")]
mod mailbox;

/// What the worker of the model is told.
enum Command {
    Stop,
}

struct Model {
    sleeper: Arc<Sleeper>,
    bell: Arc<Bell>,
    mailbox: Mailbox<Command>,
    /// What the driver put into the ring.
    ring: AtomicUsize,
    /// The device's side of the queue: the worker's alone until the stop is answered.
    queue: UnsafeCell<usize>,
    stopped: AtomicBool,
}

/// The worker's loop, as a crew has it, for one queue. Without `until` it ends with the stop.
fn work(model: &Model, until: Option<usize>) {
    loop {
        for Command::Stop in model.mailbox.take() {
            model.stopped.store(true, Ordering::Release);
            return;
        }
        if model.bell.take() {
            let seen = model.ring.load(Ordering::Relaxed);
            model.queue.with_mut(|_| ());
            if until == Some(seen) {
                return;
            }
        }
        let pending = || model.mailbox.is_pending() || model.bell.is_pending();
        model.sleeper.sleep_unless(pending, None, |_| {}).unwrap();
    }
}

fn model(control: bool) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let sleeper = Sleeper::new().unwrap();
        let model = Arc::new(Model {
            bell: Bell::new(&sleeper),
            mailbox: Mailbox::new(&sleeper),
            sleeper,
            ring: AtomicUsize::new(0),
            queue: UnsafeCell::new(0),
            stopped: AtomicBool::new(false),
        });
        let driver = model.clone();
        let worker = model.clone();
        let until = if control { None } else { Some(1) };
        let worker = thread::spawn(move || work(&worker, until));
        let driver = thread::spawn(move || {
            driver.ring.store(1, Ordering::Relaxed);
            driver.bell.ring();
        });
        if control {
            model.mailbox.post(Command::Stop);
            while !model.stopped.load(Ordering::Acquire) {
                thread::yield_now();
            }
            // Stopped: the queue is ours. The model checker reports any other access at the same time.
            model.queue.with_mut(|_| ());
        }
        driver.join().unwrap();
        worker.join().unwrap();
    });
}

#[test]
fn a_stop_and_a_kick_are_not_lost_and_a_stopped_queue_is_left_alone() {
    remove(None);
    model(false);
    model(true);
    for guard in [Guard::Ring, Guard::Sleep] {
        for control in [false, true] {
            remove(Some(guard));
            let outcome = catch_unwind(AssertUnwindSafe(|| model(control)));
            remove(None);
            assert!(
                outcome.is_err(),
                "the model does not notice that {guard:?} is gone"
            );
        }
    }
}

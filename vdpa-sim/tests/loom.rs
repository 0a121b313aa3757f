//! Commands against what comes at the same time, in every interleaving: a stop and a reset against a kick, a suspend
//! against a completion. Nothing is lost, and once a command is answered its queue is left alone.
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

use joint::Joint;
use mailbox::Mailbox;

#[path = "../src/team/joint.rs"]
mod joint;
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

fn explore(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

fn fails_without(guard: Guard, model: impl FnOnce()) {
    remove(Some(guard));
    let outcome = catch_unwind(AssertUnwindSafe(model));
    remove(None);
    assert!(outcome.is_err(), "the model passes without {guard:?}");
}

fn model(control: bool) {
    explore(move || {
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

/// What a worker has of a device, and how it is told of.
struct Team {
    sleeper: Arc<Sleeper>,
    /// The driver's kicks, or the backend's completions.
    bell: Arc<Bell>,
    mailbox: Mailbox<Arc<Joint>>,
    /// The device's side of the queue.
    queue: UnsafeCell<()>,
    /// Where it stands.
    used: AtomicUsize,
}

impl Team {
    fn new() -> Arc<Self> {
        let sleeper = Sleeper::new().unwrap();
        Arc::new(Self {
            bell: Bell::new(&sleeper),
            mailbox: Mailbox::new(&sleeper),
            sleeper,
            queue: UnsafeCell::new(()),
            used: AtomicUsize::new(0),
        })
    }

    fn sleep(&self) {
        let pending = || self.mailbox.is_pending() || self.bell.is_pending();
        self.sleeper.sleep_unless(pending, None, |_| {}).unwrap();
    }
}

fn wait_for(all: &Joint) {
    while !all.is_done() {
        thread::yield_now();
    }
}

/// A reset while the driver kicks: the worker takes its queue away and says so; who asked has the queue's memory then,
/// and a kick that comes later finds nothing.
fn reset_against_kick() {
    explore(|| {
        let team = Team::new();
        let worker = thread::spawn({
            let team = team.clone();
            move || {
                loop {
                    if let Some(all) = team.mailbox.take().pop() {
                        team.queue.with_mut(|_| ());
                        all.done();
                        break;
                    }
                    if team.bell.take() {
                        team.queue.with_mut(|_| ());
                    }
                    team.sleep();
                }
                // Without a queue a kick is for nobody.
                team.bell.take();
            }
        });
        let driver = thread::spawn({
            let team = team.clone();
            move || team.bell.ring()
        });
        let all = Joint::new(1);
        team.mailbox.post(all.clone());
        wait_for(&all);
        team.queue.with_mut(|_| ());
        driver.join().unwrap();
        worker.join().unwrap();
    });
}

/// A reset of two teams: who is the last has all that both did, and so has who asked.
fn reset_of_two() {
    explore(|| {
        let queues = Arc::new([UnsafeCell::new(()), UnsafeCell::new(())]);
        let all = Joint::new(2);
        let workers = [0, 1].map(|own| {
            let (queues, all) = (queues.clone(), all.clone());
            thread::spawn(move || {
                let own: &UnsafeCell<()> = &queues[own];
                own.with_mut(|_| ());
                if all.done() {
                    queues.iter().for_each(|queue| queue.with_mut(|_| ()));
                }
            })
        });
        for worker in workers {
            worker.join().unwrap();
        }
        assert!(all.is_done());
    });
}

/// A suspend while a request is at a backend, which completes it from a thread of its own: the suspend waits for it, and
/// what is saved has it. `waits`: whether the worker looks at what is in flight, as `Team::settle` does.
fn suspend_against_completion(waits: bool) {
    explore(move || {
        let team = Team::new();
        // Requests the backend has done, and what it wrote.
        let done = Arc::new(AtomicUsize::new(0));
        let data = Arc::new(UnsafeCell::new(()));
        let worker = thread::spawn({
            let (team, done) = (team.clone(), done.clone());
            move || {
                let (mut in_flight, mut suspend) = (1, None);
                loop {
                    suspend = team.mailbox.take().pop().or(suspend);
                    if team.bell.take() && done.swap(0, Ordering::Acquire) == 1 {
                        // Given back to the driver.
                        team.queue.with_mut(|_| ());
                        team.used.fetch_add(1, Ordering::Relaxed);
                        in_flight = 0;
                    }
                    if let Some(all) = &suspend
                        && (in_flight == 0 || !waits)
                    {
                        all.done();
                        return;
                    }
                    team.sleep();
                }
            }
        });
        let backend = thread::spawn({
            let (team, data) = (team.clone(), data.clone());
            move || {
                data.with_mut(|_| ());
                done.store(1, Ordering::Release);
                team.bell.ring();
            }
        });
        let all = Joint::new(1);
        team.mailbox.post(all.clone());
        wait_for(&all);
        // The device is still: its state and the memory are whole.
        let used = team.used.load(Ordering::Relaxed);
        assert_eq!(used, 1, "a request is neither saved nor done");
        team.queue.with_mut(|_| ());
        data.with_mut(|_| ());
        backend.join().unwrap();
        worker.join().unwrap();
    });
}

#[test]
fn a_reset_is_not_slept_through_and_no_kick_reaches_what_it_took() {
    reset_against_kick();
    reset_of_two();
}

#[test]
fn a_reset_is_slept_through_without_the_fence_of_the_asker() {
    fails_without(Guard::Ring, reset_against_kick);
}

#[test]
fn a_reset_is_slept_through_without_the_fence_of_the_sleeper() {
    fails_without(Guard::Sleep, reset_against_kick);
}

#[test]
fn a_reset_queue_is_in_use_if_its_worker_does_not_release_it() {
    fails_without(Guard::Done, reset_against_kick);
    fails_without(Guard::Done, reset_of_two);
}

#[test]
fn a_suspended_device_has_no_request_in_flight() {
    suspend_against_completion(true);
}

#[test]
fn a_completion_is_slept_through_without_the_fence_of_the_backend() {
    fails_without(Guard::Ring, || suspend_against_completion(true));
}

#[test]
fn a_completion_is_slept_through_without_the_fence_of_the_sleeper() {
    fails_without(Guard::Sleep, || suspend_against_completion(true));
}

#[test]
fn a_suspended_device_still_writes_if_its_worker_does_not_release_it() {
    fails_without(Guard::Done, || suspend_against_completion(true));
}

#[test]
#[should_panic(expected = "a request is neither saved nor done")]
fn a_suspended_device_loses_a_request_that_nobody_waits_for() {
    suspend_against_completion(false);
}

#[test]
fn a_stop_and_a_kick_are_not_lost_and_a_stopped_queue_is_left_alone() {
    remove(None);
    model(false);
    model(true);
    for guard in [Guard::Ring, Guard::Sleep] {
        for control in [false, true] {
            fails_without(guard, || model(control));
        }
    }
}

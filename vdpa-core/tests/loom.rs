//! Models of what several threads do at once. Run with `RUSTFLAGS="--cfg loom" cargo test --release --test loom`.
//!
//! Each guard that a model rests on is also taken away, and the model must then fail.
#![cfg(loom)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use vdpa_core::model::{Guard, remove};
use vdpa_core::{Bell, Call, CallCell, Sleeper};

fn explore(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

/// A driver publishes and rings; a worker that saw nothing goes to sleep. It must wake and see.
fn ring_against_sleep() {
    explore(|| {
        let sleeper = Sleeper::new().unwrap();
        let bell = Bell::new(&sleeper);
        let ring = Arc::new(AtomicU32::new(0));
        let driver = loom::thread::spawn({
            let (bell, ring) = (bell.clone(), ring.clone());
            move || {
                ring.store(1, Ordering::Relaxed);
                bell.ring();
            }
        });
        // A lost wake-up is a deadlock here.
        while !bell.take() {
            sleeper
                .sleep_unless(|| bell.is_pending(), None, |_| {})
                .unwrap();
        }
        assert_eq!(
            ring.load(Ordering::Relaxed),
            1,
            "who takes the bell sees the ring"
        );
        driver.join().unwrap();
    });
}

/// Two drivers ring bells that mark two numbers; a worker that looks at the bells of what is marked alone, and at the
/// marks alone before it sleeps, finds both.
fn marks_against_sleep() {
    explore(|| {
        let sleeper = Sleeper::new().unwrap();
        let bells = [0, 1].map(|mark| Bell::marking(&sleeper, mark));
        let drivers = bells
            .clone()
            .map(|bell| loom::thread::spawn(move || bell.ring()));
        let mut rung = 0;
        while rung != 2 {
            sleeper.take_marks(2, |mark| {
                // A mark of a ring that was taken with the one before says nothing.
                rung += usize::from(bells[mark].take());
            });
            if rung != 2 {
                let work = || sleeper.is_marked(2);
                sleeper.sleep_unless(work, None, |_| {}).unwrap();
            }
        }
        for driver in drivers {
            driver.join().unwrap();
        }
    });
}

/// A worker raises while the call is replaced. After the replacement the old one is never running, and the new one has
/// been raised.
fn raise_against_replace() {
    explore(|| {
        let cell = Arc::new(CallCell::default());
        let gone = Arc::new(AtomicBool::new(false));
        let raised = Arc::new(AtomicU32::new(0));
        cell.replace(Call::from_fn({
            let gone = gone.clone();
            move || assert!(!gone.load(Ordering::SeqCst), "the old call is in use")
        }));
        let worker = loom::thread::spawn({
            let cell = cell.clone();
            move || cell.raise()
        });
        cell.replace(Call::from_fn({
            let raised = raised.clone();
            move || {
                raised.fetch_add(1, Ordering::SeqCst);
            }
        }));
        gone.store(true, Ordering::SeqCst);
        assert!(
            raised.load(Ordering::SeqCst) >= 1,
            "the new call was not raised"
        );
        worker.join().unwrap();
    });
}

/// A worker is asked to pause while a kick comes in. It must not sleep through the request, and touch nothing once it
/// has said that it is paused.
fn pause_against_kick() {
    explore(|| {
        let sleeper = Sleeper::new().unwrap();
        let bell = Bell::new(&sleeper);
        let asked = Arc::new(AtomicBool::new(false));
        let paused = Arc::new(AtomicBool::new(false));
        let worker = loom::thread::spawn({
            let (sleeper, bell) = (sleeper.clone(), bell.clone());
            let (asked, paused) = (asked.clone(), paused.clone());
            move || {
                while !asked.load(Ordering::Acquire) {
                    if bell.take() {
                        assert!(!paused.load(Ordering::Relaxed), "taken while paused");
                        continue;
                    }
                    let work = || bell.is_pending() || asked.load(Ordering::Relaxed);
                    sleeper.sleep_unless(work, None, |_| {}).unwrap();
                }
                paused.store(true, Ordering::Release);
            }
        });
        let driver = loom::thread::spawn({
            let bell = bell.clone();
            move || bell.ring()
        });
        asked.store(true, Ordering::Release);
        sleeper.wake();
        worker.join().unwrap();
        assert!(paused.load(Ordering::Acquire));
        driver.join().unwrap();
    });
}

fn fails_without(guard: Guard, model: fn()) {
    remove(Some(guard));
    let outcome = catch_unwind(AssertUnwindSafe(model));
    remove(None);
    assert!(outcome.is_err(), "the model passes without {guard:?}");
}

#[test]
fn no_wake_up_is_lost_between_ring_and_sleep() {
    ring_against_sleep();
}

#[test]
fn a_wake_up_is_lost_without_the_fence_of_the_ringer() {
    fails_without(Guard::Ring, ring_against_sleep);
}

#[test]
fn a_wake_up_is_lost_without_the_fence_of_the_sleeper() {
    fails_without(Guard::Sleep, ring_against_sleep);
}

#[test]
fn no_mark_is_lost_between_ring_and_sleep() {
    marks_against_sleep();
}

#[test]
fn a_mark_is_lost_without_the_fence_of_the_ringer() {
    fails_without(Guard::Ring, marks_against_sleep);
}

#[test]
fn a_mark_is_lost_without_the_fence_of_the_sleeper() {
    fails_without(Guard::Sleep, marks_against_sleep);
}

#[test]
fn a_replaced_call_is_unused_and_the_new_one_raised() {
    raise_against_replace();
}

#[test]
fn a_replaced_call_is_in_use_without_the_lock_of_the_raiser() {
    fails_without(Guard::Raise, raise_against_replace);
}

#[test]
fn a_pause_is_seen_whatever_kicks_come() {
    pause_against_kick();
}

#[test]
fn a_pause_is_slept_through_without_the_fence_of_the_asker() {
    fails_without(Guard::Ring, pause_against_kick);
}

#[test]
fn a_pause_is_slept_through_without_the_fence_of_the_sleeper() {
    fails_without(Guard::Sleep, pause_against_kick);
}

//! Kicks and calls that arrive late: with a later one of their queue, or when their time has come.

use std::ops::ControlFlow;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use vdpa_core::{Error, Result};

use crate::line::lock;

/// What is to be done late.
pub(super) type Deed = Box<dyn FnOnce() + Send>;

/// The place of what is late: kicks and calls of each queue are apart.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    Kick(u16),
    Call(u16),
}

struct Late {
    lane: Lane,
    /// How many more of its lane it waits for.
    left: u64,
    due: Instant,
    deed: Deed,
}

#[derive(Default)]
struct State {
    late: Vec<Late>,
    stop: bool,
    /// The thread is at a deed.
    at_it: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// A thread that does what is late once it is due. It ends with [`stop`](Self::stop).
pub(super) struct Timer {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Timer {
    /// # Errors
    /// When there is no thread to be had.
    pub(super) fn start(name: &str) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let thread = std::thread::Builder::new()
            .name(format!("{name}-late"))
            .spawn({
                let shared = Arc::clone(&shared);
                move || shared.run()
            })
            .map_err(|source| Error::Io {
                what: "start the thread of late kicks and calls",
                source,
            })?;
        Ok(Self {
            shared,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// `deed` is done after `left` more of its lane, at least one, or after `after`. Not at all once it is stopped.
    pub(super) fn add(&self, lane: Lane, left: u64, after: Duration, deed: Deed) {
        let due = Instant::now().checked_add(after);
        let late = Late {
            lane,
            left,
            due: due.unwrap_or_else(Instant::now),
            deed,
        };
        let mut state = lock(&self.shared.state);
        if state.stop {
            // Outside of the lock: a deed may own anything, this timer as well.
            drop(state);
            return;
        }
        state.late.push(late);
        drop(state);
        self.shared.changed.notify_all();
    }

    /// One more of the lane is passing: what waited for it is done before it.
    pub(super) fn pass(&self, lane: Lane) {
        let mut ready = Vec::new();
        let mut state = lock(&self.shared.state);
        for late in state.late.iter_mut().filter(|late| late.lane == lane) {
            late.left = late.left.saturating_sub(1);
        }
        while let Some(at) = state.late.iter().position(|late| late.left == 0) {
            ready.push(state.late.remove(at).deed);
        }
        drop(state);
        for deed in ready {
            deed();
        }
    }

    /// Forgets what is late in these lanes; answers whether the thread is at a deed at the moment. It begins none of
    /// those that are forgotten.
    pub(super) fn forget(&self, which: impl Fn(Lane) -> bool) -> bool {
        let mut state = lock(&self.shared.state);
        let (over, late) = std::mem::take(&mut state.late)
            .into_iter()
            .partition(|late| which(late.lane));
        state.late = late;
        let at_it = state.at_it;
        drop(state);
        // A deed may own anything.
        let over: Vec<Late> = over;
        drop(over);
        at_it
    }

    /// Whether the thread is at a deed.
    pub(super) fn is_at_it(&self) -> bool {
        lock(&self.shared.state).at_it
    }

    /// Ends the thread. What is late by now is forgotten.
    pub(super) fn stop(&self) {
        let mut state = lock(&self.shared.state);
        state.stop = true;
        let over = std::mem::take(&mut state.late);
        drop(state);
        drop(over);
        self.shared.changed.notify_all();
        let thread = lock(&self.thread).take();
        // A closure that is called late may be what drops the device.
        if let Some(thread) = thread.filter(|t| t.thread().id() != std::thread::current().id()) {
            let _panicked = thread.join();
        }
    }
}

impl Shared {
    fn run(&self) {
        let mut state = lock(&self.state);
        loop {
            state = match self.step(state) {
                ControlFlow::Continue(state) => state,
                ControlFlow::Break(()) => return,
            };
        }
    }

    /// Does what is due next, or waits for that.
    fn step<'s>(
        &'s self,
        mut state: MutexGuard<'s, State>,
    ) -> ControlFlow<(), MutexGuard<'s, State>> {
        if state.stop {
            return ControlFlow::Break(());
        }
        let next = state.late.iter().enumerate();
        let Some((at, due)) = next.map(|(at, late)| (at, late.due)).min_by_key(|n| n.1) else {
            let woken = self.changed.wait(state);
            return ControlFlow::Continue(woken.unwrap_or_else(PoisonError::into_inner));
        };
        let left = due.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            let woken = self.changed.wait_timeout(state, left);
            return ControlFlow::Continue(woken.unwrap_or_else(PoisonError::into_inner).0);
        }
        let late = state.late.remove(at);
        state.at_it = true;
        drop(state);
        (late.deed)();
        let mut state = lock(&self.state);
        state.at_it = false;
        ControlFlow::Continue(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn note(to: &Arc<AtomicU32>, digit: u32) -> Deed {
        let to = Arc::clone(to);
        Box::new(move || {
            let _ = to.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| Some(n * 10 + digit));
        })
    }

    fn until(what: &str, done: impl Fn() -> bool) {
        let begun = Instant::now();
        while !done() {
            assert!(begun.elapsed() < Duration::from_secs(10), "{what}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_is_late_comes_with_a_later_one_of_its_lane_or_in_its_time() {
        let hour = Duration::from_secs(3600);
        let timer = Timer::start("test").unwrap();
        let done = Arc::new(AtomicU32::new(0));
        timer.add(Lane::Kick(0), 2, hour, note(&done, 1));
        timer.add(Lane::Kick(1), 1, hour, note(&done, 2));
        timer.pass(Lane::Kick(0));
        timer.pass(Lane::Call(1));
        assert_eq!(done.load(Ordering::SeqCst), 0);
        timer.pass(Lane::Kick(1));
        timer.pass(Lane::Kick(0));
        assert_eq!(done.load(Ordering::SeqCst), 21);
        // What is due first comes first, unless somebody kept us from adding it in time.
        let (sooner, later) = (Duration::from_millis(1), Duration::from_millis(20));
        loop {
            done.store(21, Ordering::SeqCst);
            let begun = Instant::now();
            timer.add(Lane::Call(0), 9, later, note(&done, 4));
            timer.add(Lane::Call(0), 9, sooner, note(&done, 3));
            let in_time = begun.elapsed() < later - sooner;
            until("both in their time", || done.load(Ordering::SeqCst) > 2100);
            if in_time {
                break;
            }
        }
        assert_eq!(done.load(Ordering::SeqCst), 2134);
        timer.add(Lane::Call(0), 9, hour, note(&done, 5));
        timer.forget(|lane| lane == Lane::Call(0));
        timer.pass(Lane::Call(0));
        timer.add(Lane::Call(0), 9, hour, note(&done, 5));
        timer.stop();
        assert_eq!(done.load(Ordering::SeqCst), 2134);
    }

    #[test]
    fn nothing_is_kept_for_a_timer_that_has_stopped() {
        let timer = Timer::start("test").unwrap();
        timer.stop();
        let owned = Arc::new(());
        let deed = Box::new({
            let owned = Arc::clone(&owned);
            move || drop(owned)
        });
        timer.add(Lane::Kick(0), 1, Duration::ZERO, deed);
        assert_eq!(Arc::strong_count(&owned), 1);
    }
}

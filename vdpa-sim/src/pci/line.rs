//! One interrupt: an MSI-X vector, or the interrupt line.

use std::sync::Mutex;

use vdpa_core::Call;

use crate::shared::lock;

/// What an interrupt makes, and whether it waits.
///
/// The call is made under a lock of its own, so that whoever replaces it knows that the old one is not made any more. A
/// call that raises or unmasks its own interrupt is made once more after it has returned.
#[derive(Default)]
pub(super) struct Line {
    state: Mutex<State>,
    call: Mutex<Call>,
}

#[derive(Default)]
struct State {
    pending: bool,
    masked: bool,
    /// Somebody makes the call, and will look again.
    busy: bool,
}

/// What becomes of the mask of a line that calls.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Once {
    /// A message: it stays as it is.
    Message,
    /// A level: masked until somebody has looked.
    Level,
}

impl Line {
    pub(super) fn masked() -> Self {
        let line = Self::default();
        line.mask();
        line
    }

    /// Raises it. It is made now, or once `open` and unmasked.
    pub(super) fn raise(&self, once: Once, open: impl Fn() -> bool) {
        lock(&self.state).pending = true;
        self.deliver(once, open);
    }

    /// Makes the call, if it waits for that and nothing holds it up.
    pub(super) fn deliver(&self, once: Once, open: impl Fn() -> bool) {
        loop {
            let mut state = lock(&self.state);
            if state.busy || !state.pending || state.masked || !open() {
                return;
            }
            state.pending = false;
            state.masked = once == Once::Level;
            state.busy = true;
            drop(state);
            lock(&self.call).raise();
            lock(&self.state).busy = false;
        }
    }

    pub(super) fn mask(&self) {
        lock(&self.state).masked = true;
    }

    /// Lets it call again; [`deliver`](Self::deliver) is due.
    pub(super) fn unmask(&self) {
        lock(&self.state).masked = false;
    }

    pub(super) fn is_masked(&self) -> bool {
        lock(&self.state).masked
    }

    pub(super) fn is_pending(&self) -> bool {
        lock(&self.state).pending
    }

    /// Forgets that it waits.
    pub(super) fn forget(&self) {
        lock(&self.state).pending = false;
    }

    /// Replaces the call. On return the old one is not made any more.
    pub(super) fn set(&self, call: Call) {
        let old = std::mem::replace(&mut *lock(&self.call), call);
        // Outside the lock: a closure may own anything.
        drop(old);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use super::*;

    fn counting(line: &Line) -> Arc<AtomicU32> {
        let count = Arc::new(AtomicU32::new(0));
        let own = count.clone();
        line.set(Call::from_fn(move || {
            own.fetch_add(1, Ordering::Relaxed);
        }));
        count
    }

    #[test]
    fn what_is_masked_or_shut_waits_and_is_made_once() {
        let line = Line::masked();
        let count = counting(&line);
        line.raise(Once::Message, || true);
        line.raise(Once::Message, || true);
        assert!(line.is_pending() && line.is_masked());
        line.unmask();
        line.deliver(Once::Message, || false);
        assert_eq!(count.load(Ordering::Relaxed), 0);
        line.deliver(Once::Message, || true);
        line.deliver(Once::Message, || true);
        assert_eq!(count.load(Ordering::Relaxed), 1);
        assert!(!line.is_pending());
    }

    #[test]
    fn a_call_that_unmasks_its_own_line_is_made_again_while_it_is_held() {
        let line = Arc::new(Line::default());
        let held = Arc::new(AtomicBool::new(true));
        let count = Arc::new(AtomicU32::new(0));
        line.set(Call::from_fn({
            let (line, held, count) = (Arc::downgrade(&line), held.clone(), count.clone());
            move || {
                if count.fetch_add(1, Ordering::Relaxed) == 2 {
                    held.store(false, Ordering::Relaxed);
                }
                let line = line.upgrade().unwrap();
                line.unmask();
                line.raise(Once::Level, || held.load(Ordering::Relaxed));
            }
        }));
        line.raise(Once::Level, || held.load(Ordering::Relaxed));
        assert_eq!(count.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn a_call_is_replaced_only_when_it_has_ended() {
        let line = Arc::new(Line::default());
        let (inside, go) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicBool::new(false)),
        );
        let ended = Arc::new(AtomicBool::new(false));
        line.set(Call::from_fn({
            let (inside, go, ended) = (inside.clone(), go.clone(), ended.clone());
            move || {
                inside.store(true, Ordering::SeqCst);
                while !go.load(Ordering::SeqCst) {
                    std::thread::yield_now();
                }
                ended.store(true, Ordering::SeqCst);
            }
        }));
        std::thread::scope(|scope| {
            scope.spawn(|| line.raise(Once::Message, || true));
            while !inside.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            let replaced = scope.spawn(|| {
                line.set(Call::None);
                ended.load(Ordering::SeqCst)
            });
            go.store(true, Ordering::SeqCst);
            assert!(replaced.join().unwrap());
        });
    }
}

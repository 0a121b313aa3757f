//! Calls: how a device tells the driver that something happened.

use std::cell::Cell;
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, PoisonError};

use crate::Result;
use crate::fd;
use crate::sync::Mutex;

/// What a device does to call the driver.
///
/// A call is raised at a batch boundary, outside read sections and locks of the data path. A control call to a device
/// from inside a closure is [`Misuse`](crate::ErrorKind::Misuse): the closure runs on the device's own thread.
#[derive(Clone, Default)]
pub enum Call {
    /// Nobody is called: the driver polls.
    #[default]
    None,
    /// 1 is added to an eventfd.
    EventFd(Arc<OwnedFd>),
    /// A closure runs. It must be short and must not wait.
    Fn(Arc<dyn Fn() + Send + Sync>),
}

std::thread_local! {
    static INSIDE: Cell<u32> = const { Cell::new(0) };
}

/// Counts the closures that run on this thread, also when one of them panics.
struct Inside;

impl Inside {
    fn enter() -> Self {
        INSIDE.set(INSIDE.get().saturating_add(1));
        Self
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.set(INSIDE.get().saturating_sub(1));
    }
}

/// Whether this thread runs a call closure.
pub(crate) fn is_inside() -> bool {
    INSIDE.get() > 0
}

impl Call {
    /// A call that runs `closure`.
    pub fn from_fn(closure: impl Fn() + Send + Sync + 'static) -> Self {
        Self::Fn(Arc::new(closure))
    }

    /// Calls. Never waits: an eventfd whose counter is full has been written already.
    pub fn raise(&self) {
        match self {
            Call::None => {}
            Call::EventFd(event) => fd::signal(event.as_fd()),
            Call::Fn(closure) => {
                let _inside = Inside::enter();
                closure();
            }
        }
    }

    /// Makes an eventfd that came from elsewhere safe to raise: a full counter must not stop the raiser.
    pub(crate) fn prepare(&self) -> Result<()> {
        match self {
            Call::EventFd(event) => fd::set_nonblocking(event.as_fd()),
            Call::None | Call::Fn(_) => Ok(()),
        }
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Call::None => f.write_str("None"),
            Call::EventFd(event) => f.debug_tuple("EventFd").field(event).finish(),
            Call::Fn(_) => f.write_str("Fn(..)"),
        }
    }
}

/// A call that can be replaced while it is raised: for software parents, one a queue.
///
/// The cell is locked while its call is raised, which is once a batch at most, so [`replace`](Self::replace) knows that
/// the old call is not running when it returns. Nobody else's lock is involved. A closure must not raise its own cell.
#[derive(Default)]
pub struct CallCell {
    current: Mutex<Call>,
}

impl CallCell {
    /// A cell with this call.
    pub fn new(call: Call) -> Self {
        Self {
            current: Mutex::new(call),
        }
    }

    /// Raises the call of the moment.
    pub fn raise(&self) {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        #[cfg(loom)]
        if crate::sync::model::is_removed(crate::sync::Guard::Raise) {
            let call = current.clone();
            drop(current);
            return call.raise();
        }
        // Raised under the lock: who replaces the call waits here for the old one to end.
        current.raise();
    }

    /// Replaces the call. On return the old one is unused, and `call` was raised once: the old one may have been raised
    /// to nobody's notice.
    pub fn replace(&self, call: Call) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *current, call.clone());
        drop(current);
        // Dropped outside the lock: an old closure may own anything.
        drop(old);
        call.raise();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn a_replaced_call_is_raised_once_and_the_old_one_is_dropped() {
        let old = Arc::new(AtomicU32::new(0));
        let new = Arc::new(AtomicU32::new(0));
        let count = |to: &Arc<AtomicU32>| {
            let to = to.clone();
            Call::from_fn(move || {
                to.fetch_add(1, Ordering::Relaxed);
            })
        };
        let cell = CallCell::new(count(&old));
        cell.raise();
        cell.replace(count(&new));
        assert_eq!(Arc::strong_count(&old), 1, "the old closure is gone");
        cell.raise();
        assert_eq!(old.load(Ordering::Relaxed), 1);
        assert_eq!(new.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_saturated_eventfd_does_not_stop_the_raiser() {
        let event = fd::eventfd().unwrap();
        nix::unistd::write(&event, &0xffff_ffff_ffff_fffe_u64.to_ne_bytes()).unwrap();
        let call = Call::EventFd(Arc::new(event));
        call.raise();
        call.raise();
    }

    #[test]
    fn a_panicking_closure_leaves_the_thread_outside() {
        let call = Call::from_fn(|| panic!("on purpose"));
        let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| call.raise()));
        assert!(run.is_err());
        assert!(!is_inside());
    }
}

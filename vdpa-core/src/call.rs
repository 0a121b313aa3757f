//! Calls: how a device tells the driver that something happened.

use std::cell::Cell;
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
#[cfg(not(loom))]
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};

use crate::Result;
use crate::fd;
use crate::sync::Mutex;

/// What a device does to call the driver.
///
/// A call is raised at a batch boundary, outside read sections and locks of the data path. A control call to a device
/// from inside a closure is [`Misuse`](crate::ErrorKind::Misuse): the closure runs on the device's own thread.
///
/// A closure that panics takes nothing with it: the panic ends there, as the panic hook has told, and the closure is
/// dropped by whoever holds it for the device, a [`CallCell`] or a [`Relay`](crate::Relay). From then on the call is
/// [`None`](Call::None), until it is replaced.
#[derive(Clone, Default)]
pub enum Call {
    /// Nobody is called: the driver polls.
    #[default]
    None,
    /// 1 is added to an eventfd.
    EventFd(Arc<OwnedFd>),
    /// A closure runs. It must be short and must neither wait nor panic.
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

    /// Calls. Never waits: an eventfd whose counter is full has been written already. Never panics: that of a closure
    /// ends here.
    pub fn raise(&self) {
        let _survived = self.survives();
    }

    /// Calls. `false` when the closure panicked and is to be dropped.
    #[must_use]
    pub(crate) fn survives(&self) -> bool {
        match self {
            Call::None => true,
            Call::EventFd(event) => {
                fd::signal(event.as_fd());
                true
            }
            Call::Fn(closure) => {
                let _inside = Inside::enter();
                run(&**closure)
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

/// Whether `closure` ended without a panic.
#[cfg(not(loom))]
fn run(closure: &(dyn Fn() + Send + Sync)) -> bool {
    catch_unwind(AssertUnwindSafe(closure)).is_ok()
}

/// A model fails by a panic, which has to come out.
#[cfg(loom)]
fn run(closure: &(dyn Fn() + Send + Sync)) -> bool {
    closure();
    true
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
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        #[cfg(loom)]
        if crate::sync::model::is_removed(crate::sync::Guard::Raise) {
            let call = current.clone();
            drop(current);
            return call.raise();
        }
        // Raised under the lock: who replaces the call waits here for the old one to end.
        if !current.survives() {
            let bad = std::mem::take(&mut *current);
            drop(current);
            // Still the device's thread: what the closure owns must not control the device from here either.
            let _inside = Inside::enter();
            drop(bad);
        }
    }

    /// Replaces the call. On return the old one is unused, and `call` was raised once: the old one may have been raised
    /// to nobody's notice.
    pub fn replace(&self, call: Call) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *current, call);
        // Under the lock: who replaces this one in turn waits for it.
        let bad = match current.survives() {
            true => Call::None,
            false => std::mem::take(&mut *current),
        };
        drop(current);
        // Dropped outside the lock: a closure may own anything.
        drop((old, bad));
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
    fn a_panicking_closure_kills_no_worker_and_is_dropped() {
        let count = Arc::new(AtomicU32::new(0));
        let bad = || {
            let count = count.clone();
            Call::from_fn(move || {
                count.fetch_add(1, Ordering::Relaxed);
                panic!("on purpose");
            })
        };
        bad().raise();
        assert!(!is_inside(), "the thread is outside again");
        let cell = CallCell::new(bad());
        cell.raise();
        assert_eq!(Arc::strong_count(&count), 1, "the closure is gone");
        cell.raise();
        assert_eq!(count.load(Ordering::Relaxed), 2);
        cell.replace(bad());
        assert_eq!(count.load(Ordering::Relaxed), 3);
        assert_eq!(Arc::strong_count(&count), 1, "the new one as well");
        cell.raise();
        assert_eq!(count.load(Ordering::Relaxed), 3);
    }
}

//! The eventfds of a front end, which can hold up whoever writes to them.
//!
//! Each is made non-blocking when it comes, and before each write of the server's own. But its flags belong to the open
//! file, which the front end holds as well: it can have it block again, and fill its counter. Whoever calls then waits for
//! it, the worker of the device, with all that it serves, or the server; and no write to an eventfd can be told not to.
//!
//! Whoever holds an eventfd can read it, though, and by that make room. So a thread that itself writes to none of them
//! looks at all of them once a second. A counter that is full is that of a front end that means harm: no driver leaves
//! 2⁶⁴ - 2 calls unread. It is read until nobody has it any more, and the front end is cut off. Whoever waited for it goes
//! on.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use vdpa_core::{Error, QueueIndex};

use crate::at_once;

/// How long somebody may be held up before it is seen.
const EVERY: Duration = Duration::from_secs(1);

/// The same once that was seen, as long as it goes on.
const AT_ONCE: Duration = Duration::from_millis(1);

/// How often a counter is read in a row. Who waits for it looks at it when it gets to run, and the front end may have
/// filled it again by then: the more often it has room, the sooner that is seen.
const READS: usize = 64;

/// Which eventfd of a queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventKind {
    /// What the driver is called by.
    Call,
    /// What says that the queue is lost.
    Error,
}

impl std::fmt::Display for EventKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Call => "call",
            Self::Error => "error",
        })
    }
}

/// Which eventfd, and of which queue.
pub(super) type Name = (QueueIndex, EventKind);

/// One that is there.
type Held = (Name, Arc<OwnedFd>);

/// Looks after the eventfds of a front end, on a thread of its own, until dropped.
pub(super) struct Watch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread and the server have in common. Nothing of it is held while anything of a front end's is touched.
struct Shared {
    state: Mutex<State>,
    /// An eventfd came, or the end.
    changed: Condvar,
    /// Readable once one was full.
    bell: EventFd,
}

#[derive(Default)]
struct State {
    /// As long as somebody has them, who could write to them.
    events: Vec<(Name, Weak<OwnedFd>)>,
    /// The first that was full.
    full: Option<Name>,
    /// How many front ends are gone: what is seen of theirs is not held against the next one.
    gone: u64,
    ended: bool,
}

impl Watch {
    /// # Errors
    /// When the system has no thread, or no eventfd.
    pub(super) fn start() -> Result<Self, Error> {
        let failed = |what| move |source| Error::Io { what, source };
        let bell = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        let bell = bell.map_err(|errno| failed("create an eventfd")(errno.into()))?;
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            bell,
        });
        let thread = std::thread::Builder::new()
            .name("vdpa-watch".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || shared.run()
            })
            .map_err(failed("start the thread that looks after eventfds"))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// One more. It is looked after until nobody has it any more.
    pub(super) fn add(&self, name: Name, event: &Arc<OwnedFd>) {
        let mut state = self.shared.lock();
        // With one there the thread looks when it is time to, and at this one too: it is not woken for each.
        let sleeps = state.events.is_empty();
        // Also of a front end that gives one after the other.
        state.events.retain(|(_, event)| event.strong_count() > 0);
        state.events.push((name, Arc::downgrade(event)));
        drop(state);
        if sleeps {
            self.shared.changed.notify_all();
        }
    }

    /// Readable once one was full.
    pub(super) fn bell(&self) -> BorrowedFd<'_> {
        self.shared.bell.as_fd()
    }

    /// The first that was full, since this was [forgotten](Self::forget).
    pub(super) fn full(&self) -> Option<Name> {
        self.shared.lock().full
    }

    /// The front end that did it is gone.
    pub(super) fn forget(&self) {
        let mut state = self.shared.lock();
        state.full = None;
        state.gone = state.gone.wrapping_add(1);
        // Under the lock, so that no later one is forgotten.
        let _none = self.shared.bell.read();
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut every = EVERY;
        while let Some((events, gone)) = self.next(every) {
            let full = full(&events);
            for (_, event) in &full {
                make_room(event);
            }
            let mut state = self.lock();
            if let (None, Some((name, _))) = (state.full, full.first())
                && state.gone == gone
            {
                state.full = Some(*name);
                // One that is set says it already.
                let _set = self.bell.write(1);
            }
            every = match state.full {
                Some(_) => AT_ONCE,
                None => EVERY,
            };
        }
    }

    /// All there are after this time, and how many front ends were gone then. Sleeps while there are none. `None`: it is
    /// the end.
    fn next(&self, every: Duration) -> Option<(Vec<Held>, u64)> {
        let mut state = self.lock();
        loop {
            state = match state.events.is_empty() {
                true => {
                    let idle = |state: &mut State| state.events.is_empty() && !state.ended;
                    let waited = self.changed.wait_while(state, idle);
                    waited.unwrap_or_else(PoisonError::into_inner)
                }
                false => {
                    let going_on = |state: &mut State| !state.ended;
                    let waited = self.changed.wait_timeout_while(state, every, going_on);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
            if state.ended {
                return None;
            }
            state.events.retain(|(_, event)| event.strong_count() > 0);
            let there = state.events.iter();
            let there: Vec<_> = there
                .filter_map(|(name, event)| Some((*name, event.upgrade()?)))
                .collect();
            if !there.is_empty() {
                return Some((there, state.gone));
            }
        }
    }
}

/// Those at which a write of 1 would have to wait.
fn full(events: &[Held]) -> Vec<&Held> {
    let asked = events
        .iter()
        .map(|(_, event)| PollFd::new(event.as_fd(), PollFlags::POLLOUT));
    let mut asked: Vec<_> = asked.collect();
    if poll(&mut asked, PollTimeout::ZERO).is_err() {
        // They are looked at again.
        return Vec::new();
    }
    let has_room = asked.iter().map(|fd| {
        fd.revents()
            .is_some_and(|found| found.contains(PollFlags::POLLOUT))
    });
    let looked = events.iter().zip(has_room);
    looked
        .filter_map(|(held, has_room)| (!has_room).then_some(held))
        .collect()
}

/// Lets whoever waits for room go on.
fn make_room(event: &OwnedFd) {
    for _ in 0..READS {
        // For those that write next.
        set_nonblocking(event);
        let mut count = [0; 8];
        // Empty: nobody waits, or it runs by now.
        if at_once::read(event, &mut count).is_err() {
            return;
        }
        std::thread::yield_now();
    }
}

/// From here on nobody waits for it, unless the front end changes that again.
pub(super) fn set_nonblocking(event: &OwnedFd) {
    // An eventfd that is open has flags that can be set.
    let _set = fcntl(event, FcntlArg::F_SETFL(OFlag::O_NONBLOCK));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often this thread has slept.
    fn sleeps(thread: &std::path::Path) -> u64 {
        let status = std::fs::read_to_string(thread.join("status")).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.unwrap().trim().parse().unwrap()
    }

    #[test]
    fn an_eventfd_beside_others_wakes_nobody() {
        const MANY: u64 = 200;
        let watch = Watch::start().unwrap();
        let event = || Arc::new(OwnedFd::from(EventFd::from_value(0).unwrap()));
        let name = (QueueIndex::new(0), EventKind::Call);
        let _first = {
            let first = event();
            watch.add(name, &first);
            first
        };
        let is_ours = |thread: &std::path::Path| {
            let name = std::fs::read_to_string(thread.join("comm"));
            name.is_ok_and(|name| name.trim() == "vdpa-watch")
        };
        // It gives itself the name, once it runs.
        let thread = loop {
            let mut threads = std::fs::read_dir("/proc/self/task").unwrap().flatten();
            if let Some(thread) = threads.find(|thread| is_ours(&thread.path())) {
                break thread.path();
            }
            std::thread::yield_now();
        };
        let before = sleeps(&thread);
        let begun = std::time::Instant::now();
        for _ in 0..MANY {
            watch.add(name, &event());
            // It has time to wake, if it is woken.
            std::thread::sleep(Duration::from_millis(1));
        }
        // It looks once a second by itself, and may have been about to begin.
        let own = 2 + begun.elapsed().as_secs() * 2;
        let woken = sleeps(&thread) - before;
        assert!(woken <= own + MANY / 10, "woken {woken} times");
    }
}

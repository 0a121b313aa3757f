//! Between file descriptors on one side and doorbells and closures on the other.
//!
//! ```text
//!   kick fd (from a guest)      ─▶ Doorbell::ring      a parent that only takes kicks
//!   call fd (from a parent)     ─▶ closure             a user that has no event loop
//!   one vector                  ─▶ calls of many queues
//! ```

use std::collections::HashMap;
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{JoinHandle, ThreadId};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::{Call, Doorbell, Error, Result, fd};

/// Relays, on one thread of its own that is started with the first one and ends with the value: when the last clone
/// and the last [`Relayed`] are dropped. There is nothing global about it.
#[derive(Clone, Default)]
pub struct Relay(Arc<Lazy>);

#[derive(Default)]
struct Lazy {
    started: Mutex<Option<Arc<Running>>>,
}

/// The thread, from its owners' side.
struct Running {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the thread and its owners share.
struct Shared {
    epoll: Epoll,
    stop: OwnedFd,
    stopping: AtomicBool,
    routes: Mutex<Routes>,
    thread: OnceLock<ThreadId>,
}

#[derive(Default)]
struct Routes {
    next: u64,
    by_token: HashMap<u64, Arc<Route>>,
}

/// One way from a file descriptor. The target is locked while it runs, so that taking it out waits for that.
struct Route {
    from: Arc<OwnedFd>,
    target: Mutex<Option<Target>>,
}

enum Target {
    Doorbell(Doorbell, u32),
    Calls(Vec<Call>),
}

/// The token of the fd that stops the thread.
const STOP: u64 = 0;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Relay {
    /// A relay with nothing to do, and no thread yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Rings `to` whenever `from` is written.
    ///
    /// * `from`: an eventfd, which may be written beyond this process. It is not read, unless its counter is full:
    ///   it is then made non-blocking and set back to 1, which relays once more than it was written
    /// * `data`: what the doorbell is rung with, since an eventfd carries none
    ///
    /// # Errors
    /// When the thread cannot be started, or `from` cannot be polled.
    pub fn kick(&self, from: Arc<OwnedFd>, to: Doorbell, data: u32) -> Result<Relayed> {
        self.add(from, Target::Doorbell(to, data))
    }

    /// Raises every call in `to` whenever `from` is written: one vector may serve many queues.
    ///
    /// * `from`: an eventfd, as for [`kick`](Self::kick)
    ///
    /// # Errors
    /// As for [`kick`](Self::kick).
    pub fn call(&self, from: Arc<OwnedFd>, to: Vec<Call>) -> Result<Relayed> {
        self.add(from, Target::Calls(to))
    }

    /// An eventfd that raises `call` when written, for a parent that cannot run closures.
    ///
    /// # Errors
    /// As for [`kick`](Self::kick), and when no eventfd is to be had.
    pub fn call_fd(&self, call: Call) -> Result<(Arc<OwnedFd>, Relayed)> {
        let from = Arc::new(fd::eventfd()?);
        let relayed = self.call(Arc::clone(&from), vec![call])?;
        Ok((from, relayed))
    }

    fn add(&self, from: Arc<OwnedFd>, target: Target) -> Result<Relayed> {
        let running = self.running()?;
        let mut routes = lock(&running.shared.routes);
        routes.next = routes.next.wrapping_add(1).max(STOP + 1);
        let token = routes.next;
        let from = running.shared.watch(from, token)?;
        let route = Arc::new(Route {
            from,
            target: Mutex::new(Some(target)),
        });
        // The thread looks routes up under this lock, so it cannot miss the first event.
        routes.by_token.insert(token, Arc::clone(&route));
        drop(routes);
        Ok(Relayed {
            running,
            token,
            route,
        })
    }

    fn running(&self) -> Result<Arc<Running>> {
        let mut started = lock(&self.0.started);
        if let Some(running) = &*started {
            return Ok(Arc::clone(running));
        }
        let running = Arc::new(Running::start()?);
        *started = Some(Arc::clone(&running));
        Ok(running)
    }
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let routes = lock(&self.0.started)
            .as_ref()
            .map_or(0, |running| lock(&running.shared.routes).by_token.len());
        f.debug_struct("Relay").field("routes", &routes).finish()
    }
}

impl Running {
    fn start() -> Result<Self> {
        let epoll =
            Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(Error::io("create an epoll"))?;
        let stop = fd::eventfd()?;
        epoll
            .add(&stop, EpollEvent::new(EpollFlags::EPOLLIN, STOP))
            .map_err(Error::io("poll an eventfd"))?;
        let shared = Arc::new(Shared {
            epoll,
            stop,
            stopping: AtomicBool::new(false),
            routes: Mutex::default(),
            thread: OnceLock::new(),
        });
        let thread = std::thread::Builder::new()
            .name("vdpa-relay".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || shared.run()
            })
            .map_err(|source| Error::Io {
                what: "start the relay thread",
                source,
            })?;
        let _first = shared.thread.set(thread.thread().id());
        Ok(Self {
            shared,
            thread: Mutex::new(Some(thread)),
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        fd::signal(self.shared.stop.as_fd());
        let thread = lock(&self.thread).take();
        // The last handle may go from inside a closure on that very thread.
        if let Some(thread) = thread
            && !self.shared.is_here()
        {
            let _panicked = thread.join();
        }
    }
}

impl Shared {
    /// Watches `from`, or a duplicate of it where it is watched already: epoll takes a number once.
    fn watch(&self, from: Arc<OwnedFd>, token: u64) -> Result<Arc<OwnedFd>> {
        // Edge-triggered: every write of an eventfd is an edge, so nothing has to be read. Only a write that finds the
        // counter full is none; EPOLLOUT is there to tell that, since it is missing from the events of a full one.
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
        let event = EpollEvent::new(flags, token);
        let fail = Error::io("relay a file descriptor");
        match self.epoll.add(&*from, event) {
            Ok(()) => Ok(from),
            Err(nix::Error::EEXIST) => {
                let twin = from.try_clone().map_err(|source| Error::Io {
                    what: "duplicate a file descriptor",
                    source,
                })?;
                self.epoll.add(&twin, event).map_err(fail)?;
                Ok(Arc::new(twin))
            }
            Err(e) => Err(fail(e)),
        }
    }

    fn is_here(&self) -> bool {
        self.thread.get() == Some(&std::thread::current().id())
    }

    fn run(&self) {
        let mut events = [EpollEvent::empty(); 64];
        while !self.stopping.load(Ordering::Acquire) {
            // An epoll that is open fails only for a signal.
            let count = self
                .epoll
                .wait(&mut events, EpollTimeout::NONE)
                .unwrap_or(0);
            for event in events.iter().take(count) {
                // Writable alone: somebody has read it, or it is new.
                if !event.events().contains(EpollFlags::EPOLLIN) {
                    continue;
                }
                let route = lock(&self.routes).by_token.get(&event.data()).cloned();
                if let Some(route) = route {
                    if !event.events().contains(EpollFlags::EPOLLOUT) {
                        route.make_room();
                    }
                    route.run();
                }
            }
        }
    }
}

impl Route {
    fn run(&self) {
        let mut bad = Vec::new();
        let mut target = lock(&self.target);
        match &mut *target {
            None => {}
            Some(Target::Doorbell(doorbell, data)) => doorbell.ring(*data),
            Some(Target::Calls(calls)) => {
                for call in calls {
                    if !call.survives() {
                        bad.push(std::mem::take(call));
                    }
                }
            }
        }
        drop(target);
        // Dropped outside the lock: a closure may own anything, this route as well.
        drop(bad);
    }

    /// Sets a full counter back, or whoever writes it next is not heard.
    fn make_room(&self) {
        let from = self.from.as_fd();
        // The peer may read as well, and must not leave this thread waiting for its next write.
        if fd::set_nonblocking(from).is_ok() {
            fd::drain(from);
            // Not to 0: another route of the same file may still have to find it readable.
            fd::signal(from);
        }
    }
}

/// One relay, until dropped. Once it is dropped its target is unused: the drop waits for a run that is under way, unless
/// it is dropped from inside that run.
#[must_use = "dropping it ends the relay"]
pub struct Relayed {
    running: Arc<Running>,
    token: u64,
    route: Arc<Route>,
}

impl Drop for Relayed {
    fn drop(&mut self) {
        let shared = &self.running.shared;
        lock(&shared.routes).by_token.remove(&self.token);
        // Fails only for a file that is not there, which is what is wanted.
        let _gone = shared.epoll.delete(&*self.route.from);
        if shared.is_here() && crate::call::is_inside() {
            return;
        }
        let target = lock(&self.route.target).take();
        drop(target);
    }
}

impl fmt::Debug for Relayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relayed")
            .field("from", &fd::number(self.route.from.as_fd()))
            .finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests;

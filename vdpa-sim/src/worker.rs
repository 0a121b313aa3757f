//! Workers: threads that serve the units of a device.
//!
//! ```text
//!        ┌──────────────────────────── a pass ────────────────────────────┐
//!   ┌──▶ commands ─▶ bells taken: their units are hot ─▶ each hot unit served ─▶ quiet for a while? asked for
//!   │                                                                           kicks; still nothing: cold
//!   │                                                                                │
//!   └──────────────── a command or a bell pending, or woken ◀── sleeps ◀── no unit is hot
//! ```
//! A unit is hot from its first kick until it was quiet for a bounded time; meanwhile kicks are switched off and its
//! rings are looked at in every pass. A worker without a hot unit sleeps, and costs nothing. Nothing is locked,
//! allocated or asked of the system for a batch, but for calls and for kicks to workers that sleep.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use vdpa_core::{Asid, Bell, Event, Sleeper, Status};
use vdpa_mem::Deadline;
use vdpa_ring::QueueState;

use crate::class::{Desk, Served, Station, Stations, Unit};
use crate::mailbox::Mailbox;
use crate::queue::Queue;
use crate::shared::Shared;

/// In how many passes a busy worker looks once at the eventfds it was given.
const PASSES_A_LOOK: u32 = 64;

/// What a worker is told.
pub(crate) enum Command {
    /// A queue runs from here on.
    Start {
        at: Seat,
        queue: Box<Queue>,
        kick: Option<Arc<OwnedFd>>,
    },
    /// A queue stops.
    Stop { at: Seat, how: Stop },
    /// A queue is switched on or off.
    Enable { at: Seat, on: bool },
    /// The driver is ready.
    Live,
    /// Everything stops, and is kept.
    Suspend(Arc<Joint>),
    /// Everything goes on.
    Resume,
    /// Everything is taken away.
    Reset(Arc<Joint>),
    /// The thread ends.
    Exit,
}

/// How a queue stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stop {
    Pause,
    Reset,
}

/// Where a queue sits at its worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Seat {
    /// The queue's number.
    pub(crate) queue: usize,
    /// The unit, counted at this worker.
    pub(crate) unit: usize,
    /// Its place in the unit.
    pub(crate) place: usize,
}

/// Something that all workers do; the last one says that it is done.
pub(crate) struct Joint {
    left: AtomicUsize,
}

impl Joint {
    pub(crate) fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self {
            left: AtomicUsize::new(workers),
        })
    }

    /// Whether all workers are done. Acquire pairs with the release in `done`: nothing of theirs happens any more.
    pub(crate) fn is_done(&self) -> bool {
        self.left.load(Ordering::Acquire) == 0
    }

    /// One more worker is done. Answers whether it was the last one.
    fn done(&self) -> bool {
        // Acquire too: the last one sees what the others did.
        self.left.fetch_sub(1, Ordering::AcqRel) == 1
    }
}

/// A unit at its worker.
struct Post {
    unit: Box<dyn Unit>,
    queues: Stations,
    /// The eventfds that kick it.
    kicks: [Option<Arc<OwnedFd>>; 2],
    /// The numbers of the queues.
    numbers: [usize; 2],
    bell: Arc<Bell>,
    hot: bool,
    /// Since when there is nothing to do, while hot.
    quiet: Option<Instant>,
}

/// One thread of a device.
pub(crate) struct Worker {
    core: Arc<Shared>,
    number: usize,
    mailbox: Arc<Mailbox<Command>>,
    sleeper: Arc<Sleeper>,
    posts: Vec<Post>,
    desk: Desk,
    patience: Duration,
    live: bool,
    suspended: bool,
    watched: usize,
}

impl Worker {
    pub(crate) fn new(
        core: Arc<Shared>,
        number: usize,
        mailbox: Arc<Mailbox<Command>>,
        sleeper: Arc<Sleeper>,
        units: Vec<(Box<dyn Unit>, Arc<Bell>)>,
        desk: Desk,
        patience: Duration,
    ) -> Self {
        let post = |(unit, bell)| Post {
            unit,
            queues: Stations::default(),
            kicks: [None, None],
            numbers: [0; 2],
            bell,
            hot: false,
            quiet: None,
        };
        Self {
            core,
            number,
            mailbox,
            sleeper,
            posts: units.into_iter().map(post).collect(),
            desk,
            patience,
            live: false,
            suspended: false,
            watched: 0,
        }
    }

    /// Works until told to exit.
    pub(crate) fn run(mut self) {
        let rounds = Arc::clone(&self.desk.rounds);
        let mut passes = 0_u32;
        loop {
            rounds.begin(self.number);
            if self.mailbox.is_pending() {
                for command in self.mailbox.take() {
                    if matches!(command, Command::Exit) {
                        rounds.rest(self.number);
                        return;
                    }
                    self.obey(command);
                }
            }
            let busy = self.live && !self.suspended && self.pass();
            if !busy {
                rounds.rest(self.number);
                self.sleep(None);
                rounds.wake(self.number);
            } else if self.watched != 0 {
                passes = passes.wrapping_add(1);
                if passes.is_multiple_of(PASSES_A_LOOK) {
                    self.sleep(Some(Deadline::at(Instant::now())));
                }
            }
        }
    }

    /// Serves every hot unit once. `false`: there is none.
    fn pass(&mut self) -> bool {
        let Self {
            core,
            posts,
            desk,
            patience,
            ..
        } = self;
        let mut hot = false;
        let mut worked = false;
        let mut now = None;
        for post in posts.iter_mut() {
            if post.bell.take() {
                post.hot = true;
                post.quiet = None;
            }
            if !post.hot {
                continue;
            }
            match post.unit.serve(&mut post.queues, desk) {
                Served::Work => {
                    post.quiet = None;
                    worked = true;
                }
                Served::Nothing => {
                    let now = *now.get_or_insert_with(Instant::now);
                    let since = *post.quiet.get_or_insert(now);
                    if now.saturating_duration_since(since) >= *patience {
                        post.hot = post.unit.arm(&mut post.queues, desk);
                        post.quiet = None;
                    }
                }
            }
            if !desk.lost.is_empty() || desk.fault.is_some() {
                report(core, post, desk);
            }
            hot |= post.hot;
        }
        if hot && !worked {
            std::hint::spin_loop();
        }
        hot
    }

    /// Sleeps until there is something to do, or just looks at the eventfds.
    fn sleep(&mut self, by: Option<Deadline>) {
        let Self {
            posts,
            mailbox,
            sleeper,
            ..
        } = self;
        let awake = self.live && !self.suspended;
        let bells = posts.as_slice();
        let mut kicked = [u64::MAX; 16];
        let mut count = 0_usize;
        let slept = sleeper.sleep_unless(
            || {
                let rung = awake && by.is_none() && bells.iter().any(|post| post.bell.is_pending());
                rung || mailbox.is_pending()
            },
            by,
            |token| {
                if let Some(place) = kicked.get_mut(count) {
                    *place = token;
                    count = count.saturating_add(1);
                }
            },
        );
        for token in kicked.iter().take(count) {
            // The queue's place in bit 0, its unit above.
            let place = (*token & 1) as usize;
            let post = usize::try_from(*token >> 1)
                .ok()
                .and_then(|unit| posts.get_mut(unit));
            if let Some(post) = post {
                if let Some(Some(kick)) = post.kicks.get(place) {
                    let mut count = [0; 8];
                    // At 0 another reader was faster; there is nothing else that could go wrong.
                    let _empty = nix::unistd::read(kick.as_fd(), &mut count);
                }
                post.hot = true;
                post.quiet = None;
            }
        }
        if let Err(e) = slept {
            let why = format!("worker {}: {e}", self.number);
            self.core.raise(Event::Broken { why });
            // Not a busy loop on top of it.
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Start { at, queue, kick } => self.start(at, queue, kick),
            Command::Stop { at, how } => {
                let state = self.stop(at, how);
                self.core.stopped(at.queue, state);
            }
            Command::Enable { at, on } => {
                let station = self
                    .posts
                    .get_mut(at.unit)
                    .and_then(|p| p.queues.get_mut(at.place));
                if let Some(queue) = station.and_then(Station::running) {
                    queue.enabled = on;
                }
                self.heat();
            }
            Command::Live => {
                self.live = true;
                self.heat();
            }
            Command::Suspend(all) => {
                self.suspended = true;
                for post in &mut self.posts {
                    for (station, number) in post.queues.iter_mut().zip(post.numbers) {
                        if let Some(queue) = station.running() {
                            self.core.suspended(number, queue.state());
                        }
                    }
                }
                all.done();
            }
            Command::Resume => {
                self.suspended = false;
                // Kicks may have come meanwhile: every queue is looked at once.
                self.heat();
            }
            Command::Reset(all) => {
                self.reset();
                if all.done() {
                    self.core.finish_reset();
                }
            }
            Command::Exit => {}
        }
    }

    /// Every unit is looked at once.
    fn heat(&mut self) {
        for post in &mut self.posts {
            post.hot = true;
            post.quiet = None;
        }
    }

    fn start(&mut self, at: Seat, queue: Box<Queue>, kick: Option<Arc<OwnedFd>>) {
        let Some(post) = self.posts.get_mut(at.unit) else {
            return;
        };
        let (Some(station), Some(number), Some(place)) = (
            post.queues.get_mut(at.place),
            post.numbers.get_mut(at.place),
            post.kicks.get_mut(at.place),
        ) else {
            return;
        };
        if let Some(kick) = kick {
            let token = (at.unit as u64) << 1 | at.place as u64;
            match self.sleeper.watch(kick.as_fd(), token) {
                Ok(()) => {
                    *place = Some(kick);
                    self.watched = self.watched.saturating_add(1);
                }
                Err(e) => {
                    let why = format!("queue {}: its kick cannot be watched: {e}", at.queue);
                    self.core.raise(Event::Broken { why });
                }
            }
        }
        *number = at.queue;
        *station = Station::Running(queue);
        post.hot = true;
        post.quiet = None;
    }

    /// Takes a queue away. Between passes nothing of it is in flight: it is drained.
    fn stop(&mut self, at: Seat, how: Stop) -> Option<QueueState> {
        let post = self.posts.get_mut(at.unit)?;
        let after = match how {
            Stop::Pause => Station::Paused,
            Stop::Reset => Station::Stopped,
        };
        let kick = post.kicks.get_mut(at.place)?.take();
        self.watched = self.watched.saturating_sub(unwatch(&self.sleeper, kick));
        let before = std::mem::replace(post.queues.get_mut(at.place)?, after);
        match before {
            Station::Running(queue) => Some(queue.state()),
            Station::Stopped | Station::Paused => None,
        }
    }

    fn reset(&mut self) {
        self.live = false;
        self.suspended = false;
        for post in &mut self.posts {
            post.queues = Stations::default();
            for kick in &mut post.kicks {
                unwatch(&self.sleeper, kick.take());
            }
            post.unit.reset();
            post.hot = false;
            post.quiet = None;
        }
        self.watched = 0;
    }
}

/// Takes an eventfd out of the sleeper. Answers how many that were.
fn unwatch(sleeper: &Sleeper, kick: Option<Arc<OwnedFd>>) -> usize {
    let Some(kick) = kick else { return 0 };
    // It was watched: that is why it is here.
    let _watched = sleeper.unwatch(kick.as_fd());
    1
}

/// Tells the owner what went wrong in a unit, outside of sections, and takes away the queues that are lost.
#[cold]
fn report(core: &Shared, post: &mut Post, desk: &mut Desk) {
    if let Some((at, want)) = desk.fault.take() {
        let asid = Asid::new(0);
        core.raise(Event::Fault { asid, at, want });
    }
    for (index, why) in desk.lost.drain(..) {
        for (station, number) in post.queues.iter_mut().zip(post.numbers) {
            if station
                .running()
                .is_some_and(|queue| queue.index() == index)
            {
                // Its state can still be asked for, as far as it got.
                if let Station::Running(queue) = std::mem::take(station) {
                    core.suspended(number, queue.state());
                }
            }
        }
        core.add_status(Status::DEVICE_NEEDS_RESET);
        core.raise(Event::NeedsReset {
            queue: Some(index),
            why: why.to_string(),
        });
    }
}

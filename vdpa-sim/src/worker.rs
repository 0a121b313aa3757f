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

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use vdpa_core::{Asid, Bell, Event, Status};
use vdpa_ring::QueueState;

use crate::class::{Desk, Served, Station, Stations, Unit};
use crate::kicks::Kicks;
use crate::mailbox::Mailbox;
use crate::queue::Queue;
use crate::shared::Shared;

/// In how many passes a busy worker looks once at the eventfds it was given.
const PASSES_A_LOOK: u32 = 64;

/// After how many passes in a row without work a worker that polls lets others run: whoever it polls for may be waiting
/// for this very CPU. So many take a few microseconds, within which a peer that runs elsewhere answers.
const PASSES_A_YIELD: u32 = 64;

/// What a worker is told.
pub(crate) enum Command {
    /// A queue runs from here on; its `kick` is watched.
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

impl Command {
    /// Whether it switches the queue at `seat` on or off.
    pub(crate) fn enables(&self, seat: Seat) -> bool {
        matches!(self, Self::Enable { at, .. } if *at == seat)
    }
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

impl Seat {
    /// What its kicks are reported with: the place in the unit in bit 0, the unit above.
    pub(crate) fn token(self) -> u64 {
        (self.unit as u64) << 1 | self.place as u64
    }
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
    kicks: Arc<Kicks>,
    posts: Vec<Post>,
    desk: Desk,
    patience: Duration,
    live: bool,
    suspended: bool,
    watched: usize,
    /// Passes without work since there was some.
    empty: u32,
}

impl Worker {
    pub(crate) fn new(
        core: Arc<Shared>,
        number: usize,
        mailbox: Arc<Mailbox<Command>>,
        kicks: Arc<Kicks>,
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
            kicks,
            posts: units.into_iter().map(post).collect(),
            desk,
            patience,
            live: false,
            suspended: false,
            watched: 0,
            empty: 0,
        }
    }

    /// Works until told to exit.
    pub(crate) fn run(mut self) {
        let rounds = Arc::clone(&self.desk.rounds);
        let mut passes = 0_u32;
        // Until here it counted as asleep.
        rounds.wake(self.number);
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
                self.sleep();
                rounds.wake(self.number);
            } else if self.watched != 0 {
                passes = passes.wrapping_add(1);
                if passes.is_multiple_of(PASSES_A_LOOK) {
                    self.look();
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
            empty,
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
        *empty = if worked { 0 } else { empty.wrapping_add(1) };
        if hot && !worked {
            if empty.is_multiple_of(PASSES_A_YIELD) {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
        hot
    }

    /// Sleeps until there is something to do.
    fn sleep(&mut self) {
        let Self {
            posts,
            mailbox,
            kicks,
            ..
        } = self;
        let awake = self.live && !self.suspended;
        let bells = posts.as_slice();
        let slept = kicks.sleep_unless(|| {
            (awake && bells.iter().any(|post| post.bell.is_pending())) || mailbox.is_pending()
        });
        match slept {
            Ok(true) => self.look(),
            Ok(false) => {}
            Err(e) => {
                let why = format!("worker {}: {e}", self.number);
                self.core.raise(Event::Broken { why });
                // Not a busy loop on top of it.
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    /// Looks at the eventfds. What is kicked before it may be served is hot from then on.
    fn look(&mut self) {
        let Self { kicks, posts, .. } = self;
        kicks.take(|token| {
            let unit = usize::try_from(token >> 1).ok();
            if let Some(post) = unit.and_then(|unit| posts.get_mut(unit)) {
                post.hot = true;
                post.quiet = None;
            }
        });
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
        if kick.is_some() {
            *place = kick;
            self.watched = self.watched.saturating_add(1);
        }
        *number = at.queue;
        *station = Station::Running(queue);
        post.hot = true;
        post.quiet = None;
    }

    /// Takes a queue away. Between passes nothing of it is in flight: it is drained.
    fn stop(&mut self, at: Seat, how: Stop) -> Option<QueueState> {
        let post = self.posts.get_mut(at.unit)?;
        let kick = post.kicks.get_mut(at.place)?.take();
        self.watched = self.watched.saturating_sub(unwatch(&self.kicks, kick));
        let station = post.queues.get_mut(at.place)?;
        let before = std::mem::take(station);
        // One that was lost or reset before does not go on: nothing waits for it.
        if how == Stop::Pause && !matches!(before, Station::Stopped) {
            *station = Station::Paused;
        }
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
                unwatch(&self.kicks, kick.take());
            }
            post.unit.reset();
            post.hot = false;
            post.quiet = None;
        }
        self.watched = 0;
    }
}

/// Takes an eventfd out. Answers how many that were.
fn unwatch(kicks: &Kicks, kick: Option<Arc<OwnedFd>>) -> usize {
    let Some(kick) = kick else { return 0 };
    kicks.unwatch(&kick);
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

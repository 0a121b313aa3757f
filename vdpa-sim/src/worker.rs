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

use vdpa_core::{Asid, Bell, Event, GroupIndex, QueueIndex, Status};
use vdpa_mem::{AddressSpace, Deadline, Reader};

use crate::class::{Desk, QueueChange, Served, Station, Stations, Unit};
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
    /// The queues of a group, none of which runs, are in another address space.
    Assign {
        group: GroupIndex,
        asid: Asid,
        space: AddressSpace,
    },
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
    /// What its kicks are reported with.
    pub(crate) fn token(self) -> u64 {
        token(self.unit, self.place)
    }
}

/// The place in the unit in bit 0, the unit above.
fn token(unit: usize, place: usize) -> u64 {
    (unit as u64) << 1 | place as u64
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
pub(crate) struct Post {
    unit: Box<dyn Unit>,
    queues: Stations,
    group: GroupIndex,
    /// The address space of its group, and the way into it, which lies on the desk while the unit is served.
    asid: Asid,
    reader: Reader,
    /// Stops that are not over.
    stops: [Option<(Seat, Stop)>; 2],
    /// What has the unit served besides kicks.
    sources: Vec<Arc<OwnedFd>>,
    /// The eventfds that kick it.
    kicks: [Option<Arc<OwnedFd>>; 2],
    /// The numbers of the queues.
    numbers: [usize; 2],
    bell: Arc<Bell>,
    hot: bool,
    /// Since when there is nothing to do, while hot.
    quiet: Option<Instant>,
    /// When a call that is held back has to be made, while not hot.
    due: Option<Instant>,
}

impl Post {
    /// A unit without queues, in the first address space.
    pub(crate) fn new(
        unit: Box<dyn Unit>,
        bell: Arc<Bell>,
        group: GroupIndex,
        reader: Reader,
    ) -> Self {
        Self {
            sources: unit.sources(),
            unit,
            queues: Stations::default(),
            group,
            asid: Asid::new(0),
            reader,
            stops: [None, None],
            kicks: [None, None],
            numbers: [0; 2],
            bell,
            hot: false,
            quiet: None,
            due: None,
        }
    }

    /// Has its sources watched, as unit `number` of their worker.
    ///
    /// # Errors
    /// When one cannot be polled.
    pub(crate) fn watch(&mut self, kicks: &Kicks, number: usize) -> std::io::Result<()> {
        for source in &mut self.sources {
            *source = kicks.watch_source(Arc::clone(source), token(number, 0))?;
        }
        Ok(())
    }

    /// Whether nothing is in flight.
    fn is_idle(&self) -> bool {
        self.unit.in_flight(0) == 0 && self.unit.in_flight(1) == 0
    }

    /// Looked at in every pass from here on.
    fn heat(&mut self) {
        self.hot = true;
        self.quiet = None;
        self.due = None;
    }

    /// Looked at when something is to be done for it, and at the latest when the first call that is held back is due.
    fn cool(&mut self) {
        self.hot = false;
        let queues = self.queues.iter_mut();
        self.due = queues.filter_map(|station| station.running()?.due()).min();
    }
}

/// What all units of a worker come to rest for: it is over once nothing of theirs is in flight.
enum Rest {
    Suspend(Arc<Joint>),
    Reset(Arc<Joint>),
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
    /// A suspend or a reset that is not over.
    rest: Option<Rest>,
    /// Whether stops of queues are not over.
    stopping: bool,
    /// The first address space: every group is there after a reset.
    home: AddressSpace,
    /// How many eventfds and sources are watched.
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
        posts: Vec<Post>,
        desk: Desk,
        patience: Duration,
    ) -> Self {
        Self {
            core,
            number,
            mailbox,
            kicks,
            watched: posts.iter().map(|post| post.sources.len()).sum(),
            posts,
            home: desk.reader.space().clone(),
            desk,
            patience,
            live: false,
            suspended: false,
            rest: None,
            stopping: false,
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
            let busy = self.is_awake() && self.pass();
            if self.settle() {
                continue;
            }
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

    /// Whether the device runs: whatever comes is served.
    fn runs(&self) -> bool {
        self.live && !self.suspended && self.rest.is_none()
    }

    /// Whether kicks and sources matter: the device runs, or something has to end.
    fn is_awake(&self) -> bool {
        self.runs() || self.rest.is_some() || self.stopping
    }

    /// Serves every hot unit once. `false`: there is none.
    fn pass(&mut self) -> bool {
        let runs = self.runs();
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
            if post.bell.take()
                || post
                    .due
                    .is_some_and(|due| *now.get_or_insert_with(Instant::now) >= due)
            {
                post.heat();
            }
            // Of a device that does not run only what is in flight is served: it ends.
            if !post.hot || (!runs && post.is_idle()) {
                continue;
            }
            std::mem::swap(&mut desk.reader, &mut post.reader);
            match post.unit.serve(&mut post.queues, desk) {
                Served::Work => {
                    post.quiet = None;
                    worked = true;
                }
                Served::Nothing => {
                    let now = *now.get_or_insert_with(Instant::now);
                    let since = *post.quiet.get_or_insert(now);
                    if now.saturating_duration_since(since) >= *patience {
                        if !post.unit.arm(&mut post.queues, desk) {
                            post.cool();
                        }
                        post.quiet = None;
                    }
                }
            }
            std::mem::swap(&mut desk.reader, &mut post.reader);
            if !desk.lost.is_empty() || desk.fault.is_some() || desk.config {
                report(core, post, desk);
            }
            if core.misses {
                ask(core, post);
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
        let awake = self.is_awake();
        let runs = self.runs();
        let Self {
            posts,
            mailbox,
            kicks,
            ..
        } = self;
        let posts = posts.as_slice();
        // A device that does not run calls nobody.
        let due = posts.iter().filter_map(|post| post.due.filter(|_| runs));
        let by = due.min().map(Deadline::at);
        let work =
            || (awake && posts.iter().any(|post| post.bell.is_pending())) || mailbox.is_pending();
        let slept = kicks.sleep_unless(work, by);
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
                post.heat();
            }
        });
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Start { at, queue, kick } => self.start(at, queue, kick),
            Command::Stop { at, how } => self.stop(at, how),
            Command::Assign { group, asid, space } => {
                for post in self.posts.iter_mut().filter(|post| post.group == group) {
                    post.asid = asid;
                    post.reader = space.reader();
                }
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
                for station in self.posts.iter_mut().flat_map(|post| &mut post.queues) {
                    drain(station);
                }
                self.come_to_rest(Rest::Suspend(all));
            }
            Command::Resume => {
                self.suspended = false;
                // Kicks may have come meanwhile: every queue is looked at once.
                self.heat();
            }
            Command::Reset(all) => {
                self.take_queues();
                self.come_to_rest(Rest::Reset(all));
            }
            Command::Exit => {}
        }
    }

    /// Every unit is looked at once.
    fn heat(&mut self) {
        for post in &mut self.posts {
            post.heat();
        }
    }

    /// What is in flight ends, and then this is over.
    fn come_to_rest(&mut self, rest: Rest) {
        self.rest = Some(rest);
        self.heat();
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
        post.heat();
    }

    /// Begins to take a queue away. What is in flight ends first.
    fn stop(&mut self, at: Seat, how: Stop) {
        let Some(post) = self.posts.get_mut(at.unit) else {
            return;
        };
        let (Some(station), Some(stop), Some(kick)) = (
            post.queues.get_mut(at.place),
            post.stops.get_mut(at.place),
            post.kicks.get_mut(at.place),
        ) else {
            return;
        };
        self.watched = self
            .watched
            .saturating_sub(unwatch(&self.kicks, kick.take()));
        match how {
            Stop::Pause => drain(station),
            // What ends is given back to nobody.
            Stop::Reset => *station = Station::Stopped,
        }
        *stop = Some((at, how));
        post.heat();
        self.stopping = true;
    }

    /// Ends the stops, and the suspend or reset, of which nothing is in flight any more. Answers whether one did.
    fn settle(&mut self) -> bool {
        let stopped = self.stopping && self.settle_stops();
        let Some(rest) = self.rest.take() else {
            return stopped;
        };
        if !self.posts.iter().all(Post::is_idle) {
            self.rest = Some(rest);
            return stopped;
        }
        match rest {
            Rest::Suspend(all) => {
                self.suspend();
                all.done();
            }
            Rest::Reset(all) => {
                self.reset();
                if all.done() {
                    self.core.finish_reset();
                }
            }
        }
        true
    }

    fn settle_stops(&mut self) -> bool {
        let mut ended = false;
        self.stopping = false;
        for post in &mut self.posts {
            let Post {
                unit,
                queues,
                stops,
                ..
            } = post;
            for ((place, stop), station) in stops.iter_mut().enumerate().zip(queues) {
                let Some((at, how)) = *stop else { continue };
                if unit.in_flight(place) != 0 {
                    self.stopping = true;
                    continue;
                }
                *stop = None;
                ended = true;
                let state = match std::mem::take(station) {
                    Station::Running(queue) | Station::Draining(queue) => {
                        // One that was lost or reset before does not go on: nothing waits for it.
                        if how == Stop::Pause {
                            *station = Station::Paused;
                        }
                        Some(queue.state())
                    }
                    Station::Paused => {
                        *station = Station::Paused;
                        None
                    }
                    Station::Stopped => None,
                };
                let change = match how {
                    Stop::Pause => QueueChange::Paused,
                    Stop::Reset => QueueChange::Reset,
                };
                // There are as many as 16 bits count.
                let queue = QueueIndex::new(at.queue as u16);
                self.core.class.queue_changed(queue, change);
                self.core.stopped(at.queue, state);
            }
        }
        ended
    }

    /// Nothing is in flight: the queues stay where they are.
    fn suspend(&mut self) {
        self.suspended = true;
        for post in &mut self.posts {
            for (station, number) in post.queues.iter_mut().zip(post.numbers) {
                *station = match std::mem::take(station) {
                    // Where it was to stop, that is over: nothing of it was in flight either.
                    Station::Draining(queue) => {
                        self.core.suspended(number, queue.state());
                        Station::Running(queue)
                    }
                    other => other,
                };
            }
        }
    }

    /// A reset begins: no queue is there any more.
    fn take_queues(&mut self) {
        self.live = false;
        self.suspended = false;
        self.stopping = false;
        for post in &mut self.posts {
            post.queues = Stations::default();
            post.stops = [None, None];
            for kick in &mut post.kicks {
                let less = unwatch(&self.kicks, kick.take());
                self.watched = self.watched.saturating_sub(less);
            }
        }
    }

    /// Nothing is in flight: the rest of the reset.
    fn reset(&mut self) {
        for post in &mut self.posts {
            post.unit.reset();
            post.hot = false;
            post.quiet = None;
            post.due = None;
            if post.asid != Asid::new(0) {
                post.asid = Asid::new(0);
                post.reader = self.home.reader();
            }
        }
    }
}

/// Takes nothing more from a queue. A call that is held back is made: nobody would make it later.
fn drain(station: &mut Station) {
    *station = match std::mem::take(station) {
        Station::Running(mut queue) => {
            queue.call();
            Station::Draining(queue)
        }
        other => other,
    };
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
    if std::mem::take(&mut desk.config) {
        core.raise(Event::Config);
    }
    if let Some((at, want)) = desk.fault.take() {
        let asid = post.asid;
        core.raise(Event::Fault { asid, at, want });
    }
    for (index, why) in desk.lost.drain(..) {
        for (station, number) in post.queues.iter_mut().zip(post.numbers) {
            // Its state can still be asked for, as far as it got.
            if let Some(queue) = station.open().filter(|queue| queue.index() == index) {
                core.suspended(number, queue.state());
                *station = Station::Stopped;
            }
        }
        core.add_status(Status::DEVICE_NEEDS_RESET);
        core.raise(Event::NeedsReset {
            queue: Some(index),
            why: why.to_string(),
        });
    }
}

/// Asks the owner for what the queues of a unit wait for.
fn ask(core: &Shared, post: &mut Post) {
    for queue in post.queues.iter_mut().filter_map(Station::open) {
        if let Some((at, want)) = queue.new_wait() {
            let asid = post.asid;
            core.raise(Event::Miss { asid, at, want });
        }
    }
}

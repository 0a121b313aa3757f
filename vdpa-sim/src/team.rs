//! Teams: what a worker serves of one device.
//!
//! ```text
//!   a turn:  commands ─▶ bells taken: their units are hot ─▶ each hot unit served ─▶ quiet for a while? asked for
//!                                                                                    kicks; still nothing: cold
//! ```
//! A unit is hot from its first kick until it was quiet for a bounded time; meanwhile kicks are switched off and its
//! rings are looked at in every pass. A team without a hot unit lies down, and costs nothing. Nothing is locked,
//! allocated or asked of the system for a batch, but for calls and for kicks to workers that sleep.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use vdpa_core::{Asid, Bell, Event, GroupIndex, QueueIndex, Status};
use vdpa_mem::{AddressSpace, Reader};

use crate::class::{Desk, QueueChange, Served, Station, Stations, Unit};
use crate::crew::{Aboard, Berth};
use crate::kicks::Kicks;
use crate::mailbox::Mailbox;
use crate::queue::Queue;
use crate::shared::Shared;

/// What a team is told.
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
    /// The team leaves.
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

/// Where a queue sits in its team.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Seat {
    /// The queue's number.
    pub(crate) queue: usize,
    /// The unit, counted in this team.
    pub(crate) unit: usize,
    /// Its place in the unit.
    pub(crate) place: usize,
}

impl Seat {
    /// What its kicks are reported with, of the device at `berth`.
    pub(crate) fn token(self, berth: usize) -> u64 {
        token(berth, self.unit)
    }
}

/// The unit in the lower half, the berth of the device in the upper.
fn token(berth: usize, unit: usize) -> u64 {
    (berth as u64) << 32 | unit as u64
}

/// Which unit of the device at which berth was kicked. The device there may be another by now: it is kicked for nothing
/// then, once.
pub(crate) fn kicked(token: u64) -> Option<(usize, usize)> {
    let unit = usize::try_from(token & u64::from(u32::MAX)).ok()?;
    Some((usize::try_from(token >> 32).ok()?, unit))
}

/// Something that all teams of a device do; the last one says that it is done.
pub(crate) struct Joint {
    left: AtomicUsize,
}

impl Joint {
    pub(crate) fn new(teams: usize) -> Arc<Self> {
        Arc::new(Self {
            left: AtomicUsize::new(teams),
        })
    }

    /// Whether all teams are done. Acquire pairs with the release in `done`: nothing of theirs happens any more.
    pub(crate) fn is_done(&self) -> bool {
        self.left.load(Ordering::Acquire) == 0
    }

    /// One more team is done. Answers whether it was the last one.
    fn done(&self) -> bool {
        // Acquire too: the last one sees what the others did.
        self.left.fetch_sub(1, Ordering::AcqRel) == 1
    }
}

/// A unit in its team.
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

    /// Has its sources watched.
    ///
    /// # Errors
    /// When one cannot be polled.
    fn watch(&mut self, kicks: &Kicks, token: u64) -> std::io::Result<()> {
        let (mut watched, mut outcome) = (Vec::new(), Ok(()));
        for source in std::mem::take(&mut self.sources) {
            match kicks.watch_source(source, token) {
                Ok(source) => watched.push(source),
                Err(e) => outcome = Err(e),
            }
        }
        self.sources = watched;
        outcome
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

/// What all units of a team come to rest for: it is over once nothing of theirs is in flight.
enum Rest {
    Suspend(Arc<Joint>),
    Reset(Arc<Joint>),
}

/// The units of a device that one worker serves.
pub(crate) struct Team {
    core: Arc<Shared>,
    berth: usize,
    mailbox: Arc<Mailbox<Command>>,
    kicks: Arc<Kicks>,
    posts: Vec<Post>,
    patience: Duration,
    /// Whether it has a turn in each pass.
    up: bool,
    live: bool,
    suspended: bool,
    /// A suspend or a reset that is not over.
    rest: Option<Rest>,
    /// Whether stops of queues are not over.
    stopping: bool,
    /// The first address space: every group is there after a reset.
    home: AddressSpace,
    /// Last, so that everything else is gone when its owner is told.
    _aboard: Aboard,
}

/// What a turn came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Turn {
    /// Something was done; there may be more.
    Worked,
    /// There was nothing to do, and may be soon.
    Quiet,
    /// There is nothing to do before the team is marked or kicked.
    Done,
    /// The team is not served any more.
    Left,
}

impl Team {
    /// A team of the device at `berth`, for the worker that is kicked by `kicks`. Its posts' sources are watched.
    ///
    /// # Errors
    /// When one cannot be polled.
    pub(crate) fn new(
        core: Arc<Shared>,
        berth: &Berth,
        mailbox: Arc<Mailbox<Command>>,
        kicks: Arc<Kicks>,
        posts: Vec<Post>,
        home: AddressSpace,
        patience: Duration,
    ) -> std::io::Result<Self> {
        let mut team = Self {
            core,
            berth: berth.number,
            mailbox,
            kicks,
            posts,
            patience,
            up: false,
            live: false,
            suspended: false,
            rest: None,
            stopping: false,
            home,
            _aboard: Aboard::new(&berth.left),
        };
        for (unit, post) in team.posts.iter_mut().enumerate() {
            post.watch(&team.kicks, token(team.berth, unit))?;
        }
        Ok(team)
    }

    /// Its device's berth.
    pub(crate) fn berth(&self) -> usize {
        self.berth
    }

    /// It has turns from here on. `false`: it had them before.
    pub(crate) fn rouse(&mut self) -> bool {
        !std::mem::replace(&mut self.up, true)
    }

    /// It has no turns from here on.
    pub(crate) fn lie_down(&mut self) {
        self.up = false;
    }

    /// When the first of its calls that are held back is due, at the latest: it has a turn then. A device that does not
    /// run calls nobody.
    pub(crate) fn due(&self) -> Option<Instant> {
        let due = self.posts.iter().filter_map(|post| post.due);
        due.min().filter(|_| self.runs())
    }

    /// A unit was kicked. What is kicked before it may be served is hot from then on.
    pub(crate) fn kick(&mut self, unit: usize) {
        if let Some(post) = self.posts.get_mut(unit) {
            post.heat();
        }
    }

    /// Tells its owner.
    pub(crate) fn raise(&self, event: Event) {
        self.core.raise(event);
    }

    /// Carries out commands, and serves every hot unit once.
    pub(crate) fn turn(&mut self, desk: &mut Desk) -> Turn {
        if self.mailbox.is_pending() {
            for command in self.mailbox.take() {
                if matches!(command, Command::Exit) {
                    return Turn::Left;
                }
                self.obey(command);
            }
        }
        let turn = if self.is_awake() {
            self.pass(desk)
        } else {
            Turn::Done
        };
        // What came to its end may be followed by more.
        if self.settle() { Turn::Worked } else { turn }
    }

    /// Whether the device runs: whatever comes is served.
    fn runs(&self) -> bool {
        self.live && !self.suspended && self.rest.is_none()
    }

    /// Whether kicks and sources matter: the device runs, or something has to end.
    fn is_awake(&self) -> bool {
        self.runs() || self.rest.is_some() || self.stopping
    }

    /// Serves every hot unit once.
    fn pass(&mut self, desk: &mut Desk) -> Turn {
        let runs = self.runs();
        let Self {
            core,
            posts,
            patience,
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
        match (worked, hot) {
            (true, _) => Turn::Worked,
            (false, true) => Turn::Quiet,
            (false, false) => Turn::Done,
        }
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
        unwatch(&self.kicks, kick.take());
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
                unwatch(&self.kicks, kick.take());
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

impl Drop for Team {
    fn drop(&mut self) {
        for post in &mut self.posts {
            let kicks = post.kicks.iter_mut().filter_map(Option::take);
            for file in kicks.chain(post.sources.drain(..)) {
                self.kicks.unwatch(&file);
            }
        }
    }
}

/// Takes an eventfd out.
fn unwatch(kicks: &Kicks, kick: Option<Arc<OwnedFd>>) {
    if let Some(kick) = kick {
        kicks.unwatch(&kick);
    }
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

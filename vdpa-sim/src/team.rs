//! Teams: what a worker serves of one device.
//!
//! ```text
//!   a turn:  commands ─▶ bells taken: their units are hot ─▶ each hot unit served ─▶ quiet for a while? asked for
//!                                                                                    kicks; still nothing: cold
//! ```
//! A unit is hot from its first kick until it was quiet for a bounded time; meanwhile kicks are switched off and its
//! rings are looked at in every pass. A team without a hot unit lies down, and costs nothing. Nothing is locked,
//! allocated or asked of the system for a batch, but for calls and for kicks to workers that sleep.

mod command;
mod joint;
mod post;
mod rest;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vdpa_core::{Event, Status};
use vdpa_mem::AddressSpace;

use crate::class::{Desk, Served, Station};
use crate::crew::{Aboard, Berth};
use crate::kicks::Kicks;
use crate::mailbox::Mailbox;
use crate::queue::Queue;
use crate::shared::Shared;

pub(crate) use command::{Command, Seat, Stop, kicked};
pub(crate) use joint::Joint;
pub(crate) use post::Post;

use command::token;
use rest::{Rest, drain};

/// The units of a device that one worker serves.
pub(crate) struct Team {
    core: Arc<Shared>,
    berth: usize,
    mailbox: Arc<Mailbox<Command>>,
    /// The same, lent to the desk in each pass.
    lent: Option<Arc<Mailbox<Command>>>,
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
    /// Whether it leaves, once nothing is in flight.
    leaving: bool,
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
            lent: Some(Arc::clone(&mailbox)),
            mailbox,
            kicks,
            posts,
            patience,
            up: false,
            live: false,
            suspended: false,
            rest: None,
            stopping: false,
            leaving: false,
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
                self.obey(command);
            }
        }
        let turn = if self.is_awake() {
            std::mem::swap(&mut desk.mailbox, &mut self.lent);
            let turn = self.pass(desk);
            std::mem::swap(&mut desk.mailbox, &mut self.lent);
            turn
        } else {
            Turn::Done
        };
        // What came to its end may be followed by more.
        let settled = self.settle();
        if self.leaving && self.is_idle() {
            Turn::Left
        } else if settled {
            Turn::Worked
        } else {
            turn
        }
    }

    /// Whether the device runs: whatever comes is served.
    fn runs(&self) -> bool {
        self.live && !self.suspended && self.rest.is_none() && !self.leaving
    }

    /// Whether kicks and sources matter: the device runs, or something has to end.
    fn is_awake(&self) -> bool {
        self.runs() || self.rest.is_some() || self.stopping || self.leaving
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
                Served::Nothing if post.may_skip_clock() => {}
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
                // One that is being suspended goes on so, too.
                if let Some(queue) = station.and_then(Station::open) {
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
            // The worker does not wait for what is in flight: it has others to serve.
            Command::Exit => {
                self.take_queues();
                self.leaving = true;
                self.heat();
            }
        }
    }

    /// Every unit is looked at once.
    fn heat(&mut self) {
        for post in &mut self.posts {
            post.heat();
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
        }
        *number = at.queue;
        *station = Station::Running(queue);
        post.heat();
    }
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
                // A call that is held back: nobody would make it later.
                queue.call();
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

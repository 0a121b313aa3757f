//! Crews: threads that serve the units of one device, or of many.
//!
//! ```text
//!        ┌────────────────────────────── a pass ──────────────────────────────┐
//!   ┌──▶ orders: teams join ─▶ marks taken: their teams are up ─▶ each team that is up has its turn
//!   │                                                              │ nothing to do: it lies down
//!   └──────── an order or a mark, or woken ◀── sleeps ◀── no team is up
//! ```
//! A device has a *team* at each worker of its crew: the units that are served there, see `team`. A bell of a team marks
//! it, so that a worker with a thousand teams that lie down looks at sixteen words, and at nothing of theirs. In a pass
//! each unit that is hot is served once, a batch at most, whatever its device is: so what one device does, or has done to
//! it, keeps the others waiting for no more than that.

use std::sync::{Arc, Condvar, Mutex};
use std::thread::{JoinHandle, ThreadId};
use std::time::{Duration, Instant};

use vdpa_core::{Event, Sleeper};
use vdpa_mem::{AddressSpace, Deadline};

use crate::class::Desk;
use crate::error::SimError;
use crate::kicks::Kicks;
use crate::mailbox::Mailbox;
use crate::rounds::Rounds;
use crate::shared::lock;
use crate::team::{Team, Turn};

/// In how many passes a busy worker looks once at the eventfds it was given.
const PASSES_A_LOOK: u32 = 64;

/// After how many passes in a row without work a worker that polls lets others run: whoever it polls for may be waiting
/// for this very CPU. So many take a few microseconds, within which a peer that runs elsewhere answers.
const PASSES_A_YIELD: u32 = 64;

/// How long a device that is let go of waits for what its backend has in flight. Its teams leave later then, by
/// themselves, and keep what they need.
const PATIENCE: Duration = Duration::from_secs(30);

/// The threads of one device, or of several that share them.
///
/// They start when the first device is opened, and end with the last handle to the crew; every device has one.
pub struct Crew {
    name: String,
    workers: usize,
    rounds: Arc<Rounds>,
    berths: Arc<Mutex<Vec<bool>>>,
    hands: Mutex<Vec<Hand>>,
}

/// A worker, from outside.
struct Hand {
    sleeper: Arc<Sleeper>,
    kicks: Arc<Kicks>,
    orders: Arc<Mailbox<Order>>,
    thread: Option<JoinHandle<()>>,
}

/// What a worker is told.
enum Order {
    /// A team is to be served from here on.
    Join(Box<Team>),
    /// The thread ends.
    Exit,
}

impl Crew {
    /// How many devices one crew can serve.
    pub const DEVICES: usize = Sleeper::MARKS;

    /// A crew of `workers` threads, one at least. None has started yet.
    ///
    /// * `name`: what its threads and errors are called
    pub fn new(name: &str, workers: usize) -> Arc<Self> {
        let workers = workers.max(1);
        Arc::new(Self {
            name: name.to_owned(),
            workers,
            rounds: Arc::new(Rounds::new(workers)),
            berths: Arc::default(),
            hands: Mutex::default(),
        })
    }

    /// A crew of one worker without a thread: whoever calls [`Shift::pass`] is it. For benches, and for tests that decide
    /// what happens when. What a device is asked to do, a reset for instance, is done by passes, and waits for them; so does
    /// dropping one, unless the shift was dropped before.
    ///
    /// # Errors
    /// [`SimError::Worker`] when the system has no eventfd left to give.
    pub fn by_hand(name: &str) -> Result<(Arc<Self>, Shift), SimError> {
        let crew = Self::new(name, 1);
        let made = crew.make_one(0).map_err(|source| SimError::Worker {
            name: name.to_owned(),
            worker: 0,
            source,
        });
        let (hand, worker) = made?;
        lock(&crew.hands).push(hand);
        Ok((crew, Shift(worker)))
    }

    /// How many threads it has.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// A place for a device, of which the crew is told by [`join`](Self::join).
    pub(crate) fn berth(&self) -> Result<Berth, SimError> {
        let mut hands = lock(&self.hands);
        if hands.is_empty() {
            *hands = self.start()?;
        }
        let mut berths = lock(&self.berths);
        let free = berths.iter().position(|taken| !taken);
        let number = free.unwrap_or(berths.len());
        if number >= Self::DEVICES {
            return Err(SimError::CrewFull {
                name: self.name.clone(),
                devices: Self::DEVICES,
            });
        }
        match berths.get_mut(number) {
            Some(taken) => *taken = true,
            None => berths.push(true),
        }
        Ok(Berth {
            number,
            places: hands
                .iter()
                .map(|hand| (Arc::clone(&hand.sleeper), Arc::clone(&hand.kicks)))
                .collect(),
            left: Arc::new(Left {
                berths: Arc::clone(&self.berths),
                number,
                teams: Mutex::new(0),
                none: Condvar::new(),
            }),
        })
    }

    /// Has worker `worker` serve a team.
    pub(crate) fn join(&self, worker: usize, team: Team) {
        if let Some(hand) = lock(&self.hands).get(worker) {
            hand.orders.post(Order::Join(Box::new(team)));
        }
    }

    /// Whether the caller is one of its threads.
    pub(crate) fn is_own(&self, thread: ThreadId) -> bool {
        let hands = lock(&self.hands);
        let mut threads = hands.iter().filter_map(|hand| hand.thread.as_ref());
        threads.any(|own| own.thread().id() == thread)
    }

    fn start(&self) -> Result<Vec<Hand>, SimError> {
        let mut hands = Vec::new();
        for number in 0..self.workers {
            match self.start_one(number) {
                Ok(hand) => hands.push(hand),
                Err(source) => {
                    end(&mut hands);
                    return Err(SimError::Worker {
                        name: self.name.clone(),
                        worker: number,
                        source,
                    });
                }
            }
        }
        Ok(hands)
    }

    fn start_one(&self, number: usize) -> std::io::Result<Hand> {
        let (hand, worker) = self.make_one(number)?;
        let thread = std::thread::Builder::new()
            // The system's names have no NUL.
            .name(format!("{}-{number}", self.name).replace('\0', "?"))
            .spawn(move || worker.run())?;
        Ok(Hand {
            thread: Some(thread),
            ..hand
        })
    }

    /// A worker, and the way to it.
    fn make_one(&self, number: usize) -> std::io::Result<(Hand, Worker)> {
        let sleeper = Sleeper::new().map_err(std::io::Error::other)?;
        let kicks = Arc::new(Kicks::new(Arc::clone(&sleeper))?);
        let orders = Arc::new(Mailbox::new(&sleeper));
        let nowhere = AddressSpace::new().reader();
        let worker = Worker {
            number,
            sleeper: Arc::clone(&sleeper),
            kicks: Arc::clone(&kicks),
            orders: Arc::clone(&orders),
            teams: Vec::new(),
            up: Vec::new(),
            alarms: Vec::new(),
            desk: Desk::new(nowhere, Arc::clone(&self.rounds), number),
            empty: 0,
            passes: 0,
        };
        let hand = Hand {
            sleeper,
            kicks,
            orders,
            thread: None,
        };
        Ok((hand, worker))
    }
}

/// The worker of a crew that has no thread: see [`Crew::by_hand`]. Once it is dropped its devices are not served any more.
pub struct Shift(Worker);

impl Shift {
    /// Serves each unit that is hot once, those that eventfds have kicked since the last pass among them. Answers whether
    /// there is one still: without, nothing happens before something is kicked or asked for.
    pub fn pass(&mut self) -> bool {
        // A worker with a thread is told of them where it sleeps.
        if self.0.kicks.are_watched() {
            self.0.look();
        }
        let hot = self.0.turn().unwrap_or(false);
        // A unit may have rung for itself, or for another, while it was served.
        hot || self.0.is_rung()
    }
}

/// Ends the threads.
fn end(hands: &mut [Hand]) {
    for hand in &*hands {
        hand.orders.post(Order::Exit);
    }
    let own = std::thread::current().id();
    for thread in hands.iter_mut().filter_map(|hand| hand.thread.take()) {
        // A call closure that drops the last device runs on a worker, which cannot wait for itself.
        if thread.thread().id() != own {
            let _panicked = thread.join();
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        end(&mut lock(&self.hands));
    }
}

/// A device's place in a crew.
pub(crate) struct Berth {
    /// What its bells mark.
    pub(crate) number: usize,
    /// Where each worker sleeps, and what kicks it.
    pub(crate) places: Vec<(Arc<Sleeper>, Arc<Kicks>)>,
    pub(crate) left: Arc<Left>,
}

/// Whether the teams of a device have left. The place is free once it is dropped: they have, and their owner is done.
pub(crate) struct Left {
    berths: Arc<Mutex<Vec<bool>>>,
    number: usize,
    teams: Mutex<usize>,
    none: Condvar,
}

impl Left {
    /// Waits until no team is at a worker any more. `false`: one still is, after [`PATIENCE`].
    pub(crate) fn wait(&self) -> bool {
        let teams = lock(&self.teams);
        let waited = self
            .none
            .wait_timeout_while(teams, PATIENCE, |teams| *teams != 0);
        let (teams, _) = waited.unwrap_or_else(std::sync::PoisonError::into_inner);
        *teams == 0
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        if let Some(taken) = lock(&self.berths).get_mut(self.number) {
            *taken = false;
        }
    }
}

/// Counts a team among those that have not left, until it is dropped.
pub(crate) struct Aboard(Arc<Left>);

impl Aboard {
    pub(crate) fn new(left: &Arc<Left>) -> Self {
        let mut teams = lock(&left.teams);
        *teams = teams.saturating_add(1);
        Self(Arc::clone(left))
    }
}

impl Drop for Aboard {
    fn drop(&mut self) {
        let mut teams = lock(&self.0.teams);
        *teams = teams.saturating_sub(1);
        self.0.none.notify_all();
    }
}

/// One thread.
struct Worker {
    number: usize,
    sleeper: Arc<Sleeper>,
    kicks: Arc<Kicks>,
    orders: Arc<Mailbox<Order>>,
    /// By their berths.
    teams: Vec<Option<Box<Team>>>,
    /// The berths of those that are up.
    up: Vec<usize>,
    /// When those that lie down are to get up by themselves.
    alarms: Vec<(usize, Instant)>,
    desk: Desk,
    /// Passes without work since there was some.
    empty: u32,
    /// Busy passes, for the looks at the eventfds.
    passes: u32,
}

impl Worker {
    /// Works until told to exit.
    fn run(mut self) {
        let rounds = Arc::clone(&self.desk.rounds);
        // Until here it counted as asleep.
        rounds.wake(self.number);
        while let Some(busy) = self.turn() {
            if !busy {
                rounds.rest(self.number);
                self.sleep();
                rounds.wake(self.number);
            }
        }
        rounds.rest(self.number);
    }

    /// A pass, with what comes before and after. Answers whether a team is up; `None`: the thread ends.
    fn turn(&mut self) -> Option<bool> {
        self.desk.rounds.begin(self.number);
        if self.orders.is_pending() && !self.obey() {
            return None;
        }
        let Self {
            sleeper,
            teams,
            up,
            alarms,
            ..
        } = &mut *self;
        sleeper.take_marks(teams.len(), |berth| rouse(teams, up, berth));
        if !alarms.is_empty() {
            let now = Instant::now();
            for (berth, _) in alarms.extract_if(.., |(_, due)| *due <= now) {
                rouse(teams, up, berth);
            }
        }
        let busy = self.pass();
        if busy && self.kicks.are_watched() {
            self.passes = self.passes.wrapping_add(1);
            if self.passes.is_multiple_of(PASSES_A_LOOK) {
                self.look();
            }
        }
        Some(busy)
    }

    /// Carries out what was ordered. `false`: the thread ends.
    fn obey(&mut self) -> bool {
        for order in self.orders.take() {
            let Order::Join(team) = order else {
                return false;
            };
            let berth = team.berth();
            if self.teams.len() <= berth {
                self.teams.resize_with(berth.saturating_add(1), || None);
                // None is roused twice.
                self.up.reserve(self.teams.len());
                self.alarms.reserve(self.teams.len());
            }
            if let Some(place) = self.teams.get_mut(berth) {
                // Its teams left all workers before another was given the berth.
                *place = Some(team);
            }
            rouse(&mut self.teams, &mut self.up, berth);
        }
        true
    }

    /// Gives each team that is up a turn. `false`: there is none.
    fn pass(&mut self) -> bool {
        let Self {
            teams,
            up,
            alarms,
            desk,
            empty,
            ..
        } = self;
        let mut worked = false;
        up.retain(|berth| {
            let Some(place) = teams.get_mut(*berth) else {
                return false;
            };
            let Some(team) = place else { return false };
            match team.turn(desk) {
                Turn::Worked => {
                    worked = true;
                    true
                }
                Turn::Quiet => true,
                Turn::Done => {
                    team.lie_down();
                    if let Some(due) = team.due() {
                        alarms.retain(|(other, _)| other != berth);
                        alarms.push((*berth, due));
                    }
                    false
                }
                Turn::Left => {
                    *place = None;
                    false
                }
            }
        });
        *empty = if worked { 0 } else { empty.wrapping_add(1) };
        if !up.is_empty() && !worked {
            if empty.is_multiple_of(PASSES_A_YIELD) {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
        !up.is_empty()
    }

    /// Whether a bell of its teams was rung.
    fn is_rung(&self) -> bool {
        self.sleeper.is_marked(self.teams.len())
    }

    /// Sleeps until there is something to do.
    fn sleep(&mut self) {
        let Self {
            sleeper,
            orders,
            teams,
            alarms,
            kicks,
            ..
        } = self;
        let by = alarms.iter().map(|(_, due)| *due).min();
        let work = || sleeper.is_marked(teams.len()) || orders.is_pending();
        let slept = kicks.sleep_unless(work, by.map(Deadline::at));
        match slept {
            Ok(true) => self.look(),
            Ok(false) => {}
            Err(e) => {
                let why = format!("worker {}: {e}", self.number);
                for team in self.teams.iter().flatten() {
                    let why = why.clone();
                    team.raise(Event::Broken { why });
                }
                // Not a busy loop on top of it.
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    /// Looks at the eventfds. What is kicked before it may be served is hot from then on.
    fn look(&mut self) {
        let Self {
            kicks, teams, up, ..
        } = self;
        kicks.take(|token| {
            let Some((berth, unit)) = crate::team::kicked(token) else {
                return;
            };
            if let Some(Some(team)) = teams.get_mut(berth) {
                team.kick(unit);
                rouse(teams, up, berth);
            }
        });
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // A team that was not looked at yet leaves too.
        drop(self.orders.take());
    }
}

/// The team at `berth`, if there is one, has a turn in each pass from here on.
fn rouse(teams: &mut [Option<Box<Team>>], up: &mut Vec<usize>, berth: usize) {
    if let Some(Some(team)) = teams.get_mut(berth)
        && team.rouse()
    {
        up.push(berth);
    }
}

//! What the kicks and calls of all queues share, with the device that is wrapped.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use vdpa_core::faults::{Dice, Kind, Plan};
use vdpa_core::{Call, CallCell, Doorbell, Event, Host, VdpaDevice};

use super::control::Control;
use super::kinds;
use super::timer::{Lane, Timer};
use crate::line::lock;

/// The lane of dice that are not a queue's.
pub(super) const DEVICE: u64 = u64::MAX;

/// How many more kicks or calls, and how many microseconds, something is late.
const LATE: (std::ops::RangeInclusive<u64>, std::ops::RangeInclusive<u64>) =
    (1..=8, 1_000..=20_000);

/// What can happen to the device as a whole when it is kicked.
struct Blows {
    storm: Option<Dice>,
    needs_reset: Option<Dice>,
    gone: Option<Dice>,
}

pub(super) struct Core {
    /// Not kept alive by doorbells that outlive the device.
    below: Weak<dyn VdpaDevice>,
    host: OnceLock<Host>,
    /// Held over control calls of the device below, which come one at a time. Never while it rings or calls.
    pub(super) control: Mutex<Control>,
    blows: Mutex<Blows>,
    /// Added to the generation of the configuration.
    pub(super) storms: AtomicU32,
    needs_reset: AtomicBool,
    gone: AtomicBool,
    timer: OnceLock<Timer>,
}

fn strikes(dice: &mut Option<Dice>) -> bool {
    dice.as_mut().is_some_and(Dice::strikes)
}

impl Core {
    pub(super) fn new(below: &Arc<dyn VdpaDevice>, plan: &Plan) -> Self {
        let dice = |kind| plan.dice(kind, DEVICE);
        Self {
            below: Arc::downgrade(below),
            host: OnceLock::new(),
            control: Mutex::new(Control::new(below.info().queues, plan)),
            blows: Mutex::new(Blows {
                storm: dice(kinds::CONFIG_STORM),
                needs_reset: dice(kinds::NEEDS_RESET),
                gone: dice(kinds::GONE),
            }),
            storms: AtomicU32::new(0),
            needs_reset: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            timer: OnceLock::new(),
        }
    }

    pub(super) fn set_host(&self, host: Host) {
        let _again = self.host.set(host);
    }

    pub(super) fn host(&self) -> Option<&Host> {
        self.host.get()
    }

    pub(super) fn set_timer(&self, timer: Timer) {
        let _again = self.timer.set(timer);
    }

    pub(super) fn timer(&self) -> Option<&Timer> {
        self.timer.get()
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    pub(super) fn needs_reset(&self) -> bool {
        self.needs_reset.load(Ordering::Acquire)
    }

    pub(super) fn forget_needs_reset(&self) {
        self.needs_reset.store(false, Ordering::Release);
    }

    /// Whether the device hears nothing and says nothing.
    fn is_deaf(&self) -> bool {
        self.needs_reset() || self.is_gone()
    }

    /// The configuration is said to have changed.
    pub(super) fn storm(&self) {
        self.storms.fetch_add(1, Ordering::AcqRel);
        self.raise(Event::Config);
    }

    fn raise(&self, event: Event) {
        if let Some(host) = self.host() {
            host.events.raise(event);
        }
    }

    /// A kick came: what happens to the device?
    fn hit(&self) {
        let mut blows = lock(&self.blows);
        let storm = strikes(&mut blows.storm);
        let needs_reset = strikes(&mut blows.needs_reset);
        let gone = strikes(&mut blows.gone);
        drop(blows);
        if storm {
            self.storm();
        }
        if needs_reset {
            self.needs_reset.store(true, Ordering::Release);
            self.raise(Event::NeedsReset {
                queue: None,
                why: format!("fault {}", kinds::NEEDS_RESET.name),
            });
        }
        if gone && !self.gone.swap(true, Ordering::AcqRel) {
            // What is gone touches nothing any more.
            let control = lock(&self.control);
            if let Some(below) = self.below.upgrade() {
                let _refused = below.begin_reset();
            }
            drop(control);
            self.raise(Event::Gone);
        }
    }

    fn later(&self, dice: &mut Dice, lane: Lane, deed: impl FnOnce() + Send + 'static) {
        if let Some(timer) = self.timer() {
            let after = Duration::from_micros(dice.draw(LATE.1));
            timer.add(lane, dice.draw(LATE.0), after, Box::new(deed));
        }
    }

    fn pass(&self, lane: Lane) {
        if let Some(timer) = self.timer() {
            timer.pass(lane);
        }
    }
}

/// What can happen on the way: the same for kicks and calls.
pub(super) struct Mishaps {
    lost: Option<Dice>,
    doubled: Option<Dice>,
    late: Option<Dice>,
}

impl Mishaps {
    /// * `kinds`: lost, doubled, late
    pub(super) fn new(plan: &Plan, kinds: [Kind; 3], queue: u16) -> Arc<Mutex<Self>> {
        let [lost, doubled, late] = kinds.map(|kind| plan.dice(kind, queue.into()));
        Arc::new(Mutex::new(Self {
            lost,
            doubled,
            late,
        }))
    }

    /// How often it is done now: not at all if it is lost, or late.
    fn now(&mut self, core: &Core, lane: Lane, late: impl FnOnce() + Send + 'static) -> u32 {
        if strikes(&mut self.lost) {
            return 0;
        }
        if strikes(&mut self.late) {
            if let Some(dice) = &mut self.late {
                core.later(dice, lane, late);
            }
            return 0;
        }
        1_u32.saturating_add(strikes(&mut self.doubled).into())
    }
}

/// The kicks of one run of a queue.
pub(super) struct Kicks {
    pub(super) core: Arc<Core>,
    pub(super) queue: u16,
    pub(super) to: Doorbell,
    pub(super) mishaps: Arc<Mutex<Mishaps>>,
    /// Until the queue stops: doorbells do nothing after that.
    pub(super) live: AtomicBool,
}

impl Kicks {
    pub(super) fn ring(self: &Arc<Self>, data: u32) {
        let core = &self.core;
        if !self.is_live() {
            return;
        }
        core.hit();
        let lane = Lane::Kick(self.queue);
        core.pass(lane);
        let late = {
            let this = Arc::clone(self);
            move || this.ring_now(data)
        };
        let times = lock(&self.mishaps).now(core, lane, late);
        for _ in 0..times {
            self.ring_now(data);
        }
    }

    fn ring_now(&self, data: u32) {
        if self.is_live() {
            self.to.ring(data);
        }
    }

    fn is_live(&self) -> bool {
        self.live.load(Ordering::Acquire) && !self.core.is_deaf()
    }

    pub(super) fn end(&self) {
        self.live.store(false, Ordering::Release);
    }
}

/// A call of a queue, from when it is set until it is replaced or its queue stops.
pub(super) struct Calls {
    pub(super) core: Arc<Core>,
    pub(super) queue: u16,
    /// For a closure that panics, which is to be called once; and for whoever waits until it does not run.
    pub(super) to: CallCell,
    pub(super) mishaps: Arc<Mutex<Mishaps>>,
    pub(super) live: AtomicBool,
}

impl Calls {
    pub(super) fn raise(self: &Arc<Self>) {
        let core = &self.core;
        let lane = Lane::Call(self.queue);
        core.pass(lane);
        let late = {
            let this = Arc::clone(self);
            move || this.raise_now()
        };
        let times = lock(&self.mishaps).now(core, lane, late);
        for _ in 0..times {
            self.raise_now();
        }
    }

    fn raise_now(&self) {
        if self.live.load(Ordering::Acquire) && !self.core.is_deaf() {
            self.to.raise();
        }
    }

    /// Nothing comes any more from here on, but what is under way.
    pub(super) fn end(&self) {
        self.live.store(false, Ordering::Release);
    }

    /// Nothing comes any more, and nothing is under way.
    pub(super) fn end_and_wait(&self) {
        self.end();
        self.to.replace(Call::None);
    }
}

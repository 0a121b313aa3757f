//! What the contract calls of a device have to remember.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use vdpa_core::Status;
use vdpa_core::faults::{Dice, Plan};

use super::core::{Calls, DEVICE, Kicks, Mishaps};
use super::kinds;
use crate::line::Relays;

/// How many microseconds something takes longer.
const SLOW: std::ops::RangeInclusive<u64> = 1_000..=50_000;

/// A queue, as the layer sees it.
pub(super) struct Slot {
    /// Kept over runs of the queue, so that a count goes on; `None` where no such fault is asked for.
    pub(super) kick_mishaps: Option<Arc<Mutex<Mishaps>>>,
    pub(super) call_mishaps: Option<Arc<Mutex<Mishaps>>>,
    pub(super) run: Run,
    /// Until when a stop that was begun is said to be under way.
    pub(super) slow: Option<Instant>,
}

/// What there is while a queue runs.
#[derive(Default)]
pub(super) struct Run {
    pub(super) kicks: Option<Arc<Kicks>>,
    pub(super) calls: Option<Arc<Calls>>,
    pub(super) relays: Relays,
}

impl Run {
    /// The queue stops: its kicks are not heard and its call is not made any more. To be dropped outside of locks.
    pub(super) fn end(&mut self) -> Run {
        let run = std::mem::take(self);
        if let Some(kicks) = &run.kicks {
            kicks.end();
        }
        if let Some(calls) = &run.calls {
            calls.end();
        }
        run
    }
}

/// A reset that was begun.
pub(super) struct Resetting {
    /// The status before, which shows until it is said to be complete.
    pub(super) shown: Status,
    pub(super) until: Option<Instant>,
}

pub(super) struct Control {
    error: Option<Dice>,
    slow: Option<Dice>,
    refused: Option<Dice>,
    generation: Option<Dice>,
    pub(super) slots: Vec<Slot>,
    pub(super) resetting: Option<Resetting>,
    pub(super) suspend_slow: Option<Instant>,
}

/// The lane of reads of the configuration's generation, beside that of kicks.
const GENERATION: u64 = DEVICE - 1;

impl Control {
    pub(super) fn new(queues: u16, plan: &Plan) -> Self {
        let device = [kinds::NEEDS_RESET, kinds::GONE];
        let any = |kinds: &[_], more: &[_]| kinds.iter().chain(more).any(|kind| plan.has(*kind));
        let kicks = [kinds::KICK_LOST, kinds::KICK_DOUBLED, kinds::KICK_LATE];
        let calls = [kinds::CALL_LOST, kinds::CALL_DOUBLED, kinds::CALL_LATE];
        let [led_kicks, led_calls] = [
            any(&kicks, &device) || plan.has(kinds::CONFIG_STORM),
            any(&calls, &device),
        ];
        let slot = |queue| Slot {
            kick_mishaps: led_kicks.then(|| Mishaps::new(plan, kicks, queue)),
            call_mishaps: led_calls.then(|| Mishaps::new(plan, calls, queue)),
            run: Run::default(),
            slow: None,
        };
        Self {
            error: plan.dice(kinds::CONTROL_ERROR, DEVICE),
            slow: plan.dice(kinds::CONTROL_SLOW, DEVICE),
            refused: plan.dice(kinds::CONTROL_REFUSED, DEVICE),
            generation: plan.dice(kinds::CONFIG_STORM, GENERATION),
            slots: (0..queues).map(slot).collect(),
            resetting: None,
            suspend_slow: None,
        }
    }

    /// Whether the call that comes fails.
    pub(super) fn fails(&mut self) -> bool {
        self.error.as_mut().is_some_and(Dice::strikes)
    }

    /// Whether FEATURES_OK is left unset.
    pub(super) fn refuses(&mut self) -> bool {
        self.refused.as_mut().is_some_and(Dice::strikes)
    }

    /// Whether the configuration is said to have changed when that is asked for.
    pub(super) fn storms(&mut self) -> bool {
        self.generation.as_mut().is_some_and(Dice::strikes)
    }

    /// Until when what is begun now is said to be under way, if it is slow.
    pub(super) fn slow(&mut self) -> Option<Instant> {
        let dice = self.slow.as_mut()?;
        if !dice.strikes() {
            return None;
        }
        Instant::now().checked_add(Duration::from_micros(dice.draw(SLOW)))
    }
}

/// What can happen to a mapping.
pub(super) struct Maps {
    refused: Option<Dice>,
    late: Option<Dice>,
}

impl Maps {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            refused: plan.dice(kinds::MAP_REFUSED, DEVICE),
            late: plan.dice(kinds::MAP_LATE, DEVICE),
        }
    }

    /// Whether the mapping that comes is refused, and how much longer it takes.
    pub(super) fn strike(&mut self) -> (bool, Option<Duration>) {
        let refused = self.refused.as_mut().is_some_and(Dice::strikes);
        let late = self.late.as_mut().and_then(|dice| {
            let strikes = dice.strikes();
            strikes.then(|| Duration::from_micros(dice.draw(SLOW)))
        });
        (refused, late)
    }
}

/// Whether something is still said to be under way.
pub(super) fn is_before(until: Option<Instant>) -> bool {
    until.is_some_and(|until| Instant::now() < until)
}

//! Where the administration queue, the owner's class and its virtual functions meet.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::Poll;
use std::time::{Duration, Instant};

use super::command::{Refusal, Reply};
use super::engine::Engine;
use super::group::{Group, NoGroup};
use crate::shared::lock;
use crate::stats::Counters;

/// What the administration queue counts: places in [`COUNTERS`].
pub(super) const COMMANDS: usize = 0;
pub(super) const REFUSED: usize = 1;
pub(super) const FAULTS: usize = 2;
pub(super) const CALLS: usize = 3;

/// The names of these counters, behind `admin.`.
pub const COUNTERS: &[&str] = &["commands", "refused", "faults", "calls"];

/// How long a command may be pending at first, in milliseconds.
const PATIENCE_MS: u64 = 10_000;

/// An [`Engine`] and what it works on.
pub struct Office {
    engine: Mutex<Engine>,
    group: Mutex<Option<Weak<dyn Group>>>,
    /// How long a command may be pending, in milliseconds.
    patience: AtomicU64,
    /// How often the queue alone was reset.
    resets: AtomicU64,
    /// How often it came or went otherwise, too.
    changes: AtomicU64,
    pub(super) counters: Counters,
}

impl Default for Office {
    fn default() -> Self {
        Self::new()
    }
}

impl Office {
    /// One without virtual functions.
    pub fn new() -> Self {
        Self {
            engine: Mutex::new(Engine::new()),
            group: Mutex::new(None),
            patience: AtomicU64::new(PATIENCE_MS),
            resets: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            counters: Counters::new(COUNTERS),
        }
    }

    /// The virtual functions are those of `group` from here on, for as long as it lives.
    pub fn set_group(&self, group: Weak<dyn Group>) {
        *lock(&self.group) = Some(group);
    }

    /// Carries out a command, as [`Engine::run`] does.
    pub fn run(&self, command: &[u8], room: usize) -> Poll<Reply> {
        let group = self.group();
        let group: &dyn Group = group.as_deref().unwrap_or(&NoGroup);
        lock(&self.engine).run(command, room, group)
    }

    /// How long a command may be pending from here on, in whole milliseconds; 10 seconds, unless something else is said.
    pub fn set_patience(&self, patience: Duration) {
        let ms = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        self.patience.store(ms, Ordering::Relaxed);
    }

    /// Takes back a command that is pending for too long, and says how it is answered then. `None`: it is to be run again.
    ///
    /// * `since`: when it was run first
    ///
    /// # Spec
    /// virtio 1.4 §2.13.1: what is to be tried again has had no effect.
    pub(super) fn give_up(&self, command: &[u8], since: Instant) -> Option<Reply> {
        let patience = Duration::from_millis(self.patience.load(Ordering::Relaxed));
        if since.elapsed() < patience {
            return None;
        }
        let group = self.group();
        if group.is_some_and(|group| Engine::has_begun(command, &*group)) {
            return None;
        }
        self.abandon();
        Some(Reply::from(Err(Refusal::TRY_AGAIN)))
    }

    fn group(&self) -> Option<Arc<dyn Group>> {
        lock(&self.group).as_ref().and_then(Weak::upgrade)
    }

    /// The owner is reset: lists, capabilities and objects are gone, and nobody asks for what is pending.
    pub fn reset(&self) {
        *lock(&self.engine) = Engine::new();
        self.abandon();
    }

    /// The queue alone is reset: what it had begun is nobody's.
    pub(super) fn queue_reset(&self) {
        self.resets.fetch_add(1, Ordering::AcqRel);
        self.abandon();
    }

    /// The queue begins to run, or has stopped: what was read of it may not be next any more.
    pub(super) fn queue_changed(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// How often it began to run or stopped so far.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// How often the queue alone was reset so far.
    pub(super) fn resets(&self) -> u64 {
        self.resets.load(Ordering::Acquire)
    }

    /// A command that is pending is not run again.
    fn abandon(&self) {
        let Some(group) = self.group() else { return };
        for number in 1..=group.members().unwrap_or(0) {
            if let Some(member) = group.member(number) {
                member.abandon();
            }
        }
    }
}

impl fmt::Debug for Office {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Office")
            .field("engine", &self.engine)
            .finish_non_exhaustive()
    }
}

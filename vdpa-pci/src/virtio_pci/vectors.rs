//! Which interrupt stands for what.
//!
//! ```text
//!   vectors ≥ 2   0: configuration    1, 2, ...: a queue each    the last one: all queues that are left
//!   1 vector      0: configuration and all queues
//!   none          the interrupt line, whose status says which
//!   no line       nobody is called: queues whose driver polls can be started, and no change is told of
//! ```
//! Every vector that is written is read back, virtio 1.4 §4.1.5.1.2.2. A queue that is refused its own shares the last
//! one; refused that, it shares the configuration's. Where no vector is taken at all, the line is used.
//!
//! Where calls are eventfds, a vector of one queue alone makes its call directly. Any other runs a [`Fan`]: a closure may
//! take its time, so a reset shuts the fan and does not wait; it is complete when nobody is inside any more.

use std::sync::{Arc, OnceLock};

use vdpa_core::{Call, CallKind, Error, Host, QueueIndex, Relayed, Result};

use super::ending::{Dead, Ending, From, Spent, note_kept};
use super::fan::{Fan, Source};
use super::gate::Branch;
use super::narrow;
use crate::error::PciError;
use crate::registers::{Register, Registers, common};

/// What the register reads where no vector is mapped.
const NO_VECTOR: u16 = 0xffff;

/// Where the call of a queue is made.
pub(super) enum Target {
    /// By this vector itself.
    Vector(u16),
    /// By a fan, through this branch.
    Branch(Arc<Branch>),
    /// By nothing: there is no interrupt.
    Nothing,
}

/// The interrupts of a function.
#[derive(Default)]
pub(super) struct Vectors {
    mode: Mode,
    /// How many vectors are switched on, also between resets.
    enabled: u16,
    /// Counts resets.
    pub(super) epoch: u64,
    slots: Vec<Slot>,
    /// What is shut since a reset began, and may still be inside.
    ending: Vec<Ending>,
    /// The calls of queues that were reset alone, which may still run.
    leaving: Vec<(QueueIndex, Arc<Branch>)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Mode {
    /// Nothing is mapped since the reset.
    #[default]
    Unset,
    Vectors,
    Line,
    /// There is no interrupt.
    Silent,
}

/// One vector, or the line.
#[derive(Default)]
struct Slot {
    config: bool,
    members: Vec<Member>,
    /// With the call that runs it.
    fan: Option<(Arc<Fan>, Call)>,
    relayed: Option<Relayed>,
}

struct Member {
    queue: QueueIndex,
    call: Call,
    /// Made once a fan runs it.
    branch: OnceLock<Arc<Branch>>,
}

impl Member {
    fn branch(&self) -> Arc<Branch> {
        let branch = self
            .branch
            .get_or_init(|| Arc::new(Branch::new(self.call.clone())));
        Arc::clone(branch)
    }
}

impl Vectors {
    /// Has everything ready for queues, once after a reset.
    ///
    /// * `queues`: how many there can be
    pub(super) fn prepare(
        &mut self,
        registers: &Arc<Registers>,
        host: &Host,
        queues: u16,
        dead: &mut Dead,
    ) -> Result<()> {
        if self.mode != Mode::Unset {
            return Ok(());
        }
        if !self.end(registers, dead) {
            return Err(Error::Busy { what: "a reset" });
        }
        // The first change is told from none by it.
        registers.note_generation()?;
        if self.enabled == 0 {
            let most = registers.access().interrupts().msix;
            let table = registers.layout.msix.map_or(most, |msix| msix.vectors);
            self.enabled = enable(registers, most.min(table).min(queues.saturating_add(1)))?;
        }
        if self.enabled == 0 && !has_line(registers) {
            tracing::warn!(
                function = registers.name(),
                "there is no interrupt: its queues have to be polled, and no change of its configuration is told of"
            );
            self.slots = vec![Slot::default()];
            self.mode = Mode::Silent;
            return Ok(());
        }
        if self.enabled == 0 {
            return self.use_line(registers, host, dead);
        }
        let mut slots: Vec<Slot> = (0..self.enabled).map(|_| Slot::default()).collect();
        let last = self.enabled - 1;
        let tried = if last == 0 { vec![0] } else { vec![0, last] };
        let Some(config) = map(registers, common::CONFIG_MSIX_VECTOR, &tried)? else {
            return self
                .use_line(registers, host, dead)
                .map_err(|e| refused(registers, e, "its configuration".to_owned(), &tried));
        };
        if let Some(slot) = slots.get_mut(usize::from(config)) {
            slot.config = true;
        }
        self.slots = slots;
        self.mode = Mode::Vectors;
        self.begin(config, registers, host, dead)
    }

    /// Has the configuration's vector, or the line, call. Nothing is mapped where that fails.
    fn begin(
        &mut self,
        vector: u16,
        registers: &Arc<Registers>,
        host: &Host,
        dead: &mut Dead,
    ) -> Result<()> {
        let begun = self.program(vector, registers, host, dead);
        if begun.is_err() {
            self.mode = Mode::Unset;
            self.slots.clear();
        }
        begun
    }

    /// Gives the selected queue an interrupt, which makes `call`.
    ///
    /// * `rank`: which one of its device's it is, counted from 0
    pub(super) fn add(
        &mut self,
        registers: &Arc<Registers>,
        host: &Host,
        (queue, rank): (QueueIndex, u16),
        call: Call,
        dead: &mut Dead,
    ) -> Result<()> {
        self.remove(queue, registers, host, dead);
        if self.mode == Mode::Silent && !matches!(call, Call::None) {
            return Err(no_interrupts(registers));
        }
        let mut vector = 0;
        if self.mode == Mode::Vectors {
            let last = self.enabled.saturating_sub(1);
            let own = rank.saturating_add(1).min(last);
            let mut tried = vec![own, last, 0];
            tried.dedup();
            match map(registers, common::QUEUE_MSIX_VECTOR, &tried)? {
                Some(mapped) => vector = mapped,
                None => {
                    let event = format!("queue {queue}");
                    registers.check()?;
                    if self.slots.iter().any(|slot| !slot.members.is_empty()) {
                        return Err(refused(registers, no_interrupts(registers), event, &tried));
                    }
                    self.use_line(registers, host, dead)
                        .map_err(|e| refused(registers, e, event, &tried))?;
                }
            }
        }
        if let Some(slot) = self.slots.get_mut(usize::from(vector)) {
            slot.members.push(Member {
                queue,
                call,
                branch: OnceLock::new(),
            });
        }
        let programmed = self.program(vector, registers, host, dead);
        if programmed.is_err()
            && let Some(slot) = self.slots.get_mut(usize::from(vector))
            && let Some(member) = slot.members.pop()
        {
            // Whoever else the vector calls, it still does.
            dead.calls.push(member.call);
            // Nobody has called it yet.
            dead.branches.extend(member.branch.into_inner().map(Spent));
        }
        programmed
    }

    /// The call of a queue that was reset is made no more; one that runs at this moment [is still
    /// called](Self::is_called).
    pub(super) fn remove(
        &mut self,
        queue: QueueIndex,
        registers: &Arc<Registers>,
        host: &Host,
        dead: &mut Dead,
    ) {
        for (vector, slot) in (0..).zip(&mut self.slots) {
            let place = slot.members.iter().position(|m| m.queue == queue);
            let Some(place) = place else { continue };
            let member = slot.members.swap_remove(place);
            if let Some(branch) = member.branch.into_inner() {
                branch.shut();
                self.leaving.push((queue, branch));
            }
            dead.calls.push(member.call);
            // To fewer than before: what fails leaves a fan that calls nobody.
            let _stays = self.program(vector, registers, host, dead);
            return;
        }
    }

    /// Whether the call of `queue`, which was removed, still runs.
    pub(super) fn is_called(&mut self, queue: QueueIndex, dead: &mut Dead) -> bool {
        let leaving = std::mem::take(&mut self.leaving).into_iter();
        let (idle, busy): (Vec<_>, _) = leaving.partition(|(_, branch)| branch.is_idle());
        self.leaving = busy;
        let idle = idle.into_iter().map(|(_, branch)| Spent(branch));
        dead.branches.extend(idle);
        self.leaving.iter().any(|(other, _)| *other == queue)
    }

    /// Where the call of `queue` is made.
    pub(super) fn target(&self, queue: QueueIndex) -> Option<Target> {
        for (vector, slot) in (0..).zip(&self.slots) {
            if let Some(member) = slot.members.iter().find(|m| m.queue == queue) {
                return Some(match slot.fan {
                    _ if self.mode == Mode::Silent => Target::Nothing,
                    Some(_) => Target::Branch(member.branch()),
                    None => Target::Vector(vector),
                });
            }
        }
        None
    }

    /// Notes which call `queue` has by now.
    pub(super) fn note(&mut self, queue: QueueIndex, call: Call, dead: &mut Dead) {
        for slot in &mut self.slots {
            let Some(member) = slot.members.iter_mut().find(|m| m.queue == queue) else {
                continue;
            };
            dead.calls.push(std::mem::replace(&mut member.call, call));
            if slot.fan.is_none() {
                // From an attempt to share that failed: one that is made later has this call.
                dead.branches.extend(member.branch.take().map(Spent));
            }
            return;
        }
    }

    /// Has `vector` do again what it is for. Returns the call that does it, to be raised without a lock.
    pub(super) fn restore(&self, vector: u16, registers: &Registers) -> Result<Call> {
        if vector >= self.enabled {
            // The line does it all by now.
            return Ok(Call::None);
        }
        let slot = self.slots.get(usize::from(vector));
        let call = match slot.map(|slot| (&slot.fan, slot.members.as_slice())) {
            Some((Some((_, call)), _)) => call.clone(),
            Some((None, [one])) => one.call.clone(),
            _ => Call::None,
        };
        registers.access().set_vector(vector, call.clone())?;
        Ok(call)
    }

    /// A reset begins: nothing is called any more but what runs at this moment. Does not wait for that, nor switch any
    /// vector off.
    pub(super) fn drop_calls(&mut self, registers: &Registers, dead: &mut Dead) {
        let mode = std::mem::take(&mut self.mode);
        self.epoch = self.epoch.wrapping_add(1);
        for (vector, slot) in (0..).zip(std::mem::take(&mut self.slots)) {
            let mut ending = Ending::default();
            if let Some((fan, _)) = slot.fan {
                fan.fold();
                dead.lists.push(fan.set(Arc::default()));
                ending.from = match mode {
                    Mode::Line => From::Line,
                    Mode::Vectors | Mode::Unset | Mode::Silent => From::Vector(vector),
                };
                ending.fan = Some(fan);
            } else if !slot.members.is_empty() && mode != Mode::Silent {
                // An eventfd: nothing to wait for.
                note_kept(registers, registers.access().set_vector(vector, Call::None));
            }
            ending.relayed = slot.relayed;
            for member in slot.members {
                if let Some(branch) = member.branch.into_inner() {
                    branch.shut();
                    ending.branches.push(branch);
                }
                dead.calls.push(member.call);
            }
            self.ending.push(ending);
        }
        let leaving = std::mem::take(&mut self.leaving).into_iter();
        self.ending.push(Ending {
            branches: leaving.map(|(_, branch)| branch).collect(),
            ..Ending::default()
        });
    }

    /// Ends what a reset began. `false` while something of it still runs.
    pub(super) fn end(&mut self, registers: &Registers, dead: &mut Dead) -> bool {
        if !self.ending.iter().all(Ending::is_idle) {
            return false;
        }
        for ending in std::mem::take(&mut self.ending) {
            ending.clear(registers, dead);
        }
        true
    }

    /// Switches everything off, and waits for what runs.
    pub(super) fn switch_off(&mut self, registers: &Registers, dead: &mut Dead) {
        self.drop_calls(registers, dead);
        for ending in std::mem::take(&mut self.ending) {
            ending.clear(registers, dead);
        }
        if std::mem::take(&mut self.enabled) > 0 {
            // Nobody is left to tell.
            let _failed = registers.access().enable_vectors(0);
        }
    }

    /// Vectors are of no use: everything comes by the line.
    fn use_line(&mut self, registers: &Arc<Registers>, host: &Host, dead: &mut Dead) -> Result<()> {
        registers.check()?;
        if !has_line(registers) {
            return Err(no_interrupts(registers));
        }
        if self.mode == Mode::Vectors {
            registers.set_common(common::CONFIG_MSIX_VECTOR, u32::from(NO_VECTOR))?;
        }
        self.drop_calls(registers, dead);
        // With MSI-X off no vector runs anything.
        for ending in &mut self.ending {
            ending.from = From::Nothing;
        }
        if std::mem::take(&mut self.enabled) > 0 {
            registers.access().enable_vectors(0)?;
        }
        self.slots = vec![Slot {
            config: true,
            ..Slot::default()
        }];
        self.mode = Mode::Line;
        self.begin(0, registers, host, dead)
    }

    /// Has a vector, or the line, call whom it is for.
    fn program(
        &mut self,
        vector: u16,
        registers: &Arc<Registers>,
        host: &Host,
        dead: &mut Dead,
    ) -> Result<()> {
        let mode = self.mode;
        if mode == Mode::Silent {
            return Ok(());
        }
        let Some(slot) = self.slots.get_mut(usize::from(vector)) else {
            return Ok(());
        };
        let set = |call| match mode {
            Mode::Line => registers.access().set_intx(call),
            _ => registers.access().set_vector(vector, call),
        };
        let set = |call| set(call).map_err(|e| registers.failed(e));
        if let Some((fan, _)) = &slot.fan {
            let branches = slot.members.iter().map(Member::branch).collect();
            dead.lists.push(fan.set(branches));
            return Ok(());
        }
        let calls = registers.access().interrupts().calls;
        match (slot.config, slot.members.as_slice()) {
            (false, []) => set(Call::None),
            (false, [one]) if calls == CallKind::EventFd => set(one.call.clone()),
            (config, members) => {
                let source = match (mode, config) {
                    (Mode::Line, _) => Source::Line,
                    (_, true) => Source::Config,
                    (_, false) => Source::Queues,
                };
                let fan = Fan::new(source, registers);
                dead.lists
                    .push(fan.set(members.iter().map(Member::branch).collect()));
                let (call, relayed) = match calls {
                    CallKind::Any => (fan.call(), None),
                    CallKind::EventFd => {
                        let (event, relayed) = host.relay.call_fd(fan.call())?;
                        (Call::EventFd(event), Some(relayed))
                    }
                };
                if let Err(e) = set(call.clone()) {
                    dead.relayed.extend(relayed);
                    dead.lists.push(fan.set(Arc::default()));
                    return Err(e);
                }
                slot.relayed = relayed;
                slot.fan = Some((fan, call));
                Ok(())
            }
        }
    }
}

/// Switches vectors on, as many as there are to be had up to `most`. Returns how many; 0 for none.
fn enable(registers: &Registers, most: u16) -> Result<u16> {
    // How many were had, and how many were not, or are more than is asked for.
    let (mut had, mut not) = (0, u32::from(most) + 1);
    let mut on = 0;
    let mut count = most;
    while u32::from(had) + 1 < not {
        match registers.access().enable_vectors(count) {
            Ok(()) => (had, on) = (count, count),
            Err(e) => {
                let e = registers.failed(e);
                registers.check()?;
                tracing::debug!(function = registers.name(), count, error = %e, "no such number of vectors");
                (not, on) = (u32::from(count), 0);
            }
        }
        count = narrow((u32::from(had) + not) / 2);
    }
    if on == had {
        return Ok(had);
    }
    // The last number that was tried was too large.
    match registers.access().enable_vectors(had) {
        Ok(()) => Ok(had),
        // Somebody else has taken some meanwhile.
        Err(e) => {
            registers.failed(e);
            registers.check()?;
            enable(registers, had - 1)
        }
    }
}

/// Whether the interrupt line is of use.
fn has_line(registers: &Registers) -> bool {
    registers.access().interrupts().intx && registers.layout.isr.is_some()
}

pub(super) fn no_interrupts(registers: &Registers) -> Error {
    let function = registers.name().to_owned();
    PciError::NoInterrupts { function }.into()
}

/// Maps the first vector of `tried` that the device takes.
fn map(registers: &Registers, register: Register, tried: &[u16]) -> Result<Option<u16>> {
    for &vector in tried {
        registers.set_common(register, u32::from(vector))?;
        if registers.common(register)? == u32::from(vector) {
            return Ok(Some(vector));
        }
        tracing::debug!(
            function = registers.name(),
            vector,
            "the vector was refused"
        );
    }
    // Left at none, also where the device shows something else.
    registers.set_common(register, u32::from(NO_VECTOR))?;
    Ok(None)
}

/// The error where vectors were refused and there is no line either.
fn refused(registers: &Registers, error: Error, event: String, tried: &[u16]) -> Error {
    match error {
        Error::Gone => error,
        Error::Parent(_) => {
            let tried: Vec<String> = tried.iter().map(u16::to_string).collect();
            PciError::VectorRefused {
                function: registers.name().to_owned(),
                event,
                tried: tried.join(", "),
            }
            .into()
        }
        other => other,
    }
}

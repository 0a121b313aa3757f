//! Which interrupt stands for what.
//!
//! ```text
//!   vectors ≥ 2   0: configuration    1, 2, ...: a queue each    the last one: all queues that are left
//!   1 vector      0: configuration and all queues
//!   none          the interrupt line, whose status says which
//! ```
//! Every vector that is written is read back, virtio 1.4 §4.1.5.1.2.2. A queue that is refused its own shares the last
//! one; refused that, it shares the configuration's. Where no vector is taken at all, the line is used.
//!
//! A vector of one queue alone makes its call directly; any other runs a [`Fan`].

use std::sync::{Arc, OnceLock};

use vdpa_core::{Call, CallCell, CallKind, Error, Host, QueueIndex, Relayed, Result};

use super::fan::{Fan, Source};
use crate::error::PciError;
use crate::registers::{Register, Registers, common};

/// What the register reads where no vector is mapped.
const NO_VECTOR: u16 = 0xffff;

/// What is dropped once no lock is held: closures own anything.
#[derive(Default)]
pub(super) struct Dead {
    pub(super) calls: Vec<Call>,
    cells: Vec<Arc<CallCell>>,
    lists: Vec<Arc<[Arc<CallCell>]>>,
    relayed: Vec<Relayed>,
}

/// Where the call of a queue is made.
pub(super) enum Target {
    /// By this vector itself.
    Vector(u16),
    /// By a fan, through this cell.
    Cell(Arc<CallCell>),
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
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Mode {
    /// Nothing is mapped since the reset.
    #[default]
    Unset,
    Vectors,
    Line,
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
    /// Made once the vector is shared.
    cell: OnceLock<Arc<CallCell>>,
}

impl Member {
    fn cell(&self) -> Arc<CallCell> {
        let cell = self
            .cell
            .get_or_init(|| Arc::new(CallCell::new(self.call.clone())));
        Arc::clone(cell)
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
        // The first change is told from none by it.
        registers.note_generation()?;
        if self.enabled == 0 {
            let most = registers.access().interrupts().msix;
            let table = registers.layout.msix.map_or(most, |msix| msix.vectors);
            self.enabled = enable(registers, most.min(table).min(queues.saturating_add(1)))?;
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
                        let none = PciError::NoInterrupts {
                            function: registers.name().to_owned(),
                        };
                        return Err(refused(registers, none.into(), event, &tried));
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
                cell: OnceLock::new(),
            });
        }
        let programmed = self.program(vector, registers, host, dead);
        if programmed.is_err()
            && let Some(slot) = self.slots.get_mut(usize::from(vector))
            && let Some(member) = slot.members.pop()
        {
            // Whoever else the vector calls, it still does.
            dead.calls.push(member.call);
            dead.cells.extend(member.cell.into_inner());
        }
        programmed
    }

    /// The call of a queue that was reset is made no more.
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
            if let Some(cell) = member.cell.into_inner() {
                // Waits for a fan that is at it.
                cell.replace(Call::None);
                dead.cells.push(cell);
            }
            dead.calls.push(member.call);
            // To fewer than before: what fails leaves a fan that calls nobody.
            let _stays = self.program(vector, registers, host, dead);
            return;
        }
    }

    /// Where the call of `queue` is made.
    pub(super) fn target(&self, queue: QueueIndex) -> Option<Target> {
        for (vector, slot) in (0..).zip(&self.slots) {
            if let Some(member) = slot.members.iter().find(|m| m.queue == queue) {
                return Some(match slot.fan {
                    Some(_) => Target::Cell(member.cell()),
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
                dead.cells.extend(member.cell.take());
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

    /// A reset begins: nothing is called any more. Switches no vector off.
    pub(super) fn drop_calls(&mut self, registers: &Registers, dead: &mut Dead) -> Result<()> {
        let mode = std::mem::take(&mut self.mode);
        self.epoch = self.epoch.wrapping_add(1);
        let mut done = Ok(());
        for (vector, slot) in (0..).zip(std::mem::take(&mut self.slots)) {
            let used = slot.fan.is_some() || !slot.members.is_empty();
            if let Some((fan, _)) = &slot.fan {
                fan.fold();
            }
            let dropped = match mode {
                Mode::Vectors if used => registers.access().set_vector(vector, Call::None),
                Mode::Line => registers.access().set_intx(Call::None),
                Mode::Vectors | Mode::Unset => Ok(()),
            };
            if done.is_ok() {
                done = dropped;
            }
            for member in slot.members {
                dead.cells.extend(member.cell.into_inner());
                dead.calls.push(member.call);
            }
            dead.lists
                .extend(slot.fan.map(|(fan, _)| fan.set(Arc::default())));
            dead.relayed.extend(slot.relayed);
        }
        done
    }

    /// Switches everything off.
    pub(super) fn switch_off(&mut self, registers: &Registers, dead: &mut Dead) {
        // Nobody is left to tell.
        let _failed = self.drop_calls(registers, dead);
        if std::mem::take(&mut self.enabled) > 0 {
            let _failed = registers.access().enable_vectors(0);
        }
    }

    /// Vectors are of no use: everything comes by the line.
    fn use_line(&mut self, registers: &Arc<Registers>, host: &Host, dead: &mut Dead) -> Result<()> {
        registers.check()?;
        let line = registers.access().interrupts().intx && registers.layout.isr.is_some();
        if !line {
            let function = registers.name().to_owned();
            return Err(PciError::NoInterrupts { function }.into());
        }
        if self.mode == Mode::Vectors {
            registers.set_common(common::CONFIG_MSIX_VECTOR, u32::from(NO_VECTOR))?;
        }
        self.drop_calls(registers, dead)?;
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
        let Some(slot) = self.slots.get_mut(usize::from(vector)) else {
            return Ok(());
        };
        let set = |call| match mode {
            Mode::Line => registers.access().set_intx(call),
            Mode::Vectors | Mode::Unset => registers.access().set_vector(vector, call),
        };
        let set = |call| set(call).map_err(|e| registers.failed(e));
        if let Some((fan, _)) = &slot.fan {
            let cells = slot.members.iter().map(Member::cell).collect();
            dead.lists.push(fan.set(cells));
            return Ok(());
        }
        match (slot.config, slot.members.as_slice()) {
            (false, []) => set(Call::None),
            (false, [one]) => set(one.call.clone()),
            (config, members) => {
                let source = match (mode, config) {
                    (Mode::Line, _) => Source::Line,
                    (_, true) => Source::Config,
                    (_, false) => Source::Queues,
                };
                let fan = Fan::new(source, registers);
                dead.lists
                    .push(fan.set(members.iter().map(Member::cell).collect()));
                let (call, relayed) = match registers.access().interrupts().calls {
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

/// Switches vectors on, fewer where there are not as many to be had. Returns how many; 0 for none.
fn enable(registers: &Registers, most: u16) -> Result<u16> {
    let mut count = most;
    while count > 0 {
        match registers.access().enable_vectors(count) {
            Ok(()) => return Ok(count),
            Err(e) => {
                let e = registers.failed(e);
                registers.check()?;
                tracing::debug!(function = registers.name(), count, error = %e, "no such number of vectors");
                count /= 2;
            }
        }
    }
    Ok(0)
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

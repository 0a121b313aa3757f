//! The administration queue: takes commands one after the other, and gives each back with its answer.
//!
//! A command that is pending is given back to the queue untouched, and is the next one that is taken: nothing is in flight
//! between two passes, and the queue can be stopped, suspended and reset like any other. What was read of it is kept: it is
//! read once, and carried out again after a pause that grows. One that is pending for too long is taken back, and answered
//! with that it should be tried again: one member that does not stop does not keep its owner from all others.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use vdpa_mem::{Access, Hint, Iova, Section};
use vdpa_ring::{Segment, Used};

use super::command::{Opcode, Reply, Status};
use super::office::{CALLS, COMMANDS, FAULTS, Office, REFUSED};
use crate::class::{Desk, Served, Stations, Unit};
use crate::queue::{Completeness, Halt, Queue};

/// Bytes of a command that are looked at.
const LONG: usize = 64 << 10;

/// The same of one that sets parts: more than the state of any device here.
const LONGEST: usize = 64 << 20;

/// How long it is until a pending command is run again, at first and at most.
const PAUSES: [Duration; 2] = [Duration::from_micros(20), Duration::from_millis(1)];

/// The unit of the administration queue.
pub(super) struct Clerk {
    office: Arc<Office>,
    near: Hint,
    /// A command that was carried out and could not be given back.
    owed: Option<Owed>,
    /// The next command, which is pending.
    held: Option<Held>,
    /// Has the unit served when that is due; without, it is looked at all the time.
    timer: Option<(TimerFd, Arc<OwnedFd>)>,
}

/// A command that is pending.
struct Held {
    command: Vec<u8>,
    since: Instant,
    pause: Duration,
    due: Instant,
    /// Changes of the queue until then: after another one it may not be the next command any more.
    changes: u64,
}

/// An answer that nobody has.
struct Owed {
    command: Vec<u8>,
    reply: Reply,
    /// Resets of the queue until then: after another one the same command is a new one.
    resets: u64,
}

/// A command that was taken.
struct Taken {
    taken: usize,
    used: Used,
    writable: Vec<Segment>,
    room: usize,
    /// Unless it is where nothing is mapped.
    command: Result<Vec<u8>, Iova>,
}

impl Clerk {
    pub(super) fn new(office: Arc<Office>) -> Self {
        Self {
            office,
            near: Hint::default(),
            owed: None,
            held: None,
            timer: timer(),
        }
    }

    /// Carries out one command.
    fn one(&mut self, queue: &mut Queue, desk: &mut Desk) -> Result<Served, Halt> {
        let changes = self.office.changes();
        self.held = self.held.take().filter(|held| held.changes == changes);
        let held = self.held.as_ref();
        if held.is_some_and(|held| Instant::now() < held.due) {
            return Ok(Served::Nothing);
        }
        let [first, most] = PAUSES;
        let pause = held.map_or(first, |held| held.pause.saturating_mul(2).min(most));
        let since = held.map_or_else(Instant::now, |held| held.since);
        let Some(taken) = self.take(queue, desk)? else {
            return Ok(Served::Nothing);
        };
        let reply = match &taken.command {
            Ok(command) => match self.carry_out(command, taken.room) {
                Poll::Ready(reply) => Some(reply),
                Poll::Pending => match self.office.give_up(command, since) {
                    Some(reply) => Some(reply),
                    None => {
                        queue.rewind(taken.taken)?;
                        let command = taken.command.unwrap_or_default();
                        self.hold(command, since, pause, changes);
                        return Ok(Served::Nothing);
                    }
                },
            },
            Err(at) => {
                self.fault(desk, *at, Access::DeviceReads);
                None
            }
        };
        let section = desk.reader.enter();
        let mem = match queue.open(&section) {
            Ok(mem) => mem,
            Err(halt) => {
                // Its ring was unmapped meanwhile.
                queue.rewind(taken.taken)?;
                let resets = self.office.resets();
                let owed = taken.command.ok().zip(reply);
                self.owed = owed.map(|(command, reply)| Owed {
                    command,
                    reply,
                    resets,
                });
                return Err(halt);
            }
        };
        let counters = &self.office.counters;
        counters.add(COMMANDS, 1);
        let mut used = taken.used;
        let mut stray = None;
        if let Some(reply) = reply {
            if reply.status != Status::Ok {
                counters.add(REFUSED, 1);
            }
            let answer = reply.to_bytes(taken.room);
            match write(&section, &taken.writable, &answer, &mut self.near) {
                Ok(len) => used.len = len,
                Err(at) => stray = Some(at),
            }
        }
        queue.used.push(used);
        queue.commit(&mem, Completeness::Partial)?;
        drop(section);
        if let Some(at) = stray {
            self.fault(desk, at, Access::DeviceWrites);
        }
        Ok(Served::Work)
    }

    /// Keeps a command that is pending, to be run again.
    ///
    /// * `since`: when it was carried out first
    fn hold(&mut self, command: Vec<u8>, since: Instant, pause: Duration, changes: u64) {
        let now = Instant::now();
        self.held = Some(Held {
            command,
            since,
            pause,
            due: now.checked_add(pause).unwrap_or(now),
            changes,
        });
        if let Some((timer, _)) = &self.timer {
            let once = Expiration::OneShot(TimeSpec::from_duration(pause));
            if timer.set(once, TimerSetTimeFlags::empty()).is_err() {
                self.timer = None;
            }
        }
    }

    /// Takes the next command, and copies it, unless that was done.
    fn take(&mut self, queue: &mut Queue, desk: &mut Desk) -> Result<Option<Taken>, Halt> {
        let section = desk.reader.enter();
        let mem = queue.open(&section)?;
        let taken = queue.take(&mem, 1)?;
        if taken != 0 {
            queue.disarm(&mem);
        }
        let Some(chain) = queue.batch.chain(0).filter(|_| taken != 0) else {
            return Ok(None);
        };
        Ok(Some(Taken {
            taken,
            used: Used {
                token: chain.token(),
                len: 0,
            },
            writable: chain.writable().to_vec(),
            room: usize::try_from(chain.writable_len()).unwrap_or(usize::MAX),
            command: match self.held.take() {
                Some(held) => Ok(held.command),
                None => read(&section, chain.readable(), &mut self.near),
            },
        }))
    }

    fn carry_out(&mut self, command: &[u8], room: usize) -> Poll<Reply> {
        let resets = self.office.resets();
        match self.owed.take() {
            Some(owed) if owed.resets == resets && owed.command == command => {
                Poll::Ready(owed.reply)
            }
            _ => self.office.run(command, room),
        }
    }

    fn fault(&self, desk: &mut Desk, at: Iova, want: Access) {
        desk.fault(at, want);
        self.office.counters.add(FAULTS, 1);
    }
}

impl Unit for Clerk {
    fn serve(&mut self, queues: &mut Stations, desk: &mut Desk) -> Served {
        let [station, _] = queues;
        // Off, it takes nothing: a command has effects.
        let Some(queue) = station.running().filter(|queue| queue.enabled) else {
            return Served::Nothing;
        };
        let served = self.one(queue, desk);
        if queue.call() {
            self.office.counters.add(CALLS, 1);
        }
        served.unwrap_or_else(|halt| {
            desk.halt(queue, halt);
            Served::Nothing
        })
    }

    fn arm(&mut self, queues: &mut Stations, desk: &mut Desk) -> bool {
        let [station, _] = queues;
        let Some(queue) = station.running().filter(|queue| queue.enabled) else {
            return false;
        };
        match (&self.held, &self.timer) {
            // What is next waits for the timer, and not for a kick.
            (Some(_), Some(_)) => false,
            (Some(_), None) => true,
            (None, _) => desk.arm(queue),
        }
    }

    fn in_flight(&self, _: usize) -> usize {
        0
    }

    fn sources(&self) -> Vec<Arc<OwnedFd>> {
        self.timer
            .iter()
            .map(|(_, source)| Arc::clone(source))
            .collect()
    }

    fn reset(&mut self) {
        self.owed = None;
        self.held = None;
    }
}

/// A timer, and how it is polled, if there is one left.
fn timer() -> Option<(TimerFd, Arc<OwnedFd>)> {
    let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags).ok()?;
    let source = timer.as_fd().try_clone_to_owned().ok()?;
    Some((timer, Arc::new(source)))
}

/// How much is looked at of a command that begins so.
fn limit(command: &[u8]) -> usize {
    match command.first_chunk().copied().map(u16::from_le_bytes) {
        Some(opcode) if opcode == Opcode::DevPartsSet.number() => LONGEST,
        _ => LONG,
    }
}

/// Copies a command, as far as it is looked at.
fn read(section: &Section<'_>, from: &[Segment], near: &mut Hint) -> Result<Vec<u8>, Iova> {
    let mut command = Vec::new();
    for segment in from {
        let (mut at, mut left) = (segment.addr, segment.len);
        while left != 0 && command.len() < limit(&command) {
            let bytes = section
                .translate(at, left, Access::DeviceReads, near)
                .map_err(|_| at)?;
            let here = bytes
                .len()
                .min(limit(&command).saturating_sub(command.len()));
            let filled = command.len();
            command.resize(filled.saturating_add(here), 0);
            let read = bytes.read(0, command.get_mut(filled..).unwrap_or_default());
            left = left.saturating_sub(read as u32);
            if read == 0 || left == 0 {
                break;
            }
            at = at.checked_add(read as u64).ok_or(at)?;
        }
    }
    Ok(command)
}

/// Writes an answer. Answers with how many bytes were written.
fn write(
    section: &Section<'_>,
    to: &[Segment],
    answer: &[u8],
    near: &mut Hint,
) -> Result<u32, Iova> {
    let mut rest = answer;
    for segment in to {
        let (mut at, mut left) = (segment.addr, segment.len);
        while left != 0 && !rest.is_empty() {
            let bytes = section
                .translate(at, left, Access::DeviceWrites, near)
                .map_err(|_| at)?;
            let wrote = bytes.write(0, rest);
            rest = rest.get(wrote..).unwrap_or_default();
            left = left.saturating_sub(wrote as u32);
            if wrote == 0 || left == 0 {
                break;
            }
            at = at.checked_add(wrote as u64).ok_or(at)?;
        }
    }
    let wrote = answer.len().saturating_sub(rest.len());
    Ok(u32::try_from(wrote).unwrap_or(u32::MAX))
}

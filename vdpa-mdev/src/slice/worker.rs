//! The thread of an uplink: slices in turn, the wire, and sleep.
//!
//! ```text
//!        ┌─────────────────────────────── a pass ────────────────────────────────┐
//!   ┌──▶ who is there? ─▶ events of the device ─▶ from the wire ─▶ rounds ─▶ all of it passed on, one kick
//!   │                                                               │ nothing: patience, then
//!   └──────── a bell, a call, an event ◀── sleeps ◀─────────────────┘
//! ```
//! # Who sends when
//! In a round each slice is given the same share, in bytes, and sends frames while it has any of that left. What its last
//! frame took too much it has less of in the next round, and what it did not use is lost with its last frame: so over any
//! time two slices that have something to send all the while send as much as each other, but for a share and a frame,
//! whatever the sizes of their frames are. A frame for several costs as much as all of its copies; a packet that is cut for
//! the wire costs what its segments are long there, and is interrupted between two of them when the share is used up.
//!
//! Where the wire has no room the round stops, and goes on with the slice at which it stopped and what that had left.
//! Others whose next frame is for a slice are served meanwhile.

use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use vdpa_core::{Event, Events, Result};
use vdpa_sim::offload::{Finish, Header, Plain, Segments};
use vdpa_sim::port::Membership;
use vdpa_sim::port::vlan::Rewrite;

use super::end::Count;
use super::hall::{Hall, Open, addresses};
use super::line::{Line, Sent};
use super::tags::Passage;
use super::uplink::{Core, Stray};

/// Bytes that a slice may send in a round: two frames of the usual length.
const SHARE: i64 = 2 * 1518;

/// Rounds before the wire is looked at again: no more of the smallest frames than a slice has waiting.
const ROUNDS: usize = 4;

/// Batches that are taken from the wire before slices have a turn.
const ARRIVALS: usize = 4;

/// How long a worker polls what is quiet before it sleeps.
const PATIENCE: Duration = Duration::from_micros(50);

/// At which reset in a row a device is lost.
const RESETS: u32 = 8;

/// How many frames a device has to have sent or received since its reset for the next one not to be in a row with it.
const WORKED: u64 = 16;

/// The same, for a device that has little to do: how long it has to have gone on.
const WENT_ON: Duration = Duration::from_secs(60);

/// In how many passes a worker that does not sleep looks once at the device's events.
const PASSES_A_LOOK: u32 = 64;

/// The token of the device's events.
const EVENTS: u64 = 2;

pub(super) struct Worker {
    core: Arc<Core>,
    hall: Hall,
    /// `None` once the device is lost.
    line: Option<Line>,
    events: Events,
    /// The slice with which the next round begins, by number: places change when slices leave.
    turn: Option<u32>,
    plain: Plain,
    segment: Vec<u8>,
    /// Resets in a row.
    resets: u32,
    /// When the last of them was complete.
    reset: Option<Instant>,
}

/// What became of a turn.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// There is nothing to send.
    Empty,
    /// Its share is used up.
    Over,
    /// The wire has no room.
    Blocked,
}

/// What became of a packet.
enum Step {
    /// It is done, and cost so many bytes.
    Done(usize),
    /// The rest of it waits for the next share. What went out cost so many bytes.
    Cut(usize),
    /// It, or the rest of it, waits for the wire. What went out cost so many bytes.
    Blocked(usize),
}

/// What became of a packet for the wire.
enum Put {
    /// All of it was sent, in so many bytes.
    Sent(usize),
    /// It is not to be sent: see [`Sent::Never`].
    Never,
    /// So many bytes were sent, and the credit is used up.
    Cut(usize),
    /// So many bytes were sent, and the wire has no room.
    Full(usize),
}

impl Worker {
    pub(super) fn new(core: Arc<Core>, hall: Hall, line: Line, events: Events) -> Self {
        Self {
            core,
            hall,
            line: Some(line),
            events,
            turn: None,
            plain: Plain::new(),
            segment: Vec::new(),
            resets: 0,
            reset: None,
        }
    }

    /// Has calls and events of the device end a sleep.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn watch(&self) -> Result<()> {
        self.core.sleeper.watch(self.events.as_fd(), EVENTS)?;
        match &self.line {
            Some(line) => line.watch(&self.core.sleeper, true),
            None => Ok(()),
        }
    }

    /// Works until the uplink is closed. Gives the device back to nobody: it is reset.
    pub(super) fn run(mut self) {
        // Whatever ends this thread, slices see that nothing is behind them.
        let _end = End(Arc::clone(&self.core));
        let mut idle: Option<Instant> = None;
        let (mut told, mut passes) = (true, 0_u32);
        while !self.core.exits.load(Ordering::Acquire) {
            passes = passes.wrapping_add(1);
            // Slices ring whenever they send: that says nothing of the device, and who is there is a load to know.
            self.core.bell.take();
            self.hall.refresh();
            if told || passes.is_multiple_of(PASSES_A_LOOK) {
                self.look();
                told = false;
            }
            let worked = self.pass().unwrap_or_else(|e| {
                self.restart(&e.to_string());
                true
            });
            self.hall.tidy();
            if worked {
                idle = None;
                continue;
            }
            if idle.get_or_insert_with(Instant::now).elapsed() < PATIENCE {
                std::thread::yield_now();
                continue;
            }
            match self.sleep() {
                Ok(seen) => told = seen,
                Err(e) => {
                    // Without sleep there is nothing but to run for ever: slices have no link behind this.
                    self.lose(&format!("its worker cannot sleep: {e}"));
                    break;
                }
            }
        }
        if let Some(line) = self.line.take()
            && let Err(e) = line.down()
        {
            tracing::warn!("{}: not reset: {e}", self.core.name);
        }
    }

    /// Everything once. Answers whether something moved, or could have.
    fn pass(&mut self) -> Result<bool> {
        let mut worked = false;
        if let Some(line) = &mut self.line {
            for _ in 0..ARRIVALS {
                let count = line.receive(|frame| self.hall.arrive(frame))?;
                if count == 0 {
                    break;
                }
                self.core.add(Stray::Arrived, count as u64);
                worked = true;
            }
        }
        for _ in 0..ROUNDS {
            if !self.round()? {
                break;
            }
            worked = true;
        }
        self.hall.flush();
        if let Some(line) = &mut self.line {
            line.publish();
        }
        Ok(worked)
    }

    /// Gives each slice a turn. Answers whether there is more that could be sent.
    fn round(&mut self) -> Result<bool> {
        if let Some(line) = &mut self.line {
            line.full = false;
        }
        let count = self.hall.members.len();
        let mut members = self.hall.members.iter();
        let first = members.position(|member| Some(member.end.number) == self.turn);
        let first = first.unwrap_or(0);
        let (mut stopped, mut more) = (None, false);
        for step in 0..count {
            let place = first.saturating_add(step);
            let place = place.checked_rem(count).unwrap_or(0);
            match self.serve(place)? {
                (Turn::Empty, _) => {}
                (Turn::Over, _) => more = true,
                (Turn::Blocked, sent) => {
                    more |= sent;
                    stopped = stopped.or(Some(place));
                }
            }
        }
        let stopped = stopped.and_then(|place| self.hall.members.get(place));
        self.turn = stopped.map(|member| member.end.number).or(self.turn);
        Ok(more)
    }

    /// A turn of the slice at `place`. Answers whether it sent something, too.
    fn serve(&mut self, place: usize) -> Result<(Turn, bool)> {
        let Some(member) = self.hall.members.get_mut(place) else {
            return Ok((Turn::Empty, false));
        };
        if !member.granted {
            member.credit = member.credit.saturating_add(SHARE);
            member.granted = true;
        }
        let mut sent = false;
        loop {
            let Some(member) = self.hall.members.get_mut(place) else {
                return Ok((Turn::Empty, sent));
            };
            if member.credit <= 0 {
                member.granted = false;
                return Ok((Turn::Over, sent));
            }
            let Some((pair, mut open)) = next(member) else {
                // What it did not use is lost; what it owes is not.
                member.credit = 0;
                member.granted = false;
                return Ok((Turn::Empty, sent));
            };
            let credit = usize::try_from(member.credit).unwrap_or(0);
            let step = self.forward(place, pair, &mut open, credit);
            let Some(member) = self.hall.members.get_mut(place) else {
                return Ok((Turn::Empty, sent));
            };
            if let Ok(Step::Done(cost) | Step::Cut(cost) | Step::Blocked(cost)) = step {
                sent |= cost != 0;
                let cost = i64::try_from(cost).unwrap_or(i64::MAX);
                member.credit = member.credit.saturating_sub(cost);
            }
            if let Ok(Step::Done(_)) = step {
                open.batch.pop();
                open.cut = 0;
                sent = true;
            }
            if open.batch.is_empty() {
                member.pair = member.pair.wrapping_add(1);
                if let Some(way) = member.end.ways.get(usize::from(pair)) {
                    way.sent.give_back(open.batch);
                }
            } else if let Some(kept) = member.open.get_mut(usize::from(pair)) {
                *kept = Some(open);
            }
            if let Step::Blocked(_) = step? {
                return Ok((Turn::Blocked, sent));
            }
        }
    }

    /// The first packet of a batch.
    ///
    /// * `credit`: bytes after which it is interrupted where it can be; at least 1
    fn forward(&mut self, place: usize, pair: u16, open: &mut Open, credit: usize) -> Result<Step> {
        let Some((header, frame)) = open.batch.packets().next() else {
            return Ok(Step::Done(0));
        };
        let Some(member) = self.hall.members.get(place) else {
            return Ok(Step::Done(0));
        };
        let end = &member.end;
        let number = end.number;
        let refused = |why: Count| {
            end.count(why, 1);
            Ok(Step::Done(frame.len()))
        };
        let passage = match Passage::of(frame, end.place) {
            Ok(passage) => passage,
            Err(why) => return refused(why.into()),
        };
        let Some((to, from)) = addresses(frame) else {
            return refused(Count::Short);
        };
        if from != end.mac().octets() {
            return refused(Count::Source);
        }
        if !passage.is_for_a_group()
            && let Some((other, rewrite)) = self.hall.find(to, passage)
            && other != place
        {
            if self.hall.stage(other, number, pair, header, frame, rewrite) {
                self.hall.count(place, Count::ToSlices, 1);
            }
            return Ok(Step::Done(frame.len()));
        }
        // Before copies are made: of those there is to be one.
        let rewrite = passage.leaves(Membership::Trunk).unwrap_or(Rewrite::Keep);
        let cost = match self.put_on_wire(header, frame, rewrite, &mut open.cut, credit)? {
            Put::Full(cost) => return Ok(Step::Blocked(cost)),
            Put::Cut(cost) => return Ok(Step::Cut(cost)),
            Put::Sent(cost) => {
                self.hall.count(place, Count::ToWire, 1);
                cost
            }
            Put::Never => {
                self.hall.count(place, Count::Unsent, 1);
                frame.len()
            }
        };
        let mut copies = 0;
        if passage.is_for_a_group() {
            copies = self.hall.spread(number, pair, header, frame, passage);
            self.hall.count(place, Count::ToSlices, copies);
        }
        let copies = frame.len().saturating_mul(copies as usize);
        Ok(Step::Done(cost.saturating_add(copies)))
    }

    /// Sends a packet to the wire, finished: its checksum is completed, and it is cut into segments.
    ///
    /// * `cut`: how many of its segments were sent before
    /// * `credit`: no segment is begun with once as many bytes were sent
    fn put_on_wire(
        &mut self,
        header: Header,
        frame: &[u8],
        rewrite: Rewrite,
        cut: &mut u32,
        credit: usize,
    ) -> Result<Put> {
        let Some(line) = &mut self.line else {
            return Ok(Put::Never);
        };
        // Before it is summed or cut: who is blocked comes by often.
        if !line.has_room()? {
            return Ok(Put::Full(0));
        }
        if !header.is_gso() {
            let mut sent = Ok(Sent::Never);
            let _one = self.plain.packet(header, frame, &mut |frame| {
                sent = line.send(frame, rewrite);
                ControlFlow::Break(())
            });
            return Ok(match sent? {
                Sent::Yes(len) => Put::Sent(len),
                Sent::Full => Put::Full(0),
                Sent::Never => Put::Never,
            });
        }
        let Some(segments) = Segments::new(header, frame) else {
            return Ok(Put::Never);
        };
        let mut cost = 0_usize;
        if self.segment.len() < segments.longest() {
            self.segment.resize(segments.longest(), 0);
        }
        while *cut < segments.count() {
            if cost >= credit {
                return Ok(Put::Cut(cost));
            }
            if !line.has_room()? {
                return Ok(Put::Full(cost));
            }
            let Some(len) = segments.write(*cut, Finish::Complete, &mut self.segment) else {
                return Ok(Put::Never);
            };
            match line.send(self.segment.get(..len).unwrap_or_default(), rewrite)? {
                Sent::Yes(len) => {
                    *cut = cut.saturating_add(1);
                    cost = cost.saturating_add(len);
                }
                Sent::Full => return Ok(Put::Full(cost)),
                Sent::Never => return Ok(Put::Never),
            }
        }
        Ok(Put::Sent(cost))
    }

    /// Sleeps until there is something to do. Answers whether the device has something to tell.
    ///
    /// # Errors
    /// When the system refuses.
    fn sleep(&mut self) -> Result<bool> {
        if self.line.as_mut().is_some_and(Line::arm) {
            if let Some(line) = &mut self.line {
                line.disarm();
            }
            return Ok(false);
        }
        let core = &self.core;
        let mut told = false;
        let slept = core.sleeper.sleep_unless(
            || core.bell.is_pending(),
            None,
            |token| told |= token == EVENTS,
        );
        if let Some(line) = &mut self.line {
            line.disarm();
        }
        slept?;
        Ok(told)
    }

    /// Looks what the device has to tell.
    fn look(&mut self) {
        while let Some(event) = self.events.try_next() {
            match event {
                Event::Config => self.see_carrier(),
                Event::NeedsReset { why, .. } if self.events.needs_reset() => self.restart(&why),
                Event::Gone => self.lose("it is gone"),
                Event::Broken { why } => self.lose(&why),
                Event::RemoveRequested => self.lose("its parent asked for it back"),
                Event::Fault { at, .. } => {
                    tracing::warn!("{}: it used {at}, which is not mapped", self.core.name);
                }
                _ => {}
            }
        }
    }

    /// Slices have a carrier while the device has one.
    fn see_carrier(&mut self) {
        if let Some(line) = &self.line {
            match line.has_carrier() {
                Ok(up) => self.core.set_carrier(up),
                Err(e) => self.restart(&e.to_string()),
            }
        }
    }

    /// Resets the device, and goes on. What was under way in it is lost.
    fn restart(&mut self, why: &str) {
        let Some(mut line) = self.line.take() else {
            return;
        };
        // That it was given something says nothing: it has to have given something back.
        let went_on = self.reset.is_some_and(|at| at.elapsed() >= WENT_ON);
        if line.worked() >= WORKED || went_on {
            self.resets = 0;
        }
        let name = &self.core.name;
        tracing::warn!("{name}: reset, for its slices to go on: {why}");
        self.resets = self.resets.saturating_add(1);
        self.core.count(Stray::Restarts);
        let again = || {
            line.watch(&self.core.sleeper, false)?;
            let line = Line::up(line.down()?)?;
            line.watch(&self.core.sleeper, true)?;
            Ok::<_, vdpa_core::Error>(line)
        };
        match again() {
            Ok(line) if self.resets < RESETS => {
                self.line = Some(line);
                self.reset = Some(Instant::now());
                self.see_carrier();
            }
            Ok(_) => self.lose("it needs a reset again and again"),
            Err(e) => self.lose(&e.to_string()),
        }
    }

    /// The device is of no use any more: the links go down.
    fn lose(&mut self, why: &str) {
        self.core.lose(why);
        if let Some(line) = self.line.take() {
            // Who is gone is watched by nobody.
            let _unwatched = line.watch(&self.core.sleeper, false);
            if let Err(e) = line.down() {
                tracing::debug!("{}: not reset: {e}", self.core.name);
            }
        }
    }
}

/// The pair of a slice whose turn it is, and the batch that it is at.
fn next(member: &mut super::hall::Member) -> Option<(u16, Open)> {
    let pairs = member.open.len();
    for step in 0..pairs {
        let pair = member.pair.wrapping_add(step).checked_rem(pairs)?;
        let open = member.open.get_mut(pair)?.take();
        let way = member.end.ways.get(pair)?;
        // Pairs are counted in 16 bits.
        let number = pair as u16;
        let open = open.or_else(|| {
            let batch = way.sent.take(&member.end.presence, number)?;
            Some(Open { batch, cut: 0 })
        });
        if let Some(open) = open {
            member.pair = pair;
            return Some((number, open));
        }
    }
    None
}

/// Loses the device for its slices when the thread ends.
struct End(Arc<Core>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.lose("the uplink is closed");
    }
}

#[cfg(test)]
mod tests;

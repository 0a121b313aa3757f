//! A request queue: from its ring to the backend and back.
//!
//! ```text
//!   done jobs ─▶ status byte, dirty log ─┐
//!   take ─▶ judge ─▶ refused ─▶ status ──┼─▶ used, one commit, one call          a pass
//!                 └▶ inline ──▶ status ──┘
//!                 └▶ job, with holds on its memory ─▶ begun together, outside the section
//! ```
//! A queue that is switched off takes nothing: its requests wait, since to answer them would be an effect.

use std::os::fd::OwnedFd;
use std::slice;
use std::sync::Arc;

use vdpa_mem::{Access, Section};
use vdpa_ring::{Batch, ChainRef, Used};

use super::backend::Lane;
use super::config::{DISCARD_SEGMENTS, ID_BYTES};
use super::count::Count;
use super::flight::Flight;
use super::inline::{Near, change, transfer};
use super::job::{Action, Extent, Parcel};
use super::request::{self, HEADER, IOERR, OK, Order, Refused, Rules};
use super::scatter::{self, Stray, copy_id, locate};
use super::{BATCH, BlkShared};
use crate::class::{Desk, Served, Stations, Unit};
use crate::queue::{Completeness, Halt, Queue};
use crate::stats::Counters;

/// How many bytes are copied in one section: unmapping waits for no more than that, and one request.
const SECTION_BYTES: u64 = 4 << 20;

/// A request queue, a unit of its own.
pub(super) struct Requests {
    shared: Arc<BlkShared>,
    number: usize,
    lane: Lane,
    flight: Flight,
    extents: Vec<Extent>,
    done: Vec<Parcel>,
    /// Requests that are done and could not be given back yet: the areas of the queue are not mapped.
    unsaid: usize,
    near: Near,
}

/// What a batch came to.
#[derive(Default)]
struct Pass {
    taken: usize,
    /// The first address that could not be used.
    stray: Option<Stray>,
}

impl Requests {
    pub(super) fn new(shared: Arc<BlkShared>, number: usize, lane: Lane, depth: usize) -> Self {
        let depth = match lane {
            Lane::Inline(_) => 0,
            Lane::Queued(_) => depth,
        };
        Self {
            flight: Flight::new(depth),
            shared,
            number,
            lane,
            extents: Vec::with_capacity(DISCARD_SEGMENTS as usize),
            done: Vec::with_capacity(BATCH),
            unsaid: 0,
            near: Near::default(),
        }
    }

    /// Takes back up to a batch of jobs that are done. Answers how many.
    ///
    /// * `used`: where they go; `None` where the queue is gone
    fn reap(&mut self, mut used: Option<&mut Vec<Used>>) -> usize {
        let Self {
            shared,
            number,
            lane,
            flight,
            done,
            ..
        } = self;
        let (Lane::Queued(lane), Some(counters)) = (lane, shared.counters.get(*number)) else {
            return 0;
        };
        if flight.len() == 0 {
            return 0;
        }
        lane.poll(done, BATCH);
        let count = done.len();
        for mut job in done.drain(..) {
            let (action, slot) = (job.action(), job.slot);
            let (status, end) = flight.arrive(slot);
            let bytes = job.extents().iter().map(|extent| extent.len).sum();
            // The disk may have become smaller meanwhile.
            let ok = job.failure().is_none() && end <= shared.bytes();
            if let Some(why) = job.failure() {
                tracing::debug!(
                    "queue {number}: {action:?} of {:?} failed: {why}",
                    job.extents()
                );
            }
            let written = job.release();
            flight.put(job);
            count_end(counters, action, bytes, ok);
            let Some(used) = &mut used else {
                flight.forget(slot);
                continue;
            };
            // The data is there, and logged; then the status.
            let said = [if ok { OK } else { IOERR }];
            let told = status.is_some_and(|hold| hold.bytes().write(0, &said) == 1);
            flight.finish(slot, used_len(written, told), used);
        }
        count
    }

    /// Begins what was given to the backend since the last time.
    fn begin(&mut self) {
        if let Lane::Queued(lane) = &mut self.lane {
            lane.begin();
        }
    }

    /// Gives back what is done.
    fn give_back(&mut self, queue: &mut Queue, section: &Section<'_>) -> Result<(), Halt> {
        if queue.used.is_empty() {
            return Ok(());
        }
        let mem = queue.open_to_return(section)?;
        queue.commit(&mem, Completeness::Partial)
    }

    /// Takes requests, begins them or does them at once, and gives back what is done.
    fn take(&mut self, queue: &mut Queue, section: &Section<'_>) -> Result<Pass, Halt> {
        let mut pass = Pass::default();
        let limit = match self.lane {
            Lane::Inline(_) => BATCH,
            Lane::Queued(_) => self.flight.room().min(BATCH),
        };
        if limit == 0 {
            return Ok(pass);
        }
        let mem = queue.open(section)?;
        pass.taken = queue.take(&mem, limit)?;
        if pass.taken == 0 {
            return Ok(pass);
        }
        queue.disarm(&mem);
        let shared = Arc::clone(&self.shared);
        let Some(counters) = shared.counters.get(self.number) else {
            return Ok(pass);
        };
        let (rules, sequence) = (shared.rules(), shared.sequence());
        self.look_ahead(section, &queue.batch);
        let (mut copied, mut done) = (0_u64, 0_usize);
        for chain in queue.batch.iter() {
            if copied >= SECTION_BYTES {
                break;
            }
            done = done.saturating_add(1);
            let slot = match self.lane {
                Lane::Inline(_) => None,
                // There is room: no more were taken.
                Lane::Queued(_) => self.flight.begin(chain.token(), sequence),
            };
            let len = match self.attempt(section, &chain, &rules, counters, slot, &mut copied) {
                Ok(Progress::Begun) => continue,
                Ok(Progress::Done(len)) => len,
                Err(stray) => {
                    pass.stray.get_or_insert(stray);
                    counters.add(Count::Fault as usize, 1);
                    self.refuse(section, &chain, IOERR)
                }
            };
            match slot {
                // Others may have to go back before it.
                Some(slot) => self.flight.finish(slot, len, &mut queue.used),
                None => {
                    let token = chain.token();
                    queue.used.push(Used { token, len });
                }
            }
        }
        queue.rewind(pass.taken.saturating_sub(done))?;
        queue.commit(&mem, Completeness::Partial)?;
        Ok(pass)
    }

    /// Asks for the headers of a batch: the driver's core wrote each last, and one after the other they would be waited
    /// for.
    fn look_ahead(&self, section: &Section<'_>, batch: &Batch) {
        let mut cursor = section.cursor(Access::DeviceReads, &self.near.header);
        for chain in batch.iter() {
            if let Some(first) = chain.readable().first()
                && let Some(header) = cursor.span(first.addr, HEADER as u32)
            {
                header.prefetch();
            }
        }
    }

    /// Does one request, or begins it in `slot`.
    ///
    /// * `copied`: the bytes that it is about are added to it
    ///
    /// # Errors
    /// With the address that cannot be used. Nothing is begun then.
    fn attempt(
        &mut self,
        section: &Section<'_>,
        chain: &ChainRef<'_>,
        rules: &Rules,
        counters: &Counters,
        slot: Option<usize>,
        copied: &mut u64,
    ) -> Result<Progress, Stray> {
        let Some(last) = chain.writable_len().checked_sub(1) else {
            // Nowhere to say anything: it comes back, which is what can be done.
            counters.add(Count::NoStatus as usize, 1);
            return Ok(Progress::Done(0));
        };
        let near = &mut self.near;
        // Looked for first: nothing is done whose end cannot be told.
        let place = locate(section, chain.writable(), &mut near.status)?;
        let judged = request::judge(section, chain, rules, &mut self.extents, &mut near.header);
        let done = match judged {
            Ok(order) => {
                counters.add(order.count() as usize, 1);
                match (order, &mut self.lane) {
                    (Order::Identity, _) => {
                        let id = self.shared.settings.id;
                        copy_id(section, chain.writable(), &id, &mut near.writable)
                            .map(|()| ID_BYTES as u64)
                            .map_err(Refused::from)
                    }
                    (Order::Data(action, extent), Lane::Inline(lane)) => {
                        *copied = copied.saturating_add(extent.len);
                        let stable = self.shared.is_writethrough();
                        let lane = &mut **lane;
                        let done = transfer(lane, section, chain, action, extent, stable, near);
                        if done.is_ok() {
                            count_end(counters, action, extent.len, true);
                        }
                        done
                    }
                    (Order::Disk(action), Lane::Inline(lane)) => {
                        let bytes = self.extents.iter().map(|extent| extent.len);
                        *copied = bytes.fold(*copied, u64::saturating_add);
                        let stable = self.shared.is_writethrough();
                        change(&mut **lane, action, &self.extents, stable)
                    }
                    (Order::Data(action, extent), Lane::Queued(_)) => {
                        let slot = slot.unwrap_or(usize::MAX);
                        self.depart(section, chain, action, Some(extent), last, slot)?;
                        return Ok(Progress::Begun);
                    }
                    (Order::Disk(action), Lane::Queued(_)) => {
                        let slot = slot.unwrap_or(usize::MAX);
                        self.depart(section, chain, action, None, last, slot)?;
                        return Ok(Progress::Begun);
                    }
                }
            }
            Err(refused) => Err(refused),
        };
        let (data, status) = match done {
            Ok(data) => (data, OK),
            Err(Refused::Stray(stray)) => return Err(stray),
            Err(Refused::Because(count, status)) => {
                counters.add(count as usize, 1);
                (0, status)
            }
        };
        let told = place.write(0, &[status]) == 1;
        Ok(Progress::Done(used_len(data, told)))
    }

    /// Gives a request to the backend, with holds on all of its memory.
    fn depart(
        &mut self,
        section: &Section<'_>,
        chain: &ChainRef<'_>,
        action: Action,
        data: Option<Extent>,
        last: u64,
        slot: usize,
    ) -> Result<(), Stray> {
        let extents = data.as_ref().map_or(&*self.extents, slice::from_ref);
        let mut job = self.flight.job();
        job.begin(slot, action, self.shared.is_writethrough());
        let mut end = 0_u64;
        for extent in extents {
            job.extend(*extent);
            end = end.max(extent.at.saturating_add(extent.len));
        }
        let len = extents.first().map_or(0, |extent| extent.len);
        let held = match action {
            Action::Read => {
                let (part, want) = (chain.writable(), Access::DeviceWrites);
                scatter::holds(section, part, want, (0, len), |hold| job.hold(hold))
            }
            Action::Write => {
                let (part, want) = (chain.readable(), Access::DeviceReads);
                scatter::holds(section, part, want, (HEADER, len), |hold| job.hold(hold))
            }
            _ => Ok(()),
        };
        let mut status = None;
        let held = held.and_then(|()| {
            let (part, want) = (chain.writable(), Access::DeviceWrites);
            scatter::holds(section, part, want, (last, 1), |hold| status = Some(hold))
        });
        let (Ok(()), Some(status), Lane::Queued(lane)) = (held, status, &mut self.lane) else {
            job.release();
            self.flight.put(job);
            return held;
        };
        self.flight.depart(slot, status, end);
        lane.submit(job);
        Ok(())
    }

    /// Answers a request whose memory is not all mapped, if its status is. Answers with the used length.
    fn refuse(&mut self, section: &Section<'_>, chain: &ChainRef<'_>, status: u8) -> u32 {
        let place = locate(section, chain.writable(), &mut self.near.status);
        used_len(0, place.is_ok_and(|bytes| bytes.write(0, &[status]) == 1))
    }
}

impl Unit for Requests {
    fn serve(&mut self, queues: &mut Stations, desk: &mut Desk) -> Served {
        let [station, _] = queues;
        let takes = station.running().is_some_and(|queue| queue.enabled);
        let Some(queue) = station.open() else {
            self.unsaid = 0;
            let reaped = self.reap(None);
            // What is in flight may be done in several steps: it ends only if they are begun.
            self.begin();
            return match reaped {
                0 => Served::Nothing,
                _ => Served::Work,
            };
        };
        let reaped = self.reap(Some(&mut queue.used));
        let passed = {
            let section = desk.reader.enter();
            self.give_back(queue, &section).and_then(|()| match takes {
                true => self.take(queue, &section),
                false => Ok(Pass::default()),
            })
        };
        // Outside of the section: the system may take its time.
        self.begin();
        self.unsaid = queue.used.len();
        let pass = passed.unwrap_or_else(|halt| {
            desk.halt(queue, halt);
            Pass::default()
        });
        if let Some(Stray { at, want, .. }) = pass.stray {
            desk.fault(at, want);
        }
        queue.call();
        if let Some(counters) = self.shared.counters.get(self.number) {
            counters.add_tally(&queue.tally());
        }
        if reaped != 0 || pass.taken != 0 {
            Served::Work
        } else {
            Served::Nothing
        }
    }

    fn arm(&mut self, queues: &mut Stations, desk: &mut Desk) -> bool {
        let waiting = match &mut self.lane {
            Lane::Inline(_) => false,
            Lane::Queued(lane) => lane.is_waiting(),
        };
        let [station, _] = queues;
        let Some(queue) = station.running().filter(|queue| queue.enabled) else {
            return waiting;
        };
        if matches!(self.lane, Lane::Queued(_)) && self.flight.room() == 0 {
            // Nothing can be taken before something is done, which is told by other means.
            return waiting;
        }
        waiting | desk.arm(queue)
    }

    fn in_flight(&self, _: usize) -> usize {
        self.flight.len().saturating_add(self.unsaid)
    }

    fn sources(&self) -> Vec<Arc<OwnedFd>> {
        match &self.lane {
            Lane::Inline(_) => Vec::new(),
            Lane::Queued(lane) => lane.sources(),
        }
    }

    fn reset(&mut self) {
        self.unsaid = 0;
    }
}

/// How far a request got.
enum Progress {
    /// It goes back with this used length.
    Done(u32),
    /// It is under way.
    Begun,
}

/// A request of the backend's is over.
fn count_end(counters: &Counters, action: Action, bytes: u64, ok: bool) {
    match (action, ok) {
        (_, false) => counters.add(Count::Backend as usize, 1),
        (Action::Read, _) => counters.add(Count::BytesRead as usize, bytes),
        (Action::Write, _) => counters.add(Count::BytesWritten as usize, bytes),
        _ => {}
    }
}

/// The used length of a request with so many bytes of data written: virtio 1.4 §2.7.8.2. Where the status could not be
/// written, nothing is promised.
fn used_len(data: u64, told: bool) -> u32 {
    if !told {
        return 0;
    }
    u32::try_from(data.saturating_add(1)).unwrap_or(u32::MAX)
}

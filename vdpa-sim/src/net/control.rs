//! The control queue: commands of the driver, virtio 1.4 §5.1.9.5.
//!
//! ```text
//!   readable:  class u8 | command u8 | data                     however it is cut
//!   writable:  ack u8, the last byte                            of most commands
//!              parameters 8 | ack u8                            of NOTF_COAL_VQ_GET: they are a part of its data
//!              ack u8 | result                                  of the class STATS
//! ```
//! A command that is short, overlong, unknown or not negotiated comes back with an error; none is lost. What a command
//! changes has reached every worker before the command comes back.

mod filters;
mod reply;
mod settings;
mod stats;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use vdpa_mem::{Access, Hint, Iova, Section};
use vdpa_ring::{Segment, Used};

use super::NetShared;
use super::coalesce::Params;
use super::filter::Filter;
use crate::class::{Desk, Served, Stations, Unit};
use crate::port::Port;
use crate::queue::{Completeness, Halt, Queue};

/// How many commands are taken at once.
pub(super) const BATCH: usize = 16;

/// Bytes of the longest command: far more than a MAC table that is kept.
const LONGEST: usize = 16 << 10;

/// Bytes of `virtio_net_ctrl_coal`.
const PARAMS_BYTES: u64 = 8;

/// VIRTIO_NET_CTRL_STATS.
const STATS: u8 = 8;

/// What the control queue counts: places in [`COUNTERS`].
const COMMANDS: usize = 0;
const REFUSED: usize = 1;
const FAULTS: usize = 2;
const CALLS: usize = 3;

/// The names of these counters, behind `control.`.
pub(super) const COUNTERS: &[&str] = &["commands", "refused", "faults", "calls"];

/// How many commands came, that of the moment too, and how many of them were carried out, if that of the moment is.
pub(super) fn commands(counters: &crate::stats::Counters) -> [u64; 2] {
    let commands = counters.value(COMMANDS);
    [commands, commands.wrapping_sub(counters.value(REFUSED))]
}

/// The control queue.
pub(super) struct Control {
    shared: Arc<NetShared>,
    port: Arc<dyn Port>,
    command: Box<[u8]>,
    near: Hint,
}

impl Control {
    pub(super) fn new(shared: Arc<NetShared>, port: Arc<dyn Port>) -> Self {
        Self {
            shared,
            port,
            command: vec![0; LONGEST].into_boxed_slice(),
            near: Hint::default(),
        }
    }
}

impl Unit for Control {
    fn serve(&mut self, queues: &mut Stations, desk: &mut Desk) -> Served {
        let [station, _] = queues;
        let Some(queue) = station.running() else {
            return Served::Nothing;
        };
        let served = self.batch(queue, desk);
        if queue.call() {
            self.shared.control.add(CALLS, 1);
        }
        match served {
            Ok(0) => Served::Nothing,
            Ok(_) => Served::Work,
            Err(halt) => {
                desk.halt(queue, halt);
                Served::Nothing
            }
        }
    }

    fn arm(&mut self, queues: &mut Stations, desk: &mut Desk) -> bool {
        let [station, _] = queues;
        station.running().is_some_and(|queue| desk.arm(queue))
    }

    fn in_flight(&self, _: usize) -> usize {
        // A command is carried out at once.
        0
    }

    fn sources(&self) -> Vec<Arc<OwnedFd>> {
        Vec::new()
    }

    fn reset(&mut self) {}
}

impl Control {
    /// Carries out one command: each is complete before the next is looked at.
    fn batch(&mut self, queue: &mut Queue, desk: &mut Desk) -> Result<usize, Halt> {
        let (taken, changed) = {
            let section = desk.reader.enter();
            let mem = queue.open(&section)?;
            let taken = queue.take(&mem, 1)?;
            let Some(chain) = queue.batch.chain(0) else {
                return Ok(0);
            };
            self.shared.control.add(COMMANDS, 1);
            let mut done = None;
            let room = chain.writable_len();
            let mut kind = [0; 2];
            match self.read(&section, chain.readable(), chain.readable_len()) {
                // Off, it has no effects, and a driver that waits for its command waits for no answer in vain.
                _ if !queue.enabled => {}
                Ok(len) => {
                    let command = self.command.get(..len).unwrap_or_default();
                    kind = command.first_chunk().copied().unwrap_or_default();
                    done = carry_out(&self.shared, command, room);
                }
                Err(Unread::Long) => {}
                Err(Unread::At(at)) => {
                    desk_fault(&mut desk.fault, at, Access::DeviceReads);
                    self.shared.control.add(FAULTS, 1);
                }
            }
            if done.is_none() {
                self.shared.control.add(REFUSED, 1);
            }
            let (whole, reply) = reply::reply(kind, done.as_ref(), room);
            let to = chain.writable();
            let written = reply::answer(&section, to, room, &reply, whole, &mut self.near);
            let len = written.unwrap_or_else(|at| {
                desk_fault(&mut desk.fault, at, Access::DeviceWrites);
                self.shared.control.add(FAULTS, 1);
                0
            });
            let changed = done == Some(Done::Seen);
            let token = chain.token();
            queue.used.push(Used { token, len });
            (taken, changed)
        };
        if changed {
            // Outside of the section. No frame is received by the old settings once the command is used: virtio 1.4
            // §5.1.9.5.2.1, §5.1.9.5.6.2.
            self.port.changed();
            self.shared.presence.ring_all();
            if !desk.rounds.settle(desk.worker) {
                tracing::warn!(
                    "a worker is stuck in a call: it may still work by the old settings"
                );
            }
        }
        let section = desk.reader.enter();
        let mem = match queue.open(&section) {
            Ok(mem) => mem,
            Err(halt) => {
                // Its ring was unmapped meanwhile. The command is carried out again once it can be given back, which
                // changes nothing more: all of them say how something is to be.
                queue.used.clear();
                queue.rewind(taken)?;
                return Err(halt);
            }
        };
        queue.commit(&mem, Completeness::Partial)?;
        Ok(taken)
    }

    /// Copies a command. Answers with its length.
    fn read(&mut self, section: &Section<'_>, from: &[Segment], len: u64) -> Result<usize, Unread> {
        if len > LONGEST as u64 {
            return Err(Unread::Long);
        }
        let mut filled = 0_usize;
        for segment in from {
            let (mut at, mut left) = (segment.addr, segment.len);
            while left != 0 {
                let bytes = section
                    .translate(at, left, Access::DeviceReads, &mut self.near)
                    .map_err(|_| Unread::At(at))?;
                let read = bytes.read(0, self.command.get_mut(filled..).unwrap_or_default());
                filled = filled.saturating_add(read);
                left = left.saturating_sub(read as u32);
                if read == 0 || left == 0 {
                    break;
                }
                at = at.checked_add(read as u64).ok_or(Unread::At(at))?;
            }
        }
        Ok(filled)
    }
}

/// Why a command was not read.
enum Unread {
    Long,
    At(Iova),
}

fn desk_fault(fault: &mut Option<(Iova, Access)>, at: Iova, want: Access) {
    fault.get_or_insert((at, want));
}

/// What a command that was carried out comes to.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Done {
    /// Something is changed that workers go by.
    Seen,
    /// Nothing is.
    Quiet,
    /// The parameters that were asked for.
    Params(Params),
    /// The result that was asked for.
    Result(Vec<u8>),
}

/// Carries a command out; `None` refuses it. `room`: how many bytes there are for its answer.
fn carry_out(shared: &NetShared, command: &[u8], room: u64) -> Option<Done> {
    let (&[class, what], data) = command.split_first_chunk()?;
    let features = shared.settled.features();
    let old = shared.settled.filter();
    let mut filter = Filter::clone(&old);
    match class {
        0 => filters::mode(&mut filter, what, data, features)?,
        1 => filters::address(&mut filter, what, data, features)?,
        2 => filters::vlan(&mut filter, what, data, features)?,
        3 => return settings::announce(shared, what, data, features),
        4 => return settings::steer(shared, what, data, features),
        5 => return settings::offloads(shared, what, data, features),
        6 => return settings::coalesce(shared, what, data, features, room),
        STATS => return stats::carry_out(shared, what, data, room).map(Done::Result),
        _ => return None,
    }
    if filter == *old {
        return Some(Done::Quiet);
    }
    shared.settled.set_filter(filter);
    Some(Done::Seen)
}

#[cfg(test)]
mod tests;

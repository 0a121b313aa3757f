//! The control queue: commands of the driver, virtio 1.4 §5.1.9.5.
//!
//! ```text
//!   readable:  class u8 | command u8 | data          however it is cut
//!   writable:  result, where a command has one | ack u8, the last byte
//! ```
//! A command that is short, overlong, unknown or not negotiated comes back with an error; none is lost. What a command
//! changes has reached every worker before the command comes back.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use vdpa_core::config::Mac;
use vdpa_core::{Features, bits::net};
use vdpa_mem::{Access, Hint, Iova, Section};
use vdpa_ring::{Segment, Used};

use super::NetShared;
use super::filter::{Addresses, Filter, Modes, VLANS};
use crate::class::{Desk, Served, Stations, Unit};
use crate::port::Port;
use crate::queue::{Completeness, Halt, Queue};

/// How many commands are taken at once.
pub(super) const BATCH: usize = 16;

/// Bytes of the longest command: far more than a MAC table that is kept.
const LONGEST: usize = 16 << 10;

/// Bytes that are zeroed before the ack where the driver gave more than it takes.
const MOST_ZEROED: u64 = 4096;

const OK: u8 = 0;
const ERR: u8 = 1;

/// What the control queue counts: places in [`COUNTERS`].
const COMMANDS: usize = 0;
const REFUSED: usize = 1;
const FAULTS: usize = 2;
const CALLS: usize = 3;

/// The names of these counters, behind `control.`.
pub(super) const COUNTERS: &[&str] = &["commands", "refused", "faults", "calls"];

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
        let Some(queue) = station.running() else {
            return false;
        };
        let armed = {
            let section = desk.reader.enter();
            queue.open(&section).and_then(|mem| queue.arm(&mem))
        };
        armed.unwrap_or_else(|halt| {
            desk.halt(queue, halt);
            false
        })
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
            let mut changed = false;
            let ack = match self.read(&section, chain.readable(), chain.readable_len()) {
                // Off, it has no effects, and a driver that waits for its command waits for no answer in vain.
                _ if !queue.enabled => ERR,
                Ok(len) => {
                    let command = self.command.get(..len).unwrap_or_default();
                    let done = carry_out(&self.shared, command);
                    changed = done == Some(Change::Seen);
                    if done.is_some() { OK } else { ERR }
                }
                Err(Unread::Long) => ERR,
                Err(Unread::At(at)) => {
                    desk_fault(&mut desk.fault, at, Access::DeviceReads);
                    self.shared.control.add(FAULTS, 1);
                    ERR
                }
            };
            if ack == ERR {
                self.shared.control.add(REFUSED, 1);
            }
            let len = match answer(
                &section,
                chain.writable(),
                chain.writable_len(),
                ack,
                &mut self.near,
            ) {
                Ok(len) => len,
                Err(at) => {
                    desk_fault(&mut desk.fault, at, Access::DeviceWrites);
                    self.shared.control.add(FAULTS, 1);
                    0
                }
            };
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
        let mem = queue.open(&section)?;
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

/// Writes the ack into the last writable byte. Answers with the bytes written from the first one on.
fn answer(
    section: &Section<'_>,
    to: &[Segment],
    len: u64,
    ack: u8,
    near: &mut Hint,
) -> Result<u32, Iova> {
    let Some(last) = len.checked_sub(1) else {
        // Nowhere to say anything: it comes back, which is what can be done.
        return Ok(0);
    };
    let mut before = 0_u64;
    for segment in to {
        let (mut at, mut left) = (segment.addr, segment.len);
        while left != 0 {
            let bytes = section
                .translate(at, left, Access::DeviceWrites, near)
                .map_err(|_| at)?;
            let here = bytes.len();
            let zeroed = MOST_ZEROED.min(last).saturating_sub(before);
            bytes.zero(0, here.min(usize::try_from(zeroed).unwrap_or(0)));
            let after = before.saturating_add(here as u64);
            if let Some(place) = last.checked_sub(before).filter(|_| last < after) {
                bytes.write(usize::try_from(place).unwrap_or(usize::MAX), &[ack]);
            }
            before = after;
            left = left.saturating_sub(here as u32);
            if here == 0 || left == 0 {
                break;
            }
            at = at.checked_add(here as u64).ok_or(at)?;
        }
    }
    // Past the zeroes nothing is promised.
    Ok(if last <= MOST_ZEROED {
        len as u32
    } else {
        MOST_ZEROED as u32
    })
}

/// What a command changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Change {
    /// Something that workers go by.
    Seen,
    /// Nothing.
    None,
}

/// Carries a command out; `None` refuses it.
fn carry_out(shared: &NetShared, command: &[u8]) -> Option<Change> {
    let (&[class, what], data) = command.split_first_chunk()?;
    let features = shared.settled.features();
    let old = shared.settled.filter();
    let mut filter = Filter::clone(&old);
    match class {
        0 => mode(&mut filter, what, data, features)?,
        1 => address(&mut filter, what, data, features)?,
        2 => vlan(&mut filter, what, data, features)?,
        4 => return pairs(shared, what, data, features),
        _ => return None,
    }
    if filter == *old {
        return Some(Change::None);
    }
    shared.settled.set_filter(filter);
    Some(Change::Seen)
}

/// VIRTIO_NET_CTRL_RX, virtio 1.4 §5.1.9.5.1.
fn mode(filter: &mut Filter, what: u8, data: &[u8], features: Features) -> Option<()> {
    let needs = if what < 2 {
        net::CTRL_RX
    } else {
        net::CTRL_RX_EXTRA
    };
    let &[on] = data else { return None };
    if !features.contains(needs) || !features.contains(net::CTRL_RX) {
        return None;
    }
    let on = on != 0;
    let modes = filter.modes.get_or_insert_with(Modes::default);
    match what {
        0 => modes.promiscuous = on,
        1 => modes.all_multicast = on,
        2 => modes.all_unicast = on,
        3 => modes.no_multicast = on,
        4 => modes.no_unicast = on,
        5 => modes.no_broadcast = on,
        _ => return None,
    }
    Some(())
}

/// VIRTIO_NET_CTRL_MAC, virtio 1.4 §5.1.9.5.2.
fn address(filter: &mut Filter, what: u8, data: &[u8], features: Features) -> Option<()> {
    match what {
        0 if features.contains(net::CTRL_RX) => {
            let (unicast, data) = table(data)?;
            let (multicast, data) = table(data)?;
            if !data.is_empty() {
                return None;
            }
            filter.unicast = unicast;
            filter.multicast = multicast;
            filter.modes.get_or_insert_with(Modes::default);
            Some(())
        }
        1 if features.contains(net::CTRL_MAC_ADDR) => {
            let mac = Mac::new(<[u8; 6]>::try_from(data).ok()?);
            if !mac.is_unicast() {
                return None;
            }
            filter.mac = mac;
            Some(())
        }
        _ => None,
    }
}

/// One table of addresses: `entries` u32, then 6 bytes each. Answers with what follows.
fn table(data: &[u8]) -> Option<(Addresses, &[u8])> {
    let (entries, data) = data.split_first_chunk()?;
    // The count is the driver's: it may say more than there can be.
    let bytes = usize::try_from(u32::from_le_bytes(*entries))
        .ok()?
        .checked_mul(6)?;
    let (list, rest) = data.split_at_checked(bytes)?;
    let macs = list.as_chunks().0.iter().map(|octets| Mac::new(*octets));
    Some((Addresses::new(macs), rest))
}

/// VIRTIO_NET_CTRL_VLAN, virtio 1.4 §5.1.9.5.3.
fn vlan(filter: &mut Filter, what: u8, data: &[u8], features: Features) -> Option<()> {
    let id = u16::from_le_bytes(data.try_into().ok()?);
    if !features.contains(net::CTRL_VLAN) || id >= VLANS || what > 1 {
        return None;
    }
    filter.set_vlan(id, what == 0);
    Some(())
}

/// VIRTIO_NET_CTRL_MQ, virtio 1.4 §5.1.9.5.6.
fn pairs(shared: &NetShared, what: u8, data: &[u8], features: Features) -> Option<Change> {
    let count = u16::from_le_bytes(data.try_into().ok()?);
    let legal = (1..=shared.settings.pairs).contains(&count);
    if what != 0 || !features.contains(net::MQ) || !legal {
        return None;
    }
    if shared.presence.active() == count {
        return Some(Change::None);
    }
    shared.presence.set_active(count);
    Some(Change::Seen)
}

#[cfg(test)]
mod tests;

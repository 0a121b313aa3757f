//! From a transmit queue to the port.

mod plain;
mod unfinished;

use vdpa_core::Features;
use vdpa_mem::{Access, Hint, Iova, Section};
use vdpa_ring::{ChainRef, Segment, Used};

use super::NetShared;
use super::config::{ETHERNET_BYTES, Settings, header_bytes};
use super::count::Tx;
use crate::class::Desk;
use crate::frames::{BATCH_FRAMES, FEW, FrameBatch, HEADER_BYTES};
use crate::port::{Lane, Presence, Room};
use crate::queue::{Completeness, Halt, Hold, Queue};
use crate::stats::Counters;
use plain::copy;

/// The transmitting half of a pair.
pub(super) struct Transmitter {
    /// The batch to fill next.
    spare: Option<Box<FrameBatch>>,
    longest: usize,
    near: Hint,
    /// The port was full: kicks are of no use before it has room.
    full: bool,
    /// Bytes of the header between what is kept of it and the frame: there to be ignored.
    gap: usize,
}

/// What all packets of a batch have in common.
struct Sending<'a> {
    settings: &'a Settings,
    features: Features,
    counters: &'a Counters,
}

/// What became of a batch of chains.
#[derive(Default)]
struct Outcome {
    taken: usize,
    /// The first address that could not be read.
    fault: Option<Iova>,
}

/// What was put into a batch.
#[derive(Default)]
struct Sent {
    packets: u64,
    bytes: u64,
}

impl Sent {
    #[inline]
    fn count(&mut self, frame: usize) {
        self.packets = self.packets.wrapping_add(1);
        self.bytes = self.bytes.wrapping_add(frame as u64);
    }
}

impl Transmitter {
    pub(super) fn new(longest: usize) -> Self {
        Self {
            spare: None,
            longest,
            near: Hint::default(),
            full: false,
            gap: 0,
        }
    }

    pub(super) fn reset(&mut self) {
        self.full = false;
    }

    /// Sends a batch. Answers whether there was one.
    pub(super) fn serve(
        &mut self,
        queue: &mut Queue,
        lane: &mut dyn Lane,
        shared: &NetShared,
        counters: &Counters,
        hold: Option<Hold>,
        desk: &mut Desk,
    ) -> bool {
        let verdict = self::verdict(queue.enabled, lane, shared);
        self.full = verdict == Verdict::Wait;
        if self.full {
            call(queue, hold, counters);
            return false;
        }
        self.gap = header_bytes(shared.settled.features()).saturating_sub(HEADER_BYTES);
        let longest = self.longest;
        let mut batch = self
            .spare
            .take()
            .unwrap_or_else(|| FrameBatch::new(longest));
        let done = {
            let section = desk.reader.enter();
            match verdict {
                Verdict::Drop(why) => {
                    // Looked at again once there is something to drop: the peer may have come before that was sent.
                    let again =
                        |enabled| self::verdict(enabled, lane, shared) == Verdict::Drop(why);
                    discard(queue, &section, counters, why, again)
                }
                Verdict::Send | Verdict::Wait => {
                    let sending = Sending {
                        settings: &shared.settings,
                        features: shared.settled.features(),
                        counters,
                    };
                    // As above: what was sent after the peer was reset, or the link came up again, is not of before.
                    let again = |enabled| self::verdict(enabled, lane, shared) == Verdict::Send;
                    self.fill(queue, &section, &mut batch, &sending, again)
                }
            }
        };
        let done = done.unwrap_or_else(|halt| {
            desk.halt(queue, halt);
            Outcome::default()
        });
        if let Some(at) = done.fault {
            desk.fault(at, Access::DeviceReads);
        }
        call(queue, hold, counters);
        if let Some(faults) = queue.faults() {
            faults.lose_packets(&mut batch);
        }
        self.spare = Some(if batch.is_empty() {
            batch
        } else {
            lane.send(batch)
        });
        done.taken != 0
    }

    /// Sends a frame of the device's own, or discards it if there is nobody to send to. `false`: there is no room now, and
    /// the port rings when there is.
    pub(super) fn send_own(
        &mut self,
        frame: &[u8],
        lane: &mut dyn Lane,
        presence: &Presence,
    ) -> bool {
        match lane.room() {
            Room::Full => return false,
            Room::Nowhere => return true,
            Room::Yes if !presence.has_link() => return true,
            Room::Yes => {}
        }
        let longest = self.longest;
        let spare = self.spare.take();
        let mut batch = spare.unwrap_or_else(|| FrameBatch::new(longest));
        // It is empty, and has room for a longer one.
        let _fits = batch.push_frame(frame);
        self.spare = Some(lane.send(batch));
        true
    }

    /// Copies what the queue has into the batch, until that is full, and gives the buffers back. If they are to be sent
    /// still.
    fn fill(
        &mut self,
        queue: &mut Queue,
        section: &Section<'_>,
        batch: &mut FrameBatch,
        sending: &Sending<'_>,
        mut again: impl FnMut(bool) -> bool,
    ) -> Result<Outcome, Halt> {
        let counters = sending.counters;
        let mem = queue.open(section)?;
        let taken = queue.take(&mem, BATCH_FRAMES)?;
        if taken == 0 {
            return Ok(Outcome::default());
        }
        if !again(queue.enabled) {
            queue.rewind(taken)?;
            return Ok(Outcome { taken, fault: None });
        }
        queue.disarm(&mem);
        let mut outcome = Outcome { taken, fault: None };
        let (mut sent, mut done) = (Sent::default(), 0_usize);
        // Filling the larger one takes longer than a lone packet.
        let (mut few, mut many);
        let places: &mut [_] = if taken <= FEW {
            few = [None; FEW];
            &mut few
        } else {
            many = [None; BATCH_FRAMES];
            &mut many
        };
        loop {
            let run = self.places(section, queue, done, places);
            let places = places.get(..run).unwrap_or_default();
            let copied = copy(places, batch, sending, &mut sent);
            done = done.wrapping_add(copied);
            if copied < run {
                break;
            }
            let Some(chain) = queue.batch.chain(done) else {
                break;
            };
            match self.gather(section, chain, batch, sending) {
                Ok(frame) => sent.count(frame),
                Err(Refused::Full) => break,
                Err(Refused::Drop(why)) => counters.add(why as usize, 1),
                Err(Refused::Fault(at)) => {
                    counters.add(Tx::Fault as usize, 1);
                    outcome.fault.get_or_insert(at);
                }
            }
            done = done.wrapping_add(1);
        }
        counters.add(Tx::Packets as usize, sent.packets);
        counters.add(Tx::Bytes as usize, sent.bytes);
        // Nothing was written: virtio 1.4 §2.7.8.2.
        let Queue { batch, used, .. } = &mut *queue;
        used.extend(batch.iter().take(done).map(|chain| Used {
            token: chain.token(),
            len: 0,
        }));
        queue.rewind(taken.saturating_sub(done))?;
        queue.commit(&mem, Completeness::Whole)?;
        Ok(outcome)
    }

    /// Copies one packet, however it is cut. Answers with the length of its frame.
    #[inline(never)]
    fn gather(
        &mut self,
        section: &Section<'_>,
        chain: ChainRef<'_>,
        batch: &mut FrameBatch,
        sending: &Sending<'_>,
    ) -> Result<usize, Refused> {
        let len = chain.readable_len();
        let (shortest, most) = self.lengths();
        if len < shortest as u64 {
            return Err(Refused::Drop(Tx::Short));
        }
        if len > most as u64 {
            return Err(Refused::Drop(Tx::OverMtu));
        }
        // At most `longest` and a header.
        let len = (len as usize).saturating_sub(self.gap);
        let room = batch.room(len).ok_or(Refused::Full)?;
        self.gather_pieces(section, chain.readable(), room)?;
        sending.finish(room).map_err(Refused::Drop)?;
        batch.push(len);
        Ok(len.saturating_sub(HEADER_BYTES))
    }

    /// How long a packet is at least and at most, header and all.
    #[inline]
    fn lengths(&self) -> (usize, usize) {
        let header = HEADER_BYTES.saturating_add(self.gap);
        (
            header.saturating_add(ETHERNET_BYTES),
            header.saturating_add(self.longest),
        )
    }

    /// Its bytes: the pieces are the driver's, or of this process's memory.
    fn gather_pieces(
        &mut self,
        section: &Section<'_>,
        segments: &[Segment],
        room: &mut [u8],
    ) -> Result<(), Refused> {
        let mut filled = 0_usize;
        let mut gap = self.gap;
        for segment in segments {
            let (mut at, mut left) = (segment.addr, segment.len);
            while left != 0 {
                let bytes = section
                    .translate(at, left, Access::DeviceReads, &mut self.near)
                    .map_err(|_| Refused::Fault(at))?;
                let read = if gap == 0 {
                    let read = bytes.read(0, room.get_mut(filled..).unwrap_or_default());
                    filled = filled.saturating_add(read);
                    read
                } else if let Some(head) = room
                    .get_mut(filled..HEADER_BYTES)
                    .filter(|head| !head.is_empty())
                {
                    let read = bytes.read(0, head);
                    filled = filled.saturating_add(read);
                    read
                } else {
                    let skipped = gap.min(bytes.len());
                    gap = gap.saturating_sub(skipped);
                    skipped
                };
                left = left.saturating_sub(read as u32);
                if read == 0 || left == 0 {
                    break;
                }
                // The mapping ended: the next one may be elsewhere in this process.
                at = at.checked_add(read as u64).ok_or(Refused::Fault(at))?;
            }
        }
        Ok(())
    }

    /// Asks for kicks. `true`: there is work already.
    pub(super) fn arm(&mut self, queue: &mut Queue, desk: &mut Desk) -> bool {
        if self.full {
            // The port rings when there is room.
            return false;
        }
        desk.arm(queue)
    }
}

/// Calls the driver, if it is time, and counts what the queue did.
#[inline]
fn call(queue: &mut Queue, hold: Option<Hold>, counters: &Counters) {
    queue.call_by(hold);
    counters.add_tally(&queue.tally());
}

/// Why a packet is not in the batch.
enum Refused {
    /// The batch is full.
    Full,
    /// The packet is given back unsent.
    Drop(Tx),
    /// It is in memory that may not be read.
    Fault(Iova),
}

/// What is to be done with what the driver sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    /// Send it.
    Send,
    /// Leave it where it is until the port has room.
    Wait,
    /// Drop it.
    Drop(Tx),
}

#[inline]
fn verdict(enabled: bool, lane: &mut dyn Lane, shared: &NetShared) -> Verdict {
    if !enabled {
        return Verdict::Drop(Tx::Off);
    }
    if !shared.presence.has_link() {
        return Verdict::Drop(Tx::LinkDown);
    }
    match lane.room() {
        Room::Yes => Verdict::Send,
        Room::Full => Verdict::Wait,
        Room::Nowhere => Verdict::Drop(Tx::NoPeer),
    }
}

/// Gives buffers back without looking at them, if they are to be dropped still.
fn discard(
    queue: &mut Queue,
    section: &Section<'_>,
    counters: &Counters,
    why: Tx,
    mut again: impl FnMut(bool) -> bool,
) -> Result<Outcome, Halt> {
    let mem = queue.open(section)?;
    let taken = queue.take(&mem, BATCH_FRAMES)?;
    if taken == 0 {
        return Ok(Outcome::default());
    }
    if !again(queue.enabled) {
        queue.rewind(taken)?;
        return Ok(Outcome { taken, fault: None });
    }
    queue.disarm(&mem);
    for chain in queue.batch.iter() {
        queue.used.push(Used {
            token: chain.token(),
            len: 0,
        });
    }
    counters.add(why as usize, taken as u64);
    queue.commit(&mem, Completeness::Whole)?;
    Ok(Outcome { taken, fault: None })
}

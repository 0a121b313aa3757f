//! From the port to a receive queue.

use vdpa_core::Features;
use vdpa_core::bits::net;
use vdpa_mem::{Access, Hint, Iova, Section};
use vdpa_ring::{Batch, Segment, Used};

use super::NetShared;
use super::config::Settings;
use super::count::Rx;
use super::filter::Filter;
use super::settled::Watch;
use crate::class::{Desk, Station};
use crate::frames::{BATCH_FRAMES, FrameBatch, HEADER_BYTES};
use crate::port::Lane;
use crate::queue::{Completeness, Halt, Queue, QueueMem};
use crate::stats::Counters;

/// The receiving half of a pair.
#[derive(Default)]
pub(super) struct Receiver {
    watch: Watch,
    near: Hint,
    /// Frames wait for buffers: kicks are of use.
    waiting: bool,
    lack: Lack,
}

/// What there is for a frame that waits for more buffers: it takes none of them before it has all that it needs.
#[derive(Default)]
struct Lack {
    /// So many buffers were too few.
    have: usize,
    /// So many cannot be more in one take, though there are more: a batch holds a bounded number of segments.
    most: Option<usize>,
}

/// What all frames of a batch have in common.
struct Delivery<'a> {
    settings: &'a Settings,
    counters: &'a Counters,
    /// `None`: everything passes.
    filter: Option<&'a Filter>,
    features: Features,
    merge: bool,
    /// Bytes of the longest frame without tags.
    plain: usize,
}

/// What came of the buffers of one take.
#[derive(Default)]
struct Round {
    /// Chains that are given back.
    next: usize,
    packets: u64,
    bytes: u64,
    /// Chains of these that are of no use.
    bad: usize,
    /// The first frame that is left needs more buffers.
    short: bool,
    /// The first address that could not be written.
    fault: Option<Iova>,
}

/// Where a frame went.
enum Placed {
    /// Into this many buffers.
    Into(usize),
    /// It needs more buffers than were taken.
    Short,
    /// It does not fit, and no buffer is used up.
    NoRoom,
    /// The first buffer is of no use, and is given back empty.
    BadBuffer,
    /// These many buffers are given back empty: one is in memory that may not be written.
    Fault(usize, Iova),
}

impl Round {
    #[inline]
    fn count(&mut self, packet: usize) {
        self.packets = self.packets.wrapping_add(1);
        let frame = packet.saturating_sub(HEADER_BYTES);
        self.bytes = self.bytes.wrapping_add(frame as u64);
    }
}

impl Receiver {
    pub(super) fn reset(&mut self) {
        self.waiting = false;
        self.lack = Lack::default();
    }

    /// Gives the driver what has come. Answers whether something was done.
    pub(super) fn serve(
        &mut self,
        station: &mut Station,
        lane: &mut dyn Lane,
        shared: &NetShared,
        counters: &Counters,
        desk: &mut Desk,
    ) -> bool {
        let queue = match station {
            // Nothing comes any more, and a capture waits.
            _ if !shared.presence.has_link() => return false,
            Station::Running(queue) if queue.enabled => queue,
            Station::Running(_) => return discard(lane, counters, Rx::Off),
            Station::Stopped => return discard(lane, counters, Rx::Stopped),
            // They wait until it goes on.
            Station::Draining(_) | Station::Paused => return false,
        };
        let features = shared.settled.features();
        let was_waiting = self.waiting;
        let (mut waiting, mut worked, mut lost) = (false, false, None);
        let (near, lack, mut fault) = (&mut self.near, &mut self.lack, None);
        let delivery = Delivery {
            settings: &shared.settings,
            counters,
            filter: self
                .watch
                .filter(&shared.settled)
                .filter(|filter| filter.is_chosen()),
            features,
            merge: features.contains(net::MRG_RXBUF),
            plain: shared.settings.plain(),
        };
        let again = lane.receive(&mut |frames| {
            if lost.is_some() {
                return;
            }
            let before = frames.len();
            let section = desk.reader.enter();
            match delivery.deliver(queue, &section, frames, near, lack, &mut fault) {
                Ok(Delivered { enough, given }) => {
                    waiting |= !enough;
                    worked |= given;
                }
                Err(why) => lost = Some(why),
            }
            worked |= frames.len() != before;
        });
        self.waiting = waiting;
        if waiting && !was_waiting {
            counters.add(Rx::Waits as usize, 1);
        }
        if let Some(at) = fault {
            desk.fault(at, Access::DeviceWrites);
        }
        if let Some(why) = lost {
            desk.halt(queue, why);
        }
        if queue.call() {
            counters.add(Rx::Calls as usize, 1);
        }
        worked || again
    }

    /// Asks for kicks where frames wait for buffers. `true`: there are some by now.
    pub(super) fn arm(&mut self, queue: &mut Queue, desk: &mut Desk) -> bool {
        if !self.waiting {
            return false;
        }
        let lack = &mut self.lack;
        let armed = {
            let section = desk.reader.enter();
            queue
                .open(&section)
                .and_then(|mem| arm_behind(queue, &mem, lack))
        };
        armed.unwrap_or_else(|halt| {
            desk.halt(queue, halt);
            false
        })
    }
}

/// Asks for the kick behind the buffers that were too few: their being there is no news. `true`: there are others.
fn arm_behind(queue: &mut Queue, mem: &QueueMem<'_>, lack: &mut Lack) -> Result<bool, Halt> {
    let taken = queue.take(mem, usize::MAX)?;
    if taken > lack.have {
        queue.rewind(taken)?;
        return Ok(true);
    }
    // Where the ring stands now is what kicks and the last look go by.
    let more = queue.arm(mem)?;
    queue.rewind(taken)?;
    // Another take finds them, or finds as many as this one.
    lack.most = more.then_some(taken);
    Ok(more)
}

/// Throws away what has come.
fn discard(lane: &mut dyn Lane, counters: &Counters, why: Rx) -> bool {
    let frames = lane.discard();
    counters.add(why as usize, frames);
    frames != 0
}

/// What came of the frames of one batch.
struct Delivered {
    /// There were enough buffers.
    enough: bool,
    /// Buffers were given back.
    given: bool,
}

impl Delivery<'_> {
    /// Moves frames into buffers, as far as these go, and as long as not too many are of no use: what a driver posts
    /// meanwhile keeps no section open.
    fn deliver(
        &self,
        queue: &mut Queue,
        section: &Section<'_>,
        frames: &mut FrameBatch,
        near: &mut Hint,
        lack: &mut Lack,
        fault: &mut Option<Iova>,
    ) -> Result<Delivered, Halt> {
        let mem = queue.open(section)?;
        queue.disarm(&mem);
        let most = queue.batch.capacity();
        // A buffer for each frame; more where one frame turns out to need more.
        let mut want = frames.len().min(most);
        let (mut packets, mut bytes) = (0_u64, 0_u64);
        let (mut enough, mut given, mut bad) = (true, 0_usize, 0_usize);
        let wedged = lack.most.take();
        while !frames.is_empty() {
            let taken = queue.take(&mem, want)?;
            let Queue { batch, used, .. } = &mut *queue;
            let Round {
                next,
                packets: more,
                bytes: longer,
                bad: useless,
                short,
                fault: first,
            } = self.fill(frames, batch, used, section, near, bad);
            packets = packets.wrapping_add(more);
            bytes = bytes.wrapping_add(longer);
            given = given.wrapping_add(next);
            bad = bad.wrapping_add(useless);
            *fault = fault.or(first);
            let left = taken.saturating_sub(next);
            let all = short && next == 0 && leaves_no_room(queue, &mem);
            queue.rewind(left)?;
            // All buffers of a frame appear together, virtio 1.4 §5.1.9.4.1.
            queue.commit(&mem, Completeness::Partial)?;
            if !short {
                break;
            }
            let exhausted = taken < want;
            let full = exhausted && wedged == Some(taken);
            if all || (next == 0 && (taken >= most || full)) {
                // All buffers that there can be are too few, or all that can be taken at once.
                self.counters.add(Rx::NoRoom as usize, 1);
                frames.pop();
            } else if exhausted {
                enough = false;
                lack.have = left;
                break;
            } else if next == 0 {
                want = want.saturating_mul(2).min(most);
                continue;
            }
            want = frames.len().min(most);
        }
        self.counters.add(Rx::Packets as usize, packets);
        self.counters.add(Rx::Bytes as usize, bytes);
        let given = given != 0;
        if enough && given {
            // What is left is other than what was too few for a frame before.
            lack.have = 0;
        }
        Ok(Delivered { enough, given })
    }

    /// Moves frames into the buffers of one take, as far as they go. `bad`: how many were of no use before.
    fn fill(
        &self,
        frames: &mut FrameBatch,
        batch: &Batch,
        used: &mut Vec<Used>,
        section: &Section<'_>,
        near: &mut Hint,
        bad: usize,
    ) -> Round {
        let mut round = Round::default();
        while let Some(packet) = frames.first() {
            if let Some(why) = self.refuses(packet) {
                self.counters.add(why as usize, 1);
                frames.pop();
                continue;
            }
            let len = packet.len();
            let Some(first) = batch.chain(round.next) else {
                round.short = true;
                break;
            };
            // Nearly all frames: one segment in one mapping.
            if let [one] = *first.writable()
                && one.len as usize >= len
                && write_whole(packet, one.addr, section, near)
            {
                used.push(Used {
                    token: first.token(),
                    len: len as u32,
                });
                round.next = round.next.wrapping_add(1);
                round.count(len);
                frames.pop();
                continue;
            }
            match self.place(packet, batch, round.next, section, near) {
                Placed::Into(count) => {
                    give_back(batch, used, round.next, count, len);
                    round.next = round.next.wrapping_add(count);
                    round.count(len);
                }
                Placed::Short => {
                    round.short = true;
                    break;
                }
                Placed::NoRoom => self.counters.add(Rx::NoRoom as usize, 1),
                Placed::BadBuffer => {
                    self.counters.add(Rx::BadBuffer as usize, 1);
                    give_back(batch, used, round.next, 1, 0);
                    round.next = round.next.wrapping_add(1);
                    round.bad = round.bad.wrapping_add(1);
                    if bad.wrapping_add(round.bad) >= BATCH_FRAMES {
                        break;
                    }
                    continue;
                }
                Placed::Fault(count, at) => {
                    self.counters.add(Rx::Fault as usize, 1);
                    round.fault.get_or_insert(at);
                    give_back(batch, used, round.next, count, 0);
                    round.next = round.next.wrapping_add(count);
                }
            }
            frames.pop();
        }
        round
    }

    /// Why a packet is not for this driver.
    #[inline]
    fn refuses(&self, packet: &[u8]) -> Option<Rx> {
        let frame = packet.get(HEADER_BYTES..).unwrap_or_default();
        if frame.len() > self.plain && !self.settings.fits(frame) {
            Some(Rx::OverMtu)
        } else if self
            .filter
            .is_some_and(|filter| !filter.passes(frame, self.features))
        {
            Some(Rx::Filtered)
        } else {
            None
        }
    }

    /// Writes a packet into buffers of the batch from `next` on, whatever pieces these are in.
    fn place(
        &self,
        packet: &mut [u8],
        batch: &Batch,
        next: usize,
        section: &Section<'_>,
        near: &mut Hint,
    ) -> Placed {
        let Some(first) = batch.chain(next) else {
            return Placed::Short;
        };
        let room = first.writable_len();
        if room < HEADER_BYTES as u64 {
            return Placed::BadBuffer;
        }
        let mut count = 1_usize;
        if room < packet.len() as u64 {
            if !self.merge {
                return Placed::NoRoom;
            }
            let mut room = room;
            while room < packet.len() as u64 {
                let Some(more) = batch.chain(next.saturating_add(count)) else {
                    return Placed::Short;
                };
                room = room.saturating_add(more.writable_len());
                count = count.saturating_add(1);
            }
        }
        if let Some(room) = packet.first_chunk_mut() {
            // The longest frame has fewer buffers than 16 bits count.
            *room = header(count.min(usize::from(u16::MAX)) as u16);
        }
        let mut rest = &*packet;
        for chain in batch.iter().skip(next).take(count) {
            if let Err(at) = scatter(section, chain.writable(), &mut rest, near) {
                return Placed::Fault(count, at);
            }
        }
        Placed::Into(count)
    }
}

/// The header of a received packet, virtio 1.4 §5.1.9.4.1: no offload is negotiated, so all of it is 0 but the number of
/// buffers, which is 1 without MRG_RXBUF.
const fn header(buffers: u16) -> [u8; HEADER_BYTES] {
    let [low, high] = buffers.to_le_bytes();
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, low, high]
}

/// Writes a packet to one place. `false`: it has to be tried in pieces.
#[inline]
fn write_whole(packet: &[u8], at: Iova, section: &Section<'_>, near: &mut Hint) -> bool {
    let len = packet.len();
    match section.translate(at, len as u32, Access::DeviceWrites, near) {
        Ok(bytes) if bytes.len() == len => {
            // Apart from the frame: a header just stored in front of it would be read back by the copy at once.
            bytes.write(0, &header(1));
            bytes.write(HEADER_BYTES, packet.get(HEADER_BYTES..).unwrap_or_default());
            true
        }
        _ => false,
    }
}

/// Whether the chains of the batch leave the driver no descriptors for one more like the last.
fn leaves_no_room(queue: &Queue, mem: &QueueMem<'_>) -> bool {
    let size = usize::from(queue.size());
    let mut all = 0_usize;
    let mut chains = queue.batch.iter().peekable();
    while let Some(chain) = chains.next() {
        let own = queue.descriptors(mem, chain.token());
        all = all.saturating_add(own);
        if all >= size || (chains.peek().is_none() && all.saturating_add(own) > size) {
            return true;
        }
    }
    false
}

/// Gives `count` chains from `next` on back, with `len` bytes in them together.
#[inline]
fn give_back(batch: &Batch, used: &mut Vec<Used>, next: usize, count: usize, len: usize) {
    let mut left = len as u64;
    for chain in (next..next.wrapping_add(count)).filter_map(|i| batch.chain(i)) {
        // All but the last are full.
        let len = if count == 1 {
            left
        } else {
            left.min(chain.writable_len())
        };
        left = left.saturating_sub(len);
        used.push(Used {
            token: chain.token(),
            len: u32::try_from(len).unwrap_or(u32::MAX),
        });
    }
}

/// Writes `rest` into the segments, and leaves of it what did not fit.
fn scatter(
    section: &Section<'_>,
    segments: &[Segment],
    rest: &mut &[u8],
    near: &mut Hint,
) -> Result<(), Iova> {
    for segment in segments {
        let (mut at, mut left) = (segment.addr, segment.len);
        while left != 0 && !rest.is_empty() {
            let bytes = section
                .translate(at, left, Access::DeviceWrites, near)
                .map_err(|_| at)?;
            let written = bytes.write(0, rest);
            *rest = rest.get(written..).unwrap_or_default();
            left = left.saturating_sub(written as u32);
            if written == 0 || left == 0 {
                break;
            }
            at = at.checked_add(written as u64).ok_or(at)?;
        }
    }
    Ok(())
}

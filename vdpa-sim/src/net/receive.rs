//! From the port to a receive queue.

mod pass;
mod place;
mod plain;
mod steered;
mod unfinished;

use vdpa_core::Features;
use vdpa_mem::{Hint, Iova, Section};
use vdpa_ring::Batch;

use super::NetShared;
use super::config::Settings;
use super::count::Rx;
use super::exchange::Parcel;
use super::filter::Filter;
use super::hashing::Hashing;
use super::settled::Watch;
use super::sorter::Sorter;
use super::waiting::InHand;
use crate::class::{Desk, Station};
use crate::frames::{BATCH_FRAMES, FEW, FrameBatch, HEADER_BYTES};
use crate::offload::Header;
use crate::port::Lane;
use crate::queue::{Completeness, Halt, Queue, QueueMem};
use crate::stats::Counters;
use pass::Pass;
use place::{Booked, Buffers};

/// The receiving half of a pair.
#[derive(Default)]
pub(super) struct Receiver {
    watch: Watch,
    /// Frames wait for buffers: kicks are of use.
    waiting: bool,
    hand: Hand,
    sorter: Sorter,
    /// What another pair gave, of which something is left.
    open: Option<Parcel>,
}

/// A pair, as its receiver goes by it.
#[derive(Clone, Copy)]
pub(super) struct Seat<'a> {
    pub(super) shared: &'a NetShared,
    /// Its number.
    pub(super) pair: u16,
    pub(super) counters: &'a Counters,
    /// What comes through its lane came with the state: before all that others have for it.
    pub(super) stowed: bool,
}

/// What is remembered from batch to batch.
#[derive(Default)]
struct Hand {
    near: Hint,
    lack: Lack,
    /// Where a segment is made, from the first one on.
    scratch: Vec<u8>,
}

/// What there is for a frame that waits for more buffers: it takes none of them before it has all that it needs.
#[derive(Default)]
struct Lack {
    /// So many buffers were too few.
    have: usize,
    /// So many cannot be more in one take, though there are more: a batch holds a bounded number of segments.
    most: Option<usize>,
    /// What waits is a whole packet that can be segmented instead.
    large: bool,
    /// It has waited long enough: it is to be segmented.
    cut: bool,
}

/// What all frames of a batch have in common.
struct Delivery<'a> {
    settings: &'a Settings,
    counters: &'a Counters,
    /// `None`: everything passes.
    filter: Option<&'a Filter>,
    features: Features,
    /// What the driver takes unfinished.
    offloads: Features,
    merge: bool,
    /// Bytes of the longest frame without tags.
    plain: usize,
    /// What is reported of hashes, if the driver wants to know.
    report: Option<&'a Hashing>,
    /// Bytes of a header in a queue.
    header: usize,
}

/// What was done before in one pass, which is bounded: what a driver posts meanwhile keeps no section open.
#[derive(Clone, Copy, Default)]
struct Spent {
    /// Chains of no use.
    bad: usize,
    /// Segments made.
    segments: usize,
}

impl Spent {
    #[inline]
    fn and(self, round: &Round) -> Self {
        Self {
            bad: self.bad.wrapping_add(round.spent.bad),
            segments: self.segments.wrapping_add(round.spent.segments),
        }
    }

    #[inline]
    fn is_enough(self) -> bool {
        self.bad >= BATCH_FRAMES || self.segments >= SEGMENTS
    }
}

/// How many segments are made in one pass at most.
const SEGMENTS: usize = 1024;

/// What came of the buffers of one take.
#[derive(Clone, Copy, Default)]
struct Round {
    /// Chains that are given back.
    next: usize,
    packets: u64,
    bytes: u64,
    spent: Spent,
    /// The first frame that is left needs more buffers.
    short: bool,
    /// The first address that could not be written.
    fault: Option<Iova>,
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
        self.hand.lack = Lack::default();
        self.sorter.reset();
        self.open = None;
    }

    /// Puts copies of the frames that are here alone where they are found when the state is saved.
    pub(super) fn show(&self, lane: &mut dyn Lane, seat: Seat<'_>) {
        let epoch = seat.shared.presence.epoch();
        let mut hand = InHand::new(epoch);
        if let Some(parcel) = &self.open {
            hand.began(seat.pair, &parcel.batch);
        }
        for (to, parcel) in self.sorter.held() {
            hand.sorted(*to, &parcel.batch);
        }
        lane.held(&mut |batch| hand.came(seat.pair, batch));
        seat.shared.hands.put(seat.pair, hand);
    }

    /// Gives the driver what has come. Answers whether something was done.
    pub(super) fn serve(
        &mut self,
        station: &mut Station,
        lane: &mut dyn Lane,
        seat: Seat<'_>,
        desk: &mut Desk,
    ) -> bool {
        let was_waiting = self.waiting;
        // Without a link nothing comes any more, and a capture waits.
        let link = seat.shared.presence.has_link();
        let worked = link && {
            self.watch.refresh(&seat.shared.settled);
            match seat.shared.exchange.get() {
                None => self.serve_lane(station, lane, seat, desk),
                Some(exchange) => self.serve_exchange(station, lane, seat, exchange, desk),
            }
        };
        let takes = match station {
            Station::Running(queue) => link && queue.enabled,
            // What waits goes on waiting.
            Station::Draining(_) | Station::Paused => true,
            Station::Stopped => false,
        };
        if !takes {
            // Buffers are of no use now. It is served when they are again: all pairs are rung for the link, and a queue
            // that is switched on is looked at.
            self.waiting = false;
        }
        if self.waiting && !was_waiting {
            seat.counters.add(Rx::Waits as usize, 1);
        }
        // Whatever came: a call that was held back may be due.
        if let Some(queue) = station.running() {
            queue.call_by(seat.shared.coalescing.hold(queue.index().get()));
            seat.counters.add_tally(&queue.tally());
        }
        worked
    }

    /// What comes to this pair is for this pair.
    fn serve_lane(
        &mut self,
        station: &mut Station,
        lane: &mut dyn Lane,
        seat: Seat<'_>,
        desk: &mut Desk,
    ) -> bool {
        let queue = match station {
            Station::Running(queue) if queue.enabled => queue,
            Station::Running(_) => return discard(lane, seat.counters, Rx::Off),
            // It was started meanwhile: what comes after that is for it.
            Station::Stopped if desk.has_orders() => return true,
            Station::Stopped => return discard(lane, seat.counters, Rx::Stopped),
            // They wait until it goes on.
            Station::Draining(_) | Station::Paused => return false,
        };
        let mut pass = Pass::new(&self.watch, &mut self.hand, seat);
        let again = lane.receive(&mut |frames| pass.give(queue, frames, &mut desk.reader));
        let (waiting, worked) = pass.end(Some(queue), desk);
        self.waiting = waiting;
        worked || again
    }

    /// Asks for kicks where frames wait for buffers. `true`: there are some by now.
    pub(super) fn arm(&mut self, queue: &mut Queue, desk: &mut Desk) -> bool {
        if !self.waiting {
            return false;
        }
        let lack = &mut self.hand.lack;
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
    if lack.large && lack.have != 0 && !lack.cut {
        // There are buffers, and no more have come for a while.
        lack.cut = true;
        return Ok(true);
    }
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
        hand: &mut Hand,
        fault: &mut Option<Iova>,
    ) -> Result<Delivered, Halt> {
        let Hand {
            near,
            lack,
            scratch,
        } = hand;
        let mem = queue.open(section)?;
        queue.disarm(&mem);
        let most = queue.batch.capacity();
        // A buffer for each frame; more where one frame turns out to need more.
        let mut want = frames.left().min(most);
        let (mut packets, mut bytes) = (0_u64, 0_u64);
        let (mut enough, mut given, mut spent) = (true, 0_usize, Spent::default());
        let wedged = lack.most.take();
        while !frames.is_empty() {
            let taken = queue.take(&mem, want)?;
            let Queue { batch, used, .. } = &mut *queue;
            let to = Buffers {
                batch,
                used,
                section,
                near: &mut *near,
                scratch: &mut *scratch,
            };
            let round = self.fill(frames, to, spent);
            packets = packets.wrapping_add(round.packets);
            bytes = bytes.wrapping_add(round.bytes);
            given = given.wrapping_add(round.next);
            spent = spent.and(&round);
            *fault = fault.or(round.fault);
            let Round { next, short, .. } = round;
            let left = taken.saturating_sub(next);
            let all = short && next == 0 && leaves_no_room(queue, &mem);
            let guess = if short && next == 0 {
                guess(frames, &queue.batch)
            } else {
                0
            };
            queue.rewind(left)?;
            // All buffers of a frame appear together, virtio 1.4 §5.1.9.4.1.
            queue.commit(&mem, Completeness::Partial)?;
            if !short {
                break;
            }
            let exhausted = taken < want;
            // By the first take alone: behind it there may be none simply because they are used up.
            let full = exhausted && given == 0 && wedged == Some(taken);
            if all || (next == 0 && (taken >= most || full)) {
                // All buffers that there can be are too few, or all that can be taken at once.
                self.give_up(frames);
            } else if exhausted && next == 0 && lack.cut && unfinished::is_whole(frames) {
                lack.cut = false;
                self.give_up(frames);
            } else if exhausted {
                enough = false;
                lack.have = left;
                lack.large = unfinished::is_whole(frames);
                break;
            } else if next == 0 {
                want = want.saturating_mul(2).max(guess).min(most);
                continue;
            }
            want = frames.left().min(most);
        }
        self.counters.add(Rx::Packets as usize, packets);
        self.counters.add(Rx::Bytes as usize, bytes);
        let given = given != 0;
        if enough && given {
            // What is left is other than what was too few for a frame before.
            lack.have = 0;
        }
        if given {
            lack.cut = false;
        }
        Ok(Delivered { enough, given })
    }

    /// Moves frames into the buffers of one take, as far as they go.
    fn fill(&self, frames: &mut FrameBatch, mut to: Buffers<'_, '_>, spent: Spent) -> Round {
        let mut round = Round::default();
        // Filling the larger one takes longer than a lone frame.
        let (mut few, mut many);
        let places: &mut [_] = if frames.len() <= FEW {
            few = [None; FEW];
            &mut few
        } else {
            many = [None; BATCH_FRAMES];
            &mut many
        };
        loop {
            self.fill_plain(frames, &mut to, &mut round, places);
            let Some(packet) = frames.first() else { break };
            if !Header::is_none(packet) {
                if self.put_unfinished(frames, &mut to, &mut round, spent) {
                    continue;
                }
                break;
            }
            if let Some(why) = self.refuses(packet) {
                self.counters.add(why as usize, 1);
                frames.pop();
                continue;
            }
            match self.put(packet, &mut to, &mut round, spent) {
                Booked::Done => {}
                Booked::NoRoom => self.counters.add(Rx::NoRoom as usize, 1),
                Booked::Again => continue,
                Booked::Stop => break,
            }
            frames.pop();
        }
        round
    }

    /// Why a finished frame is not for this driver.
    #[inline]
    fn refuses(&self, packet: &[u8]) -> Option<Rx> {
        let frame = packet.get(HEADER_BYTES..).unwrap_or_default();
        if frame.len() > self.plain && !self.settings.fits(frame) {
            Some(Rx::OverMtu)
        } else {
            self.refuses_address(frame)
        }
    }

    /// The same by its address and its VLAN alone.
    #[inline]
    fn refuses_address(&self, frame: &[u8]) -> Option<Rx> {
        let filtered = self
            .filter
            .is_some_and(|filter| !filter.passes(frame, self.features));
        filtered.then_some(Rx::Filtered)
    }
}

/// How many buffers the first packet needs, if all are like the first one.
fn guess(frames: &mut FrameBatch, batch: &Batch) -> usize {
    let each = batch.chain(0).map_or(0, |chain| chain.writable_len());
    let len = frames.first().map_or(0, |packet| packet.len() as u64);
    usize::try_from(len.div_ceil(each.max(1))).unwrap_or(usize::MAX)
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

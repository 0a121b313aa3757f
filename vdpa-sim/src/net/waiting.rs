//! Frames that wait in the port for the driver, as part of the device's state.
//!
//! A device that is moved leaves its port behind, with the frames that its driver has not received for want of buffers.
//! They go along, and are given to the driver before what comes at the new place. What a pair alone has in hand it
//! copies when the device is suspended; it goes on with its own if the device is resumed here.
//!
//! ```text
//!  "wait" | version u16 = 1 | 0 u16 | the rest of the state: bytes u32, and these
//!         | packets u32, each: pair u16, header 10 bytes, segments taken u32, segments u32, length u32, bytes
//! ```
//! All little-endian, and as hostile as the rest. Where nothing waits the rest of the state stands alone. A packet that is
//! to be segmented, and was begun to be, has the number of its segments; others have 0.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::exchange::Exchange;
use super::saved::Rest;
use crate::frames::FrameBatch;
use crate::offload::{self, Header, Segments};
use crate::port::{Lane, Port, Room};
use crate::shared::lock;

const MAGIC: &[u8; 4] = b"wait";
const VERSION: u16 = 1;

/// Bytes of the longest packet: two tags more than what may be left to be segmented.
const LONGEST: usize = offload::LONGEST.saturating_add(8);

/// A packet that waits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Waiting {
    /// The pair that it waits for.
    pair: u16,
    /// What is true of it.
    header: Header,
    /// The next segment and how many there are, if it is being segmented.
    cut: Option<(u32, u32)>,
    frame: Vec<u8>,
}

/// What waits in a port.
pub(super) fn of(port: &dyn Port) -> Vec<Waiting> {
    let mut all = Vec::new();
    port.waiting(&mut |pair, batch| all.extend(packets(pair, batch)));
    all
}

/// What waits for the pairs that it was steered to, of a device in this epoch.
pub(super) fn steered(exchange: Option<&Exchange>, epoch: u64) -> Vec<Waiting> {
    let mut all = Vec::new();
    if let Some(exchange) = exchange {
        exchange.waiting(epoch, &mut |pair, batch| all.extend(packets(pair, batch)));
    }
    all
}

/// Copies of what pairs had in hand when the device was suspended.
#[derive(Default)]
pub(crate) struct Hands(Mutex<BTreeMap<u16, InHand>>);

/// Of one pair, when the device was in this epoch.
pub(super) struct InHand {
    epoch: u64,
    began: Vec<Waiting>,
    sorted: Vec<Waiting>,
    came: Vec<Waiting>,
}

impl InHand {
    pub(super) fn new(epoch: u64) -> Self {
        Self {
            epoch,
            began: Vec::new(),
            sorted: Vec::new(),
            came: Vec::new(),
        }
    }

    /// Steered to the pair, which has begun to give it to the driver.
    pub(super) fn began(&mut self, pair: u16, batch: &FrameBatch) {
        if batch.epoch == self.epoch {
            self.began.extend(packets(pair, batch));
        }
    }

    /// Steered to `pair`, which had no room for it.
    pub(super) fn sorted(&mut self, pair: u16, batch: &FrameBatch) {
        if batch.epoch == self.epoch {
            self.sorted.extend(packets(pair, batch));
        }
    }

    /// Come through the pair's lane.
    pub(super) fn came(&mut self, pair: u16, batch: &FrameBatch) {
        self.came.extend(packets(pair, batch));
    }
}

impl Hands {
    /// What `pair` has in hand, in place of what it had before.
    pub(super) fn put(&self, pair: u16, hand: InHand) {
        lock(&self.0).insert(pair, hand);
    }

    /// What all pairs had, of a device in this epoch: what was begun, what was sorted, and what came.
    pub(super) fn waiting(&self, epoch: u64) -> [Vec<Waiting>; 3] {
        let mut all = [const { Vec::new() }; 3];
        let hands = lock(&self.0);
        for hand in hands.values().filter(|hand| hand.epoch == epoch) {
            for (to, from) in all.iter_mut().zip([&hand.began, &hand.sorted, &hand.came]) {
                to.extend(from.iter().cloned());
            }
        }
        all
    }
}

/// The packets of a batch that waits for a pair.
fn packets(pair: u16, batch: &FrameBatch) -> impl Iterator<Item = Waiting> {
    // The first one alone can be in the middle of it.
    let mut cut = batch.cut();
    batch.packets().map(move |(header, frame)| Waiting {
        pair,
        header,
        cut: cut.take(),
        frame: frame.to_vec(),
    })
}

/// The rest of the state, with what waits.
pub(super) fn pack(rest: Vec<u8>, waiting: &[Waiting]) -> Vec<u8> {
    if waiting.is_empty() {
        return rest;
    }
    // A port holds a bounded number of bounded frames.
    let count = |len: usize| u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes();
    let mut bytes = Vec::new();
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend([0; 2]);
    bytes.extend(count(rest.len()));
    bytes.extend(rest);
    bytes.extend(count(waiting.len()));
    for packet in waiting {
        let (taken, segments) = packet.cut.unwrap_or((0, 0));
        bytes.extend(packet.pair.to_le_bytes());
        bytes.extend(packet.header.to_bytes());
        bytes.extend(taken.to_le_bytes());
        bytes.extend(segments.to_le_bytes());
        bytes.extend(count(packet.frame.len()));
        bytes.extend(&packet.frame);
    }
    bytes
}

/// The rest of the state, and what waits.
///
/// * `pairs`: how many the device may use
///
/// # Errors
/// With what is wrong.
pub(super) fn unpack(from: &[u8], pairs: u16) -> Result<(&[u8], Vec<Waiting>), String> {
    let Some(bytes) = from.strip_prefix(MAGIC) else {
        return Ok((from, Vec::new()));
    };
    let mut rest = Rest(bytes);
    let [low, high, pad @ ..] = rest.take::<4>("version")?;
    let version = u16::from_le_bytes([low, high]);
    if version != VERSION || pad != [0; 2] {
        return Err(format!(
            "its waiting frames are of version {version}, known is {VERSION}"
        ));
    }
    let len = rest.u32("state")?;
    let state = rest.bytes(len, "state")?;
    let count = rest.u32("number of waiting frames")?;
    // However many there are, each is there, so that they take about as much memory as the state. After some moves
    // there may be more than a port holds.
    let mut packets = Vec::new();
    for _ in 0..count {
        packets.push(packet(&mut rest, pairs)?);
    }
    match rest.0.len() {
        0 => Ok((state, packets)),
        left => Err(format!("{left} bytes are left over")),
    }
}

/// A packet, whose header describes it: whoever takes it out believes that.
fn packet(rest: &mut Rest<'_>, pairs: u16) -> Result<Waiting, String> {
    const WHAT: &str = "waiting frames";
    let pair = u16::from_le_bytes(rest.take(WHAT)?);
    if pair >= pairs {
        return Err(format!("a frame waits for pair {pair} of {pairs}"));
    }
    let header = Header::from_bytes(&rest.take(WHAT)?);
    let (taken, segments) = (rest.u32(WHAT)?, rest.u32(WHAT)?);
    let len = rest.u32(WHAT)?;
    if len == 0 || len as usize > LONGEST {
        return Err(format!(
            "a frame of {len} bytes waits: 1 to {LONGEST} are legal"
        ));
    }
    let frame = rest.bytes(len, WHAT)?.to_vec();
    // By everything that a driver may leave undone.
    let header = offload::check(header, &frame, offload::TRANSMIT)
        .map_err(|why| format!("the header of a frame that waits: {why}"))?;
    let cut = match segments {
        0 if taken == 0 => None,
        _ => {
            let own = Segments::new(header, &frame).map_or(0, |segments| segments.count());
            if segments != own || taken >= segments {
                return Err(format!(
                    "of a frame that waits {taken} of {segments} segments are gone, it has {own}"
                ));
            }
            Some((taken, segments))
        }
    };
    Ok(Waiting {
        pair,
        header,
        cut,
        frame,
    })
}

/// Frames that came with the state, until their pairs have given them to the driver.
#[derive(Default)]
pub(crate) struct Stow {
    /// Whether there are some: all that is looked at in the steady state.
    any: AtomicBool,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    /// By the pair that they wait for.
    lines: BTreeMap<u16, Line>,
    /// Of the device when they came: after a reset, or a loss of the link, they are nobody's.
    epoch: u64,
}

/// What waits for a pair, in its order. At most one batch of it is made at a time: a batch takes far more memory than
/// the few bytes that a packet may have in the state.
#[derive(Default)]
struct Line {
    open: Option<Box<FrameBatch>>,
    rest: VecDeque<Waiting>,
    /// Its batch is being given to the driver.
    lent: bool,
}

impl Line {
    /// The batch to go on with.
    fn take(&mut self) -> Option<Box<FrameBatch>> {
        if let Some(batch) = self.open.take() {
            return Some(batch);
        }
        // An empty one has room for any packet.
        let first = self.rest.pop_front()?;
        let mut batch = FrameBatch::new(LONGEST);
        let _room = batch.push_packet(first.header, &first.frame);
        if let Some((next, count)) = first.cut {
            batch.set_cut(next, count);
        }
        // One that is being segmented is the first of its batch.
        while let Some(packet) = self.rest.front().filter(|packet| packet.cut.is_none())
            && batch.push_packet(packet.header, &packet.frame)
        {
            self.rest.pop_front();
        }
        Some(batch)
    }

    fn is_over(&self) -> bool {
        self.open.is_none() && self.rest.is_empty() && !self.lent
    }
}

impl Stow {
    /// Puts packets in, in place of those that are there.
    pub(super) fn put(&self, packets: Vec<Waiting>, epoch: u64) {
        let mut lines: BTreeMap<u16, Line> = BTreeMap::new();
        for packet in packets {
            lines.entry(packet.pair).or_default().rest.push_back(packet);
        }
        let mut held = lock(&self.held);
        let any = !lines.is_empty();
        *held = Held { lines, epoch };
        self.any.store(any, Ordering::Release);
    }

    /// Whether frames may be there for some pair.
    #[inline]
    pub(super) fn is_filled(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// The way to those for `pair` of `active` pairs, of a device in this epoch; `None` if there are none.
    #[cold]
    pub(super) fn lane(&self, pair: u16, active: u16, epoch: u64) -> Option<StowLane<'_>> {
        let mut held = lock(&self.held);
        if held.epoch != epoch {
            held.lines.clear();
        }
        held.lines.retain(|_, line| !line.is_over());
        if held.lines.is_empty() {
            self.any.store(false, Ordering::Release);
        }
        let lane = StowLane {
            stow: self,
            pair,
            active,
            epoch,
        };
        let there = held.lines.keys().any(|of| lane.reads(*of));
        there.then_some(lane)
    }

    /// What waits still. No pair is served meanwhile.
    pub(super) fn waiting(&self, epoch: u64) -> Vec<Waiting> {
        let held = lock(&self.held);
        let lines = held.lines.iter().filter(|_| held.epoch == epoch);
        lines
            .flat_map(|(pair, line)| {
                let open = line.open.iter().flat_map(|batch| packets(*pair, batch));
                open.chain(line.rest.iter().cloned())
            })
            .collect()
    }
}

/// The frames for a pair, as if they came from its port.
pub(super) struct StowLane<'s> {
    stow: &'s Stow,
    pair: u16,
    active: u16,
    epoch: u64,
}

impl StowLane<'_> {
    fn reads(&self, of: u16) -> bool {
        of.checked_rem(self.active).unwrap_or(0) == self.pair
    }

    /// Takes the next batch for the pair, and whose line it is of.
    fn first(&self) -> Option<(u16, Box<FrameBatch>)> {
        let mut held = lock(&self.stow.held);
        let held = &mut *held;
        // Others may have put in others meanwhile.
        let lines = held.lines.iter_mut().filter(|_| held.epoch == self.epoch);
        let mut lines = lines.filter(|(of, line)| self.reads(**of) && !line.lent);
        lines.find_map(|(of, line)| {
            let batch = line.take()?;
            line.lent = true;
            Some((*of, batch))
        })
    }

    /// Puts a batch back, of which something may be left.
    fn back(&self, of: u16, batch: Box<FrameBatch>) {
        let mut held = lock(&self.stow.held);
        if held.epoch != self.epoch {
            return;
        }
        if let Some(line) = held.lines.get_mut(&of) {
            line.lent = false;
            line.open = Some(batch).filter(|batch| !batch.is_empty());
        }
    }
}

impl Lane for StowLane<'_> {
    fn room(&mut self) -> Room {
        Room::Nowhere
    }

    fn send(&mut self, mut batch: Box<FrameBatch>) -> Box<FrameBatch> {
        batch.clear();
        batch
    }

    fn receive(&mut self, take: &mut dyn FnMut(&mut FrameBatch)) -> bool {
        // Without the lock: it takes as long as it takes.
        if let Some((of, mut batch)) = self.first() {
            take(&mut batch);
            self.back(of, batch);
        }
        false
    }

    fn sources(&self) -> Vec<Arc<OwnedFd>> {
        Vec::new()
    }

    fn discard(&mut self) -> u64 {
        let mut frames = 0_u64;
        while let Some((of, mut batch)) = self.first() {
            frames = frames.saturating_add(batch.len() as u64);
            batch.clear();
            self.back(of, batch);
        }
        frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offload::sample;
    use proptest::prelude::*;

    fn plain(pair: u16, frame: Vec<u8>) -> Waiting {
        Waiting {
            pair,
            header: Header::NONE,
            cut: None,
            frame,
        }
    }

    fn some() -> Vec<Waiting> {
        (0..200_u16)
            .map(|i| plain(i % 3, vec![i as u8; 1 + usize::from(i) * 5]))
            .collect()
    }

    #[test]
    fn what_waits_is_taken_out_pair_by_pair_in_its_order() {
        let waiting = some();
        let bytes = pack(b"vnet, say".to_vec(), &waiting);
        let (rest, packets) = unpack(&bytes, 3).unwrap();
        assert_eq!(rest, b"vnet, say");
        assert_eq!(packets, waiting);
        let stow = Stow::default();
        stow.put(packets.clone(), 7);
        let mut ordered = waiting.clone();
        ordered.sort_by_key(|packet| packet.pair);
        assert_eq!(stow.waiting(7), ordered, "pair by pair");
        assert!(stow.waiting(8).is_empty());
        // Two pairs are used by now: pair 2's are pair 0's.
        for pair in 0..2 {
            let mut got = Vec::new();
            while let Some(mut lane) = stow.lane(pair, 2, 7) {
                lane.receive(&mut |batch| {
                    // One at a time, as where buffers are short.
                    got.extend(batch.packets().next().map(|(_, frame)| frame.to_vec()));
                    batch.pop();
                });
            }
            let own = ordered.iter().filter(|packet| packet.pair % 2 == pair);
            let own: Vec<_> = own.map(|packet| packet.frame.clone()).collect();
            assert_eq!(got, own);
        }
        assert!(!stow.is_filled());
        stow.put(packets, 7);
        assert!(stow.lane(0, 2, 8).is_none(), "of another epoch");
        assert!(!stow.is_filled());
    }

    #[test]
    fn a_packet_that_was_begun_to_be_segmented_is_gone_on_with() {
        let packet = sample::TCP4.packet(&sample::payload(1, 5000), 1000);
        let header = Header::from_bytes(&packet.header);
        let header = offload::check(header, &packet.frame, offload::TRANSMIT).unwrap();
        assert!(header.is_gso());
        let cut = Waiting {
            pair: 0,
            header,
            cut: Some((2, 5)),
            frame: packet.frame,
        };
        let waiting = [plain(0, vec![7; 60]), cut.clone(), plain(0, vec![8; 60])];
        let bytes = pack(b"vnet".to_vec(), &waiting);
        let (_, packets) = unpack(&bytes, 1).unwrap();
        assert_eq!(packets, waiting);
        let stow = Stow::default();
        stow.put(packets, 1);
        assert_eq!(stow.waiting(1), waiting);
        let mut seen = Vec::new();
        while let Some(mut lane) = stow.lane(0, 1, 1) {
            lane.receive(&mut |batch| {
                seen.push((batch.cut(), batch.len()));
                batch.clear();
            });
        }
        assert_eq!(seen, [(None, 1), (Some((2, 5)), 2)]);
        let gone = Waiting {
            cut: Some((5, 5)),
            ..cut
        };
        assert!(unpack(&pack(b"vnet".to_vec(), &[gone]), 1).is_err());
    }

    #[test]
    fn what_is_lent_out_while_another_pair_looks_is_there_still() {
        let stow = Stow::default();
        stow.put(vec![plain(1, vec![1; 60]), plain(1, vec![2; 60])], 7);
        let mut lane = stow.lane(1, 2, 7).unwrap();
        lane.receive(&mut |batch| {
            batch.pop();
            assert!(stow.lane(0, 2, 7).is_none());
        });
        assert!(stow.is_filled(), "one is left");
        assert_eq!(stow.waiting(7), [plain(1, vec![2; 60])]);
        let mut lane = stow.lane(1, 2, 7).unwrap();
        lane.receive(&mut |batch| batch.clear());
        assert!(stow.lane(1, 2, 7).is_none() && !stow.is_filled());
    }

    #[test]
    fn many_small_frames_for_pairs_in_turn_take_no_batch_each() {
        let many: Vec<_> = (0..100_000_u32)
            .map(|i| plain((i % 128) as u16, vec![1]))
            .collect();
        let (_, packets) = unpack(&pack(b"x".to_vec(), &many), 128).unwrap();
        let stow = Stow::default();
        stow.put(packets, 7);
        let mut lane = stow.lane(5, 128, 7).unwrap();
        lane.receive(&mut |batch| batch.pop());
        let held = lock(&stow.held);
        let open = held.lines.values().filter(|line| line.open.is_some());
        assert_eq!(open.count(), 1, "a batch of more than 128 KiB");
        drop(held);
        assert_eq!(stow.waiting(7).len(), 99_999);
    }

    #[test]
    fn where_nothing_waits_the_state_is_as_it_was() {
        assert_eq!(pack(b"vnet".to_vec(), &[]), b"vnet");
        assert_eq!(unpack(b"vnet", 1).unwrap(), (&b"vnet"[..], Vec::new()));
    }

    #[test]
    fn what_cannot_wait_is_refused_with_the_numbers() {
        let bytes = pack(b"x".to_vec(), &[plain(1, vec![1; 60])]);
        let why = unpack(&bytes, 1).unwrap_err();
        assert_eq!(why, "a frame waits for pair 1 of 1");
        let long = pack(b"x".to_vec(), &[plain(0, vec![1; LONGEST + 1])]);
        let why = unpack(&long, 1).unwrap_err();
        assert_eq!(why, "a frame of 65598 bytes waits: 1 to 65597 are legal");
        for len in 4..bytes.len() {
            assert!(unpack(&bytes[..len], 2).is_err(), "cut at {len}");
        }
        let long = [&bytes[..], &[0]].concat();
        assert_eq!(unpack(&long, 2).unwrap_err(), "1 bytes are left over");
        let mut beyond = plain(0, vec![1; 60]);
        beyond.header = Header {
            flags: Header::NEEDS_CSUM,
            csum_start: 50,
            csum_offset: 9,
            ..Header::NONE
        };
        let why = unpack(&pack(b"x".to_vec(), &[beyond]), 1).unwrap_err();
        assert!(why.contains("the checksum is not in the frame"), "{why}");
        let mut uncut = plain(0, vec![1; 60]);
        uncut.cut = Some((1, 4));
        let why = unpack(&pack(b"x".to_vec(), &[uncut]), 1).unwrap_err();
        assert!(why.contains("1 of 4 segments are gone, it has 0"), "{why}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_come_out_as_they_went_in(
            bytes in proptest::collection::vec(any::<u8>(), 0..100),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        ) {
            let _refused = unpack(&[&MAGIC[..], &bytes].concat(), 3);
            let mut near = pack(b"vnet".to_vec(), &some());
            for (at, byte) in changes {
                let at = at.index(near.len());
                near[at] = byte;
            }
            if let Ok((rest, packets)) = unpack(&near, 3) {
                // A header may say less than it did.
                let again = pack(rest.to_vec(), &packets);
                prop_assert_eq!(again.len(), near.len());
                let once = unpack(&again, 3);
                prop_assert_eq!(once, Ok((rest, packets)));
            }
        }
    }
}

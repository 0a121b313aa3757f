//! A hostile driver against the device half of a ring.
//!
//! The bytes are what the driver writes, well-formed chains among it, and what the device's owner does in between. What
//! is taken is compared with what a plain reading of the memory finds; an error comes once, for a reason, and stays;
//! what is in flight is known, by the record too, and no call touches more than it may.

mod naive;

use std::collections::VecDeque;

use vdpa_ring::error::Kind;
use vdpa_ring::{
    Batch, ChainRef, ChainToken, DeviceRing, Format, Pos, QueueState, Record, RingError,
    RingFeatures, Used,
};

use crate::Input;
use crate::memory::{Memory, Span, TABLE_BYTES, TABLES};
use naive::{AVAIL, Chain, Descriptor, INDIRECT, NEXT, Next, USED, WRITE};

/// How many steps an input has at most.
const STEPS: usize = 200;

/// The target `driver_split`.
pub fn split(data: &[u8]) {
    run(Format::Split, data);
}

/// The target `driver_packed`.
pub fn packed(data: &[u8]) {
    run(Format::Packed, data);
}

fn run(format: Format, data: &[u8]) {
    let mut input = Input::new(data);
    let Some(mut bench) = Bench::new(format, &mut input) else {
        return;
    };
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        bench.step(&mut input);
    }
    bench.end();
}

/// A chain that the device has.
#[derive(Clone, Debug)]
struct Held {
    token: ChainToken,
    /// As it was taken; `None`: by another device before.
    chain: Option<Chain>,
}

/// What the ring has told of an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Told {
    /// There was none.
    Nothing,
    /// There may be one that it tells next.
    Perhaps,
    /// It has to tell it next.
    Due,
    /// It told it: from here on it is latched.
    All,
}

struct Bench {
    format: Format,
    size: u16,
    features: RingFeatures,
    memory: Memory,
    ring: DeviceRing,
    batch: Batch,
    /// Whether any batch of chains has room.
    roomy: bool,
    record: Option<Record>,
    /// The record holds no more.
    overflown: bool,
    /// Taken and not given back, in their order.
    flight: Vec<Held>,
    /// Those of another life, which are taken again before anything else.
    again: VecDeque<Held>,
    /// Chains at the end of `flight` that are the end of the last batch, and how many the ring lets go of.
    last: usize,
    rewindable: usize,
    /// Chains at the beginning of the last batch that were taken again.
    repeated: usize,
    told: Told,
    /// Where the well-behaved part of the driver goes on.
    shadow: Pos,
    shadow_idx: u16,
}

impl Bench {
    fn new(format: Format, input: &mut Input<'_>) -> Option<Self> {
        let kind = input.u8();
        let size = match format {
            Format::Split => 1 << (input.u8() % 5),
            Format::Packed => 1 + u16::from(input.u8() % 16),
        };
        let features = RingFeatures::from_bits_truncate(kind);
        let memory = Memory::new(format, size);
        let state = (kind & 8 != 0).then(|| state(format, input));
        let tracked = kind & 16 != 0;
        let roomy = kind & 32 == 0;
        let ring = DeviceRing::new(format, size, features, state).ok();
        let Some(ring) = ring else {
            assert!(
                !is_legal(state, size, format),
                "{state:?} of {size} was refused"
            );
            return None;
        };
        assert!(
            state.is_none() || is_legal(state, size, format),
            "{state:?} of {size} was taken"
        );
        let chains = 1 + input.below(20);
        let segments = match roomy {
            true => chains * usize::from(size) * 2,
            false => 1 + input.below(usize::from(size) * 2),
        };
        let mut bench = Self {
            format,
            size,
            features,
            memory,
            ring,
            batch: Batch::new(chains, segments),
            roomy,
            record: None,
            overflown: false,
            flight: Vec::new(),
            again: VecDeque::new(),
            last: 0,
            rewindable: 0,
            repeated: 0,
            told: Told::Nothing,
            shadow: Pos::START,
            shadow_idx: 0,
        };
        match bench.ring.state() {
            QueueState::Packed { avail, .. } => bench.shadow = avail,
            QueueState::Split { avail, .. } => {
                bench.shadow_idx = avail;
                let idx = bench.shadow_idx.to_le_bytes();
                bench.memory.areas.driver.put(2, &idx);
            }
        }
        if tracked {
            bench.track()?;
        }
        // What is in flight by the state was taken by somebody else.
        if let QueueState::Split { used: None, .. } = bench.ring.state() {
            bench.memory.areas.device.put(2, &input.u16().to_le_bytes());
            if !bench.find_used() {
                return None;
            }
        }
        let foreign = |id| Held {
            token: ChainToken::new(id % size, 1),
            chain: None,
        };
        bench.flight = (0..bench.ring.in_flight()).map(foreign).collect();
        Some(bench)
    }

    /// A ring whose state lacks the used index reads it once. Answers whether it fits.
    fn find_used(&mut self) -> bool {
        let QueueState::Split { avail, .. } = self.ring.state() else {
            return true;
        };
        let used = self.memory.areas.device.u16(2);
        let fits = avail.wrapping_sub(used) <= self.size;
        let armed = self.ring.arm(&self.memory.device());
        assert_eq!(
            armed.is_ok(),
            fits,
            "used.idx {used}, avail {avail}: {armed:?}"
        );
        fits
    }

    /// Has a fresh record kept, if nothing is in flight.
    fn track(&mut self) -> Option<()> {
        let memory = &self.memory;
        let (cells, areas) = (memory.watched(&memory.record), memory.ring());
        let state = self.ring.state();
        let opened = Record::open(self.format, self.size, &cells, &areas, Some(state));
        if in_flight(state, &memory.areas.device, self.size) != 0 {
            assert!(opened.is_err(), "a fresh record knows of nothing in flight");
            return None;
        }
        let (record, found) = opened.expect("a record of zeroes is fresh");
        assert!(found.again.is_empty());
        self.ring = DeviceRing::new(self.format, self.size, self.features, Some(found.state))
            .expect("a state of its own");
        self.ring.note(self.batch.capacity());
        self.record = Some(record);
        Some(())
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let what = input.u8();
        match what % 20 {
            0 => {
                let span = self.area(input);
                let at = usize::from(input.u16()) % span.len();
                span.put(at, &input.u16().to_le_bytes());
            }
            1 => {
                let span = self.area(input);
                let at = usize::from(input.u8()) * 8 % span.len();
                let mut words = [0; 16];
                words[..8].copy_from_slice(&input.u64().to_le_bytes());
                words[8..].copy_from_slice(&input.u64().to_le_bytes());
                span.put(at, &words);
            }
            2 => {
                let span = self.area(input);
                let at = usize::from(input.u8()) % span.len();
                let len = input.below(64);
                span.put(at, input.bytes(len));
            }
            3..=7 => self.post(input),
            8 => {
                let idx = match input.flag() {
                    true => input.u16(),
                    false => self.shadow_idx.wrapping_add(u16::from(input.u8() % 4)),
                };
                self.shadow_idx = idx;
                self.memory.areas.driver.put(2, &idx.to_le_bytes());
            }
            9 => self.memory.unmapped.set(match input.flag() {
                true => input.u16().into(),
                false => u64::MAX,
            }),
            10 => {
                let behind = 1 + u32::from(input.u8() % 32);
                let bits = input.u64() << (input.u8() % 64);
                self.memory.watch.flip.set(Some((behind, bits)));
            }
            11..=13 => self.take(input.below(24)),
            14 => self.commit(input),
            15 => self.commit_in_order(input),
            16 => self.rewind(input),
            17 => self.arm(),
            18 => {
                let view = self.memory.device();
                self.ring.disarm(&view);
            }
            _ => self.go_on_elsewhere(),
        }
        assert!(self.ring.in_flight() <= self.size);
        // What begins to flip does so within one step.
        self.memory.watch.flip.set(match what % 20 {
            10 => self.memory.watch.flip.get(),
            _ => None,
        });
    }

    fn area(&self, input: &mut Input<'_>) -> &Span {
        let Memory { areas, tables, .. } = &self.memory;
        input.pick(&[&areas.descriptor, &areas.driver, tables, &areas.device])
    }

    /// A chain as a driver posts it, or nearly so.
    fn post(&mut self, input: &mut Input<'_>) {
        let (shape, bend) = (input.u8(), input.u8());
        let count = 1 + u16::from(shape & 3);
        let writable = u16::from(shape >> 2 & 3);
        let id = u16::from(input.u8()) % self.size;
        let table = shape & 64 != 0;
        let len = if shape & 128 != 0 { u32::MAX } else { 64 };
        let flags = |i: u16| {
            let next = if i + 1 < count { NEXT } else { 0 };
            let write = if i + writable >= count { WRITE } else { 0 };
            next | write
        };
        // One bit of one flags field is wrong, sometimes.
        let bent = |i: u16| match bend & 0x80 != 0 && u16::from(bend & 3) == i {
            true => 1 << (bend >> 2 & 15),
            false => 0,
        };
        let words = |format, addr: u64, len: u32, flags: u16, other: u16| {
            let (a, b) = match format {
                Format::Split => (flags, other),
                Format::Packed => (other, flags),
            };
            let meta = u64::from(len) | u64::from(a) << 32 | u64::from(b) << 48;
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&addr.to_le_bytes());
            bytes[8..].copy_from_slice(&meta.to_le_bytes());
            bytes
        };
        let address = |i: u16| 0x100_0000 + u64::from(i) * 0x1000;
        let at = usize::from(input.u8()) * 16 % TABLE_BYTES;
        let laps = |pos: Pos| if pos.wrap { AVAIL } else { USED };
        if table {
            for i in 0..count {
                let entry = words(self.format, address(i), len, flags(i) ^ bent(i), i + 1);
                self.memory.tables.put(at + usize::from(i) * 16, &entry);
            }
            let to = TABLES + at as u64;
            let bytes = u32::from(count) * 16;
            match self.format {
                Format::Split => {
                    let head = words(self.format, to, bytes, INDIRECT, 0);
                    self.memory
                        .areas
                        .descriptor
                        .put(usize::from(id) * 16, &head);
                    self.show_split(id);
                }
                Format::Packed => {
                    let flags = INDIRECT | laps(self.shadow);
                    let head = words(self.format, to, bytes, flags, id);
                    let place = usize::from(self.shadow.index) * 16;
                    self.memory.areas.descriptor.put(place, &head);
                    self.shadow = self.shadow.advance(1, self.size);
                }
            }
            return;
        }
        let count = count.min(self.size);
        for i in 0..count {
            let (place, flags, other) = match self.format {
                Format::Split => {
                    let slot = |i| (id + i) % self.size;
                    (slot(i), flags(i) ^ bent(i), slot(i + 1))
                }
                Format::Packed => {
                    let pos = self.shadow.advance(i, self.size);
                    (pos.index, flags(i) ^ bent(i) ^ laps(pos), id)
                }
            };
            let flags = match self.format {
                // Cut to what the ring has.
                Format::Split if i + 1 == count => flags & !NEXT,
                Format::Packed if i + 1 == count => flags & !NEXT,
                _ => flags,
            };
            let descriptor = words(self.format, address(i), len, flags, other);
            let span = &self.memory.areas.descriptor;
            span.put(usize::from(place) * 16, &descriptor);
        }
        match self.format {
            Format::Split => self.show_split(id),
            Format::Packed => self.shadow = self.shadow.advance(count, self.size),
        }
    }

    fn show_split(&mut self, head: u16) {
        let driver = &self.memory.areas.driver;
        let slot = usize::from(self.shadow_idx % self.size);
        driver.put(4 + slot * 2, &head.to_le_bytes());
        self.shadow_idx = self.shadow_idx.wrapping_add(1);
        driver.put(2, &self.shadow_idx.to_le_bytes());
    }

    /// Whether what is loaded may change while a call runs.
    fn flips(&self) -> bool {
        self.memory.watch.flip.get().is_some()
    }

    fn take(&mut self, limit: usize) {
        let (flips, before) = (self.flips(), self.ring.state());
        let loads = self.memory.watch.loads.get();
        let view = self.memory.device();
        let taken = self.ring.take(&view, &mut self.batch, limit);
        let loads = self.memory.watch.loads.get() - loads;
        self.last = 0;
        self.rewindable = 0;
        let goal = limit.min(self.batch.capacity());
        assert_eq!(taken.unwrap_or(self.batch.len()), self.batch.len());
        assert!(self.batch.len() <= goal, "{} of {goal}", self.batch.len());
        // A head at most for each slot, and one that is bad, each of no more descriptors than the ring has.
        let heads = goal.min(self.size.into()) as u32 + 1;
        assert!(
            loads <= 4 + heads * (1 + 2 * u32::from(self.size)),
            "{loads} loads"
        );
        match self.told {
            Told::All => {
                assert_eq!(taken, Err(RingError::Latched));
                assert_eq!(self.ring.state(), before);
                return;
            }
            Told::Due => assert!(taken.is_err(), "{taken:?}: the error was not told"),
            Told::Nothing | Told::Perhaps => {}
        }
        match taken {
            Ok(_) => {
                let repeated = self.batch.len().min(self.again.len());
                self.check_batch(flips, before, repeated);
                self.note_taken(repeated);
                self.look_behind(flips, goal);
            }
            Err(RingError::BatchTooSmall { .. }) => {
                assert!(!self.roomy, "room for any chain was too small");
                assert_eq!(self.ring.state(), before);
            }
            Err(error) => {
                assert_eq!(error.kind(), Kind::PeerMisbehaved, "{error}");
                assert_ne!(error, RingError::Latched, "nothing was told before");
                assert_eq!(self.ring.state(), before);
                let due = matches!(self.told, Told::Due | Told::Perhaps);
                // Its table is the driver's, and what it was is in the record alone.
                let recorded = self.format == Format::Packed && !self.again.is_empty();
                if !flips && !due && !recorded {
                    let next = match goal {
                        0 => naive::next(&self.memory, before, self.size, self.features),
                        _ => self.next(before),
                    };
                    assert_eq!(next, Next::Bad, "{error}");
                }
                self.told = Told::All;
            }
        }
    }

    /// What a plain reading finds next.
    fn next(&self, at: QueueState) -> Next {
        match self.again.front() {
            Some(held) => self.next_again(held),
            None => naive::next(&self.memory, at, self.size, self.features),
        }
    }

    fn next_again(&self, held: &Held) -> Next {
        match self.format {
            Format::Split => {
                let id = held.token.id();
                naive::split_chain(&self.memory, id, self.size, self.features)
                    .unwrap_or_else(Next::from)
            }
            // Its descriptors are in the record, its table is the driver's.
            Format::Packed => Next::Empty,
        }
    }

    /// The chains of the batch are those that stand in memory.
    fn check_batch(&self, flips: bool, before: QueueState, repeated: usize) {
        let mut at = before;
        let mut again = self.again.iter();
        for (i, chain) in self.batch.iter().enumerate() {
            self.check_chain(&chain);
            let expected = match i < repeated {
                true => again.next().map(|held| {
                    assert_eq!(held.token, chain.token(), "taken again in another order");
                    self.next_again(held)
                }),
                false => Some(naive::next(&self.memory, at, self.size, self.features)),
            };
            if i >= repeated {
                at = advanced(at, chain.token().slots(), self.size);
            }
            let repeated_packed = i < repeated && self.format == Format::Packed;
            if !flips && !repeated_packed {
                assert_eq!(Some(Next::Chain(copied(&chain))), expected, "chain {i}");
            }
        }
        assert_eq!(self.ring.state(), at);
    }

    /// What holds of any chain, whatever stands in memory.
    fn check_chain(&self, chain: &ChainRef<'_>) {
        let segments = chain.readable().len() + chain.writable().len();
        assert!(segments != 0 && segments <= 2 * usize::from(self.size));
        assert!(chain.readable_len() + chain.writable_len() <= 1 << 32);
        assert!(chain.token().id() < self.size);
        assert!((1..=self.size).contains(&chain.token().slots()));
        if self.format == Format::Split {
            assert_eq!(chain.token().slots(), 1);
        }
    }

    /// The batch is in flight.
    fn note_taken(&mut self, repeated: usize) {
        self.again.drain(..repeated);
        self.repeated = repeated;
        for chain in self.batch.iter() {
            self.flight.push(Held {
                token: chain.token(),
                chain: Some(copied(&chain)),
            });
        }
        self.last = self.batch.len();
        self.rewindable = self.batch.len();
        let taken: u32 = self.flight.iter().map(slots).sum();
        let again: u32 = self.again.iter().map(slots).sum();
        assert_eq!(u32::from(self.ring.in_flight()), taken + again);
        assert_eq!(self.ring.to_repeat(), self.again.len());
        if let Some(record) = &mut self.record {
            let cells = self.memory.watched(&self.memory.record);
            let noted = record.taken(&cells, &self.ring, &self.batch);
            let twice = has_twice(self.flight.iter().chain(&self.again));
            assert_eq!(noted.is_err(), twice || self.overflown, "{noted:?}");
            self.overflown |= noted.is_err();
        }
    }

    /// Why a take ended where it did.
    fn look_behind(&mut self, flips: bool, goal: usize) {
        let next = self.next(self.ring.state());
        self.told = Told::Nothing;
        if flips {
            self.told = Told::Perhaps;
            return;
        }
        if self.batch.len() == goal {
            assert_eq!(self.ring.parked(), None);
            if self.repeated != 0 {
                // What is new was looked at behind what was taken again.
                self.told = Told::Perhaps;
            }
            return;
        }
        let again_packed = self.format == Format::Packed && !self.again.is_empty();
        if again_packed {
            self.told = Told::Perhaps;
            return;
        }
        match next {
            Next::Empty => assert_eq!(self.ring.parked(), None),
            Next::Parked(at) if self.roomy => assert_eq!(self.ring.parked(), Some(at)),
            Next::Parked(_) => {}
            Next::Chain(_) => assert!(!self.roomy, "{next:?} was not taken"),
            Next::Bad => {
                self.told = match self.roomy && !self.batch.is_empty() {
                    true => Told::Due,
                    false => Told::Perhaps,
                };
                assert!(!self.roomy || !self.batch.is_empty(), "taken as empty");
            }
        }
    }

    /// Gives some of what is in flight back, in any order.
    fn commit(&mut self, input: &mut Input<'_>) {
        let count = input.below(8);
        let mut used = Vec::new();
        if count == 7 {
            return self.commit_too_much();
        }
        for _ in 0..count.min(self.flight.len()) {
            let at = input.below(self.flight.len());
            let held = self.flight.remove(at);
            let (len, token) = (input.u8().into(), held.token);
            // Those behind it can still be put back.
            self.last = self.last.min(self.flight.len() - at);
            used.push(Used { token, len });
        }
        let before = self.ring.state();
        let flips = self.flips();
        self.say(&used);
        let stores = self.memory.watch.stores.get();
        let view = self.memory.device();
        let call = self
            .ring
            .commit(&view, &used)
            .expect("all of it is in flight");
        let stores = self.memory.watch.stores.get() - stores;
        assert!(stores as usize <= 2 * used.len() + 1, "{stores} stores");
        self.rewindable = self.rewindable.saturating_sub(used.len());
        self.unsay(&used);
        let slots: u16 = used.iter().map(|used| used.token.slots()).sum();
        let after = given(before, slots, self.size);
        assert_eq!(self.ring.state(), after);
        if used.is_empty() {
            return assert!(!call);
        }
        if flips {
            return;
        }
        self.check_used(before, &used);
        let wants = naive::wants_call(&self.memory, before, after, self.size, self.features);
        assert_eq!(call, wants);
    }

    fn commit_too_much(&mut self) {
        let token = ChainToken::new(0, 1);
        let count = usize::from(self.ring.in_flight()) + 1;
        let used = vec![Used { token, len: 0 }; count];
        let (before, stores) = (self.ring.state(), self.memory.watch.stores.get());
        let view = self.memory.device();
        let done = self.ring.commit(&view, &used);
        assert!(matches!(done, Err(RingError::NotTaken { .. })), "{done:?}");
        assert_eq!(self.ring.state(), before);
        assert_eq!(self.memory.watch.stores.get(), stores);
    }

    fn commit_in_order(&mut self, input: &mut Input<'_>) {
        let count = input.below(8).min(self.flight.len());
        let has = self.features.contains(RingFeatures::IN_ORDER);
        let before = self.ring.state();
        if !has {
            let view = self.memory.device();
            let done = self.ring.commit_in_order(&view, &[]);
            assert_eq!(done, Err(RingError::NotInOrder));
            return assert_eq!(self.ring.state(), before);
        }
        if !self.again.is_empty() {
            return;
        }
        let used: Vec<Used> = self
            .flight
            .drain(..count)
            .map(|held| whole(&held))
            .collect();
        self.last = self.last.min(self.flight.len());
        self.say(&used);
        let flips = self.flips();
        let view = self.memory.device();
        let call = self
            .ring
            .commit_in_order(&view, &used)
            .expect("all of it is in flight");
        self.rewindable = self.rewindable.saturating_sub(used.len());
        self.unsay(&used);
        let slots: u16 = used.iter().map(|used| used.token.slots()).sum();
        let after = given(before, slots, self.size);
        assert_eq!(self.ring.state(), after);
        let Some(last) = used.last() else {
            return assert!(!call);
        };
        if !flips {
            self.check_used(before, &[*last]);
            let wants = naive::wants_call(&self.memory, before, after, self.size, self.features);
            assert_eq!(call, wants);
        }
    }

    /// Tells the record what is about to be given back.
    fn say(&mut self, used: &[Used]) {
        if let Some(record) = &mut self.record {
            let cells = self.memory.watched(&self.memory.record);
            let said = record.committing(&cells, used);
            assert_eq!(said.is_err(), self.overflown, "{said:?}");
        }
    }

    fn unsay(&mut self, used: &[Used]) {
        if let Some(record) = &mut self.record {
            let cells = self.memory.watched(&self.memory.record);
            record.committed(&cells, used);
        }
    }

    /// The used entries stand where they have to.
    fn check_used(&self, before: QueueState, used: &[Used]) {
        match (before, self.ring.state()) {
            (
                QueueState::Split {
                    used: Some(mut at), ..
                },
                QueueState::Split {
                    used: Some(end), ..
                },
            ) => {
                let device = &self.memory.areas.device;
                assert_eq!(device.u16(2), end);
                for used in used {
                    let entry = device.u64(4 + usize::from(at % self.size) * 8);
                    let expected = u64::from(used.token.id()) | u64::from(used.len) << 32;
                    assert_eq!(entry, expected);
                    at = at.wrapping_add(1);
                }
            }
            (QueueState::Packed { used: mut at, .. }, _) => {
                let ring = &self.memory.areas.descriptor;
                for used in used {
                    let words = [0, ring.u64(usize::from(at.index) * 16 + 8)];
                    let found = Descriptor::new(Format::Packed, words);
                    let laps = if at.wrap { AVAIL | USED } else { 0 };
                    let write = if used.len == 0 { 0 } else { WRITE };
                    let expected = (used.token.id(), used.len, laps | write);
                    assert_eq!((found.other, found.len, found.flags), expected);
                    at = at.advance(used.token.slots(), self.size);
                }
            }
            other => unreachable!("{other:?}"),
        }
    }

    fn rewind(&mut self, input: &mut Input<'_>) {
        let most = self.last.min(self.rewindable);
        let before = self.ring.state();
        if input.u8() & 7 == 7 {
            let n = self.rewindable + 1;
            let done = self.ring.rewind(&mut self.batch, n);
            assert!(
                matches!(done, Err(RingError::NotRewindable { .. })),
                "{done:?}"
            );
            return assert_eq!(self.ring.state(), before);
        }
        let n = input.below(most + 1);
        if let Some(record) = &mut self.record {
            let cells = self.memory.watched(&self.memory.record);
            record.rewound(&cells, &self.ring, &self.batch, n);
        }
        self.ring.rewind(&mut self.batch, n).expect("the last ones");
        let kept = self.batch.len();
        let mut back = self.flight.split_off(self.flight.len() - n);
        // Those of another life go back to where they came from.
        let new = back.split_off(self.repeated.saturating_sub(kept).min(n));
        back.into_iter()
            .rev()
            .for_each(|held| self.again.push_front(held));
        let slots: u32 = new.iter().map(slots).sum();
        assert_eq!(
            self.ring.state(),
            retreated(before, slots as u16, self.size)
        );
        assert_eq!(self.ring.to_repeat(), self.again.len());
        self.last -= n;
        self.rewindable -= n;
        self.repeated = self.repeated.min(kept);
        if n != 0 && self.told != Told::All {
            // It is found again behind them.
            self.told = Told::Nothing;
        }
    }

    fn arm(&mut self) {
        let (flips, at) = (self.flips(), self.ring.state());
        let view = self.memory.device();
        let armed = self.ring.arm(&view);
        assert_eq!(self.ring.state(), at);
        match self.told {
            Told::All => assert_eq!(armed, Err(RingError::Latched)),
            Told::Due => assert_eq!(armed, Ok(true), "there is an error to tell"),
            Told::Perhaps => assert!(armed.is_ok()),
            Told::Nothing => {
                let armed = armed.expect("nothing is wrong");
                let waits = self.ring.parked().is_some();
                if !flips && !waits && self.next(at) != Next::Empty {
                    assert!(armed, "there is work");
                }
                if !flips && armed && self.again.is_empty() {
                    // In a split ring any other index, in a packed one a descriptor that is available.
                    assert!(naive::next(&self.memory, at, self.size, self.features) != Next::Empty);
                }
            }
        }
    }

    /// The device ends, and another one goes on by its state or record.
    fn go_on_elsewhere(&mut self) {
        if self.told == Told::All || self.overflown || self.flips() {
            return;
        }
        let state = self.ring.state();
        let fresh = |state| DeviceRing::new(self.format, self.size, self.features, Some(state));
        if self.record.is_none() {
            self.ring = fresh(state).expect("a state of its own");
        } else {
            let memory = &self.memory;
            let shown = memory.areas.device.u16(2);
            if let QueueState::Split { used, .. } = state
                && used != Some(shown)
            {
                // The driver wrote over the used index.
                return;
            }
            let (cells, areas) = (memory.watched(&memory.record), memory.ring());
            let opened = Record::open(self.format, self.size, &cells, &areas, None);
            let (record, found) = opened.expect("a record of its own");
            self.again = self.flight.drain(..).chain(self.again.drain(..)).collect();
            assert_eq!(found.state, state);
            assert_eq!(found.again.len(), self.again.len());
            self.ring = fresh(found.state).expect("a state of its own");
            self.ring.note(self.batch.capacity());
            self.ring.resubmit(found.again);
            self.record = Some(record);
        }
        self.batch.clear();
        (self.last, self.rewindable, self.repeated) = (0, 0, 0);
        self.told = Told::Nothing;
    }

    /// Whatever happened: what is in flight can be given back, and a fresh ring in this memory works.
    fn end(mut self) {
        self.memory.watch.flip.set(None);
        let Memory { areas, .. } = &self.memory;
        for span in [&areas.descriptor, &areas.driver, &areas.device] {
            span.clear();
        }
        let features = self.features - RingFeatures::EVENT_IDX;
        self.ring = DeviceRing::new(self.format, self.size, features, None).expect("a fresh ring");
        self.features = features;
        self.record = None;
        (self.shadow, self.shadow_idx) = (Pos::START, 0);
        self.post(&mut Input::new(&[4, 0, 0, 0]));
        let view = self.memory.device();
        let taken = self.ring.take(&view, &mut self.batch, usize::MAX);
        assert_eq!(taken, Ok(1));
        let token = self.batch.chain(0).expect("one was taken").token();
        let call = self.ring.commit(&view, &[Used { token, len: 64 }]);
        assert_eq!(call, Ok(true));
    }
}

fn slots(held: &Held) -> u32 {
    held.token.slots().into()
}

fn has_twice<'h>(held: impl Iterator<Item = &'h Held>) -> bool {
    let mut ids: Vec<u16> = held.map(|held| held.token.id()).collect();
    ids.sort_unstable();
    ids.windows(2).any(|pair| pair[0] == pair[1])
}

/// Used completely.
fn whole(held: &Held) -> Used {
    let bytes = held.chain.iter().flat_map(|chain| &chain.writable);
    let len = bytes.map(|segment| u64::from(segment.len)).sum::<u64>();
    let len = len.min(u32::MAX.into()) as u32;
    let token = held.token;
    Used { token, len }
}

fn copied(chain: &ChainRef<'_>) -> Chain {
    Chain {
        id: chain.token().id(),
        slots: chain.token().slots(),
        readable: chain.readable().to_vec(),
        writable: chain.writable().to_vec(),
    }
}

/// Any state.
fn state(format: Format, input: &mut Input<'_>) -> QueueState {
    let kind = input.u8();
    let (a, b) = (input.u16(), input.u16());
    // Near to each other more often than not.
    let b = if kind & 1 == 0 {
        a.wrapping_sub(b & 7)
    } else {
        b
    };
    if (format == Format::Split) == (kind & 14 != 14) {
        let used = (kind & 16 == 0).then_some(b);
        return QueueState::Split { avail: a, used };
    }
    let small = if kind & 32 == 0 { 0x800f } else { 0xffff };
    QueueState::Packed {
        avail: Pos::from_bits(a & small),
        used: Pos::from_bits(b & small),
    }
}

/// Whether a ring can stand there.
fn is_legal(state: Option<QueueState>, size: u16, format: Format) -> bool {
    match (format, state) {
        (_, None) => true,
        (Format::Split, Some(QueueState::Split { avail, used })) => {
            used.is_none_or(|used| avail.wrapping_sub(used) <= size)
        }
        (Format::Packed, Some(QueueState::Packed { avail, used })) => {
            let inside = avail.index < size && used.index < size;
            inside && (0..=size).any(|by| used.advance(by, size) == avail)
        }
        _ => false,
    }
}

fn in_flight(state: QueueState, device: &Span, size: u16) -> u16 {
    match state {
        QueueState::Split { avail, used } => {
            avail.wrapping_sub(used.unwrap_or_else(|| device.u16(2)))
        }
        QueueState::Packed { avail, used } => avail.since(used, size).unwrap_or(size),
    }
}

/// Where a ring stands after a chain was taken.
fn advanced(state: QueueState, slots: u16, size: u16) -> QueueState {
    match state {
        QueueState::Split { avail, used } => QueueState::Split {
            avail: avail.wrapping_add(1),
            used,
        },
        QueueState::Packed { avail, used } => QueueState::Packed {
            avail: avail.advance(slots, size),
            used,
        },
    }
}

/// Where it stands after new chains were put back.
fn retreated(state: QueueState, slots: u16, size: u16) -> QueueState {
    match state {
        QueueState::Split { avail, used } => QueueState::Split {
            avail: avail.wrapping_sub(slots),
            used,
        },
        QueueState::Packed { avail, used } => QueueState::Packed {
            avail: avail.retreat(slots, size),
            used,
        },
    }
}

/// Where it stands after chains were given back.
fn given(state: QueueState, slots: u16, size: u16) -> QueueState {
    match state {
        QueueState::Split { avail, used } => QueueState::Split {
            avail,
            used: used.map(|used| used.wrapping_add(slots)),
        },
        QueueState::Packed { avail, used } => QueueState::Packed {
            avail,
            used: used.advance(slots, size),
        },
    }
}

//! A hostile device against the driver half of a ring.
//!
//! The bytes are what the driver does, and what the device writes: used entries that are due among others, flags, event
//! words. A model knows what is in flight: what comes back is of it, once, with a length that it can have; an error is
//! told once, with a reason that is true, and stays; what was added stands in the ring as it was added.

use vdpa_mem::Iova;
use vdpa_ring::error::Kind;
use vdpa_ring::{
    AddError, Completion, DriverMem, DriverRing, Format, Pos, QueueState, RingError, RingFeatures,
    Segment, Tables,
};

use crate::Input;
use crate::memory::{Memory, TABLES, Watched};

/// How many steps an input has at most.
const STEPS: usize = 200;
/// Entries of an indirect table.
const ENTRIES: u16 = 4;

/// The target `device_split`.
pub fn split(data: &[u8]) {
    run(Format::Split, data);
}

/// The target `device_packed`.
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

/// A chain that the driver has added and not got back.
#[derive(Clone, Copy, Debug)]
struct Added {
    id: u16,
    slots: u16,
    writable: u32,
    shown: bool,
}

struct Bench {
    format: Format,
    size: u16,
    features: RingFeatures,
    memory: Memory,
    ring: DriverRing,
    tables: bool,
    /// In the order added.
    flight: Vec<Added>,
    latched: bool,
    /// It may tell of an error next, which it found behind what was good.
    pending: bool,
    /// Where a well-behaved device goes on.
    used: Pos,
    used_idx: u16,
}

impl Bench {
    fn new(format: Format, input: &mut Input<'_>) -> Option<Self> {
        let kind = input.u8();
        let size = match format {
            Format::Split => 1 << (input.u8() % 4),
            Format::Packed => 1 + u16::from(input.u8() % 8),
        };
        let features = RingFeatures::from_bits_truncate(kind);
        let at = input.u16();
        let state = (kind & 8 != 0).then(|| match format {
            Format::Split => QueueState::Split {
                avail: at,
                used: (kind & 16 == 0).then_some(at),
            },
            Format::Packed => QueueState::Packed {
                avail: Pos::from_bits(at & 0x8007),
                used: Pos::from_bits(at & 0x8007),
            },
        });
        let ring = DriverRing::new(format, size, features, state);
        let fits = !matches!(state, Some(QueueState::Packed { avail, .. }) if avail.index >= size);
        assert_eq!(ring.is_ok(), fits, "{state:?} of {size}");
        let ring = ring.ok()?;
        let memory = Memory::new(format, size);
        let (mut used, mut used_idx) = (Pos::START, 0);
        match ring.state() {
            QueueState::Packed { used: at, .. } => {
                used = at;
                // The lap before: nothing is used.
                let flags: u16 = if at.wrap { 0 } else { AVAIL | USED };
                for slot in 0..size {
                    let before = if slot < at.index {
                        flags ^ (AVAIL | USED)
                    } else {
                        flags
                    };
                    let place = usize::from(slot) * 16 + 14;
                    memory.areas.descriptor.put(place, &before.to_le_bytes());
                }
            }
            QueueState::Split { avail, .. } => {
                used_idx = avail;
                memory.areas.device.put(2, &avail.to_le_bytes());
            }
        }
        Some(Self {
            format,
            size,
            features,
            memory,
            ring,
            tables: kind & 32 != 0,
            flight: Vec::new(),
            latched: false,
            pending: false,
            used,
            used_idx,
        })
    }

    fn view(memory: &Memory, tables: bool) -> DriverMem<Watched<'_>> {
        DriverMem {
            areas: memory.ring(),
            tables: tables.then(|| Tables {
                memory: memory.watched(&memory.tables),
                base: Iova::new(TABLES),
                entries: ENTRIES,
            }),
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.u8() % 14 {
            0..=2 => self.add(input),
            3 => self.publish(),
            4 | 5 => self.take_used(input.below(12)),
            6 => {
                let mem = Self::view(&self.memory, self.tables);
                let armed = self.ring.arm(&mem);
                assert!(!self.latched || !armed, "nothing comes of a latched ring");
            }
            7 => {
                let mem = Self::view(&self.memory, self.tables);
                self.ring.disarm(&mem);
            }
            // What a device does, or nearly so.
            8..=10 => self.give_back(input),
            11 => {
                let areas = &self.memory.areas;
                let span = input.pick(&[&areas.device, &areas.descriptor]);
                let at = usize::from(input.u8()) * 2 % span.len();
                span.put(at, &input.u16().to_le_bytes());
            }
            12 => {
                let areas = &self.memory.areas;
                let span = input.pick(&[&areas.device, &areas.descriptor, &areas.driver]);
                let at = usize::from(input.u8()) % span.len();
                let len = input.below(24);
                span.put(at, input.bytes(len));
            }
            _ => {
                let behind = 1 + u32::from(input.u8() % 16);
                let bits = u64::from(input.u16()) << (input.u8() % 64);
                self.memory.watch.flip.set(Some((behind, bits)));
                self.take_used(input.below(12));
                self.memory.watch.flip.set(None);
            }
        }
        let in_flight: u16 = self.flight.iter().map(|chain| chain.slots).sum();
        assert_eq!(self.ring.free(), self.size - in_flight);
        assert_eq!(usize::from(self.ring.in_flight()), self.flight.len());
    }

    fn add(&mut self, input: &mut Input<'_>) {
        let shape = input.u8();
        let segment = |i: usize| Segment {
            addr: Iova::new(0x10_0000 * (i as u64 + 1)),
            len: if shape & 0x80 == 0 { 16 } else { 1 << 30 },
        };
        let [readable, writable] = [shape & 7, shape >> 3 & 7].map(usize::from);
        let all: Vec<Segment> = (0..readable + writable).map(segment).collect();
        let (reads, writes) = all.split_at(readable);
        let before = (self.ring.state(), self.ring.free());
        let stores = self.memory.watch.stores.get();
        let mem = Self::view(&self.memory, self.tables);
        let added = self.ring.add(&mem, reads, writes);
        let bytes: u64 = all.iter().map(|segment| u64::from(segment.len)).sum();
        let indirect = self.tables
            && self.features.contains(RingFeatures::INDIRECT_DESC)
            && all.len() > 1
            && all.len() <= usize::from(ENTRIES);
        let needed = if indirect { 1 } else { all.len() };
        let id = match added {
            Ok(id) => id,
            Err(refused) => {
                let why = match refused {
                    AddError::Latched => self.latched || self.pending,
                    AddError::Empty => all.is_empty(),
                    AddError::TooLong { .. } => all.len() > usize::from(self.size),
                    AddError::TooLarge { .. } => bytes > 1 << 32,
                    AddError::Full { .. } => needed > usize::from(self.ring.free()),
                    _ => false,
                };
                assert!(why, "{refused}");
                assert_eq!((self.ring.state(), self.ring.free()), before);
                return assert_eq!(self.memory.watch.stores.get(), stores);
            }
        };
        assert!(!self.latched && needed <= usize::from(before.1) && bytes <= 1 << 32);
        assert!(id < self.size && self.flight.iter().all(|chain| chain.id != id));
        assert_eq!(self.ring.state(), before.0, "it is not shown yet");
        let written: u64 = writes.iter().map(|segment| u64::from(segment.len)).sum();
        self.flight.push(Added {
            id,
            slots: needed as u16,
            writable: written.min(u32::MAX.into()) as u32,
            shown: false,
        });
    }

    fn publish(&mut self) {
        let before = self.ring.state();
        let mem = Self::view(&self.memory, self.tables);
        let kick = self.ring.publish(&mem);
        let new = self.flight.iter().filter(|chain| !chain.shown);
        let (count, slots) = new.fold((0, 0), |(n, slots), chain| (n + 1, slots + chain.slots));
        let after = match before {
            QueueState::Split { avail, used } => QueueState::Split {
                avail: avail.wrapping_add(count),
                used,
            },
            QueueState::Packed { avail, used } => QueueState::Packed {
                avail: avail.advance(slots, self.size),
                used,
            },
        };
        assert_eq!(self.ring.state(), after);
        self.flight.iter_mut().for_each(|chain| chain.shown = true);
        if count == 0 {
            return assert!(!kick, "nothing was shown");
        }
        assert_eq!(kick, self.wants_kick(before, after));
        if let QueueState::Split { avail, .. } = after {
            assert_eq!(self.memory.areas.driver.u16(2), avail);
        }
    }

    /// Whether the device wants to be kicked for what was shown between two states.
    fn wants_kick(&self, before: QueueState, after: QueueState) -> bool {
        let event_idx = self.features.contains(RingFeatures::EVENT_IDX);
        let device = &self.memory.areas.device;
        match (before, after) {
            (QueueState::Split { avail: old, .. }, QueueState::Split { avail: new, .. }) => {
                if !event_idx {
                    return device.u16(0) & 1 == 0;
                }
                let event = device.u16(4 + usize::from(self.size) * 8);
                (0..new.wrapping_sub(old)).any(|by| old.wrapping_add(by) == event)
            }
            (QueueState::Packed { avail: old, .. }, QueueState::Packed { avail: new, .. }) => {
                match device.u16(2) & 3 {
                    1 => false,
                    2 if event_idx => {
                        let event = Pos::from_bits(device.u16(0));
                        let slots = new.since(old, self.size).unwrap_or(0);
                        // A whole lap ends where it began, one lap on.
                        event.index >= self.size
                            || (0..slots).any(|by| old.advance(by, self.size) == event)
                    }
                    _ => true,
                }
            }
            _ => unreachable!("two formats in one ring"),
        }
    }

    fn take_used(&mut self, room: usize) {
        let flips = self.memory.watch.flip.get().is_some();
        let before = self.ring.state();
        let loads = self.memory.watch.loads.get();
        let mut out = [Completion::default(); 12];
        let out = &mut out[..room];
        let mem = Self::view(&self.memory, self.tables);
        let taken = self.ring.take_used(&mem, out);
        let loads = self.memory.watch.loads.get() - loads;
        assert!(
            loads as usize <= 1 + 2 * (room + 1),
            "{loads} loads for {room}"
        );
        match taken {
            Ok(count) => {
                assert!(!self.latched && count <= room);
                let (came, _) = out.split_at(count);
                self.check_taken(came, flips, before);
                // What is bad behind them is told next.
                self.pending = count != 0;
            }
            Err(RingError::Latched) => assert!(self.latched),
            Err(error) => {
                assert!(!self.latched, "an error came twice");
                assert_eq!(error.kind(), Kind::PeerMisbehaved);
                if !flips && !self.pending {
                    self.check_error(error);
                }
                self.latched = true;
                self.pending = false;
                assert_eq!(self.ring.state(), before);
            }
        }
    }

    /// What came back was in flight and shown, and can be that long.
    fn check_taken(&mut self, came: &[Completion], flips: bool, before: QueueState) {
        let in_order = self.features.contains(RingFeatures::IN_ORDER);
        let (mut slots, mut at) = (0, before);
        for (i, done) in came.iter().enumerate() {
            let place = self.flight.iter().position(|chain| chain.id == done.id);
            let place = place.expect("it was in flight");
            let chain = self.flight.remove(place);
            assert!(chain.shown, "it was not shown");
            assert!(done.len <= chain.writable, "{done:?} of {chain:?}");
            assert!(!in_order || place == 0, "not in order");
            if !flips && !in_order {
                // As the entry says.
                let (id, len) = self.entry(at);
                assert_eq!(id, u32::from(done.id), "entry {i}");
                let told = if self.format == Format::Packed && len > chain.writable {
                    0
                } else {
                    len
                };
                assert_eq!(told, done.len, "entry {i}");
            }
            slots += chain.slots;
            at = self.passed(before, (i + 1) as u16, slots);
        }
        assert_eq!(self.ring.state(), at);
    }

    /// Where the ring stands after so many chains came back.
    fn passed(&self, before: QueueState, chains: u16, slots: u16) -> QueueState {
        match before {
            QueueState::Split { avail, used } => QueueState::Split {
                avail,
                used: used.map(|used| used.wrapping_add(chains)),
            },
            QueueState::Packed { avail, used } => QueueState::Packed {
                avail,
                used: used.advance(slots, self.size),
            },
        }
    }

    /// Id and length of the used entry where the ring stands.
    fn entry(&self, at: QueueState) -> (u32, u32) {
        match at {
            QueueState::Split { used, .. } => {
                let slot = usize::from(used.unwrap_or(0) % self.size);
                let entry = self.memory.areas.device.u64(4 + slot * 8);
                (entry as u32, (entry >> 32) as u32)
            }
            QueueState::Packed { used, .. } => {
                let meta = self
                    .memory
                    .areas
                    .descriptor
                    .u64(usize::from(used.index) * 16 + 8);
                ((meta >> 32) as u16 as u32, meta as u32)
            }
        }
    }

    /// The reason is true.
    fn check_error(&self, error: RingError) {
        let at = self.ring.state();
        let (id, len) = self.entry(at);
        let chain = self.flight.iter().find(|chain| u32::from(chain.id) == id);
        let shown = self.flight.iter().filter(|chain| chain.shown).count() as u16;
        match error {
            RingError::UsedJump {
                from,
                to,
                in_flight,
            } => {
                assert_eq!(in_flight, shown);
                assert_eq!(self.memory.areas.device.u16(2), to);
                assert!(to.wrapping_sub(from) > in_flight);
            }
            RingError::UsedIdOutOfRange { id: told, .. } => {
                assert!(told == id && id >= u32::from(self.size));
            }
            RingError::UsedNotInFlight { id: told, .. } => {
                assert_eq!(u32::from(told), id);
                let in_order = self.features.contains(RingFeatures::IN_ORDER);
                assert!(in_order || chain.is_none_or(|chain| !chain.shown));
            }
            RingError::UsedTooLong {
                id: told,
                len: long,
                writable,
            } => {
                assert_eq!((u32::from(told), long), (id, len));
                assert_eq!(chain.map(|chain| chain.writable), Some(writable));
                assert!(long > writable);
            }
            other => panic!("{other}"),
        }
    }

    /// Gives a chain back as a device does, with something wrong now and then.
    fn give_back(&mut self, input: &mut Input<'_>) {
        let (which, bend) = (input.below(8), input.u8());
        let shown: Vec<Added> = self
            .flight
            .iter()
            .filter(|chain| chain.shown)
            .copied()
            .collect();
        let chain = shown.get(which.min(shown.len().saturating_sub(1)));
        let chain = chain.copied().unwrap_or(Added {
            id: which as u16,
            slots: 1,
            writable: 0,
            shown: false,
        });
        let len = match bend & 3 {
            0 => chain.writable,
            1 => 0,
            2 => chain.writable / 2,
            _ => chain.writable.wrapping_add(input.u32()),
        };
        let id = match bend >> 2 & 7 {
            7 => input.u16(),
            _ => chain.id,
        };
        match self.format {
            Format::Split => {
                let device = &self.memory.areas.device;
                let at = 4 + usize::from(self.used_idx % self.size) * 8;
                device.put(at, &u32::from(id).to_le_bytes());
                device.put(at + 4, &len.to_le_bytes());
                self.used_idx = self.used_idx.wrapping_add(1);
                device.put(2, &self.used_idx.to_le_bytes());
            }
            Format::Packed => {
                let place = usize::from(self.used.index) * 16 + 8;
                let write = if bend & 32 == 0 { 2 } else { 0 };
                let flags = write | if self.used.wrap { AVAIL | USED } else { 0 };
                let meta = u64::from(len) | u64::from(id) << 32 | u64::from(flags) << 48;
                self.memory.areas.descriptor.put(place, &meta.to_le_bytes());
                let slots = match bend & 0xc0 {
                    0xc0 => 1,
                    _ => chain.slots,
                };
                self.used = self.used.advance(slots, self.size);
            }
        }
    }

    /// Whatever happened, a fresh ring in this memory works.
    fn end(self) {
        let Memory { areas, .. } = &self.memory;
        for span in [&areas.descriptor, &areas.driver, &areas.device] {
            span.clear();
        }
        let features = self.features - RingFeatures::EVENT_IDX;
        let ring = DriverRing::new(self.format, self.size, features, None);
        let mut bench = Self {
            ring: ring.expect("a fresh ring"),
            features,
            flight: Vec::new(),
            latched: false,
            pending: false,
            used: Pos::START,
            used_idx: 0,
            ..self
        };
        bench.add(&mut Input::new(&[8]));
        bench.publish();
        bench.give_back(&mut Input::new(&[]));
        bench.take_used(2);
        assert!(
            !bench.latched && bench.flight.is_empty(),
            "a good chain did not come back"
        );
    }
}

const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;

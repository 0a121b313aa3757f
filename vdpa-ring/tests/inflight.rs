//! A device that dies at any of its stores loses nothing, gives nothing back twice, and keeps the order.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};

#[cfg(not(miri))]
use proptest::prelude::*;
use vdpa_mem::{Bytes, Fault, Iova, Region};
use vdpa_ring::{
    Areas, Batch, Completion, DeviceMem, DeviceRing, DriverMem, DriverRing, Format, Placement, Pos,
    QueueState, Record, RecordError, Recovered, RingError, RingFeatures, RingMem, Segment, Tables,
    Used, area_sizes, layout, record_bytes,
};

const BASE: u64 = 0x10_0000;

/// Cells whose stores end with the life of whoever stores.
#[derive(Clone, Copy)]
struct Mortal<'r> {
    bytes: Bytes<'r>,
    /// Stores left.
    life: &'r Cell<u32>,
}

macro_rules! mortal {
    ($load:ident, $store:ident, $int:ty) => {
        fn $load(&self, at: u32) -> $int {
            self.bytes.$load(at)
        }
        fn $store(&self, at: u32, value: $int) {
            if self.life.get() != 0 {
                self.life.set(self.life.get() - 1);
                self.bytes.$store(at, value);
            }
        }
    };
}

impl RingMem for Mortal<'_> {
    mortal!(load_u16, store_u16, u16);
    mortal!(load_u32, store_u32, u32);
    mortal!(load_u64, store_u64, u64);
    fn acquire(&self) {}
    fn release(&self) {}
    fn full(&self) {}
}

/// A queue's memory and its record's.
struct Rig {
    region: Region,
    format: Format,
    size: u16,
    at: Placement,
    record: u32,
    life: Cell<u32>,
}

struct Side<'r> {
    areas: Areas<Mortal<'r>>,
    region: &'r Region,
}

impl<'r> DeviceMem for Side<'r> {
    type Ring = Mortal<'r>;
    fn areas(&self) -> &Areas<Mortal<'r>> {
        &self.areas
    }
    fn table(&self, at: Iova, to: &mut [[u64; 2]]) -> Result<(), Fault> {
        let from = at.get().checked_sub(BASE).ok_or(Fault::Denied)? as usize;
        let bytes = self.region.bytes();
        let span = bytes.slice(from, to.len() * 16).ok_or(Fault::Denied)?;
        for (entry, i) in to.iter_mut().zip(0u32..) {
            *entry = [span.load_u64(i * 16), span.load_u64(i * 16 + 8)];
        }
        Ok(())
    }
}

const IMMORTAL: u32 = u32::MAX;
const TABLE: u16 = 4;

impl Rig {
    fn new(format: Format, size: u16) -> Self {
        let at = area_sizes(format, size, true).placed();
        let tables = u32::from(size) * u32::from(TABLE) * 16;
        let record = at.bytes + tables;
        let bytes = record + record_bytes(format, size);
        Self {
            region: Region::anonymous(bytes.into()).unwrap(),
            format,
            size,
            at,
            record,
            life: Cell::new(IMMORTAL),
        }
    }

    fn areas(&self) -> Areas<Bytes<'_>> {
        let sizes = area_sizes(self.format, self.size, true);
        let of = |at: u32, area: vdpa_ring::Area| {
            let bytes = self.region.bytes();
            bytes.slice(at as usize, area.bytes as usize).unwrap()
        };
        Areas {
            descriptor: of(self.at.descriptor, sizes.descriptor),
            driver: of(self.at.driver, sizes.driver),
            device: of(self.at.device, sizes.device),
        }
    }

    fn mortal<'r>(&'r self, bytes: Bytes<'r>) -> Mortal<'r> {
        let life = &self.life;
        Mortal { bytes, life }
    }

    fn device(&self) -> Side<'_> {
        let areas = self.areas();
        Side {
            areas: Areas {
                descriptor: self.mortal(areas.descriptor),
                driver: self.mortal(areas.driver),
                device: self.mortal(areas.device),
            },
            region: &self.region,
        }
    }

    fn driver(&self) -> DriverMem<Bytes<'_>> {
        let len = usize::from(self.size) * usize::from(TABLE) * 16;
        let bytes = self.region.bytes();
        DriverMem {
            areas: self.areas(),
            tables: Some(Tables {
                memory: bytes.slice(self.at.bytes as usize, len).unwrap(),
                base: Iova::new(BASE + u64::from(self.at.bytes)),
                entries: TABLE,
            }),
        }
    }

    fn cells(&self) -> Bytes<'_> {
        let len = record_bytes(self.format, self.size) as usize;
        let bytes = self.region.bytes();
        bytes.slice(self.record as usize, len).unwrap()
    }

    fn open(&self, state: Option<QueueState>) -> Result<(Record, Recovered), RecordError> {
        let cells = self.mortal(self.cells());
        Record::open(self.format, self.size, &cells, &self.device().areas, state)
    }
}

/// A device that keeps a record.
struct Device {
    ring: DeviceRing,
    record: Record,
    batch: Batch,
    /// Taken, not given back: what it knows of each.
    taken: VecDeque<(u64, Used)>,
}

impl Device {
    fn new(rig: &Rig, features: RingFeatures, state: Option<QueueState>) -> Self {
        let (record, Recovered { state, again }) = rig.open(state).unwrap();
        let mut ring = DeviceRing::new(rig.format, rig.size, features, Some(state)).unwrap();
        ring.note(usize::from(rig.size));
        ring.resubmit(again);
        Self {
            ring,
            record,
            batch: Batch::new(usize::from(rig.size), usize::from(rig.size) * 2),
            taken: VecDeque::new(),
        }
    }

    /// Takes chains and gives the last `rewind` back untouched. Answers with their tags and shapes.
    fn take(&mut self, rig: &Rig, limit: usize, rewind: usize) -> Vec<(u64, Shape)> {
        let mem = rig.device();
        let cells = rig.mortal(rig.cells());
        let taken = self.ring.take(&mem, &mut self.batch, limit).unwrap();
        self.record.taken(&cells, &self.ring, &self.batch).unwrap();
        let n = rewind.min(taken);
        self.record.rewound(&cells, &self.ring, &self.batch, n);
        self.ring.rewind(&mut self.batch, n).unwrap();
        let mut all = Vec::new();
        for chain in self.batch.iter() {
            let shape = Shape {
                readable: chain.readable().to_vec(),
                writable: chain.writable().to_vec(),
            };
            let (token, len) = (chain.token(), chain.writable_len() as u32);
            self.taken.push_back((shape.tag(), Used { token, len }));
            all.push((shape.tag(), shape));
        }
        all
    }

    fn give_back(&mut self, rig: &Rig, n: usize, in_order: bool, pick: u64) {
        let mem = rig.device();
        let cells = rig.mortal(rig.cells());
        let mut used = Vec::new();
        for turn in 0..n {
            let of = self.taken.len();
            if of == 0 {
                break;
            }
            let place = match in_order {
                true => 0,
                false => (pick as usize + turn * 3) % of,
            };
            used.push(self.taken.remove(place).unwrap().1);
        }
        self.record.committing(&cells, &used).unwrap();
        if in_order && pick.is_multiple_of(2) {
            self.ring.commit_in_order(&mem, &used).unwrap();
        } else {
            self.ring.commit(&mem, &used).unwrap();
        }
        self.record.committed(&cells, &used);
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Shape {
    readable: Vec<Segment>,
    writable: Vec<Segment>,
}

impl Shape {
    fn tag(&self) -> u64 {
        let first = self.readable.first().or(self.writable.first());
        first.unwrap().addr.get()
    }
}

/// A driver that knows what it has out.
struct Driver {
    ring: DriverRing,
    /// By id: tag and shape.
    out: BTreeMap<u16, (u64, Shape)>,
    next: u64,
    back: u64,
}

impl Driver {
    fn new(rig: &Rig, features: RingFeatures) -> Self {
        Self {
            ring: DriverRing::new(rig.format, rig.size, features, None).unwrap(),
            out: BTreeMap::new(),
            next: 0,
            back: 0,
        }
    }

    fn add(&mut self, rig: &Rig, n: usize, random: u64) {
        for i in 0..n as u64 {
            let tag = 1000 + self.next;
            let segments = |count: u64, from: u64| -> Vec<Segment> {
                let one = |i| Segment {
                    addr: Iova::new(if from + i == 0 { tag } else { random % 97 + i }),
                    len: (tag % 7 + i) as u32,
                };
                (0..count).map(one).collect()
            };
            let (r, w) = [(1, 0), (0, 1), (1, 1), (2, 1)][((random >> 3) + i) as usize % 4];
            let shape = Shape {
                readable: segments(r, 0),
                writable: segments(w, r),
            };
            let added = self
                .ring
                .add(&rig.driver(), &shape.readable, &shape.writable);
            let Ok(id) = added else { break };
            self.next += 1;
            assert!(self.out.insert(id, (tag, shape)).is_none());
        }
        self.ring.publish(&rig.driver());
    }

    fn reap(&mut self, rig: &Rig) -> usize {
        let mut done = [Completion::default(); 64];
        let n = self.ring.take_used(&rig.driver(), &mut done).unwrap();
        for done in &done[..n] {
            self.out.remove(&done.id).expect("it comes back once");
            self.back += 1;
        }
        n
    }
}

/// A generator that is the same in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 8
    }
}

#[derive(Clone, Copy, Debug)]
struct Case {
    format: Format,
    size: u16,
    in_order: bool,
    indirect: bool,
}

fn cases() -> impl Iterator<Item = Case> {
    let all = [
        (Format::Split, 8),
        (Format::Split, 1),
        (Format::Packed, 8),
        (Format::Packed, 7),
        (Format::Packed, 1),
    ];
    all.into_iter().flat_map(|(format, size)| {
        let of = move |bits| Case {
            format,
            size,
            in_order: bits & 1 != 0,
            indirect: bits & 2 != 0,
        };
        (0..4).map(of)
    })
}

impl Case {
    fn features(self) -> RingFeatures {
        let mut features = RingFeatures::EVENT_IDX;
        features.set(RingFeatures::IN_ORDER, self.in_order);
        features.set(RingFeatures::INDIRECT_DESC, self.indirect);
        features
    }
}

/// Runs a driver and a device for some steps. The device dies after `lives[0]` stores, its successor after `lives[1]`
/// stores, and so on; the last one lives. Answers whether all of them died.
fn run(case: Case, seed: u64, steps: usize, all: &[u32]) -> bool {
    let rig = Rig::new(case.format, case.size);
    let features = case.features();
    let mut random = Random(seed);
    let mut driver = Driver::new(&rig, features);
    let mut lives = all.iter().copied();
    rig.life.set(lives.next().unwrap_or(IMMORTAL));
    let mut device = Device::new(&rig, features, None);
    // What the device before had in flight: at least what its successor has to take again.
    let mut died = false;
    let mut step = 0;
    while step < steps {
        if rig.life.get() == 0 {
            let before: Vec<u64> = device.taken.iter().map(|(tag, _)| *tag).collect();
            rig.life.set(lives.next().unwrap_or(IMMORTAL));
            died = lives.len() == 0;
            device = Device::new(&rig, features, None);
            if rig.life.get() == 0 {
                continue;
            }
            check_order(&mut device, &rig, &driver, &before);
        }
        step += 1;
        match random.next() % 8 {
            0..3 => {
                let (n, how) = (random.next() as usize % 4, random.next());
                driver.add(&rig, n, how);
            }
            3 | 4 => {
                let (limit, rewind) = (random.next() as usize % 5, random.next() as usize % 3);
                for (tag, shape) in device.take(&rig, limit, rewind) {
                    if rig.life.get() != 0 {
                        assert!(driver.out.values().any(|out| *out == (tag, shape.clone())));
                    }
                }
            }
            5 | 6 => {
                let (n, pick) = (1 + random.next() as usize % 4, random.next());
                device.give_back(&rig, n, case.in_order, pick);
            }
            _ => {
                driver.reap(&rig);
            }
        }
    }
    let dead = rig.life.replace(IMMORTAL) == 0;
    if dead {
        died = lives.len() == 0;
        device = Device::new(&rig, features, None);
    }
    for _ in 0..1000 {
        device.take(&rig, 64, 0);
        device.give_back(&rig, 64, case.in_order, 1);
        driver.reap(&rig);
        if driver.out.is_empty() {
            break;
        }
    }
    let out = &driver.out;
    assert!(out.is_empty(), "{case:?} {seed} {all:?}: lost {out:?}");
    assert_eq!(driver.back, driver.next);
    // Nothing is in flight by the record.
    let (_, recovered) = rig.open(None).unwrap();
    assert!(recovered.again.is_empty());
    died
}

/// What is taken again comes first and in order, and is nothing that the device before did not have.
fn check_order(device: &mut Device, rig: &Rig, driver: &Driver, before: &[u64]) {
    let repeated = device.ring.to_repeat();
    let life = rig.life.replace(IMMORTAL);
    let all = device.take(rig, 64, 64);
    assert!(all.is_empty(), "all were given back untouched");
    assert_eq!(device.ring.to_repeat(), repeated);
    let mut probe = Vec::new();
    let mem = rig.device();
    let taken = device.ring.take(&mem, &mut device.batch, 64).unwrap();
    for chain in device.batch.iter() {
        let segment = chain.readable().first().or(chain.writable().first());
        probe.push(segment.unwrap().addr.get());
    }
    device.ring.rewind(&mut device.batch, taken).unwrap();
    assert!(probe.is_sorted(), "{probe:?}");
    assert!(
        probe[..repeated]
            .iter()
            .all(|tag| before.contains(tag) || *tag >= 1000)
    );
    let out: Vec<u64> = driver.out.values().map(|(tag, _)| *tag).collect();
    assert!(
        probe.iter().all(|tag| out.contains(tag)),
        "{probe:?} of {out:?}"
    );
    rig.life.set(life);
}

#[test]
fn a_device_that_dies_at_any_store_loses_nothing_and_gives_nothing_back_twice() {
    let (steps, seeds) = if cfg!(miri) { (12, 1) } else { (60, 4) };
    for case in cases() {
        for seed in 1..=seeds {
            let mut life = 0;
            while run(case, seed * 7919, steps, &[life]) {
                life += if cfg!(miri) { 13 } else { 1 };
            }
            assert!(life > 10, "{case:?} ended after {life} stores");
        }
    }
}

#[test]
fn a_recovery_that_dies_too_is_gone_on_with() {
    if cfg!(miri) {
        return;
    }
    for case in cases() {
        for life in (0..400).step_by(3) {
            let mut second = 0;
            while second < 40 && run(case, 104_729, 40, &[life, second]) {
                second += 1;
            }
        }
    }
}

/// A record with three chains in flight.
fn record(format: Format) -> (Rig, RingFeatures) {
    let rig = Rig::new(format, 8);
    let features = RingFeatures::empty();
    let mut driver = Driver::new(&rig, features);
    let mut device = Device::new(&rig, features, None);
    driver.add(&rig, 4, 0);
    device.take(&rig, 4, 1);
    device.give_back(&rig, 1, false, 1);
    (rig, features)
}

#[test]
fn what_is_no_record_of_the_queue_is_refused_by_name() {
    use RecordError::{Features, Size, Unrecorded, Version};
    for format in [Format::Split, Format::Packed] {
        let (rig, _) = record(format);
        let word = rig.cells().load_u64(8);
        rig.cells().store_u64(8, word & !0xffff | 2);
        assert_eq!(rig.open(None).unwrap_err(), Version { version: 2 });
        rig.cells().store_u64(8, word & !0xffff_0000 | 16 << 16);
        let other = Size { found: 16, size: 8 };
        assert_eq!(rig.open(None).unwrap_err(), other);
        rig.cells().store_u64(8, word);
        rig.cells().store_u64(0, 1);
        assert_eq!(rig.open(None).unwrap_err(), Features { features: 1 });
    }
    // Counters that this ring does not have, either of them.
    let rig = Rig::new(Format::Packed, 8);
    let at = |index| Pos { index, wrap: true };
    for (avail, used) in [(at(8), at(8)), (at(0), at(8)), (at(8), at(0))] {
        let state = Some(QueueState::Packed { avail, used });
        let refused = RecordError::State { size: 8 };
        assert_eq!(rig.open(state).unwrap_err(), refused);
    }
    let rig = Rig::new(Format::Split, 8);
    let state = QueueState::Split {
        avail: 3,
        used: Some(1),
    };
    let unrecorded = Unrecorded { in_flight: 2 };
    assert_eq!(rig.open(Some(state)).unwrap_err(), unrecorded);
}

#[test]
fn lists_that_loop_or_lead_out_of_the_record_are_refused() {
    let (rig, _) = record(Format::Split);
    // A batch of two that names itself.
    rig.areas().device.store_u16(layout::IDX, 3);
    rig.cells().store_u64(16 + 16, 1 | 1 << 48);
    let bad = rig.open(None).unwrap_err();
    assert!(
        matches!(bad, RecordError::List { from: 1, to: 1, .. }),
        "{bad}"
    );
    rig.cells().store_u64(16 + 16, 1 | 9 << 48);
    let bad = rig.open(None).unwrap_err();
    assert!(
        matches!(bad, RecordError::List { from: 1, to: 9, .. }),
        "{bad}"
    );
    rig.areas().device.store_u16(layout::IDX, 500);
    let bad = rig.open(None).unwrap_err();
    assert!(
        matches!(bad, RecordError::UsedJump { used: 500, .. }),
        "{bad}"
    );

    let (rig, _) = record(Format::Packed);
    let free = (rig.cells().load_u64(8) >> 48) as u32;
    let marks = rig.cells().load_u64(32 + free * 32);
    rig.cells().store_u64(32 + free * 32, u64::from(free) << 16);
    let bad = rig.open(None).unwrap_err();
    assert!(matches!(bad, RecordError::List { .. }), "{bad}");
    // Entries that are in no list.
    rig.cells().store_u64(32 + free * 32, 8 << 16);
    let bad = rig.open(None).unwrap_err();
    assert!(matches!(bad, RecordError::Lost { .. }), "{bad}");
    rig.cells().store_u64(32 + free * 32, marks);
    rig.open(None).unwrap();
}

#[test]
fn chains_with_one_counter_have_no_order_and_are_refused() {
    for (format, entry) in [(Format::Split, 16), (Format::Packed, 32)] {
        let (rig, _) = record(format);
        for i in 0..8 {
            rig.cells().store_u64(entry * (i + 1) + 8, 7);
        }
        let bad = rig.open(None).unwrap_err();
        assert!(matches!(bad, RecordError::Counter { .. }), "{bad}");
    }
}

#[test]
fn a_packed_chain_stands_in_the_record_as_vhost_user_has_it() {
    let rig = Rig::new(Format::Packed, 8);
    let mut device = Device::new(&rig, RingFeatures::empty(), None);
    // Two descriptors with id 5, available on the first lap.
    let (next, write, avail) = (1_u64, 2_u64, 1 << 7);
    let chain = [
        (0x0102_0304_0506_0708, 0x1122, next | avail),
        (0x3000, 9, write | avail),
    ];
    let ring = rig.areas().descriptor;
    for ((addr, len, flags), slot) in chain.into_iter().zip(0u16..) {
        ring.store_u64(layout::descriptor(slot), addr);
        ring.store_u64(layout::descriptor_meta(slot), len | 5 << 32 | flags << 48);
    }
    assert_eq!(device.take(&rig, 8, 0).len(), 1);
    // DescStatePacked, behind a head of 32 bytes.
    for ((addr, len, flags), at) in chain.into_iter().zip([32, 64]) {
        let mut entry = [0; 32];
        rig.cells().read(at, &mut entry);
        assert_eq!(entry[16..18], 5_u16.to_le_bytes(), "id");
        assert_eq!(entry[18..20], (flags as u16).to_le_bytes(), "flags");
        assert_eq!(entry[20..24], (len as u32).to_le_bytes(), "len");
        assert_eq!(entry[24..], addr.to_le_bytes(), "addr");
    }
}

#[test]
fn a_chain_made_available_twice_ends_the_queue_that_keeps_a_record() {
    for format in [Format::Split, Format::Packed] {
        let rig = Rig::new(format, 8);
        let mut device = Device::new(&rig, RingFeatures::empty(), None);
        let areas = rig.areas();
        for slot in 0..2 {
            match format {
                Format::Split => areas.driver.store_u16(layout::avail_entry(slot), 5),
                // Available, with id 5.
                Format::Packed => {
                    let meta = 1 | 5 << 32 | 1 << 55;
                    areas
                        .descriptor
                        .store_u64(layout::descriptor_meta(slot), meta);
                }
            }
        }
        areas.driver.store_u16(layout::IDX, 2);
        let cells = rig.mortal(rig.cells());
        device
            .ring
            .take(&rig.device(), &mut device.batch, 8)
            .unwrap();
        let marked = device.record.taken(&cells, &device.ring, &device.batch);
        assert_eq!(marked.unwrap_err(), RingError::InFlightTwice { id: 5 });
    }
}

// It scribbles over cells of every width, which Miri's model of memory has no answer to.
#[cfg(not(miri))]
proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    /// Whatever is in a record and in the rings: an error, or a device that ends.
    #[test]
    fn any_record_is_refused_or_gone_on_with(
        packed in any::<bool>(),
        cells in proptest::collection::vec((0u32..70, any::<u64>(), 0u32..65), 0..6),
        ring in proptest::collection::vec((0u32..24, any::<u64>()), 0..6),
    ) {
        let format = if packed { Format::Packed } else { Format::Split };
        let (rig, features) = record(format);
        for (at, value, shift) in cells {
            let at = at * 8;
            // Small changes as well as large ones.
            let old = rig.cells().load_u64(at);
            rig.cells().store_u64(at, old ^ value.checked_shr(shift).unwrap_or(0));
        }
        for (at, value) in ring {
            rig.region.bytes().store_u64(at * 8, value);
        }
        if let Ok((mut record, Recovered { state, again })) = rig.open(None) {
            let cells = rig.mortal(rig.cells());
            let mut ring = DeviceRing::new(format, 8, features, Some(state)).unwrap();
            ring.note(8);
            ring.resubmit(again);
            let mut batch = Batch::new(8, 16);
            for _ in 0..16 {
                let Ok(taken) = ring.take(&rig.device(), &mut batch, 8) else { break };
                if record.taken(&cells, &ring, &batch).is_err() {
                    break;
                }
                let used: Vec<Used> = batch
                    .iter()
                    .map(|chain| Used { token: chain.token(), len: 0 })
                    .collect();
                if taken == 0 || record.committing(&cells, &used).is_err() {
                    break;
                }
                ring.commit(&rig.device(), &used).unwrap();
                record.committed(&cells, &used);
            }
        }
    }
}

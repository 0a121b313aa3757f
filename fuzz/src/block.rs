//! Requests of any kind and layout on a disk in memory, against a model of it.
//!
//! A driver writes headers and data where it likes, posts chains of any segments, a batch at a time, and has them
//! served. The model does the same on copies of the guest's memory and of the disk. Status bytes, used lengths, all of
//! the memory and, at the end, all of the disk have to agree.

use std::cell::RefCell;
use std::sync::Arc;

use vdpa_core::{Bell, Features, Sleeper, bits, bits::block};
use vdpa_mem::{Access, Iova};
use vdpa_ring::{Completion, Segment};
use vdpa_sim::blk::{Blk, Memory, Settings};
use vdpa_sim::class::{Class, Desk, Station, Stations, Unit};

use crate::Input;
use crate::guest::{self, BUFFER_BYTES, BUFFERS, Guest, Line, WRITES, role};

/// Bytes of a sector.
const SECTOR: u64 = 512;
/// Sectors of the disk.
const SECTORS: u64 = BUFFER_BYTES / SECTOR;
/// Batches of an input at most.
const BATCHES: usize = 4;

const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const ZEROES: u32 = 13;
const ERASE: u32 = 14;

const ID: [u8; 20] = *b"a disk that is fuzze";

/// A disk, kept from one input to the next.
struct Bench {
    blk: Blk,
    unit: Box<dyn Unit>,
    guest: Guest,
    desk: Desk,
    /// The model's disk.
    disk: Vec<u8>,
    dirty: bool,
    read_only: bool,
    /// What is written, from any of its first bytes on.
    pattern: Vec<u8>,
}

thread_local! {
    static BENCHES: RefCell<[Bench; 2]> = RefCell::new([Bench::new(false), Bench::new(true)]);
}

/// The target `block_request`.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = input.u8();
    BENCHES.with_borrow_mut(|benches| {
        let read_only = kind & 7 == 7;
        benches[usize::from(read_only)].run(kind, &mut input);
    });
}

/// What the model says of a request.
struct Expected {
    used: u32,
    /// The status, and where it is.
    status: Option<(usize, u8)>,
    /// Parts of memory and of the disk that may be anything between what they were and what was asked for.
    loose: Vec<usize>,
    loose_disk: Option<(usize, usize)>,
}

impl Expected {
    fn is_loose(&self) -> bool {
        !self.loose.is_empty() || self.loose_disk.is_some()
    }
}

impl Bench {
    fn new(read_only: bool) -> Self {
        let settings = Settings {
            capacity: SECTORS,
            queues: 1,
            queue_size: guest::SLOTS,
            blk_size: 512,
            id: ID,
            features: match read_only {
                true => Settings::possible(true).with(block::RO),
                false => Settings::possible(false),
            },
        };
        let memory = Memory::new(SECTORS * SECTOR).expect("memory");
        let blk = Blk::new(settings, Box::new(memory));
        let sleeper = Sleeper::new().expect("an eventfd");
        let bells: Arc<[Arc<Bell>]> = [Bell::new(&sleeper)].into();
        let unit = blk.unit(0, &bells);
        let guest = Guest::new();
        Self {
            desk: guest::desk(&guest),
            blk,
            unit,
            guest,
            disk: vec![0; (SECTORS * SECTOR) as usize],
            dirty: false,
            read_only,
            pattern: (0..4096_u32)
                .map(|i| (i * 7 + (i >> 8)) as u8 | 1)
                .collect(),
        }
    }

    fn run(&mut self, kind: u8, input: &mut Input<'_>) {
        self.guest.clear();
        self.blk.reset();
        let mut features = self.blk.offered();
        for (bit, feature) in [
            (8, bits::RING_PACKED),
            (16, bits::IN_ORDER),
            (32, block::FLUSH),
            (64, block::CONFIG_WCE),
            (128, bits::EVENT_IDX),
        ] {
            if kind & bit != 0 {
                features = features.without(feature);
            }
        }
        self.blk.accept(features);
        let (mut line, station) = Line::new(0, 0, features, role(0, 64));
        let mut queues: Stations = [station, Station::Stopped];
        if self.dirty {
            self.wipe(&mut line, &mut queues);
        }
        for _ in 0..BATCHES {
            if input.is_empty() {
                break;
            }
            self.batch(input, features, &mut line, &mut queues);
        }
        self.check_disk(&mut line, &mut queues);
    }

    /// Posts chains, has them served, and compares.
    fn batch(
        &mut self,
        input: &mut Input<'_>,
        features: Features,
        line: &mut Line,
        queues: &mut Stations,
    ) {
        let mut posted = Vec::new();
        for _ in 0..1 + input.below(3) {
            if let Some(chain) = self.post(input, line) {
                posted.push(chain);
            }
        }
        line.publish(&self.guest);
        let mut expected: Vec<Expected> = Vec::new();
        for (_, readable, writable) in &posted {
            // What may be anything may be what the next one goes by.
            let loose = expected.last().is_some_and(Expected::is_loose);
            if !loose {
                expected.push(self.expect(readable, writable, features));
            }
        }
        let known = expected.len() == posted.len();
        guest::serve(&mut *self.unit, queues, &mut self.desk);
        let mut out = [Completion::default(); 4];
        let count = line.take_used(&self.guest, &mut out);
        assert_eq!(count, posted.len(), "requests that did not come back");
        for (done, (chain, expected)) in out.iter().zip(posted.iter().zip(&expected)) {
            assert_eq!(done.id, chain.0, "a disk in memory uses in order");
            assert_eq!(
                done.len, expected.used,
                "{:?} of {chain:x?}",
                expected.status
            );
        }
        let mut loose = expected
            .iter()
            .flat_map(|expected| &expected.loose)
            .peekable();
        if loose.peek().is_some() {
            let places: Vec<usize> = loose.copied().collect();
            self.guest.look();
            for place in places {
                self.guest.adopt(place);
            }
        }
        if !known {
            self.guest.look();
            self.guest.adopt_all();
            self.dirty = !self.read_only;
            return self.adopt_disk(0, self.disk.len(), line, queues);
        }
        self.guest.check();
        for (first, end) in expected.iter().filter_map(|expected| expected.loose_disk) {
            self.adopt_disk(first, end, line, queues);
        }
    }

    /// A request, written and added.
    fn post(
        &mut self,
        input: &mut Input<'_>,
        line: &mut Line,
    ) -> Option<(u16, Vec<Segment>, Vec<Segment>)> {
        let shape = input.u8();
        let mut segments = |count: u8| (0..count).map(|_| guest::segment(input)).collect();
        let mut readable: Vec<Segment> = segments(shape & 3);
        let mut writable: Vec<Segment> = segments(shape >> 2 & 3);
        if shape & 0x40 == 0 {
            // A header in one piece, a status of its own.
            let len = 16;
            let addr = Iova::new(BUFFERS + 0x800);
            readable.insert(0, Segment { addr, len });
        }
        if shape & 0x80 == 0 {
            let addr = Iova::new(WRITES + 0xfff - u64::from(shape >> 4 & 3));
            writable.push(Segment { addr, len: 1 });
        }
        let kind = input.u8();
        let kind = match kind & 0x80 {
            0 => [IN, OUT, FLUSH, GET_ID, DISCARD, ZEROES, ERASE, OUT][usize::from(kind & 7)],
            _ => input.u32(),
        };
        let sector = match input.u8() {
            255 => input.u64(),
            254 => u64::MAX / SECTOR + input.u64() % 4,
            small => u64::from(small) % (SECTORS + 2),
        };
        let mut bytes = Vec::from(kind.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(sector.to_le_bytes());
        match kind {
            DISCARD | ZEROES | ERASE => {
                for _ in 0..input.below(4) {
                    let (sector, sectors) = (input.u8(), input.u8());
                    let sector = match sector {
                        255 => input.u64(),
                        small => u64::from(small) % (SECTORS + 2),
                    };
                    let sectors = match sectors {
                        255 => input.u32(),
                        small => u32::from(small) % (SECTORS as u32 + 2),
                    };
                    let flags = match input.u8() {
                        255 => input.u32(),
                        small => u32::from(small & 1),
                    };
                    bytes.extend(sector.to_le_bytes());
                    bytes.extend(sectors.to_le_bytes());
                    bytes.extend(flags.to_le_bytes());
                }
            }
            _ => {
                // Data that tells sectors apart, and not the same twice.
                let seed = usize::from(input.u8());
                bytes.extend(&self.pattern[seed..seed + 2048]);
            }
        }
        self.guest.spread(&readable, &bytes);
        let id = line.add(&self.guest, &readable, &writable)?;
        Some((id, readable, writable))
    }

    /// What the model makes of a request, on its own memory and disk.
    fn expect(
        &mut self,
        readable: &[Segment],
        writable: &[Segment],
        features: Features,
    ) -> Expected {
        let mut expected = Expected {
            used: 0,
            status: None,
            loose: Vec::new(),
            loose_disk: None,
        };
        let total = |part: &[Segment]| part.iter().map(|s| u64::from(s.len)).sum::<u64>();
        let (reads, writes) = (total(readable), total(writable));
        if writes == 0 {
            return expected;
        }
        let Some(place) =
            address(writable, writes - 1).and_then(|at| Guest::place(at, Access::DeviceWrites))
        else {
            return expected;
        };
        let (status, data) =
            self.answer(readable, writable, reads, writes, features, &mut expected);
        expected.used = (data + 1) as u32;
        expected.status = Some((place, status));
        self.guest.copy[place] = status;
        expected.loose.retain(|loose| *loose != place);
        expected
    }

    /// Status, and bytes of data written to the driver.
    fn answer(
        &mut self,
        readable: &[Segment],
        writable: &[Segment],
        reads: u64,
        writes: u64,
        features: Features,
        expected: &mut Expected,
    ) -> (u8, u64) {
        if reads < 16 {
            return (IOERR, 0);
        }
        let Some(header) = self.gather(readable, 0, 16) else {
            return (IOERR, 0);
        };
        let kind = u32::from_le_bytes(header[..4].try_into().expect("4 bytes"));
        let sector = u64::from_le_bytes(header[8..].try_into().expect("8 bytes"));
        let has = |bit| features.contains(bit);
        match kind {
            IN => {
                let len = writes - 1;
                let Some((first, end)) = range(sector, len) else {
                    return (IOERR, 0);
                };
                let from = self.disk[first..end].to_vec();
                match self.scatter(writable, &from, expected) {
                    true => (OK, len),
                    false => (IOERR, 0),
                }
            }
            OUT if self.read_only => (IOERR, 0),
            OUT => {
                let Some((first, end)) = range(sector, reads - 16) else {
                    return (IOERR, 0);
                };
                self.dirty = true;
                match self.gather(readable, 16, end - first) {
                    Some(data) => {
                        self.disk[first..end].copy_from_slice(&data);
                        (OK, 0)
                    }
                    None => {
                        expected.loose_disk = Some((first, end));
                        (IOERR, 0)
                    }
                }
            }
            FLUSH if has(block::FLUSH) => (OK, 0),
            GET_ID if writes > 20 => match self.scatter(writable, &ID, expected) {
                true => (OK, 20),
                false => (IOERR, 0),
            },
            GET_ID => (IOERR, 0),
            DISCARD if has(block::DISCARD) => (self.extents(kind, readable, reads), 0),
            ZEROES if has(block::WRITE_ZEROES) => (self.extents(kind, readable, reads), 0),
            ERASE if has(block::SECURE_ERASE) => (self.extents(kind, readable, reads), 0),
            _ => (UNSUPP, 0),
        }
    }

    /// A discard and its like.
    fn extents(&mut self, kind: u32, readable: &[Segment], reads: u64) -> u8 {
        let len = reads - 16;
        let (most, most_sectors) = match kind {
            DISCARD => (32, 1 << 22),
            ZEROES => (32, 1 << 16),
            _ => (16, 1 << 11),
        };
        if len == 0 || !len.is_multiple_of(16) || len > most * 16 {
            return IOERR;
        }
        let Some(bytes) = self.gather(readable, 16, len as usize) else {
            return IOERR;
        };
        let (mut unknown, mut unmap, mut bad, mut ranges) = (false, false, false, Vec::new());
        for segment in bytes.chunks_exact(16) {
            let sector = u64::from_le_bytes(segment[..8].try_into().expect("8 bytes"));
            let sectors = u32::from_le_bytes(segment[8..12].try_into().expect("4 bytes"));
            let flags = u32::from_le_bytes(segment[12..].try_into().expect("4 bytes"));
            unknown |= flags & !1 != 0;
            unmap |= flags & 1 != 0;
            bad |= sectors > most_sectors;
            match range(sector, u64::from(sectors) * SECTOR) {
                Some(range) => ranges.push(range),
                None => bad = true,
            }
        }
        if unknown {
            return UNSUPP;
        }
        if bad {
            return IOERR;
        }
        if unmap && kind != ZEROES {
            return UNSUPP;
        }
        for (first, end) in ranges {
            self.dirty = !self.read_only;
            self.disk[first..end].fill(0);
        }
        OK
    }

    /// `len` bytes behind the first `skip`, if all of them can be read.
    fn gather(&self, segments: &[Segment], skip: u64, len: usize) -> Option<Vec<u8>> {
        let (runs, found) = Guest::runs(segments, skip, len as u64, Access::DeviceReads);
        (found == len as u64).then(|| Guest::joined(&self.guest.copy, &runs))
    }

    /// Writes bytes to the first ones of these segments. `false`: one of them cannot be written; what is before it may
    /// have been.
    fn scatter(&mut self, segments: &[Segment], bytes: &[u8], expected: &mut Expected) -> bool {
        let all = bytes.len() as u64;
        let (runs, found) = Guest::runs(segments, 0, all, Access::DeviceWrites);
        if found < all {
            let places = runs.iter().flat_map(|(place, len)| *place..place + len);
            expected.loose.extend(places);
            return false;
        }
        let mut from = bytes;
        for (place, len) in runs {
            let (run, rest) = from.split_at(len);
            from = rest;
            self.guest.copy[place..place + len].copy_from_slice(run);
        }
        true
    }

    /// A request that is right: reads or zeroes the whole disk.
    fn whole(&mut self, kind: u32, line: &mut Line, queues: &mut Stations) {
        let header = Segment {
            addr: Iova::new(WRITES - 0x1000_0000),
            len: if kind == IN { 16 } else { 32 },
        };
        let data = Segment {
            addr: Iova::new(BUFFERS),
            len: (SECTORS * SECTOR) as u32,
        };
        let status = Segment {
            addr: Iova::new(WRITES),
            len: 1,
        };
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&kind.to_le_bytes());
        bytes[24..28].copy_from_slice(&(SECTORS as u32).to_le_bytes());
        self.guest.spread(&[header], &bytes);
        self.guest.spread(&[status], &[0xff]);
        let writable = if kind == IN {
            vec![data, status]
        } else {
            vec![status]
        };
        line.add(&self.guest, &[header], &writable).expect("room");
        line.publish(&self.guest);
        guest::serve(&mut *self.unit, queues, &mut self.desk);
        let mut out = [Completion::default(); 2];
        assert_eq!(line.take_used(&self.guest, &mut out), 1);
        let place = Guest::place(WRITES, Access::DeviceWrites).expect("mapped");
        assert_eq!(self.guest.look()[place], OK, "a good request failed");
    }

    /// The disk is all zeroes again.
    fn wipe(&mut self, line: &mut Line, queues: &mut Stations) {
        self.whole(ZEROES, line, queues);
        self.disk.fill(0);
        self.dirty = false;
        self.guest.clear_data();
    }

    /// All of the disk is as the model has it.
    fn check_disk(&mut self, line: &mut Line, queues: &mut Stations) {
        self.whole(IN, line, queues);
        let found = self.found();
        if found != self.disk {
            let at = found.iter().zip(&self.disk).position(|(a, b)| a != b);
            panic!("the disk differs from the model at {at:#x?}");
        }
    }

    /// What was read of the whole disk.
    fn found(&self) -> Vec<u8> {
        let all = Segment {
            addr: Iova::new(BUFFERS),
            len: BUFFER_BYTES as u32,
        };
        let (runs, _) = Guest::runs(&[all], 0, BUFFER_BYTES, Access::Both);
        Guest::joined(self.guest.found(), &runs)
    }

    /// What a write whose data is in part not mapped left there.
    fn adopt_disk(&mut self, first: usize, end: usize, line: &mut Line, queues: &mut Stations) {
        self.whole(IN, line, queues);
        let found = self.found();
        self.disk[first..end].copy_from_slice(&found[first..end]);
        self.guest.clear_data();
    }
}

/// Where byte `i` of segments is.
fn address(segments: &[Segment], mut i: u64) -> Option<u64> {
    for segment in segments {
        if i < u64::from(segment.len) {
            return segment.addr.get().checked_add(i);
        }
        i -= u64::from(segment.len);
    }
    None
}

/// Where data is on the disk, if it is whole sectors of it.
fn range(sector: u64, len: u64) -> Option<(usize, usize)> {
    let first = u128::from(sector) * u128::from(SECTOR);
    let end = first + u128::from(len);
    let fits = len.is_multiple_of(SECTOR) && end <= u128::from(SECTORS * SECTOR);
    fits.then_some((first as usize, end as usize))
}

//! A guest's memory in front of a unit that is served by hand, and a copy of it that a model works on.
//!
//! ```text
//!   RINGS     both ways      areas and indirect tables of the queues
//!   BUFFERS   both ways      two pages, in this process the other way round
//!   READS     device reads   a page
//!   WRITES    device writes  a page
//!   nowhere   not mapped     a page behind the others in this process, which nobody writes
//! ```

use std::sync::Arc;

use vdpa_core::{Call, CallCell, Features, QueueConfig, QueueIndex, bits};
use vdpa_mem::{Access, AddressSpace, Bytes, Iova, IovaRange, Mapping, Region, Window};
use vdpa_ring::{
    Areas, Completion, DriverMem, DriverRing, Format, Placement, RingFeatures, Segment, Tables,
    area_sizes,
};
use vdpa_sim::Rounds;
use vdpa_sim::class::{Desk, Role, Served, Station, Stations, Unit};
use vdpa_sim::queue::Queue;

use crate::Input;

const PAGE: u64 = 4096;
/// Where the rings are.
const RINGS: u64 = 0x7000_0000_0000_0000;
const RING_PAGES: u64 = 4;
/// Where buffers may be.
pub const BUFFERS: u64 = 0x2000_0000;
/// Where the device only reads.
pub const READS: u64 = 0x3000_0000;
/// Where it only writes.
pub const WRITES: u64 = 0x4000_0000;
/// Bytes of [`BUFFERS`].
pub const BUFFER_BYTES: u64 = 2 * PAGE;

/// Slots of every queue.
pub const SLOTS: u16 = 16;

/// Address, place in the region and rights of all that is not rings.
const ZONES: [(u64, u64, Access); 4] = [
    (BUFFERS, 1, Access::Both),
    (BUFFERS + PAGE, 0, Access::Both),
    (READS, 2, Access::DeviceReads),
    (WRITES, 3, Access::DeviceWrites),
];
/// Pages that the copy has: the zones, and the one that is not mapped.
const COPIED: usize = 5 * PAGE as usize;

/// The memory.
pub struct Guest {
    /// What devices see.
    pub space: AddressSpace,
    window: Window,
    /// What the model has made of it.
    pub copy: Vec<u8>,
    found: Vec<u8>,
    /// What it has to be, while it is looked at.
    due: Vec<u8>,
}

impl Guest {
    /// Memory of zeroes.
    pub fn new() -> Self {
        let pages = RING_PAGES + 5;
        let region = Region::anonymous(pages * PAGE).expect("memory");
        let (memory, window) = region.into_shared();
        let space = AddressSpace::new();
        let map = |at, page: u64, pages: u64, access| Mapping {
            iova: IovaRange::new(Iova::new(at), pages * PAGE).expect("a range"),
            memory: Arc::clone(&memory),
            offset: page * PAGE,
            access,
            dirty: None,
        };
        let mut all = vec![map(RINGS, 0, RING_PAGES, Access::Both)];
        all.extend(ZONES.map(|(at, page, access)| map(at, RING_PAGES + page, 1, access)));
        space.map(all).expect("nothing overlaps");
        Self {
            space,
            window,
            copy: vec![0; COPIED],
            found: vec![0; COPIED],
            due: vec![0; COPIED],
        }
    }

    /// All 0 again.
    pub fn clear(&mut self) {
        self.clear_data();
        // Tables are written before they are read.
        for area in [0, RING_PAGES / 2 * PAGE] {
            self.window
                .bytes()
                .write(area as usize, &self.copy[..PAGE as usize]);
        }
    }

    /// Where byte `at` of the device is in the copy, if the device may use it so.
    pub fn place(at: u64, want: Access) -> Option<usize> {
        let zone = ZONES
            .iter()
            .find(|(first, ..)| at.wrapping_sub(*first) < PAGE);
        let (first, page, access) = zone?;
        access
            .allows(want)
            .then_some((page * PAGE + at - first) as usize)
    }

    /// Where `len` bytes of segments behind the first `skip` are in the copy, run by run, up to the first byte that the
    /// device may not use so; and how many bytes that are.
    pub fn runs(
        segments: &[Segment],
        mut skip: u64,
        len: u64,
        want: Access,
    ) -> (Vec<(usize, usize)>, u64) {
        let (mut runs, mut found) = (Vec::new(), 0);
        for segment in segments {
            let here = u64::from(segment.len);
            let mut at = segment.addr.get().checked_add(skip.min(here));
            let mut left = (here - skip.min(here)).min(len - found);
            skip -= skip.min(here);
            while left != 0 {
                let Some((first, place)) = at.and_then(|at| Some((at, Self::place(at, want)?)))
                else {
                    return (runs, found);
                };
                let run = left.min(PAGE - first % PAGE);
                runs.push((place, run as usize));
                (left, found, at) = (left - run, found + run, first.checked_add(run));
            }
        }
        (runs, found)
    }

    /// The bytes of runs of the copy, or of what was found.
    pub fn joined(from: &[u8], runs: &[(usize, usize)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (place, len) in runs {
            // Copied whole: byte by byte each would be looked at by the fuzzer.
            bytes.extend_from_slice(&from[*place..place + len]);
        }
        bytes
    }

    /// Writes bytes to the first ones of these segments, as the driver does.
    pub fn spread(&mut self, segments: &[Segment], mut bytes: &[u8]) {
        for segment in segments {
            let (here, rest) = bytes.split_at(bytes.len().min(segment.len as usize));
            bytes = rest;
            // What is not mapped at all has nothing written to.
            for want in [Access::DeviceReads, Access::DeviceWrites] {
                let (runs, _) = Self::runs(&[*segment], 0, here.len() as u64, want);
                let mut from = here;
                for (place, len) in runs {
                    let (run, rest) = from.split_at(len);
                    from = rest;
                    self.copy[place..place + len].copy_from_slice(run);
                    let host = (RING_PAGES * PAGE) as usize + place;
                    self.window.bytes().write(host, run);
                }
            }
        }
    }

    /// Compares the memory with the copy.
    pub fn check(&mut self) {
        self.look();
        if self.found != self.copy {
            let at = self.found.iter().zip(&self.copy).position(|(a, b)| a != b);
            let at = at.unwrap_or(0);
            let (found, model) = (self.found[at], self.copy[at]);
            panic!("memory is {found:#x} and not {model:#x}, as in the model, at {at:#x}");
        }
    }

    /// The same but for these runs of places, after a [`look`](Self::look).
    pub fn check_but(&mut self, written: &[(usize, usize)]) {
        // Whole runs and whole buffers: byte by byte each would be looked at by the fuzzer.
        self.due.copy_from_slice(&self.copy);
        for (place, len) in written {
            let run = *place..place + len;
            self.due[run.clone()].copy_from_slice(&self.found[run]);
        }
        if self.found != self.due {
            let bad = self.found.iter().zip(&self.due).position(|(a, b)| a != b);
            panic!("memory was written that is no buffer's, at {bad:?}");
        }
    }

    /// What the memory is, by its places.
    pub fn look(&mut self) -> &[u8] {
        let from = (RING_PAGES * PAGE) as usize;
        self.window.bytes().read(from, &mut self.found);
        &self.found
    }

    /// What the last look found.
    pub fn found(&self) -> &[u8] {
        &self.found
    }

    /// The model takes what the last look found at a place.
    pub fn adopt(&mut self, place: usize) {
        self.copy[place] = self.found[place];
    }

    /// The model takes all that the last look found.
    pub fn adopt_all(&mut self) {
        self.copy.copy_from_slice(&self.found);
    }

    /// All but the rings is 0 again.
    pub fn clear_data(&mut self) {
        self.copy.fill(0);
        self.window
            .bytes()
            .write((RING_PAGES * PAGE) as usize, &self.copy);
    }

    fn rings(&self, at: u64, len: u32) -> Bytes<'_> {
        let slice = self.window.bytes().slice(at as usize, len as usize);
        slice.expect("it is inside")
    }
}

impl Default for Guest {
    fn default() -> Self {
        Self::new()
    }
}

/// A segment of any kind: in memory more often than not.
pub fn segment(input: &mut Input<'_>) -> Segment {
    let (kind, at) = (input.u8(), u64::from(input.u16()));
    let base = match kind & 7 {
        0..=3 => BUFFERS,
        4 => READS,
        5 => WRITES,
        6 => BUFFERS + PAGE - 8,
        _ => [0, u64::MAX - 0xff, READS + PAGE - 4, WRITES + PAGE][(at & 3) as usize],
    };
    let wide = kind & 0x80 != 0;
    let at = base.wrapping_add(if wide { at } else { at & 0x7ff });
    let len = match kind >> 3 & 7 {
        0 => u32::from(input.u8()),
        1 => 16,
        2 => 1,
        3 => 512,
        4 => 512 * u32::from(input.u8() & 15),
        5 => u32::from(input.u16()),
        6 => 12 + u32::from(input.u8()),
        _ if wide => input.u32(),
        _ => 0,
    };
    Segment {
        addr: Iova::new(at),
        len,
    }
}

/// A driver's queue, and the unit that serves it.
pub struct Line {
    ring: DriverRing,
    placed: Placement,
    sizes: vdpa_ring::AreaSizes,
    at: u64,
}

/// The role of a unit's queue, which takes this many chains at once: of its second one, which sends, the device writes nothing.
pub fn role(place: usize, chains: usize) -> Role {
    Role {
        unit: 0,
        place,
        chains,
        reads_all: place == 1,
    }
}

impl Line {
    /// A fresh queue, the `number`th in memory, for the driver; and as the device has it, in this role.
    pub fn new(number: u64, index: u16, features: Features, role: Role) -> (Self, Station) {
        let packed = features.contains(bits::RING_PACKED);
        let format = if packed {
            Format::Packed
        } else {
            Format::Split
        };
        let has = |bit, flag| match features.contains(bit) {
            true => flag,
            false => RingFeatures::empty(),
        };
        let own = has(bits::INDIRECT_DESC, RingFeatures::INDIRECT_DESC)
            | has(bits::EVENT_IDX, RingFeatures::EVENT_IDX)
            | has(bits::IN_ORDER, RingFeatures::IN_ORDER);
        let sizes = area_sizes(format, SLOTS, true);
        let placed = sizes.placed();
        // A quarter of the pages each; its second half is for tables.
        let at = number * RING_PAGES / 2 * PAGE;
        assert!(u64::from(placed.bytes) <= PAGE);
        let address = |offset: u32| Iova::new(RINGS + at + u64::from(offset));
        let config = QueueConfig::new(
            SLOTS,
            address(placed.descriptor),
            address(placed.driver),
            address(placed.device),
        );
        let call = Arc::new(CallCell::new(Call::None));
        let queue = Queue::new(QueueIndex::new(index), &config, features, call, role);
        let queue = queue.expect("a legal queue");
        let line = Self {
            ring: DriverRing::new(format, SLOTS, own, None).expect("a legal ring"),
            placed,
            sizes,
            at,
        };
        (line, Station::Running(Box::new(queue)))
    }

    fn memory<'g>(&self, guest: &'g Guest) -> DriverMem<Bytes<'g>> {
        let area = |offset: u32, area: vdpa_ring::Area| {
            guest.rings(self.at + u64::from(offset), area.bytes)
        };
        DriverMem {
            areas: Areas {
                descriptor: area(self.placed.descriptor, self.sizes.descriptor),
                driver: area(self.placed.driver, self.sizes.driver),
                device: area(self.placed.device, self.sizes.device),
            },
            tables: Some(Tables {
                memory: guest.rings(self.at + PAGE, PAGE as u32),
                base: Iova::new(RINGS + self.at + PAGE),
                entries: SLOTS,
            }),
        }
    }

    /// Adds a chain, if it is a legal one and has room. Answers with its id.
    pub fn add(
        &mut self,
        guest: &Guest,
        readable: &[Segment],
        writable: &[Segment],
    ) -> Option<u16> {
        self.ring.add(&self.memory(guest), readable, writable).ok()
    }

    /// Shows what was added.
    pub fn publish(&mut self, guest: &Guest) {
        self.ring.publish(&self.memory(guest));
    }

    /// Takes back what was used.
    pub fn take_used(&mut self, guest: &Guest, out: &mut [Completion]) -> usize {
        let taken = self.ring.take_used(&self.memory(guest), out);
        taken.expect("a device of ours uses no ring wrongly")
    }
}

/// Serves a unit until there is nothing to do.
pub fn serve(unit: &mut dyn Unit, queues: &mut Stations, desk: &mut Desk) {
    let passes = (0..64).take_while(|_| unit.serve(queues, desk) == Served::Work);
    assert!(passes.count() < 64, "a unit finds work for ever");
}

/// A desk for this memory.
pub fn desk(guest: &Guest) -> Desk {
    Desk::new(guest.space.reader(), Arc::new(Rounds::new(1)), 0)
}

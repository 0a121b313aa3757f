//! The driver half of a ring, and a device that may do anything.

use vdpa_mem::{Access, Iova};
use vdpa_ring::{
    AddError, Completion, DriverRing, Format, RingError, RingFeatures, Segment, layout,
};

use super::Memory;
use super::bench::pair;
use crate::guard::Arena;
use crate::raw::{AVAIL, RawQueue, USED, WRITE};

/// Where the device finds the arena.
const IOVA: u64 = 0x1000_0000;
/// Bytes of the arena.
const BYTES: usize = 32 << 10;

/// The driver half of a ring under attack.
#[derive(Debug)]
pub struct Desk {
    /// Where its areas are.
    pub q: RawQueue,
    /// The ring.
    pub ring: DriverRing,
    /// Its memory.
    pub memory: Memory,
}

impl Desk {
    /// A ring of size 8.
    pub fn new(format: Format, features: RingFeatures) -> Self {
        let arena = Arena::new(IOVA, BYTES, Access::Both);
        let q = RawQueue::new(0, format, 8, (&arena, 0), None);
        // The driver half writes all of it by itself.
        arena.open(0, BYTES);
        Self {
            memory: Memory::new(&q),
            ring: DriverRing::new(format, q.size, features, None).expect("a legal ring"),
            q,
        }
    }

    /// A piece of the driver's memory.
    pub fn segment(&self, len: u32) -> Segment {
        Segment {
            addr: Iova::new(self.memory.arena.at(16 << 10)),
            len,
        }
    }

    /// Adds a chain of pieces of these lengths.
    pub fn add(&mut self, readable: &[u32], writable: &[u32]) -> u16 {
        let segments = |lens: &[u32]| {
            lens.iter()
                .map(|len| self.segment(*len))
                .collect::<Vec<_>>()
        };
        let (readable, writable) = (segments(readable), segments(writable));
        let added = self.ring.add(&self.memory.driver(), &readable, &writable);
        added.expect("room for a chain")
    }

    /// Shows what was added. Whether a kick is due.
    pub fn publish(&mut self) -> bool {
        self.ring.publish(&self.memory.driver())
    }

    /// Three chains in flight: 10 bytes to be read; 10 to be read and 20 to be written; 30 to be written. Their ids.
    pub fn three(&mut self) -> [u16; 3] {
        let ids = [
            self.add(&[10], &[]),
            self.add(&[10], &[20]),
            self.add(&[], &[30]),
        ];
        assert!(self.publish());
        ids
    }

    /// As the device: marks a chain used, at entry (split) or slot (packed) `at`, and moves the index behind it.
    pub fn mark(&self, at: u16, id: u32, len: u32) {
        let bytes = self.memory.arena.bytes();
        match self.q.format {
            Format::Split => {
                let entry = self.q.device_at(layout::used_entry(at % self.q.size)) as u32;
                bytes.store_u32(entry, id);
                bytes.store_u32(entry + 4, len);
                self.mark_index(at.wrapping_add(1));
            }
            Format::Packed => {
                let slot = self.q.descriptor_at(layout::descriptor(at)) as u32;
                let meta = self.q.meta(len, AVAIL | USED | WRITE, id as u16);
                bytes.store_u64(slot + 8, meta);
            }
        }
    }

    /// As the device: `used.idx` of a split ring.
    pub fn mark_index(&self, idx: u16) {
        let at = self.q.device_at(layout::IDX) as u32;
        self.memory.arena.bytes().store_u16(at, idx);
    }

    /// Takes back what is used: ids and lengths.
    ///
    /// # Errors
    /// What the device did wrong.
    pub fn take(&mut self) -> Result<Vec<(u16, u32)>, RingError> {
        let mut out = [Completion::default(); 8];
        let taken = self.ring.take_used(&self.memory.driver(), &mut out)?;
        Ok(out[..taken].iter().map(pair).collect())
    }

    /// The ring must not be trusted any more: it says why once, and stays so.
    pub fn malformed(&mut self, right: impl Fn(&RingError) -> bool) {
        let before = (self.ring.free(), self.ring.in_flight());
        let error = self.take().expect_err("a device that lies");
        assert!(right(&error), "{error:?}");
        assert_eq!(self.memory.twice(), None, "a field is fetched twice");
        assert_eq!(self.take(), Err(RingError::Latched));
        let one = [self.segment(1)];
        let added = self.ring.add(&self.memory.driver(), &one, &[]);
        assert_eq!(added, Err(AddError::Latched));
        assert!(!self.ring.arm(&self.memory.driver()));
        assert_eq!(before, (self.ring.free(), self.ring.in_flight()));
    }
}

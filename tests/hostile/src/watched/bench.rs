//! The device half of a ring, and a driver that may do anything.

use std::sync::Arc;

use vdpa_mem::Access;
use vdpa_ring::{
    Batch, Completion, DeviceRing, Format, QueueState, RingError, RingFeatures, Segment, Used,
};

use super::{Memory, Which};
use crate::guard::Arena;
use crate::raw::{NEXT, Piece, RawQueue};

/// Where the device finds the arena.
const IOVA: u64 = 0x1000_0000;
/// Bytes of the arena: areas first, then room for tables.
const BYTES: usize = 64 << 10;

/// A chain as a device half gives it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Taken {
    /// Head or id.
    pub id: u16,
    /// Slots in the ring (packed), else 1.
    pub slots: u16,
    /// What the device reads.
    pub readable: Vec<(u64, u32)>,
    /// What it writes.
    pub writable: Vec<(u64, u32)>,
}

/// The device half of a ring under attack.
#[derive(Debug)]
pub struct Bench {
    /// The attacker's side.
    pub q: RawQueue,
    /// The ring.
    pub ring: DeviceRing,
    /// Its memory.
    pub memory: Memory,
    /// The chains of one take.
    pub batch: Batch,
}

impl Bench {
    /// Offset in the arena of the room for tables.
    pub const TABLES: usize = 32 << 10;

    /// A ring of size 8 with tables.
    pub fn new(format: Format) -> Self {
        Self::with(format, 8, RingFeatures::INDIRECT_DESC, None)
    }

    /// A ring as it is asked for.
    pub fn with(
        format: Format,
        size: u16,
        features: RingFeatures,
        state: Option<QueueState>,
    ) -> Self {
        let arena = Arena::new(IOVA, BYTES, Access::Both);
        let q = RawQueue::new(0, format, size, (&arena, 0), state);
        assert!(
            RawQueue::bytes(format, size) <= Self::TABLES,
            "size {size} is too large for a bench"
        );
        Self {
            memory: Memory::new(&q),
            q,
            ring: DeviceRing::new(format, size, features, state).expect("a legal ring"),
            batch: Batch::new(usize::from(size), 2 * usize::from(size)),
        }
    }

    /// The arena, to write to.
    pub fn arena(&self) -> &Arc<Arena> {
        &self.memory.arena
    }

    /// Offset of the room for tables, and its address for the device.
    pub fn tables(&self) -> (usize, u64) {
        (Self::TABLES, self.memory.arena.at(Self::TABLES))
    }

    /// Writes a table there, with NEXT and `next` as they should be but for what the pieces say. Answers with the
    /// descriptor that points to it.
    pub fn table(&self, pieces: &[Piece]) -> Piece {
        let (offset, at) = self.tables();
        self.arena().put(offset, &write_table(&self.q, pieces));
        Piece::table(at, 16 * pieces.len() as u32)
    }

    /// Takes all that there is.
    ///
    /// # Errors
    /// What the driver did wrong.
    pub fn take(&mut self) -> Result<Vec<Taken>, RingError> {
        self.ring
            .take(&self.memory.device(), &mut self.batch, usize::MAX)?;
        let pairs = |segments: &[Segment]| segments.iter().map(|s| (s.addr.get(), s.len)).collect();
        let chains = self.batch.iter().map(|chain| Taken {
            id: chain.token().id(),
            slots: chain.token().slots(),
            readable: pairs(chain.readable()),
            writable: pairs(chain.writable()),
        });
        Ok(chains.collect())
    }

    /// Gives back all that was taken, with these lengths by turns.
    ///
    /// # Errors
    /// As the ring says.
    pub fn commit(&mut self, lens: &[u32]) -> Result<bool, RingError> {
        let lens = lens.iter().copied().chain(std::iter::repeat(0));
        let tokens = self.batch.iter().map(|chain| chain.token());
        let used: Vec<_> = tokens
            .zip(lens)
            .map(|(token, len)| Used { token, len })
            .collect();
        self.ring.commit(&self.memory.device(), &used)
    }

    /// The ring must not be trusted any more: it says why once, with bounded work, wrote nothing and stays so; a new
    /// one works. Nothing was fetched twice.
    pub fn malformed(&mut self, right: impl Fn(&RingError) -> bool) {
        self.looped(right);
        assert_eq!(self.memory.twice(), None, "a field is fetched twice");
    }

    /// The same for a chain that comes by the same descriptors again: that is bounded, and all that can be asked.
    pub fn looped(&mut self, right: impl Fn(&RingError) -> bool) {
        let error = self.take().expect_err("a malformed ring");
        assert!(right(&error), "{error:?}");
        self.bounded();
        let loads = self.memory.loads();
        self.latched();
        assert_eq!(
            self.memory.loads(),
            loads,
            "a ring that is lost is not looked at again"
        );
    }

    /// The same, once the reason was told.
    pub fn latched(&mut self) {
        self.memory.unhook();
        for _ in 0..2 {
            assert_eq!(self.take(), Err(RingError::Latched));
            assert_eq!(
                self.ring.arm(&self.memory.device()),
                Err(RingError::Latched)
            );
        }
        assert!(self.batch.is_empty());
        assert_eq!(
            self.memory.stores(),
            0,
            "nothing is written to a ring that is lost"
        );
        self.memory
            .arena
            .check()
            .unwrap_or_else(|why| panic!("{why}"));
        Self::new(self.q.format).works();
    }

    /// A take looked at no more descriptors than the ring has, and table entries than a table may have.
    pub fn bounded(&self) {
        let size = u32::from(self.q.size);
        let most = [
            (Which::Descriptor, 2 * size),
            (Which::Driver, size + 1),
            (Which::Device, 0),
            (Which::Table, 2 * size),
        ];
        for (which, most) in most {
            let loads = self.memory.loads_of(which);
            let count: u32 = loads.iter().map(|(_, times)| times).sum();
            assert!(count <= most, "{which:?}: {count} loads, {most} at most");
        }
    }

    /// Nothing came of what was shown, at little cost, and the ring works.
    pub fn bounded_and_works(&mut self) {
        self.bounded();
        self.works();
    }

    /// One known-good chain goes there and back.
    pub fn works(&mut self) {
        let at = self.tables().1;
        let head = self
            .q
            .chain(&[Piece::read(at, 16), Piece::write(at + 64, 32)]);
        self.q.show();
        let taken = self.take().expect("a well-formed ring");
        let right = Taken {
            id: head.id,
            slots: if self.q.format == Format::Packed {
                2
            } else {
                1
            },
            readable: vec![(at, 16)],
            writable: vec![(at + 64, 32)],
        };
        assert_eq!(taken, [right]);
        self.commit(&[9]).expect("a commit");
        let back = self.q.used().map(|back| (back.id, back.len));
        assert_eq!(back, Some((head.id.into(), 9)));
    }

    /// Lets `change` happen before every load of a take in turn. What comes of it has to be what would have come without
    /// the change, or with it from the beginning: never something of both, and nothing is fetched twice.
    pub fn every_fetch(make: impl FnMut() -> Self, change: impl Fn(&Memory) + Clone + 'static) {
        Self::at_every_fetch(make, change, true);
    }

    /// The same for a change of several fields: what is taken may be old in a part and new in another, and nothing is
    /// fetched twice.
    pub fn every_fetch_mixed(
        make: impl FnMut() -> Self,
        change: impl Fn(&Memory) + Clone + 'static,
    ) {
        Self::at_every_fetch(make, change, false);
    }

    fn at_every_fetch(
        mut make: impl FnMut() -> Self,
        change: impl Fn(&Memory) + Clone + 'static,
        one: bool,
    ) {
        let mut bench = make();
        let old = bench.take();
        let total = bench.memory.loads();
        let mut bench = make();
        change(&bench.memory);
        let new = bench.take();
        // Two chains of one descriptor, or one that comes by it again: it is fetched for each.
        let shared = bench.memory.twice().is_some();
        assert_ne!(old, new, "the change makes no difference");
        assert!(total > 0);
        let mut turned = false;
        for nth in 0..=total {
            let mut bench = make();
            bench.memory.before(nth, change.clone());
            let found = bench.take();
            let twice = bench.memory.twice().filter(|_| !shared);
            assert_eq!(twice, None, "load {nth}: a field is fetched twice");
            if one {
                let either = found == old || found == new;
                assert!(either, "load {nth}: {found:?}, neither {old:?} nor {new:?}");
                // Once its load is over, a change comes too late.
                let again = turned && found == new;
                assert!(!again, "load {nth}: a field is looked at again");
            }
            turned = found == old;
        }
        assert!(turned, "the last load is over");
    }
}

/// The bytes of a table; see [`Bench::table`].
pub(crate) fn write_table(q: &RawQueue, pieces: &[Piece]) -> Vec<u8> {
    let mut raw = Vec::new();
    for (i, piece) in pieces.iter().enumerate() {
        let goes_on = piece.goes_on.unwrap_or(i + 1 < pieces.len());
        // virtio 1.4 §2.8.7: NEXT and id mean nothing in a packed ring's table.
        let next = if goes_on && q.format == Format::Split {
            NEXT
        } else {
            0
        };
        let link = piece.link.unwrap_or(i as u16 + 1);
        raw.extend(piece.addr.to_le_bytes());
        raw.extend(q.meta(piece.len, piece.flags | next, link).to_le_bytes());
    }
    raw
}

/// A completion, for comparisons.
pub(super) fn pair(completion: &Completion) -> (u16, u32) {
    (completion.id, completion.len)
}

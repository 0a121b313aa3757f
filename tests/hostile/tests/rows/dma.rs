//! Section L: DMA.

use std::sync::Arc;

use vdpa_hostile::guard::Guarded;
use vdpa_hostile::raw::Piece;
use vdpa_hostile::soon;
use vdpa_hostile::stage::{BUFFERS, Expect, Stage};
use vdpa_hostile::suite::{Code, code};
use vdpa_hostile::table::Target;
use vdpa_mem::{Access, DmaMemory, Iova, IovaRange, Mapping};

/// The functions of the rows.
pub(crate) const ROWS: &[Code] = &[code(132)
    .driver(crate::removal::locked_memory_at_any_map)
    .device(rolled_back)];

/// Entries of a batch.
const BATCH: u64 = 8;
/// Where they are.
const FRESH: u64 = 0x1_0000_0000;
/// Bytes of each.
const PAGE: u64 = 4096;

/// Entry `i` of a batch, at a place of its own.
fn entry(memory: &Arc<dyn DmaMemory>, i: u64) -> Mapping {
    Mapping {
        iova: IovaRange::new(Iova::new(FRESH + 2 * i * PAGE), PAGE).expect("a range"),
        memory: Arc::clone(memory),
        offset: i * PAGE,
        access: Access::Both,
        dirty: None,
    }
}

/// What can be wrong with an entry.
type Bend = fn(&mut Mapping);

fn rolled_back(s: &mut Stage) -> Expect {
    let guarded = Guarded::new((BATCH * PAGE) as usize, true);
    let memory: Arc<dyn DmaMemory> = Arc::new(guarded);
    let at = |first: u64| IovaRange::new(Iova::new(first), PAGE).expect("a range");
    assert!(at(BUFFERS).overlaps(s.buffers.range()));
    let bends: [Bend; 5] = [
        // Over what is mapped, and over another of the batch.
        |m| m.iova = IovaRange::new(Iova::new(BUFFERS), PAGE).expect("a range"),
        |m| {
            let other = if m.offset == 0 {
                FRESH + 2 * PAGE
            } else {
                FRESH
            };
            m.iova = IovaRange::new(Iova::new(other + 1), PAGE - 1).expect("a range");
        },
        // Beyond its memory: by its length, by its offset, by an offset that wraps.
        |m| m.offset = (BATCH - 1) * PAGE + 1,
        |m| m.offset = BATCH * PAGE,
        |m| m.offset = u64::MAX - 100,
    ];
    let before = s.dma.mappings().len();
    for k in 0..BATCH {
        for (way, bend) in bends.iter().enumerate() {
            let mut batch: Vec<_> = (0..BATCH).map(|i| entry(&memory, i)).collect();
            bend(&mut batch[k as usize]);
            let refused = s.dma.map(batch);
            assert!(refused.is_err(), "entry {k}, way {way}");
            assert_eq!(
                s.dma.mappings().len(),
                before,
                "entry {k}, way {way}: none is left"
            );
        }
    }
    // What is not there is not there for the device either.
    let written = s.target == Target::Rx;
    let piece = |at| {
        if written {
            Piece::write(at, 76)
        } else {
            Piece::read(at, 76)
        }
    };
    s.send(&[piece(FRESH)]);
    s.refused();
    s.still_works();
    // The whole batch without what was wrong with it.
    let batch = (0..BATCH).map(|i| entry(&memory, i)).collect();
    s.dma.map(batch).expect("all of it");
    assert_eq!(s.dma.mappings().len(), before + BATCH as usize);
    for i in 0..BATCH {
        let range = entry(&memory, i).iova;
        s.dma.unmap(range, soon()).expect("what was mapped");
    }
    assert_eq!(s.dma.mappings().len(), before);
    s.still_works();
    Expect::Served
}

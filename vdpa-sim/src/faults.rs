//! Faults that a simulated device makes by itself: in its rings, and in the memory that it reaches.
//!
//! ```text
//!   ring ─▶ Queue::take ─▶ chains: dma.read dma.write      ring.area_lost
//!   ring ◀─ Queue::commit ◀─ used: ring.used_* dma.corrupt
//!   Transmitter ─▶ FrameBatch: packet.lost ─▶ port
//! ```
//! A device that was asked for none has none of this: one branch a batch says so. What a class does with a buffer that
//! it cannot reach is what it does with any: the chain it is shown has such an address.

use vdpa_core::QueueIndex;
use vdpa_core::faults::{Dice, Kind, Plan};
use vdpa_mem::{Access, Hint, Iova, Section};
use vdpa_ring::layout::{IDX, descriptor};
use vdpa_ring::{Areas, Batch, ChainToken, QueueState, RingMem, Segment, Used};

use crate::frames::FrameBatch;

const fn kind(name: &'static str, about: &'static str) -> Kind {
    Kind { name, about }
}

/// A used entry has a wrong id.
pub const USED_ID: Kind = kind(
    "ring.used_id",
    "a used entry names a descriptor that the ring does not have",
);
/// A used entry has a wrong length.
pub const USED_LEN: Kind = kind(
    "ring.used_len",
    "a used entry says that more bytes were written than the chain can hold",
);
/// The used index goes too far.
pub const USED_INDEX: Kind = kind(
    "ring.used_index",
    "the used index goes past what is in flight, or a packed ring's next slot is used too, from then on",
);
/// A used entry names what came back before.
pub const USED_DOUBLED: Kind = kind(
    "ring.used_doubled",
    "a used entry names the chain that came back before it, instead of its own",
);
/// A used entry is not written.
pub const USED_LOST: Kind = kind("ring.used_lost", "a chain never comes back");
/// The device loses an area of the ring.
pub const AREA_LOST: Kind = kind(
    "ring.area_lost",
    "the device cannot reach an area of the ring: the queue ends, and NEEDS_RESET is set",
);
/// A buffer cannot be read.
pub const DMA_READ: Kind = kind("dma.read", "the device faults where it reads a buffer");
/// A buffer cannot be written.
pub const DMA_WRITE: Kind = kind("dma.write", "the device faults where it writes a buffer");
/// A byte is not what was to be written.
pub const DMA_CORRUPT: Kind = kind(
    "dma.corrupt",
    "one bit is wrong in the second half of what was written to a buffer",
);
/// A packet goes nowhere.
pub const PACKET_LOST: Kind = kind(
    "packet.lost",
    "a packet is given back as sent, and does not leave",
);

/// Those of a network card: all.
pub const NET: &[Kind] = &[
    USED_ID,
    USED_LEN,
    USED_INDEX,
    USED_DOUBLED,
    USED_LOST,
    AREA_LOST,
    DMA_READ,
    DMA_WRITE,
    DMA_CORRUPT,
    PACKET_LOST,
];

/// Those of every class.
pub const ANY: &[Kind] = &[
    USED_ID,
    USED_LEN,
    USED_INDEX,
    USED_DOUBLED,
    USED_LOST,
    AREA_LOST,
    DMA_READ,
    DMA_WRITE,
    DMA_CORRUPT,
];

/// How far a length is beyond what a chain can hold.
const TOO_LONG: std::ops::RangeInclusive<u64> = 1..=64;

/// What is decided of a chain: it is, whether it is taken once or given back untouched and taken again.
#[derive(Clone, Copy, Default)]
struct Bent {
    read: bool,
    write: bool,
}

/// What of a chain the device may write.
#[derive(Clone, Copy, Default)]
struct Writable {
    first: Segment,
    bytes: u64,
}

/// The faults of one queue.
pub(crate) struct QueueFaults {
    used_id: Option<Dice>,
    used_len: Option<Dice>,
    used_index: Option<Dice>,
    used_doubled: Option<Dice>,
    used_lost: Option<Dice>,
    area_lost: Option<Dice>,
    dma_read: Option<Dice>,
    dma_write: Option<Dice>,
    dma_corrupt: Option<Dice>,
    packet_lost: Option<Dice>,
    /// By id, of what is in flight.
    writable: Box<[Writable]>,
    /// Of the chains of the batch.
    bent: Vec<Bent>,
    /// Of chains that are to be taken again, the next one last.
    again: Vec<Bent>,
    /// What came back last.
    last: Option<u16>,
    jumped: bool,
    near: Hint,
}

fn strikes(dice: &mut Option<Dice>) -> bool {
    dice.as_mut().is_some_and(Dice::strikes)
}

impl QueueFaults {
    /// Those of `plan`, for queue `q` of `size` descriptors.
    pub(crate) fn new(plan: &Plan, q: QueueIndex, size: u16) -> Box<Self> {
        let dice = |kind| plan.dice(kind, q.get().into());
        Box::new(Self {
            used_id: dice(USED_ID),
            used_len: dice(USED_LEN),
            used_index: dice(USED_INDEX),
            used_doubled: dice(USED_DOUBLED),
            used_lost: dice(USED_LOST),
            area_lost: dice(AREA_LOST),
            dma_read: dice(DMA_READ),
            dma_write: dice(DMA_WRITE),
            dma_corrupt: dice(DMA_CORRUPT),
            packet_lost: dice(PACKET_LOST),
            writable: vec![Writable::default(); size.into()].into_boxed_slice(),
            bent: Vec::new(),
            again: Vec::new(),
            last: None,
            jumped: false,
            near: Hint::default(),
        })
    }

    /// Whether an area is lost, now that there are chains to take.
    pub(crate) fn lose_area(&mut self) -> bool {
        strikes(&mut self.area_lost)
    }

    /// Bends the chains of a batch that was just taken.
    pub(crate) fn bend(&mut self, batch: &mut Batch, section: &Section<'_>) {
        self.bent.clear();
        for i in 0..batch.len() {
            let Some(chain) = batch.chain(i) else { break };
            let (id, readable) = (chain.token().id(), has_bytes(chain.readable()));
            let place = Writable {
                first: chain.writable().first().copied().unwrap_or_default(),
                bytes: chain.writable_len(),
            };
            let bent = self.again.pop().unwrap_or_else(|| Bent {
                read: readable && strikes(&mut self.dma_read),
                write: place.bytes != 0 && strikes(&mut self.dma_write),
            });
            self.bent.push(bent);
            if let Some(writable) = self.writable.get_mut(usize::from(id)) {
                *writable = place;
            }
            if !bent.read && !bent.write {
                continue;
            }
            let Some(at) = nowhere(section, &mut self.near) else {
                continue;
            };
            if let Some((readable, writable)) = batch.segments_mut(i) {
                for (segments, is) in [(readable, bent.read), (writable, bent.write)] {
                    let segment = segments.iter_mut().find(|segment| segment.len != 0);
                    if let Some(segment) = segment.filter(|_| is) {
                        segment.addr = at;
                    }
                }
            }
        }
    }

    /// The last `n` chains of the batch are to be taken again.
    pub(crate) fn rewind(&mut self, n: usize) {
        let left = self.bent.len().saturating_sub(n);
        // The first of them is the first to be taken again.
        self.again.extend(self.bent.drain(left..).rev());
    }

    /// Bends what is to be given back.
    pub(crate) fn bend_used(&mut self, used: &mut Vec<Used>, size: u16, section: &Section<'_>) {
        let lost = &mut self.used_lost;
        used.retain(|_| !strikes(lost));
        for entry in used.iter_mut() {
            let (id, slots) = (entry.token.id(), entry.token.slots());
            let place = self.writable.get(usize::from(id)).copied();
            let place = place.unwrap_or_default();
            self.corrupt(place, entry.len, section);
            if let Some(dice) = self.used_len.as_mut()
                && dice.strikes()
            {
                let len = place.bytes.saturating_add(dice.draw(TOO_LONG));
                entry.len = u32::try_from(len).unwrap_or(u32::MAX);
            }
            if let Some(last) = self.last
                && strikes(&mut self.used_doubled)
            {
                entry.token = ChainToken::new(last, slots);
            } else if strikes(&mut self.used_id) {
                entry.token = ChainToken::new(size, slots);
            }
            self.last = Some(id);
        }
    }

    /// Turns a bit over in what was written to a buffer: in its second half, where no header is.
    fn corrupt(&mut self, place: Writable, len: u32, section: &Section<'_>) {
        let written = len.min(place.first.len);
        let Some(dice) = self.dma_corrupt.as_mut().filter(|_| written >= 2) else {
            return;
        };
        if !dice.strikes() {
            return;
        }
        let last = u64::from(written).saturating_sub(1);
        let offset = dice.draw(u64::from(written >> 1)..=last);
        let bit = 1_u8.checked_shl(dice.draw(0..=7) as u32).unwrap_or(1);
        let Some(at) = place.first.addr.checked_add(offset) else {
            return;
        };
        if let Ok(bytes) = section.translate(at, 1, Access::Both, &mut self.near) {
            let mut byte = [0];
            bytes.read(0, &mut byte);
            bytes.write(0, &byte.map(|byte| byte ^ bit));
        }
    }

    /// Bends the ring itself, after a commit left it at `state`. Answers whether the driver is to be called for it.
    pub(crate) fn bend_ring<M: RingMem>(
        &mut self,
        areas: &Areas<M>,
        state: QueueState,
        size: u16,
    ) -> bool {
        self.jumped |= strikes(&mut self.used_index);
        if !self.jumped {
            return false;
        }
        match state {
            QueueState::Split { used, .. } => {
                let far = used.unwrap_or(0).wrapping_add(size).wrapping_add(1);
                areas.device.store_u16(IDX, far);
            }
            QueueState::Packed { used, .. } => {
                // virtio 1.4 §2.8.1: used where both flags are as the wrap counter. No chain has such an id, so that it
                // cannot be taken for one that was used.
                let flags: u16 = if used.wrap { 1 << 7 | 1 << 15 } else { 0 };
                let meta = u64::from(flags) << 48 | u64::from(size) << 32;
                areas.descriptor.store_meta(descriptor(used.index), meta);
            }
        }
        true
    }

    /// Takes packets out of a batch that is to leave.
    pub(crate) fn lose_packets(&mut self, batch: &mut FrameBatch) {
        if let Some(dice) = &mut self.packet_lost {
            batch.retain(|| !dice.strikes());
        }
    }
}

fn has_bytes(segments: &[Segment]) -> bool {
    segments.iter().any(|segment| segment.len != 0)
}

/// An address that nothing is mapped at.
fn nowhere(section: &Section<'_>, near: &mut Hint) -> Option<Iova> {
    (1..=8_u64)
        .map(|n| Iova::new(u64::MAX.wrapping_sub(n.wrapping_mul(1 << 40)) & !0xfff))
        .find(|at| {
            let mut is_free = |want| section.translate(*at, 1, want, near).is_err();
            is_free(Access::DeviceReads) && is_free(Access::DeviceWrites)
        })
}

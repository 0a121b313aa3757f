//! What a device half has to make of its memory, written down as plainly as the specification has it.

use vdpa_mem::{Fault, Iova};
use vdpa_ring::{Format, Pos, QueueState, RingFeatures, Segment};

use crate::memory::{Memory, Span};

/// Descriptor flags.
pub const NEXT: u16 = 1;
/// The device writes.
pub const WRITE: u16 = 2;
/// It points to a table.
pub const INDIRECT: u16 = 4;
/// Packed: available on the first lap.
pub const AVAIL: u16 = 1 << 7;
/// Packed: used on the first lap.
pub const USED: u16 = 1 << 15;

/// A chain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chain {
    /// Head, or buffer id.
    pub id: u16,
    /// Ring slots.
    pub slots: u16,
    /// What the device reads.
    pub readable: Vec<Segment>,
    /// What it writes.
    pub writable: Vec<Segment>,
}

/// What is next in a ring.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Next {
    /// Nothing.
    Empty,
    /// A chain.
    Chain(Chain),
    /// A chain, whose table at this address is not mapped yet.
    Parked(Iova),
    /// Something that no driver may write.
    Bad,
}

/// Why a walk ends early.
pub enum Stop {
    Parked(Iova),
    Bad,
}

impl From<Stop> for Next {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Parked(at) => Self::Parked(at),
            Stop::Bad => Self::Bad,
        }
    }
}

/// A chain that is being walked.
#[derive(Default)]
pub struct Walk {
    pub readable: Vec<Segment>,
    pub writable: Vec<Segment>,
    bytes: u64,
}

/// A descriptor: address, length, flags, and `next` or the id.
pub struct Descriptor {
    pub addr: u64,
    pub len: u32,
    pub flags: u16,
    pub other: u16,
}

impl Descriptor {
    /// Of these two words.
    pub fn new(format: Format, [addr, meta]: [u64; 2]) -> Self {
        let (a, b) = ((meta >> 32) as u16, (meta >> 48) as u16);
        let (flags, other) = match format {
            Format::Split => (a, b),
            Format::Packed => (b, a),
        };
        Self {
            addr,
            len: meta as u32,
            flags,
            other,
        }
    }

    fn at(memory: &Memory, format: Format, index: u16) -> Self {
        let at = usize::from(index) * 16;
        let span = &memory.areas.descriptor;
        Self::new(format, [span.u64(at), span.u64(at + 8)])
    }

    fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

impl Walk {
    /// A descriptor that is no table.
    pub fn push(&mut self, d: &Descriptor) -> Result<(), Stop> {
        self.bytes += u64::from(d.len);
        if self.bytes > 1 << 32 || (!d.has(WRITE) && !self.writable.is_empty()) {
            return Err(Stop::Bad);
        }
        let addr = Iova::new(d.addr);
        let segment = Segment { addr, len: d.len };
        match d.has(WRITE) {
            true => self.writable.push(segment),
            false => self.readable.push(segment),
        }
        Ok(())
    }

    /// The table that a descriptor points to.
    pub fn table(
        &mut self,
        memory: &Memory,
        format: Format,
        size: u16,
        features: RingFeatures,
        d: &Descriptor,
    ) -> Result<(), Stop> {
        // Where the device reads all, what DPDK's driver leaves in a packed table means nothing.
        let all_read =
            format == Format::Packed && features.contains(RingFeatures::DEVICE_READS_ALL);
        let entries = d.len / 16;
        if !d.len.is_multiple_of(16) || entries == 0 || entries > u32::from(size) {
            return Err(Stop::Bad);
        }
        let table = match memory.table(d.addr, entries as usize) {
            Ok(table) => table,
            Err(Fault::Miss) => return Err(Stop::Parked(Iova::new(d.addr))),
            Err(_) => return Err(Stop::Bad),
        };
        let mut index = 0;
        for _ in 0..entries {
            let Some(words) = table.get(index) else {
                return Err(Stop::Bad);
            };
            let mut entry = Descriptor::new(format, *words);
            if entry.has(INDIRECT) {
                return Err(Stop::Bad);
            }
            if all_read {
                entry.flags &= !WRITE;
            }
            self.push(&entry)?;
            match format {
                Format::Packed => index += 1,
                Format::Split if entry.has(NEXT) => index = entry.other.into(),
                Format::Split => return Ok(()),
            }
        }
        match format {
            Format::Packed => Ok(()),
            Format::Split => Err(Stop::Bad),
        }
    }

    fn chain(self, id: u16, slots: u16) -> Next {
        Next::Chain(Chain {
            id,
            slots,
            readable: self.readable,
            writable: self.writable,
        })
    }
}

/// What is next in a ring that stands at `state`.
pub fn next(memory: &Memory, state: QueueState, size: u16, features: RingFeatures) -> Next {
    let found = match state {
        QueueState::Split { avail, used } => {
            let used = used.unwrap_or_else(|| memory.areas.device.u16(2));
            split(memory, avail, used, size, features)
        }
        QueueState::Packed { avail, used } => packed(memory, avail, used, size, features),
    };
    found.unwrap_or_else(Next::from)
}

fn split(
    memory: &Memory,
    avail: u16,
    used: u16,
    size: u16,
    features: RingFeatures,
) -> Result<Next, Stop> {
    let ring = &memory.areas.driver;
    let idx = ring.u16(2);
    if idx == avail {
        return Ok(Next::Empty);
    }
    // What is available and what is in flight are no more than there are descriptors.
    let pending = u32::from(idx.wrapping_sub(avail));
    if pending + u32::from(avail.wrapping_sub(used)) > u32::from(size) {
        return Err(Stop::Bad);
    }
    let head = ring.u16(4 + usize::from(avail % size) * 2);
    split_chain(memory, head, size, features)
}

/// The chain at `head` of a split ring.
pub fn split_chain(
    memory: &Memory,
    head: u16,
    size: u16,
    features: RingFeatures,
) -> Result<Next, Stop> {
    let mut walk = Walk::default();
    let mut index = head;
    for _ in 0..size {
        if index >= size {
            return Err(Stop::Bad);
        }
        let d = Descriptor::at(memory, Format::Split, index);
        if d.has(INDIRECT) {
            if !features.contains(RingFeatures::INDIRECT_DESC) || d.has(NEXT) {
                return Err(Stop::Bad);
            }
            walk.table(memory, Format::Split, size, features, &d)?;
            return Ok(walk.chain(head, 1));
        }
        walk.push(&d)?;
        if !d.has(NEXT) {
            return Ok(walk.chain(head, 1));
        }
        index = d.other;
    }
    Err(Stop::Bad)
}

fn packed(
    memory: &Memory,
    avail: Pos,
    used: Pos,
    size: u16,
    features: RingFeatures,
) -> Result<Next, Stop> {
    let available = |d: &Descriptor, wrap| d.has(AVAIL) == wrap && d.has(USED) != wrap;
    let in_flight = avail.since(used, size).unwrap_or(size);
    let mut walk = Walk::default();
    let mut at = avail;
    for slots in 1..=size - in_flight {
        let d = Descriptor::at(memory, Format::Packed, at.index);
        if !available(&d, at.wrap) {
            // The first one is shown last.
            return if slots == 1 {
                Ok(Next::Empty)
            } else {
                Err(Stop::Bad)
            };
        }
        if d.has(INDIRECT) {
            let alone = slots == 1 && !d.has(NEXT);
            if !features.contains(RingFeatures::INDIRECT_DESC) || !alone {
                return Err(Stop::Bad);
            }
            walk.table(memory, Format::Packed, size, features, &d)?;
        } else {
            walk.push(&d)?;
        }
        if !d.has(NEXT) {
            if d.other >= size {
                return Err(Stop::Bad);
            }
            return Ok(walk.chain(d.other, slots));
        }
        at = at.advance(1, size);
    }
    // A full ring is looked at no further.
    if in_flight == size {
        Ok(Next::Empty)
    } else {
        Err(Stop::Bad)
    }
}

/// Whether the driver wants to be called for what was used between two states.
pub fn wants_call(
    memory: &Memory,
    before: QueueState,
    after: QueueState,
    size: u16,
    features: RingFeatures,
) -> bool {
    let event_idx = features.contains(RingFeatures::EVENT_IDX);
    let driver: &Span = &memory.areas.driver;
    match (before, after) {
        (
            QueueState::Split {
                used: Some(old), ..
            },
            QueueState::Split {
                used: Some(new), ..
            },
        ) => {
            if !event_idx {
                return driver.u16(0) & 1 == 0;
            }
            let event = driver.u16(4 + usize::from(size) * 2);
            let steps = new.wrapping_sub(old);
            (0..steps).any(|step| old.wrapping_add(step) == event)
        }
        (QueueState::Packed { used: old, .. }, QueueState::Packed { used: new, .. }) => {
            match driver.u16(2) & 3 {
                1 => false,
                2 if event_idx => {
                    let event = Pos::from_bits(driver.u16(0));
                    let steps = new.since(old, size).unwrap_or(0);
                    event.index >= size || (0..steps).any(|step| old.advance(step, size) == event)
                }
                _ => true,
            }
        }
        _ => unreachable!("two formats in one ring"),
    }
}

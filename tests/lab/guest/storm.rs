//! A driver whose rings are nonsense, round after round: whatever the device makes of it, it comes back by a reset.

use std::time::Duration;

use serde_json::json;
use vdpa::core::{Asid, Call, DeviceType, Features, Kick, QueueConfig, QueueIndex, Status, bits};
use vdpa::mem::{Access, Bytes, IovaRange};
use vdpa::{Deadline, Device, Iova, Mapping, Region};

use crate::Done;

/// All that is mapped: rings, and buffers over them.
const MEMORY: u64 = 0x10_0000;
const BYTES: u64 = 0x1_0000;
/// A queue has this much of it: descriptors, the driver's area, the device's area.
const EACH: u64 = 0x3000;
const AREA: u64 = 0x1000;
const SIZE: u16 = 64;
/// Behind the rings: what the first buffers of chains begin in.
const HEADERS: u32 = 0xc000;

// Flags of descriptors, virtio 1.4 §2.7.5 and §2.8.6.
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const AVAIL: u16 = 1 << 7;
/// What a disk is asked, what a card receives into, and what it sends.
const REQUESTS: [u16; 3] = [NEXT, NEXT | WRITE, WRITE];
const RECEIVED: [u16; 2] = [NEXT | WRITE, WRITE];
const SENT: [u16; 2] = [NEXT, 0];

const PATIENCE: Duration = Duration::from_secs(20);

/// Nonsense that is the same each time.
struct Nonsense(u64);

impl Nonsense {
    fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, most: u64) -> u64 {
        self.next() % most
    }
}

/// So many rounds, of split rings and of packed ones.
pub(crate) fn rounds(device: &str, rounds: u64) -> Done {
    let device = vdpa::open(device)?;
    let (memory, window) = Region::memfd(BYTES)?.into_shared();
    device.dma(Asid::new(0))?.map(vec![Mapping {
        iova: IovaRange::new(Iova::new(MEMORY), BYTES)?,
        memory: memory.clone(),
        offset: 0,
        access: Access::Both,
        dirty: None,
    }])?;
    let mut nonsense = Nonsense(1);
    let (mut broken, mut worked) = (0u64, 0u64);
    for round in 0..rounds {
        let packed = round % 2 == 1;
        match storm(&device, window.bytes(), packed, &mut nonsense)? {
            true => broken += 1,
            false => worked += 1,
        }
    }
    device.reset(Deadline::after(PATIENCE))?;
    println!("{}", json!({ "broken": broken, "worked": worked }));
    Ok(())
}

/// One round; whether the device needs a reset after it.
fn storm(
    device: &Device,
    bytes: Bytes<'_>,
    packed: bool,
    nonsense: &mut Nonsense,
) -> Result<bool, Box<dyn std::error::Error>> {
    device.reset(Deadline::after(PATIENCE))?;
    let mut wanted = Features::of(&[bits::VERSION_1, bits::ACCESS_PLATFORM]);
    if packed {
        wanted.insert(bits::RING_PACKED);
    }
    let mut status = Status::ACKNOWLEDGE | Status::DRIVER;
    device.write_status(Status::ACKNOWLEDGE.bits())?;
    device.write_status(status.bits())?;
    device.accept(wanted)?;
    status |= Status::FEATURES_OK;
    device.write_status(status.bits())?;
    bytes.zero(0, BYTES as usize);
    let mut doorbells = Vec::new();
    for q in 0..device.info().queues {
        let queue = QueueIndex::new(q);
        if device.queue_limits(queue)?.max_size == 0 {
            continue;
        }
        let at = |area: u64| Iova::new(MEMORY + u64::from(q) * EACH + area * AREA);
        let config = QueueConfig::new(SIZE, at(0), at(1), at(2));
        doorbells.push(device.start_queue(queue, config, Kick::Taken, Call::None)?);
    }
    status |= Status::DRIVER_OK;
    device.write_status(status.bits())?;
    let block = device.info().device_type == DeviceType::Block;
    // From hardly anything to nearly everything.
    let rarely = 1 << (3 * nonsense.below(5) + 1);
    for _ in 0..4 {
        for at in (HEADERS..BYTES as u32).step_by(16) {
            // The type of a request, and a sector near the end of the disk.
            bytes.store_u32(at, nonsense.below(6) as u32);
            bytes.store_u64(at + 8, nonsense.below(4100));
        }
        for q in 0..doorbells.len() as u32 {
            let chains = match (block, q) {
                (true, _) => &REQUESTS[..],
                (false, 0) => &RECEIVED[..],
                (false, _) => &SENT[..],
            };
            let ring = Scribble {
                at: q * EACH as u32,
                packed,
                rarely,
                nonsense,
            };
            ring.over(bytes, chains);
        }
        for doorbell in &doorbells {
            doorbell.ring(0);
        }
    }
    Ok(device.status()?.contains(Status::DEVICE_NEEDS_RESET))
}

/// A ring that is to be written over.
struct Scribble<'n> {
    at: u32,
    packed: bool,
    /// One field in so many is nonsense.
    rarely: u64,
    nonsense: &'n mut Nonsense,
}

impl Scribble<'_> {
    /// The field as it should be, or not.
    fn field(&mut self, right: u64) -> u64 {
        match self.nonsense.below(self.rarely) {
            0 => self.nonsense.next(),
            _ => right,
        }
    }

    /// Chains of descriptors with these flags, again and again, and what makes them available.
    fn over(mut self, bytes: Bytes<'_>, chains: &[u16]) {
        let (at, period) = (self.at, chains.len() as u32);
        let chained = u32::from(SIZE) / period * period;
        for slot in 0..chained {
            let place = at + slot * 16;
            let right = MEMORY + u64::from(HEADERS) + 16 * self.nonsense.below(256);
            let len = if slot % period == 0 {
                16
            } else {
                512 * self.nonsense.below(4) + 1
            };
            let mut flags = chains[(slot % period) as usize];
            if self.packed {
                flags |= AVAIL;
            }
            bytes.store_u64(place, self.field(right));
            bytes.store_u32(place + 8, self.field(len) as u32);
            let flags = self.field(flags.into()) as u16;
            // The next one of a split ring, the number of a packed one's buffer.
            let other = self.field(u64::from(slot) + 1) as u16;
            let [low, high] = if self.packed {
                [other, flags]
            } else {
                [flags, other]
            };
            bytes.store_u16(place + 12, low);
            bytes.store_u16(place + 14, high);
        }
        if !self.packed {
            let driver = at + AREA as u32;
            for entry in 0..u32::from(SIZE) {
                let head = self.field(u64::from(entry * period % chained)) as u16;
                bytes.store_u16(driver + 4 + 2 * entry, head);
            }
            let used = bytes.load_u16(at + 2 * AREA as u32 + 2);
            let ahead = self.nonsense.below(SIZE.into());
            let idx = self.field(u64::from(used) + ahead) as u16;
            bytes.store_u16(driver + 2, idx);
        }
    }
}

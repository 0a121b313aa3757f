//! Kicks that come before DRIVER_OK.
//!
//! A doorbell is a store to a register, with nothing before it that could hold it back: what is rung too early reaches the
//! register at once, where a device need not look at it, virtio 1.4 §3.1.1. So each queue that was started before DRIVER_OK
//! is kicked once after it, whether its doorbell was rung or not, and later rings cost nothing for that.

use vdpa_core::{Doorbell, Features, QueueConfig, QueueIndex, bits};
use vdpa_mem::{Access, AddressSpace, Iova};

/// A queue that was started before DRIVER_OK.
pub(super) struct Early {
    queue: QueueIndex,
    config: QueueConfig,
    doorbell: Doorbell,
}

impl Early {
    pub(super) fn new(queue: QueueIndex, config: &QueueConfig, doorbell: &Doorbell) -> Self {
        Self {
            queue,
            config: *config,
            doorbell: doorbell.clone(),
        }
    }

    pub(super) fn queue(&self) -> QueueIndex {
        self.queue
    }

    /// Kicks it, with where its driver stands if a kick says so.
    pub(super) fn kick(&self, accepted: Features, space: Option<&AddressSpace>) {
        let mut data = u32::from(self.queue.get());
        if accepted.contains(bits::NOTIFICATION_DATA) {
            let packed = accepted.contains(bits::RING_PACKED);
            // A ring that cannot be read has nothing in it, which is how it began.
            let stands = space.and_then(|space| match packed {
                true => packed_place(space, &self.config),
                false => read_u16(space, &[after(self.config.driver, 2)?])?
                    .first()
                    .copied(),
            });
            data |= u32::from(stands.unwrap_or(if packed { WRAP } else { 0 })) << 16;
        }
        self.doorbell.ring(data);
    }
}

/// The driver's wrap counter, as a kick carries it; set while the ring is gone through for the first time.
const WRAP: u16 = 1 << 15;

/// Where the next descriptor of a packed ring that is gone through for the first time will be made available, virtio 1.4
/// §2.8.1: the first whose flags do not say that it is.
fn packed_place(space: &AddressSpace, config: &QueueConfig) -> Option<u16> {
    const AVAIL: u16 = 1 << 7;
    const USED: u16 = 1 << 15;
    let flags = (0..config.size).map(|place| after(config.descriptor, u64::from(place) * 16 + 14));
    let flags = read_u16(space, &flags.collect::<Option<Vec<_>>>()?)?;
    let next = (0..)
        .zip(&flags)
        .find(|(_, flags)| **flags & (AVAIL | USED) != AVAIL);
    // All of them are: it goes on with the first, the wrap counter turned.
    Some(next.map_or(0, |(place, _): (u16, _)| place | WRAP))
}

fn after(at: Iova, offset: u64) -> Option<Iova> {
    at.get().checked_add(offset).map(Iova::new)
}

/// Words of memory; `None` where one of them is not mapped.
fn read_u16(space: &AddressSpace, places: &[Iova]) -> Option<Vec<u16>> {
    let mut reader = space.reader();
    let section = reader.enter();
    let mut near = Default::default();
    let mut words = Vec::with_capacity(places.len());
    for &at in places {
        let bytes = section
            .translate(at, 2, Access::DeviceReads, &mut near)
            .ok()?;
        let mut word = [0; 2];
        if bytes.read(0, &mut word) != word.len() {
            return None;
        }
        words.push(u16::from_le_bytes(word));
    }
    Some(words)
}

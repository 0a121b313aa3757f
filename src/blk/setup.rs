//! From a device to a running driver.

use vdpa_core::bits::{self, block};
use vdpa_core::config::block::SECTOR;
use vdpa_core::session::{Configured, Negotiating, QueueSetup};
use vdpa_core::{Device, DeviceType, Features, QueueIndex, Session, graph};
use vdpa_mem::Deadline;

use super::lane::{Lane, buffer_bytes};
use super::request::HEADER;
use super::{BlkDriver, BlkError, Disk, PATIENCE, Ring};

/// What a driver asks of its device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Setup {
    /// The rings.
    pub ring: Ring,
    /// Request queues, at least 1. More than one needs MQ.
    pub queues: u16,
    /// Descriptors in a queue, at most: the largest legal size that neither this nor the device's limit exceeds.
    pub queue_size: u16,
    /// Requests under way on a queue, at most.
    pub requests: u16,
    /// Bytes of data of one request, at most: a multiple of 512.
    pub transfer: u32,
    /// Features to do without, though the device offers them, such as INDIRECT_DESC.
    pub decline: Features,
}

impl Default for Setup {
    /// One queue of split rings, 64 requests of up to 64 KiB.
    fn default() -> Self {
        Self {
            ring: Ring::default(),
            queues: 1,
            queue_size: 256,
            requests: 64,
            transfer: 64 << 10,
            decline: Features::NONE,
        }
    }
}

/// What this driver understands, the rings apart.
const KNOWN: Features = Features::of(&[
    bits::VERSION_1,
    bits::ACCESS_PLATFORM,
    bits::ORDER_PLATFORM,
    bits::INDIRECT_DESC,
    bits::EVENT_IDX,
    bits::RING_RESET,
    block::SIZE_MAX,
    block::SEG_MAX,
    block::GEOMETRY,
    block::RO,
    block::BLK_SIZE,
    block::FLUSH,
    block::TOPOLOGY,
    block::CONFIG_WCE,
    block::DISCARD,
    block::WRITE_ZEROES,
    block::SECURE_ERASE,
]);

/// Bytes of a sector.
const SECTOR_BYTES: u32 = SECTOR as u32;

pub(super) fn start(device: Device, setup: &Setup) -> Result<BlkDriver, BlkError> {
    let device_type = device.info().device_type;
    if device_type != DeviceType::Block {
        return Err(BlkError::NotBlock { device_type });
    }
    let by = Deadline::after(PATIENCE);
    let session = Session::open(device, by).map_err(|(_, error)| error)?;
    let wanted = choose(&session, setup)?;
    let mut session = session.negotiate(wanted).map_err(|(_, error)| error)?;
    let disk = Disk::of(session.device())?;
    let most = match session.features().contains(block::MQ) {
        true => disk.config.num_queues().max(1),
        false => 1,
    };
    if setup.queues == 0 || setup.queues > most {
        let asked = setup.queues;
        return Err(BlkError::Queues { asked, most });
    }
    let transfer = transfer(setup, &disk, session.features());
    let mut requests = Vec::new();
    for queue in 0..setup.queues {
        let size = legal_size(&session, QueueIndex::new(queue), setup)?;
        // A request is two segments: with tables that is one descriptor of the ring, without it is two.
        let indirect = session.features().contains(bits::INDIRECT_DESC);
        let room = if indirect { size } else { size / 2 };
        let buffers = setup.requests.clamp(1, room.max(1));
        // A chain has no more parts than the queue descriptors, with a table too: virtio 1.4 §2.7.5.3.1.
        if size < 2 {
            return Err(BlkError::QueueSize { queue, size });
        }
        requests.push(buffers);
        let setup = QueueSetup {
            size,
            buffers: buffers.into(),
            buffer_len: buffer_bytes(transfer),
            indirect: 2,
            ..QueueSetup::default()
        };
        session.queue(QueueIndex::new(queue), setup)?;
    }
    let session = session.run().map_err(|(_, error)| error)?;
    let (control, queues) = session.split();
    let lanes = queues.into_iter().zip(requests);
    Ok(BlkDriver {
        lanes: lanes
            .map(|(queue, count)| Lane::new(queue, count))
            .collect(),
        control,
        disk,
        transfer: transfer as usize,
    })
}

/// The features to ask for.
fn choose(session: &Session<Negotiating>, setup: &Setup) -> Result<Features, BlkError> {
    let acceptable = session.acceptable();
    let missing = setup.ring.features() - acceptable;
    if !missing.is_empty() {
        return Err(BlkError::RingNotOffered {
            ring: setup.ring,
            missing: missing.display(DeviceType::Block).to_string(),
        });
    }
    let mut known = KNOWN;
    if setup.queues > 1 {
        known |= block::MQ;
    }
    let known = (known - setup.decline) | setup.ring.features();
    Ok(graph::close_down(DeviceType::Block, acceptable & known))
}

/// The most bytes of data in one request: each has one segment of them.
fn transfer(setup: &Setup, disk: &Disk, features: Features) -> u32 {
    let most = match features.contains(block::SIZE_MAX) {
        // The header shares the segment of what is written; the status, which is shorter, that of what is read.
        true => disk.config.size_max().saturating_sub(HEADER as u32),
        false => u32::MAX,
    };
    let sectors = setup.transfer.min(most).min(1 << 30) / SECTOR_BYTES;
    sectors.max(1) * SECTOR_BYTES
}

fn legal_size(
    session: &Session<Configured>,
    q: QueueIndex,
    setup: &Setup,
) -> Result<u16, BlkError> {
    let size = setup.queue_size.min(session.queue_limits(q)?.max_size);
    // A size of 0 is for the session to refuse.
    Ok(match size.checked_ilog2() {
        Some(log) if !session.features().contains(bits::RING_PACKED) => 1 << log,
        _ => size,
    })
}

#[cfg(test)]
mod tests {
    use vdpa_core::config::BlockConfig;

    use super::*;

    #[test]
    fn no_segment_is_longer_than_size_max() {
        let setup = Setup::default();
        for (size_max, most) in [
            (1025, 512),
            (1039, 512),
            (1040, 1024),
            (1 << 16, (1 << 16) - 512),
            (u32::MAX, 1 << 16),
        ] {
            let disk = Disk {
                config: BlockConfig::new().with_size_max(size_max),
            };
            let features = block::SIZE_MAX.mask();
            assert_eq!(transfer(&setup, &disk, features), most, "{size_max}");
            assert_eq!(transfer(&setup, &disk, Features::NONE), 1 << 16);
        }
    }
}

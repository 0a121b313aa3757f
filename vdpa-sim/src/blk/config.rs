//! What a block device is made with, and its configuration space.

use vdpa_core::config::{BlockConfig, block::SECTOR};
use vdpa_core::{Features, bits, bits::block};

/// Bytes of the identity that GET_ID answers with, virtio 1.4 §5.2.6.
pub const ID_BYTES: usize = 20;

/// The most request queues.
pub const MAX_QUEUES: u16 = 128;

/// The largest disk in sectors of 512 bytes: its bytes are counted in 64 bits, as a file's are with a sign.
pub const MAX_SECTORS: u64 = i64::MAX as u64 / SECTOR;

/// The most segments of a discard or of a write-zeroes, and sectors of each.
pub(super) const DISCARD_SEGMENTS: u32 = 32;
pub(super) const DISCARD_SECTORS: u32 = 1 << 22;
pub(super) const ZERO_SECTORS: u32 = 1 << 16;
/// The same of a secure erase, which overwrites all of it.
pub(super) const ERASE_SEGMENTS: u32 = 16;
pub(super) const ERASE_SECTORS: u32 = 1 << 11;

/// The most bytes of a segment that a driver is told of; longer ones are taken all the same.
const SEGMENT_BYTES: u32 = 4 << 20;

/// What a block device is made with. Fixed for its life, but for the capacity.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Sectors of 512 bytes at first, up to [`MAX_SECTORS`].
    pub capacity: u64,
    /// Request queues, 1 to 128.
    pub queues: u16,
    /// The largest queue size, 1 to 32768. A split ring uses powers of two up to it.
    pub queue_size: u16,
    /// The block size in bytes that the driver is told of: a power of two from 512 on.
    pub blk_size: u32,
    /// What GET_ID answers with, filled up with zeroes.
    pub id: [u8; ID_BYTES],
    /// What it offers. With RO, nothing that changes the disk.
    pub features: Features,
}

/// All that a block device can offer.
pub const POSSIBLE: Features = Features::of(&[
    bits::VERSION_1,
    bits::ACCESS_PLATFORM,
    bits::RING_PACKED,
    bits::IN_ORDER,
    bits::NOTIFICATION_DATA,
    bits::INDIRECT_DESC,
    bits::EVENT_IDX,
    bits::RING_RESET,
    bits::SUSPEND,
    block::SIZE_MAX,
    block::SEG_MAX,
    block::GEOMETRY,
    block::RO,
    block::BLK_SIZE,
    block::TOPOLOGY,
    block::MQ,
    block::FLUSH,
    block::CONFIG_WCE,
    block::DISCARD,
    block::WRITE_ZEROES,
    block::SECURE_ERASE,
]);

/// What of it changes the disk.
const CHANGES: Features = Features::of(&[block::DISCARD, block::WRITE_ZEROES, block::SECURE_ERASE]);

/// The size that front ends give a disk's queue where nobody asked for another.
const COMMON_QUEUE_SIZE: u16 = 128;

impl Settings {
    /// What a device can offer that may be written, or only be read.
    pub fn possible(read_only: bool) -> Features {
        if read_only {
            POSSIBLE.difference(CHANGES)
        } else {
            POSSIBLE.without(block::RO)
        }
    }

    /// Whether the disk may only be read.
    pub fn is_read_only(&self) -> bool {
        self.features.contains(block::RO)
    }

    /// Its configuration space, virtio 1.4 §5.2.4.
    ///
    /// * `capacity`: sectors of 512 bytes
    /// * `writeback`: the cache mode of the moment
    pub fn space(&self, capacity: u64, writeback: bool) -> BlockConfig {
        const HEADS: u8 = 16;
        const TRACK: u8 = 63;
        let cylinder = u64::from(HEADS).saturating_mul(TRACK.into());
        let cylinders = capacity.checked_div(cylinder).unwrap_or(0);
        let sectors = u64::from(self.blk_size)
            .checked_div(SECTOR)
            .unwrap_or(1)
            .max(1) as u32;
        // Pages are what files and memory are made of.
        let page = 4096_u32.max(self.blk_size);
        let exponent = page.checked_div(self.blk_size.max(1)).unwrap_or(1).max(1);
        // A header and a status beside the data. No chain is longer than its queue, tables included (virtio 1.4 §2.7.5.3.1),
        // yet Linux fills them by this number alone, whatever size the queue was given: QEMU gives 128 unless told otherwise.
        let segments = u32::from(self.queue_size.min(COMMON_QUEUE_SIZE))
            .saturating_sub(2)
            .clamp(1, super::iov::MOST as u32);
        BlockConfig::default()
            .with_capacity(capacity)
            .with_size_max(SEGMENT_BYTES)
            .with_seg_max(segments)
            .with_cylinders(u16::try_from(cylinders).unwrap_or(u16::MAX))
            .with_heads(HEADS)
            .with_sectors(TRACK)
            .with_blk_size(self.blk_size)
            .with_physical_block_exp(exponent.ilog2() as u8)
            .with_min_io_size(1)
            .with_opt_io_size((1_u32 << 20).checked_div(self.blk_size).unwrap_or(0))
            .with_writeback(writeback.into())
            .with_num_queues(self.queues)
            .with_max_discard_sectors(DISCARD_SECTORS)
            .with_max_discard_seg(DISCARD_SEGMENTS)
            .with_discard_sector_alignment(sectors)
            .with_max_write_zeroes_sectors(ZERO_SECTORS)
            .with_max_write_zeroes_seg(DISCARD_SEGMENTS)
            .with_write_zeroes_may_unmap(1)
            .with_max_secure_erase_sectors(ERASE_SECTORS)
            .with_max_secure_erase_seg(ERASE_SEGMENTS)
            .with_secure_erase_sector_alignment(sectors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_space_is_legal_for_disks_of_every_size() {
        for capacity in [0, 1, 1 << 20, MAX_SECTORS] {
            for (blk_size, queue_size) in [(512, 1), (4096, 1024), (65536, 32768)] {
                let settings = Settings {
                    capacity,
                    queues: 4,
                    queue_size,
                    blk_size,
                    id: [0; ID_BYTES],
                    features: Settings::possible(false),
                };
                let space = settings.space(capacity, true);
                space.check(settings.features).unwrap();
                assert_eq!(
                    u64::from(blk_size) << space.physical_block_exp(),
                    u64::from(4096.max(blk_size))
                );
                assert!(space.seg_max() >= 1 && space.capacity_bytes().is_some());
            }
        }
    }

    #[test]
    fn a_disk_that_may_only_be_read_offers_no_way_to_change_it() {
        let features = Settings::possible(true);
        assert!(features.contains(block::RO) && !features.contains(block::DISCARD));
        assert!(!Settings::possible(false).contains(block::RO));
    }
}

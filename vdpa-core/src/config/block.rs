//! The config space of a block device (virtio 1.4 §5.2.4).
//!
//! ```text
//!   0 capacity             8 size_max           12 seg_max
//!  16 geometry            20 blk_size           24 topology
//!  32 writeback           33 padding            34 num_queues
//!  36 discard: sectors, segments, alignment
//!  48 write zeroes: sectors, segments, may unmap, 3 bytes of padding
//!  60 secure erase: sectors, segments, alignment
//!  72 zoned: sectors, open, active, append, granularity, model, 3 bytes of padding
//! ```

use super::{Cell, Field, FieldError, Writable, check};
use crate::bits::block;
use crate::features::Features;

/// How a zoned block device behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZoneModel {
    /// Zones are the device's own affair: used as any other disk.
    None,
    /// Zones are written in sequence only.
    HostManaged,
    /// Zones are best written in sequence.
    HostAware,
    /// A value that virtio 1.4 does not define.
    Other(u8),
}

impl ZoneModel {
    /// The value in the config space.
    pub const fn to_u8(self) -> u8 {
        match self {
            Self::None => 0,
            Self::HostManaged => 1,
            Self::HostAware => 2,
            Self::Other(value) => value,
        }
    }

    /// What the value means.
    pub const fn from_u8(value: u8) -> Self {
        match value {
            0 => Self::None,
            1 => Self::HostManaged,
            2 => Self::HostAware,
            other => Self::Other(other),
        }
    }
}

/// The unit of `capacity` and of every other count of sectors, in bytes, whatever `blk_size` is.
pub const SECTOR: u64 = 512;

layout! {
    /// The config space of a block device. `writeback` alone may be written by the driver.
    pub struct BlockConfig(96 bytes);
    capacity / with_capacity: u64 = "capacity" at 0;
    size_max / with_size_max: u32 = "size_max" at 8 if block::SIZE_MAX;
    seg_max / with_seg_max: u32 = "seg_max" at 12 if block::SEG_MAX;
    cylinders / with_cylinders: u16 = "geometry.cylinders" at 16 if block::GEOMETRY;
    heads / with_heads: u8 = "geometry.heads" at 18 if block::GEOMETRY;
    sectors / with_sectors: u8 = "geometry.sectors" at 19 if block::GEOMETRY;
    blk_size / with_blk_size: u32 = "blk_size" at 20 if block::BLK_SIZE;
    physical_block_exp / with_physical_block_exp: u8 = "topology.physical_block_exp" at 24
        if block::TOPOLOGY;
    alignment_offset / with_alignment_offset: u8 = "topology.alignment_offset" at 25
        if block::TOPOLOGY;
    min_io_size / with_min_io_size: u16 = "topology.min_io_size" at 26 if block::TOPOLOGY;
    opt_io_size / with_opt_io_size: u32 = "topology.opt_io_size" at 28 if block::TOPOLOGY;
    writeback / with_writeback: u8 = "writeback" at 32 if block::CONFIG_WCE, writable;
    num_queues / with_num_queues: u16 = "num_queues" at 34 if block::MQ;
    max_discard_sectors / with_max_discard_sectors: u32 = "max_discard_sectors" at 36
        if block::DISCARD;
    max_discard_seg / with_max_discard_seg: u32 = "max_discard_seg" at 40 if block::DISCARD;
    discard_sector_alignment / with_discard_sector_alignment: u32 = "discard_sector_alignment" at 44
        if block::DISCARD;
    max_write_zeroes_sectors / with_max_write_zeroes_sectors: u32 = "max_write_zeroes_sectors" at 48
        if block::WRITE_ZEROES;
    max_write_zeroes_seg / with_max_write_zeroes_seg: u32 = "max_write_zeroes_seg" at 52
        if block::WRITE_ZEROES;
    write_zeroes_may_unmap / with_write_zeroes_may_unmap: u8 = "write_zeroes_may_unmap" at 56
        if block::WRITE_ZEROES;
    max_secure_erase_sectors / with_max_secure_erase_sectors: u32 = "max_secure_erase_sectors" at 60
        if block::SECURE_ERASE;
    max_secure_erase_seg / with_max_secure_erase_seg: u32 = "max_secure_erase_seg" at 64
        if block::SECURE_ERASE;
    secure_erase_sector_alignment / with_secure_erase_sector_alignment: u32
        = "secure_erase_sector_alignment" at 68 if block::SECURE_ERASE;
    zone_sectors / with_zone_sectors: u32 = "zoned.zone_sectors" at 72 if block::ZONED;
    max_open_zones / with_max_open_zones: u32 = "zoned.max_open_zones" at 76 if block::ZONED;
    max_active_zones / with_max_active_zones: u32 = "zoned.max_active_zones" at 80
        if block::ZONED;
    max_append_sectors / with_max_append_sectors: u32 = "zoned.max_append_sectors" at 84
        if block::ZONED;
    write_granularity / with_write_granularity: u32 = "zoned.write_granularity" at 88
        if block::ZONED;
    model / with_raw_model: u8 = "zoned.model" at 92 if block::ZONED;
}

/// A reader for each field that needs no interpretation.
macro_rules! readers {
    ($( $(#[$doc:meta])* $field:ident: $int:ty; )*) => {
        impl BlockConfig {
            $( $(#[$doc])* pub const fn $field(&self) -> $int { self.$field } )*
        }
    };
}

readers! {
    /// The size of the disk in sectors of 512 bytes. Always exists.
    capacity: u64;
    /// The most bytes of a segment. Exists with `SIZE_MAX`.
    size_max: u32;
    /// The most segments of a request. Exists with `SEG_MAX`.
    seg_max: u32;
    /// Cylinders of the disk. Exists with `GEOMETRY`.
    cylinders: u16;
    /// Heads of the disk. Exists with `GEOMETRY`.
    heads: u8;
    /// Sectors of a track. Exists with `GEOMETRY`.
    sectors: u8;
    /// The block size in bytes that works best. Exists with `BLK_SIZE`.
    blk_size: u32;
    /// Logical blocks in a physical one, as a power of two. Exists with `TOPOLOGY`.
    physical_block_exp: u8;
    /// The first aligned logical block. Exists with `TOPOLOGY`.
    alignment_offset: u8;
    /// The smallest sensible request in blocks. Exists with `TOPOLOGY`.
    min_io_size: u16;
    /// The best largest request in blocks. Exists with `TOPOLOGY`.
    opt_io_size: u32;
    /// The number of request queues. Exists with `MQ`.
    num_queues: u16;
    /// The most sectors (512 bytes) of a discard segment. Exists with `DISCARD`.
    max_discard_sectors: u32;
    /// The most segments of a discard. Exists with `DISCARD`.
    max_discard_seg: u32;
    /// The alignment of discards in sectors of 512 bytes. Exists with `DISCARD`.
    discard_sector_alignment: u32;
    /// The most sectors (512 bytes) of a write-zeroes segment. Exists with `WRITE_ZEROES`.
    max_write_zeroes_sectors: u32;
    /// The most segments of a write-zeroes. Exists with `WRITE_ZEROES`.
    max_write_zeroes_seg: u32;
    /// The most sectors (512 bytes) of a secure-erase segment. Exists with `SECURE_ERASE`.
    max_secure_erase_sectors: u32;
    /// The most segments of a secure erase. Exists with `SECURE_ERASE`.
    max_secure_erase_seg: u32;
    /// The alignment of secure erases in sectors of 512 bytes. Exists with `SECURE_ERASE`.
    secure_erase_sector_alignment: u32;
    /// The size of a zone in sectors of 512 bytes. Exists with `ZONED`.
    zone_sectors: u32;
    /// The most zones open at once, 0 for no limit. Exists with `ZONED`.
    max_open_zones: u32;
    /// The most zones active at once, 0 for no limit. Exists with `ZONED`.
    max_active_zones: u32;
    /// The most sectors (512 bytes) of a zone append. Exists with `ZONED`.
    max_append_sectors: u32;
    /// The unit of writes to a zone in bytes. Exists with `ZONED`.
    write_granularity: u32;
}

impl BlockConfig {
    /// The size of the disk in bytes; `None` if it does not fit 64 bits.
    pub const fn capacity_bytes(&self) -> Option<u64> {
        self.capacity.checked_mul(SECTOR)
    }

    /// Whether the cache writes back (and a flush is needed) or through. Exists with
    /// `CONFIG_WCE`; the driver may write it.
    pub const fn writeback(&self) -> bool {
        self.writeback != 0
    }

    /// Whether write-zeroes may free the sectors. Exists with `WRITE_ZEROES`.
    pub const fn write_zeroes_may_unmap(&self) -> bool {
        self.write_zeroes_may_unmap != 0
    }

    /// How the zones behave. Exists with `ZONED`.
    pub const fn model(&self) -> ZoneModel {
        ZoneModel::from_u8(self.model)
    }

    /// The same with another zone model.
    #[must_use]
    pub const fn with_model(self, model: ZoneModel) -> Self {
        self.with_raw_model(model.to_u8())
    }

    /// Whether a device that offers these features may show this config space.
    ///
    /// # Errors
    /// [`FieldError`] with the first field that is out of its range.
    ///
    /// # Spec
    /// virtio 1.4 §5.2.4, §5.2.5
    pub fn check(&self, offered: Features) -> Result<(), FieldError> {
        let most = u64::MAX / SECTOR;
        check(true, "capacity", self.capacity, 0..=most)?;
        check(
            offered.contains(block::CONFIG_WCE),
            "writeback",
            self.writeback,
            0..=1,
        )?;
        check(
            offered.contains(block::MQ),
            "num_queues",
            self.num_queues,
            1..=65535,
        )?;
        check(
            offered.contains(block::WRITE_ZEROES),
            "write_zeroes_may_unmap",
            self.write_zeroes_may_unmap,
            0..=1,
        )?;
        check(
            offered.contains(block::ZONED),
            "zoned.model",
            self.model,
            0..=2,
        )
    }
}

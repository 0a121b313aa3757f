//! A request, and how it is put down: virtio 1.4 §5.2.6.

use std::fmt;

use vdpa_core::config::block::SECTOR;
use vdpa_core::{Features, bits::block};

use super::{BlkError, Disk};

/// Bytes of a header.
pub(super) const HEADER: usize = 16;
/// Bytes of a segment of a discard and its like.
pub(super) const SEGMENT: usize = 16;
/// Bytes of an identity.
pub const ID_BYTES: usize = 20;

/// What a request does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Op {
    /// Data is read.
    Read,
    /// Data is written.
    Write,
    /// What was written before is made durable.
    Flush,
    /// The disk says who it is.
    Id,
    /// Sectors are given up.
    Discard,
    /// Sectors are filled with zeroes.
    WriteZeroes,
    /// Sectors are erased for good.
    SecureErase,
}

impl Op {
    /// The type in the header.
    const fn kind(self) -> u32 {
        match self {
            Self::Read => 0,
            Self::Write => 1,
            Self::Flush => 4,
            Self::Id => 8,
            Self::Discard => 11,
            Self::WriteZeroes => 13,
            Self::SecureErase => 14,
        }
    }
}

/// As in "cannot be read".
impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "written",
            Self::Flush => "flushed",
            Self::Id => "identified",
            Self::Discard => "discarded",
            Self::WriteZeroes => "zeroed",
            Self::SecureErase => "erased",
        })
    }
}

/// A request. Sectors are of 512 bytes, whatever the block size is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request<'a> {
    /// Reads `len` bytes, a multiple of 512, from `sector` on.
    Read {
        /// The first sector.
        sector: u64,
        /// How many bytes.
        len: usize,
    },
    /// Writes `data`, a multiple of 512 bytes, from `sector` on.
    Write {
        /// The first sector.
        sector: u64,
        /// What.
        data: &'a [u8],
    },
    /// Makes durable what was written before. Needs FLUSH.
    Flush,
    /// Asks for the identity of the disk: [`ID_BYTES`] bytes.
    Id,
    /// Gives `sectors` sectors from `sector` on up. Needs DISCARD.
    Discard {
        /// The first sector.
        sector: u64,
        /// How many.
        sectors: u32,
    },
    /// Has `sectors` sectors from `sector` on read as zeroes. Needs WRITE_ZEROES.
    WriteZeroes {
        /// The first sector.
        sector: u64,
        /// How many.
        sectors: u32,
        /// Whether their storage may be given up.
        unmap: bool,
    },
    /// Erases `sectors` sectors from `sector` on for good. Needs SECURE_ERASE.
    SecureErase {
        /// The first sector.
        sector: u64,
        /// How many.
        sectors: u32,
    },
}

impl<'a> Request<'a> {
    /// What it does.
    pub const fn op(&self) -> Op {
        match self {
            Self::Read { .. } => Op::Read,
            Self::Write { .. } => Op::Write,
            Self::Flush => Op::Flush,
            Self::Id => Op::Id,
            Self::Discard { .. } => Op::Discard,
            Self::WriteZeroes { .. } => Op::WriteZeroes,
            Self::SecureErase { .. } => Op::SecureErase,
        }
    }

    /// The first sector that it is about.
    pub const fn sector(&self) -> u64 {
        match self {
            Self::Read { sector, .. }
            | Self::Write { sector, .. }
            | Self::Discard { sector, .. }
            | Self::WriteZeroes { sector, .. }
            | Self::SecureErase { sector, .. } => *sector,
            Self::Flush | Self::Id => 0,
        }
    }

    /// The header.
    pub(super) fn header(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..4].copy_from_slice(&self.op().kind().to_le_bytes());
        // The sector of a segment is in the segment.
        if let Self::Read { sector, .. } | Self::Write { sector, .. } = self {
            bytes[8..].copy_from_slice(&sector.to_le_bytes());
        }
        bytes
    }

    /// The segment of a discard and its like.
    pub(super) fn segment(&self) -> Option<[u8; SEGMENT]> {
        let (sector, sectors, flags) = match *self {
            Self::Discard { sector, sectors } | Self::SecureErase { sector, sectors } => {
                (sector, sectors, 0)
            }
            Self::WriteZeroes {
                sector,
                sectors,
                unmap,
            } => (sector, sectors, u32::from(unmap)),
            _ => return None,
        };
        let mut bytes = [0; SEGMENT];
        bytes[..8].copy_from_slice(&sector.to_le_bytes());
        bytes[8..12].copy_from_slice(&sectors.to_le_bytes());
        bytes[12..].copy_from_slice(&flags.to_le_bytes());
        Some(bytes)
    }

    /// How many bytes the device has to write before the status.
    pub(super) const fn answer(&self) -> usize {
        match self {
            Self::Read { len, .. } => *len,
            Self::Id => ID_BYTES,
            _ => 0,
        }
    }

    /// What a device with these features and limits would refuse is refused here.
    ///
    /// * `most`: bytes of data that a request has room for
    pub(super) fn check(
        &self,
        disk: &Disk,
        features: Features,
        most: usize,
    ) -> Result<(), BlkError> {
        let op = self.op();
        let needs = |bit, feature| match features.contains(bit) {
            true => Ok(()),
            false => Err(BlkError::NotNegotiated { op, feature }),
        };
        let data = |sector, len: usize| {
            if !len.is_multiple_of(SECTOR as usize) || len > most || len == 0 {
                return Err(BlkError::Length { op, len, most });
            }
            disk.check(op, sector, len as u64 / SECTOR)
        };
        let segment = |sector, sectors: u32, most: u32| {
            if sectors > most {
                let sectors = sectors.into();
                return Err(BlkError::Limit { op, sectors, most });
            }
            disk.check(op, sector, sectors.into())
        };
        match *self {
            Self::Read { sector, len } => data(sector, len),
            Self::Write { sector, data: from } => data(sector, from.len()),
            Self::Flush => needs(block::FLUSH, "FLUSH"),
            Self::Id => Ok(()),
            Self::Discard { sector, sectors } => {
                needs(block::DISCARD, "DISCARD")?;
                segment(sector, sectors, disk.config.max_discard_sectors())
            }
            Self::WriteZeroes {
                sector, sectors, ..
            } => {
                needs(block::WRITE_ZEROES, "WRITE_ZEROES")?;
                segment(sector, sectors, disk.config.max_write_zeroes_sectors())
            }
            Self::SecureErase { sector, sectors } => {
                needs(block::SECURE_ERASE, "SECURE_ERASE")?;
                segment(sector, sectors, disk.config.max_secure_erase_sectors())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_and_segments_are_the_specification_s() {
        let data = [0; 512];
        let write = Request::Write {
            sector: 0x0102_0304_0506_0708,
            data: &data,
        };
        let header = [1, 0, 0, 0, 0, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1];
        assert_eq!(write.header(), header);
        assert_eq!((write.segment(), write.answer()), (None, 0));
        let zeroes = Request::WriteZeroes {
            sector: 9,
            sectors: 0x1_0000,
            unmap: true,
        };
        assert_eq!(zeroes.header()[..4], [13, 0, 0, 0]);
        assert_eq!(zeroes.header()[4..], [0; 12]);
        let segment = [9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0];
        assert_eq!(zeroes.segment(), Some(segment));
        assert_eq!(Request::Id.answer(), ID_BYTES);
    }
}

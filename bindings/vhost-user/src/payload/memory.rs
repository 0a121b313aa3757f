//! What is said of memory.

use std::os::fd::OwnedFd;

use super::{Cursor, Fields, Layout, checked_range};
use crate::{Error, MAX_FDS};

/// How many regions a table can have.
pub const MAX_TABLE: usize = MAX_FDS;

/// A region of the front end's memory, in a file that comes with it.
///
/// ```text
///   0       8      16     24            32
///   ├ guest ┼ size ┼ user ┼ mmap offset ┤
/// ```
/// None of the three ranges is empty or wraps. Whether the file is as long is for who maps it.
///
/// # Spec
/// vhost-user, "Memory region description".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryRegion {
    /// Where the guest has it.
    pub guest: u64,
    /// How long it is, in bytes.
    pub size: u64,
    /// Where the front end has it.
    pub user: u64,
    /// Where it begins in the file, in bytes.
    pub offset: u64,
}

impl MemoryRegion {
    /// In what two regions have bytes in common, or `None`.
    pub fn shares(&self, other: &Self) -> Option<&'static str> {
        let meet = |a: u64, a_size: u64, b: u64, b_size: u64| {
            if a <= b {
                b.wrapping_sub(a) < a_size
            } else {
                a.wrapping_sub(b) < b_size
            }
        };
        if meet(self.guest, self.size, other.guest, other.size) {
            Some("guest addresses")
        } else if meet(self.user, self.size, other.user, other.size) {
            Some("user addresses")
        } else {
            None
        }
    }
}

impl Layout for MemoryRegion {
    fn read(from: &mut Cursor<'_>) -> Result<Self, Error> {
        let region = Self {
            guest: from.u64()?,
            size: from.u64()?,
            user: from.u64()?,
            offset: from.u64()?,
        };
        let size = region.size;
        checked_range(from.name, "guest address", region.guest, size)?;
        checked_range(from.name, "user address", region.user, size)?;
        checked_range(from.name, "mmap offset", region.offset, size)?;
        Ok(region)
    }

    fn write(&self, to: Fields) -> Fields {
        to.u64(self.guest)
            .u64(self.size)
            .u64(self.user)
            .u64(self.offset)
    }
}

/// The first two of some regions that have bytes in common, and in what.
pub fn overlapping(regions: &[MemoryRegion]) -> Option<(usize, usize, &'static str)> {
    regions.iter().enumerate().find_map(|(first, region)| {
        let mut others = regions.iter().enumerate().skip(first).skip(1);
        others.find_map(|(second, other)| region.shares(other).map(|field| (first, second, field)))
    })
}

/// A table, with the file of each region.
pub(crate) fn table(
    from: &mut Cursor<'_>,
    fds: Vec<OwnedFd>,
) -> Result<Vec<(MemoryRegion, OwnedFd)>, Error> {
    let read = regions(from)?;
    if fds.len() != read.len() {
        return Err(Error::Fds {
            name: from.name,
            have: fds.len(),
            least: read.len(),
            most: read.len(),
        });
    }
    if let Some((first, second, field)) = overlapping(&read) {
        return Err(Error::Overlap {
            name: from.name,
            first,
            second,
            field,
        });
    }
    Ok(read.into_iter().zip(fds).collect())
}

/// As many regions as a table says it has, and says so truly.
fn regions(from: &mut Cursor<'_>) -> Result<Vec<MemoryRegion>, Error> {
    let count = from.u32()?;
    let _padding = from.u32()?;
    let count = match usize::try_from(count) {
        Ok(count) if count <= MAX_TABLE => count,
        _ => return Err(from.value("count of regions", count.into(), "up to 8")),
    };
    let regions = (0..count).map(|_| MemoryRegion::read(from)).collect();
    match from.left() {
        0 => regions,
        _ => Err(from.wrong_length()),
    }
}

bitflags::bitflags! {
    /// What a device may do with memory.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct Access: u8 {
        /// The device may read it.
        const READ = 1 << 0;
        /// The device may write it.
        const WRITE = 1 << 1;
    }
}

/// What an [`Iotlb`] message says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
#[repr(u8)]
pub enum IotlbKind {
    /// The device needs what is not there (`VHOST_IOTLB_MISS`).
    Miss = 1,
    /// It is there now (`VHOST_IOTLB_UPDATE`).
    Update = 2,
    /// It is there no more (`VHOST_IOTLB_INVALIDATE`).
    Invalidate = 3,
    /// The device may not do what it tried (`VHOST_IOTLB_ACCESS_FAIL`).
    AccessFail = 4,
}

/// A translation, or the lack of one.
///
/// ```text
///   0      8      16     24            25     26   (32 with the padding of the C structure, as QEMU sends it)
///   ├ iova ┼ size ┼ user ┼ permissions ┼ kind ┤
/// ```
/// The ranges of an update are neither empty nor wrap, nor does that of an invalidation, which may be empty: that is
/// what becomes of all 2^64 bytes in a size of 64 bits. A miss has no size.
///
/// # Spec
/// vhost-user, "An IOTLB message".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Iotlb {
    /// The address that the device uses.
    pub iova: u64,
    /// How many bytes from there on.
    pub size: u64,
    /// Where the front end has them.
    pub user: u64,
    /// What the device may do there, or tried to.
    pub access: Access,
    /// What is said.
    pub kind: IotlbKind,
}

impl Layout for Iotlb {
    fn read(from: &mut Cursor<'_>) -> Result<Self, Error> {
        let (iova, size, user) = (from.u64()?, from.u64()?, from.u64()?);
        let access = from.u8()?;
        let kind = from.u8()?;
        let read = Self {
            iova,
            size,
            user,
            access: Access::from_bits(access)
                .ok_or_else(|| from.value("permissions", access.into(), "0 to 3"))?,
            kind: match kind {
                1 => IotlbKind::Miss,
                2 => IotlbKind::Update,
                3 => IotlbKind::Invalidate,
                4 => IotlbKind::AccessFail,
                _ => return Err(from.value("type", kind.into(), "1 to 4")),
            },
        };
        match read.kind {
            IotlbKind::Update => {
                checked_range(from.name, "iova", iova, size)?;
                checked_range(from.name, "user address", user, size)?;
            }
            IotlbKind::Invalidate if size > 0 => checked_range(from.name, "iova", iova, size)?,
            IotlbKind::Invalidate | IotlbKind::Miss | IotlbKind::AccessFail => {}
        }
        Ok(read)
    }

    fn write(&self, to: Fields) -> Fields {
        to.u64(self.iova)
            .u64(self.size)
            .u64(self.user)
            .u8(self.access.bits())
            .u8(self.kind as u8)
            .pad(32)
    }
}

//! What is said of a queue.

use std::os::fd::OwnedFd;

use super::{Cursor, Fields, Layout};
use crate::Error;

/// A queue and a number: its size, its base, whether it is enabled.
///
/// ```text
///   0       4     8
///   ├ index ┼ num ┤
/// ```
/// The base of a split queue is the next index of the available ring, in the low 16 bits; that of a packed one has the next
/// available entry in bits 0 to 14 with its wrap counter in 15, and the next used entry in bits 16 to 30 with its in 31.
///
/// # Spec
/// vhost-user, "A vring state description", "A vring descriptor index for split virtqueues", "Vring descriptor indices for
/// packed virtqueues".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VringState {
    /// The queue: 32 bits, all of which count.
    pub index: u32,
    /// The number.
    pub num: u32,
}

impl Layout for VringState {
    fn read(from: &mut Cursor<'_>) -> Result<Self, Error> {
        Ok(Self {
            index: from.u32()?,
            num: from.u32()?,
        })
    }

    fn write(&self, to: Fields) -> Fields {
        to.u32(self.index).u32(self.num)
    }
}

bitflags::bitflags! {
    /// What is to be done with a queue's writes.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct VringFlags: u32 {
        /// `VHOST_VRING_F_LOG`: writes to the used ring are logged.
        const LOG = 1 << 0;
    }
}

/// Where a queue's areas are: user addresses of the front end, or IOVAs where `ACCESS_PLATFORM` is negotiated.
///
/// ```text
///   0       4       8            16     24          32    40
///   ├ index ┼ flags ┼ descriptor ┼ used ┼ available ┼ log ┤
/// ```
///
/// # Spec
/// vhost-user, "A vring address description".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VringAddr {
    /// The queue.
    pub index: u32,
    /// How it is logged.
    pub flags: VringFlags,
    /// The descriptor area.
    pub descriptor: u64,
    /// The device area.
    pub used: u64,
    /// The driver area.
    pub available: u64,
    /// The guest-physical address by which writes to the used ring are logged.
    pub log: u64,
}

impl Layout for VringAddr {
    fn read(from: &mut Cursor<'_>) -> Result<Self, Error> {
        let index = from.u32()?;
        let flags = from.u32()?;
        Ok(Self {
            index,
            flags: VringFlags::from_bits(flags)
                .ok_or_else(|| from.value("flags", flags.into(), "bit 0 is the only one"))?,
            descriptor: from.u64()?,
            used: from.u64()?,
            available: from.u64()?,
            log: from.u64()?,
        })
    }

    fn write(&self, to: Fields) -> Fields {
        to.u32(self.index)
            .u32(self.flags.bits())
            .u64(self.descriptor)
            .u64(self.used)
            .u64(self.available)
            .u64(self.log)
    }
}

const NO_FD: u64 = 1 << 8;

/// A queue's kick, call or error descriptor.
///
/// ```text
///   bits 0-7: index · 8: no descriptor comes with it · all others 0
/// ```
/// Whether there is one is said twice, by the bit and by what comes; the two have to agree.
///
/// # Spec
/// vhost-user, `VHOST_USER_SET_VRING_KICK`.
#[derive(Debug)]
pub struct VringFd {
    /// The queue. More than 256 queues cannot be told apart here.
    pub index: u8,
    /// An eventfd. Without one, the other side polls.
    pub fd: Option<OwnedFd>,
}

impl VringFd {
    /// From the number and what came with it.
    pub(crate) fn read(from: &mut Cursor<'_>, fd: Option<OwnedFd>) -> Result<Self, Error> {
        let value = from.u64()?;
        let Ok(index) = u8::try_from(value & !NO_FD) else {
            return Err(from.value("index", value, "a queue of 0 to 255, and bit 8"));
        };
        let due = usize::from(value & NO_FD == 0);
        if due != usize::from(fd.is_some()) {
            return Err(Error::Fds {
                name: from.name,
                have: usize::from(fd.is_some()),
                least: due,
                most: due,
            });
        }
        Ok(Self { index, fd })
    }

    /// The number.
    pub(crate) fn payload(&self) -> Vec<u8> {
        let flag = if self.fd.is_some() { 0 } else { NO_FD };
        (u64::from(self.index) | flag).payload()
    }
}

/// A page of a descriptor in which a queue's doorbell is.
///
/// ```text
///   0                      8      16       24
///   ├ index (bits 0-7, 8: none) ┼ size ┼ offset ┤
/// ```
///
/// # Spec
/// vhost-user, "Vring area description".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VringArea {
    /// The queue, and bit 8 if there is no doorbell.
    pub vring: u64,
    /// How long it is, in bytes.
    pub size: u64,
    /// Where it begins in the file, in bytes.
    pub offset: u64,
}

impl Layout for VringArea {
    fn read(from: &mut Cursor<'_>) -> Result<Self, Error> {
        Ok(Self {
            vring: from.u64()?,
            size: from.u64()?,
            offset: from.u64()?,
        })
    }

    fn write(&self, to: Fields) -> Fields {
        to.u64(self.vring).u64(self.size).u64(self.offset)
    }
}

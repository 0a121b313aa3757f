//! What moves a device, and what outlives it.

use super::{Cursor, Fields, Layout, checked_range};
use crate::Error;

/// Where writes are logged: one bit for each page of 4 KiB, from guest address 0 on.
///
/// ```text
///   0      8        16
///   ├ size ┼ offset ┤
/// ```
///
/// # Spec
/// vhost-user, "Log description".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Log {
    /// How long it is, in bytes.
    pub size: u64,
    /// Where it begins in the file, in bytes.
    pub offset: u64,
}

impl Layout for Log {
    fn read(from: &mut Cursor<'_>) -> Result<Self, Error> {
        let log = Self {
            size: from.u64()?,
            offset: from.u64()?,
        };
        checked_range(from.name, "log offset", log.offset, log.size)?;
        Ok(log)
    }

    fn write(&self, to: Fields) -> Fields {
        to.u64(self.size).u64(self.offset)
    }
}

/// The record of requests in flight.
///
/// ```text
///   0           8             16       18           20   (24 with the padding of the C structure, as QEMU sends it)
///   ├ mmap size ┼ mmap offset ┼ queues ┼ queue size ┤
/// ```
/// In a request for one, size and offset are 0.
///
/// # Spec
/// vhost-user, "Inflight description".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Inflight {
    /// How long it is, in bytes.
    pub mmap_size: u64,
    /// Where it begins in the file, in bytes.
    pub mmap_offset: u64,
    /// Of how many queues.
    pub num_queues: u16,
    /// How large they are.
    pub queue_size: u16,
}

impl Layout for Inflight {
    fn read(from: &mut Cursor<'_>) -> Result<Self, Error> {
        let record = Self {
            mmap_size: from.u64()?,
            mmap_offset: from.u64()?,
            num_queues: from.u16()?,
            queue_size: from.u16()?,
        };
        if record.mmap_size != 0 {
            let start = record.mmap_offset;
            checked_range(from.name, "mmap offset", start, record.mmap_size)?;
        }
        Ok(record)
    }

    fn write(&self, to: Fields) -> Fields {
        to.u64(self.mmap_size)
            .u64(self.mmap_offset)
            .u16(self.num_queues)
            .u16(self.queue_size)
            .pad(24)
    }
}

/// Which way a device's state goes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u32)]
pub enum Direction {
    /// From the back end to the front end, where a device leaves.
    Save = 0,
    /// From the front end to the back end, where it arrives.
    Load = 1,
}

/// A transfer of what the device alone knows, while it is suspended: the one phase there is, of number 0.
///
/// ```text
///   0           4       8
///   ├ direction ┼ phase ┤
/// ```
///
/// # Spec
/// vhost-user, "Device state transfer parameters".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceState {
    /// Which way.
    pub direction: Direction,
}

impl Layout for DeviceState {
    fn read(from: &mut Cursor<'_>) -> Result<Self, Error> {
        let direction = match from.u32()? {
            0 => Direction::Save,
            1 => Direction::Load,
            other => return Err(from.value("direction", other.into(), "0 (save) or 1 (load)")),
        };
        match from.u32()? {
            0 => Ok(Self { direction }),
            phase => Err(from.value("phase", phase.into(), "0 (stopped)")),
        }
    }

    fn write(&self, to: Fields) -> Fields {
        to.u32(self.direction as u32).u32(0)
    }
}

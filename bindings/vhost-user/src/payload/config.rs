//! The device's configuration space.

use super::{Cursor, Fields, Layout};
use crate::Error;

/// How many bytes of configuration space one message can carry.
pub const MAX_CONFIG: usize = 256;

/// Bytes of the configuration space.
///
/// ```text
///   0        4      8       12
///   ├ offset ┼ size ┼ flags ┼─ size bytes ─
/// ```
/// A payload may be longer than its size says, since some front ends send the whole structure; never shorter.
///
/// # Spec
/// vhost-user, "Virtio device config space".
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Where they begin, in bytes.
    pub offset: u32,
    /// Why they are written: 0 by the driver, 1 by a migration. Not looked at here, since front ends differ in what they
    /// send.
    pub flags: u32,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// The same without the bytes: what is to be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConfigSpan {
    /// Where it begins, in bytes.
    pub offset: u32,
    /// How many bytes it has.
    pub size: u32,
    /// As in [`Config`].
    pub flags: u32,
}

impl Layout for ConfigSpan {
    fn read(from: &mut Cursor<'_>) -> Result<Self, Error> {
        let span = Self {
            offset: from.u32()?,
            size: from.u32()?,
            flags: from.u32()?,
        };
        if usize::try_from(span.size).map_or(true, |size| size > MAX_CONFIG) {
            return Err(from.value("size", span.size.into(), "up to 256 bytes"));
        }
        if span.offset.checked_add(span.size).is_none() {
            return Err(Error::Range {
                name: from.name,
                field: "offset",
                start: span.offset.into(),
                size: span.size.into(),
            });
        }
        Ok(span)
    }

    /// With room for the bytes, which a request to read them has to have.
    fn write(&self, to: Fields) -> Fields {
        let size = usize::try_from(self.size).unwrap_or(MAX_CONFIG);
        to.u32(self.offset)
            .u32(self.size)
            .u32(self.flags)
            .pad(size.min(MAX_CONFIG).saturating_add(12))
    }
}

impl Layout for Config {
    fn read(from: &mut Cursor<'_>) -> Result<Self, Error> {
        let span = ConfigSpan::read(from)?;
        let size = usize::try_from(span.size).unwrap_or(usize::MAX);
        Ok(Self {
            offset: span.offset,
            flags: span.flags,
            bytes: from.bytes(size)?.to_vec(),
        })
    }

    fn write(&self, to: Fields) -> Fields {
        let size = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        to.u32(self.offset)
            .u32(size)
            .u32(self.flags)
            .bytes(&self.bytes)
    }
}

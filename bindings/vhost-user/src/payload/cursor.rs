//! Fields one after the other.

use crate::Error;

/// Reads fields off a payload, in order.
pub(crate) struct Cursor<'a> {
    /// The message, for who reads an error.
    pub(crate) name: &'static str,
    /// How long its payload has to be, in words.
    want: &'static str,
    len: usize,
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(name: &'static str, want: &'static str, payload: &'a [u8]) -> Self {
        Self {
            name,
            want,
            len: payload.len(),
            rest: payload,
        }
    }

    /// The next `N` bytes.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let Some((array, rest)) = self.rest.split_first_chunk() else {
            return Err(self.wrong_length());
        };
        self.rest = rest;
        Ok(*array)
    }

    /// The next `len` bytes.
    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], Error> {
        let Some((bytes, rest)) = self.rest.split_at_checked(len) else {
            return Err(self.wrong_length());
        };
        self.rest = rest;
        Ok(bytes)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Error> {
        self.array().map(u8::from_ne_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Error> {
        self.array().map(u16::from_ne_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Error> {
        self.array().map(u32::from_ne_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Error> {
        self.array().map(u64::from_ne_bytes)
    }

    /// How many bytes are left.
    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }

    /// A payload that is not as long as it has to be.
    pub(crate) fn wrong_length(&self) -> Error {
        Error::Payload {
            name: self.name,
            have: self.len,
            want: self.want,
        }
    }

    /// A field that cannot have that value.
    pub(crate) fn value(&self, field: &'static str, value: u64, legal: &'static str) -> Error {
        Error::Value {
            name: self.name,
            field,
            value,
            legal,
        }
    }
}

/// Writes fields, in order.
#[derive(Default)]
pub(crate) struct Fields(pub(crate) Vec<u8>);

impl Fields {
    pub(crate) fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    pub(crate) fn u16(mut self, value: u16) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    pub(crate) fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    pub(crate) fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    /// Zeros up to a length of `len` bytes.
    pub(crate) fn pad(mut self, len: usize) -> Self {
        self.0.resize(len.max(self.0.len()), 0);
        self
    }
}

/// What has one place in a payload, and no descriptors.
pub(crate) trait Layout: Sized {
    /// From a payload.
    fn read(from: &mut Cursor<'_>) -> Result<Self, Error>;

    /// Behind what is there already.
    fn write(&self, to: Fields) -> Fields;

    /// A payload with nothing else in it.
    fn payload(&self) -> Vec<u8> {
        self.write(Fields::default()).0
    }
}

impl Layout for u64 {
    fn read(from: &mut Cursor<'_>) -> Result<Self, Error> {
        from.u64()
    }

    fn write(&self, to: Fields) -> Fields {
        to.u64(*self)
    }
}

/// Makes sure that `size` bytes from `start` on are a range, with at least one byte.
pub(crate) fn checked_range(
    name: &'static str,
    field: &'static str,
    start: u64,
    size: u64,
) -> Result<(), Error> {
    let last = size.checked_sub(1).and_then(|most| start.checked_add(most));
    last.map(drop).ok_or(Error::Range {
        name,
        field,
        start,
        size,
    })
}

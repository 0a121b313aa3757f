//! Bytes that come from anywhere, taken apart from the front.

use super::ImageError;

/// What has not been read.
pub(super) struct Rest<'a> {
    all: &'a [u8],
    at: usize,
}

impl<'a> Rest<'a> {
    pub(super) fn new(all: &'a [u8]) -> Self {
        Self { all, at: 0 }
    }

    /// What is behind `end` is read by others.
    pub(super) fn end_at(&mut self, end: usize) {
        self.all = &self.all[..end.min(self.all.len())];
    }

    pub(super) fn bytes(&mut self, len: u32, what: &'static str) -> Result<&'a [u8], ImageError> {
        let at = self.at;
        let end = usize::try_from(len)
            .ok()
            .and_then(|len| at.checked_add(len));
        let found = end.and_then(|end| self.all.get(at..end));
        let found = found.ok_or(ImageError::Truncated { what, at })?;
        self.at = at.saturating_add(found.len());
        Ok(found)
    }

    pub(super) fn take<const N: usize>(
        &mut self,
        what: &'static str,
    ) -> Result<[u8; N], ImageError> {
        let at = self.at;
        let rest = self.all.get(at..).unwrap_or_default();
        let found = rest.first_chunk();
        let found = found.ok_or(ImageError::Truncated { what, at })?;
        self.at = at.saturating_add(N);
        Ok(*found)
    }

    pub(super) fn u16(&mut self, what: &'static str) -> Result<u16, ImageError> {
        self.take(what).map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, ImageError> {
        self.take(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &'static str) -> Result<u64, ImageError> {
        self.take(what).map(u64::from_le_bytes)
    }

    /// Nothing may be left.
    pub(super) fn finish(self) -> Result<(), ImageError> {
        match self.all.len().saturating_sub(self.at) {
            0 => Ok(()),
            left => Err(ImageError::LeftOver { left }),
        }
    }
}

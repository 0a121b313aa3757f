//! Regions of a function's file: configuration space and BARs.
//!
//! They are read and written by system calls, each of which says whether it reached anything. Only doorbells go through
//! mappings, so nothing else has to be taken out of the way of a reset.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use vdpa_mem::Registers;
use vdpa_pci::Width;
use vfio_bindings::bindings::vfio;

use crate::chain::{ReplyFault, capabilities, pairs, u32_at, u64_at};
use crate::ioctl;

/// Bytes of a `vfio_region_info` before its capabilities.
const FIXED: usize = 32;

/// A part of a function's file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Region {
    /// Where it begins in the file.
    offset: u64,
    /// Bytes that it has; 0 where there is none.
    len: u64,
    /// A set of `VFIO_REGION_INFO_FLAG_*`.
    flags: u32,
    /// What can be mapped of it, where that is not all: first byte and bytes of each area.
    areas: Option<Vec<(u64, u64)>>,
    /// Whether the MSI-X table in it can be mapped with the rest.
    msix_mappable: bool,
}

impl Region {
    /// Asks for region `index`, one of `VFIO_PCI_*_REGION_INDEX`.
    pub(crate) fn read(device: &File, index: u32) -> io::Result<Self> {
        let reply = ioctl::region_info(device, index)?;
        Self::parse(&reply).map_err(io::Error::other)
    }

    /// Reads a `vfio_region_info` with its capabilities.
    pub(crate) fn parse(reply: &[u8]) -> Result<Self, ReplyFault> {
        let flags = u32_at(reply, 4)?;
        let mut region = Self {
            len: u64_at(reply, 16)?,
            offset: u64_at(reply, 24)?,
            flags,
            ..Self::default()
        };
        if flags & vfio::VFIO_REGION_INFO_FLAG_CAPS == 0 {
            return Ok(region);
        }
        for capability in capabilities(reply, u32_at(reply, 12)?, FIXED)? {
            match u32::from(capability.id) {
                vfio::VFIO_REGION_INFO_CAP_SPARSE_MMAP => {
                    let areas = pairs(capability.bytes, 16, u32_at(capability.bytes, 8)?)?;
                    region.areas.get_or_insert_default().extend(areas);
                }
                vfio::VFIO_REGION_INFO_CAP_MSIX_MAPPABLE => region.msix_mappable = true,
                _ => {}
            }
        }
        Ok(region)
    }

    /// How many bytes it has.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Whether `width` at `at` is aligned, and inside.
    pub(crate) fn holds(&self, at: u64, width: Width) -> bool {
        let bytes = u64::from(width.bytes());
        at.is_multiple_of(bytes) && at.checked_add(bytes).is_some_and(|end| end <= self.len)
    }

    /// Reads what [`holds`](Self::holds) allows.
    pub(crate) fn load(&self, device: &File, at: u64, width: Width) -> io::Result<u32> {
        let mut bytes = [0; 4];
        let part = bytes
            .get_mut(..usize::from(width.bytes()))
            .unwrap_or_default();
        match device.read_at(part, self.place(at)?)? {
            done if done == part.len() => Ok(u32::from_le_bytes(bytes)),
            done => Err(cut(done)),
        }
    }

    /// Writes what [`holds`](Self::holds) allows.
    pub(crate) fn store(&self, device: &File, at: u64, width: Width, value: u32) -> io::Result<()> {
        let bytes = value.to_le_bytes();
        let part = bytes.get(..usize::from(width.bytes())).unwrap_or_default();
        match device.write_at(part, self.place(at)?)? {
            done if done == part.len() => Ok(()),
            done => Err(cut(done)),
        }
    }

    fn place(&self, at: u64) -> io::Result<u64> {
        let place = self.offset.checked_add(at);
        place.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
    }

    /// The page that holds `width` at `at`, if it can be mapped: where it begins in the region.
    ///
    /// * `page`: bytes of a page
    /// * `table`: first byte and bytes of the MSI-X table, if that is in this region
    pub(crate) fn page(&self, at: u64, page: u64, table: Option<(u64, u64)>) -> Option<u64> {
        if self.flags & vfio::VFIO_REGION_INFO_FLAG_MMAP == 0 {
            return None;
        }
        let first = at.checked_sub(at.checked_rem(page)?)?;
        let end = first.checked_add(page)?;
        // A BAR smaller than a page has one for itself, or it could not be mapped.
        let whole = (0, self.len.checked_next_multiple_of(page)?);
        let inside = |(start, len): (u64, u64)| {
            start <= first && start.checked_add(len).is_some_and(|stop| end <= stop)
        };
        let apart = |(start, len): (u64, u64)| start >= end || start.saturating_add(len) <= first;
        let mappable = match &self.areas {
            Some(areas) => areas.iter().copied().any(inside),
            None => inside(whole),
        };
        // Older kernels refuse the pages of the table, without saying so in areas for each.
        let free = self.msix_mappable || self.areas.is_some() || table.is_none_or(apart);
        (mappable && free && self.len != 0).then_some(first)
    }

    /// Maps the page that begins at `first`, as [`page`](Self::page) found it.
    pub(crate) fn map(&self, device: &File, first: u64, page: u64) -> io::Result<Arc<Registers>> {
        Registers::map(device.as_fd(), self.place(first)?, page).map(Arc::new)
    }
}

fn cut(done: usize) -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        format!("{done} bytes were transferred"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::tests::{bytes, header};

    const MMAP: u32 = vfio::VFIO_REGION_INFO_FLAG_READ
        | vfio::VFIO_REGION_INFO_FLAG_WRITE
        | vfio::VFIO_REGION_INFO_FLAG_MMAP;
    const CAPS: u32 = MMAP | vfio::VFIO_REGION_INFO_FLAG_CAPS;

    fn split(value: u64) -> [u32; 2] {
        let [a, b, c, d, e, f, g, h] = value.to_ne_bytes();
        [
            u32::from_ne_bytes([a, b, c, d]),
            u32::from_ne_bytes([e, f, g, h]),
        ]
    }

    /// An answer about a region at 4 << 40 of `len` bytes, with these capabilities behind.
    fn reply(flags: u32, first: u32, len: u64, rest: &[u32]) -> Vec<u8> {
        let head = [4096, flags, 4, first];
        let (len, offset) = (split(len), split(4 << 40));
        bytes(&[&head[..], &len, &offset, rest].concat())
    }

    fn sparse(next: u32, areas: &[(u64, u64)], count: u32) -> Vec<u32> {
        let head = header(1, next);
        let list = areas.iter().flat_map(|(at, len)| [split(*at), split(*len)]);
        let list: Vec<u32> = list.flatten().collect();
        [&head[..], &[count, 0], &list].concat()
    }

    #[test]
    fn a_bar_without_capabilities_is_mapped_but_for_the_msix_table() {
        let region = Region::parse(&reply(MMAP, 0, 0x4000, &[])).unwrap();
        assert_eq!((region.len(), region.offset), (0x4000, 4 << 40));
        assert_eq!(region.page(0x3004, 0x1000, None), Some(0x3000));
        let table = Some((0x1ff0, 0x20));
        assert_eq!(region.page(0x0ffc, 0x1000, table), Some(0));
        assert_eq!(region.page(0x1000, 0x1000, table), None);
        assert_eq!(region.page(0x2800, 0x1000, table), None);
        assert_eq!(region.page(0x3000, 0x1000, table), Some(0x3000));
        assert_eq!(region.page(0x4000, 0x1000, None), None, "past its end");
        assert_eq!(region.page(u64::MAX, 0x1000, None), None);
    }

    #[test]
    fn a_table_that_can_be_mapped_stops_nothing() {
        let rest = header(3, 0);
        let region = Region::parse(&reply(CAPS, 32, 0x1000, &rest)).unwrap();
        assert_eq!(region.page(0x800, 0x1000, Some((0, 0x80))), Some(0));
    }

    #[test]
    fn only_what_is_in_an_area_is_mapped() {
        let areas = [(0u64, 0x1000u64), (0x3000, 0x1800), (u64::MAX, 2)];
        let rest = sparse(0, &areas, 3);
        let region = Region::parse(&reply(CAPS, 32, 0x8000, &rest)).unwrap();
        assert_eq!(region.page(0x10, 0x1000, Some((0, 16))), Some(0));
        assert_eq!(region.page(0x1000, 0x1000, None), None);
        assert_eq!(region.page(0x3abc, 0x1000, None), Some(0x3000));
        assert_eq!(region.page(0x4000, 0x1000, None), None, "half a page");
    }

    #[test]
    fn a_small_bar_has_its_page_and_one_that_cannot_be_mapped_has_none() {
        let small = Region::parse(&reply(MMAP, 0, 0x40, &[])).unwrap();
        assert_eq!(small.page(0x20, 0x1000, None), Some(0));
        let trapped = Region::parse(&reply(MMAP & !4, 0, 0x4000, &[])).unwrap();
        assert_eq!(trapped.page(0x20, 0x1000, None), None);
        let absent = Region::parse(&reply(MMAP, 0, 0, &[])).unwrap();
        assert_eq!(absent.page(0, 0x1000, None), None);
    }

    #[test]
    fn an_answer_that_lies_is_refused() {
        for end in 0..32 {
            let whole = reply(MMAP, 0, 0x1000, &[]);
            let cut = Region::parse(&whole[..end]);
            assert!(
                matches!(cut, Err(ReplyFault::Short { .. })),
                "{end}: {cut:?}"
            );
        }
        let list = sparse(0, &[(0, 0x1000)], u32::MAX);
        let long = Region::parse(&reply(CAPS, 32, 0x1000, &list));
        assert_eq!(
            long,
            Err(ReplyFault::List {
                count: u32::MAX,
                room: 1
            })
        );
        let back = Region::parse(&reply(CAPS, 32, 0x1000, &header(9, 32)));
        assert_eq!(back, Err(ReplyFault::Endless));
        let early = Region::parse(&reply(CAPS, 8, 0x1000, &header(9, 0)));
        assert_eq!(early, Err(ReplyFault::Outside { at: 8 }));
        let cut = Region::parse(&reply(CAPS, 32, 0x1000, &header(1, 0)));
        assert!(matches!(cut, Err(ReplyFault::Short { .. })), "{cut:?}");
    }

    #[test]
    fn what_a_file_does_not_hold_is_an_error_and_not_zero() {
        let file = tempfile::tempfile().unwrap();
        let region = Region {
            len: 0x100,
            ..Region::default()
        };
        region.store(&file, 4, Width::U32, 0x0102_0304).unwrap();
        assert_eq!(region.load(&file, 4, Width::U16).unwrap(), 0x0304);
        assert_eq!(region.load(&file, 7, Width::U8).unwrap(), 1);
        let past = region.load(&file, 8, Width::U32).unwrap_err();
        assert_eq!(past.kind(), io::ErrorKind::UnexpectedEof);
        assert!(region.holds(0xfc, Width::U32) && !region.holds(0xfe, Width::U32));
        assert!(!region.holds(1, Width::U16) && !region.holds(u64::MAX, Width::U8));
    }
}

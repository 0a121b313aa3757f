//! Translation in a loop: the extent found last in registers, and a guess where to go from there.
#![allow(
    unsafe_code,
    reason = "makes spans from an extent of the section's table"
)]

use std::ptr::NonNull;

use crate::bytes::Logged;
use crate::table::{Extent, Hint, Table};
use crate::{Access, Bytes, Fault, Iova};

/// Translates the addresses of a batch for one kind of access.
///
/// [`span`](Self::span) is for the loop over the batch: nothing in it is a call, so that the loop keeps in registers what
/// was found last. An address in the same mapping as the one before costs one subtraction and the look at the bounds that
/// memory without translation has, too; one in another mapping a look into an index by the address's high bits. What
/// neither finds is for [`translate`](Self::translate), outside the loop or behind a rare branch.
///
/// A cursor lives no longer than its section, so it is never older than the section's table.
#[derive(Clone, Copy)]
pub struct Cursor<'s> {
    table: &'s Table,
    want: Access,
    first: u64,
    /// 0 where there is no extent yet.
    len: u64,
    host: NonNull<u8>,
    log: Option<&'s Logged>,
}

impl<'s> Cursor<'s> {
    /// A cursor at `extent`, if there is one that allows `want`.
    #[inline(always)]
    pub(crate) fn new(table: &'s Table, want: Access, extent: Option<&'s Extent>) -> Self {
        let mut cursor = Self {
            table,
            want,
            first: 0,
            len: 0,
            host: NonNull::dangling(),
            log: None,
        };
        if let Some(extent) = extent.filter(|extent| extent.access.allows(want)) {
            cursor.turn(extent);
        }
        cursor
    }

    /// The `len` bytes at `at`, if they are in one mapping that is found quickly. `None` says nothing: ask
    /// [`translate`](Self::translate).
    #[inline(always)]
    pub fn span(&mut self, at: Iova, len: u32) -> Option<Bytes<'s>> {
        if !self.holds(at, len) {
            let extent = self.table.guess(at)?;
            if !extent.access.allows(self.want) {
                return None;
            }
            self.turn(extent);
            if !self.holds(at, len) {
                return None;
            }
        }
        Some(self.part(at, u64::from(len)))
    }

    /// The memory at `at`, up to `len` bytes, as [`Section::translate`](crate::Section::translate) finds it. Turns to
    /// the mapping it is in, and leaves in `near` where that is: for the next batch.
    ///
    /// # Errors
    /// As there.
    #[inline(never)]
    pub fn translate(&mut self, at: Iova, len: u32, near: &mut Hint) -> Result<Bytes<'s>, Fault> {
        let extent = self.table.find(at, near).ok_or(Fault::Miss)?;
        if !extent.access.allows(self.want) {
            return Err(Fault::Denied);
        }
        self.turn(extent);
        let left = self.len - at.get().wrapping_sub(self.first);
        Ok(self.part(at, u64::from(len).min(left)))
    }

    #[inline(always)]
    fn turn(&mut self, extent: &'s Extent) {
        self.first = extent.first;
        self.len = extent.len;
        self.host = extent.host;
        self.log = extent.log.as_ref();
    }

    /// Whether all of `len` bytes, and one at least, are in the extent.
    #[inline(always)]
    fn holds(&self, at: Iova, len: u32) -> bool {
        let offset = at.get().wrapping_sub(self.first);
        let end = offset.wrapping_add(u64::from(len));
        offset < end && end <= self.len
    }

    /// The `len` bytes from `at` on, which are in the extent.
    #[inline(always)]
    fn part(&self, at: Iova, len: u64) -> Bytes<'s> {
        let offset = at.get().wrapping_sub(self.first);
        // SAFETY: `offset < self.len`, which `Mapping::check` found to be inside the memory.
        let base = unsafe { self.host.add(offset as usize) };
        let writable = self.want.allows(Access::DeviceWrites);
        // SAFETY: inside a mapping whose memory the table's entries keep alive as long as `'s`, and writable if the
        // mapping allows the device to write, which `Mapping::check` saw to.
        unsafe { Bytes::new(base, len as usize, writable, self.log) }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{AddressSpace, DmaMemory, Gpa, IovaRange, Mapping, Region};

    fn space() -> AddressSpace {
        let memory: Arc<dyn DmaMemory> = Arc::new(Region::anonymous(0x8000).unwrap());
        let map = |iova, offset, access| Mapping {
            iova: IovaRange::new(Iova::new(iova), 0x1000).unwrap(),
            memory: Arc::clone(&memory),
            offset,
            access,
            dirty: Some(Gpa::new(iova)),
        };
        let space = AddressSpace::new();
        let maps = vec![
            map(0x0, 0x3000, Access::Both),
            // One extent; then another at once, and one behind a gap; one far away; the last.
            map(0x10_0000, 0, Access::Both),
            map(0x10_1000, 0x1000, Access::Both),
            map(0x10_2000, 0x5000, Access::DeviceReads),
            map(0x10_4800, 0x4000, Access::Both),
            map(1 << 40, 0x2000, Access::DeviceWrites),
            map(u64::MAX - 0xfff, 0x6000, Access::Both),
        ];
        space.map(maps).unwrap();
        space
    }

    #[test]
    fn a_cursor_finds_what_translation_finds() {
        let space = space();
        let mut reader = space.reader();
        let section = reader.enter();
        let edges = space.mappings().into_iter().flat_map(|m| {
            let (first, last) = (m.iova.first().get(), m.iova.last().get());
            let around = |at: u64| [at.wrapping_sub(1), at, at.wrapping_add(1)];
            [around(first), around(first + 0x800), around(last)].concat()
        });
        let edges: Vec<u64> = edges.collect();
        let same = |a: Bytes<'_>, b: Bytes<'_>| {
            assert_eq!(a.hva().get(), b.hva().get());
            assert_eq!((a.len(), a.is_writable()), (b.len(), b.is_writable()));
        };
        for want in [Access::DeviceReads, Access::DeviceWrites, Access::Both] {
            let mut near = Hint::default();
            let mut cursor = section.cursor(want, &near);
            let mut quick = 0;
            // From everywhere to everywhere; under Miri, which takes its time, from fewer places.
            let steps = if cfg!(miri) { 3 } else { edges.len() };
            for step in 1..steps {
                for i in 0..edges.len() {
                    let at = Iova::new(edges[(i * step) % edges.len()]);
                    for len in [0, 1, 2, 0x1000, u32::MAX] {
                        let plain = section.translate(at, len, want, &mut Hint::default());
                        if let Some(found) = cursor.span(at, len) {
                            assert_eq!(found.len(), len as usize);
                            same(found, plain.unwrap());
                            quick += 1;
                        } else {
                            match (cursor.translate(at, len, &mut near), plain) {
                                (Ok(found), Ok(plain)) => same(found, plain),
                                (found, plain) => assert_eq!(found.err(), plain.err()),
                            }
                        }
                    }
                }
            }
            assert!(quick > edges.len(), "{quick} found quickly");
        }
    }

    #[test]
    fn a_cursor_goes_on_where_the_last_one_was() {
        let space = space();
        let mut reader = space.reader();
        let mut near = Hint::default();
        let at = Iova::new(1 << 40);
        {
            let section = reader.enter();
            let mut cursor = section.cursor(Access::DeviceWrites, &near);
            assert!(cursor.translate(at, 4, &mut near).is_ok());
        }
        let section = reader.enter();
        let mut cursor = section.cursor(Access::DeviceWrites, &near);
        assert!(cursor.holds(at, 4));
        assert!(cursor.span(at, 4).is_some());
        // Not for an access that it does not allow.
        let mut cursor = section.cursor(Access::DeviceReads, &near);
        assert!(cursor.span(at, 4).is_none());
        assert_eq!(
            cursor.translate(at, 4, &mut near).err(),
            Some(Fault::Denied)
        );
    }

    #[test]
    fn writes_through_a_cursor_are_logged() {
        let space = space();
        let log = Arc::new(crate::DirtyPages::new(12, 0x200));
        let by = crate::Deadline::after(std::time::Duration::from_secs(20));
        space
            .set_dirty_log(Some(Arc::clone(&log) as Arc<_>), by)
            .unwrap();
        let mut reader = space.reader();
        let section = reader.enter();
        let mut cursor = section.cursor(Access::DeviceWrites, &Hint::default());
        let at = Iova::new(0x10_1004);
        let bytes = cursor.translate(at, 4, &mut Hint::default()).unwrap();
        assert_eq!(bytes.write(0, &[1; 4]), 4);
        let bytes = cursor.span(Iova::new(0x10_0000), 4).unwrap();
        assert_eq!(bytes.write(0, &[1; 4]), 4);
        assert_eq!(log.take(), [0x100, 0x101]);
    }
}

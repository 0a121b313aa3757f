//! One publication of an address space: sorted extents, found by a hint or by bisection.
#![allow(
    unsafe_code,
    reason = "makes spans from mappings that the table keeps alive"
)]

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::bytes::Logged;
use crate::index::Index;
use crate::mapping::Mapping;
use crate::sync::{AtomicUsize, Guard, is_there};
use crate::{Access, Bytes, DirtyLog, Fault, Iova, IovaRange, MemError};

/// Which extent matched last: a guess that makes the next translation one subtraction and one comparison. Keep one for
/// each kind of access of each queue. A wrong or stale hint costs a search, never a wrong answer.
#[derive(Clone, Copy, Default, Debug)]
pub struct Hint(u32);

impl Hint {
    /// Where a queue begins.
    pub(crate) const NONE: Self = Self(0);
}

/// How many tables there were.
static TABLES: AtomicU64 = AtomicU64::new(0);

/// A mapping of the table, and who holds it beyond a section.
pub(crate) struct Entry {
    pub(crate) mapping: Mapping,
    pub(crate) holds: Holds,
}

/// Where writes are logged, and who holds memory in the belief that it is there. Tables share it until it is switched.
pub(crate) struct Log {
    pub(crate) to: Option<Arc<dyn DirtyLog>>,
    pub(crate) holds: Holds,
}

impl Log {
    pub(crate) fn new(to: Option<Arc<dyn DirtyLog>>) -> Arc<Self> {
        let holds = Holds::default();
        Arc::new(Self { to, holds })
    }
}

/// Counts holds.
#[derive(Default)]
pub(crate) struct Holds(AtomicUsize);

impl Holds {
    pub(crate) fn add(&self) {
        // Inside a section, so ordered before the grace period that whoever waits for holds waits for first.
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn remove(&self) {
        // Release pairs with the acquire in `are_none`: the I/O is done.
        let order = match is_there(Guard::Release) {
            true => Ordering::Release,
            false => Ordering::Relaxed,
        };
        self.0.fetch_sub(1, order);
    }

    pub(crate) fn are_none(&self) -> bool {
        self.0.load(Ordering::Acquire) == 0 || !is_there(Guard::Wait)
    }
}

/// A run of mappings that is contiguous on both sides with one permission: what translation looks at, in one cache
/// line.
#[repr(align(64))]
pub(crate) struct Extent {
    pub(crate) first: u64,
    pub(crate) len: u64,
    pub(crate) host: NonNull<u8>,
    pub(crate) access: Access,
    pub(crate) log: Option<Logged>,
}

/// One publication. Immutable.
pub(crate) struct Table {
    /// Not 0, and no other table's.
    number: u64,
    extents: Vec<Extent>,
    /// Finds the extent of an address by the extents' first ones.
    index: Index,
    entries: Vec<Arc<Entry>>,
    log: Arc<Log>,
    /// How often mappings were taken away before.
    pub(crate) removals: u64,
}

// SAFETY: the host pointers are into memory that `entries` keep alive, which is `Send + Sync`.
unsafe impl Send for Table {}
// SAFETY: as above; the table itself never changes.
unsafe impl Sync for Table {}

impl Table {
    /// The table of `entries`, in any order.
    ///
    /// # Errors
    /// [`MemError::Overlap`] when two entries share an address.
    pub(crate) fn new(mut entries: Vec<Arc<Entry>>, log: Arc<Log>) -> Result<Self, MemError> {
        entries.sort_by_key(|entry| entry.mapping.iova.first());
        for pair in entries.windows(2) {
            let (old, new) = (pair[0].mapping.iova, pair[1].mapping.iova);
            if old.overlaps(new) {
                return Err(MemError::Overlap { new, old });
            }
        }
        let mut extents: Vec<Extent> = Vec::with_capacity(entries.len());
        let mut before: Option<&Mapping> = None;
        for entry in &entries {
            let mapping = &entry.mapping;
            match (extents.last_mut(), before) {
                (Some(last), Some(before)) if last.continues_with(before, mapping) => {
                    last.len += mapping.iova.len();
                }
                _ => {
                    let host = NonNull::new(mapping.host()).unwrap_or(NonNull::dangling());
                    // Where nobody listens, there is nothing to look up for each span.
                    let log = log.to.clone().zip(mapping.dirty);
                    extents.push(Extent {
                        first: mapping.iova.first().get(),
                        len: mapping.iova.len(),
                        host,
                        access: mapping.access,
                        log: log.map(|(to, gpa)| Logged::new(to, host, gpa)),
                    });
                }
            }
            before = Some(mapping);
        }
        let firsts: Vec<u64> = extents.iter().map(|extent| extent.first).collect();
        Ok(Self {
            number: TABLES.fetch_add(1, Ordering::Relaxed) + 1,
            index: Index::new(firsts),
            extents,
            entries,
            log,
            removals: 0,
        })
    }

    /// What no other table has, in any address space: neither one before nor one after. Not 0.
    #[inline]
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn entries(&self) -> &[Arc<Entry>] {
        &self.entries
    }

    pub(crate) fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// The span at `at`: up to `len` bytes, fewer where a mapping that nothing continues ends first.
    #[inline]
    pub(crate) fn translate(
        &self,
        at: Iova,
        len: u32,
        want: Access,
        near: &mut Hint,
    ) -> Result<Bytes<'_>, Fault> {
        let extent = self.find(at, near).ok_or(Fault::Miss)?;
        extent.span(at, len, want)
    }

    /// The extent that matched last, if there is still one of that number.
    #[inline]
    pub(crate) fn hinted(&self, near: &Hint) -> Option<&Extent> {
        self.extents.get(near.0 as usize)
    }

    /// The extent that `at` may be in, by its high bits alone: no answer, or a wrong one, says nothing.
    #[inline(always)]
    pub(crate) fn guess(&self, at: Iova) -> Option<&Extent> {
        self.extents.get(self.index.guess(at.get())?)
    }

    /// The extent that `at` is in.
    #[inline]
    pub(crate) fn find(&self, at: Iova, near: &mut Hint) -> Option<&Extent> {
        match self.hinted(near) {
            Some(extent) if extent.offset_of(at) < extent.len => Some(extent),
            _ => self.search(at, near),
        }
    }

    /// The extent that `at` is in, and its index for the next time.
    #[inline(never)]
    fn search(&self, at: Iova, near: &mut Hint) -> Option<&Extent> {
        let index = self.index.find(at.get())?;
        let extent = self.extents.get(index)?;
        if extent.offset_of(at) >= extent.len {
            return None;
        }
        near.0 = u32::try_from(index).unwrap_or(u32::MAX);
        Some(extent)
    }

    /// The entry that `at` is in.
    pub(crate) fn entry(&self, at: Iova) -> Option<&Arc<Entry>> {
        let entry = self.before(at)?;
        (at <= entry.mapping.iova.last()).then_some(entry)
    }

    /// An entry that shares an address with `range`, if there is one.
    pub(crate) fn overlapping(&self, range: IovaRange) -> Option<&Arc<Entry>> {
        // Entries are apart: if the last one that begins in or before the range does not reach into it, none does.
        let entry = self.before(range.last())?;
        entry.mapping.iova.overlaps(range).then_some(entry)
    }

    /// The last entry that does not begin after `at`.
    fn before(&self, at: Iova) -> Option<&Arc<Entry>> {
        let after = self
            .entries
            .partition_point(|e| e.mapping.iova.first() <= at);
        self.entries.get(after.checked_sub(1)?)
    }
}

impl Extent {
    /// Whether `next` goes on where this extent, whose last mapping is `last`, ends.
    fn continues_with(&self, last: &Mapping, next: &Mapping) -> bool {
        let same_memory = Arc::ptr_eq(&last.memory, &next.memory);
        let adjoins = last.iova.last().checked_add(1) == Some(next.iova.first())
            && last.offset.checked_add(last.iova.len()) == Some(next.offset);
        let same_log = match (last.dirty, next.dirty) {
            (None, None) => true,
            (Some(last_gpa), Some(next)) => last_gpa.checked_add(last.iova.len()) == Some(next),
            _ => false,
        };
        same_memory
            && adjoins
            && same_log
            && self.access == next.access
            && self.len.checked_add(next.iova.len()).is_some()
    }

    /// How far `at` is into the extent; an `at` outside gives its length or more.
    #[inline]
    fn offset_of(&self, at: Iova) -> u64 {
        at.get().wrapping_sub(self.first)
    }

    /// The span at `at`, which is inside.
    #[inline]
    fn span<'s>(&'s self, at: Iova, len: u32, want: Access) -> Result<Bytes<'s>, Fault> {
        if !self.access.allows(want) {
            return Err(Fault::Denied);
        }
        let offset = self.offset_of(at);
        let len = u64::from(len).min(self.len - offset);
        // SAFETY: `offset < self.len`, which `Mapping::check` found to be inside the memory.
        let base = unsafe { self.host.add(offset as usize) };
        let writable = want.allows(Access::DeviceWrites);
        // SAFETY: inside a mapping whose memory the table's entries keep alive as long as `'s`, and writable if the
        // mapping allows the device to write, which `Mapping::check` saw to.
        Ok(unsafe { Bytes::new(base, len as usize, writable, self.log.as_ref()) })
    }
}

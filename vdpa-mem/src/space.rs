//! Address spaces: what a device may reach, published as one table, read in sections.
#![allow(
    unsafe_code,
    reason = "tables are read through a pointer that a grace period keeps valid"
)]

use std::ptr::NonNull;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::bytes::Logged;
use crate::grace::{Grace, Readers, Slot, wait};
use crate::mapping::Mapping;
use crate::sync::{AtomicPtr, Mutex};
use crate::table::{Entry, Holds, Log, Table};
use crate::{Access, Bytes, Cursor, Deadline, DirtyLog, Fault, Hint, Iova, IovaRange, MemError};

/// How long a section may last until a new mapping is told of without it.
const SECTION: Duration = Duration::from_secs(1);

/// An address space of a device (an ASID has one table). Cloning gives another handle to the same space.
///
/// Writers ([`map`](Self::map), [`unmap`](Self::unmap), ...) are serialised and publish a whole new table; readers
/// never wait. No writer call may be made by a thread that is inside a [`Section`] of the same space: it would wait
/// for itself until its deadline.
#[derive(Clone)]
pub struct AddressSpace(Arc<Inner>);

struct Inner {
    /// The published table: an `Arc::into_raw`.
    table: AtomicPtr<Table>,
    readers: Readers,
    /// Serialises writers; holds what is no longer published but may still be looked at.
    retired: Mutex<Vec<Retired>>,
    /// Never held over anything that a model looks at.
    watchers: std::sync::Mutex<Vec<Weak<Watcher>>>,
}

/// Who is told of changes.
type Watcher = dyn Fn() + Send + Sync;

struct Retired {
    // Dropped when the grace period is over.
    _table: Arc<Table>,
    grace: Grace,
}

impl Default for AddressSpace {
    fn default() -> Self {
        Self::new()
    }
}

impl AddressSpace {
    /// An empty address space.
    pub fn new() -> Self {
        let empty =
            Table::new(Vec::new(), Log::new(None)).unwrap_or_else(|_| unreachable!("no overlap"));
        Self(Arc::new(Inner {
            table: AtomicPtr::new(Arc::into_raw(Arc::new(empty)).cast_mut()),
            readers: Readers::new(),
            retired: Mutex::new(Vec::new()),
            watchers: std::sync::Mutex::default(),
        }))
    }

    /// A reader, one for each worker.
    pub fn reader(&self) -> Reader {
        Reader {
            slot: self.0.readers.add(),
            space: self.clone(),
        }
    }

    /// Adds mappings, all or none. On return every section sees them: whoever is told so uses them at once, and a reader in
    /// the midst of a batch would be at fault. A section that lasts longer than a second is not waited for.
    ///
    /// # Errors
    /// [`MemError::Overlap`] with what is there or within the batch; [`MemError::Outside`] and
    /// [`MemError::FileTooShort`] when the memory is too small.
    pub fn map(&self, batch: Vec<Mapping>) -> Result<(), MemError> {
        let mapped = self.change(Deadline::after(SECTION), |table| {
            let mut entries = table.entries().to_vec();
            entries.extend(entries_of(batch)?);
            Ok(Table::new(entries, Arc::clone(table.log()))?.into())
        });
        match mapped {
            // They are mapped, and nothing is gone that somebody could still be at.
            Err(MemError::Busy { .. }) => Ok(()),
            mapped => mapped,
        }
    }

    /// Whether [`map`](Self::map) would take `batch` now: for whoever has to tell somebody else first.
    ///
    /// # Errors
    /// As for [`map`](Self::map).
    pub fn check_map(&self, batch: &[Mapping]) -> Result<(), MemError> {
        self.check_replace(batch)?;
        let mut reader = self.reader();
        let section = reader.enter();
        batch
            .iter()
            .map(|mapping| mapping.iova)
            .try_for_each(|new| match section.table().overlapping(new) {
                Some(there) => Err(MemError::Overlap {
                    new,
                    old: there.mapping.iova,
                }),
                None => Ok(()),
            })
    }

    /// Whether [`replace`](Self::replace) would take `table`.
    ///
    /// # Errors
    /// As for [`map`](Self::map).
    pub fn check_replace(&self, table: &[Mapping]) -> Result<(), MemError> {
        table.iter().try_for_each(Mapping::check)?;
        table_of(table.to_vec())
    }

    /// Removes the mappings in `range`, which must not cut one. When it returns, no access to them happens now or
    /// later, and every [`Hold`] on them is gone.
    ///
    /// # Errors
    /// [`MemError::NotMapped`], [`MemError::Partial`]: nothing changed. [`MemError::Busy`] at the deadline: they are
    /// unmapped, but a reader or a hold may still be at them; the memory stays alive as long as it is.
    pub fn unmap(&self, range: IovaRange, by: Deadline) -> Result<(), MemError> {
        self.change(by, |table| {
            let (gone, kept): (Vec<_>, Vec<_>) = table
                .entries()
                .iter()
                .cloned()
                .partition(|entry| entry.mapping.iova.overlaps(range));
            if gone.is_empty() {
                return Err(MemError::NotMapped { range });
            }
            if let Some(cut) = gone.iter().find(|e| !range.contains(e.mapping.iova)) {
                return Err(MemError::Partial {
                    range,
                    mapping: cut.mapping.iova,
                });
            }
            let table = Table::new(kept, Arc::clone(table.log()))?;
            Ok(Publication {
                table,
                gone,
                unlogged: None,
            })
        })
    }

    /// Replaces the whole table at once. Mappings that are in both tables are not interrupted.
    ///
    /// # Errors
    /// As [`map`](Self::map) (nothing changed) and [`MemError::Busy`] as in [`unmap`](Self::unmap).
    pub fn replace(&self, table: Vec<Mapping>, by: Deadline) -> Result<(), MemError> {
        self.change(by, |old| {
            // What stays is the same entry, with its holds.
            let entries = entries_of(table)?.map(|new| {
                let there = old.entry(new.mapping.iova.first());
                let same = there.filter(|there| there.mapping.is_same(&new.mapping));
                same.map_or(new, Arc::clone)
            });
            let table = Table::new(entries.collect(), Arc::clone(old.log()))?;
            let stays = |entry: &Arc<Entry>| {
                let there = table.entry(entry.mapping.iova.first());
                there.is_some_and(|there| Arc::ptr_eq(there, entry))
            };
            let gone = old.entries().iter().filter(|entry| !stays(entry));
            let gone = gone.cloned().collect();
            Ok(Publication {
                table,
                gone,
                unlogged: None,
            })
        })
    }

    /// Switches dirty logging on, to another log, or off. On return every later write is logged there (or nowhere):
    /// the [`Hold`]s of before are gone.
    ///
    /// # Errors
    /// [`MemError::Busy`] at the deadline: switched, but what began before may still write as it was then.
    pub fn set_dirty_log(
        &self,
        log: Option<Arc<dyn DirtyLog>>,
        by: Deadline,
    ) -> Result<(), MemError> {
        self.change(by, |table| {
            Ok(Publication {
                unlogged: Some(Arc::clone(table.log())),
                ..Table::new(table.entries().to_vec(), Log::new(log))?.into()
            })
        })
    }

    /// From here on calls `watcher` after each change, until its last `Arc` is dropped: for a device that waits for an
    /// address to be mapped. It is called by whoever made the change, without a lock, and must not wait.
    pub fn watch(&self, watcher: &Arc<impl Fn() + Send + Sync + 'static>) {
        let watcher: Weak<Watcher> = Arc::downgrade(watcher) as _;
        let mut watchers = self.0.watchers.lock().unwrap_or_else(|e| e.into_inner());
        watchers.retain(|known| known.strong_count() != 0);
        watchers.push(watcher);
    }

    /// What is mapped now, by ascending address.
    pub fn mappings(&self) -> Vec<Mapping> {
        let mut reader = self.reader();
        let section = reader.enter();
        let entries = section.table().entries().iter();
        entries.map(|entry| entry.mapping.clone()).collect()
    }

    /// Publishes what `make` makes of the table, and waits until nobody can be at what is gone.
    fn change(
        &self,
        by: Deadline,
        make: impl FnOnce(&Table) -> Result<Publication, MemError>,
    ) -> Result<(), MemError> {
        // Nothing panics while it holds the lock.
        let mut retired = self.0.retired.lock().unwrap_or_else(|e| e.into_inner());
        // Acquire pairs with the release of the swap below. Only writers swap, and we hold their lock.
        let current = self.0.table.load(Ordering::Acquire);
        // SAFETY: the published table is alive until a writer replaces it, and the lock keeps other writers out.
        let current = unsafe { &*current };
        let mut publication = make(current)?;
        let taken = u64::from(!publication.gone.is_empty());
        publication.table.removals = current.removals.wrapping_add(taken);
        let new = Arc::into_raw(Arc::new(publication.table)).cast_mut();
        // Release: who loads the pointer sees the table.
        let old = self.0.table.swap(new, Ordering::AcqRel);
        // SAFETY: `old` came from `Arc::into_raw`, and the swap took the one count that was published.
        let old = unsafe { Arc::from_raw(old) };
        let mut grace = self.0.readers.grace();
        let left = wait(by, || grace.is_over());
        retired.push(Retired { _table: old, grace });
        // Dropped outside the lock: memory may be anybody's, and do anything when it goes.
        let over: Vec<Retired> = retired.extract_if(.., |old| old.grace.is_over()).collect();
        drop(retired);
        // A model without a fence does look at what is gone: it is to say so itself, and not crash.
        #[cfg(loom)]
        over.iter()
            .for_each(|old| std::mem::forget(Arc::clone(&old._table)));
        drop(over);
        self.tell();
        if !left {
            let what = "an address space is";
            return Err(MemError::Busy { what });
        }
        // No section can add a hold to what is gone any more.
        let of_log = publication.unlogged.iter().map(|log| &log.holds);
        let of_gone = publication.gone.iter().map(|entry| &entry.holds);
        let mut held: Vec<&Holds> = of_log.chain(of_gone).collect();
        if !wait(by, || {
            held.retain(|holds| !holds.are_none());
            held.is_empty()
        }) {
            let what = "memory with I/O in flight is";
            return Err(MemError::Busy { what });
        }
        Ok(())
    }

    /// Tells whoever watches that a table was published.
    fn tell(&self) {
        let watchers = || self.0.watchers.lock().unwrap_or_else(|e| e.into_inner());
        let all: Vec<_> = watchers().iter().filter_map(Weak::upgrade).collect();
        // Outside of the lock: they may watch something else.
        for watcher in all {
            watcher();
        }
    }
}

struct Publication {
    table: Table,
    /// Entries that nobody may hold any more.
    gone: Vec<Arc<Entry>>,
    /// A log that nobody may write to, or past, any more.
    unlogged: Option<Arc<Log>>,
}

impl From<Table> for Publication {
    fn from(table: Table) -> Self {
        Self {
            table,
            gone: Vec::new(),
            unlogged: None,
        }
    }
}

/// Whether the mappings make a table.
fn table_of(mappings: Vec<Mapping>) -> Result<(), MemError> {
    let entries = mappings.into_iter().map(entry).collect();
    Table::new(entries, Log::new(None)).map(drop)
}

fn entries_of(batch: Vec<Mapping>) -> Result<impl Iterator<Item = Arc<Entry>>, MemError> {
    batch.iter().try_for_each(Mapping::check)?;
    Ok(batch.into_iter().map(entry))
}

fn entry(mapping: Mapping) -> Arc<Entry> {
    let holds = Holds::default();
    Arc::new(Entry { mapping, holds })
}

impl Drop for Inner {
    fn drop(&mut self) {
        let table = self.table.load(Ordering::Acquire);
        // SAFETY: the published count; readers keep the space alive, so none is left.
        drop(unsafe { Arc::from_raw(table) });
    }
}

impl std::fmt::Debug for AddressSpace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.mappings()).finish()
    }
}

/// One worker's way into an address space.
pub struct Reader {
    slot: Arc<Slot>,
    space: AddressSpace,
}

impl Reader {
    /// Begins a section: one for a batch. Costs a store and a full fence; nothing may block inside.
    #[inline]
    pub fn enter(&mut self) -> Section<'_> {
        self.slot.enter();
        // Acquire pairs with the release of the writer's swap.
        let table = self.space.0.table.load(Ordering::Acquire);
        Section {
            table: NonNull::new(table).unwrap_or(NonNull::dangling()),
            reader: self,
        }
    }

    /// The address space it reads.
    pub fn space(&self) -> &AddressSpace {
        &self.space
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.space.0.readers.remove(&self.slot);
    }
}

/// A read section: while it lasts, what it translated stays mapped.
pub struct Section<'r> {
    table: NonNull<Table>,
    reader: &'r mut Reader,
}

impl Section<'_> {
    #[inline]
    pub(crate) fn table(&self) -> &Table {
        // SAFETY: loaded inside the section; a writer that replaces it keeps it until the section has ended.
        unsafe { self.table.as_ref() }
    }

    /// The memory at `at`, for access `want`: up to `len` bytes. Fewer where the mapping ends and what follows is not
    /// contiguous in this process; ask again for the rest.
    ///
    /// `near` is the caller's guess, kept from call to call; where it is right this is one subtraction and one
    /// comparison.
    ///
    /// # Errors
    /// [`Fault::Miss`] when nothing is mapped at `at`; [`Fault::Denied`] when it is, but not for `want`.
    #[inline]
    pub fn translate<'s>(
        &'s self,
        at: Iova,
        len: u32,
        want: Access,
        near: &mut Hint,
    ) -> Result<Bytes<'s>, Fault> {
        self.table().translate(at, len, want, near)
    }

    /// How often mappings had been taken away from the address space: whoever asked for an address that is missing, and
    /// sees another number, cannot know whether it came and went.
    pub fn removals(&self) -> u64 {
        self.table().removals
    }

    /// A cursor that translates many addresses for access `want`: for the loop over a batch. It begins where `near`
    /// was.
    #[inline]
    pub fn cursor<'s>(&'s self, want: Access, near: &Hint) -> Cursor<'s> {
        let table = self.table();
        Cursor::new(table, want, table.hinted(near))
    }

    /// What [`translate`](Self::translate) gives, for I/O that outlives the section: unmapping waits until the hold is dropped.
    ///
    /// # Errors
    /// As [`translate`](Self::translate).
    pub fn hold(&self, at: Iova, len: u32, want: Access) -> Result<Hold, Fault> {
        let entry = self.table().entry(at).ok_or(Fault::Miss)?;
        if !entry.mapping.access.allows(want) {
            return Err(Fault::Denied);
        }
        let offset = at.get() - entry.mapping.iova.first().get();
        let len = u64::from(len).min(entry.mapping.iova.len() - offset);
        let log = self.table().log();
        entry.holds.add();
        log.holds.add();
        let host = NonNull::new(entry.mapping.host()).unwrap_or(NonNull::dangling());
        let logged = log.to.clone().zip(entry.mapping.dirty);
        Ok(Hold {
            entry: Arc::clone(entry),
            offset,
            len,
            writable: want.allows(Access::DeviceWrites),
            logged: logged.map(|(to, gpa)| Logged::new(to, host, gpa)),
            log: Arc::clone(log),
        })
    }
}

impl Drop for Section<'_> {
    #[inline]
    fn drop(&mut self) {
        self.reader.slot.leave();
    }
}

/// Memory that stays mapped, and logged as it was, until this is dropped: beyond the section it was taken in.
pub struct Hold {
    entry: Arc<Entry>,
    offset: u64,
    len: u64,
    writable: bool,
    logged: Option<Logged>,
    log: Arc<Log>,
}

impl Hold {
    /// The memory.
    pub fn bytes(&self) -> Bytes<'_> {
        let mapping = &self.entry.mapping;
        let host = mapping.host().wrapping_add(self.offset as usize);
        let log = self.logged.as_ref();
        let base = NonNull::new(host).unwrap_or(NonNull::dangling());
        // SAFETY: inside the mapping, whose memory the entry keeps alive, with the access that was asked for.
        unsafe { Bytes::new(base, self.len as usize, self.writable, log) }
    }
}

impl Hold {
    /// The system wrote the first `len` bytes on the device's behalf, as `preadv` or io_uring do by address: tells the
    /// dirty log, which did not see that. Before the buffer is given back to the driver.
    pub fn wrote(&self, len: u64) {
        self.bytes().mark(0, len.min(self.len) as usize);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.entry.holds.remove();
        self.log.holds.remove();
    }
}

#[cfg(all(test, not(loom)))]
mod tests;

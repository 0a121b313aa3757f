//! What a parent was told of an address space, where something else translates for its device.
//!
//! ```text
//!   map      check all ─▶ DmaMap::map, one by one ─▶ publish       the k-th is refused: the others are taken back
//!   unmap    check ─▶ DmaMap::unmap ─▶ publish without it          not let go of: stays published, the device is broken
//! ```
//!
//! The parent comes first both ways. So for a moment the device can reach what is not published yet, or not what still is;
//! the first harms nobody, and the second is what whoever unmaps has asked for. What keeps memory alive is not the table
//! but the list beside it, which never has less than the device can reach: a mapping enters it before the parent is told,
//! and leaves it once the parent has let go.
//!
//! While the device is well, list and table are the same whenever nobody is at work here, and
//! [`DmaHandle::mappings`](crate::DmaHandle::mappings) shows both. Of a device that is lost the list may have what was never
//! published, and the table what was taken back and could not be mapped again.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vdpa_mem::{AddressSpace, Deadline, Iova, IovaRange, Mapping, MemError};

use crate::event::Channel;
use crate::{Asid, Dma, DmaLimits, DmaMap, Error, Event, EventSink, Reach, Result, VdpaDevice};

/// The parent's side of one address space.
pub(super) struct Told {
    asid: Asid,
    limits: DmaLimits,
    channel: Arc<Channel>,
    state: Mutex<State>,
}

/// Serialises what the parent is told. Held over its calls, which may take long, and never together with the lock of
/// control calls.
struct State {
    /// `None` once the device was let go of: nothing is told any more.
    parent: Option<Arc<dyn VdpaDevice>>,
    /// All that the device may reach, which keeps it alive. The published table, and what a parent did not let go of. Never
    /// freed by being dropped.
    mapped: BTreeMap<Iova, Mapping>,
}

impl Told {
    /// The parent's side, if that has to be told of mappings.
    pub(super) fn new(
        asid: Asid,
        parent: &Arc<dyn VdpaDevice>,
        channel: &Arc<Channel>,
    ) -> Option<Self> {
        Some(Self {
            asid,
            limits: told(&**parent)?.limits(),
            channel: Arc::clone(channel),
            state: Mutex::new(State {
                parent: Some(Arc::clone(parent)),
                mapped: BTreeMap::new(),
            }),
        })
    }

    pub(super) fn limits(&self) -> &DmaLimits {
        &self.limits
    }

    /// Maps all of `batch`, or none.
    pub(super) fn map(&self, space: &AddressSpace, batch: Vec<Mapping>) -> Result<()> {
        let mut state = self.lock();
        let State { parent, mapped } = &mut *state;
        let dma = parent.as_deref().and_then(told).ok_or(Error::Gone)?;
        // Again, under the lock: what a lost device did not let go of is no place for anything else.
        self.channel.check()?;
        self.check(&batch, mapped.len())?;
        space.check_map(&batch)?;
        self.give(dma, mapped, &batch)?;
        // A file may have been cut meanwhile.
        space.map(batch.clone()).or_else(|e| {
            self.take_all(dma, mapped, batch.iter())?;
            Err(e.into())
        })
    }

    /// Unmaps what is in `range`, which has to hold it whole. What the parent does not let go of stays as it is.
    pub(super) fn unmap(&self, space: &AddressSpace, range: IovaRange, by: Deadline) -> Result<()> {
        let mut state = self.lock();
        let State { parent, mapped } = &mut *state;
        let within = |mapping: &Mapping| mapping.iova.overlaps(range);
        let going: Vec<Mapping> = mapped.values().filter(|m| within(m)).cloned().collect();
        // Not the same once a device was lost: there may be what was never published, and what the parent has no more.
        let mut published = space.mappings();
        published.retain(within);
        let mut both = going.iter().chain(&published);
        if let Some(cut) = both.find(|mapping| !range.contains(mapping.iova)) {
            let mapping = cut.iova;
            return Err(MemError::Partial { range, mapping }.into());
        }
        if going.is_empty() && published.is_empty() {
            return Err(MemError::NotMapped { range }.into());
        }
        let gone = match parent.as_deref().and_then(told) {
            Some(dma) => self.take_all(dma, mapped, going.iter()),
            None if going.is_empty() => Ok(()),
            // The device was let go of, and did not let go of these.
            None => Err(Error::Broken),
        };
        let before = published.len();
        published.retain(|mapping| !has(mapped, mapping));
        let mut outcome = gone;
        if published.len() == before {
            if before > 0 {
                outcome = outcome.and(space.unmap(range, by).map_err(Error::from));
            }
            return outcome;
        }
        // Some are not let go of. The others can still be had back.
        for mapping in &published {
            let unmapped = space.unmap(mapping.iova, by).map_err(Error::from);
            outcome = outcome.and(unmapped);
        }
        outcome
    }

    /// Has the parent reach what is in `table` and nothing else. What is the same in both is not touched.
    pub(super) fn replace(
        &self,
        space: &AddressSpace,
        table: Vec<Mapping>,
        by: Deadline,
    ) -> Result<()> {
        let mut state = self.lock();
        let State { parent, mapped } = &mut *state;
        let dma = parent.as_deref().and_then(told).ok_or(Error::Gone)?;
        // Again, under the lock: what a lost device did not let go of is no place for anything else.
        self.channel.check()?;
        self.check(&table, 0)?;
        space.check_replace(&table)?;
        let after: BTreeMap<Iova, &Mapping> = table.iter().map(|m| (m.iova.first(), m)).collect();
        let new = table.iter().filter(|m| !has(mapped, m));
        let new: Vec<Mapping> = new.cloned().collect();
        let old = mapped.values().filter(|m| !has(&after, m));
        let old: Vec<Mapping> = old.cloned().collect();
        // Before the new ones come, which may be where the old ones are. The published table keeps them all.
        self.take_all(dma, mapped, old.iter())?;
        let given = self.give(dma, mapped, &new);
        let done = given.and_then(|()| {
            space.replace(table, by).or_else(|e| match e {
                // Published, all the same.
                MemError::Busy { .. } => Err(e.into()),
                e => {
                    self.take_all(dma, mapped, new.iter())?;
                    Err(e.into())
                }
            })
        });
        match done {
            Err(e) if !matches!(e, Error::Memory(MemError::Busy { .. })) => {
                // As it was, unless the device is lost: what it did not let go of may be where the old ones were. What
                // cannot be had back is missing from what the owner believes to be mapped.
                if self.channel.check().is_ok()
                    && let Err(lost) = self.give(dma, mapped, &old)
                {
                    self.broken(format_args!(
                        "cannot have its mappings of before back: {lost}"
                    ));
                }
                Err(e)
            }
            done => done,
        }
    }

    /// The parent is told for the last time: takes everything back from it. What it does not let go of stays in the list.
    pub(super) fn take_back(&self) {
        let mut state = self.lock();
        let State { parent, mapped } = &mut *state;
        let Some(parent) = parent.take() else {
            return;
        };
        if let Some(dma) = told(&*parent) {
            mapped.retain(|_, mapping| dma.unmap(self.asid, mapping).is_err());
        }
    }

    /// Whether `batch` can be mapped beside `there` other mappings.
    fn check(&self, batch: &[Mapping], there: usize) -> Result<()> {
        for mapping in batch {
            check_one(&self.limits, mapping)?;
        }
        let wanted = there.saturating_add(batch.len());
        match self.limits.max_entries {
            Some(max) if wanted as u64 > u64::from(max) => Err(Error::DmaEntries {
                asid: self.asid,
                there,
                more: batch.len(),
                max,
            }),
            _ => Ok(()),
        }
    }

    /// The parent maps all of `batch`, or none.
    fn give(
        &self,
        dma: &dyn DmaMap,
        mapped: &mut BTreeMap<Iova, Mapping>,
        batch: &[Mapping],
    ) -> Result<()> {
        for (done, mapping) in batch.iter().enumerate() {
            // First: a parent that panics may have mapped it.
            mapped.insert(mapping.iova.first(), mapping.clone());
            if let Err(e) = dma.map(self.asid, mapping) {
                mapped.remove(&mapping.iova.first());
                let e = self.channel.heard(e);
                // The error is why the batch failed. What cannot be taken back is told as an event.
                let _broken = self.take_all(dma, mapped, batch.iter().take(done).rev());
                return Err(e);
            }
        }
        Ok(())
    }

    /// The parent lets go of them. Of those that it can, if not of all.
    fn take_all<'m>(
        &self,
        dma: &dyn DmaMap,
        mapped: &mut BTreeMap<Iova, Mapping>,
        mappings: impl Iterator<Item = &'m Mapping>,
    ) -> Result<()> {
        let mut outcome = Ok(());
        for mapping in mappings {
            let gone = self.take(dma, mapped, mapping);
            outcome = outcome.and(gone);
        }
        outcome
    }

    /// The parent lets go of a mapping, or the device is broken: nobody can say what it will write.
    fn take(
        &self,
        dma: &dyn DmaMap,
        mapped: &mut BTreeMap<Iova, Mapping>,
        mapping: &Mapping,
    ) -> Result<()> {
        if let Err(e) = dma.unmap(self.asid, mapping) {
            let e = self.channel.heard(e);
            self.broken(format_args!("does not let go of {}: {e}", mapping.iova));
            return Err(e);
        }
        mapped.remove(&mapping.iova.first());
        Ok(())
    }

    /// Unless it is gone, which says more.
    fn broken(&self, why: std::fmt::Arguments<'_>) {
        if matches!(self.channel.check(), Err(Error::Gone)) {
            return;
        }
        self.channel.raise(Event::Broken {
            why: format!("address space {}: the device {why}", self.asid),
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // What a parent that panicked had done by then is not known, and stays in the list.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        // Nobody can say how long the device reaches what was not let go of: not even until the parent is dropped, of which
        // others may have parts. So it is never freed.
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        std::mem::forget(std::mem::take(&mut state.mapped));
    }
}

/// Whether `mapping` is among what is mapped, by first address.
fn has(there: &BTreeMap<Iova, impl Borrow<Mapping>>, mapping: &Mapping) -> bool {
    let at = there.get(&mapping.iova.first());
    at.is_some_and(|there| there.borrow().is_same(mapping))
}

/// How a parent is told, if it is. The same while the device is open.
fn told(parent: &dyn VdpaDevice) -> Option<&dyn DmaMap> {
    match parent.caps().dma {
        Dma::Map(dma) => Some(dma),
        Dma::Software { .. } => None,
    }
}

/// Whether what translates for the device can take the mapping.
fn check_one(limits: &DmaLimits, mapping: &Mapping) -> Result<()> {
    let range = mapping.iova;
    let numbers = [
        ("device address", range.first().get()),
        ("length", range.len()),
        ("host address", mapping.hva().get()),
    ];
    let granule = limits.granule.max(1);
    for (what, value) in numbers {
        if !value.is_multiple_of(granule) {
            return Err(Error::DmaGranule {
                range,
                what,
                value,
                granule,
            });
        }
    }
    if limits.reach == Reach::Process && mapping.memory.file().is_none() {
        return Err(Error::DmaNoFile { range });
    }
    let legal = |(first, last): &(Iova, Iova)| *first <= range.first() && range.last() <= *last;
    match limits.ranges.iter().any(legal) {
        true => Ok(()),
        false => Err(Error::DmaRange {
            range,
            legal: limits.ranges.clone(),
        }),
    }
}

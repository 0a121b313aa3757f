//! The front end's memory: at its own addresses, at the guest's, and at the device's.
//!
//! ```text
//!   user address    SET_VRING_ADDR, IOTLB updates           what the front end's process has it at
//!   guest address   the dirty log; the device's, unless     what the guest has it at
//!   IOVA            ACCESS_PLATFORM is negotiated: then     what the front end's IOMMU translates
//! ```
//!
//! Without translation the regions are mapped for the device at their guest addresses. With it only what the front end says
//! is, by IOTLB messages, and the rest is asked for when the device comes to it.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::sys::stat::fstat;
use nix::sys::statfs::{HUGETLBFS_MAGIC, fstatfs};
use vdpa_core::{IovaRange, Mapping};
use vdpa_mem::{Access, DmaMemory, Gpa, Iova, Region};
use vdpa_vhost_user::payload::{self, Iotlb, MemoryRegion};

use super::error::MemoryError;
use crate::serve::Served;

/// How many regions there may be: as many as a guest has memory slots.
pub(super) const MAX_SLOTS: usize = 509;

/// How many translations there may be at a time. A front end with more is asked again for those that it gave first.
const MAX_TRANSLATIONS: usize = 1 << 16;

/// What the front end gave.
#[derive(Default)]
pub(super) struct Memory {
    regions: Vec<Held>,
    /// Set while addresses of the device are translated by the front end: what is mapped, by its start.
    translated: Option<BTreeMap<u64, Translation>>,
}

/// A translation, within one region.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Translation {
    len: u64,
    guest: u64,
    access: Access,
}

/// A region, mapped into this process.
struct Held {
    region: MemoryRegion,
    /// Device and inode of its file.
    file: (u64, u64),
    memory: Arc<dyn DmaMemory>,
    /// Where it begins in `memory`.
    within: u64,
}

impl Held {
    fn new(region: MemoryRegion, fd: OwnedFd) -> Result<Self, MemoryError> {
        let failed = |errno: nix::Error| MemoryError::File {
            at: region.guest,
            source: errno.into(),
        };
        let stat = fstat(&fd).map_err(failed)?;
        let page = page_of(&fd).map_err(failed)?;
        // From the start of the page that it begins in to the end of the one it ends in: of huge pages nothing else can be
        // mapped.
        let within = region.offset.checked_rem(page).unwrap_or(0);
        let start = region.offset.saturating_sub(within);
        let len = within.saturating_add(region.size);
        let len = len.checked_next_multiple_of(page).unwrap_or(u64::MAX);
        // The last page of a file of small pages may end anywhere.
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let rest = size.saturating_sub(start);
        let needed = within.saturating_add(region.size);
        let len = if rest >= needed {
            len.min(rest)
        } else {
            needed
        };
        let mapped = Region::shared(fd, start, len);
        let mapped = mapped.map_err(|source| MemoryError::Region {
            at: region.guest,
            size: region.size,
            source,
        })?;
        let (memory, _) = mapped.into_shared();
        Ok(Self {
            region,
            file: (stat.st_dev, stat.st_ino),
            memory,
            within,
        })
    }

    /// The part of it from `guest` on as the device sees it at `iova`.
    fn mapping(&self, iova: IovaRange, guest: u64, access: Access) -> Mapping {
        let into = guest.saturating_sub(self.region.guest);
        Mapping {
            iova,
            memory: Arc::clone(&self.memory),
            offset: self.within.saturating_add(into),
            access,
            dirty: Some(Gpa::new(guest)),
        }
    }

    /// All of it, where the guest has it.
    fn whole(&self) -> Result<Mapping, MemoryError> {
        let iova = IovaRange::new(Iova::new(self.region.guest), self.region.size)?;
        Ok(self.mapping(iova, self.region.guest, Access::Both))
    }

    /// The guest address of a user address in it.
    fn guest_of(&self, user: u64) -> Option<u64> {
        let into = user.checked_sub(self.region.user)?;
        let inside = into < self.region.size;
        inside.then(|| self.region.guest.wrapping_add(into))
    }
}

/// The size of the file's pages.
fn page_of(fd: &impl AsFd) -> Result<u64, nix::Error> {
    const SMALL: u64 = 4096;
    let fs = fstatfs(fd)?;
    Ok(match fs.filesystem_type() == HUGETLBFS_MAGIC {
        true => u64::try_from(fs.block_size()).unwrap_or(SMALL).max(SMALL),
        false => SMALL,
    })
}

impl Memory {
    /// Where the device finds what the front end has at `at`.
    pub(super) fn place(&self, at: u64) -> Option<u64> {
        match self.translated {
            // A ring is given at the device's address.
            Some(_) => Some(at),
            None => self.regions.iter().find_map(|held| held.guest_of(at)),
        }
    }

    /// Where a region begins for the guest that is not what it was, since its file was cut.
    pub(super) fn lost(&self) -> Option<u64> {
        let lost = self.regions.iter().find(|held| held.memory.is_lost());
        lost.map(|held| held.region.guest)
    }

    /// Whether the device's addresses are translated by the front end.
    pub(super) fn is_translated(&self) -> bool {
        self.translated.is_some()
    }

    /// Where the guest's memory ends.
    pub(super) fn end(&self) -> Gpa {
        let ends = self
            .regions
            .iter()
            .map(|held| held.region.guest.saturating_add(held.region.size));
        Gpa::new(ends.max().unwrap_or(0))
    }

    /// All memory there is. What is the same as before is not interrupted.
    pub(super) fn set(
        &mut self,
        table: Vec<(MemoryRegion, OwnedFd)>,
        served: &Served,
    ) -> Result<(), MemoryError> {
        let mut before = std::mem::take(&mut self.regions);
        let mut regions = Vec::new();
        for (region, fd) in table {
            let stat = fstat(&fd).map_err(|errno| MemoryError::File {
                at: region.guest,
                source: errno.into(),
            })?;
            let file = (stat.st_dev, stat.st_ino);
            let same = |held: &Held| held.region == region && held.file == file;
            regions.push(match before.iter().position(same) {
                Some(at) => before.swap_remove(at),
                None => Held::new(region, fd)?,
            });
        }
        self.regions = regions;
        self.apply(served)
    }

    /// One more region.
    pub(super) fn add(
        &mut self,
        region: MemoryRegion,
        fd: OwnedFd,
        served: &Served,
    ) -> Result<(), MemoryError> {
        if self.regions.len() >= MAX_SLOTS {
            return Err(MemoryError::Slots { most: MAX_SLOTS });
        }
        let shared = |held: &&Held| held.region.shares(&region).is_some();
        if let Some(other) = self.regions.iter().find(shared) {
            return Err(MemoryError::Overlap {
                at: region.guest,
                other: other.region.guest,
            });
        }
        self.regions.push(Held::new(region, fd)?);
        match self.translated {
            // Not mapped beside what there is: a worker in the midst of its queues would not see it yet, and fail what the
            // guest asks for once this is answered.
            None => self.apply(served),
            Some(_) => Ok(()),
        }
    }

    /// One less.
    pub(super) fn remove(
        &mut self,
        region: &MemoryRegion,
        served: &Served,
    ) -> Result<(), MemoryError> {
        // The offset is not compared: it says nothing of which one it is.
        let same = |held: &Held| {
            let have = &held.region;
            (have.guest, have.user, have.size) == (region.guest, region.user, region.size)
        };
        let at = self.regions.iter().position(same);
        let at = at.ok_or(MemoryError::NoRegion { at: region.guest })?;
        let held = self.regions.swap_remove(at);
        match self.translated {
            None => served.dma().unmap(held.whole()?.iova, served.by())?,
            // What was translated to it is asked for again, and answered or not.
            Some(_) => self.apply(served)?,
        }
        Ok(())
    }

    /// Addresses are translated by the front end from here on, or not any more.
    pub(super) fn set_translated(&mut self, on: bool, served: &Served) -> Result<(), MemoryError> {
        if self.translated.is_some() == on {
            return Ok(());
        }
        self.translated = on.then(BTreeMap::new);
        self.apply(served)
    }

    /// Has the device reach what it is to reach at first: all regions, or nothing.
    fn apply(&mut self, served: &Served) -> Result<(), MemoryError> {
        let table = match &mut self.translated {
            Some(map) => {
                map.clear();
                Vec::new()
            }
            None => self
                .regions
                .iter()
                .map(Held::whole)
                .collect::<Result<_, _>>()?,
        };
        let there = served.dma().mappings();
        let same = table.len() == there.len()
            && table
                .iter()
                .all(|new| there.iter().any(|old| old.is_same(new)));
        if !same {
            served.dma().replace(table, served.by())?;
        }
        Ok(())
    }

    /// A translation comes.
    pub(super) fn update(&mut self, entry: &Iotlb, served: &Served) -> Result<(), MemoryError> {
        let access = match (
            entry.access.contains(payload::Access::READ),
            entry.access.contains(payload::Access::WRITE),
        ) {
            (true, true) => Access::Both,
            (true, false) => Access::DeviceReads,
            (false, true) => Access::DeviceWrites,
            (false, false) => return self.invalidate(entry.iova, entry.size, served),
        };
        let Some(map) = &self.translated else {
            return Err(MemoryError::NotTranslated);
        };
        // It may lie in several regions that touch at the front end's addresses.
        let (mut batch, mut pieces) = (Vec::new(), Vec::new());
        let mut done = 0u64;
        while done < entry.size {
            let user = entry.user.saturating_add(done);
            let found = self.regions.iter().find_map(|held| {
                let guest = held.guest_of(user)?;
                let into = guest.checked_sub(held.region.guest)?;
                Some((held, guest, held.region.size.checked_sub(into)?))
            });
            let (held, guest, rest) = found.ok_or(MemoryError::Nowhere { at: user })?;
            let len = rest.min(entry.size.saturating_sub(done));
            let iova = IovaRange::new(Iova::new(entry.iova.saturating_add(done)), len)?;
            batch.push(held.mapping(iova, guest, access));
            pieces.push((iova.first().get(), Translation { len, guest, access }));
            done = done.saturating_add(len);
        }
        // Said again, it is not taken away for a moment: the device would ask for it again.
        if pieces
            .iter()
            .all(|(start, piece)| map.get(start) == Some(piece))
        {
            return Ok(());
        }
        // Whatever else was there is replaced.
        self.invalidate(entry.iova, entry.size, served)?;
        if let Some(map) = &mut self.translated {
            if map.len() >= MAX_TRANSLATIONS {
                map.clear();
                served.dma().replace(Vec::new(), served.by())?;
            }
            map.extend(pieces);
        }
        served.dma().map(batch)?;
        Ok(())
    }

    /// Translations go, whole, where they touch this range: what is still good of one is asked for again.
    ///
    /// * `size`: 0 for all from `iova` on, since 64 bits do not hold the size of all addresses there are
    pub(super) fn invalidate(
        &mut self,
        iova: u64,
        size: u64,
        served: &Served,
    ) -> Result<(), MemoryError> {
        let Some(map) = &mut self.translated else {
            return Err(MemoryError::NotTranslated);
        };
        let last = match size.checked_sub(1) {
            Some(most) => iova.saturating_add(most),
            None => u64::MAX,
        };
        let touched = |(start, there): (&u64, &Translation)| {
            let end = start.saturating_add(there.len.saturating_sub(1));
            (end >= iova).then_some((*start, there.len))
        };
        // Those before it are apart and in order: the first that does not reach it ends the walk.
        let found: Vec<_> = map.range(..=last).rev().map_while(touched).collect();
        let (Some((highest, len)), Some((lowest, _))) = (found.first(), found.last()) else {
            return Ok(());
        };
        // In one step, whatever is between them: each costs a look at all that is mapped.
        let end = highest.saturating_sub(*lowest).saturating_add(*len);
        let range = IovaRange::new(Iova::new(*lowest), end)?;
        for (start, _) in &found {
            map.remove(start);
        }
        served.dma().unmap(range, served.by())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;

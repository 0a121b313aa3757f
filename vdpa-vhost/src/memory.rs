//! What a back end can reach, told to it as regions of files.
//!
//! A region's guest address and its user address are one number, the device address: nothing has to be translated for
//! rings, no two regions overlap in either, and nothing of this process's layout is told.
//!
//! ```text
//!   CONFIGURE_MEM_SLOTS   ADD_MEM_REG, REM_MEM_REG      one by one; as many as GET_MAX_MEM_SLOTS says
//!   otherwise             SET_MEM_TABLE                 the whole table each time; 8 regions at most
//! ```

use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use vdpa_core::{DmaLimits, Mapping, Reach};
use vdpa_mem::{Iova, Region, Window};
use vdpa_vhost_user::FrontMessage;
use vdpa_vhost_user::payload::{MAX_TABLE, MemoryRegion};

use crate::VhostError;
use crate::line::{Line, Loss};

type Result<T, E = VhostError> = std::result::Result<T, E>;

const PAGE: u64 = 4096;
/// Where a page of nothing is, in a table that would have no region: no back end takes such a one, and what it had before
/// would stay in its reach. Nothing else is mapped from here on.
const NOTHING_AT: u64 = 0xffff_ffff_ffff_0000;

/// Mappings of a back end.
pub(crate) struct Memory {
    /// How many it has room for; `None`: it is told the table as a whole.
    slots: Option<u32>,
    told: Mutex<BTreeMap<u64, Mapping>>,
}

impl Memory {
    /// * `slots`: how many regions can come and go one by one; `None`: none can
    pub(crate) fn new(slots: Option<u32>) -> Self {
        Self {
            slots,
            told: Mutex::default(),
        }
    }

    pub(crate) fn limits(&self) -> DmaLimits {
        let most = u32::try_from(MAX_TABLE).unwrap_or(u32::MAX);
        let last = NOTHING_AT.saturating_sub(1);
        DmaLimits {
            ranges: vec![(Iova::new(0), Iova::new(last))],
            granule: PAGE,
            max_entries: Some(self.slots.unwrap_or(most)),
            reach: Reach::Process,
        }
    }

    /// Bytes that the back end can reach, as they are here.
    pub(crate) fn window(&self, at: Iova, len: u64) -> Option<Window> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let (first, mapping) = told.range(..=at.get()).next_back()?;
        let within = at.get().checked_sub(*first)?;
        let end = within.checked_add(len)?;
        if end > mapping.iova.len() {
            return None;
        }
        let offset = mapping.offset.checked_add(within)?;
        Window::new(Arc::clone(&mapping.memory), offset, len).ok()
    }

    /// Tells the back end of one more.
    pub(crate) fn map(&self, line: &Line, mapping: &Mapping) -> Result<()> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let (region, file) = region(line, mapping)?;
        if self.slots.is_some() {
            line.ask(&FrontMessage::AddMemReg(region, file))?;
        } else {
            let mut table = table(line, told.values())?;
            table.push((region, file));
            line.ask(&FrontMessage::SetMemTable(table))?;
        }
        told.insert(mapping.iova.first().get(), mapping.clone());
        Ok(())
    }

    /// Tells the back end of one less, and makes sure that it has looked.
    ///
    /// One that closed the connection has let go of everything. Of one that was given up nobody knows.
    pub(crate) fn unmap(&self, line: &Line, mapping: &Mapping) -> Result<()> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        match (self.take(line, &told, mapping), line.loss()) {
            (Ok(()), _) | (Err(_), Some(Loss::Closed)) => {
                told.remove(&mapping.iova.first().get());
                Ok(())
            }
            (Err(e), _) => Err(e),
        }
    }

    fn take(&self, line: &Line, told: &BTreeMap<u64, Mapping>, mapping: &Mapping) -> Result<()> {
        if self.slots.is_some() {
            let (region, _file) = region(line, mapping)?;
            line.ask(&FrontMessage::RemMemReg(region))?;
        } else {
            let gone = mapping.iova.first().get();
            let kept = told.iter().filter(|(at, _)| **at != gone);
            let mut table = table(line, kept.map(|(_, mapping)| mapping))?;
            if table.is_empty() {
                table.push(nothing(line)?);
            }
            line.ask(&FrontMessage::SetMemTable(table))?;
        }
        line.settle()
    }
}

fn table<'m>(
    line: &Line,
    mappings: impl Iterator<Item = &'m Mapping>,
) -> Result<Vec<(MemoryRegion, OwnedFd)>> {
    mappings.map(|mapping| region(line, mapping)).collect()
}

fn region(line: &Line, mapping: &Mapping) -> Result<(MemoryRegion, OwnedFd)> {
    let (file, start) = mapping.memory.file().ok_or_else(|| VhostError::Lacks {
        path: line.path().to_owned(),
        what: "a file by which it could map this memory",
        cure: "take the memory from a memfd",
    })?;
    let at = mapping.iova.first().get();
    let region = MemoryRegion {
        guest: at,
        size: mapping.iova.len(),
        user: at,
        offset: start.saturating_add(mapping.offset),
    };
    Ok((region, twin(line, file)?))
}

/// A page that nobody uses.
fn nothing(line: &Line) -> Result<(MemoryRegion, OwnedFd)> {
    let failed =
        |e: vdpa_mem::MemError| line.system("make a page of nothing")(std::io::Error::other(e));
    let page = Region::memfd(PAGE).map_err(failed)?;
    let (memory, _) = page.into_shared();
    let (file, offset) = memory.file().ok_or_else(|| VhostError::Gone {
        path: line.path().to_owned(),
    })?;
    let region = MemoryRegion {
        guest: NOTHING_AT,
        size: PAGE,
        user: NOTHING_AT,
        offset,
    };
    Ok((region, twin(line, file)?))
}

fn twin(line: &Line, file: BorrowedFd<'_>) -> Result<OwnedFd> {
    file.try_clone_to_owned()
        .map_err(line.system("duplicate the file of its memory"))
}

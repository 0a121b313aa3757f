//! The owner's handle to one address space of a device.

use std::fmt;
use std::sync::Arc;

use vdpa_mem::{AddressSpace, Deadline, DirtyLog, IovaRange, Mapping, MemError};

use crate::event::Channel;
use crate::{Asid, Error, Event, EventSink, Result, call};

/// Maps and unmaps memory for a device, beside its control calls: it has no lock in common with them.
///
/// Mappings keep their memory alive and outlive a reset.
#[derive(Clone)]
pub struct DmaHandle {
    asid: Asid,
    space: AddressSpace,
    channel: Arc<Channel>,
}

impl DmaHandle {
    pub(crate) fn new(asid: Asid, space: AddressSpace, channel: Arc<Channel>) -> Self {
        Self {
            asid,
            space,
            channel,
        }
    }

    /// Which address space it is.
    pub fn asid(&self) -> Asid {
        self.asid
    }

    /// Maps all of `batch`, or none.
    ///
    /// # Errors
    /// When a mapping overlaps another, or its memory is not all there.
    pub fn map(&self, batch: Vec<Mapping>) -> Result<()> {
        self.channel.check()?;
        Ok(self.space.map(batch)?)
    }

    /// Maps all of a guest's memory, at IOVAs equal to its guest-physical addresses: what a VMM without a vIOMMU does.
    ///
    /// * `memory`: kept mapped for as long as the device may reach it
    ///
    /// # Errors
    /// As for [`map`](Self::map), and when a region is not mapped in this process.
    #[cfg(feature = "vm-memory")]
    pub fn map_guest<M>(&self, memory: &Arc<M>, access: vdpa_mem::Access) -> Result<()>
    where
        M: vdpa_mem::MappedGuestMemory + Send + Sync + 'static,
    {
        self.channel.check()?;
        Ok(self.space.map_guest(memory, access)?)
    }

    /// Unmaps the mappings in `range`, which has to hold them whole. On return the device does not touch them any more.
    /// Legal also once the device is gone, so that its memory can be had back.
    ///
    /// # Errors
    /// When nothing is mapped there, or a mapping is cut. When the device still uses one at the deadline the memory is
    /// kept and the device is broken.
    pub fn unmap(&self, range: IovaRange, by: Deadline) -> Result<()> {
        match self.check_waiting("unmap") {
            // A device that is gone may still have its last batch to end; the unmap waits for that.
            Ok(()) | Err(Error::Gone) => self.settle(self.space.unmap(range, by)),
            Err(e) => Err(e),
        }
    }

    /// Replaces all mappings in one step. On return the device does not touch the old ones any more.
    ///
    /// # Errors
    /// As for [`map`](Self::map) and [`unmap`](Self::unmap).
    pub fn replace(&self, table: Vec<Mapping>, by: Deadline) -> Result<()> {
        self.check_waiting("replace")?;
        self.settle(self.space.replace(table, by))
    }

    /// Sets where writes of the device are logged. On return every later write is.
    ///
    /// # Errors
    /// As for [`unmap`](Self::unmap).
    pub fn set_dirty_log(&self, log: Option<Arc<dyn DirtyLog>>, by: Deadline) -> Result<()> {
        self.check_waiting("set_dirty_log")?;
        self.settle(self.space.set_dirty_log(log, by))
    }

    /// What is mapped.
    pub fn mappings(&self) -> Vec<Mapping> {
        self.space.mappings()
    }

    /// What waits for the device cannot be called from one of its own threads.
    fn check_waiting(&self, call: &'static str) -> Result<()> {
        if call::is_inside() {
            return Err(Error::InsideCall { call });
        }
        self.channel.check()
    }

    /// A device that does not let go of memory is broken: nobody can say what it will write.
    fn settle(&self, done: Result<(), MemError>) -> Result<()> {
        if let Err(MemError::Busy { what }) = &done {
            self.channel.raise(Event::Broken {
                why: format!("address space {}: {what} still in use", self.asid),
            });
        }
        Ok(done?)
    }
}

impl fmt::Debug for DmaHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DmaHandle")
            .field("asid", &self.asid)
            .finish_non_exhaustive()
    }
}

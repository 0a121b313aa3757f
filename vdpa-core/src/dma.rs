//! The owner's handle to one address space of a device.

mod told;

use std::fmt;
use std::sync::Arc;

use vdpa_mem::{AddressSpace, Deadline, DirtyLog, IovaRange, Mapping, MemError};

use self::told::Told;
use crate::event::Channel;
use crate::{Asid, DmaLimits, Error, Event, EventSink, Result, VdpaDevice, call};

/// Maps and unmaps memory for a device, beside its control calls: it has no lock in common with them.
///
/// Mappings keep their memory alive and outlive a reset. Where something else translates for the device (an IOMMU), its
/// parent is told of each; it has what was mapped until that is unmapped, or the device is closed or dropped.
#[derive(Clone)]
pub struct DmaHandle(Arc<Shared>);

struct Shared {
    asid: Asid,
    device: String,
    space: AddressSpace,
    channel: Arc<Channel>,
    /// `None`: the device reads the space itself.
    told: Option<Told>,
}

impl DmaHandle {
    /// * `parent`: attached
    pub(crate) fn new(
        asid: Asid,
        space: AddressSpace,
        channel: &Arc<Channel>,
        parent: &Arc<dyn VdpaDevice>,
    ) -> Self {
        Self(Arc::new(Shared {
            asid,
            device: parent.info().name.clone(),
            space,
            channel: Arc::clone(channel),
            told: Told::new(asid, parent, channel),
        }))
    }

    /// The device is let go of: takes back from its parent what that was told of.
    pub(crate) fn take_back(&self) {
        if let Some(told) = &self.0.told {
            told.take_back();
        }
    }

    /// What can be mapped, where something else translates for the device. `None`: anything.
    pub fn limits(&self) -> Option<&DmaLimits> {
        self.0.told.as_ref().map(Told::limits)
    }

    /// Which address space it is.
    pub fn asid(&self) -> Asid {
        self.0.asid
    }

    /// Maps all of `batch`, or none.
    ///
    /// # Errors
    /// When a mapping overlaps another, or its memory is not all there. Where the parent is told: when a mapping is not
    /// within the [limits](Self::limits), or the parent refuses one.
    pub fn map(&self, batch: Vec<Mapping>) -> Result<()> {
        self.0.channel.check()?;
        match &self.0.told {
            Some(told) => told.map(&self.0.space, batch),
            None => Ok(self.0.space.map(batch)?),
        }
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
        self.map(vdpa_mem::GuestRegion::mappings(memory, access)?)
    }

    /// Unmaps the mappings in `range`, which has to hold them whole. On return the device does not touch them any more.
    /// Legal also once the device is gone, so that its memory can be had back.
    ///
    /// * `by`: how long what reads the space itself may still be at them. What a parent that is told takes to unmap comes on
    ///   top, as does another map or unmap of the space that is at work: both are the system's, and cannot be cut short
    ///
    /// # Errors
    /// When nothing is mapped there, or a mapping is cut. When the device still uses one at the deadline, or its parent
    /// does not let go of it, the memory is kept and the device is broken; so it answers for what was not let go of when it
    /// was closed or dropped.
    pub fn unmap(&self, range: IovaRange, by: Deadline) -> Result<()> {
        match self.check_waiting("unmap") {
            // A device that is gone may still have its last batch to end; the unmap waits for that.
            Ok(()) | Err(Error::Gone) => self.settle(match &self.0.told {
                Some(told) => told.unmap(&self.0.space, range, by),
                None => self.0.space.unmap(range, by).map_err(Error::from),
            }),
            Err(e) => Err(e),
        }
    }

    /// Replaces all mappings in one step. On return the device does not touch the old ones any more. What is the same in
    /// both is not interrupted.
    ///
    /// A parent that is told of mappings cannot do it in one step: the old ones go, then the new ones come, and a device
    /// that uses either meanwhile is at fault. When a new one is refused, the old ones are mapped again.
    ///
    /// * `by`: as for [`unmap`](Self::unmap)
    ///
    /// # Errors
    /// As for [`map`](Self::map) and [`unmap`](Self::unmap).
    pub fn replace(&self, table: Vec<Mapping>, by: Deadline) -> Result<()> {
        self.check_waiting("replace")?;
        self.settle(match &self.0.told {
            Some(told) => told.replace(&self.0.space, table, by),
            None => self.0.space.replace(table, by).map_err(Error::from),
        })
    }

    /// Sets where writes of the device are logged. On return every later write is.
    ///
    /// # Errors
    /// As for [`unmap`](Self::unmap). When something else translates for the device: nobody sees what it writes.
    pub fn set_dirty_log(&self, log: Option<Arc<dyn DirtyLog>>, by: Deadline) -> Result<()> {
        self.check_waiting("set_dirty_log")?;
        if log.is_some() && self.0.told.is_some() {
            return Err(Error::Unsupported {
                device: self.0.device.clone(),
                what: "dirty log, since its writes go past this process",
            });
        }
        self.settle(self.0.space.set_dirty_log(log, by).map_err(Error::from))
    }

    /// What is mapped.
    pub fn mappings(&self) -> Vec<Mapping> {
        self.0.space.mappings()
    }

    /// What waits for the device cannot be called from one of its own threads.
    fn check_waiting(&self, call: &'static str) -> Result<()> {
        if call::is_inside() {
            return Err(Error::InsideCall { call });
        }
        self.0.channel.check()
    }

    /// A device that does not let go of memory is broken: nobody can say what it will write.
    fn settle(&self, done: Result<()>) -> Result<()> {
        if let Err(Error::Memory(MemError::Busy { what })) = &done {
            self.0.channel.raise(Event::Broken {
                why: format!("address space {}: {what} still in use", self.0.asid),
            });
        }
        done
    }
}

impl fmt::Debug for DmaHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DmaHandle")
            .field("asid", &self.0.asid)
            .finish_non_exhaustive()
    }
}

//! Mappings: what the function can reach.
//!
//! Each [`Mapping`] is one entry of the kernel's, made or not made as a whole. The memory of every entry is held here until
//! the kernel has said that it is gone: the IOMMU goes on letting the function reach it for as long.
#![allow(
    unsafe_code,
    reason = "lets a device reach memory, which the promise of `DmaMemory` allows"
)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vdpa_core::{DmaLimits, Reach};
use vdpa_mem::{Access, DmaMemory, Iova, IovaRange, Mapping};
use vfio_bindings::bindings::vfio;

use crate::VfioError;
use crate::chain::{ReplyFault, capabilities, pairs, u32_at, u64_at};
use crate::ioctl;
use crate::sysfs::{Fact, Host};

/// Who translates for the function.
pub(crate) enum Translator {
    /// A container with the second version of type 1.
    Container(File),
    /// A space of an iommufd.
    #[cfg(feature = "iommufd")]
    Space {
        /// The iommufd.
        iommufd: File,
        /// Which of its objects.
        ioas: u32,
    },
    /// Whoever owns the function's container maps memory himself.
    Owner,
}

/// The mappings of one function.
pub(crate) struct Mappings {
    name: String,
    translator: Translator,
    limits: DmaLimits,
    mapped: Mutex<BTreeMap<u64, Entry>>,
}

/// An entry of the kernel's.
struct Entry {
    range: IovaRange,
    memory: Arc<dyn DmaMemory>,
}

impl Mappings {
    /// Nothing is mapped.
    ///
    /// # Errors
    /// When the limits cannot be had.
    pub(crate) fn new(name: &str, translator: Translator) -> Result<Self, VfioError> {
        let limits = translator.limits().map_err(|source| VfioError::System {
            name: name.to_owned(),
            what: "ask what can be mapped",
            source,
        })?;
        Ok(Self {
            name: name.to_owned(),
            translator,
            limits,
            mapped: Mutex::default(),
        })
    }

    /// Mappings of a translator that is not asked for its limits.
    #[cfg(test)]
    pub(crate) fn unlimited(name: &str, translator: Translator) -> Self {
        Self {
            name: name.to_owned(),
            translator,
            limits: everything(),
            mapped: Mutex::default(),
        }
    }

    /// Whether what the function reaches is mapped here, and by nobody else.
    pub(crate) fn is_own(&self) -> bool {
        !matches!(self.translator, Translator::Owner)
    }

    pub(crate) fn limits(&self) -> &DmaLimits {
        &self.limits
    }

    pub(crate) fn map(&self, m: &Mapping) -> Result<(), VfioError> {
        if !self.is_own() {
            return Ok(());
        }
        let address = self.check(m)?;
        let mut mapped = self.lock();
        // SAFETY: `DmaMemory` has these bytes mapped, writable where they are to be written, and free of references for as
        // long as the value lives; it is held until the entry is gone.
        unsafe { self.translator.map(m, address) }
            .map_err(|source| self.refused(m, source, &mapped))?;
        mapped.insert(
            m.iova.first().get(),
            Entry {
                range: m.iova,
                memory: Arc::clone(&m.memory),
            },
        );
        Ok(())
    }

    /// Checks what the kernel would refuse without a reason, or not at all. Answers where the memory is.
    fn check(&self, m: &Mapping) -> Result<u64, VfioError> {
        let granule = self.limits.granule;
        let inside = m
            .offset
            .checked_add(m.iova.len())
            .is_some_and(|end| end <= m.memory.len());
        let address = (m.memory.hva().as_ptr().expose_provenance() as u64).checked_add(m.offset);
        let allowed = m.memory.is_writable() || !m.access.allows(Access::DeviceWrites);
        let Some(address) = address.filter(|_| inside && allowed) else {
            return Err(VfioError::Map {
                name: self.name.clone(),
                range: m.iova,
                source: io::Error::new(io::ErrorKind::InvalidInput, "its memory has no such part"),
            });
        };
        let edges = [m.iova.first().get(), m.iova.len(), address];
        if edges.iter().any(|edge| !edge.is_multiple_of(granule)) {
            return Err(VfioError::Granule {
                name: self.name.clone(),
                range: m.iova,
                address,
                granule,
            });
        }
        let legal = &self.limits.ranges;
        let within =
            |&(first, last): &(Iova, Iova)| first <= m.iova.first() && m.iova.last() <= last;
        if !legal.iter().any(within) {
            return Err(VfioError::Range {
                name: self.name.clone(),
                range: m.iova,
                legal: legal.clone(),
            });
        }
        Ok(address)
    }

    /// What an error of the kernel means.
    fn refused(&self, m: &Mapping, source: io::Error, mapped: &BTreeMap<u64, Entry>) -> VfioError {
        let name = self.name.clone();
        match source.raw_os_error() {
            Some(libc::ENOMEM) => {
                let locked = mapped.values().map(|entry| entry.range.len()).sum();
                self.no_memory(m.iova.len(), locked, &lockable())
            }
            Some(libc::ENOSPC) => VfioError::Entries {
                name,
                used: mapped.len(),
                limit: self.limits.max_entries.unwrap_or(0),
            },
            Some(libc::ENODEV) => VfioError::Gone { name },
            _ => VfioError::Map {
                name,
                range: m.iova,
                source,
            },
        }
    }

    /// No memory: for want of it, or of the right to lock it.
    fn no_memory(&self, wanted: u64, locked: u64, lockable: &Fact<u64>) -> VfioError {
        let name = self.name.clone();
        let limit = match lockable {
            Fact::Is(u64::MAX) => {
                return VfioError::NoMemory {
                    name,
                    wanted,
                    locked,
                };
            }
            Fact::Is(bytes) => format!("{bytes} bytes"),
            Fact::Absent | Fact::Unknown(_) => "unknown".to_owned(),
        };
        VfioError::Memlock {
            name,
            wanted,
            locked,
            limit,
        }
    }

    pub(crate) fn unmap(&self, m: &Mapping) -> Result<(), VfioError> {
        if !self.is_own() {
            return Ok(());
        }
        let mut mapped = self.lock();
        let first = m.iova.first().get();
        if mapped.get(&first).is_none_or(|entry| entry.range != m.iova) {
            return Err(VfioError::NotMapped {
                name: self.name.clone(),
                range: m.iova,
            });
        }
        self.translator
            .unmap(m.iova)
            .map_err(|(done, source)| VfioError::Unmap {
                name: self.name.clone(),
                range: m.iova,
                done,
                source,
            })?;
        let gone = mapped.remove(&first);
        drop(mapped);
        // Outside the lock: memory may be anything.
        drop(gone);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Entry>> {
        self.mapped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Mappings {
    fn drop(&mut self) {
        for (_, entry) in std::mem::take(&mut *self.lock()) {
            // The container may be another's too, and outlive this.
            if let Err((_, error)) = self.translator.unmap(entry.range) {
                tracing::error!(
                    function = self.name,
                    range = %entry.range,
                    %error,
                    "cannot be unmapped: its memory is never given back"
                );
                std::mem::forget(entry.memory);
            }
        }
    }
}

impl Translator {
    fn limits(&self) -> io::Result<DmaLimits> {
        match self {
            Self::Container(container) => {
                let reply = ioctl::iommu_info(container)?;
                container_limits(&reply).map_err(io::Error::other)
            }
            #[cfg(feature = "iommufd")]
            Self::Space { iommufd, ioas } => {
                let found = ioctl::ioas_ranges(iommufd, *ioas)?;
                limits(found.ranges, found.granule, None).map_err(io::Error::other)
            }
            Self::Owner => Ok(everything()),
        }
    }

    /// # Safety
    /// As for [`ioctl::map_dma`], of the mapping's memory, which begins at `address`.
    unsafe fn map(&self, m: &Mapping, address: u64) -> io::Result<()> {
        let flags = flags(m.access);
        let (iova, len) = (m.iova.first().get(), m.iova.len());
        match self {
            Self::Container(container) => {
                // SAFETY: the caller's promise.
                unsafe { ioctl::map_dma(container, iova, len, address, flags) }
            }
            #[cfg(feature = "iommufd")]
            Self::Space { iommufd, ioas } => {
                // SAFETY: the caller's promise.
                unsafe { ioctl::ioas_map(iommufd, *ioas, iova, len, address, flags) }
            }
            Self::Owner => Ok(()),
        }
    }

    /// Unmaps all of `range`, or says how many bytes were.
    fn unmap(&self, range: IovaRange) -> Result<(), (u64, io::Error)> {
        let (iova, len) = (range.first().get(), range.len());
        let done = match self {
            Self::Container(container) => ioctl::unmap_dma(container, iova, len),
            #[cfg(feature = "iommufd")]
            Self::Space { iommufd, ioas } => ioctl::ioas_unmap(iommufd, *ioas, iova, len),
            Self::Owner => Ok(len),
        };
        match done {
            Ok(done) if done == len => Ok(()),
            Ok(done) => Err((done, io::Error::other("the kernel unmapped something else"))),
            Err(e) => Err((0, e)),
        }
    }
}

/// No limits.
fn everything() -> DmaLimits {
    DmaLimits {
        ranges: vec![(Iova::new(0), Iova::new(u64::MAX))],
        granule: 1,
        max_entries: None,
        reach: Reach::Platform,
    }
}

/// What the device may do, as the kernel has it.
fn flags(access: Access) -> u32 {
    let mut flags = 0;
    if access.allows(Access::DeviceReads) {
        flags |= vfio::VFIO_DMA_MAP_FLAG_READ;
    }
    if access.allows(Access::DeviceWrites) {
        flags |= vfio::VFIO_DMA_MAP_FLAG_WRITE;
    }
    flags
}

/// How much memory this process may lock.
fn lockable() -> Fact<u64> {
    Host::new(Path::new("/")).memlock().bytes()
}

/// Bytes of a `vfio_iommu_type1_info` before its capabilities.
const FIXED: usize = 20;

/// Reads a `vfio_iommu_type1_info` with its capabilities.
fn container_limits(reply: &[u8]) -> Result<DmaLimits, ReplyFault> {
    let flags = u32_at(reply, 4)?;
    let pages = match flags & vfio::VFIO_IOMMU_INFO_PGSIZES {
        0 => 0,
        _ => u64_at(reply, 8)?,
    };
    // An IOMMU of an older kernel has no list.
    let mut ranges = None;
    let mut entries = None;
    if flags & vfio::VFIO_IOMMU_INFO_CAPS != 0 {
        for capability in capabilities(reply, u32_at(reply, 16)?, FIXED)? {
            match u32::from(capability.id) {
                vfio::VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE => {
                    let count = u32_at(capability.bytes, 8)?;
                    ranges = Some(pairs(capability.bytes, 16, count)?);
                }
                vfio::VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL => {
                    entries = Some(u32_at(capability.bytes, 8)?);
                }
                _ => {}
            }
        }
    }
    limits(
        ranges.unwrap_or_else(|| vec![(0, u64::MAX)]),
        lowest(pages),
        entries,
    )
}

/// The lowest bit.
fn lowest(pages: u64) -> u64 {
    pages & pages.wrapping_neg()
}

/// Puts ranges in order.
fn limits(
    mut found: Vec<(u64, u64)>,
    granule: u64,
    max_entries: Option<u32>,
) -> Result<DmaLimits, ReplyFault> {
    if !granule.is_power_of_two() {
        return Err(ReplyFault::NoPage);
    }
    found.sort_unstable();
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for (first, last) in found {
        if first > last {
            return Err(ReplyFault::Range { first, last });
        }
        match ranges.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => ranges.push((first, last)),
        }
    }
    if ranges.is_empty() {
        return Err(ReplyFault::List { count: 0, room: 0 });
    }
    let ranges = ranges
        .into_iter()
        .map(|(first, last)| (Iova::new(first), Iova::new(last)));
    Ok(DmaLimits {
        ranges: ranges.collect(),
        granule,
        max_entries,
        reach: Reach::Platform,
    })
}

#[cfg(test)]
mod tests;

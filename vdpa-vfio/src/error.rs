//! What VFIO refuses, and what mends it.

use std::io;

use vdpa_core::{ErrorKind, ParentError};
use vdpa_mem::{Iova, IovaRange};

/// Why a function cannot be opened or used. Each message ends with the way out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VfioError {
    /// No function at this address.
    #[error("there is no PCI function {name}: `vdpactl vfio list` shows those there are")]
    NoFunction {
        /// Its address.
        name: String,
    },
    /// A function that another driver has, or none.
    #[error("{name} is bound to {}, not to vfio-pci: `vdpactl vfio bind {name}`", driver.as_deref().unwrap_or("no driver"))]
    NotBound {
        /// The function.
        name: String,
        /// Its driver.
        driver: Option<String>,
    },
    /// A function without an IOMMU group.
    #[error(
        "{name} is behind no IOMMU: switch it on in the firmware (VT-d, AMD-Vi) and boot with intel_iommu=on or the like"
    )]
    NoIommu {
        /// The function.
        name: String,
    },
    /// A group of which the kernel was told to do without an IOMMU.
    #[error(
        "{name} is in no-IOMMU mode, where it could write all of memory: switch the IOMMU on, and take vfio's option enable_unsafe_noiommu_mode away"
    )]
    Unprotected {
        /// The function.
        name: String,
    },
    /// A group that others use too.
    #[error("{name}: IOMMU group {group} is not viable: {}: bind them to vfio-pci too, or to no driver", standing(.others))]
    NotViable {
        /// The function.
        name: String,
        /// The group.
        group: u32,
        /// Its other functions that have a driver which is none of VFIO's, with that driver.
        others: Vec<(String, String)>,
    },
    /// A device file that this user may not open.
    #[error(
        "{name}: no permission to open {path}: run as root, or `chown {} {path}`",
        nix::unistd::geteuid()
    )]
    Permission {
        /// The function.
        name: String,
        /// The file.
        path: String,
    },
    /// A device file that is not there.
    #[error("{name}: there is no {path}: `modprobe {module}`{hint}")]
    NoFile {
        /// The function.
        name: String,
        /// The file.
        path: String,
        /// The module that makes it.
        module: &'static str,
        /// What else may be missing.
        hint: &'static str,
    },
    /// Somebody has the group, or the function, open.
    #[error(
        "{name}: {path} is in use: by this process, another function of its IOMMU group, or another process (`fuser {path}`)"
    )]
    InUse {
        /// The function.
        name: String,
        /// The file.
        path: String,
    },
    /// A function that this parent has open.
    #[error("{name} is open already: close it first")]
    Open {
        /// The function.
        name: String,
    },
    /// A function that this parent is opening, or closing.
    #[error("{name} is being opened or closed by another thread: try again once that is done")]
    Unsettled {
        /// The function.
        name: String,
    },
    /// An IOMMU that does not keep interrupts apart.
    #[error(
        "{name}: the IOMMU does not remap interrupts: switch that on (intremap), or, where the machine is all yours, set allow_unsafe_interrupts of {module}"
    )]
    UnsafeInterrupts {
        /// The function.
        name: String,
        /// The module that has the option.
        module: &'static str,
    },
    /// A way that the program was not built with.
    #[error(
        "{name}: built without iommufd: open it with via=group, or build with the feature `iommufd`"
    )]
    NoIommufd {
        /// The function.
        name: String,
    },
    /// A directory that shows a system, and is not the one that runs.
    #[error("{name}: {root} is a picture of a system, in which nothing can be opened")]
    Picture {
        /// The function.
        name: String,
        /// The directory.
        root: String,
    },
    /// Opening failed in another way.
    #[error("{name}: cannot {what}")]
    Refused {
        /// The function.
        name: String,
        /// What was tried.
        what: &'static str,
        /// What `vfio-ioctls` said.
        source: vfio_ioctls::VfioError,
    },
    /// A call on an open function failed.
    #[error("{name}: cannot {what}")]
    System {
        /// The function.
        name: String,
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A device file that is of no PCI function.
    #[error("{name} is no PCI device")]
    NotPci {
        /// Its name.
        name: String,
    },
    /// A register that is not there.
    #[error("{name}: {region} has no aligned {bytes} bytes at {at:#x}: it has {len:#x}")]
    Bounds {
        /// The function.
        name: String,
        /// Which region.
        region: String,
        /// Offset in bytes.
        at: u64,
        /// Bytes of the access.
        bytes: u8,
        /// Bytes of the region.
        len: u64,
    },
    /// A register that could not be accessed.
    #[error(
        "{name}: {region} at {at:#x} could not be accessed: is memory decoding on, and the function there?"
    )]
    Register {
        /// The function.
        name: String,
        /// Which region.
        region: String,
        /// Offset in bytes.
        at: u64,
        /// What the system said.
        source: io::Error,
    },
    /// More vectors than there are.
    #[error("{name}: {wanted} MSI-X vectors are not to be had: {available} are")]
    Vectors {
        /// The function.
        name: String,
        /// How many were asked for.
        wanted: u16,
        /// How many there are.
        available: u16,
    },
    /// A vector that is not enabled.
    #[error("{name}: vector {vector} is not enabled: {enabled} are")]
    Vector {
        /// The function.
        name: String,
        /// The vector.
        vector: u16,
        /// How many are enabled.
        enabled: u16,
    },
    /// A call that the kernel cannot make.
    #[error("{name}: an interrupt can write an eventfd, and run no closure: relay it")]
    Closure {
        /// The function.
        name: String,
    },
    /// No interrupt line.
    #[error("{name}: there is no interrupt line, or it is not in use")]
    NoLine {
        /// The function.
        name: String,
    },
    /// The line cannot be had.
    #[error(
        "{name}: the interrupt line cannot be had while MSI-X is on: switch its vectors off first"
    )]
    MsixOn {
        /// The function.
        name: String,
    },
    /// A function that cannot be reset as a whole.
    #[error("{name} has no reset of the whole function: only the virtio device in it can be reset")]
    NoReset {
        /// The function.
        name: String,
    },
    /// A mapping that the IOMMU cannot have.
    #[error(
        "{name}: {range} to memory at {address:#x}: addresses and lengths are multiples of {granule:#x}"
    )]
    Granule {
        /// The function.
        name: String,
        /// What was to be mapped.
        range: IovaRange,
        /// The memory's address in this process.
        address: u64,
        /// The multiple, in bytes.
        granule: u64,
    },
    /// A mapping at addresses that the function cannot use.
    #[error("{name}: {range} cannot be mapped: the IOMMU takes {}", ranges(.legal))]
    Range {
        /// The function.
        name: String,
        /// What was to be mapped.
        range: IovaRange,
        /// The legal addresses.
        legal: Vec<(Iova, Iova)>,
    },
    /// Memory that may not be locked.
    #[error(
        "{name}: {wanted} bytes more cannot be locked in memory: {locked} are for this function, and RLIMIT_MEMLOCK is {limit}: raise it (`ulimit -l`, `LimitMEMLOCK=` of a unit, memlock in limits.conf), or run with CAP_IPC_LOCK, for which it does not hold"
    )]
    Memlock {
        /// The function.
        name: String,
        /// Bytes that were to be mapped.
        wanted: u64,
        /// Bytes that are mapped.
        locked: u64,
        /// The limit: bytes, or `unknown`.
        limit: String,
    },
    /// No memory for a mapping, and no limit in its way.
    #[error(
        "{name}: the system has no memory to map {wanted} bytes more ({locked} are for this function); no limit of this process is in the way: free some"
    )]
    NoMemory {
        /// The function.
        name: String,
        /// Bytes that were to be mapped.
        wanted: u64,
        /// Bytes that are mapped.
        locked: u64,
    },
    /// More mappings than the kernel keeps.
    #[error(
        "{name}: {used} mappings are there, and the kernel takes no more ({limit} in all): map larger pieces, or raise dma_entry_limit of vfio_iommu_type1"
    )]
    Entries {
        /// The function.
        name: String,
        /// How many there are.
        used: usize,
        /// How many there can be.
        limit: u32,
    },
    /// A mapping failed in another way.
    #[error("{name}: {range} cannot be mapped")]
    Map {
        /// The function.
        name: String,
        /// What was to be mapped.
        range: IovaRange,
        /// What the system said.
        source: io::Error,
    },
    /// A mapping that was never made here.
    #[error("{name}: {range} is not mapped")]
    NotMapped {
        /// The function.
        name: String,
        /// What was to be unmapped.
        range: IovaRange,
    },
    /// A mapping that did not go away: its memory is kept.
    #[error(
        "{name}: {range} could not be unmapped, {done} bytes of it were: its memory is kept until the function is closed"
    )]
    Unmap {
        /// The function.
        name: String,
        /// What was to be unmapped.
        range: IovaRange,
        /// Bytes that the kernel says it unmapped.
        done: u64,
        /// What the system said.
        source: io::Error,
    },
    /// A function that was taken away, or is going.
    #[error("{name} is gone")]
    Gone {
        /// The function.
        name: String,
    },
}

impl ParentError for VfioError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoFunction { .. }
            | Self::NotBound { .. }
            | Self::NotViable { .. }
            | Self::Open { .. }
            | Self::Picture { .. }
            | Self::Bounds { .. }
            | Self::Vector { .. }
            | Self::Closure { .. }
            | Self::MsixOn { .. }
            | Self::Granule { .. }
            | Self::Range { .. }
            | Self::NotMapped { .. } => ErrorKind::Misuse,
            Self::NoIommu { .. }
            | Self::Unprotected { .. }
            | Self::UnsafeInterrupts { .. }
            | Self::NoIommufd { .. }
            | Self::NotPci { .. }
            | Self::Vectors { .. }
            | Self::NoLine { .. }
            | Self::NoReset { .. } => ErrorKind::Unsupported,
            Self::InUse { .. } | Self::Unsettled { .. } => ErrorKind::Busy,
            Self::System { source, .. } | Self::Register { source, .. } => {
                match source.raw_os_error() {
                    Some(libc::EAGAIN | libc::EBUSY) => ErrorKind::Busy,
                    _ => ErrorKind::Io,
                }
            }
            Self::Permission { .. }
            | Self::NoFile { .. }
            | Self::Refused { .. }
            | Self::Memlock { .. }
            | Self::NoMemory { .. }
            | Self::Entries { .. }
            | Self::Map { .. } => ErrorKind::Io,
            Self::Unmap { .. } | Self::Gone { .. } => ErrorKind::Gone,
        }
    }
}

fn standing(others: &[(String, String)]) -> String {
    if others.is_empty() {
        return "others use it".to_owned();
    }
    let each = others
        .iter()
        .map(|(name, driver)| format!("{name} is bound to {driver}"));
    each.collect::<Vec<_>>().join(", ")
}

fn ranges(ranges: &[(Iova, Iova)]) -> String {
    let each = ranges
        .iter()
        .map(|(first, last)| format!("{first} to {last}"));
    each.collect::<Vec<_>>().join(", ")
}

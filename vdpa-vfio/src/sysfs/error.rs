//! What the management of functions refuses, and why.

use std::io;

use vdpa_core::{ErrorKind, ParentError};

use super::{Address, Step, Usage};

/// Why something cannot be found out, or done, about a PCI function.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SysfsError {
    /// A text that is no address.
    #[error(
        "`{text}` is no PCI function: its address looks like 0000:01:00.0 (see `vdpactl vfio list`)"
    )]
    Address {
        /// The text, or its beginning.
        text: String,
    },
    /// No function at this address.
    #[error(
        "there is no PCI function {address}: `vdpactl vfio list --all` names those that there are"
    )]
    NoSuchFunction {
        /// The address.
        address: Address,
    },
    /// The bus cannot be looked at.
    #[error("{path}: PCI functions cannot be listed: {why}")]
    Bus {
        /// What was to be listed.
        path: String,
        /// Why not.
        why: String,
    },
    /// What is said to be a copy of a system leads to the one that runs.
    #[error(
        "{root} is no copy: {path} in it is this machine's own; leave --root out to change this machine"
    )]
    NoCopy {
        /// The copy, as it was given.
        root: String,
        /// What shows it.
        path: String,
    },
    /// Something has to be known of a function before it is changed, and is not.
    #[error("{address}: its {what} cannot be read: {why}")]
    Unreadable {
        /// The function.
        address: Address,
        /// What.
        what: &'static str,
        /// Why not.
        why: String,
    },
    /// A bridge is nobody's device.
    #[error("{address} is a bridge: bind a function behind it")]
    Bridge {
        /// The function.
        address: Address,
    },
    /// No IOMMU stands before the function, or VFIO is to do without.
    #[error("{address} is behind no IOMMU, so that its DMA could reach all memory: {mend}")]
    NoIommu {
        /// The function.
        address: Address,
        /// How to change that.
        mend: String,
    },
    /// The kernel does not have the driver.
    #[error("{address}: the kernel has no driver {driver} now: modprobe {driver}")]
    NoDriver {
        /// The function.
        address: Address,
        /// The driver.
        driver: String,
    },
    /// Somebody would miss the function.
    #[error("{address} is in use: {}: end that first, or say --force", listed(.usage))]
    InUse {
        /// The function.
        address: Address,
        /// For what.
        usage: Vec<Usage>,
    },
    /// A function that has no virtual ones.
    #[error("{address} can have no virtual functions{}", .physical.map_or(
        ": it has no SR-IOV, or the firmware has it off".to_owned(),
        |physical| format!(": it is one of {physical}")
    ))]
    NoVirtualFunctions {
        /// The function.
        address: Address,
        /// The physical function, if it is virtual itself.
        physical: Option<Address>,
    },
    /// More virtual functions than there can be.
    #[error("{address} can have {total} virtual functions at most, not {count}")]
    TooManyVirtualFunctions {
        /// The function.
        address: Address,
        /// How many were asked for.
        count: u16,
        /// How many there can be.
        total: u16,
    },
    /// The physical function has no driver that could make virtual ones.
    #[error(
        "{address} has no driver, and its driver is what makes virtual functions: echo {address} > /sys/bus/pci/drivers_probe"
    )]
    NoPhysicalDriver {
        /// The function.
        address: Address,
    },
    /// A step that the kernel refused.
    #[error("{address}: `{step}` failed{}; {now}", match .source.kind() {
        io::ErrorKind::PermissionDenied => " for want of permission: try as root",
        _ => "",
    })]
    Step {
        /// The function.
        address: Address,
        /// What was to be written.
        step: Step,
        /// Where the function is now.
        now: String,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The kernel did as it was told, and not what was hoped for.
    #[error("{address}: {wanted} is not what came of it (dmesg may say why); {now}")]
    NotSettled {
        /// The function.
        address: Address,
        /// What was to come of it.
        wanted: String,
        /// Where the function is now.
        now: String,
    },
    /// Somebody else changes functions at this moment.
    #[error("{path} is locked: another vdpactl is changing functions, try again when it has ended")]
    Locked {
        /// The lock.
        path: String,
    },
    /// Others cannot be kept from changing functions meanwhile.
    #[error(
        "{path} cannot be locked against others who change functions, so nothing is changed: try as root"
    )]
    Unlockable {
        /// What was to be locked.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The records of what was changed cannot be kept.
    #[error(
        "{path}: what is changed cannot be recorded here, so nothing is changed: try as root, or another place, --state DIR"
    )]
    Records {
        /// Where they are kept.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// A function is as wished, and its record cannot be changed.
    #[error(
        "{address} is as wished, but what is recorded of it in {path} cannot be changed: look at its file there"
    )]
    Leftover {
        /// The function.
        address: Address,
        /// Where records are kept.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// A record that is damaged.
    #[error(
        "{path} is no record of a change: {why}; bind the function by hand, and remove the file"
    )]
    Record {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// Another card is where a function was changed.
    #[error("{address} was {was} when it was changed, and is {is} now: nothing to restore")]
    Replaced {
        /// The function.
        address: Address,
        /// Vendor and device then.
        was: String,
        /// Vendor and device now.
        is: String,
    },
}

impl SysfsError {
    /// Whether nothing was done: what was asked for is refused. Otherwise it was begun, and failed.
    pub fn is_refusal(&self) -> bool {
        !matches!(
            self,
            Self::Step { .. } | Self::NotSettled { .. } | Self::Leftover { .. }
        )
    }
}

impl ParentError for SysfsError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Address { .. }
            | Self::NoSuchFunction { .. }
            | Self::NoCopy { .. }
            | Self::Bridge { .. }
            | Self::TooManyVirtualFunctions { .. } => ErrorKind::Misuse,
            Self::NoIommu { .. }
            | Self::NoDriver { .. }
            | Self::NoVirtualFunctions { .. }
            | Self::NoPhysicalDriver { .. } => ErrorKind::Unsupported,
            Self::InUse { .. } | Self::Locked { .. } => ErrorKind::Busy,
            Self::Replaced { .. } => ErrorKind::Gone,
            Self::Bus { .. }
            | Self::Unreadable { .. }
            | Self::Step { .. }
            | Self::NotSettled { .. }
            | Self::Unlockable { .. }
            | Self::Records { .. }
            | Self::Leftover { .. }
            | Self::Record { .. } => ErrorKind::Io,
        }
    }
}

fn listed(usage: &[Usage]) -> String {
    let each: Vec<String> = usage.iter().map(Usage::to_string).collect();
    each.join(", ")
}

/// What the system said, in a few words.
pub fn said(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_owned(),
        None => error.to_string(),
    }
}

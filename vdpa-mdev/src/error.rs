//! What goes wrong with mediated devices, and what mends it.

use std::io;

use uuid::Uuid;
use vdpa_core::{ErrorKind, ParentError};
use vdpa_vfio::sysfs::{Step, SysfsError};

/// Why something cannot be found out, or done, about a mediated device. Each message ends with the way out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MdevError {
    /// A text that is no UUID.
    #[error(
        "`{text}` is no UUID: one looks like 83b8f4f2-509f-382f-3c1e-e6bfe0fa1001 (`uuidgen` makes one)"
    )]
    Uuid {
        /// The text, or its beginning.
        text: String,
    },
    /// No such mediated device.
    #[error(
        "there is no mediated device {uuid}: `vdpactl mdev list` names those that there are, `vdpactl mdev create` makes one"
    )]
    NoDevice {
        /// Its name.
        uuid: Uuid,
    },
    /// A name that another device has.
    #[error("there is a mediated device {uuid} already ({kind}): choose another UUID")]
    Taken {
        /// Its name.
        uuid: Uuid,
        /// Its type and its parent.
        kind: String,
    },
    /// A device that is to be started, and is there.
    #[error(
        "{uuid} is made already ({kind}): `vdpactl mdev remove` it first, if it is to be made anew"
    )]
    Made {
        /// Its name.
        uuid: Uuid,
        /// Its type and its parent.
        kind: String,
    },
    /// A parent that is not there.
    #[error("no device {parent} makes mediated devices: {}", listed(.legal, "those that do", "none does; load its driver (modprobe)"))]
    NoParent {
        /// The parent.
        parent: String,
        /// Those that there are.
        legal: Vec<String>,
    },
    /// A type that nobody has.
    #[error("no mediated device of type {kind} can be made{}: {}", .parent.as_ref().map_or(String::new(), |parent| format!(" by {parent}")), listed(.legal, "types", "there are no types; load the driver of one (modprobe)"))]
    KindUnknown {
        /// The type.
        kind: String,
        /// The parent that was to make it.
        parent: Option<String>,
        /// The types that there are.
        legal: Vec<String>,
    },
    /// A type that several parents have.
    #[error("several devices make {kind}: say --parent with one of {}", .parents.join(", "))]
    SeveralParents {
        /// The type.
        kind: String,
        /// Those that have it.
        parents: Vec<String>,
    },
    /// All that can be are made.
    #[error(
        "{parent} can make no more {kind}: remove one of its mediated devices first (`vdpactl mdev list`)"
    )]
    NoInstances {
        /// The type.
        kind: String,
        /// The parent.
        parent: String,
    },
    /// A parent that goes, or went.
    #[error(
        "{parent} went away while it was to make a mediated device: `vdpactl mdev types` shows what is left"
    )]
    ParentGone {
        /// The parent.
        parent: String,
    },
    /// A step that the kernel refused.
    #[error("{uuid}: `{step}` failed{}", match .source.kind() {
        io::ErrorKind::PermissionDenied => " for want of permission: try as root",
        _ => ", dmesg may say why",
    })]
    Step {
        /// The device.
        uuid: Uuid,
        /// What was to be written.
        step: Step,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The kernel did as it was told, and not what was hoped for.
    #[error("{uuid}: {wanted} is not what came of it (dmesg may say why)")]
    NotSettled {
        /// The device.
        uuid: Uuid,
        /// What was to come of it.
        wanted: &'static str,
    },
    /// An attribute that cannot be set.
    #[error("{uuid}: attribute {name} cannot be set to `{value}`: {why}{left}")]
    Attribute {
        /// The device.
        uuid: Uuid,
        /// The attribute.
        name: String,
        /// What it was to be.
        value: String,
        /// Why not.
        why: String,
        /// What became of the device.
        left: String,
    },
    /// A definition that cannot be read. It stays as it is.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// A device that is defined already.
    #[error("{uuid} is defined already, in {path}: undefine it first, or choose another UUID")]
    Defined {
        /// The device.
        uuid: Uuid,
        /// The file.
        path: String,
    },
    /// A device that is not defined.
    #[error("{uuid} is not defined{}: `vdpactl mdev list` names those that are", .parent.as_ref().map_or(String::new(), |parent| format!(" for {parent}")))]
    NotDefined {
        /// The device.
        uuid: Uuid,
        /// The parent that it was looked for with.
        parent: Option<String>,
    },
    /// A device that is defined for several parents.
    #[error("{uuid} is defined for several parents: say --parent with one of {}", .parents.join(", "))]
    SeveralDefinitions {
        /// The device.
        uuid: Uuid,
        /// Those.
        parents: Vec<String>,
    },
    /// A text that can be no parent's name.
    #[error(
        "`{parent}` cannot be the name of a parent: `vdpactl mdev types` names those that there are"
    )]
    ParentName {
        /// The text, or its beginning.
        parent: String,
    },
    /// A text that can be no type's name.
    #[error(
        "`{kind}` cannot be the name of a type: `vdpactl mdev types` names those that there are"
    )]
    KindName {
        /// The text, or its beginning.
        kind: String,
    },
    /// Definitions cannot be looked at.
    #[error("{path}: definitions cannot be listed: {why}")]
    Definitions {
        /// What was to be listed.
        path: String,
        /// Why not.
        why: String,
    },
    /// A definition cannot be kept, or not be forgotten.
    #[error("{path} cannot be changed{}", match .source.kind() {
        io::ErrorKind::PermissionDenied => " for want of permission: try as root",
        _ => "",
    })]
    Store {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// What was done to a definition, of which nobody knows whether a crash undoes it.
    #[error("{path} is changed, but a crash may undo that: its directory cannot be written out")]
    NotOnDisk {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// What the kernel tells of devices cannot be heard.
    #[error("the kernel's events cannot be heard: cannot {what}")]
    Watch {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// What is said to be a copy is none.
    #[error(transparent)]
    Copy(#[from] SysfsError),
    /// What is there cannot be listed.
    #[error("{path}: mediated devices cannot be listed: {why}")]
    List {
        /// What was to be listed.
        path: String,
        /// Why not.
        why: String,
    },
    /// Something has to be known of a device, and is not.
    #[error("{uuid}: its {what} cannot be read: {why}")]
    Unreadable {
        /// The device.
        uuid: Uuid,
        /// What.
        what: &'static str,
        /// Why not.
        why: String,
    },
    /// A device that is none on a PCI bus.
    #[error(
        "{uuid} is a {api} device ({kind}): only those with device_api vfio-pci can be virtio functions"
    )]
    Api {
        /// The device.
        uuid: Uuid,
        /// Its type and its parent.
        kind: String,
        /// What VFIO shows of it.
        api: String,
    },
    /// A device that acts like a PCI function which is none of virtio's.
    #[error(
        "{uuid} is no virtio device: {kind} is {what}, {vendor:04x}:{device:04x}; name one of a type that is virtio (`vdpactl mdev types`)"
    )]
    NotVirtio {
        /// The device.
        uuid: Uuid,
        /// Its type and its parent.
        kind: String,
        /// What it is.
        what: &'static str,
        /// Its vendor id.
        vendor: u16,
        /// Its device id.
        device: u16,
    },
    /// A device that nobody drives.
    #[error(
        "{uuid} has no driver: dmesg may say why the one of its type did not take it; remove it, and create it again"
    )]
    NoDriver {
        /// The device.
        uuid: Uuid,
    },
    /// A device that VFIO has not got.
    #[error("{uuid} is in no group of VFIO's: its driver does not give it away")]
    NoGroup {
        /// The device.
        uuid: Uuid,
    },
}

/// A definition that cannot be read, or all of a parent's.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}{}: {why}; it is left as it is: mend it, or remove it by hand", .path.escape_debug(), .line.map_or(String::new(), |line| format!(", line {line}")))]
pub struct Broken {
    /// The file, or the directory of a parent that cannot be listed.
    pub path: String,
    /// Where in it, from 1; `None` where it is not about a line.
    pub line: Option<usize>,
    /// What is wrong.
    pub why: String,
}

impl ParentError for MdevError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Uuid { .. }
            | Self::NoDevice { .. }
            | Self::Taken { .. }
            | Self::Made { .. }
            | Self::NoParent { .. }
            | Self::KindUnknown { .. }
            | Self::SeveralParents { .. }
            | Self::Defined { .. }
            | Self::NotDefined { .. }
            | Self::SeveralDefinitions { .. }
            | Self::ParentName { .. }
            | Self::KindName { .. } => ErrorKind::Misuse,
            Self::Api { .. }
            | Self::NotVirtio { .. }
            | Self::NoDriver { .. }
            | Self::NoGroup { .. } => ErrorKind::Unsupported,
            Self::NoInstances { .. } => ErrorKind::Busy,
            Self::ParentGone { .. } => ErrorKind::Gone,
            Self::List { .. }
            | Self::Unreadable { .. }
            | Self::Step { .. }
            | Self::NotSettled { .. }
            | Self::Attribute { .. }
            | Self::Broken(_)
            | Self::Definitions { .. }
            | Self::Store { .. }
            | Self::NotOnDisk { .. }
            | Self::Watch { .. } => ErrorKind::Io,
            Self::Copy(error) => error.kind(),
        }
    }
}

/// `what` there is, or that there is `nothing`.
fn listed(names: &[String], what: &str, nothing: &str) -> String {
    match names {
        [] => nothing.to_owned(),
        names => format!("{what}: {}", names.join(", ")),
    }
}

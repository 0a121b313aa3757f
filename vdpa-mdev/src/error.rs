//! What goes wrong with mediated devices, and what mends it.

use uuid::Uuid;
use vdpa_core::{ErrorKind, ParentError};

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

impl ParentError for MdevError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Uuid { .. } | Self::NoDevice { .. } => ErrorKind::Misuse,
            Self::Api { .. }
            | Self::NotVirtio { .. }
            | Self::NoDriver { .. }
            | Self::NoGroup { .. } => ErrorKind::Unsupported,
            Self::List { .. } | Self::Unreadable { .. } => ErrorKind::Io,
        }
    }
}

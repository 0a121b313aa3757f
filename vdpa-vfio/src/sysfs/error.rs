//! What the management of functions refuses, and why.

use std::io;

use vdpa_core::{ErrorKind, ParentError};

use super::Address;

/// Why something cannot be found out, or done, to a PCI function.
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
}

impl ParentError for SysfsError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Address { .. } | Self::NoSuchFunction { .. } => ErrorKind::Misuse,
            Self::Bus { .. } => ErrorKind::Io,
        }
    }
}

/// What the system said, in a few words.
pub(super) fn said(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_owned(),
        None => error.to_string(),
    }
}

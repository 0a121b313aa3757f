//! PCI functions and the system around them, as files show them, for VFIO.
//!
//! ```text
//!   Host ── /sys/bus/pci/devices ──▶ Function ── Identity     what there is, and what it is
//! ```
//!
//! Nothing here is unsafe, and nothing waits. The files are believed in nothing: what is missing or makes no sense is a
//! [`Fact`] that is absent or unknown, with its reason.
//!
//! # Reading order
//! [`Host`], [`Function`], [`Identity`]; `tree` is how files are read.

mod address;
mod error;
mod fact;
mod function;
mod identity;
mod tree;

#[cfg(test)]
mod tests;

use std::path::Path;

pub use address::Address;
pub use error::SysfsError;
pub use fact::Fact;
pub use function::{Bar, Function, Sriov};
pub use identity::Identity;

use function::DEVICES;
use tree::Tree;

/// The system that PCI functions are in, or a copy of its files.
#[derive(Clone, Debug)]
pub struct Host {
    tree: Tree,
}

impl Host {
    /// The system whose `/sys`, `/proc` and `/dev` are below `root`: `/`, but for a copy.
    pub fn new(root: &Path) -> Self {
        Self {
            tree: Tree::new(root),
        }
    }

    /// All PCI functions, by address.
    ///
    /// # Errors
    /// When the bus cannot be looked at. What cannot be read of a single function is unknown there.
    pub fn functions(&self) -> Result<Vec<Function>, SysfsError> {
        let names = match self.tree.names(DEVICES) {
            Fact::Is(names) => names,
            Fact::Absent => return Err(self.bus("there is no such directory: is sysfs mounted?")),
            Fact::Unknown(why) => return Err(self.bus(&why)),
        };
        let mut addresses: Vec<Address> =
            names.iter().filter_map(|name| name.parse().ok()).collect();
        addresses.sort_unstable();
        let read = |address| Function::read(&self.tree, address);
        Ok(addresses.into_iter().map(read).collect())
    }

    /// The function at `address`.
    ///
    /// # Errors
    /// When there is none.
    pub fn function(&self, address: Address) -> Result<Function, SysfsError> {
        match self.tree.path(format!("{DEVICES}/{address}")).is_dir() {
            true => Ok(Function::read(&self.tree, address)),
            false => Err(SysfsError::NoSuchFunction { address }),
        }
    }

    fn bus(&self, why: &str) -> SysfsError {
        SysfsError::Bus {
            path: self.tree.path(DEVICES).display().to_string(),
            why: why.to_owned(),
        }
    }
}

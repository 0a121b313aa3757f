//! PCI functions and the system around them, as files show them, for VFIO.
//!
//! ```text
//!   Host ── /sys/bus/pci/devices ────▶ Function ── Identity     what there is, and what it is
//!     ├──── /sys/kernel/iommu_groups ▶ Group, Iommu             who shares an address space, and whether there are any
//!     ├──── /proc, /dev ─────────────▶ Usage, Opens, Memlock    who would miss it, and what this process may
//!     ├──── examine ─────────────────▶ Finding                  what is in the way of using it, and what mends it
//!     └──── Bindings ── Plan ── Step ▶ Kernel                   who has it, changed, and recorded before
//! ```
//!
//! Nothing here is unsafe, and nothing waits. The files are believed in nothing: what is missing or makes no sense is a
//! [`Fact`] that is absent or unknown, with its reason.
//!
//! # Reading order
//! [`Host`], [`Function`], [`Identity`], [`Group`], [`Usage`]; `tree` is how files are read. Then [`Bindings`], with
//! `plan` (what is written), `carry` (how), `records` (what outlasts a crash), and [`Rehearsal`], which acts like a kernel on a copy.

mod address;
mod bindings;
mod carry;
mod config;
mod copied;
mod doctor;
mod error;
mod fact;
mod function;
mod group;
mod identity;
mod iommu;
mod kernel;
mod permit;
mod plan;
mod records;
mod rehearsal;
mod tree;
mod usage;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub use address::{Address, excerpt};
pub use bindings::{Bindings, Change, Plan, Regard, Wish};
pub use copied::Copied;
pub use doctor::{Finding, REGISTERS, Verdict, examine};
pub use error::{SysfsError, said};
pub use fact::Fact;
pub use function::{Bar, Function, Sriov};
pub use group::{Group, Member, Standing};
pub use identity::Identity;
pub use iommu::{Iommu, Maker};
pub use kernel::{Kernel, Running, Step};
pub use permit::{Memlock, Opens};
pub use rehearsal::Rehearsal;
pub use tree::{ATTRIBUTE, Tree};
pub use usage::Usage;

use function::DEVICES;
use vdpa_pci::Layout;

use config::Shown;

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

    /// Where a function keeps virtio's structures, from its configuration space, whichever driver has it. Nothing is
    /// written, and no register is read.
    ///
    /// # Errors
    /// As for [`Layout::read`]; and [`SysfsError::Unreadable`] for whoever may not read more than the header, which takes
    /// root.
    pub fn layout(&self, function: &Function) -> Result<Layout, vdpa_core::Error> {
        Layout::read(&self.shown(function)?)
    }

    /// A function's configuration space.
    fn shown(&self, function: &Function) -> Result<Shown, SysfsError> {
        Shown::read(&self.tree, function)
    }

    /// An IOMMU group.
    ///
    /// * `number`: as in [`Function::iommu_group`]
    pub fn group(&self, number: u32) -> Group {
        Group::read(&self.tree, number)
    }

    /// Whether there is an IOMMU.
    pub fn iommu(&self) -> Iommu {
        Iommu::read(&self.tree)
    }

    /// What a function is used for, so that it would be missed; nothing, as a rule.
    pub fn usage(&self, function: &Function) -> Vec<Usage> {
        Usage::of(&self.tree, function)
    }

    /// Whether this process can open a file to read and write.
    ///
    /// * `path`: from the system's root, such as `/dev/vfio/vfio`
    pub fn opens(&self, path: &str) -> Opens {
        Opens::of(&self.tree, path)
    }

    /// How much memory this process may lock.
    pub fn memlock(&self) -> Memlock {
        Memlock::read(&self.tree)
    }

    /// What acts on writes: the kernel, for the system that runs, or else a [`Rehearsal`].
    ///
    /// # Errors
    /// When the root is another name of the running system's, such as `/proc/1/root`, or has its sysfs in it.
    pub fn kernel(&self) -> Result<Box<dyn Kernel>, SysfsError> {
        match self.tree.is_running() {
            true => Ok(Box::new(Running::new(self.tree.clone()))),
            false => Ok(Box::new(Rehearsal::new(self.tree.clone())?)),
        }
    }

    /// Where [`Bindings`] keep their records, unless another place is better: `/run/vdpactl/vfio`, which a boot clears.
    pub fn state(&self) -> PathBuf {
        self.tree.path("/run/vdpactl/vfio")
    }

    /// Whether a path of the system is there.
    fn has(&self, path: &str) -> bool {
        self.tree.path(path).exists()
    }

    /// What is to be seen at an address, be it nothing: everything is absent then.
    pub fn look(&self, address: Address) -> Function {
        Function::read(&self.tree, address)
    }

    /// Whether drivers take new virtual functions of a function by themselves.
    fn autoprobe(&self, address: Address) -> Fact<u8> {
        let path = format!("{DEVICES}/{address}/sriov_drivers_autoprobe");
        self.tree.number(path)
    }

    fn bus(&self, why: &str) -> SysfsError {
        SysfsError::Bus {
            path: self.tree.path(DEVICES).display().to_string(),
            why: why.to_owned(),
        }
    }
}

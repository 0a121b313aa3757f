//! vDPA in Rust: a virtio device whose data path runs between a driver and a device through shared memory.
//!
//! **A vDPA device is a contract.** Parents make it (a simulator, hardware, the kernel), ends show it (an application,
//! a virtual machine), and the data path never crosses it: packets go through virtqueues in shared memory.
//!
//! ```
//! # #[cfg(feature = "sim")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use vdpa::net::{NetDriver, Setup};
//!
//! // A simulated network card: what is sent comes back.
//! let device = vdpa::open("sim:net,port=loopback,queue_size=256")?;
//! let mut driver = NetDriver::start(device, &Setup::default())?;
//! driver.send(0, [b"to: everybody, from: a driver"])?;
//! let mut received = 0;
//! while received == 0 {
//!     received = driver.receive(0, |frame| assert_eq!(frame.len(), 29))?;
//! }
//! driver.stop()?;
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "sim"))]
//! # fn main() {}
//! ```
//!
//! # Where to go on
//! * **To use a device**: [`open`] takes a string that names it, [`NetDriver`](net::NetDriver) drives a network card,
//!   [`BlkDriver`](blk::BlkDriver) a disk, [`Session`] any kind of device.
//! * **To put a device in front of a guest**: `vmm::GuestDevice` has what VMMs in Rust ask of one; `examples/vmm` is
//!   one that does. For VMMs and applications in other processes `export::vhost_user` serves one over a socket, as
//!   `examples/serve.rs` does.
//! * **To write a parent**: [`VdpaDevice`] is what a device implements; `examples/own_device.rs` does.
//! * **To see the rooms**: [`mem`] is guest memory, [`ring`] the virtqueues, [`core`] the contract, `sim` a parent in
//!   software, `vfio` one that drives PCI functions, by `pci`, `mdev` one that opens mediated devices, and `layer` what
//!   stands around any device.
//!
//! # Features
//! | feature | what it adds |
//! |---|---|
//! | `sim` (default) | the parent `sim` |
//! | `vfio` (default) | the parent `vfio`: PCI functions of this machine |
//! | `iommufd` | for it: functions by device files of their own, where the kernel has them |
//! | `mdev` (default) | the parent `mdev`: mediated devices of this machine |
//! | `slices` (default) | for it: network devices that share one of any parent, `mdev:slice,of=...` |
//! | `vhost-user` (default) | `export`: devices served to other processes |
//! | `layers` (default) | `trace=` and `fault=` in any device string |
//! | `smoltcp` (default) | [`net::smoltcp`]: TCP and UDP over any network device |
//! | `cli` (default) | the program `vdpactl` |
//! | `vm-memory` (default) | [`map_guest`](vdpa_core::DmaHandle::map_guest): any guest memory in one call |
//! | `rust-vmm` (default) | `vmm`: a device in front of a guest, for VMMs in Rust |

pub mod blk;
pub mod net;
#[cfg(feature = "rust-vmm")]
pub mod vmm;

mod parents;

#[doc(inline)]
pub use vdpa_core as core;
#[cfg(feature = "vhost-user")]
#[doc(inline)]
pub use vdpa_export as export;
#[cfg(feature = "layers")]
#[doc(inline)]
pub use vdpa_layer as layer;
#[cfg(feature = "mdev")]
#[doc(inline)]
pub use vdpa_mdev as mdev;
#[doc(inline)]
pub use vdpa_mem as mem;
#[cfg(any(feature = "sim", feature = "vfio"))]
#[doc(inline)]
pub use vdpa_pci as pci;
#[doc(inline)]
pub use vdpa_ring as ring;
#[cfg(feature = "sim")]
#[doc(inline)]
pub use vdpa_sim as sim;
#[cfg(feature = "vfio")]
#[doc(inline)]
pub use vdpa_vfio as vfio;

pub use parents::Parents;

pub use vdpa_core::{
    Device, DeviceSpec, DeviceType, Error, Features, Registry, Result, Session, VdpaDevice,
};
pub use vdpa_mem::{AddressSpace, Deadline, Iova, Mapping, Region};

/// A registry of every parent that is compiled in, each by a cargo feature of this crate, and of the layers.
///
/// It is a value: devices that are to find each other, such as the two ends of `port=wire:NAME`, are opened from one.
///
/// ```
/// # #[cfg(feature = "sim")]
/// # fn main() -> vdpa::Result<()> {
/// let registry = vdpa::registry();
/// let a = registry.open("sim:net,port=wire:lab")?;
/// let b = registry.open("sim:net,port=wire:lab")?;
/// # drop((a, b));
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "sim"))]
/// # fn main() {}
/// ```
///
/// What the management side may change of a device goes through it too, while a driver uses the device, which is told:
///
/// ```
/// # #[cfg(feature = "sim")]
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use vdpa::core::{Attr, Event, LinkState};
/// use vdpa::net::{NetDriver, Setup};
///
/// let registry = vdpa::registry();
/// let driver = NetDriver::start(registry.open("sim:net")?, &Setup::default())?;
/// let (control, name) = (driver.control(), &driver.control().device().info().name);
/// let events = control.events()?;
/// registry.dev_set("sim", name, Attr::Link(LinkState::Down))?;
/// assert_eq!(events.try_next(), Some(Event::Config));
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "sim"))]
/// # fn main() {}
/// ```
pub fn registry() -> Registry {
    Parents::new().registry
}

/// Opens the device that `spec` names: `PARENT:WHAT[,key=value...]`, as in `sim:net,mtu=9000,port=loopback`.
///
/// Each call has a registry of its own; see [`registry`] for devices that are to find each other.
///
/// # Errors
/// An unknown parent, key or value, with the part of the string that is wrong and what is legal there; or a device
/// that cannot be had.
pub fn open(spec: &str) -> Result<Device> {
    registry().open(spec)
}

#[cfg(all(
    test,
    not(any(feature = "sim", feature = "vfio", feature = "vhost-user"))
))]
mod tests {
    #[test]
    fn without_parents_an_error_says_that_there_are_none() {
        let error = super::open("sim:net").unwrap_err().to_string();
        assert!(error.contains("`sim`") && error.contains("none"), "{error}");
    }
}

/// The README's example, run as a test.
#[cfg(all(doctest, feature = "sim"))]
#[doc = include_str!("../README.md")]
struct Readme;

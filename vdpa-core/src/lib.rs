//! The vDPA device contract: parents below, users above.
//!
//! ```text
//!   Session ─▶ Queue            drives a device, in types        Registry ─▶ MgmtDevice      makes devices by name
//!      │         │ kick, call                                                    │
//!      ▼         ▼                                                               ▼
//!   Device ───────────────── validates, serialises, waits ──────────▶ dyn VdpaDevice + Caps    a parent's device
//!      │  Events ◀── EventSink    DmaHandle ─▶ AddressSpace    Relay: fds <-> doorbells, closures
//! ```
//!
//! * **For parents**: [`VdpaDevice`] is what a device implements, and [`Caps`] what only some can do. Everything that
//!   reaches it is legal, comes one at a time (but for the replacement of a call), and must not wait. [`Bell`] and
//!   [`Sleeper`] are the doorbell of a software device, [`CallCell`] its replaceable call, [`MgmtDevice`] its factory.
//! * **For users**: [`Registry::open`] makes a device from a string, [`Session`] drives it; an end that shows it to
//!   somebody else holds the [`Device`] itself.
//! * **In between**: [`Features`] and their [`graph`], [`Status`] and its [`StatusMachine`], [`config`] layouts,
//!   [`spec`] for device strings.
//!
//! The data path runs between a driver and a device through shared memory, never through these calls.
//!
//! # A device of one's own
//! The least that a parent provides: a device that lets itself be negotiated and started, and does nothing.
//! ```
//! use std::sync::{Arc, Mutex};
//! use vdpa_core::session::QueueSetup;
//! use vdpa_core::*;
//! use vdpa_mem::Deadline;
//!
//! struct Idle {
//!     info: DeviceInfo,
//!     status: Mutex<Status>,
//! }
//!
//! impl VdpaDevice for Idle {
//!     fn info(&self) -> &DeviceInfo { &self.info }
//!     fn attach(&self, _: Host) -> Result<()> { Ok(()) }
//!     fn caps(&self) -> Caps<'_> { Caps::NONE }
//!     fn offered(&self) -> Features { bits::VERSION_1.mask() }
//!     fn accept(&self, _: Features) -> Result<()> { Ok(()) }
//!     fn status(&self) -> Result<Status> { Ok(*self.status.lock().unwrap()) }
//!     fn add_status(&self, bits: Status) -> Result<()> {
//!         *self.status.lock().unwrap() |= bits;
//!         Ok(())
//!     }
//!     fn begin_reset(&self) -> Result<()> {
//!         *self.status.lock().unwrap() = Status::empty();
//!         Ok(())
//!     }
//!     fn config_generation(&self) -> Result<Option<u32>> { Ok(Some(0)) }
//!     fn read_config(&self, _: u32, _: &mut [u8]) -> Result<()> { Ok(()) }
//!     fn write_config(&self, _: u32, _: &[u8]) -> Result<()> { Ok(()) }
//!     fn queue_limits(&self, _: QueueIndex) -> Result<QueueLimits> {
//!         Ok(QueueLimits { max_size: 64, group: GroupIndex::new(0) })
//!     }
//!     fn start_queue(&self, _: QueueIndex, _: &QueueConfig, _: Kick, _: Call) -> Result<Doorbell> {
//!         Ok(Doorbell::NONE)
//!     }
//!     fn replace_call(&self, _: QueueIndex, call: Call) -> Result<()> {
//!         call.raise();
//!         Ok(())
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let idle = Idle {
//!     info: DeviceInfo {
//!         name: "idle0".into(),
//!         device_type: DeviceType::Entropy,
//!         vendor: 0,
//!         queues: 1,
//!         groups: 1,
//!         asids: 1,
//!         config_size: 0,
//!         kicks: KickKind::Taken,
//!         calls: CallKind::Any,
//!     },
//!     status: Mutex::default(),
//! };
//! let by = Deadline::after(std::time::Duration::from_secs(1));
//! let device = Device::new(Arc::new(idle), Relay::new())?;
//!
//! let session = Session::open(device, by).map_err(|(_, e)| e)?;
//! let mut session = session.negotiate(bits::VERSION_1.mask()).map_err(|(_, e)| e)?;
//! session.queue(QueueIndex::new(0), QueueSetup { size: 64, ..QueueSetup::default() })?;
//! let (control, mut queues) = session.run().map_err(|(_, e)| e)?.split();
//! assert!(control.status()?.contains(Status::DRIVER_OK));
//!
//! let queue = &mut queues[0];
//! let lease = queue.lease().ok_or("no buffer")?;
//! queue.receive(lease).map_err(|refused| refused.why)?;
//! queue.publish();
//! assert_eq!(queue.in_flight(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! # Reading order
//! `parent` and `caps` (the contract), `queue`, `call`, `doorbell` and `sleeper`, `event`, `relay`, `dma` (its parts),
//! `status` (the machine), `device` (the handle), [`session`] (the driver), `mgmt` (the factory, and layers); the
//! tables beside it are [`bits`], [`graph`], [`config`], [`spec`] and [`faults`].

mod call;
mod caps;
mod device;
mod device_type;
mod dma;
mod doorbell;
mod error;
mod event;
mod fd;
mod features;
mod mgmt;
mod parent;
mod queue;
mod relay;
mod sleeper;
mod status;
mod sync;

pub mod bits;
pub mod config;
pub mod faults;
pub mod graph;
pub mod image;
pub mod session;
pub mod spec;

pub use call::{Call, CallCell};
pub use caps::{
    Announce, Caps, ClassState, Dma, DmaLimits, DmaMap, GroupSpaces, InFlight, QueueEnable,
    QueuePause, QueueReset, Reach, Stats, Suspend,
};
pub use device::Device;
pub use device_type::{DeviceType, UnassignedId, UnknownDeviceType};
pub use dma::DmaHandle;
pub use doorbell::{Doorbell, Page, Rung};
pub use error::{Chain, Error, ErrorKind, ParentError, ParentFailure, Result};
pub use event::{Event, EventSink, Events};
pub use fd::{NotEventFd, check_eventfd};
pub use features::{Bits, FeatureBit, FeatureList, FeatureName, Features};
pub use image::{DeviceImage, ImageError};
pub use mgmt::{Attr, Key, Layer, LinkState, MgmtClass, MgmtDevice, MgmtEntry, Registry, Wrap};
pub use parent::{CallKind, DeviceInfo, Host, Kick, KickKind, VdpaDevice};
pub use queue::{Area, Asid, GroupIndex, QueueConfig, QueueIndex, QueueLimits};
pub use relay::{Relay, Relayed};
pub use session::{Control, Queue, Session};
pub use sleeper::{Bell, Sleeper};
pub use spec::{DeviceSpec, SpecError};
pub use status::{Status, StatusMachine, Step, SuspendBit};
#[cfg(loom)]
pub use sync::model;
pub use vdpa_mem::clock;
pub use vdpa_mem::{IovaRange, Mapping, Window};
pub use vdpa_ring::{AreaSizes, Format, Pos, QueueState, area_sizes, record_bytes};

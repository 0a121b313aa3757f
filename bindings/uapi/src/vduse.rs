//! vDPA devices that a process makes (`linux/vduse.h`).
//!
//! ```text
//!   /dev/vduse/control ─▶ Control ── makes and destroys devices
//!   /dev/vduse/NAME ────▶ Device ─┬─ ioctls: queues, interrupts, memory of the driver's
//!                                 └─ read: Request ─▶ write: its answer
//! ```
//! A device gets onto the vDPA bus by [`Netlink::add`](crate::vdpa::Netlink::add) with the management device `vduse`. The
//! kernel asks it for its status while it does, so that requests have to be answered meanwhile.

mod control;
mod device;
mod numbers;
mod request;

pub use control::{Control, Setup};
pub use device::{Device, Queue, Region, Window};
pub(crate) use numbers::ROWS;
pub use numbers::*;
pub use request::{QueueState, Request, What};

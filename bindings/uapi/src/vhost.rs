//! vhost, and vDPA devices behind it (`linux/vhost.h`, `linux/vhost_types.h`).
//!
//! ```text
//!   /dev/vhost-vdpa-N ─▶ Vdpa ─ ioctls: features, status, queues, groups, suspend
//!                          └─── write: Message, an IOTLB entry that comes or goes
//! ```

mod iotlb;
mod numbers;
mod vdpa;

pub use iotlb::{Access, Kind, Message};
pub(crate) use numbers::ROWS;
pub use numbers::*;
pub use vdpa::Vdpa;

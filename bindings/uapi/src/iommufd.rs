//! iommufd (`linux/iommufd.h`): all its numbers and layouts, and the calls that `iommufd-ioctls` 0.4 has not.
//!
//! ```text
//!   /dev/iommu ─▶ Iommufd ─┬─ IOAS: ranges, allowed ranges, copies, change of process
//!                          ├─ HWPT: dirty tracking, page faults
//!                          └─ options, and the IOAS that stands in for a VFIO container
//! ```
//! What `iommufd-ioctls` has: mapping, page tables, virtual IOMMUs and their queues.

mod bitmap;
mod device;
mod numbers;

pub use device::{Iommufd, Ranges};
pub(crate) use numbers::ROWS;
pub use numbers::*;

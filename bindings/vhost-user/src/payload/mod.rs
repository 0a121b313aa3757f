//! What messages carry: plain data, which comes apart only if it can be what it says.

mod config;
mod cursor;
mod memory;
mod migration;
mod vring;

pub use config::{Config, ConfigSpan, MAX_CONFIG};
pub(crate) use cursor::{Cursor, Fields, Layout, checked_range};
pub(crate) use memory::table;
pub use memory::{Access, Iotlb, IotlbKind, MAX_TABLE, MemoryRegion, overlapping};
pub use migration::{DeviceState, Direction, Inflight, Log};
pub use vring::{VringAddr, VringArea, VringFd, VringFlags, VringState};

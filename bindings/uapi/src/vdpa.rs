//! The netlink family of vDPA devices (`linux/vdpa.h`).
//!
//! ```text
//!   Netlink ─ request ─▶ Message { Command, Attribute... } ─▶ generic netlink, family `vdpa`
//!      ▲                                                          │
//!      └── ManagementDevice, BusDevice, attributes ◀── answers ◀──┘
//! ```

mod answer;
mod attribute;
mod client;
mod message;
mod numbers;

pub use attribute::Attribute;
pub use client::{BusDevice, ManagementDevice, ManagementName, Netlink};
pub use message::{Command, Message};
pub(crate) use numbers::ROWS;
pub use numbers::*;

//! The netlink family of vDPA devices (`linux/vdpa.h`).
//!
//! ```text
//!   Netlink ─ request ─▶ Message { Command, Attribute... } ─▶ generic netlink, family `vdpa`
//!      ▲                                                          │
//!      └── ManagementDevice, BusDevice, attributes ◀── answers ◀──┘
//! ```

mod answer;
mod attribute;
mod bus;
mod client;
mod message;
mod numbers;

pub use attribute::Attribute;
pub use bus::{BusDevice, ManagementDevice, ManagementName};
pub use client::Netlink;
pub use message::{Command, Message};
pub(crate) use numbers::ROWS;
pub use numbers::*;

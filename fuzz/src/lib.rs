//! What the fuzz targets do with their bytes: each module is a target, or the two formats of one.
//!
//! A target reads its bytes as numbers ([`Input`]), does with them what a peer or an owner may do, and compares what
//! comes of it with a model. A seed of a corpus is such numbers, written down (`seeds`).

pub mod block;
pub mod control;
pub mod device;
pub mod driver;
pub mod guest;
pub mod hand;
pub mod house;
pub mod input;
pub mod memory;
pub mod net;
pub mod packet;
pub mod restore;
pub mod setup;
pub mod socket;
pub mod string;
pub mod waits;

pub use input::Input;

/// What a target does with its bytes.
pub type Target = fn(&[u8]);

/// The targets, by their names.
pub const TARGETS: &[(&str, Target)] = &[
    ("block_request", block::run),
    ("net_header", net::run),
    ("control_queue", control::run),
    ("setup", setup::run),
    ("restore", restore::run),
    ("device_string", string::run),
    ("driver_split", driver::split),
    ("driver_packed", driver::packed),
    ("device_split", device::split),
    ("device_packed", device::packed),
    ("vhost_user", socket::run),
];

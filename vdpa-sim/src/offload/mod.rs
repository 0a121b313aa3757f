//! Checksum and segmentation offloads: what a network card does to frames that are not finished.
//!
//! ```text
//!   driver's header ─▶ check ─▶ trusted Header ──▶ the receiving driver takes it as it is
//!   (flags, gso)        │                      └─▶ complete: a checksum             Plain does either, packet by
//!                       ▼                      └─▶ Segments: one frame after        packet, for whoever needs frames
//!                    Refused: dropped,             another, in a caller's buffer    as they are on a cable
//!                    counted by its reason
//! ```
//!
//! All of it is functions over byte slices: nothing here knows queues, allocates for a packet, or trusts a number that a
//! driver wrote beyond the frame it stands in. A header is checked against its frame once ([`check`]), where the frame
//! comes from a driver; behind that, [`Header`] describes the frame.

mod check;
mod checksum;
mod header;
mod headers;
mod plain;
mod segment;

pub use check::{MAX_SEGMENTS, Refused, check, takes};
pub use checksum::{Sum, Validity, complete, verify};
pub use header::Header;
pub use headers::{Headers, Ip, Transport};
pub use plain::Plain;
pub use segment::{Finish, Segments};

use vdpa_core::{Features, bits::net};

/// Packets to test with: those of the tests of the whole crate.
#[cfg(test)]
#[path = "../../tests/rig/packets.rs"]
pub(crate) mod sample;

/// Bytes of the longest packet with segmentation left to be done, VLAN tags apart: an Ethernet header, an IPv6 header
/// and all that its length field can say (virtio 1.4 §5.1.9.3).
pub const LONGEST: usize = 14 + 40 + 65_535;

/// What a device does for a driver that sends, which leaves it undone.
pub const TRANSMIT: Features = Features::of(&[
    net::CSUM,
    net::HOST_TSO4,
    net::HOST_TSO6,
    net::HOST_ECN,
    net::HOST_USO,
]);

/// Those of [`TRANSMIT`] with which packets may be longer than a frame.
pub const TRANSMIT_GSO: Features = Features::of(&[net::HOST_TSO4, net::HOST_TSO6, net::HOST_USO]);

/// What a driver that receives does itself, or does not need.
///
/// The bits of the command that switches them (virtio 1.4 §5.1.9.5.9) have the numbers of the features.
pub const RECEIVE: Features = Features::of(&[
    net::GUEST_CSUM,
    net::GUEST_TSO4,
    net::GUEST_TSO6,
    net::GUEST_ECN,
    net::GUEST_USO4,
    net::GUEST_USO6,
]);

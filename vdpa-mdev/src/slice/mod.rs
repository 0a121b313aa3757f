//! Slices: what mediated devices promised a network card, over any network device. One device, many isolated ones.
//!
//! ```text
//!   driver     driver     driver                 each with features, status, reset, memory, MAC and VLAN of its own
//!     │          │          │
//!   slice0     slice1     slice2                 simulated network devices (vdpa-sim), whose port is the uplink
//!     │ Outbox   │          │ ▲ Inbox            bounded, batches by pointer
//!     └──────────┴────┬─────┘ │
//!                   Uplink ───┘                  one thread: slices in turn, by bytes; a copy for each receiver
//!                     │ Session<Running>         one pair of queues, promiscuous, no offloads
//!                  the device                    sim, vfio, mdev: whatever its parent
//! ```
//! A slice copies: its driver's memory is read and written by a worker of this process, never by the device that is
//! shared. So nothing of a slice depends on what the device can (its MTU apart), and no ring that its driver breaks, no
//! reset and no removal reaches the device or another slice. What slices do share is [`UplinkConfig::workers`]: memory that
//! does not answer, and a call closure that waits, hold up the others too. A frame is copied twice each way: between the
//! slice's memory and a batch, and between that and a buffer of the device, or of another slice.
//!
//! # Which frames go where
//! * A slice sends from its own address alone, and without a tag; the uplink puts the tag of its VLAN in. A slice of
//!   [`Vlan::Any`], which has to be asked for, sends and receives tags as they are.
//! * To the slice of its VLAN that has the destination address; else to the wire; a group's frame to all slices of the
//!   VLAN and to the wire. What slices send each other does not depend on the wire.
//! * From the wire by VLAN and address; what is for nobody is dropped and counted. What a slice sent and the wire gives
//!   back goes to that slice alone: it sees what it would see with the wire to itself, and the others saw it already.
//!
//! # When there is too much
//! What slices send waits for the wire, and they for that; in what order is told in `worker`. What a slice does not
//! receive is lost to it alone, beyond what waits for it.
//!
//! # When the device fails
//! The links of slices follow the device's. One that needs a reset is reset, and goes on; what was under way is lost, and
//! nothing is carried meanwhile. One that needs it again and again, is gone, or is asked back by its parent,
//! takes all links down for good.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use vdpa_core::{Device, Registry, Relay};
//! use vdpa_mdev::slice::{SliceConfig, Uplink, UplinkConfig, Vlan};
//!
//! let mut registry = Registry::new();
//! registry.add(std::sync::Arc::new(vdpa_sim::SimMgmt::new()));
//! let uplink = Uplink::open(registry.open("sim:net,port=null")?, UplinkConfig::default())?;
//! let slice = uplink.slice(SliceConfig {
//!     vlan: Vlan::Of(7),
//!     ..SliceConfig::default()
//! })?;
//! let device = Device::new(slice, Relay::default())?;
//! assert_eq!(uplink.types()[0].available_instances, 63);
//! # drop(device);
//! # Ok(())
//! # }
//! ```
//!
//! # Reading order
//! `uplink` (who is there), `port` (what a slice sees), `end` (what is between), `worker` (who sends when), `hall` (what goes
//! where), `tags`, `line` (the device), [`Slicer`] (device strings).

mod end;
mod error;
mod hall;
mod line;
mod mgmt;
mod port;
mod tags;
mod uplink;
mod worker;

use std::ops::RangeInclusive;

use vdpa_core::config::Mac;
use vdpa_core::{Features, bits::net};
use vdpa_sim::net::POSSIBLE;
use vdpa_sim::port::Membership;

pub use error::SliceError;
pub use mgmt::{Opener, Slicer};
pub use uplink::Uplink;

/// All that a slice can offer. Not CTRL_MAC_ADDR: from which address it sends is for who made it to say. CTRL_VLAN is
/// offered by a slice of [`Vlan::Any`] alone, since others see no tags.
pub const FEATURES: Features = POSSIBLE.difference(Features::of(&[net::CTRL_MAC_ADDR]));

/// How many queue pairs a device can be shared in.
pub const LIMITS: RangeInclusive<u16> = 1..=128;

/// The largest queue of a slice.
const MAX_QUEUE_SIZE: u16 = 32768;

/// How a device is shared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UplinkConfig {
    /// How many queue pairs all slices together may have, within [`LIMITS`].
    pub limit: u16,
    /// How many threads serve the slices, beside the one that drives the device; 0 is taken as 1. A slice whose memory does
    /// not answer, or whose call closure waits, holds up the others that are served with it.
    pub workers: u16,
}

impl Default for UplinkConfig {
    /// 64 queue pairs, and a thread.
    fn default() -> Self {
        Self {
            limit: 64,
            workers: 1,
        }
    }
}

/// Which VLAN a slice is of.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Vlan {
    /// None: its frames have no tags, here and on the wire.
    #[default]
    None,
    /// This one, 1 to 4094: its frames have no tags here, and that one on the wire.
    Of(u16),
    /// All of them: its frames have whatever tags they have. What it sends reaches slices of every VLAN.
    Any,
}

impl Vlan {
    /// What of [`FEATURES`] a slice can offer.
    fn features(self) -> Features {
        match self {
            Self::Any => FEATURES,
            Self::None | Self::Of(_) => FEATURES.difference(net::CTRL_VLAN.mask()),
        }
    }

    fn membership(self) -> Membership {
        match self {
            Self::None => Membership::Access(0),
            Self::Of(vlan) => Membership::Access(vlan),
            Self::Any => Membership::Trunk,
        }
    }
}

/// What a slice is made with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SliceConfig {
    /// Its address; `None`: one that no other slice has, made of the device's own.
    pub mac: Option<Mac>,
    /// Its VLAN.
    pub vlan: Vlan,
    /// The longest payload of a frame in bytes, from 68 to that of the device, which is the default.
    pub mtu: Option<u16>,
    /// Queue pairs, 1 to 128, of those that the device is shared in. The wire is received by the first one, until the
    /// driver chooses steering.
    pub queue_pairs: u16,
    /// The largest queue size, 1 to 32768.
    pub queue_size: u16,
    /// What it offers, of [`FEATURES`]: what is not to be had with the others, or in its VLAN, is left out.
    pub features: Features,
    /// The speed that it claims, in Mb/s.
    pub speed: Option<u32>,
    /// Whether its link is up while the device has a carrier.
    pub link: bool,
}

impl Default for SliceConfig {
    /// One pair with queues of up to 1024, everything offered, no VLAN, and the link up.
    fn default() -> Self {
        Self {
            mac: None,
            vlan: Vlan::None,
            mtu: None,
            queue_pairs: 1,
            queue_size: 1024,
            features: FEATURES,
            speed: None,
            link: true,
        }
    }
}

/// A kind of slices that a device can be shared in, as mediated devices have types: by queue pairs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SliceType {
    /// Its name: `slice-2`.
    pub name: String,
    /// Queue pairs of such a slice.
    pub queue_pairs: u16,
    /// How many more of them can be made. All kinds share the same pairs.
    pub available_instances: u16,
}

impl SliceType {
    /// The kinds there are, by powers of two.
    fn of(left: u16, limit: u16) -> Vec<Self> {
        let pairs = (0..u16::BITS).filter_map(|shift| 1_u16.checked_shl(shift));
        let pairs = pairs.take_while(|pairs| *pairs <= limit.min(8));
        let kind = |queue_pairs| Self {
            name: format!("slice-{queue_pairs}"),
            queue_pairs,
            available_instances: left.checked_div(queue_pairs).unwrap_or(0),
        };
        pairs.map(kind).collect()
    }
}

//! Which features this driver understands, and which it asks for.

use vdpa_core::bits::{self, net};
use vdpa_core::session::Negotiating;
use vdpa_core::{DeviceType, FeatureBit, Features, QueueIndex, Session, graph};

use super::{NetError, Setup};

/// What of a sent packet can be left to the device: its checksum, and its cutting into segments.
pub const TRANSMIT_OFFLOADS: Features = Features::of(&[
    net::CSUM,
    net::HOST_TSO4,
    net::HOST_TSO6,
    net::HOST_ECN,
    net::HOST_USO,
]);

/// What of a received packet the device can leave to the driver.
pub const RECEIVE_OFFLOADS: Features = Features::of(&[
    net::GUEST_CSUM,
    net::GUEST_TSO4,
    net::GUEST_TSO6,
    net::GUEST_ECN,
    net::GUEST_USO4,
    net::GUEST_USO6,
]);

/// Both of them: what [`Setup::ask`] is for a driver that takes all the help there is.
pub const OFFLOADS: Features = TRANSMIT_OFFLOADS.union(RECEIVE_OFFLOADS);

/// All that [`Setup::ask`] may name.
///
/// CTRL_VLAN: with it the device drops every VLAN that it was not told of.
pub const OPTIONAL: Features = OFFLOADS.union(Features::of(&[
    net::CTRL_GUEST_OFFLOADS,
    net::CTRL_VLAN,
    net::GUEST_ANNOUNCE,
    net::HASH_REPORT,
    net::RSS,
]));

/// What is negotiated wherever it is offered, the rings apart.
const ALWAYS: Features = Features::of(&[
    bits::VERSION_1,
    bits::ACCESS_PLATFORM,
    bits::ORDER_PLATFORM,
    bits::INDIRECT_DESC,
    bits::EVENT_IDX,
    bits::RING_RESET,
    net::MAC,
    net::MTU,
    net::STATUS,
    net::SPEED_DUPLEX,
    net::MRG_RXBUF,
    net::CTRL_VQ,
    net::CTRL_RX,
    net::CTRL_RX_EXTRA,
    net::CTRL_MAC_ADDR,
]);

/// A command is a chain of two descriptors: what is asked, and the answer.
const COMMAND_PARTS: u16 = 2;

/// With which a received frame may be longer than the MTU, and is to be cut before it goes on a network.
const RECEIVES_LARGE: Features = Features::of(&[
    net::GUEST_TSO4,
    net::GUEST_TSO6,
    net::GUEST_USO4,
    net::GUEST_USO6,
]);
/// With which a sent one may.
const SENDS_LARGE: Features = Features::of(&[net::HOST_TSO4, net::HOST_TSO6, net::HOST_USO]);

pub(super) const fn receives_large(features: Features) -> bool {
    features.intersects(RECEIVES_LARGE)
}

pub(super) const fn sends_large(features: Features) -> bool {
    features.intersects(SENDS_LARGE)
}

/// The features to negotiate.
pub(super) fn choose(session: &Session<Negotiating>, setup: &Setup) -> Result<Features, NetError> {
    let unknown = setup.ask - OPTIONAL;
    if !unknown.is_empty() {
        return Err(NetError::FeatureUnknown {
            features: unknown.display(DeviceType::Net).to_string(),
            known: OPTIONAL.display(DeviceType::Net).to_string(),
        });
    }
    let acceptable = session.acceptable();
    let missing = setup.ring.features() - acceptable;
    if !missing.is_empty() {
        return Err(NetError::RingNotOffered {
            ring: setup.ring,
            missing: missing.display(DeviceType::Net).to_string(),
        });
    }
    let mut wanted = ALWAYS | setup.ask;
    if setup.pairs > 1 {
        wanted |= net::MQ;
    }
    if setup.ask.intersects(RECEIVE_OFFLOADS) {
        wanted |= net::CTRL_GUEST_OFFLOADS;
    }
    let limits = session.device().queue_limits(QueueIndex::new(0))?;
    if limits.max_size.min(setup.queue_size) < COMMAND_PARTS {
        wanted -= net::CTRL_VQ;
    }
    let wanted = (wanted - setup.decline) | setup.ring.features();
    Ok(graph::close_down(DeviceType::Net, acceptable & wanted))
}

/// The name of a feature of network devices.
pub(super) fn name(feature: FeatureBit) -> &'static str {
    feature.name(DeviceType::Net).unwrap_or("?")
}

//! Commands that say how packets are steered, finished and told of.

use vdpa_core::{Features, bits::net};

use super::{Done, PARAMS_BYTES};
use crate::net::NetShared;
use crate::net::coalesce::{Direction, Params};
use crate::net::hashing::Hashing;
use crate::offload::RECEIVE;

/// VIRTIO_NET_CTRL_ANNOUNCE, virtio 1.4 §5.1.9.5.4.
pub(super) fn announce(
    shared: &NetShared,
    what: u8,
    data: &[u8],
    features: Features,
) -> Option<Done> {
    if what != 0 || !data.is_empty() || !features.contains(net::GUEST_ANNOUNCE) {
        return None;
    }
    // Before the command is used, virtio 1.4 §5.1.9.5.4.2.
    shared.settled.set_announce(false);
    Some(Done::Quiet)
}

/// VIRTIO_NET_CTRL_MQ, virtio 1.4 §5.1.9.5.5: the last of these commands says how frames are steered.
pub(super) fn steer(shared: &NetShared, what: u8, data: &[u8], features: Features) -> Option<Done> {
    let pairs = shared.settings.pairs;
    let settled = &shared.settled;
    let hashing = match what {
        0 if features.contains(net::MQ) => {
            let count = u16::from_le_bytes(data.try_into().ok()?);
            if !(1..=pairs).contains(&count) {
                return None;
            }
            let hashing = settled.hashing();
            let steered = hashing.steering().is_some();
            if !steered && shared.presence.active() == count {
                return Some(Done::Quiet);
            }
            shared.presence.set_active(count);
            if steered {
                settled.set_hashing(hashing.unsteered());
            } else {
                settled.touch();
            }
            return Some(Done::Seen);
        }
        1 if features.contains(net::RSS) => Hashing::from_rss(data, pairs)?,
        2 if features.contains(net::HASH_REPORT) => Hashing::from_hash_config(data)?,
        _ => return None,
    };
    shared.set_hashing(hashing);
    Some(Done::Seen)
}

/// VIRTIO_NET_CTRL_GUEST_OFFLOADS, virtio 1.4 §5.1.9.5.9.
pub(super) fn offloads(
    shared: &NetShared,
    what: u8,
    data: &[u8],
    features: Features,
) -> Option<Done> {
    let wanted = Features::from_u64(u64::from_le_bytes(data.try_into().ok()?));
    let negotiated = features & RECEIVE;
    if what != 0 || !features.contains(net::CTRL_GUEST_OFFLOADS) || !negotiated.contains_all(wanted)
    {
        return None;
    }
    if shared.settled.offloads() == wanted {
        return Some(Done::Quiet);
    }
    shared.settled.set_offloads(wanted);
    Some(Done::Seen)
}

/// VIRTIO_NET_CTRL_NOTF_COAL, virtio 1.4 §5.1.9.5.10.
pub(super) fn coalesce(
    shared: &NetShared,
    what: u8,
    data: &[u8],
    features: Features,
    room: u64,
) -> Option<Done> {
    let coalescing = &shared.coalescing;
    match what {
        0 | 1 if features.contains(net::NOTF_COAL) => {
            let params = Params::from_bytes(data.try_into().ok()?);
            let direction = if what == 0 {
                Direction::Transmit
            } else {
                Direction::Receive
            };
            coalescing.set_all(direction, params);
        }
        2 if features.contains(net::VQ_NOTF_COAL) => {
            let (head, params) = data.split_first_chunk::<4>()?;
            let params = Params::from_bytes(params.try_into().ok()?);
            coalescing.set(u16::from_le_bytes([head[0], head[1]]), params)?;
        }
        3 if features.contains(net::VQ_NOTF_COAL) && room > PARAMS_BYTES => {
            let [low, high, _, _] = <[u8; 4]>::try_from(data).ok()?;
            return coalescing
                .params(u16::from_le_bytes([low, high]))
                .map(Done::Params);
        }
        _ => return None,
    }
    // Calls that were held back may be due by now.
    Some(Done::Seen)
}

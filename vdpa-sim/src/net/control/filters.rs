//! Commands that say which frames the driver receives.

use vdpa_core::config::Mac;
use vdpa_core::{Features, bits::net};

use crate::net::filter::{Addresses, Filter, Modes, VLANS};

/// VIRTIO_NET_CTRL_RX, virtio 1.4 §5.1.9.5.1.
pub(super) fn mode(filter: &mut Filter, what: u8, data: &[u8], features: Features) -> Option<()> {
    let needs = if what < 2 {
        net::CTRL_RX
    } else {
        net::CTRL_RX_EXTRA
    };
    let &[on] = data else { return None };
    if !features.contains(needs) || !features.contains(net::CTRL_RX) {
        return None;
    }
    let on = on != 0;
    let modes = filter.modes.get_or_insert_with(Modes::default);
    match what {
        0 => modes.promiscuous = on,
        1 => modes.all_multicast = on,
        2 => modes.all_unicast = on,
        3 => modes.no_multicast = on,
        4 => modes.no_unicast = on,
        5 => modes.no_broadcast = on,
        _ => return None,
    }
    Some(())
}

/// VIRTIO_NET_CTRL_MAC, virtio 1.4 §5.1.9.5.2.
pub(super) fn address(
    filter: &mut Filter,
    what: u8,
    data: &[u8],
    features: Features,
) -> Option<()> {
    match what {
        0 if features.contains(net::CTRL_RX) => {
            let (unicast, data) = table(data)?;
            let (multicast, data) = table(data)?;
            if !data.is_empty() {
                return None;
            }
            filter.unicast = unicast;
            filter.multicast = multicast;
            filter.modes.get_or_insert_with(Modes::default);
            Some(())
        }
        1 if features.contains(net::CTRL_MAC_ADDR) => {
            let mac = Mac::new(<[u8; 6]>::try_from(data).ok()?);
            if !mac.is_unicast() {
                return None;
            }
            filter.mac = mac;
            Some(())
        }
        _ => None,
    }
}

/// One table of addresses: `entries` u32, then 6 bytes each. Answers with what follows.
fn table(data: &[u8]) -> Option<(Addresses, &[u8])> {
    let (entries, data) = data.split_first_chunk()?;
    // The count is the driver's: it may say more than there can be.
    let bytes = usize::try_from(u32::from_le_bytes(*entries))
        .ok()?
        .checked_mul(6)?;
    let (list, rest) = data.split_at_checked(bytes)?;
    let macs = list.as_chunks().0.iter().map(|octets| Mac::new(*octets));
    Some((Addresses::new(macs), rest))
}

/// VIRTIO_NET_CTRL_VLAN, virtio 1.4 §5.1.9.5.3.
pub(super) fn vlan(filter: &mut Filter, what: u8, data: &[u8], features: Features) -> Option<()> {
    let id = u16::from_le_bytes(data.try_into().ok()?);
    if !features.contains(net::CTRL_VLAN) || id >= VLANS || what > 1 {
        return None;
    }
    filter.set_vlan(id, what == 0);
    Some(())
}

//! Which features of a back end reach the contract.

use vdpa_core::bits::{self, net};
use vdpa_core::{DeviceType, FeatureBit, Features, graph};
use vdpa_vhost_user::{F_LOG_ALL, F_PROTOCOL_FEATURES};

/// What nobody carries from a driver to a back end.
///
/// ACCESS_PLATFORM is none of these by nature, but would have the back end ask for every address (IOTLB), where it is told
/// of all memory at once. Notifications are eventfds, which carry no data.
const NOT_CARRIED: Features = Features::of(&[
    bits::ACCESS_PLATFORM,
    bits::SR_IOV,
    bits::NOTIFICATION_DATA,
    bits::NOTIF_CONFIG_DATA,
    bits::ADMIN_VQ,
    bits::SUSPEND,
]);

/// What a network device's configuration shows, or its control queue does: both are the front end's where the back end has
/// no configuration.
const FRONT_ENDS: &[FeatureBit] = &[
    net::CTRL_VQ,
    net::HASH_REPORT,
    net::MAC,
    net::MTU,
    net::SPEED_DUPLEX,
    net::STANDBY,
    net::STATUS,
];

/// The features that a driver may be offered.
///
/// * `offered`: by the back end
/// * `config`: whether its configuration can be asked for
pub(crate) fn carried(device_type: DeviceType, offered: u64, config: bool) -> Features {
    let mut set = Features::from_u64(offered & !(F_LOG_ALL | F_PROTOCOL_FEATURES));
    set = graph::known(device_type, set.difference(NOT_CARRIED));
    if device_type == DeviceType::Net && !config {
        set = set.difference(Features::of(FRONT_ENDS));
    }
    graph::close_down(device_type, set)
}

/// The most features that a device of this type has here.
pub(crate) fn usable(device_type: DeviceType) -> Features {
    let named = bits::defined(device_type).truncated_to_64();
    carried(device_type, named.low_u64(), true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_without_a_configuration_keeps_what_its_rings_carry() {
        let dpdk = Features::of(&[
            bits::VERSION_1,
            bits::RING_PACKED,
            bits::ACCESS_PLATFORM,
            net::CTRL_VQ,
            net::CTRL_RX,
            net::GUEST_ANNOUNCE,
            net::MQ,
            net::MTU,
            net::MRG_RXBUF,
        ]);
        let offered = dpdk.low_u64() | F_LOG_ALL | F_PROTOCOL_FEATURES;
        let set = carried(DeviceType::Net, offered, false);
        let kept = [bits::VERSION_1, bits::RING_PACKED, net::MRG_RXBUF];
        assert_eq!(set, Features::of(&kept));
        let set = carried(DeviceType::Net, offered, true);
        assert_eq!(set, dpdk.without(bits::ACCESS_PLATFORM));
    }

    #[test]
    fn what_is_carried_may_be_offered_whatever_a_back_end_says() {
        for device_type in [DeviceType::Net, DeviceType::Block, DeviceType::Socket] {
            for offered in [0, u64::MAX, 0x5555_5555_5555_5555, 1 << 22] {
                for config in [false, true] {
                    let set = carried(device_type, offered | 1 << 32, config);
                    assert!(graph::check_offered(device_type, set).is_ok(), "{set:?}");
                    assert!(!set.intersects(NOT_CARRIED));
                }
            }
        }
        assert!(usable(DeviceType::Net).contains(net::MQ));
    }
}

//! The tables against the kernel's headers and against themselves.

use std::collections::BTreeMap;

use virtio_bindings::{
    virtio_blk, virtio_config, virtio_gpu, virtio_net as kernel_net, virtio_ring, virtio_scsi,
};

use super::*;

/// Compares every constant of a header with the row of the same name.
macro_rules! agree {
    ($device:expr, $header:ident, $prefix:ident: $( $name:literal = $constant:ident ),* $(,)?) => {
        $(
            let named = by_name($device, $name).expect($name);
            assert_eq!(u32::from(named.bit().number()), $header::$constant, $name);
        )*
    };
}

#[test]
fn net_bits_are_those_of_the_kernel_header() {
    agree!(DeviceType::Net, kernel_net, VIRTIO_NET_F_:
        "CSUM" = VIRTIO_NET_F_CSUM,
        "GUEST_CSUM" = VIRTIO_NET_F_GUEST_CSUM,
        "CTRL_GUEST_OFFLOADS" = VIRTIO_NET_F_CTRL_GUEST_OFFLOADS,
        "MTU" = VIRTIO_NET_F_MTU,
        "MAC" = VIRTIO_NET_F_MAC,
        "GSO" = VIRTIO_NET_F_GSO,
        "GUEST_TSO4" = VIRTIO_NET_F_GUEST_TSO4,
        "GUEST_TSO6" = VIRTIO_NET_F_GUEST_TSO6,
        "GUEST_ECN" = VIRTIO_NET_F_GUEST_ECN,
        "GUEST_UFO" = VIRTIO_NET_F_GUEST_UFO,
        "HOST_TSO4" = VIRTIO_NET_F_HOST_TSO4,
        "HOST_TSO6" = VIRTIO_NET_F_HOST_TSO6,
        "HOST_ECN" = VIRTIO_NET_F_HOST_ECN,
        "HOST_UFO" = VIRTIO_NET_F_HOST_UFO,
        "MRG_RXBUF" = VIRTIO_NET_F_MRG_RXBUF,
        "STATUS" = VIRTIO_NET_F_STATUS,
        "CTRL_VQ" = VIRTIO_NET_F_CTRL_VQ,
        "CTRL_RX" = VIRTIO_NET_F_CTRL_RX,
        "CTRL_VLAN" = VIRTIO_NET_F_CTRL_VLAN,
        "CTRL_RX_EXTRA" = VIRTIO_NET_F_CTRL_RX_EXTRA,
        "GUEST_ANNOUNCE" = VIRTIO_NET_F_GUEST_ANNOUNCE,
        "MQ" = VIRTIO_NET_F_MQ,
        "CTRL_MAC_ADDR" = VIRTIO_NET_F_CTRL_MAC_ADDR,
        "DEVICE_STATS" = VIRTIO_NET_F_DEVICE_STATS,
        "VQ_NOTF_COAL" = VIRTIO_NET_F_VQ_NOTF_COAL,
        "NOTF_COAL" = VIRTIO_NET_F_NOTF_COAL,
        "GUEST_USO4" = VIRTIO_NET_F_GUEST_USO4,
        "GUEST_USO6" = VIRTIO_NET_F_GUEST_USO6,
        "HOST_USO" = VIRTIO_NET_F_HOST_USO,
        "HASH_REPORT" = VIRTIO_NET_F_HASH_REPORT,
        "GUEST_HDRLEN" = VIRTIO_NET_F_GUEST_HDRLEN,
        "RSS" = VIRTIO_NET_F_RSS,
        "RSC_EXT" = VIRTIO_NET_F_RSC_EXT,
        "STANDBY" = VIRTIO_NET_F_STANDBY,
        "SPEED_DUPLEX" = VIRTIO_NET_F_SPEED_DUPLEX,
    );
}

#[test]
fn block_bits_are_those_of_the_kernel_header() {
    agree!(DeviceType::Block, virtio_blk, VIRTIO_BLK_F_:
        "BARRIER" = VIRTIO_BLK_F_BARRIER,
        "SIZE_MAX" = VIRTIO_BLK_F_SIZE_MAX,
        "SEG_MAX" = VIRTIO_BLK_F_SEG_MAX,
        "GEOMETRY" = VIRTIO_BLK_F_GEOMETRY,
        "RO" = VIRTIO_BLK_F_RO,
        "BLK_SIZE" = VIRTIO_BLK_F_BLK_SIZE,
        "SCSI" = VIRTIO_BLK_F_SCSI,
        "FLUSH" = VIRTIO_BLK_F_FLUSH,
        "TOPOLOGY" = VIRTIO_BLK_F_TOPOLOGY,
        "CONFIG_WCE" = VIRTIO_BLK_F_CONFIG_WCE,
        "MQ" = VIRTIO_BLK_F_MQ,
        "DISCARD" = VIRTIO_BLK_F_DISCARD,
        "WRITE_ZEROES" = VIRTIO_BLK_F_WRITE_ZEROES,
        "SECURE_ERASE" = VIRTIO_BLK_F_SECURE_ERASE,
        "ZONED" = VIRTIO_BLK_F_ZONED,
    );
}

#[test]
fn bits_of_any_device_are_those_of_the_kernel_headers() {
    let any = DeviceType::Entropy;
    agree!(any, virtio_ring, VIRTIO_RING_F_:
        "INDIRECT_DESC" = VIRTIO_RING_F_INDIRECT_DESC,
        "EVENT_IDX" = VIRTIO_RING_F_EVENT_IDX,
    );
    agree!(any, virtio_config, VIRTIO_F_:
        "NOTIFY_ON_EMPTY" = VIRTIO_F_NOTIFY_ON_EMPTY,
        "ANY_LAYOUT" = VIRTIO_F_ANY_LAYOUT,
        "VERSION_1" = VIRTIO_F_VERSION_1,
        "ACCESS_PLATFORM" = VIRTIO_F_ACCESS_PLATFORM,
        "RING_PACKED" = VIRTIO_F_RING_PACKED,
        "IN_ORDER" = VIRTIO_F_IN_ORDER,
        "ORDER_PLATFORM" = VIRTIO_F_ORDER_PLATFORM,
        "SR_IOV" = VIRTIO_F_SR_IOV,
        "NOTIFICATION_DATA" = VIRTIO_F_NOTIFICATION_DATA,
        "NOTIF_CONFIG_DATA" = VIRTIO_F_NOTIF_CONFIG_DATA,
        "RING_RESET" = VIRTIO_F_RING_RESET,
        "ADMIN_VQ" = VIRTIO_F_ADMIN_VQ,
    );
    assert_eq!(SUSPEND.number(), 43);
}

#[test]
fn gpu_and_scsi_bits_are_those_of_the_kernel_headers() {
    agree!(DeviceType::Gpu, virtio_gpu, VIRTIO_GPU_F_:
        "VIRGL" = VIRTIO_GPU_F_VIRGL,
        "EDID" = VIRTIO_GPU_F_EDID,
        "RESOURCE_UUID" = VIRTIO_GPU_F_RESOURCE_UUID,
        "RESOURCE_BLOB" = VIRTIO_GPU_F_RESOURCE_BLOB,
        "CONTEXT_INIT" = VIRTIO_GPU_F_CONTEXT_INIT,
    );
    agree!(DeviceType::Scsi, virtio_scsi, VIRTIO_SCSI_F_:
        "INOUT" = VIRTIO_SCSI_F_INOUT,
        "HOTPLUG" = VIRTIO_SCSI_F_HOTPLUG,
        "CHANGE" = VIRTIO_SCSI_F_CHANGE,
        "T10_PI" = VIRTIO_SCSI_F_T10_PI,
    );
}

#[test]
fn no_name_and_no_number_is_given_twice() {
    for &device in DeviceType::ALL {
        let mut names = BTreeMap::new();
        let mut numbers = BTreeMap::new();
        for named in all(device) {
            let before = names.insert(named.name(), named.bit());
            assert_eq!(before, None, "{device} {}", named.name());
            if let Some(other) = numbers.insert(named.bit(), named.name()) {
                // The one number with two meanings: the newer wins.
                assert_eq!(
                    (device, other, named.name()),
                    (DeviceType::Net, "ADMIN_VQ", "GUEST_RSC4")
                );
            }
        }
    }
    assert_eq!(
        by_number(DeviceType::Net, ADMIN_VQ).unwrap().name(),
        "ADMIN_VQ"
    );
    assert!(!legacy(DeviceType::Net).contains(ADMIN_VQ));
}

#[test]
fn tables_ascend_and_stay_in_their_range() {
    for &device in DeviceType::ALL {
        let rows = own(device).unwrap_or(&[]);
        for era in [Era::Current, Era::Legacy] {
            let of_era: Vec<_> = rows.iter().filter(|row| row.era() == era).collect();
            assert!(of_era.is_sorted_by_key(|row| row.bit()), "{device}");
        }
        for row in rows {
            assert!(TYPE_RANGE.contains(row.bit()), "{device} {}", row.name());
            assert!(!row.about().is_empty() && !row.about().ends_with('.'));
        }
    }
    for row in virtio::TABLE {
        let own = TYPE_RANGE.contains(row.bit()) && row.bit() != ADMIN_VQ;
        assert!(!own, "{}", row.name());
    }
}

#[test]
fn the_virtio_1_4_additions_are_there() {
    let expected = [
        (DeviceType::Net, "HASH_TUNNEL", 51),
        (DeviceType::Net, "RSS_CONTEXT", 64),
        (DeviceType::Net, "GUEST_UDP_TUNNEL_GSO", 65),
        (DeviceType::Net, "GUEST_UDP_TUNNEL_GSO_CSUM", 66),
        (DeviceType::Net, "HOST_UDP_TUNNEL_GSO", 67),
        (DeviceType::Net, "HOST_UDP_TUNNEL_GSO_CSUM", 68),
        (DeviceType::Net, "OUT_NET_HEADER", 69),
        (DeviceType::Net, "IPSEC", 70),
        (DeviceType::Block, "LIFETIME", 15),
        (DeviceType::Gpu, "BLOB_ALIGNMENT", 5),
        (DeviceType::Can, "LATE_TX_ACK", 3),
        (DeviceType::Rtc, "ALARM", 0),
        (DeviceType::Socket, "NO_IMPLIED_STREAM", 2),
        (DeviceType::Balloon, "PAGE_REPORTING", 5),
        (DeviceType::Iommu, "BYPASS_CONFIG", 6),
        (DeviceType::Media, "SUSPEND", 43),
    ];
    for (device, name, number) in expected {
        let named = by_name(device, name).expect(name);
        assert_eq!(named.bit().number(), number, "{name}");
    }
}

#[test]
fn names_are_taken_in_any_case_with_and_without_prefix() {
    for name in [
        "MRG_RXBUF",
        "mrg_rxbuf",
        "VIRTIO_NET_F_MRG_RXBUF",
        "virtio_net_f_mrg_rxbuf",
    ] {
        let named = by_name(DeviceType::Net, name).expect(name);
        assert_eq!(named.bit(), net::MRG_RXBUF);
    }
    let common = by_name(DeviceType::Block, "VIRTIO_F_RING_PACKED").unwrap();
    assert_eq!(common.bit(), RING_PACKED);
    for wrong in ["", "VIRTIO_", "VIRTIO_NET_F_", "F_", "RO", "MRG RXBUF"] {
        assert!(by_name(DeviceType::Net, wrong).is_none(), "{wrong:?}");
    }
}

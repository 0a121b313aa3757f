//! Layouts against the kernel's structs, and both ways to the bytes.

use std::mem::{offset_of, size_of};

use proptest::prelude::*;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_Z_HA, VIRTIO_BLK_Z_HM, VIRTIO_BLK_Z_NONE, virtio_blk_config,
};
use virtio_bindings::virtio_net::{
    self as kernel_net, VIRTIO_NET_S_ANNOUNCE, VIRTIO_NET_S_LINK_UP, virtio_net_config,
};

use super::block::ZoneModel;
use super::net::{Duplex, HashTypes, NetStatus, TunnelTypes};
use super::*;
use crate::bits::{block, net};

fn field(device: DeviceType, name: &str) -> &'static Field {
    fields(device)
        .iter()
        .find(|field| field.name() == name)
        .unwrap_or_else(|| panic!("{device} {name}"))
}

/// Compares offset and width of fields with those of a kernel struct.
macro_rules! agree {
    ($device:expr, $kernel:ty: $( $name:literal = $($path:ident).+ ),* $(,)?) => {$(
        let ours = field($device, $name);
        assert_eq!(ours.offset() as usize, offset_of!($kernel, $($path).+), $name);
        let theirs: $kernel = Default::default();
        let value = theirs.$($path).+;
        assert_eq!(ours.width() as usize, std::mem::size_of_val(&value), $name);
    )*};
}

#[test]
fn net_fields_are_where_the_kernel_header_has_them() {
    agree!(DeviceType::Net, virtio_net_config:
        "mac" = mac,
        "status" = status,
        "max_virtqueue_pairs" = max_virtqueue_pairs,
        "mtu" = mtu,
        "speed" = speed,
        "duplex" = duplex,
        "rss_max_key_size" = rss_max_key_size,
        "rss_max_indirection_table_length" = rss_max_indirection_table_length,
        "supported_hash_types" = supported_hash_types,
    );
    // The header ends before the one field that virtio 1.3 added.
    let last = field(DeviceType::Net, "supported_tunnel_types");
    assert_eq!(last.offset() as usize, size_of::<virtio_net_config>());
    assert_eq!(NetConfig::SIZE, last.end() as usize);
}

#[test]
fn block_fields_are_where_the_kernel_header_has_them() {
    agree!(DeviceType::Block, virtio_blk_config:
        "capacity" = capacity,
        "size_max" = size_max,
        "seg_max" = seg_max,
        "geometry.cylinders" = geometry.cylinders,
        "geometry.heads" = geometry.heads,
        "geometry.sectors" = geometry.sectors,
        "blk_size" = blk_size,
        "topology.physical_block_exp" = physical_block_exp,
        "topology.alignment_offset" = alignment_offset,
        "topology.min_io_size" = min_io_size,
        "topology.opt_io_size" = opt_io_size,
        "writeback" = wce,
        "num_queues" = num_queues,
        "max_discard_sectors" = max_discard_sectors,
        "max_discard_seg" = max_discard_seg,
        "discard_sector_alignment" = discard_sector_alignment,
        "max_write_zeroes_sectors" = max_write_zeroes_sectors,
        "max_write_zeroes_seg" = max_write_zeroes_seg,
        "write_zeroes_may_unmap" = write_zeroes_may_unmap,
        "max_secure_erase_sectors" = max_secure_erase_sectors,
        "max_secure_erase_seg" = max_secure_erase_seg,
        "secure_erase_sector_alignment" = secure_erase_sector_alignment,
        "zoned.zone_sectors" = zoned.zone_sectors,
        "zoned.max_open_zones" = zoned.max_open_zones,
        "zoned.max_active_zones" = zoned.max_active_zones,
        "zoned.max_append_sectors" = zoned.max_append_sectors,
        "zoned.write_granularity" = zoned.write_granularity,
        "zoned.model" = zoned.model,
    );
    assert_eq!(BlockConfig::SIZE, size_of::<virtio_blk_config>());
    assert_eq!(BlockConfig::FIELDS.len(), 28);
}

#[test]
fn constants_are_those_of_the_kernel_headers() {
    assert_eq!(u32::from(NetStatus::LINK_UP.bits()), VIRTIO_NET_S_LINK_UP);
    assert_eq!(u32::from(NetStatus::ANNOUNCE.bits()), VIRTIO_NET_S_ANNOUNCE);
    for (ours, theirs) in [
        (HashTypes::IPV4, kernel_net::VIRTIO_NET_RSS_HASH_TYPE_IPv4),
        (HashTypes::TCPV4, kernel_net::VIRTIO_NET_RSS_HASH_TYPE_TCPv4),
        (HashTypes::UDPV4, kernel_net::VIRTIO_NET_RSS_HASH_TYPE_UDPv4),
        (HashTypes::IPV6, kernel_net::VIRTIO_NET_RSS_HASH_TYPE_IPv6),
        (HashTypes::TCPV6, kernel_net::VIRTIO_NET_RSS_HASH_TYPE_TCPv6),
        (HashTypes::UDPV6, kernel_net::VIRTIO_NET_RSS_HASH_TYPE_UDPv6),
        (HashTypes::IP_EX, kernel_net::VIRTIO_NET_RSS_HASH_TYPE_IP_EX),
        (
            HashTypes::TCP_EX,
            kernel_net::VIRTIO_NET_RSS_HASH_TYPE_TCP_EX,
        ),
        (
            HashTypes::UDP_EX,
            kernel_net::VIRTIO_NET_RSS_HASH_TYPE_UDP_EX,
        ),
    ] {
        assert_eq!(ours.bits(), theirs, "{ours:?}");
    }
    for (ours, theirs) in [
        (ZoneModel::None, VIRTIO_BLK_Z_NONE),
        (ZoneModel::HostManaged, VIRTIO_BLK_Z_HM),
        (ZoneModel::HostAware, VIRTIO_BLK_Z_HA),
    ] {
        assert_eq!(u32::from(ours.to_u8()), theirs);
    }
}

#[test]
fn fields_ascend_without_overlap_and_stay_inside() {
    for (device, size) in [
        (DeviceType::Net, NetConfig::SIZE),
        (DeviceType::Block, BlockConfig::SIZE),
    ] {
        let mut end = 0;
        for field in fields(device) {
            assert!(field.offset() >= end, "{}", field.name());
            end = field.end();
        }
        assert!(end as usize <= size);
    }
    assert!(fields(DeviceType::Rpmsg).is_empty());
}

#[test]
fn the_bytes_are_little_endian() {
    let config = NetConfig::new()
        .with_mac(Mac::new([0x52, 0x54, 0, 0, 0, 1]))
        .with_status(NetStatus::LINK_UP)
        .with_max_virtqueue_pairs(0x0102)
        .with_mtu(1500)
        .with_speed(Some(100_000))
        .with_duplex(Duplex::Full)
        .with_rss_max_key_size(40)
        .with_rss_max_indirection_table_length(128)
        .with_supported_hash_types(HashTypes::IPV4 | HashTypes::UDP_EX)
        .with_supported_tunnel_types(TunnelTypes::VXLAN);
    let expected = [
        0x52, 0x54, 0, 0, 0, 1, 1, 0, 2, 1, 0xdc, 5, 0xa0, 0x86, 1, 0, 1, 40, 128, 0, 1, 1, 0, 0,
        16, 0, 0, 0,
    ];
    assert_eq!(config.to_bytes(), expected);
    let read = NetConfig::from_bytes(&expected);
    assert_eq!(read, config);
    assert_eq!(read.mac(), Mac::new([0x52, 0x54, 0, 0, 0, 1]));
    assert_eq!(read.status(), NetStatus::LINK_UP);
    assert_eq!((read.max_virtqueue_pairs(), read.mtu()), (0x0102, 1500));
    let cable = (read.speed(), read.duplex());
    assert_eq!(cable, (Some(100_000), Duplex::Full));
    assert_eq!(read.rss_max_key_size(), 40);
    assert_eq!(read.rss_max_indirection_table_length(), 128);
    let hashes = HashTypes::IPV4 | HashTypes::UDP_EX;
    assert_eq!(read.supported_hash_types(), hashes);
    assert_eq!(read.supported_tunnel_types(), TunnelTypes::VXLAN);
}

#[test]
fn an_unknown_speed_is_none_and_is_written_as_all_ones() {
    let config = NetConfig::new().with_speed(None);
    assert_eq!(config.to_bytes()[12..16], [0xff; 4]);
    for raw in [0x8000_0000, u32::MAX] {
        assert_eq!(config.with_raw_speed(raw).speed(), None);
    }
    assert_eq!(
        config.with_raw_speed(0x7fff_ffff).speed(),
        Some(0x7fff_ffff)
    );
    assert_eq!(config.with_raw_duplex(2).duplex(), Duplex::Unknown);
}

#[test]
fn undefined_status_bits_are_kept() {
    let config = NetConfig::new().with_raw_status(0x8001);
    assert!(config.status().contains(NetStatus::LINK_UP));
    assert_eq!(config.status().bits(), 0x8001);
}

#[test]
fn the_length_follows_the_features() {
    let net = |features| length(DeviceType::Net, features);
    assert_eq!(net(Features::NONE), 0);
    assert_eq!(net(net::MAC.mask()), 6);
    assert_eq!(net(net::MAC | net::STATUS), 8);
    assert_eq!(net(net::RSS.mask()), 24);
    assert_eq!(net(net::HASH_TUNNEL.mask()), 28);
    assert_eq!(length(DeviceType::Block, Features::NONE), 8);
    assert_eq!(length(DeviceType::Block, block::MQ.mask()), 36);
    assert_eq!(length(DeviceType::Rpmsg, net::MAC.mask()), 0);
}

#[test]
fn only_writeback_may_be_written() {
    for device in [DeviceType::Net, DeviceType::Block] {
        for field in fields(device) {
            let writable = field.writable() == Writable::ByDriver;
            assert_eq!(writable, field.name() == "writeback");
        }
    }
}

#[test]
fn ranges_are_checked_only_where_the_field_exists() {
    let zero = NetConfig::new();
    assert_eq!(zero.check(Features::NONE), Ok(()));
    let error = zero.with_mtu(67).check(net::MTU.mask()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "config field mtu: 67 is out of range: 68..=65535"
    );
    let pairs = |pairs| zero.with_max_virtqueue_pairs(pairs).check(net::MQ.mask());
    assert!(pairs(0).is_err() && pairs(0x8001).is_err());
    assert!(pairs(1).is_ok() && pairs(0x8000).is_ok());
    let rss = zero.with_max_virtqueue_pairs(1).with_rss_max_key_size(40);
    assert!(rss.check(net::RSS.mask()).is_err());
    assert!(
        rss.with_rss_max_indirection_table_length(128)
            .check(net::RSS.mask())
            .is_ok()
    );
    assert!(BlockConfig::new().check(block::MQ.mask()).is_err());
    assert!(
        BlockConfig::new()
            .with_capacity(u64::MAX)
            .check(Features::NONE)
            .is_err()
    );
}

#[test]
fn macs_are_read_and_written() {
    let mac: Mac = "52:54:00:AB:cd:01".parse().unwrap();
    assert_eq!(mac.to_string(), "52:54:00:ab:cd:01");
    assert_eq!("52-54-00-ab-cd-01".parse(), Ok(mac));
    assert!(mac.is_unicast() && mac.is_local());
    assert!(Mac::BROADCAST.is_multicast() && !Mac::BROADCAST.is_unicast());
    assert!(!Mac::default().is_unicast());
    for wrong in [
        "",
        "52:54:00:ab:cd",
        "52:54:00:ab:cd:01:02",
        "52:54:00:ab:cd:+1",
        "52:54:00:ab:cd:1",
        "52:54:00:ab:cd:0g",
        "525400abcd01",
        "52:54-00:ab:cd:01",
        "5２:54:00:ab:cd:01",
    ] {
        assert!(wrong.parse::<Mac>().is_err(), "{wrong:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_and_what_is_missing_is_zero(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut whole = bytes.clone();
        whole.resize(200, 0);
        let net = NetConfig::from_bytes(&bytes);
        prop_assert_eq!(&net.to_bytes()[..], &whole[..NetConfig::SIZE]);

        // A block config has padding, which always reads as zero.
        let block = BlockConfig::from_bytes(&bytes);
        for padding in [33, 57, 58, 59, 93, 94, 95] {
            whole[padding] = 0;
        }
        prop_assert_eq!(&block.to_bytes()[..], &whole[..BlockConfig::SIZE]);
        prop_assert_eq!(BlockConfig::from_bytes(&block.to_bytes()), block);
    }

    #[test]
    fn showing_leaves_out_what_does_not_exist_or_is_cut_off(
        word: u128,
        bytes in proptest::collection::vec(any::<u8>(), 0..120),
    ) {
        let features = Features::from_u128(word);
        for device in [DeviceType::Net, DeviceType::Block] {
            for (field, value) in show(device, features, &bytes) {
                prop_assert!(field.exists(features));
                prop_assert!(field.end() as usize <= bytes.len());
                if let Value::Number(number) = value {
                    let at = field.offset() as usize;
                    prop_assert_eq!(number as u8, bytes[at]);
                }
            }
        }
    }

    #[test]
    fn a_mac_survives_its_text(octets: [u8; 6], text: String) {
        let mac = Mac::new(octets);
        prop_assert_eq!(mac.to_string().parse(), Ok(mac));
        let _ = text.parse::<Mac>();
    }
}

#[test]
fn zone_models_and_duplexes_have_the_values_of_the_specification() {
    for (value, model) in [
        (VIRTIO_BLK_Z_NONE as u8, ZoneModel::None),
        (VIRTIO_BLK_Z_HM as u8, ZoneModel::HostManaged),
        (VIRTIO_BLK_Z_HA as u8, ZoneModel::HostAware),
        (9, ZoneModel::Other(9)),
    ] {
        assert_eq!((ZoneModel::from_u8(value), model.to_u8()), (model, value));
        let config = BlockConfig::default().with_model(model);
        assert_eq!(config.model(), model);
    }
    // Virtio 1.4 §5.1.4: 0x01 full, 0x00 half, anything else unknown.
    for (value, duplex) in [
        (0, Duplex::Half),
        (1, Duplex::Full),
        (0xff, Duplex::Unknown),
    ] {
        assert_eq!((Duplex::from_u8(value), duplex.to_u8()), (duplex, value));
    }
    assert_eq!(Duplex::from_u8(2), Duplex::Unknown);
}

#[test]
fn block_config_that_can_not_be_is_refused_by_its_field() {
    let fits = BlockConfig::default().with_num_queues(1);
    let offered = block::CONFIG_WCE | block::MQ | block::WRITE_ZEROES | block::ZONED;
    assert_eq!(fits.check(offered), Ok(()));
    let named = |config: BlockConfig| config.check(offered).unwrap_err().to_string();
    assert!(named(fits.with_num_queues(0)).contains("num_queues"));
    let zones = fits.with_model(ZoneModel::Other(3));
    assert!(named(zones).contains("zoned.model"));
    assert_eq!(
        zones.check(offered - block::ZONED),
        Ok(()),
        "it does not exist"
    );
    let mut bytes = fits.to_bytes();
    for name in ["writeback", "write_zeroes_may_unmap"] {
        let at = field(DeviceType::Block, name).offset() as usize;
        bytes[at] = 2;
        assert!(
            named(BlockConfig::from_bytes(&bytes)).contains(name),
            "{name}"
        );
        bytes[at] = 0;
    }
    assert!(named(fits.with_capacity(u64::MAX)).contains("capacity"));
}

#[test]
fn addresses_and_values_are_printed_as_they_are_written() {
    let mac = Mac::from([0x52, 0x54, 0, 0, 0, 1]);
    assert_eq!(format!("{mac:?}"), "Mac(52:54:00:00:00:01)");
    assert_eq!(mac, "52:54:00:00:00:01".parse().unwrap());
    assert_eq!(Value::Mac(mac).to_string(), "52:54:00:00:00:01");
    assert_eq!(Value::Number(1500).to_string(), "1500");
}

#[test]
fn a_field_says_which_features_it_needs() {
    assert_eq!(field(DeviceType::Net, "mtu").any_of(), [net::MTU]);
    assert!(field(DeviceType::Block, "capacity").any_of().is_empty());
    let types = TunnelTypes::from_bits_retain(0x3);
    let config = NetConfig::default().with_supported_tunnel_types(types);
    assert_eq!(config.supported_tunnel_types(), types);
}

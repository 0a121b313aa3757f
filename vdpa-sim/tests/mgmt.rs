//! Device strings, listings, opening and closing.

mod rig;

use rig::*;
use vdpa_core::bits::{self, net};
use vdpa_core::config::net::Duplex;
use vdpa_core::{
    Device, DeviceSpec, DeviceType, ErrorKind, Features, MgmtDevice, QueueIndex, Relay,
};

#[test]
fn a_device_string_makes_what_it_says() {
    let lab = Lab::new();
    let rig = lab.open(
        "sim:net,mac=52:54:00:00:00:07,mtu=9000,queue_pairs=4,queue_size=300,speed=25000,link=down,workers=2",
    );
    let config = rig.config();
    assert_eq!(config.mac().to_string(), "52:54:00:00:00:07");
    assert_eq!((config.mtu(), config.max_virtqueue_pairs()), (9000, 4));
    assert_eq!(
        (config.speed(), config.duplex()),
        (Some(25_000), Duplex::Full)
    );
    assert!(config.status().is_empty());
    let info = rig.device.info();
    assert_eq!((info.device_type, info.queues), (DeviceType::Net, 9));
    let max = |q| {
        rig.device
            .queue_limits(QueueIndex::new(q))
            .unwrap()
            .max_size
    };
    assert_eq!([0, 7, 8].map(max), [300; 3]);
    rig.negotiate(plain(&rig));
    // Without MQ: a pair and the control queue. Split rings: a power of two.
    assert_eq!([0, 1, 2, 3, 8].map(max), [256, 256, 256, 0, 0]);
    let names = rig.device.cap_names();
    for name in [
        "queue-reset",
        "queue-pause",
        "queue-enable",
        "suspend",
        "in-flight",
        "class-state",
        "stats",
    ] {
        assert!(names.contains(&name), "{name}");
    }
}

#[test]
fn everything_legal_is_offered_and_features_can_be_taken_out() {
    let lab = Lab::new();
    let rig = lab.open("sim:net");
    let offered = rig.device.offered();
    vdpa_core::graph::check_offered(DeviceType::Net, offered).unwrap();
    for bit in [
        bits::VERSION_1,
        bits::ACCESS_PLATFORM,
        bits::RING_RESET,
        net::CTRL_RX_EXTRA,
    ] {
        assert!(offered.contains(bit));
    }
    let few = lab
        .open("sim:net,features=MRG_RXBUF+RING_PACKED")
        .device
        .offered();
    let expected: Features = bits::VERSION_1 | net::MRG_RXBUF | bits::RING_PACKED;
    assert_eq!(few, expected);
    let less = lab.open("sim:net,features=-CTRL_VQ").device.offered();
    assert!(!less.contains(net::CTRL_RX) && less.contains(net::MRG_RXBUF));
}

#[test]
fn attributes_have_the_names_of_the_kernels_tool_too() {
    // vdpa dev add name ... mac ... mtu ... max_vqp ... device_features ...
    let spec = "sim:net,mac=52:54:00:aa:bb:cc,mtu=9000,max_vqp=3,device_features=0x100420028";
    let rig = Lab::new().open(spec);
    let expected: Features = bits::VERSION_1 | net::MQ | net::CTRL_VQ | net::MAC | net::MTU;
    assert_eq!(rig.device.offered(), expected);
    let config = rig.config();
    assert_eq!(config.mac().to_string(), "52:54:00:aa:bb:cc");
    assert_eq!((config.mtu(), config.max_virtqueue_pairs()), (9000, 3));
}

#[test]
fn what_is_wrong_with_a_device_string_is_pointed_at() {
    let lab = Lab::new();
    for (spec, part, says) in [
        ("sim:disk", "disk", "blk"),
        ("sim:net,mtu=67", "67", "68..=65535"),
        ("sim:net,mtu=65536", "65536", "68..=65535"),
        ("sim:net,queue_pairs=0", "0", "1..=128"),
        ("sim:net,queue_pairs=129", "129", "1..=128"),
        ("sim:net,queue_size=0", "0", "1..=32768"),
        ("sim:net,queue_size=32769", "32769", "1..=32768"),
        (
            "sim:net,mac=01:00:00:00:00:00",
            "01:00:00:00:00:00",
            "52:54:00:00:00:01",
        ),
        ("sim:net,mac=x", "x", "52:54:00:00:00:01"),
        ("sim:net,features=STANDBY", "STANDBY", "MRG_RXBUF"),
        ("sim:net,features=RSS", "RSS", "CTRL_VQ"),
        ("sim:net,max_vqp=129", "129", "1..=128"),
        ("sim:net,max_vqp=2,queue_pairs=2", "max_vqp", "no meaning"),
        (
            "sim:net,features=MAC,device_features=0x100000020",
            "device_features",
            "no meaning",
        ),
        ("sim:net,device_features=MAC", "MAC", "number"),
        (
            "sim:net,device_features=0x4000000100000000",
            "0x4000000100000000",
            "STANDBY",
        ),
        ("sim:net,device_features=0x20", "0x20", "VERSION_1"),
        (
            "sim:net,device_features=0x100040000",
            "0x100040000",
            "CTRL_VQ",
        ),
        ("sim:net,features=CTRL_RX", "CTRL_RX", "CTRL_VQ"),
        ("sim:net,port=tun:x", "tun:x", "loopback"),
        ("sim:net,port=tap", "tap", "tap:NAME"),
        ("sim:net,port=switch", "switch", "switch:NAME[:VLAN]"),
        ("sim:net,port=switch::1", "switch::1", "switch:NAME[:VLAN]"),
        ("sim:net,port=switch:a:0", "0", "1..=4094"),
        ("sim:net,port=switch:a:4095", "4095", "1..=4094"),
        ("sim:net,port=switch:a:x", "x", "a whole number"),
        ("sim:net,port=switch:a:", "", "a whole number"),
        ("sim:net,port=tap:of/two", "of/two", "1 to 15 bytes"),
        (
            "sim:net,port=tap:a234567890123456",
            "a234567890123456",
            "1 to 15 bytes",
        ),
        ("sim:net,port=tap:x%d", "x%d", "without blanks"),
        ("sim:net,port=wire:", "wire:", "wire:NAME"),
        ("sim:net,port=null:x", "null:x", "loopback"),
        ("sim:net,port=pcap", "pcap", "IN[:OUT]"),
        ("sim:net,mirror=", "", "FILE"),
        ("sim:net,workers=0", "0", "1..=129"),
        ("sim:net,link=sideways", "sideways", "up"),
        ("sim:net,frobnicate=1", "frobnicate", "queue_pairs"),
        ("sim:blk,size=1000", "1000", "512"),
        ("sim:blk,size=511", "511", "512"),
        ("sim:blk,blk_size=3000", "3000", "a power of two"),
        ("sim:blk,mac=52:54:00:00:00:01", "mac", "serial"),
        ("sim:rng,queue_size=0", "0", "1..=32768"),
        ("sim:rng,queue_size=32769", "32769", "1..=32768"),
        ("sim:rng,features=CTRL_VQ", "CTRL_VQ", "INDIRECT_DESC"),
        ("sim:rng,mtu=1500", "mtu", "queue_size"),
    ] {
        let error = lab.registry.open(spec).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misuse, "{spec}");
        let vdpa_core::Error::Spec(error) = error else {
            panic!("{spec}: {error:?}");
        };
        assert_eq!(error.part(), part, "{spec}");
        assert!(error.to_string().contains(says), "{error}");
    }
    assert!(lab.sim.devices().is_empty());
}

#[test]
fn a_wire_and_a_switch_of_one_name_are_two_and_a_place_that_is_taken_is_pointed_at() {
    let lab = Lab::new();
    let ends = ["a", "a"].map(|name| lab.open(&format!("sim:net,port=wire:{name}")));
    // Any number may be on a switch, by whatever VLAN, also one that has the name of a wire.
    let places =
        ["a", "a:1", "a:4094"].map(|name| lab.open(&format!("sim:net,port=switch:{name}")));
    let error = lab.registry.open("sim:net,port=wire:a").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misuse);
    let why = error.to_string();
    assert!(why.contains("wire:a") && why.contains("free"), "{why}");
    drop((ends, places));
    lab.open("sim:net,port=wire:a").close();
}

#[test]
fn devices_are_listed_while_they_live_and_have_addresses_of_their_own() {
    let lab = Lab::new();
    let a = lab.open("sim:net");
    let b = lab.open("sim:net,mtu=9000");
    let names: Vec<_> = lab
        .sim
        .devices()
        .into_iter()
        .map(|entry| entry.spec)
        .collect();
    assert_eq!(names, ["sim:net", "sim:net,mtu=9000"]);
    assert_ne!(a.config().mac(), b.config().mac());
    assert!(a.config().mac().is_local() && a.config().mac().is_unicast());
    a.close();
    assert_eq!(lab.sim.devices().len(), 1);
    let class = &lab.sim.classes()[0];
    assert_eq!((class.what, class.max_queues), ("net", 257));
}

#[test]
fn a_device_is_opened_once() {
    let lab = Lab::new();
    let parent = lab
        .sim
        .dev_add(&DeviceSpec::parse("sim:net").unwrap())
        .unwrap();
    let device = Device::new(parent.clone(), Relay::new()).unwrap();
    let again = Device::new(parent, Relay::new()).unwrap_err();
    assert!(again.to_string().contains("open already"), "{again}");
    device.close(soon()).map_err(|(_, e)| e).unwrap();
}

use std::sync::Arc;

use vdpa_core::config::Mac;
use vdpa_core::{Features, bits::net};

use super::super::{Net, NetShared, POSSIBLE, Settings};
use super::{Change, carry_out};
use crate::port::{Null, Presence};

fn device(features: Features) -> Arc<NetShared> {
    let settings = Settings {
        mac: Mac::new([2, 0, 0, 0, 0, 1]),
        mtu: 1500,
        pairs: 4,
        queue_size: 256,
        features: POSSIBLE,
        speed: None,
        link: true,
    };
    let net = Net::new(settings, Presence::new(true), Arc::new(Null));
    net.shared.settled.set_features(features);
    Arc::clone(&net.shared)
}

fn ok(shared: &NetShared, command: &[u8]) -> bool {
    carry_out(shared, command).is_some()
}

#[test]
fn commands_of_every_length_but_the_right_one_are_refused() {
    let shared = device(POSSIBLE);
    let commands: [&[u8]; 5] = [
        &[0, 0, 1],
        &[1, 1, 2, 0, 0, 0, 0, 7],
        &[1, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 8, 0, 0, 0, 0],
        &[2, 0, 5, 0],
        &[4, 0, 2, 0],
    ];
    for command in commands {
        for len in 0..command.len() {
            assert!(!ok(&shared, &command[..len]), "{command:?} cut at {len}");
        }
        let long = [command, &[0]].concat();
        assert!(!ok(&shared, &long), "{long:?}");
        assert!(ok(&shared, command), "{command:?}");
    }
}

#[test]
fn a_command_without_its_feature_is_refused() {
    let cases: [(&[u8], _); 6] = [
        (&[0, 0, 1], net::CTRL_RX),
        (&[0, 2, 1], net::CTRL_RX_EXTRA),
        (&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0], net::CTRL_RX),
        (&[1, 1, 2, 0, 0, 0, 0, 7], net::CTRL_MAC_ADDR),
        (&[2, 0, 5, 0], net::CTRL_VLAN),
        (&[4, 0, 2, 0], net::MQ),
    ];
    for (command, feature) in cases {
        assert!(
            !ok(&device(POSSIBLE.without(feature)), command),
            "{command:?}"
        );
        assert!(ok(&device(POSSIBLE), command), "{command:?}");
    }
}

#[test]
fn what_is_out_of_range_is_refused() {
    let shared = device(POSSIBLE);
    for command in [
        &[0, 6, 1][..],
        &[1, 2],
        &[1, 1, 1, 0, 0, 0, 0, 7],
        &[1, 1, 0, 0, 0, 0, 0, 0],
        &[1, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0],
        &[1, 0, 0, 0, 0, 0x80, 0, 0, 0, 0],
        &[2, 0, 0, 0x10],
        &[2, 2, 0, 0],
        &[3, 0],
        &[4, 0, 0, 0],
        &[4, 0, 5, 0],
        &[4, 1, 1, 0],
        &[255, 255],
    ] {
        assert!(!ok(&shared, command), "{command:?}");
    }
}

#[test]
fn a_new_address_is_in_the_configuration_and_moves_its_generation() {
    let shared = device(POSSIBLE);
    let before = shared.settled.generation();
    let command = [1, 1, 2, 0, 0, 0, 0, 7];
    assert_eq!(carry_out(&shared, &command), Some(Change::Seen));
    assert_eq!(shared.settled.filter().mac, Mac::new([2, 0, 0, 0, 0, 7]));
    assert_ne!(shared.settled.generation(), before);
    assert_eq!(carry_out(&shared, &command), Some(Change::None));
}

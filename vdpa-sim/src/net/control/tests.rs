use std::sync::Arc;

use vdpa_core::config::Mac;
use vdpa_core::{Features, bits::net};

use super::super::saved::Saved;
use super::super::{Net, NetShared, POSSIBLE, Settings};
use super::{Done, carry_out};
use crate::class::Class;
use crate::port::{Null, Presence};
use proptest::prelude::*;

fn net(features: Features) -> Net {
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
    net
}

fn device(features: Features) -> Arc<NetShared> {
    Arc::clone(&net(features).shared)
}

fn ok(shared: &NetShared, command: &[u8]) -> bool {
    carry_out(shared, command, 64).is_some()
}

#[test]
fn commands_of_every_length_but_the_right_one_are_refused() {
    let shared = device(POSSIBLE);
    let key = [7; 40];
    let rss = [
        &[4, 1, 1, 0, 0, 0, 1, 0, 3, 0, 0, 0, 1, 0, 4, 0, 40],
        &key[..],
    ]
    .concat();
    let hash = [&[4, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 40], &key[..]].concat();
    shared.coalescing.started(1);
    let commands: [&[u8]; 13] = [
        &[3, 0],
        &rss,
        &hash,
        &[5, 0, 2, 0, 0, 0, 0, 0, 0, 0],
        &[6, 0, 1, 0, 0, 0, 2, 0, 0, 0],
        &[6, 2, 1, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0],
        &[6, 3, 1, 0, 0, 0],
        &[8, 0],
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
    let rss = [4, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0];
    let hash = [4, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let cases: [(&[u8], _); 13] = [
        (&[3, 0], net::GUEST_ANNOUNCE),
        (&rss, net::RSS),
        (&hash, net::HASH_REPORT),
        (&[5, 0, 2, 0, 0, 0, 0, 0, 0, 0], net::CTRL_GUEST_OFFLOADS),
        (&[5, 0, 2, 0, 0, 0, 0, 0, 0, 0], net::GUEST_CSUM),
        (&[6, 1, 1, 0, 0, 0, 2, 0, 0, 0], net::NOTF_COAL),
        (&[8, 0], net::DEVICE_STATS),
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
        &[3, 1],
        &[3, 0, 0],
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
    assert_eq!(carry_out(&shared, &command, 1), Some(Done::Seen));
    assert_eq!(shared.settled.filter().mac, Mac::new([2, 0, 0, 0, 0, 7]));
    assert_ne!(shared.settled.generation(), before);
    assert_eq!(carry_out(&shared, &command, 1), Some(Done::Quiet));
}

proptest! {
    #[test]
    fn whatever_is_commanded_leaves_a_state_that_can_be_saved_and_restored(
        commands in proptest::collection::vec(
            (0_u8..9, 0_u8..6, proptest::collection::vec(any::<u8>(), 0..80)),
            0..40,
        ),
        legal in proptest::collection::vec((any::<u16>(), 0_u32..64, any::<u64>()), 0..8),
        few in any::<u64>(),
    ) {
        let features = POSSIBLE & Features::from_u64(few);
        let net = net(features);
        net.shared.coalescing.started(0);
        for (class, what, data) in commands {
            let command = [&[class, what], &data[..]].concat();
            let _refused = carry_out(&net.shared, &command, 9);
        }
        for (word, types, params) in legal {
            let table = [word % 5, word % 4].map(u16::to_le_bytes).concat();
            let rss = [&[4, 1], &types.to_le_bytes()[..], &[1, 0, 0, 0], &table, &[4, 0, 4], &[1; 4]];
            let _refused = carry_out(&net.shared, &rss.concat(), 1);
            let all = [&[6, 1], &params.to_le_bytes()[..]].concat();
            let _refused = carry_out(&net.shared, &all, 1);
        }
        let bytes = net.save();
        let most = net.shared.pairs(features);
        let state = Saved::from_bytes(&bytes, most, features);
        prop_assert!(state.is_ok(), "{:?}", state);
        let other = self::net(features);
        prop_assert_eq!(other.restore(&bytes), Ok(false));
        prop_assert_eq!(other.save(), bytes);
    }
}

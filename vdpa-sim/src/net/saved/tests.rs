use super::super::POSSIBLE;
use super::super::toeplitz::tests::KEY;
use super::*;
use proptest::prelude::*;

fn rss() -> Hashing {
    let mut bytes = 0x3f_u32.to_le_bytes().to_vec();
    for word in [1_u16, 2, 0, 2, 3] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.push(40);
    bytes.extend(KEY);
    Hashing::from_rss(&bytes, 3).unwrap()
}

fn params(max_packets: u32, max_usecs: u32) -> Params {
    Params {
        max_packets,
        max_usecs,
    }
}

fn fresh() -> Saved {
    Saved {
        filter: Filter::new(Mac::new([2, 0, 0, 0, 0, 1])),
        active: 1,
        link: false,
        announce: false,
        offloads: Some(Features::NONE),
        hashing: Hashing::default(),
        coalescing: vec![Params::default(); 4],
    }
}

fn full() -> Saved {
    let mut filter = Filter::new(Mac::new([2, 0, 0, 0, 0, 1]));
    filter.modes = Some(Modes {
        all_multicast: true,
        no_broadcast: true,
        ..Modes::default()
    });
    filter.unicast = Addresses::new([Mac::new([2, 0, 0, 0, 0, 9])].into_iter());
    filter.multicast = Addresses::all();
    filter.set_vlan(4095, true);
    Saved {
        filter,
        active: 3,
        link: true,
        announce: true,
        offloads: Some(POSSIBLE & RECEIVE),
        hashing: rss(),
        coalescing: (0..8).map(|i| params(i, i * 10)).collect(),
    }
}

fn load(bytes: &[u8], most: u16) -> Result<Saved, String> {
    Saved::from_bytes(bytes, most, POSSIBLE)
}

#[test]
fn what_is_saved_is_loaded() {
    let hashed = Saved {
        hashing: rss().unsteered(),
        ..full()
    };
    for state in [fresh(), full(), hashed] {
        assert_eq!(load(&state.to_bytes(), 4).unwrap(), state);
    }
}

#[test]
fn a_state_of_the_first_version_is_loaded_with_the_rest_as_at_reset() {
    // Made by that version: an address, a multicast mode, 3 pairs, one unicast address, all multicast, VLAN 4095.
    let mut bytes = b"vnet\x01\x00".to_vec();
    bytes.extend([2, 0, 0, 0, 0, 1]);
    let flags = LINK | MODES | ALL_MULTICAST | NO_BROADCAST | EVERY_MULTICAST | VLANS;
    bytes.extend(flags.to_le_bytes());
    bytes.extend([3, 0, 1, 0, 2, 0, 0, 0, 0, 9, 0, 0]);
    bytes.extend([0; 511]);
    bytes.push(0x80);
    let expected = Saved {
        announce: false,
        offloads: None,
        hashing: Hashing::default(),
        coalescing: Vec::new(),
        ..full()
    };
    assert_eq!(load(&bytes, 4).unwrap(), expected);
    // What that version did not know.
    bytes[12..14].copy_from_slice(&(flags | ANNOUNCE).to_le_bytes());
    assert!(load(&bytes, 4).unwrap_err().contains("flags"));
}

#[test]
fn what_does_not_fit_the_device_is_refused_with_the_numbers() {
    let bytes = full().to_bytes();
    let why = load(&bytes, 2).unwrap_err();
    assert_eq!(
        why,
        "it uses 3 queue pairs: 1 to 2 are legal with the features accepted"
    );
    for len in 0..bytes.len() {
        assert!(load(&bytes[..len], 4).is_err(), "cut at {len}");
    }
    let mut long = bytes.clone();
    long.push(0);
    assert_eq!(load(&long, 4).unwrap_err(), "1 bytes are left over");
    let mut later = bytes.clone();
    later[4] = 3;
    assert_eq!(
        load(&later, 4).unwrap_err(),
        "its version is 3, known are 1 to 2"
    );
    let other = Saved {
        offloads: Some(Features::from_u64(1 << 40)),
        ..full()
    };
    let why = load(&other.to_bytes(), 4).unwrap_err();
    assert!(why.contains("0x10000000000"), "{why}");
    let other = Saved {
        active: 1,
        ..full()
    };
    let why = load(&other.to_bytes(), 2).unwrap_err();
    assert!(
        why.contains("virtio_net_rss_config for 2 queue pairs"),
        "{why}"
    );
    let other = Saved {
        active: 1,
        hashing: Hashing::default(),
        ..full()
    };
    let why = load(&other.to_bytes(), 1).unwrap_err();
    assert!(why.contains("queues that there are not"), "{why}");
    for count in [0, 1, 3, 260] {
        let other = Saved {
            coalescing: vec![Params::default(); count],
            ..full()
        };
        let why = load(&other.to_bytes(), 4).unwrap_err();
        assert!(why.contains(&format!("{count} parameters")), "{why}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_refused_or_come_out_as_they_went_in(
        bytes in proptest::collection::vec(any::<u8>(), 0..700),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let _refused = load(&bytes, 128);
        let mut near = full().to_bytes();
        for (at, byte) in changes {
            let at = at.index(near.len());
            near[at] = byte;
        }
        if let Ok(loaded) = load(&near, 128) && loaded.offloads.is_some() {
            prop_assert_eq!(loaded.to_bytes(), near);
        }
    }
}

#[test]
fn what_was_not_negotiated_is_refused() {
    let announces = Saved {
        announce: true,
        ..fresh()
    };
    let steers = Saved {
        hashing: rss(),
        ..fresh()
    };
    let hashes = Saved {
        hashing: rss().unsteered(),
        ..fresh()
    };
    let with = |saved: &Saved, bits: Features| Saved::from_bytes(&saved.to_bytes(), 3, bits);
    for (saved, bits) in [
        (&announces, Features::of(&[net::GUEST_ANNOUNCE])),
        (&steers, Features::of(&[net::RSS])),
        (&hashes, Features::of(&[net::HASH_REPORT])),
    ] {
        assert_eq!(with(saved, bits).as_ref(), Ok(saved));
        let why = with(saved, Features::NONE).unwrap_err();
        assert!(why.ends_with("was not negotiated"), "{why}");
    }
    assert!(with(&steers, Features::of(&[net::HASH_REPORT])).is_err());
}

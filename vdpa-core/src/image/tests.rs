use proptest::prelude::*;

use super::*;
use crate::bits;

fn full() -> DeviceImage {
    let config = |at: u64, state, enabled| QueueConfig {
        state,
        enabled,
        ..QueueConfig::new(
            64,
            Iova::new(at),
            Iova::new(at + 0x1000),
            Iova::new(at + 0x2000),
        )
    };
    let split = |avail, used| Some(QueueState::Split { avail, used });
    let packed = Some(QueueState::Packed {
        avail: Pos::from_bits(0x8005),
        used: Pos::from_bits(0x8005),
    });
    DeviceImage {
        device_type: DeviceType::Net,
        status: Status::ACKNOWLEDGE | Status::DRIVER | Status::FEATURES_OK | Status::DRIVER_OK,
        features: bits::VERSION_1.mask().with(bits::RING_PACKED),
        handled: bits::net::CTRL_VQ.mask(),
        groups: vec![Asid::new(0), Asid::new(1)],
        queues: vec![
            (QueueIndex::new(0), config(0x1000, split(7, Some(7)), true)),
            (QueueIndex::new(1), config(0x8000, split(9, None), false)),
            (QueueIndex::new(4), config(0x9_0000, packed, true)),
            (QueueIndex::new(9), config(0xf_0000, None, true)),
        ],
        class: b"what a network card knows".to_vec(),
    }
}

/// An image with its checksum made right.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.len() >= 16 {
        let body = bytes.len() - 4;
        bytes[8..12].copy_from_slice(&(body as u32 + 4).to_le_bytes());
        let sum = crc32fast::hash(&bytes[..body]);
        bytes[body..].copy_from_slice(&sum.to_le_bytes());
    }
    bytes
}

#[test]
fn what_is_written_is_read() {
    let empty = DeviceImage {
        status: Status::empty(),
        features: Features::NONE,
        handled: Features::NONE,
        groups: Vec::new(),
        queues: Vec::new(),
        class: Vec::new(),
        ..full()
    };
    for image in [empty, full()] {
        assert_eq!(DeviceImage::parse(&image.to_bytes()).unwrap(), image);
    }
}

#[test]
fn an_image_that_is_cut_or_has_a_bit_changed_is_refused() {
    let bytes = full().to_bytes();
    for len in 0..bytes.len() {
        assert!(DeviceImage::parse(&bytes[..len]).is_err(), "cut at {len}");
    }
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(DeviceImage::parse(&changed).is_err(), "bit {bit}");
    }
    let long = [&bytes[..], &[0]].concat();
    let said = bytes.len() as u32;
    let found = bytes.len() + 1;
    let wrong = ImageError::Length { said, found };
    assert_eq!(DeviceImage::parse(&long).unwrap_err(), wrong);
}

#[test]
fn what_is_wrong_has_a_name() {
    let bytes = full().to_bytes();
    let with = |at: usize, value: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = value;
        DeviceImage::parse(&sealed(bytes)).unwrap_err()
    };
    assert!(matches!(with(0, b'V'), ImageError::Magic { .. }));
    assert_eq!(with(4, 2), ImageError::Version { found: 2 });
    let illegal = |what, found| ImageError::Illegal { what, found };
    assert_eq!(with(6, 1), illegal("flags", 1));
    // FAILED; and SUSPEND beside DRIVER_OK.
    assert_eq!(with(16, 0x8f), illegal("status", 0x8f));
    assert_eq!(with(16, 0x1f), illegal("status", 0x1f));
    assert_eq!(with(16, 0x03), illegal("status", 3), "with features");
    let early = DeviceImage {
        status: Status::ACKNOWLEDGE,
        features: Features::NONE,
        queues: Vec::new(),
        ..full()
    };
    let refused = DeviceImage::parse(&early.to_bytes()).unwrap_err();
    assert_eq!(refused, illegal("status", 1), "with class state");
    let mut damaged = bytes.clone();
    damaged[60] ^= 1;
    let damaged = DeviceImage::parse(&damaged).unwrap_err();
    assert!(matches!(damaged, ImageError::Checksum { .. }));
    // The second queue is the first one again.
    let second = 64 + 8 + 40;
    assert_eq!(with(second, 0), illegal("order of its queues", 0));
    assert_eq!(with(second + 4, 0x12), illegal("queue flags", 0x12));
    // More queues, and a longer class state, than there are bytes.
    assert!(matches!(
        with(56, 200),
        ImageError::Truncated { what: "queues", .. }
    ));
    assert!(matches!(
        with(60, 200),
        ImageError::Truncated {
            what: "class state",
            ..
        }
    ));
    assert_eq!(with(60, 20), ImageError::LeftOver { left: 5 });
}

#[test]
fn what_is_put_together_is_checked_like_bytes() {
    let DeviceImage {
        device_type,
        status,
        features,
        handled,
        queues,
        class,
        ..
    } = full();
    let assemble = |status, queues| {
        let features = [features, handled];
        DeviceImage::assemble(device_type, status, features, queues, class.clone())
    };
    let image = assemble(status, queues.clone()).unwrap();
    let groups = Vec::new();
    assert_eq!(image, DeviceImage { groups, ..full() });
    assert_eq!(image.class_state(), class);
    assert!(assemble(Status::FAILED, queues.clone()).is_err());
    let turned = queues.into_iter().rev().collect();
    assert!(assemble(status, turned).is_err());
}

#[test]
fn an_image_with_chains_in_flight_that_nobody_would_give_back_is_refused() {
    let at = |bits| Pos::from_bits(bits);
    for state in [
        QueueState::Split {
            avail: 7,
            used: Some(6),
        },
        QueueState::Packed {
            avail: at(0x8005),
            used: at(0x8004),
        },
    ] {
        let mut image = full();
        image.queues[2].1.state = Some(state);
        let refused = DeviceImage::parse(&image.to_bytes());
        assert_eq!(refused, Err(ImageError::InFlight { queue: 4 }));
    }
}

proptest! {
    #[test]
    fn any_bytes_are_refused_or_come_out_as_they_went_in(
        random in proptest::collection::vec(any::<u8>(), 0..200),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..5),
        cut in any::<prop::sample::Index>(),
    ) {
        let _refused = DeviceImage::parse(&sealed(random));
        let mut near = full().to_bytes();
        for (at, byte) in changes {
            let at = at.index(near.len());
            near[at] = byte;
        }
        if cut.index(4) == 0 {
            near.truncate(cut.index(near.len()));
        }
        let near = sealed(near);
        if let Ok(image) = DeviceImage::parse(&near) {
            prop_assert_eq!(image.to_bytes(), near);
        }
    }
}

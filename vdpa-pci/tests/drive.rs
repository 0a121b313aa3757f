//! A function is driven as virtio 1.4 demands: the card panics where it is not.

mod card;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use card::{Card, DEVICE, NOTIFY, Shape, Sink, counting, host};
use vdpa_core::{
    Asid, Call, Device, DeviceType, Dma, Error, ErrorKind, Features, Kick, QueueConfig, QueueIndex,
    QueueState, Relay, Status, VdpaDevice, bits,
};
use vdpa_mem::{Access, Deadline, Iova, IovaRange, Mapping, Region};
use vdpa_pci::{VirtioPci, Width};

/// Features that go together on a network device.
fn plain() -> Features {
    Features::of(&[bits::VERSION_1, bits::ACCESS_PLATFORM])
}

/// Opened, attached, reset and negotiated.
fn negotiated(card: &Arc<Card>, features: Features) -> (VirtioPci, Arc<Sink>) {
    let device = card.open().unwrap();
    let sink = Arc::new(Sink::default());
    device.attach(host(&sink)).unwrap();
    negotiate(&device, features);
    (device, sink)
}

fn negotiate(device: &VirtioPci, features: Features) {
    device.begin_reset().unwrap();
    while !device.status().unwrap().is_empty() {}
    device.add_status(Status::ACKNOWLEDGE).unwrap();
    device.add_status(Status::DRIVER).unwrap();
    device.accept(features).unwrap();
    device.add_status(Status::FEATURES_OK).unwrap();
    assert!(device.status().unwrap().contains(Status::FEATURES_OK));
}

fn queue(number: u16) -> QueueIndex {
    QueueIndex::new(number)
}

fn config(size: u16) -> QueueConfig {
    let at = |at: u64| Iova::new(0x12_3456_0000 + at);
    QueueConfig::new(size, at(0), at(0x1000), at(0x2000))
}

#[test]
fn what_it_is_comes_from_the_registers() {
    let card = Card::new(Shape::default());
    let device = card.open().unwrap();
    let info = device.info();
    assert_eq!(info.device_type, DeviceType::Net);
    assert_eq!(
        (info.queues, info.config_size, info.vendor),
        (3, 28, 0x8086)
    );
    assert_eq!(device.offered(), card.shape.features);
    assert!(matches!(device.caps().dma, Dma::Map(_)));
    assert!(device.caps().queue_reset.is_some());
    assert_eq!(device.caps().names(), ["dma-map", "queue-reset", "stats"]);
}

#[test]
fn a_whole_device_starts_kicks_and_is_reset() {
    let card = Card::new(Shape::default());
    let device = Device::new(Arc::new(card.open().unwrap()), Relay::new()).unwrap();
    let by = Deadline::after(Duration::from_secs(10));
    device.reset(by).unwrap();
    device.accept(plain()).unwrap();
    device.write_status(0x0b).unwrap();
    let memory = Arc::new(Region::anonymous(0x4000).unwrap());
    device
        .dma(Asid::new(0))
        .unwrap()
        .map(vec![Mapping {
            iova: IovaRange::new(Iova::new(0x12_3456_0000), 0x4000).unwrap(),
            memory,
            offset: 0,
            access: Access::Both,
            dirty: None,
        }])
        .unwrap();
    let (count, call) = counting();
    let doorbell = device
        .start_queue(queue(1), config(64), Kick::Taken, call)
        .unwrap();
    device.write_status(0x0f).unwrap();
    card.state().kicks.lock().unwrap().clear();
    doorbell.ring(1);
    card.interrupt(1);
    assert_eq!(count.load(Ordering::SeqCst), 1);
    let state = card.state();
    assert_eq!(*state.kicks.lock().unwrap(), [(NOTIFY + 4, Width::U16, 1)]);
    assert_eq!(
        state.queues[1].areas,
        [0x3456_0000, 0x12, 0x3456_1000, 0x12, 0x3456_2000, 0x12]
    );
    assert_eq!((state.queues[1].size, state.status), (64, 0x0f));
    drop(state);

    device.reset(by).unwrap();
    doorbell.ring(1);
    assert_eq!(card.state().kicks.lock().unwrap().len(), 1, "it is revoked");
    device.close(by).map_err(|(_, e)| e).unwrap();
    assert!(card.state().vectors.is_empty(), "switched off");
}

#[test]
fn the_largest_size_is_the_one_before_it_was_written() {
    let card = Card::new(Shape::default());
    let (device, _) = negotiated(&card, plain());
    let most = |device: &VirtioPci| device.queue_limits(queue(0)).unwrap().max_size;
    assert_eq!(most(&device), 256);
    device
        .start_queue(queue(0), &config(16), Kick::Taken, Call::None)
        .unwrap();
    assert_eq!(card.state().queues[0].size, 16);
    assert_eq!(most(&device), 256);
    negotiate(&device, plain());
    assert_eq!(most(&device), 256);
}

#[test]
fn kicks_carry_what_was_negotiated() {
    let shape = Shape {
        features: plain()
            .with(bits::NOTIFICATION_DATA)
            .with(bits::NOTIF_CONFIG_DATA),
        multiplier: 4096,
        notify_len: 0x3000,
        ..Shape::default()
    };
    for (features, width, data) in [
        (plain(), Width::U16, 2),
        (plain().with(bits::NOTIF_CONFIG_DATA), Width::U16, 0x102),
        (
            plain().with(bits::NOTIFICATION_DATA),
            Width::U32,
            0x1234_0002,
        ),
        (shape.features, Width::U32, 0x1234_0102),
    ] {
        for mapped in [true, false] {
            let card = Card::new(Shape {
                mapped,
                ..shape.clone()
            });
            let (device, _) = negotiated(&card, features);
            let doorbell = device
                .start_queue(queue(2), &config(16), Kick::Taken, Call::None)
                .unwrap();
            doorbell.ring(0x1234_5678);
            let kicks = card.state().kicks.lock().unwrap().clone();
            assert_eq!(kicks, [(NOTIFY + 0x2000, width, data)]);
            device.begin_reset().unwrap();
            doorbell.ring(0);
            assert_eq!(card.state().kicks.lock().unwrap().len(), 1);
        }
    }
}

#[test]
fn a_doorbell_does_not_keep_the_access() {
    for mapped in [true, false] {
        let card = Card::new(Shape {
            mapped,
            ..Shape::default()
        });
        let (device, _) = negotiated(&card, plain());
        let started = device.start_queue(queue(0), &config(16), Kick::Taken, Call::None);
        let doorbell = started.unwrap();
        drop(device);
        assert_eq!(Arc::strong_count(&card), 1);
        doorbell.ring(0);
        assert_eq!(card.state().kicks.lock().unwrap().len(), 0);
    }
}

#[test]
fn a_kick_that_came_before_driver_ok_is_not_lost() {
    for mapped in [true, false] {
        let card = Card::new(Shape {
            mapped,
            ..Shape::default()
        });
        let (device, _) = negotiated(&card, plain().with(bits::RING_RESET));
        let doorbells = [0, 1, 2].map(|number| {
            let started = device.start_queue(queue(number), &config(16), Kick::Taken, Call::None);
            started.unwrap()
        });
        doorbells[1].ring(1);
        let reset = device.caps().queue_reset.unwrap();
        reset.begin(queue(2)).unwrap();
        while reset.poll(queue(2)).unwrap().is_pending() {}
        let taken = || std::mem::take(&mut *card.state().kicks.lock().unwrap());
        let early = taken();
        card.state().log.clear();
        device.add_status(Status::DRIVER_OK).unwrap();
        // Nobody knows which of them were rung; the one that was reset does not run.
        let kick = |q: u16| (NOTIFY + u64::from(q) * 4, Width::U16, u32::from(q));
        assert_eq!((early, taken()), (vec![kick(1)], vec![kick(0), kick(1)]));
        if !mapped {
            use card::Did::Wrote;
            let log: Vec<_> = card.state().log.clone();
            let at = |did| log.iter().position(|&each| each == did).unwrap();
            let ok = at(Wrote(20, Width::U8, 0x0f));
            assert!(ok < at(Wrote(NOTIFY, Width::U16, 0)), "kicked before it");
        }
        // Later ones are kicked by whoever fills them.
        device
            .start_queue(queue(2), &config(16), Kick::Taken, Call::None)
            .unwrap();
        device.add_status(Status::DRIVER_OK).unwrap();
        assert_eq!(taken(), []);
    }
}

#[test]
fn the_kick_after_driver_ok_says_where_the_driver_stands() {
    let features = plain().with(bits::NOTIFICATION_DATA);
    let packed = features.with(bits::RING_PACKED);
    let shape = Shape {
        features: packed,
        ..Shape::default()
    };
    let (avail, used) = (0x80, 0x8080_u16);
    for (features, ring, stands) in [
        (features, vec![], 5),
        (packed, vec![], 0x8000),
        (packed, vec![avail, avail], 0x8002),
        (packed, vec![used, avail], 0x8000),
        (packed, vec![avail; 16], 0),
    ] {
        let card = Card::new(shape.clone());
        let device = card.open().unwrap();
        let host = host(&Arc::new(Sink::default()));
        let memory = Region::anonymous(0x4000).unwrap();
        memory.bytes().write(0x1002, &5_u16.to_le_bytes());
        for (place, flags) in ring.iter().enumerate() {
            memory.bytes().write(place * 16 + 14, &flags.to_le_bytes());
        }
        let mapping = Mapping {
            iova: IovaRange::new(Iova::new(0x12_3456_0000), 0x4000).unwrap(),
            memory: Arc::new(memory),
            offset: 0,
            access: Access::Both,
            dirty: None,
        };
        host.spaces[0].map(vec![mapping]).unwrap();
        device.attach(host).unwrap();
        negotiate(&device, features);
        device
            .start_queue(queue(1), &config(16), Kick::Taken, Call::None)
            .unwrap();
        device.add_status(Status::DRIVER_OK).unwrap();
        let kicks = card.state().kicks.lock().unwrap().clone();
        assert_eq!(kicks, [(NOTIFY + 4, Width::U32, stands << 16 | 1)]);
    }
}

#[test]
fn a_doorbell_outside_its_structure_is_refused_with_the_numbers() {
    let shape = Shape {
        notify_off: |_| 0xffff,
        multiplier: u32::MAX,
        ..Shape::default()
    };
    let (device, _) = negotiated(&Card::new(shape), plain());
    let refused = device
        .start_queue(queue(1), &config(16), Kick::Taken, Call::None)
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PeerMisbehaved);
    let text = refused.to_string();
    assert!(
        text.contains("queue 1: its doorbell is 2 bytes at 65535 x 4294967295"),
        "{text}"
    );

    // The very last place is inside: 2 bytes of a kick, or 4.
    let features = plain().with(bits::NOTIFICATION_DATA);
    for (accepted, needed) in [(plain(), 10), (features, 12)] {
        for notify_len in [needed - 1, needed] {
            let shape = Shape {
                notify_len,
                features,
                ..Shape::default()
            };
            let (device, _) = negotiated(&Card::new(shape), accepted);
            let started = device.start_queue(queue(2), &config(16), Kick::Taken, Call::None);
            assert_eq!(started.is_ok(), notify_len == needed, "{notify_len} bytes");
        }
    }

    let shape = Shape {
        multiplier: 3,
        ..Shape::default()
    };
    let (device, _) = negotiated(&Card::new(shape), plain());
    let refused = device
        .start_queue(queue(1), &config(16), Kick::Taken, Call::None)
        .unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("0x1003 of BAR 4 is not aligned")
    );
}

#[test]
fn all_queues_share_a_doorbell_where_the_multiplier_is_0() {
    let shape = Shape {
        multiplier: 0,
        notify_len: 2,
        ..Shape::default()
    };
    let card = Card::new(shape);
    let (device, _) = negotiated(&card, plain());
    for number in 0..3 {
        let doorbell = device
            .start_queue(queue(number), &config(16), Kick::Taken, Call::None)
            .unwrap();
        doorbell.ring(9);
    }
    let kicks = card.state().kicks.lock().unwrap().clone();
    assert_eq!(kicks, [0, 1, 2].map(|q| (NOTIFY, Width::U16, q)));
}

#[test]
fn a_queue_with_a_past_is_refused_by_name() {
    let (device, _) = negotiated(&Card::new(Shape::default()), plain());
    let start = |avail, used| {
        let config = QueueConfig {
            state: Some(QueueState::Split { avail, used }),
            ..config(16)
        };
        device.start_queue(queue(0), &config, Kick::Taken, Call::None)
    };
    let refused = start(5, Some(5)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    assert!(refused.to_string().contains("begins with a fresh ring"));
    start(0, Some(0)).unwrap();
}

#[test]
fn a_queue_is_reset_alone_and_started_again() {
    let card = Card::new(Shape::default());
    let (device, _) = negotiated(&card, plain().with(bits::RING_RESET));
    let (old, call) = counting();
    device
        .start_queue(queue(1), &config(16), Kick::Taken, call)
        .unwrap();
    let reset = device.caps().queue_reset.unwrap();
    reset.begin(queue(1)).unwrap();
    let mut polls = 0;
    while reset.poll(queue(1)).unwrap() == Poll::Pending {
        polls += 1;
    }
    assert!(polls > 0 && !card.state().queues[1].enabled);
    assert_eq!(Arc::strong_count(&old), 1, "its call is dropped");
    let (new, call) = counting();
    device
        .start_queue(queue(1), &config(32), Kick::Taken, call)
        .unwrap();
    card.interrupt(1);
    let counts = (old.load(Ordering::SeqCst), new.load(Ordering::SeqCst));
    assert_eq!(counts, (0, 1));
}

#[test]
fn configuration_is_accessed_in_the_natural_width_of_its_fields() {
    let card = Card::new(Shape::default());
    let device = card.open().unwrap();
    let all: Vec<u8> = (1..=28).collect();
    for at in 0..28_u32 {
        for end in at..=28 {
            let range = at as usize..end as usize;
            let mut bytes = vec![0; range.len()];
            device.read_config(at, &mut bytes).unwrap();
            assert_eq!(bytes, all[range], "{at}..{end}");
        }
    }
    // Nothing of it is the driver's to write.
    device.write_config(0, &[0xaa; 28]).unwrap();
    assert_eq!(card.state().device, all);

    let block = Shape {
        device: 0x1042,
        features: plain().with(bits::block::CONFIG_WCE),
        config: vec![0; 60],
        ..Shape::default()
    };
    let card = Card::new(block);
    let device = card.open().unwrap();
    let mut bytes = [0; 60];
    device.read_config(0, &mut bytes).unwrap();
    device.write_config(0, &[0xaa; 60]).unwrap();
    let written: Vec<usize> = (0..60).filter(|&i| card.state().device[i] != 0).collect();
    assert_eq!(written, [32], "writeback");

    // A type whose fields are not known: as wide as what is asked for, aligned.
    let other = Shape {
        device: 0x1040 + 25,
        features: plain(),
        ..Shape::default()
    };
    let card = Card::new(other);
    let device = card.open().unwrap();
    card.state().log.clear();
    device.write_config(1, &[0xaa; 9]).unwrap();
    let widths: Vec<_> = card.state().log.clone();
    use card::Did::Wrote;
    assert_eq!(
        widths,
        [
            Wrote(DEVICE + 1, Width::U8, 0xaa),
            Wrote(DEVICE + 2, Width::U16, 0xaaaa),
            Wrote(DEVICE + 4, Width::U32, 0xaaaa_aaaa),
            Wrote(DEVICE + 8, Width::U16, 0xaaaa),
        ]
    );
}

#[test]
fn features_above_63_are_read_and_written_by_window() {
    let high = Features::from_u128(1 << 70 | 1 << 127);
    let shape = Shape {
        features: plain() | high,
        ..Shape::default()
    };
    let card = Card::new(shape);
    let (device, _) = negotiated(&card, plain() | high);
    assert_eq!(device.offered(), plain() | high);
    assert_eq!(card.state().accepted, (plain() | high).to_words());
}

#[test]
fn a_device_that_knows_64_features_is_not_asked_for_more() {
    let card = Card::new(Shape {
        one_bit_select: true,
        features: plain(),
        ..Shape::default()
    });
    let (device, _) = negotiated(&card, plain());
    assert_eq!(device.offered(), plain());
    assert_eq!(card.state().accepted, plain().to_words());
}

#[test]
fn features_whose_registers_are_not_there_are_not_offered() {
    let shape = Shape {
        common_len: 56,
        features: Features::of(&[
            bits::VERSION_1,
            bits::RING_RESET,
            bits::NOTIF_CONFIG_DATA,
            bits::ADMIN_VQ,
            bits::SUSPEND,
        ]),
        ..Shape::default()
    };
    let device = Card::new(shape).open().unwrap();
    assert_eq!(device.offered(), bits::VERSION_1.mask());
    assert!(device.caps().queue_reset.is_none());
}

#[test]
fn a_feature_that_does_not_read_back_is_named() {
    let card = Card::new(Shape {
        forgets: bits::RING_PACKED.mask(),
        ..Shape::default()
    });
    let device = card.open().unwrap();
    let refused = device.accept(plain().with(bits::RING_PACKED)).unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("did not take the features RING_PACKED")
    );
    device.accept(plain()).unwrap();
}

#[test]
fn features_ok_that_is_taken_back_is_seen_and_not_set_again() {
    let card = Card::new(Shape::default());
    let device = Device::new(Arc::new(card.open().unwrap()), Relay::new()).unwrap();
    device
        .reset(Deadline::after(Duration::from_secs(10)))
        .unwrap();
    device.accept(plain()).unwrap();
    card.state().refused_status = 8;
    let refused = device.write_status(0x0b).unwrap_err();
    assert!(matches!(refused, Error::FeaturesRefused { .. }));
    device.write_status(0x83).unwrap();
    assert_eq!(card.state().status, 0x83);
}

#[test]
fn administration_queues_are_above_the_others_and_need_their_feature() {
    let admin = plain().with(bits::ADMIN_VQ);
    let shape = Shape {
        features: admin,
        admin: (5, 2),
        msix: 32,
        ..Shape::default()
    };
    let card = Card::new(shape.clone());
    let (device, _) = negotiated(&card, admin);
    assert_eq!((device.info().queues, device.admin_queues()), (7, 5..7));
    let most = |q| device.queue_limits(queue(q)).unwrap().max_size;
    let sizes: Vec<u16> = (0..7).map(most).collect();
    assert_eq!(sizes, [256, 256, 256, 0, 0, 256, 256]);
    let started = device.start_queue(queue(5), &config(16), Kick::Taken, Call::None);
    started.unwrap().ring(0);
    let state = card.state();
    assert_eq!((state.queues[5].vector, state.vectors.len()), (4, 6));
    drop(state);

    let (device, _) = negotiated(&card, plain());
    assert_eq!(device.queue_limits(queue(5)).unwrap().max_size, 0);
    let refused = device.start_queue(queue(5), &config(16), Kick::Taken, Call::None);
    let refused = refused.unwrap_err();
    assert!(refused.to_string().contains("queue 5 does not exist"));

    for admin in [(2, 1), (5, 0), (0xffff, 1)] {
        let device = Card::new(Shape {
            admin,
            ..shape.clone()
        });
        let device = device.open().unwrap();
        assert!(!device.offered().contains(bits::ADMIN_VQ), "{admin:?}");
        assert_eq!(device.info().queues, 3);
    }
}

/// QEMU's `num_queues` is what the last driver agreed to, after a reset too: a card with four pairs had three queues.
#[test]
fn a_card_that_counts_the_last_drivers_queues_has_all_of_them() {
    let mut config: Vec<u8> = (1..=28).collect();
    config[8..10].copy_from_slice(&4_u16.to_le_bytes());
    let features = Shape::default().features | Features::of(&[bits::net::MQ, bits::net::CTRL_VQ]);
    let card = Card::new(Shape {
        features,
        config,
        ..Shape::default()
    });
    assert_eq!(card.open().unwrap().info().queues, 9);
}

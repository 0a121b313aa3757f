//! What cannot be driven is refused, each for its own reason, with the numbers and the way out.

mod card;

use std::sync::Arc;

use card::{Card, Shape, Sink, host};
use vdpa_core::{
    Call, Device, Error, ErrorKind, Features, Kick, QueueConfig, QueueIndex, Relay, Status,
    VdpaDevice, bits,
};
use vdpa_mem::{Deadline, Iova, clock};
use vdpa_pci::VirtioPci;

fn refused(shape: Shape) -> (ErrorKind, String) {
    let error = Card::new(shape).open().err().unwrap();
    (error.kind(), error.to_string())
}

#[test]
fn a_device_without_version_1_is_refused_with_what_it_offers() {
    let (kind, text) = refused(Shape {
        features: Features::of(&[bits::net::MAC, bits::EVENT_IDX]),
        ..Shape::default()
    });
    assert_eq!(kind, ErrorKind::Unsupported);
    assert!(
        text.starts_with("0000:01:00.1 does not offer VERSION_1, but MAC EVENT_IDX: "),
        "{text}"
    );
    let (_, text) = refused(Shape {
        features: Features::NONE,
        ..Shape::default()
    });
    assert!(text.contains("VERSION_1, but none"), "{text}");
}

#[test]
fn a_device_without_queues_is_refused() {
    let (kind, text) = refused(Shape {
        queues: 0,
        ..Shape::default()
    });
    assert_eq!(kind, ErrorKind::Unsupported);
    assert!(text.contains("has 0 queues"), "{text}");
}

#[test]
fn a_queue_whose_largest_size_is_0_does_not_exist() {
    let card = Card::new(Shape {
        most: 0,
        ..Shape::default()
    });
    let device = card.open().unwrap();
    device.attach(host(&Arc::new(Sink::default()))).unwrap();
    let queue = QueueIndex::new(2);
    assert_eq!(device.queue_limits(queue).unwrap().max_size, 0);
    let at = Iova::new(0x1000);
    let config = QueueConfig::new(16, at, at, at);
    let error = device
        .start_queue(queue, &config, Kick::Taken, Call::None)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misuse);
    assert_eq!(error.to_string(), "queue 2 does not exist: its size is 0");
}

#[test]
fn a_reset_that_does_not_end_while_it_is_driven_ends_at_the_deadline() {
    let card = Card::new(Shape::default());
    let device = Device::new(Arc::new(card.open().unwrap()), Relay::new()).unwrap();
    card.state().stuck = true;
    let _hasty = clock::hasten(100_000);
    let by = Deadline::after(std::time::Duration::from_secs(60));
    let error = device.reset(by).unwrap_err();
    assert!(
        matches!(error, Error::Timeout { what: "the reset" }),
        "{error}"
    );
    card.state().stuck = false;
    card.state().status = 0;
    let by = Deadline::after(std::time::Duration::from_secs(60));
    device.reset(by).unwrap();
}

#[test]
fn the_accesses_of_a_start_are_counted() {
    let card = Card::new(Shape::default());
    let device = card.open().unwrap();
    device.attach(host(&Arc::new(Sink::default()))).unwrap();
    let counts = |device: &VirtioPci| {
        let mut counts = Vec::new();
        let stats = device.caps().stats.unwrap();
        stats
            .read(&mut |name, count| counts.push((name.to_owned(), count)))
            .unwrap();
        counts
    };
    let [reads, writes] = &counts(&device)[..] else {
        panic!("two counters");
    };
    assert_eq!(reads.0, "registers.reads");
    assert_eq!(writes.0, "registers.writes");
    let logged = |card: &Card, reads: bool| {
        let log = &card.state().log;
        let is = |did: &&card::Did| matches!(did, card::Did::Read(..)) == reads;
        log.iter().filter(is).count() as u64
    };
    assert_eq!(
        (reads.1, writes.1),
        (logged(&card, true), logged(&card, false))
    );
    // A whole start with two queues, for docs: stays what it is.
    card.state().log.clear();
    let before = counts(&device);
    device.begin_reset().unwrap();
    while !device.status().unwrap().is_empty() {}
    for bits in [Status::ACKNOWLEDGE, Status::DRIVER] {
        device.add_status(bits).unwrap();
    }
    device.accept(bits::VERSION_1.mask()).unwrap();
    device.add_status(Status::FEATURES_OK).unwrap();
    device.status().unwrap();
    for number in 0..2 {
        let at = Iova::new(0x1000);
        let config = QueueConfig::new(16, at, at, at);
        let queue = QueueIndex::new(number);
        device
            .start_queue(queue, &config, Kick::Taken, Call::None)
            .unwrap();
    }
    device.add_status(Status::DRIVER_OK).unwrap();
    let after = counts(&device);
    let spent: Vec<u64> = after.iter().zip(&before).map(|(a, b)| a.1 - b.1).collect();
    println!("reads and writes of a start with two queues: {spent:?}");
    assert!(spent[0] <= 20 && spent[1] <= 40, "{spent:?}");
}

//! A device that goes on in another process: its driver, in this one, notices nothing.
//!
//! ```text
//!   this process: the driver, memory in a memfd, eventfds       ── image ──▶
//!        │ rings and buffers            │                   serve (process 1)   serve (process 2)   ...
//!        └──────────── shared ──────────┴──────────────────────────┴───────────────────┘
//! ```
#![allow(
    unsafe_code,
    reason = "takes over the file descriptors that a process is started with"
)]

mod moving;
mod rig;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use moving::line::Line;
use moving::process::Server;
use moving::{MEMORY, events, format};
use rig::{HEADER, Lab, Q, Rig, Rx, Tx, soon, until, with};
use vdpa_core::bits;
use vdpa_core::*;
use vdpa_mem::{Bytes, DmaMemory, Fault, Iova, Region, Window};
use vdpa_ring::{Areas, Batch, DeviceMem, DeviceRing, Record, RingFeatures, record_bytes};

/// Not a test of its own: the other process of the tests below.
#[test]
fn serve() {
    moving::process::serve();
}

fn frame(number: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    bytes.extend([0xff; 6]);
    bytes.extend([2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
    bytes.extend(number.to_le_bytes());
    bytes.extend((0..len).map(|i| (i as u64 * 31 + number * 7) as u8));
    bytes
}

/// The length of frame `number` behind its headers: some take several buffers where these are merged.
fn len_of(number: u64) -> usize {
    46 + (number * 101 % 1300) as usize
}

struct Shared {
    stop: AtomicBool,
    received: AtomicU64,
}

/// Sends numbered frames and receives them, until told to stop and all have come. Answers how many.
fn drive(mut rx: Line, mut tx: Line, merge: bool, shared: &Shared) -> u64 {
    let (mut sent, mut received) = (0_u64, 0_u64);
    let (mut part, mut missing) = (Vec::<u8>::new(), 0_u16);
    let buffer = if merge { 400 } else { 1600 };
    loop {
        let stop = shared.stop.load(Ordering::Relaxed);
        if stop && sent == received {
            assert!(missing == 0 && part.is_empty());
            return sent;
        }
        // Few buffers, so that frames wait for them.
        while rx.size as usize - rx.free.len() < 12 && rx.add(None, buffer) {}
        rx.publish();
        let mut busy = false;
        while !stop && sent - received < 500 && tx.add(Some(&frame(sent, len_of(sent))), 0) {
            sent += 1;
            busy = true;
        }
        tx.publish();
        tx.used();
        for bytes in rx.used() {
            busy = true;
            let mut bytes = &bytes[..];
            if missing == 0 {
                missing = u16::from_le_bytes([bytes[10], bytes[11]]);
                assert!(missing == 1 || merge);
                bytes = &bytes[HEADER..];
                part.clear();
            }
            part.extend(bytes);
            missing -= 1;
            if missing == 0 {
                let expected = frame(received, len_of(received));
                assert!(part == expected[HEADER..], "frame {received} of {sent}");
                part.clear();
                received += 1;
                shared.received.store(received, Ordering::Relaxed);
            }
        }
        if !busy && sent != received {
            assert!(rx.wait(rig::SOON), "no call: {received} of {sent} came");
        }
    }
}

fn features(packed: bool, merge: bool) -> Features {
    let offered = Lab::new().open("sim:net");
    let mut features = with(&offered, packed, merge, true, false);
    features.remove(bits::NOTIFICATION_DATA);
    features.remove(bits::INDIRECT_DESC);
    features
}

fn moves_mid_traffic(packed: bool, merge: bool) {
    let features = features(packed, merge);
    let memory = Region::memfd(MEMORY).unwrap();
    let file = memory.file().unwrap().0.try_clone_to_owned().unwrap();
    let (_, window) = Region::shared(file, 0, MEMORY).unwrap().into_shared();
    let events = events();
    let mut next = 0;
    let rx = Line::new(&window, features, 64, &mut next, &events[..2]);
    let tx = Line::new(&window, features, 64, &mut next, &events[2..]);
    let start = [
        &features.to_u128().to_le_bytes()[..],
        &rx.config(),
        &tx.config(),
    ];
    let spec = "sim:net,mac=02:00:00:00:00:01";
    let mut server = Server::start(&memory, &events, spec);
    server.ask(b'f', &start.concat());
    let shared = Shared {
        stop: AtomicBool::new(false),
        received: AtomicU64::new(0),
    };
    std::thread::scope(|s| {
        let driver = s.spawn(|| drive(rx, tx, merge, &shared));
        let (mut rounds, mut waited) = (0, 0);
        while rounds < 6 {
            let before = shared.received.load(Ordering::Relaxed);
            until("traffic", || {
                assert!(!driver.is_finished(), "the driver found an error");
                shared.received.load(Ordering::Relaxed) > before + 100
            });
            // Made ready while the old one still runs.
            let mut other = Server::start(&memory, &events, spec);
            let image = server.ask(b's', &[]);
            waited += usize::from(image.windows(4).any(|four| four == b"wait"));
            let parsed = DeviceImage::parse(&image).unwrap();
            assert_eq!(parsed.queues().len(), 2);
            assert_eq!(parsed.features(), features);
            if rounds % 2 == 0 {
                server.end();
            } else {
                server.kill();
            }
            other.ask(b'r', &image);
            server = other;
            rounds += 1;
        }
        shared.stop.store(true, Ordering::Relaxed);
        let sent = driver.join().unwrap();
        assert!(sent > 600);
        assert!(waited > 0, "frames waited in the port in no round");
        server.end();
    });
}

#[test]
fn a_split_device_moves_from_process_to_process_and_nothing_is_lost() {
    moves_mid_traffic(false, false);
    moves_mid_traffic(false, true);
}

#[test]
fn a_packed_device_moves_from_process_to_process_and_nothing_is_lost() {
    moves_mid_traffic(true, false);
    moves_mid_traffic(true, true);
}

/// A device is killed again and again, and goes on by its records: each chain comes back, once.
fn killed_mid_traffic(packed: bool) {
    let features = features(packed, false);
    let memory = Region::memfd(MEMORY).unwrap();
    let file = memory.file().unwrap().0.try_clone_to_owned().unwrap();
    let (_, window) = Region::shared(file, 0, MEMORY).unwrap().into_shared();
    let events = events();
    let mut next = 0;
    let rx = Line::new(&window, features, 64, &mut next, &events[..2]);
    let mut tx = Line::new(&window, features, 64, &mut next, &events[2..]);
    let start = [
        &features.to_u128().to_le_bytes()[..],
        &rx.config(),
        &tx.config(),
    ];
    let start = start.concat();
    let spec = "sim:net,port=null";
    let stop = AtomicBool::new(false);
    let back = AtomicU64::new(0);
    std::thread::scope(|s| {
        let driver = s.spawn(|| {
            let mut sent = 0_u64;
            let mut last = Instant::now();
            loop {
                let stop = stop.load(Ordering::Relaxed);
                if stop && sent == back.load(Ordering::Relaxed) {
                    return sent;
                }
                let mut busy = false;
                while !stop && tx.add(Some(&frame(sent, 60)), 0) {
                    sent += 1;
                    busy = true;
                }
                tx.publish();
                let done = tx.used().len() as u64;
                back.fetch_add(done, Ordering::Relaxed);
                if done != 0 {
                    last = Instant::now();
                }
                assert!(last.elapsed() < 2 * rig::SOON, "chains do not come back");
                if !busy && done == 0 {
                    // A call may die with the device: it is looked for again.
                    tx.wait(Duration::from_millis(20));
                    tx.kick.write(1).unwrap();
                }
            }
        });
        for round in 0..12_u64 {
            let mut server = Server::start(&memory, &events, spec);
            server.ask(b't', &start);
            let before = back.load(Ordering::Relaxed);
            until("traffic", || {
                assert!(!driver.is_finished(), "the driver found an error");
                back.load(Ordering::Relaxed) > before + 50 * round
            });
            server.kill();
        }
        let mut server = Server::start(&memory, &events, spec);
        server.ask(b't', &start);
        stop.store(true, Ordering::Relaxed);
        assert!(driver.join().unwrap() > 1000);
        server.end();
    });
}

#[test]
fn a_device_that_is_killed_goes_on_by_its_records() {
    killed_mid_traffic(false);
    killed_mid_traffic(true);
}

// ----- in one process -----

/// A live device with some traffic behind it, suspended, and its image.
fn image(packed: bool) -> (Rig, DeviceImage) {
    let lab = Lab::new();
    let rig = lab.open("sim:net");
    rig.negotiate(with(&rig, packed, true, true, false));
    let rx = rig.queue(0, 16);
    let tx = rig.queue(1, 16);
    let (mut rx, mut tx) = (Rx::new(&rig, rx, 2048), Tx::new(&rig, tx, 2048));
    rx.post(4);
    rig.run();
    let frames: Vec<Vec<u8>> = (0..8).map(|n| frame(n, 100)[HEADER..].to_vec()).collect();
    assert_eq!(tx.send(&frames), 8);
    until("frames", || {
        tx.reap();
        tx.in_flight() == 0
    });
    until("frames", || {
        let used = rx.q.used();
        rx.got.extend(used.iter().map(|_| Vec::new()));
        rx.got.len() == 4
    });
    rig.device.suspend(soon()).unwrap();
    let image = rig.device.save().unwrap();
    (rig, image)
}

/// An image with its checksum made right.
fn sealed(bytes: &mut [u8]) {
    let body = bytes.len() - 4;
    let sum = crc32fast::hash(&bytes[..body]);
    bytes[body..].copy_from_slice(&sum.to_le_bytes());
}

fn wire(_: QueueIndex) -> (Kick, Call) {
    (Kick::Taken, Call::None)
}

#[test]
fn a_forged_image_is_refused_or_makes_a_device_that_can_be_reset() {
    for packed in [false, true] {
        let (rig, image) = image(packed);
        let bytes = image.to_bytes();
        assert!(bytes.windows(4).any(|four| four == b"wait"));
        rig.reset();
        let (mut refused, mut restored) = (0, 0);
        // The header, the queues and the state's; of the frames some.
        for bit in (0..bytes.len().min(420) * 8).chain((3360..bytes.len() * 8 - 32).step_by(97)) {
            let mut forged = bytes.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            sealed(&mut forged);
            let Ok(image) = DeviceImage::parse(&forged) else {
                refused += 1;
                continue;
            };
            match rig.device.restore(&image, wire) {
                Ok(_) => {
                    restored += 1;
                    if rig.status().contains(Status::DRIVER_OK) {
                        rig.device.resume().unwrap();
                    }
                }
                Err(e) => {
                    refused += 1;
                    assert!(!e.to_string().is_empty());
                }
            }
            rig.reset();
        }
        assert!(refused > 100 && restored > 100, "{refused} {restored}");
        // And the true one still makes a device.
        rig.device.restore(&image, wire).unwrap();
        rig.device.resume().unwrap();
    }
}

#[test]
fn an_image_of_another_device_is_refused_by_name() {
    let (rig, image) = image(true);
    let bytes = image.to_bytes();
    let forged = |at: usize, value: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = value;
        sealed(&mut bytes);
        DeviceImage::parse(&bytes).unwrap()
    };
    // While it is one already.
    let early = rig.device.restore(&image, wire).unwrap_err();
    assert!(
        matches!(
            early,
            Error::State {
                call: "restore",
                ..
            }
        ),
        "{early}"
    );
    rig.reset();
    let refused = |image: &DeviceImage| {
        let why = rig.device.restore(image, wire).unwrap_err();
        // What was begun is taken back, which takes a moment.
        until("the reset", || rig.status().is_empty());
        why
    };
    let block = refused(&forged(12, 2));
    assert!(matches!(block, Error::Image(ImageError::DeviceType { .. })));
    assert_eq!(
        block.to_string(),
        "the image is of a device of type block, this one is of type net"
    );
    // A feature that nobody offers: bit 103.
    let feature = refused(&forged(32, 0x80));
    assert!(matches!(feature, Error::Features(_)), "{feature}");
    // A queue of 0x8010 descriptors.
    let queue = 64 + 2 * 4;
    let large = refused(&forged(queue + 3, 0x80));
    assert!(matches!(large, Error::QueueSize { .. }), "{large}");
    // In another address space than there are.
    let space = refused(&forged(64, 9));
    assert!(matches!(space, Error::AsidOutOfRange { .. }), "{space}");
    rig.unmap();
    let memory = refused(&image);
    assert!(matches!(memory, Error::AreaNotMapped { .. }), "{memory}");
    rig.map();
    rig.device.restore(&image, wire).unwrap();
}

#[test]
fn a_restored_device_stands_still_until_it_is_resumed() {
    for packed in [false, true] {
        let (rig, image) = image(packed);
        rig.reset();
        rig.device.restore(&image, wire).unwrap();
        let live = Status::ACKNOWLEDGE | Status::DRIVER | Status::FEATURES_OK | Status::DRIVER_OK;
        assert_eq!(rig.status(), live);
        // It says where it stands, and can be moved on as it is.
        for (queue, config) in image.queues() {
            assert_eq!(rig.device.queue_state(*queue).ok(), config.state);
        }
        assert_eq!(rig.device.save().unwrap(), image);
        rig.device.suspend(soon()).unwrap();
        // The driver suspends it too, and is not undone by the owner.
        let suspended = (live - Status::DRIVER_OK) | Status::SUSPEND;
        rig.device.write_status(suspended.bits()).unwrap();
        assert_eq!(rig.status(), suspended);
        let again = rig.device.save().unwrap();
        assert_eq!(again.status(), suspended);
        rig.device.resume().unwrap();
        assert_eq!(rig.status(), suspended);

        rig.reset();
        rig.device.restore(&again, wire).unwrap();
        assert_eq!(rig.status(), suspended);
        rig.device.resume().unwrap();
        assert_eq!(rig.status(), suspended);
        rig.device.write_status(live.bits()).unwrap();
        assert_eq!(rig.status(), live);
        rig.reset();
    }
}

#[test]
fn a_record_that_cannot_be_kept_is_refused_by_name() {
    for packed in [false, true] {
        let rig = Lab::new().open("sim:net");
        let (memory, _) = Region::memfd(64 << 10).unwrap().into_shared();
        let window = |at, len| Window::new(memory.clone(), at, len).unwrap();
        let q = QueueIndex::new(0);
        let early = rig.device.track_in_flight(q, window(0, 4096)).unwrap_err();
        assert!(matches!(early, Error::State { .. }), "{early}");
        rig.negotiate(with(&rig, packed, false, true, false));
        let beyond = QueueIndex::new(99);
        let beyond = rig.device.track_in_flight(beyond, window(0, 4096));
        assert!(matches!(beyond, Err(Error::QueueOutOfRange { .. })));
        let odd = rig.device.track_in_flight(q, window(4, 4096)).unwrap_err();
        assert!(matches!(odd, Error::Record { .. }), "{odd}");

        // A queue of 16 needs more.
        let format = format(rig.device.negotiated());
        let needed = u64::from(record_bytes(format, 16));
        rig.device
            .track_in_flight(q, window(0, needed - 8))
            .unwrap();
        let queue = Q::new(&rig, 0, 16, None);
        let start = || {
            let config = queue.config(None);
            rig.device.start_queue(q, config, Kick::Taken, Call::None)
        };
        let short = start().unwrap_err();
        assert_eq!(
            short.to_string(),
            "queue 0: no record of what is in flight can be there: it is too small for the queue's size"
        );
        // One of another version.
        rig.device.track_in_flight(q, window(0, needed)).unwrap();
        window(8, 8).bytes().store_u64(0, 7);
        let version = start().unwrap_err();
        let source = std::error::Error::source(&version).unwrap();
        assert!(source.to_string().contains("version is 7"), "{source}");
        window(8, 8).bytes().store_u64(0, 0);
        start().unwrap();
        let running = rig.device.track_in_flight(q, window(0, needed));
        assert!(matches!(running, Err(Error::QueueStarted { .. })));
        // A reset forgets it.
        rig.reset();
        window(8, 8).bytes().store_u64(0, 7);
        rig.negotiate(with(&rig, packed, false, true, false));
        start().unwrap();
    }
}

#[test]
fn a_queue_that_took_over_chains_is_not_part_of_an_image_before_they_are_back() {
    for packed in [false, true] {
        let rig = Lab::new().open("sim:net");
        rig.negotiate(with(&rig, packed, false, false, false));
        let format = format(rig.device.negotiated());
        let needed = u64::from(record_bytes(format, 16));
        let (memory, _) = Region::memfd(needed).unwrap().into_shared();
        let record = Window::new(memory, 0, needed).unwrap();
        // A device that died with two receive buffers in flight.
        let mut queue = Q::new(&rig, 0, 16, None);
        for _ in 0..3 {
            let buffer = rig.alloc(2048);
            queue.add(&[], &[(buffer, 2048)]).unwrap();
        }
        queue.publish();
        let [descriptor, driver, device] = queue.areas();
        let area = |at: u64| rig.bytes().slice(at as usize, 512).unwrap();
        let mem = Dead(Areas {
            descriptor: area(descriptor),
            driver: area(driver),
            device: area(device),
        });
        let cells = record.bytes();
        let opened = Record::open(format, 16, &cells, &mem.0, None).unwrap();
        let (mut kept, _) = opened;
        let mut ring = DeviceRing::new(format, 16, RingFeatures::empty(), None).unwrap();
        let mut batch = Batch::new(2, 4);
        assert_eq!(ring.take(&mem, &mut batch, 2).unwrap(), 2);
        kept.taken(&cells, &ring, &batch).unwrap();

        rig.device
            .track_in_flight(queue.index, record.clone())
            .unwrap();
        queue.start(&rig, None);
        let tx = rig.queue(1, 16);
        let mut tx = Tx::new(&rig, tx, 2048);
        rig.run();
        rig.device.suspend(soon()).unwrap();
        let refused = rig.device.save().unwrap_err();
        assert!(
            matches!(refused, Error::Image(ImageError::InFlight { queue: 0 })),
            "{refused}"
        );
        rig.device.resume().unwrap();
        let sent: Vec<_> = (0..2).map(|n| frame(n, 60)[HEADER..].to_vec()).collect();
        assert_eq!(tx.send(&sent), 2);
        let back = queue.wait_used(2);
        assert_eq!([back[0].len, back[1].len], [back[0].len; 2]);
        until("the buffers came back", || {
            tx.reap();
            tx.in_flight() == 0
        });
        rig.device.suspend(soon()).unwrap();
        assert_eq!(rig.stat("queue0.again"), 2);
        assert_eq!(rig.stat("queue1.again"), 0);
        rig.device.save().unwrap();
    }
}

/// Memory of a device that is no more.
struct Dead<'a>(Areas<Bytes<'a>>);

impl<'a> DeviceMem for Dead<'a> {
    type Ring = Bytes<'a>;
    fn areas(&self) -> &Areas<Bytes<'a>> {
        &self.0
    }
    fn table(&self, _: Iova, _: &mut [[u64; 2]]) -> Result<(), Fault> {
        Err(Fault::Denied)
    }
}

#[test]
fn a_group_that_its_owner_moved_before_there_was_a_driver_is_restored_there() {
    let lab = Lab::new();
    let device = lab.registry.open("sim:net").unwrap();
    device
        .assign_group(GroupIndex::new(1), Asid::new(1))
        .unwrap();
    let image = device.save().unwrap();
    assert_eq!(image.groups(), [Asid::new(0), Asid::new(1)]);
    let other = lab.registry.open("sim:net").unwrap();
    other
        .restore(&image, |_| (Kick::Taken, Call::None))
        .unwrap();
    assert_eq!(other.save().unwrap(), image);
}

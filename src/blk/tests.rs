#![cfg(feature = "sim")]

use vdpa_core::{Attr, ErrorKind, Event, bits};

use super::*;

/// Bytes that say where they belong.
fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn start(spec: &str, setup: &Setup) -> BlkDriver {
    BlkDriver::start(crate::open(spec).unwrap(), setup).unwrap()
}

#[test]
fn what_is_written_is_read_back_over_every_ring_in_chunks_and_whole() {
    for ring in Ring::ALL {
        for transfer in [512, 4096, 1 << 20] {
            let setup = Setup {
                ring,
                transfer,
                requests: 7,
                ..Setup::default()
            };
            let mut disk = start("sim:blk,size=4M", &setup);
            for (sector, len) in [(0, 512), (8191, 512), (100, 300 * 512), (4000, 1 << 20)] {
                let data = pattern(sector, len);
                disk.write(sector, &data).unwrap();
                let mut back = vec![0; len];
                disk.read(sector, &mut back).unwrap();
                assert!(back == data, "{ring}, {transfer}: {len} bytes at {sector}");
            }
            disk.read(0, &mut []).unwrap();
            disk.flush().unwrap();
            disk.stop().unwrap();
        }
    }
}

#[test]
fn sectors_are_zeroed_discarded_and_erased_and_the_disk_says_who_it_is() {
    let mut disk = start("sim:blk,size=1M,serial=who-am-i", &Setup::default());
    assert_eq!(&disk.id().unwrap(), b"who-am-i\0\0\0\0\0\0\0\0\0\0\0\0");
    let data = pattern(1, 4096);
    disk.write(0, &data).unwrap();
    disk.write_zeroes(1, 1, false).unwrap();
    disk.write_zeroes(2, 1, true).unwrap();
    disk.discard(3, 1).unwrap();
    disk.secure_erase(4, 1).unwrap();
    let mut back = vec![1; 4096];
    disk.read(0, &mut back).unwrap();
    let mut expected = data;
    expected[512..2560].fill(0);
    assert_eq!(back, expected);
    disk.set_writeback(false).unwrap();
    assert!(!disk.config().writeback());
    disk.write(0, &[2; 512]).unwrap();
}

#[test]
fn requests_come_back_with_their_tags_from_several_queues() {
    let setup = Setup {
        queues: 3,
        requests: 16,
        ..Setup::default()
    };
    let mut disk = start("sim:blk,size=1M,queues=4,workers=2", &setup);
    assert_eq!(disk.queues(), 3);
    let mut back = Vec::new();
    for queue in 0..3_u16 {
        let mut sent = 0;
        let data = pattern(queue.into(), 512);
        let request = |tag| Request::Write {
            sector: u64::from(queue) * 100 + tag,
            data: &data,
        };
        while disk.submit(queue, sent, request(sent)).unwrap() {
            sent += 1;
        }
        assert_eq!(sent, 16, "as many as there are buffers");
        disk.publish(queue).unwrap();
        let by = Deadline::after(PATIENCE);
        let mut tags = Vec::new();
        while tags.len() < 16 {
            assert!(disk.wait(queue, by).unwrap());
            let each = |done: &Completion<'_>| {
                done.result().unwrap();
                tags.push(done.tag());
            };
            disk.complete(queue, each).unwrap();
        }
        tags.sort_unstable();
        assert_eq!(tags, (0..16).collect::<Vec<_>>());
        back.push(data);
    }
    for (queue, data) in back.iter().enumerate() {
        let mut there = [0; 512];
        disk.read(queue as u64 * 100 + 15, &mut there).unwrap();
        assert_eq!(there[..], data[..]);
    }
    // Waiting calls keep out of the way of requests that are under way.
    assert!(disk.submit(0, 1, Request::Id).unwrap());
    let error = disk.flush().unwrap_err();
    assert!(matches!(error, BlkError::UnderWay { queue: 0, count: 1 }));
}

#[test]
fn what_the_driver_refuses_never_reaches_the_device() {
    let mut disk = start("sim:blk,size=1M", &Setup::default());
    let mut long = vec![0; 1024];
    let refused: [(BlkError, &str); 7] = [
        (disk.read(0, &mut [0; 100]).unwrap_err(), "512"),
        (disk.write(0, &[0; 513]).unwrap_err(), "513"),
        (disk.read(2047, &mut long).unwrap_err(), "2048"),
        (disk.read(u64::MAX, &mut long).unwrap_err(), "2048"),
        (disk.discard(2047, 2).unwrap_err(), "discarded"),
        (disk.write_zeroes(0, u32::MAX, true).unwrap_err(), "at once"),
        (disk.publish(1).unwrap_err(), "queue 1"),
    ];
    for (error, part) in refused {
        assert_eq!(error.kind(), ErrorKind::Misuse, "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
    let mut bare = start("sim:blk,size=1M,features=MQ", &Setup::default());
    let needs = [
        (bare.flush(), "FLUSH"),
        (bare.discard(0, 1), "DISCARD"),
        (bare.write_zeroes(0, 1, false), "WRITE_ZEROES"),
        (bare.secure_erase(0, 1), "SECURE_ERASE"),
        (bare.set_writeback(true), "CONFIG_WCE"),
    ];
    for (result, feature) in needs {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(feature), "{error}");
    }
    bare.write(0, &[1; 512]).unwrap();
}

#[test]
fn what_the_device_refuses_is_told_with_its_answer_and_the_driver_goes_on() {
    let mut disk = start("sim:blk,size=1M,ro=on", &Setup::default());
    let error = disk.write(5, &[1; 512]).unwrap_err();
    let expected = Refusal::IoError;
    assert!(
        matches!(error, BlkError::Refused { op: Op::Write, sector: 5, refusal } if refusal == expected),
        "{error}"
    );
    assert_eq!(error.kind(), ErrorKind::Io);
    let mut back = [1; 512];
    disk.read(5, &mut back).unwrap();
    assert_eq!(back, [0; 512]);
    assert!(Refusal::of(0).is_none());
    assert_eq!(Refusal::of(0xff), Some(Refusal::Other(0xff)));
}

#[test]
fn a_change_of_the_capacity_is_seen_when_the_configuration_is_read_anew() {
    let registry = crate::registry();
    let device = registry.open("sim:blk,size=1M").unwrap();
    let name = device.info().name.clone();
    let mut disk = BlkDriver::start(device, &Setup::default()).unwrap();
    let events = disk.control().events().unwrap();
    registry.dev_set("sim", &name, Attr::Capacity(100)).unwrap();
    let by = Deadline::after(PATIENCE);
    assert_eq!(events.wait(by).unwrap(), Some(Event::Config));
    // What the driver still believes the device does not.
    let error = disk.write(100, &[1; 512]).unwrap_err();
    assert!(matches!(error, BlkError::Refused { .. }), "{error}");
    assert_eq!(disk.reload().unwrap().capacity(), 100);
    let error = disk.write(100, &[1; 512]).unwrap_err();
    assert!(matches!(error, BlkError::Range { capacity: 100, .. }));
    disk.write(99, &[1; 512]).unwrap();
}

#[test]
fn the_smallest_queues_serve_and_smaller_ones_are_refused() {
    for (spec, ring) in [
        ("sim:blk,queue_size=2", Ring::Split),
        ("sim:blk,queue_size=2", Ring::Packed),
        ("sim:blk,queue_size=2,features=VERSION_1", Ring::Split),
        ("sim:blk,queue_size=3,features=RING_PACKED", Ring::Packed),
    ] {
        let setup = Setup {
            ring,
            ..Setup::default()
        };
        let mut disk = start(spec, &setup);
        let data = pattern(2, 200_704);
        disk.write(9, &data).unwrap();
        let mut back = vec![0; data.len()];
        disk.read(9, &mut back).unwrap();
        assert!(back == data, "{spec}");
    }
    let open = |spec: &str, setup: &Setup| {
        let device = crate::open(spec).unwrap();
        BlkDriver::start(device, setup).unwrap_err()
    };
    let error = open("sim:blk,queue_size=1", &Setup::default());
    assert!(
        matches!(error, BlkError::QueueSize { size: 1, .. }),
        "{error}"
    );
    let error = open("sim:net", &Setup::default());
    assert!(matches!(error, BlkError::NotBlock { .. }), "{error}");
    let queues = Setup {
        queues: 2,
        ..Setup::default()
    };
    let error = open("sim:blk", &queues);
    assert!(
        matches!(error, BlkError::Queues { asked: 2, most: 1 }),
        "{error}"
    );
    let packed = Setup {
        ring: Ring::Packed,
        ..Setup::default()
    };
    let error = open("sim:blk,features=MQ", &packed);
    assert!(error.to_string().contains("RING_PACKED"), "{error}");
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(20))
}

/// Submits reads of one sector each, with these tags.
fn submit(disk: &mut BlkDriver, tags: std::ops::Range<u64>) {
    for tag in tags {
        let read = Request::Read {
            sector: tag,
            len: 512,
        };
        assert!(disk.submit(0, tag, read).unwrap());
    }
    disk.publish(0).unwrap();
}

/// The tags of what is done, until there are `count`.
fn completed(disk: &mut BlkDriver, count: usize) -> Vec<u64> {
    let mut tags = Vec::new();
    while tags.len() < count {
        assert!(disk.wait(0, soon()).unwrap(), "{tags:?}");
        disk.complete(0, |done| {
            done.result().unwrap();
            tags.push(done.tag());
        })
        .unwrap();
    }
    tags.sort_unstable();
    tags
}

#[test]
fn requests_are_done_after_a_suspend_a_stop_and_at_another_device() {
    const DISK: &str = "sim:blk,size=1M";
    for ring in Ring::ALL {
        let setup = Setup {
            ring,
            ..Setup::default()
        };
        let mut disk = start(DISK, &setup);
        disk.suspend(soon()).unwrap();
        submit(&mut disk, 0..5);
        assert_eq!(disk.complete(0, |_| {}).unwrap(), 0, "it is suspended");
        disk.resume(soon()).unwrap();
        assert_eq!(completed(&mut disk, 5), [0, 1, 2, 3, 4]);

        disk.stop_queue(0, soon()).unwrap();
        submit(&mut disk, 5..8);
        assert_eq!(disk.complete(0, |_| {}).unwrap(), 0, "it is stopped");
        disk.start_queue(0, |tag| panic!("{tag} is not lost"))
            .unwrap();
        assert_eq!(completed(&mut disk, 3), [5, 6, 7]);

        disk.suspend(soon()).unwrap();
        submit(&mut disk, 8..10);
        let to = crate::open(DISK).unwrap();
        let old = disk.move_to(to, soon()).map_err(|(_, e)| e).unwrap();
        old.close(soon()).map_err(|(_, e)| e).unwrap();
        disk.resume(soon()).unwrap();
        assert_eq!(completed(&mut disk, 2), [8, 9]);
        disk.enable_queue(0, false).unwrap();
        disk.enable_queue(0, true).unwrap();
        disk.write(0, &pattern(1, 4096)).unwrap();
        disk.stop().unwrap();
    }
}

#[test]
fn a_queue_that_was_reset_tells_which_requests_are_lost_and_begins_afresh() {
    for ring in Ring::ALL {
        let setup = Setup {
            ring,
            requests: 8,
            ..Setup::default()
        };
        let mut disk = start("sim:blk,size=1M", &setup);
        for _ in 0..5 {
            // Stopped, so that none of them is seen before the reset.
            disk.stop_queue(0, soon()).unwrap();
            submit(&mut disk, 0..6);
            disk.start_queue(0, |_| {}).unwrap();
            disk.reset_queue(0, soon()).unwrap();
            let mut tags = Vec::new();
            disk.complete(0, |done| tags.push(done.tag())).unwrap();
            disk.start_queue(0, |tag| tags.push(tag)).unwrap();
            tags.sort_unstable();
            assert_eq!(tags, [0, 1, 2, 3, 4, 5], "each is done or lost");
            // Every buffer is there.
            submit(&mut disk, 0..8);
            assert_eq!(completed(&mut disk, 8).len(), 8);
            let data = pattern(3, 1 << 16);
            disk.write(8, &data).unwrap();
            let mut back = vec![0; data.len()];
            disk.read(8, &mut back).unwrap();
            assert!(back == data);
        }
        disk.stop().unwrap();
    }
}

#[test]
fn features_that_are_declined_are_not_negotiated() {
    let decline = bits::INDIRECT_DESC | bits::EVENT_IDX | bits::RING_RESET;
    let setup = Setup {
        decline,
        ring: Ring::Packed,
        ..Setup::default()
    };
    let mut disk = start("sim:blk,size=1M", &setup);
    assert!(!disk.features().intersects(decline));
    disk.write(0, &pattern(1, 4096)).unwrap();
    let error = disk.reset_queue(0, soon()).unwrap_err();
    assert!(error.to_string().contains("RING_RESET"), "{error}");
}

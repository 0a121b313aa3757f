//! The block device, request by request: virtio 1.4 §5.2. In memory; what files add is in `image.rs`.

mod disk;
mod rig;

use disk::*;
use rig::{Lab, soon, until};
use vdpa_core::bits::{self, block};
use vdpa_core::config::BlockConfig;
use vdpa_core::{Attr, Event, Features, MgmtDevice, QueueIndex, Status};

/// Sectors of the disks here.
const SECTORS: u64 = 2048;
const SPEC: &str = "sim:blk,size=1M";

#[test]
fn what_is_written_is_read_back_however_it_is_cut_in_both_rings() {
    for packed in [false, true] {
        for in_order in [false, true] {
            let rig = Lab::new().open(SPEC);
            let features = features(&rig, packed, true, !in_order, in_order);
            let mut disk = Disk::with(rig, features);
            for (i, (len, piece)) in [
                (512, usize::MAX),
                (4096, 512),
                (1024, 100),
                (512, 41),
                (65536, 8192),
            ]
            .into_iter()
            .enumerate()
            {
                disk.there_and_back(3 + 200 * i as u64, len, piece);
            }
            assert_eq!(disk.read(SECTORS - 1, 512), [0; 512], "nobody wrote there");
        }
    }
}

#[test]
fn a_header_and_a_status_of_single_bytes_are_a_request() {
    let mut disk = Disk::open(SPEC);
    let readable = header(IN, 0).to_vec();
    let (at, to) = (disk.rig.alloc(64), disk.rig.alloc(1024));
    disk.rig.bytes().write(at as usize, &readable);
    let header: Vec<_> = (0..16).map(|i| (at + i, 1)).collect();
    // The status shares its descriptor with the last of the data.
    disk.q
        .add(&header[..14], &[])
        .expect("room for a test of the ring itself");
    let parts = [(at, 14), (at + 14, 2)];
    disk.q.add(&parts, &[(to, 500), (to + 500, 13)]).unwrap();
    disk.q.publish();
    let done = disk.q.wait_used(2);
    assert_eq!([done[0].len, done[1].len], [0, 513]);
    assert_eq!(disk.rig.stat("queue0.errors.no_status"), 1);
    let mut status = [NONE];
    disk.rig.bytes().read(to as usize + 512, &mut status);
    assert_eq!(status, [OK]);
}

/// Statements 186 and 187.
#[test]
fn config_wce_is_offered_with_flush_and_begins_at_0_where_flush_is_not_accepted() {
    let offer = |features: &str| {
        Lab::new()
            .registry
            .open(&format!("{SPEC},features={features}"))
    };
    let both = offer("CONFIG_WCE+FLUSH").unwrap();
    assert!(both.offered().contains(block::FLUSH));
    let why = offer("CONFIG_WCE").unwrap_err().to_string();
    assert!(why.contains("FLUSH"), "{why}");
    for (without, writeback) in [
        (Features::NONE, true),
        (Features::of(&[block::FLUSH]), false),
    ] {
        let disk = Disk::without(SPEC, without);
        assert_eq!(disk.config().writeback(), writeback);
        // And again after a reset.
        disk.rig.reset();
        assert!(disk.config().writeback());
    }
}

#[test]
fn the_driver_changes_the_cache_mode_and_nothing_else_in_the_configuration() {
    let disk = Disk::open(SPEC);
    let before = disk.config();
    let device = &disk.rig.device;
    device.write_config(32, &[0]).unwrap();
    assert!(!disk.config().writeback());
    device.write_config(32, &[1]).unwrap();
    assert!(disk.config().writeback());
    for at in 0..BlockConfig::SIZE as u32 {
        if at != 32 {
            device.write_config(at, &[0xff]).unwrap();
        }
    }
    device.write_config(30, &[9, 9, 1, 9]).unwrap();
    assert_eq!(disk.config(), before);
    let without = Disk::without(SPEC, Features::of(&[block::CONFIG_WCE]));
    without.rig.device.write_config(32, &[0]).unwrap();
    assert!(without.config().writeback(), "it is not negotiated");
}

/// Linux fills tables by the number of segments alone, and QEMU gives a queue 128 descriptors: a disk lost its queue.
#[test]
fn a_request_of_the_most_segments_fits_the_queue_that_a_front_end_makes() {
    for (queue_size, segments) in [(64, 62), (128, 126), (256, 126), (1024, 126)] {
        let disk = Disk::open(&format!("sim:blk,size=64M,queue_size={queue_size}"));
        assert_eq!(disk.config().seg_max(), segments, "{queue_size}");
    }
}

/// Statement 188, and the whole of the space.
#[test]
fn the_configuration_is_complete_and_its_padding_is_zero() {
    let disk = Disk::open("sim:blk,size=64M,queues=3,blk_size=4096,queue_size=128");
    let config = disk.config();
    config.check(disk.rig.device.offered()).unwrap();
    assert_eq!(config.capacity(), 131_072);
    assert_eq!((config.blk_size(), config.num_queues()), (4096, 3));
    assert_eq!(config.seg_max(), 126);
    assert!(config.size_max() >= 1 << 20);
    let geometry =
        u64::from(config.cylinders()) * u64::from(config.heads()) * u64::from(config.sectors());
    assert!(geometry > 130_000 && geometry <= 131_072);
    assert_eq!(config.discard_sector_alignment(), 8);
    assert!(config.max_discard_sectors() > 0 && config.max_write_zeroes_seg() > 0);
    assert!(config.write_zeroes_may_unmap());
    let mut bytes = [0xff; BlockConfig::SIZE];
    disk.rig.device.read_config(0, &mut bytes).unwrap();
    let padding = [33, 57, 58, 59, 93, 94, 95];
    assert!(padding.iter().all(|at| bytes[*at] == 0), "{bytes:?}");
    assert!(bytes[72..].iter().all(|byte| *byte == 0), "no zones");
}

/// Statement 189 and row 107.
#[test]
fn a_disk_that_is_read_only_refuses_writes_and_its_data_stay() {
    for packed in [false, true] {
        let mut disk = Disk::packed("sim:blk,size=1M,ro=on", packed);
        let offered = disk.rig.device.offered();
        assert!(offered.contains(block::RO));
        assert!(!CHANGES.iter().any(|bit| offered.contains(*bit)));
        assert_eq!(disk.status(OUT, 0, &[7; 512]), IOERR);
        // Whatever else is wrong with it.
        assert_eq!(disk.status(OUT, u64::MAX, &[7; 5]), IOERR);
        assert_eq!(disk.read(0, 512), [0; 512]);
        assert_eq!(disk.status(DISCARD, 0, &segment(0, 1, 0)), UNSUPP);
        assert_eq!(disk.rig.stat("queue0.errors.read_only"), 2);
        // RO need not be accepted to hold.
        let mut deaf = Disk::without("sim:blk,size=1M,ro=on", Features::of(&[block::RO]));
        assert_eq!(deaf.status(OUT, 0, &[7; 512]), IOERR);
        assert_eq!(deaf.read(0, 512), [0; 512]);
    }
}

/// Statements 190 and 191, and row 106.
#[test]
fn flags_that_are_unknown_or_out_of_place_are_not_supported_and_nothing_is_done() {
    let mut disk = Disk::open(SPEC);
    let data = pattern(1, 1024);
    disk.write(0, &data);
    for kind in [DISCARD, WRITE_ZEROES, SECURE_ERASE] {
        for flags in [2, 0x8000_0000, 3, u32::MAX] {
            assert_eq!(disk.status(kind, 0, &segment(0, 1, flags)), UNSUPP);
            // In the second of two segments: the first is not done either.
            let two = [segment(0, 1, 0), segment(1, 1, flags)].concat();
            assert_eq!(disk.status(kind, 0, &two), UNSUPP);
        }
    }
    assert_eq!(disk.status(DISCARD, 0, &segment(0, 1, 1)), UNSUPP);
    assert_eq!(disk.status(SECURE_ERASE, 0, &segment(0, 1, 1)), UNSUPP);
    assert_eq!(disk.read(0, 1024), data);
    assert_eq!(disk.status(WRITE_ZEROES, 0, &segment(0, 1, 1)), OK);
}

/// Statement 192.
#[test]
fn after_write_zeroes_there_are_zeroes_with_unmap_and_without() {
    for unmap in [0, 1] {
        let mut disk = Disk::open(SPEC);
        let data = pattern(2, 16384);
        disk.write(8, &data);
        let segments = [segment(9, 3, unmap), segment(20, 8, unmap)].concat();
        assert_eq!(disk.status(WRITE_ZEROES, 0, &segments), OK);
        let mut expected = data.clone();
        expected[512..2048].fill(0);
        expected[6144..10240].fill(0);
        assert_eq!(disk.read(8, 16384), expected, "unmap {unmap}");
        assert_eq!(disk.rig.stat("queue0.requests.write_zeroes"), 1);
    }
}

#[test]
fn what_is_discarded_or_erased_is_gone_and_what_is_beside_it_stays() {
    for kind in [DISCARD, SECURE_ERASE] {
        let mut disk = Disk::open(SPEC);
        let data = pattern(3, 16384);
        disk.write(0, &data);
        assert_eq!(disk.status(kind, 0, &segment(8, 8, 0)), OK);
        let mut expected = data.clone();
        expected[4096..8192].fill(0);
        assert_eq!(disk.read(0, 16384), expected, "type {kind}");
    }
}

/// Statement 195, and row 108.
#[test]
fn types_that_are_unknown_or_not_negotiated_are_not_supported() {
    let mut disk = Disk::open(SPEC);
    // Zones, the lifetime, SCSI and barriers of old, and what nobody knows.
    for kind in [
        2,
        3,
        5,
        10,
        12,
        15,
        16,
        18,
        20,
        22,
        24,
        26,
        0x8000_0000,
        u32::MAX,
    ] {
        assert_eq!(disk.status(kind, 0, &[0; 512]), UNSUPP, "type {kind}");
    }
    assert_eq!(disk.rig.stat("queue0.errors.unsupported"), 14);
    let commands = CHANGES.into_iter().chain([block::FLUSH, block::CONFIG_WCE]);
    let commands: Vec<_> = commands.collect();
    let mut bare = Disk::without(SPEC, Features::of(&commands));
    for kind in [FLUSH, DISCARD, WRITE_ZEROES, SECURE_ERASE] {
        assert_eq!(bare.status(kind, 0, &segment(0, 1, 0)), UNSUPP);
    }
}

/// Statement 197.
#[test]
fn a_change_of_the_capacity_is_told_and_holds_at_once() {
    let lab = Lab::new();
    let rig = lab.open(SPEC);
    let all = features(&rig, false, true, true, false);
    let mut disk = Disk::with(rig, all);
    let events = disk.rig.device.events().unwrap();
    let name = disk.rig.device.info().name.clone();
    let set = |sectors| lab.sim.dev_set(&name, Attr::Capacity(sectors));
    let generation = |disk: &Disk| disk.rig.device.config_generation().unwrap();
    let before = generation(&disk);
    disk.write(SECTORS - 1, &[5; 512]);
    assert_eq!(disk.request(IN, SECTORS, &[], 512).status, IOERR);
    set(2 * SECTORS + 1).unwrap();
    assert_eq!(events.wait(soon()).unwrap(), Some(Event::Config));
    assert_ne!(generation(&disk), before);
    assert_eq!(disk.config().capacity(), 2 * SECTORS + 1);
    assert_eq!(disk.read(SECTORS - 1, 1024)[511..513], [5, 0]);
    disk.write(2 * SECTORS, &[6; 512]);
    set(SECTORS).unwrap();
    assert_eq!(events.wait(soon()).unwrap(), Some(Event::Config));
    assert_eq!(disk.request(IN, 2 * SECTORS, &[], 512).status, IOERR);
    set(SECTORS).unwrap();
    assert_eq!(events.try_next(), None, "nothing changed");
    set(3 * SECTORS).unwrap();
    assert_eq!(disk.read(2 * SECTORS, 512), [0; 512], "it was cut off");
    for bad in [u64::MAX, 1 << 55] {
        let why = set(bad).unwrap_err().to_string();
        assert!(
            why.contains("capacity") && why.contains(&bad.to_string()),
            "{why}"
        );
    }
    assert_eq!(disk.config().capacity(), 3 * SECTORS);
    assert!(lab.sim.dev_set(&name, Attr::Announce).is_err());
}

/// More than a disk in memory can have, and less than the configuration space.
#[test]
fn a_change_that_turns_out_to_be_impossible_keeps_no_suspended_device_from_going_on() {
    let lab = Lab::new();
    let rig = lab.open(SPEC);
    let all = features(&rig, false, true, true, false);
    let mut disk = Disk::with(rig, all);
    let name = disk.rig.device.info().name.clone();
    let set = || lab.sim.dev_set(&name, Attr::Capacity(1 << 50));
    assert!(set().is_err());
    disk.rig.device.suspend(soon()).unwrap();
    set().unwrap();
    disk.rig.device.resume().unwrap();
    disk.write(0, &[5; 512]);
    assert_eq!(disk.config().capacity(), SECTORS);
    disk.rig.device.suspend(soon()).unwrap();
    set().unwrap();
    disk.rig.device.reset(soon()).unwrap();
    assert!(disk.rig.status().is_empty());
}

/// Statement 198, and rows 101 to 104.
#[test]
fn nothing_beyond_the_end_is_touched_and_the_sum_decides() {
    for packed in [false, true] {
        let mut disk = Disk::packed(SPEC, packed);
        let last = pattern(4, 1024);
        disk.write(SECTORS - 2, &last);
        let cases: &[(u64, usize)] = &[
            (SECTORS, 512),
            (SECTORS - 1, 1024),
            (SECTORS - 1, 131_072),
            (u64::MAX, 512),
            (u64::MAX / 512, 512),
            (u64::MAX / 512 + 1, 512),
            (1 << 55, 512),
            ((1 << 55) - 1, 512),
            (u64::MAX - 1, 1024),
        ];
        for &(sector, len) in cases {
            let read = disk.request(IN, sector, &[], len);
            assert_eq!((read.status, read.len), (IOERR, 1), "sector {sector}");
            assert!(
                read.data.iter().all(|byte| *byte == NONE),
                "nothing is copied"
            );
            assert_eq!(disk.status(OUT, sector, &vec![9; len]), IOERR);
        }
        assert_eq!(disk.rig.stat("queue0.errors.range"), 2 * cases.len() as u64);
        // Only the sum of the pieces is too long.
        let cut = disk.ask(&Shape {
            readable: [&header(OUT, SECTORS - 2), vec![9; 1536].as_slice()].concat(),
            writable: 1,
            piece: 512,
        });
        assert_eq!(cut.status, IOERR);
        for len in [1, 511, 513, 1023] {
            let read = disk.request(IN, 0, &[], len);
            assert_eq!((read.status, read.len), (IOERR, 1), "{len} bytes");
            assert!(read.data.iter().all(|byte| *byte == NONE));
            assert_eq!(disk.status(OUT, 0, &vec![9; len]), IOERR);
        }
        assert_eq!(disk.rig.stat("queue0.errors.malformed"), 8);
        assert_eq!(disk.read(SECTORS - 2, 1024), last);
        assert_eq!(disk.read(0, 1024), [0; 1024]);
        assert_eq!(disk.request(IN, 0, &[], 0).status, OK, "nothing is inside");
    }
}

/// Statement 199, and row 109.
#[test]
fn the_identity_is_20_bytes_or_an_error() {
    let mut disk = Disk::open("sim:blk,size=1M,serial=a-very-own-disk");
    let reply = disk.request(GET_ID, 0, &[], 20);
    assert_eq!((reply.status, reply.len), (OK, 21));
    assert_eq!(&reply.data, b"a-very-own-disk\0\0\0\0\0");
    let long = disk.request(GET_ID, 9, &[], 512);
    assert_eq!((long.status, long.len), (OK, 21));
    assert_eq!(long.data[..20], reply.data);
    assert!(long.data[20..].iter().all(|byte| *byte == NONE));
    for short in [0, 1, 19] {
        let reply = disk.request(GET_ID, 0, &[], short);
        assert_eq!((reply.status, reply.len), (IOERR, 1));
        assert!(reply.data.iter().all(|byte| *byte == NONE));
    }
    // Byte by byte.
    let cut = disk.ask(&Shape {
        readable: header(GET_ID, 0).to_vec(),
        writable: 21,
        piece: 3,
    });
    assert_eq!((cut.status, &cut.data), (OK, &reply.data));
    let other = Disk::open(SPEC).request(GET_ID, 0, &[], 20);
    assert!(other.data.starts_with(b"sim-blk-"));
}

/// Statements 200 and 201, and row 106.
#[test]
fn the_limits_of_segments_are_in_sectors_and_hold() {
    let mut disk = Disk::open("sim:blk,size=8G");
    let config = disk.config();
    let kinds = [
        (
            DISCARD,
            config.max_discard_seg(),
            config.max_discard_sectors(),
        ),
        (
            WRITE_ZEROES,
            config.max_write_zeroes_seg(),
            config.max_write_zeroes_sectors(),
        ),
        (
            SECURE_ERASE,
            config.max_secure_erase_seg(),
            config.max_secure_erase_sectors(),
        ),
    ];
    let data = pattern(5, 512);
    disk.write(0, &data);
    for (kind, segments, sectors) in kinds {
        let many = |count: u32| -> Vec<u8> {
            (0..count)
                .flat_map(|i| segment(u64::from(i) + 1, 1, 0))
                .collect()
        };
        assert_eq!(disk.status(kind, 0, &many(segments)), OK, "type {kind}");
        assert_eq!(disk.status(kind, 0, &many(segments + 1)), IOERR);
        assert_eq!(disk.status(kind, 0, &segment(1, sectors, 0)), OK);
        assert_eq!(disk.status(kind, 0, &segment(1, 0, 0)), OK);
        // Beyond a limit, or the end; nothing is done, nor of the segment before it.
        for bad in [
            segment(0, sectors + 1, 0),
            segment(0, u32::MAX, 0),
            segment(16 << 20, 1, 0),
            segment((16 << 20) - 1, 2, 0),
            segment(u64::MAX, 1, 0),
            segment(u64::MAX / 512, 1, 0),
        ] {
            assert_eq!(disk.status(kind, 0, &bad), IOERR);
            let two = [segment(0, 1, 0), bad].concat();
            assert_eq!(disk.status(kind, 0, &two), IOERR);
        }
        // No segment, or not a whole one.
        for len in [0, 1, 15, 17, 31] {
            assert_eq!(disk.status(kind, 0, &many(2)[..len]), IOERR);
        }
        let huge = vec![0; 65536];
        assert_eq!(disk.status(kind, 0, &huge), IOERR);
        assert_eq!(disk.read(0, 512), data);
    }
}

/// Statement 202, and row 105.
#[test]
fn the_status_is_the_last_writable_byte_and_a_request_without_one_comes_back() {
    for packed in [false, true] {
        let mut disk = Disk::packed(SPEC, packed);
        disk.write(0, &[7; 512]);
        for kind in [IN, OUT, FLUSH, GET_ID, 99] {
            for readable in [[&header(kind, 0)[..], &[8; 512]].concat(), vec![1; 3]] {
                let reply = disk.ask(&Shape {
                    readable,
                    writable: 0,
                    piece: usize::MAX,
                });
                assert_eq!((reply.status, reply.len), (NONE, 0));
            }
        }
        assert_eq!(disk.rig.stat("queue0.errors.no_status"), 10);
        assert_eq!(disk.read(0, 512), [7; 512], "nothing was written");
        // Short and missing headers.
        for len in [0, 1, 15] {
            let reply = disk.ask(&Shape {
                readable: header(IN, 0)[..len].to_vec(),
                writable: 513,
                piece: usize::MAX,
            });
            assert_eq!((reply.status, reply.len), (IOERR, 1), "{len} bytes");
        }
        // A last descriptor of no length: the byte before it is the last one.
        let (at, to) = (disk.rig.alloc(64), disk.rig.alloc(1024));
        let bytes = disk.rig.bytes();
        bytes.write(at as usize, &header(IN, 0));
        bytes.write(to as usize, &[NONE; 514]);
        disk.q
            .add(&[(at, 16)], &[(to, 513), (to + 513, 0)])
            .unwrap();
        disk.q.publish();
        assert_eq!(disk.q.wait_used(1)[0].len, 513);
        let mut tail = [0; 2];
        disk.rig.bytes().read(to as usize + 512, &mut tail);
        assert_eq!(tail, [OK, NONE]);
    }
}

/// Rows 17, 20, 23 and 24 for a disk.
#[test]
fn buffers_that_are_not_mapped_are_an_error_with_a_status_and_the_device_goes_on() {
    for spec in [SPEC, "sim:blk,size=1M,queue_size=64"] {
        let mut disk = Disk::open(spec);
        let events = disk.rig.device.events().unwrap();
        let to = disk.rig.alloc(64);
        let at = disk.rig.alloc(64);
        let hole = rig::REGION - 256;
        for (kind, readable, writable) in [
            (IN, vec![(at, 16)], vec![(hole, 512), (to, 1)]),
            (OUT, vec![(at, 16), (hole, 512)], vec![(to, 1)]),
        ] {
            disk.rig.bytes().write(at as usize, &header(kind, 0));
            disk.rig.bytes().write(to as usize, &[NONE]);
            disk.q.add(&readable, &writable).unwrap();
            disk.q.publish();
            assert_eq!(disk.q.wait_used(1)[0].len, 1);
            let mut status = [0];
            disk.rig.bytes().read(to as usize, &mut status);
            assert_eq!(status, [IOERR]);
            let event = events.wait(soon()).unwrap();
            assert!(matches!(event, Some(Event::Fault { .. })), "{event:?}");
        }
        // The status itself, and the header.
        for (readable, writable, len) in [
            (vec![(at, 16)], vec![(rig::REGION + 8, 1)], 0),
            (vec![(rig::REGION + 64, 16)], vec![(to, 1)], 1),
        ] {
            disk.q.add(&readable, &writable).unwrap();
            disk.q.publish();
            assert_eq!(disk.q.wait_used(1)[0].len, len);
        }
        assert_eq!(disk.rig.stat("queue0.errors.fault"), 4);
        assert!(!disk.rig.status().contains(Status::DEVICE_NEEDS_RESET));
        disk.write(0, &[1; 512]);
        assert_eq!(disk.read(0, 512), [1; 512]);
    }
}

#[test]
fn every_queue_serves_the_same_disk_and_without_mq_there_is_one() {
    let rig = Lab::new().open("sim:blk,size=1M,queues=4,workers=2");
    let all = features(&rig, true, true, true, false);
    rig.negotiate(all);
    let mut queues: Vec<_> = (0..4).map(|q| rig.queue(q, 16)).collect();
    rig.run();
    let (at, to) = (rig.alloc(1024), rig.alloc(1024));
    for (i, q) in queues.iter_mut().enumerate() {
        let data = pattern(i as u64, 512);
        rig.bytes().write(at as usize, &header(OUT, i as u64));
        rig.bytes().write(at as usize + 16, &data);
        q.add(&[(at, 528)], &[(to, 1)]).unwrap();
        q.publish();
        q.wait_used(1);
    }
    for q in &mut queues {
        for sector in 0..4 {
            rig.bytes().write(at as usize, &header(IN, sector));
            q.add(&[(at, 16)], &[(to, 513)]).unwrap();
            q.publish();
            q.wait_used(1);
            let mut data = [0; 512];
            rig.bytes().read(to as usize, &mut data);
            assert_eq!(data.to_vec(), pattern(sector, 512));
        }
    }
    assert_eq!(rig.total("requests.read"), 16);
    rig.reset();
    rig.negotiate(all.without(block::MQ));
    let limits = |q| rig.device.queue_limits(QueueIndex::new(q));
    assert!(limits(0).unwrap().max_size > 0);
    assert!(limits(1).is_err() || limits(1).unwrap().max_size == 0);
}

#[test]
fn a_queue_that_is_off_keeps_its_requests_until_it_is_on() {
    let mut disk = Disk::open(SPEC);
    let device = &disk.rig.device;
    device.enable_queue(QueueIndex::new(0), false).unwrap();
    // The switch takes effect with a pass; until then a request may be served.
    until("the switch", || {
        let sent = disk.send(&Shape {
            readable: header(IN, 0).to_vec(),
            writable: 513,
            piece: usize::MAX,
        });
        disk.q.publish();
        std::thread::sleep(std::time::Duration::from_millis(20));
        let used = disk.q.used();
        assert!(used.iter().all(|used| used.id == sent.id));
        used.is_empty()
    });
    let device = &disk.rig.device;
    device.enable_queue(QueueIndex::new(0), true).unwrap();
    assert_eq!(disk.q.wait_used(1)[0].len, 513);
}

#[test]
fn many_requests_at_once_come_back_each_once() {
    for packed in [false, true] {
        for in_order in [false, true] {
            let rig = Lab::new().open(SPEC);
            let features = features(&rig, packed, true, true, in_order);
            let mut disk = Disk::with(rig, features);
            let mut sent = Vec::new();
            for round in 0..50 {
                for i in 0..8_u64 {
                    sent.push(disk.send(&Shape {
                        readable:
                            [&header(OUT, i), pattern(round * 8 + i, 512).as_slice()].concat(),
                        writable: 1,
                        piece: usize::MAX,
                    }));
                }
                disk.q.publish();
                let done = disk.q.wait_used(8);
                let mut ids: Vec<_> = done.iter().map(|done| done.id).collect();
                let mut expected: Vec<_> = sent.drain(..).map(|sent| sent.id).collect();
                if !in_order {
                    ids.sort_unstable();
                    expected.sort_unstable();
                }
                assert_eq!(ids, expected);
            }
            for i in 0..8 {
                assert_eq!(disk.read(i, 512), pattern(49 * 8 + i, 512));
            }
        }
    }
}

#[test]
fn the_state_is_the_cache_mode_and_a_larger_disk_does_not_fit_a_smaller_one() {
    let driven = |spec: &str| {
        let rig = Lab::new().open(spec);
        rig.negotiate(features(&rig, false, false, false, false));
        rig
    };
    let from = driven(SPEC);
    from.device.write_config(32, &[0]).unwrap();
    let state = from.device.save_class_state().unwrap();
    let to = driven(SPEC);
    to.device.restore_class_state(&state).unwrap();
    let mut mode = [9];
    to.device.read_config(32, &mut mode).unwrap();
    assert_eq!(mode, [0]);
    let larger = driven("sim:blk,size=2M");
    let events = larger.device.events().unwrap();
    larger.device.restore_class_state(&state).unwrap();
    assert_eq!(events.try_next(), Some(Event::Config), "another capacity");
    let large = larger.device.save_class_state().unwrap();
    let why = to
        .device
        .restore_class_state(&large)
        .unwrap_err()
        .to_string();
    assert!(why.contains("4096") && why.contains("2048"), "{why}");
    assert!(to.device.restore_class_state(&state[..7]).is_err());
    let net = Lab::new().open("sim:net");
    net.negotiate(net.device.offered() - bits::RING_PACKED);
    let foreign = net.device.save_class_state().unwrap();
    assert!(to.device.restore_class_state(&foreign).is_err());
    // A mode that these features cannot have.
    let rig = Lab::new().open(SPEC);
    let fixed = features(&rig, false, false, false, false).without(block::CONFIG_WCE);
    rig.negotiate(fixed);
    assert!(rig.device.restore_class_state(&state).is_err());
}

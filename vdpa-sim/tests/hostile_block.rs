//! Drivers of disks that do what no driver should, with requests in flight and without.

mod disk;
mod gate;
mod rig;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use disk::*;
use rig::{BASE, Lab, Rig, soon, until};
use vdpa_core::{Event, QueueIndex, Status};
use vdpa_sim::blk::Engine;

const NEXT: u16 = 1;
const WRITE: u16 = 2;

/// A split queue whose descriptors a test writes itself, beside a sibling that is well-behaved.
struct Raw {
    disk: Disk,
    sibling: rig::Q,
    /// Where buffers are.
    at: u64,
}

impl Raw {
    fn new(spec: &str) -> Self {
        let rig = Lab::new().open(&format!("{spec},queues=2"));
        let features = features(&rig, false, false, false, false);
        rig.negotiate(features);
        let (q, sibling) = (rig.queue(0, 8), rig.queue(1, 8));
        rig.run();
        let at = rig.alloc(4096);
        Self {
            disk: Disk::running(rig, q),
            sibling,
            at,
        }
    }

    fn descriptor(&self, index: u64, at: u64, len: u32, flags: u16, next: u16) {
        let mut raw = [0; 16];
        raw[..8].copy_from_slice(&(BASE + at).to_le_bytes());
        raw[8..12].copy_from_slice(&len.to_le_bytes());
        raw[12..14].copy_from_slice(&flags.to_le_bytes());
        raw[14..].copy_from_slice(&next.to_le_bytes());
        let table = self.disk.q.areas()[0];
        self.disk
            .rig
            .bytes()
            .write((table + index * 16) as usize, &raw);
    }

    /// Shows the device these heads.
    fn show(&self, heads: &[u16], index: u16) {
        let bytes = self.disk.rig.bytes();
        let ring = self.disk.q.areas()[1] as usize;
        for (i, head) in heads.iter().enumerate() {
            bytes.write(ring + 4 + 2 * (i % 8), &head.to_le_bytes());
        }
        bytes.store_u16(ring as u32 + 2, index);
        self.disk.q.doorbell.ring(0);
    }

    fn used(&self) -> u16 {
        let at = self.disk.q.areas()[2] as u32 + 2;
        self.disk.rig.bytes().load_u16(at)
    }

    /// The device says why it needs a reset, once; the sibling goes on; after a reset all is well.
    fn expect_lost(mut self) {
        let events = self.disk.rig.device.events().unwrap();
        let event = events.wait(soon()).unwrap();
        assert!(
            matches!(event, Some(Event::NeedsReset { queue: Some(q), .. }) if q == QueueIndex::new(0)),
            "{event:?}"
        );
        let rig = &self.disk.rig;
        rig.bytes().write(self.at as usize, &header(IN, 0));
        let buffers = (&[(self.at, 16)], &[(self.at + 64, 513)]);
        self.sibling.add(buffers.0, buffers.1).unwrap();
        self.sibling.publish();
        assert_eq!(self.sibling.wait_used(1)[0].len, 513);
        assert_eq!(events.try_next(), None);
        let Self { disk, .. } = self;
        disk.rig.reset();
        let features = features(&disk.rig, true, true, true, false);
        let mut again = Disk::with(disk.rig, features);
        again.write(3, &[3; 512]);
        assert_eq!(again.read(3, 512), [3; 512]);
    }
}

fn specs() -> (tempfile::TempDir, [String; 3]) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("image");
    std::fs::write(&path, vec![0; 1 << 20]).unwrap();
    let file = format!("sim:blk,file={}", path.display());
    let specs = [
        "sim:blk,size=1M".to_owned(),
        format!("{file},io=uring"),
        format!("{file},io=threads"),
    ];
    (home, specs)
}

/// Rows 1 to 4, 7 and 39.
#[test]
fn chains_and_indices_that_cannot_be_lose_the_queue_and_nothing_else() {
    let (_home, specs) = specs();
    type Break = fn(&Raw);
    let breaks: [Break; 6] = [
        // A loop of one, and of two.
        |raw| {
            raw.descriptor(0, raw.at, 16, NEXT, 0);
            raw.show(&[0], 1);
        },
        |raw| {
            raw.descriptor(0, raw.at, 16, NEXT, 1);
            raw.descriptor(1, raw.at, 16, NEXT, 0);
            raw.show(&[0], 1);
        },
        // Next, and a head, beyond the table.
        |raw| {
            raw.descriptor(0, raw.at, 16, NEXT, 8);
            raw.show(&[0], 1);
        },
        |raw| raw.show(&[0xffff], 1),
        // What the device reads behind what it writes.
        |raw| {
            raw.descriptor(0, raw.at, 16, NEXT | WRITE, 1);
            raw.descriptor(1, raw.at, 16, 0, 0);
            raw.show(&[0], 1);
        },
        // A jump.
        |raw| raw.show(&[0], 500),
    ];
    for spec in &specs {
        for broken in breaks {
            let raw = Raw::new(spec);
            broken(&raw);
            raw.expect_lost();
        }
    }
}

/// Row 10: what is twice in the ring is twice a request, and comes back twice.
#[test]
fn the_same_head_many_times_at_once_is_as_many_requests() {
    let (_home, specs) = specs();
    for spec in specs {
        let raw = Raw::new(&spec);
        let bytes = raw.disk.rig.bytes();
        bytes.write(raw.at as usize, &header(OUT, 5));
        bytes.write(raw.at as usize + 16, &[6; 512]);
        raw.descriptor(0, raw.at, 528, NEXT, 1);
        raw.descriptor(1, raw.at + 1024, 1, WRITE, 0);
        for round in 1..20_u16 {
            raw.show(&[0; 8], round * 8);
            until("all of them", || raw.used() == round * 8);
        }
        assert!(!raw.disk.rig.status().contains(Status::DEVICE_NEEDS_RESET));
        assert_eq!(raw.disk.rig.stat("queue0.requests.write"), 8 * 19);
    }
}

/// Rows 61 to 66: whatever the driver rewrites, a request is one or the other.
#[test]
fn a_header_that_changes_all_the_time_is_never_half_believed() {
    let (_home, specs) = specs();
    for spec in specs {
        let mut disk = Disk::open(&spec);
        for sector in 0..2048 / 128 {
            disk.write(sector * 128, &vec![0x11; 65536]);
        }
        let (at, to) = (disk.rig.alloc(64), disk.rig.alloc(1024));
        let stop = AtomicBool::new(false);
        std::thread::scope(|s| {
            let (window, stop) = (disk.rig.window.clone(), &stop);
            s.spawn(move || {
                let bytes = window.bytes();
                let mut i = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    i = i.wrapping_add(1);
                    let kind = [IN, GET_ID, 99, FLUSH][(i % 4) as usize];
                    let sector = [0, 2047, 2048, u64::MAX / 512, u64::MAX][(i % 5) as usize];
                    bytes.store_u32(at as u32, kind);
                    bytes.store_u64(at as u32 + 8, sector);
                }
            });
            for _ in 0..1000 {
                disk.rig.bytes().write(to as usize, &[NONE; 513]);
                disk.q
                    .add(&[(at, 16)], &[(to, 512), (to + 512, 1)])
                    .unwrap();
                disk.q.publish();
                let len = disk.q.wait_used(1)[0].len;
                let mut back = [0; 513];
                disk.rig.bytes().read(to as usize, &mut back);
                match (back[512], len) {
                    (OK, 513) => assert_eq!(back[..512], [0x11; 512]),
                    // An identity, or a flush.
                    (OK, 1 | 21) => {}
                    (IOERR | UNSUPP, 1) => assert_eq!(back[..512], [NONE; 512]),
                    other => panic!("{other:?}"),
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
}

/// Rows 80, 110 and 114.
#[test]
fn a_flood_of_kicks_and_a_full_ring_are_served_within_bounds() {
    let (_home, specs) = specs();
    for spec in specs {
        let rig = Lab::new().open(&format!("{spec},queue_size=1024"));
        rig.negotiate(features(&rig, true, false, false, false));
        let mut q = rig.queue(0, 1024);
        let at = rig.alloc(1024 * 16);
        let to = rig.alloc(1024 * 1024);
        rig.bytes().write(at as usize, &header(IN, 1));
        // Kicks before the driver is ready do nothing.
        (0..1000).for_each(|_| q.doorbell.ring(0));
        rig.run();
        for round in 0..4 {
            let mut sent = 0;
            // More than are with the backend at once.
            while q.add(&[(at, 16)], &[(to + sent * 1024, 513)]).is_some() {
                sent += 1;
            }
            assert_eq!(sent, 512);
            q.publish();
            (0..10_000).for_each(|_| q.doorbell.ring(0));
            let done = q.wait_used(512);
            assert!(done.iter().all(|done| done.len == 513), "round {round}");
        }
        rig.reset();
        (0..1000).for_each(|_| q.doorbell.ring(0));
        assert!(rig.status().is_empty());
    }
}

/// A ring that is broken while requests of it are with the backend.
#[test]
fn a_queue_that_is_lost_with_requests_in_flight_is_reset_when_they_are_over() {
    for engine in [Engine::Uring, Engine::Threads] {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("image");
        std::fs::write(&path, vec![0; 1 << 20]).unwrap();
        let (device, gate) = gate::open(&path, engine);
        let rig = Rig::new(device);
        let all = features(&rig, false, true, true, false);
        let mut disk = Disk::with(rig, all);
        gate.close();
        let sent = disk.send(&Shape {
            readable: header(IN, 0).to_vec(),
            writable: 513,
            piece: usize::MAX,
        });
        disk.q.publish();
        until("a request at the gate", || gate.waiting() == 1);
        let driver = disk.q.areas()[1] as u32;
        disk.rig.bytes().store_u16(driver + 2, 999);
        disk.q.doorbell.ring(0);
        until("the loss", || {
            disk.rig.status().contains(Status::DEVICE_NEEDS_RESET)
        });
        let by = vdpa_mem::Deadline::after(Duration::from_millis(50));
        assert!(disk.rig.device.reset(by).is_err(), "it is in flight");
        gate.open();
        disk.rig.reset();
        assert_eq!(disk.reply(sent, 0).status, NONE, "it goes back to nobody");
        let mut again = Disk::with(disk.rig, all);
        assert_eq!(again.read(0, 512), [0; 512]);
    }
}

/// Row 81, many times.
#[test]
fn resets_in_the_middle_of_everything_leave_a_disk_that_works() {
    let (_home, specs) = specs();
    for spec in specs {
        let mut disk = Disk::open(&spec);
        for round in 0..40 {
            for i in 0..12 {
                disk.send(&Shape {
                    readable: [&header(OUT, i * 8), pattern(i, 4096).as_slice()].concat(),
                    writable: 1,
                    piece: 1000,
                });
            }
            disk.q.publish();
            disk.rig.reset();
            let rig = Rig::new(disk.rig.device);
            let all = features(&rig, round % 2 == 0, true, true, round % 3 == 0);
            disk = Disk::with(rig, all);
            disk.write(100, &pattern(round, 512));
            assert_eq!(disk.read(100, 512), pattern(round, 512));
        }
    }
}

//! Requests of a disk that take their time: what waits for them, and in which order they go back.

mod disk;
mod gate;
mod rig;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use disk::*;
use gate::{Gate, Note};
use rig::{Rig, soon, until};
use std::sync::Arc;
use vdpa_core::bits::{self, block};
use vdpa_core::{Device, Error, Features, QueueIndex, Status};
use vdpa_mem::{Access, Deadline, DirtyPages, Gpa, Mapping};
use vdpa_sim::Crew;
use vdpa_sim::blk::{Action, Engine};

const ENGINES: [Engine; 2] = [Engine::Uring, Engine::Threads];

/// An image of 1 MiB, its device behind a gate, and its driver.
struct Scene {
    disk: Disk,
    gate: Arc<Gate>,
    path: PathBuf,
    _home: tempfile::TempDir,
}

impl Scene {
    fn new(engine: Engine, choose: impl FnOnce(&Rig) -> Features) -> Self {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("image");
        std::fs::write(&path, vec![0; 1 << 20]).unwrap();
        Self::of(gate::open(&path, engine), choose, path, home)
    }

    fn of(
        (device, gate): (Device, Arc<Gate>),
        choose: impl FnOnce(&Rig) -> Features,
        path: PathBuf,
        home: tempfile::TempDir,
    ) -> Self {
        let rig = Rig::new(device);
        let features = choose(&rig);
        Self {
            disk: Disk::with(rig, features),
            gate,
            path,
            _home: home,
        }
    }

    fn plain(engine: Engine) -> Self {
        Self::new(engine, |rig| features(rig, false, true, true, false))
    }

    fn send(&mut self, kind: u32, sector: u64, data: &[u8], room: usize) -> Sent {
        let sent = self.disk.send(&Shape {
            readable: [&header(kind, sector), data].concat(),
            writable: room + 1,
            piece: usize::MAX,
        });
        self.disk.q.publish();
        sent
    }

    fn waits(&self, count: usize) {
        until("a request at the gate", || self.gate.waiting() == count);
    }
}

fn briefly() -> Deadline {
    Deadline::after(Duration::from_millis(50))
}

/// Statement 193: by a backend that records, and looks at the status when the sync is done.
#[test]
fn a_flush_is_durable_before_its_status_is_written() {
    for engine in ENGINES {
        let mut scene = Scene::plain(engine);
        scene.disk.write(0, &pattern(1, 512));
        scene.gate.close();
        let sent = scene.send(FLUSH, 0, &[], 0);
        scene
            .gate
            .watch(scene.disk.rig.window.clone(), scene.disk.status_at(sent));
        scene.gate.notes();
        scene.gate.open();
        scene.disk.q.wait_used(1);
        let expected = [
            Note::Sent(Action::Flush, false),
            Note::Done(Action::Flush, Some(NONE)),
        ];
        assert_eq!(scene.gate.notes(), expected);
        assert_eq!(scene.disk.reply(sent, 1).status, OK);
    }
}

/// Statement 194: in writethrough mode, however it came about, each change is durable when it is complete.
#[test]
fn writethrough_makes_every_change_stable_and_writeback_none() {
    let modes: [(&[vdpa_core::FeatureBit], Option<u8>, bool); 5] = [
        (&[], None, false),
        (&[], Some(0), true),
        (&[block::CONFIG_WCE], None, false),
        (&[block::FLUSH], None, true),
        (&[block::FLUSH, block::CONFIG_WCE], None, true),
    ];
    for (without, mode, stable) in modes {
        let without = Features::of(without);
        let mut scene = Scene::new(Engine::Auto, |rig| {
            features(rig, true, true, true, false) - without
        });
        if let Some(mode) = mode {
            scene.disk.rig.device.write_config(32, &[mode]).unwrap();
        }
        scene.disk.write(0, &[1; 512]);
        for kind in [DISCARD, WRITE_ZEROES, SECURE_ERASE] {
            assert_eq!(scene.disk.status(kind, 0, &segment(0, 1, 0)), OK);
        }
        let sent = scene
            .gate
            .notes()
            .into_iter()
            .filter_map(|note| match note {
                Note::Sent(_, stable) => Some(stable),
                Note::Done(..) => None,
            });
        assert_eq!(sent.collect::<Vec<_>>(), [stable; 4], "{without:?}");
    }
}

/// Rows 82 and 154.
#[test]
fn unmapping_waits_for_the_request_and_nothing_is_written_after_it() {
    for engine in ENGINES {
        let mut scene = Scene::plain(engine);
        scene.disk.write(0, &pattern(2, 4096));
        scene.gate.close();
        let sent = scene.send(IN, 0, &[], 4096);
        scene.waits(1);
        let Scene { disk, gate, .. } = &mut scene;
        let opened = AtomicBool::new(false);
        std::thread::scope(|s| {
            s.spawn(|| {
                std::thread::sleep(Duration::from_millis(30));
                opened.store(true, Ordering::SeqCst);
                gate.open();
            });
            disk.rig.unmap();
            assert!(opened.load(Ordering::SeqCst), "it waited");
        });
        // The areas of the queue are gone, too: the device needs a reset, and completes one.
        until("the loss", || {
            disk.rig.status().contains(Status::DEVICE_NEEDS_RESET)
        });
        let data = disk.reply(sent, 0).data;
        assert_eq!(data, pattern(2, 4096), "the memory was there");
        disk.rig.reset();
        disk.rig.map();
    }
}

#[test]
fn an_unmap_that_cannot_wait_so_long_leaves_the_memory_alive() {
    for engine in ENGINES {
        let mut scene = Scene::plain(engine);
        scene.disk.write(0, &pattern(2, 4096));
        scene.gate.close();
        let sent = scene.send(IN, 0, &[], 4096);
        scene.waits(1);
        let unmapped = scene.disk.rig.dma.unmap(Rig::range(), briefly());
        let why = unmapped.unwrap_err().to_string();
        assert!(why.contains("in flight"), "{why}");
        scene.gate.open();
        until("the end of the request", || {
            scene.disk.reply(sent, 0).data == pattern(2, 4096)
        });
        assert!(scene.disk.rig.device.status().is_err(), "it is broken now");
    }
}

#[test]
fn a_buffer_alone_is_unmapped_when_its_request_is_done() {
    for engine in ENGINES {
        let mut scene = Scene::plain(engine);
        // A second mapping of its own for the data.
        let (memory, window) = vdpa_mem::Region::anonymous(1 << 16).unwrap().into_shared();
        let range = vdpa_mem::IovaRange::new(vdpa_mem::Iova::new(0x100_0000), 1 << 16).unwrap();
        let mapping = Mapping {
            iova: range,
            memory,
            offset: 0,
            access: Access::Both,
            dirty: None,
        };
        let dma = scene.disk.rig.dma.clone();
        dma.map(vec![mapping]).unwrap();
        scene.disk.write(0, &pattern(3, 4096));
        // As an offset from the rig's region.
        let there = range.first().get().wrapping_sub(rig::BASE);
        for _ in 0..20 {
            window.bytes().zero(0, 4096);
            let disk = &mut scene.disk;
            let (at, to) = (disk.rig.alloc(64), disk.rig.alloc(64));
            disk.rig.bytes().write(at as usize, &header(IN, 0));
            disk.q.add(&[(at, 16)], &[(there, 4096), (to, 1)]).unwrap();
            disk.q.publish();
            disk.q.wait_used(1);
            let mut data = vec![0; 4096];
            window.bytes().read(0, &mut data);
            assert_eq!(data, pattern(3, 4096));
        }
        scene.gate.close();
        let disk = &mut scene.disk;
        let (at, to) = (disk.rig.alloc(64), disk.rig.alloc(64));
        disk.rig.bytes().write(at as usize, &header(IN, 0));
        disk.q.add(&[(at, 16)], &[(there, 4096), (to, 1)]).unwrap();
        disk.q.publish();
        scene.waits(1);
        let (gate, opened) = (scene.gate.clone(), AtomicBool::new(false));
        std::thread::scope(|s| {
            s.spawn(|| {
                std::thread::sleep(Duration::from_millis(30));
                opened.store(true, Ordering::SeqCst);
                gate.open();
            });
            dma.unmap(range, soon()).unwrap();
            assert!(opened.load(Ordering::SeqCst), "it waited");
        });
        // What is there now is ours.
        window.bytes().write(0, &[0x77; 4096]);
        assert_eq!(scene.disk.q.wait_used(1)[0].len, 4097);
        std::thread::sleep(Duration::from_millis(5));
        let mut data = vec![0; 4096];
        window.bytes().read(0, &mut data);
        assert_eq!(data, [0x77; 4096]);
    }
}

#[test]
fn with_in_order_requests_go_back_as_they_were_taken_whichever_is_done_first() {
    for packed in [false, true] {
        for engine in ENGINES {
            for in_order in [false, true] {
                let mut scene =
                    Scene::new(engine, |rig| features(rig, packed, true, false, in_order));
                scene.gate.reverse(6);
                let sent: Vec<_> = (0..6)
                    .map(|i| {
                        // In between, some that are refused at once.
                        if i % 3 == 2 {
                            scene.send(99, 0, &[], 0);
                        }
                        scene.send(OUT, i, &pattern(i, 512), 0)
                    })
                    .collect();
                let done = scene.disk.q.wait_used(8);
                let ids: Vec<_> = done.iter().map(|done| done.id).collect();
                let places: Vec<_> = sent
                    .iter()
                    .map(|sent| ids.iter().position(|id| *id == sent.id).unwrap())
                    .collect();
                let ascending = places.is_sorted();
                assert_eq!(ascending, in_order, "{places:?}");
                for sent in sent {
                    assert_eq!(scene.disk.reply(sent, 1).status, OK);
                }
                for i in 0..6 {
                    assert_eq!(scene.disk.read(i, 512), pattern(i, 512));
                }
            }
        }
    }
}

#[test]
fn a_stop_a_suspend_and_a_reset_wait_for_what_is_in_flight() {
    for packed in [false, true] {
        for engine in ENGINES {
            let mut scene = Scene::new(engine, |rig| features(rig, packed, true, true, false));
            let data = pattern(4, 512);
            // Suspend.
            scene.gate.close();
            let sent = scene.send(OUT, 1, &data, 0);
            scene.waits(1);
            assert!(scene.disk.rig.device.suspend(briefly()).is_err());
            scene.gate.open();
            scene.disk.rig.device.suspend(soon()).unwrap();
            assert_eq!(scene.disk.q.used().len(), 1, "it is back already");
            assert_eq!(scene.disk.reply(sent, 1).status, OK);
            // What comes meanwhile waits for the resume.
            scene.send(IN, 1, &[], 512);
            std::thread::sleep(Duration::from_millis(5));
            assert!(scene.disk.q.used().is_empty());
            scene.disk.rig.device.resume().unwrap();
            scene.disk.q.wait_used(1);
            // Stop, and go on with the state.
            scene.gate.close();
            let sent = scene.send(IN, 1, &[], 512);
            scene.waits(1);
            let q = QueueIndex::new(0);
            assert!(scene.disk.rig.device.stop_queue(q, briefly()).is_err());
            scene.gate.open();
            let state = scene.disk.rig.device.stop_queue(q, soon()).unwrap();
            let done = scene.disk.q.used();
            assert_eq!(done.len(), 1);
            assert_eq!(scene.disk.reply(sent, done[0].len).data, data);
            let Scene { disk, .. } = &mut scene;
            disk.q.start(&disk.rig, Some(state));
            assert_eq!(disk.read(1, 512), data);
            // Reset.
            scene.gate.close();
            let sent = scene.send(IN, 1, &[], 512);
            scene.waits(1);
            assert!(scene.disk.rig.device.reset(briefly()).is_err());
            scene.gate.open();
            scene.disk.rig.device.reset(soon()).unwrap();
            assert!(scene.disk.q.used().is_empty(), "it is given back to nobody");
            assert_eq!(scene.disk.reply(sent, 0).status, NONE);
            // And all is well afterwards.
            let Scene { disk, .. } = scene;
            let features = features(&disk.rig, packed, true, true, false);
            let mut again = Disk::with(disk.rig, features);
            assert_eq!(again.read(1, 512), data);
        }
    }
}

#[test]
fn a_queue_reset_waits_too_and_its_sibling_goes_on() {
    let mut scene = Scene::new(Engine::Auto, |rig| features(rig, false, true, true, false));
    assert!(
        scene
            .disk
            .rig
            .device
            .negotiated()
            .contains(bits::RING_RESET)
    );
    let mut sibling = scene.disk.rig.queue(1, 16);
    scene.gate.close();
    scene.send(OUT, 0, &[1; 512], 0);
    scene.waits(1);
    let q = QueueIndex::new(0);
    assert!(scene.disk.rig.device.reset_queue(q, briefly()).is_err());
    // A refused request needs no backend.
    let at = scene.disk.rig.alloc(64);
    scene.disk.rig.bytes().write(at as usize, &header(99, 0));
    sibling.add(&[(at, 16)], &[(at + 32, 1)]).unwrap();
    sibling.publish();
    sibling.wait_used(1);
    scene.gate.open();
    scene.disk.rig.device.reset_queue(q, soon()).unwrap();
    let q = scene.disk.rig.queue(0, 64);
    let Scene { disk, .. } = scene;
    let mut disk = Disk::running(disk.rig, q);
    assert_eq!(disk.read(0, 512), [1; 512]);
}

#[test]
fn a_request_in_flight_beyond_the_new_end_of_the_disk_is_an_error() {
    for engine in ENGINES {
        let mut scene = Scene::plain(engine);
        scene.gate.close();
        let out = scene.send(IN, 2000, &[], 512);
        let inside = scene.send(IN, 20, &[], 512);
        scene.waits(2);
        scene.gate.shrink(1024);
        scene.gate.open();
        scene.disk.q.wait_used(2);
        assert_eq!(scene.disk.reply(out, 0).status, IOERR);
        assert_eq!(scene.disk.reply(inside, 0).status, OK);
        assert_eq!(std::fs::metadata(&scene.path).unwrap().len(), 1 << 20);
    }
}

#[test]
fn what_the_system_writes_for_the_device_is_in_the_dirty_log_before_it_is_used() {
    for engine in ENGINES {
        let mut scene = Scene::plain(engine);
        scene.disk.write(0, &pattern(6, 8192));
        let mapping = Mapping {
            iova: Rig::range(),
            memory: scene.disk.rig.memory.clone(),
            offset: 0,
            access: Access::Both,
            dirty: Some(Gpa::new(0)),
        };
        let rig = &scene.disk.rig;
        rig.dma.replace(vec![mapping], soon()).unwrap();
        let log = Arc::new(DirtyPages::new(12, rig::REGION >> 12));
        rig.dma.set_dirty_log(Some(log.clone()), soon()).unwrap();
        let to = rig.alloc(3 * 4096).next_multiple_of(4096);
        let at = rig.alloc(64);
        rig.bytes().write(at as usize, &header(IN, 0));
        let disk = &mut scene.disk;
        disk.q
            .add(&[(at, 16)], &[(to, 8192), (to + 8192, 1)])
            .unwrap();
        disk.q.publish();
        disk.q.wait_used(1);
        let dirty = log.take();
        for page in 0..3 {
            let page = (to >> 12) + page;
            assert!(dirty.contains(&page), "page {page} of {dirty:?}");
        }
        assert!(dirty.len() <= 5, "nothing else but the ring: {dirty:?}");
        // What is only read is not.
        disk.write(0, &pattern(7, 4096));
        assert!(log.take().len() <= 3);
    }
}

/// Each step of such a request begins when the one before it is done: on the way to a reset, too.
#[test]
fn a_reset_in_the_middle_of_a_request_of_many_steps_ends() {
    for io in ["uring", "threads"] {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("image");
        std::fs::write(&path, vec![1; 16 << 20]).unwrap();
        let spec = format!("sim:blk,file={},io={io}", path.display());
        let segments: Vec<u8> = (0..32).flat_map(|i| segment(i * 1024, 512, 0)).collect();
        for round in 0..10 {
            let mut disk = Disk::open(&spec);
            disk.send(&Shape {
                readable: [&header(WRITE_ZEROES, 0), segments.as_slice()].concat(),
                writable: 1,
                piece: usize::MAX,
            });
            disk.q.publish();
            if round % 2 == 0 {
                std::thread::sleep(Duration::from_micros(round * 20));
            }
            disk.rig.device.reset(soon()).unwrap();
        }
    }
}

#[test]
fn a_device_that_is_dropped_waits_for_what_is_in_flight_and_its_siblings_go_on() {
    for engine in ENGINES {
        let crew = Crew::new("shared", 1);
        let in_crew = || {
            let home = tempfile::tempdir().unwrap();
            let path = home.path().join("image");
            std::fs::write(&path, vec![0; 1 << 20]).unwrap();
            let opened = gate::open_in(&path, engine, &crew);
            let plain = |rig: &Rig| features(rig, false, true, true, false);
            Scene::of(opened, plain, path, home)
        };
        let (mut goes, mut stays) = (in_crew(), in_crew());
        goes.gate.close();
        let data = pattern(7, 512);
        goes.send(OUT, 3, &data, 0);
        goes.waits(1);
        let Scene {
            disk,
            gate,
            path,
            _home,
        } = goes;
        std::thread::scope(|s| {
            let dropped = s.spawn(move || drop(disk));
            std::thread::sleep(Duration::from_millis(20));
            assert_eq!(stays.disk.read(0, 512), [0; 512]);
            assert!(!dropped.is_finished(), "its request is not over");
            gate.open();
            dropped.join().unwrap();
        });
        assert_eq!(std::fs::read(&path).unwrap()[3 * 512..4 * 512], data);
    }
}

#[test]
fn a_queue_that_is_switched_off_while_the_device_is_being_suspended_is_off_afterwards() {
    let mut scene = Scene::plain(Engine::Threads);
    scene.gate.close();
    scene.send(IN, 0, &[], 512);
    scene.waits(1);
    let device = &scene.disk.rig.device;
    let q = QueueIndex::new(0);
    assert!(device.suspend(briefly()).is_err());
    device.enable_queue(q, false).unwrap();
    // So that it arrives while the suspend is under way.
    std::thread::sleep(Duration::from_millis(5));
    scene.gate.open();
    device.suspend(soon()).unwrap();
    device.resume().unwrap();
    assert_eq!(scene.disk.q.wait_used(1).len(), 1);
    scene.send(IN, 0, &[], 512);
    std::thread::sleep(Duration::from_millis(20));
    assert!(scene.disk.q.used().is_empty(), "served while it is off");
    scene.disk.rig.device.enable_queue(q, true).unwrap();
    scene.disk.q.wait_used(1);
}

#[test]
fn a_reset_while_the_device_is_removed_waits_for_what_is_in_flight() {
    let mut scene = Scene::plain(Engine::Threads);
    scene.gate.close();
    scene.send(IN, 0, &[], 512);
    scene.waits(1);
    let device = &scene.disk.rig.device;
    std::thread::scope(|s| {
        let removed = s.spawn(|| scene.gate.remove());
        std::thread::sleep(Duration::from_millis(20));
        device.write_status(0).unwrap();
        assert!(!device.status().unwrap().is_empty(), "a worker is at it");
        assert!(!removed.is_finished());
        scene.gate.open();
        removed.join().unwrap();
    });
    assert!(matches!(device.status(), Err(Error::Gone)));
}

//! Queues that nobody here wrote (the `virtio-driver` crate, split and packed) carry requests to simulated disks.
//!
//! Its block driver wants a transport whose trait names a type that the crate does not export, so nobody else can
//! implement it; its queue can be used alone.
#![cfg(feature = "sim")]
#![allow(
    unsafe_code,
    reason = "the stranger's queue wants memory shared with a device as a mutable slice"
)]

mod translator;

use std::sync::Arc;
use std::time::Duration;

use vdpa::core::{Asid, Call, Doorbell, Features, Kick, QueueConfig, QueueIndex, Status, bits};
use vdpa::mem::{Access, Bytes, DmaMemory, IovaRange, Window};
use vdpa::{Deadline, Device, Iova, Mapping, Region};
use virtio_driver::virtqueue::Virtqueue;
use virtio_driver::{VirtioFeatureFlags, iovec};

use translator::translator;

/// What the stranger keeps beside its queue for each request.
#[derive(Clone, Copy)]
#[repr(C)]
struct Request {
    header: [u8; 16],
    status: u8,
}

const SLOTS: u16 = 64;
/// Bytes for the queue and its requests, in front of the data.
const QUEUE_BYTES: usize = 1 << 20;
/// Bytes of data of a request.
const DATA: usize = 4096;

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(10))
}

/// A disk under the stranger's queue.
struct Scene {
    queue: Virtqueue<'static, Request>,
    window: Window,
    device: Device,
    doorbell: Doorbell,
    /// After the queue, which refers to it.
    _memory: Arc<dyn DmaMemory>,
}

impl Scene {
    fn new(spec: &str, packed: bool, event_idx: bool) -> Self {
        let bytes = (QUEUE_BYTES + usize::from(SLOTS) * DATA) as u64;
        let (memory, window) = Region::anonymous(bytes).unwrap().into_shared();
        let mut flags = VirtioFeatureFlags::VERSION_1;
        flags.set(VirtioFeatureFlags::RING_PACKED, packed);
        flags.set(VirtioFeatureFlags::RING_EVENT_IDX, event_idx);
        // SAFETY: the first part of a region that outlives the queue, zeroed, and used by nobody else here.
        let own = unsafe { std::slice::from_raw_parts_mut(memory.hva().as_ptr(), QUEUE_BYTES) };
        let queue = Virtqueue::new(translator(), own, SLOTS, flags).unwrap();

        let device = vdpa::open(spec).unwrap();
        let first = Iova::new(memory.hva().as_ptr() as u64);
        let mapping = Mapping {
            iova: IovaRange::new(first, memory.len()).unwrap(),
            memory: memory.clone(),
            offset: 0,
            access: Access::Both,
            dirty: None,
        };
        let dma = device.dma(Asid::new(0)).unwrap();
        dma.map(vec![mapping]).unwrap();
        let steps = [
            Status::ACKNOWLEDGE,
            Status::DRIVER,
            Status::FEATURES_OK,
            Status::DRIVER_OK,
        ];
        let mut status = Status::empty();
        let mut doorbell = Doorbell::NONE;
        for step in steps {
            if step == Status::FEATURES_OK {
                let flush = vdpa::core::bits::block::FLUSH;
                let mut features = Features::of(&[bits::VERSION_1, flush]);
                for (bit, on) in [(bits::RING_PACKED, packed), (bits::EVENT_IDX, event_idx)] {
                    if on {
                        features = features.with(bit);
                    }
                }
                device.accept(features).unwrap();
            }
            if step == Status::DRIVER_OK {
                let place = [
                    queue.desc_table_ptr(),
                    queue.driver_area_ptr(),
                    queue.device_area_ptr(),
                ];
                let [descriptor, driver, used] = place.map(|at| Iova::new(at as u64));
                let config = QueueConfig::new(SLOTS, descriptor, driver, used);
                let q = QueueIndex::new(0);
                doorbell = device
                    .start_queue(q, config, Kick::Taken, Call::None)
                    .unwrap();
            }
            status |= step;
            device.write_status(status.bits()).unwrap();
            assert!(device.status().unwrap().contains(status));
        }
        Self {
            queue,
            window,
            device,
            doorbell,
            _memory: memory,
        }
    }

    fn data(&self, place: usize) -> Bytes<'_> {
        let at = QUEUE_BYTES + place * DATA;
        self.window.bytes().slice(at, DATA).unwrap()
    }

    /// Puts a request into the queue: type, sector, and its data in one or two pieces.
    fn add(&mut self, kind: u32, sector: u64, place: usize, pieces: usize) -> u16 {
        let base = self.data(place).hva().get() as usize;
        let added = self.queue.add_request(|request, add| {
            request.header = [0; 16];
            request.header[..4].copy_from_slice(&kind.to_le_bytes());
            request.header[8..].copy_from_slice(&sector.to_le_bytes());
            request.status = 0xee;
            let part = |base: usize, len| iovec {
                iov_base: std::ptr::with_exposed_provenance_mut(base),
                iov_len: len,
            };
            let header = (&raw const request.header) as usize;
            add(part(header, 16), false)?;
            for piece in 0..pieces {
                let len = DATA / pieces;
                add(part(base + piece * len, len), kind == 0)?;
            }
            add(part((&raw const request.status) as usize, 1), true)
        });
        added.unwrap()
    }

    /// Kicks, and waits for `count` requests. Answers with their numbers and statuses.
    fn wait(&mut self, count: usize) -> Vec<(u16, u8)> {
        if self.queue.avail_notif_needed() {
            self.doorbell.ring(0);
        }
        let by = soon();
        let mut done = Vec::new();
        while done.len() < count {
            let came = self.queue.completions();
            done.extend(came.map(|done| (done.id, done.req.status)));
            assert!(!by.expired(), "{done:?} of {count} came back");
            std::thread::yield_now();
        }
        done
    }
}

fn pattern(seed: usize) -> Vec<u8> {
    (0..DATA)
        .map(|at| (at * 31 + seed * 7 + at / 256) as u8)
        .collect()
}

#[test]
fn its_queues_carry_requests_to_disks_in_memory_and_in_files() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("disk.img");
    std::fs::write(&path, vec![0; 1 << 20]).unwrap();
    let file = format!("sim:blk,file={}", path.display());
    let specs = [
        "sim:blk,size=1M".to_owned(),
        format!("{file},io=uring"),
        format!("{file},io=threads"),
    ];
    for (spec, packed, event_idx) in specs.iter().flat_map(|spec| {
        [(false, false), (false, true), (true, false), (true, true)]
            .map(|(packed, event_idx)| (spec, packed, event_idx))
    }) {
        let mut scene = Scene::new(spec, packed, event_idx);
        for round in 0..40 {
            // Room for header, data in up to two pieces, and status of each.
            let count = 1 + round % 16;
            for place in 0..count {
                scene.data(place).write(0, &pattern(round + place));
                scene.add(1, place as u64 * 8, place, 1 + place % 2);
            }
            let done = scene.wait(count);
            assert!(done.iter().all(|(_, status)| *status == 0), "{done:?}");
            scene.add(4, 0, 0, 0);
            assert_eq!(scene.wait(1)[0].1, 0, "a flush");
            let mut of = std::collections::HashMap::new();
            for place in 0..count {
                scene.data(place).zero(0, DATA);
                of.insert(scene.add(0, place as u64 * 8, place, 1 + place % 2), place);
            }
            for (id, status) in scene.wait(count) {
                assert_eq!(status, 0);
                let place = of.remove(&id).expect("each comes back once");
                let mut back = vec![0; DATA];
                scene.data(place).read(0, &mut back);
                assert!(back == pattern(round + place), "{spec}: request {place}");
            }
        }
        // Beyond the end, and of no known type. Not by a read: its packed queue panics at a used length that is not all
        // that could be written.
        scene.add(1, 2041, 0, 1);
        assert_eq!(scene.wait(1)[0].1, 1);
        scene.add(77, 0, 0, 0);
        assert_eq!(scene.wait(1)[0].1, 2);
        scene.device.reset(soon()).unwrap();
    }
}

//! The `virtio-driver` crate's vhost-user client, split and packed, in front of a disk that is served to it.
#![allow(
    unsafe_code,
    reason = "the stranger takes buffers of shared memory as pointers"
)]

use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;
use vdpa::mem::{DmaMemory, Window};
use vdpa::{Deadline, Region};
use virtio_driver::{
    VhostUser, VirtioBlkConfig, VirtioBlkFeatureFlags, VirtioBlkQueue, VirtioBlkReqBuf,
    VirtioBlkTransport, VirtioFeatureFlags,
};

use crate::harness::{BackEnd, PATIENCE};

const BLOCK: usize = 4096;
/// Blocks that are under way at a time.
const WINDOW: usize = 64;
/// Blocks of the disk.
const BLOCKS: usize = 1024;

/// The stranger, connected, with memory for a window of blocks.
struct Stranger {
    transport: Box<VirtioBlkTransport>,
    queue: VirtioBlkQueue<'static, usize>,
    memory: Arc<dyn DmaMemory>,
    window: Window,
}

impl Stranger {
    fn new(path: &Path, packed: bool) -> Self {
        let mut features = VirtioFeatureFlags::VERSION_1 | VirtioFeatureFlags::RING_EVENT_IDX;
        features.set(VirtioFeatureFlags::RING_PACKED, packed);
        let features = features.bits() | VirtioBlkFeatureFlags::FLUSH.bits();
        let path = path.to_str().unwrap();
        let transport = VhostUser::<VirtioBlkConfig, VirtioBlkReqBuf>::new(path, features);
        let mut transport: Box<VirtioBlkTransport> = Box::new(transport.unwrap());
        let got = transport.get_features() & VirtioFeatureFlags::RING_PACKED.bits();
        assert_eq!(got != 0, packed);
        let mut queues = VirtioBlkQueue::setup_queues(&mut *transport, 1, 256).unwrap();
        let bytes = WINDOW * BLOCK;
        let (memory, window) = Region::memfd(bytes as u64).unwrap().into_shared();
        let file = memory.file().unwrap().0.as_raw_fd();
        let at = memory.hva().as_ptr() as usize;
        transport.map_mem_region(at, bytes, file, 0).unwrap();
        Self {
            transport,
            queue: queues.remove(0),
            memory,
            window,
        }
    }

    fn buffer(&self, place: usize) -> *mut u8 {
        self.memory.hva().as_ptr().wrapping_add(place * BLOCK)
    }

    /// Has all that was asked for done, and well.
    fn finish(&mut self, count: usize) {
        let notifier = self.transport.get_submission_notifier(0);
        notifier.notify().unwrap();
        let by = Deadline::after(PATIENCE);
        let mut done = vec![false; count];
        while done.contains(&false) {
            for one in self.queue.completions() {
                assert_eq!(one.ret, 0, "request {}", one.context);
                let twice = std::mem::replace(&mut done[one.context], true);
                assert!(!twice, "request {} ends twice", one.context);
            }
            assert!(!by.expired(), "{done:?}");
            std::thread::yield_now();
        }
    }

    /// Writes the whole disk.
    fn write(&mut self, seed: usize) {
        for first in (0..BLOCKS).step_by(WINDOW) {
            for place in 0..WINDOW {
                let content = content(seed, first + place);
                self.window.bytes().write(place * BLOCK, &content);
                let (offset, from) = (((first + place) * BLOCK) as u64, self.buffer(place));
                // SAFETY: a block of shared memory, which outlives the request.
                unsafe { self.queue.write_raw(offset, from, BLOCK, place) }.unwrap();
            }
            self.finish(WINDOW);
        }
        self.queue.flush(0).unwrap();
        self.finish(1);
    }

    /// Reads it, and compares.
    fn read(&mut self, seed: usize) {
        let mut got = vec![0; BLOCK];
        for first in (0..BLOCKS).step_by(WINDOW) {
            self.window.bytes().zero(0, WINDOW * BLOCK);
            for place in 0..WINDOW {
                let (offset, to) = (((first + place) * BLOCK) as u64, self.buffer(place));
                // SAFETY: as above.
                unsafe { self.queue.read_raw(offset, to, BLOCK, place) }.unwrap();
            }
            self.finish(WINDOW);
            for place in 0..WINDOW {
                self.window.bytes().read(place * BLOCK, &mut got);
                assert!(
                    got == content(seed, first + place),
                    "block {}",
                    first + place
                );
            }
        }
    }
}

fn content(seed: usize, block: usize) -> Vec<u8> {
    let word = |at: usize| ((block << 12 | at) ^ seed << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..BLOCK).map(|at| word(at).to_le_bytes()[7]).collect()
}

#[test]
fn what_one_writes_the_next_reads_and_the_file_holds() {
    let home = TempDir::with_prefix("stranger.").unwrap();
    let [image, socket] = ["disk.img", "disk"].map(|name| home.path().join(name));
    std::fs::write(&image, vec![0; BLOCKS * BLOCK]).unwrap();
    let back_end = BackEnd::start(&format!("sim:blk,file={}", image.display()), &socket, &[]);
    Stranger::new(&socket, false).write(1);
    Stranger::new(&socket, true).read(1);
    Stranger::new(&socket, true).write(2);
    Stranger::new(&socket, false).read(2);
    back_end.stop();
    let held = std::fs::read(&image).unwrap();
    for (block, held) in held.chunks(BLOCK).enumerate() {
        assert!(held == content(2, block), "block {block} of the file");
    }
}

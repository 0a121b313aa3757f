//! A block driver that nobody here wrote (the `virtio-driver` crate, over its vhost-user client), split and packed, on a
//! served disk.
#![allow(
    unsafe_code,
    reason = "the stranger takes buffers of shared memory as pointers"
)]

mod rig;

use std::os::fd::AsRawFd as _;
use std::sync::Arc;

use rig::{Served, until};
use vdpa_mem::{DmaMemory, Region, Window};
use virtio_driver::{
    VhostUser, VirtioBlkConfig, VirtioBlkFeatureFlags, VirtioBlkQueue, VirtioBlkReqBuf,
    VirtioBlkTransport, VirtioFeatureFlags,
};

const BLOCK: usize = 4096;
const MANY: usize = 64;

/// The stranger, connected, with shared memory for its buffers.
struct Stranger {
    transport: Box<VirtioBlkTransport>,
    queues: Vec<VirtioBlkQueue<'static, usize>>,
    memory: Arc<dyn DmaMemory>,
    window: Window,
}

impl Stranger {
    fn new(path: &str, packed: bool, queues: usize) -> Self {
        let mut features = VirtioFeatureFlags::VERSION_1 | VirtioFeatureFlags::RING_EVENT_IDX;
        features.set(VirtioFeatureFlags::RING_PACKED, packed);
        let of_block = VirtioBlkFeatureFlags::MQ
            | VirtioBlkFeatureFlags::FLUSH
            | VirtioBlkFeatureFlags::WRITE_ZEROES;
        let features = features.bits() | of_block.bits();
        let transport = VhostUser::<VirtioBlkConfig, VirtioBlkReqBuf>::new(path, features).unwrap();
        let mut transport: Box<VirtioBlkTransport> = Box::new(transport);
        let queues = VirtioBlkQueue::setup_queues(&mut *transport, queues, 256).unwrap();
        let (memory, window) = Region::memfd((MANY * BLOCK) as u64).unwrap().into_shared();
        let file = memory.file().unwrap().0.as_raw_fd();
        let at = memory.hva().as_ptr() as usize;
        transport.map_mem_region(at, MANY * BLOCK, file, 0).unwrap();
        Self {
            transport,
            queues,
            memory,
            window,
        }
    }

    fn buffer(&self, at: usize) -> *mut u8 {
        self.memory.hva().as_ptr().wrapping_add(at * BLOCK)
    }

    /// Has every request of a queue done, and answers how each ended, by its number.
    fn finish(&mut self, queue: usize, many: usize) -> Vec<i32> {
        let notifier = self.transport.get_submission_notifier(queue);
        notifier.notify().unwrap();
        let mut ended = vec![None; many];
        until("the end of all requests", || {
            for done in self.queues[queue].completions() {
                assert_eq!(ended[done.context].replace(done.ret), None, "twice");
            }
            ended.iter().all(Option::is_some)
        });
        ended.into_iter().flatten().collect()
    }
}

fn writes_and_reads(packed: bool, queues: usize) {
    let served = Served::new(&format!("sim:blk,size=8M,queues={queues}"));
    let mut stranger = Stranger::new(served.path(), packed, queues);
    served.hears("running");
    for queue in 0..queues {
        // More laps than one.
        for round in 0..5_u8 {
            for at in 0..MANY {
                let block = [at as u8 ^ round << 6; BLOCK];
                stranger.window.bytes().write(at * BLOCK, &block);
                let (offset, from) = ((at * BLOCK) as u64, stranger.buffer(at));
                // SAFETY: a block of shared memory, which outlives the request.
                unsafe { stranger.queues[queue].write_raw(offset, from, BLOCK, at) }.unwrap();
            }
            assert_eq!(stranger.finish(queue, MANY), [0; MANY]);
            stranger.window.bytes().zero(0, MANY * BLOCK);
            for at in 0..MANY {
                let (offset, to) = ((at * BLOCK) as u64, stranger.buffer(at));
                // SAFETY: as above.
                unsafe { stranger.queues[queue].read_raw(offset, to, BLOCK, at) }.unwrap();
            }
            assert_eq!(stranger.finish(queue, MANY), [0; MANY]);
            let mut read = vec![0; MANY * BLOCK];
            stranger.window.bytes().read(0, &mut read);
            for (at, block) in read.chunks(BLOCK).enumerate() {
                assert_eq!(block, [at as u8 ^ round << 6; BLOCK], "block {at}");
            }
        }
        stranger.queues[queue].flush(0).unwrap();
        assert_eq!(stranger.finish(queue, 1), [0]);
        stranger.queues[queue]
            .write_zeroes(0, 8192, false, 0)
            .unwrap();
        assert_eq!(stranger.finish(queue, 1), [0]);
        // Behind the end of the disk.
        stranger.queues[queue]
            .write_zeroes(8 << 20, 8192, false, 0)
            .unwrap();
        assert_ne!(stranger.finish(queue, 1), [0]);
    }
    drop(stranger);
    served.hears("left");
    served.end().unwrap();
}

#[test]
fn a_strangers_block_driver_writes_and_reads_by_split_rings() {
    writes_and_reads(false, 1);
    writes_and_reads(false, 3);
}

#[test]
fn a_strangers_block_driver_writes_and_reads_by_packed_rings() {
    writes_and_reads(true, 1);
    writes_and_reads(true, 3);
}

#[test]
fn one_driver_after_the_other_is_served() {
    let served = Served::new("sim:blk,size=1M");
    for round in 0..6 {
        let mut stranger = Stranger::new(served.path(), round % 2 == 1, 1);
        stranger.queues[0].flush(0).unwrap();
        assert_eq!(stranger.finish(0, 1), [0]);
        drop(stranger);
        served.hears("left");
    }
    served.end().unwrap();
}

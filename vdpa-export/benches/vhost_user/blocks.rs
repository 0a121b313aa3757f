//! The client of both disks, which nobody here wrote: libblkio's virtio-blk driver (the `virtio-driver` crate), over its own
//! vhost-user front end. It polls, and asks for no calls.
#![allow(
    unsafe_code,
    reason = "the stranger takes buffers of shared memory as pointers"
)]

use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vdpa_mem::DmaMemory;
use virtio_driver::{
    QueueNotifier, VhostUser, VirtioBlkConfig, VirtioBlkQueue, VirtioBlkReqBuf, VirtioBlkTransport,
    VirtioFeatureFlags,
};

use super::pages;

/// Bytes of the disks.
pub(crate) const DISK: u64 = 1 << 30;

/// Descriptors of a queue: three a request.
pub(crate) const QUEUE_SIZE: u16 = 128;

/// Bytes of a request.
pub(crate) const BLOCK: usize = 4096;

/// The most requests at a time.
pub(crate) const DEEPEST: usize = 32;

/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Reads from the disk behind `socket` as it is told.
///
/// * `ring`: `split` or `packed`
/// * `pages`: the word for those of the buffers' memory
pub(crate) fn child(socket: &str, ring: &str, pages: &str) -> Result<(), String> {
    let mut client = Client::new(socket, ring == "packed", pages).map_err(|e| e.to_string())?;
    super::child::serve(|words| {
        let numbers: Vec<usize> = words.iter().filter_map(|word| word.parse().ok()).collect();
        match (words.first(), &*numbers) {
            (Some(&"read"), &[depth, millis]) => {
                let time = Duration::from_millis(millis as u64);
                let done = client.read(depth.clamp(1, DEEPEST), time);
                done.unwrap_or_else(|e| format!("failed: {e}"))
            }
            _ => "unknown".to_owned(),
        }
    });
    Ok(())
}

struct Client {
    queue: VirtioBlkQueue<'static, usize>,
    notifier: Box<dyn QueueNotifier>,
    memory: Arc<dyn DmaMemory>,
    /// The queue's memory is its own.
    _transport: Box<VirtioBlkTransport>,
    /// For the next block.
    random: u64,
}

impl Client {
    fn new(socket: &str, packed: bool, pages: &str) -> std::io::Result<Self> {
        let mut features = VirtioFeatureFlags::VERSION_1;
        features.set(VirtioFeatureFlags::RING_PACKED, packed);
        // Version 0.6 of it loses kicks of packed rings with it: docs/performance.md.
        features.set(VirtioFeatureFlags::RING_EVENT_IDX, !packed);
        let transport =
            VhostUser::<VirtioBlkConfig, VirtioBlkReqBuf>::new(socket, features.bits())?;
        let mut transport: Box<VirtioBlkTransport> = Box::new(transport);
        if packed && transport.get_features() & VirtioFeatureFlags::RING_PACKED.bits() == 0 {
            return Err(std::io::Error::other("the device has no packed rings"));
        }
        let mut queues = VirtioBlkQueue::setup_queues(&mut *transport, 1, QUEUE_SIZE)?;
        let bytes = BLOCK * DEEPEST;
        let region = pages::region(pages, bytes as u64).map_err(std::io::Error::other)?;
        let bytes = region.len() as usize;
        let (memory, _window) = region.into_shared();
        let (file, _) = memory
            .file()
            .ok_or_else(|| std::io::Error::other("memory without a file"))?;
        let file = file.as_raw_fd();
        transport.map_mem_region(memory.hva().as_ptr() as usize, bytes, file, 0)?;
        let mut queue = queues.remove(0);
        queue.set_used_notif_enabled(false);
        Ok(Self {
            queue,
            notifier: transport.get_submission_notifier(0),
            memory,
            _transport: transport,
            random: 1,
        })
    }

    /// Reads blocks at any place, `depth` at a time. Answers how many, in how many nanoseconds, and how many ended as they
    /// should not have.
    fn read(&mut self, depth: usize, time: Duration) -> std::io::Result<String> {
        let mut free: Vec<usize> = (0..depth).collect();
        let mut is_used = [false; DEEPEST];
        let (mut done, mut bad) = (0_u64, 0_u64);
        let begun = Instant::now();
        let mut last = begun;
        let mut is_sending = true;
        let mut passes = 0_u32;
        while is_sending || free.len() < depth {
            if is_sending && !free.is_empty() {
                for place in free.drain(..) {
                    is_used[place] = true;
                    let offset = next(&mut self.random) % (DISK / BLOCK as u64) * BLOCK as u64;
                    let to = self.memory.hva().as_ptr().wrapping_add(place * BLOCK);
                    // SAFETY: a block of shared memory of its own, which outlives the queue.
                    unsafe { self.queue.read_raw(offset, to, BLOCK, place) }?;
                }
                if self.queue.avail_notif_needed() {
                    self.notifier.notify()?;
                }
            }
            let before = free.len();
            for one in self.queue.completions() {
                let was_used = std::mem::replace(&mut is_used[one.context], false);
                bad += u64::from(one.ret != 0 || !was_used);
                done += 1;
                free.push(one.context);
            }
            passes = passes.wrapping_add(1);
            if free.len() == before {
                std::hint::spin_loop();
                if !passes.is_multiple_of(64) {
                    continue;
                }
            }
            if passes.is_multiple_of(16) {
                let now = Instant::now();
                is_sending = now - begun < time;
                if free.len() > before {
                    last = now;
                }
                if now - last > PATIENCE {
                    return Err(std::io::Error::other(format!(
                        "no request came back for {PATIENCE:?}"
                    )));
                }
            }
        }
        Ok(format!("{done} {} {bad}", begun.elapsed().as_nanos()))
    }
}

/// A xorshift generator.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

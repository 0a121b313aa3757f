//! What does a disk's request cost, and which way to a file is faster?
//!
//! First the device alone, on one thread: the same driver (ours) asks for blocks at random places of a disk of 16 MiB in
//! memory, in batches of 32, and only the device's work is timed. Ours is the simulated disk's own unit, with every check
//! that it makes; beside it a loop over rust-vmm's `virtio-queue`, as small as one can be that checks the range, over a
//! `Vec`. Ours over a backend that does nothing shows what of it is not the copy.
//!
//! Then from driver to driver, two threads: memory, and an image by io_uring and by threads. Every answer is checked.

mod rig;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rig::clock::Stopwatch;
use rig::contest::{Contest, Measured, Whose};
use rig::queue::{Arena, BATCH, Place, SLOTS};
use rig::{Run, wrong};
use vdpa::blk::{BlkDriver, Request, Setup};
use vdpa_core::{Bell, Call, CallCell, Features, QueueConfig, QueueIndex, Sleeper, bits};
use vdpa_mem::{Bytes as Span, Iova};
use vdpa_ring::{Completion, DriverMem, DriverRing, Format, RingFeatures, Segment};
use vdpa_sim::Rounds;
use vdpa_sim::blk::{Backend, Blk, Inline, Lane, Memory, Settings};
use vdpa_sim::class::{Class, Desk, Role, Served, Station, Stations, Unit};
use vdpa_sim::queue::Queue;
use virtio_queue::{Queue as PeerQueue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestMemoryMmap};

/// Bytes of the disk.
const DISK: usize = 16 << 20;
/// Bytes of a buffer, and a cache line, so that buffers do not compete for it.
const PITCH: u64 = 4096 + 64 + 64;

fn main() {
    let run = Run::from_args();
    for len in [512, 4096] {
        let arena = Arena::new(64 << 20);
        let title = format!(
            "a disk's device alone, reads of {len} B, queue of {SLOTS}, batches of {BATCH}, one thread"
        );
        let mut contest = Contest::new(title, "request");
        contest.row(Whose::Peer, "virtio-queue loop", theirs(&arena, len));
        for (name, format, null) in [
            ("ours split", Format::Split, false),
            ("ours packed", Format::Packed, false),
            ("ours split, no backend", Format::Split, true),
        ] {
            contest.row(Whose::Ours, name, ours(&arena, format, len, null));
        }
        contest.against("virtio-queue loop");
        contest.run(&run);
    }
    let home = tempfile::tempdir().unwrap_or_else(|e| wrong(&e.to_string()));
    let path = home.path().join("disk.img");
    let content: Vec<u8> = (0..DISK / 512).flat_map(stamp).collect();
    std::fs::write(&path, &content).unwrap_or_else(|e| wrong(&e.to_string()));
    let file = format!("sim:blk,file={},ro=on", path.display());
    for len in [512, 4096] {
        let title = format!("from driver to disk and back, reads of {len} B, 32 at a time");
        let mut contest = Contest::new(title, "request");
        for (name, spec) in [
            ("memory", "sim:blk,size=16M".to_owned()),
            ("image, threads", format!("{file},io=threads")),
            ("image, io_uring", format!("{file},io=uring")),
        ] {
            match whole(&spec, len) {
                Ok(work) => contest.row(Whose::Ours, name, work),
                Err(why) => println!("  {name}: not here: {why}"),
            }
        }
        contest.against("image, threads");
        contest.run(&run);
    }
}

/// What is in a sector: its number, over and over.
fn stamp(sector: usize) -> [u8; 512] {
    let mut bytes = [0; 512];
    for word in bytes.chunks_exact_mut(8) {
        word.copy_from_slice(&(sector as u64).to_le_bytes());
    }
    bytes
}

/// A xorshift generator.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// A driver that asks for blocks at random places.
struct Driver<'m> {
    ring: DriverRing,
    mem: DriverMem<Span<'m>>,
    memory: Span<'m>,
    base: u64,
    len: u32,
    random: u64,
    /// The sector of each request of a batch.
    sectors: [u64; BATCH],
    /// Which of them is in flight under an id.
    owner: [usize; SLOTS as usize],
}

impl<'m> Driver<'m> {
    fn new(arena: &'m Arena, place: Place, format: Format, len: u32) -> Self {
        let ring = DriverRing::new(format, SLOTS, RingFeatures::EVENT_IDX, None);
        let mem = DriverMem::new(place.areas(|at, bytes| {
            let area = arena.span(at, bytes);
            area.zero(0, area.len());
            area
        }));
        let mut ring = ring.unwrap_or_else(|e| wrong(&e.to_string()));
        ring.disarm(&mem);
        Self {
            ring,
            mem,
            memory: arena.window.bytes(),
            base: arena.piece(PITCH * BATCH as u64),
            len,
            random: 88_172_645_463_325_252,
            sectors: [0; BATCH],
            owner: [0; SLOTS as usize],
        }
    }

    /// Adds and shows a batch of reads.
    fn send(&mut self) {
        let sectors = u64::from(self.len / 512);
        for i in 0..BATCH {
            let blocks = (DISK as u64 / 512) / sectors;
            let sector = next(&mut self.random) % blocks * sectors;
            self.sectors[i] = sector;
            let at = self.base + PITCH * i as u64;
            self.memory.store_u32(at as u32, 0);
            self.memory.store_u64(at as u32 + 8, sector);
            let part = |addr: u64, len| Segment {
                addr: Iova::new(addr),
                len,
            };
            // Header, and data with the status behind it.
            let added = self
                .ring
                .add(&self.mem, &[part(at, 16)], &[part(at + 64, self.len + 1)]);
            let id = added.unwrap_or_else(|e| wrong(&e.to_string()));
            self.owner[usize::from(id)] = i;
        }
        std::hint::black_box(self.ring.publish(&self.mem));
    }

    /// Takes all back, and checks them if there is data.
    fn take(&mut self, data: bool) {
        let mut done = [Completion::default(); BATCH];
        let taken = self.ring.take_used(&self.mem, &mut done);
        if taken.unwrap_or_else(|e| wrong(&e.to_string())) != BATCH {
            wrong("requests did not come back");
        }
        for done in done {
            let i = self.owner[usize::from(done.id)];
            let at = self.base + PITCH * i as u64 + 64;
            let mut status = [0xff];
            self.memory
                .read(at as usize + self.len as usize, &mut status);
            let word = self.memory.load_u64(at as u32);
            let right = !data || word == self.sectors[i];
            if status[0] != 0 || done.len != self.len + 1 || !right {
                wrong(&format!("request {i}: status {}, {word}", status[0]));
            }
        }
    }
}

/// Sends batches, and times the device serving them.
fn drive(
    driver: &mut Driver<'_>,
    slice: Duration,
    data: bool,
    mut device: impl FnMut(),
) -> Measured {
    let mut watch = Stopwatch::new();
    let mut requests = 0;
    while watch.ns() < slice.as_nanos() as f64 {
        driver.send();
        watch.time(&mut device);
        driver.take(data);
        requests += BATCH as u64;
    }
    Measured::new(watch.ns(), requests)
}

/// A backend that does nothing.
struct NoData;

impl Backend for NoData {
    fn lane(&self, _: usize, _: &Arc<Bell>) -> Lane {
        Lane::Inline(Box::new(Self))
    }
    fn resize(&self, _: u64) -> io::Result<()> {
        Ok(())
    }
}

impl Inline for NoData {
    fn read(&mut self, _: u64, _: &Span<'_>) -> io::Result<()> {
        Ok(())
    }
    fn write(&mut self, _: u64, _: &Span<'_>) -> io::Result<()> {
        Ok(())
    }
    fn zero(&mut self, _: u64, _: u64, _: bool) -> io::Result<()> {
        Ok(())
    }
    fn discard(&mut self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The simulated disk's unit, served by hand.
fn ours<'a>(
    arena: &'a Arena,
    format: Format,
    len: u32,
    null: bool,
) -> impl FnMut(Duration) -> Measured + 'a {
    let place = arena.queue(format);
    let mut driver = Driver::new(arena, place, format, len);
    let memory = Memory::new(DISK as u64).unwrap_or_else(|e| wrong(&e.to_string()));
    let sleeper = Sleeper::new().unwrap_or_else(|e| wrong(&e.to_string()));
    let bells: Arc<[Arc<Bell>]> = [Bell::new(&sleeper)].into();
    if let (Lane::Inline(mut lane), false) = (memory.lane(1, &bells[0]), null) {
        let at = arena.piece(512) as usize;
        for sector in 0..DISK / 512 {
            arena.window.bytes().write(at, &stamp(sector));
            let span = arena.span(Iova::new(at as u64), 512);
            let wrote = lane.write(sector as u64 * 512, &span);
            wrote.unwrap_or_else(|e| wrong(&e.to_string()));
        }
    }
    let backend: Box<dyn Backend> = match null {
        true => Box::new(NoData),
        false => Box::new(memory),
    };
    let settings = Settings {
        capacity: DISK as u64 / 512,
        queues: 1,
        queue_size: SLOTS,
        blk_size: 512,
        id: [0; 20],
        features: Settings::possible(false),
    };
    let blk = Blk::new(settings, backend);
    let mut features = Features::of(&[bits::VERSION_1, bits::EVENT_IDX, bits::block::FLUSH]);
    if format == Format::Packed {
        features = features.with(bits::RING_PACKED);
    }
    blk.accept(features);
    let mut unit: Box<dyn Unit> = blk.unit(0, &bells);
    let at = |(at, _): (u64, u32)| Iova::new(at);
    let config = QueueConfig::new(
        SLOTS,
        at(place.descriptor),
        at(place.driver),
        at(place.device),
    );
    let call = Arc::new(CallCell::new(Call::None));
    let index = QueueIndex::new(0);
    let role = Role {
        chains: 64,
        ..blk
            .role(index, Some(features))
            .unwrap_or_else(|| wrong("no such queue"))
    };
    let queue = Queue::new(index, &config, features, call, role);
    let queue = queue.unwrap_or_else(|e| wrong(&e.to_string()));
    let mut stations = Stations::default();
    stations[0] = Station::Running(Box::new(queue));
    let mut desk = Desk::new(arena.space.reader(), Arc::new(Rounds::new(1)), 0);
    move |slice| {
        drive(&mut driver, slice, !null, || {
            if unit.serve(&mut stations, &mut desk) != Served::Work {
                wrong("the disk found no request");
            }
        })
    }
}

/// A disk on `virtio-queue`.
fn theirs<'a>(arena: &'a Arena, len: u32) -> impl FnMut(Duration) -> Measured + 'a {
    let place = arena.queue(Format::Split);
    let mut driver = Driver::new(arena, place, Format::Split, len);
    let memory: &GuestMemoryMmap<()> = &arena.guest;
    let disk: Vec<u8> = (0..DISK / 512).flat_map(stamp).collect();
    let mut queue = PeerQueue::new(SLOTS).unwrap_or_else(|e| wrong(&e.to_string()));
    queue.set_size(SLOTS);
    let halves = |(at, _): (u64, u32)| (Some(at as u32), Some((at >> 32) as u32));
    let (low, high) = halves(place.descriptor);
    queue.set_desc_table_address(low, high);
    let (low, high) = halves(place.driver);
    queue.set_avail_ring_address(low, high);
    let (low, high) = halves(place.device);
    queue.set_used_ring_address(low, high);
    queue.set_event_idx(true);
    queue.set_ready(true);
    let mut used = [(0_u16, 0_u32); BATCH];
    move |slice| {
        drive(&mut driver, slice, true, || {
            let mut taken = 0;
            let chains = queue.iter(memory);
            for mut chain in chains.unwrap_or_else(|e| wrong(&e.to_string())) {
                let head = chain.head_index();
                let (Some(header), Some(data)) = (chain.next(), chain.next()) else {
                    wrong("a chain without a header or data");
                };
                let mut raw = [0; 16];
                let read = memory.read_slice(&mut raw, header.addr());
                read.unwrap_or_else(|e| wrong(&e.to_string()));
                let sector = u64::from_le_bytes([8, 9, 10, 11, 12, 13, 14, 15].map(|i| raw[i]));
                let len = data.len() as usize - 1;
                let at = sector as usize * 512;
                let (status, wrote) = match disk.get(at..at + len) {
                    Some(from) if raw[0] == 0 => (0_u8, memory.write_slice(from, data.addr())),
                    _ => (1, Ok(())),
                };
                wrote.unwrap_or_else(|e| wrong(&e.to_string()));
                let place = vm_memory::GuestAddress(data.addr().0 + len as u64);
                let said = memory.write_obj(status, place);
                said.unwrap_or_else(|e| wrong(&e.to_string()));
                used[taken] = (head, len as u32 + 1);
                taken += 1;
            }
            for &(head, len) in &used[..taken] {
                let added = queue.add_used(memory, head, len);
                added.unwrap_or_else(|e| wrong(&e.to_string()));
            }
            let call = queue.needs_notification(memory);
            std::hint::black_box(call.unwrap_or_else(|e| wrong(&e.to_string())));
        })
    }
}

/// A whole device, and our driver of it.
fn whole(spec: &str, len: u32) -> Result<impl FnMut(Duration) -> Measured + use<>, String> {
    let setup = Setup {
        requests: BATCH as u16,
        ..Setup::default()
    };
    let device = vdpa::open(spec).map_err(|e| e.to_string())?;
    let mut disk = BlkDriver::start(device, &setup).map_err(|e| e.to_string())?;
    if !spec.contains("file=") {
        let content: Vec<u8> = (0..DISK / 512).flat_map(stamp).collect();
        disk.write(0, &content).map_err(|e| e.to_string())?;
    }
    let mut random = 1;
    let mut back = vec![0; len as usize];
    let mut work = move |slice: Duration| {
        let begun = Instant::now();
        let (mut requests, mut under_way) = (0, 0);
        while begun.elapsed() < slice {
            while under_way < BATCH {
                let sectors = u64::from(len / 512);
                let sector = next(&mut random) % (DISK as u64 / 512 / sectors) * sectors;
                let len = len as usize;
                let sent = disk.submit(0, sector, Request::Read { sector, len });
                if !sent.unwrap_or_else(|e| wrong(&e.to_string())) {
                    break;
                }
                under_way += 1;
            }
            let shown = disk.publish(0);
            shown.unwrap_or_else(|e| wrong(&e.to_string()));
            loop {
                let came = disk.complete(0, |done| {
                    let read = done.read(&mut back);
                    if read != len as usize || back[..8] != done.tag().to_le_bytes() {
                        wrong(&format!("sector {} was read wrongly", done.tag()));
                    }
                });
                let came = came.unwrap_or_else(|e| wrong(&e.to_string()));
                requests += came as u64;
                under_way -= came;
                if came != 0 {
                    break;
                }
                std::hint::spin_loop();
            }
        }
        while under_way != 0 {
            let came = disk.complete(0, |_| {});
            let came = came.unwrap_or_else(|e| wrong(&e.to_string()));
            (requests, under_way) = (requests + came as u64, under_way - came);
        }
        Measured::new(begun.elapsed().as_nanos() as f64, requests)
    };
    // Every request has been used, and has grown to what it needs.
    work(Duration::from_millis(50));
    Ok(work)
}

//! Nothing is left behind: descriptors, mappings, threads and memory return to where they were. The only test of its
//! process.
//!
//! Some 100000 cycles: 48000 of set-up, run, request and reset on devices that stay open (half of them split, half
//! packed, as many disks as cards), 2000 devices opened and closed with threads of their own, 8000 of each of six ways to be
//! refused (features, a queue that is misaligned, absent or too large, a map, a device string), 2000 damaged images of which
//! at least 1000 are refused, and 1000 queues lost.

use std::sync::Arc;

use vdpa_core::{
    Asid, Call, Device, DeviceImage, FeatureBit, Kick, QueueConfig, QueueIndex, Registry, Status,
};
use vdpa_hostile::exchange::{IN, SECTOR, block_header};
use vdpa_hostile::guard::Arena;
use vdpa_hostile::raw::{Piece, RawQueue};
use vdpa_hostile::stage::{Setup, features, negotiate, run, start};
use vdpa_hostile::watch::{Holdings, Watch, count_panics};
use vdpa_hostile::{soon, until};
use vdpa_mem::{Access, Iova};
use vdpa_ring::Format;
use vdpa_sim::SimMgmt;

/// Set-ups, requests and resets.
const CYCLES: usize = 48_000;
/// Devices that are opened and closed.
const OPENS: usize = 2_000;
/// Refusals of each kind.
const REFUSALS: usize = 8_000;
/// Failures that the device has a part in, of each kind.
const FAILURES: usize = 1_000;
/// KiB that may stay: less than 200 bytes a cycle.
const SLACK: usize = 16 << 10;

/// Where memory is.
const AT: u64 = 0x1000_0000;

/// A device that stays open, its memory, and what its queue is.
struct Bench {
    device: Device,
    arena: Arc<Arena>,
    format: Format,
    net: bool,
    cycles: usize,
}

impl Bench {
    fn new(registry: &Registry, net: bool, format: Format) -> Self {
        let spec = match net {
            true => "sim:net,port=null,crew=all",
            false => "sim:blk,size=64K,crew=all",
        };
        let device = registry.open(spec).expect("a device");
        let arena = Arena::new(AT, 8192, Access::Both);
        let dma = device.dma(Asid::new(0)).expect("a space");
        dma.map(vec![arena.mapping()]).expect("a map");
        Self {
            device,
            arena,
            format,
            net,
            cycles: 0,
        }
    }

    fn negotiate(&self) {
        let features = features(&self.device, self.format, &Setup::PLAIN);
        negotiate(&self.device, features);
    }

    /// Up to a queue that runs.
    fn begin(&mut self) -> RawQueue {
        self.cycles += 1;
        if self.cycles.is_multiple_of(64) {
            // What the arena keeps books of.
            self.arena.renew();
        }
        self.negotiate();
        let mut q = self.queue();
        start(&self.device, &mut q, None);
        run(&self.device);
        q
    }

    fn queue(&self) -> RawQueue {
        RawQueue::new(u16::from(self.net), self.format, 4, (&self.arena, 0), None)
    }

    /// A request, and what becomes of it.
    fn request(&self, q: &mut RawQueue) {
        self.arena
            .put(4096, &[&block_header(IN, 3)[..], &[0; 64]].concat());
        let pieces = match self.net {
            true => vec![Piece::read(self.arena.at(4096), 76)],
            false => vec![
                Piece::read(self.arena.at(4096), 16),
                Piece::write(self.arena.at(6144), SECTOR as u32 + 1),
            ],
        };
        q.send(&pieces);
        q.wait_used("a request");
    }

    fn reset(&self) {
        self.device.reset(soon()).expect("a reset");
    }

    fn start_with(&self, config: QueueConfig, q: u16) -> bool {
        let q = QueueIndex::new(q);
        let started = self.device.start_queue(q, config, Kick::Taken, Call::None);
        started.is_ok()
    }
}

fn check(what: &str, watch: &Watch, before: Holdings) {
    watch.check().unwrap_or_else(|why| panic!("{what}: {why}"));
    let now = Holdings::now();
    assert!(
        now.resident <= before.resident + SLACK,
        "{what}: {before:?} before, {now:?} now"
    );
}

#[test]
fn a_hundred_thousand_cycles_leave_nothing_behind() {
    count_panics();
    let mut registry = Registry::new();
    registry.add(Arc::new(SimMgmt::new()));
    let all = [
        (true, Format::Split),
        (false, Format::Packed),
        (true, Format::Packed),
        (false, Format::Split),
    ];
    let mut benches = all.map(|(net, format)| Bench::new(&registry, net, format));
    // What is made once is made before anything is measured.
    for bench in &mut benches {
        cycles(bench, 500);
    }
    opens(&registry, 20);
    let (watch, before) = (Watch::begin(), Holdings::now());
    for bench in &mut benches {
        cycles(bench, CYCLES / 4);
    }
    check("cycles", &watch, before);
    opens(&registry, OPENS);
    check("opens", &watch, before);
    let bench = &mut benches[3];
    refused_features(bench);
    check("refused features", &watch, before);
    refused_queues(bench);
    check("refused queues", &watch, before);
    refused_maps(bench);
    check("refused maps", &watch, before);
    refused_images(bench);
    check("refused images", &watch, before);
    bad_strings(&registry);
    check("bad strings", &watch, before);
    lost_queues(bench);
    check("lost queues", &watch, before);
}

fn cycles(bench: &mut Bench, count: usize) {
    for _ in 0..count {
        let mut q = bench.begin();
        bench.request(&mut q);
        bench.reset();
    }
}

/// By turns closed and dropped, at once and with a queue that runs.
fn opens(registry: &Registry, count: usize) {
    let arena = Arena::new(AT, 8192, Access::Both);
    for i in 0..count {
        let spec = match i % 2 {
            0 => "sim:net,port=null",
            _ => "sim:blk,size=64K",
        };
        let device = registry.open(spec).expect("a device");
        let _events = device.events().expect("nobody has them yet");
        if i % 4 > 1 {
            let dma = device.dma(Asid::new(0)).expect("a space");
            dma.map(vec![arena.mapping()]).expect("a map");
            negotiate(&device, features(&device, Format::Split, &Setup::PLAIN));
            let mut q = RawQueue::new(0, Format::Split, 4, (&arena, 0), None);
            start(&device, &mut q, None);
            run(&device);
        }
        if i % 8 > 3 {
            drop(device);
        } else if let Err((_, why)) = device.close(soon()) {
            panic!("{why}");
        }
    }
}

fn refused_features(bench: &Bench) {
    let offered = bench.device.offered();
    let foreign = (0..128).filter_map(FeatureBit::new);
    let foreign: Vec<_> = foreign.filter(|bit| !offered.contains(*bit)).collect();
    for bit in foreign.iter().cycle().take(REFUSALS) {
        assert!(bench.device.accept(offered.with(*bit)).is_err());
        assert!(bench.device.write_status(0x0b).is_err());
    }
    bench.reset();
}

/// Misaligned, absent and too large: a thousand of each.
fn refused_queues(bench: &Bench) {
    bench.negotiate();
    let config = bench.queue().config(None);
    let odd = QueueConfig {
        descriptor: Iova::new(AT + 8),
        ..config
    };
    let large = QueueConfig {
        size: 16384,
        ..config
    };
    for _ in 0..REFUSALS {
        assert!(!bench.start_with(odd, 0));
        assert!(!bench.start_with(config, 7));
        assert!(!bench.start_with(large, 0));
    }
    bench.reset();
}

fn refused_maps(bench: &Bench) {
    let dma = bench.device.dma(Asid::new(0)).expect("a space");
    let other = Arena::new(AT + 4096, 4096, Access::Both);
    for _ in 0..REFUSALS {
        assert!(dma.map(vec![other.mapping()]).is_err());
    }
    assert_eq!(dma.mappings().len(), 1);
}

fn refused_images(bench: &mut Bench) {
    let mut q = bench.begin();
    bench.request(&mut q);
    bench.device.suspend(soon()).expect("a suspend");
    let image = bench.device.save().expect("an image").to_bytes();
    bench.reset();
    let mut refused = 0;
    for i in 0..2 * FAILURES {
        let mut damaged = image.clone();
        let at = i % damaged.len();
        damaged[at] ^= 1 << (i / damaged.len() % 8);
        let Ok(parsed) = DeviceImage::parse(&damaged) else {
            refused += 1;
            continue;
        };
        let wire = |_| (Kick::Taken, Call::None);
        refused += usize::from(bench.device.restore(&parsed, wire).is_err());
        bench.reset();
    }
    // Some of it means nothing, and some of it is another device that can be.
    assert!(refused >= FAILURES, "{refused}");
}

fn bad_strings(registry: &Registry) {
    let bad = [
        "",
        "sim",
        "sim:",
        "sim:net,",
        "sim:net,queue_pairs=0",
        "sim:net,queue_pairs=99999999999999999999",
        "sim:blk,size=1",
        "sim:blk,file=/nonexistent/image",
        "sim:net,mac=zz",
        "sim:net,port=null,port=null",
        "other:net",
        "sim:net,crew=",
    ];
    for spec in bad.iter().cycle().take(REFUSALS) {
        assert!(registry.open(spec).is_err(), "{spec}");
    }
}

fn lost_queues(bench: &mut Bench) {
    for _ in 0..FAILURES {
        let mut q = bench.begin();
        // A head, or an id, that is none.
        q.set_avail_entry(0, 77);
        q.set_avail_idx(1);
        q.kick();
        until("NEEDS_RESET", || {
            let status = bench.device.status().expect("a status");
            status.contains(Status::DEVICE_NEEDS_RESET)
        });
        assert!(q.used().is_none());
        bench.reset();
    }
}

//! Section N: memory and threads.

use std::fs::File;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use vdpa_core::{Asid, Call, Device, Error, Event, Kick, Status};
use vdpa_hostile::exchange::{IN, SECTOR, block_header, frame};
use vdpa_hostile::guard::Arena;
use vdpa_hostile::raw::{Piece, RawQueue};
use vdpa_hostile::stage::{Expect, Setup, Stage, features, negotiate, run, start_with};
use vdpa_hostile::suite::{Code, code};
use vdpa_hostile::{soon, until};
use vdpa_mem::{Access, DmaMemory, Iova, IovaRange, Mapping, MemError, Region};

use super::shared;
use super::state::{all_back, fill};

/// The functions of the rows.
pub(crate) const ROWS: &[Code] = &[
    code(149)
        .device(shorter_than_its_region)
        .served(shared::shorter_than_its_region),
    code(150)
        .device(cut_under_traffic)
        .served(shared::cut_under_traffic),
    code(153).device(control_inside_a_call),
    code(154).device(unmapped_while_read),
    code(155).device(call_replaced),
];

/// Where files are mapped.
const FILE: u64 = 0x9000_0000;
/// Bytes of them.
const BYTES: u64 = 16 << 10;
/// Where a device of a row's own has its memory.
const OWN: u64 = 0xa000_0000;

fn file(len: u64) -> File {
    let file = tempfile::tempfile().expect("a file");
    file.set_len(len).expect("its length");
    file
}

fn region(file: &File, len: u64) -> Result<Region, MemError> {
    let file = file.try_clone().expect("a descriptor");
    Region::shared(file.into(), 0, len)
}

fn mapping(memory: &Arc<dyn DmaMemory>, len: u64) -> Mapping {
    Mapping {
        iova: IovaRange::new(Iova::new(FILE), len).expect("a range"),
        memory: Arc::clone(memory),
        offset: 0,
        access: Access::Both,
        dirty: None,
    }
}

fn shorter_than_its_region(s: &mut Stage) -> Expect {
    let short = file(4096);
    // Before it is mapped anywhere.
    for len in [4097, 8192, BYTES, 1 << 40] {
        let made = region(&short, len).map(drop);
        if let Ok(region) = region(&short, len) {
            let (memory, _) = region.into_shared();
            let why = s.dma.map(vec![mapping(&memory, len)]).expect_err("a map");
            assert!(
                matches!(why, Error::Memory(MemError::FileTooShort { .. })),
                "{why}"
            );
        } else {
            assert!(made.is_err());
        }
    }
    // One that was long enough, and is no more.
    let long = file(BYTES);
    let (memory, _) = region(&long, BYTES).expect("long enough").into_shared();
    long.set_len(4096).expect("a cut");
    let before = s.dma.mappings().len();
    for len in [4097, BYTES] {
        let why = s.dma.map(vec![mapping(&memory, len)]).expect_err("a map");
        assert!(
            matches!(why, Error::Memory(MemError::FileTooShort { .. })),
            "{why}"
        );
    }
    assert_eq!(s.dma.mappings().len(), before);
    // What is still there can be mapped.
    s.dma.map(vec![mapping(&memory, 4096)]).expect("a page");
    let range = IovaRange::new(Iova::new(FILE), 4096).expect("a range");
    s.dma.unmap(range, soon()).expect("an unmap");
    s.still_works();
    Expect::Served
}

/// A device of a row's own, served by the thread that serves the others.
struct Own {
    device: Arc<Device>,
    arena: Arc<Arena>,
    q: RawQueue,
}

impl Own {
    /// Running, with its rings and buffers in `arena`.
    fn new(
        s: &Stage,
        spec: &str,
        arena: Arc<Arena>,
        call: impl FnOnce(&Arc<Device>) -> Call,
    ) -> Self {
        let device = Arc::new(s.open(spec));
        let dma = device.dma(Asid::new(0)).expect("a space");
        dma.map(vec![arena.mapping()]).expect("a map");
        negotiate(&device, features(&device, s.format, &Setup::PLAIN));
        let index = u16::from(s.target.is_net());
        let mut q = RawQueue::new(index, s.format, 16, (&arena, 0), None);
        let call = call(&device);
        start_with(&device, &mut q, None, call);
        run(&device);
        arena.open(8192, 8192);
        Self { device, arena, q }
    }

    fn plain(s: &Stage) -> Self {
        let arena = Arena::new(OWN, BYTES as usize, Access::Both);
        Self::new(s, spec(s), arena, |_| Call::None)
    }

    /// A request whose buffers begin at `at`.
    fn send(&mut self, s: &Stage, at: u64) {
        let pieces = if s.target.is_net() {
            vec![Piece::read(at, 76)]
        } else {
            vec![
                Piece::read(at, 16),
                Piece::write(at + 4096, SECTOR as u32 + 1),
            ]
        };
        self.q.send(&pieces);
    }

    /// One that is known to be good.
    fn still_works(&mut self, s: &Stage) {
        if s.target.is_net() {
            self.arena.put(4096, &[0; 12]);
            self.arena.put(4096 + 12, &frame(5, 64));
        } else {
            self.arena.put(4096, &block_header(IN, 3));
        }
        self.send(s, OWN + 4096);
        let back = self.q.wait_used("a device of its own");
        let right = if s.target.is_net() { 0 } else { SECTOR + 1 };
        assert_eq!(back.len as usize, right);
    }

    fn close(self) {
        let device = Arc::into_inner(self.device).expect("nobody else has it");
        if let Err((_, why)) = device.close(soon()) {
            panic!("{why}");
        }
    }
}

/// The string of such a device.
fn spec(s: &Stage) -> &'static str {
    match s.target.is_net() {
        true => "sim:net,port=null,crew=both",
        false => "sim:blk,size=1M,crew=both",
    }
}

fn cut_under_traffic(s: &mut Stage) -> Expect {
    // A buffer in somebody's file, and the rings.
    for rings in [false, true] {
        let file = file(BYTES);
        let (memory, _) = region(&file, BYTES).expect("long enough").into_shared();
        let arena = match rings {
            true => Arena::over(OWN, Arc::clone(&memory), Access::Both),
            false => Arena::new(OWN, BYTES as usize, Access::Both),
        };
        let mut own = Own::new(s, spec(s), arena, |_| Call::None);
        let events = own.device.events().expect("nobody has them yet");
        own.still_works(s);
        if !rings {
            let dma = own.device.dma(Asid::new(0)).expect("a space");
            dma.map(vec![mapping(&memory, BYTES)]).expect("a map");
        }
        file.set_len(0).expect("a cut");
        if rings {
            own.q.kick();
            // Whoever of the two is first to look at it.
            let _zero = own.arena.get(0, 16);
        } else {
            own.send(s, FILE);
        }
        loop {
            match events.wait(soon()) {
                Ok(Some(Event::NeedsReset { queue: None, why })) => {
                    break assert!(why.contains("cut"), "{why}");
                }
                // A ring of zeroes makes no sense, whoever is told of it first.
                Ok(Some(Event::NeedsReset { .. })) if rings => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(memory.is_lost());
        let status = own.device.status().expect("a status");
        assert!(status.contains(Status::DEVICE_NEEDS_RESET), "{status}");
        // Whoever shares its thread is none the wiser.
        s.still_works();
        // Reset, it needs none, but has no queue in memory that is lost.
        own.device.reset(soon()).expect("a reset");
        assert_eq!(own.device.status().expect("a status"), Status::empty());
        if rings {
            negotiate(&own.device, features(&own.device, s.format, &Setup::PLAIN));
            let config = own.q.config(None);
            let started = own
                .device
                .start_queue(own.q.index, config, Kick::Taken, Call::None);
            assert!(matches!(started, Err(Error::AreaNotMapped { .. })));
        }
        own.close();
        let mut new = Own::plain(s);
        new.still_works(s);
        new.close();
    }
    Expect::Served
}

fn control_inside_a_call(s: &mut Stage) -> Expect {
    let calls = Arc::new(AtomicUsize::new(0));
    let wrong = Arc::new(AtomicUsize::new(0));
    let arena = Arena::new(OWN, BYTES as usize, Access::Both);
    let mut own = Own::new(s, spec(s), arena, |device| {
        let (calls, wrong) = (Arc::clone(&calls), Arc::clone(&wrong));
        let device: Weak<Device> = Arc::downgrade(device);
        Call::from_fn(move || {
            let Some(device) = device.upgrade() else {
                return;
            };
            calls.fetch_add(1, Ordering::SeqCst);
            let q = vdpa_core::QueueIndex::new(0);
            let config = vdpa_core::QueueConfig::new(8, Iova::new(0), Iova::new(0), Iova::new(0));
            let all = [
                device.status().map(drop),
                device.write_status(0),
                device.reset(soon()),
                device.suspend(soon()),
                device.resume(),
                device.stop_queue(q, soon()).map(drop),
                device.reset_queue(q, soon()),
                device.replace_call(q, Call::None),
                device
                    .start_queue(q, config, Kick::Taken, Call::None)
                    .map(drop),
                device.read_config(0, &mut []),
                device.save().map(drop),
            ];
            let told = |done: &Result<(), Error>| matches!(done, Err(Error::InsideCall { .. }));
            let missed = all.iter().filter(|done| !told(done)).count();
            wrong.fetch_add(missed, Ordering::SeqCst);
        })
    });
    for _ in 0..50 {
        own.still_works(s);
    }
    until("calls", || calls.load(Ordering::SeqCst) > 0);
    own.device
        .replace_call(own.q.index, Call::None)
        .expect("no call");
    assert_eq!(
        wrong.load(Ordering::SeqCst),
        0,
        "each call is told that it is inside"
    );
    own.still_works(s);
    own.close();
    s.still_works();
    Expect::Served
}

/// Bytes that each request of row 154 reads.
const LONG: u64 = 64 << 10;

fn unmapped_while_read(s: &mut Stage) -> Expect {
    for io in ["auto", "threads"] {
        let image = tempfile::NamedTempFile::new().expect("a file");
        image.as_file().set_len(1 << 20).expect("its length");
        let path = image.path().display();
        let spec = format!("sim:blk,file={path},io={io},crew=both");
        for round in 0..8 {
            let arena = Arena::new(OWN, BYTES as usize, Access::Both);
            let mut own = Own::new(s, &spec, arena, |_| Call::None);
            let target = Arena::new(FILE, 8 * LONG as usize, Access::Both);
            target.open(0, 8 * LONG as usize);
            let dma = own.device.dma(Asid::new(0)).expect("a space");
            dma.map(vec![target.mapping()]).expect("a map");
            own.arena.put(4096, &block_header(IN, 0));
            for i in 0..4 {
                own.q.chain(&[
                    Piece::read(OWN + 4096, 16),
                    Piece::write(FILE + 2 * i * LONG, LONG as u32),
                    Piece::write(OWN + 8192 + i, 1),
                ]);
            }
            own.q.show();
            own.q.kick();
            for _ in 0..round {
                std::thread::yield_now();
            }
            dma.unmap(target.range(), soon()).expect("an unmap");
            let all = || target.get(0, 8 * LONG as usize);
            let before = all();
            std::thread::sleep(Duration::from_millis(2));
            assert!(before == all(), "memory was written after it was unmapped");
            // All of them come back, read or refused, and the disk goes on.
            for _ in 0..4 {
                own.q.wait_used("a request");
            }
            own.still_works(s);
            own.close();
        }
    }
    s.still_works();
    Expect::Served
}

fn call_replaced(s: &mut Stage) -> Expect {
    let mut last = 0;
    for _ in 0..100 {
        fill(s);
        let count = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&count);
        let call = Call::from_fn(move || {
            seen.fetch_add(1, Ordering::SeqCst);
        });
        s.device.replace_call(s.q.index, call).expect("a call");
        assert!(
            count.load(Ordering::SeqCst) >= 1,
            "a new call is raised once"
        );
        fill_more(s);
        s.device
            .replace_call(s.q.index, Call::None)
            .expect("no call");
        assert_eq!(Arc::strong_count(&count), 1, "the old call is gone");
        let now = count.load(Ordering::SeqCst);
        all_back(s);
        let _old = s.arrivals();
        assert_eq!(
            count.load(Ordering::SeqCst),
            now,
            "and is not raised any more"
        );
        last += now;
    }
    assert!(last >= 100);
    Expect::Served
}

/// Takes what is back by now, and has the device go on.
fn fill_more(s: &mut Stage) {
    while s.q.used().is_some() {}
    s.kick();
}

//! Section G: configuration, and maps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use vdpa_core::{Asid, Attr, Error, GroupIndex, LinkState};
use vdpa_hostile::background::Sibling;
use vdpa_hostile::guard::Guarded;
use vdpa_hostile::stage::{BUFFERS, Expect, Stage};
use vdpa_hostile::suite::{Code, code};
use vdpa_hostile::{SOON, soon};
use vdpa_mem::{Access, DmaMemory, Iova, IovaRange, Mapping, MemError};

use super::setup::misuse;

/// The functions of the rows.
pub(crate) const ROWS: &[Code] = &[
    code(87).device(out_of_bounds),
    code(88).device(races),
    code(89).device(no_such_space),
    code(90).device(maps),
];

fn out_of_bounds(s: &mut Stage) -> Expect {
    let (d, size) = (&s.device, s.device.info().config_size);
    let mut whole = vec![0; size as usize];
    d.read_config(0, &mut whole).expect("all of it");
    // Exactly to the end, from everywhere; and nothing at the end.
    for at in 0..=size {
        let mut part = vec![0xee; (size - at) as usize];
        d.read_config(at, &mut part).expect("to the end");
        assert_eq!(part, whole[at as usize..]);
        d.read_config(at, &mut []).expect("nothing");
        d.write_config(at, &[]).expect("nothing");
    }
    let mut beyond = Vec::new();
    for (at, len) in [
        (0, size + 1),
        (size - 1, 2),
        (size, 1),
        (size + 1, 0),
        (size + 1, 1),
        (u32::MAX, 0),
        (u32::MAX, 1),
        // These wrap.
        (u32::MAX, 2),
        (u32::MAX - 3, 8),
        (u32::MAX - size, 2 * size),
    ] {
        beyond.resize(len as usize, 0xee);
        let why = misuse("a read", d.read_config(at, &mut beyond));
        assert!(matches!(why, Error::ConfigBounds { .. }), "{why}");
        assert!(beyond.iter().all(|byte| *byte == 0xee), "nothing is read");
        let why = misuse("a write", d.write_config(at, &beyond));
        assert!(matches!(why, Error::ConfigBounds { .. }), "{why}");
    }
    // What is the device's own: refused or without effect, to the last byte.
    for at in 0..size {
        let before = {
            d.read_config(0, &mut whole).expect("all of it");
            whole.clone()
        };
        let _refused = d.write_config(at, &[!before[at as usize]]);
        let _as_before = d.write_config(at, &[before[at as usize]]);
        d.read_config(0, &mut whole).expect("all of it");
        assert_eq!(whole, before, "byte {at}");
    }
    s.still_works();
    Expect::Served
}

fn races(s: &mut Stage) -> Expect {
    if s.target.is_net() {
        // A link that is down carries nothing, of its sibling queue neither.
        let _over = s.background.leave(Sibling::Queue);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let changer = {
        let (registry, name) = (s.registry().clone(), s.device.info().name.clone());
        let (stop, net) = (Arc::clone(&stop), s.target.is_net());
        std::thread::spawn(move || {
            let mut changes = 0_u64;
            while !stop.load(Ordering::SeqCst) {
                let odd = changes % 2 == 1;
                let attr = match (net, odd) {
                    // All bytes of a field change at once, or none.
                    (false, true) => Attr::Capacity(2048),
                    (false, false) => Attr::Capacity(0x404),
                    (true, true) => Attr::Link(LinkState::Up),
                    (true, false) => Attr::Link(LinkState::Down),
                };
                registry.dev_set("sim", &name, attr).expect("a change");
                changes += 1;
            }
            // As it was.
            let attr = match net {
                false => Attr::Capacity(2048),
                true => Attr::Link(LinkState::Up),
            };
            registry.dev_set("sim", &name, attr).expect("a change");
            changes
        })
    };
    let (mut read, mut unstable, mut news) = (0_u32, 0_u32, 0);
    let mut generation = s.device.config_generation().expect("one");
    let begun = Instant::now();
    while read < 2000 || news < 10 {
        assert!(begun.elapsed() < SOON, "{read} reads, {news} changes seen");
        let mut bytes = [0; 8];
        match s.device.read_config(0, &mut bytes) {
            Ok(()) => read += 1,
            // Told, and not a mix of two.
            Err(Error::ConfigUnstable { .. }) => {
                unstable += 1;
                continue;
            }
            Err(why) => panic!("{why}"),
        }
        if !s.target.is_net() {
            let capacity = u64::from_le_bytes(bytes);
            assert!([2048, 0x404].contains(&capacity), "{capacity:#x}");
        }
        let now = s.device.config_generation().expect("one");
        news += u32::from(now != generation);
        generation = now;
    }
    stop.store(true, Ordering::SeqCst);
    let changes = changer.join().expect("no panic");
    assert!(
        changes > 0 && news > 0,
        "{changes} changes, {news} seen, {unstable} unstable"
    );
    let _news = s.drain();
    if !s.target.is_net() {
        s.still_works();
    }
    Expect::Served
}

fn no_such_space(s: &mut Stage) -> Expect {
    let count = s.device.info().asids;
    for number in [count, count + 1, 0xffff, 0x1_0000, u32::MAX] {
        let why = misuse("a space", s.device.dma(Asid::new(number)));
        assert!(matches!(why, Error::AsidOutOfRange { .. }), "{why}");
        for group in 0..s.device.info().groups {
            let to = (GroupIndex::new(group), Asid::new(number));
            let why = misuse("a group", s.device.assign_group(to.0, to.1));
            assert!(matches!(why, Error::AsidOutOfRange { .. }), "{why}");
        }
    }
    // One that there is, under the feet of a queue that runs.
    let group = s.device.queue_limits(s.q.index).expect("limits").group;
    for number in 1..count {
        let moved = s.device.assign_group(group, Asid::new(number));
        assert!(moved.is_err(), "a queue of the group runs");
    }
    s.still_works();
    Expect::Served
}

/// Where maps of this row are.
const FRESH: u64 = 0x2_0000_0000;
/// Bytes of each.
const PAGE: u64 = 4096;
/// Entries of a flood.
const FLOOD: u64 = 4_000;

fn at(first: u64, len: u64) -> IovaRange {
    IovaRange::new(Iova::new(first), len).expect("a range")
}

fn maps(s: &mut Stage) -> Expect {
    let memory: Arc<dyn DmaMemory> = Arc::new(Guarded::new(PAGE as usize, true));
    let entry = |iova| Mapping {
        iova,
        memory: Arc::clone(&memory),
        offset: 0,
        access: Access::Both,
        dirty: None,
    };
    let before = s.dma.mappings().len();
    let end = s.buffers.end();
    // Over what is there: the first byte, the last, one in between, and around a border.
    for range in [
        at(BUFFERS, 1),
        at(end - 1, 1),
        at(BUFFERS + 5, 7),
        at(BUFFERS - 1, 2),
        at(end - 1, 2),
        at(BUFFERS - PAGE / 2, PAGE),
    ] {
        let why = s.dma.map(vec![entry(range)]).expect_err("an overlap");
        assert!(
            matches!(why, Error::Memory(MemError::Overlap { .. })),
            "{why}"
        );
    }
    // A part of what is there; nothing; and what has no byte, or wraps.
    for range in [
        at(BUFFERS, 1),
        at(BUFFERS, end - BUFFERS - 1),
        at(BUFFERS + 1, end - BUFFERS - 1),
        at(BUFFERS - PAGE, PAGE + 1),
        at(BUFFERS + PAGE, u64::MAX - BUFFERS - PAGE),
        at(0, BUFFERS + 1),
    ] {
        let why = misuse("a part", s.dma.unmap(range, soon()));
        assert!(
            matches!(why, Error::Memory(MemError::Partial { .. })),
            "{why}"
        );
    }
    let why = misuse("nothing", s.dma.unmap(at(FRESH, u64::MAX - FRESH), soon()));
    assert!(
        matches!(why, Error::Memory(MemError::NotMapped { .. })),
        "{why}"
    );
    for (first, len) in [
        (0, 0),
        (FRESH, 0),
        (u64::MAX, 0),
        (u64::MAX, 2),
        (FRESH, u64::MAX),
        // Its last byte would be before its first.
        (FRESH, PAGE.wrapping_neg()),
        (1, u64::MAX.wrapping_add(1)),
    ] {
        let why = IovaRange::new(Iova::new(first), len).expect_err("no range");
        assert!(matches!(why, MemError::Range { .. }), "{why}");
    }
    // More than its memory has.
    let why = s.dma.map(vec![entry(at(FRESH, PAGE + 1))]);
    assert!(
        matches!(why, Err(Error::Memory(MemError::Outside { .. }))),
        "{why:?}"
    );
    assert_eq!(s.dma.mappings().len(), before);
    // A flood, at once and one by one; the last byte of all is legal.
    let flood = (0..FLOOD).map(|i| entry(at(FRESH + 2 * i * PAGE, PAGE)));
    s.dma.map(flood.collect()).expect("all of them");
    for i in FLOOD..FLOOD + 20 {
        s.dma
            .map(vec![entry(at(FRESH + 2 * i * PAGE, PAGE))])
            .expect("one more");
    }
    s.dma
        .map(vec![entry(at(u64::MAX - PAGE + 1, PAGE))])
        .expect("the last page");
    assert_eq!(s.dma.mappings().len(), before + FLOOD as usize + 21);
    s.still_works();
    s.dma
        .unmap(at(FRESH, u64::MAX - FRESH + 1), soon())
        .expect("all of them");
    assert_eq!(s.dma.mappings().len(), before);
    assert_eq!(Arc::strong_count(&memory), 1, "nobody holds the memory");
    s.still_works();
    Expect::Served
}

use super::*;
use crate::{DirtyPages, DmaMemory, Gpa, Region};
use std::time::Duration;

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(20))
}

fn at_once() -> Deadline {
    Deadline::after(Duration::ZERO)
}

fn memory(len: u64) -> Arc<dyn DmaMemory> {
    Arc::new(Region::anonymous(len).unwrap())
}

fn mapping(memory: &Arc<dyn DmaMemory>, iova: u64, offset: u64, len: u64) -> Mapping {
    Mapping {
        iova: IovaRange::new(Iova::new(iova), len).unwrap(),
        memory: Arc::clone(memory),
        offset,
        access: Access::Both,
        dirty: Some(Gpa::new(0x10_0000 + iova)),
    }
}

fn range(first: u64, len: u64) -> IovaRange {
    IovaRange::new(Iova::new(first), len).unwrap()
}

fn reach(space: &AddressSpace, at: u64, len: u32) -> Result<usize, Fault> {
    let mut reader = space.reader();
    let section = reader.enter();
    let bytes = section.translate(Iova::new(at), len, Access::Both, &mut Hint::default());
    bytes.map(|b| b.len())
}

#[test]
fn a_span_over_two_mappings_yields_its_first_part() {
    let space = AddressSpace::new();
    let (a, b) = (memory(0x1000), memory(0x1000));
    let maps = vec![
        mapping(&a, 0x1000, 0, 0x1000),
        mapping(&b, 0x2000, 0, 0x1000),
    ];
    space.map(maps).unwrap();
    assert_eq!(reach(&space, 0x1ffe, 8), Ok(2));
    assert_eq!(reach(&space, 0x2000, 8), Ok(8));
    assert_eq!(reach(&space, 0x2fff, 8), Ok(1));
    assert_eq!(reach(&space, 0x3000, 1), Err(Fault::Miss));
    assert_eq!(reach(&space, 0xfff, 1), Err(Fault::Miss));
    assert_eq!(reach(&space, u64::MAX, 1), Err(Fault::Miss));
}

#[test]
fn mappings_that_go_on_in_the_same_memory_are_one_span() {
    let space = AddressSpace::new();
    let m = memory(0x4000);
    let pages = (0..4).map(|i| mapping(&m, 0x1_0000 + i * 0x1000, i * 0x1000, 0x1000));
    space.map(pages.collect()).unwrap();
    assert_eq!(reach(&space, 0x1_0000, 0x4000), Ok(0x4000));
    // They are still unmapped one by one.
    space.unmap(range(0x1_1000, 0x1000), soon()).unwrap();
    assert_eq!(reach(&space, 0x1_0000, 0x4000), Ok(0x1000));
    assert_eq!(reach(&space, 0x1_1000, 1), Err(Fault::Miss));
}

#[test]
fn a_batch_of_maps_is_all_or_none() {
    let space = AddressSpace::new();
    let m = memory(0x2000);
    space.map(vec![mapping(&m, 0x5000, 0, 0x1000)]).unwrap();
    let batch = vec![mapping(&m, 0, 0, 0x1000), mapping(&m, 0x5fff, 0, 0x1000)];
    assert!(matches!(space.map(batch), Err(MemError::Overlap { .. })));
    let twice = vec![mapping(&m, 0, 0, 0x1000), mapping(&m, 0x800, 0, 0x1000)];
    assert!(matches!(space.map(twice), Err(MemError::Overlap { .. })));
    let outside = vec![
        mapping(&m, 0, 0, 0x1000),
        mapping(&m, 0x9000, 0x1001, 0x1000),
    ];
    assert!(matches!(space.map(outside), Err(MemError::Outside { .. })));
    assert_eq!(space.mappings().len(), 1);
    assert_eq!(reach(&space, 0, 1), Err(Fault::Miss));
}

#[test]
fn a_check_finds_what_is_there_wherever_it_begins_and_ends() {
    let space = AddressSpace::new();
    let memory = memory(0xa000);
    let there = [(2, 2), (4, 1), (7, 2)]
        .map(|(page, pages): (u64, u64)| mapping(&memory, page * 0x1000, 0, pages * 0x1000));
    space.map(there.to_vec()).unwrap();
    for first in 0..10 {
        for pages in 1..=10 - first {
            let new = mapping(&memory, first * 0x1000, 0, pages * 0x1000);
            let over = there.iter().any(|old| old.iova.overlaps(new.iova));
            let checked = space.check_map(&[new]);
            assert_eq!(checked.is_err(), over, "{pages} from {first} on");
        }
    }
}

#[test]
fn what_a_check_takes_is_taken_and_what_it_refuses_is_refused() {
    let space = AddressSpace::new();
    let memory = memory(0x4000);
    let there = mapping(&memory, 0x1000, 0, 0x1000);
    space.map(vec![there.clone()]).unwrap();
    let beside = mapping(&memory, 0x2000, 0, 0x1000);
    let over = mapping(&memory, 0x1800, 0, 0x1000);
    let outside = mapping(&memory, 0x8000, 0x3800, 0x1000);
    space.check_map(std::slice::from_ref(&beside)).unwrap();
    assert!(matches!(
        space.check_map(std::slice::from_ref(&over)),
        Err(MemError::Overlap { .. })
    ));
    assert!(space.check_map(&[beside.clone(), over.clone()]).is_err());
    assert!(matches!(
        space.check_map(std::slice::from_ref(&outside)),
        Err(MemError::Outside { .. })
    ));
    // A replacement has to be apart from itself alone.
    space.check_replace(std::slice::from_ref(&over)).unwrap();
    assert!(space.check_replace(&[over, beside]).is_err());
    assert!(space.check_replace(&[outside]).is_err());
    let mappings = space.mappings();
    assert!(
        mappings.len() == 1 && mappings[0].is_same(&there),
        "nothing changed"
    );
}

#[test]
fn mappings_are_removed_whole() {
    let space = AddressSpace::new();
    let m = memory(0x2000);
    space.map(vec![mapping(&m, 0x1000, 0, 0x2000)]).unwrap();
    let cut = space.unmap(range(0x1000, 0x1000), soon());
    assert!(matches!(cut, Err(MemError::Partial { .. })));
    let absent = space.unmap(range(0x9000, 0x1000), soon());
    assert!(matches!(absent, Err(MemError::NotMapped { .. })));
    assert_eq!(reach(&space, 0x1000, 1), Ok(1));
    space.unmap(range(0, u64::MAX), soon()).unwrap();
    assert_eq!(reach(&space, 0x1000, 1), Err(Fault::Miss));
}

#[test]
fn permissions_are_kept() {
    let space = AddressSpace::new();
    let m = memory(0x1000);
    let mut read_only = mapping(&m, 0, 0, 0x1000);
    read_only.access = Access::DeviceReads;
    space.map(vec![read_only]).unwrap();
    let mut reader = space.reader();
    let section = reader.enter();
    let mut near = Hint::default();
    let mut try_it = |want| section.translate(Iova::new(0), 1, want, &mut near).err();
    assert_eq!(try_it(Access::DeviceReads), None);
    assert_eq!(try_it(Access::DeviceWrites), Some(Fault::Denied));
    assert_eq!(try_it(Access::Both), Some(Fault::Denied));
    let hold = section.hold(Iova::new(0), 1, Access::DeviceWrites);
    assert_eq!(hold.err(), Some(Fault::Denied));
}

#[test]
fn unmap_waits_for_a_section_and_keeps_the_memory_when_it_cannot() {
    let space = AddressSpace::new();
    let m = memory(0x1000);
    space.map(vec![mapping(&m, 0, 0, 0x1000)]).unwrap();
    let weak = Arc::downgrade(&m);
    drop(m);
    let mut reader = space.reader();
    let section = reader.enter();
    let bytes = section
        .translate(Iova::new(0), 4, Access::Both, &mut Hint::default())
        .unwrap();
    let busy = space.unmap(range(0, 0x1000), at_once());
    assert!(matches!(busy, Err(MemError::Busy { .. })));
    // Gone for everybody new, and still alive under the section's feet.
    assert_eq!(reach(&space, 0, 1), Err(Fault::Miss));
    assert_eq!(bytes.write(0, &[1; 4]), 4);
    assert!(weak.upgrade().is_some());
    drop(section);
    // The next change lets it go.
    let other = memory(0x1000);
    space.map(vec![mapping(&other, 0, 0, 0x1000)]).unwrap();
    assert!(weak.upgrade().is_none());
}

#[test]
fn unmap_waits_for_holds() {
    let space = AddressSpace::new();
    let m = memory(0x1000);
    space.map(vec![mapping(&m, 0, 0, 0x1000)]).unwrap();
    let mut reader = space.reader();
    let hold = reader.enter().hold(Iova::new(0xff0), 0x20, Access::Both);
    let hold = hold.unwrap();
    assert_eq!(hold.bytes().len(), 0x10);
    let busy = space.unmap(range(0, 0x1000), at_once());
    assert!(matches!(busy, Err(MemError::Busy { .. })));
    assert_eq!(hold.bytes().write(0, &[7; 0x20]), 0x10);

    space.map(vec![mapping(&m, 0, 0, 0x1000)]).unwrap();
    let hold = reader.enter().hold(Iova::new(0), 4, Access::Both).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| space.unmap(range(0, 0x1000), soon()));
        drop(hold);
        waiting.join().unwrap().unwrap();
    });
}

#[test]
fn a_switch_of_the_log_waits_for_holds() {
    let space = AddressSpace::new();
    let m = memory(0x1000);
    space.map(vec![mapping(&m, 0, 0, 0x1000)]).unwrap();
    let mut reader = space.reader();
    let hold = reader.enter().hold(Iova::new(0), 8, Access::DeviceWrites);
    let hold = hold.unwrap();
    let log = Arc::new(DirtyPages::new(12, 0x200));
    let busy = space.set_dirty_log(Some(log.clone()), at_once());
    assert!(matches!(busy, Err(MemError::Busy { .. })), "{busy:?}");
    hold.bytes().write(0, &[1; 8]);
    drop(hold);
    space.set_dirty_log(Some(log.clone()), soon()).unwrap();
    let hold = reader.enter().hold(Iova::new(0), 8, Access::DeviceWrites);
    hold.unwrap().bytes().write(0, &[1; 8]);
    assert_eq!(log.take(), [0x100]);
}

#[test]
fn what_the_system_wrote_through_a_hold_is_logged_when_it_is_told() {
    let space = AddressSpace::new();
    let m = memory(0x3000);
    space.map(vec![mapping(&m, 0, 0, 0x3000)]).unwrap();
    let log = Arc::new(DirtyPages::new(12, 0x200));
    space.set_dirty_log(Some(log.clone()), soon()).unwrap();
    let hold = |want| {
        let mut reader = space.reader();
        reader.enter().hold(Iova::new(0x800), 0x1000, want).unwrap()
    };
    let hold_to_write = hold(Access::DeviceWrites);
    hold_to_write.wrote(0);
    assert!(log.take().is_empty());
    hold_to_write.wrote(0x800);
    assert_eq!(log.take(), [0x100]);
    hold_to_write.wrote(u64::MAX);
    assert_eq!(log.take(), [0x100, 0x101]);
    hold(Access::DeviceReads).wrote(8);
    assert!(log.take().is_empty(), "it was not held for writing");
}

#[test]
fn what_a_replacement_keeps_keeps_its_holds() {
    let space = AddressSpace::new();
    let (a, b) = (memory(0x1000), memory(0x1000));
    space.map(vec![mapping(&a, 0, 0, 0x1000)]).unwrap();
    let mut reader = space.reader();
    let hold = reader.enter().hold(Iova::new(0), 8, Access::Both).unwrap();
    let both = vec![mapping(&b, 0x1000, 0, 0x1000), mapping(&a, 0, 0, 0x1000)];
    space.replace(both, at_once()).unwrap();
    let busy = space.unmap(range(0, 0x1000), at_once());
    assert!(matches!(busy, Err(MemError::Busy { .. })), "{busy:?}");
    drop(hold);
}

#[test]
fn memory_is_let_go_of_when_unmap_returns() {
    let space = AddressSpace::new();
    let (a, b) = (memory(0x1000), memory(0x1000));
    let weak = Arc::downgrade(&a);
    space.map(vec![mapping(&a, 0, 0, 0x1000)]).unwrap();
    drop(a);
    let mut reader = space.reader();
    let section = reader.enter();
    // Retires a table that has the first mapping, while the section lasts.
    space.map(vec![mapping(&b, 0x1000, 0, 0x1000)]).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| space.unmap(range(0, 0x1000), soon()));
        std::thread::sleep(Duration::from_millis(5));
        drop(section);
        waiting.join().unwrap().unwrap();
    });
    assert!(weak.upgrade().is_none());
}

#[test]
fn what_the_device_may_only_read_cannot_be_written_through() {
    let space = AddressSpace::new();
    let m = memory(0x1000);
    space.map(vec![mapping(&m, 0, 0, 0x1000)]).unwrap();
    let mut reader = space.reader();
    let section = reader.enter();
    let mut near = Hint::default();
    let bytes = section.translate(Iova::new(0), 64, Access::DeviceReads, &mut near);
    let bytes = bytes.unwrap();
    assert!(!bytes.is_writable());
    assert_eq!(bytes.write(0, &[1; 8]), 0);
    assert_eq!(bytes.zero(0, 8), 0);
    bytes.store_u16(0, 1);
    bytes.store_u64_pair(0, [1, 1]);
    assert_eq!(bytes.slice(0, 8).unwrap().write(0, &[1; 8]), 0);
    let hold = section.hold(Iova::new(0), 8, Access::DeviceReads).unwrap();
    assert_eq!(hold.bytes().write(0, &[1; 8]), 0);
    assert_eq!(bytes.load_u64_pair(0), [0, 0]);
}

#[test]
fn every_write_after_the_switch_is_logged_by_guest_address() {
    let space = AddressSpace::new();
    let m = memory(0x4000);
    space.map(vec![mapping(&m, 0x1000, 0, 0x4000)]).unwrap();
    let log = Arc::new(DirtyPages::new(12, 0x200));
    let mut reader = space.reader();
    let write = |reader: &mut Reader, at: u64, len: usize| {
        let section = reader.enter();
        let bytes = section
            .translate(
                Iova::new(at),
                len as u32,
                Access::DeviceWrites,
                &mut Hint::default(),
            )
            .unwrap();
        bytes.write(0, &vec![1; len]);
    };
    write(&mut reader, 0x1000, 4);
    space.set_dirty_log(Some(log.clone()), soon()).unwrap();
    write(&mut reader, 0x2fff, 2);
    {
        let section = reader.enter();
        let cell = section.translate(
            Iova::new(0x4ffe),
            2,
            Access::DeviceWrites,
            &mut Hint::default(),
        );
        cell.unwrap().store_u16(0, 1);
    }
    assert_eq!(log.take(), [0x102, 0x103, 0x104]);
    space.set_dirty_log(None, soon()).unwrap();
    write(&mut reader, 0x1000, 4);
    assert!(log.take().is_empty());
}

#[test]
fn a_stale_hint_is_never_a_wrong_answer() {
    let space = AddressSpace::new();
    let m = memory(0x8000);
    let maps = (0..8).map(|i| mapping(&m, i * 0x2000, i * 0x1000, 0x1000));
    space.map(maps.collect()).unwrap();
    let mut reader = space.reader();
    let mut near = Hint::default();
    for i in (0..8u64).rev().chain(0..8) {
        let section = reader.enter();
        let bytes = section
            .translate(Iova::new(i * 0x2000 + 8), 8, Access::Both, &mut near)
            .unwrap();
        bytes.store_u64(0, i);
        assert_eq!(
            Window::new(m.clone(), i * 0x1000 + 8, 8)
                .unwrap()
                .bytes()
                .load_u64(0),
            i
        );
    }
    space.replace(Vec::new(), soon()).unwrap();
    let section = reader.enter();
    let gone = section.translate(Iova::new(8), 8, Access::Both, &mut near);
    assert_eq!(gone.err(), Some(Fault::Miss));
}

use crate::Window;

#[test]
#[cfg(not(miri))]
fn memory_longer_than_its_file_is_refused_at_map_time() {
    struct Short(Region, Region);
    // SAFETY: it is the first region; the file it names belongs to the second, which is what the test is about.
    unsafe impl DmaMemory for Short {
        fn hva(&self) -> NonNull<u8> {
            self.0.hva()
        }
        fn len(&self) -> u64 {
            DmaMemory::len(&self.0)
        }
        fn file(&self) -> Option<(std::os::fd::BorrowedFd<'_>, u64)> {
            self.1.file()
        }
    }
    let short = Short(
        Region::memfd(0x2000).unwrap(),
        Region::memfd(0x1000).unwrap(),
    );
    let m: Arc<dyn DmaMemory> = Arc::new(short);
    let space = AddressSpace::new();
    let error = space.map(vec![mapping(&m, 0, 0, 0x2000)]).unwrap_err();
    assert!(matches!(
        error,
        MemError::FileTooShort {
            needed: 0x2000,
            file: 0x1000
        }
    ));
    space.map(vec![mapping(&m, 0, 0, 0x1000)]).unwrap();
}

#[test]
fn readers_race_unmap_and_never_see_freed_memory() {
    let rounds = if cfg!(miri) { 10 } else { 2000 };
    let space = AddressSpace::new();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut reader = space.reader();
                let mut near = Hint::default();
                while !stop.load(Ordering::Relaxed) {
                    let section = reader.enter();
                    if let Ok(bytes) = section.translate(Iova::new(0), 8, Access::Both, &mut near) {
                        // Every mapping that is ever published holds this value.
                        assert_eq!(bytes.load_u64(0), 0x5a5a);
                    }
                }
            });
        }
        for _ in 0..rounds {
            let region = Region::anonymous(0x1000).unwrap();
            region.bytes().store_u64(0, 0x5a5a);
            let m: Arc<dyn DmaMemory> = Arc::new(region);
            space.map(vec![mapping(&m, 0, 0, 0x1000)]).unwrap();
            space.unmap(range(0, 0x1000), soon()).unwrap();
            // Nobody is at it now: scribbling is not seen by any reader.
            Window::new(m, 0, 8).unwrap().bytes().store_u64(0, 0xdead);
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn stores_to_cells_are_logged_where_they_land_and_nowhere_else() {
    let space = AddressSpace::new();
    let m = memory(0x4000);
    space.map(vec![mapping(&m, 0, 0, 0x4000)]).unwrap();
    let log = Arc::new(DirtyPages::new(12, 0x200));
    space.set_dirty_log(Some(log.clone()), soon()).unwrap();
    let mut reader = space.reader();
    let section = reader.enter();
    let mut near = Hint::default();
    let all = section.translate(Iova::new(0x800), 0x3000, Access::Both, &mut near);
    let part = all.unwrap().slice(0x800, 0x2800).unwrap();
    assert!(part.is_writable());
    part.store_u16(0x10, 1);
    assert_eq!(log.take(), [0x101]);
    part.store_u64_pair(0x1000, [2, 3]);
    assert_eq!(log.take(), [0x102]);
    part.store_u64_of_pair(0xff8, true, 4);
    assert_eq!(log.take(), [0x102]);
    part.store_u64_of_pair(0xff0, false, 5);
    assert_eq!(log.take(), [0x101]);
    part.store_u32_pair(0x1ffc, [6, 7]);
    assert_eq!(log.take(), [0x102, 0x103]);
    assert_eq!(part.write(0x27fe, &[8; 4]), 2);
    assert_eq!(log.take(), [0x103]);
    assert_eq!(part.load_u16(0x10), 1);
    assert_eq!(part.load_u64_pair(0x1000), [4, 3]);
    assert_eq!(part.load_u64_of_pair(0xff0, false), 5);
    assert_eq!(part.load_u32_pair(0x1ffc), [6, 7]);
    // Outside, half outside, misaligned, empty: nothing is stored, and nothing logged.
    part.store_u32(0x2800, 9);
    part.store_u64_pair(0x27f8, [9, 9]);
    part.store_u32(0x12, 9);
    part.write(0x100, &[]);
    assert!(log.take().is_empty());
    // What was translated for reading is not written, logged or not.
    let read = section.translate(Iova::new(0), 8, Access::DeviceReads, &mut near);
    let read = read.unwrap();
    read.store_u64(0, 1);
    assert_eq!((read.write(0, &[1]), read.is_writable()), (0, false));
    assert!(log.take().is_empty());
}

#[test]
fn each_change_is_told_to_who_watches_until_he_goes() {
    use std::sync::atomic::{AtomicU32, Ordering};

    let space = AddressSpace::new();
    let told = Arc::new(AtomicU32::new(0));
    let watcher = {
        let (told, space) = (Arc::clone(&told), space.clone());
        // Called without a lock: it may look at the space.
        Arc::new(move || {
            told.fetch_add(1 + space.mappings().len() as u32 * 10, Ordering::Relaxed);
        })
    };
    space.watch(&watcher);
    let m = memory(0x1000);
    space.map(vec![mapping(&m, 0x1000, 0, 0x1000)]).unwrap();
    assert_eq!(told.load(Ordering::Relaxed), 11);
    assert!(space.map(vec![mapping(&m, 0x1000, 0, 0x1000)]).is_err());
    assert_eq!(told.load(Ordering::Relaxed), 11, "nothing changed");
    space.unmap(range(0x1000, 0x1000), soon()).unwrap();
    assert_eq!(told.load(Ordering::Relaxed), 12);
    drop(watcher);
    space.map(vec![mapping(&m, 0x1000, 0, 0x1000)]).unwrap();
    assert_eq!(told.load(Ordering::Relaxed), 12);
}

#[test]
fn a_watcher_may_have_another_one_watch() {
    use std::sync::atomic::{AtomicU32, Ordering};

    let space = AddressSpace::new();
    let told = Arc::new(AtomicU32::new(0));
    let inner = {
        let told = Arc::clone(&told);
        Arc::new(move || {
            told.fetch_add(1, Ordering::Relaxed);
        })
    };
    let watcher = {
        let (space, inner) = (space.clone(), Arc::clone(&inner));
        Arc::new(move || space.watch(&inner))
    };
    space.watch(&watcher);
    let m = memory(0x1000);
    space.map(vec![mapping(&m, 0x1000, 0, 0x1000)]).unwrap();
    space.unmap(range(0x1000, 0x1000), soon()).unwrap();
    assert_eq!(told.load(Ordering::Relaxed), 1);
}

#[test]
fn removals_are_counted_and_nothing_else() {
    let space = AddressSpace::new();
    let mut reader = space.reader();
    let m = memory(0x3000);
    let mut removals = || reader.enter().removals();
    space.map(vec![mapping(&m, 0x1000, 0, 0x1000)]).unwrap();
    space.set_dirty_log(None, soon()).unwrap();
    assert!(space.unmap(range(0x5000, 0x1000), soon()).is_err());
    let same = vec![mapping(&m, 0x1000, 0, 0x1000)];
    space.replace(same, soon()).unwrap();
    assert_eq!(removals(), 0);
    space.unmap(range(0x1000, 0x1000), soon()).unwrap();
    assert_eq!(removals(), 1);
    space.map(vec![mapping(&m, 0x1000, 0, 0x1000)]).unwrap();
    space.replace(Vec::new(), soon()).unwrap();
    space.replace(Vec::new(), soon()).unwrap();
    assert_eq!(removals(), 2);
}

/// A guest's ROM, or a pipe that says it is memory.
struct Odd {
    region: Region,
    writable: bool,
    file: Option<std::os::fd::OwnedFd>,
}

// SAFETY: as the region's own promise.
unsafe impl DmaMemory for Odd {
    fn hva(&self) -> NonNull<u8> {
        self.region.hva()
    }
    fn len(&self) -> u64 {
        DmaMemory::len(&self.region)
    }
    fn is_writable(&self) -> bool {
        self.writable
    }
    fn file(&self) -> Option<(std::os::fd::BorrowedFd<'_>, u64)> {
        use std::os::fd::AsFd;
        self.file.as_ref().map(|file| (file.as_fd(), 1 << 40))
    }
}

fn odd(writable: bool, file: Option<std::os::fd::OwnedFd>) -> Arc<dyn DmaMemory> {
    let region = Region::anonymous(0x1000).unwrap();
    Arc::new(Odd {
        region,
        writable,
        file,
    })
}

#[test]
fn memory_that_must_not_be_written_is_mapped_for_reads_alone() {
    let space = AddressSpace::default();
    let rom = odd(false, None);
    for access in [Access::Both, Access::DeviceWrites] {
        let mapping = Mapping {
            access,
            ..mapping(&rom, 0x1000, 0, 0x1000)
        };
        let range = range(0x1000, 0x1000);
        let refused = space.map(vec![mapping]);
        assert!(matches!(refused, Err(MemError::ReadOnly { range: of }) if of == range));
    }
    assert_eq!(
        reach(&space, 0x1000, 1),
        Err(Fault::Miss),
        "nothing was mapped"
    );
    let reads = Mapping {
        access: Access::DeviceReads,
        ..mapping(&rom, 0x1000, 0, 0x1000)
    };
    space.map(vec![reads]).unwrap();
    assert_eq!(reach(&space, 0x1000, 1), Err(Fault::Denied));
    assert_eq!(Fault::Denied.to_string(), "not mapped for this access");
    let reader = space.reader();
    assert!(Arc::ptr_eq(&reader.space().0, &space.0));
}

#[cfg(not(miri))]
#[test]
fn what_is_no_regular_file_has_no_size_that_a_mapping_could_exceed() {
    let (pipe, _other) = nix::unistd::pipe().unwrap();
    let space = AddressSpace::new();
    let far_in = odd(true, Some(pipe));
    space
        .map(vec![mapping(&far_in, 0x1000, 0, 0x1000)])
        .unwrap();
    assert_eq!(reach(&space, 0x1000, 8), Ok(8));
}

#[test]
fn address_space_prints_its_mappings() {
    let space = AddressSpace::new();
    assert_eq!(format!("{space:?}"), "[]");
    space
        .map(vec![mapping(&memory(0x1000), 0x1000, 0, 0x1000)])
        .unwrap();
    assert_eq!(
        format!("{space:?}"),
        "[Mapping { iova: 0x1000..=0x1fff, offset: 0x0, access: Both, dirty: Some(Gpa(0x101000)), .. }]"
    );
}

#[test]
fn address_space_that_is_dropped_lets_go_of_its_memory() {
    let space = AddressSpace::new();
    let m = memory(0x1000);
    space.map(vec![mapping(&m, 0x1000, 0, 0x1000)]).unwrap();
    let reader = space.reader();
    drop(space);
    assert!(Arc::strong_count(&m) > 1, "a reader keeps the space");
    drop(reader);
    assert_eq!(Arc::strong_count(&m), 1);
}

/// Whoever is told that memory is mapped uses it at once: a reader that had begun before found it missing.
#[test]
fn a_mapping_is_not_told_of_before_every_section_can_see_it() {
    let space = AddressSpace::new();
    let mut reader = space.reader();
    let section = reader.enter();
    let told = std::sync::atomic::AtomicBool::new(false);
    let begun = std::time::Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            space
                .map(vec![mapping(&memory(0x1000), 0, 0, 0x1000)])
                .unwrap();
            told.store(true, Ordering::SeqCst);
        });
        // Published, which this section does not see yet.
        while space.mappings().is_empty() {
            std::thread::yield_now();
        }
        let at = section.translate(Iova::new(0), 1, Access::Both, &mut Hint::default());
        assert!(at.is_err());
        // It is told of without this section once that has lasted too long.
        for _ in 0..1000 {
            let is_told = told.load(Ordering::SeqCst);
            let is_long = begun.elapsed() >= super::SECTION;
            assert!(!is_told || is_long, "this section can't use it");
            std::thread::yield_now();
        }
        drop(section);
    });
    assert!(told.load(Ordering::SeqCst));
    assert_eq!(reach(&space, 0, 1), Ok(1));
}

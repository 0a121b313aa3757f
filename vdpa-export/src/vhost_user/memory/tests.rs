use super::*;

use std::time::Duration;

use vdpa_core::{Features, Registry};
use vdpa_mem::Bytes;

const PAGE: u64 = 4096;

fn served() -> Served {
    let mut registry = Registry::new();
    registry.add(Arc::new(vdpa_sim::SimMgmt::new()));
    let device = registry.open("sim:blk,size=1M,page_requests=on").unwrap();
    Served::new(device, Features::NONE, Duration::from_secs(10)).unwrap()
}

/// A file whose every page says in its first byte which one it is.
fn file(pages: u64) -> OwnedFd {
    let region = Region::memfd(pages * PAGE).unwrap();
    for page in 0..pages {
        region.bytes().write((page * PAGE) as usize, &[page as u8]);
    }
    DmaMemory::file(&region)
        .unwrap()
        .0
        .try_clone_to_owned()
        .unwrap()
}

fn region(guest: u64, size: u64, user: u64, offset: u64) -> MemoryRegion {
    MemoryRegion {
        guest,
        size,
        user,
        offset,
    }
}

/// The byte that the device finds at `iova`.
fn at(served: &Served, iova: u64) -> Option<u8> {
    let mut reader = served.dma().mappings().into_iter();
    let iova = Iova::new(iova);
    let mapping = reader.find(|m| m.iova.first() <= iova && iova <= m.iova.last())?;
    let into = iova.get() - mapping.iova.first().get();
    let offset = mapping.offset + into;
    let window = vdpa_mem::Window::new(mapping.memory, offset, 1).unwrap();
    let bytes: Bytes<'_> = window.bytes();
    let mut byte = [0];
    bytes.read(0, &mut byte);
    Some(byte[0])
}

#[test]
fn a_region_begins_where_it_says_in_its_file_also_within_a_page() {
    let (served, mut memory) = (served(), Memory::default());
    let table = vec![
        (region(0x10_0000, 2 * PAGE, 0x7000_0000, PAGE), file(4)),
        (region(0x20_0000, PAGE, 0x8000_0000, 3 * PAGE - 16), file(4)),
    ];
    memory.set(table, &served).unwrap();
    assert_eq!(at(&served, 0x10_0000), Some(1));
    assert_eq!(at(&served, 0x10_0000 + PAGE), Some(2));
    assert_eq!(at(&served, 0x20_0000 + 16), Some(3));
    assert_eq!(memory.place(0x7000_0000), Some(0x10_0000));
    assert_eq!(
        memory.place(0x8000_0000 + PAGE - 1),
        Some(0x20_0000 + PAGE - 1)
    );
    assert_eq!(memory.place(0x8000_0000 + PAGE), None);
    assert_eq!(memory.end(), Gpa::new(0x20_0000 + PAGE));
}

#[test]
fn a_region_is_not_mapped_anew_by_a_table_that_has_it_again() {
    let (served, mut memory) = (served(), Memory::default());
    let (one, two) = (file(1), file(1));
    let first = region(0, PAGE, 0x7000_0000, 0);
    let table = |fd: &OwnedFd| vec![(first, fd.try_clone().unwrap())];
    memory.set(table(&one), &served).unwrap();
    let before = served.dma().mappings();
    memory.set(table(&one), &served).unwrap();
    assert!(served.dma().mappings()[0].is_same(&before[0]));
    // Of another file it is another one.
    memory.set(table(&two), &served).unwrap();
    assert!(!served.dma().mappings()[0].is_same(&before[0]));
}

#[test]
fn a_region_that_is_larger_than_its_file_is_refused() {
    let (served, mut memory) = (served(), Memory::default());
    for (size, offset) in [(2 * PAGE, 0), (PAGE, PAGE), (PAGE, 1), (1, u64::MAX / 2)] {
        let refused = memory.set(vec![(region(0, size, 0, offset), file(1))], &served);
        let why = refused.unwrap_err();
        assert!(matches!(why, MemoryError::Region { .. }), "{why}");
    }
    // To the last byte is legal, wherever that is.
    let short = Region::memfd(PAGE).unwrap();
    let fd = DmaMemory::file(&short)
        .unwrap()
        .0
        .try_clone_to_owned()
        .unwrap();
    memory
        .set(vec![(region(0, PAGE - 1, 0, 1), fd)], &served)
        .unwrap();
}

fn entry(iova: u64, size: u64, user: u64) -> Iotlb {
    Iotlb {
        iova,
        size,
        user,
        access: payload::Access::READ | payload::Access::WRITE,
        kind: payload::IotlbKind::Update,
    }
}

#[test]
fn translations_come_and_go_and_cross_regions_that_touch() {
    let (served, mut memory) = (served(), Memory::default());
    let user = 0x7000_0000;
    let table = vec![
        (region(0x10_0000, 2 * PAGE, user, 0), file(2)),
        (
            region(0x90_0000, 2 * PAGE, user + 2 * PAGE, 2 * PAGE),
            file(4),
        ),
    ];
    memory.set(table, &served).unwrap();
    memory.set_translated(true, &served).unwrap();
    assert!(served.dma().mappings().is_empty());
    let iova = 0xdead_0000;
    memory
        .update(&entry(iova, 4 * PAGE, user), &served)
        .unwrap();
    for page in 0..4 {
        assert_eq!(at(&served, iova + page * PAGE), Some(page as u8));
    }
    let dirty: Vec<_> = served.dma().mappings().iter().map(|m| m.dirty).collect();
    assert!(dirty.contains(&Some(Gpa::new(0x90_0000))));

    // Said again, it is not touched.
    let before = served.dma().mappings();
    memory
        .update(&entry(iova, 4 * PAGE, user), &served)
        .unwrap();
    assert!(
        before
            .iter()
            .zip(served.dma().mappings())
            .all(|(a, b)| a.is_same(&b))
    );

    // Those that are touched go whole.
    memory.invalidate(iova + PAGE, 1, &served).unwrap();
    assert_eq!(at(&served, iova), None);
    assert_eq!(at(&served, iova + 2 * PAGE), Some(2));
    // Over what is there.
    memory
        .update(&entry(iova + 3 * PAGE, PAGE, user), &served)
        .unwrap();
    assert_eq!(at(&served, iova + 2 * PAGE), None);
    assert_eq!(at(&served, iova + 3 * PAGE), Some(0));
    memory.invalidate(0, u64::MAX, &served).unwrap();
    assert!(served.dma().mappings().is_empty());

    let refused = memory.update(&entry(iova, PAGE, user + 4 * PAGE), &served);
    assert!(matches!(refused, Err(MemoryError::Nowhere { .. })));
    memory.set_translated(false, &served).unwrap();
    assert_eq!(at(&served, 0x10_0000), Some(0));
    let refused = memory.update(&entry(iova, PAGE, user), &served);
    assert!(matches!(refused, Err(MemoryError::NotTranslated)));
}

/// As QEMU's IOMMU models have it when a guest switches translation off, or another domain on.
#[test]
fn no_translation_is_left_by_an_invalidation_of_all_addresses() {
    let (served, mut memory) = (served(), Memory::default());
    let user = 0x7000_0000;
    let table = vec![(region(0x10_0000, 2 * PAGE, user, 0), file(2))];
    memory.set(table, &served).unwrap();
    memory.set_translated(true, &served).unwrap();
    for iova in [0, 0xdead_0000] {
        memory.update(&entry(iova, PAGE, user), &served).unwrap();
    }
    memory.invalidate(PAGE, 0, &served).unwrap();
    assert_eq!(at(&served, 0), Some(0));
    assert_eq!(at(&served, 0xdead_0000), None);
    memory.invalidate(0, 0, &served).unwrap();
    assert!(served.dma().mappings().is_empty());
}

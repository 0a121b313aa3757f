use super::*;
use crate::chain::tests::{bytes, header};

const PAGES: u32 = vfio::VFIO_IOMMU_INFO_PGSIZES;
const CAPS: u32 = PAGES | vfio::VFIO_IOMMU_INFO_CAPS;

fn split(value: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = value.to_ne_bytes();
    [
        u32::from_ne_bytes([a, b, c, d]),
        u32::from_ne_bytes([e, f, g, h]),
    ]
}

fn reply(flags: u32, pages: u64, first: u32, rest: &[u32]) -> Vec<u8> {
    let [low, high] = split(pages);
    bytes(&[&[4096, flags, low, high, first, 0], rest].concat())
}

fn ranges(next: u32, list: &[(u64, u64)], count: u32) -> Vec<u32> {
    let list = list
        .iter()
        .flat_map(|(first, last)| [split(*first), split(*last)]);
    let list: Vec<u32> = list.flatten().collect();
    [&header(1, next)[..], &[count, 0], &list].concat()
}

fn iovas(limits: &DmaLimits) -> Vec<(u64, u64)> {
    let ranges = limits.ranges.iter();
    ranges
        .map(|(first, last)| (first.get(), last.get()))
        .collect()
}

#[test]
fn limits_are_read_and_put_in_order() {
    let list = [
        (0xfef0_0000, 0xff_ffff_ffff),
        (0, 0xfedf_ffff),
        (0x1000, 0x2000),
    ];
    let mut rest = ranges(24 + 16 + 48, &list, 3);
    rest.extend(header(3, 0));
    rest.push(65_535);
    let limits = container_limits(&reply(CAPS, 0x4020_1000, 24, &rest)).unwrap();
    assert_eq!(
        iovas(&limits),
        [(0, 0xfedf_ffff), (0xfef0_0000, 0xff_ffff_ffff)]
    );
    assert_eq!((limits.granule, limits.max_entries), (0x1000, Some(65_535)));
}

#[test]
fn an_old_kernel_has_all_addresses_and_no_number_of_entries() {
    let limits = container_limits(&reply(PAGES, 0x1000, 0, &[])).unwrap();
    assert_eq!(iovas(&limits), [(0, u64::MAX)]);
    assert_eq!(limits.max_entries, None);
}

#[test]
fn limits_that_make_no_sense_are_refused() {
    assert_eq!(
        container_limits(&reply(0, 0x1000, 0, &[])),
        Err(ReplyFault::NoPage)
    );
    assert_eq!(
        container_limits(&reply(PAGES, 0, 0, &[])),
        Err(ReplyFault::NoPage)
    );
    let refused = |list: &[(u64, u64)], count| {
        container_limits(&reply(CAPS, 0x1000, 24, &ranges(0, list, count))).unwrap_err()
    };
    assert_eq!(refused(&[], 0), ReplyFault::List { count: 0, room: 0 });
    assert_eq!(
        refused(&[(0, 1)], 9),
        ReplyFault::List { count: 9, room: 1 }
    );
    assert_eq!(
        refused(&[(2, 1)], 1),
        ReplyFault::Range { first: 2, last: 1 }
    );
    let endless = container_limits(&reply(CAPS, 0x1000, 24, &header(8, 24)));
    assert_eq!(endless, Err(ReplyFault::Endless));
}

#[test]
fn ranges_that_touch_are_one_and_the_last_address_wraps_nothing() {
    let all = limits(
        vec![(0, 9), (10, 19), (0x100, u64::MAX), (0x200, 0x300)],
        1,
        None,
    )
    .unwrap();
    assert_eq!(iovas(&all), [(0, 19), (0x100, u64::MAX)]);
}

/// Mappings of a function whose container is a file that answers nothing, behind these limits.
fn mappings(limits: DmaLimits) -> Mappings {
    Mappings {
        name: "0000:01:00.1".to_owned(),
        translator: Translator::Container(tempfile::tempfile().unwrap()),
        limits,
        mapped: Mutex::default(),
    }
}

fn mapping(iova: u64, len: u64, offset: u64) -> Mapping {
    let (memory, _) = vdpa_mem::Region::anonymous(0x4000).unwrap().into_shared();
    Mapping {
        iova: IovaRange::new(Iova::new(iova), len).unwrap(),
        memory,
        offset,
        access: Access::Both,
        dirty: None,
    }
}

#[test]
fn what_the_iommu_cannot_have_is_refused_with_what_it_can() {
    let dma = mappings(limits(vec![(0, 0xffff), (0x2_0000, 0x2_ffff)], 0x1000, None).unwrap());
    for (iova, len, offset) in [
        (0x800, 0x1000, 0),
        (0x1000, 0x800, 0),
        (0x1000, 0x1000, 0x10),
    ] {
        let error = dma.map(&mapping(iova, len, offset)).unwrap_err();
        assert!(
            matches!(
                error,
                VfioError::Granule {
                    granule: 0x1000,
                    ..
                }
            ),
            "{error}"
        );
    }
    for (iova, len) in [(0xf000, 0x2000), (0x1_0000, 0x1000), (0x3_0000, 0x1000)] {
        let error = dma.map(&mapping(iova, len, 0)).unwrap_err();
        assert!(matches!(error, VfioError::Range { .. }), "{error}");
        assert!(error.to_string().contains("0x2ffff"), "{error}");
    }
    let outside = dma.map(&mapping(0x1000, 0x4000, 0x1000)).unwrap_err();
    assert!(matches!(outside, VfioError::Map { .. }), "{outside}");
}

#[test]
fn what_the_kernel_did_not_map_is_not_held_and_not_unmapped() {
    let dma = mappings(limits(vec![(0, u64::MAX)], 0x1000, None).unwrap());
    let m = mapping(0x1000, 0x1000, 0);
    assert!(
        matches!(dma.map(&m), Err(VfioError::Map { .. })),
        "a file is no container"
    );
    assert_eq!(Arc::strong_count(&m.memory), 1);
    assert!(matches!(dma.unmap(&m), Err(VfioError::NotMapped { .. })));
}

#[test]
fn errors_of_the_kernel_say_numbers_and_the_cure() {
    let dma = mappings(limits(vec![(0, u64::MAX)], 0x1000, Some(7)).unwrap());
    let m = mapping(0x1000, 0x1000, 0);
    let said = |errno| {
        let error = dma.refused(&m, io::Error::from_raw_os_error(errno), &BTreeMap::new());
        error.to_string()
    };
    let entries = said(libc::ENOSPC);
    assert!(
        entries.contains("7 in all") && entries.contains("dma_entry_limit"),
        "{entries}"
    );
}

#[test]
fn memory_that_is_short_without_a_limit_is_not_told_to_raise_one() {
    let dma = mappings(limits(vec![(0, u64::MAX)], 0x1000, None).unwrap());
    let said = |lockable| dma.no_memory(4096, 8192, &lockable).to_string();
    let numbers = |text: &str| text.contains("4096 bytes") && text.contains("8192");
    for (lockable, limit) in [
        (Fact::Is(65_536), "is 65536 bytes"),
        (Fact::Absent, "is unknown"),
        (Fact::Unknown("x".to_owned()), "is unknown"),
    ] {
        let text = said(lockable);
        assert!(numbers(&text) && text.contains(limit), "{text}");
        assert!(
            text.contains("ulimit -l") && text.contains("CAP_IPC_LOCK"),
            "{text}"
        );
    }
    let free = said(Fact::Is(u64::MAX));
    assert!(numbers(&free) && free.contains("free"), "{free}");
    assert!(!free.contains("MEMLOCK"), "{free}");
    let m = mapping(0x1000, 0x1000, 0);
    let error = dma.refused(
        &m,
        io::Error::from_raw_os_error(libc::ENOMEM),
        &BTreeMap::new(),
    );
    assert!(
        matches!(
            error,
            VfioError::Memlock { wanted: 4096, .. } | VfioError::NoMemory { wanted: 4096, .. }
        ),
        "{error}"
    );
}

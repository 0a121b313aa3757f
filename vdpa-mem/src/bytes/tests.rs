//! What spans of bytes do within, and at their ends.

use alloc::vec::Vec;
use alloc::{format, vec};

use crate::Region;

#[test]
fn copies_stop_at_the_end() {
    let region = Region::anonymous(4096).unwrap();
    let bytes = region.bytes().slice(0, 10).unwrap();
    assert_eq!(bytes.write(8, &[1, 2, 3]), 2);
    let mut back = [9; 4];
    assert_eq!(bytes.read(7, &mut back), 3);
    assert_eq!(back, [0, 1, 2, 9]);
    assert_eq!(bytes.read(10, &mut back), 0);
    assert_eq!(bytes.read(usize::MAX, &mut back), 0);
    assert_eq!(bytes.zero(0, 100), 10);
}

#[test]
fn an_array_is_written_whole_or_not_at_all() {
    let region = Region::anonymous(4096).unwrap();
    let bytes = region.bytes().slice(0, 20).unwrap();
    assert!(bytes.write_array(8, &[1; 12]));
    assert!(!bytes.write_array(9, &[2; 12]));
    assert!(!bytes.write_array(usize::MAX, &[2; 12]));
    let mut back = [9; 24];
    region.bytes().read(0, &mut back);
    assert_eq!(back[..8], [0; 8]);
    assert_eq!(back[8..20], [1; 12]);
    assert_eq!(back[20..], [0; 4]);
    // SAFETY: the region is mapped, and lives longer.
    let fixed = unsafe { super::Bytes::new(bytes.base, 20, false, None) };
    assert!(!fixed.write_array(0, &[2; 12]), "it may only be read");
}

#[test]
fn copies_between_spans_stop_at_either_end_and_at_what_may_only_be_read() {
    let (from, to) = (
        Region::anonymous(4096).unwrap(),
        Region::anonymous(4096).unwrap(),
    );
    from.bytes().write(0, &[1, 2, 3, 4, 5]);
    let short = to.bytes().slice(0, 6).unwrap();
    assert_eq!(from.bytes().copy_to(1, &short, 3, 100), 3);
    assert_eq!(from.bytes().copy_to(4096, &short, 0, 1), 0);
    assert_eq!(from.bytes().copy_to(0, &short, 6, 1), 0);
    let mut back = [0; 8];
    to.bytes().read(0, &mut back);
    assert_eq!(back, [0, 0, 0, 2, 3, 4, 0, 0]);
    // SAFETY: the region is mapped, and lives longer.
    let fixed = unsafe { super::Bytes::new(short.base, 6, false, None) };
    assert_eq!(from.bytes().copy_to(0, &fixed, 0, 6), 0);
}

#[test]
fn copies_of_every_small_length_are_whole() {
    let region = Region::anonymous(4096).unwrap();
    let bytes = region.bytes();
    for len in 0..300 {
        let from: Vec<u8> = (0..len).map(|i| (i * 7 + len) as u8 | 1).collect();
        bytes.zero(0, 400);
        assert_eq!(bytes.write(3, &from), len);
        let mut back = vec![0; len + 2];
        assert_eq!(bytes.read(3, &mut back), len + 2);
        assert_eq!(back[..len], from);
        assert_eq!(back[len..], [0, 0], "{len} bytes ran over");
        let mut exact = vec![0; len];
        bytes.read(3, &mut exact);
        assert_eq!(exact, from);
    }
}

#[test]
fn pairs_are_two_cells() {
    let region = Region::anonymous(4096).unwrap();
    let bytes = region.bytes().slice(0, 24).unwrap();
    bytes.store_u64_pair(8, [1, 2]);
    assert_eq!((bytes.load_u64(8), bytes.load_u64(16)), (1, 2));
    assert_eq!(bytes.load_u64_pair(8), [1, 2]);
    // Half outside, and misaligned: nothing happens.
    bytes.store_u64_pair(16, [3, 4]);
    bytes.store_u32_pair(2, [5, 6]);
    assert_eq!(bytes.load_u64_pair(16), [0, 0]);
    assert_eq!(bytes.load_u64_pair(0), [0, 1]);
}

#[test]
fn slices_stay_inside() {
    let region = Region::anonymous(4096).unwrap();
    let bytes = region.bytes();
    assert!(bytes.slice(4096, 0).is_some());
    assert!(bytes.slice(4096, 1).is_none());
    assert!(bytes.slice(usize::MAX, 2).is_none());
}

#[test]
fn cells_are_little_endian_and_bounded() {
    let region = Region::anonymous(4096).unwrap();
    let bytes = region.bytes().slice(0, 16).unwrap();
    bytes.store_u32(4, 0x0403_0201);
    let mut back = [0; 4];
    bytes.read(4, &mut back);
    assert_eq!(back, [1, 2, 3, 4]);
    assert_eq!(bytes.load_u16(6), 0x0403);
    assert_eq!(bytes.load_u64(0), 0x0403_0201_0000_0000);
    // Beyond the end, and misaligned: nothing happens.
    bytes.store_u64(12, u64::MAX);
    bytes.store_u16(3, u16::MAX);
    bytes.store_u16(u32::MAX, 1);
    assert_eq!(bytes.load_u64(8), 0);
    assert_eq!(bytes.load_u16(15), 0);
}

#[test]
fn a_span_knows_whether_it_is_empty_and_says_how_long_it_is() {
    let region = Region::anonymous(4096).unwrap();
    let bytes = region.bytes();
    let nothing = bytes.slice(4096, 0).unwrap();
    assert!(nothing.is_empty() && !bytes.is_empty());
    let shown = format!("{bytes:?}");
    assert!(
        shown.starts_with("Bytes(0x") && shown.ends_with(", 0x1000 bytes)"),
        "{shown}"
    );
}

#[test]
fn a_prefetch_changes_nothing_and_faults_nowhere() {
    let region = Region::anonymous(4096).unwrap();
    region.bytes().store_u64(0, 7);
    for (at, len) in [(0, 4096), (0, 8), (4096, 0)] {
        region.bytes().slice(at, len).unwrap().prefetch();
    }
    assert_eq!(region.bytes().load_u64(0), 7);
}

#[test]
fn a_pair_that_does_not_fit_is_read_as_nothing() {
    let region = Region::anonymous(4096).unwrap();
    let bytes = region.bytes().slice(0, 32).unwrap();
    bytes.store_u64(16, 3);
    bytes.store_u64(24, 4);
    for second in [false, true] {
        let whole = bytes.load_u64_of_pair(16, second);
        assert_eq!(whole, if second { 4 } else { 3 });
        // Past the end, and not aligned.
        assert_eq!(bytes.load_u64_of_pair(24, second), 0);
        assert_eq!(bytes.load_u64_of_pair(12, second), 0);
    }
}

#[test]
fn zeroing_a_long_stretch_leaves_what_is_around_it() {
    let region = Region::anonymous(4096).unwrap();
    let bytes = region.bytes();
    for len in [0, 1, 255, 256, 257, 300, 512, 1000] {
        bytes.write(0, &[7; 1200]);
        assert_eq!(bytes.zero(100, len), len);
        let mut back = [0; 1200];
        bytes.read(0, &mut back);
        let zeroed = |at: usize| (100..100 + len).contains(&at);
        for (at, byte) in back.into_iter().enumerate() {
            assert_eq!(
                byte == 0,
                zeroed(at),
                "byte {at} of {len} zeroed from 100 on"
            );
        }
    }
    assert_eq!(bytes.zero(4000, 200), 96, "to the end, and no further");
}

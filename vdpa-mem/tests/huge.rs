//! Regions in huge pages. Where none is free, root reserves one for the test and gives it back.
#![cfg(all(feature = "std", not(any(miri, loom))))]

use std::fs;

use vdpa_mem::{DmaMemory, HugePage, Region};

const RESERVED: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";

fn reserved() -> Option<u64> {
    fs::read_to_string(RESERVED).ok()?.trim().parse().ok()
}

#[test]
fn a_region_in_huge_pages_is_whole_pages_of_zeroed_memory() {
    let before = reserved();
    let mut region = Region::huge(1, HugePage::Size2M);
    if region.is_err()
        && let Some(before) = before
        && fs::write(RESERVED, (before + 1).to_string()).is_ok()
    {
        region = Region::huge(1, HugePage::Size2M);
    }
    match &region {
        Ok(region) => {
            assert_eq!(DmaMemory::len(region), 2 << 20);
            assert_eq!(region.hva().as_ptr() as usize % (2 << 20), 0);
            let mut byte = [1];
            assert_eq!(region.bytes().read((2 << 20) - 1, &mut byte), 1);
            assert_eq!(byte, [0]);
            assert_eq!(region.bytes().write((2 << 20) - 1, &[7, 7]), 1);
            assert!(region.file().is_some());
        }
        Err(error) => {
            let name = "huge::a_region_in_huge_pages_is_whole_pages_of_zeroed_memory";
            println!("SKIP {name}: no huge page is free and none can be reserved: {error}");
        }
    }
    drop(region);
    if let Some(before) = before {
        // Only root can, and only root changed it.
        let _ = fs::write(RESERVED, before.to_string());
    }
}

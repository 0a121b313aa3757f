//! Files that are cut while they are mapped. A process of its own: the handler stays for good.
#![cfg(all(feature = "std", not(miri), not(loom)))]

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::ftruncate;
use vdpa_mem::{DmaMemory, Region, survive_shrinking, watch_losses};

const PAGE: usize = 4096;
/// Says to a copy of this test what it is to do.
const ROLE: &str = "VDPA_SHRINK_TEST";

fn unsealed(pages: usize) -> OwnedFd {
    let file = memfd_create("cut", MFdFlags::MFD_CLOEXEC).unwrap();
    ftruncate(&file, (pages * PAGE) as i64).unwrap();
    file
}

fn map(file: &OwnedFd, pages: usize) -> Region {
    let file = file.try_clone().unwrap();
    Region::shared(file, 0, (pages * PAGE) as u64).unwrap()
}

#[test]
fn a_process_outlives_a_file_that_is_cut_and_is_told_of_it() {
    survive_shrinking().unwrap();
    survive_shrinking().unwrap();
    let told = Arc::new(AtomicU32::new(0));
    let watcher = Arc::new({
        let told = Arc::clone(&told);
        move || {
            told.fetch_add(1, Ordering::SeqCst);
        }
    });
    watch_losses(&watcher);
    let (cut, whole) = (unsealed(4), unsealed(4));
    let (region, other) = (map(&cut, 4), map(&whole, 4));
    region.bytes().write(0, &[1; 4 * PAGE]);
    other.bytes().write(0, &[2; 4 * PAGE]);
    ftruncate(cut.as_fd(), PAGE as i64).unwrap();

    // Loads, copies and stores, behind the end.
    let bytes = region.bytes();
    assert_eq!(bytes.load_u64(3 * PAGE as u32), 0);
    let mut across = [9; 16];
    assert_eq!(bytes.read(PAGE - 8, &mut across), 16);
    assert_eq!(across, [1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    bytes.write(2 * PAGE + 5, &[7]);
    assert_eq!(bytes.load_u64(2 * PAGE as u32), 7 << 40);
    assert!(region.is_lost());

    // Nobody else's.
    assert!(!other.is_lost());
    assert_eq!(other.bytes().load_u16(3 * PAGE as u32), 0x0202);
    let begun = Instant::now();
    while told.load(Ordering::SeqCst) == 0 {
        assert!(begun.elapsed() < Duration::from_secs(10), "nobody was told");
        std::thread::yield_now();
    }
    // Its place in the table is free again, and what comes there is not lost.
    drop(region);
    for _ in 0..5000 {
        assert!(!map(&whole, 4).is_lost());
    }
    // The last one is looked after as the first one was.
    let last = map(&whole, 4);
    ftruncate(whole.as_fd(), PAGE as i64).unwrap();
    assert_eq!(last.bytes().load_u64(3 * PAGE as u32), 0);
    assert!(last.is_lost());
}

/// The mappings of this file that the process has.
fn mappings(of: &str) -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|line| line.contains(of)).count()
}

#[test]
fn a_region_that_is_dropped_is_not_mapped_any_more() {
    let file = memfd_create("dropped", MFdFlags::MFD_CLOEXEC).unwrap();
    ftruncate(&file, 4 * PAGE as i64).unwrap();
    let region = map(&file, 4);
    assert_eq!(mappings("dropped"), 1);
    drop(region);
    assert_eq!(mappings("dropped"), 0);
}

#[test]
fn what_is_not_such_a_region_ends_the_process_as_before() {
    match std::env::var(ROLE).as_deref() {
        Ok("uninstalled") => {}
        Ok(_) => survive_shrinking().unwrap(),
        Err(_) => {
            for role in ["uninstalled", "elsewhere"] {
                let name = "what_is_not_such_a_region_ends_the_process_as_before";
                let own = std::env::current_exe().unwrap();
                let child = Command::new(own)
                    .args(["--exact", name, "--nocapture"])
                    .env(ROLE, role)
                    .output()
                    .unwrap();
                assert_eq!(child.status.signal(), Some(7), "{role}: {child:?}");
            }
            return;
        }
    }
    if std::env::var(ROLE).as_deref() == Ok("uninstalled") {
        let cut = unsealed(2);
        let region = map(&cut, 2);
        ftruncate(cut.as_fd(), 0).unwrap();
        region.bytes().load_u16(0);
    } else {
        // The same signal, from somebody who maps nothing of ours.
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGBUS).unwrap();
        // The handler has put the default back and returned; the next one ends the process.
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGBUS).unwrap();
    }
    unreachable!("the process ended");
}

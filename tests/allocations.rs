//! Once it runs, a disk allocates nothing for a request: neither its device nor its driver.
#![cfg(feature = "sim")]
#![allow(
    unsafe_code,
    reason = "an allocator that counts is made of unsafe functions"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use vdpa::Deadline;
use vdpa::blk::{BlkDriver, Request, Ring, Setup};

/// Counts what is asked of it, in all threads.
struct Counting(AtomicU64);

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        self.0.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(at, layout, len) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting(AtomicU64::new(0));

fn allocations() -> u64 {
    COUNTING.0.load(Ordering::Relaxed)
}

/// Sends `rounds` batches of reads, writes and flushes.
fn work(disk: &mut BlkDriver, rounds: u64) {
    const DATA: [u8; 4096] = [7; 4096];
    for round in 0..rounds {
        for i in 0..16 {
            let sector = (round * 16 + i) % 200 * 8;
            let (data, len) = (&DATA[..], DATA.len());
            let request = match i % 4 {
                0 | 1 => Request::Write { sector, data },
                2 => Request::Read { sector, len },
                _ if i == 15 => Request::Flush,
                _ => Request::WriteZeroes {
                    sector,
                    sectors: 8,
                    unmap: round % 2 == 0,
                },
            };
            assert!(disk.submit(0, i, request).unwrap());
        }
        disk.publish(0).unwrap();
        let by = Deadline::after(Duration::from_secs(10));
        let mut done = 0;
        while done < 16 {
            done += disk.complete(0, |done| done.result().unwrap()).unwrap();
            assert!(!by.expired());
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_request_allocates_nothing() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("disk.img");
    std::fs::write(&path, vec![0; 1 << 20]).unwrap();
    let file = format!("sim:blk,file={}", path.display());
    for spec in [
        "sim:blk,size=1M".to_owned(),
        format!("{file},io=uring"),
        format!("{file},io=threads"),
    ] {
        for ring in Ring::ALL {
            let setup = Setup {
                ring,
                ..Setup::default()
            };
            let device = vdpa::open(&spec).unwrap();
            let mut disk = BlkDriver::start(device, &setup).unwrap();
            // Every job is used, and has grown to what it needs.
            work(&mut disk, 300);
            let before = allocations();
            work(&mut disk, 300);
            let after = allocations();
            assert!(
                after - before < 48,
                "{spec}, {ring}: {} allocations for 4800 requests",
                after - before
            );
        }
    }
}

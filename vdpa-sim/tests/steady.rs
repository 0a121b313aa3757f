//! What steering by hash allocates: counted for the whole process, so this file has one test.
#![expect(
    unsafe_code,
    reason = "an allocator that counts is an allocator, which is unsafe to implement"
)]

mod rig;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use rig::*;
use vdpa_core::bits::net;

/// Counts allocations of the size of a batch: tests allocate little pieces all the time.
struct Counting;

static BATCHES: AtomicUsize = AtomicUsize::new(0);

fn count(size: usize) {
    if size >= 64 << 10 {
        BATCHES.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: all of it is the system's allocator; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps what this function asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as in `alloc`.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: as in `alloc`.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A UDP packet of flow `flow`, without a checksum.
fn packet(flow: u8) -> Vec<u8> {
    let mut frame = vec![0; 300];
    frame[..14].copy_from_slice(&[0x52, 0x54, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9, 8, 0]);
    frame[14..34].copy_from_slice(&[
        0x45, 0, 1, 30, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
    ]);
    frame[34..42].copy_from_slice(&[4, flow, 7, 208, 1, 10, 0, 0]);
    frame
}

#[test]
fn batches_that_go_from_pair_to_pair_are_used_again_and_again() {
    let rig = Lab::new().open("sim:net,queue_pairs=4,workers=2");
    rig.negotiate(with(&rig, false, false, true, false) | net::MQ | net::RSS);
    let mut rx: Vec<_> = (0..4)
        .map(|i| Rx::new(&rig, rig.queue(i * 2, 64), 2048))
        .collect();
    let mut tx: Vec<_> = (0..4)
        .map(|i| Tx::new(&rig, rig.queue(i * 2 + 1, 64), 2048))
        .collect();
    let mut ctrl = Ctrl::new(&rig, rig.queue(8, 8));
    rx.iter_mut().for_each(|rx| rx.post(64));
    rig.run();
    let mut rss = vec![
        4, 1, 0x3f, 0, 0, 0, 3, 0, 0, 0, 0, 0, 1, 0, 2, 0, 3, 0, 4, 0, 40,
    ];
    rss.extend((0..40).map(|i: u8| i.wrapping_mul(37) ^ 0x5d));
    assert_eq!(ctrl.command(&rss), 0);
    let frames: Vec<_> = (0..64).map(packet).collect();
    let mut round = |rx: &mut Vec<Rx>| {
        for tx in &mut tx {
            let mut sent = 0;
            until("sending", || {
                sent += tx.send(&frames[sent..]);
                for rx in rx.iter_mut() {
                    rx.poll();
                    rx.got.clear();
                    rx.headers.clear();
                    rx.buffers_used.clear();
                }
                sent == frames.len()
            });
        }
    };
    // Until as many are about as are ever under way.
    let mut quiet = 0;
    for _ in 0..10_000 {
        let before = BATCHES.load(Ordering::Relaxed);
        round(&mut rx);
        let more = BATCHES.load(Ordering::Relaxed) - before;
        quiet = if more == 0 { quiet + 1 } else { 0 };
        if quiet == 500 {
            break;
        }
    }
    assert_eq!(quiet, 500, "it goes on allocating");
    for pair in 0..4 {
        let name = format!("queue{}.packets", pair * 2);
        assert!(rig.stat(&name) > 1000, "{name}");
    }
}

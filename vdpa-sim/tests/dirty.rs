//! Every write of a device is in the dirty log, in vhost's layout, before the driver can rely on it.
#![allow(
    unsafe_code,
    reason = "reads the log as its other side does, by exchanging its words"
)]

mod rig;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rig::{Lab, Q, REGION, Rig, Rx, Tx, soon, until, with};
use vdpa_core::bits;
use vdpa_mem::{Access, DmaMemory, Gpa, Mapping, Region, VhostLog};
use vdpa_ring::{Pos, QueueState};

/// Where the region is for the guest; not where it is for the device.
const GUEST: u64 = 0x20_0000;
const PAGE: u64 = 4096;

/// The log, from the reader's side.
struct Log(Arc<dyn DmaMemory>);

impl Log {
    /// A log that is switched on, of a region that is mapped with guest addresses.
    fn on(rig: &Rig) -> Self {
        let mapping = Mapping {
            iova: Rig::range(),
            memory: rig.memory.clone(),
            offset: 0,
            access: Access::Both,
            dirty: Some(Gpa::new(GUEST)),
        };
        rig.dma.replace(vec![mapping], soon()).unwrap();
        let bytes = VhostLog::bytes_for(Gpa::new(GUEST + REGION));
        let (memory, window) = Region::memfd(bytes).unwrap().into_shared();
        let log = Arc::new(VhostLog::new(window).unwrap());
        rig.dma.set_dirty_log(Some(log), soon()).unwrap();
        Self(memory)
    }

    fn words(&self) -> impl Iterator<Item = (u64, &AtomicU64)> {
        let base = self.0.hva().cast::<AtomicU64>();
        let words = (self.0.len() / 8) as usize;
        (0..words).map(move |i| {
            // SAFETY: inside the memory.
            let word = unsafe { base.add(i) };
            // SAFETY: aligned, alive as long as `self`, and shared only as atomics.
            (i as u64 * 64, unsafe { word.as_ref() })
        })
    }

    /// Takes the pages of the region that are marked.
    fn take(&self) -> Vec<u64> {
        let mut pages = Vec::new();
        for (first, word) in self.words() {
            let bits = word.swap(0, Ordering::Acquire);
            pages.extend(
                (0..64)
                    .filter(|bit| bits >> bit & 1 == 1)
                    .map(|bit| first + bit),
            );
        }
        let guest = GUEST / PAGE;
        assert!(pages.iter().all(|page| *page >= guest), "{pages:?}");
        pages.iter().map(|page| page - guest).collect()
    }

    /// Whether the page of the region with the byte at `at` is marked.
    fn has(&self, at: u64) -> bool {
        let page = (GUEST + at) / PAGE;
        let (_, word) = self.words().nth((page / 64) as usize).unwrap();
        word.load(Ordering::Acquire) >> (page % 64) & 1 == 1
    }
}

fn copy(rig: &Rig, page: u64, to: &mut [u8]) {
    let at = (page * PAGE) as usize;
    rig.bytes().read(at, &mut to[at..at + PAGE as usize]);
}

/// A queue whose areas are several pages, at a place where its indices are not on the page of what it uses.
fn queue(rig: &Rig, q: u16, packed: bool) -> Q {
    let (avail, used) = (900, Some(900));
    let at = Pos {
        index: 900,
        wrap: true,
    };
    let state = match packed {
        true => QueueState::Packed {
            avail: at,
            used: at,
        },
        false => QueueState::Split { avail, used },
    };
    let queue = rig.queue_from(q, 1024, Some(state));
    if !packed {
        let [_, driver, device] = queue.areas();
        for area in [driver, device] {
            rig.bytes().store_u16(area as u32 + 2, avail);
        }
    }
    queue
}

/// A copy of the memory that is kept up by the log alone is the memory.
fn kept_up(packed: bool, merge: bool, event_idx: bool, in_order: bool) {
    let lab = Lab::new();
    let rig = lab.open("sim:net");
    let log = Log::on(&rig);
    rig.negotiate(with(&rig, packed, merge, event_idx, in_order));
    let (rx, tx) = (queue(&rig, 0, packed), queue(&rig, 1, packed));
    let (mut rx, mut tx) = (Rx::new(&rig, rx, 700), Tx::new(&rig, tx, 2048));
    rig.run();
    // What is used of the region.
    let end = rig.alloc(1).next_multiple_of(PAGE);
    let mut pages = 0;
    for round in 0..6_u8 {
        rig.device.suspend(soon()).unwrap();
        rx.post(64);
        rx.q.arm();
        let len = if merge { 1400 } else { 600 };
        let frames: Vec<Vec<u8>> = (0..20_u8)
            .map(|i| [&[0xff; 14][..], &vec![round ^ i; len]].concat())
            .collect();
        assert_eq!(tx.send(&frames), 20);
        tx.q.arm();
        // The driver writes nothing from here on.
        log.take();
        let mut shadow = vec![0; end as usize];
        (0..end / PAGE).for_each(|page| copy(&rig, page, &mut shadow));
        let got = rx.got.len();
        let calls = rig.total("packets");
        rig.device.resume().unwrap();
        until("frames", || rig.total("packets") == calls + 40);
        rig.device.suspend(soon()).unwrap();
        for page in log.take() {
            copy(&rig, page, &mut shadow);
            pages += 1;
        }
        let mut all = vec![0; end as usize];
        rig.bytes().read(0, &mut all);
        let page = PAGE as usize;
        let mut both = shadow.chunks(page).zip(all.chunks(page));
        let other = both.position(|(copy, own)| copy != own);
        assert_eq!(other, None, "a page that was written and not logged");
        rig.device.resume().unwrap();
        until("frames", || {
            rx.poll();
            tx.reap();
            rx.got.len() == got + 20 && tx.in_flight() == 0
        });
    }
    assert!(pages > 6 * 4, "{pages}");
    // Not everything is marked.
    assert!(pages < 6 * 40, "{pages}");
    rig.close();
}

#[test]
fn a_copy_that_is_kept_up_by_the_log_is_the_memory() {
    for bits in 0..16 {
        let has = |bit: u8| bits & bit != 0;
        kept_up(has(1), has(2), has(4), has(8));
    }
}

#[test]
fn what_the_driver_sees_used_is_in_the_log() {
    for packed in [false, true] {
        let lab = Lab::new();
        let rig = lab.open("sim:net");
        let log = Log::on(&rig);
        rig.negotiate(with(&rig, packed, false, false, false).without(bits::INDIRECT_DESC));
        let (mut rx, mut tx) = (rig.queue(0, 8), rig.queue(1, 8));
        rig.run();
        // On pages of their own, so that nothing else marks them.
        let page = || rig.alloc(2 * PAGE as usize).next_multiple_of(PAGE);
        let (from, to) = (page(), page());
        for round in 0..200_u8 {
            rig.bytes().write(from as usize, &[0; 12]);
            rig.bytes().write(from as usize + 12, &[round; 80]);
            rx.add(&[], &[(to, 2000)]).unwrap();
            rx.publish();
            tx.add(&[(from, 92)], &[]).unwrap();
            tx.publish();
            rx.wait_used(1);
            // At once, while the device goes on.
            assert!(log.has(to), "round {round}");
            tx.wait_used(1);
            assert!(!log.has(from), "what is read is not marked");
            rig.device.suspend(soon()).unwrap();
            log.take();
            rig.device.resume().unwrap();
        }
    }
}

#[test]
fn after_the_log_is_switched_off_nothing_is_marked() {
    let lab = Lab::new();
    let rig = lab.open("sim:net");
    let log = Log::on(&rig);
    rig.negotiate(with(&rig, true, false, true, false));
    let (rx, tx) = (rig.queue(0, 64), rig.queue(1, 64));
    let (mut rx, mut tx) = (Rx::new(&rig, rx, 700), Tx::new(&rig, tx, 2048));
    rig.run();
    rx.post(32);
    for round in 0..20 {
        rig.dma.set_dirty_log(None, soon()).unwrap();
        log.take();
        tx.send(&vec![vec![0xff; 100]; 10]);
        until("frames", || {
            rx.poll();
            rx.got.len() == 10 * (round + 1)
        });
        assert!(log.take().is_empty());
    }
}

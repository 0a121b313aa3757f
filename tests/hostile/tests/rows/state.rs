//! Section G: what is in flight while the driver turns to something else.

use vdpa_core::{Error, Status, bits};
use vdpa_hostile::guard::Arena;
use vdpa_hostile::stage::{BUFFERS, Expect, Stage, negotiate, run, start};
use vdpa_hostile::suite::{Code, code};
use vdpa_hostile::table::Target;
use vdpa_hostile::{raw::RawQueue, soon, until};
use vdpa_ring::{Format, QueueState};

use super::setup::{misuse, reset, restart};

/// The functions of the rows.
pub(crate) const ROWS: &[Code] = &[
    code(80).device(kicks_at_the_wrong_time),
    code(81).device(reset_in_flight),
    code(82).device(unmapped_in_flight),
    code(83).device(queue_reset_in_flight),
    code(84).device(suspended_twice),
    code(86).device(stale_base),
];

/// Shows requests until the queue is full, and kicks; nothing is waited for.
pub(crate) fn fill(s: &mut Stage) {
    for i in 0..usize::from(s.q.size) / 2 {
        let request = s.request_at(2 * i, 32 + 2 * i);
        s.q.chain(&request.pieces());
        s.q.show();
    }
    s.kick();
}

/// What the device could write to.
fn snapshot(s: &Stage) -> Vec<Vec<u8>> {
    let all = |arena: &Arena| arena.get(0, (arena.end() - arena.at(0)) as usize);
    vec![all(&s.rings), all(&s.buffers)]
}

/// Nothing of it changes, whatever the old doorbell does.
fn stays(s: &Stage, why: &str) {
    let before = snapshot(s);
    for _ in 0..50 {
        s.q.kick();
        std::thread::yield_now();
    }
    std::thread::sleep(std::time::Duration::from_millis(2));
    assert!(before == snapshot(s), "memory was written {why}");
}

/// All of the device again, but for its sibling queue.
fn begin(s: &mut Stage) {
    negotiate(&s.device, s.features());
    restart(s);
    run(&s.device);
}

fn kicks_at_the_wrong_time(s: &mut Stage) -> Expect {
    reset(s);
    stays(s, "after a reset");
    negotiate(&s.device, s.features());
    stays(s, "before the queue was there");
    restart(s);
    let request = s.request();
    s.q.chain(&request.pieces());
    s.q.show();
    let index = s.q.index;
    stays(s, "before DRIVER_OK");
    assert_eq!(s.q.used(), None);
    run(&s.device);
    s.q.kick();
    if s.target != Target::Rx {
        let back = s.back();
        assert_eq!(s.q.returned, 1, "{back:?}");
    }
    // The same doorbell after a reset, with a ring that was shown meanwhile.
    s.device.reset(soon()).expect("a reset");
    s.q.chain(&request.pieces());
    s.q.show();
    stays(s, "after a reset");
    // And from a doorbell of two resets ago, while there is a new queue of that number.
    let old = s.q.doorbell.clone();
    begin(s);
    for _ in 0..100 {
        old.ring(index.get().into());
    }
    assert_eq!(s.q.used(), None, "nothing was shown");
    Expect::Over
}

fn reset_in_flight(s: &mut Stage) -> Expect {
    fill(s);
    for round in 0..10 {
        // Some at once, some while the device is at it.
        for _ in 0..round % 7 {
            std::thread::yield_now();
        }
        reset(s);
        assert_eq!(s.status(), Status::empty());
        stays(s, "after a reset");
        begin(s);
        fill(s);
    }
    Expect::Over
}

/// Waits until everything shown is back, or the queue is lost.
pub(crate) fn all_back(s: &mut Stage) {
    until("all chains, or NEEDS_RESET", || {
        while s.q.used().is_some() {}
        s.stir();
        // A sender waits for a receiver that has no buffers left.
        let _old = s.arrivals();
        s.q.returned >= s.q.shown || s.is_lost()
    });
}

fn unmapped_in_flight(s: &mut Stage) -> Expect {
    for round in 0..10 {
        fill(s);
        for _ in 0..round % 7 {
            std::thread::yield_now();
        }
        // A request's memory: it was served, or comes back refused.
        s.dma.unmap(s.buffers.range(), soon()).expect("an unmap");
        let all = |s: &Stage| s.buffers.get(0, (s.buffers.end() - BUFFERS) as usize);
        let before = all(s);
        std::thread::sleep(std::time::Duration::from_millis(1));
        assert!(before == all(s), "memory was written after it was unmapped");
        s.dma.map(vec![s.buffers.mapping()]).expect("a map");
        all_back(s);
        assert!(!s.is_lost(), "{:?}", s.drain());
        // What was sent and went nowhere must not be taken for what comes next.
        let _old = s.arrivals();
    }
    if s.target != Target::Tx {
        s.still_works();
    }
    // The areas of the queue itself.
    fill(s);
    s.dma.unmap(s.rings.range(), soon()).expect("an unmap");
    let before = snapshot(s);
    (0..20).for_each(|_| s.kick());
    std::thread::sleep(std::time::Duration::from_millis(2));
    assert!(
        before == snapshot(s),
        "memory was written after it was unmapped"
    );
    s.dma.map(vec![s.rings.mapping()]).expect("a map");
    Expect::Over
}

fn queue_reset_in_flight(s: &mut Stage) -> Expect {
    assert!(s.features().contains(bits::RING_RESET));
    for round in 0..10 {
        fill(s);
        for _ in 0..round % 7 {
            std::thread::yield_now();
        }
        s.device.reset_queue(s.q.index, soon()).expect("a reset");
        stays(s, "after a queue reset");
        let why = misuse("again", s.device.reset_queue(s.q.index, soon()));
        assert!(matches!(why, Error::QueueNotStarted { .. }), "{why}");
        restart(s);
    }
    // The sibling queue went on all the time; so does this one.
    let _old = s.arrivals();
    if s.target == Target::Rx {
        // What came meanwhile is in the pipe.
        fill(s);
        all_back(s);
    } else if s.target != Target::Tx {
        s.still_works();
    } else {
        fill(s);
        all_back(s);
    }
    Expect::Served
}

fn suspended_twice(s: &mut Stage) -> Expect {
    misuse("a resume", s.device.resume());
    misuse("a look", s.device.poll_suspend());
    misuse("a state", s.device.queue_state(s.q.index));
    for _ in 0..10 {
        s.device.suspend(soon()).expect("a suspend");
        s.device.suspend(soon()).expect("the same");
        s.device.begin_suspend().expect("the same");
        let _state = s.device.queue_state(s.q.index).expect("a state");
        let start = s.device.start_queue(
            s.q.index,
            s.q.config(None),
            vdpa_core::Kick::Taken,
            vdpa_core::Call::None,
        );
        misuse("a queue", start);
        stays(s, "while suspended");
        // Once for all of them.
        s.device.resume().expect("a resume");
        misuse("a second resume", s.device.resume());
        s.still_works();
    }
    // By the driver, on top of the owner's.
    let live = s.status().bits();
    let suspended = (live & !0x04) | Status::SUSPEND.bits();
    if s.features().contains(bits::SUSPEND) {
        s.device.write_status(suspended).expect("a suspend");
        until("SUSPEND", || s.status().bits() == suspended);
        s.device.write_status(suspended).expect("the same");
        s.device.suspend(soon()).expect("by its owner too");
        s.device.write_status(live).expect("a resume");
        stays(s, "while its owner holds it");
        s.device.resume().expect("a resume");
        s.device.write_status(live).expect("what it is");
    } else {
        misuse("SUSPEND", s.device.write_status(live | suspended));
    }
    s.still_works();
    Expect::Served
}

fn stale_base(s: &mut Stage) -> Expect {
    for _ in 0..3 {
        s.still_works();
    }
    let stale = s.device.stop_queue(s.q.index, soon()).expect("a stop");
    let first = match s.format {
        Format::Split => matches!(stale, QueueState::Split { avail: 3, .. }),
        Format::Packed => matches!(stale, QueueState::Packed { avail, .. } if avail.index != 0),
    };
    assert!(first, "{stale:?}");
    // A fresh ring is begun at its beginning: the device keeps nothing of before.
    reset(s);
    begin(s);
    if s.target != Target::Tx {
        let request = s.request();
        s.send(&request.pieces());
        let back = s.back();
        s.verify(&request, back.len);
    }
    // The stale base with a fresh ring: it is lost, or waits; nothing but its ring is looked at.
    s.device.reset(soon()).expect("a reset");
    negotiate(&s.device, s.features());
    let (index, size) = (s.q.index.get(), s.setup.size);
    let mut q = RawQueue::new(index, s.format, size, (&s.rings, 0), None);
    start(&s.device, &mut q, Some(stale));
    s.q = q;
    run(&s.device);
    let buffers = s.buffers.get(0, 64 << 10);
    (0..10).for_each(|_| s.q.kick());
    if s.format == Format::Split {
        // `avail.idx` is behind where the device is told to go on.
        until("NEEDS_RESET", || s.is_lost());
    } else {
        assert_eq!(s.back_or_lost_or_neither(), None);
    }
    assert!(buffers == s.buffers.get(0, 64 << 10));
    Expect::Over
}

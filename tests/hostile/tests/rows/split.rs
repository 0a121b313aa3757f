//! Section D: indices of the split ring.

use std::sync::atomic::Ordering;

use vdpa_hostile::raw::Piece;
use vdpa_hostile::stage::{Expect, Setup, Stage};
use vdpa_hostile::suite::{Code, code};
use vdpa_hostile::table::Target;
use vdpa_hostile::until;
use vdpa_hostile::watched::{Bench, Which};
use vdpa_ring::{Format, QueueState, RingError, RingFeatures, layout};

/// The functions of the rows.
pub(crate) const ROWS: &[Code] = &[
    code(39).ring(ring_jumps).device(jumps),
    code(40).ring(ring_goes_back).device(goes_back),
    code(41)
        .ring(ring_wraps)
        .device_with(|_, _| Setup::PLAIN.from(0xfff9), wraps),
    code(42).ring(ring_scribbled).device(scribbled),
    code(43)
        .ring(ring_events)
        .device_with(|_, _| Setup::PLAIN.event_idx(), events),
    code(44)
        .ring(ring_of_one)
        .device_with(|_, _| Setup::PLAIN.size(1), of_one),
];

/// A ring in which `flying` chains were taken and not given back.
fn flying(format: Format, flying: u16) -> Bench {
    let mut b = Bench::new(format);
    let at = b.tables().1;
    for _ in 0..flying {
        b.q.chain(&[Piece::read(at, 1)]);
    }
    b.q.show();
    assert_eq!(b.take().map(|taken| taken.len()), Ok(flying.into()));
    b.memory.clear();
    b
}

/// Whether the index is what was refused.
fn is_jump(to: u16) -> impl Fn(&RingError) -> bool {
    move |e| matches!(e, RingError::AvailJump { to: t, size: 8, .. } if *t == to)
}

fn ring_jumps(format: Format) {
    for in_flight in [0, 1, 7, 8] {
        // As many as there are may be new, and no more.
        for by in [9 - in_flight, 9, 0x7fff, 0x8000] {
            let mut b = flying(format, in_flight);
            let to = b.q.avail.wrapping_add(by);
            b.q.set_avail_idx(to);
            b.malformed(is_jump(to));
        }
        let mut b = flying(format, in_flight);
        b.q.set_avail_idx(8);
        assert_eq!(
            b.take().map(|taken| taken.len()),
            Ok(usize::from(8 - in_flight))
        );
    }
}

fn jumps(s: &mut Stage) -> Expect {
    let by = match s.target {
        Target::Tx => s.q.size + 1,
        Target::Rx => 0x7fff,
        Target::Ctrl => 0x8000,
        Target::Blk => 100,
    };
    s.q.set_avail_idx(s.q.avail.wrapping_add(by));
    s.kick();
    Expect::Lost("avail.idx is")
}

fn ring_goes_back(format: Format) {
    for in_flight in [0, 1, 8] {
        for by in [1, 2, 8, 0x7fff] {
            let mut b = flying(format, in_flight);
            let to = b.q.avail.wrapping_sub(by);
            b.q.set_avail_idx(to);
            b.malformed(is_jump(to));
        }
    }
}

fn goes_back(s: &mut Stage) -> Expect {
    s.still_works();
    s.q.set_avail_idx(s.q.avail.wrapping_sub(1));
    s.kick();
    Expect::Lost("avail.idx is")
}

fn ring_wraps(format: Format) {
    for from in [0xfff9, 0xfffe, 0xffff] {
        let state = QueueState::Split {
            avail: from,
            used: Some(from),
        };
        let mut b = Bench::with(format, 8, RingFeatures::INDIRECT_DESC, Some(state));
        for _ in 0..20 {
            b.works();
        }
        let to = from.wrapping_add(20);
        let right = QueueState::Split {
            avail: to,
            used: Some(to),
        };
        assert_eq!(b.ring.state(), right);
    }
}

fn wraps(s: &mut Stage) -> Expect {
    for _ in 0..12 {
        s.still_works();
    }
    assert!(s.q.avail < 100 && s.q.used == s.q.avail, "{:?}", s.q);
    Expect::Served
}

fn ring_scribbled(format: Format) {
    let mut b = Bench::new(format);
    let at = b.tables().1;
    for round in 0..20_u16 {
        let id = b.q.chain(&[Piece::write(at, 9)]).id;
        b.q.show();
        let bytes = b.arena().bytes();
        for offset in (0..4 + 8 * 8).step_by(2) {
            bytes.store_u16(b.q.device_at(offset) as u32, 0xbad0 + round);
        }
        assert_eq!(b.take().map(|taken| taken.len()), Ok(1));
        b.commit(&[7]).expect("a commit");
        assert_eq!(b.q.used_idx(), round + 1, "the device's own index");
        assert_eq!(
            b.q.used().map(|back| (back.id, back.len)),
            Some((id.into(), 7))
        );
    }
    assert!(
        b.memory.loads_of(Which::Device).is_empty(),
        "it is never read back"
    );
}

fn scribbled(s: &mut Stage) -> Expect {
    for round in 0..20_u16 {
        let request = s.request();
        s.q.chain(&request.pieces());
        let bytes = s.rings.bytes();
        for offset in (0..4 + 8 * 8).step_by(2) {
            bytes.store_u16(s.q.device_at(offset) as u32, 0xbad0 + round);
        }
        // Not before: a device that polls may be done by now, and what it wrote last would be scribbled over.
        s.q.show();
        s.kick();
        let right = s.q.avail;
        until("the device's own index", || s.q.used_idx() == right);
        let back = s.back();
        s.verify(&request, back.len);
    }
    Expect::Served
}

/// Where an event may be, from the index that is current.
const EVENTS: [u16; 14] = [
    0, 1, 2, 7, 8, 9, 100, 0x7fff, 0x8000, 0x8001, 0xfff0, 0xfffd, 0xfffe, 0xffff,
];

fn ring_events(format: Format) {
    let features = RingFeatures::EVENT_IDX;
    for from in [0, 0xfffe] {
        let state = QueueState::Split {
            avail: from,
            used: Some(from),
        };
        for event in EVENTS {
            let mut b = Bench::with(format, 8, features, Some(state));
            let at = b.tables().1;
            for _ in 0..3 {
                b.q.chain(&[Piece::read(at, 1)]);
            }
            b.q.show();
            b.q.set_event(from.wrapping_add(event), 0);
            assert_eq!(b.take().map(|taken| taken.len()), Ok(3));
            // It is passed, if it is one of the three: virtio 1.4 §2.7.10.
            assert_eq!(
                b.commit(&[]),
                Ok(event < 3),
                "event {event:#x} from {from:#x}"
            );
            assert_eq!(b.memory.twice(), None);
        }
    }
}

fn events(s: &mut Stage) -> Expect {
    let avail_event = s.q.device_at(layout::avail_event(s.q.size)) as u32;
    let mut right = s.calls.load(Ordering::SeqCst);
    // The last one is a call that is due: those that were not would have come before it.
    for event in EVENTS.into_iter().skip(1).chain([0, 5, 0]) {
        s.q.set_event(s.q.used.wrapping_add(event), 0);
        // What the device asks for is its own business, and the driver scribbles there.
        s.rings
            .bytes()
            .store_u16(avail_event, s.q.avail.wrapping_add(event));
        right += usize::from(event == 0);
        s.still_works();
    }
    until("the last call", || s.calls.load(Ordering::SeqCst) >= right);
    assert_eq!(s.calls.load(Ordering::SeqCst), right, "calls");
    Expect::Served
}

fn ring_of_one(format: Format) {
    let mut b = Bench::with(format, 1, RingFeatures::INDIRECT_DESC, None);
    let at = b.tables().1;
    for round in 0..20 {
        let id = b.q.chain(&[Piece::write(at, round + 1)]).id;
        b.q.show();
        assert_eq!(b.take().map(|taken| taken.len()), Ok(1));
        b.commit(&[round]).expect("a commit");
        assert_eq!(b.take(), Ok(vec![]));
        assert_eq!(
            b.q.used().map(|back| (back.id, back.len)),
            Some((id.into(), round))
        );
    }
    // A chain of two does not fit: it goes on at itself.
    b.memory.clear();
    b.q.chain(&[Piece::read(at, 1).goes_on(true).link(0)]);
    b.q.show();
    b.looped(|e| matches!(e, RingError::ChainTooLong { limit: 1, .. }));
}

fn of_one(s: &mut Stage) -> Expect {
    for _ in 0..10 {
        of_one_descriptor(s);
    }
    Expect::Served
}

/// A request of one descriptor: a packet is one; a command or a disk's request needs two, and comes back.
pub(crate) fn of_one_descriptor(s: &mut Stage) {
    match s.target {
        Target::Tx | Target::Rx => s.still_works(),
        Target::Ctrl | Target::Blk => {
            let to = s.open_buffer(2, 513);
            s.send(&[Piece::write(to, 513)]);
            s.refused();
            let readable = s.request().readable;
            s.send(&[Piece::read(readable.0, readable.1)]);
            s.refused();
        }
    }
}

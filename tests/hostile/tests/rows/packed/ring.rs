//! The same rows against the device half of a ring.

use vdpa_hostile::raw::{AVAIL, INDIRECT, NEXT, Piece, USED};
use vdpa_hostile::watched::Bench;
use vdpa_ring::{DeviceRing, Format, Pos, QueueState, RingError, RingFeatures};

use super::{BEYOND, impossible};

/// Writes descriptors as they are, from slot 0 on: length 8, this id, these flags.
fn slots(b: &Bench, all: &[(u16, u16)]) {
    let at = b.tables().1;
    for (slot, (id, flags)) in (0..).zip(all) {
        b.q.set_descriptor(slot, at, 8, *flags, *id);
    }
}

/// Flags that make nothing available at the start: of the other lap, and of no lap.
const WRONG: [u16; 3] = [0, USED, AVAIL | USED];

pub(super) fn wrong_lap(_: Format) {
    for flags in WRONG {
        let mut b = Bench::new(Format::Packed);
        slots(&b, &[(0, flags); 8]);
        assert_eq!(b.take(), Ok(vec![]), "flags {flags:#x}");
        // Nothing is lost, however often it looks.
        assert_eq!(b.ring.arm(&b.memory.device()), Ok(false));
        b.bounded_and_works();
    }
}

pub(super) fn flips_within(_: Format) {
    for flip in 1..4 {
        for wrong in WRONG {
            let mut b = Bench::new(Format::Packed);
            let flags = |slot| match slot {
                _ if slot == flip => wrong | NEXT,
                3 => AVAIL,
                _ => AVAIL | NEXT,
            };
            slots(&b, &[0, 1, 2, 3].map(|slot| (0, flags(slot))));
            b.malformed(
                |e| matches!(e, RingError::NotAvailable { head: 0, slot } if *slot == flip),
            );
        }
    }
    // Around the end the lap changes; one that goes on with the old one is wrong.
    let at = Pos {
        index: 6,
        wrap: true,
    };
    let state = QueueState::Packed {
        avail: at,
        used: at,
    };
    for (third, right) in [(AVAIL, false), (USED, true)] {
        let mut b = Bench::with(Format::Packed, 8, RingFeatures::empty(), Some(state));
        let addr = b.tables().1;
        b.q.set_descriptor(6, addr, 8, AVAIL | NEXT, 0);
        b.q.set_descriptor(7, addr, 8, AVAIL | NEXT, 0);
        b.q.set_descriptor(0, addr, 8, third, 0);
        match right {
            true => assert_eq!(b.take().map(|taken| taken.len()), Ok(1)),
            false => b.malformed(|e| matches!(e, RingError::NotAvailable { slot: 0, .. })),
        }
    }
}

pub(super) fn first_before_the_rest(_: Format) {
    let mut b = Bench::new(Format::Packed);
    slots(&b, &[(0, AVAIL | NEXT)]);
    b.malformed(|e| matches!(e, RingError::NotAvailable { head: 0, slot: 1 }));
}

pub(super) fn both_ones(_: Format) {
    let mut b = Bench::new(Format::Packed);
    slots(&b, &[(0, AVAIL | USED); 8]);
    assert_eq!(b.take(), Ok(vec![]));
    b.bounded_and_works();
}

pub(super) fn id_beyond(_: Format) {
    for id in [8, 9, 0x7fff, 0xffff] {
        for list in [false, true] {
            let mut b = Bench::new(Format::Packed);
            match list {
                false => slots(&b, &[(id, AVAIL)]),
                true => slots(&b, &[(0, AVAIL | NEXT), (id, AVAIL)]),
            }
            b.malformed(
                |e| matches!(e, RingError::IdOutOfRange { id: i, size: 8, .. } if *i == id),
            );
        }
    }
    // The id of a descriptor that goes on means nothing: virtio 1.4 §2.8.6.
    let mut b = Bench::new(Format::Packed);
    slots(&b, &[(0xffff, AVAIL | NEXT), (3, AVAIL)]);
    assert_eq!(b.take().map(|taken| taken[0].id), Ok(3));
}

pub(super) fn same_id(_: Format) {
    let mut b = Bench::new(Format::Packed);
    slots(&b, &[(5, AVAIL); 3]);
    let taken = b.take().expect("three chains");
    assert_eq!(
        taken.iter().map(|chain| chain.id).collect::<Vec<_>>(),
        [5; 3]
    );
    b.commit(&[1, 2, 3]).expect("all go back");
    let back = [0; 3].map(|_| b.q.used().map(|back| back.id));
    assert_eq!(back, [Some(5); 3]);
}

pub(super) fn too_long(_: Format) {
    // With chains in flight there is as much less room.
    for in_flight in [0, 1, 3, 7] {
        let mut b = Bench::new(Format::Packed);
        let at = b.tables().1;
        for _ in 0..in_flight {
            b.q.chain(&[Piece::read(at, 1)]);
        }
        b.q.show();
        assert_eq!(b.take().map(|taken| taken.len()), Ok(in_flight.into()));
        b.memory.clear();
        let limit = 8 - in_flight;
        b.q.chain(&vec![Piece::read(at, 1).goes_on(true); limit.into()]);
        b.q.show();
        b.malformed(|e| {
            matches!(e, RingError::ChainTooLong { head, limit: l } if (*head, *l) == (in_flight, limit))
        });
    }
}

pub(super) fn around_the_end(_: Format) {
    for size in [7, 8] {
        for index in 0..size {
            let at = Pos { index, wrap: true };
            let state = QueueState::Packed {
                avail: at,
                used: at,
            };
            let mut b = Bench::with(Format::Packed, size, RingFeatures::empty(), Some(state));
            for _ in 0..10 {
                b.works();
            }
            let to = at.advance(size, size).advance(20 % size, size);
            let laps = (20 / size) % 2 == 1;
            let right = if laps {
                to
            } else {
                Pos {
                    wrap: !to.wrap,
                    ..to
                }
            };
            let found = b.ring.state();
            let QueueState::Packed { avail, used } = found else {
                panic!("{found:?}")
            };
            assert_eq!((avail, used), (right, right), "size {size} from {index}");
        }
    }
}

pub(super) fn event_beyond(_: Format) {
    for event in BEYOND {
        let mut b = Bench::with(Format::Packed, 8, RingFeatures::EVENT_IDX, None);
        b.q.chain(&[Piece::read(b.tables().1, 1)]);
        b.q.show();
        b.q.set_event(event, 2);
        assert_eq!(b.take().map(|taken| taken.len()), Ok(1));
        assert_eq!(
            b.commit(&[]),
            Ok(true),
            "a call is always allowed, a lost one is not"
        );
        assert_eq!(b.memory.twice(), None);
    }
}

pub(super) fn reserved_mode(_: Format) {
    for features in [RingFeatures::empty(), RingFeatures::EVENT_IDX] {
        for mode in [3, 0xfffc, 0xffff, 7] {
            let mut b = Bench::with(Format::Packed, 8, features, None);
            b.q.chain(&[Piece::read(b.tables().1, 1)]);
            b.q.show();
            b.q.set_event(0x8000, mode);
            assert_eq!(b.take().map(|taken| taken.len()), Ok(1));
            assert_eq!(b.commit(&[]), Ok(true), "mode {mode:#x}");
        }
    }
}

pub(super) fn position_unasked(_: Format) {
    let mut b = Bench::with(Format::Packed, 8, RingFeatures::empty(), None);
    b.q.chain(&[Piece::read(b.tables().1, 1)]);
    b.q.show();
    b.q.set_event(0x8005, 2);
    assert_eq!(b.take().map(|taken| taken.len()), Ok(1));
    assert_eq!(
        b.commit(&[]),
        Ok(true),
        "without EVENT_IDX it means nothing"
    );
}

pub(super) fn indirect_with_next(_: Format) {
    // In all slots: there would be no end to it.
    let mut b = Bench::new(Format::Packed);
    slots(&b, &[(0, AVAIL | INDIRECT | NEXT); 8]);
    b.malformed(|e| matches!(e, RingError::IndirectWithNext { head: 0, index: 0 }));
    for last in [AVAIL | INDIRECT, AVAIL | INDIRECT | NEXT] {
        let mut b = Bench::new(Format::Packed);
        slots(&b, &[(0, AVAIL | NEXT), (0, last)]);
        b.malformed(|e| {
            let next = matches!(e, RingError::IndirectWithNext { index: 1, .. });
            next || matches!(e, RingError::IndirectInList { index: 1, .. })
        });
    }
}

pub(super) fn odd_sizes(_: Format) {
    let mut b = Bench::with(Format::Packed, 1, RingFeatures::empty(), None);
    let at = b.tables().1;
    for round in 0..20 {
        b.q.chain(&[Piece::write(at, 100)]);
        b.q.show();
        assert_eq!(b.take().map(|taken| taken.len()), Ok(1));
        b.commit(&[round]).expect("a commit");
        assert_eq!(b.q.used().map(|back| back.len), Some(round));
        assert_eq!(b.take(), Ok(vec![]));
    }
    let mut b = Bench::with(Format::Packed, 7, RingFeatures::INDIRECT_DESC, None);
    for _ in 0..20 {
        b.works();
    }
}

pub(super) fn full(_: Format) {
    for size in [1_u16, 7, 8] {
        let mut b = Bench::with(Format::Packed, size, RingFeatures::empty(), None);
        let at = b.tables().1;
        for _ in 0..5 {
            for _ in 0..size {
                b.q.chain(&[Piece::read(at, 1)]);
            }
            b.q.show();
            assert_eq!(b.take().map(|taken| taken.len()), Ok(size.into()));
            b.commit(&[]).expect("all go back");
            for _ in 0..size {
                assert!(b.q.used().is_some());
            }
            assert_eq!(b.q.used(), None);
        }
        // All in flight, and all of them available again for the next lap: that is too early.
        for round in 0..2 {
            for _ in 0..size {
                b.q.chain(&[Piece::read(at, 1)]);
            }
            b.q.show();
            let taken = if round == 0 { size.into() } else { 0 };
            assert_eq!(b.take().map(|taken| taken.len()), Ok(taken));
        }
        assert_eq!(b.ring.in_flight(), size);
    }
}

pub(super) fn out_of_order(_: Format) {
    let mut b = Bench::with(Format::Packed, 8, RingFeatures::IN_ORDER, None);
    slots(&b, &[3, 3, 0, 7].map(|id| (id, AVAIL)));
    let taken = b.take().expect("ids are the driver's own business");
    assert_eq!(
        taken.iter().map(|chain| chain.id).collect::<Vec<_>>(),
        [3, 3, 0, 7]
    );
    b.commit(&[]).expect("all go back");
}

pub(super) fn impossible_state(_: Format) {
    for size in [7, 8] {
        for state in impossible(size) {
            // One whole lap of chains in flight is possible.
            let lap = matches!(state, QueueState::Packed { avail, used } if avail.index == used.index && avail.wrap != used.wrap && used.index < size);
            let ring = DeviceRing::new(Format::Packed, size, RingFeatures::empty(), Some(state));
            assert_eq!(ring.is_ok(), lap, "{state:?}");
        }
    }
}

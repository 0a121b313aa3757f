//! Section E: the packed ring.

use std::sync::atomic::Ordering;

use vdpa_core::{Call, Kick};
use vdpa_hostile::background::Sibling;
use vdpa_hostile::raw::{AVAIL, INDIRECT, NEXT, Piece, USED};
use vdpa_hostile::stage::{Expect, RINGS, Setup, Stage, negotiate};
use vdpa_hostile::suite::{Code, code};
use vdpa_hostile::table::Target;
use vdpa_hostile::watched::Bench;
use vdpa_hostile::{soon, until};
use vdpa_ring::{DeviceRing, Format, Pos, QueueState, RingError, RingFeatures, layout};

use crate::split::of_one_descriptor;

/// The functions of the rows.
pub(crate) const ROWS: &[Code] = &[
    code(45).ring(ring_wrong_lap).device(wrong_lap),
    code(46)
        .ring(ring_flips_within)
        .device_with(|_, _| Setup::PLAIN.from(6), flips_within),
    code(47)
        .ring(ring_first_before_the_rest)
        .device(first_before_the_rest),
    code(48).ring(ring_both_ones).device(both_ones),
    code(49).ring(ring_id_beyond).device(id_beyond),
    code(50).ring(ring_same_id).device(same_id),
    code(51)
        .ring(ring_too_long)
        .device_with(|_, _| Setup::PLAIN.from(5), too_long),
    code(52)
        .ring(ring_around_the_end)
        .device_with(|_, _| Setup::PLAIN.from(6), around_the_end),
    code(53)
        .ring(ring_event_beyond)
        .device_with(|_, _| Setup::PLAIN.event_idx(), event_beyond),
    code(54).ring(ring_reserved_mode).device_each(
        |_, _| vec![Setup::PLAIN, Setup::PLAIN.event_idx()],
        reserved_mode,
    ),
    code(55)
        .ring(ring_position_unasked)
        .device(position_unasked),
    code(56)
        .ring(ring_indirect_with_next)
        .device(indirect_with_next),
    code(57).ring(ring_odd_sizes).device_each(
        |_, _| vec![Setup::PLAIN.size(1), Setup::PLAIN.size(7)],
        odd_sizes,
    ),
    code(58)
        .ring(ring_full)
        .device_each(|_, _| vec![Setup::PLAIN, Setup::PLAIN.size(7)], full),
    code(59)
        .ring(ring_out_of_order)
        .device_with(|_, _| Setup::PLAIN.in_order(), out_of_order),
    code(60)
        .ring(ring_impossible_state)
        .device(impossible_state),
];

/// Writes descriptors as they are, from slot 0 on: length 8, this id, these flags.
fn slots(b: &Bench, all: &[(u16, u16)]) {
    let at = b.tables().1;
    for (slot, (id, flags)) in (0..).zip(all) {
        b.q.set_descriptor(slot, at, 8, *flags, *id);
    }
}

/// Flags that make nothing available at the start: of the other lap, and of no lap.
const WRONG: [u16; 3] = [0, USED, AVAIL | USED];

fn ring_wrong_lap(_: Format) {
    for flags in WRONG {
        let mut b = Bench::new(Format::Packed);
        slots(&b, &[(0, flags); 8]);
        assert_eq!(b.take(), Ok(vec![]), "flags {flags:#x}");
        // Nothing is lost, however often it looks.
        assert_eq!(b.ring.arm(&b.memory.device()), Ok(false));
        b.bounded_and_works();
    }
}

/// Makes the next slot look as these flags say; kicks; nothing comes of it, and the right ones work.
fn shows_nothing(s: &mut Stage, flags: &[u16]) -> Expect {
    let (at, slot) = (s.open_buffer(0, 64), s.q.next_slot());
    for flags in flags {
        s.q.set_descriptor(slot, at, 64, *flags, slot);
        let place = RINGS + s.q.descriptor_at(layout::descriptor(slot)) as u64;
        let before = s.get(place, 16);
        s.kick();
        s.quiet();
        assert_eq!(s.get(place, 16), before, "nothing was made available");
    }
    s.still_works();
    Expect::Served
}

fn wrong_lap(s: &mut Stage) -> Expect {
    shows_nothing(s, &[0, USED])
}

fn ring_flips_within(_: Format) {
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

/// A list of four from slot 6 on, of which one goes on as if the ring did not end.
fn flips_within(s: &mut Stage) -> Expect {
    let piece = s.request().cut(8)[0];
    // The first round of a control queue has moved it on: the list need not go around the end.
    s.q.chain(&[piece; 4]);
    let third = s.q.avail_pos.retreat(2, s.q.size);
    let wrong = if third.wrap { USED } else { AVAIL };
    s.q.set_descriptor(
        third.index,
        piece.addr,
        piece.len,
        piece.flags | wrong | NEXT,
        0,
    );
    s.q.show();
    s.kick();
    Expect::Lost("is not available")
}

fn ring_first_before_the_rest(_: Format) {
    let mut b = Bench::new(Format::Packed);
    slots(&b, &[(0, AVAIL | NEXT)]);
    b.malformed(|e| matches!(e, RingError::NotAvailable { head: 0, slot: 1 }));
}

fn first_before_the_rest(s: &mut Stage) -> Expect {
    let piece = s.request().cut(4)[0];
    s.send(&[piece.goes_on(true)]);
    Expect::Lost("is not available")
}

fn ring_both_ones(_: Format) {
    let mut b = Bench::new(Format::Packed);
    slots(&b, &[(0, AVAIL | USED); 8]);
    assert_eq!(b.take(), Ok(vec![]));
    b.bounded_and_works();
}

fn both_ones(s: &mut Stage) -> Expect {
    let ones = AVAIL | USED;
    shows_nothing(s, &[ones, ones | NEXT, ones | INDIRECT, 0xffff])
}

fn ring_id_beyond(_: Format) {
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

fn id_beyond(s: &mut Stage) -> Expect {
    let mut pieces = s.request().cut(4);
    let id = [s.q.size, 0xffff][usize::from(s.target == Target::Blk)];
    if let Some(last) = pieces.last_mut() {
        *last = last.link(id);
    }
    s.send(&pieces);
    Expect::Lost("has buffer id")
}

fn ring_same_id(_: Format) {
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

fn same_id(s: &mut Stage) -> Expect {
    let mut requests = Vec::new();
    for i in 0..3 {
        let request = s.request_at(10 * i, 10 * i + 2);
        let mut pieces = request.pieces();
        if let Some(last) = pieces.last_mut() {
            *last = last.link(5);
        }
        s.q.chain(&pieces);
        requests.push(request);
    }
    s.q.show();
    s.kick();
    s.stir();
    s.stir();
    // As many requests as there are slots, whatever the driver makes of their ids.
    for request in requests {
        let back = s.back();
        assert_eq!(back.id, 5);
        s.verify(&request, back.len);
    }
    Expect::Served
}

fn ring_too_long(_: Format) {
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

fn too_long(s: &mut Stage) -> Expect {
    let piece = s.request().cut(8)[0];
    s.send(&vec![piece.goes_on(true); s.q.size.into()]);
    Expect::Lost("more than 8 descriptors")
}

fn ring_around_the_end(_: Format) {
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

fn around_the_end(s: &mut Stage) -> Expect {
    for _ in 0..10 {
        let request = s.request();
        s.send(&request.cut(4));
        let back = s.back();
        s.verify(&request, back.len);
    }
    Expect::Served
}

/// Event positions outside of the ring, on both laps.
const BEYOND: [u16; 6] = [8, 9, 0x7fff, 0x8008, 0x8009, 0xffff];

fn ring_event_beyond(_: Format) {
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

/// With these event words requests complete, and each is called for.
fn called_all_the_same(s: &mut Stage, events: &[u16], mode: u16) {
    for event in events {
        let before = s.calls.load(Ordering::SeqCst);
        s.q.set_event(*event, mode);
        s.still_works();
        until("a call", || s.calls.load(Ordering::SeqCst) > before);
    }
}

fn event_beyond(s: &mut Stage) -> Expect {
    called_all_the_same(s, &BEYOND, 2);
    Expect::Served
}

fn ring_reserved_mode(_: Format) {
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

fn reserved_mode(s: &mut Stage) -> Expect {
    called_all_the_same(s, &[0, 0x8000], 3);
    called_all_the_same(s, &[3], 0xffff);
    Expect::Served
}

fn ring_position_unasked(_: Format) {
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

fn position_unasked(s: &mut Stage) -> Expect {
    called_all_the_same(s, &[0, 5, 0x8000, 0x8005, 0xffff], 2);
    Expect::Served
}

fn ring_indirect_with_next(_: Format) {
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

fn indirect_with_next(s: &mut Stage) -> Expect {
    let pieces = s.request().cut(4);
    let table = s.table(50, &pieces);
    s.send(&vec![table.goes_on(true); s.q.size.into()]);
    Expect::Lost("is indirect and goes on")
}

fn ring_odd_sizes(_: Format) {
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

fn odd_sizes(s: &mut Stage) -> Expect {
    for round in 0..15 {
        if s.q.size == 1 {
            of_one_descriptor(s);
            continue;
        }
        let request = s.request();
        s.send(&request.cut([7, 3, 2][round % 3]));
        let back = s.back();
        s.verify(&request, back.len);
    }
    Expect::Served
}

fn ring_full(_: Format) {
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

fn full(s: &mut Stage) -> Expect {
    for _ in 0..4 {
        let mut requests = Vec::new();
        let mut left = usize::from(s.q.size);
        while left > 0 {
            let i = requests.len();
            let request = s.request_at(4 * i, 4 * i + 2);
            let mut pieces = request.pieces();
            if pieces.len() > left || left - pieces.len() == 1 {
                pieces = request.cut(left);
            }
            if pieces.len() > left {
                break;
            }
            left -= pieces.len();
            s.q.chain(&pieces);
            requests.push(request);
        }
        s.q.show();
        s.kick();
        for request in requests {
            let back = s.back();
            s.stir();
            s.verify(&request, back.len);
        }
    }
    Expect::Served
}

fn ring_out_of_order(_: Format) {
    let mut b = Bench::with(Format::Packed, 8, RingFeatures::IN_ORDER, None);
    slots(&b, &[3, 3, 0, 7].map(|id| (id, AVAIL)));
    let taken = b.take().expect("ids are the driver's own business");
    assert_eq!(
        taken.iter().map(|chain| chain.id).collect::<Vec<_>>(),
        [3, 3, 0, 7]
    );
    b.commit(&[]).expect("all go back");
}

fn out_of_order(s: &mut Stage) -> Expect {
    // One at a time, with ids in no order and twice.
    for id in [5, 2, 7, 2, 2, 0] {
        let request = s.request();
        let mut pieces = request.pieces();
        if let Some(last) = pieces.last_mut() {
            *last = last.link(id);
        }
        s.send(&pieces);
        let back = s.back();
        assert_eq!(back.id, u32::from(id));
        s.verify(&request, back.len);
    }
    // Several, of which one used entry may stand for all.
    for (i, id) in [6, 1, 4].into_iter().enumerate() {
        let request = s.request_at(10 * i, 10 * i + 2);
        let mut pieces = request.pieces();
        if let Some(last) = pieces.last_mut() {
            *last = last.link(id);
        }
        s.q.chain(&pieces);
    }
    s.q.show();
    s.kick();
    s.stir();
    s.stir();
    while s.q.returned < s.q.shown {
        s.back();
    }
    let mut frames = 0;
    until("all of the frames", || {
        frames += s.arrivals().len();
        s.target != Target::Tx || frames == 3
    });
    s.still_works();
    Expect::Served
}

/// States that no ring of this size can be in.
fn impossible(size: u16) -> Vec<QueueState> {
    let at = |index, wrap| Pos { index, wrap };
    let packed = [
        (at(size, true), at(0, true)),
        (at(0, true), at(size, true)),
        (at(0x7fff, true), at(0x7fff, true)),
        (at(2, true), at(3, true)),
        (at(3, false), at(2, true)),
        (at(0, true), at(0, false)),
    ];
    let split = QueueState::Split {
        avail: 0,
        used: None,
    };
    let packed = packed.map(|(avail, used)| QueueState::Packed { avail, used });
    packed.into_iter().chain([split]).collect()
}

fn ring_impossible_state(_: Format) {
    for size in [7, 8] {
        for state in impossible(size) {
            // One whole lap of chains in flight is possible.
            let lap = matches!(state, QueueState::Packed { avail, used } if avail.index == used.index && avail.wrap != used.wrap && used.index < size);
            let ring = DeviceRing::new(Format::Packed, size, RingFeatures::empty(), Some(state));
            assert_eq!(ring.is_ok(), lap, "{state:?}");
        }
    }
}

fn impossible_state(s: &mut Stage) -> Expect {
    let _over = s.background.leave(Sibling::Queue);
    for state in impossible(s.q.size) {
        s.device.reset(soon()).expect("a reset");
        negotiate(&s.device, s.features());
        let config = s.q.config(Some(state));
        let lap = matches!(state, QueueState::Packed { avail, used } if avail.index == 0 && avail.wrap != used.wrap && used.index == 0);
        let started = s
            .device
            .start_queue(s.q.index, config, Kick::Taken, Call::None);
        assert_eq!(started.is_ok(), lap, "{state:?}");
    }
    Expect::Over
}

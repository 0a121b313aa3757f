//! Section E: the packed ring.

mod ring;

use std::sync::atomic::Ordering;

use vdpa_core::{Call, Kick};
use vdpa_hostile::background::Sibling;
use vdpa_hostile::raw::{AVAIL, INDIRECT, NEXT, USED};
use vdpa_hostile::stage::{Expect, RINGS, Setup, Stage, negotiate};
use vdpa_hostile::suite::{Code, code};
use vdpa_hostile::table::Target;
use vdpa_hostile::{soon, until};
use vdpa_ring::{Pos, QueueState, layout};

use crate::split::of_one_descriptor;

/// The functions of the rows.
pub(crate) const ROWS: &[Code] = &[
    code(45).ring(ring::wrong_lap).device(wrong_lap),
    code(46)
        .ring(ring::flips_within)
        .device_with(|_, _| Setup::PLAIN.from(6), flips_within),
    code(47)
        .ring(ring::first_before_the_rest)
        .device(first_before_the_rest),
    code(48).ring(ring::both_ones).device(both_ones),
    code(49).ring(ring::id_beyond).device(id_beyond),
    code(50).ring(ring::same_id).device(same_id),
    code(51)
        .ring(ring::too_long)
        .device_with(|_, _| Setup::PLAIN.from(5), too_long),
    code(52)
        .ring(ring::around_the_end)
        .device_with(|_, _| Setup::PLAIN.from(6), around_the_end),
    code(53)
        .ring(ring::event_beyond)
        .device_with(|_, _| Setup::PLAIN.event_idx(), event_beyond),
    code(54).ring(ring::reserved_mode).device_each(
        |_, _| vec![Setup::PLAIN, Setup::PLAIN.event_idx()],
        reserved_mode,
    ),
    code(55)
        .ring(ring::position_unasked)
        .device(position_unasked),
    code(56)
        .ring(ring::indirect_with_next)
        .device(indirect_with_next),
    code(57).ring(ring::odd_sizes).device_each(
        |_, _| vec![Setup::PLAIN.size(1), Setup::PLAIN.size(7)],
        odd_sizes,
    ),
    code(58)
        .ring(ring::full)
        .device_each(|_, _| vec![Setup::PLAIN, Setup::PLAIN.size(7)], full),
    code(59)
        .ring(ring::out_of_order)
        .device_with(|_, _| Setup::PLAIN.in_order(), out_of_order),
    code(60)
        .ring(ring::impossible_state)
        .device(impossible_state),
];

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

fn first_before_the_rest(s: &mut Stage) -> Expect {
    let piece = s.request().cut(4)[0];
    s.send(&[piece.goes_on(true)]);
    Expect::Lost("is not available")
}

fn both_ones(s: &mut Stage) -> Expect {
    let ones = AVAIL | USED;
    shows_nothing(s, &[ones, ones | NEXT, ones | INDIRECT, 0xffff])
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

fn too_long(s: &mut Stage) -> Expect {
    let piece = s.request().cut(8)[0];
    s.send(&vec![piece.goes_on(true); s.q.size.into()]);
    Expect::Lost("more than 8 descriptors")
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

fn reserved_mode(s: &mut Stage) -> Expect {
    called_all_the_same(s, &[0, 0x8000], 3);
    called_all_the_same(s, &[3], 0xffff);
    Expect::Served
}

fn position_unasked(s: &mut Stage) -> Expect {
    called_all_the_same(s, &[0, 5, 0x8000, 0x8005, 0xffff], 2);
    Expect::Served
}

fn indirect_with_next(s: &mut Stage) -> Expect {
    let pieces = s.request().cut(4);
    let table = s.table(50, &pieces);
    s.send(&vec![table.goes_on(true); s.q.size.into()]);
    Expect::Lost("is indirect and goes on")
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

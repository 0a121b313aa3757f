//! Section K: a hostile device, against both driver halves.

use vdpa_hostile::suite::{Code, code};
use vdpa_hostile::watched::{Desk, When, Which};
use vdpa_ring::{Format, RingError, RingFeatures, layout};

/// The functions of the rows.
pub(crate) const ROWS: &[Code] = &[
    code(115).driver(id_out_of_range),
    code(116).driver(replayed),
    code(117).driver(no_head),
    code(118).driver(len_lies),
    code(119).driver(index_jumps),
    code(120).driver(called_for_nothing),
    code(121).driver(called_all_the_time),
    code(122).driver(descriptors_rewritten),
];

/// A driver with three chains in flight, and their ids.
fn three(format: Format) -> (Desk, [u16; 3]) {
    let mut d = Desk::new(format, RingFeatures::empty());
    let ids = d.three();
    d.memory.clear();
    (d, ids)
}

fn id_out_of_range(format: Format) {
    let wide: &[u32] = match format {
        // 32 bits of it: what is cut to 16 must not come to be right.
        Format::Split => &[8, 0xffff, 0x1_0000, 0x1_0001, u32::MAX],
        Format::Packed => &[8, 9, 0x7fff, 0xffff],
    };
    for &id in wide {
        let (mut d, _) = three(format);
        d.mark(0, id, 0);
        d.malformed(
            |e| matches!(e, RingError::UsedIdOutOfRange { id: i, size: 8, .. } if *i == id),
        );
    }
}

fn replayed(format: Format) {
    let (mut d, ids) = three(format);
    d.mark(0, ids[0].into(), 0);
    d.mark(1, ids[0].into(), 0);
    assert_eq!(d.take(), Ok(vec![(ids[0], 0)]), "the first of them is good");
    d.malformed(|e| matches!(e, RingError::UsedNotInFlight { index: 1, id } if *id == ids[0]));
    // At another time.
    let (mut d, ids) = three(format);
    d.mark(0, ids[0].into(), 0);
    assert_eq!(d.take(), Ok(vec![(ids[0], 0)]));
    d.memory.clear();
    d.mark(1, ids[0].into(), 0);
    d.malformed(|e| matches!(e, RingError::UsedNotInFlight { index: 1, .. }));
}

fn no_head(format: Format) {
    // Within a chain, free, and added but not shown.
    let (_, ids) = three(format);
    for id in (0..8).filter(|id| !ids.contains(id)) {
        let (mut d, _) = three(format);
        d.mark(0, id.into(), 0);
        d.malformed(|e| matches!(e, RingError::UsedNotInFlight { id: i, .. } if *i == id));
    }
    let (mut d, _) = three(format);
    let hidden = d.add(&[], &[8]);
    d.memory.clear();
    d.mark(0, hidden.into(), 8);
    d.malformed(|e| matches!(e, RingError::UsedNotInFlight { id, .. } if *id == hidden));
}

fn len_lies(format: Format) {
    for (chain, room) in [(0, 0), (1, 20), (2, 30)] {
        let (mut d, ids) = three(format);
        d.mark(0, ids[chain].into(), room);
        assert_eq!(d.take(), Ok(vec![(ids[chain], room)]), "all of it");
        for len in [room + 1, 1 << 31, u32::MAX] {
            let (mut d, ids) = three(format);
            let id = ids[chain];
            d.mark(0, id.into(), len);
            d.malformed(|e| {
                let right = RingError::UsedTooLong {
                    id,
                    len,
                    writable: room,
                };
                *e == right
            });
        }
    }
}

fn index_jumps(format: Format) {
    if format == Format::Packed {
        // There is no index; a mark beyond the next slot is not looked at, nor one of the other lap.
        let (mut d, ids) = three(format);
        d.mark(5, ids[1].into(), 0);
        assert_eq!(d.take(), Ok(vec![]));
        let slot = d.q.descriptor_at(layout::descriptor(0)) as u32 + 8;
        d.memory
            .arena
            .bytes()
            .store_u64(slot, d.q.meta(0, 0, ids[0]));
        assert_eq!(d.take(), Ok(vec![]));
        assert_eq!(d.ring.in_flight(), 3);
        return;
    }
    for to in [4, 8, 0x7fff, 0x8000, 0xffff] {
        let (mut d, _) = three(format);
        d.mark_index(to);
        d.malformed(|e| {
            let right = RingError::UsedJump {
                from: 0,
                to,
                in_flight: 3,
            };
            *e == right
        });
    }
    // Back to where it was before.
    let (mut d, ids) = three(format);
    d.mark(0, ids[0].into(), 0);
    assert_eq!(d.take(), Ok(vec![(ids[0], 0)]));
    d.memory.clear();
    d.mark_index(0);
    d.malformed(|e| matches!(e, RingError::UsedJump { from: 1, to: 0, .. }));
}

fn called_for_nothing(format: Format) {
    for flying in [false, true] {
        let mut d = Desk::new(format, RingFeatures::empty());
        if flying {
            d.three();
        }
        for _ in 0..3 {
            assert_eq!(d.take(), Ok(vec![]));
            assert!(!d.ring.arm(&d.memory.driver()));
        }
        // It works all the same.
        let id = d.add(&[], &[8]);
        d.publish();
        if !flying {
            d.mark(0, id.into(), 8);
            assert_eq!(d.take(), Ok(vec![(id, 8)]));
        }
    }
}

fn called_all_the_time(format: Format) {
    let (mut d, ids) = three(format);
    for _ in 0..10_000 {
        assert_eq!(d.take(), Ok(vec![]));
    }
    assert!(
        d.memory.loads() <= 10_000,
        "a look costs one load: {}",
        d.memory.loads()
    );
    // One chain for each call, marked as the driver looks.
    d.mark(0, ids[0].into(), 0);
    d.memory.clear();
    d.memory.hook(|memory, _, fetch, when| {
        // What has been read turns into something else at once.
        let at = memory.at(fetch);
        if when == When::After && fetch.which == Which::Device {
            memory.arena.bytes().write(at, &[0xff; 2]);
        }
    });
    assert_eq!(d.take(), Ok(vec![(ids[0], 0)]));
    assert_eq!(d.memory.twice(), None);
}

fn descriptors_rewritten(format: Format) {
    let (mut d, ids) = three(format);
    for slot in 0..8 {
        let at = d.q.descriptor_at(layout::descriptor(slot)) as u32;
        d.memory.arena.bytes().store_u64(at, u64::MAX);
        // No slot looks used: virtio 1.4 §2.8.1.
        let meta = d.q.meta(u32::MAX, 0x7fff, 0xffff);
        d.memory.arena.bytes().store_u64(at + 8, meta);
    }
    d.mark(0, ids[1].into(), 5);
    assert_eq!(
        d.take(),
        Ok(vec![(ids[1], 5)]),
        "what is free is known without them"
    );
    // Two descriptors of the second chain are free again, and usable.
    assert_eq!((d.ring.free(), d.ring.in_flight()), (6, 2));
    let read = d.memory.loads_of(Which::Descriptor);
    let metas = read
        .iter()
        .all(|(fetch, _)| format == Format::Packed && fetch.at % 16 == 8);
    assert!(metas, "nothing but what the device marks is read: {read:?}");
}

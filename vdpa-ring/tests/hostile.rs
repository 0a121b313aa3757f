//! What a hostile driver may write, and what the device half makes of it.

mod rig;

use rig::{AVAIL, BASE, INDIRECT, NEXT, Rig, USED, WRITE, Which, packed, split};
use vdpa_mem::{Fault, Iova};
use vdpa_ring::{
    Again, Batch, ChainToken, Completion, DeviceRing, DriverRing, Format, Pos, QueueState,
    RingError, RingFeatures, Segment, Used, layout,
};

const SIZE: u16 = 8;

fn ring(format: Format, size: u16, features: RingFeatures) -> (Rig, DeviceRing, Batch) {
    let ring = DeviceRing::new(format, size, features, None).unwrap();
    let batch = Batch::new(usize::from(size), usize::from(size) * 2);
    (Rig::new(format, size), ring, batch)
}

/// A split ring whose driver made `chains` of `heads` available after `write`.
fn split_take(
    features: RingFeatures,
    heads: &[u16],
    write: impl FnOnce(&Rig),
) -> (Rig, DeviceRing, Batch, Result<usize, RingError>) {
    let (rig, mut ring, mut batch) = ring(Format::Split, SIZE, features);
    write(&rig);
    for (slot, &head) in (0..).zip(heads) {
        rig.avail(slot, head);
    }
    rig.avail_idx(heads.len() as u16);
    let taken = ring.take(&rig.device(), &mut batch, usize::MAX);
    (rig, ring, batch, taken)
}

fn packed_take(
    features: RingFeatures,
    write: impl FnOnce(&Rig),
) -> (Rig, DeviceRing, Batch, Result<usize, RingError>) {
    let (rig, mut ring, mut batch) = ring(Format::Packed, SIZE, features);
    write(&rig);
    let taken = ring.take(&rig.device(), &mut batch, usize::MAX);
    (rig, ring, batch, taken)
}

/// The error came once, is latched, wrote nothing, took bounded work; a new ring then works.
fn latched(rig: &Rig, mut ring: DeviceRing, found: Result<usize, RingError>, expected: RingError) {
    assert_eq!(found, Err(expected));
    let mut batch = Batch::new(usize::from(SIZE), usize::from(SIZE) * 2);
    let device = rig.device();
    for _ in 0..2 {
        assert_eq!(ring.take(&device, &mut batch, 1), Err(RingError::Latched));
        assert_eq!(ring.arm(&device), Err(RingError::Latched));
    }
    assert!(batch.is_empty());
    assert!(rig.device_log.stores.borrow().is_empty());
    let loads: u32 = rig.device_log.loads.borrow().values().sum();
    assert!(loads <= 4 * u32::from(SIZE) + 4, "{loads} loads");

    // After a reset, on memory of its own: a known-good request completes.
    let (rig, mut ring, mut batch) = self::ring(rig.format, rig.size, RingFeatures::empty());
    rig.packed_or_split_single();
    let device = rig.device();
    assert_eq!(ring.take(&device, &mut batch, 8), Ok(1));
    let used = Used {
        token: batch.chain(0).unwrap().token(),
        len: 0,
    };
    assert_eq!(ring.commit(&device, &[used]), Ok(true));
}

fn split_bad(features: RingFeatures, expected: RingError, write: impl FnOnce(&Rig)) {
    let (rig, ring, _, found) = split_take(features, &[0], write);
    latched(&rig, ring, found, expected);
}

fn packed_bad(features: RingFeatures, expected: RingError, write: impl FnOnce(&Rig)) {
    let (rig, ring, _, found) = packed_take(features, write);
    latched(&rig, ring, found, expected);
}

const NONE: RingFeatures = RingFeatures::empty();
const TABLES: RingFeatures = RingFeatures::INDIRECT_DESC;

// ----- chains

#[test]
fn chain_that_loops_ends_at_the_queue_size() {
    let error = RingError::ChainTooLong {
        head: 0,
        limit: SIZE,
    };
    split_bad(NONE, error, |rig| rig.split(0, BASE, 1, NEXT, 0));
    split_bad(NONE, error, |rig| {
        rig.split(0, BASE, 1, NEXT, 5);
        rig.split(5, BASE, 1, NEXT, 0);
    });
}

#[test]
fn a_loop_costs_as_many_descriptors_as_the_queue_has_and_not_one_more() {
    let (rig, _, _, found) = split_take(NONE, &[0], |rig| rig.split(0, BASE, 1, NEXT, 0));
    assert!(found.is_err());
    let loads = rig.device_log.loads.borrow();
    let of = loads
        .iter()
        .filter(|((which, ..), _)| *which == Which::Descriptor);
    // Two words each.
    assert_eq!(of.map(|(_, &n)| n).sum::<u32>(), 2 * u32::from(SIZE));
}

#[test]
fn next_or_head_outside_the_table_is_named() {
    for next in [SIZE, SIZE + 1, 0xffff] {
        let error = RingError::NextOutOfRange {
            head: 0,
            index: 0,
            next,
            size: SIZE,
        };
        split_bad(NONE, error, |rig| rig.split(0, BASE, 1, NEXT, next));
    }
    for head in [SIZE, 0xffff] {
        let (rig, ring, _, found) = split_take(NONE, &[head], |_| {});
        let error = RingError::HeadOutOfRange {
            index: 0,
            head,
            size: SIZE,
        };
        latched(&rig, ring, found, error);
    }
}

#[test]
fn chain_of_exactly_the_queue_size_is_taken_and_one_more_is_not() {
    let (_, _, batch, found) = split_take(NONE, &[0], |rig| {
        for i in 0..SIZE {
            let next = if i + 1 < SIZE { NEXT } else { 0 };
            rig.split(i, BASE, 1, next | if i > 3 { WRITE } else { 0 }, i + 1);
        }
    });
    assert_eq!(found, Ok(1));
    let chain = batch.chain(0).unwrap();
    assert_eq!((chain.readable().len(), chain.writable().len()), (4, 4));

    let list = |rig: &Rig, last: u16| {
        for i in 0..SIZE {
            let more = if i + 1 < SIZE { NEXT } else { last };
            rig.packed(i, BASE, 1, 3, AVAIL | more);
        }
    };
    let (_, _, batch, found) = packed_take(NONE, |rig| list(rig, 0));
    assert_eq!(found, Ok(1));
    assert_eq!(batch.chain(0).unwrap().token(), ChainToken::new(3, SIZE));
    let error = RingError::ChainTooLong {
        head: 0,
        limit: SIZE,
    };
    packed_bad(NONE, error, |rig| list(rig, NEXT));
}

#[test]
fn readable_after_writable_is_refused() {
    let error = RingError::ReadableAfterWritable { head: 0, index: 1 };
    split_bad(NONE, error, |rig| {
        rig.split(0, BASE, 1, NEXT | WRITE, 1);
        rig.split(1, BASE, 1, 0, 0);
    });
    packed_bad(NONE, error, |rig| {
        rig.packed(0, BASE, 1, 0, AVAIL | NEXT | WRITE);
        rig.packed(1, BASE, 1, 0, AVAIL);
    });
}

#[test]
fn chain_with_one_kind_of_part_is_legal() {
    for flags in [0, WRITE] {
        let (_, _, batch, found) = split_take(NONE, &[0], |rig| rig.split(0, BASE, 9, flags, 0));
        assert_eq!(found, Ok(1));
        let chain = batch.chain(0).unwrap();
        let lens = (chain.readable_len(), chain.writable_len());
        assert_eq!(lens, if flags == 0 { (9, 0) } else { (0, 9) });
    }
}

#[test]
fn head_made_available_twice_is_taken_twice_and_breaks_nothing() {
    let (rig, mut ring, batch, found) =
        split_take(NONE, &[2, 2], |rig| rig.split(2, BASE, 1, 0, 0));
    assert_eq!(found, Ok(2));
    let used: Vec<_> = batch
        .iter()
        .map(|c| Used {
            token: c.token(),
            len: 0,
        })
        .collect();
    assert_eq!(ring.commit(&rig.device(), &used), Ok(true));
    let (rig, mut ring, batch, found) = packed_take(NONE, |rig| {
        rig.packed(0, BASE, 1, 5, AVAIL);
        rig.packed(1, BASE, 1, 5, AVAIL);
    });
    assert_eq!(found, Ok(2));
    let used: Vec<_> = batch
        .iter()
        .map(|c| Used {
            token: c.token(),
            len: 0,
        })
        .collect();
    assert_eq!(ring.commit(&rig.device(), &used), Ok(true));
}

#[test]
fn undefined_flags_mean_nothing() {
    let (_, _, batch, found) = split_take(NONE, &[0], |rig| rig.split(0, BASE, 7, 0xfff8, 9));
    assert_eq!((found, batch.chain(0).unwrap().readable_len()), (Ok(1), 7));
    let (_, _, batch, found) = packed_take(NONE, |rig| rig.packed(0, BASE, 7, 0, AVAIL | 0x7f78));
    assert_eq!((found, batch.chain(0).unwrap().readable_len()), (Ok(1), 7));
}

#[test]
fn all_fields_at_their_maximum_are_refused() {
    let error = RingError::IndirectNotNegotiated { head: 0, index: 0 };
    split_bad(NONE, error, |rig| rig.words(0, u64::MAX, u64::MAX));
    let error = RingError::IndirectWithNext { head: 0, index: 0 };
    split_bad(TABLES, error, |rig| rig.words(0, u64::MAX, u64::MAX));
    // AVAIL and USED both set: nothing available.
    let (_, _, _, found) = packed_take(TABLES, |rig| rig.words(0, u64::MAX, u64::MAX));
    assert_eq!(found, Ok(0));
}

#[test]
fn good_chains_before_a_bad_one_are_still_taken() {
    let (rig, mut ring, batch, found) = split_take(NONE, &[1, 2, 9], |rig| {
        rig.split(1, BASE, 1, 0, 0);
        rig.split(2, BASE, 1, 0, 0);
    });
    assert_eq!(found, Ok(2));
    let used: Vec<_> = batch
        .iter()
        .map(|c| Used {
            token: c.token(),
            len: 0,
        })
        .collect();
    // What was taken can go back; looking for work says that there is something to tell.
    assert_eq!(ring.commit(&rig.device(), &used), Ok(true));
    assert_eq!(ring.arm(&rig.device()), Ok(true));
    let mut batch = Batch::new(8, 16);
    let error = RingError::HeadOutOfRange {
        index: 2,
        head: 9,
        size: SIZE,
    };
    assert_eq!(ring.take(&rig.device(), &mut batch, 8), Err(error));
    assert_eq!(
        ring.take(&rig.device(), &mut batch, 8),
        Err(RingError::Latched)
    );
}

#[test]
fn bad_chain_is_found_again_behind_rewound_ones() {
    let (rig, mut ring, mut batch, found) = packed_take(NONE, |rig| {
        rig.packed(0, BASE, 1, 0, AVAIL);
        rig.packed(1, BASE, 1, 77, AVAIL);
    });
    assert_eq!(found, Ok(1));
    ring.rewind(&mut batch, 1).unwrap();
    assert_eq!(ring.take(&rig.device(), &mut batch, 8), Ok(1));
    let error = RingError::IdOutOfRange {
        slot: 1,
        id: 77,
        size: SIZE,
    };
    assert_eq!(ring.take(&rig.device(), &mut batch, 8), Err(error));
}

// ----- lengths

#[test]
fn empty_buffers_are_walked_whatever_their_address() {
    let (_, _, batch, found) = split_take(NONE, &[0], |rig| {
        rig.split(0, u64::MAX, 0, NEXT, 1);
        rig.split(1, 0, 0, WRITE, 0);
    });
    assert_eq!(found, Ok(1));
    let chain = batch.chain(0).unwrap();
    assert_eq!(chain.readable()[0].addr, Iova::new(u64::MAX));
    assert_eq!((chain.readable_len(), chain.writable_len()), (0, 0));
}

#[test]
fn lengths_add_up_to_four_gibibytes_and_no_further() {
    let write = |rig: &Rig, more: u32| {
        rig.split(0, BASE, u32::MAX, NEXT, 1);
        rig.split(1, BASE, 1 + more, 0, 0);
        for (slot, len) in [(0, u32::MAX), (1, 1 + more)] {
            let next = if slot == 0 { NEXT } else { 0 };
            if rig.format == Format::Packed {
                rig.packed(slot, BASE, len, 0, AVAIL | next);
            }
        }
    };
    let (_, _, batch, found) = split_take(NONE, &[0], |rig| write(rig, 0));
    assert_eq!(
        (found, batch.chain(0).unwrap().readable_len()),
        (Ok(1), 1 << 32)
    );
    let error = RingError::ChainTooLarge {
        head: 0,
        bytes: (1 << 32) + 1,
    };
    split_bad(NONE, error, |rig| write(rig, 1));
    packed_bad(NONE, error, |rig| write(rig, 1));
}

// ----- indirect tables

/// An indirect descriptor to the rig's page, in either format.
fn table(rig: &Rig, len: u32, flags: u16) {
    let addr = BASE + u64::from(rig.page);
    match rig.format {
        Format::Split => rig.split(0, addr, len, INDIRECT | flags, 0),
        Format::Packed => rig.packed(0, addr, len, 0, AVAIL | INDIRECT | flags),
    }
}

fn entry(rig: &Rig, index: u32, len: u32, flags: u16, next: u16) {
    let meta = match rig.format {
        Format::Split => split(len, flags, next),
        Format::Packed => packed(len, next, flags),
    };
    rig.words(rig.page + index * 16, BASE, meta);
}

/// The same for both formats.
fn table_bad(features: RingFeatures, expected: RingError, write: impl Fn(&Rig)) {
    split_bad(features, expected, &write);
    packed_bad(features, expected, &write);
}

#[test]
fn indirect_without_negotiation_is_refused() {
    let error = RingError::IndirectNotNegotiated { head: 0, index: 0 };
    table_bad(NONE, error, |rig| table(rig, 16, 0));
}

#[test]
fn nested_indirect_is_refused() {
    let error = RingError::IndirectNested { head: 0, entry: 0 };
    table_bad(TABLES, error, |rig| {
        table(rig, 16, 0);
        entry(rig, 0, 16, INDIRECT, 0);
    });
}

#[test]
fn indirect_with_next_is_refused_and_does_not_spin() {
    let error = RingError::IndirectWithNext { head: 0, index: 0 };
    table_bad(TABLES, error, |rig| table(rig, 16, NEXT));
}

#[test]
fn write_on_the_descriptor_of_a_table_means_nothing() {
    let fill = |rig: &Rig| {
        table(rig, 32, WRITE);
        entry(rig, 0, 3, NEXT, 1);
        entry(rig, 1, 4, WRITE, 0);
    };
    for (_, _, batch, found) in [split_take(TABLES, &[0], fill), packed_take(TABLES, fill)] {
        assert_eq!(found, Ok(1));
        let chain = batch.chain(0).unwrap();
        assert_eq!((chain.readable_len(), chain.writable_len()), (3, 4));
    }
}

/// As DPDK's driver has it: on the header at least, and where else chance left it.
#[test]
fn write_in_a_packed_table_means_nothing_where_the_device_reads_all() {
    for stale in [&[0][..], &[0, 1], &[0, 1, 2]] {
        let fill = |rig: &Rig| {
            table(rig, 48, 0);
            for (at, len) in [12, 3, 4].into_iter().enumerate() {
                let flags = if stale.contains(&at) { WRITE } else { 0 };
                entry(rig, at as u32, len, flags, 0);
            }
        };
        let (_, _, batch, found) = packed_take(TABLES | RingFeatures::DEVICE_READS_ALL, fill);
        assert_eq!(found, Ok(1), "{stale:?}");
        let chain = batch.chain(0).unwrap();
        assert_eq!((chain.readable_len(), chain.writable_len()), (19, 0));
    }
}

#[test]
fn table_length_is_whole_entries_within_the_queue_size() {
    for len in [
        0,
        1,
        15,
        17,
        16 * u32::from(SIZE) + 16,
        u32::MAX,
        u32::MAX - 15,
    ] {
        let error = RingError::TableLength {
            head: 0,
            len,
            size: SIZE,
        };
        table_bad(TABLES, error, |rig| table(rig, len, 0));
    }
}

#[test]
fn table_out_of_bounds_is_refused_and_one_not_mapped_yet_parks() {
    let far = BASE + (1 << 40);
    let error = RingError::TableDenied {
        head: 0,
        at: Iova::new(far),
    };
    split_bad(TABLES, error, |rig| rig.split(0, far, 16, INDIRECT, 0));
    packed_bad(TABLES, error, |rig| {
        rig.packed(0, far, 16, 0, AVAIL | INDIRECT)
    });

    let fill = |rig: &Rig| {
        rig.fault.set(Some(Fault::Miss));
        rig.split(1, BASE, 1, 0, 0);
        table(rig, 16, 0);
        if rig.format == Format::Packed {
            rig.packed(0, BASE, 1, 0, AVAIL);
            rig.packed(1, BASE + u64::from(rig.page), 16, 1, AVAIL | INDIRECT);
        }
        entry(rig, 0, 5, 0, 0);
    };
    for (rig, mut ring, mut batch, found) in
        [split_take(TABLES, &[1, 0], fill), packed_take(TABLES, fill)]
    {
        assert_eq!(found, Ok(1), "what precedes the table");
        let device = rig.device();
        assert_eq!(ring.parked(), Some(Iova::new(BASE + u64::from(rig.page))));
        // An owner that goes on while there is work does not spin on what it can't take.
        assert_eq!(ring.arm(&device), Ok(false));
        assert_eq!(ring.take(&device, &mut batch, 8), Ok(0));
        assert!(ring.parked().is_some());
        assert_eq!(ring.arm(&device), Ok(false));
        rig.fault.set(None);
        assert_eq!(ring.take(&device, &mut batch, 8), Ok(1));
        assert_eq!(ring.parked(), None);
        // Not parked for good: what is given back untouched is work.
        ring.rewind(&mut batch, 1).unwrap();
        assert_eq!(ring.arm(&device), Ok(true));
        assert_eq!(ring.take(&device, &mut batch, 8), Ok(1));
        assert_eq!(batch.chain(0).unwrap().readable_len(), 5);
    }
}

#[test]
fn loop_or_stray_next_inside_a_table_is_refused() {
    let error = RingError::ChainTooLong { head: 0, limit: 2 };
    split_bad(TABLES, error, |rig| {
        table(rig, 32, 0);
        entry(rig, 0, 1, NEXT, 1);
        entry(rig, 1, 1, NEXT, 0);
    });
    let error = RingError::NextOutOfRange {
        head: 0,
        index: 0,
        next: 2,
        size: 2,
    };
    split_bad(TABLES, error, |rig| {
        table(rig, 32, 0);
        entry(rig, 0, 1, NEXT, 2);
    });
}

#[test]
fn next_and_id_inside_a_packed_table_mean_nothing() {
    let (_, _, batch, found) = packed_take(TABLES, |rig| {
        table(rig, 32, 0);
        entry(rig, 0, 1, NEXT, 900);
        entry(rig, 1, 1, NEXT, 900);
    });
    assert_eq!(
        (found, batch.chain(0).unwrap().readable().len()),
        (Ok(1), 2)
    );
}

#[test]
fn table_changed_during_the_walk_changes_nothing() {
    for format in [Format::Split, Format::Packed] {
        let (rig, mut ring, mut batch) = ring(format, SIZE, TABLES);
        table(&rig, 32, 0);
        entry(&rig, 0, 3, NEXT, 1);
        entry(&rig, 1, 4, 0, 0);
        rig.avail_idx_if_split(1);
        // As soon as an entry is read, all of the table is something else.
        *rig.device_log.hook.borrow_mut() = Some(Box::new(|rig, which, _| {
            if which == Which::Tables {
                entry(rig, 0, 99, INDIRECT, 77);
            }
        }));
        assert_eq!(ring.take(&rig.device(), &mut batch, 8), Ok(1));
        assert_eq!(batch.chain(0).unwrap().readable_len(), 7);
    }
}

#[test]
fn chained_descriptors_may_end_in_one_table() {
    let (_, _, batch, found) = split_take(TABLES, &[1], |rig| {
        rig.split(1, BASE, 2, NEXT, 0);
        table(rig, 32, WRITE);
        entry(rig, 0, 3, NEXT, 1);
        entry(rig, 1, 4, WRITE, 0);
    });
    assert_eq!(found, Ok(1));
    let chain = batch.chain(0).unwrap();
    assert_eq!((chain.readable_len(), chain.writable_len()), (5, 4));
    // A packed list may not.
    let error = RingError::IndirectInList { head: 0, index: 1 };
    packed_bad(TABLES, error, |rig| {
        rig.packed(0, BASE, 2, 0, AVAIL | NEXT);
        rig.packed(1, BASE, 16, 0, AVAIL | INDIRECT);
    });
}

// ----- split indices

#[test]
fn avail_idx_that_jumps_or_goes_back_is_refused() {
    for to in [SIZE + 1, 0x8000, 0xffff] {
        let (rig, mut ring, mut batch) = ring(Format::Split, SIZE, NONE);
        rig.avail_idx(to);
        let found = ring.take(&rig.device(), &mut batch, 1);
        let error = RingError::AvailJump {
            from: 0,
            to,
            in_flight: 0,
            size: SIZE,
        };
        latched(&rig, ring, found, error);
    }
    // Also counted from what is still in flight.
    let (rig, mut ring, mut batch, found) = split_take(NONE, &[0, 1], |_| {});
    assert_eq!(found, Ok(2));
    rig.avail_idx(SIZE + 1);
    let error = RingError::AvailJump {
        from: 2,
        to: SIZE + 1,
        in_flight: 2,
        size: SIZE,
    };
    assert_eq!(ring.take(&rig.device(), &mut batch, 1), Err(error));
}

#[test]
fn used_ring_scribbled_by_the_driver_is_never_believed() {
    let (rig, mut ring, batch, _) = split_take(NONE, &[3], |rig| rig.split(3, BASE, 1, 0, 0));
    rig.u16(rig.at.device, layout::IDX, 0x1234);
    rig.u32(rig.at.device, layout::used_entry(0), u32::MAX);
    let used = Used {
        token: batch.chain(0).unwrap().token(),
        len: 0,
    };
    ring.commit(&rig.device(), &[used]).unwrap();
    assert_eq!(
        ring.state(),
        QueueState::Split {
            avail: 1,
            used: Some(1)
        }
    );
    let device = rig.region.bytes();
    assert_eq!(device.load_u16(rig.at.device + layout::IDX), 1);
    assert_eq!(device.load_u32(rig.at.device + layout::used_entry(0)), 3);
    assert_eq!(
        rig.device_log.most(Which::Device),
        0,
        "the device area is not read"
    );
}

#[test]
fn event_words_of_any_value_are_survived() {
    for format in [Format::Split, Format::Packed] {
        let sizes: &[u16] = match format {
            Format::Split => &[1, 8],
            Format::Packed => &[1, 7],
        };
        let many = (0..=u16::MAX).step_by(if cfg!(miri) { 0x5555 } else { 251 });
        let edges = [0, 1, 6, 7, 0x7fff, 0x8000, 0x8001, 0x8006, 0x8007, 0xffff];
        for (event, &size) in many
            .chain(edges)
            .flat_map(|e| sizes.iter().map(move |s| (e, s)))
        {
            for mode in 0..4 {
                let (rig, mut ring, mut batch) = ring(format, size, RingFeatures::EVENT_IDX);
                rig.packed_or_split_single();
                match format {
                    Format::Split => rig.u16(rig.at.driver, layout::used_event(size), event),
                    Format::Packed => {
                        rig.u16(rig.at.driver, layout::EVENT_POS, event);
                        rig.u16(rig.at.driver, layout::EVENT_MODE, mode);
                    }
                }
                assert_eq!(ring.take(&rig.device(), &mut batch, 8), Ok(1));
                let used = Used {
                    token: batch.chain(0).unwrap().token(),
                    len: 0,
                };
                let call = ring.commit(&rig.device(), &[used]).unwrap();
                let wanted = match (format, mode) {
                    (Format::Split, _) => event == 0,
                    (_, 1) => false,
                    // Slot 0 of lap 1, or outside the ring.
                    (_, 2) => event == 0x8000 || event & 0x7fff >= size,
                    _ => true,
                };
                assert_eq!(
                    call, wanted,
                    "{format} size {size} event {event:#x} mode {mode}"
                );
            }
        }
    }
}

#[test]
fn restored_split_state_reads_used_idx_once_and_checks_it() {
    let state = QueueState::Split {
        avail: 3,
        used: None,
    };
    for (used, good) in [
        (3, true),
        (0u16.wrapping_sub(5), true),
        (4, false),
        (0x7000, false),
    ] {
        let rig = Rig::new(Format::Split, SIZE);
        let mut ring = DeviceRing::new(Format::Split, SIZE, NONE, Some(state)).unwrap();
        let mut batch = Batch::new(8, 8);
        rig.avail_idx(3);
        rig.u16(rig.at.device, layout::IDX, used);
        let found = ring.take(&rig.device(), &mut batch, 8);
        if good {
            assert_eq!(found, Ok(0));
            rig.u16(rig.at.device, layout::IDX, 0x5555);
            assert_eq!(ring.take(&rig.device(), &mut batch, 8), Ok(0));
            assert_eq!(
                ring.state(),
                QueueState::Split {
                    avail: 3,
                    used: Some(used)
                }
            );
        } else {
            let error = RingError::UsedAtStart {
                avail: 3,
                used,
                size: SIZE,
            };
            latched(&rig, ring, found, error);
        }
    }
    let bad = QueueState::Split {
        avail: 0,
        used: Some(1),
    };
    assert!(DeviceRing::new(Format::Split, SIZE, NONE, Some(bad)).is_err());
}

#[test]
fn used_idx_that_does_not_fit_at_start_is_told_once_whoever_asks() {
    let state = QueueState::Split {
        avail: 3,
        used: None,
    };
    let error = RingError::UsedAtStart {
        avail: 3,
        used: 0x7000,
        size: SIZE,
    };
    let used = [Used {
        token: ChainToken::new(0, 1),
        len: 0,
    }];
    type Ask = fn(&mut DeviceRing, &Rig, &[Used]) -> Option<RingError>;
    let asks: [Ask; 4] = [
        |ring, rig, used| ring.commit(&rig.device(), used).err(),
        |ring, rig, used| ring.commit_in_order(&rig.device(), used).err(),
        |ring, rig, _| ring.take(&rig.device(), &mut Batch::new(1, 1), 1).err(),
        |ring, rig, _| ring.arm(&rig.device()).err(),
    ];
    for first in asks {
        let rig = Rig::new(Format::Split, SIZE);
        let mut ring =
            DeviceRing::new(Format::Split, SIZE, RingFeatures::IN_ORDER, Some(state)).unwrap();
        rig.u16(rig.at.device, layout::IDX, 0x7000);
        assert_eq!(first(&mut ring, &rig, &used), Some(error));
        // One that would fit comes too late: it is not looked at.
        rig.u16(rig.at.device, layout::IDX, 2);
        for ask in asks {
            assert_eq!(ask(&mut ring, &rig, &used), Some(RingError::Latched));
        }
        assert_eq!(rig.device_log.most(Which::Device), 1);
        assert!(rig.device_log.stores.borrow().is_empty());
    }
}

// ----- packed slots

#[test]
fn packed_slot_of_the_wrong_lap_is_not_available() {
    for flags in [0, USED, AVAIL | USED] {
        let (_, _, _, found) = packed_take(NONE, |rig| rig.packed(0, BASE, 1, 0, flags));
        assert_eq!(found, Ok(0), "flags {flags:#x}");
    }
}

#[test]
fn list_whose_later_slots_are_not_available_is_refused() {
    for flags in [0, USED, AVAIL | USED] {
        let error = RingError::NotAvailable { head: 0, slot: 1 };
        packed_bad(NONE, error, |rig| {
            rig.packed(0, BASE, 1, 0, AVAIL | NEXT);
            rig.packed(1, BASE, 1, 0, flags);
        });
    }
}

#[test]
fn packed_id_that_is_no_slot_is_refused() {
    for id in [SIZE, 0xffff] {
        let error = RingError::IdOutOfRange {
            slot: 0,
            id,
            size: SIZE,
        };
        packed_bad(NONE, error, |rig| rig.packed(0, BASE, 1, id, AVAIL));
        let error = RingError::IdOutOfRange {
            slot: 1,
            id,
            size: SIZE,
        };
        packed_bad(NONE, error, |rig| {
            rig.packed(0, BASE, 1, 0, AVAIL | NEXT);
            rig.packed(1, BASE, 1, id, AVAIL);
        });
    }
}

#[test]
fn list_wraps_the_ring_end_for_size_seven() {
    let at = Pos {
        index: 6,
        wrap: true,
    };
    let state = QueueState::Packed {
        avail: at,
        used: at,
    };
    let rig = Rig::new(Format::Packed, 7);
    let mut ring = DeviceRing::new(Format::Packed, 7, NONE, Some(state)).unwrap();
    let mut batch = Batch::new(8, 16);
    rig.packed(6, BASE, 1, 0, AVAIL | NEXT);
    rig.packed(0, BASE, 2, 4, USED | WRITE);
    assert_eq!(ring.take(&rig.device(), &mut batch, 8), Ok(1));
    let token = batch.chain(0).unwrap().token();
    assert_eq!(token, ChainToken::new(4, 2));
    ring.commit(&rig.device(), &[Used { token, len: 2 }])
        .unwrap();
    let at = Pos {
        index: 1,
        wrap: false,
    };
    assert_eq!(
        ring.state(),
        QueueState::Packed {
            avail: at,
            used: at
        }
    );
    let meta = rig.region.bytes().load_u64(layout::descriptor_meta(6));
    assert_eq!(meta, packed(2, 4, AVAIL | USED | WRITE));
}

#[test]
fn full_packed_ring_offers_nothing_more_whatever_its_flags_say() {
    for size in [1u16, 7] {
        let (rig, mut ring, _) = ring(Format::Packed, size, NONE);
        let mut batch = Batch::new(64, 64);
        for slot in 0..size {
            rig.packed(slot, BASE, 1, slot, AVAIL);
        }
        assert_eq!(
            ring.take(&rig.device(), &mut batch, 64),
            Ok(usize::from(size))
        );
        // All in flight, and "available" again for the next lap.
        for slot in 0..size {
            rig.packed(slot, BASE, 1, slot, USED);
        }
        assert_eq!(ring.take(&rig.device(), &mut batch, 64), Ok(0));
        assert_eq!(ring.arm(&rig.device()), Ok(false));
        assert_eq!(ring.in_flight(), size);
    }
}

#[test]
fn list_that_runs_into_chains_in_flight_is_refused() {
    let (rig, mut ring, mut batch) = ring(Format::Packed, SIZE, NONE);
    rig.packed(0, BASE, 1, 0, AVAIL);
    rig.packed(1, BASE, 1, 1, AVAIL);
    assert_eq!(ring.take(&rig.device(), &mut batch, 64), Ok(2));
    for slot in 2..SIZE {
        rig.packed(slot, BASE, 1, slot, AVAIL | NEXT);
    }
    rig.packed(0, BASE, 1, 0, USED);
    let error = RingError::ChainTooLong {
        head: 2,
        limit: SIZE - 2,
    };
    assert_eq!(ring.take(&rig.device(), &mut batch, 64), Err(error));
}

#[test]
fn bad_restored_packed_state_is_refused() {
    let at = |index, wrap| Pos { index, wrap };
    for (avail, used) in [
        (at(7, true), at(0, true)),
        (at(0, true), at(7, true)),
        (at(2, true), at(3, true)),
        (at(3, false), at(2, true)),
    ] {
        let state = QueueState::Packed { avail, used };
        let ring = DeviceRing::new(Format::Packed, 7, NONE, Some(state));
        assert!(ring.is_err(), "{state:?}");
    }
    let state = QueueState::Split {
        avail: 0,
        used: None,
    };
    assert!(DeviceRing::new(Format::Packed, 7, NONE, Some(state)).is_err());
}

// ----- every field is fetched once

/// A ring full of chains of two, with and without tables.
fn busy(rig: &Rig, tables: bool) -> DriverRing {
    let features = if tables { TABLES } else { NONE };
    let mut driver = DriverRing::new(rig.format, rig.size, features, None).unwrap();
    let mem = rig.driver(tables);
    let segment = |len| Segment {
        addr: Iova::new(BASE),
        len,
    };
    driver.add(&mem, &[segment(1)], &[]).unwrap();
    driver.add(&mem, &[segment(1)], &[segment(2)]).unwrap();
    driver.add(&mem, &[], &[segment(2)]).unwrap();
    driver
        .add(&mem, &[segment(1), segment(2)], &[segment(3)])
        .unwrap();
    assert!(driver.publish(&mem));
    driver
}

#[test]
fn no_field_is_fetched_twice() {
    for format in [Format::Split, Format::Packed] {
        for tables in [false, true] {
            let (rig, mut ring, mut batch) = ring(format, SIZE, TABLES);
            busy(&rig, tables);
            assert_eq!(ring.take(&rig.device(), &mut batch, 8), Ok(4));
            for which in [Which::Descriptor, Which::Driver, Which::Tables] {
                assert!(rig.device_log.most(which) <= 1, "{format} {which:?}");
            }
            assert_eq!(rig.device_log.most(Which::Descriptor), 1);
            assert_eq!(rig.device_log.most(Which::Device), 0);
        }
    }
}

#[test]
fn one_width_per_cell() {
    for format in [Format::Split, Format::Packed] {
        let features = RingFeatures::INDIRECT_DESC | RingFeatures::EVENT_IDX;
        let (rig, mut ring, mut batch) = ring(format, SIZE, features);
        let mut driver = busy(&rig, true);
        let device = rig.device();
        ring.take(&device, &mut batch, 8).unwrap();
        let used: Vec<_> = batch
            .iter()
            .map(|c| Used {
                token: c.token(),
                len: 0,
            })
            .collect();
        ring.commit(&device, &used).unwrap();
        ring.arm(&device).unwrap();
        ring.disarm(&device);
        let mut out = [Completion::default(); 8];
        assert_eq!(driver.take_used(&rig.driver(true), &mut out), Ok(4));
        driver.arm(&rig.driver(true));
        driver.disarm(&rig.driver(true));
        let mut cells = Cells::default();
        for log in [&rig.driver_log, &rig.device_log] {
            for access in log.loads.borrow().keys() {
                assert!(cells.fits(*access), "{format} loads {access:?}");
            }
            for access in log.stores.borrow().iter() {
                assert!(cells.fits(*access), "{format} stores {access:?}");
            }
        }
        let descriptors = cells.0.keys().filter(|(w, _)| *w == Which::Descriptor);
        assert!(
            descriptors.count() >= 4 * 16,
            "all bytes of four descriptors"
        );
    }
}

/// The cell that each byte was accessed as part of: where it begins, and its width.
#[derive(Default)]
struct Cells(std::collections::HashMap<(Which, u32), (u32, u8)>);

impl Cells {
    fn fits(&mut self, (which, at, width): (Which, u32, u8)) -> bool {
        which == Which::Tables
            || (at..at + u32::from(width))
                .all(|byte| *self.0.entry((which, byte)).or_insert((at, width)) == (at, width))
    }
}

#[test]
fn overlapping_cells_of_unlike_width_are_noticed() {
    let word = (Which::Descriptor, 8, 8);
    for (at, width) in [(8, 2), (14, 2), (8, 4), (12, 4), (12, 8), (4, 8)] {
        let mut cells = Cells::default();
        assert!(cells.fits(word) && cells.fits(word));
        assert!(!cells.fits((Which::Descriptor, at, width)));
        assert!(cells.fits((Which::Driver, at, width)));
    }
}

#[test]
fn fields_that_change_at_every_fetch_never_mix() {
    for format in [Format::Split, Format::Packed] {
        let (rig, mut ring, mut batch) = ring(format, SIZE, NONE);
        busy(&rig, false);
        // Whatever has been read turns into ones at once.
        *rig.device_log.hook.borrow_mut() = Some(Box::new(|rig, which, at| match which {
            Which::Descriptor => rig.region.bytes().store_u64(at, u64::MAX),
            Which::Driver => rig.u16(rig.at.driver, at, 0xffff),
            _ => {}
        }));
        assert_eq!(ring.take(&rig.device(), &mut batch, 8), Ok(4));
        let lens: Vec<_> = batch
            .iter()
            .map(|c| (c.readable_len(), c.writable_len()))
            .collect();
        assert_eq!(lens, [(1, 0), (1, 2), (0, 2), (3, 3)]);
        // And the next look finds ones everywhere.
        let again = ring.take(&rig.device(), &mut batch, 8);
        assert!(
            matches!(again, Ok(0) | Err(RingError::AvailJump { .. })),
            "{again:?}"
        );
    }
}

#[test]
fn work_is_bounded_under_live_refill_of_packed_slots() {
    for size in [1u16, 7, 8] {
        let (rig, mut ring, _) = ring(Format::Packed, size, NONE);
        let mut batch = Batch::new(1000, 1000);
        rig.packed(0, BASE, 1, 0, AVAIL);
        // As soon as a slot has been looked at the next one is available, the first for the next
        // lap.
        *rig.device_log.hook.borrow_mut() = Some(Box::new(move |rig, which, at| {
            if which == Which::Descriptor && at % 16 == 8 {
                match (at / 16) as u16 + 1 {
                    next if next == size => rig.packed(0, BASE, 1, 0, USED),
                    next => rig.packed(next, BASE, 1, 0, AVAIL),
                }
            }
        }));
        let taken = ring.take(&rig.device(), &mut batch, usize::MAX);
        assert_eq!(taken, Ok(usize::from(size)), "one lap, and no further");
        assert_eq!(ring.take(&rig.device(), &mut batch, usize::MAX), Ok(0));
        let loads: u32 = rig.device_log.loads.borrow().values().sum();
        assert_eq!(loads, 2 * u32::from(size));
    }
}

#[test]
fn work_is_bounded_under_live_refill() {
    // The driver fills the ring again as soon as the index has been read.
    let (rig, mut ring, _) = ring(Format::Split, SIZE, NONE);
    let mut batch = Batch::new(1000, 1000);
    rig.avail_idx(1);
    *rig.device_log.hook.borrow_mut() = Some(Box::new(|rig, _, _| {
        rig.avail_idx(SIZE);
    }));
    assert_eq!(ring.take(&rig.device(), &mut batch, usize::MAX), Ok(1));
    assert_eq!(
        ring.take(&rig.device(), &mut batch, usize::MAX),
        Ok(usize::from(SIZE) - 1)
    );
}

// ----- our own misuse

#[test]
fn more_than_was_taken_is_not_committed() {
    for format in [Format::Split, Format::Packed] {
        let (rig, mut ring, mut batch) = ring(format, SIZE, RingFeatures::IN_ORDER);
        let rig_device = rig.device();
        let used = [Used {
            token: ChainToken::new(0, 1),
            len: 0,
        }; 2];
        let error = RingError::NotTaken {
            asked: 2,
            in_flight: 0,
        };
        assert_eq!(ring.commit(&rig_device, &used), Err(error));
        assert_eq!(ring.commit_in_order(&rig_device, &used), Err(error));
        assert!(ring.rewind(&mut batch, 1).is_err());
        assert!(rig.device_log.stores.borrow().is_empty());
    }
}

#[test]
fn chain_given_back_is_not_given_back_again() {
    for format in [Format::Split, Format::Packed] {
        let refused = |asked, rewindable| Err(RingError::NotRewindable { asked, rewindable });
        let used = |batch: &Batch, n: usize| -> Vec<_> {
            let token = |i| batch.chain(i).unwrap().token();
            (0..n)
                .map(|i| Used {
                    token: token(i),
                    len: 0,
                })
                .collect()
        };
        // The first ones committed, then the rest given back untouched: legal, and no more.
        let (rig, mut ring, mut batch) = ring(format, SIZE, NONE);
        let device = rig.device();
        busy(&rig, false);
        assert_eq!(ring.take(&device, &mut batch, 8), Ok(4));
        ring.commit(&device, &used(&batch, 3)).unwrap();
        let before = ring.state();
        for n in [2, 4, 5] {
            assert_eq!(ring.rewind(&mut batch, n), refused(n, 1));
        }
        assert_eq!((ring.state(), batch.len()), (before, 4));
        assert_eq!(ring.rewind(&mut batch, 1), Ok(()));
        assert_eq!(ring.rewind(&mut batch, 1), refused(1, 0));
        assert_eq!(ring.take(&device, &mut batch, 8), Ok(1));

        // The other order.
        let (rig, mut ring, mut batch) = self::ring(format, SIZE, NONE);
        let device = rig.device();
        busy(&rig, false);
        assert_eq!(ring.take(&device, &mut batch, 8), Ok(4));
        assert_eq!(ring.rewind(&mut batch, 1), Ok(()));
        ring.commit(&device, &used(&batch, 3)).unwrap();
        assert_eq!(ring.rewind(&mut batch, 1), refused(1, 0));

        // All committed while others are in flight: none of the last take is left.
        let (rig, mut ring, mut batch) = self::ring(format, SIZE, NONE);
        let device = rig.device();
        busy(&rig, false);
        assert_eq!(ring.take(&device, &mut batch, 2), Ok(2));
        let mut later = Batch::new(8, 16);
        assert_eq!(ring.take(&device, &mut later, 2), Ok(2));
        ring.commit(&device, &used(&later, 2)).unwrap();
        assert!(ring.in_flight() >= 2);
        assert_eq!(ring.rewind(&mut later, 2), refused(2, 0));
    }
}

#[test]
fn batch_too_small_for_a_chain_is_told_and_latches_nothing() {
    for format in [Format::Split, Format::Packed] {
        let (rig, mut ring, _) = ring(format, SIZE, NONE);
        busy(&rig, false);
        let mut batch = Batch::new(8, 2);
        assert_eq!(ring.take(&rig.device(), &mut batch, 8), Ok(1));
        assert_eq!(ring.take(&rig.device(), &mut batch, 8), Ok(1));
        assert_eq!(ring.take(&rig.device(), &mut batch, 8), Ok(1));
        let found = ring.take(&rig.device(), &mut batch, 8);
        // The fourth chain, behind four descriptors.
        let place = if format == Format::Split { 3 } else { 4 };
        let capacity = 2;
        assert_eq!(found, Err(RingError::BatchTooSmall { place, capacity }));
        assert_eq!(ring.take(&rig.device(), &mut Batch::new(1, 3), 8), Ok(1));
    }
}

impl Rig {
    fn avail_idx_if_split(&self, idx: u16) {
        if self.format == Format::Split {
            self.avail_idx(idx);
        }
    }
    fn packed_or_split_single(&self) {
        match self.format {
            Format::Split => {
                self.split(0, BASE, 1, 0, 0);
                self.avail_idx(1);
            }
            Format::Packed => self.packed(0, BASE, 1, 0, AVAIL),
        }
    }
}

#[test]
fn rewinding_nothing_is_no_error_after_chains_of_old_and_a_malformed_one() {
    for format in [Format::Split, Format::Packed] {
        let (rig, mut ring, mut batch) = ring(format, SIZE, NONE);
        match format {
            Format::Split => {
                rig.split(0, BASE, 1, 0, 0);
                rig.avail(0, SIZE);
                rig.avail_idx(1);
                ring.resubmit(Again::split([0].into_iter()));
            }
            Format::Packed => {
                rig.packed(0, BASE, 1, SIZE, AVAIL);
                let old = [[BASE, packed(1, 0, 0)]];
                ring.resubmit(Again::packed([(0, old.as_slice())].into_iter()));
            }
        }
        let device = rig.device();
        assert_eq!(ring.to_repeat(), 1, "{format}");
        assert_eq!(ring.take(&device, &mut batch, 8), Ok(1), "{format}");
        assert_eq!(ring.to_repeat(), 0, "{format}");
        assert!(ring.take(&device, &mut batch, 8).is_err(), "{format}");
        assert_eq!(ring.rewind(&mut batch, 0), Ok(()), "{format}");
    }
}

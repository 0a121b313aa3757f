//! Queue groups in address spaces of their own, and addresses that are mapped only when they are asked for.

mod rig;

use std::sync::Arc;

use rig::{BASE, Lab, REGION, Rig, SOON, soon, until, with};
use vdpa_core::*;
use vdpa_mem::{Access, Deadline, Iova, IovaRange, Mapping, Region};

const PAGE: u64 = 4096;

fn page(rig: &Rig, at: u64) -> Mapping {
    let first = at & !(PAGE - 1);
    Mapping {
        iova: IovaRange::new(Iova::new(first), PAGE).unwrap(),
        memory: rig.memory.clone(),
        offset: first - BASE,
        access: Access::Both,
        dirty: None,
    }
}

/// Maps what the device asks for, until `done`. Answers how often it asked.
fn answer(rig: &Rig, events: &Events, mut done: impl FnMut() -> bool) -> usize {
    let mut asked = 0;
    let by = Deadline::after(SOON);
    while !done() {
        assert!(!by.expired(), "it did not happen: {:?}", rig.dma.mappings());
        match events.try_next() {
            Some(Event::Miss { asid, at, .. }) => {
                assert_eq!(asid, Asid::new(0));
                rig.dma.map(vec![page(rig, at.get())]).unwrap();
                asked += 1;
            }
            Some(other) => panic!("{other:?}"),
            None => std::thread::yield_now(),
        }
    }
    asked
}

#[test]
fn a_device_that_can_miss_needs_nothing_mapped_before_it_is_used() {
    let lab = Lab::new();
    for packed in [false, true] {
        for merge in [false, true] {
            let rig = lab.open("sim:net,page_requests=on");
            let events = rig.device.events().unwrap();
            rig.unmap();
            rig.negotiate(with(&rig, packed, merge, true, false));
            let (mut rx, mut tx) = (rig.queue(0, 64), rig.queue(1, 64));
            rig.run();
            for round in 0..40_u8 {
                let room = rig.alloc(2 * PAGE as usize);
                rx.add(&[], &[(room, 2 * PAGE as u32)]).unwrap();
                rx.publish();
                // Over a page boundary, and by an indirect table.
                let from = rig.alloc(3 * PAGE as usize) + PAGE - 40;
                let frame = [&[0; 12][..], &[round; 200]].concat();
                rig.bytes().write(from as usize, &frame);
                tx.add(&[(from, 12), (from + 12, 200)], &[]).unwrap();
                tx.publish();
                let mut got = Vec::new();
                let asked = answer(&rig, &events, || {
                    got.extend(rx.used());
                    !got.is_empty()
                });
                assert!(asked > 0, "each round has pages of its own");
                assert_eq!(got[0].len, 212);
                let mut back = [0; 200];
                rig.bytes().read(room as usize + 12, &mut back);
                assert_eq!(back, [round; 200]);
                until("the buffer came back", || !tx.used().is_empty());
            }
            assert!(!rig.status().contains(Status::DEVICE_NEEDS_RESET));
            rig.close();
        }
    }
}

#[test]
fn an_address_that_is_never_mapped_holds_up_its_own_queue_alone() {
    let lab = Lab::new();
    let rig = lab.open("sim:net,page_requests=on,queue_pairs=2");
    let events = rig.device.events().unwrap();
    rig.negotiate(with(&rig, false, true, true, false).with(bits::net::MQ));
    let mut stuck = rig.queue(1, 64);
    let (mut rx, mut tx) = (rig.queue(0, 64), rig.queue(3, 64));
    rig.run();
    // Outside of what is mapped.
    stuck.add(&[(REGION + PAGE, 100)], &[]).unwrap();
    stuck.publish();
    let miss = events.wait(soon()).unwrap();
    assert!(matches!(miss, Some(Event::Miss { at, .. }) if at.get() == BASE + REGION + PAGE));
    for _ in 0..100 {
        let (room, from) = (rig.alloc(2048), rig.alloc(2048));
        rx.add(&[], &[(room, 2048)]).unwrap();
        rx.publish();
        tx.add(&[(from, 112)], &[]).unwrap();
        tx.publish();
        until("a sibling goes on", || !rx.used().is_empty());
        until("the buffer came back", || !tx.used().is_empty());
    }
    assert!(stuck.used().is_empty());
    assert_eq!(events.try_next(), None, "it asks once");
    // It stops like any other, and its chain is taken by whoever goes on from there.
    let state = rig.device.stop_queue(stuck.index, soon()).unwrap();
    assert!(
        matches!(state, vdpa_ring::QueueState::Split { avail: 0, .. }),
        "{state:?}"
    );
    rig.device.suspend(soon()).unwrap();
    rig.device.resume().unwrap();
    rig.close();
}

#[test]
fn a_control_queue_has_an_address_space_of_its_own() {
    let lab = Lab::new();
    let rig = lab.open("sim:net");
    let (data, control) = (GroupIndex::new(0), GroupIndex::new(1));
    assert_eq!((rig.device.info().groups, rig.device.info().asids), (2, 2));
    let own = rig.device.dma(Asid::new(1)).unwrap();
    let error = rig.device.assign_group(control, Asid::new(2)).unwrap_err();
    assert!(error.to_string().contains("address space 2"), "{error}");
    let error = rig
        .device
        .assign_group(GroupIndex::new(2), Asid::new(1))
        .unwrap_err();
    assert!(error.to_string().contains("queue group 2"), "{error}");

    rig.negotiate(with(&rig, false, true, true, false));
    rig.device.assign_group(control, Asid::new(1)).unwrap();
    // The same addresses, other memory.
    let (memory, window) = Region::anonymous(REGION).unwrap().into_shared();
    own.map(vec![Mapping {
        iova: Rig::range(),
        memory: Arc::clone(&memory),
        offset: 0,
        access: Access::Both,
        dirty: None,
    }])
    .unwrap();
    let mut shadow = lab.open("sim:net");
    (shadow.memory, shadow.window) = (memory, window);
    shadow.negotiate(with(&shadow, false, true, true, false));
    let mut commands = rig::Q::new(&shadow, 2, 64, None);
    commands.start(&rig, None);
    let busy = rig.device.assign_group(control, Asid::new(0)).unwrap_err();
    assert_eq!(busy.kind(), ErrorKind::Busy, "{busy}");
    let (mut rx, mut tx) = (rig.queue(0, 64), rig.queue(1, 64));
    rig.run();

    // CTRL_RX, PROMISC, on.
    let (command, ack) = (shadow.alloc(16), shadow.alloc(16));
    shadow.bytes().write(command as usize, &[0, 0, 1]);
    shadow.bytes().write(ack as usize, &[0xff]);
    commands.add(&[(command, 3)], &[(ack, 1)]).unwrap();
    commands.publish();
    until("the command came back", || !commands.used().is_empty());
    let mut said = [0xee];
    shadow.bytes().read(ack as usize, &mut said);
    assert_eq!(
        said,
        [0],
        "it was read and answered in the memory of its own"
    );

    let (room, from) = (rig.alloc(2048), rig.alloc(2048));
    rx.add(&[], &[(room, 2048)]).unwrap();
    rx.publish();
    tx.add(&[(from, 112)], &[]).unwrap();
    tx.publish();
    until("data goes by the first space", || !rx.used().is_empty());

    // A reset takes all groups back.
    rig.reset();
    rig.negotiate(with(&rig, false, true, true, false));
    rig.device.assign_group(data, Asid::new(0)).unwrap();
    rig.device.assign_group(control, Asid::new(0)).unwrap();
    own.unmap(Rig::range(), soon()).unwrap();
    let mut commands = rig.queue(2, 64);
    rig.run();
    let (command, ack) = (rig.alloc(16), rig.alloc(16));
    rig.bytes().write(command as usize, &[0, 0, 1]);
    commands.add(&[(command, 3)], &[(ack, 1)]).unwrap();
    commands.publish();
    until("the command came back", || !commands.used().is_empty());
    shadow.close();
    rig.close();
}

#[test]
fn a_table_that_goes_on_in_a_page_that_is_missing_asks_for_that_page() {
    for packed in [false, true] {
        let lab = Lab::new();
        let rig = lab.open("sim:net,page_requests=on");
        let events = rig.device.events().unwrap();
        rig.negotiate(with(&rig, packed, false, false, false));
        let tx = rig.queue(1, 16);
        // Two entries, one on either side of a boundary.
        let table = rig.alloc(2 * PAGE as usize).next_multiple_of(PAGE) + PAGE - 16;
        let from = rig.alloc(256);
        let last = |next: u16| {
            // The first entry goes on; a packed table's go on by themselves.
            let chained = u64::from(!packed) << 32 | 1 << 48;
            if next == 0 { 0 } else { chained }
        };
        for (at, addr, len, next) in [(table, from, 12, 1), (table + 16, from + 12, 100, 0)] {
            rig.bytes().store_u64(at as u32, BASE + addr);
            rig.bytes().store_u64(at as u32 + 8, len | last(next));
        }
        let page_of = |at: u64| IovaRange::new(Iova::new((BASE + at) & !(PAGE - 1)), PAGE).unwrap();
        let missing = page_of(table + 16);
        let mut pages: Vec<_> = (0..REGION / PAGE)
            .map(|n| page(&rig, BASE + n * PAGE))
            .collect();
        pages.retain(|mapping| mapping.iova != missing);
        rig.dma.replace(pages, soon()).unwrap();
        let [descriptor, driver, _] = tx.areas().map(|at| at as u32);
        rig.bytes().store_u64(descriptor, BASE + table);
        // INDIRECT, and available where it is packed.
        let flags = if packed { (4 | 1 << 7) << 48 } else { 4 << 32 };
        rig.bytes().store_u64(descriptor + 8, 32 | flags);
        rig.bytes().store_u16(driver + 4, 0);
        if !packed {
            rig.bytes().store_u16(driver + 2, 1);
        }
        rig.run();
        let asked = events.wait(soon()).unwrap();
        let Some(Event::Miss { at, want, .. }) = asked else {
            panic!("{asked:?}")
        };
        assert_eq!((at, want), (missing.first(), Access::DeviceReads));
        std::thread::sleep(std::time::Duration::from_millis(5));
        assert_eq!(events.try_next(), None, "once");
        assert_eq!(rig.stat("queue1.packets"), 0);
        rig.dma.map(vec![page(&rig, at.get())]).unwrap();
        until("the packet", || rig.stat("queue1.packets") == 1);
        rig.close();
    }
}

//! A device that is stopped and goes on, here or as another one, is the device that was never stopped. Mappings belong
//! to their owner.

mod rig;

use rig::{BASE, HEADER, Lab, Q, Rig, frame, soon, until, with};
use vdpa_core::bits::{self, net};
use vdpa_core::session::{Completions, QueueSetup};
use vdpa_core::*;
use vdpa_mem::{Access, Iova, IovaRange, Mapping, MemError};
use vdpa_ring::{Completion, QueueState};

/// How a run is interrupted.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Cut {
    Never,
    /// Both queues are stopped, and started with their states.
    Stop,
    /// The device is suspended and resumed.
    Suspend,
    /// Another device becomes it.
    Move,
}

/// What a driver sees of a run, and where it ends.
#[derive(Debug, PartialEq)]
struct Seen {
    completions: Vec<(u16, Completion)>,
    frames: Vec<Vec<u8>>,
    states: Vec<QueueState>,
}

/// Sends and receives frames one by one, interrupted at every `each`th.
fn run(packed: bool, merge: bool, in_order: bool, cut: Cut, each: usize) -> Seen {
    let lab = Lab::new();
    let mut rig = lab.open("sim:net,mac=02:00:00:00:00:01");
    rig.negotiate(with(&rig, packed, merge, true, in_order));
    let (mut rx, mut tx) = (rig.queue(0, 8), rig.queue(1, 8));
    rig.run();
    let mut seen = Seen {
        completions: Vec::new(),
        frames: Vec::new(),
        states: Vec::new(),
    };
    let (room, from) = (rig.alloc(2048), rig.alloc(2048));
    for n in 0..60 {
        if n % each == each - 1 {
            interrupt(&lab, &mut rig, [&mut rx, &mut tx], cut);
        }
        let frame = frame(n, 60 + n * 7 % 900);
        rig.bytes().zero(from as usize, HEADER);
        rig.bytes().write(from as usize + HEADER, &frame);
        rx.add(&[], &[(room, 1024), (room + 1024, 1024)]).unwrap();
        rx.publish();
        tx.add(&[(from, (HEADER + frame.len()) as u32)], &[])
            .unwrap();
        tx.publish();
        for queue in [&mut rx, &mut tx] {
            let index = queue.index.get();
            let done = queue.wait_used(1);
            seen.completions.extend(done.iter().map(|d| (index, *d)));
            if index == 0 {
                let mut bytes = vec![0; done[0].len as usize];
                rig.bytes().read(room as usize, &mut bytes);
                seen.frames.push(bytes);
            }
        }
    }
    rig.device.suspend(soon()).unwrap();
    seen.states = [0, 1]
        .map(|q| rig.device.queue_state(QueueIndex::new(q)).unwrap())
        .to_vec();
    seen
}

fn interrupt(lab: &Lab, rig: &mut Rig, queues: [&mut Q; 2], cut: Cut) {
    match cut {
        Cut::Never => {}
        Cut::Stop => {
            for queue in queues {
                let state = rig.device.stop_queue(queue.index, soon()).unwrap();
                queue.start(rig, Some(state));
            }
        }
        Cut::Suspend => {
            rig.device.suspend(soon()).unwrap();
            rig.device.resume().unwrap();
        }
        Cut::Move => {
            rig.device.suspend(soon()).unwrap();
            let image = rig.device.save().unwrap().to_bytes();
            let image = DeviceImage::parse(&image).unwrap();
            let next = lab.registry.open("sim:net,mac=02:00:00:00:00:02").unwrap();
            rig.dma = next.dma(Asid::new(0)).unwrap();
            rig.map();
            let doorbells = next.restore(&image, |_| (Kick::Taken, Call::None)).unwrap();
            for (queue, (index, doorbell)) in queues.into_iter().zip(doorbells) {
                assert_eq!(queue.index, index);
                queue.doorbell = doorbell;
            }
            // The address that the driver knows went along.
            let mut mac = [0; 6];
            next.read_config(0, &mut mac).unwrap();
            assert_eq!(mac, [2, 0, 0, 0, 0, 1]);
            next.resume().unwrap();
            let old = std::mem::replace(&mut rig.device, next);
            old.close(soon()).map_err(|(_, e)| e).unwrap();
        }
    }
}

/// The state is taken and set, and the run is the one that was not interrupted: split and packed.
#[test]
fn a_run_that_is_interrupted_anywhere_is_the_run_that_is_not() {
    for kind in 0..8 {
        let [packed, merge, in_order] = [1, 2, 4].map(|bit| kind & bit != 0);
        let whole = run(packed, merge, in_order, Cut::Never, 1);
        assert_eq!(whole.frames.len(), 60);
        for cut in [Cut::Stop, Cut::Suspend, Cut::Move] {
            for each in [1, 7] {
                let seen = run(packed, merge, in_order, cut, each);
                assert_eq!(seen, whole, "{cut:?} at each {each}");
            }
        }
    }
}

/// A batch of maps is all or none, and what overlaps is an error.
#[test]
fn a_batch_with_an_overlap_maps_nothing() {
    let rig = Lab::new().open("sim:net");
    let before = rig.dma.mappings().len();
    let mapping = |first: u64, len: u64| Mapping {
        iova: IovaRange::new(Iova::new(first), len).unwrap(),
        memory: rig.memory.clone(),
        offset: 0,
        access: Access::Both,
        dirty: None,
    };
    for batch in [
        // One is good, and the other is over what is there; and two of one batch.
        vec![mapping(0x1000, 0x1000), mapping(BASE + 0x1000, 0x1000)],
        vec![mapping(0x1000, 0x2000), mapping(0x2000, 0x1000)],
    ] {
        let error = rig.dma.map(batch).unwrap_err();
        let overlap = matches!(error, Error::Memory(MemError::Overlap { .. }));
        assert!(overlap, "{error}");
        assert_eq!(rig.dma.mappings().len(), before);
    }
    rig.dma
        .map(vec![mapping(0x1000, 0x1000), mapping(0x2000, 0x1000)])
        .unwrap();
    assert_eq!(rig.dma.mappings().len(), before + 2);
}

/// Mappings outlive a reset, in every address space; which group is in which does not.
#[test]
fn a_reset_keeps_the_mappings_and_takes_the_groups_back() {
    let rig = Lab::new().open("sim:net");
    let other = rig.device.dma(Asid::new(1)).unwrap();
    other.map(rig.dma.mappings()).unwrap();
    for round in 0..3 {
        rig.negotiate(with(&rig, round % 2 == 1, true, true, false));
        let group = GroupIndex::new(0);
        rig.device.assign_group(group, Asid::new(1)).unwrap();
        if round == 1 {
            // What the data queues see is the second space.
            rig.unmap();
        }
        let (mut rx, mut tx) = (rig.queue(0, 8), rig.queue(1, 8));
        rig.run();
        let (room, from) = (rig.alloc(2048), rig.alloc(2048));
        rx.add(&[], &[(room, 2048)]).unwrap();
        rx.publish();
        tx.add(&[(from, 100)], &[]).unwrap();
        tx.publish();
        rx.wait_used(1);
        rig.reset();
        assert_eq!(rig.dma.mappings().len(), usize::from(round < 1));
        assert_eq!(other.mappings().len(), 1);
        // The group is back: its queues find nothing in the first space once that is empty.
        if round == 1 {
            rig.negotiate(with(&rig, false, true, true, false));
            let queue = Q::new(&rig, 0, 8, None);
            let config = queue.config(None);
            let start = rig
                .device
                .start_queue(queue.index, config, Kick::Taken, Call::None);
            assert!(
                matches!(start, Err(Error::AreaNotMapped { .. })),
                "{start:?}"
            );
            rig.reset();
        }
    }
}

#[test]
fn a_session_moves_to_another_device_with_its_queues_and_leases() {
    for suspend_bit in [false, true] {
        for packed in [false, true] {
            let lab = Lab::new();
            let open = |spec| lab.registry.open(spec).unwrap();
            let session = Session::open(open("sim:net"), soon())
                .map_err(|(_, e)| e)
                .unwrap();
            let mut features = session.acceptable();
            for (bit, on) in [
                (bits::RING_PACKED, packed),
                (bits::SUSPEND, suspend_bit),
                (net::MQ, false),
                // Its header is longer.
                (net::HASH_REPORT, false),
            ] {
                features = if on {
                    features.with(bit)
                } else {
                    features.without(bit)
                };
            }
            let mut session = session.negotiate(features).map_err(|(_, e)| e).unwrap();
            for q in 0..2 {
                let setup = QueueSetup::default();
                session.queue(QueueIndex::new(q), setup).unwrap();
            }
            let mut session = session.run().map_err(|(_, e)| e).unwrap();
            let mut done = Completions::new(64);
            let (rx, tx) = (QueueIndex::new(0), QueueIndex::new(1));
            for round in 0..5_u8 {
                // Sent before the move, and received after it.
                let queue = session.queue_mut(tx).unwrap();
                let lease = queue.lease().unwrap();
                queue.write(&lease, 0, &[0; HEADER]);
                queue.write(&lease, HEADER, &[round; 64]);
                queue
                    .send(lease, HEADER as u32 + 64)
                    .map_err(|r| r.why)
                    .unwrap();
                queue.publish();
                until("the frame to be sent", || {
                    queue.poll(&mut done).unwrap();
                    done.drain().map(|d| queue.put(d.lease)).count() == 1
                });
                let suspended = session.suspend(soon()).map_err(|(_, e)| e).unwrap();
                // One that cannot become it is refused, and changes nothing.
                let other = open("sim:net,features=VERSION_1+ACCESS_PLATFORM");
                let (suspended, other, why) = suspended.move_to(other, soon()).unwrap_err();
                assert!(matches!(why, Error::Features(_)), "{why}");
                assert!(other.status().unwrap().is_empty());
                let (suspended, old) = suspended
                    .move_to(open("sim:net"), soon())
                    .map_err(|(_, _, e)| e)
                    .unwrap();
                assert!(old.status().unwrap().is_empty());
                assert!(old.dma(Asid::new(0)).unwrap().mappings().is_empty());
                session = suspended.resume(soon()).map_err(|(_, e)| e).unwrap();

                let queue = session.queue_mut(rx).unwrap();
                let lease = queue.lease().unwrap();
                queue.receive(lease).map_err(|r| r.why).unwrap();
                queue.publish();
                until("the frame", || {
                    queue.poll(&mut done).unwrap();
                    let came = done.drain().next();
                    came.is_some_and(|d| {
                        let mut bytes = [0; 64];
                        queue.read(&d.lease, HEADER, &mut bytes);
                        assert_eq!(bytes, [round; 64]);
                        queue.put(d.lease);
                        true
                    })
                });
            }
            session.close(soon()).map_err(|(_, e)| e).unwrap();
        }
    }
}

/// Whichever of its contract calls fails.
#[test]
fn a_device_that_fails_while_a_session_moves_to_it_is_left_in_reset() {
    let lab = Lab::new();
    let session = Session::open(lab.registry.open("sim:net").unwrap(), soon());
    let session = session.map_err(|(_, e)| e).unwrap();
    let features = session.acceptable().without(net::HASH_REPORT);
    assert!(features.contains(bits::SUSPEND), "it goes on by two steps");
    let mut session = session.negotiate(features).map_err(|(_, e)| e).unwrap();
    for q in 0..2 {
        let setup = QueueSetup::default();
        session.queue(QueueIndex::new(q), setup).unwrap();
    }
    let session = session.run().map_err(|(_, e)| e).unwrap();
    let mut suspended = session.suspend(soon()).map_err(|(_, e)| e).unwrap();
    let mut failed = 0;
    loop {
        let spec = format!("sim:net,fault=control.error:@{}", failed + 1);
        let to = lab.registry.open(&spec).unwrap();
        // Memory that is somebody else's business stays.
        let own = Mapping {
            iova: IovaRange::new(Iova::new(1 << 40), 4096).unwrap(),
            memory: std::sync::Arc::new(vdpa_mem::Region::anonymous(4096).unwrap()),
            offset: 0,
            access: Access::Both,
            dirty: None,
        };
        to.dma(Asid::new(0))
            .unwrap()
            .map(vec![own.clone()])
            .unwrap();
        match suspended.move_to(to, soon()) {
            Ok((moved, _)) => {
                suspended = moved;
                break;
            }
            Err((same, to, why)) => {
                assert_eq!(why.kind(), ErrorKind::Busy, "{why}");
                assert_eq!(to.status().unwrap(), Status::empty(), "call {failed}");
                let left = to.dma(Asid::new(0)).unwrap().mappings();
                assert_eq!(left.len(), 1, "call {failed}");
                assert_eq!(left[0].iova, own.iova);
                suspended = same;
                failed += 1;
            }
        }
        assert!(failed < 100);
    }
    assert!(failed > 5, "{failed} calls of the new device");
    // The call that fails is the one that resumes it now, once.
    let (suspended, why) = suspended.resume(soon()).unwrap_err();
    assert_eq!(why.kind(), ErrorKind::Busy, "{why}");
    let session = suspended.resume(soon()).map_err(|(_, e)| e).unwrap();
    session.close(soon()).map_err(|(_, e)| e).unwrap();
}

//! A driver and a device, through `Session`: both ring formats, chains over several buffers, and the ways out.
#![cfg(not(loom))]

mod echo;

use std::time::Duration;

use echo::{Echo, OFFERED};
use vdpa_core::session::{Backing, Completions, Lease, Link, Part, QueueSetup, Running};
use vdpa_core::*;
use vdpa_mem::Deadline;

const BASE: Features = Features::of(&[bits::VERSION_1, bits::ACCESS_PLATFORM]);

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(10))
}

fn open() -> Device {
    Device::new(Echo::new(), Relay::new()).unwrap()
}

fn run(device: Device, features: Features, setup: QueueSetup) -> Session<Running> {
    let session = Session::open(device, soon()).map_err(|(_, e)| e).unwrap();
    assert_eq!(session.offered(), OFFERED);
    let mut session = session.negotiate(features).map_err(|(_, e)| e).unwrap();
    for q in 0..2 {
        session.queue(QueueIndex::new(q), setup).unwrap();
    }
    session.run().map_err(|(_, e)| e).unwrap()
}

fn formats() -> Vec<Features> {
    let extras = [
        Features::NONE,
        bits::EVENT_IDX.mask(),
        bits::INDIRECT_DESC.mask() | bits::NOTIFICATION_DATA.mask(),
        bits::EVENT_IDX.mask() | bits::IN_ORDER.mask(),
        bits::EVENT_IDX.mask() | bits::ORDER_PLATFORM.mask(),
    ];
    let split = extras.map(|extra| BASE | extra);
    let packed = split.map(|f| f | bits::RING_PACKED.mask());
    split.into_iter().chain(packed).collect()
}

/// Waits until `count` buffers are back, in `done`.
fn collect(queue: &mut Queue, done: &mut Completions, count: usize) {
    while done.len() < count {
        if queue.poll(done).unwrap() == 0 {
            assert!(queue.wait(soon()).unwrap(), "nothing comes back");
        }
    }
    assert_eq!(done.len(), count);
}

/// Sends `text` in a buffer with room for the answer behind it; the answer must be the text.
fn echo(queue: &mut Queue, done: &mut Completions, text: &[u8]) -> Lease {
    let len = u32::try_from(text.len()).unwrap();
    let lease = queue.lease().unwrap();
    assert_eq!(queue.write(&lease, 0, text), text.len());
    let parts = [Part::Readable(len), Part::Writable(len + 10)];
    queue.submit(lease, &parts).unwrap();
    queue.publish();
    collect(queue, done, 1);
    let back = done.pop().unwrap();
    assert_eq!((back.len, back.last), (len, true));
    let mut answer = vec![0; text.len()];
    queue.read(&back.lease, text.len(), &mut answer);
    assert_eq!(answer, text);
    back.lease
}

#[test]
fn every_ring_carries_data_there_and_back() {
    let backings = [Backing::Memfd, Backing::Anonymous];
    for (features, backing) in formats().into_iter().zip(backings.into_iter().cycle()) {
        let setup = QueueSetup {
            size: 8,
            buffers: 20,
            buffer_len: 100,
            backing,
            ..QueueSetup::default()
        };
        let mut session = run(open(), features, setup);
        let queue = session.queue_mut(QueueIndex::new(1)).unwrap();
        let mut done = Completions::new(8);
        for round in 0..200u32 {
            let lease = echo(queue, &mut done, format!("message {round}").as_bytes());
            queue.put(lease);
        }
        drop(session.close(soon()).map_err(|(_, e)| e).unwrap());
    }
}

#[test]
fn a_full_batch_is_published_once_and_all_of_it_comes_back() {
    for features in formats() {
        let session = run(open(), features, QueueSetup::default());
        let (control, mut queues) = session.split();
        let queue = &mut queues[0];
        let mut done = Completions::new(256);
        for round in 0..5u8 {
            let mut sent = 0;
            while queue.free() > 1 {
                let lease = queue.lease().unwrap();
                queue.write(&lease, 0, &[round]);
                queue
                    .submit(lease, &[Part::Readable(1), Part::Writable(1)])
                    .unwrap();
                sent += 1;
            }
            let lease = queue.lease();
            queue.publish();
            collect(queue, &mut done, sent);
            for back in done.drain() {
                let mut byte = [0];
                queue.read(&back.lease, 1, &mut byte);
                assert_eq!(byte, [round]);
                queue.put(back.lease);
            }
            if let Some(lease) = lease {
                queue.put(lease);
            }
        }
        let session = control.join(queues).map_err(|_| "other queues").unwrap();
        drop(session);
    }
}

#[test]
fn a_chain_over_several_buffers_says_what_each_was_written() {
    for features in formats() {
        let setup = QueueSetup {
            size: 8,
            buffers: 8,
            buffer_len: 64,
            ..QueueSetup::default()
        };
        let mut session = run(open(), features, setup);
        let queue = session.queue_mut(QueueIndex::new(0)).unwrap();
        let mut done = Completions::new(8);
        for _ in 0..20 {
            let [a, b, c, d] = [(); 4].map(|()| queue.lease().unwrap());
            queue.write(&a, 0, b"hello ");
            queue.write(&b, 0, b"world");
            let numbers = [&a, &b, &c, &d].map(Lease::buffer);
            let mut links = vec![
                Link {
                    lease: a,
                    part: Part::Readable(6),
                },
                Link {
                    lease: b,
                    part: Part::Readable(5),
                },
                Link {
                    lease: c,
                    part: Part::Writable(4),
                },
                Link {
                    lease: d,
                    part: Part::Writable(60),
                },
            ];
            queue.submit_chain(&mut links).unwrap();
            assert!(links.is_empty());
            queue.publish();
            collect(queue, &mut done, 4);
            let back: Vec<_> = done.drain().collect();
            let shape = back.iter().map(|d| (d.lease.buffer(), d.len, d.last));
            let expected = [0, 0, 4, 7].into_iter().zip(numbers);
            let expected = expected.map(|(len, n)| (n, len, n == numbers[3]));
            assert!(shape.eq(expected), "{back:?}");
            let mut text = [0; 7];
            queue.read(&back[3].lease, 0, &mut text);
            assert_eq!(&text, b"o world");
            back.into_iter().for_each(|d| queue.put(d.lease));
        }
    }
}

#[test]
fn refused_chains_give_their_buffers_back() {
    let setup = QueueSetup {
        size: 4,
        buffers: 8,
        buffer_len: 64,
        indirect: 0,
        ..QueueSetup::default()
    };
    let session = run(open(), BASE, setup);
    let (_control, mut queues) = session.split();
    let mut other = queues.pop().unwrap();
    let mut queue = queues.pop().unwrap();
    let foreign = other.lease().unwrap();
    assert_eq!(queue.write(&foreign, 0, b"x"), 0);
    let refused = queue.send(foreign, 1).unwrap_err();
    assert_eq!(
        refused.why.to_string(),
        "queue 0: the lease is of another queue"
    );
    other.put(refused.lease);

    let lease = queue.lease().unwrap();
    let refused = queue.send(lease, 65).unwrap_err();
    assert_eq!(refused.why.kind(), ErrorKind::Misuse);
    let wrong = [Part::Writable(1), Part::Readable(1)];
    let refused = queue.submit(refused.lease, &wrong).unwrap_err();
    assert!(refused.why.to_string().contains("after a writable one"));
    let refused = queue.submit(refused.lease, &[]).unwrap_err();
    assert_eq!(refused.why.kind(), ErrorKind::Misuse);
    let five = [Part::Readable(1); 5];
    let refused = queue.submit(refused.lease, &five).unwrap_err();
    assert_eq!(refused.why.kind(), ErrorKind::Misuse);
    assert_eq!(queue.write(&refused.lease, 60, b"12345"), 4);
    queue.put(refused.lease);

    for _ in 0..4 {
        let lease = queue.lease().unwrap();
        queue.receive(lease).unwrap();
    }
    let lease = queue.lease().unwrap();
    let refused = queue.receive(lease).unwrap_err();
    assert!(matches!(
        refused.why,
        Error::RingFull {
            needed: 1,
            free: 0,
            ..
        }
    ));
}

#[test]
fn a_lease_of_another_sessions_queue_of_the_same_number_is_refused() {
    let [mut queue, mut other] = [(); 2].map(|()| {
        let (_control, mut queues) = run(open(), BASE, QueueSetup::default()).split();
        queues.swap_remove(0)
    });
    assert_eq!(queue.index(), other.index());
    let foreign = other.lease().unwrap();
    assert_eq!(queue.write(&foreign, 0, b"x"), 0);
    assert!(queue.bytes(&foreign).is_none());
    let refused = queue.send(foreign, 1).unwrap_err();
    assert_eq!(refused.why.kind(), ErrorKind::Misuse);
    let refused = queue.receive(refused.lease).unwrap_err();
    queue.put(refused.lease);
    let all: Vec<_> = std::iter::from_fn(|| queue.lease()).collect();
    assert_eq!(all.len(), 256, "what is put back is not its own");
}

#[test]
fn a_device_serves_one_session_after_another() {
    let mut device = open();
    for features in formats() {
        let mut session = run(device, features, QueueSetup::default());
        let queue = session.queue_mut(QueueIndex::new(0)).unwrap();
        let lease = echo(queue, &mut Completions::new(1), b"again");
        queue.put(lease);
        device = session.close(soon()).map_err(|(_, e)| e).unwrap();
        let dma = device.dma(Asid::new(0)).unwrap();
        assert!(dma.mappings().is_empty(), "the session unmapped its memory");
    }
}

#[test]
fn a_suspended_device_goes_on_where_it_stood() {
    for features in [BASE, BASE | bits::SUSPEND.mask()] {
        suspend_and_go_on(features);
    }
}

fn suspend_and_go_on(features: Features) {
    let session = run(open(), features, QueueSetup::default());
    let session = session.suspend(soon()).map_err(|(_, e)| e).unwrap();
    let mut session = session.resume(soon()).map_err(|(_, e)| e).unwrap();
    let queue = session.queue_mut(QueueIndex::new(0)).unwrap();
    let _lease = echo(queue, &mut Completions::new(1), b"awake");
}

#[test]
fn a_queue_that_outlives_its_session_is_harmless() {
    let (control, mut queues) = run(open(), BASE, QueueSetup::default()).split();
    drop(control);
    let queue = &mut queues[0];
    let lease = queue.lease().unwrap();
    queue.send(lease, 10).unwrap();
    queue.publish();
    queue.kick();
    let by = Deadline::after(Duration::from_millis(5));
    assert!(!queue.wait(by).unwrap());
}

#[test]
fn only_the_queues_that_were_split_off_can_be_joined() {
    let (control, mut queues) = run(open(), BASE, QueueSetup::default()).split();
    let (_other, others) = run(open(), BASE, QueueSetup::default()).split();
    let (control, _others) = control.join(others).unwrap_err();
    let last = queues.pop().unwrap();
    let (control, mut queues) = control.join(queues).unwrap_err();
    queues.insert(0, last);
    assert!(control.join(queues).is_ok(), "in any order");
}

#[test]
fn a_set_up_out_of_range_is_refused_and_the_session_goes_on() {
    let session = Session::open(open(), soon()).map_err(|(_, e)| e).unwrap();
    let (session, error) = session.negotiate(bits::EVENT_IDX.mask()).unwrap_err();
    assert!(error.to_string().contains("VERSION_1"), "{error}");
    let mut session = session.negotiate(BASE).map_err(|(_, e)| e).unwrap();
    let q = QueueIndex::new(0);
    let sized = |size| QueueSetup {
        size,
        ..QueueSetup::default()
    };
    let errors = [0, 2048, 7].map(|size| session.queue(q, sized(size)).unwrap_err().to_string());
    assert_eq!(
        errors,
        [
            "queue 0: size 0 is out of range: 1 to 1024 is legal",
            "queue 0: size 2048 is out of range: 1 to 1024 is legal",
            "queue 0: size 7 is no power of two, which a split ring needs",
        ]
    );
    let absent = session.queue(QueueIndex::new(2), sized(8)).unwrap_err();
    assert!(matches!(absent, Error::QueueOutOfRange { .. }));
    session.queue(q, sized(8)).unwrap();
    assert!(session.queue(q, sized(8)).is_err(), "set up twice");
    assert!(session.run().is_ok());
}

#[test]
fn a_session_in_parts_is_suspended_and_moved_with_all_of_its_queues_and_no_others() {
    let (control, _queues) = run(open(), BASE, QueueSetup::default()).split();
    let (mut other, mut theirs) = run(open(), BASE, QueueSetup::default()).split();
    let queue = &mut theirs[0];
    for refused in [
        control.stop_queue(queue, soon()),
        control.reset_queue(queue, soon()),
        control.start_queue(queue).map(drop),
    ] {
        let error = refused.unwrap_err().to_string();
        assert_eq!(error, "queue 0: the queue is of another session");
    }
    control.suspend(soon()).unwrap();
    control.resume(soon()).unwrap();
    assert!(control.resume(soon()).is_err(), "it runs");

    // Not used yet: this device goes on from nothing but the beginning.
    other.suspend(soon()).unwrap();
    let (to, error) = other.move_to(&mut theirs[..1], open(), soon()).unwrap_err();
    assert!(error.to_string().contains("all of its queues"), "{error}");
    let old = other.move_to(&mut theirs, to, soon());
    assert!(
        old.map_err(|(_, e)| e)
            .unwrap()
            .status()
            .unwrap()
            .is_empty()
    );
    other.resume(soon()).unwrap();
    let mut done = Completions::new(8);
    for queue in &mut theirs {
        let lease = echo(queue, &mut done, b"there");
        queue.put(lease);
    }
}

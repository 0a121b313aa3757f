//! Interrupts: whichever vectors there are and whichever are taken, the right calls are made.

mod card;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use card::{Around, Card, Shape, Sink, counting, host};
use vdpa_core::{
    Call, CallKind, Error, ErrorKind, Event, Features, Kick, QueueConfig, QueueIndex, Relay,
    Relayed, Result, Status, VdpaDevice, bits,
};
use vdpa_mem::Iova;
use vdpa_pci::VirtioPci;

const QUEUES: usize = 3;

fn negotiate(device: &VirtioPci) {
    device.begin_reset().unwrap();
    while !device.status().unwrap().is_empty() {}
    device
        .accept(Features::of(&[bits::VERSION_1, bits::RING_RESET]))
        .unwrap();
    device
        .add_status(Status::DRIVER | Status::FEATURES_OK)
        .unwrap();
}

fn opened(card: &Arc<Card>) -> (VirtioPci, Arc<Sink>) {
    let device = card.open().unwrap();
    let sink = Arc::new(Sink::default());
    device.attach(host(&sink)).unwrap();
    negotiate(&device);
    (device, sink)
}

fn start(device: &VirtioPci, number: u16, call: Call) -> Result<()> {
    let at = Iova::new(0x1000);
    let config = QueueConfig::new(16, at, at, at);
    let started = device.start_queue(QueueIndex::new(number), &config, Kick::Taken, call);
    started.map(drop)
}

fn start_all(device: &VirtioPci) -> [Arc<AtomicU32>; QUEUES] {
    [0, 1, 2].map(|number| {
        let (count, call) = counting();
        start(device, number, call).unwrap();
        count
    })
}

fn counts(all: &[Arc<AtomicU32>; QUEUES]) -> [u32; QUEUES] {
    [0, 1, 2].map(|number: usize| all[number].swap(0, Ordering::SeqCst))
}

/// Where everything ends up: the configuration's vector, and those of the queues.
type Mapped = (u16, [u16; QUEUES]);

const LINE: Mapped = (0xffff, [0xffff; QUEUES]);

fn cases() -> Vec<(&'static str, Shape, Mapped)> {
    let base = Shape::default;
    vec![
        ("one each", base(), (0, [1, 2, 3])),
        (
            "exactly as many",
            Shape { msix: 4, ..base() },
            (0, [1, 2, 3]),
        ),
        (
            "the last two share",
            Shape { msix: 3, ..base() },
            (0, [1, 2, 2]),
        ),
        ("two vectors", Shape { msix: 2, ..base() }, (0, [1, 1, 1])),
        ("one vector", Shape { msix: 1, ..base() }, (0, [0, 0, 0])),
        (
            "fewer granted",
            Shape {
                granted: 2,
                ..base()
            },
            (0, [1, 1, 1]),
        ),
        (
            "one fewer granted",
            Shape {
                granted: 3,
                ..base()
            },
            (0, [1, 2, 2]),
        ),
        (
            "one granted",
            Shape {
                granted: 1,
                ..base()
            },
            (0, [0, 0, 0]),
        ),
        (
            "none granted",
            Shape {
                granted: 0,
                ..base()
            },
            LINE,
        ),
        ("no MSI-X", Shape { msix: 0, ..base() }, LINE),
        (
            "queue 0 is refused its own",
            Shape {
                refuses: |queue, vector| queue == Some(0) && vector == 1,
                ..base()
            },
            (0, [3, 2, 3]),
        ),
        (
            "queue 2 is refused the last, which is its own",
            Shape {
                refuses: |queue, vector| queue == Some(2) && vector == 3,
                ..base()
            },
            (0, [1, 2, 0]),
        ),
        (
            "queues get the first alone",
            Shape {
                refuses: |queue, vector| queue.is_some() && vector != 0,
                ..base()
            },
            (0, [0, 0, 0]),
        ),
        (
            "the configuration gets the last alone",
            Shape {
                refuses: |queue, vector| queue.is_none() && vector != 3,
                ..base()
            },
            (3, [1, 2, 3]),
        ),
        (
            "queues get none",
            Shape {
                refuses: |queue, _| queue.is_some(),
                ..base()
            },
            LINE,
        ),
        (
            "the configuration gets none",
            Shape {
                refuses: |queue, _| queue.is_none(),
                ..base()
            },
            LINE,
        ),
    ]
}

#[test]
fn every_fallback_calls_whom_it_shall() {
    for (name, shape, (config, queues)) in cases() {
        let card = Card::new(shape);
        let (device, sink) = opened(&card);
        // Twice: a reset maps everything anew.
        for _ in 0..2 {
            let calls = start_all(&device);
            device.add_status(Status::DRIVER_OK).unwrap();
            let state = card.state();
            let mapped: Vec<u16> = state.queues.iter().map(|q| q.vector).collect();
            assert_eq!(
                (state.config_vector, &*mapped),
                (config, &queues[..]),
                "{name}"
            );
            assert_eq!(state.vectors.is_empty(), config == 0xffff, "{name}");
            drop(state);

            for number in 0..3 {
                card.interrupt(number);
                let at = usize::from(number);
                let sharing = queues.map(|vector| u32::from(vector == queues[at]));
                assert_eq!(counts(&calls), sharing, "{name}, queue {number}");
                card.state().isr = 0;
            }
            assert_eq!(sink.take(), [], "{name}: queues alone");

            card.change_config();
            assert_eq!(sink.take(), [Event::Config], "{name}");
            let shared = queues.map(|vector| u32::from(vector == config));
            if config == 0xffff {
                // The line says which.
                assert_eq!(counts(&calls), [0; QUEUES], "{name}");
            } else {
                assert_eq!(counts(&calls), shared, "{name}");
            }

            card.state().status |= 0x40;
            card.change_config();
            let events = sink.take();
            let [Event::NeedsReset { queue: None, why }, Event::Config] = &events[..] else {
                panic!("{name}: {events:?}");
            };
            assert!(why.contains("0x4e"), "{why}");
            card.change_config();
            assert_eq!(sink.take(), [Event::Config], "{name}: told once");

            negotiate(&device);
            let state = card.state();
            let none = |call: &Call| matches!(call, Call::None);
            assert!(
                state.vectors.iter().all(none) && none(&state.line),
                "{name}"
            );
            drop(state);
            for count in &calls {
                assert_eq!(Arc::strong_count(count), 1, "{name}: a call is kept");
            }
        }
    }
}

#[test]
fn no_interrupt_at_all_is_refused_with_the_reason() {
    let none = Shape {
        msix: 0,
        intx: false,
        ..Shape::default()
    };
    let refused = Shape {
        intx: false,
        refuses: |queue, _| queue.is_some(),
        ..Shape::default()
    };
    for (shape, text) in [
        (none, "has no interrupt: no MSI-X vector can be used"),
        (
            refused,
            "queue 0 could not be given an interrupt vector: vectors 1, 3, 0 read back",
        ),
    ] {
        let (device, _) = opened(&Card::new(shape));
        let error = start(&device, 0, counting().1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains(text), "{error}");
    }
    // One that runs keeps its vector, though another one gets none.
    let card = Card::new(Shape {
        refuses: |queue, _| queue == Some(1),
        ..Shape::default()
    });
    let (device, _) = opened(&card);
    let (count, call) = counting();
    start(&device, 0, call).unwrap();
    let error = start(&device, 1, Call::None).unwrap_err();
    assert!(error.to_string().contains("queue 1 could not"), "{error}");
    card.interrupt(0);
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[test]
fn a_function_without_an_interrupt_is_driven_by_who_polls() {
    for (msix, granted) in [(0, 0), (8, 0)] {
        let card = Card::new(Shape {
            msix,
            granted,
            intx: false,
            ..Shape::default()
        });
        let (device, _) = opened(&card);
        let (queue, (count, call)) = (QueueIndex::new(0), counting());
        for _ in 0..2 {
            start(&device, 0, Call::None).unwrap();
            start(&device, 1, call.clone()).unwrap_err();
            device.add_status(Status::DRIVER_OK).unwrap();
            assert!(card.state().queues[0].enabled);
            device.replace_call(queue, Call::None).unwrap();
            device.replace_call(queue, call.clone()).unwrap_err();
            let reset = device.caps().queue_reset.unwrap();
            reset.begin(queue).unwrap();
            while reset.poll(queue).unwrap().is_pending() {}
            negotiate(&device);
        }
        assert_eq!(count.load(Ordering::SeqCst), 0);
    }
}

#[test]
fn as_many_vectors_are_switched_on_as_are_to_be_had() {
    for granted in 0..20 {
        let card = Card::new(Shape {
            queues: 14,
            msix: 32,
            granted,
            ..Shape::default()
        });
        let (device, _) = opened(&card);
        device.add_status(Status::DRIVER_OK).unwrap();
        let on = card.state().vectors.len();
        assert_eq!(on, usize::from(granted.min(15)));
    }
}

#[test]
fn a_configuration_change_is_told_of_where_no_queue_was_started() {
    let card = Card::new(Shape::default());
    let (device, sink) = opened(&card);
    device.add_status(Status::DRIVER_OK).unwrap();
    card.change_config();
    assert_eq!(sink.take(), [Event::Config]);
}

#[test]
fn a_configuration_change_is_told_of_though_its_vector_could_not_be_set_at_first() {
    let card = Card::new(Shape::default());
    let (device, sink) = opened(&card);
    card.hooks.fail_vectors.store(1, Ordering::SeqCst);
    assert!(device.add_status(Status::DRIVER_OK).is_err());
    device.add_status(Status::DRIVER_OK).unwrap();
    card.change_config();
    assert_eq!(sink.take(), [Event::Config]);
}

#[test]
fn the_first_configuration_change_is_told_of_by_a_device_that_does_not_show_it_in_its_isr() {
    let card = Card::new(Shape {
        msix: 1,
        ..Shape::default()
    });
    let (device, sink) = opened(&card);
    card.hooks.hide_isr.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        start_all(&device);
        device.add_status(Status::DRIVER_OK).unwrap();
        card.interrupt(0);
        assert_eq!(sink.take(), [], "a queue alone");
        card.change_config();
        assert_eq!(sink.take(), [Event::Config]);
        // Changed before the device runs: nobody has seen another one.
        negotiate(&device);
        card.change_config();
        assert_eq!(sink.take(), []);
    }
}

#[test]
fn a_line_that_another_function_raised_is_unmasked_again() {
    let card = Card::new(Shape {
        msix: 0,
        ..Shape::default()
    });
    let (device, sink) = opened(&card);
    let calls = start_all(&device);
    let line = card.state().call(0);
    assert!(card.state().line_masked);
    line.raise();
    assert!(!card.state().line_masked);
    assert_eq!((counts(&calls), sink.take()), ([0; QUEUES], vec![]));
}

#[test]
fn a_call_is_replaced_and_the_new_one_raised_once() {
    for msix in [0, 1, 2, 8] {
        let card = Card::new(Shape {
            msix,
            ..Shape::default()
        });
        let (device, _) = opened(&card);
        let calls = start_all(&device);
        let (new, call) = counting();
        device.replace_call(QueueIndex::new(1), call).unwrap();
        assert_eq!(new.load(Ordering::SeqCst), 1, "{msix} vectors");
        assert_eq!(Arc::strong_count(&calls[1]), 1, "the old one is dropped");
        card.interrupt(1);
        assert_eq!(new.load(Ordering::SeqCst), 2);
        assert_eq!(counts(&calls)[1], 0);

        negotiate(&device);
        let (late, call) = counting();
        assert!(device.replace_call(QueueIndex::new(1), call).is_err());
        assert_eq!(late.load(Ordering::SeqCst), 0);
    }
}

#[test]
fn a_call_that_was_replaced_stays_so_when_its_vector_comes_to_be_shared() {
    // Queue 0 gets vector 3, where queue 2 is already.
    let card = Card::new(Shape {
        refuses: |queue, vector| queue == Some(0) && vector == 1,
        ..Shape::default()
    });
    let (device, _) = opened(&card);
    start(&device, 2, Call::None).unwrap();
    let (new, call) = counting();
    device.replace_call(QueueIndex::new(2), call).unwrap();
    start(&device, 0, Call::None).unwrap();
    card.interrupt(2);
    card.interrupt(0);
    assert_eq!(new.load(Ordering::SeqCst), 3);
}

#[test]
fn a_line_whose_status_could_not_be_read_once_is_not_masked_for_good() {
    let card = Card::new(Shape {
        msix: 0,
        ..Shape::default()
    });
    let (device, sink) = opened(&card);
    let calls = start_all(&device);
    device.add_status(Status::DRIVER_OK).unwrap();
    card.hooks.fail_isr.store(1, Ordering::SeqCst);
    card.interrupt(1);
    // The line is still held, so it interrupts once more.
    assert_eq!(counts(&calls), [2; QUEUES]);
    assert_eq!(sink.take(), [Event::Config]);
    assert!(!card.state().line_masked);
    card.interrupt(1);
    assert_eq!(counts(&calls), [1; QUEUES]);
}

/// A device whose access makes eventfds alone, and whose queue 1 shares vector 3 with queue 2.
struct Direct {
    card: Arc<Card>,
    device: Arc<VirtioPci>,
    relay: Relay,
    send: mpsc::Sender<&'static str>,
    called: mpsc::Receiver<&'static str>,
    relayed: Vec<Relayed>,
}

impl Direct {
    fn new() -> Self {
        let card = Card::new(Shape {
            calls: CallKind::EventFd,
            refuses: |queue, vector| queue == Some(1) && vector == 2,
            ..Shape::default()
        });
        let (device, _) = opened(&card);
        let (send, called) = mpsc::channel();
        Self {
            card,
            device: Arc::new(device),
            relay: Relay::new(),
            send,
            called,
            relayed: Vec::new(),
        }
    }

    /// An eventfd that says this once it is written.
    fn call(&mut self, name: &'static str) -> Call {
        let send = self.send.clone();
        let closure = Call::from_fn(move || send.send(name).unwrap());
        let (event, relayed) = self.relay.call_fd(closure).unwrap();
        self.relayed.push(relayed);
        Call::EventFd(event)
    }

    /// `meanwhile` happens on another thread before the next vector is set, and an interrupt of `queue` after that.
    fn meet(&self, queue: u16, meanwhile: impl FnOnce(&VirtioPci) + Send + 'static) {
        let (device, card) = (Arc::clone(&self.device), Arc::clone(&self.card));
        let before: Around = Box::new(move || {
            thread::spawn(move || meanwhile(&device)).join().unwrap();
            Box::new(move || card.interrupt(queue))
        });
        *self.card.hooks.around_set.lock().unwrap() = Some(before);
    }

    /// Waits until this is called, whatever else is.
    fn wait(&self, name: &str) {
        let next = || self.called.recv_timeout(Duration::from_secs(10));
        while next().unwrap_or_else(|_| panic!("{name} is not called")) != name {}
    }
}

#[test]
fn an_interrupt_is_not_lost_when_a_replaced_call_meets_a_start_that_shares_its_vector() {
    let mut direct = Direct::new();
    let (old, one, new) = (direct.call("old"), direct.call("one"), direct.call("new"));
    start(&direct.device, 2, old).unwrap();
    direct.device.add_status(Status::DRIVER_OK).unwrap();
    direct.meet(1, |device| start(device, 1, one).unwrap());
    direct.device.replace_call(QueueIndex::new(2), new).unwrap();
    direct.wait("one");
    // The vector is for both from here on.
    for _ in 0..2 {
        direct.card.interrupt(2);
        direct.wait("new");
        direct.card.interrupt(1);
        direct.wait("one");
    }
}

#[test]
fn an_interrupt_is_not_lost_when_a_replaced_call_meets_a_reset_and_a_start() {
    let mut direct = Direct::new();
    let (old, late) = (direct.call("old"), direct.call("late"));
    let next = direct.call("next");
    start(&direct.device, 2, old).unwrap();
    direct.device.add_status(Status::DRIVER_OK).unwrap();
    direct.meet(2, |device| {
        negotiate(device);
        start(device, 2, next).unwrap();
    });
    let replaced = direct.device.replace_call(QueueIndex::new(2), late);
    assert!(
        matches!(replaced, Err(Error::Interrupted { .. })),
        "{replaced:?}"
    );
    direct.wait("next");
    direct.card.interrupt(2);
    direct.wait("next");
    // With a reset alone nobody is called.
    let last = direct.call("last");
    direct.meet(2, negotiate);
    let replaced = direct.device.replace_call(QueueIndex::new(2), last);
    assert!(matches!(replaced, Err(Error::Interrupted { .. })));
    let state = direct.card.state();
    assert!(state.vectors.iter().all(|call| matches!(call, Call::None)));
}

#[test]
fn an_access_that_makes_eventfds_alone_fans_out_by_a_relay() {
    for msix in [0, 1, 2, 8] {
        let card = Card::new(Shape {
            msix,
            calls: CallKind::EventFd,
            ..Shape::default()
        });
        let (device, sink) = opened(&card);
        let relay = Relay::new();
        let (send, called) = mpsc::channel();
        let mut relayed = Vec::new();
        for number in 0..3 {
            let send = send.clone();
            let closure = Call::from_fn(move || send.send(number).unwrap());
            let (event, guard) = relay.call_fd(closure).unwrap();
            relayed.push(guard);
            start(&device, number, Call::EventFd(event)).unwrap();
        }
        device.add_status(Status::DRIVER_OK).unwrap();
        let wait = || called.recv_timeout(Duration::from_secs(10)).unwrap();
        for number in 0..3 {
            card.interrupt(number);
            while wait() != number {}
        }
        card.change_config();
        let by = std::time::Instant::now() + Duration::from_secs(10);
        while !sink.take().contains(&Event::Config) {
            assert!(std::time::Instant::now() < by, "{msix} vectors: not told");
            std::thread::yield_now();
        }
        negotiate(&device);
        drop(device);
        drop(relayed);
    }
}

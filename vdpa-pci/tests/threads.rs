//! Interrupts, kicks and DMA come from other threads than control calls, at any moment.

mod card;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use card::{Card, NOTIFY, Shape, Sink, counting, host};
use vdpa_core::{Call, Features, Kick, QueueConfig, QueueIndex, Status, VdpaDevice, bits};
use vdpa_mem::Iova;
use vdpa_pci::{VirtioPci, Width};

const QUEUES: u16 = 3;

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

fn config() -> QueueConfig {
    let at = Iova::new(0x1000);
    QueueConfig::new(16, at, at, at)
}

/// Starts all queues, replaces calls and resets one meanwhile. Gives all calls that there were.
fn live(device: &VirtioPci) -> Vec<Arc<AtomicU32>> {
    let mut counts = Vec::new();
    let mut call = || {
        let (count, call) = counting();
        counts.push(count);
        call
    };
    for number in 0..QUEUES {
        let queue = QueueIndex::new(number);
        device
            .start_queue(queue, &config(), Kick::Taken, call())
            .unwrap();
        device.add_status(Status::DRIVER_OK).unwrap();
        device.replace_call(queue, call()).unwrap();
    }
    let reset = device.caps().queue_reset.unwrap();
    let queue = QueueIndex::new(1);
    reset.begin(queue).unwrap();
    while reset.poll(queue).unwrap().is_pending() {}
    device
        .start_queue(queue, &config(), Kick::Taken, call())
        .unwrap();
    device.replace_call(queue, call()).unwrap();
    counts
}

#[test]
fn nothing_is_called_once_a_reset_is_complete_whatever_interrupts_meanwhile() {
    for msix in [0, 1, 2, 8] {
        let card = Card::new(Shape {
            msix,
            ..Shape::default()
        });
        let device = card.open().unwrap();
        device.attach(host(&Arc::new(Sink::default()))).unwrap();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for at in 0..2 {
                let (card, stop) = (&card, &stop);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        (0..QUEUES).for_each(|number| card.interrupt(number));
                        if at == 0 {
                            card.change_config();
                            card.interrupt_by_all();
                        }
                    }
                });
            }
            for _ in 0..50 {
                negotiate(&device);
                let counts = live(&device);
                device.begin_reset().unwrap();
                while !device.status().unwrap().is_empty() {}
                let now = |count: &Arc<AtomicU32>| count.load(Ordering::SeqCst);
                let before: Vec<u32> = counts.iter().map(now).collect();
                card.interrupt_by_all();
                let after: Vec<u32> = counts.iter().map(now).collect();
                assert_eq!(before, after, "{msix} vectors");
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
}

/// A call that stays inside until it is let go. Says when it is inside.
fn held() -> (Call, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (here, inside) = mpsc::channel();
    let (go, wait) = mpsc::channel();
    let wait = Mutex::new(wait);
    let call = Call::from_fn(move || {
        here.send(()).unwrap();
        // Let go for good once whoever holds it is gone.
        let _let_go = wait.lock().unwrap().recv();
    });
    (call, inside, go)
}

/// Does `what` on another thread, and fails if that takes as long as whoever holds a call.
fn at_once<T: Send>(what: impl FnOnce() -> T + Send) -> T {
    let (send, done) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || send.send(what()));
        done.recv_timeout(Duration::from_secs(10))
            .unwrap_or_else(|_| {
                eprintln!("a control call waits for a closure");
                std::process::abort()
            })
    })
}

#[test]
fn a_reset_does_not_wait_for_a_call_and_is_not_complete_while_it_runs() {
    for msix in [0, 1, 2, 8] {
        let card = Card::new(Shape {
            msix,
            ..Shape::default()
        });
        let device = card.open().unwrap();
        let sink = Arc::new(Sink::default());
        device.attach(host(&sink)).unwrap();
        negotiate(&device);
        let (call, inside, go) = held();
        let (count, counted) = counting();
        for (number, call) in [(0, call), (1, counted)] {
            let queue = QueueIndex::new(number);
            device
                .start_queue(queue, &config(), Kick::Taken, call)
                .unwrap();
        }
        device.add_status(Status::DRIVER_OK).unwrap();
        thread::scope(|scope| {
            // Dropped first where this fails, so that the call ends.
            let go = go;
            scope.spawn(|| card.interrupt(0));
            inside.recv().unwrap();
            at_once(|| device.begin_reset().unwrap());
            // The device itself is done long before.
            for _ in 0..50 {
                assert!(!at_once(|| device.status().unwrap()).is_empty());
            }
            go.send(()).unwrap();
            while !device.status().unwrap().is_empty() {}
        });
        // Whom the same interrupt had not come to, it did not call.
        assert_eq!(count.load(Ordering::SeqCst), 0, "{msix} vectors");
        sink.take();
        card.interrupt_by_all();
        assert_eq!(count.load(Ordering::SeqCst), 0, "{msix} vectors");
        assert_eq!((inside.try_recv().is_err(), sink.take()), (true, vec![]));
        assert_eq!(Arc::strong_count(&count), 1, "its call is dropped");
    }
}

#[test]
fn the_reset_of_a_queue_does_not_wait_for_its_call_and_is_not_complete_while_it_runs() {
    for msix in [0, 1, 2, 8] {
        let card = Card::new(Shape {
            msix,
            ..Shape::default()
        });
        let device = card.open().unwrap();
        device.attach(host(&Arc::new(Sink::default()))).unwrap();
        negotiate(&device);
        let (call, inside, go) = held();
        let (queue, other) = (QueueIndex::new(1), QueueIndex::new(0));
        device
            .start_queue(queue, &config(), Kick::Taken, call)
            .unwrap();
        device.add_status(Status::DRIVER_OK).unwrap();
        let reset = device.caps().queue_reset.unwrap();
        thread::scope(|scope| {
            // Dropped first where this fails, so that the call ends.
            let go = go;
            scope.spawn(|| card.interrupt(1));
            inside.recv().unwrap();
            reset.begin(queue).unwrap();
            for _ in 0..50 {
                assert!(at_once(|| reset.poll(queue).unwrap()).is_pending());
            }
            // Nor does the start of another one, which may share its vector.
            at_once(|| {
                let started = device.start_queue(other, &config(), Kick::Taken, Call::None);
                started.unwrap();
            });
            go.send(()).unwrap();
            while reset.poll(queue).unwrap().is_pending() {}
        });
        card.interrupt_by_all();
        assert!(inside.try_recv().is_err(), "{msix} vectors");
        let (count, call) = counting();
        device
            .start_queue(queue, &config(), Kick::Taken, call)
            .unwrap();
        card.interrupt(1);
        assert_eq!(count.load(Ordering::SeqCst), 1, "{msix} vectors");
    }
}

#[test]
fn a_call_that_is_replaced_while_a_reset_comes_is_not_called_after_it() {
    let card = Card::new(Shape::default());
    let device = card.open().unwrap();
    device.attach(host(&Arc::new(Sink::default()))).unwrap();
    negotiate(&device);
    let (call, inside, go) = held();
    let queue = QueueIndex::new(0);
    device
        .start_queue(queue, &config(), Kick::Taken, call)
        .unwrap();
    device.add_status(Status::DRIVER_OK).unwrap();
    let (count, call) = counting();
    thread::scope(|scope| {
        // Dropped first where this fails, so that the call ends.
        let go = go;
        scope.spawn(|| card.interrupt(0));
        inside.recv().unwrap();
        // Waits for the old call, or finds the queue gone.
        let replaced = scope.spawn(|| device.replace_call(queue, call));
        at_once(|| device.begin_reset().unwrap());
        assert!(!device.status().unwrap().is_empty());
        go.send(()).unwrap();
        while !device.status().unwrap().is_empty() {}
        let before = count.load(Ordering::SeqCst);
        let replaced = replaced.join().unwrap();
        card.interrupt_by_all();
        assert_eq!(count.load(Ordering::SeqCst), before);
        assert_eq!(u32::from(replaced.is_ok()), before);
    });
    assert_eq!(Arc::strong_count(&count), 1);
}

#[test]
fn one_access_at_a_time_goes_through_the_window() {
    // The card panics where the window looks elsewhere than at what is accessed.
    let card = Card::new(Shape {
        mapped: false,
        ..Shape::default()
    });
    let device = card.open().unwrap();
    device.attach(host(&Arc::new(Sink::default()))).unwrap();
    negotiate(&device);
    let doorbell = device
        .start_queue(
            QueueIndex::new(1),
            &config(),
            Kick::Taken,
            vdpa_core::Call::None,
        )
        .unwrap();
    const EACH: usize = 300;
    thread::scope(|scope| {
        scope.spawn(|| (0..EACH).for_each(|_| doorbell.ring(0)));
        scope.spawn(|| (0..EACH).for_each(|_| card.change_config()));
        for _ in 0..EACH {
            let mut bytes = [0; 28];
            device.read_config(0, &mut bytes).unwrap();
            assert_eq!(bytes.to_vec(), (1..=28).collect::<Vec<u8>>());
        }
    });
    let kicks = card.state().kicks.lock().unwrap().clone();
    assert_eq!(kicks, vec![(NOTIFY + 4, Width::U16, 1); EACH]);
}

//! Interrupts, kicks and DMA come from other threads than control calls, at any moment.

mod card;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use card::{Card, NOTIFY, Shape, Sink, counting, host};
use vdpa_core::{Features, Kick, QueueConfig, QueueIndex, Status, VdpaDevice, bits};
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
                thread::yield_now();
                let after: Vec<u32> = counts.iter().map(now).collect();
                assert_eq!(before, after, "{msix} vectors");
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
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

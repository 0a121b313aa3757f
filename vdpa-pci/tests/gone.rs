//! A function that is taken away, at any moment, is gone: told once, and not touched any more. One in reset is not.

mod card;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use card::{Card, Shape, Sink, counting, host};
use vdpa_core::{
    Doorbell, Error, ErrorKind, Event, Features, Kick, QueueConfig, QueueIndex, Result, Status,
    VdpaDevice, bits,
};
use vdpa_mem::Iova;
use vdpa_pci::VirtioPci;

/// A life with everything in it. Each step is told apart from the others by its name.
struct Life<'a> {
    card: &'a Arc<Card>,
    sink: Arc<Sink>,
    /// How many accesses there had been when the first step said that it is gone.
    gone: Option<u64>,
}

impl Life<'_> {
    fn step<T>(&mut self, name: &str, done: Result<T>) -> Option<T> {
        let accesses = self.card.state().accesses;
        match (done, self.gone) {
            (Ok(done), None) => return Some(done),
            (Ok(_), Some(_)) => panic!("{name} succeeds on a function that is gone"),
            (Err(e), None) => {
                assert_eq!(e.kind(), ErrorKind::Gone, "{name}: {e}");
                self.gone = Some(accesses);
            }
            (Err(e), Some(_)) => assert!(matches!(e, Error::Gone), "{name}: {e}"),
        }
        None
    }

    /// Resets until it is complete, or gone.
    fn reset(&mut self, device: &VirtioPci) {
        self.step("begin_reset", device.begin_reset());
        for _ in 0..1000 {
            match device.status() {
                Ok(status) if status.is_empty() => return,
                Ok(_) => {}
                gone => {
                    self.step("status in reset", gone);
                    return;
                }
            }
        }
        panic!("a reset that never ends");
    }

    fn live(&mut self) -> Option<()> {
        let device = self.card.open();
        let device = self.step("open", device)?;
        self.step("attach", device.attach(host(&self.sink)))?;
        let features = Features::of(&[bits::VERSION_1, bits::RING_RESET]);
        let mut doorbells = Vec::new();
        for _ in 0..2 {
            self.reset(&device);
            for bits in [Status::ACKNOWLEDGE, Status::DRIVER] {
                self.step("add_status", device.add_status(bits));
            }
            self.step("accept", device.accept(features));
            self.step("FEATURES_OK", device.add_status(Status::FEATURES_OK));
            self.step("status", device.status());
            for queue in 0..2 {
                self.queue(&device, queue, &mut doorbells);
            }
            self.step("DRIVER_OK", device.add_status(Status::DRIVER_OK));
            self.step("read_config", device.read_config(0, &mut [0; 28]));
            self.step("generation", device.config_generation());
            self.step("write_config", device.write_config(28, &[]));
            for doorbell in &doorbells {
                doorbell.ring(0);
            }
            self.card.change_config();
            self.card.interrupt(0);
            let (_, call) = counting();
            let replaced = device.replace_call(QueueIndex::new(0), call);
            self.step("replace_call", replaced);
            self.reset_queue(&device, 1);
            self.queue(&device, 1, &mut doorbells);
        }
        self.reset(&device);
        self.step("the last look", device.status());
        if self.gone.is_some() {
            self.check_dead(&device, &doorbells);
        }
        drop(device);
        Some(())
    }

    fn queue(&mut self, device: &VirtioPci, number: u16, doorbells: &mut Vec<Doorbell>) {
        let queue = QueueIndex::new(number);
        self.step("queue_limits", device.queue_limits(queue));
        let at = Iova::new(0x1000);
        let config = QueueConfig::new(16, at, at, at);
        let (_, call) = counting();
        let started = device.start_queue(queue, &config, Kick::Taken, call);
        doorbells.extend(self.step("start_queue", started));
    }

    fn reset_queue(&mut self, device: &VirtioPci, number: u16) {
        let queue = QueueIndex::new(number);
        let reset = device.caps().queue_reset.unwrap();
        if self.step("reset queue", reset.begin(queue)).is_none() {
            self.step("poll", reset.poll(queue));
            return;
        }
        for _ in 0..1000 {
            match self.step("poll", reset.poll(queue)) {
                Some(poll) if poll.is_pending() => {}
                _ => return,
            }
        }
        panic!("a queue reset that never ends");
    }

    /// Nothing reaches the function any more, by whatever way.
    fn check_dead(&self, device: &VirtioPci, doorbells: &[Doorbell]) {
        let kicks = self.card.state().kicks.lock().unwrap().len();
        for doorbell in doorbells {
            doorbell.ring(0);
        }
        self.card.change_config();
        self.card.interrupt(0);
        assert!(matches!(device.status(), Err(Error::Gone)));
        let state = self.card.state();
        assert_eq!(state.kicks.lock().unwrap().len(), kicks, "a doorbell rings");
    }
}

fn live(card: &Arc<Card>) -> (Option<u64>, usize) {
    let sink = Arc::new(Sink::default());
    let mut life = Life {
        card,
        sink: Arc::clone(&sink),
        gone: None,
    };
    let opened = life.live().is_some();
    let gone = life.gone;
    let told = sink.count(&Event::Gone);
    if let Some(at) = gone {
        assert_eq!(card.state().accesses, at, "touched after it was gone");
        assert_eq!(told, usize::from(opened), "told once, if somebody listened");
    }
    (gone, told)
}

#[test]
fn all_ones_from_any_access_on_are_a_function_that_is_gone() {
    let shapes = [
        ("a vector each", Shape::default()),
        (
            "one vector",
            Shape {
                msix: 1,
                ..Shape::default()
            },
        ),
        (
            "the line",
            Shape {
                msix: 0,
                ..Shape::default()
            },
        ),
        (
            "by the window",
            Shape {
                mapped: false,
                ..Shape::default()
            },
        ),
    ];
    let mut all = 0;
    for (name, shape) in shapes {
        let whole = Card::new(shape.clone());
        assert_eq!(live(&whole), (None, 0), "{name}");
        let accesses = whole.state().accesses;
        for n in 0..accesses {
            let card = Card::new(shape.clone());
            card.unplug_at(n);
            let (gone, _) = live(&card);
            assert!(
                gone.is_some(),
                "{name}: from access {n} on, and nobody notices"
            );
        }
        println!("{name}: {accesses} accesses");
        all += accesses;
    }
    assert!(all > 1000, "{all} accesses: the lives are too short");
}

#[test]
fn doorbells_do_nothing_from_the_moment_it_is_found_gone() {
    for by_interrupt in [false, true] {
        let card = Card::new(Shape::default());
        let device = card.open().unwrap();
        let sink = Arc::new(Sink::default());
        device.attach(host(&sink)).unwrap();
        device.begin_reset().unwrap();
        while !device.status().unwrap().is_empty() {}
        device.accept(bits::VERSION_1.mask()).unwrap();
        device.add_status(Status::FEATURES_OK).unwrap();
        let at = Iova::new(0x1000);
        let config = QueueConfig::new(16, at, at, at);
        let queue = QueueIndex::new(0);
        let started = device.start_queue(queue, &config, Kick::Taken, vdpa_core::Call::None);
        let doorbell = started.unwrap();
        let now = card.state().accesses;
        card.unplug_at(now);
        doorbell.ring(0);
        match by_interrupt {
            true => card.change_config(),
            false => drop(device.status()),
        }
        doorbell.ring(0);
        let kicks = card.state().kicks.lock().unwrap().len();
        assert_eq!(kicks, 1, "the one before anybody knew");
        assert_eq!(sink.take(), [Event::Gone]);
    }
}

#[test]
fn a_function_that_is_silent_after_a_reset_comes_back() {
    let card = Card::new(Shape {
        reset_silence: 50,
        ..Shape::default()
    });
    let device = card.open().unwrap();
    let sink = Arc::new(Sink::default());
    device.attach(host(&sink)).unwrap();
    device.begin_reset().unwrap();
    // Not complete, whatever it was before; nothing else is answered for it.
    assert!(!device.status().unwrap().is_empty());
    assert!(matches!(
        device.config_generation(),
        Err(Error::Busy { .. })
    ));
    let mut looks = 0;
    while !device.status().unwrap().is_empty() {
        looks += 1;
    }
    assert!(looks > 10, "{looks}");
    assert_eq!(sink.take(), []);
    assert_eq!(device.config_generation().unwrap(), Some(7));
}

#[test]
fn a_function_that_is_silent_for_long_when_it_is_opened_is_waited_for() {
    let card = Card::new(Shape {
        reset_silence: 500,
        ..Shape::default()
    });
    assert!(card.open().is_ok());
    // Also after a reset of the function.
    let card = Card::new(Shape {
        reset_silence: 500,
        ..Shape::default()
    });
    card.state().stuck = true;
    assert!(card.open().is_ok());
    // Not for ever.
    let card = Card::new(Shape {
        reset_silence: 3_600_000,
        ..Shape::default()
    });
    assert_eq!(card.open().err().unwrap().kind(), ErrorKind::Gone);
    assert!(card.clock.peek() >= Duration::from_secs(1));
}

#[test]
fn one_that_comes_back_between_two_reads_is_not_taken_at_its_silence() {
    let card = Card::new(Shape::default());
    let device = card.open().unwrap();
    let sink = Arc::new(Sink::default());
    device.attach(host(&sink)).unwrap();
    device.begin_reset().unwrap();
    card.hooks.unanswered.store(1, Ordering::SeqCst);
    assert_eq!(device.config_generation().unwrap(), Some(7));
    card.hooks.unanswered.store(1, Ordering::SeqCst);
    let mut bytes = [0; 2];
    device.read_config(10, &mut bytes).unwrap();
    assert_eq!(bytes, [11, 12]);
    card.hooks.unanswered.store(1, Ordering::SeqCst);
    while !device.status().unwrap().is_empty() {}
    assert_eq!(sink.take(), []);
}

#[test]
fn one_that_stays_silent_is_gone_once_its_time_is_over() {
    let card = Card::new(Shape::default());
    let device = card.open().unwrap();
    let sink = Arc::new(Sink::default());
    device.attach(host(&sink)).unwrap();
    card.state().reset_silence = Duration::from_secs(3600);
    device.begin_reset().unwrap();
    let begun = card.clock.peek();
    while device.status().is_ok() {}
    let waited = card.clock.peek() - begun;
    assert!(waited >= vdpa_pci::GRACE, "{waited:?}");
    assert_eq!(sink.take(), [Event::Gone]);
    assert!(matches!(device.status(), Err(Error::Gone)));
    assert_eq!(sink.take(), []);
}

#[test]
fn silence_after_the_reset_is_complete_is_no_reset() {
    let card = Card::new(Shape::default());
    let device = card.open().unwrap();
    let sink = Arc::new(Sink::default());
    device.attach(host(&sink)).unwrap();
    device.begin_reset().unwrap();
    while !device.status().unwrap().is_empty() {}
    card.state().silent_until = Duration::from_secs(3600);
    assert!(matches!(device.status(), Err(Error::Gone)));
    assert_eq!(sink.take(), [Event::Gone]);
}

#[test]
fn what_the_access_reports_is_passed_on_and_its_removal_is_told_once() {
    let card = Card::new(Shape::default());
    let device = card.open().unwrap();
    let sink = Arc::new(Sink::default());
    device.attach(host(&sink)).unwrap();
    let reports = card.state().sink.clone().unwrap();
    let accesses = card.state().accesses;
    reports.raise(Event::RemoveRequested);
    reports.raise(Event::Gone);
    reports.raise(Event::Gone);
    assert!(matches!(device.status(), Err(Error::Gone)));
    assert!(matches!(device.begin_reset(), Err(Error::Gone)));
    assert_eq!(sink.take(), [Event::RemoveRequested, Event::Gone]);
    assert_eq!(card.state().accesses, accesses);
}

#[test]
fn a_status_of_all_ones_from_a_function_that_is_there_is_nonsense() {
    let card = Card::new(Shape::default());
    let device = card.open().unwrap();
    card.state().status = 0xff;
    let error = device.status().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PeerMisbehaved);
    assert!(error.to_string().contains("device_status reads 0xff"));
    card.state().status = 0;
    device.status().unwrap();
}

#[test]
fn a_reset_that_never_ends_is_helped_by_one_of_the_function_or_refused() {
    let stuck = |whole_reset| {
        let card = Card::new(Shape {
            whole_reset,
            ..Shape::default()
        });
        card.state().stuck = true;
        card.open()
    };
    assert!(stuck(true).is_ok());
    let error = stuck(false).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert_eq!(
        error.to_string(),
        "0000:01:00.1: the reset did not end in 1000 ms, its status is 0x04: reset the function as a whole (echo 1 > /sys/bus/pci/devices/0000:01:00.1/reset)"
    );
}

#[test]
fn a_reset_that_never_ends_names_no_file_that_a_mediated_device_has_not() {
    let error = vdpa_pci::PciError::ResetStuck {
        function: "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001".to_owned(),
        status: 4,
        millis: 1000,
    };
    let text = error.to_string();
    assert!(!text.contains("/sys/bus/pci"), "{text}");
    assert!(text.contains("remove it and make it anew"), "{text}");
}

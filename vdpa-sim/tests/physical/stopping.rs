//! Cards that are stopped, and go on.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vdpa_core::*;
use vdpa_pci::{Layout as Found, Width};
use vdpa_sim::blk::Engine;
use vdpa_sim::pci::{Function, Layout, Setup};
use vdpa_sim::pf::command::{Opcode, Qualifier, Status as Ended};
use vdpa_sim::pf::{Member, Mode, PfFunction};

use crate::bench::*;
use crate::disk;
use crate::rig::*;

#[test]
fn a_card_that_is_stopped_under_traffic_touches_nothing_and_goes_on() {
    for packed in [false, true] {
        let pf = pf();
        enable(&pf, 1);
        let mut owner = Owner::new(&pf);
        let rig = drive(&pf.vf(1).unwrap());
        let features = with(&rig, packed, false, true, false);
        let mut card = Card::new(rig, features, 64, 2048);
        let frames = frames(2000, 1514);
        let mut sent = 0;
        for _ in 0..20 {
            sent += card.tx.send(&frames[sent..]);
            card.rx.poll();
            owner.stop(1);
            card.rx.poll();
            sent += card.tx.send(&frames[sent..]);
            let memory = card.rig.bytes();
            let mut before = vec![0; REGION as usize];
            memory.read(0, &mut before);
            let calls = card.rx.q.calls.load(Ordering::SeqCst);
            for _ in 0..100 {
                card.tx.q.doorbell.ring(1);
                card.rx.q.doorbell.ring(0);
                std::thread::yield_now();
            }
            let mut after = vec![0; REGION as usize];
            memory.read(0, &mut after);
            assert!(before == after, "memory changed");
            assert_eq!(card.rx.q.calls.load(Ordering::SeqCst), calls);
            owner.resume(1);
        }
        card.send_all(&frames[sent..]);
        card.rx.wait(frames.len());
        assert_eq!(card.rx.got, frames);
    }
}

#[test]
fn a_driver_that_comes_while_its_card_is_stopped_waits_for_the_resume() {
    let pf = pf();
    enable(&pf, 1);
    let mut owner = Owner::new(&pf);
    owner.stop(1);
    let rig = drive(&pf.vf(1).unwrap());
    let features = plain(&rig);
    let mut card = Card::new(rig, features, 64, 2048);
    assert!(card.rig.status().contains(Status::DRIVER_OK));
    let frames = frames(20, 1514);
    assert_eq!(card.tx.send(&frames), frames.len());
    card.rx.quiet();
    assert_eq!(card.tx.reap(), 0);
    owner.resume(1);
    card.rx.wait(frames.len());
    assert_eq!(card.rx.got, frames);
}

#[test]
fn a_card_that_is_stopped_tells_of_its_configuration_when_it_goes_on() {
    let (pf, made) = pf_and_made();
    enable(&pf, 1);
    let mut owner = Owner::new(&pf);
    owner.stop(1);
    let function = pf.vf(1).unwrap();
    let rig = drive(&function);
    let events = rig.device.events().unwrap();
    let features = plain(&rig);
    let card = Card::new(rig, features, 64, 2048);
    let card_device = made.lock().unwrap()[0].clone();
    card_device.set(Attr::Link(LinkState::Down)).unwrap();
    let interrupts = Found::read(&*function).unwrap().isr.unwrap();
    let isr = || {
        function
            .read(interrupts.bar, interrupts.offset, Width::U8)
            .unwrap()
    };
    // The bit says that the change has come this far.
    until("the change", || isr() & 2 != 0);
    assert_eq!(events.try_next(), None);
    owner.resume(1);
    until("the event", || events.try_next() == Some(Event::Config));
    drop(card);
}

/// A function of disks with one, and its gate.
fn gated(home: &std::path::Path) -> (PfFunction, Arc<crate::gate::Gate>) {
    let path = home.join("image");
    std::fs::write(&path, vec![0; 1 << 20]).unwrap();
    let gated = Arc::new(Mutex::new(None));
    let gates = gated.clone();
    let make = move |_| {
        let (device, gate) = crate::gate::open(&path, Engine::Threads);
        *gates.lock().unwrap() = Some(gate);
        Function::new(device, Setup::new(Layout::QEMU))
    };
    let pf = pf_of(Box::new(make));
    enable(&pf, 1);
    let gate = gated.lock().unwrap().clone().unwrap();
    (pf, gate)
}

/// A disk that was told to stop while a request of its is at the gate.
struct Stopping {
    disk: disk::Disk,
    /// The request, which writes `data` to sector 3.
    sent: disk::Sent,
    data: Vec<u8>,
    owner: Owner,
    gate: Arc<crate::gate::Gate>,
    pf: PfFunction,
    _home: tempfile::TempDir,
}

impl Stopping {
    fn begun() -> Self {
        Self::begun_with(None)
    }

    /// * `patience`: how long the owner waits for it
    fn begun_with(patience: Option<Duration>) -> Self {
        let home = tempfile::tempdir().unwrap();
        let (pf, gate) = gated(home.path());
        if let Some(patience) = patience {
            pf.office().set_patience(patience);
        }
        let mut owner = Owner::new(&pf);
        let rig = drive(&pf.vf(1).unwrap());
        let features = disk::features(&rig, false, true, true, false);
        let mut disk = disk::Disk::with(rig, features);
        gate.close();
        let data = disk::pattern(1, 512);
        let sent = disk.send(&disk::Shape {
            readable: [&disk::header(disk::OUT, 3), data.as_slice()].concat(),
            writable: 1,
            piece: usize::MAX,
        });
        disk.q.publish();
        until("a request at the gate", || gate.waiting() == 1);
        owner.post(Opcode::DevModeSet, 1, 1, &[1]);
        Self {
            disk,
            sent,
            data,
            owner,
            gate,
            pf,
            _home: home,
        }
    }

    /// The request is done, and the disk goes on.
    fn goes_on(self) {
        let mut disk = self.disk;
        assert_eq!(disk.reply(self.sent, 1).status, disk::OK);
        assert_eq!(disk.read(3, 512), self.data);
    }
}

#[test]
fn a_stop_waits_for_what_a_disk_has_in_flight_and_gives_it_back_first() {
    let mut it = Stopping::begun();
    for _ in 0..1000 {
        assert!(it.owner.ctrl.used().is_empty(), "before it has stopped");
        std::thread::yield_now();
    }
    assert!(it.disk.q.used().is_empty());
    it.gate.open();
    assert_eq!(it.owner.answer().0, 0);
    assert_eq!(it.disk.q.used().len(), 1, "before the stop is complete");
    it.owner.resume(1);
    it.goes_on();
}

#[test]
fn a_disk_that_takes_too_long_to_stop_goes_on_and_does_not_hold_up_its_owner() {
    let mut it = Stopping::begun_with(Some(Duration::ZERO));
    let again = (
        Ended::TryAgain as u16,
        Qualifier::TryAgain as u16,
        Vec::new(),
    );
    assert_eq!(it.owner.answer(), again);
    for mode in [1, 0, 1] {
        assert_eq!(it.owner.ask(Opcode::DevModeSet, 1, 1, &[mode]), again);
        // Its owner has other things to do.
        it.owner.well(Opcode::ListQuery, 1, 0, &[]);
        assert_eq!(it.pf.sriov().vf(1).unwrap().mode(), Mode::Running);
    }
    it.gate.open();
    until("the request", || it.disk.q.used().len() == 1);
    assert_eq!(it.disk.read(3, 512), it.data, "nobody has resumed it");
    it.pf.office().set_patience(Duration::from_secs(3600));
    it.owner.stop(1);
    it.owner.resume(1);
    it.goes_on();
}

#[test]
fn a_disk_whose_owner_is_reset_while_it_stops_does_not_hang() {
    let mut it = Stopping::begun();
    // As its command does, so that it has begun for certain.
    let function = it.pf.sriov().vf(1).unwrap();
    assert!(function.set_mode(Mode::Stopped).is_pending());
    it.owner.rig.reset();
    it.gate.open();
    until("the request", || it.disk.q.used().len() == 1);
    it.goes_on();
}

#[test]
fn a_card_that_is_stopped_stays_so_when_its_owner_is_reset() {
    let pf = pf();
    enable(&pf, 1);
    let mut owner = Owner::new(&pf);
    let rig = drive(&pf.vf(1).unwrap());
    let features = plain(&rig);
    let mut card = Card::new(rig, features, 64, 2048);
    owner.stop(1);
    owner.rig.reset();
    let frames = frames(20, 1514);
    assert_eq!(card.tx.send(&frames), frames.len());
    card.rx.quiet();
    assert_eq!(card.tx.reap(), 0);
    let mut owner = Owner::of(owner.rig);
    owner.resume(1);
    card.rx.wait(frames.len());
    assert_eq!(card.rx.got, frames);
}

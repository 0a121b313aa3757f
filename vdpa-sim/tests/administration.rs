//! The administration queue as a queue of its owner, virtio 1.4 §2.13.

mod rig;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier, Mutex, Weak};
use std::task::Poll;

use rig::*;
use vdpa_core::bits;
use vdpa_core::*;
use vdpa_sim::class::Class;
use vdpa_sim::pf::command::{Opcode, Refusal};
use vdpa_sim::pf::part::Part;
use vdpa_sim::pf::{Group, Member, Mode, Office, Owner};
use vdpa_sim::rng::{POSSIBLE, Rng};
use vdpa_sim::{Crew, Options, SimDevice};

/// One member, which takes its time.
#[derive(Default)]
struct Slow {
    asked: AtomicU32,
    stopped: AtomicU32,
    /// Called when it has stopped, before that is answered.
    then: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

/// How often it is asked before it is ready.
const PATIENCE: u32 = 200;

impl Member for Slow {
    fn set_mode(&self, _: Mode) -> Poll<Result<(), Refusal>> {
        if self.asked.fetch_add(1, Ordering::Relaxed) % PATIENCE != PATIENCE - 1 {
            return Poll::Pending;
        }
        self.stopped.fetch_add(1, Ordering::Relaxed);
        if let Some(then) = self.then.lock().unwrap().take() {
            then();
        }
        Poll::Ready(Ok(()))
    }

    fn abandon(&self) {}

    fn mode(&self) -> Mode {
        Mode::Running
    }

    fn parts(&self) -> Poll<Result<Vec<Part>, Refusal>> {
        Poll::Ready(Ok(Vec::new()))
    }

    fn set_parts(&self, _: &[Part]) -> Poll<Result<(), Refusal>> {
        Poll::Ready(Ok(()))
    }
}

struct One(Arc<Slow>);

impl Group for One {
    fn members(&self) -> Option<u16> {
        Some(1)
    }

    fn generation(&self) -> u64 {
        0
    }

    fn member(&self, _: u16) -> Option<Arc<dyn Member>> {
        Some(self.0.clone())
    }
}

/// The owner's administration queue: behind the only one of the class.
const ADMIN: u16 = 1;

fn office(packed: bool) -> (Rig, Ctrl, Arc<One>) {
    office_in(packed, Options::default(), Crew::new("owner", 1))
}

fn office_in(packed: bool, options: Options, crew: Arc<Crew>) -> (Rig, Ctrl, Arc<One>) {
    let office = Arc::new(Office::new());
    let class = Box::new(Rng::new(64, POSSIBLE));
    let owner = Owner::new(class, office.clone(), false);
    assert_eq!(owner.queue().get(), ADMIN);
    assert_eq!(owner.queues(), 2);
    let group = Arc::new(One(Arc::default()));
    office.set_group(Arc::downgrade(&group) as Weak<dyn Group>);
    let device = SimDevice::in_crew("owner", Box::new(owner), options, crew);
    let rig = Rig::new(Device::new(Arc::new(device), Relay::new()).unwrap());
    let ctrl = begin(&rig, packed);
    (rig, ctrl, group)
}

fn begin(rig: &Rig, packed: bool) -> Ctrl {
    let mut features = rig.device.offered() - (bits::RING_PACKED | bits::IN_ORDER);
    if packed {
        features = features.with(bits::RING_PACKED);
    }
    assert!(features.contains(bits::ADMIN_VQ));
    assert!(!features.contains(bits::SR_IOV), "without the capability");
    rig.negotiate(features);
    let ctrl = Ctrl::new(rig, rig.queue(ADMIN, 16));
    rig.run();
    ctrl
}

fn command(opcode: Opcode, group: u16, member: u64, data: &[u8]) -> Vec<u8> {
    let mut to = vec![0; 24];
    to[..2].copy_from_slice(&opcode.number().to_le_bytes());
    to[2..4].copy_from_slice(&group.to_le_bytes());
    to[16..].copy_from_slice(&member.to_le_bytes());
    to.extend(data);
    to
}

#[test]
fn commands_are_answered_with_the_length_that_was_written() {
    for packed in [false, true] {
        let (rig, mut ctrl, _group) = office(packed);
        let query = command(Opcode::ListQuery, 0, 0, &[]);
        let list = [0, 0, 0, 0, 0, 0, 0, 0, 0x83, 3, 0, 0, 0, 0, 0, 0];
        assert_eq!(ctrl.ask(&query, 64), list);
        assert_eq!(ctrl.ask(&query, 11), list[..11]);
        assert_eq!(ctrl.ask(&query[..1], 16), list, "the rest is zero");
        let unknown = command(Opcode::ListQuery, 9, 0, &[]);
        assert_eq!(ctrl.ask(&unknown, 64), [22, 0, 4, 0, 0, 0, 0, 0]);
        assert_eq!(rig.stat("admin.commands"), 4);
        assert_eq!(rig.stat("admin.refused"), 1);
    }
}

#[test]
fn a_command_that_takes_time_comes_back_once_before_the_next_one() {
    for packed in [false, true] {
        let (rig, mut ctrl, group) = office(packed);
        let all = [0x03, 0xfc, 0x03, 0, 0, 0, 0, 0];
        let used = ctrl.ask(&command(Opcode::ListUse, 1, 0, &all), 8);
        assert_eq!(used, [0; 8]);
        // Two at once: the second one is not overtaken, and not answered first.
        let stop = command(Opcode::DevModeSet, 1, 1, &[1]);
        let query = command(Opcode::ListQuery, 1, 0, &[]);
        let at = rig.alloc(4096);
        rig.bytes().write(at as usize, &stop);
        rig.bytes().write(at as usize + 512, &query);
        let ids = [(at, stop.len()), (at + 512, query.len())].map(|(from, len)| {
            let answer = (from + 256, 16);
            ctrl.q.add(&[(from, len as u32)], &[answer]).unwrap()
        });
        ctrl.q.publish();
        let done = ctrl.q.wait_used(2);
        assert_eq!(done.iter().map(|one| one.len).collect::<Vec<_>>(), [8, 16]);
        assert_eq!(done.iter().map(|one| one.id).collect::<Vec<_>>(), ids);
        assert_eq!(group.0.stopped.load(Ordering::Relaxed), 1);
        assert_eq!(group.0.asked.load(Ordering::Relaxed), PATIENCE);
    }
}

#[test]
fn a_reset_takes_back_what_the_driver_said_and_the_queue_starts_again() {
    let (rig, mut ctrl, _group) = office(false);
    let stop = command(Opcode::DevModeSet, 1, 1, &[0]);
    let all = [0x03, 0xfc, 0x03, 0, 0, 0, 0, 0];
    ctrl.ask(&command(Opcode::ListUse, 1, 0, &all), 8);
    assert_eq!(ctrl.ask(&stop, 8), [0; 8]);
    rig.reset();
    let mut ctrl = begin(&rig, true);
    assert_eq!(ctrl.ask(&stop, 8), [22, 0, 2, 0, 0, 0, 0, 0]);
}

#[test]
fn a_reset_in_the_middle_of_a_command_is_not_held_up_by_it() {
    let (rig, mut ctrl, group) = office(false);
    let all = [0x03, 0xfc, 0x03, 0, 0, 0, 0, 0];
    ctrl.ask(&command(Opcode::ListUse, 1, 0, &all), 8);
    // As good as never.
    group.0.asked.store(u32::MAX / 2, Ordering::Relaxed);
    let stop = command(Opcode::DevModeSet, 1, 1, &[1]);
    let at = rig.alloc(4096);
    rig.bytes().write(at as usize, &stop);
    ctrl.q.add(&[(at, 32)], &[(at + 512, 8)]).unwrap();
    let before = group.0.asked.load(Ordering::Relaxed);
    ctrl.q.publish();
    until("the command", || {
        group.0.asked.load(Ordering::Relaxed) > before
    });
    rig.reset();
    let mut ctrl = begin(&rig, false);
    ctrl.ask(&command(Opcode::ListQuery, 0, 0, &[]), 16);
}

#[test]
fn a_command_that_takes_time_is_read_once() {
    let (rig, mut ctrl, group) = office(false);
    let all = [0x03, 0xfc, 0x03, 0, 0, 0, 0, 0];
    ctrl.ask(&command(Opcode::ListUse, 1, 0, &all), 8);
    let at = rig.alloc(4096);
    let stop = command(Opcode::DevModeSet, 1, 1, &[1]);
    rig.bytes().write(at as usize, &stop);
    ctrl.q
        .add(&[(at, stop.len() as u32)], &[(at + 512, 16)])
        .unwrap();
    let asked = || group.0.asked.load(Ordering::Relaxed);
    ctrl.q.publish();
    until("the command", || asked() > 0);
    let query = command(Opcode::ListQuery, 1, 0, &[0]);
    rig.bytes().write(at as usize, &query);
    assert_eq!(ctrl.q.wait_used(1)[0].len, 8, "the answer to the first one");
    assert_eq!(asked(), PATIENCE);
}

#[test]
fn a_command_that_takes_time_does_not_keep_its_worker_busy() {
    let (crew, mut shift) = Crew::by_hand("owner").unwrap();
    let (rig, mut ctrl, group) = office_in(false, Options::default(), crew);
    let at = rig.alloc(4096);
    let all = [0x03, 0xfc, 0x03, 0, 0, 0, 0, 0];
    let list = command(Opcode::ListUse, 1, 0, &all);
    let stop = command(Opcode::DevModeSet, 1, 1, &[1]);
    for (from, bytes) in [(at, &list), (at + 1024, &stop)] {
        rig.bytes().write(from as usize, bytes);
        let read = (from, bytes.len() as u32);
        ctrl.q.add(&[read], &[(from + 512, 8)]).unwrap();
    }
    ctrl.q.publish();
    until("the command", || {
        shift.pass();
        group.0.asked.load(Ordering::Relaxed) != 0
    });
    until("a rest", || !shift.pass());
    assert_eq!(group.0.stopped.load(Ordering::Relaxed), 0);
    // Nobody is left to wait for.
    drop(shift);
}

#[test]
fn a_command_after_a_reset_of_the_queue_is_not_answered_as_one_before_it() {
    let options = Options {
        page_requests: true,
        ..Options::default()
    };
    let (rig, mut ctrl, group) = office_in(false, options, Crew::new("owner", 1));
    let all = [0x03, 0xfc, 0x03, 0, 0, 0, 0, 0];
    ctrl.ask(&command(Opcode::ListUse, 1, 0, &all), 8);
    let member = &group.0;
    let at_hand = || member.asked.store(PATIENCE - 1, Ordering::Relaxed);
    at_hand();
    let met = Arc::new(Barrier::new(2));
    let own = met.clone();
    let then = move || {
        own.wait();
        own.wait();
    };
    *member.then.lock().unwrap() = Some(Box::new(then));
    let stop = command(Opcode::DevModeSet, 1, 1, &[1]);
    let at = rig.alloc(4096);
    rig.bytes().write(at as usize, &stop);
    ctrl.q
        .add(&[(at, stop.len() as u32)], &[(at + 512, 8)])
        .unwrap();
    ctrl.q.publish();
    // It is carried out, and its ring is not there any more when it is to be given back.
    met.wait();
    let events = rig.device.events().unwrap();
    rig.dma.replace(Vec::new(), soon()).unwrap();
    met.wait();
    until("a request for the ring", || {
        matches!(events.try_next(), Some(Event::Miss { .. }))
    });
    rig.device
        .reset_queue(QueueIndex::new(ADMIN), soon())
        .unwrap();
    rig.map();
    let mut ctrl = Ctrl::new(&rig, rig.queue(ADMIN, 16));
    at_hand();
    assert_eq!(ctrl.ask(&stop, 8), [0; 8]);
    assert_eq!(member.stopped.load(Ordering::Relaxed), 2);
}

#[test]
fn a_command_in_memory_that_is_not_mapped_comes_back_and_is_reported() {
    let (rig, mut ctrl, _group) = office(false);
    let events = rig.device.events().unwrap();
    for (readable, writable) in [
        ((0x10_0000, 24), (BASE + REGION - 64, 8)),
        ((BASE, 24), (0x10_0000, 8)),
    ] {
        // Offsets of the rig's region.
        let off = |(at, len): (u64, u32)| (at.wrapping_sub(BASE), len);
        ctrl.q.add(&[off(readable)], &[off(writable)]).unwrap();
        ctrl.q.publish();
        assert_eq!(ctrl.q.wait_used(1)[0].len, 0);
        until("a fault", || {
            matches!(events.try_next(), Some(Event::Fault { .. }))
        });
    }
    assert_eq!(rig.stat("admin.faults"), 2);
    let query = command(Opcode::ListQuery, 0, 0, &[]);
    assert_eq!(ctrl.ask(&query, 16).len(), 16);
}

#[test]
fn a_command_may_be_in_any_pieces_and_as_long_as_a_driver_likes() {
    let (rig, mut ctrl, _group) = office(false);
    let at = rig.alloc(8 << 20);
    for opcode in [Opcode::ListQuery, Opcode::DevPartsSet] {
        let bytes = command(opcode, 0, 0, &[]);
        rig.bytes().write(at as usize, &bytes);
        let answer = at + (7 << 20);
        let pieces = [(at, 1), (at + 1, 1), (at + 2, 22), (at + 24, 6 << 20)];
        let room = [(answer, 3), (answer + 3, 1), (answer + 4, 1 << 19)];
        ctrl.q.add(&pieces, &room).unwrap();
        ctrl.q.publish();
        let done = ctrl.q.wait_used(1);
        let mut said = [0; 16];
        rig.bytes().read(answer as usize, &mut said);
        match opcode {
            Opcode::ListQuery => assert_eq!((done[0].len, said[8]), (16, 0x83)),
            _ => assert_eq!((done[0].len, said[0], said[2]), (8, 22, 2)),
        }
    }
}

#[test]
fn the_queue_is_not_there_without_the_feature() {
    let office = Arc::new(Office::new());
    let class = Box::new(Rng::new(64, POSSIBLE));
    let owner = Owner::new(class, office, true);
    assert!(owner.offered().contains(bits::SR_IOV));
    let role = |features| owner.role(QueueIndex::new(ADMIN), Some(features));
    assert!(role(owner.offered()).is_some());
    assert!(role(owner.offered() - bits::ADMIN_VQ.mask()).is_none());
}

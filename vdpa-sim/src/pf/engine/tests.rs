use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use proptest::prelude::*;

use super::super::command::{COMMAND_HEADER, Qualifier, REPLY_HEADER, Status};
use super::super::part::PartName;
use super::*;

/// A member that is nothing but its parts.
#[derive(Default)]
struct Paper {
    state: Mutex<State>,
}

#[derive(Clone, PartialEq, Eq, Default, Debug)]
struct State {
    stopped: bool,
    /// How many more times it is asked before it is stopped.
    slow: u8,
    /// Whether it is to refuse what is set.
    stubborn: bool,
    set: BTreeMap<PartName, Vec<u8>>,
}

impl Member for Paper {
    fn set_mode(&self, mode: Mode) -> Poll<Result<(), Refusal>> {
        let mut state = self.state.lock().unwrap();
        if state.slow != 0 {
            state.slow -= 1;
            return Poll::Pending;
        }
        state.stopped = mode == Mode::Stopped;
        Poll::Ready(Ok(()))
    }

    fn abandon(&self) {}

    fn mode(&self) -> Mode {
        match self.state.lock().unwrap().stopped {
            true => Mode::Stopped,
            false => Mode::Running,
        }
    }

    fn parts(&self) -> Poll<Result<Vec<Part>, Refusal>> {
        let mut parts = BTreeMap::from([
            (PartName::only(PartType::DeviceFeatures), vec![0xff; 16]),
            (PartName::only(PartType::DriverFeatures), vec![0; 16]),
            (PartName::only(PartType::DeviceStatus), vec![0]),
            (PartName::of(PartType::QueueConfig, 0), vec![0; 32]),
            (PartName::of(PartType::QueueConfig, 1), vec![0; 32]),
        ]);
        parts.extend(self.state.lock().unwrap().set.clone());
        let parts = parts
            .into_iter()
            .map(|(name, value)| Part::new(name, value));
        Poll::Ready(Ok(parts.collect()))
    }

    fn set_parts(&self, parts: &[Part]) -> Poll<Result<(), Refusal>> {
        let mut state = self.state.lock().unwrap();
        if state.stubborn {
            return Poll::Ready(Err(Refusal::FIELD));
        }
        let set = parts
            .iter()
            .map(|part| (part.name, part.value.clone()))
            .filter(|(name, _)| name.kind != PartType::DeviceFeatures);
        state.set.extend(set);
        Poll::Ready(Ok(()))
    }
}

#[derive(Default)]
struct Papers {
    members: Vec<Arc<Paper>>,
    enabled: bool,
    generation: u64,
}

impl Papers {
    fn of(number: usize) -> Self {
        Self {
            members: (0..number).map(|_| Arc::default()).collect(),
            enabled: true,
            generation: 1,
        }
    }

    fn states(&self) -> Vec<State> {
        let states = self.members.iter();
        states.map(|m| m.state.lock().unwrap().clone()).collect()
    }
}

impl Group for Papers {
    fn members(&self) -> Option<u16> {
        self.enabled.then_some(self.members.len() as u16)
    }

    fn generation(&self) -> u64 {
        self.generation
    }

    fn member(&self, number: u16) -> Option<Arc<dyn Member>> {
        let member = self.members.get(usize::from(number) - 1)?;
        Some(Arc::clone(member) as _)
    }
}

/// The bytes of a command.
fn command(opcode: u16, group: u16, member: u64, data: &[u8]) -> Vec<u8> {
    let mut to = Vec::new();
    to.extend(opcode.to_le_bytes());
    to.extend(group.to_le_bytes());
    to.extend([0; 12]);
    to.extend(member.to_le_bytes());
    to.extend(data);
    to
}

/// The data of a command about an object.
fn object(id: u32, more: &[&[u8]]) -> Vec<u8> {
    let mut to = vec![0; 4];
    to.extend(id.to_le_bytes());
    to.extend(more.concat());
    to
}

/// An engine at work.
struct Office {
    engine: Engine,
    papers: Papers,
}

impl Office {
    fn new(members: usize) -> Self {
        Self {
            engine: Engine::new(),
            papers: Papers::of(members),
        }
    }

    /// One whose driver uses all there is, and may make objects.
    fn ready(members: usize) -> Self {
        let mut office = Self::new(members);
        for (group, list) in [(0, FOR_ITSELF), (1, FOR_SRIOV)] {
            office.well(0x1, group, 0, &list.to_le_bytes());
        }
        office.well(0x9, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 0, 32, 32]);
        office
    }

    fn run(&mut self, bytes: &[u8], room: usize) -> Reply {
        match self.engine.run(bytes, room, &self.papers) {
            Poll::Ready(reply) => reply,
            Poll::Pending => panic!("it is pending"),
        }
    }

    fn send(&mut self, opcode: u16, group: u16, member: u64, data: &[u8]) -> Reply {
        self.run(&command(opcode, group, member, data), 4096)
    }

    fn well(&mut self, opcode: u16, group: u16, member: u64, data: &[u8]) -> Vec<u8> {
        let reply = self.send(opcode, group, member, data);
        assert_eq!((reply.status, reply.qualifier), (Status::Ok, Qualifier::Ok));
        reply.result
    }

    fn refused(&mut self, opcode: u16, group: u16, member: u64, data: &[u8]) -> Refusal {
        let reply = self.send(opcode, group, member, data);
        assert!(reply.result.is_empty());
        let Reply {
            status, qualifier, ..
        } = reply;
        assert_ne!(status, Status::Ok);
        Refusal { status, qualifier }
    }

    fn create(&mut self, member: u64, id: u32, purpose: u8) -> Reply {
        let data = object(id, &[&[0; 8], &[purpose, 0, 0, 0, 0, 0, 0, 0]]);
        self.send(0xa, 1, member, &data)
    }

    fn state(&self) -> (String, Vec<State>) {
        (format!("{:?}", self.engine), self.papers.states())
    }
}

#[test]
fn group_then_opcode_then_member_are_validated() {
    let mut office = Office::ready(2);
    for member in [0, 1, 2, 3] {
        assert_eq!(office.refused(0x7777, 7, member, &[]), Refusal::GROUP);
        assert_eq!(office.refused(0x7777, 1, member, &[]), Refusal::OPCODE);
        assert_eq!(office.refused(0x7, 1, member, &[]), Refusal::OPCODE);
        assert_eq!(office.refused(0x11, 0, member, &[]), Refusal::OPCODE);
    }
    for member in [0, 3, 0x1_0001, u64::MAX] {
        assert_eq!(office.refused(0x11, 1, member, &[1]), Refusal::MEMBER);
    }
    assert_eq!(office.refused(0x7, 0, 1, &[]), Refusal::MEMBER);
    office.well(0x11, 1, 2, &[1]);
    assert_eq!(
        office
            .papers
            .states()
            .iter()
            .map(|s| s.stopped)
            .collect::<Vec<_>>(),
        [false, true]
    );
    office.papers.enabled = false;
    assert_eq!(office.refused(0x0, 1, 0, &[]), Refusal::GROUP);
    assert_eq!(office.refused(0x7777, 1, 9, &[]), Refusal::GROUP);
    office.well(0x0, 0, 0, &[]);
}

#[test]
fn only_lists_are_legal_before_a_list_is_used() {
    let mut office = Office::new(1);
    for group in [0, 1] {
        for opcode in 2..0x100 {
            assert_eq!(office.refused(opcode, group, 1, &[]), Refusal::OPCODE);
        }
        let list = office.well(0x0, group, 0, &[]);
        assert_eq!(list.len(), 8);
        assert_eq!(list[0] & 3, 3);
        let list = u64::from_le_bytes(list.try_into().unwrap());
        for bit in (0..64).filter(|bit| list >> bit & 1 == 0) {
            let wrong = (list | 1 << bit).to_le_bytes();
            assert_eq!(office.refused(0x1, group, 0, &wrong), Refusal::FIELD);
        }
        let mut long = [0; 24];
        long[..8].copy_from_slice(&list.to_le_bytes());
        office.well(0x1, group, 0, &long);
        long[20] = 1;
        assert_eq!(office.refused(0x1, group, 0, &long), Refusal::FIELD);
    }
    // Each group has a list of its own, and what is not in it is not legal any more.
    office.well(0x1, 0, 0, &[0x82]);
    office.well(0x7, 0, 0, &[]);
    assert_eq!(office.refused(0x0, 0, 0, &[]), Refusal::OPCODE);
    office.well(0x0, 1, 0, &[]);
    office.well(0x11, 1, 1, &[1]);
    office.well(0x1, 0, 0, &[]);
    assert_eq!(office.refused(0x1, 0, 0, &[3]), Refusal::OPCODE);
}

#[test]
fn capabilities_can_be_had_up_to_what_the_device_has() {
    let mut office = Office::new(1);
    office.well(0x1, 0, 0, &FOR_ITSELF.to_le_bytes());
    office.well(0x1, 1, 0, &FOR_SRIOV.to_le_bytes());
    assert_eq!(office.well(0x7, 0, 0, &[]), [1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(office.well(0x8, 0, 0, &[]), [OBJECTS.get, OBJECTS.set]);
    assert_eq!(office.refused(0x8, 0, 0, &[1]), Refusal::NO_ENTRY);
    assert_eq!(office.refused(0x9, 0, 0, &[0, 8]), Refusal::NO_ENTRY);
    // As long as nothing was set there are no objects.
    assert_eq!(Reply::from(Err(Refusal::FIELD)), office.create(1, 0, 0));
    let set = |get, set| [0, 0, 0, 0, 0, 0, 0, 0, get, set];
    assert_eq!(office.refused(0x9, 0, 0, &set(33, 1)), Refusal::FIELD);
    assert_eq!(office.refused(0x9, 0, 0, &set(1, 255)), Refusal::FIELD);
    office.well(0x9, 0, 0, &set(1, 1));
    assert_eq!(office.create(1, 0, 0).status, Status::Ok);
    assert_eq!(office.create(1, 1, 0).status, Status::NoSpace);
    assert_eq!(office.create(1, 1, 1).status, Status::Ok);
    assert_eq!(office.create(1, 2, 1).status, Status::Invalid);
    assert_eq!(office.refused(0x9, 0, 0, &set(0, 0)), Refusal::BUSY);
    office.well(0x9, 0, 0, &set(1, 1));
}

#[test]
fn the_id_of_a_destroyed_object_can_be_used_again() {
    let mut office = Office::ready(2);
    assert_eq!(
        office.refused(0xd, 1, 1, &object(5, &[])),
        Refusal::NO_ENTRY
    );
    for purpose in [0, 1] {
        assert_eq!(office.create(1, 5, purpose).status, Status::Ok);
        assert_eq!(office.create(1, 5, 0), Reply::from(Err(Refusal::EXISTS)));
        assert_eq!(office.well(0xc, 1, 1, &object(5, &[]))[0], purpose);
        // Of another member it is another one.
        assert_eq!(
            office.refused(0xc, 1, 2, &object(5, &[])),
            Refusal::NO_ENTRY
        );
        office.well(0xd, 1, 1, &object(5, &[]));
    }
    assert_eq!(office.create(1, 5, 2), Reply::from(Err(Refusal::FIELD)));
    assert_eq!(office.create(1, 64, 0), Reply::from(Err(Refusal::FIELD)));
    let other = [1, 0, 0, 0, 5, 0, 0, 0];
    assert_eq!(office.refused(0xa, 1, 1, &other), Refusal::FIELD);
    assert_eq!(office.refused(0xc, 1, 1, &other), Refusal::NO_ENTRY);
}

#[test]
fn a_modify_that_fails_changes_nothing() {
    let mut office = Office::ready(1);
    office.well(0x9, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 0, 2, 1]);
    assert_eq!(office.create(1, 0, 0).status, Status::Ok);
    assert_eq!(office.create(1, 1, 1).status, Status::Ok);
    let to = |purpose| object(0, &[&[0; 8], &[purpose]]);
    assert_eq!(office.refused(0xb, 1, 1, &to(1)), Refusal::NO_SPACE);
    assert_eq!(office.refused(0xb, 1, 1, &to(9)), Refusal::FIELD);
    assert_eq!(office.well(0xc, 1, 1, &object(0, &[]))[0], 0);
    office.well(0xd, 1, 1, &object(1, &[]));
    office.well(0xb, 1, 1, &to(1));
    assert_eq!(office.well(0xc, 1, 1, &object(0, &[]))[0], 1);
}

#[test]
fn objects_go_with_their_members() {
    let mut office = Office::ready(1);
    assert_eq!(office.create(1, 0, 0).status, Status::Ok);
    office.papers.generation = 2;
    assert_eq!(
        office.refused(0xc, 1, 1, &object(0, &[])),
        Refusal::NO_ENTRY
    );
    assert_eq!(office.create(1, 0, 0).status, Status::Ok);
}

#[test]
fn a_stop_that_takes_time_is_asked_for_again() {
    let mut office = Office::ready(1);
    office.papers.members[0].state.lock().unwrap().slow = 3;
    let stop = command(0x11, 1, 1, &[1]);
    for _ in 0..3 {
        assert!(office.engine.run(&stop, 8, &office.papers).is_pending());
    }
    assert_eq!(office.run(&stop, 8).status, Status::Ok);
    for mode in [1, 1, 0, 0] {
        office.well(0x11, 1, 1, &[mode]);
    }
    assert_eq!(office.refused(0x11, 1, 1, &[2]), Refusal::FIELD);
    assert_eq!(office.refused(0x11, 1, 1, &[0x81]), Refusal::FIELD);
}

#[test]
fn parts_come_in_their_order_as_often_as_they_are_asked_for() {
    let mut office = Office::ready(1);
    assert_eq!(
        office.refused(0xf, 1, 1, &object(0, &[])),
        Refusal::NO_ENTRY
    );
    assert_eq!(office.create(1, 0, 0).status, Status::Ok);
    assert_eq!(office.create(1, 1, 1).status, Status::Ok);
    assert_eq!(
        office.refused(0xf, 1, 1, &object(1, &[&[1]])),
        Refusal::FIELD
    );
    assert_eq!(
        office.refused(0xe, 1, 1, &object(1, &[&[1]])),
        Refusal::FIELD
    );
    assert_eq!(
        office.refused(0xf, 1, 1, &object(0, &[&[2]])),
        Refusal::FIELD
    );
    assert_eq!(
        office.refused(0xe, 1, 1, &object(0, &[&[3]])),
        Refusal::FIELD
    );
    let all = office.well(0xf, 1, 1, &object(0, &[&[1]]));
    let parts = Part::parse_all(&all).unwrap();
    assert_eq!(parts.len(), 5);
    assert_eq!(office.well(0xf, 1, 1, &object(0, &[&[1]])), all);
    let size = office.well(0xe, 1, 1, &object(0, &[&[0]]));
    assert_eq!(size, (all.len() as u64).to_le_bytes());
    let count = office.well(0xe, 1, 1, &object(0, &[&[1]]));
    assert_eq!(count, 5_u64.to_le_bytes());
    let headers = office.well(0xe, 1, 1, &object(0, &[&[2]]));
    assert_eq!(headers[..8], 5_u64.to_le_bytes());
    let expected: Vec<_> = parts.iter().flat_map(Part::header).collect();
    assert_eq!(headers[8..], expected);
    // One byte less than the headers need.
    let list = command(0xe, 1, 1, &object(0, &[&[2]]));
    assert_eq!(office.run(&list, 8 + 8 + 79).status, Status::NoMemory);
    assert_eq!(office.run(&list, 8 + 8 + 80).status, Status::Ok);
    // Selected, in whatever order, and one that there is not.
    let mut selector = vec![0; 8];
    for part in [4, 1] {
        selector.extend(parts[part].header());
    }
    selector.extend(Part::new(PartName::of(PartType::QueueConfig, 9), vec![]).header());
    selector.extend([0x77; 16]);
    let some = office.well(0xf, 1, 1, &object(0, &[&selector]));
    let expected = [parts[1].clone(), parts[4].clone()];
    assert_eq!(Part::parse_all(&some).unwrap(), expected);
}

#[test]
fn parts_are_set_while_stopped_whole_and_as_long_as_they_are() {
    let mut office = Office::ready(1);
    assert_eq!(office.create(1, 1, 1).status, Status::Ok);
    assert_eq!(office.create(1, 0, 0).status, Status::Ok);
    let set = |id, parts: &[Part]| object(id, &[&Part::all_to_bytes(parts)]);
    let of = |kind, len| Part::new(PartName::only(kind), vec![0xff; len]);
    let status = of(PartType::DeviceStatus, 1);
    let legal = set(1, std::slice::from_ref(&status));
    assert_eq!(office.refused(0x10, 1, 1, &legal), Refusal::BUSY);
    office.well(0x11, 1, 1, &[1]);
    assert_eq!(
        office.refused(0x10, 1, 1, &set(0, std::slice::from_ref(&status))),
        Refusal::FIELD,
        "an object for getting"
    );
    for wrong in [
        of(PartType::DeviceStatus, 2),
        of(PartType::DeviceStatus, 0),
        of(PartType::DriverFeatures, 8),
        of(PartType::QueueNotifyConfig, 8),
        Part::new(PartName::of(PartType::QueueConfig, 2), vec![0; 32]),
        Part::new(PartName::only(PartType::DeviceFeatures), vec![0; 16]),
    ] {
        let before = office.state();
        let refused = office.refused(0x10, 1, 1, &set(1, &[wrong]));
        assert_eq!(refused, Refusal::FIELD);
        assert_eq!(office.state(), before);
    }
    for _ in 0..2 {
        office.well(0x10, 1, 1, &legal);
    }
    let both = set(1, &[of(PartType::DeviceFeatures, 16), status]);
    office.well(0x10, 1, 1, &both);
    let set = &office.papers.states()[0].set;
    assert_eq!(set.len(), 1, "the device's features are not set");
    office.papers.members[0].state.lock().unwrap().stubborn = true;
    assert_eq!(office.refused(0x10, 1, 1, &both), Refusal::FIELD);
}

#[test]
fn commands_and_answers_may_be_short_and_long() {
    let mut office = Office::new(1);
    // Nothing at all: list query, of the owner itself.
    let reply = office.run(&[], 0);
    assert_eq!(reply.status, Status::Ok);
    assert!(reply.to_bytes(0).is_empty());
    let use_all = command(0x1, 1, 0, &FOR_SRIOV.to_le_bytes()[..3]);
    assert_eq!(office.run(&use_all, 8).status, Status::Ok);
    let stop = command(0x11, 1, 1, &[1]);
    for len in [stop.len(), stop.len() + 1, stop.len() + 4096] {
        let mut long = stop.clone();
        long.resize(len, 0xee);
        assert_eq!(office.run(&long, 4).status, Status::Ok);
        assert_eq!(office.papers.members[0].mode(), Mode::Stopped);
    }
    assert_eq!(office.run(&stop[..COMMAND_HEADER], 8).status, Status::Ok);
    assert_eq!(office.papers.members[0].mode(), Mode::Running);
}

/// Commands that are nearly legal.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let data = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..80),
        prop::collection::vec(0_u8..3, 0..80),
        (0_u32..3, 0_u8..4).prop_map(|(id, kind)| object(id, &[&[kind; 1], &[0; 7], &[kind]])),
        (0_u32..3, any::<[u8; 1]>()).prop_map(|(id, [value])| {
            let part = Part::new(PartName::only(PartType::DeviceStatus), vec![value]);
            object(id, &[&Part::all_to_bytes(&[part])])
        }),
    ];
    let group = prop_oneof![8 => 0_u16..2, 1 => any::<u16>()];
    let member = prop_oneof![8 => 0_u64..4, 1 => any::<u64>()];
    let opcode = prop_oneof![8 => 0_u16..0x13, 1 => any::<u16>()];
    (opcode, group, member, data, 0_usize..200).prop_map(|(opcode, group, member, data, cut)| {
        let mut bytes = command(opcode, group, member, &data);
        bytes.truncate(if cut < 150 { usize::MAX } else { cut - 150 });
        bytes
    })
}

proptest! {
    #[test]
    fn nothing_that_is_refused_changes_anything(
        commands in prop::collection::vec(nearly(), 1..40),
        room in 0_usize..300,
    ) {
        let mut office = Office::ready(2);
        for bytes in commands {
            let before = office.state();
            let reply = office.run(&bytes, room);
            let answer = reply.to_bytes(room);
            prop_assert!(answer.len() <= room);
            prop_assert!(room < REPLY_HEADER || answer.len() >= REPLY_HEADER);
            if reply.status != Status::Ok {
                prop_assert_eq!(office.state(), before);
                prop_assert!(reply.result.is_empty());
            } else {
                prop_assert_eq!(reply.qualifier, Qualifier::Ok);
            }
        }
    }

    #[test]
    fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut office = Office::new(1);
        let _any = office.run(&bytes, 64);
        let _any = Part::parse_all(&bytes);
    }
}

//! What becomes of commands.

use super::client::{
    Answer, BAD_GROUP, BAD_MEMBER, BAD_OPCODE, Command, EEXIST, EINVAL, ITSELF, OK, Owner, SR_IOV,
    group, member, op, require, whole,
};
use crate::checked::{ensure, fail};
use crate::registers::{Registers, reg};
use crate::{Bench, Checked};

/// Of no command.
const UNKNOWN: u16 = 0x7fff;
/// Device parts are the only type of object, and the first.
const OBJECT: [u8; 8] = [0; 8];
/// The type of a part: the features of the device.
const DEV_FEATURES: u16 = 0x100;

fn is(answer: &Answer, status: u16, qualifier: u16, what: &str) -> Checked {
    ensure!(
        answer.status == status && answer.qualifier == qualifier,
        "{what}: status {} with qualifier {}, and {status} with {qualifier} is due",
        answer.status,
        answer.qualifier
    );
    Ok(())
}

fn went_well(answer: &Answer, what: &str) -> Checked {
    is(answer, OK, 0, what)
}

pub(super) fn validated_in_order(bench: &Bench<'_>) -> Checked {
    let mut owner = Owner::ready(bench)?;
    // Each is wrong in what comes later too.
    let wrong = |opcode, group, member| Command {
        opcode,
        group,
        member,
        data: vec![1],
        room: 8,
    };
    for (command, qualifier, what) in [
        (
            wrong(UNKNOWN, 77, 999),
            BAD_GROUP,
            "a group that there is not",
        ),
        (wrong(op::MODE_SET, 0xffff, 1), BAD_GROUP, "the last group"),
        (
            wrong(UNKNOWN, SR_IOV, 999),
            BAD_OPCODE,
            "an opcode that there is not",
        ),
        (
            wrong(op::MODE_SET, SR_IOV, 999),
            BAD_MEMBER,
            "a member that there is not",
        ),
    ] {
        let answer = owner.ask(&command)?;
        is(&answer, EINVAL, qualifier, what)?;
    }
    Ok(())
}

pub(super) fn invalid_changes_nothing(bench: &Bench<'_>) -> Checked {
    let mut owner = Owner::ready(bench)?;
    owner.require(op::MODE_SET, "DEV_MODE_SET")?;
    let list = owner.list()?;
    let unsupported = !list & ((list + 1) | (1 << 63));
    for (command, what) in [
        (member(op::MODE_SET, 1, &[7]), "a mode that there is not"),
        (
            group(op::LIST_USE, SR_IOV, &unsupported.to_le_bytes()),
            "the use of a command that is not supported",
        ),
        (member(op::MODE_SET, 99, &[1]), "a member that there is not"),
    ] {
        let answer = owner.ask(&command)?;
        ensure!(
            answer.status == EINVAL,
            "{what}: status {}, and {EINVAL} is due",
            answer.status
        );
    }
    // What was used is used still, and the member goes on.
    let now = owner.list()?;
    ensure!(now == list, "the list was {list:#x}, and is {now:#x}");
    for mode in [1, 0] {
        let answer = owner.ask(&member(op::MODE_SET, 1, &[mode]))?;
        went_well(&answer, &format!("mode {mode} after what was invalid"))?;
    }
    Ok(())
}

pub(super) fn list_comes_first(bench: &Bench<'_>) -> Checked {
    let mut owner = Owner::of(bench)?;
    for of in [SR_IOV, ITSELF] {
        for opcode in (2..0x12).chain([UNKNOWN]) {
            let command = Command {
                opcode,
                group: of,
                member: u64::from(of),
                data: vec![0; 8],
                room: 64,
            };
            let answer = owner.ask(&command)?;
            is(
                &answer,
                EINVAL,
                BAD_OPCODE,
                &format!("opcode {opcode:#x} of group {of} before LIST_USE"),
            )?;
        }
        let answer = owner.ask(&group(op::LIST_QUERY, of, &[]))?;
        went_well(&answer, "LIST_QUERY before LIST_USE")?;
    }
    owner.use_all()?;
    // After a reset it is so again.
    owner.rig.reset()?;
    drop(owner);
    let mut owner = Owner::of(bench)?;
    let answer = owner.ask(&member(op::MODE_SET, 1, &[0]))?;
    is(
        &answer,
        EINVAL,
        BAD_OPCODE,
        "DEV_MODE_SET before LIST_USE, after a reset",
    )
}

pub(super) fn list_stays(bench: &Bench<'_>) -> Checked {
    let mut owner = Owner::of(bench)?;
    let first = owner.list()?;
    ensure!(
        first & 0b11 == 0b11,
        "the list is {first:#x}, without LIST_QUERY and LIST_USE"
    );
    for used in [0b11, first, first & !(1 << op::MODE_SET), first] {
        let answer = owner.ask(&group(op::LIST_USE, SR_IOV, &u64::to_le_bytes(used)))?;
        went_well(&answer, &format!("the use of {used:#x}"))?;
        let now = owner.list()?;
        ensure!(
            now & first == first,
            "the list was {first:#x}, {used:#x} is used of it, and it is {now:#x}"
        );
    }
    Ok(())
}

pub(super) fn members_out_of_range(bench: &Bench<'_>) -> Checked {
    let mut owner = Owner::ready(bench)?;
    owner.require(op::MODE_SET, "DEV_MODE_SET")?;
    let last = u64::from(owner.members);
    for number in [0, last + 1, 0xffff, 0x1_0001, 0x1_0000_0001, u64::MAX] {
        let answer = owner.ask(&member(op::MODE_SET, number, &[0]))?;
        is(
            &answer,
            EINVAL,
            BAD_MEMBER,
            &format!("member {number:#x} of {last}"),
        )?;
    }
    for number in 1..=last {
        let answer = owner.ask(&member(op::MODE_SET, number, &[0]))?;
        went_well(&answer, &format!("member {number} of {last}"))?;
    }
    Ok(())
}

pub(super) fn any_length(bench: &Bench<'_>) -> Checked {
    let mut owner = Owner::ready(bench)?;
    let list = whole(&group(op::LIST_QUERY, SR_IOV, &[]));
    let due = owner.list()?;
    // What is left out reads as zero, and so the group's type has to be there.
    let longer = [list.clone(), vec![0; 1000]].concat();
    for (bytes, what) in [
        (list[..4].to_vec(), "a command of 4 bytes"),
        (list[..17].to_vec(), "a command of 17 bytes"),
        (list.clone(), "a command of its length"),
        (longer, "a command of 1000 bytes more"),
    ] {
        for room in [8, 4, 0, 1000] {
            let answers = owner.ask_bytes(&[(bytes.clone(), room)])?;
            let Some(answer) = answers.first() else {
                fail!("{what}: no answer");
            };
            went_well(answer, &format!("{what}, with room for {room}"))?;
            let seen = answer.result.first_chunk::<8>();
            if let Some(seen) = seen.filter(|_| room >= 8) {
                let seen = u64::from_le_bytes(*seen);
                ensure!(
                    seen == due,
                    "{what}: the list is {seen:#x}, and was {due:#x}"
                );
            }
        }
    }
    Ok(())
}

pub(super) fn in_queue_order(bench: &Bench<'_>) -> Checked {
    let mut owner = Owner::ready(bench)?;
    owner.require(op::MODE_SET, "DEV_MODE_SET")?;
    let all = owner.list()?;
    let using = |list: u64| group(op::LIST_USE, SR_IOV, &list.to_le_bytes());
    let mode = || member(op::MODE_SET, 1, &[0]);
    for _ in 0..bench.times(8, 2) {
        let answers = owner.ask_all(&[using(0b11), mode(), using(all)])?;
        let statuses: Vec<_> = answers.iter().map(|a| a.status).collect();
        ensure!(
            statuses == [OK, EINVAL, OK],
            "less is used, what is not used is asked for, and all is used again: statuses {statuses:?}"
        );
        let answers = owner.ask_all(&[mode(), using(0b11), using(all)])?;
        let statuses: Vec<_> = answers.iter().map(|a| a.status).collect();
        ensure!(
            statuses == [OK; 3],
            "what is used is asked for, and less is used behind it: statuses {statuses:?}"
        );
    }
    Ok(())
}

pub(super) fn queue_numbers(bench: &Bench<'_>) -> Checked {
    let registers = Registers::of(bench.function()?)?;
    require(&registers)?;
    let count = registers.get(reg::NUM_QUEUES)?;
    let first = registers.get(reg::ADMIN_QUEUE_INDEX)?;
    let admin = registers.get(reg::ADMIN_QUEUE_NUM)?;
    ensure!(
        first >= count,
        "admin_queue_index reads {first}, and num_queues {count}"
    );
    ensure!(
        admin > 0,
        "ADMIN_VQ is offered, and admin_queue_num reads 0"
    );
    let last = first + admin - 1;
    ensure!(
        last <= 0xffff,
        "the last administration queue would be {last}"
    );
    Ok(())
}

pub(super) fn stops_twice(bench: &Bench<'_>) -> Checked {
    let mut owner = Owner::ready(bench)?;
    owner.require(op::MODE_SET, "DEV_MODE_SET")?;
    for number in 1..=u64::from(owner.members) {
        for mode in [1, 1, 0, 0, 0, 1, 1, 0] {
            let answer = owner.ask(&member(op::MODE_SET, number, &[mode]))?;
            went_well(&answer, &format!("mode {mode} of member {number}"))?;
        }
    }
    Ok(())
}

/// The data of a command about an object, behind its header.
fn object(id: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = OBJECT.to_vec();
    bytes.truncate(4);
    bytes.extend(id.to_le_bytes());
    bytes.extend(data);
    bytes
}

/// Has the driver make use of objects for parts: two to get them, and two to set them.
fn with_objects(owner: &mut Owner<'_>) -> Checked {
    owner.require(op::CREATE, "RESOURCE_OBJ_CREATE")?;
    let mut wanted = OBJECT.to_vec();
    wanted.extend([2, 2]);
    let answer = owner.ask(&group(op::CAP_SET, ITSELF, &wanted))?;
    went_well(&answer, "DRIVER_CAP_SET of two objects of each kind")
}

/// `kind`: 0 to get parts, 1 to set them.
fn create(owner: &mut Owner<'_>, id: u32, kind: u8) -> Checked<Answer> {
    let data = object(id, &[[0; 8], [kind, 0, 0, 0, 0, 0, 0, 0]].concat());
    owner.ask(&member(op::CREATE, 1, &data))
}

/// A member that is stopped, with an object to get its parts and one to set them.
fn stopped<'b>(bench: &'b Bench<'b>) -> Checked<Owner<'b>> {
    let mut owner = Owner::ready(bench)?;
    with_objects(&mut owner)?;
    for (id, kind) in [(0, 0), (1, 1)] {
        let answer = create(&mut owner, id, kind)?;
        went_well(&answer, &format!("RESOURCE_OBJ_CREATE of {id}"))?;
    }
    let answer = owner.ask(&member(op::MODE_SET, 1, &[1]))?;
    went_well(&answer, "a stop")?;
    Ok(owner)
}

/// A part: its type, its header and its value together.
type Part = (u16, Vec<u8>);

fn parts(owner: &mut Owner<'_>) -> Checked<Vec<Part>> {
    const HEADER: usize = 16;
    let data = object(0, &[1, 0, 0, 0, 0, 0, 0, 0]);
    let answer = owner.ask(&member(op::PARTS_GET, 1, &data))?;
    went_well(&answer, "DEV_PARTS_GET of all parts")?;
    let (mut rest, mut all) = (answer.result.as_slice(), Vec::new());
    while rest.iter().any(|byte| *byte != 0) {
        let number = |from: usize, len: usize| -> u64 {
            let bytes = rest.iter().skip(from).take(len).rev();
            bytes.fold(0, |word, byte| word << 8 | u64::from(*byte))
        };
        let len = HEADER + number(12, 4) as usize;
        let (kind, Some(part)) = (number(0, 2) as u16, rest.get(..len)) else {
            fail!("a part is cut: {} bytes are left of {len}", rest.len());
        };
        all.push((kind, part.to_vec()));
        rest = rest.get(len..).unwrap_or_default();
    }
    ensure!(!all.is_empty(), "a member has no parts");
    Ok(all)
}

fn set(owner: &mut Owner<'_>, parts: &[Part]) -> Checked<Answer> {
    let bytes: Vec<u8> = parts.iter().flat_map(|(_, part)| part.clone()).collect();
    owner.ask(&member(op::PARTS_SET, 1, &object(1, &bytes)))
}

pub(super) fn parts_repeat(bench: &Bench<'_>) -> Checked {
    let mut owner = stopped(bench)?;
    let first = parts(&mut owner)?;
    let kinds: Vec<_> = first.iter().map(|(kind, _)| *kind).collect();
    ensure!(
        kinds.is_sorted(),
        "parts come as {kinds:x?}, which is not their order"
    );
    for round in 0..2 {
        let again = parts(&mut owner)?;
        ensure!(again == first, "the parts differ when they are got again");
        let answer = set(&mut owner, &first)?;
        went_well(&answer, &format!("setting what was got, round {round}"))?;
    }
    // One that is longer than the device's, by a byte of its value.
    let Some((kind, part)) = first.first() else {
        fail!("a member has no parts");
    };
    let mut longer = part.clone();
    longer.push(0);
    if let Some(len) = longer.get_mut(12) {
        *len += 1;
    }
    let answer = set(&mut owner, &[(*kind, longer)])?;
    ensure!(
        answer.status == EINVAL,
        "a part of {kind:#x} with a byte too many: status {}",
        answer.status
    );
    let now = parts(&mut owner)?;
    ensure!(now == first, "a part was refused, and the parts differ");
    Ok(())
}

pub(super) fn features_are_compared(bench: &Bench<'_>) -> Checked {
    let mut owner = stopped(bench)?;
    let all = parts(&mut owner)?;
    let Some(own) = all.iter().find(|(kind, _)| *kind == DEV_FEATURES) else {
        fail!("there is no part DEV_FEATURES");
    };
    let answer = set(&mut owner, std::slice::from_ref(own))?;
    went_well(&answer, "the device's own features")?;
    let mut other = own.clone();
    if let Some(byte) = other.1.get_mut(16) {
        *byte ^= 1;
    }
    let answer = set(&mut owner, &[other])?;
    ensure!(
        answer.status != OK,
        "other features than the device's were taken"
    );
    let now = parts(&mut owner)?;
    ensure!(now == all, "features were refused, and the parts differ");
    Ok(())
}

pub(super) fn objects_come_and_go(bench: &Bench<'_>) -> Checked {
    let mut owner = Owner::ready(bench)?;
    with_objects(&mut owner)?;
    let query = |owner: &mut Owner<'_>| owner.ask(&member(op::QUERY, 1, &object(0, &[0; 8])));
    for round in 0..3 {
        let answer = create(&mut owner, 0, 0)?;
        went_well(&answer, &format!("RESOURCE_OBJ_CREATE, round {round}"))?;
        let twice = create(&mut owner, 0, 0)?;
        ensure!(
            twice.status == EEXIST,
            "an object was created twice: status {}",
            twice.status
        );
        let before = query(&mut owner)?;
        went_well(&before, "RESOURCE_OBJ_QUERY")?;
        // To a kind that there is not.
        let data = object(0, &[[0; 8], [9, 0, 0, 0, 0, 0, 0, 0]].concat());
        let modified = owner.ask(&member(op::MODIFY, 1, &data))?;
        ensure!(
            modified.status != OK,
            "an object was modified to what there is not"
        );
        let after = query(&mut owner)?;
        ensure!(
            after == before,
            "a modification failed, and the object was {before:?} and is {after:?}"
        );
        let answer = owner.ask(&member(op::DESTROY, 1, &object(0, &[])))?;
        went_well(&answer, "RESOURCE_OBJ_DESTROY")?;
        let gone = query(&mut owner)?;
        ensure!(gone.status != OK, "an object that was destroyed is there");
    }
    went_well(&create(&mut owner, 0, 0)?, "RESOURCE_OBJ_CREATE")?;
    owner.again()?;
    with_objects(&mut owner)?;
    let gone = query(&mut owner)?;
    ensure!(gone.status != OK, "an object is there after a reset");
    went_well(
        &create(&mut owner, 0, 0)?,
        "RESOURCE_OBJ_CREATE after a reset",
    )
}

//! What becomes of commands.

use super::client::{
    Answer, BAD_GROUP, BAD_MEMBER, BAD_OPCODE, Command, EINVAL, ITSELF, OK, Owner, SR_IOV, group,
    member, op, require, whole,
};
use super::parts;
use crate::checked::{ensure, fail};
use crate::registers::{Registers, reg};
use crate::{Bench, Checked};

/// Of no command.
const UNKNOWN: u16 = 0x7fff;

fn is(answer: &Answer, status: u16, qualifier: u16, what: &str) -> Checked {
    ensure!(
        answer.status == status && answer.qualifier == qualifier,
        "{what}: status {} with qualifier {}, and {status} with {qualifier} is due",
        answer.status,
        answer.qualifier
    );
    Ok(())
}

pub(super) fn went_well(answer: &Answer, what: &str) -> Checked {
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
    drop(owner);
    parts::tried_again(bench)
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

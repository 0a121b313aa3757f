//! Resource objects, and the device parts that they are for.

use super::client::{
    Answer, Command, EAGAIN, EEXIST, EINVAL, ENOMEM, ITSELF, OK, Owner, SR_IOV, group, member, op,
};
use super::commands::went_well;
use crate::checked::{ensure, fail};
use crate::{Bench, Checked};

/// Device parts are the only type of object, and the first.
const OBJECT: [u8; 8] = [0; 8];
/// The type of a part: the features of the device.
const DEV_FEATURES: u16 = 0x100;

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

fn query(owner: &mut Owner<'_>, id: u32) -> Checked<Answer> {
    owner.ask(&member(op::QUERY, 1, &object(id, &[0; 8])))
}

/// `kind`: 0 to get parts, 1 to set them.
fn create(owner: &mut Owner<'_>, id: u32, kind: u8) -> Checked<Answer> {
    let data = object(id, &[[0; 8], [kind, 0, 0, 0, 0, 0, 0, 0]].concat());
    owner.ask(&member(op::CREATE, 1, &data))
}

/// An owner with an object to get the parts of its first member, and one to set them.
pub(super) fn prepared<'b>(bench: &'b Bench<'b>) -> Checked<Owner<'b>> {
    let mut owner = Owner::ready(bench)?;
    with_objects(&mut owner)?;
    for (id, kind) in [(0, 0), (1, 1)] {
        let answer = create(&mut owner, id, kind)?;
        went_well(&answer, &format!("RESOURCE_OBJ_CREATE of {id}"))?;
    }
    Ok(owner)
}

/// The same, with this member stopped.
fn stopped<'b>(bench: &'b Bench<'b>) -> Checked<Owner<'b>> {
    let mut owner = prepared(bench)?;
    let answer = owner.ask(&member(op::MODE_SET, 1, &[1]))?;
    went_well(&answer, "a stop")?;
    Ok(owner)
}

/// A part: its type, its header and its value together.
pub(super) type Part = (u16, Vec<u8>);

pub(super) fn parts(owner: &mut Owner<'_>) -> Checked<Vec<Part>> {
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

pub(super) fn set(owner: &mut Owner<'_>, parts: &[Part]) -> Checked<Answer> {
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
    for round in 0..3 {
        let answer = create(&mut owner, 0, 0)?;
        went_well(&answer, &format!("RESOURCE_OBJ_CREATE, round {round}"))?;
        let twice = create(&mut owner, 0, 0)?;
        ensure!(
            twice.status == EEXIST,
            "an object was created twice: status {}",
            twice.status
        );
        let before = query(&mut owner, 0)?;
        went_well(&before, "RESOURCE_OBJ_QUERY")?;
        // To a kind that there is not.
        let data = object(0, &[[0; 8], [9, 0, 0, 0, 0, 0, 0, 0]].concat());
        let modified = owner.ask(&member(op::MODIFY, 1, &data))?;
        ensure!(
            modified.status != OK,
            "an object was modified to what there is not"
        );
        let after = query(&mut owner, 0)?;
        ensure!(
            after == before,
            "a modification failed, and the object was {before:?} and is {after:?}"
        );
        let answer = owner.ask(&member(op::DESTROY, 1, &object(0, &[])))?;
        went_well(&answer, "RESOURCE_OBJ_DESTROY")?;
        let gone = query(&mut owner, 0)?;
        ensure!(gone.status != OK, "an object that was destroyed is there");
    }
    went_well(&create(&mut owner, 0, 0)?, "RESOURCE_OBJ_CREATE")?;
    owner.again()?;
    with_objects(&mut owner)?;
    let gone = query(&mut owner, 0)?;
    ensure!(gone.status != OK, "an object is there after a reset");
    went_well(
        &create(&mut owner, 0, 0)?,
        "RESOURCE_OBJ_CREATE after a reset",
    )
}

/// Sends a command until it is neither to be tried again nor short of memory; each time that it is, `unchanged` has to
/// hold.
fn attempt(
    owner: &mut Owner<'_>,
    command: &Command,
    what: &str,
    unchanged: fn(&mut Owner<'_>) -> Checked<bool>,
) -> Checked {
    const MOST: u32 = 100;
    for _ in 0..MOST {
        let answer = owner.ask_once(command)?;
        if answer.status != EAGAIN && answer.status != ENOMEM {
            return went_well(&answer, what);
        }
        ensure!(
            unchanged(owner)?,
            "{what} was answered with status {}, and has had an effect",
            answer.status
        );
    }
    fail!("{what} is to be tried again, {MOST} times")
}

fn is_there(owner: &mut Owner<'_>) -> Checked<bool> {
    Ok(query(owner, 0)?.status == OK)
}

fn is_missing(owner: &mut Owner<'_>) -> Checked<bool> {
    Ok(!is_there(owner)?)
}

/// What is to be tried again, or short of memory, has had no effect.
pub(super) fn tried_again(bench: &Bench<'_>) -> Checked {
    let mut owner = Owner::ready(bench)?;
    if owner.list()? & 1 << op::CREATE == 0 {
        return Ok(());
    }
    with_objects(&mut owner)?;
    let create = member(op::CREATE, 1, &object(0, &[0; 16]));
    let destroy = member(op::DESTROY, 1, &object(0, &[]));
    let list = owner.list()?;
    let less = list & !(1 << op::QUERY);
    let using = |list: u64| group(op::LIST_USE, SR_IOV, &list.to_le_bytes());
    for _ in 0..bench.times(4, 2) {
        attempt(&mut owner, &create, "RESOURCE_OBJ_CREATE", is_missing)?;
        // Too little room for the headers of all parts, which is short of memory for certain.
        let short = Command {
            room: 8,
            ..member(op::METADATA_GET, 1, &object(0, &[2, 0, 0, 0, 0, 0, 0, 0]))
        };
        let parts = parts(&mut owner)?;
        for _ in 0..2 {
            owner.ask_once(&short)?;
            ensure!(
                is_there(&mut owner)?,
                "the headers of parts had no room, and the object that they were asked for with is gone"
            );
        }
        let now = self::parts(&mut owner)?;
        ensure!(
            now == parts,
            "the headers of parts had no room, and the parts differ"
        );
        attempt(&mut owner, &using(less), "LIST_USE without QUERY", is_there)?;
        went_well(&owner.ask(&using(list))?, "LIST_USE of all")?;
        attempt(&mut owner, &destroy, "RESOURCE_OBJ_DESTROY", is_there)?;
    }
    Ok(())
}

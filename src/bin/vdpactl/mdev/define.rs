//! `vdpactl mdev define` and `undefine`: what devices are to be.

use serde::Serialize;
use vdpa::mdev::{Definition, Definitions, Host, Making, Start, Uuid};

use crate::failure::{Failure, Verdict};
use crate::mdev::failed;
use crate::mdev::list::Row;
use crate::output::Output;

/// What a device is to be.
pub(super) struct Wish {
    pub(super) kind: String,
    pub(super) parent: Option<String>,
    pub(super) auto: bool,
    pub(super) attributes: Vec<(String, String)>,
}

#[derive(Serialize)]
struct Undefined {
    undefined: String,
    parent: String,
}

/// `define TYPE [UUID]`.
pub(super) fn define(
    host: &Host,
    definitions: &Definitions,
    uuid: Uuid,
    wish: Wish,
    output: &mut Output,
) -> Result<Verdict, Failure> {
    let parents = host.parents().map_err(failed)?;
    let start = match wish.auto {
        true => Start::Auto,
        false => Start::Manual,
    };
    let given = wish.parent.as_deref();
    let there = given.is_none_or(|given| parents.iter().any(|parent| parent.name == given));
    let parent = match (there, given) {
        // A parent that is not there now has what types it will have.
        (false, Some(given)) => given.to_owned(),
        _ => Making::parent_of(host, &wish.kind, given).map_err(failed)?,
    };
    let mut definition = Definition::new(uuid, &parent, &wish.kind, start);
    definition.attributes = wish.attributes;
    definitions.define(&definition).map_err(failed)?;
    let later = match there {
        true => format!("vdpactl mdev start {uuid}"),
        false => format!("{parent} is not there now"),
    };
    let name = output.paint().name(uuid.to_string());
    output.say(&format!("{name} is defined: {later}"))?;
    output.object(&Row::defined(&definition))?;
    Ok(Verdict::Well)
}

/// `undefine UUID`.
pub(super) fn undefine(
    definitions: &Definitions,
    uuid: Uuid,
    parent: Option<&str>,
    output: &mut Output,
) -> Result<Verdict, Failure> {
    let was = definitions.undefine(uuid, parent).map_err(failed)?;
    output.say(&format!("{uuid} is no longer defined"))?;
    output.object(&Undefined {
        undefined: uuid.to_string(),
        parent: was.parent,
    })?;
    Ok(Verdict::Well)
}

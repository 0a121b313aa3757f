//! `vdpactl mdev types`: what can be made.

use serde::Serialize;
use vdpa::mdev::{Host, Kind, Parent};
use vdpa::vfio::sysfs::Fact;

use crate::failure::{Failure, Verdict};
use crate::mdev::{failed, known, no_parent, printed, shown};
use crate::output::Output;

#[derive(Serialize)]
struct Report {
    parents: Vec<Makes>,
}

#[derive(Serialize)]
struct Makes {
    parent: String,
    types: Vec<Row>,
}

/// A type. What is null is not there, or cannot be read.
#[derive(Serialize)]
struct Row {
    #[serde(rename = "type")]
    id: String,
    name: Option<String>,
    description: Option<String>,
    device_api: Option<String>,
    available_instances: Option<u32>,
}

impl Row {
    fn of(kind: &Kind) -> Self {
        Self {
            id: kind.id.clone(),
            name: known(&kind.name),
            description: known(&kind.description),
            device_api: known(&kind.api),
            available_instances: known(&kind.available),
        }
    }
}

/// Lists them.
pub(super) fn run(
    host: &Host,
    only: Option<&str>,
    output: &mut Output,
) -> Result<Verdict, Failure> {
    let mut parents = host.parents().map_err(failed)?;
    if let Some(only) = only {
        if parents.iter().all(|parent| parent.name != only) {
            return Err(no_parent(only, &parents));
        }
        parents.retain(|parent| parent.name == only);
    }
    tell(&parents, output)?;
    let makes = |parent: &Parent| Makes {
        parent: parent.name.clone(),
        types: kinds(parent).iter().map(Row::of).collect(),
    };
    output.object(&Report {
        parents: parents.iter().map(makes).collect(),
    })?;
    Ok(Verdict::Well)
}

fn kinds(parent: &Parent) -> &[Kind] {
    parent.kinds.known().map_or(&[], |kinds| kinds)
}

fn tell(parents: &[Parent], output: &mut Output) -> Result<(), Failure> {
    let paint = output.paint();
    if parents.is_empty() {
        let none = "nothing here makes mediated devices of the kernel's";
        output.say(&paint.faint(none))?;
        return Ok(());
    }
    let line = |kind: &str, parent: &str, left: &str, api: &str| {
        format!("{kind:<20}  {parent:<14}  {left:<7}  {api:<10}  ")
    };
    output.say(&paint.heading(line("type", "parent", "left", "api") + "what"))?;
    for parent in parents {
        for kind in kinds(parent) {
            let id = printed(&kind.id);
            let row = line(
                &id,
                &printed(&parent.name),
                &kind.available.to_string(),
                &shown(&kind.api),
            );
            let (id, rest) = row.split_at(id.len());
            output.say(&format!("{}{rest}{}", paint.name(id), what(kind)))?;
        }
        if let Fact::Unknown(why) = &parent.kinds {
            let text = format!("{}: its types cannot be read: {why}", printed(&parent.name));
            output.say(&paint.bad(text))?;
        }
    }
    Ok(())
}

fn what(kind: &Kind) -> String {
    match (&kind.name, &kind.description) {
        (name @ Fact::Is(_), Fact::Is(what)) => format!("{}: {}", shown(name), lines(what)),
        (Fact::Is(_), _) => shown(&kind.name),
        (_, Fact::Is(what)) => lines(what),
        _ => String::new(),
    }
}

/// A description of several lines, in one.
fn lines(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(printed).collect::<Vec<_>>().join(" ")
}

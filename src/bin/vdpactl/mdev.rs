//! `vdpactl mdev`: mediated devices, and who makes them.

mod change;
mod command;
mod define;
mod list;
mod slices;
mod types;

use vdpa::mdev::{Definitions, Host, MdevError, Parent, Uuid, uuid};
use vdpa::vfio::sysfs::{Fact, excerpt};

use crate::failure::{Failure, Verdict};
use crate::output::Output;

use command::Command;
pub(crate) use command::Mdev;

/// Does what the command line says.
pub(crate) fn run(options: Mdev, output: &mut Output) -> Result<Verdict, Failure> {
    if !options.root.is_dir() {
        let root = options.root.display();
        let error = anyhow::anyhow!("--root {root}: there is no such directory");
        return Err(Failure::input(error));
    }
    let host = Host::new(&options.root);
    let definitions = match &options.config {
        Some(home) => Definitions::at(home),
        None => host.definitions(),
    };
    if options.command.changes() {
        warn_of_scripts(&definitions, output);
    }
    match options.command {
        Command::Types { of: Some(of), .. } => slices::types(&of, output),
        Command::Types { parent, of: None } => types::run(&host, parent.as_deref(), output),
        Command::List { parent } => list::run(&host, &definitions, parent.as_deref(), output),
        Command::Create { kind, uuid, parent } => {
            let uuid = given(uuid)?;
            change::create(&host, &kind, parent.as_deref(), uuid, output)
        }
        Command::Remove { uuid } => change::remove(&host, named(&uuid)?, output),
        Command::Define {
            kind,
            uuid,
            parent,
            auto,
            attributes,
        } => {
            let uuid = given(uuid)?;
            let wish = define::Wish {
                kind,
                parent,
                auto,
                attributes,
            };
            define::define(&host, &definitions, uuid, wish, output)
        }
        Command::Undefine { uuid, parent } => {
            define::undefine(&definitions, named(&uuid)?, parent.as_deref(), output)
        }
        Command::Start { uuid, parent } => {
            let definition = definitions.of(named(&uuid)?, parent.as_deref());
            change::start(&host, &definition.map_err(failed)?, output)
        }
    }
}

/// What mdevctl has others decide, nobody decides here.
fn warn_of_scripts(definitions: &Definitions, output: &mut Output) {
    let scripts = definitions.scripts();
    let Some(first) = scripts.first() else {
        return;
    };
    let more = match scripts.len().saturating_sub(1) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    output.warn(&format!(
        "mdevctl's scripts are not run here ({}{more}): where a device needs them, let mdevctl do this",
        printed(&first.to_string_lossy())
    ));
}

fn named(text: &str) -> Result<Uuid, Failure> {
    uuid(text).map_err(Failure::input)
}

/// The UUID that was given, or a new one.
fn given(text: Option<String>) -> Result<Uuid, Failure> {
    text.map_or_else(|| Ok(Uuid::new_v4()), |text| named(&text))
}

/// A failure, where something was done before; else it is as with bad input, whoever is in the way.
fn failed(error: MdevError) -> Failure {
    match error {
        MdevError::Attribute { .. }
        | MdevError::NotSettled { .. }
        | MdevError::NotOnDisk { .. } => Failure::ran(error),
        _ => Failure::input(error),
    }
}

/// What is known of a fact: the value, or null.
fn known<T: Clone>(fact: &Fact<T>) -> Option<T> {
    fact.known().cloned()
}

/// A text of somebody else's in a line of ours.
fn shown(fact: &Fact<String>) -> String {
    match fact {
        Fact::Is(text) => printed(text),
        gap => gap.to_string(),
    }
}

/// A name of somebody else's, fit for a terminal.
fn printed(text: &str) -> String {
    text.chars().flat_map(char::escape_debug).collect()
}

/// That a parent is not there.
fn no_parent(parent: &str, there: &[Parent]) -> Failure {
    failed(MdevError::NoParent {
        parent: excerpt(parent),
        legal: there.iter().map(|parent| parent.name.clone()).collect(),
    })
}

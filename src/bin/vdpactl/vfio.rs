//! `vdpactl vfio`: PCI functions, and who has them.

mod bind;
mod command;
mod doctor;
mod list;

use std::path::Path;

use anyhow::anyhow;
use serde::Serialize;
use vdpa::core::ParentError;
use vdpa::vfio::sysfs::{self, Address, Fact, Host, Step, SysfsError};

use crate::failure::{Failure, Verdict};
use crate::output::Output;

pub(crate) use command::Vfio;
use command::{Command, VfCommand};

/// Does what the command line says.
pub(crate) fn run(options: Vfio, output: &mut Output) -> Result<Verdict, Failure> {
    is_directory("--root", &options.root)?;
    if let Some(state) = options.state.as_ref().filter(|state| state.exists()) {
        is_directory("--state", state)?;
    }
    let host = Host::new(&options.root);
    let records = options.state.unwrap_or_else(|| host.state());
    // Whoever only looks may look at anything.
    let binder = || bind::Binder::new(&host, &records);
    match options.command {
        Command::List { all } => list::run(&host, all, output),
        Command::Doctor { function } => {
            doctor::run(&host, &options.root, address(&function)?, output)
        }
        Command::Bind { function, how } => binder()?.bind(address(&function)?, how, output),
        Command::Unbind { function, how } => binder()?.unbind(address(&function)?, how, output),
        Command::Restore { functions, how } => {
            let functions: Result<Vec<Address>, Failure> =
                functions.iter().map(|function| address(function)).collect();
            binder()?.restore(functions?, how, output)
        }
        Command::Vf {
            command:
                VfCommand::Create {
                    function,
                    count,
                    how,
                },
        } => binder()?.virtual_functions(address(&function)?, count, how, output),
    }
}

fn is_directory(option: &str, path: &Path) -> Result<(), Failure> {
    let why = match path.metadata() {
        Ok(there) if there.is_dir() => return Ok(()),
        Ok(_) => "no directory".to_owned(),
        Err(error) => sysfs::said(&error),
    };
    let shown = path.display();
    Err(Failure::input(anyhow!(
        "{option} {shown}: {why}: name a directory"
    )))
}

fn address(text: &str) -> Result<Address, Failure> {
    text.parse().map_err(Failure::input)
}

/// What is wrong or impossible to ask for is bad input; what the system is in the way of is a failure.
fn failed(error: SysfsError) -> Failure {
    Failure::of(error.kind(), error)
}

/// What is known of a fact: the value, or null.
fn known<T: Clone>(fact: &Fact<T>) -> Option<T> {
    fact.known().cloned()
}

/// A write to a file of the kernel's.
#[derive(Serialize)]
struct Write {
    path: String,
    text: String,
}

fn writes(steps: &[Step]) -> Vec<Write> {
    let write = |step: &Step| Write {
        path: step.path.clone(),
        text: step.text.clone(),
    };
    steps.iter().map(write).collect()
}

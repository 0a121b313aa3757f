//! `vdpactl completions`: what the shell needs to complete command lines.

use clap::CommandFactory;
use clap_complete::Shell;
use serde::Serialize;

use crate::failure::{Failure, Verdict};
use crate::options::Options;
use crate::output::Output;

#[derive(Serialize)]
struct Completions {
    shell: String,
    script: String,
}

/// Prints the script for `shell`.
pub(crate) fn run(shell: Shell, output: &mut Output) -> Result<Verdict, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Options::command(), "vdpactl", &mut script);
    if output.is_json() {
        output.object(&Completions {
            shell: shell.to_string(),
            script: String::from_utf8(script)?,
        })?;
    } else {
        output.raw(&script)?;
    }
    Ok(Verdict::Well)
}

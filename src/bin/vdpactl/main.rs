//! `vdpactl`: looks at vDPA devices, and drives them.
//!
//! Exit codes: 0 all well; 1 it ran, and found a difference or a failure; 2 bad input, and nothing was done.
//! With `--json` one object goes to standard output (an object a line for `echo`, `serve` and `soak`), and all other text to standard error.

mod bench;
mod check;
mod completions;
mod demo;
mod dev;
mod disk;
mod echo;
mod exchange;
mod failure;
mod mdev;
mod measure;
mod mgmtdev;
mod number;
mod options;
mod output;
mod packets;
mod paint;
mod protocols;
mod replay;
mod serve;
mod shell;
mod signals;
mod soak;
mod told;
mod vfio;
mod words;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use crate::failure::{Failure, Verdict};
use crate::options::{Command, DevCommand, MgmtdevCommand, Options};
use crate::output::Output;

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(refusal) if refusal.kind() == ErrorKind::InvalidUtf8 => {
            Output::new(false).complain(&options::no_text(std::env::args_os().collect()));
            return ExitCode::from(2);
        }
        Err(refusal) => {
            // Nobody is left to tell when this cannot be printed.
            let _ = refusal.print();
            // Help and version are no refusals: clap says 0 for them, and 2 for the rest.
            return ExitCode::from(if refusal.use_stderr() { 2 } else { 0 });
        }
    };
    let mut output = Output::new(options.json);
    let done = told::listen(options.trace)
        .and_then(|()| run(options.command.unwrap_or(Command::Demo), &mut output))
        .and_then(|verdict| Ok(output.flush().map(|()| verdict)?));
    match done {
        Ok(verdict) => verdict.into(),
        Err(failure) => {
            output.complain(&failure.to_string());
            failure.into()
        }
    }
}

fn run(command: Command, output: &mut Output) -> Result<Verdict, Failure> {
    match command {
        Command::Demo => demo::run(output),
        Command::Mgmtdev {
            command: MgmtdevCommand::Show,
        } => mgmtdev::show(output),
        Command::Dev {
            command: DevCommand::Show { spec },
        } => dev::show(&spec, output),
        Command::Replay(options) => replay::run(&options, output),
        Command::Bench(options) => bench::run(&options, output),
        Command::Check(options) => check::run(&options, output),
        Command::Echo(options) => echo::run(&options, output),
        Command::Soak(options) => soak::run(&options, output),
        Command::Serve(options) => serve::run(&options, output),
        Command::Vfio(options) => vfio::run(options, output),
        Command::Mdev(options) => mdev::run(options, output),
        Command::Completions { shell } => completions::run(shell, output),
    }
}

//! `vdpactl check`: holds a device to the virtio specification, statement by statement.

mod junit;
mod table;
mod tap;
mod whole;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::sync::Arc;

use anyhow::{Context, anyhow};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use vdpa::DeviceSpec;
use vdpa_conformance::{Effort, Progress, Report, Selection, Target, catalogue, run_watched};

use self::whole::Whole;
use crate::failure::{Failure, Verdict};
use crate::options::{Check, CheckEffort};
use crate::output::Output;
use crate::shell::quoted;

#[derive(Serialize)]
struct Object<'r> {
    spec: &'r str,
    effort: &'static str,
    passed: usize,
    failed: usize,
    skipped: usize,
    excepted: usize,
    /// Whole ones, rounded up.
    seconds: u64,
    statements: Vec<Statement<'r>>,
}

#[derive(Serialize)]
struct Statement<'r> {
    id: u16,
    clause: String,
    variant: String,
    result: &'static str,
    reason: &'r str,
}

/// Judges, and prints the judgement.
pub(crate) fn run(options: &Check, output: &mut Output) -> Result<Verdict, Failure> {
    if options.tap && output.is_json() {
        let both = anyhow!("--tap and --json both fill standard output: leave one out");
        return Err(Failure::input(both));
    }
    exceptions(options)?;
    let target = target(options)?;
    let selection = Selection {
        effort: match options.effort {
            CheckEffort::Quick => Effort::Quick,
            CheckEffort::Full => Effort::Full,
        },
        only: options.only.clone(),
        fail_fast: options.fail_fast,
        patience: None,
    };
    // Before the work is done: it would be lost.
    let junit = match &options.junit {
        Some(path) => {
            let file = Whole::at(path).with_context(|| format!("{}", path.display()));
            Some((path, file.map_err(Failure::input)?))
        }
        None => None,
    };
    let bar = progress();
    let report = run_watched(&target, &selection, &mut |progress| {
        advance(&bar, &progress)
    });
    bar.finish_and_clear();

    output.object(&object(&report))?;
    match options.tap {
        true => output.raw(tap::render(&report).as_bytes())?,
        false => table::tell(&report, options, output)?,
    }
    if let Some((path, file)) = junit {
        let written = file.write(&junit::render(&report)?);
        written.with_context(|| format!("{}", path.display()))?;
    }
    Ok(Verdict::well_if(report.failed() == 0))
}

/// What is said of one statement twice, or of one that is not tried, is not meant so.
fn exceptions(options: &Check) -> Result<(), Failure> {
    let mut known = BTreeSet::new();
    for (id, _) in &options.except {
        if !known.insert(id) {
            let twice = anyhow!("--except names statement {id} twice: once is enough");
            return Err(Failure::input(twice));
        }
        if let Some(only) = options.only.as_ref().filter(|only| !only.contains(*id)) {
            return Err(Failure::input(anyhow!(
                "--except names statement {id}, which is not tried: --only names {only}"
            )));
        }
    }
    Ok(())
}

/// The command line that tries a statement again, in the same ring variants.
fn again(options: &Check, id: u16) -> String {
    let mut line = format!("vdpactl check {} --only {id}", quoted(&options.spec));
    if let CheckEffort::Quick = options.effort {
        line.push_str(" --effort quick");
    }
    for (excepted, reason) in &options.except {
        if *excepted == id {
            line.push_str(" --except ");
            line.push_str(&quoted(&format!("{id}={reason}")));
        }
    }
    line
}

/// The device that is named, once it was seen that there is one.
fn target(options: &Check) -> Result<Target, Failure> {
    let parents = Arc::new(vdpa::Parents::new());
    let mut target = Target::named(&parents.registry, &options.spec).map_err(Failure::input)?;
    drop(target.make().map_err(Failure::input)?);
    let spec = DeviceSpec::parse(&options.spec).map_err(Failure::input)?;
    // What is no function by its string is none the next time either.
    if let Some(Ok(function)) = parents.function(&spec) {
        if parents.member(&spec, function.name(), 1).is_some() {
            let (parents, spec) = (Arc::clone(&parents), spec.clone());
            target = target.with_members(move |owner, number| {
                let member = parents.member(&spec, owner, number);
                member.unwrap_or(Err(vdpa::Error::Gone))
            });
        }
        drop(function);
        target = target.with_function(move || {
            let function = parents.function(&spec);
            function.unwrap_or(Err(vdpa::Error::Gone))
        });
    }
    for (id, reason) in &options.except {
        target = target.except(*id, reason);
    }
    Ok(target)
}

fn object(report: &Report) -> Object<'_> {
    let statements = report.rows.iter().map(|row| Statement {
        id: row.statement.id,
        clause: row.statement.citation(),
        variant: row.variant_name(),
        result: row.outcome.word(),
        reason: row.outcome.reason(),
    });
    Object {
        spec: &report.target,
        effort: effort(report),
        passed: report.passed(),
        failed: report.failed(),
        skipped: report.skipped(),
        excepted: report.excepted(),
        seconds: report.elapsed.as_millis().div_ceil(1000) as u64,
        statements: statements.collect(),
    }
}

fn effort(report: &Report) -> &'static str {
    match report.effort {
        Effort::Quick => "quick",
        Effort::Full => "full",
    }
}

/// A bar on standard error, if that is a terminal.
fn progress() -> ProgressBar {
    const TEMPLATE: &str = "{bar:40.cyan/dim} {pos:>3}/{len}  {wide_msg}";

    let bar = ProgressBar::new(catalogue().len() as u64);
    if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
        bar.set_style(style.progress_chars("━╸━"));
    }
    bar
}

/// Failures are told as they come, to a terminal and to a log alike.
fn advance(bar: &ProgressBar, progress: &Progress<'_>) {
    bar.set_length(progress.of as u64);
    bar.set_position(progress.done as u64);
    if let Some(row) = progress.rows.last() {
        bar.set_message(row.statement.text);
    }
    for row in progress.rows.iter().filter(|row| row.is_failure()) {
        match bar.is_hidden() {
            // When it cannot be written to, there is nobody left to tell.
            true => {
                let _gone = writeln!(io::stderr(), "{row}");
            }
            false => bar.println(row.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::options::{Command, Options};

    #[test]
    fn what_is_tried_again_is_what_was_tried() {
        let line = [
            "vdpactl",
            "check",
            "mdev:slice,of=sim:net;mtu=1400",
            "--effort=quick",
            "--except=85=known bug 42",
            "--except=86=another",
        ];
        let Some(Command::Check(options)) = Options::try_parse_from(line).unwrap().command else {
            panic!("{line:?} is another command");
        };
        assert_eq!(
            again(&options, 85),
            "vdpactl check 'mdev:slice,of=sim:net;mtu=1400' --only 85 --effort quick --except '85=known bug 42'"
        );
        assert_eq!(
            again(&options, 1),
            "vdpactl check 'mdev:slice,of=sim:net;mtu=1400' --only 1 --effort quick"
        );
    }
}

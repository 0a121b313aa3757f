//! The judgement for people: a table by chapter, what failed, and why what was skipped was.

use std::collections::BTreeMap;
use std::io;

use vdpa_conformance::{Chapter, Ids, Outcome, Report, Row};

use crate::number::duration;
use crate::options::Check;
use crate::output::Output;

/// Characters of the longest heading.
const WIDTH: usize = 34;

pub(super) fn tell(report: &Report, options: &Check, output: &mut Output) -> io::Result<()> {
    let paint = output.paint();
    let head = format!(
        "{:<WIDTH$}{:>8}{:>8}{:>9}{:>10}",
        "", "passed", "failed", "skipped", "excepted"
    );
    output.say(&paint.faint(head))?;
    for &chapter in Chapter::ALL {
        let of = |row: &&Row| row.statement.chapter == chapter;
        let rows: Vec<&Row> = report.rows.iter().filter(of).collect();
        if rows.is_empty() {
            continue;
        }
        let count = |word| rows.iter().filter(|row| row.outcome.word() == word).count();
        let failed = count("failed");
        let line = format!(
            "{:<WIDTH$}{:>8}{}{:>9}{:>10}",
            chapter.title(),
            count("passed"),
            match failed {
                0 => format!("{failed:>8}"),
                _ => paint.bad(format!("{failed:>8}")),
            },
            count("skipped"),
            count("excepted"),
        );
        output.say(&line)?;
    }
    for row in report.failures() {
        failure(options, row, output)?;
    }
    excepted(report, output)?;
    skipped(report, output)?;
    let well = report.failed() == 0;
    let nanoseconds = u64::try_from(report.elapsed.as_nanos()).unwrap_or(u64::MAX);
    let sum = format!(
        "{} passed, {} failed, {} skipped, {} excepted",
        report.passed(),
        report.failed(),
        report.skipped(),
        report.excepted()
    );
    output.say("")?;
    output.say(&format!(
        "{} {}  {}",
        paint.name(&report.target),
        paint.verdict(well, sum),
        paint.faint(format!(
            "{} effort, {}",
            super::effort(report),
            duration(nanoseconds)
        ))
    ))
}

fn failure(options: &Check, row: &Row, output: &mut Output) -> io::Result<()> {
    let paint = output.paint();
    let statement = row.statement;
    output.say("")?;
    output.say(&format!(
        "{} {} {}{}",
        paint.bad("FAILED"),
        paint.name(statement.id),
        paint.heading(statement.text),
        match row.variant {
            Some(variant) => format!(" [{variant}]"),
            None => String::new(),
        }
    ))?;
    output.say(&format!("  seen   {}", row.outcome.reason()))?;
    output.say(&format!(
        "  asks   {}, {:?} rule",
        statement.citation(),
        statement.kind
    ))?;
    output.say(&format!("  again  {}", super::again(options, statement.id)))
}

fn excepted(report: &Report, output: &mut Output) -> io::Result<()> {
    for row in &report.rows {
        if let Outcome::Excepted { seen, reason } = &row.outcome {
            let id = row.statement.id;
            output.say("")?;
            output.say(&format!("excepted {id}: {reason}\n  seen   {seen}"))?;
        }
    }
    Ok(())
}

/// Each reason once, with the statements.
fn skipped(report: &Report, output: &mut Output) -> io::Result<()> {
    let mut reasons: BTreeMap<&str, Vec<u16>> = BTreeMap::new();
    for row in &report.rows {
        if let Outcome::Skipped { reason } = &row.outcome {
            let ids = reasons.entry(reason).or_default();
            if ids.last() != Some(&row.statement.id) {
                ids.push(row.statement.id);
            }
        }
    }
    let paint = output.paint();
    if !reasons.is_empty() {
        output.say("")?;
    }
    for (reason, ids) in reasons {
        let ids: Ids = ids.into_iter().collect();
        output.say(&paint.faint(format!("skipped {ids}: {reason}")))?;
    }
    Ok(())
}

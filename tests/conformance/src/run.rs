//! Goes through the catalogue.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use vdpa_core::DeviceType;

use crate::statement::Check;
use crate::{
    Bench, Chapter, Checked, Effort, Outcome, Report, Row, Selection, Statement, Stop, Target,
    Variant, catalogue,
};

/// Why what comes after a failure is skipped, where that was asked for.
const OVER: &str = "not tried after a failure";

/// How far a run is.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'r> {
    /// Statements that are done.
    pub done: usize,
    /// Statements that were selected.
    pub of: usize,
    /// The rows that the last one brought.
    pub rows: &'r [Row],
}

/// Holds the target's devices to the statements selected.
pub fn run(target: &Target, selection: &Selection) -> Report {
    run_watched(target, selection, &mut |_| {})
}

/// The same, and tells `watch` after each statement.
pub fn run_watched(
    target: &Target,
    selection: &Selection,
    watch: &mut dyn FnMut(Progress<'_>),
) -> Report {
    let begun = Instant::now();
    let bench = Bench::new(target, selection);
    bench.prepare();
    let selected: Vec<_> = catalogue()
        .iter()
        .filter(|statement| selection.contains(statement.id))
        .collect();
    let mut rows = Vec::new();
    for (at, statement) in selected.iter().enumerate() {
        let from = rows.len();
        let over = selection.fail_fast && rows.iter().any(Row::is_failure);
        rows.extend(match over {
            true => vec![row(statement, None, || Err(Stop::skipped(OVER)))],
            false => judge(statement, &bench, target, selection),
        });
        bench.begin(!rows[from..].iter().any(Row::is_failure));
        watch(Progress {
            done: at + 1,
            of: selected.len(),
            rows: &rows[from..],
        });
    }
    Report {
        target: target.name().to_owned(),
        effort: selection.effort,
        rows,
        elapsed: begun.elapsed(),
    }
}

/// All rows of a statement.
fn judge(
    statement: &'static Statement,
    bench: &Bench<'_>,
    target: &Target,
    selection: &Selection,
) -> Vec<Row> {
    // Feature bits of one type of device mean something else on another, so that the type is asked for first.
    let applies = match statement.chapter {
        Chapter::Net => bench.require_type(DeviceType::Net),
        Chapter::Block => bench.require_type(DeviceType::Block),
        _ => Ok(()),
    };
    let mut rows = match statement.check {
        _ if applies.is_err() => vec![row(statement, None, || applies)],
        Check::Once(check) => vec![row(statement, None, || check(bench))],
        Check::Rings(fits, check) => rings(statement, bench, fits, check, selection.fail_fast),
    };
    let known = target.exceptions().iter().find(|e| e.id == statement.id);
    if let Some(known) = known {
        except(statement, &known.reason, &mut rows);
    }
    rows
}

fn rings(
    statement: &'static Statement,
    bench: &Bench<'_>,
    fits: fn(&Variant) -> bool,
    check: fn(&Bench<'_>, Variant) -> Checked,
    fail_fast: bool,
) -> Vec<Row> {
    let offered = match bench.offered() {
        Ok(offered) => offered,
        Err(stop) => return vec![row(statement, None, || Err(stop))],
    };
    let (mut there, mut lacking) = (Vec::new(), None);
    for variant in Variant::all().filter(fits) {
        match variant.lacks(offered) {
            None => there.push(variant),
            Some(bit) => lacking = lacking.or(Some(bit)),
        }
    }
    if let Some(bit) = lacking.filter(|_| there.is_empty()) {
        let name = bit.display(bench.device_type());
        let reason = format!("{name} is not offered");
        return vec![row(statement, None, || Err(Stop::skipped(reason)))];
    }
    if bench.effort() == Effort::Quick {
        // Each statement once; neighbours take different variants, so that all come to pass.
        let one = usize::from(statement.id) % there.len().max(1);
        there = there.get(one).copied().into_iter().collect();
    }
    let mut rows = Vec::new();
    for variant in there {
        let over = fail_fast && rows.iter().any(Row::is_failure);
        rows.push(row(statement, Some(variant), || match over {
            true => Err(Stop::skipped(OVER)),
            false => check(bench, variant),
        }));
    }
    rows
}

fn row(
    statement: &'static Statement,
    variant: Option<Variant>,
    check: impl FnOnce() -> Checked,
) -> Row {
    let begun = Instant::now();
    let ended = catch_unwind(AssertUnwindSafe(check));
    let outcome = match ended {
        Ok(Ok(())) => Outcome::Passed,
        Ok(Err(Stop::Failed(seen))) => Outcome::Failed { seen },
        Ok(Err(Stop::Skipped(reason))) => Outcome::Skipped { reason },
        Err(_) => Outcome::Failed {
            seen: "a panic, which the panic hook has told of".to_owned(),
        },
    };
    Row {
        statement,
        variant,
        outcome,
        elapsed: begun.elapsed(),
    }
}

/// A failure that was known is none, and a known failure that does not come is one.
fn except(statement: &'static Statement, reason: &str, rows: &mut Vec<Row>) {
    let mut came = false;
    for row in rows.iter_mut() {
        if let Outcome::Failed { seen } = &mut row.outcome {
            came = true;
            row.outcome = Outcome::Excepted {
                seen: std::mem::take(seen),
                reason: reason.to_owned(),
            };
        }
    }
    let skipped = |row: &Row| matches!(row.outcome, Outcome::Skipped { .. });
    if !came {
        let seen = match rows.iter().all(skipped) {
            true => format!("it is listed as a known exception ({reason}), and does not apply"),
            false => format!("it is listed as a known exception ({reason}), and is kept"),
        };
        rows.push(row(statement, None, || Err(Stop::failed(seen))));
    }
}

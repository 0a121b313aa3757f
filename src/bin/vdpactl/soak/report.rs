//! What a soak tells: how far it is, what came of it, and what went wrong first.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::ledger::Counts;
use super::operation::Operation;
use crate::failure::{Failure, Verdict};
use crate::number::{count, grouped, rate};
use crate::output::Output;

/// How often progress is told.
const TELL: Duration = Duration::from_secs(1);

/// What is soaked, and how.
#[derive(Clone, Serialize)]
pub(crate) struct Task {
    pub(crate) spec: String,
    pub(crate) seed: u64,
    pub(crate) every: u64,
    /// What stands in the plan: the same number is the same plan.
    pub(crate) plan: u32,
    /// Packets, or requests, that there are to be.
    pub(crate) planned: u64,
    /// The operations that the device can take.
    pub(crate) operations: Vec<&'static str>,
    /// The others, with the reason.
    pub(crate) left_out: BTreeMap<&'static str, String>,
    /// The command line that does the same again.
    pub(crate) repeat: String,
    /// `packets` or `requests`.
    #[serde(skip)]
    pub(crate) unit: &'static str,
}

/// How far it is.
#[derive(Clone, Copy, Default, Serialize)]
pub(crate) struct Tally {
    pub(crate) packets: u64,
    pub(crate) received: u64,
    pub(crate) interruptions: u64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) altered: u64,
    pub(crate) dropped_by_definition: u64,
}

#[derive(Serialize)]
struct Event<'a, T> {
    event: &'static str,
    #[serde(flatten)]
    body: &'a T,
}

#[derive(Serialize)]
struct Result<'a> {
    #[serde(flatten)]
    tally: Tally,
    phases: u64,
    /// Interruptions by operation.
    operations: BTreeMap<&'static str, u64>,
    left_out: &'a BTreeMap<&'static str, String>,
    spec: &'a str,
    seed: u64,
    every: u64,
    plan: u32,
    seconds: f64,
    /// What went wrong first.
    failure: Option<&'a str>,
    repeat: &'a str,
}

/// What tells of a soak while it goes on, and keeps what it counts.
pub(crate) struct Report<'o> {
    output: &'o mut Output,
    task: Task,
    pub(crate) tally: Tally,
    phases: u64,
    operations: BTreeMap<&'static str, u64>,
    began: Instant,
    told: Instant,
    bar: ProgressBar,
}

impl<'o> Report<'o> {
    /// Says what is about to be done.
    pub(crate) fn begin(output: &'o mut Output, task: Task) -> std::io::Result<Self> {
        let event = "plan";
        output.object(&Event { event, body: &task })?;
        let paint = output.paint();
        let mut rows = vec![
            ("device", task.spec.clone()),
            ("seed", task.seed.to_string()),
            ("interrupts", task.operations.join(" ")),
        ];
        let left_out = task.left_out.iter();
        rows.extend(left_out.map(|(name, why)| ("left out", format!("{name}: {why}"))));
        for (name, value) in rows {
            output.say(&format!("{} {value}", paint.name(format!("{name:<11}"))))?;
        }
        output.flush()?;
        let bar = ProgressBar::new(task.planned);
        let template = "{bar:40.cyan/dim} {percent:>3}%  {msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("━╸━"));
        }
        Ok(Self {
            output,
            task,
            tally: Tally::default(),
            phases: 0,
            operations: BTreeMap::new(),
            began: Instant::now(),
            told: Instant::now(),
            bar,
        })
    }

    /// A phase is over.
    pub(crate) fn phase_done(&mut self) {
        self.phases += 1;
    }

    /// An interruption is over.
    pub(crate) fn interrupted(&mut self, by: Operation) {
        self.tally.interruptions += 1;
        *self.operations.entry(by.name()).or_default() += 1;
    }

    /// So much was counted by now. Told now and then.
    pub(crate) fn counted(&mut self, counts: Counts) -> std::io::Result<()> {
        let interruptions = self.tally.interruptions;
        self.tally = Tally {
            packets: counts.sent,
            received: counts.received,
            interruptions,
            lost: counts.lost,
            duplicated: counts.duplicated,
            altered: counts.altered,
            dropped_by_definition: counts.dropped,
        };
        if self.told.elapsed() < TELL {
            return Ok(());
        }
        self.told = Instant::now();
        self.bar.set_position(counts.sent);
        let (number, unit) = (grouped(counts.sent), self.task.unit);
        self.bar.set_message(format!(
            "{number} {unit}, {}",
            count(interruptions, "interruption")
        ));
        let event = "progress";
        let body = &self.tally;
        self.output.object(&Event { event, body })?;
        self.output.flush()
    }

    /// Says what came of it. `failure`: what went wrong first.
    pub(crate) fn end(self, failure: Option<&str>) -> std::result::Result<Verdict, Failure> {
        self.bar.finish_and_clear();
        let Self {
            output,
            task,
            tally,
            phases,
            operations,
            began,
            ..
        } = self;
        let seconds = (began.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
        let Tally {
            packets,
            interruptions,
            lost,
            duplicated,
            altered,
            dropped_by_definition,
            ..
        } = tally;
        let event = "result";
        let body = &Result {
            tally,
            phases,
            operations,
            left_out: &task.left_out,
            spec: &task.spec,
            seed: task.seed,
            every: task.every,
            plan: task.plan,
            seconds,
            failure,
            repeat: &task.repeat,
        };
        output.object(&Event { event, body })?;
        let well = failure.is_none() && lost + duplicated + altered == 0;
        let (paint, unit) = (output.paint(), task.unit);
        let rows = [
            (unit, grouped(packets)),
            (
                "interrupted",
                format!("{} times in {phases} phases", grouped(interruptions)),
            ),
            (
                "differences",
                paint.verdict(
                    well,
                    format!("{lost} lost, {duplicated} duplicated, {altered} altered"),
                ),
            ),
            (
                "dropped",
                format!("{} by definition", grouped(dropped_by_definition)),
            ),
            (
                "time",
                format!(
                    "{seconds:.1} s  ({}/s)",
                    rate(packets as f64 / seconds.max(0.001))
                ),
            ),
        ];
        for (name, value) in rows {
            output.say(&format!("{} {value}", paint.name(format!("{name:<11}"))))?;
        }
        if !well {
            let what = failure.unwrap_or("packets differ");
            output.complain(&format!(
                "{}: {what}\nrepeat it with: {}",
                task.spec, task.repeat
            ));
        }
        Ok(Verdict::well_if(well))
    }
}

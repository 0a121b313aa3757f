//! Rows measured in turn, round after round (A B C, C B A, ...), so that a slow spell of the machine hits them all,
//! and compared only within a round.

use std::io::Write as _;
use std::time::Duration;

use super::{Run, allocations, wrong};

/// What one row did in its slice of a round.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Nanoseconds it took.
    pub ns: f64,
    /// Packets, requests or messages that went through.
    pub packets: u64,
    /// Allocations meanwhile; `None`: all that the row made.
    pub allocations: Option<u64>,
}

impl Measured {
    /// `packets` in `ns`, in a row that sets nothing up.
    pub fn new(ns: f64, packets: u64) -> Self {
        Self {
            ns,
            packets,
            allocations: None,
        }
    }
}

/// Whose code a row measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Ours: it must not allocate.
    Ours,
    /// Another crate's, or a reference.
    Peer,
}

type Work<'a> = Box<dyn FnMut(Duration) -> Measured + 'a>;

struct Row<'a> {
    name: String,
    whose: Whose,
    work: Work<'a>,
    ns: Vec<f64>,
    allocations: u64,
    packets: u64,
}

/// A claim about a row against a peer's, printed with whether it held.
struct Goal {
    row: String,
    against: String,
    ratio: f64,
}

/// One table: rows that answer one question.
pub struct Contest<'a> {
    title: String,
    unit: &'static str,
    rows: Vec<Row<'a>>,
    against: Vec<String>,
    goals: Vec<Goal>,
}

impl<'a> Contest<'a> {
    /// An empty table; `unit` is what is counted, in the singular.
    pub fn new(title: impl Into<String>, unit: &'static str) -> Self {
        Self {
            title: title.into(),
            unit,
            rows: Vec::new(),
            against: Vec::new(),
            goals: Vec::new(),
        }
    }

    /// Adds a row. `work` goes on for about the time it is given.
    pub fn row(
        &mut self,
        whose: Whose,
        name: impl Into<String>,
        work: impl FnMut(Duration) -> Measured + 'a,
    ) {
        self.rows.push(Row {
            name: name.into(),
            whose,
            work: Box::new(work),
            ns: Vec::new(),
            allocations: 0,
            packets: 0,
        });
    }

    /// Prints a column of ratios: how many times faster than row `name` each row is.
    pub fn against(&mut self, name: &str) {
        self.against.push(name.into());
    }

    /// States a target: row `row` is `ratio` times as fast as row `against`, or more.
    pub fn goal(&mut self, row: &str, against: &str, ratio: f64) {
        self.goals.push(Goal {
            row: row.into(),
            against: against.into(),
            ratio,
        });
    }

    /// Measures all rows and prints the table.
    pub fn run(mut self, run: &Run) {
        // Caches, branch predictors, page tables; and the last allocation of a row that makes any at its start.
        for row in &mut self.rows {
            (row.work)(run.slice);
        }
        let rows = self.rows.len();
        for row in &mut self.rows {
            row.ns.reserve(run.rounds);
        }
        for round in 0..run.rounds {
            for turn in 0..rows {
                let at = if round % 2 == 0 {
                    turn
                } else {
                    rows - 1 - turn
                };
                let row = &mut self.rows[at];
                let before = allocations::count();
                let measured = (row.work)(run.slice);
                let all = allocations::count() - before;
                row.allocations += measured.allocations.unwrap_or(all);
                row.packets += measured.packets;
                row.ns.push(measured.ns / measured.packets as f64);
            }
        }
        self.print();
        if let Some(file) = &run.json {
            let appended = self.append(file);
            appended.unwrap_or_else(|e| wrong(&format!("{}: {e}", file.display())));
        }
        for row in &self.rows {
            if row.whose == Whose::Ours && row.allocations != 0 {
                wrong(&format!(
                    "'{}' made {} allocations in {} {}s: there must be none",
                    row.name, row.allocations, row.packets, self.unit
                ));
            }
        }
    }

    fn find(&self, name: &str) -> &Row<'a> {
        let row = self.rows.iter().find(|row| row.name == name);
        row.unwrap_or_else(|| wrong(&format!("no row is named '{name}'")))
    }

    /// How many times faster than `base` a row is, in each round.
    fn ratios(&self, row: &Row<'a>, base: &str) -> Spread {
        let base = self.find(base);
        Spread::of(base.ns.iter().zip(&row.ns).map(|(b, r)| b / r))
    }

    fn print(&self) {
        println!("\n{}", self.title);
        let width = self.rows.iter().map(|r| r.name.len()).max().unwrap_or(0);
        print!(
            "  {:width$}  {:>21}  {:>6}",
            "",
            format!("ns/{} (min..max)", self.unit),
            "M/s"
        );
        for base in &self.against {
            print!("  {:>22}", format!("x {base}"));
        }
        println!("  {:>12}", "allocations");
        for row in &self.rows {
            let ns = Spread::of(row.ns.iter().copied());
            print!(
                "  {:width$}  {:>7.2} {:>13}  {:>6.1}",
                row.name,
                ns.median,
                format!("({:.1}..{:.1})", ns.min, ns.max),
                1e3 / ns.median
            );
            for base in &self.against {
                let r = self.ratios(row, base);
                let text = format!("{:.2} ({:.2}..{:.2})", r.median, r.min, r.max);
                print!("  {text:>22}");
            }
            let each = row.allocations as f64 / row.packets as f64;
            match row.allocations {
                0 => println!("  {:>12}", "0"),
                _ => println!("  {each:>12.2}"),
            }
        }
        for goal in &self.goals {
            let ratio = self.ratios(self.find(&goal.row), &goal.against).median;
            let verdict = match ratio >= goal.ratio {
                true => "met".to_string(),
                false => format!("missed by {:.0} %", (1.0 - ratio / goal.ratio) * 100.0),
            };
            println!(
                "  target: {} >= {:.2} x {}: {ratio:.2}, {verdict}",
                goal.row, goal.ratio, goal.against
            );
        }
        if self
            .rows
            .iter()
            .any(|r| r.whose == Whose::Ours && r.allocations == 0)
        {
            println!("  allocations per {} in ours: 0", self.unit);
        }
    }

    /// One JSON line a row.
    fn append(&self, file: &std::path::Path) -> std::io::Result<()> {
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(file)?;
        for row in &self.rows {
            let ns = Spread::of(row.ns.iter().copied());
            let ratios: serde_json::Map<_, _> = self
                .against
                .iter()
                .map(|base| (base.clone(), self.ratios(row, base).json()))
                .collect();
            let line = serde_json::json!({
                "table": self.title,
                "row": row.name,
                "unit": self.unit,
                "ns": ns.json(),
                "times_faster_than": ratios,
                "allocations": row.allocations,
                "verified": row.packets,
            });
            writeln!(file, "{line}")?;
        }
        Ok(())
    }
}

/// Smallest, middle and largest of some numbers.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    min: f64,
    median: f64,
    max: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        match (values.first(), values.get(values.len() / 2), values.last()) {
            (Some(&min), Some(&median), Some(&max)) => Self { min, median, max },
            _ => wrong("nothing was measured"),
        }
    }

    fn json(&self) -> serde_json::Value {
        serde_json::json!({ "min": self.min, "median": self.median, "max": self.max })
    }
}

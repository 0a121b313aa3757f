//! The command line.

use std::path::PathBuf;
use std::time::Duration;

/// What to measure, for how long, and where to write it down.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// Rounds of each table: every peer is measured once in each.
    pub(crate) rounds: usize,
    /// Time given to a peer in a round.
    pub(crate) slice: Duration,
    /// A file to append one JSON line a row to.
    pub(crate) json: Option<PathBuf>,
    /// The tables wanted; none: all.
    only: Vec<String>,
    /// What the name of a row has to have in it.
    rows: String,
}

/// The tables there are.
const TABLES: [&str; 2] = ["net", "latency"];

impl Run {
    /// From the command line. `None`: this is `cargo test --benches`, where nothing is measured.
    pub(crate) fn from_args() -> Option<Self> {
        let mut run = Self {
            rounds: 5,
            slice: Duration::from_secs(3),
            json: None,
            only: Vec::new(),
            rows: String::new(),
        };
        let mut bench = false;
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || {
                args.next()
                    .unwrap_or_else(|| refuse(&format!("{arg} needs a value")))
            };
            match arg.as_str() {
                // What cargo passes from `cargo bench`, and does not from `cargo test --benches`.
                "--bench" => bench = true,
                "--rounds" => run.rounds = number(&arg, &value()).max(1.0) as usize,
                "--seconds" => run.slice = seconds(&value()),
                "--json" => run.json = Some(value().into()),
                "--rows" => run.rows = value(),
                "--only" => run.only = tables(&value()),
                other => refuse(&format!(
                    "unknown argument '{other}'; there are --rounds N, --seconds S, --json FILE, \
                     --rows TEXT (those whose name has it) and --only {}",
                    TABLES.join("+")
                )),
            }
        }
        bench.then_some(run)
    }

    /// Whether a table is wanted.
    pub(crate) fn wants(&self, table: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == table)
    }

    /// Whether a row is wanted.
    pub(crate) fn wants_row(&self, name: &str) -> bool {
        name.contains(&self.rows)
    }
}

fn number(arg: &str, value: &str) -> f64 {
    match value.parse() {
        Ok(number) if (0.0..1e6).contains(&number) => number,
        _ => refuse(&format!("{arg} {value}: not a number from 0 to 999999")),
    }
}

fn seconds(value: &str) -> Duration {
    let seconds = number("--seconds", value);
    if seconds < 0.1 {
        refuse(&format!("--seconds {value}: at least 0.1"));
    }
    Duration::from_secs_f64(seconds)
}

fn tables(value: &str) -> Vec<String> {
    let wanted: Vec<String> = value.split('+').map(str::to_owned).collect();
    if let Some(unknown) = wanted
        .iter()
        .find(|table| !TABLES.contains(&table.as_str()))
    {
        refuse(&format!(
            "--only {unknown}: there are {}",
            TABLES.join(", ")
        ));
    }
    wanted
}

fn refuse(why: &str) -> ! {
    eprintln!("error: {why}");
    std::process::exit(2)
}

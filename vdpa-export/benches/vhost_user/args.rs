//! The command line.

use std::path::PathBuf;
use std::time::Duration;

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) enum Asked {
    /// Nothing: this is `cargo test --benches`.
    Nothing,
    /// To measure.
    Measure(Run),
    /// To draw what was measured before.
    Draw {
        /// Rows.
        from: PathBuf,
        /// The picture.
        to: PathBuf,
    },
}

/// What to measure, for how long, and where to write it down.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// Rounds of each table: every peer is measured once in each.
    pub(crate) rounds: usize,
    /// Time given to a peer in a round.
    pub(crate) slice: Duration,
    /// A file to append one JSON line a row to.
    pub(crate) json: Option<PathBuf>,
    /// A file to draw the rows into.
    pub(crate) plot: Option<PathBuf>,
    /// The tables wanted; none: all.
    only: Vec<String>,
    /// One of these the name of a row has to have in it; none: all rows.
    rows: Vec<String>,
}

/// The tables there are.
const TABLES: [&str; 4] = ["net", "mirror", "block", "latency"];

/// What `--test` measures, for as short as can be: a row or two of each table.
const SMOKE: [&str; 4] = [
    "packed mrg, 64 bytes",
    "packed, 64 bytes",
    "split, depth 8",
    "polls",
];

impl Asked {
    /// From the command line.
    ///
    /// # Errors
    /// One line that says which argument is wrong.
    pub(crate) fn from_args(args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut run = Run {
            rounds: 5,
            slice: Duration::from_secs(3),
            json: None,
            plot: None,
            only: Vec::new(),
            rows: Vec::new(),
        };
        let (mut bench, mut smoke, mut draw) = (false, false, None);
        let mut args = args.peekable();
        while let Some(arg) = args.next() {
            let mut value = |what: &str| {
                // What begins so is the next argument, and no value.
                args.next_if(|next| !next.starts_with("--"))
                    .ok_or_else(|| format!("{arg} needs {what}"))
            };
            match arg.as_str() {
                // What cargo passes from `cargo bench`, and does not from `cargo test --benches`.
                "--bench" => bench = true,
                "--test" => smoke = true,
                "--rounds" => run.rounds = rounds(&value("a number")?)?,
                "--seconds" => run.slice = seconds(&value("a number")?)?,
                "--json" => run.json = Some(value("a file")?.into()),
                "--plot" => run.plot = Some(value("a file")?.into()),
                "--plot-from" => {
                    draw = Some((
                        value("a file of --json's")?,
                        value("a second file, to draw to")?,
                    ));
                }
                "--rows" => run.rows = vec![value("a part of a row's name")?],
                "--only" => run.only = tables(&value("tables")?)?,
                other => {
                    return Err(format!(
                        "unknown argument '{other}'; there are --rounds N, --seconds S, --json FILE, --plot FILE.svg, \
                         --plot-from FILE FILE.svg, --rows TEXT (those whose name has it), --only {} and --test",
                        TABLES.join("+")
                    ));
                }
            }
        }
        if let Some((from, to)) = draw {
            return Ok(Self::Draw {
                from: from.into(),
                to: to.into(),
            });
        }
        if smoke {
            (run.rounds, run.slice) = (1, Duration::from_millis(100));
            run.rows = SMOKE.map(str::to_owned).to_vec();
        }
        Ok(match bench || smoke {
            true => Self::Measure(run),
            false => Self::Nothing,
        })
    }
}

impl Run {
    /// Whether a table is wanted.
    pub(crate) fn wants(&self, table: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == table)
    }

    /// Whether a row is wanted.
    pub(crate) fn wants_row(&self, name: &str) -> bool {
        self.rows.is_empty() || self.rows.iter().any(|part| name.contains(part))
    }
}

fn rounds(value: &str) -> Result<usize, String> {
    let number = value
        .parse()
        .ok()
        .filter(|number| (1..=1000).contains(number));
    number.ok_or_else(|| format!("--rounds {value}: not a whole number from 1 to 1000"))
}

fn seconds(value: &str) -> Result<Duration, String> {
    let number = value
        .parse()
        .ok()
        .filter(|number| (0.1..=3600.0).contains(number));
    let number =
        number.ok_or_else(|| format!("--seconds {value}: not a number from 0.1 to 3600"))?;
    Ok(Duration::from_secs_f64(number))
}

fn tables(value: &str) -> Result<Vec<String>, String> {
    let wanted: Vec<String> = value.split(['+', ',']).map(str::to_owned).collect();
    let known = |table: &String| TABLES.contains(&table.as_str());
    match wanted.iter().find(|table| !known(table)) {
        Some(unknown) => Err(format!("--only {unknown}: there are {}", TABLES.join(", "))),
        None => Ok(wanted),
    }
}

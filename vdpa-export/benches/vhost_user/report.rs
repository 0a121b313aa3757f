//! Rows: what is printed, and written down.

use std::fs::File;
use std::io::Write as _;

use serde_json::{Map, Value, json};

use super::args::Run;
use super::{pages, plot};

/// What one peer did in one round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Packets or requests.
    pub(crate) count: u64,
    /// In so many seconds.
    pub(crate) seconds: f64,
    /// CPU seconds of the device's process.
    pub(crate) cpu: f64,
}

impl Sample {
    fn rate(&self) -> f64 {
        self.count as f64 / self.seconds
    }

    /// A device that sleeps most of the time is not infinitely good.
    fn per_cpu(&self) -> f64 {
        self.count as f64 / self.cpu.max(1e-3)
    }
}

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unit {
    /// Compared by how many a second.
    Packets,
    /// Compared by how many a CPU second of the device.
    Requests,
}

/// What a ratio is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) floor: f64,
    pub(crate) goal: f64,
}

/// One whose speed is in a row.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    /// What it did in each round; nothing: it was not measured.
    pub(crate) samples: Vec<Sample>,
    /// What ours is to be, times its speed.
    pub(crate) target: Option<Target>,
}

/// A row: one question, all peers.
pub(crate) struct Row {
    /// Of which table.
    pub(crate) table: &'static str,
    /// What is asked, as it is written down: a mode, a size, a direction.
    pub(crate) facts: Vec<(&'static str, Value)>,
    /// What is counted.
    pub(crate) unit: Unit,
    /// The peers in the order in which they are measured: ours, and whom the ratio is against, then the others.
    pub(crate) peers: Vec<Peer>,
    /// What was wrong with what was transferred; nothing: it was verified.
    pub(crate) wrong: Vec<String>,
}

/// Median, smallest and largest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// `None` of nothing.
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.filter(|value| value.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        Some(Self {
            median: *sorted.get(sorted.len() / 2)?,
            min: *sorted.first()?,
            max: *sorted.last()?,
        })
    }

    /// With three digits behind the point.
    pub(crate) fn json(&self) -> Value {
        json!({ "median": round(self.median), "min": round(self.min), "max": round(self.max) })
    }
}

fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// Where rows go.
pub(crate) struct Report {
    file: Option<File>,
    run: Map<String, Value>,
    rows: Vec<Value>,
    wrong: usize,
}

impl Report {
    /// Appends to the file that was asked for.
    ///
    /// # Errors
    /// When that cannot be written, or the picture cannot.
    pub(crate) fn new(run: &Run) -> Result<Self, String> {
        if let Some(plot) = &run.plot {
            plot::try_file(plot)?;
        }
        let open = |path: &std::path::PathBuf| {
            let opened = File::options().create(true).append(true).open(path);
            opened.map_err(|e| format!("--json {}: {e}", path.display()))
        };
        let mut facts = Map::new();
        facts.insert("rounds".into(), run.rounds.into());
        facts.insert("seconds".into(), run.slice.as_secs_f64().into());
        Ok(Self {
            file: run.json.as_ref().map(open).transpose()?,
            run: facts,
            rows: Vec::new(),
            wrong: 0,
        })
    }

    /// How many rows were not verified.
    pub(crate) fn wrong(&self) -> usize {
        self.wrong
    }

    /// All rows until now, as they are written down.
    pub(crate) fn rows(&self) -> &[Value] {
        &self.rows
    }

    /// Says what a table asks.
    pub(crate) fn title(&mut self, title: &str) {
        println!("\n{title}");
    }

    /// Says that something of a table is not measured, and why.
    pub(crate) fn skip(&mut self, table: &str, what: &str, why: &str) {
        println!("SKIP {what}: {why}");
        let mut object = object(table);
        object.insert("skipped".into(), what.into());
        object.insert("why".into(), why.into());
        object.insert("rows".into(), Value::Null);
        self.write(object);
    }

    /// Prints a row, and writes it down.
    pub(crate) fn row(&mut self, row: &Row) {
        let mut object = object(row.table);
        let mut line = String::new();
        for (name, value) in &row.facts {
            let text = value.as_str().map_or(value.to_string(), str::to_owned);
            line.push_str(&format!("{text:<20.20} "));
            object.insert((*name).into(), value.clone());
        }
        let (mut rates, mut per_cpu) = (Map::new(), Map::new());
        let ours = row.peers.first().map_or(&[][..], |ours| &ours.samples);
        for (number, peer) in row.peers.iter().enumerate() {
            let rate = Spread::of(peer.samples.iter().map(Sample::rate));
            let cpu = Spread::of(peer.samples.iter().map(Sample::per_cpu));
            let median = |spread: Option<Spread>| spread.map_or(f64::NAN, |spread| spread.median);
            // Not a number: null.
            let (rate, cpu) = (median(rate), median(cpu));
            rates.insert(peer.name.into(), row.unit.written(rate));
            per_cpu.insert(peer.name.into(), cpu.round().into());
            if !peer.samples.is_empty() {
                let (rate, cpu) = (rate / 1e6, cpu / 1e6);
                line.push_str(&format!("{} {rate:.2} ({cpu:.2}) ", peer.name));
            }
            let Some(place) = number.checked_sub(1) else {
                continue;
            };
            let pairs = || ours.iter().zip(&peer.samples);
            let by_rate = Spread::of(pairs().map(|(ours, theirs)| ours.rate() / theirs.rate()));
            let by_cpu = Spread::of(pairs().map(|(ours, it)| ours.per_cpu() / it.per_cpu()));
            let (ratio, other) = match row.unit {
                Unit::Packets => (by_rate, by_cpu),
                Unit::Requests => (by_cpu, by_rate),
            };
            if let Some(ratio) = ratio {
                line.push_str(&format!(
                    "= {:.2} ({:.2}..{:.2}) ",
                    ratio.median, ratio.min, ratio.max
                ));
            }
            // The ratio of a row is the one against the first of the others.
            let key = |what: &str| match place {
                0 => what.to_owned(),
                _ => format!("{what}_{}", peer.name),
            };
            if place == 0 {
                object.insert("against".into(), peer.name.into());
            }
            let json = |spread: Option<Spread>| spread.map_or(Value::Null, |spread| spread.json());
            object.insert(key("ratio"), json(ratio));
            object.insert(key(row.unit.other_ratio()), json(other));
            if let Some(target) = peer.target {
                object.insert(key("floor"), target.floor.into());
                object.insert(key("goal"), target.goal.into());
            }
        }
        object.insert(row.unit.rate().into(), rates.into());
        object.insert(row.unit.per_cpu().into(), per_cpu.into());
        object.insert("verified".into(), row.wrong.is_empty().into());
        if !row.wrong.is_empty() {
            self.wrong += 1;
            line.push_str("NOT VERIFIED: ");
            line.push_str(&row.wrong.join("; "));
            object.insert("wrong".into(), json!(row.wrong));
        }
        println!("{line}");
        self.write(object);
    }

    /// Prints and writes down a row of another shape.
    pub(crate) fn line(&mut self, table: &str, text: &str, facts: Value, verified: bool) {
        let mut object = object(table);
        if let Value::Object(facts) = facts {
            object.extend(facts);
        }
        object.insert("verified".into(), verified.into());
        self.wrong += usize::from(!verified);
        println!("{text}");
        self.write(object);
    }

    fn write(&mut self, mut object: Map<String, Value>) {
        object.extend(self.run.clone());
        object.insert("huge_pages".into(), pages::are_huge().into());
        let object = Value::from(object);
        if let Some(file) = &mut self.file
            && let Err(e) = writeln!(file, "{object}")
        {
            eprintln!("the JSON file: {e}");
        }
        self.rows.push(object);
    }
}

impl Unit {
    /// The key of how many a second.
    fn rate(self) -> &'static str {
        match self {
            Self::Packets => "mpps",
            Self::Requests => "iops",
        }
    }

    fn written(self, a_second: f64) -> Value {
        match self {
            Self::Packets => round(a_second / 1e6).into(),
            Self::Requests => a_second.round().into(),
        }
    }

    /// The key of how many a CPU second of the device.
    fn per_cpu(self) -> &'static str {
        match self {
            Self::Packets => "packets_per_cpu_second",
            Self::Requests => "requests_per_cpu_second",
        }
    }

    /// The key of the ratio that is not the row's.
    fn other_ratio(self) -> &'static str {
        match self {
            Self::Packets => "ratio_per_cpu_second",
            Self::Requests => "ratio_iops",
        }
    }
}

fn object(table: &str) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("schema".into(), 1.into());
    object.insert("bench".into(), "vhost_user".into());
    object.insert("table".into(), table.into());
    object
}

//! Rows: what is printed, and written down.

use std::fs::File;
use std::io::Write as _;

use serde_json::{Map, Value, json};

use super::args::Run;

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
        self.count as f64 / self.seconds / 1e6
    }

    /// A device that sleeps most of the time is not infinitely good.
    fn per_cpu(&self) -> f64 {
        self.count as f64 / self.cpu.max(1e-3) / 1e6
    }
}

/// A row: one question, all peers.
pub(crate) struct Row {
    /// Of which table.
    pub(crate) table: &'static str,
    /// What is asked, as it is written down: a mode, a size, a direction.
    pub(crate) facts: Vec<(&'static str, Value)>,
    /// What is counted, in the plural.
    pub(crate) unit: &'static str,
    /// The peers in the order in which they are measured, ours first, and what each did in each round.
    pub(crate) peers: Vec<(&'static str, Vec<Sample>)>,
    /// What was wrong with what was transferred; nothing: it was verified.
    pub(crate) wrong: Vec<String>,
}

/// Median, smallest and largest.
#[derive(Clone, Copy, Debug)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.filter(|value| value.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let at = |place: usize| sorted.get(place).copied().unwrap_or(f64::NAN);
        Self {
            median: at(sorted.len() / 2),
            min: at(0),
            max: at(sorted.len().saturating_sub(1)),
        }
    }

    fn json(&self) -> Value {
        let round = |value: f64| (value * 1000.0).round() / 1000.0;
        json!({ "median": round(self.median), "min": round(self.min), "max": round(self.max) })
    }
}

/// Where rows go.
pub(crate) struct Report {
    json: Option<File>,
    huge: bool,
    wrong: usize,
}

impl Report {
    /// Appends to the file that was asked for.
    pub(crate) fn new(run: &Run) -> Self {
        let file = run.json.as_ref().and_then(|path| {
            let opened = File::options().create(true).append(true).open(path);
            opened
                .map_err(|e| eprintln!("{}: {e}", path.display()))
                .ok()
        });
        Self {
            json: file,
            huge: super::testpmd::huge_pages(),
            wrong: 0,
        }
    }

    /// How many rows were not verified.
    pub(crate) fn wrong(&self) -> usize {
        self.wrong
    }

    /// Says what a table asks.
    pub(crate) fn title(&mut self, title: &str) {
        println!("\n{title}");
    }

    /// Says what is not measured, and why.
    pub(crate) fn skip(&mut self, what: &str, why: &str) {
        println!("SKIP {what}: {why}");
    }

    /// Prints a row, and writes it down.
    pub(crate) fn row(&mut self, row: &Row) {
        let mut object = Map::new();
        object.insert("bench".into(), "vhost_user".into());
        object.insert("table".into(), row.table.into());
        let mut line = String::new();
        for (name, value) in &row.facts {
            let text = value.as_str().map_or(value.to_string(), str::to_owned);
            line.push_str(&format!("{text:<22.22} "));
            object.insert((*name).into(), value.clone());
        }
        let mut ratios = Map::new();
        let ours = row.peers.first().map(|(_, samples)| samples.as_slice());
        for (number, (name, samples)) in row.peers.iter().enumerate() {
            let rate = Spread::of(samples.iter().map(Sample::rate));
            let cpu = Spread::of(samples.iter().map(Sample::per_cpu));
            object.insert(
                (*name).into(),
                json!({ "mega_per_second": rate.json(), "mega_per_cpu_second": cpu.json() }),
            );
            line.push_str(&format!("{name} {:.2} ({:.2}) ", rate.median, cpu.median));
            if number == 0 {
                continue;
            }
            let pairs = ours.unwrap_or_default().iter().zip(samples);
            let ratio = Spread::of(pairs.map(|(ours, theirs)| ours.rate() / theirs.rate()));
            line.push_str(&format!(
                "= {:.2} ({:.2}..{:.2}) ",
                ratio.median, ratio.min, ratio.max
            ));
            ratios.insert((*name).into(), ratio.json());
        }
        object.insert("unit".into(), row.unit.into());
        object.insert("ratio".into(), ratios.into());
        object.insert("huge_pages".into(), self.huge.into());
        object.insert("verified".into(), row.wrong.is_empty().into());
        if !row.wrong.is_empty() {
            self.wrong += 1;
            line.push_str("NOT VERIFIED: ");
            line.push_str(&row.wrong.join("; "));
            object.insert("wrong".into(), json!(row.wrong));
        }
        println!("{line}");
        self.write(&Value::from(object));
    }

    /// Prints and writes down a row of another shape.
    pub(crate) fn line(&mut self, text: &str, object: &Value, verified: bool) {
        self.wrong += usize::from(!verified);
        println!("{text}");
        self.write(object);
    }

    fn write(&mut self, object: &Value) {
        if let Some(file) = &mut self.json
            && let Err(e) = writeln!(file, "{object}")
        {
            eprintln!("the JSON file: {e}");
        }
    }
}

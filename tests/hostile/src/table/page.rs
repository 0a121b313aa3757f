//! The rows as `docs/hostile-inputs.md` has them.

use std::fmt::Write;

use vdpa_ring::Format;

use super::{Formats, Place, ROWS, Row, Section, Target};

impl Row {
    /// Its line of the page.
    pub fn line(&self) -> String {
        let legal = if self.legal { " (legal)" } else { "" };
        let (number, name) = (self.number, self.name);
        format!("| {number} | {name}{legal} | {} |", self.whereabouts())
    }

    /// Where it runs, or what it waits for.
    fn whereabouts(&self) -> String {
        let runs = match self.place {
            Place::Later { why } => return format!("later: {why}"),
            Place::Here(runs) => runs,
        };
        let mut levels = Vec::new();
        if !runs.ring.is_empty() {
            levels.push("ring".to_owned());
        }
        if !runs.driver.is_empty() {
            levels.push("driver side".to_owned());
        }
        let queues: Vec<_> = runs.targets.iter().map(|target| queue(*target)).collect();
        if !runs.device.is_empty() {
            levels.push(queues.join(", "));
        }
        match (runs.served.is_empty(), runs.device.is_empty()) {
            (true, _) => {}
            (false, true) => levels.push(format!("over a socket {}", queues.join(", "))),
            (false, false) => levels.push("the same over a socket".into()),
        }
        let all: Vec<Formats> = [runs.ring, runs.driver, runs.device, runs.served]
            .into_iter()
            .filter(|formats| !formats.is_empty())
            .collect();
        let formats = match all.first() {
            Some([Format::Split]) => "split",
            Some([Format::Packed]) => "packed",
            _ => "both formats",
        };
        format!("{}; {formats}", levels.join(", "))
    }
}

const fn queue(target: Target) -> &'static str {
    match target {
        Target::Tx => "net tx",
        Target::Rx => "net rx",
        Target::Ctrl => "net control",
        Target::Blk => "blk",
    }
}

/// The sections of the page with their rows.
pub fn sections() -> String {
    let mut page = String::new();
    let mut section: Option<Section> = None;
    for row in ROWS {
        if section != Some(row.section) {
            section = Some(row.section);
            let title = row.section.title();
            let _infallible = write!(
                page,
                "\n## {:?}. {title}\n\n| row | what is done | where it runs |\n|---|---|---|\n",
                row.section
            );
        }
        page.push_str(&row.line());
        page.push('\n');
    }
    page
}

/// How many rows there are, how many cases they are, and how many come later: the page's sentence.
pub fn count() -> String {
    let cases: usize = ROWS.iter().map(Row::cases).sum();
    let later = ROWS
        .iter()
        .filter(|row| matches!(row.place, Place::Later { .. }));
    let (rows, later) = (ROWS.len(), later.count());
    let come = if later == 1 { "comes" } else { "come" };
    format!("{rows} rows are {cases} cases; {later} {come} later.")
}

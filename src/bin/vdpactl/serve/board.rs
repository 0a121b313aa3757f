//! Who is served where, and how it is told: lines for events, and one that is alive for what passes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use vdpa::export::vhost_user::{EndedBy, ServerError};

use super::event::Told;
use super::news::Tally;
use super::traffic::{Traffic, words};
use crate::failure::Failure;
use crate::number::count;
use crate::output::Output;

/// How often what passes is told where nobody says.
const LIVE: Duration = Duration::from_secs(1);

/// What is told of all devices.
pub(super) struct Board<'o> {
    output: &'o mut Output,
    places: Vec<Place>,
    /// A line that is drawn anew, where nobody asked for lines. Hidden, where there is no terminal.
    live: Option<ProgressBar>,
}

/// A device, and who drives it.
struct Place {
    path: PathBuf,
    spec: String,
    served: bool,
    tally: Arc<Tally>,
    /// What was counted last, and when.
    counted: (Traffic, Instant),
    /// What is seen of it in the line that is alive.
    doing: String,
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    told: &'a Told,
    path: &'a str,
    spec: &'a str,
}

/// How often servers are to tell what they count, if at all.
///
/// * `asked`: seconds, by the command line
pub(super) fn every(asked: Option<f64>, output: &Output) -> Option<Duration> {
    match asked {
        Some(seconds) => (seconds > 0.0).then(|| Duration::from_secs_f64(seconds)),
        None => (!output.is_json()).then_some(LIVE),
    }
}

impl<'o> Board<'o> {
    /// * `asked`: seconds between lines, by the command line
    pub(super) fn new(output: &'o mut Output, asked: Option<f64>) -> Self {
        let live = (asked.is_none() && !output.is_json()).then(|| {
            let line = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{msg}") {
                line.set_style(style);
            }
            line
        });
        Self {
            output,
            places: Vec::new(),
            live,
        }
    }

    /// One more device, whose number is the next.
    ///
    /// * `tally`: of what is told of it
    pub(super) fn add(
        &mut self,
        path: PathBuf,
        spec: String,
        tally: Arc<Tally>,
        first: Told,
    ) -> Result<(), Failure> {
        let number = self.places.len();
        self.places.push(Place {
            path,
            spec,
            served: true,
            tally,
            counted: (Traffic::default(), Instant::now()),
            doing: "waiting".to_owned(),
        });
        self.tell(number, first)
    }

    /// Whether there is a device left.
    pub(super) fn serves(&self) -> bool {
        self.places.iter().any(|place| place.served)
    }

    /// Something happened to a device.
    pub(super) fn tell(&mut self, number: usize, mut told: Told) -> Result<(), Failure> {
        let Some(place) = self.places.get_mut(number) else {
            return Ok(());
        };
        place.hear(&mut told);
        let events = place.tally.take_missed();
        if events > 0 {
            self.line(number, &Told::Missed { events })?;
        }
        let alive = self.live.is_some() && matches!(told, Told::Statistics { .. });
        if !alive {
            self.line(number, &told)?;
        }
        self.draw();
        Ok(())
    }

    /// A server has ended.
    pub(super) fn ended(
        &mut self,
        number: usize,
        ended: Result<EndedBy, ServerError>,
    ) -> Result<(), Failure> {
        let Some(place) = self.places.get_mut(number) else {
            return Ok(());
        };
        place.served = false;
        let (front_ends, cut_off) = (place.tally.front_ends(), place.tally.cut_off());
        let told = Told::stopped(&ended, front_ends, cut_off);
        self.tell(number, told)
    }

    /// It ends although not all devices have stopped.
    pub(super) fn give_up(&mut self) -> Result<(), Failure> {
        if let Some(live) = self.live.take() {
            live.finish_and_clear();
        }
        let left = self.places.iter().filter(|place| place.served).count();
        let left = count(left as u64, "device");
        self.output
            .complain(&format!("a second signal: {left} not stopped yet"));
        Ok(())
    }

    /// A line that stays.
    fn line(&mut self, number: usize, told: &Told) -> Result<(), Failure> {
        let Some(place) = self.places.get(number) else {
            return Ok(());
        };
        let path = place.path.to_string_lossy();
        let line = Line {
            told,
            path: &path,
            spec: &place.spec,
        };
        let (what, more) = told.words(self.output.paint());
        let words = format!("{what} {path}: {more}");
        let words = match more.is_empty() {
            true => format!("{what} {path}"),
            false => words,
        };
        let output = &mut *self.output;
        let mut print = || {
            output.object(&line)?;
            output.say(&words)?;
            output.flush()
        };
        match &self.live {
            Some(live) => live.suspend(print)?,
            None => print()?,
        }
        Ok(())
    }

    /// The line that is alive.
    fn draw(&self) {
        let Some(live) = &self.live else {
            return;
        };
        let served = self.places.iter().filter(|place| place.served);
        let shown: Vec<String> = served
            .map(|place| format!("{} {}", name(&place.path), place.doing))
            .collect();
        match shown.is_empty() {
            true => live.finish_and_clear(),
            false => live.set_message(shown.join("  ·  ")),
        }
    }
}

impl Place {
    /// Takes in what is told, and adds what is known from before.
    fn hear(&mut self, told: &mut Told) {
        match told {
            Told::Connected { .. } => self.doing = "connected".to_owned(),
            Told::Running { .. } => self.doing = "running".to_owned(),
            Told::Halted => self.doing = "halted".to_owned(),
            Told::CutOff { .. } | Told::Disconnected => self.doing = "waiting".to_owned(),
            Told::Statistics {
                counters,
                per_second,
            } => {
                *per_second = self.count(counters);
                self.doing = words(per_second);
            }
            _ => {}
        }
    }

    fn count(&mut self, counters: &BTreeMap<String, u64>) -> BTreeMap<&'static str, f64> {
        let now = (Traffic::of(counters), Instant::now());
        let (before, when) = std::mem::replace(&mut self.counted, now);
        now.0.per_second(&before, now.1 - when)
    }
}

/// The end of a path, which tells devices apart in a short line.
fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}

//! What the demonstration shows: one screen, 100 columns.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use vdpa::core::{DeviceType, Features};
use vdpa::net::{Ethernet, Ring, Step};
use vdpa_sim::pcap::Frame;

use super::{Measured, Replayed, Report};
use crate::failure::Failure;
use crate::measure::Load;
use crate::number::{grouped, rate};
use crate::output::Output;
use crate::paint::Paint;
use crate::protocols::Protocols;
use crate::words::filled;

/// The columns of text behind the margin and the labels.
const WIDTH: usize = 84;
/// The longest bar.
const BAR: usize = 32;
/// The cards' names.
const CARDS: [&str; 2] = ["nic A", "nic B"];

/// The screen, written from top to bottom as things happen.
pub(super) struct Page<'o> {
    output: &'o mut Output,
    paint: Paint,
    /// What the first card offers.
    offered: Features,
}

impl<'o> Page<'o> {
    /// An empty screen.
    pub(super) fn new(output: &'o mut Output) -> Self {
        let paint = output.paint();
        Self {
            output,
            paint,
            offered: Features::NONE,
        }
    }

    /// What is going to be seen.
    pub(super) fn title(&mut self) -> Result<(), Failure> {
        let p = self.paint;
        let [a, b] = CARDS.map(|card| p.name(card));
        let rings = p.faint("══ rings ══");
        let wire = p.faint("──────── wire ────────");
        self.line("")?;
        self.line(
            &p.heading(" vDPA: two network cards in software, and real packets between them"),
        )?;
        self.line("")?;
        self.line(&format!("   driver {rings} {a} {wire} {b} {rings} driver"))
    }

    /// A card's negotiation goes on: in full for the first, with the result for the second; for further rings, what is
    /// new.
    pub(super) fn step(&mut self, card: usize, ring: Ring, step: Step) -> Result<(), Failure> {
        let p = self.paint;
        match (ring, card, step) {
            (Ring::Split, 0, Step::Offered(offered)) => {
                self.offered = offered;
                let about = format!("{} offers {} features", CARDS[0], offered.len());
                self.heading("Negotiation", &about)
            }
            (Ring::Split, 0, Step::Accepted(accepted)) => {
                let left = self.offered - accepted;
                self.row("accepted", &names(accepted))?;
                let left: Vec<String> = names(left).iter().map(|line| p.faint(line)).collect();
                self.row("left out", &left)
            }
            (
                Ring::Split,
                _,
                Step::Live {
                    queues,
                    size,
                    ethernet,
                    ..
                },
            ) => {
                let Ethernet { mac, mtu } = ethernet;
                let mac = mac.map_or_else(String::new, |mac| mac.to_string());
                let live = p.faint("FEATURES_OK read back, DRIVER_OK");
                let text = format!("{mac}  MTU {mtu}  {queues} queues of {size}  {live}");
                self.row(CARDS[card], &[text])
            }
            (Ring::Packed, 1, Step::Accepted(_)) => {
                let what = ring.features().display(DeviceType::Net);
                let text = format!("both cards were reset, and their drivers accepted {what} too");
                self.row(ring.name(), &[p.faint(text)])
            }
            _ => Ok(()),
        }
    }

    /// What is going to be sent.
    pub(super) fn capture(&mut self, frames: &[Frame]) -> Result<(), Failure> {
        let bytes: usize = frames.iter().map(|frame| frame.data.len()).sum();
        let kinds = Protocols::of(frames);
        let list = |kinds: &[(&str, u64)]| {
            let kinds: Vec<String> = kinds
                .iter()
                .map(|(name, n)| format!("{n} {name}"))
                .collect();
            kinds.join(" · ")
        };
        let (protocols, others) = (list(&kinds.protocols()), list(&kinds.properties()));
        self.heading(
            "What two Linux hosts said",
            &format!("{} frames, {} bytes", frames.len(), grouped(bytes as u64)),
        )?;
        let text = format!("{protocols}   {} {others}", self.paint.faint("of them"));
        self.row("capture", &[text])
    }

    /// What arrived.
    pub(super) fn replayed(&mut self, done: &Replayed) -> Result<(), Failure> {
        let p = self.paint;
        let [at_a, at_b] = done.arrived;
        let verdict = if done.dropped.is_empty() {
            p.good("identical, byte for byte")
        } else {
            let reasons = done.dropped.iter();
            let reasons: Vec<String> = reasons.map(|(reason, n)| format!("{n} {reason}")).collect();
            p.bad(reasons.join(", "))
        };
        let time = p.faint(format!("{:5.1} ms", done.seconds * 1e3));
        let text = format!("{at_b} frames A → B, {at_a} frames B → A  {time}  {verdict}");
        self.row(done.ring, &[text])
    }

    /// What is going to be measured.
    pub(super) fn measuring(&mut self, load: Load) -> Result<(), Failure> {
        let size = load.size;
        let about = format!("A → B, {size} bytes each, every one verified by its number");
        self.heading("Packets per second", &about)
    }

    /// A bar on standard error while one ring is measured, if that is a terminal.
    pub(super) fn bar(&self, ring: Ring, time: Duration) -> ProgressBar {
        const TEMPLATE: &str = "   {msg:<9} {bar:32.yellow/dim} measuring";

        if self.output.is_json() {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style.progress_chars("━╸━"));
        }
        bar.set_message(ring.name());
        bar
    }

    /// What was measured, side by side.
    pub(super) fn measured(&mut self, all: &[Measured]) -> Result<(), Failure> {
        let p = self.paint;
        let most = all.iter().map(|done| done.pps).fold(1.0, f64::max);
        for done in all {
            let filled = ((done.pps / most * BAR as f64).round() as usize).min(BAR);
            let (bar, rest) = ("━".repeat(filled), " ".repeat(BAR - filled));
            let whole = done.verified == done.packets;
            let text = format!(
                "{}{rest} {} {}  {}",
                p.figure(bar),
                p.figure(format!("{:>10}", format!("{}pps", rate(done.pps)))),
                p.faint(format!("{:5.0} ns each", done.ns_per_packet)),
                p.verdict(whole, format!("{} verified", grouped(done.verified))),
            );
            self.row(done.ring, &[text])?;
        }
        Ok(())
    }

    /// How it ended, and where to go on.
    pub(super) fn end(&mut self, report: &Report) -> Result<(), Failure> {
        let p = self.paint;
        let frames: u64 = report.replay.iter().map(|done| done.received).sum();
        let packets: u64 = report.bench.iter().map(|done| done.verified).sum();
        let well = report.is_well();
        let words = if well { "All well." } else { "Not well." };
        self.line("")?;
        self.line(&format!(
            " {} {} frames byte for byte and {} numbered packets, in {:.1} s.",
            p.verdict(well, words),
            grouped(frames),
            grouped(packets),
            report.seconds
        ))?;
        let program = program();
        self.line(&p.faint(format!(
            " Go on with {program}: dev show sim:net · bench --ring packed · --help"
        )))?;
        self.line("")
    }

    fn heading(&mut self, heading: &str, about: &str) -> Result<(), Failure> {
        self.line("")?;
        let (heading, about) = (self.paint.heading(heading), self.paint.faint(about));
        self.line(&format!(" {heading}  {about}"))
    }

    /// Lines behind a label.
    fn row(&mut self, label: &str, lines: &[impl AsRef<str>]) -> Result<(), Failure> {
        let mut label = format!("{label:<9}");
        for line in lines {
            self.line(&format!("   {} {}", self.paint.name(&label), line.as_ref()))?;
            label = " ".repeat(9);
        }
        Ok(())
    }

    /// One line, seen at once.
    fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.output.say(text)?;
        Ok(self.output.flush()?)
    }
}

/// The features by name, in lines that fit.
fn names(features: Features) -> Vec<String> {
    let names = features.names(DeviceType::Net).map(|name| name.to_string());
    filled(names, WIDTH)
}

/// How this program was called, if that can be typed again.
fn program() -> String {
    const SHORT: usize = 30;

    let called = std::env::args().next().unwrap_or_default();
    if called.is_empty() || called.len() > SHORT || called.contains(char::is_control) {
        return "vdpactl".to_owned();
    }
    called
}

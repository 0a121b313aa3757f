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
const WIDTH: usize = 80;
/// The longest bar.
const BAR: usize = 36;
/// The cards' names.
const CARDS: [&str; 2] = ["nic A", "nic B"];

/// The screen, written from top to bottom as things happen.
pub(super) struct Page<'o> {
    output: &'o mut Output,
    paint: Paint,
}

impl<'o> Page<'o> {
    /// An empty screen.
    pub(super) fn new(output: &'o mut Output) -> Self {
        let paint = output.paint();
        Self { output, paint }
    }

    /// What is going to be seen.
    pub(super) fn title(&mut self) -> Result<(), Failure> {
        let p = self.paint;
        let (a, b) = (p.name(CARDS[0]), p.name(CARDS[1]));
        let rings = p.faint("══ rings ══");
        let wire = p.faint("──────── wire:demo ────────");
        self.line("")?;
        self.line(&p.heading(
            "vDPA: two simulated network cards on a wire, and real packets from one to the other",
        ))?;
        self.line("")?;
        self.line(&format!("   driver A {rings} {a} {wire} {b} {rings} driver B"))
    }

    /// A card's negotiation goes on. In full for the first card, in short for the second, and for other rings what is
    /// new.
    pub(super) fn step(&mut self, card: usize, ring: Ring, step: Step) -> Result<(), Failure> {
        let first = card == 0 && ring == Ring::Split;
        match step {
            Step::Offered(offered) if first => {
                self.heading("Negotiation", "")?;
                self.card(card, "offers", offered)
            }
            Step::Accepted(accepted) if first => self.card(card, "takes", accepted),
            Step::Live {
                status,
                features,
                queues,
                size,
                ethernet,
            } => {
                let p = self.paint;
                let Ethernet { mac, mtu } = ethernet;
                let address = mac.map_or_else(String::new, |mac| format!("{mac}, "));
                let live = match (ring, card) {
                    (Ring::Split, _) => format!(
                        "{status}: {queues} queues of {size}, {address}MTU {mtu}"
                    ),
                    // The first time everything was said.
                    _ => format!(
                        "reset, and again with {}: {status}",
                        ring.features().display(DeviceType::Net)
                    ),
                };
                let count = features.len();
                let (card, live) = (p.name(CARDS[card]), p.faint(live));
                match ring {
                    Ring::Split => self.line(&format!("   {card}  {count} features  {live}")),
                    _ => self.line(&format!("   {card}  {live}")),
                }
            }
            _ => Ok(()),
        }
    }

    fn card(&mut self, card: usize, does: &str, features: Features) -> Result<(), Failure> {
        let names = features.names(DeviceType::Net).map(|name| name.to_string());
        let mut label = format!("{}  {:<7}", self.paint.name(CARDS[card]), does);
        for line in filled(names, WIDTH) {
            self.line(&format!("   {label} {line}"))?;
            label = " ".repeat(CARDS[card].len() + 2 + 7);
        }
        Ok(())
    }

    /// What is going to be sent.
    pub(super) fn capture(&mut self, frames: &[Frame]) -> Result<(), Failure> {
        let kinds: Vec<String> = Protocols::of(frames)
            .named()
            .iter()
            .map(|(name, count)| format!("{count} {name}"))
            .collect();
        self.heading(
            "A capture of a real TCP/IP stack",
            &format!("{} frames: {}", frames.len(), kinds.join(" · ")),
        )
    }

    /// What arrived.
    pub(super) fn replayed(&mut self, done: &Replayed) -> Result<(), Failure> {
        let p = self.paint;
        let [at_a, at_b] = done.arrived;
        let verdict = if done.dropped.is_empty() {
            p.good("identical, byte for byte")
        } else {
            let reasons: Vec<String> = done
                .dropped
                .iter()
                .map(|(reason, count)| format!("{count} {reason}"))
                .collect();
            p.bad(reasons.join(", "))
        };
        self.line(&format!(
            "   {:<7} {at_b} frames A → B, {at_a} B → A  {}  {verdict}",
            done.ring,
            p.faint(format!("{} bytes in {:.1} ms", grouped(done.bytes), done.seconds * 1e3)),
        ))
    }

    /// What is going to be measured.
    pub(super) fn measuring(&mut self, load: Load) -> Result<(), Failure> {
        self.heading(
            "Packets per second",
            &format!(
                "{} bytes each, A → B, {} at a time, every one verified by its number",
                load.size, load.batch
            ),
        )
    }

    /// A bar on standard error while one ring is measured, if that is a terminal.
    pub(super) fn bar(&self, ring: Ring, time: Duration) -> ProgressBar {
        let length = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        if self.output.is_json() {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new(length);
        if let Ok(style) = ProgressStyle::with_template("   {msg:<7} {bar:36.yellow/dim} measuring") {
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
            let filled = (done.pps / most * BAR as f64).round() as usize;
            let bar = "━".repeat(filled.min(BAR));
            let rest = " ".repeat(BAR - filled.min(BAR));
            let whole = done.verified == done.packets;
            let verified = format!("{} of {}", grouped(done.verified), grouped(done.packets));
            self.line(&format!(
                "   {:<7} {}{rest} {}  {}  {}",
                done.ring,
                p.figure(bar),
                p.figure(format!("{:>6}pps", rate(done.pps))),
                p.faint(format!("{:>5.1} ns each", done.ns_per_packet)),
                p.verdict(whole, format!("{verified} verified")),
            ))?;
        }
        Ok(())
    }

    /// How it ended, and where to go on.
    pub(super) fn end(&mut self, report: &Report) -> Result<(), Failure> {
        let p = self.paint;
        let frames: u64 = report.replay.iter().map(|done| done.received).sum();
        let packets: u64 = report.bench.iter().map(|done| done.verified).sum();
        let well = report.is_well();
        let words = if well { "all well" } else { "not well" };
        self.line("")?;
        self.line(&format!(
            " {}  {} frames byte for byte and {} packets in order, in {:.1} s",
            p.verdict(well, words),
            grouped(frames),
            grouped(packets),
            report.seconds
        ))?;
        self.line(&format!(
            " {}  {}",
            p.faint("go on with"),
            p.faint("vdpactl dev show sim:net · vdpactl bench --ring packed · vdpactl --help")
        ))?;
        self.line("")
    }

    fn heading(&mut self, heading: &str, about: &str) -> Result<(), Failure> {
        self.line("")?;
        let (heading, about) = (self.paint.heading(heading), self.paint.faint(about));
        self.line(format!(" {heading}  {about}").trim_end())
    }

    /// One line, seen at once.
    fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.output.say(text)?;
        Ok(self.output.flush()?)
    }
}

//! `vdpactl replay`: a capture through a network device, and what comes back.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::anyhow;
use serde::Serialize;
use vdpa::net::{NetDriver, Setup};
use vdpa_sim::pcap::{Capture, CaptureWriter, Frame, TimeResolution};

use crate::exchange::{Exchange, exchange};
use crate::failure::{Failure, Verdict};
use crate::number::count;
use crate::options::Replay;
use crate::output::Output;

#[derive(Serialize)]
struct Report {
    sent: u64,
    received: u64,
    dropped: BTreeMap<&'static str, u64>,
    ring: &'static str,
}

/// Sends the capture and writes what came back.
pub(crate) fn run(options: &Replay, output: &mut Output) -> Result<Verdict, Failure> {
    let (frames, resolution) = load(&options.input)?;
    refuse_same_file(&options.input, &options.output)?;
    let device = vdpa::open(&options.spec).map_err(Failure::input)?;
    let setup = Setup {
        ring: options.ring,
        ..Setup::default()
    };
    // Everything that can be wrong with what was given is found before anything is sent.
    let driver = NetDriver::start(device, &setup).map_err(Failure::setup)?;
    let mut capture =
        CaptureWriter::create(&options.output, resolution).map_err(Failure::input)?;

    let mut drivers = [driver];
    let done = exchange(&mut drivers, 0, 0, &frames)?;
    let [driver] = drivers;
    driver.stop()?;
    write(&mut capture, &frames, &done)?;
    capture.finish()?;

    let report = Report {
        sent: done.sent,
        received: done.received,
        dropped: done.dropped(),
        ring: options.ring.name(),
    };
    output.object(&report)?;
    tell(&report, options, &done, output)?;
    Ok(Verdict::well_if(done.is_whole()))
}

/// The frames of the capture at `path`, all of them: a damaged file is refused before anything is done.
fn load(path: &Path) -> Result<(Vec<Frame>, TimeResolution), Failure> {
    let capture = Capture::open(path).map_err(Failure::input)?;
    let resolution = capture.resolution();
    let frames: Result<_, _> = capture.collect();
    Ok((frames.map_err(Failure::input)?, resolution))
}

/// Writing over the input would leave nothing to compare with.
fn refuse_same_file(input: &Path, output: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::MetadataExt;

    let identity = |path| fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    let is_file = fs::metadata(input).is_ok_and(|file| file.is_file());
    if is_file && identity(input) == identity(output) {
        let path = output.display();
        return Err(Failure::input(anyhow!(
            "{path}: IN and OUT are the same file: give OUT another name"
        )));
    }
    Ok(())
}

fn write(capture: &mut CaptureWriter, frames: &[Frame], done: &Exchange) -> Result<(), Failure> {
    for returned in &done.returned {
        let frame = &frames[returned.index];
        let bytes = returned.altered.as_ref().unwrap_or(&frame.data);
        capture.write(frame.time, bytes)?;
    }
    Ok(())
}

fn tell(
    report: &Report,
    options: &Replay,
    done: &Exchange,
    output: &mut Output,
) -> Result<(), Failure> {
    let paint = output.paint();
    output.say(&format!(
        "{} sent through {} ({} ring), {} came back byte for byte ({} bytes)",
        count(report.sent, "frame"),
        options.spec,
        report.ring,
        report.received,
        done.bytes,
    ))?;
    for (reason, frames) in &report.dropped {
        output.say(&format!(
            "{} {reason}: {}",
            paint.bad("dropped"),
            count(*frames, "frame")
        ))?;
    }
    output.say(&format!(
        "{} {}",
        paint.good("wrote"),
        options.output.display()
    ))?;
    if !done.is_whole() {
        let reasons: Vec<String> = report
            .dropped
            .iter()
            .map(|(reason, frames)| format!("{frames} {reason}"))
            .collect();
        output.complain(&format!(
            "{}: not every frame came back as it was sent: {}",
            options.input.display(),
            reasons.join(", ")
        ));
    }
    Ok(())
}

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
    probe(&options.output, resolution)?;

    let mut drivers = [driver];
    let done = exchange(&mut drivers, 0, 0, &frames)?;
    let [driver] = drivers;
    driver.stop()?;
    write(&options.output, resolution, &frames, &done)?;

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

/// Whether a capture can be written there. Nothing is left: who interrupts what follows finds no half-made file.
fn probe(path: &Path, resolution: TimeResolution) -> Result<(), Failure> {
    // A pipe or a device is written to directly, so it is opened once.
    if !path.exists() || path.is_file() || path.is_dir() {
        CaptureWriter::create(path, resolution).map_err(Failure::input)?;
    }
    Ok(())
}

fn write(
    path: &Path,
    resolution: TimeResolution,
    frames: &[Frame],
    done: &Exchange,
) -> Result<(), Failure> {
    let mut capture = CaptureWriter::create(path, resolution)?;
    for returned in &done.returned {
        let frame = &frames[returned.index];
        let bytes = returned.altered.as_ref().unwrap_or(&frame.data);
        capture.write(frame.time, bytes)?;
    }
    capture.finish()?;
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
        let way_out = match done.mtu_needed {
            Some(mtu) => format!(": all of them need a device with mtu={mtu}"),
            None => String::new(),
        };
        output.complain(&format!(
            "{}: not every frame came back as it was sent: {}{way_out}",
            options.input.display(),
            reasons.join(", ")
        ));
    }
    Ok(())
}

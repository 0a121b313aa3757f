//! `vdpactl bench`: packets per second and latency of one network device whose port loops back, or requests per second
//! and latency of a disk.

use std::time::Duration;

use anyhow::anyhow;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use vdpa::blk::{self, BlkDriver};
use vdpa::core::{Chain, Control};
use vdpa::net::{NetDriver, Setup};
use vdpa::{Device, DeviceType};

use crate::disk::{DEFAULT_SIZE, Disk};
use crate::failure::{Failure, Verdict};
use crate::measure::{Load, Throughput, latency, percentile, throughput};
use crate::number::{duration, grouped, rate};
use crate::options::Bench;
use crate::output::Output;

/// How long latency is measured for, after the packets per second.
const LATENCY_TIME: Duration = Duration::from_millis(500);

#[derive(Serialize)]
struct Report {
    ring: &'static str,
    size: u32,
    batch: u16,
    seconds: f64,
    packets: u64,
    verified: u64,
    pps: f64,
    ns_per_packet: f64,
    latency_ns: Latency,
}

#[derive(Serialize)]
struct Latency {
    p50: u64,
    p99: u64,
    p999: u64,
}

/// What was measured.
struct Measured {
    size: u32,
    counted: Throughput,
    samples: Vec<u64>,
    /// Whether nothing was lost while latency was measured.
    well: bool,
    /// Why the device answers no more, if it does not.
    broken: Option<String>,
}

/// Measures, and prints what was measured.
pub(crate) fn run(options: &Bench, output: &mut Output) -> Result<Verdict, Failure> {
    let device = vdpa::open(&options.spec).map_err(Failure::input)?;
    let (measured, hint) = match device.info().device_type {
        DeviceType::Block => (disk(options, device)?, "is it written by others?"),
        _ => (card(options, device)?, "does its port loop back?"),
    };
    let Measured {
        size,
        counted,
        samples,
        well,
        broken,
    } = measured;
    let pps = counted.pps();
    let report = Report {
        ring: options.ring.name(),
        size,
        batch: options.batch,
        seconds: counted.seconds,
        packets: counted.packets,
        verified: counted.verified,
        pps,
        ns_per_packet: if pps > 0.0 { 1e9 / pps } else { 0.0 },
        latency_ns: Latency {
            p50: percentile(&samples, 0.5),
            p99: percentile(&samples, 0.99),
            p999: percentile(&samples, 0.999),
        },
    };
    output.object(&report)?;
    tell(&report, options, output)?;
    if !counted.is_whole() {
        let why = broken.as_deref().unwrap_or(hint);
        output.complain(&format!(
            "{}: {} of {} packets came back as they were sent: {why}",
            options.spec, counted.verified, counted.packets
        ));
    } else if !well {
        let why = broken.map_or(String::new(), |why| format!(": {why}"));
        output.complain(&format!(
            "{}: a packet was lost while latency was measured{why}",
            options.spec
        ));
    }
    Ok(Verdict::well_if(counted.is_whole() && well))
}

/// Measures a network card whose port loops back.
fn card(options: &Bench, device: Device) -> Result<Measured, Failure> {
    let setup = Setup {
        ring: options.ring,
        ..Setup::default()
    };
    let driver = NetDriver::start(device, &setup).map_err(Failure::setup)?;
    let size = options.size.unwrap_or(64);
    let max = driver.ethernet().max_untagged();
    if size as usize > max {
        return Err(Failure::input(anyhow!(
            "frames of {size} bytes do not fit the device's MTU of {} ({max} with the Ethernet header): use a smaller \
             --size, or a larger mtu= in the device string",
            driver.ethernet().mtu
        )));
    }
    let load = load(options, size);
    let mut drivers = [driver];
    let bar = progress(load.time);
    let counted = throughput(&mut drivers, (0, 0), load, |passed, verified| {
        advance(&bar, passed.min(load.time), verified);
    });
    bar.finish_and_clear();
    let counted = counted?;
    // With packets lost on the way the next phase would only take them for its own.
    let (samples, well) = if counted.is_whole() {
        latency(&mut drivers, (0, 0), load.size, LATENCY_TIME.min(load.time))?
    } else {
        (Vec::new(), false)
    };
    let [driver] = drivers;
    let broken = broken(driver.control());
    driver.stop()?;
    Ok(Measured {
        size,
        counted,
        samples,
        well,
        broken,
    })
}

/// Measures reads of a disk.
fn disk(options: &Bench, device: Device) -> Result<Measured, Failure> {
    let size = options.size.unwrap_or(DEFAULT_SIZE);
    let setup = blk::Setup {
        ring: options.ring,
        requests: options.batch,
        ..blk::Setup::default()
    };
    let driver = BlkDriver::start(device, &setup).map_err(Failure::disk)?;
    let mut disk = Disk::new(driver, &options.spec, size)?;
    let load = load(options, size);
    let bar = progress(load.time);
    let counted = disk.throughput(load, |passed, verified| {
        advance(&bar, passed.min(load.time), verified);
    });
    bar.finish_and_clear();
    let counted = counted.map_err(Failure::ran)?;
    let (samples, well) = if counted.is_whole() {
        let time = LATENCY_TIME.min(load.time);
        disk.latency(time).map_err(Failure::ran)?
    } else {
        (Vec::new(), false)
    };
    let broken = broken(disk.control());
    disk.stop().map_err(Failure::ran)?;
    Ok(Measured {
        size,
        counted,
        samples,
        well,
        broken,
    })
}

/// Why the device answers no more, if it does not. Whatever was lost is lost by that.
fn broken(control: &Control) -> Option<String> {
    let error = control.status().err()?;
    Some(Chain(&error).to_string())
}

fn load(options: &Bench, size: u32) -> Load {
    Load {
        size: size as usize,
        batch: options.batch.into(),
        time: Duration::from_secs_f64(options.seconds),
    }
}

/// A bar on standard error, if that is a terminal.
fn progress(time: Duration) -> ProgressBar {
    const TEMPLATE: &str = "{bar:50.cyan/dim} {percent:>3}%  {msg} packets verified";

    let bar = ProgressBar::new(millis(time));
    if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
        bar.set_style(style.progress_chars("━╸━"));
    }
    bar
}

fn advance(bar: &ProgressBar, passed: Duration, verified: u64) {
    bar.set_position(millis(passed));
    bar.set_message(grouped(verified));
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn tell(report: &Report, options: &Bench, output: &mut Output) -> Result<(), Failure> {
    let paint = output.paint();
    let rows = [
        ("device", options.spec.clone()),
        ("ring", report.ring.to_owned()),
        (
            "load",
            format!(
                "{} bytes, {} at a time, {:.2} s",
                report.size, report.batch, report.seconds
            ),
        ),
        (
            "packets",
            format!(
                "{} sent, {} verified",
                grouped(report.packets),
                grouped(report.verified)
            ),
        ),
        (
            "throughput",
            format!(
                "{}  ({:.1} ns a packet)",
                paint.figure(format!("{}pps", rate(report.pps))),
                report.ns_per_packet
            ),
        ),
        (
            "latency",
            format!(
                "{} median, {} p99, {} p99.9",
                duration(report.latency_ns.p50),
                duration(report.latency_ns.p99),
                duration(report.latency_ns.p999)
            ),
        ),
    ];
    for (name, value) in rows {
        output.say(&format!("{} {value}", paint.name(format!("{name:<11}"))))?;
    }
    Ok(())
}

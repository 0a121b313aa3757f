//! `vdpactl demo`: two simulated network cards on a wire, by themselves, in a few seconds.
//!
//! Each host of the shipped capture has a card. What one host said goes out through its card and has to come in at the
//! other byte for byte, in split rings and in packed ones; then both formats are measured.

mod page;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;
use vdpa::core::Device;
use vdpa::net::{NetDriver, Ring, Setup, Step};
use vdpa_sim::pcap::{Capture, Frame};

use self::page::Page;
use crate::exchange::{Exchange, exchange};
use crate::failure::{Failure, Verdict};
use crate::measure::{Load, Throughput, throughput};
use crate::output::Output;

/// The capture, in the program, so that it runs anywhere.
const CAPTURE: &[u8] = include_bytes!("../../../examples/capture/traffic.pcap");
/// The cards, host A's and host B's. They do not poll: with a worker each, and a driver, there are three threads, on
/// perhaps two processors.
const SPECS: [&str; 2] = [
    "sim:net,mac=52:54:00:00:00:0a,mtu=9000,port=wire:demo,poll_us=0",
    "sim:net,mac=52:54:00:00:00:0b,mtu=9000,port=wire:demo,poll_us=0",
];
/// The rings shown.
const RINGS: [Ring; 2] = [Ring::Split, Ring::Packed];
/// What is measured, for each ring.
const LOAD: Load = Load {
    size: 64,
    batch: 256,
    time: Duration::from_millis(1000),
};

#[derive(Serialize)]
struct Report {
    devices: [&'static str; 2],
    features: Vec<String>,
    frames: usize,
    replay: Vec<Replayed>,
    bench: Vec<Measured>,
    seconds: f64,
}

/// The capture through one kind of rings.
#[derive(Serialize)]
struct Replayed {
    ring: &'static str,
    sent: u64,
    received: u64,
    bytes: u64,
    dropped: BTreeMap<&'static str, u64>,
    seconds: f64,
    /// Frames that came in at each host's card.
    #[serde(skip)]
    arrived: [u64; 2],
}

/// Numbered packets through one kind of rings.
#[derive(Serialize)]
struct Measured {
    ring: &'static str,
    size: usize,
    seconds: f64,
    packets: u64,
    verified: u64,
    pps: f64,
    ns_per_packet: f64,
}

impl Report {
    fn is_well(&self) -> bool {
        let whole = |done: &Replayed| done.dropped.is_empty() && done.received > 0;
        let verified = |done: &Measured| done.verified == done.packets && done.packets > 0;
        self.replay.iter().all(whole) && self.bench.iter().all(verified)
    }
}

/// Shows it all.
pub(crate) fn run(output: &mut Output) -> Result<Verdict, Failure> {
    let began = Instant::now();
    let frames: Vec<Frame> = Capture::new(CAPTURE, "traffic.pcap")?.collect::<Result<_, _>>()?;
    // Devices find each other by the name of their wire within one registry.
    let registry = vdpa::registry();
    let [a, b] = SPECS.map(|spec| registry.open(spec));
    let mut devices = [a?, b?];
    let mut page = Page::new(output);
    let mut report = Report {
        devices: SPECS,
        features: Vec::new(),
        frames: frames.len(),
        replay: Vec::new(),
        bench: Vec::new(),
        seconds: 0.0,
    };

    page.title()?;
    for ring in RINGS {
        let mut drivers = start(devices, ring, &mut |card, step| page.step(card, ring, step))?;
        if report.features.is_empty() {
            report.features = names(&drivers[0]);
            page.capture(&frames)?;
        }
        let replayed = converse(&mut drivers, &frames, ring)?;
        page.replayed(&replayed)?;
        report.replay.push(replayed);
        devices = stop(drivers)?;
    }
    page.measuring(LOAD)?;
    for ring in RINGS {
        let mut drivers = start(devices, ring, &mut |_, _| Ok(()))?;
        let bar = page.bar(ring, LOAD.time);
        let counted = throughput(&mut drivers, (0, 1), LOAD, |passed, _| {
            bar.set_position(u64::try_from(passed.as_millis()).unwrap_or(u64::MAX));
        });
        bar.finish_and_clear();
        report.bench.push(measured(ring, &counted?));
        devices = stop(drivers)?;
    }
    page.measured(&report.bench)?;
    report.seconds = began.elapsed().as_secs_f64();

    page.end(&report)?;
    output.object(&report)?;
    if !report.is_well() {
        output.complain("not everything arrived as it was sent");
    }
    Ok(Verdict::well_if(report.is_well()))
}

/// Sets a driver to work on each card; `watch` is told of each step, by card.
fn start(
    devices: [Device; 2],
    ring: Ring,
    watch: &mut dyn FnMut(usize, Step) -> Result<(), Failure>,
) -> Result<[NetDriver; 2], Failure> {
    let setup = Setup {
        ring,
        ..Setup::default()
    };
    let mut card = 0;
    let [a, b] = devices.map(|device| {
        let mut shown = Ok(());
        let driver = NetDriver::start_watched(device, &setup, &mut |step| {
            if shown.is_ok() {
                shown = watch(card, step);
            }
        });
        card += 1;
        shown.and(driver.map_err(Failure::from))
    });
    Ok([a?, b?])
}

/// Takes the drivers away: both cards are reset.
fn stop(drivers: [NetDriver; 2]) -> Result<[Device; 2], Failure> {
    let [a, b] = drivers.map(NetDriver::stop);
    Ok([a?, b?])
}

fn names(driver: &NetDriver) -> Vec<String> {
    let names = driver.features().names(vdpa::core::DeviceType::Net);
    names.map(|name| name.to_string()).collect()
}

/// What each host said, from its card to the other's.
fn converse(
    drivers: &mut [NetDriver; 2],
    frames: &[Frame],
    ring: Ring,
) -> Result<Replayed, Failure> {
    let (ours, theirs): (Vec<Frame>, Vec<Frame>) = frames.iter().cloned().partition(is_of_host_a);
    let began = Instant::now();
    let there = exchange(drivers, 0, 1, &ours)?;
    let back = exchange(drivers, 1, 0, &theirs)?;
    let seconds = began.elapsed().as_secs_f64();

    let mut dropped = there.dropped();
    for (reason, count) in back.dropped() {
        *dropped.entry(reason).or_default() += count;
    }
    let sum = |of: fn(&Exchange) -> u64| of(&there) + of(&back);
    Ok(Replayed {
        ring: ring.name(),
        sent: sum(|done| done.sent),
        received: sum(|done| done.received),
        bytes: sum(|done| done.bytes),
        dropped,
        seconds,
        arrived: [back.received, there.received],
    })
}

/// The hosts of the capture tell themselves apart in the last byte of their addresses.
fn is_of_host_a(frame: &Frame) -> bool {
    frame.data.get(11) == Some(&1)
}

fn measured(ring: Ring, counted: &Throughput) -> Measured {
    let pps = counted.pps();
    Measured {
        ring: ring.name(),
        size: LOAD.size,
        seconds: counted.seconds,
        packets: counted.packets,
        verified: counted.verified,
        pps,
        ns_per_packet: if pps > 0.0 { 1e9 / pps } else { 0.0 },
    }
}

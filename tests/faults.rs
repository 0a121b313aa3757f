//! Faults by the device string: each kind that is documented exists and can be survived, and what is wrong in a string
//! is pointed at.
#![cfg(all(feature = "sim", feature = "layers"))]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use vdpa::core::{Error, ErrorKind, SpecError, Status};
use vdpa::net::{Command, NetDriver, NetError, Ring, Setup};
use vdpa::{Deadline, Device};

/// Every kind that a simulated network card knows.
fn kinds() -> Vec<&'static str> {
    let layer = vdpa::layer::faults::KINDS.iter();
    let sim = vdpa::sim::faults::NET.iter();
    layer.chain(sim).map(|kind| kind.name).collect()
}

/// The first cells of the documentation's tables of kinds.
fn documented() -> BTreeSet<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/faults.md");
    let text = std::fs::read_to_string(path).expect("docs/faults.md is there");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| row.split('`').next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn what_is_documented_is_what_there_is() {
    let kinds: BTreeSet<_> = kinds().into_iter().map(str::to_owned).collect();
    assert_eq!(documented(), kinds);
}

// --- a driver that trusts nobody -------------------------------------------------------------

const FRAMES: u32 = 60;

fn frame(number: u32) -> Vec<u8> {
    let mut frame = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1], &[0x88, 0xb5]].concat();
    // The number again and again: a bit that is wrong is noticed.
    (0..20).for_each(|_| frame.extend(number.to_be_bytes()));
    frame
}

fn arrives(driver: &mut NetDriver, number: u32) -> Result<bool, NetError> {
    let mut is_there = false;
    driver.receive(0, |got| {
        let mut bytes = Vec::new();
        got.copy_to(&mut bytes);
        is_there |= bytes == frame(number);
    })?;
    Ok(is_there)
}

/// Sends what has not arrived, frame by frame. An error, or NEEDS_RESET, or nothing that helps: the driver's life ends.
fn exchange(driver: &mut NetDriver, arrived: &mut u32) -> Result<(), NetError> {
    while *arrived < FRAMES {
        for again in 0.. {
            // Sent again when it is overdue, since it may be what got lost.
            if again % 4 == 0 {
                driver.send(0, [frame(*arrived)])?;
            }
            driver.wait(0, Deadline::after(Duration::from_millis(5)))?;
            if arrives(driver, *arrived)? {
                break;
            }
            driver.kick(0)?;
            let status = driver.control().status()?;
            if status.contains(Status::DEVICE_NEEDS_RESET) || again == 40 {
                return Ok(());
            }
        }
        *arrived += 1;
    }
    Ok(())
}

fn count(device: &Device, kind: &str) -> u64 {
    let mut found = 0;
    let _gone = device.stats(&mut |name, value| {
        if name.strip_prefix("fault.") == Some(kind) {
            found = value;
        }
    });
    found
}

/// Gets every frame through a card with faults of this kind, whatever it takes. How often they were made.
fn survive(kind: &str, rate: &str, ring: Ring) -> u64 {
    let begun = Instant::now();
    let setup = Setup {
        ring,
        queue_size: 64,
        ..Setup::default()
    };
    let (mut arrived, mut made) = (0, 0);
    // Another device each time that one is lost, with another fate.
    for seed in 0.. {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "{kind}: {arrived}"
        );
        // Without a control queue: its answers are waited for longer than a frame is.
        let spec = format!("sim:net,poll_us=0,features=-CTRL_VQ,fault={kind}:{rate},seed={seed}");
        let mut device = vdpa::open(&spec).unwrap();
        loop {
            let mut driver = match NetDriver::start(device, &setup) {
                Ok(driver) => driver,
                Err(_) => break,
            };
            let before = count(driver.control().device(), kind);
            let _ended = exchange(&mut driver, &mut arrived);
            made += count(driver.control().device(), kind).saturating_sub(before);
            let Ok(back) = driver.stop() else { break };
            if arrived == FRAMES {
                return made + u64::from(kind.starts_with("control")) * count(&back, kind);
            }
            device = back;
        }
        if kind.starts_with("control") || kind == "device.gone" {
            // It could not be asked any more.
            made += 1;
        }
    }
    unreachable!("seeds do not end");
}

#[test]
fn every_kind_can_be_survived_by_a_driver_that_looks_kicks_and_resets() {
    for ring in [Ring::Split, Ring::Packed] {
        // A card in this process reads its address spaces itself: it is told of no mapping.
        let kinds = kinds().into_iter();
        for kind in kinds.filter(|kind| !kind.starts_with("map.")) {
            let rate = match kind {
                "device.gone" => "@20",
                // A configuration that never rests cannot be read.
                "control.error" | "config.storm" => "0.1",
                "control.refused" => "0.5",
                "control.slow" => "1",
                "call.lost" | "call.late" | "call.doubled" => "/2",
                _ => "/5",
            };
            // How often a device calls depends on who is faster.
            let made = (0..20).map(|_| survive(kind, rate, ring));
            assert!(
                made.into_iter().any(|made| made > 0),
                "{kind}, {ring}: never made"
            );
        }
    }
}

#[test]
fn commands_get_through_whatever_kicks_and_calls_are_lost() {
    for fault in [
        "kick.lost:/2",
        "call.lost:0.9",
        "kick.lost:0.7+call.late:0.5",
    ] {
        let spec = format!("sim:net,poll_us=0,fault={fault},seed=7");
        let mut driver = NetDriver::start(vdpa::open(&spec).unwrap(), &Setup::default()).unwrap();
        for on in [true, false, true, false] {
            driver.command(Command::Promiscuous(on)).unwrap();
        }
        driver.stop().unwrap();
    }
}

// --- strings ---------------------------------------------------------------------------------

fn refused(spec: &str) -> SpecError {
    match vdpa::open(spec) {
        Err(Error::Spec(error)) => error,
        other => panic!("{spec}: {other:?}"),
    }
}

#[test]
fn what_is_wrong_in_a_list_of_faults_is_pointed_at() {
    for (spec, part, words) in [
        (
            "sim:net,fault=kick.lots",
            "kick.lots",
            "did you mean `kick.lost`",
        ),
        ("sim:net,fault=kick.lots", "kick.lots", "ring.used_id"),
        ("sim:net,fault=", "", "control.error"),
        ("sim:net,fault=kick.lost:2", "2", "0..=1"),
        ("sim:net,fault=kick.lost:-0.5", "-0.5", "0..=1"),
        ("sim:net,fault=kick.lost:often", "often", "@3"),
        ("sim:net,fault=kick.lost:@0", "0", "1..="),
        ("sim:net,fault=kick.lost:/", "", "whole number"),
        ("sim:net,fault=kick.lost+kick.lost", "kick.lost", "once"),
        ("sim:net,seed=7", "seed", "no meaning"),
        ("sim:net,fault=kick.lost,seed=x", "x", "whole number"),
        ("sim:net,falt=kick.lost", "falt", "did you mean `fault`"),
        ("sim:net,trace=loud", "loud", "debug"),
        ("sim:nett,fault=kick.lost", "nett", "net"),
    ] {
        let error = refused(spec);
        assert_eq!(error.part(), part, "{error}");
        let text = error.to_string();
        assert!(text.contains(words), "{words:?} is not in {text:?}");
    }
}

#[test]
fn a_device_is_the_same_by_its_string_whatever_stands_around_it() {
    let plain = vdpa::open("sim:net").unwrap();
    for around in [
        "trace=debug",
        "fault=kick.lost:0,seed=1",
        "trace=trace,fault=dma.read:0",
    ] {
        let device = vdpa::open(&format!("sim:net,{around}")).unwrap();
        assert_eq!(device.cap_names(), plain.cap_names());
        assert_eq!(device.offered(), plain.offered());
    }
}

#[test]
fn a_chosen_seed_stands_in_the_string_and_makes_the_same_device_again() {
    let registry = vdpa::registry();
    let device = registry.open("sim:net,fault=kick.lost").unwrap();
    let sim = registry.parent("sim").unwrap();
    let made = sim.devices().remove(0).spec;
    assert!(made.starts_with("sim:net,fault=kick.lost,seed="), "{made}");
    drop(device);
    let _again = registry.open(&made).unwrap();
    assert_eq!(sim.devices()[0].spec, made);
}

#[test]
fn faults_of_control_calls_are_errors_of_kind_busy() {
    let device = vdpa::open("sim:net,fault=control.error:@1,seed=7").unwrap();
    let error = device
        .reset(Deadline::after(Duration::from_secs(5)))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(error.to_string().contains("control.error"), "{error}");
}

//! What a driver makes of vectors.

use std::sync::Arc;

use vdpa_core::{Error, Event, Result};
use vdpa_pci::{Interrupts, PciAccess, Width};

use super::super::config::{Undo, change};
use super::super::queues::registers::Taped;
use crate::checked::{ensure, skip};
use crate::lane::{Cut, Lane};
use crate::registers::{
    Between, NO_VECTOR, Places, Register, Registers, Seen, Structure, Through, reg,
};
use crate::{Bench, Checked, Rig, Stop, Variant};

/// The function, if it has vectors.
fn function(bench: &Bench<'_>) -> Checked<Arc<dyn PciAccess>> {
    let function = bench.function()?;
    if function.interrupts().msix == 0 {
        skip!("there are no MSI-X vectors");
    }
    Ok(function)
}

fn is_vector(register: Option<Register>) -> Option<Register> {
    register.filter(|r| *r == reg::CONFIG_MSIX_VECTOR || *r == reg::QUEUE_MSIX_VECTOR)
}

/// Fails unless each vector that was written was read back before anything else was selected.
fn all_read_back(places: &Places, seen: &[Seen]) -> Checked<usize> {
    let seen = places.common(seen);
    let mut written = 0;
    for (number, access) in seen.iter().enumerate() {
        let Some(register) = is_vector(access.register).filter(|_| access.is_write) else {
            continue;
        };
        if access.value == u32::from(NO_VECTOR) {
            continue;
        }
        written += 1;
        let mut behind = seen.iter().skip(number + 1);
        let next = behind.find(|a| a.is_write || a.register == Some(register));
        ensure!(
            next.is_some_and(|a| !a.is_write && a.register == Some(register)),
            "{:#x} was written to {}, and was not read back",
            access.value,
            register.name
        );
    }
    Ok(written)
}

/// Refuses to map anything to vectors from `from` on.
struct Refuses {
    common: Structure,
    from: u32,
}

impl Between for Refuses {
    fn write(&self, to: &dyn PciAccess, bar: u8, at: u64, width: Width, value: u32) -> Result<()> {
        let place = |r: Register| self.common.offset + u64::from(r.at);
        let vectors = [
            place(reg::CONFIG_MSIX_VECTOR),
            place(reg::QUEUE_MSIX_VECTOR),
        ];
        let is_vector = bar == self.common.bar && vectors.contains(&at);
        let value = match is_vector && value >= self.from {
            true => NO_VECTOR.into(),
            false => value,
        };
        to.write(bar, at, width, value)
    }
}

/// Live, with a request that called: the queue's interrupt arrives, by whichever vector.
fn called<'b>(bench: &'b Bench<'b>, taped: &Taped) -> Checked<(Rig<'b>, Lane)> {
    let rig = bench.rig(Arc::clone(&taped.parent))?;
    rig.reset()?;
    rig.negotiate(rig.plain(Variant::SPLIT))?;
    let mut lane = Lane::start(&rig, bench.traffic()?[0], 16)?;
    rig.run()?;
    for _ in 0..3 {
        let before = lane.ring.calls();
        lane.ring.arm();
        lane.exchange(&rig, 1, Cut::Whole)?;
        lane.ring.called(&rig, before)?;
    }
    Ok((rig, lane))
}

pub(super) fn read_back(bench: &Bench<'_>) -> Checked {
    let taped = Taped::on(bench, function(bench)?)?;
    drop(called(bench, &taped)?);
    let written = all_read_back(&taped.places, &taped.tape.seen())?;
    ensure!(
        written > 0,
        "there are vectors, and the driver has mapped nothing to any"
    );
    drop(taped);
    // Where some are refused the driver goes on with the others, which is what the reading is for.
    for from in [1, 0] {
        let function = function(bench)?;
        let common = Registers::of(Arc::clone(&function))?.common;
        let refuses = Arc::new(Refuses { common, from });
        let function = Through::around(function, refuses);
        let taped = match Taped::on(bench, function) {
            Ok(taped) => taped,
            // Without any it may well say that it cannot.
            Err(_) if from == 0 => continue,
            Err(stop) => return Err(stop),
        };
        let what = format!("with vectors refused from {from} on");
        match called(bench, &taped) {
            Ok(live) => drop(live),
            Err(_) if from == 0 => {}
            Err(stop) => return Err(stop.about(what)),
        }
        all_read_back(&taped.places, &taped.tape.seen()).map_err(|stop| stop.about(what))?;
    }
    Ok(())
}

/// Has no more vectors than these.
struct Few(u16);

impl Between for Few {
    fn interrupts(&self, to: &dyn PciAccess) -> Interrupts {
        let all = to.interrupts();
        Interrupts {
            msix: all.msix.min(self.0),
            ..all
        }
    }
    fn enable_vectors(&self, to: &dyn PciAccess, count: u16) -> Result<()> {
        if count > self.0 {
            let device = to.name().to_owned();
            let what = "so many vectors";
            return Err(Error::Unsupported { device, what });
        }
        to.enable_vectors(count)
    }
}

/// What was switched on is what there is, and nothing was mapped to more.
fn within(seen: &[Seen], places: &Places, most: u16) -> Checked {
    let on = seen.iter().rev().find_map(|seen| match seen {
        Seen::Vectors(count) if *count > 0 => Some(*count),
        _ => None,
    });
    let Some(on) = on else {
        return Err(Stop::failed(format!(
            "there are {most} vectors, and the driver has switched on none"
        )));
    };
    for access in places.common(seen) {
        let Some(register) = is_vector(access.register).filter(|_| access.is_write) else {
            continue;
        };
        ensure!(
            access.value < on.into() || access.value == u32::from(NO_VECTOR),
            "{} was written to {}, and {on} vectors are on",
            access.value,
            register.name
        );
    }
    Ok(())
}

pub(super) fn any_table(bench: &Bench<'_>) -> Checked {
    let all = function(bench)?.interrupts().msix;
    let mut tables = vec![1, 2, 3, 4, all];
    tables.retain(|count| *count <= all);
    tables.dedup();
    for count in tables {
        let function = Through::around(function(bench)?, Arc::new(Few(count)));
        let taped = Taped::on(bench, function)?;
        let what = format!("with {count} vectors");
        let live = called(bench, &taped).map_err(|stop| stop.about(&what))?;
        within(&taped.tape.seen(), &taped.places, count).map_err(|stop| stop.about(&what))?;
        drop(live);
    }
    Ok(())
}

pub(super) fn shared(bench: &Bench<'_>) -> Checked {
    let function = Through::around(function(bench)?, Arc::new(Few(1)));
    let taped = Taped::on(bench, function)?;
    let (rig, mut lane) = called(bench, &taped)?;
    rig.forget_events();
    let changed = change(&rig).and_then(|change| {
        let undo = Undo {
            rig: &rig,
            to: change.back,
        };
        bench.manage(&rig, change.to)?;
        Ok(undo)
    });
    let _undo = match changed {
        Ok(undo) => undo,
        Err(Stop::Skipped(reason)) => {
            skip!(
                "a queue is called by the only vector, and the configuration cannot be changed: {reason}"
            )
        }
        Err(stop) => return Err(stop),
    };
    rig.event("that the configuration changed", |e| *e == Event::Config)?;
    // And the queue still is.
    let before = lane.ring.calls();
    lane.ring.arm();
    lane.exchange(&rig, 1, Cut::Whole)?;
    lane.ring.called(&rig, before)?;
    Ok(())
}

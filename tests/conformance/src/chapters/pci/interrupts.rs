//! The ISR status, and vectors.

use std::sync::Arc;

use vdpa_core::QueueIndex;
use vdpa_pci::Width;

use super::super::config::{Undo, change, image};
use crate::checked::{ensure, skip};
use crate::lane::{Cut, Lane};
use crate::registers::{Bells, NO_VECTOR, Plain};
use crate::{Bench, Checked, Rig, Stop, Variant};

/// Bits of the ISR status, virtio 1.4 §4.1.4.5.
const QUEUE: u32 = 1;
const CONFIG: u32 = 1 << 1;
/// More vectors are not tried one by one.
const MOST: u16 = 16;

/// Vectors that are switched on; skips where there are none.
fn vectors(plain: &Plain) -> Checked<Bells> {
    match plain.bells(MOST)? {
        Some(bells) => Ok(bells),
        None => skip!("there are no MSI-X vectors"),
    }
}

/// A function under the plain driver, live, with a queue that works.
struct Live<'b> {
    plain: Arc<Plain>,
    rig: Rig<'b>,
    lane: Lane,
}

impl<'b> Live<'b> {
    fn of(bench: &'b Bench<'b>, plain: Arc<Plain>) -> Checked<Self> {
        let traffic = bench.traffic()?[0];
        let rig = bench.rig(plain.clone())?;
        rig.reset()?;
        rig.negotiate(rig.plain(Variant::SPLIT))?;
        let lane = Lane::start(&rig, traffic, 16)?;
        rig.run()?;
        Ok(Self { plain, rig, lane })
    }

    /// A request, with a notification asked for.
    fn request(&mut self) -> Checked {
        self.lane.ring.arm();
        self.lane.exchange(&self.rig, 1, Cut::Whole)
    }

    fn isr(&self) -> Checked<u32> {
        let registers = &self.plain.registers;
        Ok(registers.read(&registers.isr, 0, Width::U8)?)
    }

    /// Waits until a bit of the ISR status was read, and returns all that were.
    fn isr_says(&self, bit: u32, what: &str) -> Checked<u32> {
        let mut said = 0;
        self.rig.bench().until(what, || {
            said |= self.isr()?;
            Ok(said & bit != 0)
        })?;
        Ok(said)
    }

    /// Changes the configuration from the management side; skips where that cannot be. Changed back once it is dropped.
    fn change(&self) -> Checked<Undo<'_, 'b>> {
        let change = change(&self.rig)?;
        let was = image(&self.rig)?;
        let undo = Undo {
            rig: &self.rig,
            to: change.back,
        };
        self.rig.bench().manage(&self.rig, change.to)?;
        self.rig
            .bench()
            .until("a change of the configuration", || {
                Ok(image(&self.rig)? != was)
            })?;
        Ok(undo)
    }
}

pub(super) fn isr(bench: &Bench<'_>) -> Checked {
    let mut live = Live::of(bench, bench.registers()?)?;
    // Without MSI-X a queue shows there too.
    let before = live.isr()?;
    ensure!(
        before & !(QUEUE | CONFIG) == 0,
        "the ISR status reads {before:#x}, which has unknown bits"
    );
    live.request()?;
    live.isr_says(QUEUE, "the queue bit in the ISR status")?;
    live.rig.bench().quiet();
    let again = live.isr()?;
    ensure!(
        again & QUEUE == 0,
        "the ISR status was read, and reads {again:#x} still"
    );
    let undo = match live.change() {
        Ok(undo) => undo,
        Err(Stop::Skipped(reason)) => {
            skip!("the queue bit is right, and the configuration cannot be changed: {reason}")
        }
        Err(stop) => return Err(stop),
    };
    live.isr_says(CONFIG, "the configuration bit in the ISR status")?;
    let again = live.isr()?;
    ensure!(
        again & CONFIG == 0,
        "the ISR status was read, and reads {again:#x} still"
    );
    drop(undo);
    drop(live);
    // With MSI-X the bit is there before the vector calls.
    let live = Live::of(bench, bench.registers()?)?;
    let Some(bells) = live.plain.bells(1)? else {
        return Ok(());
    };
    live.isr()?;
    if live.plain.map_config(0)? != 0 {
        return Ok(());
    }
    let undo = live.change()?;
    bench.until("a call for the configuration", || Ok(bells.total() > 0))?;
    let said = live.isr()?;
    ensure!(
        said & CONFIG != 0,
        "a vector has called for the configuration, and the ISR status reads {said:#x}"
    );
    drop(undo);
    Ok(())
}

/// The vectors that are tried: all of few, the ends and the middle of many.
fn tried(bench: &Bench<'_>, count: u16) -> Vec<u16> {
    match bench.times(MOST.into(), 3) {
        most if u32::from(count) <= most => (0..count).collect(),
        _ => vec![0, count / 2, count - 1],
    }
}

pub(super) fn any_vector(bench: &Bench<'_>) -> Checked {
    let plain = bench.registers()?;
    let bells = vectors(&plain)?;
    let table = plain.registers.table_size()?;
    let mut live = Live::of(bench, plain)?;
    let q = live.lane.index();
    let mut mapped = 0;
    for vector in tried(bench, bells.count()) {
        let read = live.plain.map_config(vector)?;
        ensure!(
            read == vector || read == NO_VECTOR,
            "{vector} was written to config_msix_vector, and it reads {read:#x}"
        );
        live.plain.map_config(NO_VECTOR)?;
        let read = live.plain.map_queue(q, vector)?;
        ensure!(
            read == vector || read == NO_VECTOR,
            "{vector} was written to queue_msix_vector of queue {q}, and it reads {read:#x}"
        );
        if read == NO_VECTOR {
            continue;
        }
        mapped += 1;
        let before = bells.of_vector(vector);
        live.request()?;
        bench.until(&format!("a call of vector {vector}"), || {
            Ok(bells.of_vector(vector) > before)
        })?;
        let other = bells.total() - (0..=vector).map(|v| bells.of_vector(v)).sum::<u32>();
        ensure!(
            other == 0,
            "queue {q} was mapped to vector {vector}, and one behind it has called"
        );
    }
    ensure!(mapped > 0, "no queue was mapped to any of the vectors");
    // What cannot be mapped is a failure, and reads as one.
    let Some(beyond) = table.filter(|table| *table < NO_VECTOR) else {
        return Ok(());
    };
    for (name, read) in [
        ("config_msix_vector", live.plain.map_config(beyond)?),
        ("queue_msix_vector", live.plain.map_queue(q, beyond)?),
    ] {
        ensure!(
            read == NO_VECTOR,
            "there are {beyond} vectors, {beyond} was written to {name}, and it reads {read:#x}"
        );
    }
    live.plain.map_queue(q, NO_VECTOR)?;
    match live.change() {
        Ok(undo) => drop(undo),
        // That of queues is what there is to be seen.
        Err(Stop::Skipped(_)) => return Ok(()),
        Err(stop) => return Err(stop),
    }
    for vector in tried(bench, bells.count()) {
        if live.plain.map_config(vector)? != vector {
            continue;
        }
        let before = bells.of_vector(vector);
        let _undo = live.change()?;
        bench.until(
            &format!("a call of vector {vector} for the configuration"),
            || Ok(bells.of_vector(vector) > before),
        )?;
    }
    Ok(())
}

pub(super) fn unmapped(bench: &Bench<'_>) -> Checked {
    let plain = bench.registers()?;
    let bells = vectors(&plain)?;
    let live = Live::of(bench, plain)?;
    let mut queues = vec![live.lane.index()];
    queues.extend(live.lane.other.iter().map(|other| other.index()));
    for _ in 0..bench.times(3, 1) {
        for vector in tried(bench, bells.count()) {
            let there = live.plain.map_config(vector)?;
            let gone = live.plain.map_config(NO_VECTOR)?;
            ensure!(
                gone == NO_VECTOR,
                "config_msix_vector read {there:#x}, was unmapped, and reads {gone:#x}"
            );
            for q in &queues {
                let there = live.plain.map_queue(*q, vector)?;
                let gone = live.plain.map_queue(*q, NO_VECTOR)?;
                ensure!(
                    gone == NO_VECTOR,
                    "queue_msix_vector of queue {q} read {there:#x}, was unmapped, and reads {gone:#x}"
                );
            }
        }
    }
    Ok(())
}

/// Nothing is mapped to any vector, from the beginning on or again: what is completed calls nobody.
pub(super) fn silent_queue(bench: &Bench<'_>) -> Checked {
    let plain = bench.registers()?;
    let bells = vectors(&plain)?;
    let mut live = Live::of(bench, plain)?;
    for _ in 0..4 {
        live.request()?;
    }
    bench.quiet();
    let calls = bells.total();
    ensure!(
        calls == 0,
        "{calls} calls of a queue that is mapped to no vector"
    );
    let q = live.lane.index();
    if live.plain.map_queue(q, 0)? != 0 {
        return Ok(());
    }
    live.request()?;
    bench.until("a call of vector 0", || Ok(bells.total() > 0))?;
    unmap_quietly(bench, &bells, || live.plain.map_queue(q, NO_VECTOR))?;
    let before = bells.total();
    live.request()?;
    bench.quiet();
    let calls = bells.total() - before;
    ensure!(
        calls == 0,
        "{calls} calls of a queue that was mapped, and is no more"
    );
    Ok(())
}

/// Unmaps, and has what is on its way arrive.
fn unmap_quietly(bench: &Bench<'_>, bells: &Bells, unmap: impl Fn() -> Checked<u16>) -> Checked {
    let read = unmap()?;
    ensure!(
        read == NO_VECTOR,
        "a vector was unmapped, and reads {read:#x}"
    );
    let mut before = bells.total();
    loop {
        bench.quiet();
        let now = bells.total();
        if now == before {
            return Ok(());
        }
        before = now;
    }
}

pub(super) fn silent_config(bench: &Bench<'_>) -> Checked {
    let plain = bench.registers()?;
    let bells = vectors(&plain)?;
    let live = Live::of(bench, plain)?;
    let undo = live.change()?;
    bench.quiet();
    let calls = bells.total();
    ensure!(
        calls == 0,
        "{calls} calls for a configuration that is mapped to no vector"
    );
    drop(undo);
    if live.plain.map_config(0)? != 0 {
        return Ok(());
    }
    let undo = live.change()?;
    bench.until("a call of vector 0", || Ok(bells.total() > 0))?;
    unmap_quietly(bench, &bells, || live.plain.map_config(NO_VECTOR))?;
    let before = bells.total();
    drop(undo);
    let _undo = live.change()?;
    bench.quiet();
    let calls = bells.total() - before;
    ensure!(
        calls == 0,
        "{calls} calls for a configuration that was mapped, and is no more"
    );
    Ok(())
}

/// See statement 12: after a reset nothing is mapped.
pub(crate) fn unmapped_by_reset(bench: &Bench<'_>) -> Checked {
    let plain = bench.registers()?;
    let bells = vectors(&plain)?;
    let live = Live::of(bench, plain)?;
    let count = live.rig.device.info().queues;
    let last = bells.count() - 1;
    let (mut mapped, mut there) = (0, Vec::new());
    for q in 0..count {
        let index = QueueIndex::new(q);
        if live.rig.device.queue_limits(index)?.max_size > 0 {
            mapped += u32::from(live.plain.map_queue(index, last)? == last);
            there.push(index);
        }
    }
    mapped += u32::from(live.plain.map_config(last)? == last);
    ensure!(mapped > 0, "nothing was mapped to vector {last}");
    live.rig.reset()?;
    let registers = &live.plain.registers;
    let read = registers.get(crate::registers::reg::CONFIG_MSIX_VECTOR)?;
    ensure!(
        read == u64::from(NO_VECTOR),
        "config_msix_vector reads {read:#x} after a reset"
    );
    for q in there {
        let field = crate::registers::reg::QUEUE_MSIX_VECTOR;
        live.plain
            .reads(q.get(), field, NO_VECTOR.into(), "after a reset")?;
    }
    Ok(())
}

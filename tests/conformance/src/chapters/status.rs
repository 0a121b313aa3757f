//! Status and reset.

use super::{REGISTERS, any};
use crate::checked::ensure;
use crate::lane::{Cut, Lane, Traffic};
use crate::statement::Check::{Once, OutOfReach, Rings};
use crate::statement::{Entry, device, driver, should};
use crate::{Bench, Checked, Variant};

pub(crate) const STATEMENTS: &[Entry] = &[
    device(
        1,
        "2.1",
        "Status reads 0 after reset",
        Once(reads_zero_after_reset),
    ),
    device(
        2,
        "2.1.2",
        "No buffer is consumed before DRIVER_OK, even if kicked early",
        OutOfReach("not written yet"),
    ),
    device(
        3,
        "2.1.2",
        "No used notification before DRIVER_OK",
        Rings(any, calls_nobody_before_driver_ok),
    ),
    device(
        4,
        "2.1.2",
        "NEEDS_RESET while DRIVER_OK is set raises a config-change notification",
        OutOfReach("not written yet"),
    ),
    should(
        5,
        "2.1.2",
        "An unrecoverable ring error raises NEEDS_RESET",
        OutOfReach("not written yet"),
    ),
    driver(
        6,
        "2.1.1",
        "Status bits are cleared only by reset",
        OutOfReach("not written yet"),
    ),
    driver(
        7,
        "2.1.1",
        "After FAILED, reset comes before a new initialisation",
        OutOfReach("not written yet"),
    ),
    device(
        8,
        "2.4.1",
        "Reset leads to status 0",
        OutOfReach("not written yet"),
    ),
    device(
        9,
        "2.4.1",
        "After status 0: no notification and no ring access (canary memory stays untouched)",
        OutOfReach("not written yet"),
    ),
    driver(
        10,
        "4.1.4.3.2",
        "The driver side waits for status 0 before it initialises again, with a deadline",
        OutOfReach("not written yet"),
    ),
    device(
        11,
        "4.1.4.3.1",
        "Every queue_enable reads 0 after reset",
        OutOfReach(REGISTERS),
    ),
    device(
        12,
        "4.1.5.1.2.1",
        "All MSI-X vectors are unmapped after reset",
        OutOfReach(REGISTERS),
    ),
];

fn reads_zero_after_reset(bench: &Bench<'_>) -> Checked {
    let rig = bench.open()?;
    rig.negotiate(rig.plain(Variant::SPLIT))?;
    rig.run()?;
    rig.reset()?;
    let read = rig.status()?;
    ensure!(read.is_empty(), "the status reads {read} after a reset");
    Ok(())
}

fn calls_nobody_before_driver_ok(bench: &Bench<'_>, variant: Variant) -> Checked {
    for &traffic in Traffic::of(bench.device_type())? {
        let rig = bench.open()?;
        rig.negotiate(rig.plain(variant))?;
        let mut lane = Lane::start(&rig, traffic, 16)?;
        lane.ring.arm();
        let request = lane.request(&rig)?;
        lane.add(&request, Cut::Whole)?;
        lane.ring.publish();
        lane.ring.kick();
        bench.quiet();
        let calls = lane.ring.calls();
        ensure!(calls == 0, "{traffic:?}: {calls} calls before DRIVER_OK");
        // It was not lost either: the queue is looked at once the device is live.
        rig.run()?;
        lane.provoke(&rig, std::slice::from_ref(&request))?;
        let done = lane.ring.wait(&rig, 1)?;
        for done in done {
            lane.judge(&rig, &request, done)?;
        }
    }
    Ok(())
}

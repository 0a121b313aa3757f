//! Status and reset.

mod behaviour;
mod driver_side;

use vdpa_core::Area;

use super::any;
use super::pci::unmapped_by_reset;
use super::queues::registers;
use crate::checked::fail;
use crate::lane::{Cut, Lane, Traffic};
use crate::statement::Check::{Once, Rings};
use crate::statement::{Entry, device, driver, should};
use crate::{Checked, Rig, Ring, Variant};

pub(crate) const STATEMENTS: &[Entry] = &[
    device(
        1,
        "2.1",
        "Status reads 0 after reset",
        Once(behaviour::reads_zero_after_reset),
    ),
    device(
        2,
        "2.1.2",
        "No buffer is consumed before DRIVER_OK, even if kicked early",
        Rings(any, behaviour::consumes_nothing_before_driver_ok),
    ),
    device(
        3,
        "2.1.2",
        "No used notification before DRIVER_OK",
        Rings(any, behaviour::calls_nobody_before_driver_ok),
    ),
    device(
        4,
        "2.1.2",
        "NEEDS_RESET while DRIVER_OK is set raises a config-change notification",
        Once(behaviour::needs_reset_is_told),
    ),
    should(
        5,
        "2.1.2",
        "An unrecoverable ring error raises NEEDS_RESET",
        Rings(any, behaviour::needs_reset_after_an_error),
    ),
    driver(
        6,
        "2.1.1",
        "Status bits are cleared only by reset",
        Once(driver_side::bits_stay_until_reset),
    ),
    driver(
        7,
        "2.1.1",
        "After FAILED, reset comes before a new initialisation",
        Once(driver_side::failed_needs_a_reset),
    ),
    device(
        8,
        "2.4.1",
        "Reset leads to status 0",
        Once(behaviour::resets_from_every_state),
    ),
    device(
        9,
        "2.4.1",
        "After status 0: no notification and no ring access (canary memory stays untouched)",
        Rings(any, behaviour::rests_after_reset),
    ),
    driver(
        10,
        "4.1.4.3.2",
        "The driver side waits for status 0 before it initialises again, with a deadline",
        Once(driver_side::waits_for_zero),
    ),
    device(
        11,
        "4.1.4.3.1",
        "Every queue_enable reads 0 after reset",
        Once(registers::disabled_by_reset),
    ),
    device(
        12,
        "4.1.5.1.2.1",
        "All MSI-X vectors are unmapped after reset",
        Once(unmapped_by_reset),
    ),
];

/// An error that no device goes on from in this queue: an available index that is ahead by more than the queue holds, or
/// a chain that has no end.
fn break_ring(rig: &Rig<'_>, ring: &Ring) -> Checked {
    const NEXT: u16 = 1;
    const AVAIL: u16 = 1 << 7;
    if ring.variant().is_packed() {
        let piece = rig.alloc(64)?;
        // The first one last, as a driver does: with it the device sees the others.
        for slot in (0..ring.size()).rev() {
            ring.put_descriptor(slot, piece.at, piece.len, [slot, NEXT | AVAIL]);
        }
    } else {
        let idx = ring.load_u16(Area::Driver, 2);
        let ahead = idx.wrapping_add(ring.size()).wrapping_add(1);
        ring.store_u16(Area::Driver, 2, ahead);
    }
    ring.kick();
    Ok(())
}

/// The traffic whose queue is looked at without more ado, and a live lane of it.
fn live(rig: &Rig<'_>, variant: Variant) -> Checked<Lane> {
    let traffic = match Traffic::of(rig.device.info().device_type)? {
        [first, ..] => *first,
        [] => fail!("no traffic"),
    };
    rig.negotiate(rig.plain(variant))?;
    let lane = Lane::start(rig, traffic, 16)?;
    rig.run()?;
    Ok(lane)
}

/// After a reset everything goes as if nothing had been.
fn again(rig: &Rig<'_>) -> Checked {
    rig.reset()?;
    let mut lane = live(rig, Variant::SPLIT)?;
    lane.exchange(rig, 1, Cut::Whole)
        .map_err(|stop| stop.about("after a reset"))
}

/// Where two images of the same memory differ first.
pub(crate) fn first_difference(before: &[u8], after: &[u8]) -> Option<usize> {
    before.iter().zip(after).position(|(a, b)| a != b)
}

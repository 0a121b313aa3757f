//! Queue reset (RING_RESET).

mod registers;

use std::time::Duration;

use vdpa_core::{
    Area, Call, Device, Error, Features, Kick, QueueConfig, QueueIndex, Relay, Status, bits,
};
use vdpa_mem::Deadline;

use super::any;
use super::status::first_difference;
use crate::checked::{ensure, fail};
use crate::driven;
use crate::lane::{Cut, Lane, Traffic, packet};
use crate::puppet::Script;
use crate::recorder::{Heard, Recorder};
use crate::statement::Check::{Once, Rings};
use crate::statement::{Entry, device, driver};
use crate::{Bench, Checked, Rig, Ring, Variant};

pub(crate) const STATEMENTS: &[Entry] = &[
    device(
        50,
        "2.6.1.1.1",
        "No request runs and nothing is notified after queue reset",
        Rings(any, rests_after_queue_reset),
    ),
    device(
        51,
        "2.6.1.1.1",
        "Available and used state return to their defaults",
        Rings(any, begins_anew),
    ),
    device(
        52,
        "4.1.4.3.1",
        "queue_reset reads 1 while ongoing",
        Once(registers::ongoing),
    ),
    device(
        53,
        "4.1.4.3.1",
        "queue_reset and queue_enable both read 0 when it is complete",
        Once(registers::complete),
    ),
    device(
        54,
        "4.1.4.3.1",
        "queue_reset is 0 after device reset and after re-enable",
        Once(registers::cleared),
    ),
    device(
        55,
        "2.6.1.2.1",
        "Re-enable honours a changed size and changed addresses",
        Rings(any, honours_what_changed),
    ),
    driver(
        56,
        "2.6.1.1.2",
        "The driver side verifies that the reset completed",
        Once(verified_everywhere),
    ),
];

/// A live device with a queue of this traffic that has served some requests.
fn worked<'b>(
    bench: &'b Bench<'b>,
    variant: Variant,
    traffic: Traffic,
) -> Checked<(Rig<'b>, Lane)> {
    bench.require(bits::RING_RESET)?;
    let rig = bench.open()?;
    rig.negotiate(rig.plain(variant))?;
    let mut lane = Lane::start(&rig, traffic, 8)?;
    rig.run()?;
    lane.exchange(&rig, 3, Cut::Whole)?;
    Ok((rig, lane))
}

fn rests_after_queue_reset(bench: &Bench<'_>, variant: Variant) -> Checked {
    for &traffic in bench.traffic()? {
        let (rig, mut lane) = worked(bench, variant, traffic)?;
        lane.ring.arm();
        // One is under way when the reset comes, or waits for what never comes.
        let under_way = lane.request(&rig)?;
        lane.add(&under_way, Cut::Whole)?;
        lane.ring.publish();
        rig.device.reset_queue(lane.index(), bench.by())?;
        // One is shown and kicked for afterwards.
        let (mut buffers, mut shown) = (under_way.writable, Vec::new());
        if lane.room() > 0 {
            let request = lane.request(&rig)?;
            shown.push(lane.add(&request, Cut::Whole)?);
            lane.ring.publish_silently();
            buffers.extend(request.writable);
        }
        // What the queue beside it needs for its work, which goes on meanwhile.
        let frame = rig.place(&packet(0))?;
        let look = |ring: &Ring| match traffic {
            // The queue beside it may write to its own ring at any time.
            Traffic::Receive | Traffic::Transmit => [
                ring.image(Area::Descriptor),
                ring.image(Area::Driver),
                ring.image(Area::Device),
                image_of(&rig, &buffers),
            ]
            .concat(),
            Traffic::Disk | Traffic::Entropy => rig.image(),
        };
        // A call may be on its way, through another thread.
        bench.quiet();
        let (before, calls) = (look(&lane.ring), lane.ring.calls());
        lane.ring.kick();
        if let (Traffic::Receive, Some(transmit)) = (traffic, &mut lane.other) {
            transmit.add(&[frame], &[])?;
            transmit.publish();
            transmit.wait(&rig, 1)?;
        }
        bench.quiet();
        let touched = first_difference(&before, &look(&lane.ring));
        ensure!(
            touched.is_none(),
            "{traffic:?}: memory was written after the reset of the queue, first at byte {touched:?}"
        );
        // One that looks by itself may have been done before the first look.
        lane.ring
            .rests(&shown)
            .map_err(|stop| stop.about(format_args!("{traffic:?}")))?;
        let more = lane.ring.calls() - calls;
        ensure!(
            more == 0,
            "{traffic:?}: {more} calls after the reset of the queue"
        );
        let read = rig.status()?;
        ensure!(
            read.contains(Status::DRIVER_OK) && !read.contains(Status::DEVICE_NEEDS_RESET),
            "{traffic:?}: the status reads {read} after the reset of a queue"
        );
    }
    Ok(())
}

fn image_of(rig: &Rig<'_>, pieces: &[crate::Piece]) -> Vec<u8> {
    pieces.iter().flat_map(|piece| rig.read(*piece)).collect()
}

/// Resets the queue of a lane, and starts it with a fresh ring of this size.
fn renew(rig: &Rig<'_>, lane: Lane, size: u16) -> Checked<Lane> {
    let q = lane.index();
    rig.device.reset_queue(q, rig.bench().by())?;
    let ring = rig.queue(q.get(), size)?;
    Ok(Lane::with(lane.traffic, ring, lane.other))
}

fn begins_anew(bench: &Bench<'_>, variant: Variant) -> Checked {
    for &traffic in bench.traffic()? {
        let (rig, mut lane) = worked(bench, variant, traffic)?;
        // Where it stands differs from a fresh ring in every number: 3 requests of 8 slots, then around the end.
        for round in 0..3 {
            lane = renew(&rig, lane, 8)?;
            let count = if round == 1 { 5 } else { 1 };
            for _ in 0..count {
                lane.exchange(&rig, 1, Cut::Whole).map_err(|stop| {
                    stop.about(format!("{traffic:?}, after {} queue resets", round + 1))
                })?;
            }
        }
    }
    Ok(())
}

fn honours_what_changed(bench: &Bench<'_>, variant: Variant) -> Checked {
    for &traffic in bench.traffic()? {
        let (rig, mut lane) = worked(bench, variant, traffic)?;
        for size in [4, 16, 8] {
            let old = Area::ALL.map(|area| lane.ring.area(area));
            lane = renew(&rig, lane, size)?;
            for piece in old {
                rig.fill(piece, 0xa7);
            }
            // Around the smallest one, which is where its size is seen. Not around the others: frames that nobody receives
            // may stop a sender.
            let count = if size == 4 { 6 } else { 3 };
            for _ in 0..count {
                lane.exchange(&rig, 1, Cut::Whole).map_err(|stop| {
                    stop.about(format!("{traffic:?}, started again with size {size}"))
                })?;
            }
            for (area, piece) in Area::ALL.into_iter().zip(old) {
                let written = rig.read(piece).iter().filter(|b| **b != 0xa7).count();
                ensure!(
                    written == 0,
                    "{traffic:?}: {written} bytes of the old {area} were written"
                );
            }
        }
    }
    Ok(())
}

fn verified_everywhere(bench: &Bench<'_>) -> Checked {
    verifies(bench)?;
    match bench.has_function() {
        true => registers::verifies(bench),
        false => Ok(()),
    }
}

fn verifies(bench: &Bench<'_>) -> Checked {
    let negotiated = Features::of(&[bits::VERSION_1, bits::RING_RESET]);
    let q = QueueIndex::new(0);
    for looks in [Some(0), Some(30), None] {
        let script = Script {
            queue_resets_after: looks,
            ..Script::plain(bench.device_type())
        };
        let recorder = Recorder::around(script.make());
        let device = Device::new(recorder.clone(), Relay::new())?;
        let rig = Rig::new(bench, device)?;
        rig.negotiate(negotiated)?;
        let ring = Ring::new(&rig, 0, 16)?;
        let config = ring.config(None);
        start(&rig, q, config)?;
        rig.run()?;
        rig.device.begin_reset_queue(q)?;
        if looks != Some(0) {
            // Neither started again nor looked upon as gone before it is.
            let again = start(&rig, q, config);
            ensure!(
                matches!(again, Err(Error::QueueBusy { .. })),
                "started again while it is being reset: {again:?}"
            );
        }
        let by = match looks {
            Some(_) => bench.by(),
            None => Deadline::after(Duration::from_millis(20)),
        };
        match (rig.device.reset_queue(q, by), looks) {
            (Ok(()), Some(_)) | (Err(Error::Timeout { .. }), None) => {}
            (ended, _) => fail!("a reset that takes {looks:?} looks ended so: {ended:?}"),
        }
        if looks.is_some() {
            start(&rig, q, config)?;
        }
        verified(&recorder.heard(), looks.is_some())?;
    }
    // The target's own.
    bench.require(bits::RING_RESET)?;
    let recorder = driven::recorded(bench)?;
    let rig = bench.rig(recorder.clone())?;
    rig.negotiate(rig.plain(Variant::SPLIT))?;
    let traffic = bench.traffic()?;
    let lane = Lane::start(&rig, traffic[0], 8)?;
    rig.run()?;
    let q = lane.index();
    let from = recorder.len();
    rig.device.reset_queue(q, bench.by())?;
    let _again = rig.queue(q.get(), 8)?;
    verified(&recorder.since(from), true)
}

fn start(rig: &Rig<'_>, q: QueueIndex, config: QueueConfig) -> vdpa_core::Result<()> {
    rig.device
        .start_queue(q, config, Kick::Taken, Call::None)
        .map(drop)
}

/// Between the beginning of a queue's reset and its next start it was seen to be over. Where it never is, nothing follows.
fn verified(heard: &[Heard], ends: bool) -> Checked {
    let Some(begun) = heard.iter().position(|h| matches!(h, Heard::QueueReset(_))) else {
        fail!("no reset of a queue was begun: {heard:?}");
    };
    let after = &heard[begun..];
    let over = after
        .iter()
        .position(|h| *h == Heard::QueueResetPolled { done: true });
    let next = after.iter().position(|h| matches!(h, Heard::Start(..)));
    match (over, next, ends) {
        (Some(over), Some(next), true) if over < next => Ok(()),
        (None, None, false) => Ok(()),
        _ => fail!("the reset was not verified: {after:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vdpa_mem::Iova;

    #[test]
    fn a_reset_that_is_not_verified_is_found() {
        let (q, at) = (QueueIndex::new(0), Iova::new(0));
        let start = Heard::Start(q, QueueConfig::new(8, at, at, at));
        let over = |done| Heard::QueueResetPolled { done };
        let good = [Heard::QueueReset(q), over(false), over(true), start.clone()];
        verified(&good, true).unwrap();
        let hasty = [Heard::QueueReset(q), over(false), start.clone(), over(true)];
        assert!(verified(&hasty, true).is_err());
        verified(&hasty[..2], false).unwrap();
        assert!(verified(&[Heard::QueueReset(q), start], false).is_err());
    }
}
